//! The handle by which the threads of a process speak to the cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs, UdpSocket};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_proto::broadcast::Selector;
use cluster_proto::heartbeat::{NodeStatus, Role};
use cluster_proto::identity::{NodeId, NodeUid, RequestId};
use cluster_proto::limits::Limits;
use cluster_proto::message::ClusterMessage;
use cluster_proto::rabbitmq;
use cluster_proto::redis::channel::{Names, PrefixError};
use socketio_proto::namespace::NamespacePath;
use tokio::sync::{oneshot, watch};

use crate::broker::memory::{Memory, MemoryBus};
use crate::broker::rabbitmq::connection::{Target as RabbitmqTarget, UrlError as RabbitmqUrlError};
use crate::broker::rabbitmq::exchange::Rabbitmq;
use crate::broker::rabbitmq::wire::RabbitmqWire;
use crate::broker::redis::pubsub::Redis;
use crate::broker::redis::target::{Target, UrlError};
use crate::broker::redis::wire::RedisWire;
use crate::broker::{Broker, Claimant, PublishError, Wire};
use crate::cluster::peers::{Peer, PeerLimits};
use crate::cluster::requests::RequestSink;
use crate::config::{BrokerConfig, BrokerKind, ClusterConfig, RedisMode};
use crate::engine;
use crate::engine::handle::{Handle, Settings, Status};
use crate::interest::{InterestLimits, JoinDone, JoinOutcome};
use crate::local::LocalSockets;
use crate::metrics::Metrics;

/// Who this process is in the cluster.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What kind of process it is.
    pub role: Role,
    /// Where other nodes reach its peer listener, `host:port`.
    pub peer_address: Option<String>,
    /// The id to claim; `None` draws a free one.
    pub node: Option<NodeId>,
    /// What the messages of other nodes are held to.
    pub limits: Limits,
}

impl Identity {
    /// A process of this kind without a peer listener, under a free id.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self { role, peer_address: None, node: None, limits: Limits::default() }
    }
}

/// Why an adapter cannot be started. Nothing here is cured by waiting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The prefix cannot be used.
    #[error("broker.prefix cannot be used: {0}")]
    Prefix(#[from] PrefixError),
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A URL cannot be used.
    #[error(transparent)]
    RabbitmqUrl(#[from] RabbitmqUrlError),
    /// A file with URLs cannot be read.
    #[error("cannot read broker.{key} {path}: {error}; give a readable file")]
    File {
        /// Its key in the section `broker`.
        key: &'static str,
        /// The file as configured.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The system has no random numbers to give.
    #[error("the system has no random numbers to give: {0}")]
    Random(getrandom::Error),
    /// The system gives no thread.
    #[error("the thread of the broker cannot be started: {0}")]
    Thread(std::io::Error),
}

/// A thread of the caller's own that carries the link beside its work. It must not block, and runs until `until` is dropped.
#[derive(Debug)]
pub struct Carrier {
    /// What runs on the thread: a runtime with a clock and sockets.
    pub runtime: tokio::runtime::Handle,
    /// Dropped when the link has ended.
    pub until: oneshot::Sender<()>,
}

/// An adapter that has not claimed its node id yet.
#[derive(Debug)]
pub struct Starting(Adapter);

impl Starting {
    /// Waits until the node id is claimed and the node can hear what is for it; for as long as the broker is away.
    /// `None` if the link has ended.
    pub async fn claimed(self) -> Option<Adapter> {
        self.0.handle.claimed().await?;
        Some(self.0)
    }

    /// As [`Adapter::status`]; not ready so far.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status()
    }

    /// As [`Adapter::metrics`].
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.0.metrics()
    }
}

/// The link of one process to its cluster. Clones are the same link; no call blocks, and all may be made from any thread.
#[derive(Debug, Clone)]
pub struct Adapter {
    handle: Arc<Owned>,
    /// The bus of a memory broker, on which a single node need not speak.
    bus: Option<MemoryBus>,
}

