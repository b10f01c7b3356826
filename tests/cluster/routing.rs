//! What is published reaches the nodes that need it, and costs the others nothing: counted at each node's link.

use cluster_proto::broadcast::Selector;
use cluster_proto::rabbitmq::names::{BUCKETS_DEFAULT, Names};
use edge::upstream::Args;
use serde_json::json;
use system_tests::waiting::until;

use crate::brokers::Broker;
use crate::client::{Client, Kind};
use crate::nodes::{Node, Nodes, beside_heartbeats, path, rooms, to};

const NODES: usize = 8;
const EVENTS: usize = 1_000;

/// What a link has received beside heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    /// Everything, whatever became of it.
    received: u64,
    /// Its own messages.
    echoes: u64,
    /// What its header showed to be for nobody here.
    passed_over: u64,
    /// What was decoded and handed to the sockets.
    handed_over: u64,
}

impl Count {
    fn of(node: &Node) -> Self {
        let metrics = node.metrics();
        Self {
            received: beside_heartbeats(metrics),
            echoes: metrics.echoes.get(),
            passed_over: metrics.passed_over.get(),
            handed_over: metrics.messages.get(),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            received: self.received - before.received,
            echoes: self.echoes - before.echoes,
            passed_over: self.passed_over - before.passed_over,
            handed_over: self.handed_over - before.handed_over,
        }
    }
}

/// So many messages, all for sockets here.
fn handed_over(count: u64) -> Count {
    Count { received: count, handed_over: count, ..Count::default() }
}

/// A cluster with a client on each node.
struct Bench {
    // They go first: an edge that closes waits for its clients.
    clients: Vec<Client>,
    nodes: Nodes,
    marks: usize,
}

impl Bench {
    async fn start(broker: &Broker) -> Self {
        let nodes = Nodes::start(&broker.cluster("routing"), NODES).await;
        let mut clients = Vec::new();
        for number in 0..NODES {
            let mut client = nodes.client(number, Kind::USUAL, "/").await;
            client.act(json!([{"join": format!("own {number}")}])).await;
            clients.push(client);
        }
        Self { nodes, clients, marks: 0 }
    }

    fn counts(&self) -> Vec<Count> {
        self.nodes.0.iter().map(Count::of).collect()
    }

    /// What each node receives of what the first one publishes, and how many events each client hears of it.
    async fn during(&mut self, publish: impl AsyncFnOnce(&Nodes, &mut Client)) -> (Vec<Count>, Vec<usize>) {
        let before = self.counts();
        publish(&self.nodes, &mut self.clients[0]).await;
        self.marks += 1;
        let mark = format!("mark {}", self.marks);
        let first = self.nodes.first();
        let echoes = Count::of(first).echoes;
        self.clients[0].act(json!([to(&[], &mark)])).await;
        let mut heard = Vec::new();
        for client in &mut self.clients {
            heard.push(client.names_until(&mark).await.len());
        }
        // The mark itself is one message for each. The first hears it as an echo, whenever that comes.
        until("the echo of the mark", || Count::of(first).echoes > echoes).await;
        let mut counts: Vec<Count> =
            self.counts().into_iter().zip(before).map(|(now, before)| now.since(before)).collect();
        for (number, count) in counts.iter_mut().enumerate() {
            count.received -= 1;
            *(if number == 0 { &mut count.echoes } else { &mut count.handed_over }) -= 1;
        }
        (counts, heard)
    }
}

/// What only the node of this number receives.
fn only(number: usize, count: u64) -> Vec<Count> {
    (0..NODES).map(|at| if at == number { handed_over(count) } else { Count::default() }).collect()
}

fn heard_by(number: usize, count: usize) -> Vec<usize> {
    (0..NODES).map(|at| if at == number { count } else { 0 }).collect()
}

async fn all(broker: &Broker) {
    let mut bench = Bench::start(broker).await;
    one_holder_of_a_busy_room(&mut bench).await;
    single_sockets(&mut bench).await;
    sockets_of_several_nodes(&mut bench, broker).await;
    several_rooms(&mut bench, broker).await;
    nobody(&mut bench).await;
    other_namespaces(&mut bench, broker).await;
    if !matches!(broker, Broker::Redis(_)) {
        rooms_that_share_a_bucket(&mut bench).await;
    }
}

