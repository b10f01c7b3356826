//! No sticky sessions: edges behind a plain round-robin load balancer, where every request may land on any of them.
//!
//! The official clients play all their scenarios there. Three versions over every transport are tested each time; set
//! `JACKFIELD_ALL_CLIENTS=1` for all of them.

use std::time::Duration;

use system_tests::brokers::{RabbitmqServer, RedisServer};
use system_tests::nodes::Nodes;
use system_tests::{PythonClients, node_modules, run_node, run_python, spawn_node};

const TRANSPORTS: [&str; 3] = ["polling", "websocket", "upgrade"];
/// The oldest client, the newest, and one between that speaks the older protocol.
const CLIENTS: [&str; 3] = ["1-4", "2-5", "4-8"];
const ALL_CLIENTS: [&str; 7] = ["1-4", "1-7", "2-0", "2-5", "3-1", "4-0", "4-8"];

fn on_redis(count: usize, server: &RedisServer) -> Nodes {
    Nodes::start(count, &["broker.kind=redis", &format!("broker.redis.url={}", server.url())])
}

fn javascript(nodes: &Nodes) {
    let is_whole = std::env::var_os("JACKFIELD_ALL_CLIENTS").is_some();
    let clients = if is_whole { &ALL_CLIENTS[..] } else { &CLIENTS[..] };
    for client in clients {
        for transport in TRANSPORTS {
            eprintln!("== {client} over {transport}");
            run_node("interop/clients.mjs", &[&nodes.url(), client, transport], &[]);
        }
    }
    for client in ["3-1", "4-8"].iter().filter(|client| is_whole || **client == "4-8") {
        for transport in TRANSPORTS {
            eprintln!("== {client} over {transport} with msgpack");
            run_node("interop/clients.mjs", &[&nodes.url(), client, transport, "msgpack"], &[]);
        }
    }
}

/// Every kind of client in one room, spread over all nodes.
fn meet(nodes: &Nodes) {
    let clients = ALL_CLIENTS.map(|client| TRANSPORTS.map(|transport| format!("{client}:{transport}")));
    let msgpack = ["3-1", "4-8"].map(|client| format!("{client}:upgrade:msgpack"));
    let url = nodes.url();
    let kinds: Vec<&str> = clients.iter().flatten().chain(&msgpack).map(String::as_str).collect();
    run_node("interop/mixed.mjs", &[&[url.as_str()], &*kinds].concat(), &[]);
    let relayed: u64 = nodes.edges.iter().map(|edge| edge.metric("jackfield_relayed_requests_total")).sum();
    assert!(relayed > 0, "round robin leads to other nodes");
}

#[test]
fn javascript_clients_on_two_edges() {
    let server = RedisServer::start();
    javascript(&on_redis(2, &server));
}

#[test]
fn python_clients_on_three_edges() {
    let server = RedisServer::start();
    let url = format!("broker.redis.url={}", server.url());
    // These intervals for the reason that is given in `interop`.
    let nodes = Nodes::start(
        3,
        &["broker.kind=redis", &url, "edge.ping_interval_ms=5000", "edge.ping_timeout_ms=5000"],
    );
    for transport in TRANSPORTS {
        run_python(PythonClients::V5, "interop/python_clients.py", &[&nodes.url(), transport], &[]);
    }
    if std::env::var_os("JACKFIELD_ALL_CLIENTS").is_some() {
        for transport in TRANSPORTS {
            run_python(PythonClients::V4, "interop/python_clients.py", &[&nodes.url(), transport], &[]);
            run_python(PythonClients::V5, "interop/python_async.py", &[&nodes.url(), transport], &[]);
        }
    }
}

#[test]
fn all_clients_meet_on_two_and_three_edges() {
    let server = RedisServer::start();
    meet(&on_redis(2, &server));
    meet(&on_redis(3, &server));
}

#[test]
fn all_clients_meet_on_rabbitmq() {
    let server = RabbitmqServer::start();
    let url = format!("broker.rabbitmq.urls={}", server.url());
    meet(&Nodes::start(3, &["broker.kind=rabbitmq", &url]));
}

#[test]
fn jsonp_clients_in_a_browser() {
    let server = RedisServer::start();
    let nodes = on_redis(2, &server);
    let bundles = [
        "sio-1-4/socket.io.js",
        "sio-1-7/dist/socket.io.js",
        "sio-2-0/dist/socket.io.js",
        "sio-2-5/dist/socket.io.js",
    ]
    .map(|bundle| node_modules().join(bundle).display().to_string());
    let url = nodes.url();
    let args: Vec<&str> = std::iter::once(url.as_str()).chain(bundles.iter().map(String::as_str)).collect();
    run_node("browser/jsonp.mjs", &args, &[]);
}

/// Whoever was on the edge that is killed comes back on another one after one reconnect; nobody else notices.
#[test]
fn a_killed_edge_costs_its_own_clients_one_reconnect() {
    let server = RedisServer::start();
    let mut nodes = on_redis(3, &server);
    let mut clients = spawn_node("cluster/killed.mjs", &[&nodes.url()], &[]);
    let within = Duration::from_secs(60);
    clients.line_starting("ready", within);
    let victim = clients.line_starting("victim", within);
    let node = victim.trim_start_matches("victim ").to_owned();
    let is_victim = |log: String| log.contains(&format!("the broker is connected node={node}"));
    let index = nodes.edges.iter().position(|edge| is_victim(edge.log())).expect("a node with this id");
    nodes.edges[index].kill();
    clients.send_line("killed");
    let outcome = clients.line_starting("outcome", within);
    eprintln!("{outcome}");
    clients.finish(within);
}
