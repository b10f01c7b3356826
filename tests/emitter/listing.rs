//! Lists of sockets, rooms and users; pages; who is online.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use adapter::broker::memory::MemoryBus;
use cluster_proto::message::Operation;
use serde_json::{Value, json};
use system_tests::brokers::wait_until;

use crate::edge::FakeEdge;
use crate::http::Request;
use crate::{Cluster, WITHIN, config, emitter_on};

fn names(list: &Value, name: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item[name].as_str().unwrap().to_owned()).collect()
}

#[test]
fn sockets_are_listed_with_what_is_known_of_them() {
    let cluster = Cluster::new(2);
    let a = cluster.edges[0].user_socket("/", &["r"], "u");
    let b = cluster.edges[1].socket("/", &["r"]);
    cluster.edges[1].socket("/chat", &["r"]);
    cluster.edges[0].edit("/", &a, |socket| socket.data = Some(r#"{"x":[1]}"#.to_owned()));
    let listed = cluster.get("/v1/sockets").json();
    let mut all = vec![a.clone(), b.clone()];
    all.sort();
    assert_eq!(names(&listed["sockets"], "sid"), all);
    assert_eq!((&listed["complete"], listed.get("next_cursor")), (&json!(true), None));
    let mut rooms = vec![a.as_str(), "r", "user:u"];
    rooms.sort_unstable();
    let expected = json!({
        "sid": &a, "rooms": rooms, "user": "u", "data": {"x": [1]}, "handshake": {"secure": false}
    });
    assert_eq!(cluster.get("/v1/sockets?user=u").json()["sockets"], json!([expected]));
    let check = |query: &str, expected: &[&String]| {
        let listed = cluster.get(&format!("/v1/sockets?{query}")).json();
        let mut expected: Vec<String> = expected.iter().map(|sid| (*sid).clone()).collect();
        expected.sort();
        assert_eq!(names(&listed["sockets"], "sid"), expected, "{query}");
    };
    check("room=r", &[&a, &b]);
    check(&format!("sid={b}"), &[&b]);
    check(&format!("sid={b}&user=u"), &[]);
    check("room=r&user=u", &[&a]);
    check("room=none", &[]);
    assert_eq!(cluster.get("/v1/sockets?namespace=/chat").json()["sockets"].as_array().unwrap().len(), 1);
    assert_eq!(cluster.get("/v1/sockets?namespace=/none").json()["sockets"], json!([]));
}

/// Sockets come and go while a list is read page by page: whatever was there throughout appears exactly once.
#[test]
fn a_list_read_page_by_page_has_everything_once() {
    let cluster = Cluster::new(3);
    cluster.edges[2].change(|state| state.is_old = true);
    let mut constant: Vec<String> = Vec::new();
    for edge in &cluster.edges {
        constant.extend((0..200).map(|_| edge.socket("/", &[])));
    }
    constant.sort();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut passing = Vec::new();
            while !is_done.load(Ordering::Relaxed) {
                for edge in &cluster.edges {
                    passing.push((edge, edge.socket("/", &[])));
                }
                if passing.len() > 30 {
                    for (edge, sid) in passing.drain(..15) {
                        edge.remove("/", &sid);
                    }
                }
            }
        });
        let mut seen: Vec<String> = Vec::new();
        let mut cursor = String::new();
        loop {
            let listed = cluster.get(&format!("/v1/sockets?limit=37{cursor}")).json();
            assert_eq!(listed["complete"], true);
            seen.extend(names(&listed["sockets"], "sid"));
            match listed["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        is_done.store(true, Ordering::Relaxed);
        let wanted: BTreeSet<&String> = constant.iter().collect();
        let found: Vec<&String> = seen.iter().filter(|sid| wanted.contains(sid)).collect();
        assert_eq!(found, constant.iter().collect::<Vec<_>>());
        let count = seen.len();
        seen.dedup();
        assert_eq!(seen.len(), count, "nothing appears twice");
    });
}

#[test]
fn rooms_are_listed_with_their_counts() {
    let cluster = Cluster::new(2);
    cluster.edges[0].user_socket("/", &["order:1", "all"], "u");
    let b = cluster.edges[0].socket("/", &["order:2", "all"]);
    cluster.edges[1].user_socket("/", &["all"], "u");
    let check = |query: &str, expected: Value| {
        let listed = cluster.get(&format!("/v1/rooms{query}")).json();
        let rooms: Vec<Value> = listed["rooms"]
            .as_array()
            .unwrap()
            .iter()
            .map(|room| json!([room["room"], room["sockets"]]))
            .collect();
        assert_eq!(json!(rooms), expected, "{query}");
    };
    check("", json!([["all", 3], ["order:1", 1], ["order:2", 1]]));
    check("?name=all", json!([["all", 3]]));
    check("?name=order:*", json!([["order:1", 1], ["order:2", 1]]));
    check(&format!("?sid={b}"), json!([["all", 1], ["order:2", 1]]));
    check("?user=u", json!([["all", 2], ["order:1", 1]]));
    check("?name=none", json!([]));
    let first = cluster.get("/v1/rooms?limit=2").json();
    assert_eq!(names(&first["rooms"], "room"), ["all", "order:1"]);
    let rest = cluster.get(&format!("/v1/rooms?cursor={}", first["next_cursor"].as_str().unwrap())).json();
    assert_eq!((names(&rest["rooms"], "room"), rest.get("next_cursor")), (vec!["order:2".to_owned()], None));
}

