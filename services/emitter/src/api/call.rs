//! A request behind the gate: who makes it, and what its body says.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::api::Api;
use crate::api::problem::{Code, Problem};
use crate::auth::Caller;
use crate::auth::scope::Action;
use crate::document::msgpack;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// Arrays and objects of a whole body inside one another: what arguments may have, and what is around them.
const DEPTH_AROUND: usize = 8;

/// In text a body may be larger than it was as MessagePack; so many times.
const TEXT_PER_BYTE: usize = 8;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// JSON.
    Json,
    /// MessagePack.
    Msgpack,
}

/// The format that a media type names, if it is one of ours. Parameters are passed over.
pub(crate) fn format_of(media_type: &str) -> Option<Format> {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Some(Format::Json),
        "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => Some(Format::Msgpack),
        essence if essence.starts_with("application/") && essence.ends_with("+json") => Some(Format::Json),
        _ => None,
    }
}

/// Who calls, and what travels along.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) caller: Caller,
    /// The W3C `traceparent` of the call, if it is well formed.
    pub(crate) trace_parent: Option<String>,
    /// The header `Idempotency-Key`.
    pub(crate) idempotency_key: Option<String>,
}

impl Context {
    fn of(request: &Request) -> Result<Self, Problem> {
        let caller = request.extensions().get::<Caller>().cloned();
        // The gate lets nobody through without.
        let caller = caller.ok_or_else(|| Problem::new(Code::MissingCredentials, "nobody calls"))?;
        let headers = request.headers();
        let trace_parent = headers.get(TRACE_PARENT).and_then(|value| value.to_str().ok());
        let idempotency_key = match headers.get(IDEMPOTENCY_KEY).map(HeaderValue::to_str) {
            None => None,
            Some(Ok(key)) => Some(key.to_owned()),
            Some(Err(_)) => {
                let detail = "an idempotency key in a header has ASCII letters only; give it in the body";
                return Err(Problem::new(Code::InvalidHeader, detail).about("Idempotency-Key"));
            }
        };
        if let Some(key) = &idempotency_key {
            crate::idempotency::check_key(key).map_err(|problem| problem.about("Idempotency-Key"))?;
        }
        Ok(Self {
            caller,
            trace_parent: trace_parent.filter(|value| is_trace_parent(value)).map(str::to_owned),
            idempotency_key,
        })
    }

    /// Checks that the caller may do this.
    pub(crate) fn may(&self, action: Action, namespace: &str) -> Result<(), Problem> {
        self.caller.may(action, namespace)
    }
}

/// A request without a body.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) context: Context,
    /// What stands behind `?`.
    pub(crate) query: String,
}

impl FromRequest<Arc<Api>> for Question {
    type Rejection = Problem;

    async fn from_request(request: Request, _api: &Arc<Api>) -> Result<Self, Problem> {
        let context = Context::of(&request)?;
        Ok(Self { context, query: request.uri().query().unwrap_or_default().to_owned() })
    }
}

/// A request with a body, as JSON text whatever it came as.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) context: Context,
    text: String,
    /// The bytes set aside for the body; given back with the call.
    _room: OwnedSemaphorePermit,
}

impl Call {
    /// Reads the body as the fields of a call.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        parse(&self.text)
    }
}

impl FromRequest<Arc<Api>> for Call {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        let context = Context::of(&request)?;
        let format = body_format(request.headers())?;
        let room = set_aside(api, request.headers())?;
        let body = read(api, request.into_body()).await;
        let text = body.and_then(|body| match format {
            Format::Json => String::from_utf8(body.into())
                .map_err(|_| Problem::new(Code::InvalidJson, "the body is not UTF-8")),
            Format::Msgpack => {
                let depth_max = api.limits.packet.depth_max + DEPTH_AROUND;
                let bytes_max = api.config.body_bytes_max.saturating_mul(TEXT_PER_BYTE);
                msgpack::to_json(&body, depth_max, bytes_max)
                    .map_err(|error| Problem::new(Code::InvalidMsgpack, error))
            }
        });
        Ok(Self { context, text: text?, _room: room })
    }
}

fn body_format(headers: &HeaderMap) -> Result<Format, Problem> {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return Ok(Format::Json) };
    kind.to_str().ok().and_then(format_of).ok_or_else(|| {
        let detail = "send \"content-type: application/json\", or application/msgpack";
        Problem::new(Code::UnsupportedMediaType, detail).about("Content-Type")
    })
}

