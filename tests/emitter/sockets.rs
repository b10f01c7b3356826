//! Join, leave, disconnect, update.

use serde_json::{Value, json};

use crate::Cluster;

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
