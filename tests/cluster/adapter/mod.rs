//! The adapter alone: several links on one broker, with ears in the place of sockets.
//!
//! What is one wire's alone is tested beside it; here stands what holds on every broker, and what happens when it fails.

mod cases;
mod faults;
mod node;
mod rabbitmq;
mod redis;

use std::time::Instant;

use node::{Cluster, WITHIN, namespace};

#[test]
fn memory() {
    cases::all(&Cluster::memory());
}

/// A subscription that may not linger ends when its last member goes, although nothing else happens at this node.
#[test]
fn a_subscription_ends_without_being_asked_twice() {
    const DAY_MS: u64 = 24 * 3600 * 1_000;
    let mut cluster = Cluster::memory();
    cluster.broker.lingering_max = 0;
    (cluster.cluster.heartbeat_ms, cluster.cluster.dead_after_ms) = (DAY_MS / 2, DAY_MS);
    let node = cluster.edge();
    let subscriptions = || node.adapter.metrics().subscriptions.get();
    let wait_for = |count| {
        let since = Instant::now();
        while subscriptions() != count {
            assert!(since.elapsed() < WITHIN, "{} subscriptions, not {count}", subscriptions());
            std::thread::yield_now();
        }
    };
    let before = subscriptions();
    for _ in 0..3 {
        node.adapter.join(&namespace("/"), Some("room"), Box::new(|_| {}));
        wait_for(before + 1);
        node.adapter.leave(&namespace("/"), Some("room"));
        wait_for(before);
    }
}
