//! What clients notice when a broker fails: nothing, as long as what they want is on their own node.
//!
//! Two edges behind plain round robin, on a real broker that is mistreated. Polling clients keep their sessions, echoes
//! and broadcasts within a node never pause, joins are acknowledged; afterwards every subscription is whole within five
//! seconds, everybody gets everything once, and the counters tell what happened.

use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::brokers::{RabbitmqCluster, RabbitmqServer, RedisServer, Relay, Sentinels, wait_until};
use system_tests::nodes::Nodes;
use system_tests::{Program, TestEdge, spawn_node};

/// How long one step of the clients may take; each has shorter deadlines of its own.
const STEP_WITHIN: Duration = Duration::from_secs(60);
/// How soon after its broker a node must be whole again.
const WHOLE_WITHIN: Duration = Duration::from_secs(5);
/// How long an echo may take on a machine that is busy with other tests; a pause for the broker would be seconds.
const ECHO_MS_MAX: u64 = 1_500;

/// The nodes, and the clients that live through what is done to the broker.
struct Outage {
    nodes: Nodes,
    clients: Program,
}

impl Outage {
    fn begin(sets: &[&str]) -> Self {
        let nodes = Nodes::start(2, sets);
        let urls: Vec<String> =
            std::iter::once(nodes.url()).chain(nodes.edges.iter().map(TestEdge::url)).collect();
        let args: Vec<&str> = urls.iter().map(String::as_str).collect();
        let mut clients = spawn_node("cluster/outage.mjs", &args, &[]);
        clients.line_starting("ready", STEP_WITHIN);
        let mut outage = Self { nodes, clients };
        outage.everybody_hears_everything_once();
        outage
    }

    fn ask(&mut self, command: &str, answer: &str) -> String {
        self.clients.send_line(command);
        self.clients.line_starting(answer, STEP_WITHIN)
    }

    fn everybody_hears_everything_once(&mut self) {
        assert_eq!(self.ask("round", "round"), "round 0 0", "missing and twice, of all clients");
    }

    /// While the broker is away: local life goes on, and joins do not wait.
    fn life_goes_on(&mut self) {
        for edge in &self.nodes.edges {
            wait_until("the broker is missed", STEP_WITHIN, || edge.metric("jackfield_broker_up") == 0);
            assert_eq!(edge.ops_page("/readyz").0, 200, "a node without its broker still serves its clients");
        }
        // At once: Sentinels need little more than a second.
        let slowest: u64 =
            self.ask("join", "join").trim_start_matches("join ").parse().expect("milliseconds");
        assert!(slowest < ECHO_MS_MAX, "a join took {slowest} ms");
        assert_eq!(self.ask("local", "round"), "round 0 0", "missing and twice, within each node");
        for edge in &self.nodes.edges {
            assert!(edge.metric("jackfield_broker_publish_refused_total") > 0, "what is lost is counted");
            assert!(edge.metric("jackfield_broker_joins_degraded_total") > 0, "joins are marked");
            assert_eq!(edge.metric("jackfield_cluster_nodes"), 1, "membership is frozen");
            let waiting = edge.metric("jackfield_broker_publish_bytes");
            assert!(waiting < 1_000_000, "{waiting} bytes wait for a broker that is away");
        }
    }

    /// Something happens to the connections, and every node has noticed.
    fn loses_the_broker(&self, what_happens: impl FnOnce()) {
        let lost = || self.nodes.edges.iter().map(|edge| edge.metric("jackfield_broker_disconnects_total"));
        let before: Vec<u64> = lost().collect();
        what_happens();
        wait_until("every node has noticed", STEP_WITHIN, || {
            lost().zip(&before).all(|(now, before)| now > *before)
        });
    }

    /// The broker is back since `back`.
    fn recovers(&mut self, back: Instant) {
        for edge in &self.nodes.edges {
            wait_until("a node is whole again", WHOLE_WITHIN, || edge.metric("jackfield_broker_whole") == 1);
        }
        eprintln!("  whole after {} ms", back.elapsed().as_millis());
        self.everybody_hears_everything_once();
    }

