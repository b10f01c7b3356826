//! Bounds that have a name: what happens at each, and which counter shows it.

use serde_json::json;

use crate::harness::polling::Request;
use crate::harness::{Client, Options, Server};

const HITS: &str = "jackfield_limit_hits_total";

#[tokio::test]
async fn handshakes_beyond_the_sessions_are_told_to_come_back() {
    let server = Server::start(|edge| edge.sessions_max = 2);
    let (client, session) = (server.client().await, server.polling().await);
    for _ in 0..2 {
        let reply = Request::get("EIO=4&transport=polling").send(server.address).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")), "{reply:?}");
        let reply = Client::try_open(server.address, &Options::default()).await.expect_err("503");
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")), "{reply:?}");
    }
    assert_eq!(server.metric("jackfield_sessions_refused_total"), 4);
    // Those inside are served, and a place that becomes free is given away.
    session.join().await;
    client.close().await;
    crate::harness::until("a place is free", || {
        server.metric("jackfield_sessions{transport=\"websocket\"}") == 0
    })
    .await;
    server.client().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_are_hung_up() {
    let server = Server::start(|edge| {
        edge.limits.connections_max = 2;
        edge.sessions_max = 10;
    });
    let (mut first, second) = (server.client().await, server.client().await);
    let refused = Request::get("EIO=4&transport=polling").send(server.address).await;
    assert_eq!(refused.status, 0, "{refused:?}");
    assert_eq!(server.metric("jackfield_connections_refused_total"), 1);
    first.act_and_wait(json!([])).await;
    second.close().await;
    crate::harness::until("a place is free", || server.metric("jackfield_connections") == 1).await;
    server.client().await;
}

#[tokio::test]
async fn a_socket_joins_so_many_rooms_and_no_more() {
    let server = Server::start(|edge| edge.limits.rooms_per_socket_max = 3);
    let mut client = server.client().await;
    for room in ["a", "b", "c", "d"] {
        client.act_and_wait(json!([{"join": room}])).await;
    }
    assert_eq!((server.metric(HITS), server.metric("jackfield_rooms")), (1, 3));
    for (room, is_in) in [("a", true), ("c", true), ("d", false)] {
        client.send(&format!(r#"421["do",{{"to":["{room}"],"emit":["{room}"]}}]"#)).await;
        if is_in {
            client.expect(&[&format!(r#"42["{room}"]"#)]).await;
        }
        client.expect(&["431[true]"]).await;
    }
    // Being there already is no further room; leaving one makes room for another.
    client.act_and_wait(json!([{"join": "a"}])).await;
    assert_eq!(server.metric(HITS), 1);
    client.act_and_wait(json!([{"leave": "a"}, {"join": "d"}])).await;
    assert_eq!((server.metric(HITS), server.metric("jackfield_rooms")), (1, 3));
}

#[tokio::test]
async fn a_node_has_so_many_rooms_and_no_more() {
    let server = Server::start(|edge| edge.limits.rooms_max = 2);
    let (mut first, mut second) = (server.client().await, server.client().await);
    first.act_and_wait(json!([{"join": "a"}, {"join": "b"}, {"join": "c"}])).await;
    assert_eq!((server.metric(HITS), server.metric("jackfield_rooms")), (1, 2));
    // A room that exists is open to others.
    second.act_and_wait(json!([{"join": "a"}])).await;
    assert_eq!(server.metric(HITS), 1);
    first.act(json!([{"to": ["a"], "except": [first.id], "emit": ["both are in"]}])).await;
    second.expect(&[r#"42["both are in"]"#]).await;
    // An empty room is none.
    first.act_and_wait(json!([{"leave": "b"}, {"join": "c"}])).await;
    assert_eq!((server.metric(HITS), server.metric("jackfield_rooms")), (1, 2));
}

#[tokio::test]
async fn a_socket_owes_so_many_answers_and_no_more() {
    let server = Server::start(|edge| edge.limits.acks_pending_max = 2);
    let mut client = server.client().await;
    let questions: Vec<_> = (0..4).map(|token| json!({"emit": ["?", token], "ack": token})).collect();
    client.act(json!(questions)).await;
    client.expect(&[r#"420["?",0]"#, r#"421["?",1]"#]).await;
    client.act_and_wait(json!([])).await;
    assert_eq!((server.metric(HITS), server.metric("jackfield_acks_pending")), (2, 2));
    client.send("430[]").await;
    client.act(json!([{"emit": ["again"], "ack": 9}])).await;
    let text = client.text().await;
    assert!(text.ends_with(r#"["again"]"#), "{text}");
    assert_eq!((server.metric(HITS), server.metric("jackfield_acks_pending")), (2, 2));
}

#[tokio::test]
async fn a_session_joins_so_many_namespaces_and_no_more() {
    let server = Server::start(|edge| {
        edge.namespaces = vec!["/*".to_owned()];
        edge.limits.namespaces_per_session_max = 2;
    });
    let mut client = server.client().await;
    client.join("/a").await;
    client.send("40/b,").await;
    client.expect(&[r#"44/b,{"message":"Too many namespaces: a session may join 2"}"#]).await;
    assert_eq!((server.metric(HITS), server.metric("jackfield_connects_refused_total")), (1, 1));
    client.send("41/a,").await;
    client.join("/b").await;
}

#[tokio::test]
async fn names_of_rooms_are_bounded() {
    let server = Server::start(|edge| edge.limits.name_bytes_max = 20);
    let mut client = server.client().await;
    client.act_and_wait(json!([{"join": "x".repeat(20)}, {"join": "é".repeat(11)}, {"join": ""}])).await;
    assert_eq!((server.metric(HITS), server.metric("jackfield_rooms")), (2, 1));
}

#[tokio::test]
async fn what_a_packet_may_not_exceed_closes_the_session_and_is_counted() {
    let cases = [
        ("an event name", format!(r#"42["{}"]"#, "x".repeat(21))),
        ("a namespace", format!("40/{},", "x".repeat(21))),
        ("attachments", r#"453-["do",{"_placeholder":true,"num":0}]"#.to_owned()),
        ("nesting", format!(r#"42["do",{}{}]"#, "[".repeat(12), "]".repeat(12))),
    ];
    for (what, packet) in cases {
        let server = Server::start(|edge| {
            edge.limits.name_bytes_max = 20;
            edge.limits.attachments_max = 2;
            edge.limits.json_depth_max = 10;
        });
        let mut client = server.client().await;
        client.send(&packet).await;
        client.expect_close(None).await;
        assert_eq!(server.closed_for("forced close"), 1, "{what}");
        assert_eq!(server.metric(HITS), 1, "{what}");
    }
}

#[tokio::test]
async fn what_a_transport_may_not_carry_is_refused_and_counted() {
    let server = Server::start(|edge| edge.payload_bytes_max = 1_000);
    let session = server.polling().await;
    session.join().await;
    session.post(&"x".repeat(1_001)).await.expect(413, "");
    assert_eq!(server.metric(HITS), 1);
    session.act(json!([])).await;
    let mut client = server.client().await;
    client.send(&"4".repeat(1_001)).await;
    client.expect_close(Some(1009)).await;
    assert_eq!(server.metric(HITS), 2);
}

#[tokio::test]
async fn a_long_url_is_cut() {
    let server = Server::start(|edge| edge.limits.url_bytes_max = 64);
    // The gate's name lies beyond the cut, so nobody waits for it.
    let query = format!("EIO=4&{}&gate=lost", "x".repeat(100));
    server.client_with(&Options { query: &query, ..Options::default() }).await;
}
