//! Hand-made clients: HTTP/1.1 over a plain stream, polling sessions, WebSockets by message and by byte.

pub(crate) mod http;
pub(crate) mod polling;
pub(crate) mod server;
pub(crate) mod websocket;

use std::time::Duration;

pub(crate) use http::{Reply, Request};
pub(crate) use polling::Polling;
pub(crate) use server::Server;
pub(crate) use websocket::{RawWebSocket, WebSocket};

/// How long any single event may take. Far above what the server needs, for a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);

/// The settings that the published protocol suites ask for, where time plays no part.
pub(crate) const SUITE: &[&str] = &["edge.namespaces=/,/custom"];
/// All that these suites ask for: silence is soon noticed.
pub(crate) const HASTY: &[&str] = &[
    "edge.ping_interval_ms=300",
    "edge.ping_timeout_ms=200",
    "edge.connect_timeout_ms=1000",
    "edge.namespaces=/,/custom",
];
/// Pings come as often, and have time to be answered on a busy machine.
pub(crate) const PATIENT: &[&str] =
    &["edge.ping_interval_ms=300", "edge.ping_timeout_ms=5000", "edge.namespaces=/,/custom"];

/// Waits for `event`, and fails the test saying `what` did not happen.
pub(crate) async fn soon<F: Future>(what: &str, event: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(output) => output,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Expects that `event` does not happen within `quiet`, which is the time in which a wrong server would act.
pub(crate) async fn not_within<F: Future>(quiet: Duration, what: &str, event: F) {
    assert!(tokio::time::timeout(quiet, event).await.is_err(), "should not happen: {what}");
}
