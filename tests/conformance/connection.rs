//! Joining and leaving namespaces in protocol 5, and what lives as long as a connection.

use std::time::{Duration, Instant};

use crate::wire::{Server, not_within};

const TWO: &[&str] = &["edge.namespaces=/,/custom"];

#[tokio::test]
async fn socket_ids_are_new_for_every_namespace_and_never_the_session_id() {
    let server = Server::socketio(TWO);
    let mut socket = server.websocket("EIO=4").await;
    let session = socket.open_packet().await["sid"].as_str().expect("a sid").to_owned();
    let main = socket.join("/").await;
    let custom = socket.join("/custom").await;
    assert_eq!((main.len(), custom.len()), (20, 20));
    assert!(main != custom && main != session && custom != session, "{session} {main} {custom}");
    socket.send("41").await;
    assert_ne!(socket.join("/").await, main, "a new id after leaving");
}

#[tokio::test]
async fn connect_replies_have_exact_bytes() {
    let server = Server::socketio(TWO);
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    socket.send(r#"40{"token":"abc"}"#).await;
    let reply = socket.text().await;
    assert!(reply.starts_with(r#"40{"sid":""#) && reply.ends_with(r#""}"#) && reply.len() == 32, "{reply}");
    socket.expect(&[r#"42["auth",{"token":"abc"}]"#]).await;
    socket.send("40/custom").await;
    let reply = socket.text().await;
    assert!(reply.starts_with(r#"40/custom,{"sid":""#) && reply.len() == 40, "{reply}");
}

#[tokio::test]
async fn auth_comes_back_as_it_was_given() {
    let server = Server::socketio(&[]);
    for auth in [r#"{}"#, r#"{"a":{"b":[1,2.50,"é\u00e9"]},"c":null}"#] {
        let mut socket = server.websocket("EIO=4").await;
        socket.open_packet().await;
        socket.send(&format!("40{auth}")).await;
        socket.text().await;
        let event = socket.text().await;
        let got = crate::wire::server::json_after(&event, 2);
        let expected: serde_json::Value = serde_json::from_str(auth).expect("JSON");
        assert_eq!(got[1], expected);
    }
}

#[tokio::test]
async fn unknown_namespace_is_refused_and_the_session_stays() {
    let server = Server::socketio(TWO);
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    for namespace in ["/nope", "/custom2", "/custom/more", "/Custom", "/é", "/__proto__"] {
        socket.send(&format!("40{namespace},")).await;
        socket.expect(&[&format!(r#"44{namespace},{{"message":"Invalid namespace"}}"#)]).await;
    }
    socket.join("/").await;
}

#[tokio::test]
async fn namespaces_can_be_patterns() {
    let server = Server::socketio(&["edge.namespaces=/,/org-*"]);
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    socket.join("/org-7").await;
    socket.join("/org-8").await;
    socket.send("40/orgs,").await;
    socket.expect(&[r#"44/orgs,{"message":"Invalid namespace"}"#]).await;
}

#[tokio::test]
async fn query_of_a_namespace_is_part_of_its_name() {
    // Only protocol 4 sends its auth that way. Here it names a namespace that nobody configured, as in Node.
    for sets in [TWO, &[]] {
        let server = Server::socketio(sets);
        let mut socket = server.websocket("EIO=4").await;
        socket.open_packet().await;
        socket.send("40/custom?token=abc,").await;
        socket.expect(&[r#"44/custom?token=abc,{"message":"Invalid namespace"}"#]).await;
        socket.join("/").await;
    }
}

#[tokio::test]
async fn connect_timeout_counts_from_the_opening() {
    let server = Server::socketio(&["edge.connect_timeout_ms=300"]);
    for first in [None, Some("40/nope,")] {
        let since = Instant::now();
        let mut socket = server.websocket("EIO=4").await;
        socket.open_packet().await;
        if let Some(first) = first {
            socket.send(first).await;
        }
        assert_eq!(socket.closed().await, None);
        let elapsed = since.elapsed();
        assert!((300..5300).contains(&elapsed.as_millis()), "{elapsed:?}");
    }
}

#[tokio::test]
async fn joined_session_outlives_the_connect_timeout_even_after_leaving() {
    let server = Server::socketio(&["edge.connect_timeout_ms=1000"]);
    let (mut stays, _) = server.socket().await;
    let (mut left, _) = server.socket().await;
    left.send("41").await;
    not_within(Duration::from_millis(1500), "a joined session is closed", stays.message()).await;
    left.join("/").await;
}

#[tokio::test]
async fn leaving_keeps_the_connection() {
    let server = Server::socketio(TWO);
    let (mut socket, _) = server.socket().await;
    socket.join("/custom").await;
    socket.send("41/custom,").await;
    socket.send(r#"42["message",1]"#).await;
    socket.expect(&[r#"42["message-back",1]"#]).await;
    socket.send("41").await;
    socket.join("/custom").await;
    socket.join("/").await;
}

#[tokio::test]
async fn kick_leaves_the_namespace_and_keeps_the_connection() {
    let server = Server::socketio(TWO);
    let (mut socket, _) = server.socket().await;
    socket.join("/custom").await;
    socket.send(r#"42/custom,["kick"]"#).await;
    socket.expect(&["41/custom,"]).await;
    socket.send(r#"42["message",1]"#).await;
    socket.expect(&[r#"42["message-back",1]"#]).await;
    socket.send(r#"42["kick"]"#).await;
    socket.expect(&["41"]).await;
    socket.join("/").await;
}

#[tokio::test]
async fn those_who_left_get_nothing_more() {
    let server = Server::socketio(&[]);
    let (mut stays, _) = server.socket().await;
    let (mut leaves, _) = server.socket().await;
    let (mut ends, _) = server.socket().await;
    leaves.send("41").await;
    ends.close().await;
    leaves.join("/").await;
    leaves.send("41").await;
    leaves.send("40/nope,").await;
    leaves.expect(&[r#"44/nope,{"message":"Invalid namespace"}"#]).await;
    stays.send(r#"42["broadcast",null,1]"#).await;
    stays.expect(&[r#"42["msg",1]"#]).await;
    leaves.send("40/nope,").await;
    leaves.expect(&[r#"44/nope,{"message":"Invalid namespace"}"#]).await;
}

#[tokio::test]
async fn sessions_do_not_mix() {
    let server = Server::socketio(&[]);
    let mut sockets = Vec::new();
    for _ in 0..50 {
        sockets.push(server.socket().await);
    }
    for (index, (socket, _)) in sockets.iter_mut().enumerate() {
        socket.send(&format!(r#"42{index}["whoami"]"#)).await;
    }
    for (index, (socket, sid)) in sockets.iter_mut().enumerate() {
        socket.expect(&[&format!(r#"43{index}["{sid}"]"#)]).await;
    }
}

#[tokio::test]
async fn polling_and_websocket_clients_share_a_namespace() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    let session = server.polling("EIO=4").await;
    session.join().await;
    let mut parked = session.park().await;
    socket.send(r#"42["broadcast",null,{"é":"😀"}]"#).await;
    socket.expect(&[r#"42["msg",{"é":"😀"}]"#]).await;
    parked.reply().await.expect(200, r#"42["msg",{"é":"😀"}]"#);
}
