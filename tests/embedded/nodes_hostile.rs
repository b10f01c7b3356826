//! The peer listener speaks to nodes only, and what it can be made to hold is bounded.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::nodes::{Nodes, SECRET, SecretFile, meet};
use crate::harness::polling::{Reply, Request};
use crate::harness::{Client, Options, Server, soon};
use system_tests::stream::read_head;

const UNKNOWN: &str = r#"{"code":1,"message":"Session ID unknown"}"#;
const NEW_SECRET: &str = "another-secret-of-the-cluster";

fn peer_address(server: &Server) -> SocketAddr {
    server.edge().peer_addr().expect("a peer listener")
}

/// Sends these bytes to a peer listener and reads what it says.
async fn say(server: &Server, bytes: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(peer_address(server)).await.expect("a peer listener");
    stream.write_all(bytes).await.expect("it reads");
    let mut unread = BytesMut::new();
    let head = soon("a response", read_head(&mut stream, &mut unread)).await.unwrap_or_default();
    Reply::read(head, stream, unread).await
}

#[tokio::test]
async fn nobody_is_served_without_a_signature() {
    let (_nodes, owner, _other) = Nodes::two().await;
    let session = owner.polling().await;
    let node = session.sid.get(..4).unwrap();
    let path = format!("/jackfield/1/{node}/poll?sid={}&EIO=4&transport=polling", session.sid);
    let socketio = format!("/socket.io/?{}", session.query);
    let signature = "A".repeat(43);
    for (method, path, headers) in [
        ("GET", &*path, String::new()),
        ("POST", &path, "Content-Length: 2\r\n".to_owned()),
        ("GET", &path, "jackfield-client: 127.0.0.1\r\n".to_owned()),
        ("GET", &path, format!("jackfield-client: 127.0.0.1\r\njackfield-signature: {signature}\r\n")),
        ("GET", &path, "Connection: upgrade\r\nUpgrade: jackfield-tunnel\r\n".to_owned()),
        ("GET", &socketio, String::new()),
        ("GET", "/metrics", String::new()),
        ("OPTIONS", "*", String::new()),
    ] {
        let reply =
            say(&owner, format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes()).await;
        assert_eq!((reply.status, &*reply.body), (401, ""), "{method} {path} {headers} {reply:?}");
    }
    assert_eq!(owner.metric("jackfield_peer_requests_refused_total"), 8);
    assert_eq!(owner.metric("jackfield_sessions{transport=\"polling\"}"), 1);
    session.join().await;
}

#[tokio::test]
async fn a_node_with_another_secret_is_refused() {
    let nodes = Nodes::new();
    let owner = nodes.start(|_| {}).await;
    let secret = SecretFile::new(NEW_SECRET);
    let other = Server::join(&nodes.membership(Some(&secret)), |_| {}).await;
    meet(&[&owner, &other]).await;
    let session = owner.polling().await;
    assert_eq!(session.at(other.address).get().await.status, 502);
    let query = format!("EIO=4&sid={}", session.sid);
    let options = Options { query: &query, ..Options::default() };
    assert_eq!(Client::try_open(other.address, &options).await.expect_err("no 101").status, 502);
    assert_eq!(owner.metric("jackfield_peer_requests_refused_total"), 2);
    assert_eq!(other.metric("jackfield_relay_failures_total"), 2);
    session.join().await;
}

