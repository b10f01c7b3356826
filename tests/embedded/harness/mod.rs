//! What the tests share: an edge in this process, the application behind it, and two kinds of clients.
//!
//! - [`server`]: the edge, its counters, and how its clients begin
//! - [`nodes`]: several edges that are one cluster, and a node that only pretends to be one
//! - [`puppet`]: the application: its clients tell it what to do, the test tells it when
//! - [`websocket`]: a WebSocket client that may come from another address, read slowly or not at all
//! - [`polling`]: one HTTP request at a time, and polling sessions

pub(crate) mod nodes;
pub(crate) mod polling;
pub(crate) mod puppet;
pub(crate) mod server;
pub(crate) mod websocket;

use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

pub(crate) use polling::Polling;
pub(crate) use server::Server;
pub(crate) use websocket::{Client, Next, Options};

/// How long any single event may take. Far above what the edge needs, for a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// How often a counter is looked at; no event announces its change.
const LOOK: Duration = Duration::from_millis(2);

/// Waits for `event`, and fails the test saying `what` did not happen.
pub(crate) async fn soon<F: Future>(what: &str, event: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(output) => output,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Waits until `is_so`, and fails the test saying `what` did not become true.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Expects that `event` does not happen within `quiet`, in which a wrong edge would act.
pub(crate) async fn not_within<F: Future>(quiet: Duration, what: &str, event: F) {
    assert!(tokio::time::timeout(quiet, event).await.is_err(), "should not happen: {what}");
}

/// Waits for room for thousands of sockets: one test at a time has them, or a process with many tests at once would
/// run out of descriptors.
pub(crate) async fn room_for_a_crowd() -> MutexGuard<'static, ()> {
    static CROWD: Mutex<()> = Mutex::const_new(());
    CROWD.lock().await
}
