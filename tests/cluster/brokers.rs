//! The brokers that a cluster of edges may have, each started by the test itself.

use adapter::broker::memory::MemoryBus;
use adapter::config::{BrokerConfig, BrokerKind, ClusterConfig};
use edge::start::Membership;
use system_tests::brokers::{RabbitmqServer, RedisServer};

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

    /// A cluster of this name: clusters of different names hear nothing of each other.
    pub(crate) fn cluster(&self, name: &str) -> Membership {
        let mut broker = BrokerConfig { prefix: name.to_owned(), ..BrokerConfig::default() };
        broker.rabbitmq.exchange = name.to_owned();
        // A machine that is busy with other tests may take its time; who waits for luck finds out by the counter.
        broker.subscribe_timeout_ms = 10_000;
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
        let cluster = ClusterConfig { heartbeat_ms: 500, dead_after_ms: 20_000, ..ClusterConfig::default() };
        Membership { broker, cluster, bus: MemoryBus::new() }
    }
}