impl Adapter {
    /// Starts the link, which connects and claims a node id: on the carrier, or on a thread of its own.
    ///
    /// # Errors
    /// [`StartError`] if the configuration or the system does not allow it; a broker that is away is no error.
    pub fn start(
        broker: &BrokerConfig,
        cluster: &ClusterConfig,
        identity: &Identity,
        local: Arc<dyn LocalSockets>,
        carrier: Option<Carrier>,
    ) -> Result<Starting, StartError> {
        let claimant = claimant(cluster, identity)?;
        let (wire, driver): (Arc<dyn Wire>, Box<dyn Broker>) = match broker.kind {
            BrokerKind::Memory => {
                return Self::start_on_bus(&MemoryBus::new(), broker, cluster, identity, local, carrier);
            }
            BrokerKind::Redis => {
                let RedisMode::Pubsub = broker.redis.mode;
                let names = Names::new(&broker.prefix)?;
                let target = redis_target(broker)?;
                let wire = RedisWire::new(names.clone(), broker.redis.subscribe, identity.limits);
                let driver = Redis::new(target, names, claimant.clone(), broker.receive_bytes_max);
                (Arc::new(wire), Box::new(driver))
            }
            BrokerKind::Rabbitmq => {
                let config = &broker.rabbitmq;
                let buckets = u32::try_from(config.buckets).unwrap_or(rabbitmq::names::BUCKETS_DEFAULT);
                let names = rabbitmq::names::Names::new(&config.exchange, buckets);
                let target = rabbitmq_target(broker)?;
                let wire = RabbitmqWire::new(names.clone(), identity.limits);
                let driver = Rabbitmq::new(target, names, claimant.clone(), broker.timeout());
                (Arc::new(wire), Box::new(driver))
            }
        };
        Self::begin(settings(broker, cluster, claimant), wire, driver, local, None, carrier)
    }

    /// Whether the section `broker` and the files that it names can be used. Nothing is connected to.
    ///
    /// # Errors
    /// [`StartError`], as [`Adapter::start`] would give.
    pub fn check(broker: &BrokerConfig) -> Result<(), StartError> {
        match broker.kind {
            BrokerKind::Memory => {}
            BrokerKind::Redis => {
                Names::new(&broker.prefix)?;
                redis_target(broker)?;
            }
            BrokerKind::Rabbitmq => drop(rabbitmq_target(broker)?),
        }
        Ok(())
    }

