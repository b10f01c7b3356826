//! Putting an edge together, and taking it apart.
//!
//! An edge that belongs to a cluster starts in two steps: [`Edge::join`] takes its ports and speaks to the broker,
//! [`Joining::claimed`] waits for the node id, which every id of a client begins with, and only then lets clients in.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adapter::adapter::{Adapter, Carrier, Identity, Starting};
use adapter::broker::memory::MemoryBus;
use adapter::config::{BrokerConfig, BrokerKind, ClusterConfig};
use cluster_proto::heartbeat::Role;
use cluster_proto::identity::NodeId;
use cluster_proto::limits::Limits;
use engineio_proto::session::SessionConfig;
use socket2::Socket;
use tokio::sync::{oneshot, watch};

use crate::cluster::Cluster;
use crate::config::{EdgeConfig, UpstreamKind};
use crate::ids::IdSource;
use crate::inbox::{Inbox, Outlet, SendError, inbox};
use crate::listener::Site;
use crate::listener::accept;
use crate::listener::admission::Origins;
use crate::listener::peer::port::{PeerPort, PortError};
use crate::listener::peer::serve::PeerListener;
use crate::listener::relay::Relay;
use crate::listener::static_files::{BundleError, StaticFiles};
use crate::metrics::{Metrics, ShardMetrics};
use crate::outbox::slow_consumer;
use crate::session::app::SessionApp;
use crate::session::drive::Core;
use crate::session::registry::{Sessions, Settings};
use crate::shard::{Completions, Shard, ShardMessage};
use crate::socketio::app::{Bounds, SocketIo};
use crate::socketio::local::{Fate, LocalShards};
use crate::threads::{self, Busy, Idle};
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
    closers: Vec<Closer>,
    threads: Vec<Busy>,
    acceptor: Option<oneshot::Sender<()>>,
    peers: Option<Peers>,
}

/// The running peer listener.
#[derive(Debug)]
struct Peers {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: Busy,
}

/// Asks one shard to close; whether its inbox took the message.
struct Closer(Box<dyn Fn() -> bool + Send>);

impl std::fmt::Debug for Closer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Closer")
    }
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
                let cluster = Cluster::new(adapter.clone(), local);
                let for_shards = cluster.clone();
                let app = move |context: AppContext<SocketIo>| {
                    SocketIo::new(context, upstream(for_shards.clone()), for_shards.adapter().clone())
                };
                let peers = port.map(|port| (port, cluster_config));
                let edge = prepared.begin(adapter.node(), Some(adapter), peers, app)?;
                Ok(Edge { cluster: Some(cluster), fate, ..edge })
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
        Prepared::new(config, demo, 0)?.begin(NodeId::from_bytes(node), None, None, app)
    }

    /// The address that clients connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address of the peer listener, if there is one.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peers.as_ref().map(|peers| peers.address)
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
        drop(self.acceptor.take());
        for closer in &self.closers {
            threads::wait(deadline, &closer.0);
        }
        self.threads.iter().for_each(|thread| thread.finish(deadline));
        // Last: what the sessions had to say to clients of other nodes leaves through it.
        if let Some(Peers { stop, thread, .. }) = self.peers.take() {
            drop(stop);
            thread.join(deadline);
        }
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
        self.threads.drain(..).for_each(|thread| thread.join(deadline));
    }
}

/// An edge that holds its port and has queues in front of shards that do not run yet.
struct Prepared<A: SessionApp> {
    config: EdgeConfig,
    demo: bool,
    files: StaticFiles,
    socket: Socket,
    address: SocketAddr,
    capacity: crate::config::Capacity,
    metrics: Arc<Metrics>,
    outlets: Vec<Outlet<ShardMessage<A::Remote>>>,
    inboxes: Vec<Inbox<ShardMessage<A::Remote>>>,
    /// The thread of the only shard, if it carries the link to the cluster.
    only_thread: Option<Idle>,
}

