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

/// Defines single-number metrics: field, name, type and help in one place.
macro_rules! numbers {
    (
        $(#[$doc:meta])*
        pub struct $struct:ident { $($(#[$extra_doc:meta])* $extra:ident: $type:ty,)* }
        $($field:ident: $name:literal $kind:literal $help:literal,)*
    ) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $struct {
            $($(#[$extra_doc])* pub $extra: $type,)*
            $(#[doc = $help] pub $field: Cell,)*
        }

        impl $struct {
            fn singles(&self) -> Vec<(&'static str, &'static str, &'static str, &Cell)> {
                vec![$(($name, $kind, $help, &self.$field),)*]
            }
        }
    };
}

numbers! {
    /// The numbers of one shard.
    pub struct ShardMetrics {
        /// Sessions now, by transport.
        sessions: ByTransport,
        /// Sessions opened, by first transport.
        sessions_opened: ByTransport,
        /// Sessions ended, by reason.
        sessions_closed: ByReason,
    }
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
    broadcasts: "jackfield_broadcasts_total" "counter" "Broadcasts fanned out, by each shard that has the namespace",
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
    relayed_requests: "jackfield_relayed_requests_total" "counter" "Polling requests handed to the node that has their session",
    relayed_tunnels: "jackfield_relayed_websockets_total" "counter" "WebSockets handed to the node that has their session",
    relay_lookups: "jackfield_relay_lookups_total" "counter" "Requests that waited whether a node shows itself that was never heard of",
    relay_failures: "jackfield_relay_failures_total" "counter" "Requests and WebSockets that could not be handed to another node",
    relays_refused: "jackfield_relays_refused_total" "counter" "Requests and WebSockets refused with 503 because relays_max was reached",
    relay_idle: "jackfield_relay_idle_connections" "gauge" "Connections to other nodes that wait for the next request",
}

numbers! {
    /// The numbers that belong to an edge as a node among others.
    pub struct PeerMetrics {}
    relays: "jackfield_relays" "gauge" "Requests and WebSockets that are being relayed to other nodes",
    connections: "jackfield_peer_connections" "gauge" "Connections of other nodes that carry requests; a WebSocket counts as a client connection",
    connections_refused: "jackfield_peer_connections_refused_total" "counter" "Connections of other nodes closed at once because connections_max was reached",
    accept_errors: "jackfield_peer_accept_errors_total" "counter" "Connections of other nodes that could not be accepted",
    requests: "jackfield_peer_requests_total" "counter" "Requests of other nodes",
    requests_refused: "jackfield_peer_requests_refused_total" "counter" "Requests to the peer listener that were not signed by a node, or meant for another one",
    held_bytes: "jackfield_peer_inbound_partial_bytes" "gauge" "Bytes kept of request bodies that other nodes are still sending",
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

/// Counts one request or WebSocket that is relayed to another node, for as long as it is.
#[derive(Debug)]
pub struct CountedRelay(Arc<Metrics>);

impl CountedRelay {
    /// Takes one of `relays_max` places; `None` if all are taken.
    pub fn new(metrics: &Arc<Metrics>, relays_max: usize) -> Option<CountedRelay> {
        let counted = CountedRelay(metrics.clone());
        metrics.peers.relays.add_shared(1);
        // Shards that come at the same moment may refuse each other the last place; none takes one too many.
        (metrics.peers.relays.get() <= relays_max as u64).then_some(counted)
    }
}

impl Drop for CountedRelay {
    fn drop(&mut self) {
        self.0.peers.relays.sub_shared(1);
    }
}

/// The numbers of one edge.
#[derive(Debug)]
pub struct Metrics {
    shards: Vec<Arc<ShardMetrics>>,
    peers: PeerMetrics,
}

impl Metrics {
    /// Numbers for so many shards.
    pub fn new(shards: usize) -> Metrics {
        Metrics { shards: (0..shards).map(|_| Arc::default()).collect(), peers: PeerMetrics::default() }
    }

    /// The numbers of each shard.
    pub fn shards(&self) -> &[Arc<ShardMetrics>] {
        &self.shards
    }

    /// The numbers of the node among others.
    pub fn peers(&self) -> &PeerMetrics {
        &self.peers
    }

    /// Sessions on all shards.
    pub fn sessions(&self) -> u64 {
        self.shards.iter().map(|shard| shard.sessions.total()).sum()
    }

    /// Rooms on all shards; one with members on two counts twice.
    pub fn rooms(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rooms.get()).sum()
    }

    /// Connections on all shards, and those of other nodes.
    pub fn connections(&self) -> u64 {
        let shards: u64 = self.shards.iter().map(|shard| shard.connections.get()).sum();
        shards + self.peers.connections.get()
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
        for (name, kind, help, cell) in self.peers.singles() {
            head(&mut out, name, kind, help);
            line(&mut out, name, "", cell.get());
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
