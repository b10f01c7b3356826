//! The edges of one cluster, all in this process, each with puppets that share what they hear.

use std::net::SocketAddr;
use std::time::Duration;

use adapter::metrics::Metrics;
use cluster_proto::broadcast::{BroadcastFlags, Selector};
use cluster_proto::identity::NodeId;
use edge::cluster::Cluster;
use edge::config::EdgeConfig;
use edge::start::{Edge, Joining, Membership};
use edge::upstream::Args;
use serde_json::{Value, json};
use socketio_proto::namespace::NamespacePath;
use system_tests::puppet::{Puppet, Strings};
use system_tests::waiting::{soon, until};

use crate::client::{Client, Kind};

/// The namespaces that clients may join.
const NAMESPACES: [&str; 6] = ["/", "/a", "/ab", "/a/b", "/a#b", "/x*"];

/// Longer than any test takes: clients here do without heartbeats.
const NEVER_MS: u64 = 3_600_000;
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// One edge.
#[derive(Debug)]
pub(crate) struct Node {
    edge: Option<Edge>,
    pub(crate) address: SocketAddr,
    /// All sockets of the cluster, as the application of this node reaches them.
    pub(crate) cluster: Cluster,
    /// What its application hears.
    pub(crate) strings: Strings,
}

impl Node {
    pub(crate) fn id(&self) -> NodeId {
        self.cluster.adapter().node()
    }

    /// What its link to the cluster counts.
    pub(crate) fn metrics(&self) -> &Metrics {
        self.cluster.adapter().metrics()
    }

    /// A number of the edge as Prometheus would read it.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.edge.as_ref().expect("a running edge").metrics().render();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().expect("a number")
    }

    /// Sends an event without arguments to everybody whom the selector means.
    pub(crate) fn emit(&self, namespace: &str, selector: Selector, event: &str) {
        self.emit_args(namespace, selector, Args::text(json!([event]).to_string()));
    }

    pub(crate) fn emit_args(&self, namespace: &str, selector: Selector, args: Args) {
        let emitted = self.cluster.emit(&path(namespace), selector, args, BroadcastFlags::default());
        emitted.expect("a valid event");
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // All at once: each may have to wait for clients.
        std::thread::scope(|scope| {
            for edge in self.0.iter_mut().filter_map(|node| node.edge.take()) {
                scope.spawn(move || edge.close(CLOSE_WITHIN));
            }
        });
    }
}

/// How many messages a link has received that were no heartbeats.
pub(crate) fn beside_heartbeats(metrics: &Metrics) -> u64 {
    loop {
        let heartbeats = metrics.heartbeats.get();
        let received = metrics.received.get();
        // Between the two looks there was none.
        if heartbeats == metrics.heartbeats.get() {
            return received - heartbeats;
        }
    }
}

/// A selector of rooms.
pub(crate) fn rooms<const N: usize>(rooms: [&str; N]) -> Selector {
    Selector { rooms: rooms.map(str::to_owned).to_vec(), except: Vec::new() }
}

/// A selector of rooms, without others.
pub(crate) fn except<const N: usize, const M: usize>(rooms: [&str; N], except: [&str; M]) -> Selector {
    Selector { rooms: rooms.map(str::to_owned).to_vec(), except: except.map(str::to_owned).to_vec() }
}

pub(crate) fn path(namespace: &str) -> NamespacePath {
    NamespacePath::parse(namespace).expect("a namespace")
}

/// Begins to start an edge; every second one has two shards.
fn join(membership: &Membership, number: usize, set: impl Fn(&mut EdgeConfig)) -> (Joining, Strings) {
    let mut config = EdgeConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        namespaces: NAMESPACES.map(str::to_owned).to_vec(),
        shards: 2 - number % 2,
        ping_interval_ms: NEVER_MS,
        ping_timeout_ms: NEVER_MS,
        ..EdgeConfig::default()
    };
    set(&mut config);
    let strings = Strings::default();
    let puppets = strings.clone();
    let edge =
        Edge::join_with_upstream(config, membership, false, move |_| Box::new(Puppet(puppets.clone())));
    (edge.expect("an edge on free ports"), strings)
}

async fn claimed((edge, strings): (Joining, Strings)) -> Node {
    let edge = soon("a node id", edge.claimed()).await.expect("an edge");
    let cluster = edge.cluster().expect("a cluster").clone();
    Node { address: edge.local_addr(), cluster, edge: Some(edge), strings }
}

