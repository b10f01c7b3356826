//! `serve` and `edge`: starts an edge, shows where it is, and stops it when asked.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use adapter::Status;
use adapter::broker::memory::MemoryBus;
use adapter::config::BrokerKind;
use edge::config::UpstreamKind;
use edge::start::{Edge, Joining, Membership};
use ops::admin::{Admin, Pages, Readiness};
use ops::config::load::Sources;
use ops::signals::StopSignals;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::config::{GatewayConfig, Mode, load_for};
use crate::emitter::Running;
use crate::{Failure, print};

/// How long sessions may take to close before the process ends without them.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// How long the ports of an edge that was closed may stay taken when it starts again.
const PORTS_WITHIN: Duration = Duration::from_secs(30);

/// How often they are tried.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// How often the link to the cluster is looked at for `/readyz`.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What `/metrics` shows now; another edge has other numbers.
type Metrics = Rc<RefCell<Box<dyn Fn() -> String>>>;

/// Runs until SIGINT or SIGTERM.
///
/// This thread serves the ops listener and waits for signals; the edge and the link to the cluster run on others.
pub(crate) fn run(mode: Mode, sources: &Sources) -> Result<(), Failure> {
    let config = load_for(mode, sources)?;
    ops::telemetry::start(&config.log);
    let effective = toml::to_string(&config.redacted())
        .map_err(|error| Failure::Running(format!("cannot show the configuration: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Running(format!("cannot start the runtime: {error}")))?;
    let (signals, admin) = runtime.block_on(open(&config))?;
    let readiness = Readiness::unready("starting");
    let metrics: Metrics = Rc::new(RefCell::new(Box::new(String::new)));
    let shown = metrics.clone();
    let pages = Pages {
        readiness: readiness.clone(),
        metrics: Box::new(move || shown.borrow()()),
        config: effective,
    };
    let bus = MemoryBus::new();
    // Whoever deploys edges deploys emitters beside them.
    let emitter = (mode == Mode::Serve)
        .then(|| Running::start(&config, (config.broker.kind == BrokerKind::Memory).then_some(&bus)))
        .transpose()?;
    let process =
        Process { mode, ops: admin.local_addr(), config, readiness, metrics, signals, bus, emitter };
    let joining = process.join(process.config.edge.listen)?;
    if process.config.upstream.kind == UpstreamKind::Demo {
        tracing::warn!(
            "client events go to the built-in demo; set upstream.kind for an application of your own"
        );
    }
    let outcome = LocalSet::new().block_on(&runtime, async {
        tokio::task::spawn_local(admin.serve(pages));
        Box::pin(process.live(joining)).await
    });
    discard(runtime);
    outcome
}

/// Takes the signals over first, so that from the first bound port on every stop is a clean one.
async fn open(config: &GatewayConfig) -> Result<(StopSignals, Admin), Failure> {
    let signals = StopSignals::install()
        .map_err(|error| Failure::Running(format!("cannot handle signals: {error}")))?;
    let admin = Admin::bind(&config.ops).await.map_err(|error| Failure::Usage(error.to_string()))?;
    Ok((signals, admin))
}

/// The process around an edge.
struct Process {
    mode: Mode,
    ops: SocketAddr,
    config: GatewayConfig,
    readiness: Readiness,
    metrics: Metrics,
    signals: StopSignals,
    /// What the edge and the emitter of this process share with the memory broker.
    bus: MemoryBus,
    emitter: Option<Running>,
}

/// Why an edge no longer runs.
enum End {
    /// A signal asked for it, and the process ends too.
    Stopped,
    /// It has to start anew under another id.
    Again,
}

impl Process {
    fn join(&self, listen: SocketAddr) -> Result<Joining, Failure> {
        let mut edge = self.config.edge.clone();
        edge.listen = listen;
        let membership = Membership {
            broker: self.config.broker.clone(),
            cluster: self.config.cluster.clone(),
            bus: self.bus.clone(),
        };
        let joining = Edge::join(edge, &membership, self.config.upstream.kind)
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let (edge, adapter) = (joining.metrics(), joining.adapter_metrics());
        let emitter = self.emitter.as_ref().map(Running::metrics);
        *self.metrics.borrow_mut() = Box::new(move || {
            edge.render() + &adapter.render() + &emitter.as_ref().map_or_else(String::new, |render| render())
        });
        Ok(joining)
    }

    /// Starts the next edge; the last one may still hold the ports for a moment.
    async fn join_again(&self, listen: SocketAddr) -> Result<Joining, Failure> {
        let deadline = Instant::now() + PORTS_WITHIN;
        loop {
            match self.join(listen) {
                Err(failure) if Instant::now() < deadline => {
                    tracing::warn!("cannot start again yet: {failure}");
                    tokio::time::sleep(TRY_EVERY).await;
                }
                joined => return joined,
            }
        }
    }

    /// Runs one edge after the other; usually there is one.
    async fn live(mut self, mut joining: Joining) -> Result<(), Failure> {
        let mut is_first = true;
        loop {
            let address = joining.local_addr();
            self.readiness.set_unready("waiting for the broker");
            let edge = tokio::select! {
                edge = joining.claimed() => edge.map_err(|error| Failure::Running(error.to_string()))?,
                signal = self.signals.next() => {
                    tracing::info!(signal, "closing");
                    return Ok(());
                }
            };
            self.readiness.set_ready();
            if std::mem::take(&mut is_first) {
                let api = self.emitter.as_ref().map(Running::local_addr);
                print(&banner(self.mode, &self.config, address, api, self.ops))?;
            }
            match self.watch(edge).await? {
                End::Stopped => return Ok(()),
                End::Again => joining = self.join_again(address).await?,
            }
        }
    }

    /// Keeps `/readyz` true until a signal comes or the edge has to start anew.
    async fn watch(&mut self, edge: Edge) -> Result<End, Failure> {
        let mut must_restart = Box::pin(edge.must_restart());
        loop {
            tokio::select! {
                signal = self.signals.next() => {
                    tracing::info!(signal, "closing");
                    self.readiness.set_unready("closing");
                    if let Some(emitter) = self.emitter.take() {
                        // It has no client to say goodbye to, and its threads end with the process.
                        tokio::task::spawn_blocking(move || emitter.close());
                    }
                    self.close(edge).await?;
                    return Ok(End::Stopped);
                }
                fate = &mut must_restart => {
                    self.readiness.set_unready(fate.as_str());
                    self.close(edge).await?;
                    return Ok(End::Again);
                }
                () = tokio::time::sleep(LOOK_EVERY) => self.look(&edge),
            }
        }
    }

    fn look(&self, edge: &Edge) {
        let status = edge.cluster().map_or(Status::Ready, |cluster| cluster.adapter().status());
        match status {
            // An edge without its broker serves its own clients: a restart of the broker must not empty the load balancer.
            Status::Ready | Status::Degraded(_) => self.readiness.set_ready(),
            Status::NotReady(_) => self.readiness.set_unready("the broker has been away for too long"),
        }
    }

    /// Closes the edge; another signal does not wait for that.
    async fn close(&mut self, edge: Edge) -> Result<(), Failure> {
        let closing = tokio::task::spawn_blocking(move || edge.close(CLOSE_WITHIN));
        tokio::select! {
            closed = closing => closed.map_err(|error| Failure::Running(format!("cannot close the edge: {error}"))),
            signal = self.signals.next() => {
                Err(Failure::Running(format!("{signal} again: ended before all sessions were closed")))
            }
        }
    }
}

/// Does not wait for an edge that is still closing.
fn discard(runtime: Runtime) {
    runtime.shutdown_background();
}

fn banner(
    mode: Mode,
    config: &GatewayConfig,
    clients: SocketAddr,
    api: Option<SocketAddr>,
    ops: SocketAddr,
) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let (broker, upstream) = (config.broker.kind, config.upstream.kind);
    let (clients, ops) = (url(clients), url(ops));
    let api = api.map_or_else(String::new, |api| format!("  emitter  {}\n", url(api)));
    let next = match upstream {
        UpstreamKind::Demo => format!("open {clients} in a browser"),
        UpstreamKind::None => format!("connect a Socket.IO client to {clients}"),
    };
    format!(
        "jackfield {version} · {mode} · broker {broker} · upstream {upstream}\n  \
         clients  {clients}\n{api}  ops      {ops}\n  next     {next}\n"
    )
}

/// The address as one types it on this machine: "every address" becomes `localhost`.
pub(crate) fn url(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        return format!("http://localhost:{}", address.port());
    }
    format!("http://{address}")
}