async fn one_holder_of_a_busy_room(bench: &mut Bench) {
    let holder = NODES - 1;
    bench.clients[holder].act(json!([{"join": "busy"}])).await;
    let publish = async |_: &Nodes, client: &mut Client| {
        for _ in 0..EVENTS {
            client.mouth.event("/", None, &json!(["do", to(&["busy"], "busy")]), &[]).await;
        }
    };
    assert_eq!(bench.during(publish).await, (only(holder, EVENTS as u64), heard_by(holder, EVENTS)));
    // Who joins later is among them from then on, and whoever leaves is not.
    bench.clients[3].act(json!([{"join": "busy"}])).await;
    let once = async |_: &Nodes, client: &mut Client| client.act(json!([to(&["busy"], "busy")])).await;
    let (counts, heard) = bench.during(once).await;
    let is_member = |at: usize| at == holder || at == 3;
    let expected: Vec<Count> = (0..NODES).map(|at| handed_over(u64::from(is_member(at)))).collect();
    assert_eq!(counts, expected);
    assert_eq!(heard, (0..NODES).map(|at| usize::from(is_member(at))).collect::<Vec<_>>());
}

async fn single_sockets(bench: &mut Bench) {
    let holder = NODES - 2;
    let id = bench.clients[holder].id.clone();
    let publish = async |nodes: &Nodes, client: &mut Client| {
        for _ in 0..EVENTS / 2 {
            client.mouth.event("/", None, &json!(["do", to(&[&id], "for one")]), &[]).await;
        }
        client.act(json!([])).await;
        nodes.first().emit("/", rooms([&id]), "of the application");
    };
    let count = EVENTS / 2 + 1;
    assert_eq!(bench.during(publish).await, (only(holder, count as u64), heard_by(holder, count)));
    // What stays on the node is published to nobody, and its own part of a list is not either.
    let own = bench.clients[0].id.clone();
    let publish = async |nodes: &Nodes, client: &mut Client| {
        client.act(json!([to(&[&own], "own")])).await;
        emit_and_wait(nodes, client, &[&own]).await;
    };
    assert_eq!(bench.during(publish).await, (vec![Count::default(); NODES], heard_by(0, 1)));
    let publish = async |nodes: &Nodes, client: &mut Client| {
        client.act(json!([to(&[&own, &id], "both")])).await;
        emit_and_wait(nodes, client, &[&id, &own]).await;
    };
    let mut heard = heard_by(holder, 2);
    heard[0] = 1;
    assert_eq!(bench.during(publish).await, (only(holder, 2), heard));
}

/// The application of the first node sends to sockets, of which one is the client's: the two are in no order.
async fn emit_and_wait(nodes: &Nodes, client: &mut Client, ids: &[&String]) {
    let selector = Selector { rooms: ids.iter().map(|id| (*id).clone()).collect(), except: Vec::new() };
    nodes.first().emit("/", selector, "of the application");
    client.wait("what the application sends", |heard| heard.name() == "of the application").await;
}

/// One message for each owner, however many of its sockets are meant.
async fn sockets_of_several_nodes(bench: &mut Bench, broker: &Broker) {
    let mut second = bench.nodes.client(2, Kind::USUAL, "/").await;
    // It may be on another shard, which is not done with the mark of before.
    bench.nodes.0[2].emit("/", rooms([&second.id]), "welcome");
    second.names_until("welcome").await;
    let ids = [&bench.clients[2].id, &second.id, &bench.clients[5].id].map(String::clone);
    let published = bench.nodes.first().metrics().published.get();
    let publish =
        async |_: &Nodes, client: &mut Client| client.act(json!([{"to": ids, "emit": ["some"]}])).await;
    let (counts, heard) = bench.during(publish).await;
    let is_owner = |at: usize| at == 2 || at == 5;
    assert_eq!(counts, (0..NODES).map(|at| handed_over(u64::from(is_owner(at)))).collect::<Vec<_>>());
    assert_eq!(heard, (0..NODES).map(|at| usize::from(is_owner(at))).collect::<Vec<_>>());
    assert_eq!(second.next().await.name(), "some");
    assert_eq!(second.next().await.name(), format!("mark {}", bench.marks));
    // RabbitMQ spreads one message by itself. Heartbeats may come between, and the mark is one.
    let published = bench.nodes.first().metrics().published.get() - published;
    assert_eq!(published, if matches!(broker, Broker::Redis(_)) { 3 } else { 2 });
    second.mouth.event("/", None, &json!(["do", {"kick": "session"}]), &[]).await;
    second.is_closed().await;
}

