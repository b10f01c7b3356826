//! From polling to WebSocket: the dance, its refusals, and the order of packets across it.

use std::time::Duration;

use crate::wire::{Polling, Server, WebSocket, not_within};

/// Opens the candidate and goes through the probe.
async fn probe(server: &Server, session: &Polling<'_>) -> WebSocket {
    let mut socket = server.websocket(&session.upgrade_query()).await;
    socket.send("2probe").await;
    assert_eq!(socket.any_text().await, "3probe");
    socket
}

/// The event that the demo answers with `message-back`, and its answer.
fn event(index: u32) -> (String, String) {
    (format!(r#"42["message",{index}]"#), format!(r#"42["message-back",{index}]"#))
}

#[tokio::test]
async fn parked_poll_is_released_with_a_noop() {
    for (version, noop) in [("EIO=4", "6"), ("EIO=3", "1:6")] {
        let server = Server::engineio(&[]);
        let session = server.polling(version).await;
        let mut parked = session.park().await;
        let _socket = probe(&server, &session).await;
        parked.reply().await.expect(200, noop);
    }
}

#[tokio::test]
async fn poll_during_the_upgrade_is_released_too() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=4").await;
    let _socket = probe(&server, &session).await;
    for _ in 0..3 {
        session.poll().await.expect(200, "6");
    }
}

#[tokio::test]
async fn binary_settings_release_the_poll_in_bytes() {
    let server = Server::engineio(&["edge.eio3_payloads=binary"]);
    let reply = server.get("EIO=3&transport=polling").await;
    let open = reply.body.iter().position(|byte| *byte == b'{').expect("an open packet");
    let open: serde_json::Value = serde_json::from_slice(&reply.body[open..]).expect("JSON to the end");
    let sid = open["sid"].as_str().expect("a sid");
    let mut socket = server.websocket(&format!("EIO=3&sid={sid}")).await;
    socket.send("2probe").await;
    assert_eq!(socket.any_text().await, "3probe");
    let reply = server.get(&format!("EIO=3&transport=polling&sid={sid}")).await;
    assert_eq!(reply.body, *b"\x00\x01\xff6");
}

#[tokio::test]
async fn wrong_first_packet_closes_the_candidate_only() {
    for packet in ["4hello", "2", "2wrong", "1", "abc"] {
        let server = Server::engineio(&[]);
        let session = server.polling("EIO=4").await;
        let mut socket = server.websocket(&session.upgrade_query()).await;
        socket.send(packet).await;
        assert_eq!(socket.closed().await, None, "{packet}");
        session.send(&["4alive"]).await;
        session.poll().await.expect(200, "4alive");
    }
}

#[tokio::test]
async fn candidate_that_goes_away_leaves_the_session_polling() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=4").await;
    drop(probe(&server, &session).await);
    server.settle().await;
    session.send(&["4alive"]).await;
    assert!(session.packets_until(1).await == ["4alive"] || session.packets().await == ["4alive"]);
    let mut again = probe(&server, &session).await;
    again.send("5").await;
    again.send("4upgraded").await;
    again.expect(&["4upgraded"]).await;
}

#[tokio::test]
async fn candidate_that_does_not_finish_in_time_is_closed() {
    for first in [None, Some("2probe")] {
        let server = Server::engineio(&["edge.upgrade_timeout_ms=200"]);
        let session = server.polling("EIO=4").await;
        let mut socket = server.websocket(&session.upgrade_query()).await;
        if let Some(first) = first {
            socket.send(first).await;
        }
        socket.closed().await;
        session.send(&["4alive"]).await;
        session.poll().await.expect(200, "4alive");
    }
}

#[tokio::test]
async fn second_candidate_is_closed_and_the_first_goes_on() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=4").await;
    let mut first = probe(&server, &session).await;
    let mut second = server.websocket(&session.upgrade_query()).await;
    while second.message().await.is_some() {}
    first.send("5").await;
    first.send("4first").await;
    first.expect(&["4first"]).await;
}

