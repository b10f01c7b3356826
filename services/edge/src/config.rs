//! What an edge can be told: the sections `edge` and `upstream`, and the bounds derived from the machine.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ops::config::schema::{Item, must};
use ops::{config_choice, config_section, resources};
use serde::{Deserialize, Serialize};

/// Longest duration a key accepts: one day.
const DAY_MS: u64 = 86_400_000;

/// Largest byte count a key accepts: 1 TiB.
const TIB: usize = 1 << 40;

/// Largest count a key accepts: more than one process can hold.
const COUNT_MAX: usize = 1 << 24;

/// Descriptors that stay free for listeners, files, the ops port and what the runtime opens.
const FILES_RESERVED: u64 = 512;

/// Descriptors for streams that are not sessions: refused handshakes, second polls, upgrades under way.
const STREAMS_SPARE: usize = 256;

/// Memory counted for one session when `sessions_max` is derived: up to 4 KiB of ours, about 5 KiB of the kernel's
/// for its stream, and room for rooms and waiting packets.
const SESSION_BYTES: u64 = 16 * 1024;

config_choice! {
    /// How a client's packets travel.
    pub enum TransportName {
        /// HTTP requests: XHR and JSONP.
        Polling = "polling",
        /// One WebSocket.
        Websocket = "websocket",
    }
}

config_choice! {
    /// When a payload for an EIO3 client that can read binary is written in the binary form.
    pub enum Eio3Payloads {
        /// Only when it holds binary data, as the Node server does.
        WhenNeeded = "when-needed",
        /// Always.
        Binary = "binary",
    }
}

config_choice! {
    /// Where client events go.
    pub enum UpstreamKind {
        /// The built-in demo application, which answers by itself.
        Demo = "demo",
        /// Nowhere: clients connect and receive, their events are dropped.
        None = "none",
    }
}

config_section! {
    /// Where client events go.
    pub struct UpstreamConfig {
        /// The application behind the edge: `demo` answers by itself, `none` drops client events.
        /// The subcommand `edge` wants it given explicitly.
        pub kind: UpstreamKind = UpstreamKind::Demo,
    }
}