    /// What the clients have noticed of it all.
    fn ends(mut self) {
        let report = self.ask("report", "report");
        let report: Value = serde_json::from_str(report.trim_start_matches("report ")).expect("JSON");
        eprintln!("  {report}");
        assert_eq!(report["disconnects"], 0, "{report}");
        assert_eq!(report["unanswered"], 0, "{report}");
        assert!(report["slowest_ms"].as_u64().expect("a number") < ECHO_MS_MAX, "{report}");
        for edge in &self.nodes.edges {
            assert!(edge.metric("jackfield_broker_gaps_total") > 0, "a gap is told");
            assert_eq!(edge.metric("jackfield_cluster_nodes_died_total"), 0, "nobody was taken for dead");
            assert_eq!(edge.metric("jackfield_cluster_claims_lost_total"), 0);
        }
    }
}

fn redis_sets(url: &str) -> [String; 2] {
    ["broker.kind=redis".to_owned(), format!("broker.redis.url={url}")]
}

fn rabbitmq_sets(urls: &[String]) -> [String; 2] {
    ["broker.kind=rabbitmq".to_owned(), format!("broker.rabbitmq.urls={}", urls.join(","))]
}

fn begin(sets: &[String]) -> Outage {
    Outage::begin(&sets.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A broker that stops, is killed, and loses its connections, one after the other under the same clients.
macro_rules! survives_what_happens_to {
    ($module:ident, $server:ty, $sets:expr) => {
        mod $module {
            use super::*;

            #[test]
            fn a_restart_a_kill_and_a_cut() {
                let mut server = <$server>::start();
                let relay = Relay::start(server.port());
                let mut outage = begin(&$sets(relay.port()));
                for is_kill in [false, true] {
                    server.stop(is_kill);
                    outage.life_goes_on();
                    server.restart();
                    outage.recovers(Instant::now());
                }
                outage.loses_the_broker(|| relay.cut());
                outage.recovers(Instant::now());
                outage.ends();
            }

            /// A frozen broker keeps its connections: only silence tells.
            #[test]
            fn a_minute_of_silence() {
                let server = <$server>::start();
                let mut outage = begin(&$sets(server.port()));
                let frozen = Instant::now();
                server.freeze();
                outage.life_goes_on();
                let before = memory(&outage.nodes);
                while frozen.elapsed() < Duration::from_secs(60) {
                    assert_eq!(
                        outage.ask("local", "round"),
                        "round 0 0",
                        "missing and twice, within each node"
                    );
                }
                let grown = memory(&outage.nodes).saturating_sub(before);
                assert!(grown < 16 << 20, "both nodes grew by {grown} bytes");
                server.thaw();
                outage.recovers(Instant::now());
                outage.ends();
            }
        }
    };
}

survives_what_happens_to!(redis, RedisServer, |port| redis_sets(&format!("redis://127.0.0.1:{port}")));
survives_what_happens_to!(rabbitmq, RabbitmqServer, |port| rabbitmq_sets(&[format!(
    "amqp://127.0.0.1:{port}"
)]));

/// Resident bytes of all nodes.
fn memory(nodes: &Nodes) -> u64 {
    let resident = |edge: &TestEdge| {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", edge.pid())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    };
    nodes.edges.iter().map(resident).sum()
}

#[test]
fn sentinel_fails_over() {
    let (mut primary, replica) = (RedisServer::start(), RedisServer::start());
    let sentinels = Sentinels::start(&primary, &replica);
    let mut outage = begin(&redis_sets(&sentinels.url()));
    primary.stop(true);
    outage.life_goes_on();
    wait_until("the replica is promoted", STEP_WITHIN, || replica.cli(&["role"]).starts_with("master"));
    outage.recovers(Instant::now());
    outage.ends();
}

#[test]
fn one_of_three_rabbitmq_nodes_is_lost() {
    let mut cluster = RabbitmqCluster::start();
    let mut outage = begin(&rabbitmq_sets(&cluster.urls()));
    let lost = || {
        outage.nodes.edges.iter().map(|edge| edge.metric("jackfield_broker_disconnects_total")).sum::<u64>()
    };
    let (before, connections) = (lost(), cluster.stop_one_in_use());
    eprintln!("  a node with {connections} connections is killed");
    wait_until("each has noticed", STEP_WITHIN, || lost() >= before + connections);
    outage.recovers(Instant::now());
    let report = outage.ask("report", "report");
    assert!(report.contains("\"disconnects\":0") && report.contains("\"unanswered\":0"), "{report}");
}
