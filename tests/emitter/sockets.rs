//! Join, leave, disconnect, update.

use std::sync::Arc;

use adapter::adapter::{Adapter, Identity};
use adapter::broker::memory::MemoryBus;
use adapter::config::BrokerConfig;
use adapter::local::NoSockets;
use cluster_proto::broadcast::{BroadcastOptions, Selector};
use cluster_proto::heartbeat::Role;
use cluster_proto::message::{ClusterMessage, JsonData, Operation};
use serde_json::{Value, json};
use socketio_proto::namespace::NamespacePath;

use crate::edge::FakeEdge;
use crate::{Cluster, cluster_config};

fn rooms_of(cluster: &Cluster, edge: usize, sid: &str) -> Vec<String> {
    cluster.edges[edge]
        .edit("/", sid, |socket| socket.rooms.iter().filter(|room| *room != sid).cloned().collect())
}

#[test]
fn sockets_come_into_rooms_and_leave_them() {
    let cluster = Cluster::new(2);
    let a = cluster.edges[0].socket("/", &["blue"]);
    let b = cluster.edges[1].user_socket("/", &["blue"], "u");
    let join = |body: Value, count: u64| {
        let answer = cluster.done("/v1/sockets/join", &body);
        assert_eq!((&answer["sockets"], &answer["complete"]), (&json!(count), &json!(true)), "{body}");
    };
    join(json!({"sid": &a, "room": "one"}), 1);
    join(json!({"in": ["blue"], "rooms": ["two", "three"]}), 2);
    join(json!({"user": "u", "rooms": ["four"]}), 1);
    join(json!({"broadcast": true, "except": [&a], "rooms": ["five"]}), 1);
    join(json!({"sid": "nobody", "rooms": ["six"]}), 0);
    assert_eq!(rooms_of(&cluster, 0, &a), ["blue", "one", "three", "two"]);
    assert_eq!(rooms_of(&cluster, 1, &b), ["blue", "five", "four", "three", "two", "user:u"]);
    let answer =
        cluster.done("/v1/sockets/leave", &json!({"in": ["two"], "rooms": ["two", "three", "blue"]}));
    assert_eq!(answer["sockets"], 2);
    assert_eq!(rooms_of(&cluster, 0, &a), ["one"]);
}

/// What is emitted right after a join was answered arrives, every time.
#[test]
fn join_then_emit_never_misses() {
    let cluster = Cluster::new(2);
    let sid = cluster.edges[1].socket("/", &[]);
    for number in 0..100 {
        let room = format!("room {number}");
        cluster.done("/v1/sockets/join", &json!({"sid": &sid, "room": &room}));
        cluster.done("/v1/emit", &json!({"room": &room, "event": room}));
    }
    assert_eq!(cluster.edges[1].events("/", &sid, 100).len(), 100);
}

/// As `jackfield serve` has it: the only edge must not call a join done before the emitter beside it can reach it.
#[test]
fn the_only_edge_is_heard_by_the_emitter_beside_it_when_it_has_joined() {
    let bus = MemoryBus::new();
    let edge = FakeEdge::start(&bus);
    let sid = edge.socket("/", &[]);
    let starting = Adapter::start_on_bus(
        &bus,
        &BrokerConfig::default(),
        &cluster_config(),
        &Identity::new(Role::Emitter),
        Arc::new(NoSockets),
        None,
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let emitter = runtime.block_on(starting.unwrap().claimed()).unwrap();
    for number in 0..1_000 {
        let room = format!("room {number}");
        edge.edit("/", &sid, |socket| socket.rooms.insert(room.clone()));
        edge.wait_join(&NamespacePath::root(), Some(&room));
        let event = JsonData::text(r#"["e"]"#);
        let options = BroadcastOptions { selector: Selector::room(room), ..BroadcastOptions::default() };
        let operation = Operation::Broadcast { event, options };
        let message = ClusterMessage {
            sender: None,
            namespace: NamespacePath::root(),
            id: None,
            trace_parent: None,
            operation,
        };
        emitter.publish(message).unwrap();
    }
    assert_eq!(edge.events("/", &sid, 1_000).len(), 1_000);
}

#[test]
fn sockets_are_disconnected() {
    let cluster = Cluster::new(2);
    let kept = cluster.edges[0].socket("/", &["vip"]);
    cluster.edges[0].socket("/", &[]);
    cluster.edges[1].socket("/", &[]);
    let body = json!({"broadcast": true, "except": ["vip"], "close": true});
    assert_eq!(cluster.done("/v1/sockets/disconnect", &body)["sockets"], 2);
    assert_eq!((cluster.edges[0].ids("/"), cluster.edges[1].ids("/")), (vec![kept], vec![]));
}

#[test]
fn what_is_known_of_a_socket_changes() {
    let cluster = Cluster::new(1);
    let edge = &cluster.edges[0];
    let sid = edge.socket("/", &[]);
    let update = |body: Value| {
        let mut body = body;
        body["sid"] = json!(&sid);
        assert_eq!(cluster.done("/v1/sockets/update", &body)["sockets"], 1, "{body}");
    };
    let state =
        || edge.edit("/", &sid, |socket| (socket.user.clone(), socket.data.clone(), socket.expires_at_ms));
    update(json!({"user": "u", "data": {"$$binary": "x", "a": 1}, "expires_at": 1_893_456_000_000_u64}));
    assert_eq!(
        state(),
        (Some("u".into()), Some(r#"{"$$binary":"x","a":1}"#.into()), Some(1_893_456_000_000))
    );
    update(json!({"data": {"$$binary": "x"}}));
    assert_eq!(state().1.as_deref(), Some(r#"{"$binary":"x"}"#));
    let listed = cluster.get("/v1/sockets").json();
    assert_eq!(listed["sockets"][0]["data"], json!({"$$binary": "x"}));
    update(json!({"data": 7}));
    assert_eq!(state().0.as_deref(), Some("u"), "what is left out stays");
    update(json!({"user": null, "data": null, "expires_at": null}));
    assert_eq!(state(), (None, None, None));
}

#[test]
fn an_edge_that_does_not_answer_is_named() {
    let cluster = Cluster::new(2);
    cluster.edges.iter().for_each(|edge| drop(edge.socket("/", &[])));
    cluster.edges[1].change(|state| state.is_silent = true);
    let answer = cluster.done("/v1/sockets/join", &json!({"broadcast": true, "room": "r"}));
    let silent = cluster.edges[1].adapter.node().to_string();
    assert_eq!(answer, json!({"sockets": 1, "complete": false, "missing_nodes": [silent]}));
    assert!(cluster.metrics().contains("jackfield_emitter_queries_partial_total 1\n"));
}
