//! Putting an edge together, and taking it apart.
//!
//! An edge that belongs to a cluster starts in two steps: [`Edge::join`] takes its ports and speaks to the broker,
//! [`Joining::claimed`] waits for the node id, which every id of a client begins with, and only then lets clients in.

mod prepared;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adapter::adapter::{Adapter, Identity, Starting};
use adapter::broker::memory::MemoryBus;
use adapter::config::{BrokerConfig, BrokerKind, ClusterConfig};
use cluster_proto::heartbeat::Role;
use cluster_proto::identity::NodeId;
use cluster_proto::limits::Limits;
use tokio::sync::watch;

use self::prepared::{Prepared, Running};
use crate::cluster::Cluster;
use crate::config::{EdgeConfig, UpstreamKind};
use crate::inbox::Outlet;
use crate::listener::Site;
use crate::listener::peer::port::{PeerPort, PortError};
use crate::listener::static_files::BundleError;
use crate::metrics::{Metrics, ShardMetrics};
use crate::session::app::SessionApp;
use crate::shard::{Completions, ShardMessage};
use crate::socketio::app::{Bounds, SocketIo};
use crate::socketio::local::{Fate, LocalShards};
use crate::threads;
use crate::upstream::Upstream;
use crate::upstream::demo::Demo;
use crate::upstream::none::None as NoUpstream;

/// How long the goodbye to the other nodes may take.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// Why an edge cannot start: one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody else listens there.
    #[error(
        "{address} is taken by another process; stop it or choose another with --set edge.listen={}",
        next_port(*.address)
    )]
    Taken {
        /// The configured address.
        address: SocketAddr,
    },
    /// The address cannot be used.
    #[error("cannot listen on {address}: {error}; choose another with --set edge.listen=ADDRESS:PORT")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The link to the cluster cannot be made with this configuration.
    #[error(transparent)]
    Adapter(#[from] adapter::adapter::StartError),
    /// The other nodes could not reach this one.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The browser clients cannot be read.
    #[error(transparent)]
    Bundles(#[from] BundleError),
    /// The system refuses something that every process needs.
    #[error("cannot start: {0}")]
    System(io::Error),
}

/// The same address with the port after it, as a suggestion.
fn next_port(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(3001))
}

/// The cluster that an edge belongs to.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The section `broker`.
    pub broker: BrokerConfig,
    /// The section `cluster`.
    pub cluster: ClusterConfig,
    /// The bus of the memory broker: processes cannot share it, but several nodes of one process can.
    pub bus: MemoryBus,
}

impl Membership {
    /// A cluster of one: the memory broker, with a bus that nobody else has.
    pub fn alone() -> Membership {
        Membership {
            broker: BrokerConfig::default(),
            cluster: ClusterConfig::default(),
            bus: MemoryBus::new(),
        }
    }
}

/// What an application is given to work with on one shard.
#[derive(Debug)]
pub struct AppContext<A: SessionApp> {
    /// Which shard it is.
    pub index: usize,
    /// What the edge serves and obeys.
    pub site: Arc<Site>,
    /// The inboxes of all shards, this one included.
    pub outlets: Vec<Outlet<ShardMessage<A::Remote>>>,
    /// Runs the application's tasks.
    pub completions: Completions<A::Completion>,
    /// The counters of the shard.
    pub metrics: Arc<ShardMetrics>,
}

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    cluster: Option<Cluster>,
    fate: watch::Receiver<Option<Fate>>,
    running: Running,
}

/// An edge that has its ports and waits for its node id; clients are refused so far.
pub struct Joining {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    starting: Starting,
    begin: Box<dyn FnOnce(Adapter) -> Result<Edge, StartError> + Send>,
}

impl std::fmt::Debug for Joining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joining").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Joining {
    /// The address that clients will connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What the edge counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// What the link to the cluster counts.
    pub fn adapter_metrics(&self) -> Arc<adapter::metrics::Metrics> {
        self.starting.metrics().clone()
    }

    /// Waits for the node id, for as long as the broker is away, and lets clients in. It may be dropped meanwhile:
    /// nothing is left running then.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn claimed(self) -> Result<Edge, StartError> {
        match self.starting.claimed().await {
            Some(adapter) => (self.begin)(adapter),
            None => Err(StartError::System(io::Error::other("the link to the cluster has ended"))),
        }
    }

    /// As [`Joining::claimed`], on a thread that may block.
    fn wait(self) -> Result<Edge, StartError> {
        // The caller may be inside a runtime, which would not let it block: a thread of its own may.
        let waiting = || threads::runtime().map_err(StartError::System)?.block_on(self.claimed());
        std::thread::scope(|scope| scope.spawn(waiting).join())
            .unwrap_or_else(|_| Err(StartError::System(io::Error::other("the start was broken off"))))
    }
}