#[tokio::test]
async fn a_signed_request_is_worth_nothing_at_another_node() {
    let (nodes, owner, other) = Nodes::two().await;
    let impostor = nodes.impostor().await;
    impostor.is_known_to(&other).await;
    let query = impostor.query();
    let pending = Request::get(&query).start(other.address).await;
    let mut stream = impostor.accept().await;
    let mut unread = BytesMut::new();
    let head = read_head(&mut stream, &mut unread).await.expect("a signed request");
    assert!(head.contains("\r\njackfield-signature: ") && !head.contains(SECRET), "{head}");
    let reply = say(&owner, head.replace("\r\nhost", "\r\nconnection: close\r\nhost").as_bytes()).await;
    assert_eq!((reply.status, &*reply.body), (421, ""), "{reply:?}");
    // What a node says that is not meant makes the client look for a new session.
    stream.write_all(b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    pending.reply().await.expect(400, UNKNOWN);
    // Something else that happens to listen there is not believed.
    let pending = Request::get(&query).start(other.address).await;
    let mut stream = impostor.accept().await;
    read_head(&mut stream, &mut unread).await.expect("a request");
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(pending.reply().await.status, 502);
}

#[tokio::test]
async fn the_secret_is_changed_without_a_pause() {
    let nodes = Nodes::new();
    let files = [SecretFile::new(SECRET), SecretFile::new(SECRET)];
    let owner = Server::join(&nodes.membership(Some(&files[0])), |_| {}).await;
    let other = Server::join(&nodes.membership(Some(&files[1])), |_| {}).await;
    meet(&[&owner, &other]).await;
    let (here, there) = (owner.polling().await, other.polling().await);
    here.at(other.address).join().await;
    there.at(owner.address).join().await;
    for content in
        [format!("{SECRET}\n{NEW_SECRET}"), format!("{NEW_SECRET}\n{SECRET}"), NEW_SECRET.to_owned()]
    {
        for file in &files {
            file.write(&content);
            // Long enough for it to be noticed, and requests go on meanwhile.
            for _ in 0..15 {
                here.at(other.address).act(json!([])).await;
                there.at(owner.address).act(json!([])).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    for server in [&owner, &other] {
        assert_eq!(server.metric("jackfield_peer_requests_refused_total"), 0);
    }
    files[1].write("a-third-secret-that-nobody-knows");
    let refused = async {
        while here.at(other.address).post("3").await.status != 502 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon("the last secret is noticed", refused).await;
}

#[tokio::test]
async fn only_so_much_is_relayed_at_a_time() {
    let nodes = Nodes::new();
    let owner = nodes.start(|_| {}).await;
    let mut membership = nodes.membership(None);
    membership.cluster.relays_max = 2;
    let other = Server::join(&membership, |_| {}).await;
    meet(&[&owner, &other]).await;
    let sessions = [owner.polling().await, owner.polling().await, owner.polling().await];
    for session in &sessions {
        session.join().await;
    }
    let parked = sessions[0].at(other.address).start_get().await;
    other.until("jackfield_relays", 1).await;
    let query = format!("EIO=4&sid={}", sessions[1].sid);
    let options = Options { query: &query, ..Options::default() };
    let client = Client::try_open(other.address, &options).await.expect("101");
    assert_eq!(other.metric("jackfield_relays"), 2);
    let reply = sessions[2].at(other.address).get().await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    let query = format!("EIO=4&sid={}", sessions[2].sid);
    let options = Options { query: &query, ..Options::default() };
    let reply = Client::try_open(other.address, &options).await.expect_err("no 101");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert_eq!(other.metric("jackfield_relays_refused_total"), 2);
    drop((parked, client));
    other.until_zero("jackfield_relays").await;
    sessions[2].at(other.address).act(json!([])).await;
}

#[tokio::test]
async fn strangers_at_the_peer_port_are_bounded() {
    let (_nodes, owner, other) = Nodes::two_with(|edge| edge.limits.connections_max = 8).await;
    let mut strangers = Vec::new();
    for _ in 0..20 {
        strangers.push(TcpStream::connect(peer_address(&owner)).await.expect("a peer listener"));
    }
    owner.until("jackfield_peer_connections_refused_total", 12).await;
    assert_eq!(owner.metric("jackfield_peer_connections"), 8);
    let mut last = strangers.pop().unwrap();
    assert_eq!(soon("the end", last.read(&mut [0; 8])).await.unwrap_or(0), 0);
    drop((last, strangers));
    owner.until_zero("jackfield_peer_connections").await;
    let session = owner.polling().await;
    session.at(other.address).join().await;
}
