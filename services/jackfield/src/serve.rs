//! `serve` and `edge`: starts an edge, shows where it is, and stops it when asked.

use std::net::SocketAddr;
use std::time::Duration;

use edge::config::UpstreamKind;
use edge::start::Edge;
use ops::admin::{Admin, Pages, Readiness};
use ops::config::load::Sources;
use ops::signals::StopSignals;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::config::{GatewayConfig, Mode, load_for};
use crate::{Failure, print};

/// How long sessions may take to close before the process ends without them.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Runs until SIGINT or SIGTERM.
///
/// This thread serves the ops listener and waits for signals; the edge has threads of its own.
pub(crate) fn run(mode: Mode, sources: &Sources) -> Result<(), Failure> {
    let config = load_for(mode, sources)?;
    ops::telemetry::start(&config.log);
    let effective = toml::to_string(&config)
        .map_err(|error| Failure::Running(format!("cannot show the configuration: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Running(format!("cannot start the runtime: {error}")))?;
    let (signals, admin) = runtime.block_on(open(&config))?;
    let edge = Edge::start(config.edge.clone(), config.upstream.kind)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let readiness = Readiness::unready("starting");
    let metrics = edge.metrics();
    let pages = Pages {
        readiness: readiness.clone(),
        metrics: Box::new(move || metrics.render()),
        config: effective,
    };

    if config.upstream.kind == UpstreamKind::Demo {
        tracing::warn!(
            "client events go to the built-in demo; set upstream.kind for an application of your own"
        );
    }
    let banner = banner(mode, &config, edge.local_addr(), admin.local_addr());
    let outcome = LocalSet::new().block_on(&runtime, async {
        tokio::task::spawn_local(admin.serve(pages));
        readiness.set_ready();
        print(&banner)?;
        stop(signals, edge, &readiness).await
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

/// Waits for a signal and closes the edge; a second signal does not wait for that.
async fn stop(mut signals: StopSignals, edge: Edge, readiness: &Readiness) -> Result<(), Failure> {
    let signal = signals.next().await;
    tracing::info!(signal, "closing");
    readiness.set_unready("closing");
    let closing = tokio::task::spawn_blocking(move || edge.close(CLOSE_WITHIN));
    tokio::select! {
        closed = closing => closed.map_err(|error| Failure::Running(format!("cannot close the edge: {error}"))),
        signal = signals.next() => {
            Err(Failure::Running(format!("{signal} again: ended before all sessions were closed")))
        }
    }
}

/// Does not wait for an edge that is still closing.
fn discard(runtime: Runtime) {
    runtime.shutdown_background();
}

fn banner(mode: Mode, config: &GatewayConfig, clients: SocketAddr, ops: SocketAddr) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let (broker, upstream) = (config.broker.kind, config.upstream.kind);
    let (clients, ops) = (url(clients), url(ops));
    let next = match upstream {
        UpstreamKind::Demo => format!("open {clients} in a browser"),
        UpstreamKind::None => format!("connect a Socket.IO client to {clients}"),
    };
    format!(
        "jackfield {version} · {mode} · broker {broker} · upstream {upstream}\n  \
         clients  {clients}\n  ops      {ops}\n  next     {next}\n"
    )
}

/// The address as one types it on this machine: "every address" becomes `localhost`.
fn url(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        return format!("http://localhost:{}", address.port());
    }
    format!("http://{address}")
}