impl<A: SessionApp> Prepared<A> {
    fn new(config: EdgeConfig, demo: bool, relays_max: usize) -> Result<Prepared<A>, StartError> {
        let capacity = config.capacity(relays_max);
        let refused = |error| refusal(config.listen, error);
        let socket = accept::bind(config.listen).map_err(refused)?;
        let address = socket.local_addr().map_err(StartError::System)?;
        let address = address.as_socket().unwrap_or(config.listen);
        let metrics = Arc::new(Metrics::new(capacity.shards));
        let bytes_max = config.limits.inbox_bytes_max;
        let queues = metrics.shards().iter().map(|metrics| inbox(bytes_max, metrics.clone()));
        let (outlets, inboxes) = queues.unzip();
        let files = StaticFiles::load(&config, demo)?;
        let only_thread = None;
        Ok(Prepared {
            config,
            demo,
            files,
            socket,
            address,
            capacity,
            metrics,
            outlets,
            inboxes,
            only_thread,
        })
    }

    /// The thread that carries the link: that of the shard if there is only one. What passes from one to the other needs
    /// no change of threads then, which costs more than all the rest that is done for a small broadcast.
    fn carrier(&mut self) -> Result<Option<Carrier>, StartError> {
        if self.capacity.shards > 1 {
            return Ok(None);
        }
        let thread = self.only_thread.insert(start_shard_thread(0).map_err(StartError::System)?);
        Ok(thread.carrier())
    }

    /// Starts the shards and lets clients in.
    fn begin(
        self,
        node: NodeId,
        adapter: Option<Adapter>,
        peers: Option<(PeerPort, ClusterConfig)>,
        app: impl Fn(AppContext<A>) -> A + Clone + Send + 'static,
    ) -> Result<Edge, StartError> {
        let Prepared { config, demo, files, socket, address, capacity, metrics, outlets, inboxes, .. } = self;
        let mut only_thread = self.only_thread;
        let listener = accept::listen(socket).map_err(|error| refusal(config.listen, error))?;
        let relay = peers.as_ref().zip(adapter.as_ref()).map(|((port, cluster), adapter)| {
            Arc::new(Relay::new(adapter.clone(), port.secrets().clone(), cluster, &config))
        });
        let site = Arc::new(Site {
            origins: Origins::new(&config, demo),
            files,
            node,
            adapter,
            relay,
            metrics: metrics.clone(),
            config,
            capacity,
            demo,
        });
        let mut starting = Edge {
            address,
            metrics,
            cluster: None,
            fate: watch::channel(None).1,
            closers: outlets.iter().cloned().map(closer).collect(),
            threads: Vec::new(),
            acceptor: None,
            peers: None,
        };
        // Other nodes may come before the first session is open, but not the other way round.
        if let Some((port, _)) = peers {
            match spawn_peers(site.clone(), outlets.clone(), port) {
                Ok(peers) => starting.peers = Some(peers),
                Err(error) => {
                    starting.close(Duration::from_secs(1));
                    return Err(error);
                }
            }
        }
        let mut listener = Some(listener);
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let own_listener = if capacity.shards == 1 { listener.take() } else { None };
            let shard = ShardStart {
                index,
                site: site.clone(),
                outlets: outlets.clone(),
                inbox,
                listener: own_listener,
                app: app.clone(),
            };
            let thread = only_thread.take().map_or_else(|| start_shard_thread(index), Ok);
            match thread {
                Ok(thread) => starting.threads.push(thread.run(|| run_shard(shard))),
                Err(error) => return Err(cannot_start(starting, error)),
            }
        }
        if let Some(listener) = listener {
            let (stop, stopped) = oneshot::channel();
            starting.acceptor = Some(stop);
            match threads::start("acceptor") {
                Ok(thread) => {
                    let run = || run_acceptor(site, outlets, listener, stopped);
                    starting.threads.push(thread.run(run));
                }
                Err(error) => return Err(cannot_start(starting, error)),
            }
        }
        Ok(starting)
    }
}

/// Ends what has been started.
fn cannot_start(starting: Edge, error: io::Error) -> StartError {
    starting.close(Duration::from_secs(1));
    StartError::System(error)
}

fn refusal(address: SocketAddr, error: io::Error) -> StartError {
    if error.kind() == io::ErrorKind::AddrInUse {
        StartError::Taken { address }
    } else {
        StartError::Listen { address, error }
    }
}

