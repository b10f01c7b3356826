//! Handshake responses, byte for byte: both protocol versions, every form of payload, headers and cookie.

use serde_json::Value;

use crate::wire::server::json_after;
use crate::wire::{RawWebSocket, Reply, Request, Server};

/// Takes the sid out of an open packet so that the rest can be compared as text.
fn without_sid(open: &str) -> String {
    let sid = json_after(open, 1)["sid"].as_str().expect("a sid").to_owned();
    assert_eq!(sid.len(), 20, "{sid}");
    assert!(sid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{sid}");
    open.replacen(&sid, "SID", 1)
}

/// The length of an open packet with the default settings and a sid of 20 characters.
const OPEN_LENGTH: usize = 118;
const OPEN: &str = r#"0{"sid":"SID","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;

/// Cuts `length ":" packet` off the front of a version 3 text payload in ASCII.
fn cut_packet(payload: &str) -> (&str, &str, &str) {
    let (length, rest) = payload.split_once(':').expect("a length");
    let (packet, rest) = rest.split_at(length.parse().expect("a number"));
    (length, packet, rest)
}

async fn handshake(server: &Server, query: &str) -> Reply {
    let reply = server.get(query).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply
}

#[tokio::test]
async fn version_4_polling_body_and_headers() {
    let server = Server::socketio(&[]);
    let reply = handshake(&server, "EIO=4&transport=polling").await;
    assert_eq!(without_sid(reply.text()), OPEN);
    assert_eq!(reply.text().len(), OPEN_LENGTH);
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(reply.header("content-length"), Some("118"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("set-cookie"), None);
    assert_eq!(reply.header("content-encoding"), None);
}

#[tokio::test]
async fn version_3_polling_body_counts_characters_and_joins_the_main_namespace() {
    let server = Server::socketio(&[]);
    for query in ["EIO=3&transport=polling", "EIO=3&transport=polling&b64=1"] {
        let reply = handshake(&server, query).await;
        let (length, open, rest) = cut_packet(reply.text());
        assert_eq!((length, without_sid(open).as_str(), rest), ("118", OPEN, "2:40"), "{query}");
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=UTF-8"));
    }
}

#[tokio::test]
async fn version_3_binary_payloads_give_the_historic_handshake_bytes() {
    let server = Server::socketio(&["edge.eio3_payloads=binary"]);
    let reply = handshake(&server, "EIO=3&transport=polling").await;
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    let body = reply.body.as_slice();
    let rest = body.strip_prefix(b"\x00\x01\x01\x08\xff").expect("a string of 118 bytes");
    let (open, rest) = rest.split_at(OPEN_LENGTH);
    assert_eq!(without_sid(std::str::from_utf8(open).expect("UTF-8")), OPEN);
    assert_eq!(rest, b"\x00\x02\xff40");
}

#[tokio::test]
async fn version_3_binary_payload_of_an_open_packet_as_long_as_the_recorded_one() {
    // These settings make the open packet 109 bytes long, as it is in the recorded handshake.
    let server = Server::socketio(&[
        "edge.eio3_payloads=binary",
        "edge.allow_upgrades=false",
        "edge.payload_bytes_max=10000000",
        "edge.limits.packet_bytes_max=40000000",
        "edge.ping_timeout_ms=200000",
    ]);
    let reply = handshake(&server, "EIO=3&transport=polling").await;
    assert_eq!(reply.body[..6], *b"\x00\x01\x00\x09\xff0");
    assert_eq!(reply.body[5 + 109..], *b"\x00\x02\xff40");
}

#[tokio::test]
async fn version_3_binary_payloads_leave_base64_sessions_in_text() {
    let server = Server::socketio(&["edge.eio3_payloads=binary"]);
    let reply = handshake(&server, "EIO=3&transport=polling&b64=1").await;
    assert!(reply.text().starts_with("118:0{") && reply.text().ends_with("2:40"), "{}", reply.text());
}

#[tokio::test]
async fn websocket_open_packet_offers_no_upgrades() {
    let server = Server::socketio(&[]);
    let mut socket = server.websocket("EIO=4").await;
    let open = without_sid(&socket.any_text().await);
    assert_eq!(open, OPEN.replace(r#""websocket""#, ""));
    let mut socket = server.websocket("EIO=3").await;
    let open = without_sid(&socket.any_text().await);
    assert_eq!(open, OPEN.replace(r#""websocket""#, ""));
    assert_eq!(socket.any_text().await, "40");
}

#[tokio::test]
async fn upgrades_are_offered_only_when_they_would_work() {
    for set in ["edge.allow_upgrades=false", "edge.transports=polling"] {
        let server = Server::socketio(&[set]);
        assert_eq!(server.polling("EIO=4").await.open["upgrades"], Value::from(Vec::<Value>::new()), "{set}");
    }
}

#[tokio::test]
async fn open_packet_carries_the_settings() {
    let server = Server::socketio(&[
        "edge.ping_interval_ms=1234",
        "edge.ping_timeout_ms=567",
        "edge.payload_bytes_max=5000",
    ]);
    let open = server.polling("EIO=4").await.open;
    assert_eq!((&open["pingInterval"], &open["pingTimeout"]), (&1234.into(), &567.into()));
    assert_eq!(open["maxPayload"], 5000);
}

#[tokio::test]
async fn path_is_served_with_and_without_its_slash() {
    let server = Server::socketio(&[]);
    for path in ["/socket.io", "/socket.io/"] {
        let reply = server.send(Request::get(&format!("{path}?EIO=4&transport=polling"))).await;
        assert_eq!(reply.status, 200, "{path}");
        let target = format!("{path}?EIO=4&transport=websocket");
        RawWebSocket::open(&server, Request::websocket(&target)).await;
    }
}

#[tokio::test]
async fn other_paths_are_not_the_protocol() {
    let server = Server::socketio(&[]);
    for path in ["/nothing", "/socket.iox/", "/engine.io/"] {
        let reply = server.send(Request::get(&format!("{path}?EIO=4&transport=polling"))).await;
        assert_eq!(reply.status, 404, "{path}");
    }
}

#[tokio::test]
async fn anything_below_the_path_is_the_protocol() {
    let server = Server::socketio(&[]);
    let reply = server.send(Request::get("/socket.io/foo/bar?EIO=4&transport=polling")).await;
    assert_eq!(without_sid(reply.text()), OPEN);
}

#[tokio::test]
async fn unknown_and_repeated_query_keys_are_harmless() {
    let server = Server::socketio(&[]);
    let queries = [
        "EIO=4&transport=polling&t=MAkXxBR",
        "t=1.5&foo=bar&transport=websocket&EIO=3&EIO=4&transport=polling",
        "EIO=%34&transport=%70olling&__proto__=x&constructor",
    ];
    for query in queries {
        let reply = handshake(&server, query).await;
        assert_eq!(without_sid(reply.text()), OPEN, "{query}");
    }
}

#[tokio::test]
async fn cookie_is_set_on_the_first_polling_response_only() {
    let server = Server::socketio(&["edge.cookie=io"]);
    let reply = handshake(&server, "EIO=4&transport=polling").await;
    let sid = json_after(reply.text(), 1)["sid"].as_str().expect("a sid").to_owned();
    let expected = format!("io={sid}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!(reply.header("set-cookie"), Some(expected.as_str()));
    let reply = server.post(&format!("EIO=4&transport=polling&sid={sid}"), "40").await;
    assert_eq!(reply.header("set-cookie"), None);
    let target = server.target("EIO=4&transport=websocket");
    let socket = RawWebSocket::open(&server, Request::websocket(&target)).await;
    assert_eq!(socket.handshake.header("set-cookie"), None);
}

#[tokio::test]
async fn old_microsoft_browsers_get_their_header() {
    let server = Server::socketio(&[]);
    let target = server.target("EIO=4&transport=polling");
    for agent in ["Mozilla/4.0 (compatible;MSIE 8.0)", "Mozilla/5.0 (Trident/7.0; rv:11.0)"] {
        let reply = server.send(Request::get(&target).header("User-Agent", agent)).await;
        assert_eq!(reply.header("x-xss-protection"), Some("0"), "{agent}");
    }
    assert_eq!(server.send(Request::get(&target)).await.header("x-xss-protection"), None);
}

#[tokio::test]
async fn websocket_handshake_has_the_accept_key_of_the_specification() {
    let server = Server::socketio(&[]);
    let target = server.target("EIO=4&transport=websocket");
    let cases = [
        ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("mupA9l2rXciZKoMNQ9LphA==", "s4VAqh7eedG0a11ziQlwTzJUY3s="),
    ];
    for (key, accept) in cases {
        let request = Request::websocket(&target).header("Sec-WebSocket-Key", key);
        let socket = RawWebSocket::open(&server, request).await;
        assert_eq!(socket.handshake.header("sec-websocket-accept"), Some(accept));
        assert!(
            socket.handshake.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
        );
        assert!(
            socket.handshake.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade"))
        );
    }
}

#[tokio::test]
async fn first_offered_subprotocol_is_selected() {
    let server = Server::socketio(&[]);
    let target = server.target("EIO=4&transport=websocket");
    let request = Request::websocket(&target).header("Sec-WebSocket-Protocol", "Chat.v2, superchat");
    let socket = RawWebSocket::open(&server, request).await;
    assert_eq!(socket.handshake.header("sec-websocket-protocol"), Some("Chat.v2"));
    let socket = RawWebSocket::open(&server, Request::websocket(&target)).await;
    assert_eq!(socket.handshake.header("sec-websocket-protocol"), None);
}

#[tokio::test]
async fn message_compression_is_never_negotiated() {
    let server = Server::socketio(&[]);
    let request = Request::websocket(&server.target("EIO=4&transport=websocket"))
        .header("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits");
    let socket = RawWebSocket::open(&server, request).await;
    assert_eq!(socket.handshake.header("sec-websocket-extensions"), None);
}
