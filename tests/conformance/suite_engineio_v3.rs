//! What the published Engine.IO protocol 3 suite asserts, against the bare Engine.IO layer.

use std::time::Duration;

use serde_json::Value;

use crate::wire::{HASTY, Request, SUITE, Server, soon};

fn server() -> Server {
    Server::engineio(SUITE)
}

fn check_open(open: &Value, upgrades: &[&str]) {
    assert!(open["sid"].as_str().is_some_and(|sid| !sid.is_empty()), "{open}");
    assert_eq!(open["upgrades"], Value::from(upgrades));
    assert_eq!((&open["pingInterval"], &open["pingTimeout"]), (&Value::from(300), &Value::from(200)));
    assert_eq!(open["maxPayload"], Value::from(1_000_000));
}

/// A session that takes base64 echoes a payload. Only the handshake says `b64`: the session remembers it.
async fn check_echo(payload: &str) {
    let server = server();
    let session = server.polling("EIO=3&b64=1").await;
    session.post(payload).await.expect(200, "ok");
    session.poll().await.expect(200, payload);
}

async fn check_websocket_refused(query: &str) {
    let server = server();
    let reply = server.send(Request::websocket(&server.target(query))).await;
    assert_eq!(reply.status, 400, "{reply:?}");
}

#[tokio::test]
async fn polling_opens_a_session() {
    let server = Server::engineio(HASTY);
    check_open(&server.polling("EIO=3").await.open, &["websocket"]);
}

