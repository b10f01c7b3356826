//! One HTTP request: which part of the edge answers it.
//!
//! The order of checks for the endpoint is the reference's: transport, session or method, version; with the
//! origin before them all and the version before a WebSocket is accepted.

use std::borrow::Cow;
use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;
use engineio_proto::handshake::{ErrorCode, Query};
use engineio_proto::payload::BodyForm;
use engineio_proto::{ProtocolVersion, TransportKind};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::admission::{Origin, client_address};
use super::static_files::{gzip, is_bundle_name};
use super::{Site, body, cors, error_body, forward, relay, upgrade};
use crate::config::TransportName;
use crate::ids::SessionId;
use crate::session::app::{Handshake, SessionApp};
use crate::session::drive::OpenRequest;
use crate::session::registry::Opening;
use crate::shard::Shard;
use crate::transport::polling::{self, PollMethod, PollRequest};
use crate::transport::reply::Reply;
use crate::transport::tunnel::Tunnel;

/// What happens to a connection after `101 Switching Protocols`.
#[derive(Debug)]
pub enum AfterUpgrade {
    /// It opens a session.
    Open(Box<OpenRequest>),
    /// It joins a session that began by polling.
    Join(SessionId),
    /// It joins a session on another node.
    Relay(Box<Tunnel>),
    /// It is a plain echo.
    Echo,
}

type After = Rc<RefCell<Option<AfterUpgrade>>>;

/// What is known of a client before its request is looked at.
#[derive(Clone, Copy, Debug)]
struct Client {
    address: IpAddr,
    trusted: bool,
}

/// Answers one request.
///
/// # Errors
/// Never: whatever is wrong becomes a response.
pub async fn answer<A: SessionApp>(
    shard: Rc<Shard<A>>,
    peer: SocketAddr,
    after: After,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    shard.metrics.requests.add(1);
    let site = shard.site.clone();
    let headers = request.headers();
    let accepts_gzip = accepts_gzip(headers);
    let script_guard = is_old_explorer(headers);
    let (address, trusted) = client_address(&site.config, peer.ip(), headers);
    let client = Client { address, trusted };
    let reply = if head_bytes(&request) > site.config.limits.http_header_bytes_max {
        shard.metrics.limit_hits.add(1);
        Reply::empty(431)
    } else {
        match below(&site.config.path, request.uri().path()) {
            Some(name) if is_bundle_name(name) => bundle(&site, name, &request, accepts_gzip),
            Some(_) => endpoint(shard, client, after, request).await,
            None => page(&site, &after, &request, accepts_gzip),
        }
    };
    Ok(respond(&site, reply, accepts_gzip, script_guard))
}

/// What follows the endpoint's path: empty for the path itself, with or without its slash.
fn below<'p>(endpoint: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(endpoint.trim_end_matches('/'))?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

fn head_bytes(request: &Request<Incoming>) -> usize {
    let uri = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() + uri
}

/// A header's value as text.
pub(super) fn text_header(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    text_header(headers, header::ACCEPT_ENCODING).is_some_and(|accepted| {
        accepted.split(',').any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next() == Some("gzip") && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
        })
    })
}

/// These read a response as a script unless told not to, as the reference tells them.
fn is_old_explorer(headers: &HeaderMap) -> bool {
    text_header(headers, header::USER_AGENT)
        .is_some_and(|agent| agent.contains(";MSIE") || agent.contains("Trident/"))
}

fn bundle(site: &Site, name: &str, request: &Request<Incoming>, accepts_gzip: bool) -> Reply {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Reply::empty(405).with_header("allow", "GET, HEAD");
    }
    site.files.bundle(name, text_header(request.headers(), header::IF_NONE_MATCH), accepts_gzip)
}

fn page(site: &Site, after: &After, request: &Request<Incoming>, accepts_gzip: bool) -> Reply {
    let path = request.uri().path();
    if site.demo && path == "/echo" {
        return match upgrade::accept(request) {
            Ok(reply) => {
                after.replace(Some(AfterUpgrade::Echo));
                reply
            }
            Err(refusal) => refusal,
        };
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Reply::empty(404);
    }
    let known = text_header(request.headers(), header::IF_NONE_MATCH);
    site.files.page(path, known, accepts_gzip).unwrap_or_else(|| {
        let text = format!(
            "Nothing is here. Socket.IO clients connect to {}/\n",
            site.config.path.trim_end_matches('/')
        );
        Reply::new(404, "text/plain; charset=UTF-8", text)
    })
}

