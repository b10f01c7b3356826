//! Nodes that come to a cluster at work, and nodes that go; and one that holds very many sockets.

use std::time::{Duration, Instant};

use edge::upstream::Args;
use serde_json::json;

use crate::brokers::Broker;
use crate::client::{Client, Kind};
use crate::nodes::{Nodes, path, rooms};

/// More than one page of a list holds.
const MANY: usize = 1_200;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

async fn all(broker: &Broker) {
    let membership = broker.cluster("comings");
    let mut nodes = Nodes::start(&membership, 2).await;
    let mut few = nodes.few("/").await;
    for client in &mut few {
        client.act(json!([{"join": "r"}])).await;
    }
    for _ in 0..3 {
        a_node_comes(&mut nodes, &membership, &mut few).await;
        a_node_goes(&mut nodes, &mut few).await;
    }
    a_node_goes_while_it_is_asked(&mut nodes, &membership, &mut few).await;
    many_sockets_are_listed(&nodes, few.len()).await;
}

/// Whatever it has is reached at once, also by nodes that have not heard of it.
async fn a_node_comes(nodes: &mut Nodes, membership: &edge::start::Membership, few: &mut [Client]) {
    nodes.add(membership).await;
    let newcomer = nodes.0.len() - 1;
    let mut first = nodes.client(newcomer, Kind::USUAL, "/").await;
    let mut second = nodes.client(newcomer, Kind::USUAL, "/").await;
    for node in &nodes.0 {
        node.emit("/", rooms([&first.id]), "one");
        node.emit("/", rooms([&first.id, &second.id]), "two");
        node.emit("/", rooms([&few[0].id, &second.id]), "of two nodes");
        node.emit("/", rooms([]), "mark");
        assert_eq!(first.names_until("mark").await, ["one", "two"]);
        assert_eq!(second.names_until("mark").await, ["two", "of two nodes"]);
        assert_eq!(few[0].names_until("mark").await, ["of two nodes"]);
        assert_eq!(few[1].names_until("mark").await, [""; 0]);
    }
    first.act(json!([{"join": "r"}, {"to": ["r"], "emit": ["room"]}, {"to": [], "emit": ["mark"]}])).await;
    for client in few.iter_mut().chain([&mut first]) {
        assert_eq!(client.names_until("mark").await, ["room"]);
    }
}

/// Nobody waits for it any longer.
async fn a_node_goes(nodes: &mut Nodes, few: &mut [Client]) {
    nodes.all_see(nodes.0.len() - 1).await;
    let gone = nodes.client(nodes.0.len() - 1, Kind::USUAL, "/").await.id;
    nodes.remove().await;
    let began = Instant::now();
    for node in &nodes.0 {
        let found = node.cluster.fetch(&path("/"), rooms([])).await;
        assert_eq!((found.sockets.len(), found.missing.is_nobody()), (few.len(), true));
        let joined = node.cluster.join(&path("/"), rooms([]), vec!["s".to_owned()]).await;
        assert_eq!((joined.sockets, joined.missing.is_nobody()), (few.len() as u64, true));
        node.emit("/", rooms([&gone]), "never");
        node.emit("/", rooms([&gone, &few[0].id]), "one of two");
        node.emit("/", rooms(["s"]), "room");
        node.emit("/", rooms([]), "mark");
        assert_eq!(few[0].names_until("mark").await, ["one of two", "room"]);
        assert_eq!(few[1].names_until("mark").await, ["room"]);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Who has asked learns who is missing, as soon as it is clear that no answer comes.
async fn a_node_goes_while_it_is_asked(
    nodes: &mut Nodes,
    membership: &edge::start::Membership,
    few: &mut [Client],
) {
    // With one shard it has counted its clients before the first of them is asked: a second might end before it is asked.
    nodes.add_with(membership, |edge| edge.shards = 1).await;
    nodes.all_see(nodes.0.len() - 1).await;
    let newcomer = nodes.0.len() - 1;
    let node = nodes.last().id();
    let mut silent = nodes.client(newcomer, Kind::USUAL, "/").await;
    let (began, first, root) = (Instant::now(), nodes.first().cluster.clone(), path("/"));
    let asked = first.emit_with_ack(&root, rooms([]), Args::text(r#"["question"]"#), PATIENCE);
    let others = async {
        for client in few.iter_mut() {
            let question = client.next().await;
            client.mouth.ack("/", question.ack_id.expect("an ack id"), &json!(["yes"]), &[]).await;
        }
        silent.next().await;
        nodes.remove().await;
    };
    let (acks, ()) = tokio::join!(asked, others);
    let acks = acks.expect("a valid event");
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    assert_eq!((acks.acks.len(), acks.silent_count, acks.silent), (few.len(), 1, vec![silent.id]));
    assert_eq!(acks.missing.nodes, [node]);
}

async fn many_sockets_are_listed(nodes: &Nodes, others: usize) {
    let mut many = Vec::new();
    for _ in 0..MANY {
        many.push(nodes.client(nodes.0.len() - 1, Kind::USUAL, "/").await);
    }
    let found = nodes.first().cluster.fetch(&path("/"), rooms([])).await;
    assert!(found.missing.is_nobody(), "{:?}", found.missing);
    let mut ids: Vec<String> = found.sockets.into_iter().map(|socket| socket.id).collect();
    assert_eq!(ids.len(), MANY + others);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), MANY + others, "each is listed once");
    assert!(many.iter().all(|client| ids.binary_search(&client.id).is_ok()));
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
