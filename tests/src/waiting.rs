//! Waiting for events and counters, with a deadline that fails the test.

use std::time::{Duration, Instant};

/// How long any single event may take. Far above what the edge needs, for a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How often a counter is looked at; no event announces its change.
pub const LOOK: Duration = Duration::from_millis(2);

/// Waits for `event`.
///
/// # Panics
/// When it does not come in time, saying `what` did not happen.
pub async fn soon<F: Future>(what: &str, event: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(output) => output,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Waits until `is_so`.
///
/// # Panics
/// When that is not in time, saying `what` did not become true.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}
