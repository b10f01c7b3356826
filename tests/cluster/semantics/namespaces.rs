//! Namespaces are apart, also where the names of one begin like those of another.

use serde_json::{Value, json};

use crate::client::Kind;
use crate::nodes::{Nodes, hear_all, path, rooms};

/// On Redis the room `b` of `/a` and the namespace `/a#b` have the same channel.
const PATHS: [&str; 5] = ["/", "/a", "/ab", "/a/b", "/a#b"];
const ROOMS: [&str; 4] = ["r", "b", "/b", ""];

pub(super) async fn prefixes_of_each_other(nodes: &Nodes) {
    let mut crowds = Vec::new();
    for namespace in PATHS {
        let mut crowd = nodes.few(namespace).await;
        for client in &mut crowd {
            client.act(json!(ROOMS.map(|room| json!({"join": room})))).await;
        }
        crowds.push(crowd);
    }
    for node in &nodes.0 {
        for namespace in PATHS {
            node.emit(namespace, rooms([]), &format!("all of {namespace}"));
            for room in ROOMS {
                node.emit(namespace, rooms([room]), &format!("{room} of {namespace}"));
            }
            node.emit(namespace, rooms(["r", "b"]), &format!("rooms of {namespace}"));
        }
        for namespace in PATHS {
            node.emit(namespace, rooms([]), "mark");
        }
        for (namespace, crowd) in PATHS.iter().zip(&mut crowds) {
            let rooms =
                ROOMS.iter().filter(|room| !room.is_empty()).map(|room| format!("{room} of {namespace}"));
            let all = std::iter::once(format!("all of {namespace}"));
            let expected: Vec<String> = all.chain(rooms).chain([format!("rooms of {namespace}")]).collect();
            for heard in hear_all(crowd, "mark").await {
                assert_eq!(heard, expected, "from {}", node.id());
            }
        }
        for (namespace, crowd) in PATHS.iter().zip(&crowds) {
            let found = node.cluster.fetch(&path(namespace), rooms([])).await;
            let mut found: Vec<String> = found.sockets.into_iter().map(|socket| socket.id).collect();
            let mut expected: Vec<String> = crowd.iter().map(|client| client.id.clone()).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "the sockets of {namespace}");
        }
    }
}

/// Publishers and nodes are many, so an event for everybody could still be on its way when the next client comes: each has
/// a room of its own.
pub(super) async fn several_in_one_session(nodes: &Nodes) {
    for number in 0..nodes.0.len() {
        for kind in Kind::ALL {
            let mut client = nodes.client(number, kind, "/").await;
            let other = client.join("/a", &Value::Null).await;
            let room = format!("room of {}", client.id);
            client.act(json!([{"join": room}])).await;
            for node in &nodes.0 {
                node.emit("/a", rooms([&room]), "never");
                node.emit("/a", rooms([&other]), "of /a");
                node.emit("/", rooms([&room]), "of /");
                // The two sockets of a session are in no order.
                let mut heard =
                    [client.next().await, client.next().await].map(|one| (one.name(), one.namespace));
                heard.sort();
                assert_eq!(heard, ["/", "/a"].map(|path| (format!("of {path}"), path.to_owned())));
            }
            // One socket goes, the other stays.
            let done = nodes.last().cluster.disconnect(&path("/"), rooms([&client.id]), false).await;
            assert_eq!(done.sockets, 1);
            client.is_disconnected().await;
            for node in &nodes.0 {
                node.emit("/", rooms([&room]), "never");
                node.emit("/", rooms([&room, &client.id]), "never");
                node.emit("/a", rooms([&other]), "still here");
                assert_eq!(client.names_until("still here").await, [""; 0]);
            }
        }
    }
}
