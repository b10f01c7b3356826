//! Socket.IO protocol 4 over Engine.IO 3, as 1.x and 2.x clients speak it.

use crate::wire::{Server, WebSocket};

const TWO: &[&str] = &["edge.namespaces=/,/custom"];

/// A session that has read its open packet, `40` and the demo's first event; with the session id.
async fn socket(server: &Server) -> (WebSocket, String) {
    let mut socket = server.websocket("EIO=3").await;
    let sid = socket.open_packet().await["sid"].as_str().expect("a sid").to_owned();
    assert_eq!(socket.any_text().await, "40");
    assert_eq!(socket.any_text().await, r#"42["auth",{}]"#);
    (socket, sid)
}

async fn check_closes(server: &Server, packet: &str) {
    let (mut socket, _) = socket(server).await;
    socket.send(packet).await;
    assert_eq!(socket.closed().await, None, "{packet}");
}

#[tokio::test]
async fn main_namespace_is_joined_by_the_server() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = socket(&server).await;
    socket.send(r#"42["message",1,"é"]"#).await;
    assert_eq!(socket.any_text().await, r#"42["message-back",1,"é"]"#);
}

#[tokio::test]
async fn main_namespace_is_joined_over_polling() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=3").await;
    let mut packets = session.early.clone();
    while packets.len() < 2 {
        packets.extend(session.packets().await);
    }
    assert_eq!(packets, ["40", r#"42["auth",{}]"#]);
    session.send(&[r#"427["echo","€😀"]"#]).await;
    session.poll().await.expect(200, r#"10:437["€😀"]"#);
}

#[tokio::test]
async fn socket_ids_are_made_of_the_session_id() {
    let server = Server::socketio(TWO);
    let (mut socket, sid) = socket(&server).await;
    socket.send(r#"421["whoami"]"#).await;
    assert_eq!(socket.any_text().await, format!(r#"431["{sid}"]"#));
    socket.send("40/custom").await;
    assert_eq!(socket.any_text().await, "40/custom,");
    assert_eq!(socket.any_text().await, r#"42/custom,["auth",{}]"#);
    socket.send(r#"42/custom,2["whoami"]"#).await;
    assert_eq!(socket.any_text().await, format!(r#"43/custom,2["/custom#{sid}"]"#));
}

#[tokio::test]
async fn query_of_a_namespace_becomes_its_auth() {
    let server = Server::socketio(TWO);
    let (mut socket, _) = socket(&server).await;
    socket.send("40/custom?token=abc&x=1,").await;
    assert_eq!(socket.any_text().await, "40/custom,");
    assert_eq!(socket.any_text().await, r#"42/custom,["auth",{"token":"abc","x":"1"}]"#);
}

#[tokio::test]
async fn unknown_namespace_is_refused() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = socket(&server).await;
    socket.send("40/nope").await;
    assert_eq!(socket.any_text().await, r#"44/nope,{"message":"Invalid namespace"}"#);
    socket.send(r#"42["message",1]"#).await;
    assert_eq!(socket.any_text().await, r#"42["message-back",1]"#);
}

#[tokio::test]
async fn main_namespace_that_is_not_configured_is_refused_unasked() {
    let server = Server::socketio(&["edge.namespaces=/custom"]);
    let refusal = r#"44{"message":"Invalid namespace"}"#;
    let mut socket = server.websocket("EIO=3").await;
    socket.open_packet().await;
    assert_eq!(socket.any_text().await, refusal);
    socket.send("40/custom").await;
    assert_eq!(socket.any_text().await, "40/custom,");
    assert_eq!(socket.any_text().await, r#"42/custom,["auth",{}]"#);

    let session = server.polling("EIO=3").await;
    let mut packets = session.early.clone();
    if packets.is_empty() {
        packets = session.packets().await;
    }
    assert_eq!(packets, [refusal]);
    session.send(&["40/custom"]).await;
    assert_eq!(session.packets_until(2).await, ["40/custom,", r#"42/custom,["auth",{}]"#]);
}

#[tokio::test]
async fn second_connect_closes() {
    check_closes(&Server::socketio(&[]), "40").await;
}

#[tokio::test]
async fn invalid_packets_close() {
    let server = Server::socketio(&[]);
    for packet in
        ["4abc", "42{}", "40abc", r#"42["disconnect"]"#, "46", r#"4511-["x"]"#, r#"42/custom,["x"]"#]
    {
        check_closes(&server, packet).await;
    }
}

#[tokio::test]
async fn acknowledgements_go_both_ways() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = socket(&server).await;
    socket.send(r#"4212["message-with-ack",1,{"a":null}]"#).await;
    assert_eq!(socket.any_text().await, r#"4312[1,{"a":null}]"#);
    socket.send(r#"42["emit-with-ack","x"]"#).await;
    let event = socket.any_text().await;
    let id = event.strip_prefix("42").and_then(|rest| rest.strip_suffix(r#"["emit-with-ack","x"]"#));
    let id = id.unwrap_or_else(|| panic!("{event}"));
    socket.send(&format!(r#"43{id}["the answer"]"#)).await;
    assert_eq!(socket.any_text().await, r#"42["emit-with-ack","the answer"]"#);
}

#[tokio::test]
async fn binary_frames_carry_the_type_byte() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = socket(&server).await;
    socket.send(r#"451-["message",{"_placeholder":true,"num":0}]"#).await;
    socket.send_binary(&[4, 1, 2, 3]).await;
    assert_eq!(socket.any_text().await, r#"451-["message-back",{"_placeholder":true,"num":0}]"#);
    assert_eq!(socket.binary().await, [4, 1, 2, 3]);
}

#[tokio::test]
async fn binary_over_polling_takes_the_form_of_the_session() {
    let server = Server::socketio(&[]);
    for (query, expected) in [
        ("EIO=3&b64=1", &b"50:451-[\"message-back\",{\"_placeholder\":true,\"num\":0}]6:b4AQID"[..]),
        ("EIO=3", b"\x00\x05\x00\xff451-[\"message-back\",{\"_placeholder\":true,\"num\":0}]\x01\x04\xff\x04\x01\x02\x03"),
    ] {
        let session = server.polling(query).await;
        let mut early = session.early.len();
        while early < 2 {
            early += session.packets().await.len();
        }
        session.send(&[r#"451-["message",{"_placeholder":true,"num":0}]"#, "b4AQID"]).await;
        let reply = session.poll().await;
        assert_eq!(String::from_utf8_lossy(&reply.body), String::from_utf8_lossy(expected), "{query}");
    }
}

#[tokio::test]
async fn leaving_and_kicking_keep_the_connection() {
    let server = Server::socketio(TWO);
    let (mut socket, _) = socket(&server).await;
    socket.send("40/custom").await;
    assert_eq!(socket.any_text().await, "40/custom,");
    assert_eq!(socket.any_text().await, r#"42/custom,["auth",{}]"#);
    socket.send(r#"42/custom,["kick"]"#).await;
    assert_eq!(socket.any_text().await, "41/custom,");
    socket.send("40/custom").await;
    assert_eq!(socket.any_text().await, "40/custom,");
    assert_eq!(socket.any_text().await, r#"42/custom,["auth",{}]"#);
    socket.send("41").await;
    socket.send(r#"42/custom,["message",1]"#).await;
    assert_eq!(socket.any_text().await, r#"42/custom,["message-back",1]"#);
}

#[tokio::test]
async fn both_protocols_meet_in_one_room() {
    let server = Server::socketio(&[]);
    let (mut old, _) = socket(&server).await;
    let (mut new, _) = server.socket().await;
    old.send(r#"421["join","room"]"#).await;
    assert_eq!(old.any_text().await, "431[true]");
    new.send(r#"421["join","room"]"#).await;
    new.expect(&["431[true]"]).await;
    new.send(r#"451-["broadcast","room",{"_placeholder":true,"num":0}]"#).await;
    new.send_binary(&[9, 8]).await;
    let header = r#"451-["msg",{"_placeholder":true,"num":0}]"#;
    new.expect(&[header]).await;
    assert_eq!(new.binary().await, [9, 8]);
    assert_eq!(old.any_text().await, header);
    assert_eq!(old.binary().await, [4, 9, 8]);
}
