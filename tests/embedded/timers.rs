//! Deadlines on the wall clock: never early, and late by at most one tick when the machine is idle.
//!
//! Lateness is judged by the best of many sessions, because a busy machine may delay any one of them.

use std::time::{Duration, Instant};

use edge::session::timers::TICK;

use crate::harness::{Next, Server};

const SESSIONS: usize = 24;

/// What the runtime's own clock (1 ms) and the way to the client may add to a tick.
const SLACK: Duration = Duration::from_millis(5);

/// One deadline as its client saw it.
struct Taken {
    /// Since before the edge can have begun to count.
    at_most: Duration,
    /// Since the client knew that it had.
    at_least: Duration,
}

/// Expects that none was early, and the quickest late by hardly more than a tick.
fn check(what: &str, promised: Duration, taken: &[Taken]) {
    for taken in taken {
        assert!(taken.at_most >= promised, "{what} came after {:?}, not {promised:?}", taken.at_most);
    }
    let quickest = taken.iter().map(|taken| taken.at_least).min().expect("some");
    assert!(quickest <= promised + TICK + SLACK, "{what} came after {quickest:?}, not {promised:?}");
}

/// Times what the edge does first on each of many sessions, opened at different phases of the tick.
async fn times(server: &Server, acts: &Next) -> Vec<Taken> {
    let mut taken = Vec::new();
    for _ in 0..SESSIONS / 8 {
        let round = (0..8).map(|_| async {
            let before = Instant::now();
            let mut client = server.session().await;
            let after = Instant::now();
            assert_eq!(client.next().await, *acts);
            Taken { at_most: before.elapsed(), at_least: after.elapsed() }
        });
        taken.extend(futures_util::future::join_all(round).await);
    }
    taken
}

#[tokio::test]
async fn heartbeats_come_on_time() {
    let server = Server::start(|edge| edge.ping_interval_ms = 110);
    check("a ping", Duration::from_millis(110), &times(&server, &Next::Text("2".to_owned())).await);
}

#[tokio::test]
async fn the_connect_timeout_comes_on_time() {
    let server = Server::start(|edge| edge.connect_timeout_ms = 130);
    check("the end", Duration::from_millis(130), &times(&server, &Next::Closed(None)).await);
}

#[tokio::test]
async fn missed_heartbeats_are_noticed_on_time() {
    let server = Server::start(|edge| (edge.ping_interval_ms, edge.ping_timeout_ms) = (70, 90));
    let mut taken = Vec::new();
    for _ in 0..SESSIONS / 2 {
        let before = Instant::now() + Duration::from_millis(70);
        let mut client = server.session().await;
        assert_eq!(client.next().await, Next::Text("2".to_owned()));
        let after = Instant::now();
        assert_eq!(client.next().await, Next::Closed(None));
        taken.push(Taken { at_most: before.elapsed(), at_least: after.elapsed() });
    }
    check("the end", Duration::from_millis(90), &taken);
}
