//! Sockets come into rooms and go out of them.

use serde_json::json;

use crate::client::dialect::Dialect;
use crate::client::{Client, Kind};
use crate::nodes::{Nodes, hear_all, rooms};

/// What each hears of an event for the room, published by every node in turn.
async fn members(nodes: &Nodes, crowd: &mut [Client], room: &str) -> Vec<bool> {
    let mut members = Vec::new();
    for node in &nodes.0 {
        node.emit("/", rooms([room]), "room");
        node.emit("/", rooms([]), "mark");
        let heard = hear_all(crowd, "mark").await;
        let now: Vec<bool> = heard.iter().map(|events| events == &["room"]).collect();
        assert!(heard.iter().all(|events| events.len() <= 1), "{heard:?}");
        assert!(members.is_empty() || members == now, "all nodes agree on the members");
        members = now;
    }
    members
}

pub(super) async fn joins_and_leaves(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    let count = crowd.len();
    for _ in 0..2 {
        assert_eq!(members(nodes, &mut crowd, "r").await, vec![false; count]);
        for client in &mut crowd {
            client.act(json!([{"join": "r"}, {"join": "other"}, {"join": "r"}])).await;
        }
        assert_eq!(members(nodes, &mut crowd, "r").await, vec![true; count]);
        for client in &mut crowd {
            client.act(json!([{"leave": "r"}, {"leave": "never joined"}])).await;
        }
    }
    assert_eq!(members(nodes, &mut crowd, "other").await, vec![true; count]);
}

pub(super) async fn joins_at_connect(nodes: &Nodes) {
    for (number, node) in nodes.0.iter().enumerate() {
        // In protocol 4 there is no auth object.
        for kind in Kind::ALL.into_iter().filter(|kind| kind.dialect != Dialect::Old) {
            let room = format!("early {number} {kind:?}");
            let auth = json!({"do": [{"join": room}, {"emit": ["joined"]}]});
            let mut client = Client::connect_as(number, node.address, kind, "/", &auth).await;
            assert!(client.names_until("joined").await.is_empty());
            for publisher in &nodes.0 {
                publisher.emit("/", rooms([&room]), "room");
                assert!(client.names_until("room").await.is_empty());
            }
        }
    }
}

pub(super) async fn the_last_one_leaves(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    let mut expected = vec![true; crowd.len()];
    for client in &mut crowd {
        client.act(json!([{"join": "r"}])).await;
    }
    for number in 0..crowd.len() {
        crowd[number].act(json!([{"leave": "r"}])).await;
        expected[number] = false;
        assert_eq!(members(nodes, &mut crowd, "r").await, expected);
    }
    crowd[0].act(json!([{"join": "r"}])).await;
    expected[0] = true;
    assert_eq!(members(nodes, &mut crowd, "r").await, expected);
}

/// Whoever is told of the join may emit at once, from any node.
pub(super) async fn a_join_is_heard_at_once(nodes: &Nodes) {
    let mut few = nodes.few("/").await;
    for round in 0..20 {
        for client in &mut few {
            let room = format!("at once {round} {}", client.id);
            client.act(json!([{"join": room}])).await;
            for node in &nodes.0 {
                node.emit("/", rooms([&room]), "room");
            }
            for _ in &nodes.0 {
                assert_eq!(client.next().await.name(), "room");
            }
        }
    }
}

pub(super) async fn members_that_disconnect(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    for client in &mut crowd {
        client.act(json!([{"join": "r"}])).await;
    }
    // Of each node half of the clients go: some say so, some just hang up.
    let (mut stay, mut go) = (Vec::new(), Vec::new());
    for (number, client) in crowd.into_iter().enumerate() {
        if number % 2 == 0 { stay.push(client) } else { go.push(client) }
    }
    for (number, mut client) in go.into_iter().enumerate() {
        if number % 2 == 0 {
            client.mouth.event("/", None, &json!(["do", {"kick": true}]), &[]).await;
            client.is_disconnected().await;
        }
    }
    let count = stay.len();
    assert_eq!(members(nodes, &mut stay, "r").await, vec![true; count]);
}
