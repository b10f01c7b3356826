//! How a session begins: the query string, the open packet, and what a refused request is told.

use std::time::Duration;

use crate::payload::jsonp;
use crate::transport::TransportKind;
use crate::version::ProtocolVersion;
use crate::{json_string, urlencoded};

/// Bytes kept of a `sid`. Longer than any id we hand out, so a longer one stays unknown when it is cut.
const SID_BYTES_MAX: usize = 128;

/// The query parameters that mean something to Engine.IO.
///
/// Read as URL search parameters: names and values are percent-decoded, `+` is a space, the last of several
/// wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// `EIO`; `None` when it is missing or no revision, which are both [`ErrorCode::UnsupportedProtocolVersion`].
    pub eio: Option<ProtocolVersion>,
    /// `transport`; `None` when it is missing or not one of ours, which are both
    /// [`ErrorCode::TransportUnknown`].
    pub transport: Option<TransportKind>,
    /// `sid`; `None` when it is missing or empty, which asks for a new session. Never more than 128 bytes:
    /// the rest is cut, and what is left matches no session.
    pub sid: Option<String>,
    /// `j`, reduced to its digits; `Some`, even if empty, asks for JSONP.
    pub jsonp: Option<String>,
    /// Whether `b64` has a value, whichever: the client cannot take binary.
    pub base64: bool,
}

impl Query {
    /// Reads a query string, without its `?`. Never fails: what is not understood is ignored.
    pub fn parse(raw_query: &str) -> Self {
        let mut query = Self { eio: None, transport: None, sid: None, jsonp: None, base64: false };
        for (name, raw) in urlencoded::pairs(raw_query.as_bytes()) {
            let value = || urlencoded::decode_text(raw);
            match &*urlencoded::decode(name) {
                b"EIO" => query.eio = ProtocolVersion::from_query(&value()),
                b"transport" => query.transport = TransportKind::parse(&value()),
                b"sid" => query.sid = Some(cut(&value(), SID_BYTES_MAX)).filter(|sid| !sid.is_empty()),
                b"j" => query.jsonp = Some(jsonp::index(&value())),
                b"b64" => query.base64 = !raw.is_empty(),
                _ => {}
            }
        }
        query
    }
}

/// At most `bytes_max` bytes of `text`, cut between characters.
fn cut(text: &str, bytes_max: usize) -> String {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    end.and_then(|end| text.get(..end)).unwrap_or_default().to_owned()
}

/// The first packet of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenPacket<'a> {
    /// The session id.
    pub sid: &'a str,
    /// The transports the client may move to; empty on a WebSocket.
    pub upgrades: &'a [TransportKind],
    /// Time between two pings.
    pub ping_interval: Duration,
    /// Time to wait for an answer to a ping.
    pub ping_timeout: Duration,
    /// The most bytes a client may put into one payload or frame.
    pub max_payload: u64,
}

impl OpenPacket<'_> {
    /// Encodes the packet with its type digit:
    /// `0{"sid":…,"upgrades":[…],"pingInterval":…,"pingTimeout":…,"maxPayload":…}`, durations in whole
    /// milliseconds. The same in both revisions, keys in the reference server's order.
    pub fn encode(&self) -> String {
        let mut packet = String::from("0{\"sid\":");
        json_string::push(&mut packet, self.sid, false);
        packet.push_str(",\"upgrades\":[");
        for (index, transport) in self.upgrades.iter().enumerate() {
            if index > 0 {
                packet.push(',');
            }
            json_string::push(&mut packet, transport.name(), false);
        }
        packet.push_str("],\"pingInterval\":");
        packet.push_str(&self.ping_interval.as_millis().to_string());
        packet.push_str(",\"pingTimeout\":");
        packet.push_str(&self.ping_timeout.as_millis().to_string());
        packet.push_str(",\"maxPayload\":");
        packet.push_str(&self.max_payload.to_string());
        packet.push('}');
        packet
    }
}

