//! What happens when a broker fails: local life goes on, the state is told, and afterwards everything is as it was.

use std::time::{Duration, Instant};

use adapter::Status;
use adapter::adapter::Identity;
use adapter::broker::{Gap, PublishError};
use adapter::cluster::peers::PeerEvent;
use adapter::interest::JoinOutcome;
use cluster_proto::heartbeat::Role;
use cluster_proto::identity::NodeId;
use system_tests::brokers::{RabbitmqServer, RedisServer, Relay, Sentinels, wait_until};

use crate::adapter::node::{Cluster, DEAD_AFTER_MS, TestNode, WITHIN};

/// How soon after its broker a node must be whole again.
const WHOLE_WITHIN: Duration = Duration::from_secs(5);
const ROOMS: usize = 1_500;

/// A broker that can be mistreated.
trait Server {
    fn port(&self) -> u16;
    fn stop(&mut self, is_kill: bool);
    fn restart(&mut self);
    fn freeze(&self);
    fn thaw(&self);
    fn cluster(&self, port: u16) -> Cluster;
}

impl Server for RedisServer {
    fn port(&self) -> u16 {
        self.port()
    }

    fn stop(&mut self, is_kill: bool) {
        self.stop(is_kill);
    }

    fn restart(&mut self) {
        self.restart();
    }

    fn freeze(&self) {
        self.freeze();
    }

    fn thaw(&self) {
        self.thaw();
    }

    fn cluster(&self, port: u16) -> Cluster {
        Cluster::redis(&format!("redis://127.0.0.1:{port}"))
    }
}

impl Server for RabbitmqServer {
    fn port(&self) -> u16 {
        self.port()
    }

    fn stop(&mut self, is_kill: bool) {
        self.stop(is_kill);
    }

    fn restart(&mut self) {
        self.restart();
    }

    fn freeze(&self) {
        self.freeze();
    }

    fn thaw(&self) {
        self.thaw();
    }

    fn cluster(&self, port: u16) -> Cluster {
        Cluster::rabbitmq(&format!("amqp://127.0.0.1:{port}"))
    }
}

#[test]
fn redis_faults() {
    all(&mut RedisServer::start());
}

#[test]
fn rabbitmq_faults() {
    all(&mut RabbitmqServer::start());
}

/// One kind of mistreatment, with nodes of its own.
type Fault = fn(&mut dyn Server);

fn all(server: &mut dyn Server) {
    let cases: [(&str, Fault); 6] = [
        ("an id is claimed once", an_id_is_claimed_once),
        ("a node that is cut off is dead, and back", a_node_that_is_cut_off_is_dead_and_back),
        ("connections are cut", connections_are_cut),
        ("the broker freezes", the_broker_freezes),
        ("the broker restarts", |server| the_broker_ends(server, false)),
        ("the broker is killed", |server| the_broker_ends(server, true)),
    ];
    for (name, case) in cases {
        let began = Instant::now();
        case(server);
        eprintln!("{name}: {} ms", began.elapsed().as_millis());
    }
}

fn room(number: usize) -> String {
    format!("room {number}")
}

/// Two nodes, the second with many rooms.
fn pair(cluster: &Cluster) -> (TestNode, TestNode) {
    let mut nodes = cluster.edges(2);
    let (b, a) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    a.joined("/", None);
    b.joined("/", None);
    for number in 0..ROOMS {
        b.adapter.join(&crate::adapter::node::namespace("/"), Some(&room(number)), Box::new(|_| {}));
    }
    b.joined("/", Some("the last"));
    (a, b)
}

fn is_whole(a: &TestNode, b: &TestNode) {
    let began = Instant::now();
    wait_until("both nodes are whole", WHOLE_WITHIN, || a.is_ready() && b.is_ready());
    eprintln!("  whole after {} ms", began.elapsed().as_millis());
}