config_section! {
    /// The process that holds client connections.
    pub struct EdgeConfig {
        /// Address that clients connect to; port 0 takes a free one.
        pub listen: SocketAddr = SocketAddr::from(([0, 0, 0, 0], 3000)),
        /// Path of the Socket.IO endpoint; it is served with and without a closing slash.
        pub path: String = "/socket.io".to_owned()
            => must("a path of at most 200 visible characters that starts with / and has no ? or #", is_path),
        /// Folder with the official browser clients: 4.x files at its root, 2.x files in `v2/`.
        /// Empty serves none.
        pub client_bundles_dir: PathBuf = PathBuf::new(),
        /// Time between two heartbeats.
        pub ping_interval_ms: u64 = 25_000 => 1..=DAY_MS,
        /// How long the answer to a heartbeat may take before the session is closed.
        pub ping_timeout_ms: u64 = 20_000 => 1..=DAY_MS,
        /// How long a change from polling to WebSocket may take before it is given up.
        pub upgrade_timeout_ms: u64 = 10_000 => 1..=DAY_MS,
        /// How long a session may stay without joining any namespace.
        pub connect_timeout_ms: u64 = 45_000 => 1..=DAY_MS,
        /// Largest POST body and largest WebSocket message from a client, in bytes; clients are told it.
        pub payload_bytes_max: usize = 1_000_000 => 1_000..=100_000_000,
        /// Namespaces that clients may join; a closing `*` stands for any rest, as in `/org-*`.
        pub namespaces: Vec<String> = vec!["/".to_owned()]
            => must("a list of at least one namespace that starts with /, each with * at most as its last character", are_namespaces),
        /// Transports that clients may use.
        pub transports: Vec<TransportName> = vec![TransportName::Polling, TransportName::Websocket]
            => must("a list of at least one of \"polling\" and \"websocket\", each once", are_transports),
        /// Whether a session may change from polling to WebSocket.
        pub allow_upgrades: bool = true,
        /// Whether clients of Engine.IO protocol 3 (Socket.IO 1.x and 2.x) are accepted.
        pub eio3: bool = true,
        /// When EIO3 clients that read binary get the binary payload form: `when-needed` as the Node server does, or always.
        pub eio3_payloads: Eio3Payloads = Eio3Payloads::WhenNeeded,
        /// Whether an EIO3 session id is accepted only from the address that opened the session.
        /// In that protocol other clients may learn the id, so it is no secret by itself.
        pub eio3_bind_address: bool = true,
        /// Threads that serve clients, each with its own sessions; 0 takes the processors this process may use.
        pub shards: usize = 0 => 0..=255,
        /// Most sessions at a time; further handshakes get 503.
        /// 0 derives it from the limit of open files and the memory this process may use.
        pub sessions_max: usize = 0 => 0..=COUNT_MAX,
        /// Name of the cookie that carries the session id, such as `io`; empty sets none.
        pub cookie: String = String::new()
            => must("a cookie name of at most 64 letters, digits and !#$%&'*+-.^_`|~, or nothing", is_cookie_name),
        /// Addresses or ranges of the proxies whose `X-Forwarded-For` and `X-Forwarded-Host` are believed, such as `10.0.0.0/8`.
        pub trusted_proxies: Vec<AddressRange> = Vec::new(),
        /// Smallest HTTP response body that is compressed with gzip, in bytes; 0 compresses none.
        pub http_compression_bytes_min: usize = 1024 => 0..=TIB,
        /// Most packets in one polling response; what does not fit waits for the next poll.
        pub poll_packets_max: usize = 16 => 1..=10_000,
        /// Names of request headers that are kept with a session; all others are forgotten after the handshake.
        pub headers: Vec<String> = Vec::new()
            => must("a list of at most 32 header names", are_header_names),
        /// Requests from pages of other origins.
        pub cors: CorsConfig = CorsConfig::default(),
        /// What clients may cost.
        pub limits: LimitsConfig = LimitsConfig::default(),
    }
    consistent: EdgeConfig::conflict_between_keys
}

config_section! {
    /// Requests from pages of other origins.
    pub struct CorsConfig {
        /// Origins whose pages may connect besides the edge's own, such as `https://app.example.com`; `*` admits every page.
        pub origins: Vec<String> = Vec::new()
            => must("a list of origins such as https://app.example.com or http://localhost:5173 (no path), or *", are_origins),
    }
}