#[tokio::test]
async fn polling_refuses_an_invalid_transport() {
    let server = server();
    for query in ["EIO=3", "EIO=3&transport=abc"] {
        assert_eq!(server.get(query).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn polling_refuses_an_invalid_method() {
    let server = server();
    assert_eq!(server.post("EIO=3&transport=polling", "").await.status, 400);
}

#[tokio::test]
async fn websocket_opens_a_session() {
    let server = Server::engineio(HASTY);
    check_open(&server.websocket("EIO=3").await.open_packet().await, &[]);
}

#[tokio::test]
async fn websocket_refuses_an_invalid_protocol_version() {
    check_websocket_refused("transport=websocket").await;
    check_websocket_refused("EIO=abc&transport=websocket").await;
}

#[tokio::test]
async fn websocket_refuses_an_invalid_transport() {
    check_websocket_refused("EIO=3").await;
    check_websocket_refused("EIO=3&transport=abc").await;
}

#[tokio::test]
async fn polling_carries_one_text_packet() {
    check_echo("6:4hello").await;
}

#[tokio::test]
async fn polling_carries_several_text_packets() {
    check_echo("6:4test16:4test26:4test3").await;
}

#[tokio::test]
async fn polling_carries_text_and_base64_packets() {
    check_echo("6:4hello10:b4AQIDBA==").await;
}

#[tokio::test]
async fn polling_answers_binary_with_bytes() {
    let server = server();
    let session = server.polling("EIO=3").await;
    session.post("6:4hello10:b4AQIDBA==").await.expect(200, "ok");
    let reply = session.poll().await;
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    assert_eq!(reply.body, *b"\x00\x06\xff4hello\x01\x05\xff\x04\x01\x02\x03\x04");
}

#[tokio::test]
async fn polling_closes_upon_an_invalid_payload() {
    let server = server();
    let session = server.polling("EIO=3").await;
    session.post("abc").await.expect(200, "ok");
    session.expect_gone().await;
}

#[tokio::test]
async fn polling_closes_upon_a_second_poll() {
    let server = server();
    let session = server.polling("EIO=3").await;
    let mut first = session.park().await;
    session.poll().await.expect(400, "");
    first.reply().await.expect(200, "1:1");
    session.expect_gone().await;
}

#[tokio::test]
async fn websocket_carries_text() {
    let server = server();
    let mut socket = server.websocket("EIO=3").await;
    socket.open_packet().await;
    socket.send("4hello").await;
    assert_eq!(socket.any_text().await, "4hello");
}

#[tokio::test]
async fn websocket_carries_binary_behind_the_type_byte() {
    let server = server();
    let mut socket = server.websocket("EIO=3").await;
    socket.open_packet().await;
    socket.send_binary(&[4, 1, 2, 3, 4]).await;
    assert_eq!(socket.binary().await, [4, 1, 2, 3, 4]);
}

#[tokio::test]
async fn websocket_closes_upon_an_invalid_packet() {
    let server = server();
    let mut socket = server.websocket("EIO=3").await;
    socket.open_packet().await;
    socket.send("abc").await;
    assert_eq!(socket.closed().await, None);
}

#[tokio::test]
async fn polling_exchanges_heartbeats() {
    let server = server();
    let session = server.polling("EIO=3").await;
    for _ in 0..3 {
        session.post("1:2").await.expect(200, "ok");
        session.poll().await.expect(200, "1:3");
    }
}

#[tokio::test]
async fn polling_closes_when_no_ping_comes() {
    let server = Server::engineio(HASTY);
    let session = server.polling("EIO=3").await;
    // The protocol's own deadline, interval plus timeout: it began before the handshake was answered.
    tokio::time::sleep(Duration::from_millis(300 + 200)).await;
    assert_eq!(session.post("1:2").await.status, 400);
}

#[tokio::test]
async fn websocket_exchanges_heartbeats() {
    let server = server();
    let mut socket = server.websocket("EIO=3").await;
    socket.open_packet().await;
    for _ in 0..3 {
        socket.send("2").await;
        assert_eq!(socket.any_text().await, "3");
    }
}

#[tokio::test]
async fn websocket_closes_when_no_ping_comes() {
    let server = Server::engineio(HASTY);
    assert_eq!(server.websocket("EIO=3").await.closed().await, None);
}

#[tokio::test]
async fn polling_close_packet_ends_the_session_and_the_parked_poll() {
    let server = server();
    let session = server.polling("EIO=3").await;
    let mut parked = session.park().await;
    session.post("1:1").await.expect(200, "ok");
    parked.reply().await.expect(200, "1:6");
    session.expect_gone().await;
}

#[tokio::test]
async fn websocket_close_packet_is_followed_by_a_close() {
    let server = Server::engineio(HASTY);
    let mut socket = server.websocket("EIO=3").await;
    socket.open_packet().await;
    socket.send("1").await;
    socket.closed().await;
}

#[tokio::test]
async fn upgrade_from_polling_to_websocket() {
    let server = server();
    let session = server.polling("EIO=3").await;
    let mut socket = server.websocket(&session.upgrade_query()).await;
    socket.send("2probe").await;
    assert_eq!(socket.any_text().await, "3probe");
    session.poll().await.expect(200, "1:6");
    socket.send("5").await;
    socket.send("4hello").await;
    assert_eq!(socket.any_text().await, "4hello");
}

#[tokio::test]
async fn upgraded_session_refuses_polls() {
    let server = server();
    let session = server.polling("EIO=3").await;
    let mut socket = server.websocket(&session.upgrade_query()).await;
    socket.send("2probe").await;
    assert_eq!(socket.any_text().await, "3probe");
    socket.send("5").await;
    server.settle().await;
    assert_eq!(session.poll().await.status, 400);
    socket.send("4hello").await;
    assert_eq!(socket.any_text().await, "4hello");
}

#[tokio::test]
async fn upgraded_session_refuses_a_second_websocket() {
    let server = server();
    let session = server.polling("EIO=3").await;
    let mut socket = server.websocket(&session.upgrade_query()).await;
    socket.send("2probe").await;
    assert_eq!(socket.any_text().await, "3probe");
    socket.send("5").await;
    let mut second = server.websocket(&session.upgrade_query()).await;
    soon("the second WebSocket is closed", async { while second.message().await.is_some() {} }).await;
    socket.send("4hello").await;
    assert_eq!(socket.any_text().await, "4hello");
}