#[tokio::test]
async fn upgrade_needs_no_poll() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    // The Python client sends everything right behind each other and never polls before.
    let mut socket = server.websocket(&session.upgrade_query()).await;
    socket.send_all(&["2probe", "5", "40{}"]).await;
    assert_eq!(socket.any_text().await, "3probe");
    assert!(socket.text().await.starts_with("40{\"sid\":"));
    socket.expect(&[r#"42["auth",{}]"#]).await;
}

#[tokio::test]
async fn poll_parked_at_the_switch_is_answered() {
    let server = Server::engineio(&["edge.upgrade_timeout_ms=60000"]);
    let session = server.polling("EIO=4").await;
    let mut parked = session.park().await;
    let mut socket = server.websocket(&session.upgrade_query()).await;
    socket.send_all(&["2probe", "5"]).await;
    assert_eq!(socket.any_text().await, "3probe");
    let reply = parked.reply().await;
    assert!(matches!(reply.text(), "1" | "6"), "{reply:?}");
    socket.send("4hello").await;
    socket.expect(&["4hello"]).await;
}

#[tokio::test]
async fn upgraded_session_answers_polls_with_a_bad_request() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=4").await;
    let mut socket = probe(&server, &session).await;
    socket.send("5").await;
    socket.send("4hello").await;
    socket.expect(&["4hello"]).await;
    session.poll().await.expect(400, r#"{"code":3,"message":"Bad request"}"#);
    session.post("4hello").await.expect(400, r#"{"code":3,"message":"Bad request"}"#);
    socket.send("4again").await;
    socket.expect(&["4again"]).await;
}

#[tokio::test]
async fn upgrade_is_refused_when_switched_off() {
    let server = Server::engineio(&["edge.transports=polling"]);
    let session = server.polling("EIO=4").await;
    let request = crate::wire::Request::websocket(
        &server.target(&format!("{}&transport=websocket", session.upgrade_query())),
    );
    assert_eq!(server.send(request).await.status, 400);
    session.send(&["4alive"]).await;
    session.poll().await.expect(200, "4alive");
}

#[tokio::test]
async fn events_keep_their_order_across_the_upgrade() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    let mut seen = Vec::new();
    let mut sent = 0;
    let mut next = || {
        sent += 1;
        event(sent).0
    };

    // Before: answers wait in the outbox.
    session.send(&[&next(), &next()]).await;
    let mut socket = probe(&server, &session).await;
    // During: the probe is done, events still go out over polling.
    session.send(&[&next(), &next(), &next()]).await;
    seen.extend(session.packets().await);
    session.send(&[&next()]).await;
    // After: the rest must come over the WebSocket, what waited first.
    socket.send("5").await;
    socket.send(&next()).await;
    socket.send(&next()).await;
    seen.retain(|packet| packet != "6");
    while seen.len() < 8 {
        seen.push(socket.text().await);
    }
    let expected: Vec<_> = (1..=8).map(|index| event(index).1).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn events_of_another_socket_keep_their_order_across_the_upgrade() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    let (mut sender, _) = server.socket().await;
    let mut seen = Vec::new();
    for index in 0..100 {
        sender.send(&format!(r#"42["broadcast",null,{index}]"#)).await;
    }
    sender
        .expect(
            &(0..50)
                .map(|index| format!(r#"42["msg",{index}]"#))
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        )
        .await;
    seen.extend(session.packets().await);
    let mut socket = probe(&server, &session).await;
    let reply = session.packets().await;
    seen.extend(reply.into_iter().filter(|packet| packet != "6"));
    socket.send("5").await;
    while seen.len() < 100 {
        seen.push(socket.text().await);
    }
    let expected: Vec<_> = (0..100).map(|index| format!(r#"42["msg",{index}]"#)).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn close_during_the_upgrade_closes_both_transports() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=4").await;
    let mut socket = probe(&server, &session).await;
    session.send(&["1"]).await;
    socket.closed().await;
    session.expect_gone().await;
}

#[tokio::test]
async fn quiet_candidate_gets_nothing_before_its_probe() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=4").await;
    let mut socket = server.websocket(&session.upgrade_query()).await;
    session.send(&["4hello"]).await;
    not_within(Duration::from_millis(100), "a frame before the probe", socket.message()).await;
    session.poll().await.expect(200, "4hello");
}
