//! What the tests share: an edge in this process, the application behind it, and two kinds of clients.
//!
//! - [`server`]: the edge, its counters, and how its clients begin
//! - [`nodes`]: several edges that are one cluster, and a node that only pretends to be one
//! - [`websocket`]: a WebSocket client that may come from another address, read slowly or not at all
//! - [`polling`]: one HTTP request at a time, and polling sessions

pub(crate) mod nodes;
pub(crate) mod polling;
pub(crate) mod server;
pub(crate) mod websocket;

use std::time::Duration;

pub(crate) use system_tests::stream;
pub(crate) use system_tests::waiting::{DEADLINE, LOOK, soon, until};
use tokio::sync::{Mutex, MutexGuard};

pub(crate) use polling::Polling;
pub(crate) use server::Server;
pub(crate) use websocket::{Client, Next, Options};

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
