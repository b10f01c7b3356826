//! The sections joined into one configuration, and what follows from a subcommand.

use std::fmt;
use std::net::SocketAddr;

use adapter::config::{BrokerConfig, BrokerKind, ClusterConfig};
use edge::config::{EdgeConfig, UpstreamConfig, UpstreamKind};
use emitter::config::EmitterConfig;
use ops::admin::OpsConfig;
use ops::config::load::{Loaded, Sources, load};
use ops::config::schema::one_of;
use ops::config_section;
use ops::telemetry::LogConfig;

use crate::Failure;

/// Where the ops listener of `jackfield edge` and `jackfield emitter` is unless told otherwise: probes come from outside
/// their containers.
const EDGE_OPS_LISTEN: ([u8; 4], u16) = ([0, 0, 0, 0], 9090);

/// Where the API of `jackfield emitter` is unless told otherwise, once there is a key: callers are on other machines.
const EMITTER_LISTEN: ([u8; 4], u16) = ([0, 0, 0, 0], 4000);

config_section! {
    /// Configuration of Jackfield.
    pub(crate) struct GatewayConfig {
        /// The process that holds client connections.
        pub(crate) edge: EdgeConfig = EdgeConfig::default(),
        /// Where client events go.
        pub(crate) upstream: UpstreamConfig = UpstreamConfig::default(),
        /// What carries events between nodes.
        pub(crate) broker: BrokerConfig = BrokerConfig::default(),
        /// The nodes among themselves.
        pub(crate) cluster: ClusterConfig = ClusterConfig::default(),
        /// The HTTP API by which backends reach sockets.
        pub(crate) emitter: EmitterConfig = EmitterConfig::default(),
        /// The listener for those who run the gateway.
        pub(crate) ops: OpsConfig = OpsConfig::default(),
        /// Log lines.
        pub(crate) log: LogConfig = LogConfig::default(),
    }
}

/// Which process this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything in one process, ready to try.
    Serve,
    /// One edge of a deployment.
    Edge,
    /// One emitter of a deployment.
    Emitter,
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Serve => "serve",
            Self::Edge => "edge",
            Self::Emitter => "emitter",
        })
    }
}

/// Loads the configuration of a process; an edge must be told its broker and its upstream.
pub(crate) fn load_for(mode: Mode, sources: &Sources) -> Result<GatewayConfig, Failure> {
    let mut loaded: Loaded<GatewayConfig> = load(sources)?;
    match mode {
        Mode::Serve => {}
        Mode::Emitter => {
            require_broker(&loaded.config)?;
            if loaded.origin("ops.listen").is_none() {
                loaded.config.ops.listen = SocketAddr::from(EDGE_OPS_LISTEN);
            }
            if loaded.origin("emitter.listen").is_none() && loaded.config.emitter.wants_credentials() {
                loaded.config.emitter.listen = SocketAddr::from(EMITTER_LISTEN);
            }
        }
        Mode::Edge => {
            require_choices(&loaded)?;
            if loaded.origin("ops.listen").is_none() {
                loaded.config.ops.listen = SocketAddr::from(EDGE_OPS_LISTEN);
            }
        }
    }
    if mode != Mode::Emitter {
        require_secret(&loaded.config)?;
    }
    Ok(loaded.config)
}

/// An emitter with a memory broker would reach nobody.
fn require_broker(config: &GatewayConfig) -> Result<(), Failure> {
    if config.broker.kind != BrokerKind::Memory {
        return Ok(());
    }
    Err(Failure::Usage(
        "jackfield emitter reaches edges of other processes through a broker: say --set broker.kind=redis or \
         rabbitmq; `jackfield serve` runs an edge and an emitter in one process"
            .to_owned(),
    ))
}

impl GatewayConfig {
    /// The same without the passwords that URLs may hold, for people to see.
    pub(crate) fn redacted(&self) -> GatewayConfig {
        GatewayConfig { broker: self.broker.redacted(), ..self.clone() }
    }
}

/// Nodes of a cluster hand requests over to each other, which nobody else may.
pub(crate) fn require_secret(config: &GatewayConfig) -> Result<(), Failure> {
    if config.broker.kind == BrokerKind::Memory || !config.cluster.secret_file.as_os_str().is_empty() {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "with broker.kind={} the nodes need a common secret: write at least 16 random characters into a file, \
         for example with `openssl rand -hex 32`, and name it with --set cluster.secret_file=FILE",
        config.broker.kind
    )))
}

/// A deployed edge must not fall into the demo by an omission.
fn require_choices(loaded: &Loaded<GatewayConfig>) -> Result<(), Failure> {
    let choices = [("broker.kind", BrokerKind::NAMES), ("upstream.kind", UpstreamKind::NAMES)];
    let missing: Vec<_> = choices.into_iter().filter(|(key, _)| loaded.origin(key).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let named: Vec<_> = missing.iter().map(|(key, names)| format!("{key} ({})", one_of(names))).collect();
    let example: Vec<_> = missing
        .iter()
        .filter_map(|(key, names)| names.last().map(|name| format!("--set {key}={name}")))
        .collect();
    Err(Failure::Usage(format!(
        "jackfield edge must be told {}; for example {}",
        named.join(" and "),
        example.join(" ")
    )))
}