config_section! {
    /// What clients may cost: the bounds that keep one of them from hurting the others.
    pub struct LimitsConfig {
        /// Most binary attachments of one packet.
        pub attachments_max: usize = 10 => 0..=100_000,
        /// Deepest nesting of arrays and objects in the JSON of a packet.
        pub json_depth_max: usize = 128 => 1..=1_024,
        /// Most namespaces that one session joins at a time.
        pub namespaces_per_session_max: usize = 16 => 1..=10_000,
        /// Most rooms that one socket is in.
        pub rooms_per_socket_max: usize = 1_000 => 1..=COUNT_MAX,
        /// Most rooms on one node.
        pub rooms_max: usize = 200_000 => 1..=COUNT_MAX,
        /// Longest name of a room, an event or a namespace, in bytes.
        pub name_bytes_max: usize = 256 => 1..=65_536,
        /// Most acknowledgements that one socket still owes.
        pub acks_pending_max: usize = 1_000 => 1..=COUNT_MAX,
        /// Bytes waiting for one session at which it is closed; an empty outbox takes any one packet.
        pub outbox_bytes_max: usize = 4_194_304 => 1_024..=TIB,
        /// Bytes waiting for one session above which it is closed once nothing was written for `outbox_stalled_ms`.
        pub outbox_stalled_bytes_max: usize = 1_048_576 => 0..=TIB,
        /// How long nothing may be written to a session whose outbox is above `outbox_stalled_bytes_max`.
        pub outbox_stalled_ms: u64 = 5_000 => 1..=DAY_MS,
        /// Bytes of outgoing packets that one shard holds for all its sessions; beyond it the session with the largest outbox is closed.
        pub outbox_shared_bytes_max: usize = 268_435_456 => 1_048_576..=TIB,
        /// Bytes of unfinished incoming messages that one shard holds for all its sessions; beyond it the largest holder is closed.
        pub inbound_partial_bytes_max: usize = 268_435_456 => 1_048_576..=TIB,
        /// Bytes of events that wait on one shard while a long delivery goes on; beyond it the shard reads no further from clients.
        pub turns_bytes_max: usize = 8_388_608 => 65_536..=TIB,
        /// Bytes waiting in the queue in front of one shard, and bytes of broadcasts that wait because another shard's queue is full; beyond the latter the client that causes them is closed.
        pub inbox_bytes_max: usize = 67_108_864 => 1_048_576..=TIB,
        /// Largest packet together with its attachments, in bytes.
        pub packet_bytes_max: usize = 4_000_000 => 1_000..=TIB,
        /// Most events of one socket that wait while the application decides about an earlier one.
        pub events_waiting_max: usize = 64 => 1..=COUNT_MAX,
        /// Most bytes of such waiting events of one socket.
        pub events_waiting_bytes_max: usize = 262_144 => 1_024..=TIB,
        /// Largest head of an HTTP request, in bytes.
        pub http_header_bytes_max: usize = 16_384 => 8_192..=1_048_576,
        /// How long the head of an HTTP request may take to arrive.
        pub http_headers_timeout_ms: u64 = 10_000 => 1..=DAY_MS,
        /// How long the body of an HTTP request may take to arrive, and how long a response may make no progress.
        pub http_body_timeout_ms: u64 = 30_000 => 1..=DAY_MS,
        /// Most open client connections, those without a session included.
        /// 0 derives it from the limit of open files.
        pub connections_max: usize = 0 => 0..=COUNT_MAX,
        /// Most bytes of the URL with its query that are kept with a session; a longer one is cut.
        pub url_bytes_max: usize = 256 => 0..=65_536,
    }
    consistent: LimitsConfig::conflict_between_keys
}

/// What [`EdgeConfig::capacity`] derives from configuration and machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Threads that serve clients; at least one.
    pub shards: usize,
    /// Sessions of the whole edge; at least one.
    pub sessions_max: usize,
    /// Open client connections of the whole edge; at least one.
    pub connections_max: usize,
}

impl EdgeConfig {
    /// Derives what was left at 0 and raises the process's limit of open files to the highest it may have.
    ///
    /// A client that is relayed to another node takes a second descriptor; for `relays_max` of them, or a quarter of
    /// all where that is less, one is kept.
    ///
    /// Call it once at start: it changes the process.
    pub fn capacity(&self, relays_max: usize) -> Capacity {
        self.capacity_on(
            resources::processors().get(),
            resources::raise_open_files(),
            resources::memory_bytes(),
            relays_max,
        )
    }

    fn capacity_on(
        &self,
        processors: usize,
        open_files: u64,
        memory_bytes: Option<u64>,
        relays_max: usize,
    ) -> Capacity {
        let files = as_count(open_files.saturating_sub(FILES_RESERVED));
        let by_files = files - relays_max.min(files / 4);
        let by_memory = memory_bytes.map_or(COUNT_MAX, |bytes| as_count(bytes / 10 * 7 / SESSION_BYTES));
        let connections_max = derived(self.limits.connections_max, by_files);
        let for_sessions = connections_max.saturating_sub(STREAMS_SPARE).max(connections_max / 2);
        Capacity {
            shards: derived(self.shards, processors.min(255)),
            sessions_max: derived(self.sessions_max, for_sessions.min(by_memory)),
            connections_max,
        }
    }

