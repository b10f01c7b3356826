//! Several edges in this process that are one cluster, and a node that only pretends to be one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use adapter::adapter::{Adapter, Identity};
use adapter::broker::memory::MemoryBus;
use adapter::config::ClusterConfig;
use adapter::local::NoSockets;
use cluster_proto::heartbeat::Role;
use cluster_proto::identity::NodeId;
use edge::config::EdgeConfig;
use edge::start::Membership;
use tokio::net::{TcpListener, TcpStream};

use super::{Server, soon, until};

pub(crate) const SECRET: &str = "a-secret-of-the-cluster";

/// A file with the secret of some nodes. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct SecretFile(PathBuf);

impl SecretFile {
    pub(crate) fn new(content: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = Self(std::env::temp_dir().join(format!("jackfield-nodes-{}-{count}", std::process::id())));
        file.write(content);
        file
    }

    /// Replaces the content at once, as an operator should.
    pub(crate) fn write(&self, content: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, content).expect("a file in the temporary folder");
        std::fs::rename(new, &self.0).expect("a file in the same folder");
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Where nodes are started.
#[derive(Debug)]
pub(crate) struct Nodes {
    secret: SecretFile,
    bus: MemoryBus,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        Self { secret: SecretFile::new(SECRET), bus: MemoryBus::new() }
    }

    /// What a node needs to belong to them, with another secret if one is given.
    pub(crate) fn membership(&self, secret: Option<&SecretFile>) -> Membership {
        let cluster = ClusterConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            secret_file: secret.unwrap_or(&self.secret).0.clone(),
            heartbeat_ms: 200,
            dead_after_ms: 3_000,
            ..ClusterConfig::default()
        };
        Membership { cluster, bus: self.bus.clone(), ..Membership::alone() }
    }

    pub(crate) async fn start(&self, set: impl FnOnce(&mut EdgeConfig)) -> Server {
        Server::join(&self.membership(None), set).await
    }

    /// Two nodes that know each other.
    pub(crate) async fn two() -> (Self, Server, Server) {
        Self::two_with(|_| {}).await
    }

    pub(crate) async fn two_with(set: impl Fn(&mut EdgeConfig)) -> (Self, Server, Server) {
        let nodes = Self::new();
        let (one, two) = (nodes.start(&set).await, nodes.start(&set).await);
        meet(&[&one, &two]).await;
        (nodes, one, two)
    }

    /// A node that answers nothing by itself.
    pub(crate) async fn impostor(&self) -> Impostor {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound port").to_string();
        let identity = Identity { peer_address: Some(address), ..Identity::new(Role::Edge) };
        let Membership { broker, cluster, bus } = self.membership(None);
        let starting = Adapter::start_on_bus(&bus, &broker, &cluster, &identity, Arc::new(NoSockets), None);
        let adapter = soon("the node id is claimed", starting.expect("an adapter").claimed()).await;
        Impostor { adapter: adapter.expect("a running adapter"), listener }
    }
}

/// Waits until all of them know each other.
pub(crate) async fn meet(servers: &[&Server]) {
    for server in servers {
        let nodes = || adapter(server).nodes().iter().filter(|peer| peer.address.is_some()).count();
        until("the nodes know each other", || nodes() >= servers.len() - 1).await;
    }
}

pub(crate) fn adapter(server: &Server) -> &Adapter {
    server.edge().cluster().expect("a member of a cluster").adapter()
}

/// A member of the cluster whose peer listener the test plays.
#[derive(Debug)]
pub(crate) struct Impostor {
    adapter: Adapter,
    listener: TcpListener,
}

impl Impostor {
    pub(crate) async fn is_known_to(&self, server: &Server) {
        let node = self.adapter.node();
        let is_known = || adapter(server).nodes().iter().any(|peer| peer.node == node);
        until("the impostor is known", is_known).await;
    }

    /// The query of a poll of a session that might live here.
    pub(crate) fn query(&self) -> String {
        format!("EIO=4&transport=polling&sid={}", sid_of(self.adapter.node()))
    }

    pub(crate) async fn accept(&self) -> TcpStream {
        soon("another node connects", self.listener.accept()).await.expect("a connection").0
    }
}

/// A session id that a node might have given.
pub(crate) fn sid_of(node: NodeId) -> String {
    format!("{node}AAAAAAAAAAAAAAAA")
}
