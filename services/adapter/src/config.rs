//! What the link to the cluster can be told: the sections `broker` and `cluster`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cluster_proto::redis::channel::Names;
use ops::config::schema::must;
use ops::{config_choice, config_section};

/// Longest duration a key accepts: one day.
const DAY_MS: u64 = 86_400_000;

/// Largest byte count a key accepts: 1 TiB.
const TIB: usize = 1 << 40;

/// Largest count a key accepts: more than one process can hold.
const COUNT_MAX: usize = 1 << 24;

config_choice! {
    /// The external system that carries events between nodes.
    pub enum BrokerKind {
        /// None: this process is the whole cluster.
        Memory = "memory",
        /// Redis or Valkey, in the format of the Node adapter.
        Redis = "redis",
        /// RabbitMQ, in a format of our own.
        Rabbitmq = "rabbitmq",
    }
}

config_choice! {
    /// How Redis is used.
    pub enum RedisMode {
        /// Publish and subscribe, as `@socket.io/redis-adapter` does.
        Pubsub = "pubsub",
    }
}

config_choice! {
    /// What a node subscribes to at Redis.
    pub enum RedisSubscribe {
        /// The rooms that have members here.
        Rooms = "rooms",
        /// Everything in the namespaces that have members here, as Node servers do.
        All = "all",
    }
}

config_section! {
    /// What carries events between nodes.
    pub struct BrokerConfig {
        /// The broker: `memory` is this process alone.
        /// The subcommand `edge` wants it given explicitly.
        pub kind: BrokerKind = BrokerKind::Memory,
        /// What all names at the broker begin with; clusters with different prefixes hear nothing of each other.
        pub prefix: String = "socket.io".to_owned()
            => must("a prefix of 1 to 128 bytes without white space and # that does not end in -request, -response or -jackfield", is_prefix),
        /// How long the broker may be away before the node calls itself not ready.
        pub unready_after_ms: u64 = 60_000 => 0..=DAY_MS,
        /// How long a join waits for its subscription before it is acknowledged without.
        pub subscribe_timeout_ms: u64 = 500 => 1..=DAY_MS,
        /// How long the broker may take to answer before a publish counts as undecided, or the connection as lost.
        pub timeout_ms: u64 = 2_000 => 100..=DAY_MS,
        /// How long a subscription outlives its last member.
        pub linger_ms: u64 = 30_000 => 0..=DAY_MS,
        /// Most subscriptions that are kept without a member; beyond, the oldest go first.
        pub lingering_max: usize = 10_000 => 0..=COUNT_MAX,
        /// Most bytes that were published and not yet taken by the broker; beyond, a publish is refused.
        pub publish_bytes_max: usize = 67_108_864 => 65_536..=TIB,
        /// Most bytes that were received and not yet handed on; beyond, messages are dropped and reported as a gap. At Redis a single message of more ends the connection.
        pub receive_bytes_max: usize = 67_108_864 => 65_536..=TIB,
        /// Redis.
        pub redis: RedisConfig = RedisConfig::default(),
        /// RabbitMQ.
        pub rabbitmq: RabbitmqConfig = RabbitmqConfig::default(),
    }
}

config_section! {
    /// Redis.
    pub struct RedisConfig {
        /// Where it is: `redis://user:password@host:port`, `rediss://` with TLS,
        /// `redis-sentinel://host:port/?sentinelServiceName=name&node=host:port` through Sentinel.
        pub url: String = "redis://127.0.0.1:6379".to_owned(),
        /// File that holds the URL instead, for its password.
        pub url_file: PathBuf = PathBuf::new(),
        /// How it is used: `pubsub` is the one mode.
        pub mode: RedisMode = RedisMode::Pubsub,
        /// What is subscribed to: `rooms`, or `all` where Node servers put our sockets into rooms and emit at once.
        pub subscribe: RedisSubscribe = RedisSubscribe::Rooms,
    }
}

