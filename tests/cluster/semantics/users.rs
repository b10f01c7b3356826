//! What is known of sockets: whose they are, what belongs to them, and how long they may stay.

use std::time::{SystemTime, UNIX_EPOCH};

use cluster_proto::message::{Change, SocketUpdate};
use edge::cluster::{Done, Missing};
use serde_json::json;

use crate::nodes::{Nodes, hear_all, path, rooms};

fn user(name: &str) -> SocketUpdate {
    SocketUpdate { user: Change::Set(name.to_owned()), ..SocketUpdate::default() }
}

fn one() -> Done {
    Done { sockets: 1, missing: Missing::default() }
}

pub(super) async fn update_makes_a_room(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    let root = path("/");
    for (number, client) in crowd.iter().enumerate() {
        let update = user(["ann", "bob"][number % 2]);
        assert_eq!(nodes.first().cluster.update(&root, rooms([&client.id]), update).await, one());
    }
    // Only an update says whose a socket is.
    for client in &mut crowd {
        for room in ["user:ann", "user:bob", "user:eve"] {
            assert_eq!(client.ask("may_join", json!([room]), &[]).await, json!([false]));
            client.act(json!([{"join": room}])).await;
        }
    }
    let joined = nodes.last().cluster.join(&root, rooms([]), vec!["user:eve".to_owned()]).await;
    assert!(joined.missing.is_nobody());
    nodes.last().cluster.leave(&root, rooms([]), vec!["user:ann".to_owned()]).await;
    for node in &nodes.0 {
        for name in ["ann", "bob", "eve"] {
            node.emit("/", rooms([&format!("user:{name}")]), name);
        }
        node.emit("/", rooms([]), "mark");
        for (number, heard) in hear_all(&mut crowd, "mark").await.into_iter().enumerate() {
            assert_eq!(heard, [["ann", "bob"][number % 2]], "client {number}");
        }
    }
    // One changes, by itself; another is nobody's from now on.
    crowd[0].act(json!([{"user": "eve"}])).await;
    let clear = SocketUpdate { user: Change::Clear, ..SocketUpdate::default() };
    assert_eq!(nodes.last().cluster.update(&root, rooms([&crowd[2].id]), clear).await, one());
    for node in &nodes.0 {
        node.emit("/", rooms(["user:eve"]), "eve");
        node.emit("/", rooms(["user:ann"]), "ann");
        node.emit("/", rooms([]), "mark");
        for (number, heard) in hear_all(&mut crowd, "mark").await.into_iter().enumerate() {
            let expected = match number {
                0 => vec!["eve"],
                2 => vec![],
                _ if number % 2 == 0 => vec!["ann"],
                _ => vec![],
            };
            assert_eq!(heard, expected, "client {number}");
        }
    }
}

pub(super) async fn update_data(nodes: &Nodes) {
    let crowd = nodes.crowd("/").await;
    let root = path("/");
    for client in &crowd {
        let update = SocketUpdate { data: Change::Set(json!({"of": client.id}).to_string()), ..user("ann") };
        assert_eq!(nodes.last().cluster.update(&root, rooms([&client.id]), update).await, one());
    }
    let seen = async || {
        let found = nodes.first().cluster.fetch(&root, rooms(["user:ann"])).await;
        let mut seen: Vec<_> =
            found.sockets.into_iter().map(|socket| (socket.id, socket.user, socket.data)).collect();
        seen.sort();
        seen
    };
    let mut expected: Vec<_> = crowd
        .iter()
        .map(|client| {
            let data = json!({"of": client.id}).to_string();
            (client.id.clone(), Some("ann".to_owned()), Some(data))
        })
        .collect();
    expected.sort();
    // Who is told on Redis in the form of the ecosystem has no place for a user.
    assert_eq!(seen().await, expected);
    let clear = SocketUpdate { data: Change::Clear, ..SocketUpdate::default() };
    assert_eq!(nodes.first().cluster.update(&root, rooms([]), clear).await.sockets, crowd.len() as u64);
    expected.iter_mut().for_each(|(_, _, data)| *data = None);
    assert_eq!(seen().await, expected);
}

pub(super) async fn expiry(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    let root = path("/");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let now = u64::try_from(now).expect("not so late");
    let until = |expires_at_ms| SocketUpdate { expires_at_ms, ..SocketUpdate::default() };
    // Some end soon, some much later, and some are taken back in time.
    for (number, client) in crowd.iter().enumerate() {
        let at = if number % 3 == 0 { now + 200 } else { now + 3_600_000 };
        let done = nodes.last().cluster.update(&root, rooms([&client.id]), until(Change::Set(at))).await;
        assert_eq!(done, one());
        if number % 3 == 1 {
            let clear = until(Change::Clear);
            assert_eq!(nodes.first().cluster.update(&root, rooms([&client.id]), clear).await, one());
        }
    }
    for client in crowd.iter_mut().step_by(3) {
        client.is_disconnected().await;
    }
    nodes.first().emit("/", rooms([]), "mark");
    for (_, client) in crowd.iter_mut().enumerate().filter(|(number, _)| number % 3 != 0) {
        assert!(client.names_until("mark").await.is_empty());
    }
}