impl Edge {
    /// Starts a Socket.IO edge that is its own cluster; returns once clients can connect.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(config: EdgeConfig, upstream: UpstreamKind) -> Result<Edge, StartError> {
        Edge::join(config, &Membership::alone(), upstream)?.wait()
    }

    /// As [`Edge::start`], with an upstream of the caller's own: `upstream` makes one for each shard. `demo` adds
    /// the demo pages and `/echo`, and admits pages from any port of this machine.
    ///
    /// # Errors
    /// As [`Edge::start`].
    pub fn start_with_upstream(
        config: EdgeConfig,
        demo: bool,
        upstream: impl Fn(Cluster) -> Box<dyn Upstream> + Clone + Send + 'static,
    ) -> Result<Edge, StartError> {
        Edge::join_with_upstream(config, &Membership::alone(), demo, upstream)?.wait()
    }

    /// Starts a Socket.IO edge as a member of a cluster.
    ///
    /// # Errors
    /// [`StartError`] for what waiting does not cure; a broker that is away is no error. Nothing is left running then.
    pub fn join(
        config: EdgeConfig,
        membership: &Membership,
        upstream: UpstreamKind,
    ) -> Result<Joining, StartError> {
        let demo = upstream == UpstreamKind::Demo;
        Edge::join_with_upstream(config, membership, demo, move |cluster| -> Box<dyn Upstream> {
            match upstream {
                UpstreamKind::Demo => Box::new(Demo::new(cluster)),
                UpstreamKind::None => Box::new(NoUpstream),
            }
        })
    }

    /// As [`Edge::join`], with an upstream as in [`Edge::start_with_upstream`].
    ///
    /// # Errors
    /// As [`Edge::join`].
    pub fn join_with_upstream(
        config: EdgeConfig,
        membership: &Membership,
        demo: bool,
        upstream: impl Fn(Cluster) -> Box<dyn Upstream> + Clone + Send + 'static,
    ) -> Result<Joining, StartError> {
        let port = PeerPort::bind(&membership.broker, &membership.cluster)?;
        let relays_max = if port.is_some() { membership.cluster.relays_max } else { 0 };
        let mut prepared = Prepared::<SocketIo>::new(config, demo, relays_max)?;
        let identity = Identity {
            limits: cluster_limits(&prepared.config),
            peer_address: port.as_ref().map(|port| port.advertised().to_owned()),
            ..Identity::new(Role::Edge)
        };
        let (local, fate) = LocalShards::new(prepared.outlets.clone(), prepared.metrics.clone());
        let local = Arc::new(local);
        let Membership { broker, cluster, bus } = membership;
        let carrier = prepared.carrier()?;
        let starting = match broker.kind {
            BrokerKind::Memory => {
                Adapter::start_on_bus(bus, broker, cluster, &identity, local.clone(), carrier)
            }
            BrokerKind::Redis | BrokerKind::Rabbitmq => {
                Adapter::start(broker, cluster, &identity, local.clone(), carrier)
            }
        }?;
        let cluster_config = cluster.clone();
        Ok(Joining {
            address: prepared.address,
            metrics: prepared.metrics.clone(),
            starting,
            begin: Box::new(move |adapter| {
                local.set_node(adapter.node());
                let cluster = Cluster::new(adapter.clone(), local, identity.limits);
                let for_shards = cluster.clone();
                let app = move |context: AppContext<SocketIo>| {
                    SocketIo::new(context, upstream(for_shards.clone()), for_shards.adapter().clone())
                };
                let peers = port.map(|port| (port, cluster_config));
                let (address, metrics) = (prepared.address, prepared.metrics.clone());
                let running = prepared.begin(adapter.node(), Some(adapter), peers, app)?;
                Ok(Edge { address, metrics, cluster: Some(cluster), fate, running })
            }),
        })
    }

    /// Starts an edge with any application on its sessions, and without a cluster: `app` makes one for each shard,
    /// on its thread.
    ///
    /// # Errors
    /// As [`Edge::start`].
    pub fn start_with_app<A: SessionApp>(
        config: EdgeConfig,
        demo: bool,
        app: impl Fn(AppContext<A>) -> A + Clone + Send + 'static,
    ) -> Result<Edge, StartError> {
        let mut node = [0; 3];
        getrandom::fill(&mut node).map_err(|error| StartError::System(error.into()))?;
        let prepared = Prepared::new(config, demo, 0)?;
        let (address, metrics) = (prepared.address, prepared.metrics.clone());
        let running = prepared.begin(NodeId::from_bytes(node), None, None, app)?;
        Ok(Edge { address, metrics, cluster: None, fate: watch::channel(None).1, running })
    }

    /// The address that clients connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address of the peer listener, if there is one.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.running.peer_addr()
    }

    /// What the edge counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// All sockets of the cluster; `None` for an application without one.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Waits until the edge must be closed and started anew, which may never be; why.
    pub fn must_restart(&self) -> impl Future<Output = Fate> + use<> {
        let mut fate = self.fate.clone();
        async move {
            match fate.wait_for(Option::is_some).await.ok().and_then(|fate| *fate) {
                Some(fate) => fate,
                None => std::future::pending().await,
            }
        }
    }

    /// Ends every session and stops; gives up waiting after `within`.
    pub fn close(mut self, within: Duration) {
        let deadline = Instant::now() + within;
        self.running.finish(deadline);
        // Last: what the sessions had to say to clients of other nodes leaves through it.
        if let Some(cluster) = self.cluster.take() {
            let goodbye = async move { cluster.adapter().shut_down().await };
            let goodbye = || {
                threads::runtime()?.block_on(async { Ok(tokio::time::timeout(GOODBYE_MAX, goodbye).await) })
            };
            let said: Option<io::Result<_>> = std::thread::scope(|scope| scope.spawn(goodbye).join()).ok();
            if !matches!(said, Some(Ok(Ok(())))) {
                tracing::debug!("the other nodes have to find out by themselves that this one is gone");
            }
        }
        self.running.join(deadline);
    }
}

/// What other nodes may send: the same that clients may.
fn cluster_limits(config: &EdgeConfig) -> Limits {
    let packet = Bounds::new(config).packets;
    let standard = Limits::default();
    Limits {
        // A socket has a name too: in protocol 4 its namespace, `#` and twenty characters.
        room_bytes_max: config.limits.name_bytes_max.max(standard.room_bytes_max) + 21,
        // The rooms that an event is for come on top of it.
        message_bytes_max: packet.packet_bytes_max.saturating_mul(2).max(standard.message_bytes_max),
        packet,
        ..standard
    }
}
