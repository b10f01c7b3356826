//! The process that holds client connections.
//!
//! An edge listens for Socket.IO clients of every age and keeps their sessions on shards: threads that share
//! nothing, each a complete server. It knows neither brokers nor backends; client events leave through
//! [`upstream`].
//!
//! Modules look one way: [`listener`] → [`transport`] → [`session`] → [`socketio`] → [`rooms`] → [`outbox`], with
//! [`upstream`] beside `rooms`. News travels back as messages on queues. [`shard`] holds them together.
//!
//! Specifications: Engine.IO protocol 3 and 4, Socket.IO protocol 4 and 5, RFC 6455. Where the reference server
//! and the documents differ, `docs/protocol.md` says which one is followed.

pub mod config;
pub mod ids;
pub mod inbox;
pub mod listener;
pub mod metrics;
pub mod outbox;
pub mod rooms;
pub mod session;
pub mod shard;
pub mod socketio;
pub mod transport;
pub mod upstream;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engineio_proto::session::SessionConfig;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use config::{EdgeConfig, UpstreamKind};
use ids::{IdSource, NodeId};
use inbox::{Inbox, Outlet, SendError, inbox};
use listener::Site;
use listener::accept;
use listener::admission::Origins;
use listener::static_files::{BundleError, StaticFiles};
use metrics::{Metrics, ShardMetrics};
use outbox::slow_consumer;
use session::app::SessionApp;
use session::drive::Core;
use session::registry::{Sessions, Settings};
use shard::{Completions, Shard, ShardMessage};
use socketio::app::SocketIo;
use socketio::peers::Peers;
use upstream::Upstream;

/// How often a closing edge looks whether its shards are done.
const CLOSE_POLL: Duration = Duration::from_millis(2);

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

/// What an application is given to work with on one shard.
#[derive(Debug)]
pub struct AppContext<A: SessionApp> {
    /// What the edge serves and obeys.
    pub site: Arc<Site>,
    /// The inboxes of the other shards.
    pub peers: Vec<Outlet<ShardMessage<A::Remote>>>,
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
    closers: Vec<Closer>,
    threads: Vec<JoinHandle<()>>,
    acceptor: Option<oneshot::Sender<()>>,
}

/// Asks one shard to close; whether its inbox took the message.
struct Closer(Box<dyn Fn() -> bool + Send>);

impl std::fmt::Debug for Closer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Closer")
    }
}

impl Edge {
    /// Starts a Socket.IO edge; returns once clients can connect.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(config: EdgeConfig, upstream: UpstreamKind) -> Result<Edge, StartError> {
        let demo = upstream == UpstreamKind::Demo;
        Edge::start_with_upstream(config, demo, move || -> Box<dyn Upstream> {
            match upstream {
                UpstreamKind::Demo => Box::new(upstream::demo::Demo),
                UpstreamKind::None => Box::new(upstream::none::None),
            }
        })
    }

    /// As [`Edge::start`], with an upstream of the caller's own: `upstream` makes one for each shard. `demo` adds
    /// the demo pages and `/echo`, and admits pages from any port of this machine.
    ///
    /// # Errors
    /// As [`Edge::start`].
    pub fn start_with_upstream(
        config: EdgeConfig,
        demo: bool,
        upstream: impl Fn() -> Box<dyn Upstream> + Clone + Send + 'static,
    ) -> Result<Edge, StartError> {
        Edge::start_with_app(config, demo, move |context: AppContext<SocketIo>| {
            SocketIo::new(
                &context.site.config,
                upstream(),
                Peers::new(
                    context.peers,
                    context.site.config.limits.inbox_bytes_max,
                    context.metrics.clone(),
                ),
                context.completions,
                context.site.metrics.clone(),
                context.metrics,
            )
        })
    }

    /// Starts an edge with any application on its sessions: `app` makes one for each shard, on its thread.
    ///
    /// # Errors
    /// As [`Edge::start`].
    pub fn start_with_app<A: SessionApp>(
        config: EdgeConfig,
        demo: bool,
        app: impl Fn(AppContext<A>) -> A + Clone + Send + 'static,
    ) -> Result<Edge, StartError> {
        let capacity = config.capacity();
        let listener = bind(config.listen)?;
        let address = listener.local_addr().map_err(StartError::System)?;
        let metrics = Arc::new(Metrics::new(capacity.shards));
        let site = Arc::new(Site {
            origins: Origins::new(&config, demo),
            files: StaticFiles::load(&config, demo)?,
            node: NodeId::random().map_err(|error| StartError::System(error.into()))?,
            metrics: metrics.clone(),
            config,
            capacity,
            demo,
        });
        let (outlets, inboxes): (Vec<_>, Vec<_>) = metrics
            .shards()
            .iter()
            .map(|metrics| inbox(site.config.limits.inbox_bytes_max, metrics.clone()))
            .unzip();
        let mut starting = Edge {
            address,
            metrics,
            closers: outlets.iter().cloned().map(closer).collect(),
            threads: Vec::new(),
            acceptor: None,
        };
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
            match spawn_shard(shard) {
                Ok(thread) => starting.threads.push(thread),
                Err(error) => return Err(starting.cannot_start(error)),
            }
        }
        if let Some(listener) = listener {
            let (stop, stopped) = oneshot::channel();
            starting.acceptor = Some(stop);
            match spawn_acceptor(site, outlets, listener, stopped) {
                Ok(thread) => starting.threads.push(thread),
                Err(error) => return Err(starting.cannot_start(error)),
            }
        }
        Ok(starting)
    }

    /// Ends what has been started.
    fn cannot_start(self, error: io::Error) -> StartError {
        self.close(Duration::from_secs(1));
        StartError::System(error)
    }

    /// The address that clients connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What the edge counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Ends every session and stops; gives up waiting after `within`.
    pub fn close(mut self, within: Duration) {
        let deadline = Instant::now() + within;
        drop(self.acceptor.take());
        for closer in &self.closers {
            while !(closer.0)() && Instant::now() < deadline {
                std::thread::sleep(CLOSE_POLL);
            }
        }
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(CLOSE_POLL);
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    accept::bind(address).map_err(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            StartError::Taken { address }
        } else {
            StartError::Listen { address, error }
        }
    })
}

