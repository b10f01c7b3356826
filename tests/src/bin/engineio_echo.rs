//! Serves the edge's transports and sessions at `/engine.io/` and sends every message back as it came.
//!
//! No Socket.IO is on top: this is the proof that the layers are separable, and what the Engine.IO suites talk to.
//!
//! `engineio-echo --set edge.listen=127.0.0.1:3100` takes the gateway's own keys.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use edge::config::EdgeConfig;
use edge::outbox::wire::{Dialect, Wire};
use edge::session::app::{Handshake, Message, SessionApp, Work};
use edge::session::registry::{SessionKey, Sessions};
use edge::start::Edge;
use engineio_proto::WirePacket;
use engineio_proto::session::CloseReason;
use ops::admin::{Admin, OpsConfig, Pages, Readiness};
use ops::config::load::{Sources, load};
use ops::config_section;
use ops::signals::StopSignals;
use ops::telemetry::LogConfig;
use tokio::task::{LocalSet, spawn_local};

/// How long sessions may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

config_section! {
    /// What this program can be told.
    pub struct EchoConfig {
        /// The process that holds client connections.
        pub edge: EdgeConfig = EdgeConfig::default(),
        /// The ops listener.
        pub ops: OpsConfig = OpsConfig::default(),
        /// What is logged.
        pub log: LogConfig = LogConfig::default(),
    }
}

#[derive(Debug, Parser)]
#[command(about = "A plain Engine.IO server that echoes every message")]
struct Arguments {
    /// Sets a key, as `edge.ping_interval_ms=300`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// The application: it keeps nothing and sends back what comes.
#[derive(Debug)]
struct Echo;

impl SessionApp for Echo {
    type State = ();
    type Remote = ();
    type Completion = ();

    fn admit(&mut self, _handshake: Handshake) {}

    fn opened(&mut self, _sessions: &mut Sessions<()>, _session: SessionKey) {}

    fn message(&mut self, sessions: &mut Sessions<()>, session: SessionKey, message: Message<'_>) {
        match message {
            Message::Text(text) => {
                sessions.send_text(session, false, |out| out.extend_from_slice(text.as_bytes()));
            }
            Message::Binary(bytes) => {
                let Some((version, base64)) =
                    sessions.get(session).map(|found| (found.version(), found.base64()))
                else {
                    return;
                };
                let packet = WirePacket::Binary(Bytes::copy_from_slice(bytes));
                let dialect = Dialect { version, msgpack: false, base64 };
                sessions.send_wire(session, false, &Wire::new([packet].into_iter().collect(), dialect));
            }
        }
    }

    fn closed(&mut self, _: &mut Sessions<()>, _: SessionKey, (): (), _: CloseReason) {}

    fn deadline(&mut self, _sessions: &mut Sessions<()>, _session: SessionKey, _now: Instant) {}

    fn remote(&mut self, _sessions: &mut Sessions<()>, (): ()) {}

    fn completed(&mut self, _sessions: &mut Sessions<()>, (): ()) {}

    fn tick(&mut self, _sessions: &mut Sessions<()>) {}

    fn is_busy(&self) -> bool {
        false
    }

    fn has_work(&self) -> bool {
        false
    }

    fn work(&mut self, _sessions: &mut Sessions<()>) -> Work {
        Work::Done
    }

    fn held_bytes((): &()) -> usize {
        0
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> anyhow::Result<()> {
    // The ops port is any free one, so that this program runs beside a gateway.
    let mut settings = vec!["edge.path=/engine.io".to_owned(), "ops.listen=127.0.0.1:0".to_owned()];
    settings.extend(Arguments::parse().settings);
    let sources = Sources::of_process(None, settings);
    let config = load::<EchoConfig>(&sources)?.config;
    ops::telemetry::start(&config.log);
    let path = config.edge.path.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut signals, admin) =
        runtime.block_on(async { anyhow::Ok((StopSignals::install()?, Admin::bind(&config.ops).await?)) })?;
    let edge = Edge::start_with_app(config.edge, false, |_| Echo)?;
    let readiness = Readiness::unready("starting");
    readiness.set_ready();
    let metrics = edge.metrics();
    let pages = Pages { readiness, metrics: Box::new(move || metrics.render()), config: String::new() };
    show_banner(edge.local_addr(), admin.local_addr(), &path);
    LocalSet::new().block_on(&runtime, async {
        spawn_local(admin.serve(pages));
        signals.next().await
    });
    edge.close(CLOSE_WITHIN);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the banner is what this program prints")]
fn show_banner(clients: SocketAddr, ops: SocketAddr, path: &str) {
    println!("engineio-echo");
    println!("  clients  http://{clients}");
    println!("  ops      http://{ops}");
    println!("  next     connect an Engine.IO client to http://{clients}{path}/");
}
