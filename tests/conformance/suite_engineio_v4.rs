//! What the published Engine.IO protocol 4 suite asserts, against the bare Engine.IO layer.

use serde_json::{Value, json};

use crate::wire::{HASTY, PATIENT, Request, SUITE, Server, soon};

fn server() -> Server {
    Server::engineio(SUITE)
}

/// The open packet holds exactly the five fields, with the suite's settings.
fn check_open(open: &Value, upgrades: &[&str]) {
    let mut open = open.clone();
    let sid = open.as_object_mut().and_then(|open| open.remove("sid")).expect("a sid");
    assert!(sid.as_str().is_some_and(|sid| !sid.is_empty()), "{sid}");
    let expected =
        json!({"upgrades": upgrades, "pingInterval": 300, "pingTimeout": 200, "maxPayload": 1_000_000});
    assert_eq!(open, expected);
}

/// A polling session echoes a payload packet by packet.
async fn check_echo(payload: &str) {
    let server = server();
    let session = server.polling("EIO=4").await;
    session.post(payload).await.expect(200, "ok");
    session.poll().await.expect(200, payload);
}

/// A WebSocket opening with this query is refused.
async fn check_websocket_refused(query: &str) {
    let server = server();
    let reply = server.send(Request::websocket(&server.target(query))).await;
    assert_eq!(reply.status, 400, "{reply:?}");
}

#[tokio::test]
async fn polling_opens_a_session() {
    let server = Server::engineio(HASTY);
    check_open(&server.polling("EIO=4").await.open, &["websocket"]);
}

#[tokio::test]
async fn polling_refuses_an_invalid_protocol_version() {
    let server = server();
    for query in ["transport=polling", "EIO=abc&transport=polling"] {
        assert_eq!(server.get(query).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn polling_refuses_an_invalid_transport() {
    let server = server();
    for query in ["EIO=4", "EIO=4&transport=abc"] {
        assert_eq!(server.get(query).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn polling_refuses_an_invalid_method() {
    let server = server();
    for method in ["POST", "PUT"] {
        let reply = server.send(Request::new(method, &server.target("EIO=4&transport=polling"))).await;
        assert_eq!(reply.status, 400, "{method}");
    }
}

#[tokio::test]
async fn websocket_opens_a_session() {
    let server = Server::engineio(HASTY);
    check_open(&server.websocket("EIO=4").await.open_packet().await, &[]);
}

#[tokio::test]
async fn websocket_refuses_an_invalid_protocol_version() {
    check_websocket_refused("transport=websocket").await;
    check_websocket_refused("EIO=abc&transport=websocket").await;
}

#[tokio::test]
async fn websocket_refuses_an_invalid_transport() {
    check_websocket_refused("EIO=4").await;
    check_websocket_refused("EIO=4&transport=abc").await;
}

#[tokio::test]
async fn polling_carries_one_text_packet() {
    check_echo("4hello").await;
}

#[tokio::test]
async fn polling_carries_several_text_packets() {
    check_echo("4test1\x1e4test2\x1e4test3").await;
}

#[tokio::test]
async fn polling_carries_text_and_binary_packets() {
    check_echo("4hello\x1ebAQIDBA==").await;
}

#[tokio::test]
async fn polling_closes_upon_an_invalid_packet() {
    let server = server();
    let session = server.polling("EIO=4").await;
    session.post("abc").await.expect(200, "ok");
    session.expect_gone().await;
}

#[tokio::test]
async fn polling_closes_upon_a_second_poll() {
    let server = server();
    let session = server.polling("EIO=4").await;
    let mut first = session.park().await;
    session.poll().await.expect(400, "");
    first.reply().await.expect(200, "1");
    session.expect_gone().await;
}

#[tokio::test]
async fn polling_closes_upon_a_cancelled_poll() {
    let server = server();
    let session = server.polling("EIO=4").await;
    drop(session.park().await);
    session.ends().await;
}

#[tokio::test]
async fn websocket_carries_text() {
    let server = server();
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    socket.send("4hello").await;
    socket.expect(&["4hello"]).await;
}

#[tokio::test]
async fn websocket_carries_binary() {
    let server = server();
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    socket.send_binary(&[1, 2, 3, 4]).await;
    assert_eq!(socket.binary().await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn websocket_closes_upon_an_invalid_packet() {
    let server = server();
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    socket.send("abc").await;
    assert_eq!(socket.closed().await, None);
}

#[tokio::test]
async fn polling_exchanges_heartbeats() {
    let server = Server::engineio(PATIENT);
    let session = server.polling("EIO=4").await;
    for _ in 0..3 {
        session.poll().await.expect(200, "2");
        session.send(&["3"]).await;
    }
}

#[tokio::test]
async fn polling_closes_when_no_pong_comes() {
    let server = Server::engineio(HASTY);
    let session = server.polling("EIO=4").await;
    session.ends().await;
}

#[tokio::test]
async fn websocket_exchanges_heartbeats() {
    let server = Server::engineio(PATIENT);
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    for _ in 0..3 {
        assert_eq!(socket.any_text().await, "2");
        socket.send("3").await;
    }
}

#[tokio::test]
async fn websocket_closes_when_no_pong_comes() {
    let server = Server::engineio(HASTY);
    let mut socket = server.websocket("EIO=4").await;
    assert_eq!(socket.closed().await, None);
}

#[tokio::test]
async fn polling_close_packet_ends_the_session_and_the_parked_poll() {
    let server = server();
    let session = server.polling("EIO=4").await;
    let mut parked = session.park().await;
    session.post("1").await.expect(200, "ok");
    parked.reply().await.expect(200, "6");
    session.expect_gone().await;
}

#[tokio::test]
async fn websocket_close_packet_is_followed_by_a_close() {
    let server = Server::engineio(HASTY);
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    socket.send("1").await;
    socket.closed().await;
}

#[tokio::test]
async fn upgrade_from_polling_to_websocket() {
    let server = server();
    let session = server.polling("EIO=4").await;
    let mut socket = server.websocket(&session.upgrade_query()).await;
    socket.send("2probe").await;
    assert_eq!(socket.any_text().await, "3probe");
    session.poll().await.expect(200, "6");
    socket.send("5").await;
    socket.send("4hello").await;
    socket.expect(&["4hello"]).await;
}

#[tokio::test]
async fn upgraded_session_refuses_polls() {
    let server = server();
    let session = server.polling("EIO=4").await;
    let mut socket = server.websocket(&session.upgrade_query()).await;
    socket.send_all(&["2probe"]).await;
    assert_eq!(socket.any_text().await, "3probe");
    socket.send("5").await;
    server.settle().await;
    assert_eq!(session.poll().await.status, 400);
    socket.send("4hello").await;
    socket.expect(&["4hello"]).await;
}

#[tokio::test]
async fn upgraded_session_refuses_a_second_websocket() {
    let server = server();
    let session = server.polling("EIO=4").await;
    let mut socket = server.websocket(&session.upgrade_query()).await;
    socket.send("2probe").await;
    assert_eq!(socket.any_text().await, "3probe");
    socket.send("5").await;
    let mut second = server.websocket(&session.upgrade_query()).await;
    soon("the second WebSocket is closed", async { while second.message().await.is_some() {} }).await;
    socket.send("4hello").await;
    socket.expect(&["4hello"]).await;
}