/// Every subscription is there again, and nothing arrives twice.
fn hears_everything_once(a: &TestNode, b: &TestNode) {
    b.forget();
    for number in (0..ROOMS).step_by(100).chain([ROOMS - 1]) {
        a.publish("/", &[&room(number)], &number.to_string());
    }
    a.publish("/", &["joined meanwhile"], "meanwhile");
    a.publish("/", &[&b.sid(1)], "sid");
    a.publish("/", &[], "end");
    b.hears("end");
    let mut events = b.events();
    let count = events.len();
    events.sort();
    events.dedup();
    assert_eq!((count, events.len()), (ROOMS / 100 + 1 + 3, count), "{events:?}");
}

fn is_degraded(node: &TestNode) {
    wait_until("the state is told", WITHIN, || matches!(node.adapter.status(), Status::Degraded(_)));
    assert_eq!(node.confirmed("/", &[], "lost"), Err(PublishError::Away));
    assert_eq!(
        node.adapter.publish(crate::adapter::node::broadcast("/", &[], "lost")),
        Err(PublishError::Away)
    );
}

fn joins_meanwhile(b: &TestNode) {
    let began = Instant::now();
    assert_eq!(b.join("/", Some("joined meanwhile")), JoinOutcome::Degraded);
    assert!(began.elapsed() < Duration::from_secs(2), "a join does not wait for a broker that is away");
}

fn nobody_died(nodes: [&TestNode; 2]) {
    for node in nodes {
        node.ears.change(|heard| {
            let lost = |event: &PeerEvent| matches!(event, PeerEvent::Died(_) | PeerEvent::OwnIdTaken);
            assert!(!heard.peers.iter().any(lost), "{:?}", heard.peers);
            assert_eq!(heard.identity_lost, 0);
            assert!(heard.gaps.contains(&Gap::Reconnected), "{:?}", heard.gaps);
        });
    }
}

fn the_broker_ends(server: &mut dyn Server, is_kill: bool) {
    let cluster = server.cluster(server.port());
    let (a, b) = pair(&cluster);
    server.stop(is_kill);
    is_degraded(&a);
    is_degraded(&b);
    joins_meanwhile(&b);
    // Longer than a silent node would live.
    std::thread::sleep(Duration::from_millis(DEAD_AFTER_MS + 500));
    server.restart();
    is_whole(&a, &b);
    hears_everything_once(&a, &b);
    nobody_died([&a, &b]);
}

