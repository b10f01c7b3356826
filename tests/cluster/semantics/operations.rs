//! What an application does to sockets anywhere in the cluster.

use edge::cluster::{Done, Missing};
use serde_json::{Value, json};
use system_tests::waiting::until;

use crate::client::{Client, Kind};
use crate::nodes::{Nodes, except, hear_all, path, rooms};

fn done(sockets: usize) -> Done {
    Done { sockets: sockets as u64, missing: Missing::default() }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(super) async fn join_and_leave(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    let count = crowd.len();
    let root = path("/");
    for node in &nodes.0 {
        for number in (0..count).step_by(5) {
            let one = rooms([&crowd[number].id]);
            assert_eq!(node.cluster.join(&root, one.clone(), names(&["one"])).await, done(1));
            nodes.last().emit("/", rooms(["one"]), "one");
            nodes.last().emit("/", rooms([]), "mark");
            let heard = hear_all(&mut crowd, "mark").await;
            let is_meant = |(at, events): (usize, &Vec<String>)| events.len() == usize::from(at == number);
            assert!(heard.iter().enumerate().all(is_meant), "{number}: {heard:?}");
            assert_eq!(node.cluster.leave(&root, one, names(&["one", "never joined"])).await, done(1));
        }
        assert_eq!(node.cluster.join(&root, rooms([]), names(&["all"])).await, done(count));
        for publisher in &nodes.0 {
            publisher.emit("/", rooms(["one"]), "never");
            publisher.emit("/", rooms(["all"]), "all");
            publisher.emit("/", rooms([]), "mark");
            assert_eq!(hear_all(&mut crowd, "mark").await, vec![names(&["all"]); count]);
        }
        assert_eq!(node.cluster.leave(&root, rooms(["all"]), names(&["all"])).await, done(count));
        assert_eq!(node.cluster.leave(&root, rooms(["all"]), names(&["all"])).await, done(0));
    }
}

/// Done means done: what anybody sends then arrives, every time.
pub(super) async fn join_into_several(nodes: &Nodes) {
    let mut few = nodes.few("/").await;
    let count = few.len();
    let root = path("/");
    for round in 0..10 {
        for node in &nodes.0 {
            let [one, two] = ["one", "two"].map(|room| format!("{room} {round} {}", node.id()));
            let joined = node.cluster.join(&root, rooms([]), vec![one.clone(), two.clone()]).await;
            assert_eq!(joined, done(count));
            for publisher in &nodes.0 {
                publisher.emit("/", rooms([&one]), "one");
                publisher.emit("/", rooms([&two, &one]), "two or one");
                publisher.emit("/", rooms([]), "mark");
                assert_eq!(hear_all(&mut few, "mark").await, vec![names(&["one", "two or one"]); count]);
            }
        }
    }
}

pub(super) async fn disconnect_sockets(nodes: &Nodes) {
    for node in &nodes.0 {
        let mut crowd = nodes.crowd("/").await;
        let mut gone: Vec<Client> = Vec::new();
        for number in (0..crowd.len()).rev().step_by(2) {
            let mut client = crowd.remove(number);
            client.act(json!([{"join": "r"}])).await;
            gone.push(client);
        }
        let disconnected = node.cluster.disconnect(&path("/"), rooms(["r"]), false).await;
        assert_eq!(disconnected, done(gone.len()));
        for client in &mut gone {
            client.is_disconnected().await;
            let line = format!("disconnected / {} server namespace disconnect", client.id);
            let strings = &nodes.0[client.node].strings;
            until(&line, || strings.heard().contains(&line)).await;
        }
        node.emit("/", rooms([]), "mark");
        hear_all(&mut crowd, "mark").await;
        // Of those that stay, one more goes by its name.
        let (one, others) = crowd.split_first_mut().expect("a crowd");
        assert_eq!(node.cluster.disconnect(&path("/"), rooms([&one.id]), false).await, done(1));
        one.is_disconnected().await;
        node.emit("/", rooms([]), "mark");
        hear_all(others, "mark").await;
    }
}

pub(super) async fn disconnect_sessions(nodes: &Nodes) {
    for node in &nodes.0 {
        let mut crowd = nodes.crowd("/").await;
        for client in &mut crowd {
            client.join("/a", &Value::Null).await;
        }
        let mut last = crowd.pop().expect("a crowd");
        let but_the_last = except([], [&last.id]);
        assert_eq!(node.cluster.disconnect(&path("/"), but_the_last, true).await, done(crowd.len()));
        for client in &mut crowd {
            client.is_closed().await;
        }
        node.emit("/a", rooms([]), "mark");
        assert_eq!(last.names_until("mark").await, names(&[]));
        nodes.empty().await;
    }
}

pub(super) async fn fetch_sockets(nodes: &Nodes) {
    for namespace in ["/", "/a"] {
        let mut crowd = nodes.crowd(namespace).await;
        for (number, client) in crowd.iter_mut().enumerate() {
            client.act(json!([{"join": "all"}, {"join": format!("room {number}")}])).await;
        }
        for node in &nodes.0 {
            let found = node.cluster.fetch(&path(namespace), rooms([])).await;
            assert!(found.missing.is_nobody(), "{found:?}");
            let mut found: Vec<(String, Vec<String>)> = found
                .sockets
                .into_iter()
                .map(|mut socket| {
                    socket.rooms.sort();
                    assert_no_secret(socket.handshake.as_deref().expect("a handshake"));
                    (socket.id, socket.rooms)
                })
                .collect();
            found.sort();
            let mut expected: Vec<(String, Vec<String>)> = crowd
                .iter()
                .enumerate()
                .map(|(number, client)| {
                    let mut rooms = vec![client.id.clone(), "all".to_owned(), format!("room {number}")];
                    rooms.sort();
                    (client.id.clone(), rooms)
                })
                .collect();
            expected.sort();
            assert_eq!(found, expected, "from {}", node.id());
            for (selector, count) in [
                (rooms(["room 0"]), 1),
                (rooms(["room 0", "room 1", "nobody"]), 2),
                (rooms([&crowd[2].id]), 1),
                (except(["all"], ["room 0"]), crowd.len() - 1),
                (rooms(["nobody"]), 0),
            ] {
                let found = node.cluster.fetch(&path(namespace), selector.clone()).await;
                assert_eq!(found.sockets.len(), count, "{selector:?}");
                assert!(found.missing.is_nobody(), "{:?}", found.missing);
            }
        }
    }
    // Whoever has no socket in a namespace may ask of it too.
    let found = nodes.first().cluster.fetch(&path("/nowhere"), rooms([])).await;
    assert!(found.sockets.is_empty() && found.missing.is_nobody(), "{found:?}");
    let _there = nodes.client(nodes.0.len() - 1, Kind::USUAL, "/x1").await;
    let found = nodes.first().cluster.fetch(&path("/x1"), rooms([])).await;
    assert!(found.sockets.len() == 1 && found.missing.is_nobody(), "{found:?}");
}

/// A session id opens the session to whoever knows it.
fn assert_no_secret(handshake: &str) {
    let shown: Value = serde_json::from_str(handshake).expect("JSON");
    assert!(shown["query"].get("sid").is_none() && !handshake.contains("sid="), "{handshake}");
    assert_eq!((&shown["auth"], &shown["headers"]), (&json!({}), &json!({})));
}