/// On Redis every node looks for itself; on RabbitMQ the rooms say where to.
async fn several_rooms(bench: &mut Bench, broker: &Broker) {
    let is_redis = matches!(broker, Broker::Redis(_));
    for number in [4, 6] {
        bench.clients[number].act(json!([{"join": format!("several {number}")}])).await;
    }
    let publish = async |nodes: &Nodes, client: &mut Client| {
        let echoes = Count::of(nodes.first()).echoes;
        client.act(json!([to(&["several 4", "several 6", "nobody"], "rooms")])).await;
        if is_redis {
            until("the echo", || Count::of(nodes.first()).echoes > echoes).await;
        }
    };
    let (counts, heard) = bench.during(publish).await;
    let is_member = |at: usize| at == 4 || at == 6;
    assert_eq!(heard, (0..NODES).map(|at| usize::from(is_member(at))).collect::<Vec<_>>());
    for (at, count) in counts.into_iter().enumerate() {
        let expected = match at {
            0 if is_redis => Count { received: 1, echoes: 1, ..Count::default() },
            _ => handed_over(u64::from(is_redis || is_member(at))),
        };
        assert_eq!(count, expected, "node {at}");
    }
}

async fn nobody(bench: &mut Bench) {
    let publish = async |_: &Nodes, client: &mut Client| {
        for room in ["empty", "AAAAabcdefghijklmnop", "user:nobody"] {
            client.act(json!([to(&[room], "never")])).await;
        }
    };
    assert_eq!(bench.during(publish).await, (vec![Count::default(); NODES], vec![0; NODES]));
}

/// A node without sockets in a namespace hears nothing of it.
async fn other_namespaces(bench: &mut Bench, broker: &Broker) {
    let mut there = bench.nodes.client(1, Kind::USUAL, "/a").await;
    let publish = async |nodes: &Nodes, _: &mut Client| {
        for _ in 0..100 {
            nodes.first().emit("/a", rooms([]), "of /a");
            nodes.first().emit("/a", rooms(["own 3"]), "never");
        }
        let found = nodes.first().cluster.fetch(&path("/a"), rooms([])).await;
        assert_eq!(found.sockets.len(), 1);
    };
    let (counts, heard) = bench.during(publish).await;
    assert_eq!(heard, vec![0; NODES]);
    for _ in 0..100 {
        assert_eq!(there.next().await.name(), "of /a");
    }
    let is_redis = matches!(broker, Broker::Redis(_));
    for (at, count) in counts.into_iter().enumerate() {
        match at {
            // The answers to its question.
            0 => assert_eq!((count.handed_over, count.passed_over), (0, 0), "{count:?}"),
            1 => assert_eq!(count, handed_over(101)),
            // RabbitMQ has no count of who listens, so each node is asked and says that it has nobody.
            _ => assert_eq!(count, handed_over(u64::from(!is_redis)), "node {at}"),
        }
    }
}

/// A room that shares the bucket of another is told apart by its hash, before anything is decoded.
async fn rooms_that_share_a_bucket(bench: &mut Bench) {
    let (names, root) = (Names::new("any", BUCKETS_DEFAULT), path("/"));
    let bucket = names.bucket(&root, "shared");
    let other = (0..).map(|number: u32| format!("other {number}"));
    let mut other = other.filter(|room| names.bucket(&root, room) == bucket);
    let other = other.next().expect("numbers do not end");
    bench.clients[2].act(json!([{"join": "shared"}])).await;
    bench.clients[6].act(json!([{"join": other}])).await;
    let publish = async |nodes: &Nodes, _: &mut Client| {
        for _ in 0..EVENTS {
            let selector = Selector::room("shared");
            nodes.first().emit_args("/", selector, Args::text(r#"["shared"]"#));
        }
    };
    let (counts, heard) = bench.during(publish).await;
    assert_eq!(heard, heard_by(2, EVENTS));
    for (at, count) in counts.into_iter().enumerate() {
        let expected = match at {
            2 => handed_over(EVENTS as u64),
            6 => Count { received: EVENTS as u64, passed_over: EVENTS as u64, ..Count::default() },
            _ => Count::default(),
        };
        assert_eq!(count, expected, "node {at}");
    }
}

fn check(broker: &Broker) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(all(broker));
}

#[test]
fn memory() {
    check(&Broker::Memory);
}

#[test]
fn redis() {
    check(&Broker::redis());
}

#[test]
fn rabbitmq() {
    check(&Broker::rabbitmq());
}