/// Why a request was refused, as clients are told. Spec: the reference server's error table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorCode {
    /// `transport` is missing or not enabled.
    TransportUnknown = 0,
    /// No session has this `sid`.
    SessionIdUnknown = 1,
    /// A session can only be opened by GET.
    BadHandshakeMethod = 2,
    /// The request contradicts the session or itself.
    BadRequest = 3,
    /// The application or the origin rule refused the client.
    Forbidden = 4,
    /// Revision 3 while only 4 is served.
    UnsupportedProtocolVersion = 5,
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The text on the wire, and the whole body of a refused WebSocket request.
    pub const fn message(self) -> &'static str {
        match self {
            Self::TransportUnknown => "Transport unknown",
            Self::SessionIdUnknown => "Session ID unknown",
            Self::BadHandshakeMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::Forbidden => "Forbidden",
            Self::UnsupportedProtocolVersion => "Unsupported protocol version",
        }
    }

    /// The HTTP status of a refused polling request.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Forbidden => 403,
            Self::TransportUnknown
            | Self::SessionIdUnknown
            | Self::BadHandshakeMethod
            | Self::BadRequest
            | Self::UnsupportedProtocolVersion => 400,
        }
    }

    /// The body of a refused polling request, `application/json`.
    pub const fn json_body(self) -> &'static str {
        match self {
            Self::TransportUnknown => r#"{"code":0,"message":"Transport unknown"}"#,
            Self::SessionIdUnknown => r#"{"code":1,"message":"Session ID unknown"}"#,
            Self::BadHandshakeMethod => r#"{"code":2,"message":"Bad handshake method"}"#,
            Self::BadRequest => r#"{"code":3,"message":"Bad request"}"#,
            Self::Forbidden => r#"{"code":4,"message":"Forbidden"}"#,
            Self::UnsupportedProtocolVersion => r#"{"code":5,"message":"Unsupported protocol version"}"#,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_query_is_read() {
        let query = Query::parse("EIO=4&transport=polling&t=N8hyd6w&sid=lv_VI97HAXpY6yYWAAAC");
        assert_eq!(query.eio, Some(ProtocolVersion::V4));
        assert_eq!(query.transport, Some(TransportKind::Polling));
        assert_eq!(query.sid.as_deref(), Some("lv_VI97HAXpY6yYWAAAC"));
        assert_eq!(query.jsonp, None);
        assert!(!query.base64);
    }

    #[test]
    fn the_last_duplicate_wins_and_names_are_decoded() {
        let query =
            Query::parse("EIO=4&EIO=3&transport=x&transport=%77ebsocket&%73id=a+b&sid=c%2Bd&b64=1&b64=");
        assert_eq!(query.eio, Some(ProtocolVersion::V3));
        assert_eq!(query.transport, Some(TransportKind::WebSocket));
        assert_eq!(query.sid.as_deref(), Some("c+d"));
        assert!(!query.base64);
        assert_eq!(Query::parse("transport=polling&transport=nope").transport, None);
    }

    #[test]
    fn a_sid_is_there_or_not_but_a_strange_one_is_there() {
        assert_eq!(Query::parse("sid=").sid, None);
        assert_eq!(Query::parse("sid").sid, None);
        assert_eq!(Query::parse("sid=%ff").sid.as_deref(), Some("\u{fffd}"));
        assert_eq!(Query::parse("sid=__proto__").sid.as_deref(), Some("__proto__"));
        let long = Query::parse(&format!("sid=x{}", "€".repeat(1000))).sid.unwrap();
        assert!(long.len() <= SID_BYTES_MAX && long.len() > SID_BYTES_MAX - 3, "{}", long.len());
    }

    #[test]
    fn jsonp_is_asked_for_by_presence_and_base64_by_value() {
        assert_eq!(Query::parse("j=a1b2").jsonp.as_deref(), Some("12"));
        assert_eq!(Query::parse("j=%20").jsonp.as_deref(), Some(""));
        assert_eq!(Query::parse("j").jsonp.as_deref(), Some(""));
        for (raw, expected) in
            [("b64=1", true), ("b64=true", true), ("b64=0", true), ("b64=", false), ("b64", false)]
        {
            assert_eq!(Query::parse(raw).base64, expected, "{raw}");
        }
    }

    #[test]
    fn nothing_is_read_from_nothing() {
        let expected = Query { eio: None, transport: None, sid: None, jsonp: None, base64: false };
        for raw in ["", "&&&", "=", "%", "eio=4&Transport=polling&SID=x", "?EIO=4"] {
            assert_eq!(Query::parse(raw), expected, "{raw:?}");
        }
    }

    #[test]
    fn error_bodies_agree_with_code_and_message() {
        use ErrorCode::*;
        let all = [
            TransportUnknown,
            SessionIdUnknown,
            BadHandshakeMethod,
            BadRequest,
            Forbidden,
            UnsupportedProtocolVersion,
        ];
        for (index, error) in all.into_iter().enumerate() {
            assert_eq!(usize::from(error.code()), index);
            let expected = format!(r#"{{"code":{},"message":"{}"}}"#, error.code(), error.message());
            assert_eq!(error.json_body(), expected);
            assert_eq!(error.http_status(), if error == Forbidden { 403 } else { 400 });
        }
    }

    #[test]
    fn a_hostile_sid_cannot_break_out_of_the_open_packet() {
        let open = OpenPacket {
            sid: "\"\n\\",
            upgrades: &[TransportKind::Polling, TransportKind::WebSocket],
            ping_interval: Duration::from_micros(1_500_999),
            ping_timeout: Duration::ZERO,
            max_payload: u64::MAX,
        };
        let json: serde_json::Value = serde_json::from_str(open.encode().strip_prefix('0').unwrap()).unwrap();
        assert_eq!(json["sid"], "\"\n\\");
        assert_eq!(json["upgrades"], serde_json::json!(["polling", "websocket"]));
        assert_eq!(json["pingInterval"], 1500);
        assert_eq!(json["maxPayload"], u64::MAX);
    }
}