    /// Time between two heartbeats.
    pub fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms)
    }

    /// How long the answer to a heartbeat may take.
    pub fn ping_timeout(&self) -> Duration {
        Duration::from_millis(self.ping_timeout_ms)
    }

    /// How long a change of transport may take.
    pub fn upgrade_timeout(&self) -> Duration {
        Duration::from_millis(self.upgrade_timeout_ms)
    }

    /// How long a session may stay without a namespace.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// The folder of the official browser clients, if one is configured.
    pub fn client_bundles(&self) -> Option<&Path> {
        Some(self.client_bundles_dir.as_path()).filter(|dir| !dir.as_os_str().is_empty())
    }

    /// Tells whether clients may use a transport.
    pub fn allows(&self, transport: TransportName) -> bool {
        self.transports.contains(&transport)
    }

    /// Tells whether an address belongs to a trusted proxy.
    pub fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|range| range.contains(address))
    }

    fn conflict_between_keys(&self) -> Option<String> {
        if self.limits.packet_bytes_max < self.payload_bytes_max {
            return Some(format!(
                "edge.limits.packet_bytes_max ({}) is below edge.payload_bytes_max ({}); raise it or lower the other",
                self.limits.packet_bytes_max, self.payload_bytes_max
            ));
        }
        None
    }
}

impl LimitsConfig {
    /// How long nothing may be written to a session that is behind.
    pub fn outbox_stalled(&self) -> Duration {
        Duration::from_millis(self.outbox_stalled_ms)
    }

    /// How long the head of an HTTP request may take.
    pub fn http_headers_timeout(&self) -> Duration {
        Duration::from_millis(self.http_headers_timeout_ms)
    }

    /// How long the body of an HTTP request may take.
    pub fn http_body_timeout(&self) -> Duration {
        Duration::from_millis(self.http_body_timeout_ms)
    }

    fn conflict_between_keys(&self) -> Option<String> {
        if self.outbox_stalled_bytes_max > self.outbox_bytes_max {
            return Some(format!(
                "edge.limits.outbox_stalled_bytes_max ({}) is above edge.limits.outbox_bytes_max ({}); lower it or raise the other",
                self.outbox_stalled_bytes_max, self.outbox_bytes_max
            ));
        }
        None
    }
}

/// An address, or all addresses that share its first bits: `10.0.0.7`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    address: IpAddr,
    prefix_bits: u8,
}

/// The text is no address and no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no IP address or CIDR range")]
pub struct AddressRangeError {
    text: String,
}

impl AddressRange {
    /// Tells whether the address is in the range; an IPv4 address written as IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(address)) => {
                let differing = u32::from(range) ^ u32::from(address);
                differing.leading_zeros() >= u32::from(self.prefix_bits)
            }
            (IpAddr::V6(range), IpAddr::V6(address)) => {
                let differing = u128::from(range) ^ u128::from(address);
                differing.leading_zeros() >= u32::from(self.prefix_bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || AddressRangeError { text: text.to_owned() };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|given| *given <= bits).ok_or_else(refused)?,
            None => bits,
        };
        Ok(Self { address, prefix_bits })
    }
}

impl TryFrom<String> for AddressRange {
    type Error = AddressRangeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.prefix_bits)
    }
}

impl Item for AddressRange {
    fn allowed() -> String {
        "an IP address or a CIDR range such as 10.0.0.0/8 each".to_owned()
    }
}

fn derived(configured: usize, derived: usize) -> usize {
    if configured == 0 { derived.max(1) } else { configured }
}

fn as_count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(COUNT_MAX).min(COUNT_MAX)
}

fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= 200
        && !path.trim_matches('/').is_empty()
        && path.chars().all(|letter| letter.is_ascii_graphic() && !matches!(letter, '?' | '#'))
}

fn are_namespaces(namespaces: &[String]) -> bool {
    !namespaces.is_empty() && namespaces.iter().all(|namespace| is_namespace(namespace))
}

/// A comma would end the namespace on the wire, a question mark would begin its query.
fn is_namespace(namespace: &str) -> bool {
    let stem = namespace.strip_suffix('*').unwrap_or(namespace);
    stem.starts_with('/')
        && namespace.len() <= 256
        && !stem.chars().any(|letter| matches!(letter, '*' | ',' | '?') || letter.is_control())
}

fn are_transports(transports: &[TransportName]) -> bool {
    let count = |name| transports.iter().filter(|transport| **transport == name).count();
    let (polling, websocket) = (count(TransportName::Polling), count(TransportName::Websocket));
    polling + websocket > 0 && polling <= 1 && websocket <= 1
}