/// What other nodes may send: the same that clients may.
fn cluster_limits(config: &EdgeConfig) -> Limits {
    let packet = Bounds::new(config).packets;
    Limits {
        room_bytes_max: config.limits.name_bytes_max,
        message_bytes_max: packet.packet_bytes_max.saturating_mul(2),
        packet,
        ..Limits::default()
    }
}

fn closer<R: Send + 'static>(outlet: Outlet<ShardMessage<R>>) -> Closer {
    Closer(Box::new(move || !matches!(outlet.send(ShardMessage::Close, 0), Err(SendError::Full(_)))))
}

fn start_shard_thread(index: usize) -> io::Result<Idle> {
    threads::start(&format!("shard-{index}"))
}

/// What a shard's thread starts with.
struct ShardStart<A: SessionApp, F> {
    index: usize,
    site: Arc<Site>,
    outlets: Vec<Outlet<ShardMessage<A::Remote>>>,
    inbox: Inbox<ShardMessage<A::Remote>>,
    listener: Option<TcpListener>,
    app: F,
}

async fn run_shard<A: SessionApp>(start: ShardStart<A, impl Fn(AppContext<A>) -> A>) {
    let ShardStart { index, site, outlets, inbox, listener, app } = start;
    let Some(metrics) = site.metrics.shards().get(index).cloned() else { return };
    let completions = Completions::default();
    let app = app(AppContext {
        index,
        site: site.clone(),
        outlets: outlets.clone(),
        completions: completions.clone(),
        metrics: metrics.clone(),
    });
    // A shard number fits one byte: the configuration allows 255 at most.
    let ids = IdSource::new(site.node, u8::try_from(index).unwrap_or(u8::MAX));
    let sessions = Sessions::new(Rc::new(settings(&site.config)), ids, metrics.clone(), Instant::now());
    let turns_bytes_max = site.config.limits.turns_bytes_max;
    let core = Core::new(sessions, app, turns_bytes_max);
    let shard = Shard::new(index, site, outlets, metrics, core);
    shard.run(inbox, completions, listener.and_then(listening)).await;
}

async fn run_acceptor<R: Send + 'static>(
    site: Arc<Site>,
    outlets: Vec<Outlet<ShardMessage<R>>>,
    listener: TcpListener,
    stopped: oneshot::Receiver<()>,
) {
    let Some(listener) = listening(listener) else { return };
    tokio::select! {
        () = accept::accept_for_all(site, outlets, listener) => {}
        _ = stopped => {}
    }
}

fn spawn_peers<R: Send + 'static>(
    site: Arc<Site>,
    outlets: Vec<Outlet<ShardMessage<R>>>,
    port: PeerPort,
) -> Result<Peers, StartError> {
    let (address, secrets) = (port.local_addr(), port.secrets().clone());
    let listener = port.listen()?;
    let (stop, stopped) = oneshot::channel();
    let run = async move || {
        if let Some(listener) = listening(listener) {
            PeerListener::new(site, secrets, outlets).run(listener, stopped).await;
        }
    };
    let thread = threads::start("peers").map_err(StartError::System)?.run(run);
    Ok(Peers { address, stop, thread })
}

/// The listener on the runtime of this thread.
fn listening(listener: TcpListener) -> Option<tokio::net::TcpListener> {
    tokio::net::TcpListener::from_std(listener)
        .inspect_err(|error| tracing::error!(%error, "cannot listen"))
        .ok()
}

fn settings(config: &EdgeConfig) -> Settings {
    let limits = &config.limits;
    Settings {
        machine: SessionConfig {
            ping_interval: config.ping_interval(),
            ping_timeout: config.ping_timeout(),
            upgrade_timeout: config.upgrade_timeout(),
        },
        payload_bytes_max: config.payload_bytes_max,
        poll_packets_max: config.poll_packets_max,
        slow: slow_consumer::Limits {
            bytes_max: limits.outbox_bytes_max,
            stalled_bytes_max: limits.outbox_stalled_bytes_max,
            stalled_max: limits.outbox_stalled(),
        },
        outbox_bytes_max: limits.outbox_shared_bytes_max,
        held_bytes_max: limits.inbound_partial_bytes_max,
    }
}
