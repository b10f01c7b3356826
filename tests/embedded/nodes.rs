//! No sticky sessions: whatever a client can do at the node that has its session, it can do at any other.

use std::net::Ipv4Addr;

use serde_json::json;

use crate::harness::nodes::{Nodes, meet};
use crate::harness::polling::{Reply, Request};
use crate::harness::{Client, Next, Options, Polling, Server, room_for_a_crowd};

const UNKNOWN: &str = r#"{"code":1,"message":"Session ID unknown"}"#;
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Moves a polling session to a WebSocket at some edge.
async fn upgrade(session: &Polling, at: &Server) -> Client {
    let query = format!("EIO=4&sid={}", session.sid);
    let options = Options { query: &query, ..Options::default() };
    let mut client = Client::try_open(at.address, &options).await.expect("101");
    client.send("2probe").await;
    client.expect(&["3probe"]).await;
    client.send("5").await;
    client
}

#[tokio::test]
async fn a_polling_session_is_served_by_every_node() {
    let nodes = Nodes::new();
    let owner = nodes.start(|edge| edge.shards = 2).await;
    let others = [nodes.start(|_| {}).await, nodes.start(|edge| edge.shards = 2).await];
    meet(&[&owner, &others[0], &others[1]]).await;
    let session = owner.polling().await;
    session.at(others[0].address).join().await;
    for round in 0..20 {
        let at = [&others[0], &others[1], &owner][round % 3];
        let text = "x".repeat(if round == 7 { 300_000 } else { round });
        session.at(at.address).act(json!([{"emit": ["news", round, text]}])).await;
        let at = [&others[1], &owner, &others[0]][round % 3];
        let reply = session.at(at.address).get().await;
        reply.expect(200, &format!("42[\"news\",{round},\"{text}\"]"));
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=UTF-8"));
    }
    for other in &others {
        other.until_zero("jackfield_relays").await;
        assert_eq!(other.metric("jackfield_sessions{transport=\"polling\"}"), 0);
        assert!(other.metric("jackfield_relayed_requests_total") > 10);
        assert_eq!(other.metric("jackfield_relay_failures_total"), 0);
        // One request came after the other, so each shard needs one connection.
        assert!((1..=2).contains(&other.metric("jackfield_relay_idle_connections")));
    }
    assert!(owner.metric("jackfield_peer_connections") <= 3);
    assert_eq!(owner.metric("jackfield_peer_requests_refused_total"), 0);
}

#[tokio::test]
async fn a_parked_poll_is_answered_when_there_is_news() {
    let (_nodes, owner, other) = Nodes::two().await;
    let session = owner.polling().await;
    let there = session.at(other.address);
    there.join().await;
    let parked = there.start_get().await;
    owner.until("jackfield_peer_requests_total", 3).await;
    session.act(json!([{"emit": ["news"]}])).await;
    parked.reply().await.expect(200, "42[\"news\"]");
}

#[tokio::test]
async fn what_the_browser_sees_is_made_where_it_asks() {
    let (_nodes, owner, other) = Nodes::two_with(|edge| {
        edge.cors.origins = vec!["https://app.example".to_owned()];
    })
    .await;
    let session = owner.polling().await;
    session.join().await;
    session.act(json!([{"emit": ["news", "x".repeat(5000)]}])).await;
    let headers = "Origin: https://app.example\r\nAccept-Encoding: gzip\r\n";
    let reply = Request { headers, ..Request::get(&session.query) }.send(other.address).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("jackfield-answered"), None);
}

#[tokio::test]
async fn the_session_judges_as_it_does_at_home() {
    let (_nodes, owner, other) = Nodes::two().await;
    let octets = "Content-Type: application/octet-stream\r\n";
    for (change, headers, body, status) in [
        (["EIO=4", "EIO=3"], "", None, 400),
        (["EIO=4", ""], "", None, 400),
        (["transport=polling", "transport=polling&b64=1"], "", Some("40"), 200),
        (["", ""], octets, Some("x"), 400),
        (["", ""], "", Some("x"), 200),
    ] {
        let mut seen = Vec::new();
        for at in [owner.address, other.address] {
            let query = owner.polling().await.query.replacen(change[0], change[1], 1);
            let reply = Request { body, headers, ..Request::get(&query) }.send(at).await;
            assert_eq!(reply.status, status, "{change:?} {reply:?}");
            seen.push((reply.header("content-type").map(str::to_owned), reply.body));
        }
        assert_eq!(seen[0], seen[1], "{change:?}");
    }
}

