//! Who gets a broadcast, and who does not.

use std::time::Duration;

use cluster_proto::broadcast::BroadcastFlags;
use edge::upstream::Args;
use serde_json::json;

use crate::client::link::Via;
use crate::client::{Client, Kind};
use crate::nodes::{Nodes, except, hear_all, path, rooms, to};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// One client of each node publishes in turn; the numbers of these clients.
fn publishers(nodes: &Nodes, crowd: &[Client]) -> Vec<usize> {
    (0..nodes.0.len()).map(|node| crowd.iter().position(|client| client.node == node).unwrap()).collect()
}

/// What each of the crowd is to hear.
fn expected<'a>(crowd: &[Client], events: impl Fn(usize, &Client) -> Vec<&'a str>) -> Vec<Vec<String>> {
    let events = crowd.iter().enumerate().map(|(number, client)| events(number, client));
    events.map(|events| events.into_iter().map(str::to_owned).collect()).collect()
}

pub(super) async fn everybody(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    for publisher in 0..crowd.len() {
        crowd[publisher].act(json!([to(&[], "all"), to(&[], "mark")])).await;
        let heard = hear_all(&mut crowd, "mark").await;
        assert_eq!(heard, expected(&crowd, |_, _| vec!["all"]), "from {publisher}");
    }
}

pub(super) async fn one_room(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    for client in crowd.iter_mut().step_by(2) {
        client.act(json!([{"join": "r"}])).await;
    }
    for publisher in publishers(nodes, &crowd) {
        crowd[publisher].act(json!([to(&["r"], "room"), to(&[], "mark")])).await;
        let heard = hear_all(&mut crowd, "mark").await;
        let is_member = |number: usize| number.is_multiple_of(2);
        let members = expected(&crowd, |number, _| if is_member(number) { vec!["room"] } else { vec![] });
        assert_eq!(heard, members, "from {publisher}");
    }
}

pub(super) async fn several_rooms(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    for (number, client) in crowd.iter_mut().enumerate() {
        for (divisor, room) in [(2, "a"), (3, "b"), (5, "c")] {
            if number % divisor == 0 {
                client.act(json!([{"join": room}])).await;
            }
        }
    }
    for publisher in publishers(nodes, &crowd) {
        let actions =
            json!([to(&["a", "b", "a", "nobody"], "a or b"), to(&["c", "b"], "b or c"), to(&[], "mark")]);
        crowd[publisher].act(actions).await;
        let heard = hear_all(&mut crowd, "mark").await;
        let events = |number: usize, _: &Client| {
            let of = |divisor: usize| number.is_multiple_of(divisor);
            let a_or_b = (of(2) || of(3)).then_some("a or b");
            a_or_b.into_iter().chain((of(3) || of(5)).then_some("b or c")).collect()
        };
        assert_eq!(heard, expected(&crowd, events), "each once, from {publisher}");
    }
}

pub(super) async fn without_the_sender(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    for client in crowd.iter_mut().skip(1) {
        client.act(json!([{"join": "r"}])).await;
    }
    for publisher in 0..crowd.len() {
        let own = crowd[publisher].id.clone();
        let actions = json!([
            {"to": [], "except": [own], "emit": ["all others"]},
            {"to": ["r"], "except": [own], "emit": ["room"]},
            to(&[], "mark"),
        ]);
        crowd[publisher].act(actions).await;
        let heard = hear_all(&mut crowd, "mark").await;
        let events = |number: usize, _: &Client| match number {
            _ if number == publisher => vec![],
            0 => vec!["all others"],
            _ => vec!["all others", "room"],
        };
        assert_eq!(heard, expected(&crowd, events), "from {publisher}");
    }
}

pub(super) async fn except_rooms_and_sockets(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    for (number, client) in crowd.iter_mut().enumerate() {
        for (divisor, room) in [(2, "a"), (3, "b")] {
            if number % divisor == 0 {
                client.act(json!([{"join": room}])).await;
            }
        }
    }
    let last = crowd.len() - 1;
    let last_id = crowd[last].id.clone();
    for node in &nodes.0 {
        node.emit("/", except([], ["a"]), "not a");
        node.emit("/", except(["a"], ["b"]), "a, not b");
        node.emit("/", except(["a", "b"], ["b", "nobody"]), "a or b, not b");
        node.emit("/", except([], [&last_id]), "not the last");
        node.emit("/", except([], ["a", &last_id]), "neither a nor the last");
        node.emit("/", except([&last_id], [&last_id]), "never");
        node.emit("/", except([&last_id], ["nobody"]), "the last");
        node.emit("/", except([], []), "mark");
        let heard = hear_all(&mut crowd, "mark").await;
        let events = |number: usize, _: &Client| {
            let (a, b) = (number.is_multiple_of(2), number.is_multiple_of(3));
            let all = [
                (!a, "not a"),
                (a && !b, "a, not b"),
                (a && !b, "a or b, not b"),
                (number != last, "not the last"),
                (!a && number != last, "neither a nor the last"),
                (number == last, "the last"),
            ];
            all.into_iter().filter_map(|(is_meant, event)| is_meant.then_some(event)).collect()
        };
        assert_eq!(heard, expected(&crowd, events), "from {}", node.id());
    }
}

