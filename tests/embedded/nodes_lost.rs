//! What goes away while a request is relayed: the client, the node of the session, or the node in between.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use cluster_proto::identity::NodeId;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::nodes::{Nodes, sid_of};
use crate::harness::polling::{Reply, Request};

use crate::harness::{Client, Next, Options, Polling, Server, soon};
use system_tests::stream::{connect, read_head};

const UNKNOWN: &str = r#"{"code":1,"message":"Session ID unknown"}"#;

/// Begins a POST of a session at some edge: head, and as much of the body.
async fn begin_post(at: &Server, session: &Polling, framing: &str, body: &str) -> TcpStream {
    let mut stream = connect(at.address, Ipv4Addr::LOCALHOST.into(), None).await;
    let query = &session.query;
    let head =
        format!("POST /socket.io/?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{framing}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.expect("the edge reads");
    stream
}

async fn response(mut stream: TcpStream) -> Reply {
    let mut unread = bytes::BytesMut::new();
    let head = soon("a response", read_head(&mut stream, &mut unread)).await.unwrap_or_default();
    Reply::read(head, stream, unread).await
}

#[tokio::test]
async fn a_client_that_leaves_its_parked_poll_ends_its_session() {
    let (_nodes, owner, other) = Nodes::two().await;
    let session = owner.polling().await;
    session.join().await;
    let before = owner.metric("jackfield_peer_requests_total");
    let parked = session.at(other.address).start_get().await;
    owner.until("jackfield_peer_requests_total", before + 1).await;
    parked.abandon();
    owner.hears("disconnected / ").await;
    owner.empties().await;
    assert_eq!(owner.closed_for("transport error"), 1);
    other.until_zero("jackfield_relays").await;
    owner.until_zero("jackfield_peer_connections").await;
}

#[tokio::test]
async fn a_client_that_leaves_right_behind_its_request_ends_its_session() {
    let (_nodes, owner, other) = Nodes::two().await;
    for round in 1..=20 {
        let session = owner.polling().await;
        // Now and then a connection to the owner is open already.
        if round % 2 == 0 {
            session.at(other.address).join().await;
        } else {
            session.join().await;
        }
        session.at(other.address).start_get().await.abandon();
        owner.empties().await;
        assert_eq!(owner.closed_for("transport error"), round);
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_post_ends_its_session() {
    let (_nodes, owner, other) = Nodes::two().await;
    for (round, framing) in ["Content-Length: 1000", "Transfer-Encoding: chunked"].into_iter().enumerate() {
        let session = owner.polling().await;
        session.join().await;
        let before = owner.metric("jackfield_peer_inbound_partial_bytes");
        assert_eq!(before, 0);
        let body = if round == 0 { "42[\"do\"" } else { "7\r\n42[\"do\"\r\n" };
        let stream = begin_post(&other, &session, framing, body).await;
        owner.until("jackfield_peer_inbound_partial_bytes", 7).await;
        drop(stream);
        owner.empties().await;
        assert_eq!(owner.closed_for("transport error"), round as u64 + 1);
        owner.until_zero("jackfield_peer_inbound_partial_bytes").await;
        other.until_zero("jackfield_relays").await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_the_session_lives() {
    let (_nodes, owner, other) = Nodes::two_with(|edge| edge.payload_bytes_max = 10_000).await;
    let session = owner.polling().await;
    session.join().await;
    let stream = begin_post(&other, &session, "Content-Length: 10001", "").await;
    response(stream).await.expect(413, "");
    let chunk = "x".repeat(9_000);
    let chunks = format!("2328\r\n{chunk}\r\n2328\r\n{chunk}\r\n0\r\n\r\n");
    let stream = begin_post(&other, &session, "Transfer-Encoding: chunked", &chunks).await;
    response(stream).await.expect(413, "");
    let [head, tail] = ["42[\"do\",{\"emit\":[\"", "\"]}]"];
    let text = "x".repeat(10_000 - head.len() - tail.len());
    session.at(other.address).post(&format!("{head}{text}{tail}")).await.expect(200, "ok");
    session.at(other.address).get().await.expect(200, &format!("42[\"{text}\"]"));
    other.until_zero("jackfield_relays").await;
}

#[tokio::test]
async fn a_client_that_breaks_its_websocket_ends_its_session() {
    let (_nodes, owner, other) = Nodes::two().await;
    for (round, reason) in ["transport error", "transport close"].into_iter().enumerate() {
        let session = owner.polling().await;
        session.join().await;
        let query = format!("EIO=4&sid={}", session.sid);
        let options = Options { query: &query, ..Options::default() };
        let mut client = Client::try_open(other.address, &options).await.expect("101");
        client.send("2probe").await;
        client.expect(&["3probe"]).await;
        client.send("5").await;
        client.act_and_wait(json!([])).await;
        if round == 0 {
            client.reset();
        } else {
            drop(client);
        }
        owner.empties().await;
        assert_eq!(owner.closed_for(reason), 1);
        other.until_zero("jackfield_relays").await;
    }
}

#[tokio::test]
async fn an_edge_that_closes_says_goodbye_to_clients_of_other_nodes() {
    let (_nodes, mut owner, other) = Nodes::two().await;
    let session = owner.polling().await;
    session.join().await;
    let there = session.at(other.address);
    let parked = there.start_get().await;
    owner.until("jackfield_peer_requests_total", 1).await;
    let second = owner.polling().await;
    second.join().await;
    let query = format!("EIO=4&sid={}", second.sid);
    let options = Options { query: &query, ..Options::default() };
    let mut client = Client::try_open(other.address, &options).await.expect("101");
    client.send("2probe").await;
    client.expect(&["3probe"]).await;
    client.send("5").await;
    client.act_and_wait(json!([])).await;
    owner.close().await;
    parked.reply().await.expect(200, "1");
    client.expect_close(Some(1012)).await;
    assert_eq!(client.next().await, Next::End);
    there.get().await.expect(400, UNKNOWN);
    let reply = Client::try_open(other.address, &options).await.expect_err("no 101");
    assert_eq!((reply.status, &*reply.body), (400, "Session ID unknown"));
    assert_eq!(other.metric("jackfield_relay_lookups_total"), 0, "nobody looks for a node that has gone");
    other.until_zero("jackfield_relays").await;
    other.until_zero("jackfield_relay_idle_connections").await;
}

#[tokio::test]
async fn a_node_that_was_never_heard_of_is_looked_for_once() {
    let (_nodes, _owner, other) = Nodes::two().await;
    let query = format!("EIO=4&transport=polling&sid={}", sid_of(NodeId::from_bytes([1, 2, 3])));
    let since = Instant::now();
    let (one, two) = tokio::join!(async { Request::get(&query).send(other.address).await }, async {
        Request::get(&query).send(other.address).await
    },);
    one.expect(400, UNKNOWN);
    two.expect(400, UNKNOWN);
    let took = since.elapsed();
    assert!((Duration::from_millis(450)..Duration::from_secs(5)).contains(&took), "{took:?}");
    for _ in 0..10 {
        Request::get(&query).send(other.address).await.expect(400, UNKNOWN);
    }
    assert_eq!(other.metric("jackfield_relay_lookups_total"), 2);
    assert_eq!(other.metric("jackfield_relayed_requests_total"), 0);
}

#[tokio::test]
async fn a_node_alone_looks_for_nobody() {
    let nodes = Nodes::new();
    let lonely = nodes.start(|_| {}).await;
    let query = format!("EIO=4&transport=polling&sid={}", sid_of(NodeId::from_bytes([1, 2, 3])));
    Request::get(&query).send(lonely.address).await.expect(400, UNKNOWN);
    assert_eq!(lonely.metric("jackfield_relay_lookups_total"), 0);
}

#[tokio::test]
async fn a_node_that_breaks_off_costs_its_clients_an_error_and_their_connection() {
    let (nodes, _owner, other) = Nodes::two().await;
    let impostor = nodes.impostor().await;
    impostor.is_known_to(&other).await;
    let query = impostor.query();
    for body in [None, Some("40")] {
        let pending = Request { body, ..Request::get(&query) }.start(other.address).await;
        let mut stream = impostor.accept().await;
        soon("a request", stream.read(&mut [0; 8])).await.expect("a request");
        drop(stream);
        let reply = pending.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (502, Some("close")), "{reply:?}");
    }
    let sid = query.rsplit_once('=').unwrap().1;
    let options = format!("EIO=4&sid={sid}");
    let upgrading = tokio::spawn(async move {
        let options = Options { query: &options, ..Options::default() };
        Client::try_open(other.address, &options).await.map(|_| ()).expect_err("no 101").status
    });
    drop(impostor.accept().await);
    assert_eq!(soon("the refusal", upgrading).await.unwrap(), 502);
}

#[tokio::test]
async fn a_node_that_hangs_holds_only_its_own_requests() {
    let (nodes, owner, other) = Nodes::two().await;
    let impostor = nodes.impostor().await;
    impostor.is_known_to(&other).await;
    let query = impostor.query();
    let hanging = Request::get(&query).start(other.address).await;
    let _stream = impostor.accept().await;
    other.until("jackfield_relays", 1).await;
    let session = owner.polling().await;
    session.at(other.address).join().await;
    let here = other.polling().await;
    here.join().await;
    assert_eq!(other.metric("jackfield_relays"), 1);
    hanging.abandon();
    other.until_zero("jackfield_relays").await;
}

#[tokio::test]
async fn a_request_that_the_node_does_not_answer_in_time_fails() {
    let (nodes, _owner, other) = Nodes::two_with(|edge| {
        edge.ping_interval_ms = 100;
        edge.ping_timeout_ms = 100;
        edge.upgrade_timeout_ms = 200;
        edge.limits.http_body_timeout_ms = 100;
    })
    .await;
    let impostor = nodes.impostor().await;
    impostor.is_known_to(&other).await;
    let query = impostor.query();
    let hanging = Request::get(&query).start(other.address).await;
    let _stream = impostor.accept().await;
    assert_eq!(hanging.reply().await.status, 504);
    let query = format!("EIO=4&sid={}", query.rsplit_once('=').unwrap().1);
    let options = Options { query: &query, ..Options::default() };
    assert_eq!(Client::try_open(other.address, &options).await.expect_err("no 101").status, 504);
    other.until_zero("jackfield_relays").await;
}

#[tokio::test]
async fn the_node_in_between_closes_and_the_sessions_end() {
    let (_nodes, owner, mut other) = Nodes::two().await;
    let session = owner.polling().await;
    session.join().await;
    let parked = session.at(other.address).start_get().await;
    owner.until("jackfield_peer_requests_total", 1).await;
    other.close().await;
    assert_eq!(parked.reply().await.status, 0);
    owner.empties().await;
}