#[tokio::test]
async fn jsonp_and_its_forms_pass() {
    let (_nodes, owner, other) = Nodes::two().await;
    let session = owner.polling().await;
    let query = format!("{}&j=3", session.query);
    let headers = "Content-Type: application/x-www-form-urlencoded\r\n";
    let post = Request { body: Some("d=40"), headers, ..Request::get(&query) };
    post.send(other.address).await.expect(200, "ok");
    let reply = Request::get(&query).send(other.address).await;
    assert!(reply.body.starts_with("___eio[3](\"40{\\\"sid"), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=UTF-8"));
}

/// One request of a session of protocol 4, from some address.
async fn ask_v3(at: &Server, query: &str, from: Ipv4Addr, body: Option<&str>) -> Reply {
    Request { from: from.into(), body, ..Request::get(query) }.send(at.address).await
}

#[tokio::test]
async fn a_session_of_protocol_4_is_bound_to_its_address_through_every_node() {
    let (_nodes, owner, other) = Nodes::two().await;
    let reply = Request::get("EIO=3&transport=polling").send(owner.address).await;
    let (_, rest) = reply.body.split_once(r#""sid":""#).expect("a sid");
    let query = format!("EIO=3&transport=polling&sid={}", rest.get(..20).unwrap());
    ask_v3(&other, &query, OTHER, Some("1:2")).await.expect(400, UNKNOWN);
    let sid = query.rsplit_once('=').unwrap().1;
    let upgrade = format!("EIO=3&sid={sid}");
    let stranger = Options { query: &upgrade, from: OTHER.into(), ..Options::default() };
    let reply = Client::try_open(other.address, &stranger).await.expect_err("no 101");
    assert_eq!((reply.status, &*reply.body), (400, "Session ID unknown"));
    ask_v3(&other, &query, Ipv4Addr::LOCALHOST, Some("1:2")).await.expect(200, "ok");
    assert!(ask_v3(&other, &query, Ipv4Addr::LOCALHOST, None).await.body.contains("1:3"));
    let own = Options { query: &upgrade, ..Options::default() };
    let mut client = Client::try_open(other.address, &own).await.expect("101");
    client.send("2probe").await;
    client.expect(&["3probe"]).await;
}

#[tokio::test]
async fn only_the_node_that_is_asked_judges_proxies() {
    let nodes = Nodes::new();
    let owner = nodes.start(|_| {}).await;
    let other = nodes.start(|edge| edge.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]).await;
    meet(&[&owner, &other]).await;
    let reply = ask_v3(&owner, "EIO=3&transport=polling", OTHER, None).await;
    let (_, rest) = reply.body.split_once(r#""sid":""#).expect("a sid");
    let query = format!("EIO=3&transport=polling&sid={}", rest.get(..20).unwrap());
    let headers = "X-Forwarded-For: 127.0.0.2\r\n";
    let proxied = Request { headers, body: Some("1:2"), ..Request::get(&query) };
    proxied.send(other.address).await.expect(200, "ok");
    proxied.send(owner.address).await.expect(400, UNKNOWN);
}

#[tokio::test]
async fn a_session_moves_to_a_websocket_at_another_node() {
    for shards in [1, 2] {
        let (_nodes, owner, other) = Nodes::two_with(|edge| edge.shards = shards).await;
        let session = owner.polling().await;
        session.join().await;
        let mut client = upgrade(&session, &other).await;
        client.act(json!([{"emit": ["news"]}])).await;
        client.expect(&["42[\"news\"]"]).await;
        client.act_and_wait(json!([])).await;
        let long = "y".repeat(900_000);
        client.act(json!([{"emit": ["long", long]}])).await;
        client.expect(&[&format!("42[\"long\",\"{long}\"]")]).await;
        assert_eq!(owner.metric("jackfield_sessions{transport=\"websocket\"}"), 1);
        assert_eq!(other.metric("jackfield_sessions{transport=\"websocket\"}"), 0);
        assert_eq!(other.metric("jackfield_relays"), 1);
        assert_eq!(other.metric("jackfield_relayed_websockets_total"), 1);
        owner.until_zero("jackfield_peer_connections").await;
        client.close().await;
        owner.hears("disconnected / ").await;
        owner.empties().await;
        other.until_zero("jackfield_relays").await;
        other.until_zero("jackfield_connections").await;
    }
}

#[tokio::test]
async fn a_message_right_behind_the_request_is_not_lost() {
    let (_nodes, owner, other) = Nodes::two().await;
    let session = owner.polling().await;
    session.join().await;
    let mut stream = system_tests::stream::connect(other.address, Ipv4Addr::LOCALHOST.into(), None).await;
    let head = format!(
        "GET /socket.io/?EIO=4&transport=websocket&sid={} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        session.sid
    );
    let probe = [&[0x81, 0x86, 0, 0, 0, 0], &b"2probe"[..]].concat();
    let mut unread = bytes::BytesMut::new();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(&[head.as_bytes(), &probe].concat()).await.unwrap();
    let head = system_tests::stream::read_head(&mut stream, &mut unread).await.expect("a head");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    while unread.len() < 8 {
        crate::harness::soon("the answer to the probe", stream.read_buf(&mut unread)).await.unwrap();
    }
    assert_eq!(&unread[..], b"\x81\x063probe");
}

#[tokio::test]
async fn a_session_says_no_to_a_websocket_through_another_node() {
    let (_nodes, owner, other) = Nodes::two().await;
    let session = owner.polling().await;
    for (query, expected) in [
        (format!("EIO=3&sid={}", session.sid), "Bad request"),
        (format!("EIO=4&sid={}AAAA", session.sid.get(..16).unwrap()), "Session ID unknown"),
    ] {
        let options = Options { query: &query, ..Options::default() };
        let reply = Client::try_open(other.address, &options).await.expect_err("no 101");
        assert_eq!((reply.status, &*reply.body), (400, expected));
    }
    other.until_zero("jackfield_relays").await;
}

#[tokio::test]
async fn the_application_closes_a_relayed_websocket() {
    let (_nodes, owner, other) = Nodes::two().await;
    let session = owner.polling().await;
    session.join().await;
    let mut client = upgrade(&session, &other).await;
    client.act(json!([{"kick": "session"}])).await;
    let (_, end) = client.rest().await;
    assert_eq!(end, Next::Closed(None));
    drop(client);
    owner.empties().await;
    other.until_zero("jackfield_relays").await;
}

#[tokio::test]
async fn relayed_sessions_count_as_others_do() {
    let (_nodes, owner, other) = Nodes::two_with(|edge| edge.sessions_max = 1).await;
    let session = owner.polling().await;
    session.join().await;
    let _client = upgrade(&session, &other).await;
    assert_eq!(Request::get("EIO=4&transport=polling").send(owner.address).await.status, 503);
    let _session = other.polling().await;
}

/// Memory of this process in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn a_relayed_websocket_costs_the_node_in_between_little() {
    const COUNT: u64 = 1000;
    let _crowd = room_for_a_crowd().await;
    let (_nodes, owner, other) = Nodes::two().await;
    let mut costs = Vec::new();
    let mut clients = Vec::new();
    for at in [&owner, &other, &owner, &other] {
        let before = resident_kib();
        for _ in 0..COUNT {
            let session = owner.polling().await;
            session.join().await;
            clients.push(upgrade(&session, at).await);
        }
        owner.until_zero("jackfield_peer_connections").await;
        costs.push(resident_kib().saturating_sub(before) as f64 / COUNT as f64);
    }
    assert_eq!(other.metric("jackfield_relays"), 2 * COUNT);
    let [_, _, direct, relayed] = costs[..] else { panic!("{costs:?}") };
    println!("KiB of client and edges for each WebSocket: {direct:.1} direct, {relayed:.1} relayed");
    // Other tests of the same process would be measured too.
    let alone = std::env::var_os("NEXTEST").is_some();
    assert!(!alone || relayed - direct < 8.0, "{costs:?}");
}
