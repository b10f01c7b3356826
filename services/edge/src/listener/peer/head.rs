//! The head of a request between two nodes: written by the one that relays, read by the one that owns the session.
//!
//! ```text
//! GET /jackfield/1/<node id of the owner>/poll?EIO=4&transport=polling&sid=… HTTP/1.1
//! host: <where the owner is>
//! jackfield-client: <the client's address>
//! jackfield-signature: <HMAC-SHA256 of the lines below, base64url>
//!
//! signed: method LF path?query LF client's address
//! ```
//!
//! The path names the version of this protocol, the node that is meant and what is wanted of it, so a signed request
//! is worth nothing at another node or for another session. The query is that of the client, reduced to what
//! Engine.IO reads.

use std::fmt::Write;
use std::net::IpAddr;

use cluster_proto::identity::NodeId;
use engineio_proto::handshake::{ErrorCode, Query};
use http::header::{self, HeaderMap, HeaderValue};
use http::request::{Builder, Parts};
use http::{Method, Request, StatusCode};

use super::secret::Secrets;
use crate::ids::SessionId;
use crate::listener::router::text_header;

/// What the path begins with: the protocol and its version.
const PREFIX: &str = "/jackfield/1/";
/// The protocol that a tunnel changes to.
pub(in crate::listener) const TUNNEL: &str = "jackfield-tunnel";
/// Names the client.
const CLIENT: &str = "jackfield-client";
/// Proves that a node has sent the request.
const SIGNATURE: &str = "jackfield-signature";
/// In every response that a node has made on purpose: whatever else answers at its address does not know it.
pub(in crate::listener) const ANSWERED: &str = "jackfield-answered";

/// What is wanted of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::listener) enum Errand {
    /// A polling request.
    Poll,
    /// A POST whose announced body is larger than clients may send: it stays where it is, and only its session is
    /// asked what it says to that.
    Oversized,
    /// A WebSocket.
    Tunnel,
}

const ERRANDS: [(Errand, &str); 3] =
    [(Errand::Poll, "poll"), (Errand::Oversized, "oversized"), (Errand::Tunnel, "tunnel")];

impl Errand {
    fn name(self) -> &'static str {
        ERRANDS.iter().find(|(errand, _)| *errand == self).map_or("", |(_, name)| name)
    }

    fn parse(text: &str) -> Option<Errand> {
        ERRANDS.iter().find(|(_, name)| *name == text).map(|(errand, _)| *errand)
    }
}

/// A request that another node has signed.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: SessionId,
    pub(super) errand: Errand,
    pub(super) query: Query,
    pub(super) client: IpAddr,
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not signed by a node.
    Unsigned,
    /// It is meant for another node.
    Misdirected,
    /// It is signed, and still not understood.
    Malformed,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Refusal::Unsigned => StatusCode::UNAUTHORIZED,
            Refusal::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Refusal::Malformed => StatusCode::BAD_REQUEST,
        }
    }
}

/// Begins a request to the owner of a session.
pub(in crate::listener) fn write(
    secrets: &Secrets,
    errand: Errand,
    method: &Method,
    owner: &str,
    id: SessionId,
    query: &Query,
    client: IpAddr,
) -> Builder {
    let target = target(errand, id, query);
    let client = client.to_string();
    let signature = secrets.sign(signed(method, &target, &client).as_bytes());
    Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, owner)
        .header(CLIENT, client)
        .header(SIGNATURE, signature)
}

/// Reads a request at the node `own`; nothing in it is believed before its signature.
pub(super) fn read(secrets: &Secrets, own: NodeId, request: &Parts) -> Result<Asked, Refusal> {
    let target = request.uri.path_and_query().map_or("", |target| target.as_str());
    let client = text_header(&request.headers, CLIENT).unwrap_or_default();
    let signature = text_header(&request.headers, SIGNATURE).unwrap_or_default();
    if !secrets.has_signed(signed(&request.method, target, client).as_bytes(), signature) {
        return Err(Refusal::Unsigned);
    }
    let path = request.uri.path().strip_prefix(PREFIX).and_then(|path| path.split_once('/'));
    let (node, errand) = path.ok_or(Refusal::Malformed)?;
    if NodeId::parse(node) != Some(own) {
        return Err(Refusal::Misdirected);
    }
    let query = Query::parse(request.uri.query().unwrap_or_default());
    let id = query.sid.as_deref().and_then(SessionId::parse).ok_or(Refusal::Malformed)?;
    if id.node() != own {
        return Err(Refusal::Misdirected);
    }
    let errand = Errand::parse(errand).ok_or(Refusal::Malformed)?;
    let client = client.parse().map_err(|_| Refusal::Malformed)?;
    Ok(Asked { id, errand, query, client })
}

fn target(errand: Errand, id: SessionId, query: &Query) -> String {
    let mut target = format!("{PREFIX}{}/{}?sid={id}", id.node(), errand.name());
    // Writing to a String cannot fail.
    if let Some(version) = query.eio {
        let _ = write!(target, "&EIO={}", version.number());
    }
    if let Some(transport) = query.transport {
        let _ = write!(target, "&transport={}", transport.name());
    }
    if let Some(index) = &query.jsonp {
        let _ = write!(target, "&j={index}");
    }
    if query.base64 {
        target.push_str("&b64=1");
    }
    target
}

fn signed(method: &Method, target: &str, client: &str) -> String {
    format!("{method}\n{target}\n{client}")
}

