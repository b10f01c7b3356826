//! Connections that end in unusual ways: nothing of them stays.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::harness::{Client, Next, Options, Server, until};

#[tokio::test]
async fn a_websocket_that_never_takes_over_leaves_nothing() {
    let server = Server::start(|edge| edge.upgrade_timeout_ms = 1_000);
    let mut candidates = Vec::new();
    for probes in [false, true].into_iter().cycle().take(20) {
        let session = server.polling().await;
        let query = format!("EIO=4&sid={}", session.sid);
        let options = Options { query: &query, ..Options::default() };
        let mut candidate = Client::try_open(server.address, &options).await.expect("a WebSocket");
        if probes {
            candidate.send("2probe").await;
            candidate.expect(&["3probe"]).await;
        }
        candidates.push(candidate);
    }
    for candidate in &mut candidates {
        assert_eq!(candidate.next().await, Next::Closed(None), "the edge gives it up");
    }
    drop(candidates);
    until("no connection is left", || server.metric("jackfield_connections") == 0).await;
}

#[tokio::test]
async fn clients_that_are_reset_during_broadcasts_leave_nothing() {
    let server = Server::start(|_| {});
    let mut sender = server.client().await;
    let victims = server.clients(100).await;
    for victim in victims {
        // The write of a broadcast may notice the reset before the link's own task does.
        victim.reset();
        sender.act(json!([{"to": [], "except": [sender.id], "emit": ["x"]}])).await;
    }
    sender.close().await;
    server.empties().await;
    until("no connection is left", || server.metric("jackfield_connections") == 0).await;
}

#[tokio::test]
async fn a_poll_response_that_nobody_reads_does_not_stay() {
    let server = Server::start(|edge| {
        edge.limits.http_body_timeout_ms = 2_000;
        edge.limits.outbox_bytes_max = 64 << 20;
        edge.limits.outbox_stalled_bytes_max = 64 << 20;
        edge.http_compression_bytes_min = 0;
    });
    let session = server.polling().await;
    session.join().await;
    let filler = "x".repeat(900_000);
    // More than the system's own buffers take.
    for _ in 0..16 {
        session.act(json!([{"emit": [filler]}])).await;
    }
    let before = server.metric("jackfield_http_requests_total");
    let mut stream = crate::harness::stream::connect(server.address, [127, 0, 0, 1].into(), Some(4096)).await;
    let request = format!("GET /socket.io/?{} HTTP/1.1\r\nHost: x\r\n\r\n", session.query);
    stream.write_all(request.as_bytes()).await.expect("the edge reads");
    server.until("jackfield_http_requests_total", before + 1).await;
    until("the response is given up", || server.metric("jackfield_connections") == 0).await;
}

#[tokio::test]
async fn sessions_that_wait_for_their_last_poll_count_and_give_way() {
    let server = Server::start(|edge| edge.sessions_max = 3);
    for _ in 0..3 {
        let session = server.polling().await;
        session.post("4abc").await.expect(200, "ok");
    }
    let refused = crate::harness::polling::Request::get("EIO=4&transport=polling").send(server.address).await;
    assert_eq!(refused.status, 503, "{refused:?}");
}

#[tokio::test]
async fn nothing_behind_a_violation_counts_even_on_a_busy_shard() {
    let server = Server::start(|_| {});
    let mut listener = server.client().await;
    let mut others = server.clients(600).await;
    let mut rogue = server.client().await;
    let broadcast = |word: &str| {
        let event = crate::harness::websocket::event("do", &[], &json!([{"to": [], "emit": [word]}]));
        format!("42{event}")
    };
    let mut bytes = Vec::new();
    for text in [broadcast("before"), broadcast("too"), "4abc".to_owned(), broadcast("after")] {
        let mut frame = crate::harness::stream::header(0x81, text.len());
        frame.extend_from_slice(text.as_bytes());
        bytes.extend(frame);
    }
    // One write, so that the violation is read while the broadcasts before it are still being delivered.
    rogue.try_write(&bytes).await;
    rogue.rest().await;
    let mut sentinel = server.client().await;
    sentinel.act(json!([{"to": [], "emit": ["sentinel"]}])).await;
    listener.expect(&["42[\"before\"]", "42[\"too\"]", "42[\"sentinel\"]"]).await;
    others.truncate(0);
}