pub(super) async fn only_local(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    for client in &mut crowd {
        client.act(json!([{"join": "r"}])).await;
    }
    for publisher in publishers(nodes, &crowd) {
        let actions = json!([
            {"to": [], "emit": ["all here"], "local": true},
            {"to": ["r"], "emit": ["room here"], "local": true},
            to(&[], "mark"),
        ]);
        crowd[publisher].act(actions).await;
        let heard = hear_all(&mut crowd, "mark").await;
        let here = crowd[publisher].node;
        let events =
            |_, client: &Client| if client.node == here { vec!["all here", "room here"] } else { vec![] };
        assert_eq!(heard, expected(&crowd, events), "from {publisher}");
    }
}

/// A polling client that is not asking and has something to take already is one that is behind.
pub(super) async fn volatile(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    for publisher in publishers(nodes, &crowd) {
        assert_eq!(crowd[publisher].kind, Kind::USUAL);
        let actions = json!([
            {"to": [], "emit": ["first"], "volatile": true},
            {"to": [], "emit": ["second"], "volatile": true},
            to(&[], "mark"),
        ]);
        crowd[publisher].act(actions).await;
        let heard = hear_all(&mut crowd, "mark").await;
        let events = |_, client: &Client| match client.kind.via {
            Via::WebSocket => vec!["first", "second"],
            Via::Polling => vec!["first"],
        };
        assert_eq!(heard, expected(&crowd, events), "from {publisher}");
    }
}

pub(super) async fn order_of_one_publisher(nodes: &Nodes) {
    const EVENTS: usize = 200;
    let mut crowd = nodes.crowd("/").await;
    for client in &mut crowd {
        client.act(json!([{"join": "r"}, {"join": "s"}])).await;
    }
    let publishers = publishers(nodes, &crowd);
    for number in 0..EVENTS {
        let rooms: &[&str] = [&["r"], &[][..], &["r", "s"], &["s"]][number % 4];
        for publisher in &publishers {
            let event = json!(["do", {"to": rooms, "emit": ["n", publisher, number]}]);
            crowd[*publisher].mouth.event("/", None, &event, &[]).await;
        }
    }
    for publisher in &publishers {
        crowd[*publisher].act(json!([to(&[], "mark")])).await;
    }
    for client in &mut crowd {
        let mut next = vec![0; nodes.0.len() * 6];
        let mut marks = 0;
        while marks < publishers.len() {
            let heard = client.next().await;
            if heard.name() == "mark" {
                marks += 1;
                continue;
            }
            let [_, publisher, number] = &heard.data.as_array().unwrap()[..] else { panic!("{heard:?}") };
            let next = &mut next[usize::try_from(publisher.as_u64().unwrap()).unwrap()];
            assert_eq!(number, next, "from {publisher} to {:?}", client.kind);
            *next += 1;
        }
        assert!(publishers.iter().all(|publisher| next[*publisher] == EVENTS), "{next:?}");
    }
}

pub(super) async fn nobody(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    let gone = nodes.client(nodes.0.len() - 1, Kind::USUAL, "/").await;
    let gone_id = gone.id.clone();
    drop(gone);
    for publisher in publishers(nodes, &crowd) {
        let actions = json!([
            to(&["nobody"], "never"),
            to(&["nobody", "nowhere"], "never"),
            to(&["AAAAabcdefghijklmnop"], "never"),
            to(&[&gone_id], "never"),
            to(&[&gone_id, "AAAAabcdefghijklmnop"], "never"),
            to(&[], "mark"),
        ]);
        crowd[publisher].act(actions).await;
        assert!(hear_all(&mut crowd, "mark").await.iter().all(Vec::is_empty));
    }
}

/// What other nodes would refuse is sent to nobody, neither here nor there.
pub(super) async fn what_cannot_be_sent(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    let binary = |text: &str| Args { binary: true, ..Args::text(text) };
    let deep = format!("[\"never\",{}{}]", "[".repeat(200), "]".repeat(200));
    let large = json!(["never", "x".repeat(4_000_000)]).to_string();
    let nameless = ["", "[]", "{}", "[null]", "[\"never\"", "never", "[\"never\"]]"].map(Args::text);
    let others = [binary(r#"["never",{"_placeholder":true,"num":0}]"#), Args::text(deep), Args::text(large)];
    let reserved =
        ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]
            .map(|name| Args::text(json!([name]).to_string()));
    for node in &nodes.0 {
        let (cluster, root) = (&node.cluster, path("/"));
        for args in nameless.iter().chain(&others) {
            let emitted = cluster.emit(&root, rooms([]), args.clone(), BroadcastFlags::default());
            emitted.expect_err(&args.data);
            cluster.emit_with_ack(&root, rooms([]), args.clone(), LONG).await.expect_err(&args.data);
            cluster.server_emit(&root, args.clone()).expect_err(&args.data);
            cluster.server_emit_with_ack(&root, args.clone()).await.expect_err(&args.data);
        }
        // Only to clients these names mean something.
        for args in &reserved {
            let emitted = cluster.emit(&root, rooms([]), args.clone(), BroadcastFlags::default());
            emitted.expect_err(&args.data);
            cluster.emit_with_ack(&root, rooms([]), args.clone(), LONG).await.expect_err(&args.data);
            cluster.server_emit(&root, args.clone()).expect("any name");
        }
        node.emit("/", rooms([]), "mark");
        assert!(hear_all(&mut crowd, "mark").await.iter().all(Vec::is_empty));
    }
}
