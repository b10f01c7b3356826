//! Routing follows interest: nodes without a member of a busy room do not notice it, in messages or in work.

use std::fs;
use std::time::Duration;

use system_tests::brokers::{RabbitmqServer, RedisServer};
use system_tests::nodes::Nodes;
use system_tests::{TestEdge, spawn_node};

const NODES: usize = 8;
/// How long the room is busy; `JACKFIELD_IDLE_SECONDS` makes it longer.
const SECONDS: &str = "8";
/// An idle node hears eight heartbeats every two seconds and nothing else. This is many times what that costs.
const IDLE_CPU_SHARE_MAX: f64 = 0.02;

/// CPU time that a process has used.
fn cpu(edge: &TestEdge) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", edge.pid())).expect("a running process");
    let nanoseconds = tasks.filter_map(Result::ok).filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Messages that a node has received and that were not heartbeats.
fn heard(edge: &TestEdge) -> u64 {
    // Of one page, so that few heartbeats can come between.
    let [heartbeats, received] =
        edge.metrics(["jackfield_cluster_heartbeats_total", "jackfield_broker_received_total"]);
    received.saturating_sub(heartbeats)
}

fn check(sets: &[&str]) {
    let nodes = Nodes::start(NODES, &[sets, &["edge.shards=1"]].concat());
    let (busy, idle) = nodes.edges.split_at(2);
    let seconds = std::env::var("JACKFIELD_IDLE_SECONDS").unwrap_or_else(|_| SECONDS.to_owned());
    let mut room = spawn_node("cluster/busy.mjs", &[&busy[0].url(), &busy[1].url(), &seconds], &[]);
    let within = Duration::from_secs(30) + Duration::from_secs(seconds.parse().expect("seconds"));
    room.line_starting("ready", within);
    let before: Vec<Duration> = nodes.edges.iter().map(cpu).collect();
    room.send_line("go");
    let sent = room.line_starting("sent", within);
    let used: Vec<Duration> =
        nodes.edges.iter().zip(before).map(|(edge, before)| cpu(edge) - before).collect();
    room.finish(within);
    eprintln!("{sent} in {seconds} s; CPU of the holder, the publisher and the idle: {used:?}");
    let wall: f64 = seconds.parse().expect("seconds");
    for (edge, used) in idle.iter().zip(&used[2..]) {
        // One heartbeat may come between the two looks of `heard`, never more of anything else.
        assert!(heard(edge) <= 1, "an idle node hears nothing but heartbeats");
        let share = used.as_secs_f64() / wall;
        assert!(share < IDLE_CPU_SHARE_MAX, "an idle node used {share:.3} of a processor: {used:?}");
    }
    let sent: u64 = sent.trim_start_matches("sent ").parse().expect("a number");
    assert!(heard(&busy[0]) >= sent, "the holder hears them all");
}

#[test]
fn idle_nodes_notice_nothing_on_redis() {
    let server = RedisServer::start();
    check(&["broker.kind=redis", &format!("broker.redis.url={}", server.url())]);
}

#[test]
fn idle_nodes_notice_nothing_on_rabbitmq() {
    let server = RabbitmqServer::start();
    check(&["broker.kind=rabbitmq", &format!("broker.rabbitmq.urls={}", server.url())]);
}
