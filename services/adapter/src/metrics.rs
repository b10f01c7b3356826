//! What the link to the cluster counts, and how it is written for Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that several threads change and read.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds to it.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds to it; what it was before.
    pub fn raise(&self, amount: u64) -> u64 {
        self.0.fetch_add(amount, Ordering::Relaxed)
    }

    /// Takes from it what was added before.
    pub fn lower(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The reasons for which a message of another node is refused, as [`cluster_proto::error::DecodeError::reason`] names them.
const REFUSALS: [&str; 14] = [
    "size",
    "malformed",
    "unknown_type",
    "unknown_version",
    "not_an_event",
    "no_event_name",
    "event_name_length",
    "reserved_event",
    "attachments",
    "depth",
    "rooms",
    "namespace",
    "placeholders",
    "other",
];

macro_rules! metrics {
    ($($field:ident: $name:literal $kind:literal $help:literal,)*) => {
        /// The numbers of one adapter.
        #[derive(Debug, Default)]
        pub struct Metrics {
            refused: [Cell; REFUSALS.len()],
            $(#[doc = $help] pub $field: Cell,)*
        }

        impl Metrics {
            fn singles(&self) -> Vec<(&'static str, &'static str, &'static str, &Cell)> {
                vec![$(($name, $kind, $help, &self.$field),)*]
            }
        }
    };
}

metrics! {
    up: "jackfield_broker_up" "gauge" "Whether the broker is connected",
    whole: "jackfield_broker_whole" "gauge" "Whether every wanted subscription was active after the last connect",
    connects: "jackfield_broker_connects_total" "counter" "Connections to the broker that became ready",
    disconnects: "jackfield_broker_disconnects_total" "counter" "Connections to the broker that were lost",
    published: "jackfield_broker_published_total" "counter" "Messages handed to the broker",
    publish_failed: "jackfield_broker_publish_failed_total" "counter" "Messages that the broker did not confirm",
    publish_refused: "jackfield_broker_publish_refused_total" "counter" "Messages not published because the broker was away or too much waited for it",
    publish_bytes: "jackfield_broker_publish_bytes" "gauge" "Bytes that were published and not yet taken by the broker",
    received: "jackfield_broker_received_total" "counter" "Messages received from the broker",
    received_bytes: "jackfield_broker_received_bytes_total" "counter" "Bytes of messages received from the broker",
    dropped: "jackfield_broker_dropped_total" "counter" "Received messages dropped because too much waited on this node",
    gaps: "jackfield_broker_gaps_total" "counter" "Times when messages of other nodes may have been missed",
    subscriptions: "jackfield_broker_subscriptions" "gauge" "Topics that this node wants to hear",
    subscriptions_wanted: "jackfield_broker_subscriptions_wanted" "gauge" "Topics that the broker has not been told of yet",
    subscriptions_lingering: "jackfield_broker_subscriptions_lingering" "gauge" "Topics kept without a local member",
    joins_degraded: "jackfield_broker_joins_degraded_total" "counter" "Joins acknowledged before their subscription was active",
    claims_lost: "jackfield_cluster_claims_lost_total" "counter" "Times when another process was seen under this node's id",
    echoes: "jackfield_cluster_echoes_total" "counter" "Messages dropped because this node had sent them",
    passed_over: "jackfield_cluster_passed_over_total" "counter" "Messages dropped undecoded because no member of their rooms is here",
    duplicates: "jackfield_cluster_duplicates_total" "counter" "Messages dropped because their idempotency key was handled before",
    heartbeats: "jackfield_cluster_heartbeats_total" "counter" "Heartbeats received",
    messages: "jackfield_cluster_messages_total" "counter" "Messages of other nodes handed to this node's sockets",
    nodes: "jackfield_cluster_nodes" "gauge" "Other nodes that are alive",
    nodes_died: "jackfield_cluster_nodes_died_total" "counter" "Nodes that were silent for too long",
    requests: "jackfield_cluster_requests_total" "counter" "Requests to other nodes",
    requests_pending: "jackfield_cluster_requests_pending" "gauge" "Requests that wait for answers",
    requests_incomplete: "jackfield_cluster_requests_incomplete_total" "counter" "Requests that some node did not answer in time",
    responses_unknown: "jackfield_cluster_responses_unknown_total" "counter" "Answers that nobody here waits for",
}

impl Metrics {
    /// Counts a message of another node that was refused.
    pub fn refuse(&self, reason: &str) {
        let known = REFUSALS.iter().zip(&self.refused);
        let found = known.clone().find(|(name, _)| **name == reason);
        if let Some((_, cell)) = found.or_else(|| known.last()) {
            cell.add(1);
        }
    }

    /// Messages refused for a reason.
    #[must_use]
    pub fn refused(&self, reason: &str) -> u64 {
        REFUSALS
            .iter()
            .zip(&self.refused)
            .find(|(name, _)| **name == reason)
            .map_or(0, |(_, cell)| cell.get())
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(4 * 1024);
        let name = "jackfield_cluster_refused_total";
        head(&mut out, name, "counter", "Messages of other nodes that were refused, by reason");
        for (reason, cell) in REFUSALS.iter().zip(&self.refused) {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{name}{{reason=\"{reason}\"}} {}", cell.get());
        }
        for (name, kind, help, cell) in self.singles() {
            head(&mut out, name, kind, help);
            let _ = writeln!(out, "{name} {}", cell.get());
        }
        out
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_every_number_once() {
        let metrics = Metrics::default();
        metrics.up.set(1);
        metrics.refuse("depth");
        metrics.refuse("never heard of");
        let text = metrics.render();
        for expected in [
            "# TYPE jackfield_broker_up gauge\njackfield_broker_up 1\n",
            "jackfield_cluster_refused_total{reason=\"depth\"} 1\n",
            "jackfield_cluster_refused_total{reason=\"other\"} 1\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        let mut names: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
