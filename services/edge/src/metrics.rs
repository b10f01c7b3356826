//! What an edge counts, and how it is written for Prometheus.
//!
//! Each shard has its own counters, most of which only its thread writes; whoever renders them adds them up. Every
//! bound of the configuration shows here: what it holds, or how often it was hit.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engineio_proto::TransportKind;
use engineio_proto::session::CloseReason;

/// A number that others may read while it changes.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds to a number that only the calling thread changes: no locked instruction on the delivery path.
    pub fn add(&self, amount: u64) {
        self.set(self.get().wrapping_add(amount));
    }

    /// Takes from a number that only the calling thread changes.
    pub fn sub(&self, amount: u64) {
        self.set(self.get().wrapping_sub(amount));
    }

    /// Adds to a number that several threads change.
    pub fn add_shared(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Takes from a number that several threads change.
    pub fn sub_shared(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    /// Sets a number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number for each transport.
#[derive(Debug, Default)]
pub struct ByTransport {
    polling: Cell,
    websocket: Cell,
}

impl ByTransport {
    fn cell(&self, transport: TransportKind) -> &Cell {
        match transport {
            TransportKind::Polling => &self.polling,
            TransportKind::WebSocket => &self.websocket,
        }
    }

    /// Adds for one transport.
    pub fn add(&self, transport: TransportKind, amount: u64) {
        self.cell(transport).add(amount);
    }

    /// Takes from one transport.
    pub fn sub(&self, transport: TransportKind, amount: u64) {
        self.cell(transport).sub(amount);
    }

    /// The sum over both.
    pub fn total(&self) -> u64 {
        self.polling.get() + self.websocket.get()
    }
}

const REASONS: [CloseReason; 7] = [
    CloseReason::PingTimeout,
    CloseReason::TransportClose,
    CloseReason::TransportError,
    CloseReason::ParseError,
    CloseReason::ForcedClose,
    CloseReason::ForcedServerClose,
    CloseReason::ServerShuttingDown,
];

/// A counter for each reason why a session ended.
#[derive(Debug, Default)]
pub struct ByReason([Cell; REASONS.len()]);

impl ByReason {
    /// Counts sessions that ended for this reason.
    pub fn add(&self, reason: CloseReason, amount: u64) {
        if let Some((_, cell)) = REASONS.iter().zip(&self.0).find(|(known, _)| **known == reason) {
            cell.add(amount);
        }
    }
}

/// Defines the single-number metrics of a shard: field, name, type and help in one place.
macro_rules! shard_metrics {
    ($($(#[$doc:meta])* $field:ident: $name:literal $kind:literal $help:literal,)*) => {
        /// The numbers of one shard.
        #[derive(Debug, Default)]
        pub struct ShardMetrics {
            /// Sessions now, by transport.
            pub sessions: ByTransport,
            /// Sessions opened, by first transport.
            pub sessions_opened: ByTransport,
            /// Sessions ended, by reason.
            pub sessions_closed: ByReason,
            $(#[doc = $help] pub $field: Cell,)*
        }

        impl ShardMetrics {
            fn singles(&self) -> Vec<(&'static str, &'static str, &'static str, &Cell)> {
                vec![$(($name, $kind, $help, &self.$field),)*]
            }
        }
    };
}

shard_metrics! {
    connections: "jackfield_connections" "gauge" "Client connections, those without a session included",
    connections_refused: "jackfield_connections_refused_total" "counter" "Connections closed at once because connections_max was reached",
    accept_errors: "jackfield_accept_errors_total" "counter" "Connections that could not be accepted",
    handshakes_refused: "jackfield_handshakes_refused_total" "counter" "Handshakes answered with an error",
    sessions_refused: "jackfield_sessions_refused_total" "counter" "Handshakes refused with 503 because sessions_max was reached",
    origins_refused: "jackfield_origins_refused_total" "counter" "Requests refused for their Origin",
    upgrades: "jackfield_upgrades_total" "counter" "Sessions that changed from polling to WebSocket",
    requests: "jackfield_http_requests_total" "counter" "HTTP requests of clients",
    requests_forwarded: "jackfield_requests_forwarded_total" "counter" "Requests whose session lives on another shard",
    packets_received: "jackfield_packets_received_total" "counter" "Engine.IO packets received",
    packets_sent: "jackfield_packets_sent_total" "counter" "Socket.IO packets sent to sessions",
    bytes_received: "jackfield_websocket_received_bytes_total" "counter" "Bytes read from WebSockets",
    sockets: "jackfield_sockets" "gauge" "Socket.IO sockets",
    rooms: "jackfield_rooms" "gauge" "Rooms with at least one local member",
    namespaces: "jackfield_namespaces" "gauge" "Namespaces with at least one local socket",
    connects_refused: "jackfield_connects_refused_total" "counter" "CONNECT packets answered with CONNECT_ERROR",
    events: "jackfield_events_total" "counter" "Events from clients",
    acks_pending: "jackfield_acks_pending" "gauge" "Acknowledgements that clients still owe",
    broadcasts: "jackfield_broadcasts_total" "counter" "Broadcasts fanned out by this node",
    broadcasts_shed: "jackfield_broadcasts_shed_total" "counter" "Broadcasts of other nodes left out because the queue of a shard was nearly full",
    deliveries: "jackfield_deliveries_total" "counter" "Sockets that broadcasts were delivered to",
    volatile_dropped: "jackfield_volatile_dropped_total" "counter" "Volatile packets left out because their client was behind",
    slow_consumers_closed: "jackfield_slow_consumers_closed_total" "counter" "Sessions closed because they read too slowly",
    limit_hits: "jackfield_limit_hits_total" "counter" "Requests and packets refused because a limit was reached",
    upstream_overloaded: "jackfield_upstream_overloaded_total" "counter" "Sessions closed because too many of their events waited for the application",
    outbox_bytes: "jackfield_outbox_bytes" "gauge" "Bytes that wait for slow clients",
    held_bytes: "jackfield_inbound_partial_bytes" "gauge" "Bytes kept of messages that are incomplete",
    turns_bytes: "jackfield_turns_bytes" "gauge" "Bytes of events that wait for a long delivery to end",
    unsent_bytes: "jackfield_peer_backlog_bytes" "gauge" "Bytes of broadcasts that wait for another shard whose queue is full",
    inbox_bytes: "jackfield_inbox_bytes" "gauge" "Bytes in the queue in front of the shard",
    inbox_full: "jackfield_inbox_full_total" "counter" "Messages to another shard that had to wait because its queue was full",
}

/// Counts one client connection for as long as it lives.
#[derive(Debug)]
pub struct CountedConnection(Arc<ShardMetrics>);

impl CountedConnection {
    /// Counts a connection of a shard.
    pub fn new(metrics: Arc<ShardMetrics>) -> CountedConnection {
        metrics.connections.add_shared(1);
        CountedConnection(metrics)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.connections.sub_shared(1);
    }
}

/// The numbers of one edge.
#[derive(Debug)]
pub struct Metrics {
    shards: Vec<Arc<ShardMetrics>>,
}

impl Metrics {
    /// Numbers for so many shards.
    pub fn new(shards: usize) -> Metrics {
        Metrics { shards: (0..shards).map(|_| Arc::default()).collect() }
    }

    /// The numbers of each shard.
    pub fn shards(&self) -> &[Arc<ShardMetrics>] {
        &self.shards
    }

    /// Sessions on all shards.
    pub fn sessions(&self) -> u64 {
        self.shards.iter().map(|shard| shard.sessions.total()).sum()
    }

    /// Rooms on all shards; one with members on two counts twice.
    pub fn rooms(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rooms.get()).sum()
    }

    /// Connections on all shards.
    pub fn connections(&self) -> u64 {
        self.shards.iter().map(|shard| shard.connections.get()).sum()
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(8 * 1024);
        let version = env!("CARGO_PKG_VERSION");
        head(&mut out, "jackfield_build_info", "gauge", "The running version");
        line(&mut out, "jackfield_build_info", &format!("{{version=\"{version}\"}}"), 1);
        self.by_transport(&mut out, "jackfield_sessions", "gauge", "Engine.IO sessions", |shard| {
            &shard.sessions
        });
        self.by_transport(
            &mut out,
            "jackfield_sessions_opened_total",
            "counter",
            "Sessions opened, by their first transport",
            |shard| &shard.sessions_opened,
        );
        let name = "jackfield_sessions_closed_total";
        head(&mut out, name, "counter", "Sessions that ended, by reason");
        for (index, reason) in REASONS.iter().enumerate() {
            let total = self
                .shards
                .iter()
                .filter_map(|shard| shard.sessions_closed.0.get(index))
                .map(Cell::get)
                .sum();
            line(&mut out, name, &format!("{{reason=\"{}\"}}", reason.as_str()), total);
        }
        let columns: Vec<_> = self.shards.iter().map(|shard| shard.singles()).collect();
        for (row, (name, kind, help, _)) in columns.first().into_iter().flatten().enumerate() {
            head(&mut out, name, kind, help);
            let total =
                columns.iter().filter_map(|column| column.get(row)).map(|(.., cell)| cell.get()).sum();
            line(&mut out, name, "", total);
        }
        out
    }

    fn by_transport(
        &self,
        out: &mut String,
        name: &str,
        kind: &str,
        help: &str,
        pick: impl Fn(&ShardMetrics) -> &ByTransport,
    ) {
        head(out, name, kind, help);
        for transport in [TransportKind::Polling, TransportKind::WebSocket] {
            let total = self.shards.iter().map(|shard| pick(shard).cell(transport).get()).sum();
            line(out, name, &format!("{{transport=\"{}\"}}", transport.name()), total);
        }
    }
}

// Writing to a String cannot fail.
fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "{name}{labels} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_adds_up_the_shards() {
        let metrics = Metrics::new(2);
        for shard in metrics.shards() {
            shard.sessions.add(TransportKind::WebSocket, 3);
            shard.sessions_closed.add(CloseReason::PingTimeout, 1);
            shard.rooms.set(5);
        }
        let text = metrics.render();
        for expected in [
            "jackfield_sessions{transport=\"websocket\"} 6\n",
            "jackfield_sessions_closed_total{reason=\"ping timeout\"} 2\n",
            "# TYPE jackfield_rooms gauge\njackfield_rooms 10\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }
}