fn is_cookie_name(name: &str) -> bool {
    name.len() <= 64 && name.bytes().all(is_token_byte)
}

fn are_header_names(names: &[String]) -> bool {
    let is_name = |name: &String| !name.is_empty() && name.len() <= 64 && name.bytes().all(is_token_byte);
    names.len() <= 32 && names.iter().all(is_name)
}

/// RFC 9110, section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn are_origins(origins: &[String]) -> bool {
    origins.iter().all(|origin| is_origin(origin))
}

/// `scheme://host` or `scheme://host:port` as a browser writes it, or `*`.
fn is_origin(origin: &str) -> bool {
    if origin == "*" {
        return true;
    }
    let Some((scheme, host)) = origin.split_once("://") else {
        return false;
    };
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let scheme_letters =
        |letter: char| letter.is_ascii_lowercase() || matches!(letter, '+' | '-' | '.' | '0'..='9');
    scheme.starts_with(|letter: char| letter.is_ascii_lowercase())
        && scheme.chars().all(scheme_letters)
        && !authority.host().is_empty()
        && !host.contains('@')
        && !host.ends_with(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_holds_the_addresses_that_share_its_bits() {
        assert!(range("10.0.0.0/8").contains("10.255.1.2".parse().unwrap()));
        assert!(!range("10.0.0.0/8").contains("11.0.0.1".parse().unwrap()));
        assert!(range("127.0.0.1").contains("::ffff:127.0.0.1".parse().unwrap()));
        assert!(range("fd00::/8").contains("fd12::1".parse().unwrap()));
        assert!(range("0.0.0.0/0").contains("8.8.8.8".parse().unwrap()));
        assert!(!range("0.0.0.0/0").contains("::1".parse().unwrap()));
        for refused in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/-1", "host"] {
            assert!(refused.parse::<AddressRange>().is_err(), "{refused}");
        }
    }

    #[test]
    fn origins_are_what_a_browser_sends() {
        for accepted in
            ["*", "https://a.example", "http://localhost:5173", "http://[::1]:3000", "capacitor://localhost"]
        {
            assert!(is_origin(accepted), "{accepted}");
        }
        for refused in
            ["", "a.example", "https://", "https://a/b", "https://u@a", "http://a:", "HTTP://a", "null"]
        {
            assert!(!is_origin(refused), "{refused}");
        }
    }

    #[test]
    fn namespaces_start_with_a_slash_and_end_with_at_most_one_star() {
        for accepted in ["/", "/custom", "/org-*", "/*"] {
            assert!(is_namespace(accepted), "{accepted}");
        }
        for refused in ["", "*", "custom", "/a*b", "/a,b", "/a?b", "/**"] {
            assert!(!is_namespace(refused), "{refused}");
        }
    }

    #[test]
    fn capacity_is_the_tighter_of_files_and_memory() {
        let config = EdgeConfig::default();
        let by_files = config.capacity_on(2, 10_000, Some(1 << 40), 0);
        assert_eq!(by_files, Capacity { shards: 2, sessions_max: 9_232, connections_max: 9_488 });
        let relaying = config.capacity_on(2, 10_000, Some(1 << 40), 1_000);
        assert_eq!(relaying.connections_max, 8_488);
        let relaying = config.capacity_on(2, 10_000, Some(1 << 40), 4_096);
        assert_eq!(relaying.connections_max, 7_116);
        let by_memory = config.capacity_on(2, 1_000_000, Some(16 * 1024 * 1000), 0);
        assert_eq!(by_memory.sessions_max, 700);
        let tiny = config.capacity_on(1, 16, None, 4096);
        assert_eq!(tiny, Capacity { shards: 1, sessions_max: 1, connections_max: 1 });
    }

    #[test]
    fn configured_capacity_is_taken_as_it_is() {
        let mut config = EdgeConfig { shards: 3, sessions_max: 50_000, ..EdgeConfig::default() };
        config.limits.connections_max = 60_000;
        let expected = Capacity { shards: 3, sessions_max: 50_000, connections_max: 60_000 };
        assert_eq!(config.capacity_on(1, 1024, Some(1), 4096), expected);
    }
}