/// Sets bytes aside for a body before it is read: what the caller says, or without that the most that is allowed.
fn set_aside(api: &Api, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, Problem> {
    let max = api.config.body_bytes_max;
    let said = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let bytes = said.unwrap_or(max);
    if bytes > max {
        return Err(too_large(max));
    }
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    let room = api.bodies.clone().try_acquire_many_owned(permits).map_err(|_| {
        api.metrics.bodies_overloaded.add(1);
        Problem::new(Code::Overloaded, "too many large requests are under way; try again")
    })?;
    let taken = api.config.bodies_bytes_max.saturating_sub(api.bodies.available_permits());
    api.metrics.bodies_bytes.set(taken as u64);
    Ok(room)
}

async fn read(api: &Api, body: Body) -> Result<Bytes, Problem> {
    let max = api.config.body_bytes_max;
    match timeout(api.config.body_timeout(), Limited::new(body, max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large(max)),
        Ok(Err(_)) => Err(Problem::new(Code::InvalidBody, "the body did not arrive whole")),
        Err(_) => Err(Problem::new(Code::BodyTimeout, "the body took too long to arrive; try again")),
    }
}

fn too_large(max: usize) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("a body has at most {max} bytes; split the call"))
}

/// Reads JSON text as the fields of a call, and points at the first field that does not fit.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = pointer(error.path());
        refusal(error.inner(), path)
    })?;
    json.end().map_err(|error| refusal(&error, String::new()))?;
    Ok(value)
}

fn refusal(error: &serde_json::Error, mut path: String) -> Problem {
    let message = error.to_string();
    if error.is_syntax() || error.is_eof() {
        return Problem::new(Code::InvalidJson, message);
    }
    // The place in the text says less than the pointer, and nothing at all of a MessagePack body.
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    if let Some(field) = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        path.push('/');
        path.push_str(field);
    }
    Problem::new(Code::InvalidBody, message.to_owned()).at(path)
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                pointer.push('/');
                pointer.push_str(&index.to_string());
            }
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// Whether a text is a `traceparent` of the W3C: `00-<32 hex>-<16 hex>-<2 hex>`, or of a later version.
fn is_trace_parent(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [2, 32, 16, 2] && text.split('-').all(is_hex) && !text.starts_with("ff")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        #[serde(rename = "a/b")]
        _ab: Option<Vec<u32>>,
        _c: String,
    }

    #[test]
    fn faults_are_pointed_at() {
        let check = |text: &str, code: Code, pointer: Option<&str>| {
            let problem = parse::<Fields>(text).unwrap_err();
            assert_eq!((problem.code, problem.pointer.as_deref()), (code, pointer), "{text}: {problem}");
            assert!(problem.code == Code::InvalidJson || !problem.detail.contains("line"), "{problem}");
        };
        check("", Code::InvalidJson, None);
        check("{", Code::InvalidJson, None);
        check(r#"{"_c":"x"} x"#, Code::InvalidJson, None);
        check("[]", Code::InvalidBody, Some(""));
        check("{}", Code::InvalidBody, Some("/_c"));
        check(r#"{"_c":7}"#, Code::InvalidBody, Some("/_c"));
        check(r#"{"_c":"x","d":1}"#, Code::InvalidBody, Some("/d"));
        check(r#"{"_c":"x","a/b":[1,"2"]}"#, Code::InvalidBody, Some("/a~1b/1"));
    }

    #[test]
    fn media_types_are_read_leniently() {
        let check = |kind: &str, format: Option<Format>| assert_eq!(format_of(kind), format, "{kind}");
        check("application/json", Some(Format::Json));
        check("Application/JSON; charset=utf-8", Some(Format::Json));
        check("application/cloudevents+json", Some(Format::Json));
        check("application/x-msgpack", Some(Format::Msgpack));
        check("application/x-www-form-urlencoded", None);
        check("text/plain", None);
        check("", None);
    }

    #[test]
    fn trace_parents_are_checked() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_trace_parent(good));
        for bad in ["", "00", &good.to_uppercase(), &good.replace("00-", "ff-"), &format!("{good}-x")] {
            assert!(!is_trace_parent(bad), "{bad}");
        }
    }
}