fn the_broker_freezes(server: &mut dyn Server) {
    let cluster = server.cluster(server.port());
    let (a, b) = pair(&cluster);
    let threads = threads();
    server.freeze();
    // In the first moments nobody can know: what is published then is undecided.
    assert_eq!(a.confirmed("/", &[], "undecided"), Err(PublishError::Unknown));
    is_degraded(&a);
    is_degraded(&b);
    joins_meanwhile(&b);
    std::thread::sleep(Duration::from_secs(3));
    assert!(self::threads() < threads + 12, "{} threads, {threads} before", self::threads());
    server.thaw();
    is_whole(&a, &b);
    hears_everything_once(&a, &b);
    nobody_died([&a, &b]);
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn connections_are_cut(server: &mut dyn Server) {
    let relay = Relay::start(server.port());
    let cluster = server.cluster(relay.port());
    let (a, b) = pair(&cluster);
    for _ in 0..3 {
        let connects = [&a, &b].map(|node| node.adapter.metrics().connects.get());
        relay.cut();
        let has_reconnected = |node: &TestNode, before: u64| node.adapter.metrics().connects.get() > before;
        wait_until("new connections", WHOLE_WITHIN, || {
            has_reconnected(&a, connects[0]) && has_reconnected(&b, connects[1])
        });
        is_whole(&a, &b);
    }
    b.joined("/", Some("joined meanwhile"));
    hears_everything_once(&a, &b);
    nobody_died([&a, &b]);
}

fn a_node_that_is_cut_off_is_dead_and_back(server: &mut dyn Server) {
    let relay = Relay::start(server.port());
    let a = server.cluster(server.port()).edge();
    let b = server.cluster(relay.port()).edge();
    a.sees(1);
    b.sees(1);
    let node = b.adapter.node();
    relay.set_open(false);
    relay.cut();
    a.ears.wait("its death", |heard| heard.peers.contains(&PeerEvent::Died(node)).then_some(()));
    a.sees(0);
    assert_eq!(a.adapter.metrics().nodes_died.get(), 1);
    assert_eq!(b.adapter.nodes().len(), 1, "who is cut off counts nobody as dead");
    relay.set_open(true);
    a.sees(1);
    wait_until("it is whole", WITHIN, || b.is_ready());
    assert_eq!(b.adapter.node(), node, "it keeps its id");
}

fn an_id_is_claimed_once(server: &mut dyn Server) {
    let cluster = server.cluster(server.port());
    let mut identity = Identity::new(Role::Edge);
    identity.node = Some(NodeId::from_bytes([1, 2, 3]));
    let first = cluster.node(&identity);
    let (second, ears) = cluster.begin(&identity);
    ears.wait("the refusal", |heard| (heard.identity_lost > 0).then_some(()));
    assert!(matches!(second.status(), Status::NotReady(_)));
    drop(second);
    first.joined("/", None);
    assert_eq!(first.ears.change(|heard| heard.identity_lost), 0);
    drop(first);
    // Given up, it is free for the next.
    let third = cluster.node(&identity);
    assert_eq!(third.adapter.node(), NodeId::from_bytes([1, 2, 3]));
}

#[test]
fn a_memory_bus_that_is_taken_away_comes_back() {
    let (cluster, bus) = Cluster::memory_with_bus();
    let (a, b) = pair(&cluster);
    bus.set_up(false);
    is_degraded(&a);
    is_degraded(&b);
    joins_meanwhile(&b);
    bus.set_up(true);
    is_whole(&a, &b);
    hears_everything_once(&a, &b);
    nobody_died([&a, &b]);
}

#[test]
fn clusters_with_different_names_hear_nothing_of_each_other() {
    let server = RedisServer::start();
    let one = Cluster::redis(&server.url());
    let mut two = Cluster::redis(&server.url());
    two.broker.prefix = "socket.io2".to_owned();
    let mut three = Cluster::redis(&server.url());
    three.broker.prefix = "socket.*".to_owned();
    let nodes: Vec<TestNode> =
        [&one, &two, &three].into_iter().flat_map(|cluster| cluster.edges(2)).collect();
    for node in &nodes {
        node.joined("/", None);
        node.joined("/", Some("r"));
    }
    for (number, node) in nodes.iter().enumerate() {
        node.publish("/", &[], &format!("all {number}"));
        node.publish("/", &["r"], &format!("room {number}"));
        for other in &nodes {
            node.publish("/", &[&other.sid(1)], &format!("sid {number}"));
        }
        node.publish("/", &[], &format!("end {number}"));
    }
    for (number, node) in nodes.iter().enumerate() {
        let partner = number ^ 1;
        node.hears(&format!("end {partner}"));
        let expected = ["all", "room", "sid", "end"].map(|what| format!("{what} {partner}"));
        assert_eq!(node.events(), expected, "node {number}");
        assert_eq!(node.adapter.nodes().len(), 1);
    }
}

#[test]
fn sentinel_leads_to_the_new_primary() {
    let (mut primary, replica) = (RedisServer::start(), RedisServer::start());
    let sentinels = Sentinels::start(&primary, &replica);
    let cluster = Cluster::redis(&sentinels.url());
    let (a, b) = pair(&cluster);
    b.joined("/", Some("joined meanwhile"));
    hears_everything_once(&a, &b);
    primary.stop(true);
    is_degraded(&a);
    wait_until("the failover", Duration::from_secs(20), || replica.cli(&["role"]).starts_with("master"));
    is_whole(&a, &b);
    hears_everything_once(&a, &b);
    nobody_died([&a, &b]);
}
