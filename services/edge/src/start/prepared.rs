//! An edge from its port to its threads: what is made before the node has an id, and what runs from then on.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adapter::adapter::{Adapter, Carrier};
use adapter::config::ClusterConfig;
use cluster_proto::identity::NodeId;
use engineio_proto::session::SessionConfig;
use socket2::Socket;
use tokio::sync::oneshot;

use super::{AppContext, StartError};
use crate::config::{Capacity, EdgeConfig};
use crate::ids::IdSource;
use crate::inbox::{Inbox, Outlet, SendError, inbox};
use crate::listener::Site;
use crate::listener::accept;
use crate::listener::admission::Origins;
use crate::listener::peer::port::PeerPort;
use crate::listener::peer::serve::PeerListener;
use crate::listener::relay::Relay;
use crate::listener::static_files::StaticFiles;
use crate::metrics::Metrics;
use crate::outbox::slow_consumer;
use crate::session::app::SessionApp;
use crate::session::drive::Core;
use crate::session::registry::{Sessions, Settings};
use crate::shard::{Completions, Shard, ShardMessage};
use crate::threads::{self, Busy, Idle};

/// How long the end of a start that has failed may take.
const STOP_MAX: Duration = Duration::from_secs(1);

/// An edge that holds its port and has queues in front of shards that do not run yet.
pub(super) struct Prepared<A: SessionApp> {
    pub(super) config: EdgeConfig,
    demo: bool,
    files: StaticFiles,
    socket: Socket,
    pub(super) address: SocketAddr,
    capacity: Capacity,
    pub(super) metrics: Arc<Metrics>,
    pub(super) outlets: Vec<Outlet<ShardMessage<A::Remote>>>,
    inboxes: Vec<Inbox<ShardMessage<A::Remote>>>,
    /// The thread of the only shard, if it carries the link to the cluster.
    only_thread: Option<Idle>,
}

impl<A: SessionApp> Prepared<A> {
    pub(super) fn new(config: EdgeConfig, demo: bool, relays_max: usize) -> Result<Prepared<A>, StartError> {
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
    pub(super) fn carrier(&mut self) -> Result<Option<Carrier>, StartError> {
        if self.capacity.shards > 1 {
            return Ok(None);
        }
        let thread = self.only_thread.insert(start_shard_thread(0).map_err(StartError::System)?);
        Ok(thread.carrier())
    }

    /// Starts the shards and lets clients in.
    pub(super) fn begin(
        self,
        node: NodeId,
        adapter: Option<Adapter>,
        peers: Option<(PeerPort, ClusterConfig)>,
        app: impl Fn(AppContext<A>) -> A + Clone + Send + 'static,
    ) -> Result<Running, StartError> {
        let Prepared {
            config,
            demo,
            files,
            socket,
            capacity,
            metrics,
            outlets,
            inboxes,
            mut only_thread,
            ..
        } = self;
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
            metrics,
            config,
            capacity,
            demo,
        });
        let mut starting = Running {
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
                    starting.stop();
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

/// What runs in an edge.
#[derive(Debug)]
pub(super) struct Running {
    closers: Vec<Closer>,
    threads: Vec<Busy>,
    acceptor: Option<oneshot::Sender<()>>,
    peers: Option<Peers>,
}

impl Running {
    /// The address of the peer listener, if there is one.
    pub(super) fn peer_addr(&self) -> Option<SocketAddr> {
        self.peers.as_ref().map(|peers| peers.address)
    }

    /// Ends every session, and waits until clients have taken what is left to say to them; but not for ever. The link to
    /// the cluster still runs.
    pub(super) fn finish(&mut self, deadline: Instant) {
        drop(self.acceptor.take());
        for closer in &self.closers {
            threads::wait(deadline, &closer.0);
        }
        self.threads.iter().for_each(|thread| thread.finish(deadline));
        // What the sessions had to say to clients of other nodes leaves through it.
        if let Some(Peers { stop, thread, .. }) = self.peers.take() {
            drop(stop);
            thread.join(deadline);
        }
    }

    /// Waits for the threads, which end after the link.
    pub(super) fn join(self, deadline: Instant) {
        self.threads.into_iter().for_each(|thread| thread.join(deadline));
    }

    /// Ends what has been started when the rest cannot be.
    fn stop(mut self) {
        let deadline = Instant::now() + STOP_MAX;
        self.finish(deadline);
        self.join(deadline);
    }
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

/// Ends what has been started.
fn cannot_start(starting: Running, error: io::Error) -> StartError {
    starting.stop();
    StartError::System(error)
}

fn refusal(address: SocketAddr, error: io::Error) -> StartError {
    if error.kind() == io::ErrorKind::AddrInUse {
        StartError::Taken { address }
    } else {
        StartError::Listen { address, error }
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