    /// The address of this machine from which the broker is reached: what other nodes can be told where no better is known.
    /// Nothing is sent for this; a name is looked up.
    #[must_use]
    pub fn local_address(broker: &BrokerConfig) -> Option<IpAddr> {
        let hosts = match broker.kind {
            BrokerKind::Memory => Vec::new(),
            BrokerKind::Redis => redis_target(broker).ok()?.hosts(),
            BrokerKind::Rabbitmq => rabbitmq_target(broker).ok()?.hosts(),
        };
        hosts.into_iter().find_map(|host| {
            let address = host.to_socket_addrs().ok()?.next()?;
            let any: IpAddr =
                if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0)).ok()?;
            socket.connect(address).ok()?;
            socket.local_addr().ok().map(|address| address.ip())
        })
    }

    /// Starts an adapter on a bus inside this process, whatever `broker.kind` says.
    ///
    /// # Errors
    /// As [`Adapter::start`].
    pub fn start_on_bus(
        bus: &MemoryBus,
        broker: &BrokerConfig,
        cluster: &ClusterConfig,
        identity: &Identity,
        local: Arc<dyn LocalSockets>,
        carrier: Option<Carrier>,
    ) -> Result<Starting, StartError> {
        let claimant = claimant(cluster, identity)?;
        let names = rabbitmq::names::Names::new("memory", rabbitmq::names::BUCKETS_DEFAULT);
        let wire = Arc::new(RabbitmqWire::new(names, identity.limits));
        let driver = Box::new(Memory::new(bus.clone(), claimant.clone()));
        Self::begin(settings(broker, cluster, claimant), wire, driver, local, Some(bus.clone()), carrier)
    }

    fn begin(
        settings: Settings,
        wire: Arc<dyn Wire>,
        driver: Box<dyn Broker>,
        local: Arc<dyn LocalSockets>,
        bus: Option<MemoryBus>,
        carrier: Option<Carrier>,
    ) -> Result<Starting, StartError> {
        let (handle, run) = engine::engine(settings, wire, local, driver, Arc::default());
        spawn(run, carrier)?;
        Ok(Starting(Adapter { handle: Arc::new(Owned(handle)), bus }))
    }

    /// The id of this node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        // Whoever has an adapter has waited for the claim.
        self.handle.node().unwrap_or(NodeId::from_bytes([0; 3]))
    }

    /// The name under which this node's messages travel.
    #[must_use]
    pub fn uid(&self) -> NodeUid {
        NodeUid::of_node(self.node())
    }

    /// Whom a selector means beyond this node: without its own single sockets. `None` if that is certainly nobody.
    #[must_use]
    pub fn beyond(&self, selector: &Selector) -> Option<Selector> {
        if self.is_alone() {
            return None;
        }
        let own = self.node();
        let is_other = |room: &&String| NodeId::of_sid(room) != Some(own);
        let rooms: Vec<String> = selector.rooms.iter().filter(is_other).cloned().collect();
        let is_nobody = rooms.is_empty() && !selector.rooms.is_empty();
        (!is_nobody).then(|| Selector { rooms, except: selector.except.clone() })
    }

    /// Publishes a message to the other nodes that it may concern; the sender is filled in. One's own sockets are not
    /// among them: they are served by the caller, before.
    ///
    /// # Errors
    /// [`PublishError::Away`] or [`PublishError::Full`]: nobody gets it. What fails later is counted.
    pub fn publish(&self, message: ClusterMessage) -> Result<(), PublishError> {
        if self.is_alone() {
            return Ok(());
        }
        self.handle.publish(message, None)
    }

    /// As [`Adapter::publish`], and waits until the broker has it.
    ///
    /// # Errors
    /// [`PublishError`]; with [`PublishError::Unknown`] nobody knows who got it.
    pub fn publish_confirmed(
        &self,
        message: ClusterMessage,
    ) -> impl Future<Output = Result<(), PublishError>> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        let published = if self.is_alone() {
            Ok(true)
        } else {
            self.handle.publish(message, Some(sender)).map(|()| false)
        };
        async move {
            if published? {
                return Ok(());
            }
            receiver.await.unwrap_or(Err(PublishError::Unknown))
        }
    }

    /// A room, or without one the namespace, has its first member on one of the caller's threads. `done` is called once: when
    /// messages of other nodes arrive, or when that takes too long or the broker is away. It may be called before this returns.
    ///
    /// Calls are counted: as many [`Adapter::leave`]s end the interest.
    pub fn join(&self, namespace: &NamespacePath, room: Option<&str>, done: JoinDone) {
        if self.is_alone() {
            // The only edge of a bus hears whatever emitters send there; the interest is written down for when others come.
            self.handle.join(namespace, room, Box::new(|_| {}));
            return done(JoinOutcome::Active);
        }
        self.handle.join(namespace, room, done);
    }

    /// A room, or without one the namespace, has lost its last member on one of the caller's threads.
    pub fn leave(&self, namespace: &NamespacePath, room: Option<&str>) {
        self.handle.leave(namespace, room);
    }

    /// A fresh id for an operation that is answered.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.handle.request_id()
    }

    /// Asks the other nodes; `sink` hears each answer and then the end, at the latest after `timeout`. This node's own part is
    /// the caller's.
    ///
    /// # Errors
    /// [`PublishError`] if nobody was asked; then `sink` is never called.
    pub fn request(
        &self,
        message: ClusterMessage,
        timeout: Duration,
        sink: RequestSink,
    ) -> Result<(), PublishError> {
        self.handle.request(message, timeout, sink, None)
    }

    /// As [`Adapter::request`]; the future says whether the broker has the question. If not, `sink` hears an end that says so.
    ///
    /// # Errors
    /// [`PublishError`] if nobody was asked; then `sink` is never called.
    pub fn request_confirmed(
        &self,
        message: ClusterMessage,
        timeout: Duration,
        sink: RequestSink,
    ) -> Result<impl Future<Output = Result<(), PublishError>> + Send + use<>, PublishError> {
        let (sender, receiver) = oneshot::channel();
        self.handle.request(message, timeout, sink, Some(sender))?;
        Ok(async move { receiver.await.unwrap_or(Err(PublishError::Unknown)) })
    }

    /// How the link is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.handle.status()
    }

    /// The other nodes that are alive.
    #[must_use]
    pub fn nodes(&self) -> Arc<[Peer]> {
        self.handle.nodes()
    }

    /// As [`Adapter::nodes`], for whoever waits for one to come or go.
    #[must_use]
    pub fn watch_nodes(&self) -> watch::Receiver<Arc<[Peer]>> {
        self.handle.watch_nodes()
    }

    /// Asks all nodes to show themselves at once, for an id that was never heard of.
    pub fn solicit(&self) {
        self.handle.solicit();
    }

    /// Tells the other nodes that this one takes no new clients.
    pub fn set_draining(&self) {
        self.handle.set_status(NodeStatus::Draining);
    }

    /// Says goodbye, gives the node id up and closes the connection. Later calls fail or do nothing.
    pub async fn shut_down(&self) {
        self.handle.shut_down().await;
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.handle.metrics
    }

    /// Whether there is certainly no other node that could hear a message: for an edge with the memory broker, while no
    /// other edge is on its bus. An emitter never is: what it publishes counts only once the broker has it.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.handle.settings.role == Role::Edge && self.bus.as_ref().is_some_and(|bus| bus.edges() <= 1)
    }
}