async fn endpoint<A: SessionApp>(
    shard: Rc<Shard<A>>,
    client: Client,
    after: After,
    request: Request<Incoming>,
) -> Reply {
    let site = shard.site.clone();
    let origin = site.origins.judge(request.headers(), client.trusted);
    let cors = cors::headers(origin);
    let is_websocket = upgrade::is_upgrade(request.headers());
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if is_preflight && !cors.is_empty() {
        return cors::preflight(request.headers(), cors);
    }
    let refused = match origin {
        Origin::Refused => {
            shard.metrics.origins_refused.add(1);
            Some(ErrorCode::Forbidden)
        }
        Origin::Invalid => Some(ErrorCode::BadRequest),
        Origin::Own | Origin::Listed(_) | Origin::Any => None,
    };
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let mut reply = match refused.map_or_else(|| verify(&site, &query, request.method(), is_websocket), Err) {
        Err(code) => refuse(&shard, code, is_websocket),
        Ok(session) if is_websocket => {
            websocket_request(&shard, client, after, &request, query, session).await
        }
        Ok(None) => handshake(&shard, client, &request, &query),
        Ok(Some(id)) if id.node() == site.node => poll(shard, client, request, query, id).await,
        Ok(Some(id)) => relay::poll(shard, client.address, request, &query, id).await,
    };
    reply.headers.extend(cors);
    reply
}

/// Checks a request as far as that needs no session; the session's id if it names one.
fn verify(
    site: &Site,
    query: &Query,
    method: &Method,
    is_websocket: bool,
) -> Result<Option<SessionId>, ErrorCode> {
    let transport = query.transport.ok_or(ErrorCode::TransportUnknown)?;
    let name = match transport {
        TransportKind::Polling => TransportName::Polling,
        TransportKind::WebSocket => TransportName::Websocket,
    };
    if !site.config.allows(name) {
        return Err(ErrorCode::TransportUnknown);
    }
    let mismatch = is_websocket != (transport == TransportKind::WebSocket);
    if let Some(sid) = &query.sid {
        let id = SessionId::parse(sid).ok_or(ErrorCode::SessionIdUnknown)?;
        return if mismatch { Err(ErrorCode::BadRequest) } else { Ok(Some(id)) };
    }
    if method != Method::GET {
        return Err(ErrorCode::BadHandshakeMethod);
    }
    if mismatch {
        return Err(ErrorCode::BadRequest);
    }
    match query.eio {
        Some(ProtocolVersion::V4) => Ok(None),
        Some(ProtocolVersion::V3) if site.config.eio3 => Ok(None),
        Some(ProtocolVersion::V3) | None => Err(ErrorCode::UnsupportedProtocolVersion),
    }
}

fn refuse<A: SessionApp>(shard: &Shard<A>, code: ErrorCode, is_websocket: bool) -> Reply {
    shard.metrics.handshakes_refused.add(1);
    if is_websocket { error_body::websocket(code) } else { error_body::polling(code) }
}

/// Opens a session by polling; the response carries its first packets.
fn handshake<A: SessionApp>(
    shard: &Rc<Shard<A>>,
    client: Client,
    request: &Request<Incoming>,
    query: &Query,
) -> Reply {
    if shard.site.is_full() {
        shard.metrics.sessions_refused.add(1);
        return error_body::too_many_sessions();
    }
    let Some(open) = open_request(shard, client, request, query, TransportKind::Polling) else {
        return refuse(shard, ErrorCode::BadRequest, false);
    };
    let id = open.id;
    let packets = shard.with(|core| {
        let key = core.open(open, Opening::Polling)?;
        Some(core.take_handshake_packets(key))
    });
    let Some(packets) = packets else { return error_body::too_many_sessions() };
    let reply = polling::payload_reply(shard, query, &packets);
    let cookie = &shard.site.config.cookie;
    if cookie.is_empty() {
        return reply;
    }
    reply.with_header("set-cookie", format!("{cookie}={id}; Path=/; HttpOnly; SameSite=Lax"))
}

fn open_request<A: SessionApp>(
    shard: &Rc<Shard<A>>,
    client: Client,
    request: &Request<Incoming>,
    query: &Query,
    transport: TransportKind,
) -> Option<OpenRequest> {
    let config = &shard.site.config;
    let headers = request.headers();
    let url = request.uri().path_and_query().map_or("", |url| url.as_str());
    let kept = url.floor_char_boundary(config.limits.url_bytes_max);
    let secure = client.trusted && text_header(headers, "x-forwarded-proto") == Some("https");
    let kept_headers = config.headers.iter().filter_map(|name| {
        let value = text_header(headers, name.as_str())?;
        Some((name.to_lowercase().into(), value.into()))
    });
    let version = query.eio?;
    let id = shard.with(|core| core.sessions.ids().session_id());
    if let Err(error) = &id {
        tracing::error!(%error, "no random numbers for a session id");
    }
    Some(OpenRequest {
        id: id.ok()?,
        version,
        base64: query.base64 || query.jsonp.is_some(),
        offer_upgrade: transport == TransportKind::Polling
            && config.allow_upgrades
            && config.allows(TransportName::Websocket),
        address: client.address,
        handshake: Handshake {
            version,
            time: SystemTime::now(),
            address: client.address,
            secure,
            url: url.get(..kept).unwrap_or_default().into(),
            url_cut: kept < url.len(),
            headers: kept_headers.collect(),
        },
    })
}

