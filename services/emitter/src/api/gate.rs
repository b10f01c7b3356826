//! What every request goes through, on its way in and on its way out.
//!
//! In: a request id, a place among the requests under way, and who calls. Out: the document in the format that the
//! caller wants, the headers that all answers have, and the counters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::api::Api;
use crate::api::answer::Document;
use crate::api::call::{Format, format_of};
use crate::api::problem::{Code, Problem};
use crate::document::msgpack;
use crate::metrics::ROUTES;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// Longest request id that is taken over from a caller.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Lets a request through, or does not, and writes the answer.
pub(crate) async fn gate(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let request_id = request_id(request.headers());
    let format = answer_format(request.headers());
    let route = route(&request);
    let admitted = admit(&api, &mut request);
    let mut response = match admitted {
        Err(problem) => problem.into_response(),
        Ok(()) => match api.requests.try_acquire() {
            Err(_) => {
                api.metrics.requests_overloaded.add(1);
                Problem::new(Code::Overloaded, "too many requests are under way; try again").into_response()
            }
            Ok(_permit) => {
                let under_way = api.config.requests_max.saturating_sub(api.requests.available_permits());
                api.metrics.requests.set(under_way as u64);
                next.run(request).await
            }
        },
    };
    let under_way = api.config.requests_max.saturating_sub(api.requests.available_permits());
    api.metrics.requests.set(under_way as u64);
    write(&mut response, format, &request_id);
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response.headers_mut().insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    api.metrics.end(route, response.status().as_u16(), began.elapsed());
    response
}

/// Finds out who calls; the pages that describe the API are for everybody.
fn admit(api: &Api, request: &mut Request) -> Result<(), Problem> {
    if !request.uri().path().starts_with("/v1/") {
        return Ok(());
    }
    let headers = request.headers();
    if !api.config.wants_credentials() {
        check_origin(headers, request.uri())?;
    }
    let caller = api.credentials.judge(headers.get(AUTHORIZATION).map(HeaderValue::as_bytes))?;
    caller.charge().inspect_err(|_| api.metrics.rate_limited.add(1))?;
    request.extensions_mut().insert(caller);
    Ok(())
}

/// Without keys, the loopback address is the fence, and a browser is behind it whatever page it shows: so neither
/// another origin nor a name that somebody else made point here may call.
fn check_origin(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let refused = |what: &str| {
        let detail = format!("{what} is not this machine; configure emitter.keys_file and show a key");
        Err(Problem::new(Code::ForeignOrigin, detail))
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(|authority| authority.as_str()));
    if !host.is_some_and(is_this_machine) {
        return refused("the host that was asked for");
    }
    match headers.get(ORIGIN).map(HeaderValue::to_str) {
        None => Ok(()),
        Some(Ok(origin)) if origin.split_once("://").map(|(_, authority)| authority) == host => Ok(()),
        Some(_) => refused("the origin of the page that calls"),
    }
}

/// Whether a host, perhaps with a port, is `localhost` or a loopback address.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The position of the request's path among those that are counted.
fn route(request: &Request) -> usize {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let name = matched.map_or("other", |path| if path.starts_with("/docs") { "/docs" } else { path });
    ROUTES.iter().position(|route| *route == name).unwrap_or(ROUTES.len() - 1)
}

fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_plain = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    given.filter(is_plain).map_or_else(fresh_id, str::to_owned)
}

/// An id that nobody had before: sixteen characters.
pub(crate) fn fresh_id() -> String {
    let mut bytes = [0; 12];
    // Without random numbers the process would not have started; should they fail later, ids are only less useful.
    let _ = getrandom::fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What `Accept` asks for; without a wish the format of the body.
fn answer_format(headers: &HeaderMap) -> Format {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let wished = accept.split(',').find_map(|part| format_of(part.split(';').next().unwrap_or_default()));
    let body = || headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(format_of);
    wished.or_else(body).unwrap_or(Format::Json)
}

/// Writes the document or the problem that a response carries beside it.
fn write(response: &mut Response, format: Format, request_id: &str) {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        return write_problem(response, &problem, request_id);
    }
    let Some(Document(json)) = response.extensions_mut().remove::<Document>() else { return };
    let (kind, body) = match format {
        Format::Json => ("application/json", json.into_bytes()),
        Format::Msgpack => match msgpack::from_json(&json) {
            Some(body) => ("application/msgpack", body),
            None => {
                tracing::error!("an answer cannot be written as MessagePack");
                let problem = Problem::new(Code::Internal, "the answer cannot be written as MessagePack");
                return write_problem(response, &problem, request_id);
            }
        },
    };
    set_body(response, kind, body);
}

fn write_problem(response: &mut Response, problem: &Problem, request_id: &str) {
    tracing::debug!(%problem, request_id, "a call was refused");
    *response.status_mut() = problem.code.status();
    let headers = response.headers_mut();
    if let Some(seconds) = problem.retry_after_seconds() {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if problem.code.status() == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let document = problem.document(Some(request_id));
    let body = serde_json::to_vec(&document).unwrap_or_default();
    set_body(response, "application/problem+json", body);
}

fn set_body(response: &mut Response, kind: &'static str, body: Vec<u8>) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Whoever made the response may have set the length of an empty body.
    headers.remove(axum::http::header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn without_keys_only_this_machine_may_call() {
        let check = |pairs: &[(HeaderName, &'static str)], is_allowed: bool| {
            let outcome = check_origin(&headers(pairs), &Uri::from_static("/v1/emit"));
            assert_eq!(outcome.is_ok(), is_allowed, "{pairs:?}");
        };
        check(&[(HOST, "localhost:4000")], true);
        check(&[(HOST, "127.0.0.1:4000")], true);
        check(&[(HOST, "127.9.9.9")], true);
        check(&[(HOST, "[::1]:4000")], true);
        check(&[(HOST, "LOCALHOST")], true);
        check(&[(HOST, "evil.example:4000")], false);
        check(&[(HOST, "localhost.evil.example")], false);
        check(&[(HOST, "10.0.0.1:4000")], false);
        check(&[], false);
        check(&[(HOST, "localhost:4000"), (ORIGIN, "http://localhost:4000")], true);
        check(&[(HOST, "localhost:4000"), (ORIGIN, "http://localhost:3000")], false);
        check(&[(HOST, "localhost:4000"), (ORIGIN, "https://evil.example")], false);
        check(&[(HOST, "localhost:4000"), (ORIGIN, "null")], false);
    }

    #[test]
    fn accept_decides_over_the_format_and_then_the_body() {
        let check = |pairs: &[(HeaderName, &'static str)], format: Format| {
            assert_eq!(answer_format(&headers(pairs)), format, "{pairs:?}");
        };
        check(&[], Format::Json);
        check(&[(CONTENT_TYPE, "application/msgpack")], Format::Msgpack);
        check(&[(CONTENT_TYPE, "application/msgpack"), (ACCEPT, "*/*")], Format::Msgpack);
        check(&[(CONTENT_TYPE, "application/msgpack"), (ACCEPT, "application/json")], Format::Json);
        check(&[(ACCEPT, "text/html, application/x-msgpack;q=0.9, */*")], Format::Msgpack);
    }

    #[test]
    fn a_plain_request_id_is_taken_over() {
        assert_eq!(request_id(&headers(&[(REQUEST_ID, "abc-1")])), "abc-1");
        assert_eq!(request_id(&headers(&[(REQUEST_ID, "a b")])).len(), 16);
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