config_section! {
    /// RabbitMQ.
    pub struct RabbitmqConfig {
        /// Where it is: one address for each of its nodes, `amqp://user:password@host:port/vhost`, `amqps://` with TLS.
        pub urls: Vec<String> = vec!["amqp://127.0.0.1:5672".to_owned()]
            => must("a list of at least one URL that starts with amqp:// or amqps://", are_amqp_urls),
        /// File that holds the URLs instead, one a line.
        pub urls_file: PathBuf = PathBuf::new(),
        /// What the name of the exchange begins with; clusters with different exchanges hear nothing of each other.
        pub exchange: String = "jackfield".to_owned()
            => must("a name of 1 to 100 letters, digits and -_.:", is_exchange),
        /// Buckets that rooms are spread over; the same on all nodes of a cluster.
        pub buckets: u64 = 4096 => 1..=65_536,
        /// Most messages that wait at RabbitMQ for one node; beyond, the oldest are dropped and a gap is reported.
        pub queue_messages_max: u64 = 100_000 => 1_000..=100_000_000,
    }
}

config_section! {
    /// The nodes among themselves.
    pub struct ClusterConfig {
        /// Address of the peer listener, where other nodes hand over requests of sessions that live here; port 0 takes a free one.
        /// With the memory broker there is none, unless a secret is given.
        pub listen: SocketAddr = SocketAddr::from(([0, 0, 0, 0], 7000)),
        /// Where other nodes reach the peer listener, `host:port`; empty takes the local address of the connection to the broker.
        pub advertise: String = String::new()
            => must("host:port of at most 256 bytes, or nothing", is_advertised),
        /// File with the secret that all nodes share, of at least 16 bytes: the first line is used, a second one is accepted too, so that it can be changed without a pause.
        /// It is read again while the node runs. Needed with a broker other than memory.
        pub secret_file: PathBuf = PathBuf::new(),
        /// Most requests and WebSockets that this node relays to others at a time; further ones are refused with 503.
        pub relays_max: usize = 4_096 => 1..=COUNT_MAX,
        /// How long another node may take to accept a connection, and how long a node that was never heard of is looked for.
        pub peer_timeout_ms: u64 = 500 => 1..=DAY_MS,
        /// Time between two signs of life.
        pub heartbeat_ms: u64 = 2_000 => 50..=DAY_MS,
        /// How long a node may be silent before the others count it as dead: more than four times `heartbeat_ms`.
        pub dead_after_ms: u64 = 10_000 => 100..=DAY_MS,
        /// Most nodes that are told apart; further ones are not seen.
        pub nodes_max: usize = 1_024 => 2..=65_536,
        /// Most requests to other nodes that wait for answers; further ones are refused.
        pub requests_max: usize = 10_000 => 1..=COUNT_MAX,
        /// Most idempotency keys that are remembered, each for five minutes.
        pub keys_max: usize = 100_000 => 0..=COUNT_MAX,
    }
    consistent: ClusterConfig::conflict_between_keys
}

impl BrokerConfig {
    /// How long the broker may be away before the node calls itself not ready.
    #[must_use]
    pub fn unready_after(&self) -> Duration {
        Duration::from_millis(self.unready_after_ms)
    }

    /// How long a join waits for its subscription.
    #[must_use]
    pub fn subscribe_timeout(&self) -> Duration {
        Duration::from_millis(self.subscribe_timeout_ms)
    }

    /// How long the broker may take to answer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// How long a subscription outlives its last member.
    #[must_use]
    pub fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }
}

impl BrokerConfig {
    /// The same without the passwords in its URLs, for people to see.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut shown = self.clone();
        shown.redis.url = redacted(&shown.redis.url);
        shown.rabbitmq.urls.iter_mut().for_each(|url| *url = redacted(url));
        shown
    }
}

/// A URL without the password of its authority, and without parameters that hold one.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = match authority.rsplit_once('@') {
        Some((login, host)) => {
            let (user, has_password) = login.split_once(':').map_or((login, false), |(user, _)| (user, true));
            format!("{user}{}@{host}", if has_password { ":***" } else { "" })
        }
        None => authority.to_owned(),
    };
    let (path, query) = tail.split_once('?').map_or((tail, None), |(path, query)| (path, Some(query)));
    let query = query.map(|query| {
        let shown = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if name.to_ascii_lowercase().contains("password") => format!("{name}=***"),
            _ => pair.to_owned(),
        });
        format!("?{}", shown.collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{authority}{path}{}", query.unwrap_or_default())
}

