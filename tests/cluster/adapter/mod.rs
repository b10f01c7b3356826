//! The adapter alone: several links on one broker, with ears in the place of sockets.
//!
//! What is one wire's alone is tested beside it; here stands what holds on every broker, and what happens when it fails.

mod cases;
mod faults;
mod node;
mod rabbitmq;
mod redis;

use node::Cluster;

#[test]
fn memory() {
    cases::all(&Cluster::memory());
}