/// The edges of one cluster.
#[derive(Debug)]
pub(crate) struct Nodes(pub(crate) Vec<Node>);

impl Nodes {
    /// So many edges that all know each other.
    pub(crate) async fn start(membership: &Membership, count: usize) -> Self {
        Self::start_with(membership, count, |_| {}).await
    }

    /// As [`Nodes::start`], with what `set` changes in the configuration of each.
    pub(crate) async fn start_with(
        membership: &Membership,
        count: usize,
        set: impl Fn(&mut EdgeConfig),
    ) -> Self {
        let joining: Vec<_> = (0..count).map(|number| join(membership, number, &set)).collect();
        let mut nodes = Self(Vec::new());
        for one in joining {
            nodes.0.push(claimed(one).await);
        }
        nodes.all_see(count - 1).await;
        nodes
    }

    /// One more node, as soon as clients can connect to it: the others need not know it yet.
    pub(crate) async fn add(&mut self, membership: &Membership) {
        self.add_with(membership, |_| {}).await;
    }

    /// As [`Nodes::add`], with what `set` changes in its configuration.
    pub(crate) async fn add_with(&mut self, membership: &Membership, set: impl Fn(&mut EdgeConfig)) {
        self.0.push(claimed(join(membership, self.0.len(), set)).await);
    }

    /// Ends the last node, as SIGTERM does, and waits until the others know.
    pub(crate) async fn remove(&mut self) {
        let mut node = self.0.pop().expect("a node");
        let edge = node.edge.take().expect("a running edge");
        let closing = tokio::task::spawn_blocking(move || edge.close(CLOSE_WITHIN));
        soon("the edge closes", closing).await.expect("close does not panic");
        drop(node);
        self.all_see(self.0.len() - 1).await;
    }

    /// Waits until every node knows so many others.
    pub(crate) async fn all_see(&self, others: usize) {
        for node in &self.0 {
            let known = || node.cluster.adapter().nodes();
            until(&format!("{} knows {others} others, not {:?}", node.id(), known()), || {
                known().len() == others
            })
            .await;
        }
    }

    /// Ends every session, and waits until nothing is left of any.
    pub(crate) async fn empty(&self) {
        const GAUGES: [&str; 5] = ["sockets", "rooms", "namespaces", "acks_pending", "turns_bytes"];
        for node in &self.0 {
            let left = || GAUGES.map(|gauge| node.metric(&format!("jackfield_{gauge}")));
            for namespace in NAMESPACES.map(|pattern| pattern.replace('*', "1")) {
                node.cluster.disconnect(&path(&namespace), Selector::default(), true).await;
            }
            until(&format!("none of {GAUGES:?} is left"), || left() == [0; GAUGES.len()]).await;
        }
    }

    pub(crate) fn first(&self) -> &Node {
        &self.0[0]
    }

    /// A node that is not the first one, if there is any.
    pub(crate) fn last(&self) -> &Node {
        &self.0[self.0.len() - 1]
    }

    /// A client of a kind on a node.
    pub(crate) async fn client(&self, node: usize, kind: Kind, namespace: &str) -> Client {
        Client::connect(node, self.0[node].address, kind, namespace).await
    }

    /// A client of each kind on each node.
    pub(crate) async fn crowd(&self, namespace: &str) -> Vec<Client> {
        let mut crowd = Vec::new();
        for node in 0..self.0.len() {
            for kind in Kind::ALL {
                crowd.push(self.client(node, kind, namespace).await);
            }
        }
        crowd
    }

    /// One usual client on each node, or two where there is only one node.
    pub(crate) async fn few(&self, namespace: &str) -> Vec<Client> {
        let mut few = Vec::new();
        for node in 0..self.0.len().max(2) {
            few.push(self.client(node % self.0.len(), Kind::USUAL, namespace).await);
        }
        few
    }
}

/// Has a client's own actions be followed by an event for everybody, and gives what each of the crowd has heard before.
pub(crate) async fn hear_all(crowd: &mut [Client], mark: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for client in crowd {
        all.push(client.names_until(mark).await);
    }
    all
}

/// An event for these rooms, as a puppet emits it.
pub(crate) fn to(rooms: &[&str], event: &str) -> Value {
    json!({"to": rooms, "emit": [event]})
}
