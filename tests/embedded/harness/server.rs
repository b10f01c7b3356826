//! An edge in this process with a [`Puppet`] behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge::config::EdgeConfig;
use edge::ids::SocketId;
use edge::metrics::Metrics;
use edge::start::{Edge, Membership};
use edge::upstream::Upstream;
use system_tests::puppet::{Puppet, Strings};

use super::{Client, DEADLINE, LOOK, Options, Polling, soon, until};

/// How long an edge may take to close when a test is over.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// A running edge. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Server {
    edge: Option<Edge>,
    metrics: Arc<Metrics>,
    pub(crate) address: SocketAddr,
    /// What the application hears, and the gates before its answers.
    pub(crate) strings: Strings,
}

impl Server {
    /// An edge with one shard, the namespaces `/` and `/custom`, and whatever `set` changes.
    pub(crate) fn start(set: impl FnOnce(&mut EdgeConfig)) -> Self {
        let strings = Strings::default();
        let shared = strings.clone();
        let edge = Edge::start_with_upstream(config(set), false, move |_| Box::new(Puppet(shared.clone())))
            .expect("an edge on a free port");
        Self { address: edge.local_addr(), metrics: edge.metrics(), edge: Some(edge), strings }
    }

    /// The same as a member of a cluster.
    pub(crate) async fn join(membership: &Membership, set: impl FnOnce(&mut EdgeConfig)) -> Self {
        let strings = Strings::default();
        let shared = strings.clone();
        let upstream = move |_| -> Box<dyn Upstream> { Box::new(Puppet(shared.clone())) };
        let joining = Edge::join_with_upstream(config(set), membership, false, upstream)
            .expect("an edge on a free port");
        let edge = soon("the node id is claimed", joining.claimed()).await.expect("an edge");
        Self { address: edge.local_addr(), metrics: edge.metrics(), edge: Some(edge), strings }
    }

    pub(crate) fn edge(&self) -> &Edge {
        self.edge.as_ref().expect("a running edge")
    }

    /// A counter as Prometheus would read it: name, and labels if it has any.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().expect("a number")
    }

    /// How many sessions ended for a reason.
    pub(crate) fn closed_for(&self, reason: &str) -> u64 {
        self.metric(&format!("jackfield_sessions_closed_total{{reason=\"{reason}\"}}"))
    }

    /// Waits until a counter has reached a value.
    pub(crate) async fn until(&self, name: &str, at_least: u64) {
        until(&format!("{name} >= {at_least}"), || self.metric(name) >= at_least).await;
    }

    /// Waits until a gauge is back at zero.
    pub(crate) async fn until_zero(&self, name: &str) {
        until(&format!("{name} is 0"), || self.metric(name) == 0).await;
    }

    /// Waits until the application has heard a line that starts with `head`.
    pub(crate) async fn hears(&self, head: &str) {
        until(&format!("the application hears {head:?}"), || !self.strings.heard_of(head).is_empty()).await;
    }

    /// Waits until no session is left and every gauge says so.
    pub(crate) async fn empties(&self) {
        const GAUGES: [&str; 7] = [
            "sockets",
            "rooms",
            "namespaces",
            "acks_pending",
            "outbox_bytes",
            "inbound_partial_bytes",
            "turns_bytes",
        ];
        let left = || GAUGES.map(|gauge| self.metric(&format!("jackfield_{gauge}")));
        let since = Instant::now();
        while self.metrics.sessions() > 0 || left() != [0; GAUGES.len()] {
            let sessions = self.metrics.sessions();
            assert!(since.elapsed() < DEADLINE, "{sessions} sessions, {GAUGES:?} {:?}", left());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends the edge as SIGTERM does.
    pub(crate) async fn close(&mut self) {
        let edge = self.edge.take().expect("a running edge");
        let closing = tokio::task::spawn_blocking(move || edge.close(CLOSE_WITHIN));
        soon("the edge closes", closing).await.expect("close does not panic");
    }

    /// A WebSocket session of protocol 5 that has joined nothing.
    pub(crate) async fn session(&self) -> Client {
        Client::open(self.address, &Options::default()).await
    }

    /// A WebSocket session of protocol 5 that has joined `/`.
    pub(crate) async fn client(&self) -> Client {
        self.client_with(&Options::default()).await
    }

    pub(crate) async fn client_with(&self, options: &Options<'_>) -> Client {
        let mut client = Client::open(self.address, options).await;
        client.join("/").await;
        client
    }

    /// So many of them.
    pub(crate) async fn clients(&self, count: usize) -> Vec<Client> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(self.client().await);
        }
        clients
    }

    /// A client whose socket lives on this shard.
    pub(crate) async fn client_on(&self, shard: usize) -> Client {
        loop {
            // The acceptor evens connections out, so the ones that are not wanted must stay for a while.
            let clients = self.clients(8).await;
            let on_shard = |client: &Client| SocketId::parse(&client.id).expect("an id").shard() == shard;
            if let Some(found) = clients.into_iter().find(on_shard) {
                return found;
            }
        }
    }

    /// A polling session of protocol 5 that has joined nothing.
    pub(crate) async fn polling(&self) -> Polling {
        Polling::open(self.address, "EIO=4").await
    }
}

fn config(set: impl FnOnce(&mut EdgeConfig)) -> EdgeConfig {
    let mut config = EdgeConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        namespaces: vec!["/".to_owned(), "/custom".to_owned()],
        shards: 1,
        ..EdgeConfig::default()
    };
    set(&mut config);
    config
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(edge) = self.edge.take() {
            edge.close(CLOSE_WITHIN);
        }
    }
}
