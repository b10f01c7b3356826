//! Names of rooms and sockets, however strange.

use serde_json::json;

use crate::client::dialect::Dialect;
use crate::client::{Client, Kind};
use crate::nodes::{Nodes, hear_all, rooms};

/// Names that mean something to brokers, patterns, parsers or to ourselves.
fn strange() -> Vec<String> {
    let short = [
        "#",
        "##",
        "a#",
        "#a",
        "a#b",
        "/",
        "/a",
        "/a#b",
        "*",
        "a*",
        "a?",
        "ab",
        "[a-z]",
        "a*?[x]\\",
        "\\",
        "😀",
        "é",
        "e\u{301}",
        "true",
        "null",
        "12",
        " ",
        "  ",
        "\"",
        "'",
        "\n",
        "\u{0}",
        ".",
        "a.b",
        "room.1",
        "heartbeat",
        "socket.io#/#r#",
        "-request",
        "jfAAAA",
        "{}",
        "[]",
        "users:1",
    ];
    short.into_iter().map(str::to_owned).chain(["x".repeat(256), "é".repeat(128)]).collect()
}

pub(super) async fn strange_rooms(nodes: &Nodes) {
    let names = strange();
    let mut few = nodes.few("/").await;
    for client in &mut few {
        assert_eq!(client.ask("may_join", json!(["y".repeat(257)]), &[]).await, json!([false]));
    }
    // Each name has one member, and each member has many names.
    let count = few.len();
    for (number, name) in names.iter().enumerate() {
        let client = &mut few[number % count];
        assert_eq!(client.ask("may_join", json!([name]), &[]).await, json!([true]), "{name:?}");
        client.act(json!([{"join": name}])).await;
    }
    for node in &nodes.0 {
        for (number, name) in names.iter().enumerate() {
            node.emit("/", rooms([name]), &format!("room {number}"));
        }
        for (number, pair) in names.windows(2).enumerate() {
            node.emit("/", rooms([&pair[0], &pair[1]]), &format!("this room and the next {number}"));
        }
        node.emit("/", rooms([]), "mark");
        let heard = hear_all(&mut few, "mark").await;
        for (member, heard) in heard.into_iter().enumerate() {
            let is_mine = |number: &usize| number % count == member;
            let one = (0..names.len()).filter(is_mine).map(|number| format!("room {number}"));
            let two = (0..names.len() - 1).filter(|number| is_mine(number) || is_mine(&(number + 1)));
            let two = two.map(|number| format!("this room and the next {number}"));
            assert_eq!(heard, one.chain(two).collect::<Vec<_>>(), "from {}, {names:?}", node.id());
        }
    }
}

/// A room may look like a socket. Where no node has such sockets it is a room like others; else it would be taken for
/// the socket, so nobody may join it anywhere.
pub(super) async fn sid_shaped_rooms(nodes: &Nodes) {
    let mut few = nodes.few("/").await;
    let free = ["AAAAabcdefghijklmnop", "____----____----____", "/a#AAAAabcdefghijklmnop"];
    for client in &mut few {
        for room in free {
            assert_eq!(client.ask("may_join", json!([room]), &[]).await, json!([true]), "{room}");
            client.act(json!([{"join": room}])).await;
        }
    }
    let ids: Vec<String> = nodes.0.iter().map(|node| node.id().to_string()).collect();
    let taken = ids
        .iter()
        .flat_map(|id| ["", "/#", "/a#", "/a/b#"].map(|before| format!("{before}{id}abcdefghijklmnop")));
    let taken: Vec<String> = taken.chain(few.iter().map(|client| client.id.clone())).collect();
    for client in &mut few {
        let own = client.id.clone();
        for room in taken.iter().filter(|room| **room != own) {
            assert_eq!(client.ask("may_join", json!([room]), &[]).await, json!([false]), "{room}");
            client.act(json!([{"join": room}])).await;
        }
    }
    for node in &nodes.0 {
        for room in &taken {
            let done = node.cluster.join(&crate::nodes::path("/"), rooms([]), vec![room.clone()]).await;
            assert!(done.missing.is_nobody(), "{done:?}");
        }
        node.emit("/", rooms([free[0]]), "one");
        node.emit("/", rooms([free[0], free[1]]), "two");
        node.emit("/", rooms([free[2]]), "three");
        for room in taken.iter().filter(|room| few.iter().all(|client| client.id != **room)) {
            node.emit("/", rooms([room]), "never");
            node.emit("/", rooms([room, "nobody"]), "never");
        }
        node.emit("/", rooms([]), "mark");
        for heard in hear_all(&mut few, "mark").await {
            assert_eq!(heard, ["one", "two", "three"], "from {}", node.id());
        }
    }
}

