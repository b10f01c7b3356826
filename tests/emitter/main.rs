//! The emitter's HTTP API against a cluster inside the test: every call, every refusal, and what happens without a broker.
//!
//! - `edge`: an edge that is only a table of sockets
//! - `http`: requests as bytes, answers as JSON
//! - `emit`, `sockets`, `listing`: what the calls do
//! - `keys`: who may call what
//! - `refusals`: every code of a problem is provoked
//! - `fuzz`: whatever the description of the API allows or forbids, nothing breaks
//! - `cluster`: every operation end to end: real edges, real clients, real brokers; `processes` and `clients` are what it
//!   is made of
//! - `node_member`: a Socket.IO server of Node in the same cluster
//! - `broker`: the broker is away, hung, or was never there
//! - `pages`: the description of the API, request ids, metrics

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a panic is how a test reports a failure"
)]

mod broker;
mod clients;
mod cluster;
mod edge;
mod emit;
mod fuzz;
mod http;
mod keys;
mod listing;
mod node_member;
mod pages;
mod processes;
mod refusals;
mod sockets;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use adapter::adapter::{Adapter, Identity};
use adapter::broker::memory::MemoryBus;
use adapter::config::{BrokerConfig, ClusterConfig};
use adapter::local::NoSockets;
use cluster_proto::heartbeat::Role;
use emitter::config::EmitterConfig;
use emitter::server::Emitter;
use serde_json::Value;

use crate::edge::FakeEdge;
use crate::http::{Reply, Request};

/// Long for a machine that is busy with other tests.
const WITHIN: Duration = Duration::from_secs(10);

/// An emitter and edges on one bus.
struct Cluster {
    bus: MemoryBus,
    emitter: Option<Emitter>,
    edges: Vec<FakeEdge>,
}

fn cluster_config() -> ClusterConfig {
    ClusterConfig { heartbeat_ms: 100, dead_after_ms: 2_000, ..ClusterConfig::default() }
}

/// The configuration of a test: a free port, short waits.
fn config() -> EmitterConfig {
    EmitterConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        threads: 1,
        request_timeout_ms: 2_000,
        keys_reload_ms: 50,
        ..EmitterConfig::default()
    }
}

/// Starts an emitter on a bus.
fn emitter_on(bus: &MemoryBus, config: EmitterConfig) -> Emitter {
    let identity = Identity::new(Role::Emitter);
    let broker = BrokerConfig::default();
    let starting =
        Adapter::start_on_bus(bus, &broker, &cluster_config(), &identity, Arc::new(NoSockets), None);
    Emitter::start(config, starting.expect("an adapter")).expect("an emitter")
}

impl Cluster {
    /// So many edges, which the emitter sees.
    fn new(edges: usize) -> Self {
        Self::with(edges, config())
    }

    fn with(edges: usize, config: EmitterConfig) -> Self {
        let bus = MemoryBus::new();
        let edges: Vec<FakeEdge> = (0..edges).map(|_| FakeEdge::start(&bus)).collect();
        let cluster = Self { emitter: Some(emitter_on(&bus, config)), bus, edges };
        cluster.sees(cluster.edges.len());
        cluster
    }

    /// Waits until the emitter can publish and knows so many edges.
    fn sees(&self, count: usize) {
        system_tests::brokers::wait_until("edges that are seen", WITHIN, || {
            let info = self.get("/v1/info");
            let info = info.json();
            info["broker"] == "ready" && info["nodes"].as_array().is_some_and(|nodes| nodes.len() == count)
        });
    }

    fn port(&self) -> u16 {
        self.emitter.as_ref().expect("a running emitter").local_addr().port()
    }

    fn request(&self, method: &str, path: &str) -> Request {
        Request::new(self.port(), method, path)
    }

    fn get(&self, path: &str) -> Reply {
        self.request("GET", path).send()
    }

    fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path).json(body).send()
    }

    /// A call that goes well; its answer.
    fn done(&self, path: &str, body: &Value) -> Value {
        let reply = self.post(path, body);
        assert!(matches!(reply.status, 200 | 202), "{path} {body}: {reply:?}");
        reply.json()
    }

    fn metrics(&self) -> String {
        self.emitter.as_ref().expect("a running emitter").metrics().render()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(emitter) = self.emitter.take() {
            emitter.close(Duration::from_secs(1));
        }
    }
}

/// A folder that is removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("jackfield-emitter-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        // At once: who reads it in between must not find half of it.
        let (path, beside) = (self.0.join(name), self.0.join(format!("{name}.new")));
        std::fs::write(&beside, content).expect("a file");
        std::fs::rename(beside, &path).expect("a file in its place");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
