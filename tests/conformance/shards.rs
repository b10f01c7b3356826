//! Two shards: requests of one session land on either, and all of them work.
//!
//! The kernel spreads connections, so each test repeats until a wrong hand-over could not have stayed hidden.

use crate::wire::{Request, Server};

const ROUNDS: usize = 12;

fn server() -> Server {
    Server::socketio(&["edge.shards=2"])
}

#[tokio::test]
async fn polls_and_posts_reach_their_session_from_any_shard() {
    let server = server();
    for round in 0..ROUNDS {
        let session = server.polling("EIO=4").await;
        session.join().await;
        let mut parked = server.start(Request::get(&server.target(&session.query()))).await;
        session.send(&[&format!(r#"42["message",{round}]"#)]).await;
        parked.reply().await.expect(200, &format!(r#"42["message-back",{round}]"#));
    }
}

#[tokio::test]
async fn large_bodies_pass_between_shards() {
    let server = server();
    let text = "x".repeat(300_000);
    for _ in 0..6 {
        let session = server.polling("EIO=4").await;
        session.join().await;
        session.send(&[&format!(r#"42["message","{text}"]"#)]).await;
        session.poll().await.expect(200, &format!(r#"42["message-back","{text}"]"#));
    }
}

#[tokio::test]
async fn upgrades_reach_their_session_from_any_shard() {
    let server = server();
    for round in 0..ROUNDS {
        let session = server.polling("EIO=4").await;
        session.join().await;
        let mut socket = server.websocket(&session.upgrade_query()).await;
        socket.send("2probe").await;
        assert_eq!(socket.any_text().await, "3probe");
        session.poll().await.expect(200, "6");
        socket.send("5").await;
        for index in 0..20 {
            socket.send(&format!(r#"42["message",{round},{index}]"#)).await;
        }
        for index in 0..20 {
            socket.expect(&[&format!(r#"42["message-back",{round},{index}]"#)]).await;
        }
        session.poll().await.expect(400, r#"{"code":3,"message":"Bad request"}"#);
    }
}

#[tokio::test]
async fn cancelled_poll_closes_the_session_on_any_shard() {
    let server = server();
    for _ in 0..ROUNDS {
        let session = server.polling("EIO=4").await;
        drop(session.park().await);
        session.ends().await;
    }
}

#[tokio::test]
async fn unknown_sessions_are_unknown_on_every_shard() {
    let server = server();
    let sid = server.polling("EIO=4").await.sid;
    let other: String = sid.chars().rev().collect();
    for _ in 0..ROUNDS {
        let reply = server.get(&format!("EIO=4&transport=polling&sid={other}")).await;
        reply.expect(400, r#"{"code":1,"message":"Session ID unknown"}"#);
    }
}

#[tokio::test]
async fn broadcasts_and_rooms_span_the_shards() {
    let server = server();
    let mut sockets = Vec::new();
    for _ in 0..ROUNDS {
        let (mut socket, _) = server.socket().await;
        socket.send(r#"421["join","room"]"#).await;
        socket.expect(&["431[true]"]).await;
        sockets.push(socket);
    }
    sockets[0].send(r#"42["broadcast","room","to the room"]"#).await;
    for socket in &mut sockets {
        socket.expect(&[r#"42["msg","to the room"]"#]).await;
    }
    sockets[0].send(r#"42["broadcast",null,"to all"]"#).await;
    for socket in &mut sockets {
        socket.expect(&[r#"42["msg","to all"]"#]).await;
    }
}

#[tokio::test]
async fn broadcasts_of_one_socket_arrive_in_order_on_every_shard() {
    let server = server();
    let mut sockets = Vec::new();
    for _ in 0..6 {
        sockets.push(server.socket().await.0);
    }
    for index in 0..200 {
        sockets[0].send(&format!(r#"42["broadcast",null,{index}]"#)).await;
    }
    for socket in &mut sockets {
        for index in 0..200 {
            socket.expect(&[&format!(r#"42["msg",{index}]"#)]).await;
        }
    }
}