async fn each_alone(nodes: &Nodes, crowd: &mut [Client], namespace: &str) {
    for node in &nodes.0 {
        for client in crowd.iter() {
            node.emit(namespace, rooms([&client.id]), &client.id);
        }
        node.emit(namespace, rooms([]), "mark");
        let heard = hear_all(crowd, "mark").await;
        for (client, heard) in crowd.iter().zip(heard) {
            assert_eq!(heard, [&*client.id], "{:?} from {}", client.kind, node.id());
        }
    }
}

pub(super) async fn sockets_by_name(nodes: &Nodes) {
    for namespace in ["/", "/a"] {
        let mut crowd = nodes.crowd(namespace).await;
        each_alone(nodes, &mut crowd, namespace).await;
        // Clients reach each other in the same way.
        let ids: Vec<String> = crowd.iter().map(|client| client.id.clone()).collect();
        for publisher in 0..crowd.len() {
            let events: Vec<_> = ids.iter().map(|id| crate::nodes::to(&[id], id)).collect();
            crowd[publisher].act(json!(events)).await;
            crowd[publisher].act(json!([crate::nodes::to(&[], "mark")])).await;
            for (id, heard) in ids.iter().zip(hear_all(&mut crowd, "mark").await) {
                assert_eq!(heard, [&**id]);
            }
        }
    }
}

pub(super) async fn sockets_of_several_nodes(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    crowd[0].act(json!([{"join": "r"}])).await;
    let every_second: Vec<&str> = crowd.iter().step_by(2).map(|client| &*client.id).collect();
    let with_room: Vec<&str> = every_second.iter().copied().chain(["r"]).collect();
    let twice: Vec<&str> = every_second.iter().flat_map(|id| [*id, *id]).collect();
    let lists = [("sockets", every_second.clone()), ("sockets and room", with_room), ("twice", twice)];
    for node in &nodes.0 {
        for (event, list) in &lists {
            let list = list.iter().map(|id| (*id).to_owned()).collect();
            node.emit("/", cluster_proto::broadcast::Selector { rooms: list, except: Vec::new() }, event);
        }
    }
    let events: Vec<&str> = lists.iter().map(|(event, _)| *event).collect();
    // Publishers are in no order among themselves, so each has a mark of its own.
    for (number, node) in nodes.0.iter().enumerate() {
        node.emit("/", rooms([]), &format!("mark {number}"));
    }
    for (number, client) in crowd.iter_mut().enumerate() {
        let mut heard = Vec::new();
        let mut marks = 0;
        while marks < nodes.0.len() {
            let name = client.next().await.name();
            if name.starts_with("mark") { marks += 1 } else { heard.push(name) }
        }
        heard.sort();
        let times = if number % 2 == 0 { nodes.0.len() } else { 0 };
        let mut expected: Vec<&str> = events.iter().flat_map(|event| vec![*event; times]).collect();
        expected.sort_unstable();
        assert_eq!(heard, expected, "{:?}", client.kind);
    }
}

/// In protocol 4 a socket beyond `/` is named after its namespace.
pub(super) async fn old_names(nodes: &Nodes) {
    let old = Kind { dialect: Dialect::Old, ..Kind::USUAL };
    let mut crowd = Vec::new();
    for node in 0..nodes.0.len() {
        crowd.push(nodes.client(node, old, "/a").await);
    }
    for client in &mut crowd {
        assert!(client.id.starts_with("/a#"), "{}", client.id);
        assert_eq!(client.ask("rooms", json!([]), &[]).await, json!([[client.id]]));
    }
    each_alone(nodes, &mut crowd, "/a").await;
    // The same session has the bare id as its name in the namespace of everybody.
    for client in &mut crowd {
        let bare = client.id.trim_start_matches("/a#").to_owned();
        for node in &nodes.0 {
            node.emit("/", rooms([&bare]), "bare");
            node.emit("/a", rooms([&client.id]), "named");
        }
        let mut heard = Vec::new();
        for _ in 0..2 * nodes.0.len() {
            let event = client.next().await;
            heard.push((event.namespace.clone(), event.name()));
        }
        heard.sort();
        let of = |namespace: &str, event: &str| (namespace.to_owned(), event.to_owned());
        let count = nodes.0.len();
        let expected = [vec![of("/", "bare"); count], vec![of("/a", "named"); count]].concat();
        assert_eq!(heard, expected);
    }
}
