//! `emitter`: runs the API by which backends reach sockets; and what `serve` needs to run one beside its edge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adapter::adapter::{Adapter, Identity};
use adapter::broker::Gap;
use adapter::broker::memory::MemoryBus;
use adapter::local::{LocalSockets, Replier};
use cluster_proto::heartbeat::Role;
use cluster_proto::message::ClusterMessage;
use emitter::server::{self, Emitter};
use ops::admin::{Admin, Pages, Readiness};
use ops::config::load::Sources;
use ops::signals::StopSignals;
use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::config::{GatewayConfig, Mode, load_for};
use crate::{Failure, print};

/// How long requests under way may take when the process is told to stop.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// A running emitter with what is counted of it.
pub(crate) struct Running {
    emitter: Emitter,
    adapter: Arc<adapter::metrics::Metrics>,
    lost: Arc<Notify>,
}

impl Running {
    /// Starts an emitter on a bus inside this process, or without one on the broker of the configuration.
    pub(crate) fn start(config: &GatewayConfig, bus: Option<&MemoryBus>) -> Result<Self, Failure> {
        let usage = |error: String| Failure::Usage(error);
        // Before anything is started that would have to be stopped again.
        server::check(&config.emitter).map_err(|error| usage(error.to_string()))?;
        let lost = Arc::new(Notify::new());
        let local = Arc::new(Identified { lost: lost.clone() });
        let identity = Identity::new(Role::Emitter);
        let starting = match bus {
            Some(bus) => Adapter::start_on_bus(bus, &config.broker, &config.cluster, &identity, local, None),
            None => Adapter::start(&config.broker, &config.cluster, &identity, local, None),
        };
        let starting = starting.map_err(|error| usage(error.to_string()))?;
        let adapter = starting.metrics().clone();
        let emitter =
            Emitter::start(config.emitter.clone(), starting).map_err(|error| usage(error.to_string()))?;
        Ok(Self { emitter, adapter, lost })
    }

    /// Where the API is.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.emitter.local_addr()
    }

    /// Renders what the API counts; the link to the cluster is apart, for where an edge shows its own.
    pub(crate) fn metrics(&self) -> impl Fn() -> String + 'static {
        let metrics = self.emitter.metrics();
        move || metrics.render()
    }

    /// Ends it; requests under way are answered for a while.
    pub(crate) fn close(self) {
        self.emitter.close(CLOSE_WITHIN);
    }
}

/// Holds no socket, and notices when another process has the node's id.
struct Identified {
    lost: Arc<Notify>,
}

impl LocalSockets for Identified {
    fn handle_message(&self, _message: ClusterMessage, _reply: Option<Replier>) {}

    fn handle_gap(&self, _gap: Gap) {}

    fn handle_identity_lost(&self) {
        self.lost.notify_one();
    }
}

/// Runs until SIGINT or SIGTERM.
pub(crate) fn run(sources: &Sources) -> Result<(), Failure> {
    let config = load_for(Mode::Emitter, sources)?;
    ops::telemetry::start(&config.log);
    let effective = toml::to_string(&config.redacted())
        .map_err(|error| Failure::Running(format!("cannot show the configuration: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Running(format!("cannot start the runtime: {error}")))?;
    let (mut signals, admin) = runtime.block_on(async {
        let signals = StopSignals::install()
            .map_err(|error| Failure::Running(format!("cannot handle signals: {error}")))?;
        let admin = Admin::bind(&config.ops).await.map_err(|error| Failure::Usage(error.to_string()))?;
        Ok::<_, Failure>((signals, admin))
    })?;
    // A broker that is away is no reason to send callers elsewhere: another emitter has the same broker.
    let readiness = Readiness::unready("starting");
    let shown = std::rc::Rc::new(std::cell::RefCell::new(None::<Box<dyn Fn() -> String>>));
    let metrics = shown.clone();
    let pages = Pages {
        readiness: readiness.clone(),
        metrics: Box::new(move || metrics.borrow().as_ref().map_or_else(String::new, |render| render())),
        config: effective,
    };
    let ops = admin.local_addr();
    let mut config = config;
    let mut running = Running::start(&config, None)?;
    // After a restart under another id the port must be the same.
    config.emitter.listen = running.local_addr();
    let outcome = LocalSet::new().block_on(&runtime, async {
        tokio::task::spawn_local(admin.serve(pages));
        readiness.set_ready();
        print(&banner(&config, ops))?;
        loop {
            let (render, adapter) = (running.metrics(), running.adapter.clone());
            *shown.borrow_mut() = Some(Box::new(move || render() + &adapter.render()));
            let lost = running.lost.clone();
            tokio::select! {
                signal = signals.next() => {
                    tracing::info!(signal, "closing");
                    readiness.set_unready("closing");
                    return end(running, &mut signals).await;
                }
                () = lost.notified() => {
                    readiness.set_unready("another process has this node's id");
                    end(running, &mut signals).await?;
                    running = Running::start(&config, None)?;
                    readiness.set_ready();
                }
            }
        }
    });
    runtime.shutdown_background();
    outcome
}

/// Closes the emitter; another signal does not wait for that.
async fn end(running: Running, signals: &mut StopSignals) -> Result<(), Failure> {
    let closing = tokio::task::spawn_blocking(move || running.close());
    tokio::select! {
        closed = closing => closed.map_err(|error| Failure::Running(format!("cannot close the emitter: {error}"))),
        signal = signals.next() => {
            Err(Failure::Running(format!("{signal} again: ended before all requests were answered")))
        }
    }
}

fn banner(config: &GatewayConfig, ops: SocketAddr) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let broker = config.broker.kind;
    let (api, ops) = (crate::serve::url(config.emitter.listen), crate::serve::url(ops));
    let key = if config.emitter.wants_credentials() { " -H 'authorization: Bearer KEY'" } else { "" };
    format!(
        "jackfield {version} · emitter · broker {broker}\n  emitter  {api}\n  ops      {ops}\n  \
         next     curl {api}/v1/info{key}\n"
    )
}
