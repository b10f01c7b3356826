//! Heartbeats with their deadlines, in both directions and on both transports.
//!
//! A test that measures silence allows a wide window: below it the server broke the promise it made in the open
//! packet, far above it the timer was lost.

use std::time::{Duration, Instant};

use crate::wire::{PATIENT, Server, WebSocket};

const SETS: &[&str] = &["edge.ping_interval_ms=300", "edge.ping_timeout_ms=200"];

/// It happens between `from` and some seconds later. `since` is before the server can have begun to count.
fn check_elapsed(since: Instant, from: u64) {
    let elapsed = since.elapsed();
    let window = Duration::from_millis(from)..Duration::from_millis(from + 5000);
    assert!(window.contains(&elapsed), "after {elapsed:?}, not {from} ms");
}

async fn upgraded(server: &Server, version: &str) -> WebSocket {
    let session = server.polling(version).await;
    let mut socket = server.websocket(&session.upgrade_query()).await;
    socket.send("2probe").await;
    assert_eq!(socket.any_text().await, "3probe");
    socket.send("5").await;
    socket
}

#[tokio::test]
async fn version_4_server_pings_after_the_interval_and_again_after_the_pong() {
    let server = Server::engineio(PATIENT);
    let mut since = Instant::now();
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    for _ in 0..3 {
        assert_eq!(socket.any_text().await, "2");
        check_elapsed(since, 300);
        since = Instant::now();
        socket.send("3").await;
    }
}

#[tokio::test]
async fn version_4_silent_client_is_closed_after_interval_and_timeout() {
    let server = Server::engineio(SETS);
    let since = Instant::now();
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    assert_eq!(socket.closed().await, None);
    check_elapsed(since, 500);
}

#[tokio::test]
async fn version_4_client_that_talks_but_never_pongs_gains_one_extension() {
    let server = Server::engineio(&["edge.ping_interval_ms=300", "edge.ping_timeout_ms=2000"]);
    let since = Instant::now();
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    assert_eq!(socket.any_text().await, "2");
    // Half of the timeout later one packet restarts the wait; the packets after it do not.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    socket.send_all(&["4a", "4b"]).await;
    socket.expect(&["4a", "4b"]).await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    socket.send("4c").await;
    assert_eq!(socket.closed().await, None);
    check_elapsed(since, 300 + 1000 + 2000);
}

#[tokio::test]
async fn version_4_client_ping_is_an_error() {
    let server = Server::engineio(&[]);
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    socket.send("2").await;
    assert_eq!(socket.closed().await, None);
    let session = server.polling("EIO=4").await;
    session.send(&["2"]).await;
    session.expect_gone().await;
}

#[tokio::test]
async fn version_4_polling_session_without_polls_is_closed() {
    let server = Server::engineio(SETS);
    let since = Instant::now();
    let session = server.polling("EIO=4").await;
    session.ends().await;
    check_elapsed(since, 500);
}

#[tokio::test]
async fn version_4_parked_poll_gets_the_ping_then_the_close() {
    let server = Server::engineio(SETS);
    let session = server.polling("EIO=4").await;
    session.poll().await.expect(200, "2");
    let reply = session.poll().await;
    assert!(reply.text() == "1" || reply.status == 400, "{reply:?}");
    session.expect_gone().await;
}

#[tokio::test]
async fn version_3_server_answers_pings_without_their_data() {
    let server = Server::engineio(&[]);
    let mut socket = server.websocket("EIO=3").await;
    socket.open_packet().await;
    socket.send_all(&["2", "2probe", "2x"]).await;
    for _ in 0..3 {
        assert_eq!(socket.any_text().await, "3");
    }
}

#[tokio::test]
async fn version_3_server_never_pings() {
    let server = Server::engineio(SETS);
    let mut socket = server.websocket("EIO=3").await;
    socket.open_packet().await;
    assert_eq!(socket.closed().await, None, "and no text before");
}

#[tokio::test]
async fn version_3_silent_client_is_closed_after_interval_and_timeout() {
    let server = Server::engineio(SETS);
    let since = Instant::now();
    let mut socket = server.websocket("EIO=3").await;
    socket.open_packet().await;
    assert_eq!(socket.closed().await, None);
    check_elapsed(since, 500);
}

#[tokio::test]
async fn version_3_messages_do_not_count_as_pings() {
    let server = Server::engineio(&["edge.ping_interval_ms=300", "edge.ping_timeout_ms=2700"]);
    let since = Instant::now();
    let mut socket = server.websocket("EIO=3").await;
    socket.open_packet().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    socket.send("4hello").await;
    assert_eq!(socket.any_text().await, "4hello");
    assert_eq!(socket.closed().await, None);
    let elapsed = since.elapsed();
    // Had it counted, the session would have lived half as long again.
    assert!((3000..4500).contains(&elapsed.as_millis()), "closed after {elapsed:?}");
}

#[tokio::test]
async fn version_3_client_pong_is_an_error() {
    let server = Server::engineio(&[]);
    let mut socket = server.websocket("EIO=3").await;
    socket.open_packet().await;
    socket.send("3").await;
    assert_eq!(socket.closed().await, None);
}

#[tokio::test]
async fn silence_after_an_upgrade_is_noticed_in_both_versions() {
    for version in ["EIO=3", "EIO=4"] {
        let server = Server::engineio(SETS);
        let mut socket = upgraded(&server, version).await;
        assert_eq!(socket.closed().await, None, "{version}");
    }
}

#[tokio::test]
async fn version_3_silence_after_a_ping_after_an_upgrade_is_noticed() {
    let server = Server::engineio(SETS);
    let mut socket = upgraded(&server, "EIO=3").await;
    let since = Instant::now();
    socket.send("2").await;
    assert_eq!(socket.any_text().await, "3");
    assert_eq!(socket.closed().await, None);
    check_elapsed(since, 500);
}

#[tokio::test]
async fn heartbeats_go_on_after_an_upgrade() {
    let server = Server::engineio(PATIENT);
    let mut socket = upgraded(&server, "EIO=4").await;
    for _ in 0..3 {
        assert_eq!(socket.any_text().await, "2");
        socket.send("3").await;
    }
}