impl RedisConfig {
    /// The URL, from its file if there is one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn resolved_url(&self) -> std::io::Result<String> {
        if self.url_file.as_os_str().is_empty() {
            return Ok(self.url.clone());
        }
        std::fs::read_to_string(&self.url_file).map(|text| text.trim().to_owned())
    }
}

impl RabbitmqConfig {
    /// The URLs, from their file if there is one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn resolved_urls(&self) -> std::io::Result<Vec<String>> {
        if self.urls_file.as_os_str().is_empty() {
            return Ok(self.urls.clone());
        }
        let text = std::fs::read_to_string(&self.urls_file)?;
        Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }
}

impl ClusterConfig {
    /// Time between two signs of life.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// How long another node may take to accept a connection.
    #[must_use]
    pub fn peer_timeout(&self) -> Duration {
        Duration::from_millis(self.peer_timeout_ms)
    }

    /// How long a node may be silent.
    #[must_use]
    pub fn dead_after(&self) -> Duration {
        Duration::from_millis(self.dead_after_ms)
    }

    fn conflict_between_keys(&self) -> Option<String> {
        // When the broker was slow, the last heartbeat of a living node may be two heartbeats and half of this time old.
        if self.dead_after_ms <= self.heartbeat_ms.saturating_mul(4) {
            return Some(format!(
                "cluster.dead_after_ms ({}) is not above four times cluster.heartbeat_ms ({}); raise it or lower the other",
                self.dead_after_ms, self.heartbeat_ms
            ));
        }
        None
    }
}

fn is_advertised(address: &str) -> bool {
    let has_port =
        |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
    address.is_empty() || address.len() <= 256 && address.rsplit_once(':').is_some_and(has_port)
}

fn is_prefix(prefix: &str) -> bool {
    Names::new(prefix).is_ok()
}

fn are_amqp_urls(urls: &[String]) -> bool {
    let is_url = |url: &String| url.starts_with("amqp://") || url.starts_with("amqps://");
    !urls.is_empty() && urls.iter().all(is_url)
}

fn is_exchange(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_needs_two_chances_to_be_heard() {
        let check = |heartbeat_ms, dead_after_ms, fits: bool| {
            let config = ClusterConfig { heartbeat_ms, dead_after_ms, ..ClusterConfig::default() };
            assert_eq!(config.conflict_between_keys().is_none(), fits);
        };
        check(2_000, 10_000, true);
        check(2_000, 8_001, true);
        check(2_000, 8_000, false);
    }

    #[test]
    fn passwords_are_not_shown() {
        for (url, expected) in [
            ("redis://u:p@h:1/0", "redis://u:***@h:1/0"),
            ("redis://:p@h", "redis://:***@h"),
            ("redis://u:p@ss@h?x=1", "redis://u:***@h?x=1"),
            (
                "redis-sentinel://h:1/?sentinelPassword=p&node=a:2",
                "redis-sentinel://h:1/?sentinelPassword=***&node=a:2",
            ),
            ("amqp://h:5672/v", "amqp://h:5672/v"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(redacted(url), expected);
        }
    }

    #[test]
    fn names_and_addresses_are_checked() {
        assert!(is_advertised("") && is_advertised("10.0.0.1:7000") && is_advertised("[::1]:7000"));
        assert!(!is_advertised("10.0.0.1") && !is_advertised(":7000") && !is_advertised("a:0"));
        assert!(is_exchange("jackfield") && !is_exchange("") && !is_exchange("a b"));
        assert!(is_prefix("socket.io") && !is_prefix("x-request") && !is_prefix("a#b"));
        assert!(are_amqp_urls(&["amqps://h".to_owned()]) && !are_amqp_urls(&["http://h".to_owned()]));
    }
}