/// Ends the link when the last clone of an adapter goes.
#[derive(Debug)]
struct Owned(Arc<Handle>);

impl Deref for Owned {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn redis_target(broker: &BrokerConfig) -> Result<Target, StartError> {
    let unreadable =
        |error| StartError::File { key: "redis.url_file", path: broker.redis.url_file.clone(), error };
    let url = broker.redis.resolved_url().map_err(unreadable)?;
    Ok(Target::new(&url, broker.timeout())?)
}

fn rabbitmq_target(broker: &BrokerConfig) -> Result<RabbitmqTarget, StartError> {
    let unreadable = |error| StartError::File {
        key: "rabbitmq.urls_file",
        path: broker.rabbitmq.urls_file.clone(),
        error,
    };
    let urls = broker.rabbitmq.resolved_urls().map_err(unreadable)?;
    let messages_max = broker.rabbitmq.queue_messages_max;
    Ok(RabbitmqTarget::new(&urls, broker.timeout(), messages_max, broker.receive_bytes_max)?)
}

/// Runs the link on its carrier, or on a thread of its own.
fn spawn(run: impl Future<Output = ()> + Send + 'static, carrier: Option<Carrier>) -> Result<(), StartError> {
    if let Some(Carrier { runtime, until }) = carrier {
        runtime.spawn(async move {
            run.await;
            drop(until);
        });
        return Ok(());
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let run = move || {
        // As a task: the future of `block_on` costs a look at the sockets each time a task wakes it.
        let _ = runtime.block_on(async { tokio::spawn(run).await });
        // A connection that does not end must not keep the process from ending.
        runtime.shutdown_background();
    };
    std::thread::Builder::new().name("broker".to_owned()).spawn(run).map_err(StartError::Thread)?;
    Ok(())
}

fn claimant(cluster: &ClusterConfig, identity: &Identity) -> Result<Claimant, StartError> {
    let mut incarnation = [0; 8];
    getrandom::fill(&mut incarnation).map_err(StartError::Random)?;
    Ok(Claimant {
        node: identity.node,
        incarnation: u64::from_be_bytes(incarnation),
        role: identity.role,
        peer_address: identity.peer_address.clone(),
        heartbeat_ms: cluster.heartbeat_ms,
    })
}

fn settings(broker: &BrokerConfig, cluster: &ClusterConfig, claimant: Claimant) -> Settings {
    Settings {
        role: claimant.role,
        incarnation: claimant.incarnation,
        peer_address: claimant.peer_address,
        interest: InterestLimits {
            subscribe_timeout: broker.subscribe_timeout(),
            linger: broker.linger(),
            lingering_max: broker.lingering_max,
        },
        peers: PeerLimits {
            heartbeat: cluster.heartbeat(),
            dead_after: cluster.dead_after(),
            nodes_max: cluster.nodes_max,
        },
        unready_after: broker.unready_after(),
        publish_bytes_max: broker.publish_bytes_max,
        receive_bytes_max: broker.receive_bytes_max,
        requests_max: cluster.requests_max,
        keys_max: cluster.keys_max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_address_is_that_towards_the_broker() {
        let mut broker = BrokerConfig { kind: BrokerKind::Redis, ..BrokerConfig::default() };
        assert_eq!(Adapter::local_address(&broker), Some(Ipv4Addr::LOCALHOST.into()));
        broker.kind = BrokerKind::Rabbitmq;
        assert_eq!(Adapter::local_address(&broker), Some(Ipv4Addr::LOCALHOST.into()));
        broker.kind = BrokerKind::Memory;
        assert_eq!(Adapter::local_address(&broker), None);
    }
}
