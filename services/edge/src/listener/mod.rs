//! Where clients arrive: TCP, HTTP, and the way to the right session.
//!
//! - [`accept`]: connections come in and are shared out between the shards
//! - [`router`]: one HTTP request: which part of the edge answers it
//! - [`admission`]: who may come in: origins, addresses, proxies
//! - `cors`: what browsers are told about that
//! - `body`: the body of a POST
//! - `upgrade`: the opening handshake of a WebSocket
//! - [`error_body`]: what a refused client reads
//! - [`forward`]: a request whose session lives on another shard
//! - [`relay`]: a request whose session lives on another node
//! - [`peer`]: requests that other nodes relay to this one
//! - [`static_files`]: the demo pages and the official browser clients
//!
//! HTTP types end here and in [`crate::transport`].

pub mod accept;
pub mod admission;
mod body;
mod cors;
pub mod error_body;
pub mod forward;
pub mod peer;
pub mod relay;
pub mod router;
pub mod static_files;
mod upgrade;

use std::net::IpAddr;
use std::sync::Arc;

use adapter::adapter::Adapter;
use cluster_proto::identity::NodeId;
use engineio_proto::ProtocolVersion;

use crate::config::{Capacity, EdgeConfig};
use crate::metrics::Metrics;
use crate::session::registry::Session;
use admission::Origins;
use relay::Relay;
use static_files::StaticFiles;

/// What all shards of an edge serve and obey; read-only.
#[derive(Debug)]
pub struct Site {
    /// The section `edge`.
    pub config: EdgeConfig,
    /// What was derived from it and the machine.
    pub capacity: Capacity,
    /// This node.
    pub node: NodeId,
    /// The link to the other nodes; an application that has none is alone.
    pub adapter: Option<Adapter>,
    /// How requests are handed to the other nodes, if there may be any.
    pub relay: Option<Arc<Relay>>,
    /// The counters of all shards.
    pub metrics: Arc<Metrics>,
    /// Which pages of other origins may connect.
    pub origins: Origins,
    /// The pages and scripts to serve.
    pub files: StaticFiles,
    /// Whether the demo is on: its pages, `/echo`, and any origin on this machine.
    pub demo: bool,
}

impl Site {
    /// Whether a session is bound to another address than the one a request comes from. Only EIO3 sessions are:
    /// their ids are no secret.
    pub fn is_foreign_address<S>(&self, session: &Session<S>, address: IpAddr) -> bool {
        self.config.eio3_bind_address
            && session.version() == ProtocolVersion::V3
            && session.address() != address
    }

    /// Whether another session would be one too many.
    pub fn is_full(&self) -> bool {
        self.metrics.sessions() >= self.capacity.sessions_max as u64
    }
}
