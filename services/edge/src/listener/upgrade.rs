//! The opening handshake of a WebSocket. Spec: RFC 6455, section 4.2.

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Request, Version};
use hyper::body::Incoming;
use websocket_proto::handshake as websocket;

use super::error_body;
use super::router::text_header;
use crate::transport::reply::Reply;

/// Whether a request asks for a WebSocket.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let names = |name: HeaderName, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    names(header::UPGRADE, "websocket") && names(header::CONNECTION, "upgrade")
}

/// The `101` for a WebSocket request, or its refusal.
pub(super) fn accept(request: &Request<Incoming>) -> Result<Reply, Reply> {
    let headers = request.headers();
    if request.method() != Method::GET || request.version() != Version::HTTP_11 || !is_upgrade(headers) {
        return Err(error_body::websocket_text(400, "This is a WebSocket endpoint"));
    }
    if text_header(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(error_body::websocket_text(426, "Only WebSocket version 13 is spoken here")
            .with_header("sec-websocket-version", "13"));
    }
    let key = text_header(headers, header::SEC_WEBSOCKET_KEY).filter(|key| websocket::is_valid_key(key));
    let Some(key) = key else {
        return Err(error_body::websocket_text(
            400,
            "Sec-WebSocket-Key is missing or not 16 bytes of base64",
        ));
    };
    let reply = Reply::empty(101)
        .with_header("upgrade", "websocket")
        .with_header("connection", "Upgrade")
        .with_header("sec-websocket-accept", websocket::accept_key(key));
    let offered = text_header(headers, header::SEC_WEBSOCKET_PROTOCOL)
        .and_then(|offers| offers.split(',').map(str::trim).find(|offer| !offer.is_empty()));
    Ok(match offered {
        // Some clients fail the handshake when they offered one and none is chosen.
        Some(first) => reply.with_header("sec-websocket-protocol", first),
        None => reply,
    })
}