fn closer<R: Send + 'static>(outlet: Outlet<ShardMessage<R>>) -> Closer {
    Closer(Box::new(move || !matches!(outlet.send(ShardMessage::Close, 0), Err(SendError::Full(_)))))
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

fn spawn_shard<A: SessionApp>(
    start: ShardStart<A, impl Fn(AppContext<A>) -> A + Send + 'static>,
) -> io::Result<JoinHandle<()>> {
    let runtime = runtime()?;
    std::thread::Builder::new().name(format!("shard-{}", start.index)).spawn(move || {
        let local = LocalSet::new();
        local.block_on(&runtime, run_shard(start));
    })
}

async fn run_shard<A: SessionApp>(start: ShardStart<A, impl Fn(AppContext<A>) -> A>) {
    let ShardStart { index, site, outlets, inbox, listener, app } = start;
    let Some(metrics) = site.metrics.shards().get(index).cloned() else { return };
    let completions = Completions::default();
    let peers = outlets.iter().enumerate().filter(|(peer, _)| *peer != index);
    let app = app(AppContext {
        site: site.clone(),
        peers: peers.map(|(_, outlet)| outlet.clone()).collect(),
        completions: completions.clone(),
        metrics: metrics.clone(),
    });
    // A shard number fits one byte: the configuration allows 255 at most.
    let ids = IdSource::new(site.node, u8::try_from(index).unwrap_or(u8::MAX));
    let sessions = Sessions::new(Rc::new(settings(&site.config)), ids, metrics.clone(), Instant::now());
    let turns_bytes_max = site.config.limits.turns_bytes_max;
    let core = Core::new(sessions, app, turns_bytes_max);
    let shard = Shard::new(index, site, outlets, metrics, core);
    let listener = listener.and_then(|listener| match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::error!(%error, "cannot listen");
            None
        }
    });
    shard.run(inbox, completions, listener).await;
}

fn spawn_acceptor<R: Send + 'static>(
    site: Arc<Site>,
    outlets: Vec<Outlet<ShardMessage<R>>>,
    listener: TcpListener,
    stopped: oneshot::Receiver<()>,
) -> io::Result<JoinHandle<()>> {
    let runtime = runtime()?;
    std::thread::Builder::new().name("acceptor".to_owned()).spawn(move || {
        runtime.block_on(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => tokio::select! {
                    () = accept::accept_for_all(site, outlets, listener) => {}
                    _ = stopped => {}
                },
                Err(error) => tracing::error!(%error, "cannot listen"),
            }
        });
    })
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
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

#[cfg(test)]
mod tests {
    use super::*;
    use session::link::LinkId;
    use session::registry::{Session, SessionKey};
    use socketio::app::ClientState;
    use socketio::socket::Socket;

    /// The bytes of the future that an async function returns.
    fn future_bytes<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_lives_as_long_as_a_session_stays_small() {
        let serve: fn(Rc<Shard<SocketIo>>, SessionKey, LinkId) -> _ = transport::websocket::serve;
        for (what, bytes, bytes_max) in [
            ("a session with its client's state", size_of::<Session<ClientState>>(), 352),
            ("a socket", size_of::<Socket>(), 64),
            ("the task of a WebSocket", future_bytes(serve), 96),
        ] {
            assert!(bytes <= bytes_max, "{what} takes {bytes} bytes, {bytes_max} allowed");
        }
    }
}
