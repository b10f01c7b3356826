//! An emit right after an acknowledged join is received: every time, on the real brokers, from another node.
//!
//! Every room is new, so that each join has to wait for a subscription of its own. Where everybody is fast an early answer
//! would hardly be noticed, so some nodes reach their broker by a slow connection, which others overtake.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use system_tests::brokers::Relay;

use crate::brokers::Broker;
use crate::client::{Client, Kind};
use crate::nodes::{Nodes, path, rooms};

const NODES: usize = 3;
const CLIENTS: usize = 20;
const JOINS_OF_EACH: usize = 500;
/// Joins that the application of another node asks for.
const ORDERED_OF_EACH: usize = 100;
/// How long everything is on its way between a node and its broker.
const DELAY: Duration = Duration::from_millis(5);
const SLOW_JOINS_OF_EACH: usize = 20;

/// A client joins, and whoever is told of it emits at once.
async fn join_and_be_heard(nodes: &Nodes, mut client: Client) {
    for number in 0..JOINS_OF_EACH {
        let room = format!("{} {number}", client.id);
        client.act(json!([{"join": room}])).await;
        let other = (client.node + 1 + number % (NODES - 1)) % NODES;
        nodes.0[other].emit("/", rooms([&room]), &room);
        assert_eq!(client.next().await.name(), room);
        client.act(json!([{"leave": room}])).await;
    }
    let root = path("/");
    for number in 0..ORDERED_OF_EACH {
        let room = format!("{} ordered {number}", client.id);
        let [asker, other] = [1, 2].map(|distance| &nodes.0[(client.node + distance) % NODES]);
        let done = asker.cluster.join(&root, rooms([&client.id]), vec![room.clone()]).await;
        assert_eq!((done.sockets, done.missing.is_nobody()), (1, true));
        other.emit("/", rooms([&room]), &room);
        assert_eq!(client.next().await.name(), room);
        let done = other.cluster.leave(&root, rooms([&client.id]), vec![room]).await;
        assert_eq!((done.sockets, done.missing.is_nobody()), (1, true));
    }
}

/// Whoever answers before the broker has the subscription is overtaken by an emit on a fast connection.
async fn slow_connections(broker: &Broker) {
    let relay = Relay::start_slow(broker.port().expect("a real broker"), DELAY);
    let mut nodes = Nodes::start(&broker.cluster_by("slow", &relay), 1).await;
    nodes.add(&broker.cluster("slow")).await;
    nodes.all_see(1).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(nodes.client(0, Kind::USUAL, "/").await);
    }
    join_all(clients.into_iter().map(|client| join_slowly(&nodes, client))).await;
    check_joins(&nodes);
}

async fn join_slowly(nodes: &Nodes, mut client: Client) {
    let root = path("/");
    for number in 0..SLOW_JOINS_OF_EACH {
        let room = format!("{} {number}", client.id);
        if number % 2 == 0 {
            client.act(json!([{"join": room}])).await;
        } else {
            let done = nodes.0[1].cluster.join(&root, rooms([&client.id]), vec![room.clone()]).await;
            assert_eq!((done.sockets, done.missing.is_nobody()), (1, true), "{done:?}");
        }
        nodes.0[1].emit("/", rooms([&room]), &room);
        assert_eq!(client.next().await.name(), room);
    }
}

/// A join that was acknowledged without its subscription would be heard by luck.
fn check_joins(nodes: &Nodes) {
    let degraded: u64 = nodes.0.iter().map(|node| node.metrics().joins_degraded.get()).sum();
    assert_eq!(degraded, 0);
}

fn check(broker: &Broker) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        slow_connections(broker).await;
        let nodes = Nodes::start(&broker.cluster("promises"), NODES).await;
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let kind = if number % 4 == 3 { Kind::ALL[number % Kind::ALL.len()] } else { Kind::USUAL };
            clients.push(nodes.client(number % NODES, kind, "/").await);
        }
        let began = Instant::now();
        join_all(clients.into_iter().map(|client| join_and_be_heard(&nodes, client))).await;
        check_joins(&nodes);
        eprintln!(
            "{}: {} joins of clients and {} of applications, all heard, in {} ms",
            broker.name(),
            CLIENTS * JOINS_OF_EACH,
            CLIENTS * ORDERED_OF_EACH,
            began.elapsed().as_millis()
        );
    });
}

#[test]
fn an_acknowledged_join_is_heard_on_redis() {
    check(&Broker::redis());
}

#[test]
fn an_acknowledged_join_is_heard_on_rabbitmq() {
    check(&Broker::rabbitmq());
}
