//! Frames in the log: one line each with its opcode, and no secret in any of them.

use serde_json::json;

use crate::msgpack;
use crate::wire::websocket::frame;
use crate::wire::{RawWebSocket, Request, Server, soon};

const TRACED: &[&str] = &[r#"log.level="info,frames=trace""#, "edge.namespaces=/,/custom"];

/// What only the client and the server may know; it is in every CONNECT here.
const TOKEN: &str = "open-sesame-8472";

/// Waits until the log has a line with all of these parts.
async fn logged(server: &Server, parts: &[&str]) {
    let has_line = || server.log().lines().any(|line| parts.iter().all(|part| line.contains(part)));
    // The log is read while the server runs, so another round trip gives its lines the time to arrive.
    soon(&format!("a line with {parts:?}"), async {
        while !has_line() {
            server.settle().await;
        }
    })
    .await;
}

/// Expects that nothing logged so far holds any of these.
fn expect_unlogged(server: &Server, secrets: &[&str]) {
    let log = server.log();
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
}

/// The value of `"sid":"..."` in a packet.
fn sid_in(packet: &[u8]) -> String {
    let packet = String::from_utf8_lossy(packet);
    let (_, rest) = packet.split_once(r#""sid":""#).unwrap_or_else(|| panic!("no sid in {packet}"));
    rest.split('"').next().unwrap_or_default().to_owned()
}

/// A WebSocket session that has read its open packet, with the session id.
async fn open(server: &Server, version: &str) -> (RawWebSocket, String) {
    let target = server.target(&format!("{version}&transport=websocket"));
    let mut socket = RawWebSocket::open(server, Request::websocket(&target)).await;
    let (_, packet) = socket.frame().await;
    (socket, sid_in(&packet))
}

#[tokio::test]
async fn every_frame_is_a_line_with_its_opcode() {
    let server = Server::socketio(TRACED);
    let (mut socket, _) = open(&server, "EIO=4").await;
    socket.text("40").await;
    socket.text(r#"451-["message","traced",{"_placeholder":true,"num":0}]"#).await;
    socket.write(&frame(0x82, &[1, 2, 3])).await;
    socket.write(&frame(0x89, b"heartbeat")).await;
    let incoming = [
        (r#"opcode="text""#, "bytes=2", "40"),
        (r#"opcode="text""#, "bytes=54", r#"451-["message","traced""#),
        (r#"opcode="binary""#, "bytes=3", ""),
        (r#"opcode="ping""#, "bytes=9", "heartbeat"),
    ];
    for (opcode, bytes, shown) in incoming {
        logged(&server, &["TRACE frames", r#"direction="in""#, opcode, bytes, shown]).await;
    }
    let header = r#"451-["message-back","traced""#;
    for (opcode, shown) in
        [(r#"opcode="text""#, "0"), (r#"opcode="text""#, header), (r#"opcode="binary""#, "")]
    {
        logged(&server, &["TRACE frames", r#"direction="out""#, opcode, shown]).await;
    }
}

#[tokio::test]
async fn packets_of_a_poll_are_lines_too() {
    let server = Server::socketio(TRACED);
    for version in ["EIO=4", "EIO=3"] {
        let session = server.polling(version).await;
        let name = format!("over {version}");
        session
            .send(&[if version == "EIO=4" { "40" } else { "2" }, &format!(r#"42["message","{name}"]"#)])
            .await;
        session.poll().await;
        for (direction, event) in [("in", "message"), ("out", "message-back")] {
            let shown = format!(r#"42["{event}","{name}"]"#);
            logged(&server, &[&format!(r#"direction="{direction}""#), r#"opcode="text""#, &shown]).await;
        }
        expect_unlogged(&server, &[&session.sid]);
    }
}

#[tokio::test]
async fn connects_of_the_default_parser_leave_no_secret() {
    let server = Server::socketio(TRACED);
    let (mut socket, session) = open(&server, "EIO=4").await;
    let mut secrets = vec![TOKEN.to_owned(), session];
    for namespace in ["", "/custom,"] {
        socket.text(&format!(r#"40{namespace}{{"token":"{TOKEN}"}}"#)).await;
        let (_, reply) = socket.frame().await;
        secrets.push(sid_in(&reply));
        let (_, event) = socket.frame().await;
        assert!(String::from_utf8_lossy(&event).contains(TOKEN), "the demo shows what it was given");
    }
    socket.text(&format!(r#"40/nope,{{"token":"{TOKEN}"}}"#)).await;
    socket.text(r#"42["message","the end"]"#).await;
    logged(&server, &[r#"direction="out""#, "message-back", "the end"]).await;

    let (mut old, session) = open(&server, "EIO=3").await;
    secrets.push(session);
    old.text(&format!("40/custom?token={TOKEN}")).await;
    old.text(r#"42["message","the old end"]"#).await;
    logged(&server, &[r#"direction="out""#, "message-back", "the old end"]).await;
    assert_eq!(secrets.len(), 5);
    expect_unlogged(&server, &secrets.iter().map(String::as_str).collect::<Vec<_>>());
}

#[tokio::test]
async fn refusal_of_a_namespace_with_a_query_leaves_no_secret() {
    let server = Server::socketio(TRACED);
    for (version, name) in [("EIO=4", "a refusal"), ("EIO=3", "an old refusal")] {
        let (mut socket, _) = open(&server, version).await;
        socket.text(&format!("40/nope?token={TOKEN},")).await;
        socket.write(&frame(0x89, name.as_bytes())).await;
        logged(&server, &[r#"opcode="ping""#, name]).await;
    }
    expect_unlogged(&server, &[TOKEN]);
}

#[tokio::test]
async fn connects_of_the_msgpack_parser_leave_no_secret() {
    let server = Server::socketio(TRACED);
    let (mut socket, session) = open(&server, "EIO=4").await;
    let mut connect = Vec::new();
    msgpack::encode(&json!({ "type": 0, "data": { "token": TOKEN }, "nsp": "/" }), &mut connect);
    socket.write(&frame(0x82, &connect)).await;
    let (_, reply) = socket.frame().await;
    let reply = msgpack::decode(&mut reply.as_slice());
    let sid = reply["data"]["sid"].as_str().expect("a sid").to_owned();
    logged(&server, &[r#"direction="in""#, r#"opcode="binary""#, &format!("bytes={}", connect.len())]).await;
    logged(&server, &[r#"direction="out""#, r#"opcode="binary""#]).await;
    // Two frames of the demo are on their way: the reply and the event that repeats the token.
    let (_, event) = socket.frame().await;
    assert!(String::from_utf8_lossy(&event).contains(TOKEN), "the demo shows what it was given");
    socket.write(&frame(0x89, b"the end")).await;
    logged(&server, &[r#"opcode="ping""#, "the end"]).await;
    expect_unlogged(&server, &[TOKEN, &session, &sid]);
}
