//! What the published Socket.IO protocol 5 suite asserts, against the gateway with the demo upstream.

use serde_json::{Value, json};

use crate::wire::server::json_after;
use crate::wire::{HASTY, PATIENT, Request, SUITE, Server, WebSocket, soon};

fn server() -> Server {
    Server::socketio(SUITE)
}

fn check_open(open: &Value, upgrades: &[&str]) {
    let mut open = open.clone();
    assert!(open.as_object_mut().is_some_and(|open| open.remove("sid").is_some_and(|sid| sid.is_string())));
    let expected =
        json!({"upgrades": upgrades, "pingInterval": 300, "pingTimeout": 200, "maxPayload": 1_000_000});
    assert_eq!(open, expected);
}

/// Sends a CONNECT and expects the reply to hold a socket id and nothing else, then the `auth` event.
async fn check_connect(connect: &str, prefix: &str, auth: &str) {
    let server = server();
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    socket.send(connect).await;
    let reply = socket.text().await;
    assert!(reply.starts_with(&format!("40{prefix}")), "{reply}");
    let reply = json_after(&reply, 2 + prefix.len());
    let fields: Vec<_> = reply.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["sid"]);
    assert!(reply["sid"].is_string(), "{reply}");
    socket.expect(&[&format!(r#"42{prefix}["auth",{auth}]"#)]).await;
}

/// Sends what a joined client must not send and expects the connection to be closed.
async fn check_closes(packet: &str) {
    let server = server();
    let (mut socket, _) = server.socket().await;
    socket.send(packet).await;
    assert_eq!(socket.closed().await, None, "{packet}");
}

async fn check_websocket_refused(query: &str) {
    let server = server();
    let reply = server.send(Request::websocket(&server.target(query))).await;
    assert_eq!(reply.status, 400, "{reply:?}");
}

async fn upgraded(server: &Server) -> (crate::wire::Polling<'_>, WebSocket) {
    let session = server.polling("EIO=4").await;
    let mut socket = server.websocket(&session.upgrade_query()).await;
    socket.send("2probe").await;
    assert_eq!(socket.any_text().await, "3probe");
    socket.send("5").await;
    server.settle().await;
    (session, socket)
}

#[tokio::test]
async fn polling_opens_a_session() {
    let server = Server::socketio(HASTY);
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
    let server = Server::socketio(HASTY);
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
async fn polling_exchanges_heartbeats() {
    let server = Server::socketio(PATIENT);
    let session = server.polling("EIO=4").await;
    for _ in 0..3 {
        session.poll().await.expect(200, "2");
        session.send(&["3"]).await;
    }
}

#[tokio::test]
async fn polling_closes_when_no_pong_comes() {
    let server = Server::socketio(HASTY);
    let session = server.polling("EIO=4").await;
    session.ends().await;
}

#[tokio::test]
async fn websocket_exchanges_heartbeats() {
    let server = Server::socketio(PATIENT);
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    for _ in 0..3 {
        assert_eq!(socket.any_text().await, "2");
        socket.send("3").await;
    }
}

#[tokio::test]
async fn websocket_closes_when_no_pong_comes() {
    let server = Server::socketio(HASTY);
    assert_eq!(server.websocket("EIO=4").await.closed().await, None);
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
    let server = Server::socketio(HASTY);
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    socket.send("1").await;
    socket.closed().await;
}

#[tokio::test]
async fn upgrade_from_polling_to_websocket() {
    let server = server();
    let (_, mut socket) = upgraded(&server).await;
    socket.join("/").await;
}

#[tokio::test]
async fn upgraded_session_refuses_polls() {
    let server = server();
    let (session, _socket) = upgraded(&server).await;
    assert_eq!(session.poll().await.status, 400);
}

#[tokio::test]
async fn upgraded_session_refuses_a_second_websocket() {
    let server = server();
    let (session, _socket) = upgraded(&server).await;
    let mut second = server.websocket(&session.upgrade_query()).await;
    soon("the second WebSocket is closed", async { while second.message().await.is_some() {} }).await;
}

#[tokio::test]
async fn connect_to_the_main_namespace() {
    check_connect("40", "", "{}").await;
}

#[tokio::test]
async fn connect_to_the_main_namespace_with_auth() {
    check_connect(r#"40{"token":"123"}"#, "", r#"{"token":"123"}"#).await;
}

#[tokio::test]
async fn connect_to_a_custom_namespace() {
    check_connect("40/custom,", "/custom,", "{}").await;
}

#[tokio::test]
async fn connect_to_a_custom_namespace_with_auth() {
    check_connect(r#"40/custom,{"token":"abc"}"#, "/custom,", r#"{"token":"abc"}"#).await;
}

#[tokio::test]
async fn connect_to_an_unknown_namespace_is_refused() {
    let server = server();
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    socket.send("40/random").await;
    socket.expect(&[r#"44/random,{"message":"Invalid namespace"}"#]).await;
}

#[tokio::test]
async fn connect_with_an_invalid_packet_closes() {
    let server = server();
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    socket.send("4abc").await;
    assert_eq!(socket.closed().await, None);
}

#[tokio::test]
async fn a_session_that_joins_nothing_is_closed() {
    let server = Server::socketio(HASTY);
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    while let Some(message) = socket.message().await {
        if message.is_close() {
            return;
        }
        assert_eq!(message.to_text().unwrap_or_default(), "2");
        socket.send("3").await;
    }
    panic!("the stream ended without a close frame");
}

#[tokio::test]
async fn disconnect_from_the_main_namespace_keeps_the_session() {
    let server = Server::socketio(PATIENT);
    let (mut socket, _) = server.socket().await;
    socket.send("41").await;
    assert_eq!(socket.any_text().await, "2");
}

#[tokio::test]
async fn disconnect_from_a_custom_namespace_keeps_the_main_one() {
    let server = server();
    let (mut socket, _) = server.socket().await;
    socket.join("/custom").await;
    socket.send("41/custom").await;
    socket.send(r#"42["message","message to main namespace"]"#).await;
    socket.expect(&[r#"42["message-back","message to main namespace"]"#]).await;
}

#[tokio::test]
async fn event_in_text() {
    let server = server();
    let (mut socket, _) = server.socket().await;
    socket.send(r#"42["message",1,"2",{"3":[true]}]"#).await;
    socket.expect(&[r#"42["message-back",1,"2",{"3":[true]}]"#]).await;
}

#[tokio::test]
async fn event_with_attachments() {
    let server = server();
    let (mut socket, _) = server.socket().await;
    socket.send(r#"452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#).await;
    socket.send_binary(&[1, 2, 3]).await;
    socket.send_binary(&[4, 5, 6]).await;
    socket
        .expect(&[r#"452-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#])
        .await;
    assert_eq!(socket.binary().await, [1, 2, 3]);
    assert_eq!(socket.binary().await, [4, 5, 6]);
}

#[tokio::test]
async fn event_with_an_acknowledgement() {
    let server = server();
    let (mut socket, _) = server.socket().await;
    socket.send(r#"42456["message-with-ack",1,"2",{"3":[false]}]"#).await;
    socket.expect(&[r#"43456[1,"2",{"3":[false]}]"#]).await;
}

#[tokio::test]
async fn event_with_attachments_and_an_acknowledgement() {
    let server = server();
    let (mut socket, _) = server.socket().await;
    socket
        .send(r#"452-789["message-with-ack",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#)
        .await;
    socket.send_binary(&[1, 2, 3]).await;
    socket.send_binary(&[4, 5, 6]).await;
    socket.expect(&[r#"462-789[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#]).await;
    assert_eq!(socket.binary().await, [1, 2, 3]);
    assert_eq!(socket.binary().await, [4, 5, 6]);
}

#[tokio::test]
async fn unknown_packet_type_closes() {
    check_closes("4abc").await;
}

#[tokio::test]
async fn invalid_payload_closes() {
    check_closes("42{}").await;
}

#[tokio::test]
async fn invalid_ack_id_closes() {
    check_closes(r#"42abc["message-with-ack",1,"2",{"3":[false]}]"#).await;
}