#[test]
fn users_are_listed_and_asked_for() {
    let cluster = Cluster::new(2);
    cluster.edges[0].user_socket("/", &["r"], "ann");
    cluster.edges[1].user_socket("/", &[], "ann");
    cluster.edges[1].user_socket("/", &["r"], "bob");
    cluster.edges[1].socket("/", &[]);
    let listed = cluster.get("/v1/users").json();
    assert_eq!(listed["users"], json!([{"user": "ann", "sockets": 2}, {"user": "bob", "sockets": 1}]));
    assert_eq!(
        cluster.get("/v1/users?room=r&name=a*").json()["users"],
        json!([{"user": "ann", "sockets": 1}])
    );
    let asked = cluster.done("/v1/users/query", &json!({"users": ["bob", "eve", "ann"]}));
    assert_eq!(
        asked["users"],
        json!([
            {"user": "bob", "online": true, "sockets": 1},
            {"user": "eve", "online": false, "sockets": 0},
            {"user": "ann", "online": true, "sockets": 2}
        ])
    );
    let many: Vec<String> = (0..1_000).map(|number| format!("user {number}")).collect();
    assert_eq!(
        cluster.done("/v1/users/query", &json!({"users": many}))["users"].as_array().unwrap().len(),
        1_000
    );
}

