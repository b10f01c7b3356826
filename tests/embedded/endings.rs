//! Every way in which a socket ends: the application hears of it once, with the reference's reason.

use edge::config::EdgeConfig;
use serde_json::json;

use crate::harness::polling::Request;
use crate::harness::stream::header;
use crate::harness::{Client, Next, Polling, Server};

/// Ends a WebSocket session that has joined two namespaces, and expects both sockets to be told why.
async fn check(set: impl FnOnce(&mut EdgeConfig), reason: &str, end: impl AsyncFnOnce(Client)) {
    let server = Server::start(set);
    let mut client = server.client().await;
    let root = client.id.clone();
    client.join("/custom").await;
    let custom = client.id.clone();
    // A room and an open question, which must not be left behind.
    client.act(json!([{"join": "room"}, {"emit": ["?"], "ack": 1}])).await;
    client.expect(&[r#"420["?"]"#]).await;
    end(client).await;
    check_heard(&server, &[format!("/ {root} {reason}"), format!("/custom {custom} {reason}")]).await;
}

/// Expects these endings, each once and no other.
async fn check_heard(server: &Server, expected: &[String]) {
    server.empties().await;
    let mut heard = server.strings.heard_of("disconnected");
    heard.sort();
    let mut expected: Vec<String> = expected.iter().map(|line| format!("disconnected {line}")).collect();
    expected.sort();
    assert_eq!(heard, expected);
}

/// Ends a polling session that has joined `/`.
async fn check_polling(reason: &str, end: impl AsyncFnOnce(&Server, &Polling)) {
    let server = Server::start(|_| {});
    let session = server.polling().await;
    let id = session.join().await;
    end(&server, &session).await;
    check_heard(&server, &[format!("/ {id} {reason}")]).await;
    assert_eq!(server.closed_for(reason), 1);
}

#[tokio::test]
async fn a_client_that_leaves_its_namespace() {
    let server = Server::start(|_| {});
    let mut client = server.client().await;
    let root = client.id.clone();
    client.join("/custom").await;
    let custom = client.id.clone();
    client.send("41/custom,").await;
    server.hears("disconnected").await;
    assert_eq!(
        server.strings.heard_of("disconnected"),
        [format!("disconnected /custom {custom} client namespace disconnect")]
    );
    client.act_and_wait(json!([])).await;
    client.close().await;
    let left = format!("/custom {custom} client namespace disconnect");
    check_heard(&server, &[left, format!("/ {root} transport close")]).await;
}

#[tokio::test]
async fn a_socket_that_is_kicked_from_its_namespace() {
    let server = Server::start(|_| {});
    let mut client = server.client().await;
    let root = client.id.clone();
    client.join("/custom").await;
    let custom = client.id.clone();
    client.act(json!([{"emit": ["bye"]}, {"kick": true}, {"emit": ["nobody hears this"]}])).await;
    client.expect(&[r#"42["bye"]"#, "41"]).await;
    // The session goes on with its other namespace.
    client.send(r#"42/custom,1["do"]"#).await;
    client.expect(&["43/custom,1[true]"]).await;
    client.close().await;
    let kicked = format!("/ {root} server namespace disconnect");
    check_heard(&server, &[kicked, format!("/custom {custom} transport close")]).await;
}

#[tokio::test]
async fn a_session_that_is_closed_by_the_application() {
    check(
        |_| {},
        "server namespace disconnect",
        async |mut client| {
            client.act(json!([{"kick": "session"}])).await;
            client.expect(&["41", "41/custom,"]).await;
            client.expect_close(None).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_client_that_misses_its_heartbeat() {
    let short = |edge: &mut EdgeConfig| (edge.ping_interval_ms, edge.ping_timeout_ms) = (500, 500);
    check(short, "ping timeout", async |mut client| {
        assert_eq!(client.rest().await, (vec!["2".to_owned()], Next::Closed(None)));
    })
    .await;
}

#[tokio::test]
async fn a_client_that_closes_its_websocket() {
    check(|_| {}, "transport close", async |client| client.close().await).await;
}

#[tokio::test]
async fn a_client_whose_stream_just_ends() {
    check(|_| {}, "transport close", async |client| drop(client)).await;
}

#[tokio::test]
async fn a_client_whose_stream_is_reset() {
    check(|_| {}, "transport error", async |client| client.reset()).await;
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_of_websocket() {
    check(
        |_| {},
        "transport error",
        async |mut client| {
            // Not masked.
            client.try_write(b"\x81\x016").await;
            client.expect_close(Some(1002)).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_client_that_pings_in_the_wrong_direction() {
    check(
        |_| {},
        "transport error",
        async |mut client| {
            client.send("2").await;
            client.expect_close(None).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_client_that_sends_no_engine_packet() {
    check(
        |_| {},
        "parse error",
        async |mut client| {
            client.send("x").await;
            client.expect_close(None).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_client_that_sends_no_socket_packet() {
    check(
        |_| {},
        "forced close",
        async |mut client| {
            client.send("49").await;
            client.expect_close(None).await;
        },
    )
    .await;
}

#[tokio::test]
async fn clients_of_an_edge_that_shuts_down() {
    let mut server = Server::start(|_| {});
    let (mut client, session) = (server.client().await, server.polling().await);
    let other = session.join().await;
    let poll = session.start_get().await;
    server.until("jackfield_http_requests_total", 5).await;
    server.close().await;
    client.expect_close(Some(1012)).await;
    poll.reply().await.expect(200, "1");
    let expected = [&client.id, &other].map(|id| format!("/ {id} server shutting down"));
    check_heard(&server, &expected).await;
}

#[tokio::test]
async fn a_polling_client_that_says_goodbye() {
    check_polling("transport close", async |_, session| session.post("1").await.expect(200, "ok")).await;
}

#[tokio::test]
async fn a_polling_client_whose_poll_is_broken_off() {
    check_polling("transport error", async |server, session| {
        let before = server.metric("jackfield_http_requests_total");
        let poll = session.start_get().await;
        server.until("jackfield_http_requests_total", before + 1).await;
        drop(poll);
    })
    .await;
}

#[tokio::test]
async fn a_polling_client_with_two_polls_at_once() {
    check_polling("transport error", async |server, session| {
        let before = server.metric("jackfield_http_requests_total");
        let poll = session.start_get().await;
        server.until("jackfield_http_requests_total", before + 1).await;
        session.get().await.expect(400, "");
        poll.reply().await.expect(200, "1");
    })
    .await;
}

#[tokio::test]
async fn a_polling_client_that_sends_no_engine_packet() {
    check_polling("parse error", async |_, session| session.post("x").await.expect(200, "ok")).await;
}

#[tokio::test]
async fn a_polling_client_that_stays_away() {
    let server = Server::start(|edge| (edge.ping_interval_ms, edge.ping_timeout_ms) = (500, 500));
    let session = server.polling().await;
    let id = session.join().await;
    check_heard(&server, &[format!("/ {id} ping timeout")]).await;
}

#[tokio::test]
async fn a_session_that_joins_nothing_is_closed_and_nobody_hears_of_it() {
    let server = Server::start(|edge| edge.connect_timeout_ms = 100);
    let mut client = server.session().await;
    client.expect_close(None).await;
    check_heard(&server, &[]).await;
    assert_eq!(server.strings.heard(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_client_that_moved_to_a_websocket_and_closes_it() {
    let server = Server::start(|_| {});
    let session = server.polling().await;
    let id = session.join().await;
    let options =
        crate::harness::Options { query: &format!("EIO=4&sid={}", session.sid), ..Default::default() };
    let mut client = Client::try_open(server.address, &options).await.expect("101");
    client.send("2probe").await;
    client.expect(&["3probe"]).await;
    client.send("5").await;
    client.act_and_wait(json!([])).await;
    Request::get(&session.query)
        .send(server.address)
        .await
        .expect(400, r#"{"code":3,"message":"Bad request"}"#);
    client.try_write(&header(0x88, 0)).await;
    client.expect_close(None).await;
    check_heard(&server, &[format!("/ {id} transport close")]).await;
}
