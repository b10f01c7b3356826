//! Several adapters on one broker: first on the one in memory, then on real ones that each test starts for itself.
//!
//! What is one wire's alone is tested beside it; here stands what holds on every broker, and what happens when it fails.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test helper reports a failure"
)]

mod cases;
mod faults;
mod node;
mod outages;
mod rabbitmq;
mod redis;
mod round_robin;

use node::Cluster;

#[test]
fn memory() {
    cases::all(&Cluster::memory());
}