/// A request of a polling session: answered where the session lives, while this connection reads the body.
async fn poll<A: SessionApp>(
    shard: Rc<Shard<A>>,
    client: Client,
    request: Request<Incoming>,
    query: Query,
    id: SessionId,
) -> Reply {
    let is_octets = text_header(request.headers(), header::CONTENT_TYPE) == Some("application/octet-stream");
    let form = if is_octets { BodyForm::Octets } else { BodyForm::Text };
    let bytes_max = shard.site.config.payload_bytes_max;
    let body_timeout = shard.site.config.limits.http_body_timeout();
    let (sender, arriving) = oneshot::channel();
    let method = match *request.method() {
        Method::GET => PollMethod::Get,
        Method::POST => PollMethod::Post(form, arriving),
        _ => PollMethod::Other,
    };
    let is_post = matches!(method, PollMethod::Post(..));
    let poll = PollRequest { id, query, address: client.address, method };
    let reader = shard.clone();
    let answer = forward::answer(shard, poll);
    if !is_post {
        return answer.await;
    }
    let reading = body::read(&reader, request.into_body(), bytes_max, body_timeout, sender);
    body::answer_while(reading, answer).await
}

async fn websocket_request<A: SessionApp>(
    shard: &Rc<Shard<A>>,
    client: Client,
    after: After,
    request: &Request<Incoming>,
    query: Query,
    session: Option<SessionId>,
) -> Reply {
    let accepted = match upgrade::accept(request) {
        Ok(reply) => reply,
        Err(refusal) => {
            shard.metrics.handshakes_refused.add(1);
            return refusal;
        }
    };
    let next = match session {
        Some(id) if id.node() != shard.site.node => {
            match relay::websocket(shard, client.address, &query, id).await {
                Ok(tunnel) => AfterUpgrade::Relay(tunnel),
                Err(relay::Refused::Code(code)) => return refuse(shard, code, true),
                Err(relay::Refused::Reply(reply)) => {
                    shard.metrics.handshakes_refused.add(1);
                    return reply;
                }
            }
        }
        Some(id) => match forward::inspect(shard, id, query.eio, client.address).await {
            Ok(()) => AfterUpgrade::Join(id),
            Err(code) => return refuse(shard, code, true),
        },
        None if shard.site.is_full() => {
            shard.metrics.sessions_refused.add(1);
            return error_body::too_many_sessions();
        }
        None => match open_request(shard, client, request, &query, TransportKind::WebSocket) {
            Some(open) => AfterUpgrade::Open(Box::new(open)),
            None => return refuse(shard, ErrorCode::BadRequest, true),
        },
    };
    after.replace(Some(next));
    accepted
}

fn respond(site: &Site, reply: Reply, accepts_gzip: bool, script_guard: bool) -> Response<Full<Bytes>> {
    let Reply { status, content_type, mut body, compressible, headers } = reply;
    let threshold = site.config.http_compression_bytes_min;
    let compress = compressible && accepts_gzip && threshold > 0 && body.len() >= threshold;
    if compress {
        body = gzip(&body);
    }
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let out = response.headers_mut();
    let content_type = match content_type {
        Cow::Borrowed(known) => Ok(HeaderValue::from_static(known)),
        Cow::Owned(relayed) => HeaderValue::try_from(relayed),
    };
    if let Ok(value) = content_type
        && !value.is_empty()
    {
        out.insert(header::CONTENT_TYPE, value);
    }
    if compress {
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if script_guard {
        out.insert("x-xss-protection", HeaderValue::from_static("0"));
    }
    if status == 200 && !headers.iter().any(|(name, _)| *name == "cache-control") {
        out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            out.append(HeaderName::from_static(name), value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_its_path_with_and_without_a_slash_and_what_is_below() {
        assert_eq!(below("/socket.io", "/socket.io"), Some(""));
        assert_eq!(below("/socket.io", "/socket.io/"), Some(""));
        assert_eq!(below("/socket.io/", "/socket.io"), Some(""));
        assert_eq!(below("/socket.io", "/socket.io/v2/socket.io.js"), Some("v2/socket.io.js"));
        assert_eq!(below("/socket.io", "/socket.iox"), None);
        assert_eq!(below("/socket.io", "/"), None);
    }

    #[test]
    fn gzip_is_used_only_where_it_is_accepted() {
        let check = |value: &str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        };
        check("gzip, deflate, br", true);
        check("br;q=1.0, gzip;q=0.8", true);
        check("gzip;q=0", false);
        check("identity", false);
        check("", false);
    }
}
