//! The brokers that a cluster of edges may have, each started by the test itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use adapter::broker::memory::MemoryBus;
use adapter::config::{BrokerConfig, BrokerKind, ClusterConfig};
use edge::start::Membership;
use system_tests::brokers::{RabbitmqServer, RedisServer, Relay};

/// The file with the secret that all nodes of these tests share.
fn secret_file() -> PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    let write = || {
        // Other processes of the suite write the same, so each puts it there whole.
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster-secret");
        let own = file.with_extension(std::process::id().to_string());
        std::fs::write(&own, "a-secret-of-all-these-nodes\n").expect("a file for the secret");
        std::fs::rename(&own, &file).expect("a file in the same folder");
        file
    };
    FILE.get_or_init(write).clone()
}

/// A broker.
#[derive(Debug)]
pub(crate) enum Broker {
    Memory,
    Redis(RedisServer),
    Rabbitmq(RabbitmqServer),
}

impl Broker {
    pub(crate) fn redis() -> Self {
        Self::Redis(RedisServer::start())
    }

    pub(crate) fn rabbitmq() -> Self {
        Self::Rabbitmq(RabbitmqServer::start())
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Broker::Memory => "memory",
            Broker::Redis(_) => "Redis",
            Broker::Rabbitmq(_) => "RabbitMQ",
        }
    }

    /// The same cluster for a node whose connection is slow, by a relay that must stay.
    pub(crate) fn cluster_by(&self, name: &str, relay: &Relay) -> Membership {
        let mut membership = self.cluster(name);
        membership.broker.redis.url = format!("redis://127.0.0.1:{}", relay.port());
        membership.broker.rabbitmq.urls = vec![format!("amqp://127.0.0.1:{}", relay.port())];
        membership
    }

    /// Where a relay leads to; the memory broker has no port.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Broker::Memory => None,
            Broker::Redis(server) => Some(server.port()),
            Broker::Rabbitmq(server) => Some(server.port()),
        }
    }

    /// A cluster of this name: clusters of different names hear nothing of each other.
    pub(crate) fn cluster(&self, name: &str) -> Membership {
        let mut broker = BrokerConfig { prefix: name.to_owned(), ..BrokerConfig::default() };
        broker.rabbitmq.exchange = name.to_owned();
        // A machine that is busy with other tests may take its time; who waits for luck finds out by the counter.
        broker.subscribe_timeout_ms = 10_000;
        broker.timeout_ms = 10_000;
        match self {
            Broker::Memory => {}
            Broker::Redis(server) => {
                broker.kind = BrokerKind::Redis;
                broker.redis.url = server.url();
            }
            Broker::Rabbitmq(server) => {
                broker.kind = BrokerKind::Rabbitmq;
                broker.rabbitmq.urls = vec![server.url()];
            }
        }
        let cluster = ClusterConfig {
            heartbeat_ms: 500,
            dead_after_ms: 20_000,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            secret_file: secret_file(),
            ..ClusterConfig::default()
        };
        Membership { broker, cluster, bus: MemoryBus::new() }
    }
}
