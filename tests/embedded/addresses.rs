//! Whose address counts: the peer's, or what a trusted proxy says; and the cookie.

use std::net::Ipv4Addr;

use edge::config::EdgeConfig;

use crate::harness::polling::{Reply, Request};
use crate::harness::{Client, Options, Server};

const UNKNOWN: &str = r#"{"code":1,"message":"Session ID unknown"}"#;
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Opens an EIO3 session by polling and returns the query of its later requests.
async fn open_v3(server: &Server, headers: &str) -> String {
    let handshake = Request { headers, ..Request::get("EIO=3&transport=polling") };
    let reply = handshake.send(server.address).await;
    let (_, rest) = reply.body.split_once(r#""sid":""#).unwrap_or_else(|| panic!("{reply:?}"));
    format!("EIO=3&transport=polling&sid={}", rest.get(..20).expect("a sid"))
}

async fn poll(server: &Server, query: &str, from: Ipv4Addr, headers: &str) -> Reply {
    let body = Some("1:6");
    Request { from: from.into(), headers, body, ..Request::get(query) }.send(server.address).await
}

fn behind_a_proxy(edge: &mut EdgeConfig) {
    edge.trusted_proxies = vec!["127.0.0.1".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
}

#[tokio::test]
async fn a_session_of_protocol_4_is_only_for_the_address_that_opened_it() {
    let server = Server::start(|_| {});
    let query = open_v3(&server, "").await;
    poll(&server, &query, OTHER, "").await.expect(400, UNKNOWN);
    let sid = query.rsplit_once('=').unwrap().1;
    let upgrade = format!("EIO=3&sid={sid}");
    let stranger = Options { query: &upgrade, from: OTHER.into(), ..Options::default() };
    let reply = Client::try_open(server.address, &stranger).await.expect_err("no 101");
    assert_eq!((reply.status, &*reply.body), (400, "Session ID unknown"));
    poll(&server, &query, Ipv4Addr::LOCALHOST, "").await.expect(200, "ok");
}

#[tokio::test]
async fn a_session_of_protocol_5_may_move() {
    let server = Server::start(|_| {});
    let session = server.polling().await;
    let request = Request { body: Some("40"), from: OTHER.into(), ..Request::get(&session.query) };
    request.send(server.address).await.expect(200, "ok");
}

#[tokio::test]
async fn the_binding_can_be_switched_off() {
    let server = Server::start(|edge| edge.eio3_bind_address = false);
    let query = open_v3(&server, "").await;
    poll(&server, &query, OTHER, "").await.expect(200, "ok");
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_forwarded_address_counts() {
    let server = Server::start(behind_a_proxy);
    let query = open_v3(&server, "X-Forwarded-For: 9.9.9.9, 10.1.2.3\r\n").await;
    assert_eq!(server.strings.heard(), ["connect / from 9.9.9.9"]);
    let here = Ipv4Addr::LOCALHOST;
    poll(&server, &query, here, "X-Forwarded-For: 9.9.9.9\r\n").await.expect(200, "ok");
    poll(&server, &query, here, "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 9.9.9.9\r\n")
        .await
        .expect(200, "ok");
    poll(&server, &query, here, "X-Forwarded-For: 9.9.9.9, 8.8.8.8\r\n").await.expect(400, UNKNOWN);
    poll(&server, &query, here, "").await.expect(400, UNKNOWN);
    // Nobody else may say so.
    poll(&server, &query, OTHER, "X-Forwarded-For: 9.9.9.9\r\n").await.expect(400, UNKNOWN);
}

#[tokio::test]
async fn without_a_trusted_proxy_the_header_means_nothing() {
    let server = Server::start(|_| {});
    open_v3(&server, "X-Forwarded-For: 9.9.9.9\r\n").await;
    assert_eq!(server.strings.heard(), ["connect / from 127.0.0.1"]);
}

#[tokio::test]
async fn the_cookie_carries_the_session_id_when_it_is_wanted() {
    let server = Server::start(|edge| edge.cookie = "io".to_owned());
    let handshake = Request::get("EIO=4&transport=polling").send(server.address).await;
    let session = crate::harness::Polling::opened(server.address, &handshake);
    let cookie = format!("io={}; Path=/; HttpOnly; SameSite=Lax", session.sid);
    assert_eq!(handshake.header("set-cookie"), Some(&*cookie));
    assert_eq!(session.post("40").await.header("set-cookie"), None);
    let server = Server::start(|_| {});
    let handshake = Request::get("EIO=4&transport=polling").send(server.address).await;
    assert_eq!(handshake.header("set-cookie"), None);
}