/// Reads a list to its end; the items of each page.
fn pages(cluster: &Cluster, path: &str, list: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = cluster.get(&format!("{path}{cursor}")).json();
        assert_eq!(page["complete"], true, "{page}");
        all.push(page[list].clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// Edges that send what a page needs, and edges that send all they have, in every mixture.
#[test]
fn edges_old_and_new_make_one_list() {
    let cluster = Cluster::new(3);
    for (number, edge) in cluster.edges.iter().enumerate() {
        for socket in 0..7 {
            let rooms =
                [format!("r{}", (number + socket) % 5), format!("s{number}{socket}"), "all".to_owned()];
            let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
            match socket % 3 {
                0 => edge.socket("/", &rooms),
                _ => edge.user_socket("/", &rooms, &format!("u{}", socket % 4)),
            };
        }
    }
    let lists = [
        ("/v1/sockets?limit=4", "sockets"),
        ("/v1/sockets?limit=2&room=r1", "sockets"),
        ("/v1/sockets?limit=3&room=all&user=u1", "sockets"),
        ("/v1/rooms?limit=4", "rooms"),
        ("/v1/rooms?limit=2&name=r*", "rooms"),
        ("/v1/rooms?limit=3&user=u1", "rooms"),
        ("/v1/rooms?limit=1&name=r1&user=u1", "rooms"),
        ("/v1/users?limit=2", "users"),
        ("/v1/users?limit=2&name=u*&room=all", "users"),
        ("/v1/users?limit=1&name=u1&room=r1", "users"),
    ];
    let read = |old: usize| -> Vec<Vec<Value>> {
        for (number, edge) in cluster.edges.iter().enumerate() {
            edge.change(|state| state.is_old = old & (1 << number) != 0);
        }
        lists.iter().map(|(path, list)| pages(&cluster, path, list)).collect()
    };
    let all_new = read(0);
    for old in 1..8 {
        assert_eq!(read(old), all_new, "{old:03b}");
    }
    // Each page but the last is full, and the list knows its end.
    let lengths = |list: usize| -> Vec<usize> {
        all_new[list].iter().map(|page| page.as_array().unwrap().len()).collect()
    };
    assert_eq!(lengths(0), [4, 4, 4, 4, 4, 1]);
    assert_eq!(lengths(4), [2, 2, 1]);
    let users: Vec<Value> = all_new[7].iter().flat_map(|page| page.as_array().unwrap().clone()).collect();
    let users: Vec<(&str, &Value)> =
        users.iter().map(|user| (user["user"].as_str().unwrap(), &user["sockets"])).collect();
    assert_eq!(users, [("u0", &json!(3)), ("u1", &json!(6)), ("u2", &json!(3))]);
}

/// All filters narrow what is counted, also where an edge was asked by another one.
#[test]
fn filters_of_counts_hold_together() {
    let cluster = Cluster::new(2);
    cluster.edges[1].change(|state| state.is_old = true);
    for edge in &cluster.edges {
        edge.user_socket("/", &["a"], "ann");
        edge.user_socket("/", &["b"], "ann");
    }
    assert_eq!(
        cluster.get("/v1/users?room=a&name=ann").json()["users"],
        json!([{"user": "ann", "sockets": 2}])
    );
    let sid = cluster.edges[0].socket("/", &["a"]);
    assert_eq!(cluster.get(&format!("/v1/rooms?sid={sid}&user=ann")).json()["rooms"], json!([]));
}

/// A socket that was to end a page goes before it is described: the list goes on all the same.
#[test]
fn a_page_whose_sockets_have_gone_leads_on() {
    let cluster = Cluster::new(2);
    let last = cluster.edges[0].socket("/", &[]);
    cluster.edges[1].change(|state| state.ends_at = Some("!gone".to_owned()));
    let first = cluster.get("/v1/sockets?limit=3").json();
    assert_eq!(first["sockets"], json!([]));
    cluster.edges[1].change(|state| state.ends_at = None);
    let path = format!("/v1/sockets?limit=3&cursor={}", first["next_cursor"].as_str().unwrap());
    let rest = cluster.get(&path).json();
    assert_eq!((names(&rest["sockets"], "sid"), rest.get("next_cursor")), (vec![last], None));
}

#[test]
fn names_that_no_room_and_no_user_can_have_are_refused() {
    let cluster = Cluster::new(1);
    let long = "x".repeat(257);
    cluster.get(&format!("/v1/rooms?name={long}*")).problem(422, "invalid_room");
    cluster.get(&format!("/v1/users?name={long}*")).problem(422, "invalid_user");
    assert_eq!(cluster.get("/v1/users?name=*").json()["users"], json!([]));
}

/// Who is online is asked without a list of sockets.
#[test]
fn users_are_counted_where_they_are() {
    let cluster = Cluster::new(2);
    cluster.edges[1].change(|state| state.is_old = true);
    for edge in &cluster.edges {
        edge.user_socket("/", &[], "ann");
        edge.user_socket("/", &[], "bob");
    }
    let asked = cluster.done("/v1/users/query", &json!({"users": ["bob", "eve"]}));
    let expected = json!([
        {"user": "bob", "online": true, "sockets": 2}, {"user": "eve", "online": false, "sockets": 0}
    ]);
    assert_eq!(asked["users"], expected);
    let asked = cluster.edges[0].change(|state| state.messages.last().cloned()).unwrap();
    assert!(matches!(asked.operation, Operation::Fetch { listing: Some(_), .. }), "{asked:?}");
}

#[test]
fn a_partial_answer_says_whose_part_is_missing() {
    let cluster = Cluster::new(2);
    cluster.edges.iter().for_each(|edge| drop(edge.socket("/", &["r"])));
    cluster.edges[1].change(|state| state.is_silent = true);
    let silent = json!([cluster.edges[1].adapter.node().to_string()]);
    for path in ["/v1/sockets", "/v1/rooms", "/v1/users"] {
        let listed = cluster.get(path).json();
        assert_eq!((&listed["complete"], &listed["missing_nodes"]), (&json!(false), &silent), "{path}");
    }
    assert_eq!(cluster.get("/v1/sockets").json()["sockets"].as_array().unwrap().len(), 1);
}

/// An emitter that has heard of nobody yet must not say that nobody is there: it waits for the first edges.
#[test]
fn a_list_asked_for_at_the_start_waits_until_edges_are_known() {
    let bus = MemoryBus::new();
    let emitter = emitter_on(&bus, config());
    let port = emitter.local_addr().port();
    wait_until("an emitter on the bus", WITHIN, || {
        Request::new(port, "GET", "/v1/info").send().json()["broker"] == "ready"
    });
    thread::scope(|scope| {
        let asking = scope.spawn(|| Request::new(port, "GET", "/v1/sockets").send());
        // Longer than an edge needs that is in good health, and shorter than the pause between two heartbeats.
        thread::sleep(Duration::from_millis(700));
        let edge = FakeEdge::start(&bus);
        let sid = edge.socket("/", &[]);
        let listed = asking.join().unwrap().json();
        assert_eq!(names(&listed["sockets"], "sid"), [sid], "{listed}");
    });
    emitter.close(Duration::from_secs(1));
}

#[test]
fn a_page_has_a_bound_in_bytes() {
    let mut config = config();
    config.answer_bytes_max = 65_536;
    let cluster = Cluster::with(1, config);
    let mut all = Vec::new();
    for _ in 0..10 {
        let sid = cluster.edges[0].socket("/", &[]);
        let data = format!("\"{}\"", "x".repeat(20_000));
        cluster.edges[0].edit("/", &sid, |socket| socket.data = Some(data));
        all.push(sid);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let listed = cluster.get(&format!("/v1/sockets?limit=100{cursor}")).json();
        let page = names(&listed["sockets"], "sid");
        assert!((1..=3).contains(&page.len()));
        seen.extend(page);
        match listed["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, all);
}