/// The code with which the owner refuses a WebSocket.
pub(in crate::listener) fn refusal_code(answered: &HeaderMap) -> Option<ErrorCode> {
    let code: u8 = text_header(answered, ANSWERED)?.parse().ok()?;
    CODES.into_iter().find(|known| known.code() == code)
}

/// The codes with which a session refuses a WebSocket.
const CODES: [ErrorCode; 2] = [ErrorCode::SessionIdUnknown, ErrorCode::BadRequest];

/// Marks a response as made by a node, with the code that it carries if it does.
pub(super) fn answered(code: Option<ErrorCode>) -> HeaderValue {
    code.map_or(HeaderValue::from_static("yes"), |code| HeaderValue::from(u16::from(code.code())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IdSource;

    const CLIENT_ADDRESS: &str = "192.0.2.7";

    fn secrets(name: &str, secret: &str) -> Secrets {
        let path = std::env::temp_dir().join(format!("jackfield-head-{}-{name}", std::process::id()));
        std::fs::write(&path, secret).unwrap();
        let secrets = Secrets::load(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        secrets
    }

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([1, 2, number])
    }

    fn parts(builder: Builder) -> Parts {
        builder.body(()).unwrap().into_parts().0
    }

    fn request(secrets: &Secrets, id: SessionId, raw_query: &str) -> Parts {
        let query = Query::parse(raw_query);
        let client = CLIENT_ADDRESS.parse().unwrap();
        parts(write(secrets, Errand::Poll, &Method::POST, "10.0.0.1:7000", id, &query, client))
    }

    #[test]
    fn what_is_written_is_read() {
        let secrets = secrets("same", "0123456789abcdef");
        let id = IdSource::new(node(1), 3).session_id().unwrap();
        for raw in
            ["EIO=4&transport=polling", "EIO=3&transport=polling&j=12x&b64=true", "transport=x&EIO=9&j=%20"]
        {
            let asked = read(&secrets, node(1), &request(&secrets, id, raw)).unwrap();
            let expected = Query { sid: Some(id.to_string()), ..Query::parse(raw) };
            assert_eq!((asked.id, asked.errand, asked.query), (id, Errand::Poll, expected), "{raw}");
            assert_eq!(asked.client.to_string(), CLIENT_ADDRESS);
        }
    }

    #[test]
    fn whatever_is_changed_on_the_way_is_noticed() {
        let (secrets, strangers) =
            (secrets("ours", "0123456789abcdef"), secrets("theirs", "fedcba9876543210"));
        let id = IdSource::new(node(1), 0).session_id().unwrap();
        let other = IdSource::new(node(1), 0).session_id().unwrap();
        let good = || request(&secrets, id, "EIO=4&transport=polling");
        let check = |what: &str, parts: &Parts, expected: Refusal| {
            assert_eq!(read(&secrets, node(1), parts).unwrap_err(), expected, "{what}");
        };
        check("another secret", &request(&strangers, id, "EIO=4"), Refusal::Unsigned);
        let mut changed = good();
        changed.method = Method::GET;
        check("the method", &changed, Refusal::Unsigned);
        let mut changed = good();
        changed.uri = changed.uri.to_string().replace(&id.to_string(), &other.to_string()).parse().unwrap();
        check("the session", &changed, Refusal::Unsigned);
        let mut changed = good();
        changed.headers.insert(CLIENT, HeaderValue::from_static("192.0.2.8"));
        check("the client", &changed, Refusal::Unsigned);
        for name in [CLIENT, SIGNATURE] {
            let mut changed = good();
            changed.headers.remove(name);
            check(name, &changed, Refusal::Unsigned);
        }
        assert_eq!(read(&secrets, node(2), &good()).unwrap_err(), Refusal::Misdirected);
    }

    #[test]
    fn a_signed_request_is_still_checked() {
        let secrets = secrets("checked", "0123456789abcdef");
        let (own, id) = (node(1), IdSource::new(node(1), 0).session_id().unwrap());
        let foreign = IdSource::new(node(2), 0).session_id().unwrap();
        let check = |target: String, client: &str, expected: Refusal| {
            let signature = secrets.sign(signed(&Method::GET, &target, client).as_bytes());
            let builder = Request::get(&target).header(CLIENT, client).header(SIGNATURE, signature);
            assert_eq!(read(&secrets, own, &parts(builder)).unwrap_err(), expected, "{target} {client}");
        };
        let address = CLIENT_ADDRESS;
        check(format!("{PREFIX}{own}/poll?sid={id}"), "nobody", Refusal::Malformed);
        check(format!("{PREFIX}{own}/steal?sid={id}"), address, Refusal::Malformed);
        check(format!("{PREFIX}{own}/poll?sid=x"), address, Refusal::Malformed);
        check(format!("{PREFIX}{own}/poll"), address, Refusal::Malformed);
        check(format!("/jackfield/2/{own}/poll?sid={id}"), address, Refusal::Malformed);
        check(format!("{PREFIX}{own}/poll?sid={foreign}"), address, Refusal::Misdirected);
        check(format!("{PREFIX}{}/poll?sid={id}", node(2)), address, Refusal::Misdirected);
        check("/".to_owned(), address, Refusal::Malformed);
    }

    #[test]
    fn a_refusal_keeps_its_code() {
        for code in CODES {
            let mut headers = HeaderMap::new();
            headers.insert(ANSWERED, answered(Some(code)));
            assert_eq!(refusal_code(&headers), Some(code));
        }
        let mut headers = HeaderMap::new();
        assert_eq!(refusal_code(&headers), None);
        headers.insert(ANSWERED, answered(None));
        assert_eq!(refusal_code(&headers), None);
    }
}
