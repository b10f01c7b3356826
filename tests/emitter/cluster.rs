//! Every operation with real edges and real clients: in one process, and with two and three edges and two emitters on
//! Redis and on RabbitMQ, which are then killed and frozen.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use system_tests::brokers::{RabbitmqServer, RedisServer, wait_until};

use crate::WITHIN;
use crate::broker::{SOON, all_refused};
use crate::clients::Client;
use crate::processes::Stage;

/// How many sockets are asked at a time.
const MANY: usize = 1_000;

fn mark(stage: &Stage, namespace: &str, name: &str) {
    stage.done(0, "/v1/emit", &json!({"namespace": namespace, "broadcast": true, "event": name}));
}

type Case = fn(&Stage);

/// What holds on every broker, however many the edges.
const CASES: [(&str, Case); 9] = [
    ("events", events_reach_whom_they_are_for),
    ("binary values", binary_values_arrive),
    ("join then emit", join_then_emit_never_misses),
    ("rooms", sockets_come_into_rooms_and_leave_them),
    ("updates", sockets_are_updated),
    ("disconnects", sockets_are_disconnected),
    ("repeats", a_repeat_is_delivered_once),
    ("batches", a_batch_is_carried_out_in_order),
    ("server-side events", servers_hear_each_other),
];

fn operations(stage: &Stage) {
    for (name, case) in CASES {
        let began = Instant::now();
        case(stage);
        stage.is_left();
        eprintln!("{} edges, {name}: {} ms", stage.edges.len(), began.elapsed().as_millis());
    }
}

fn events_reach_whom_they_are_for(stage: &Stage) {
    let [a, b, c] = [0, 1, 2].map(|number| stage.client(number, "/"));
    let d = stage.client(1, "/chat");
    stage.done(0, "/v1/sockets/join", &json!({"sid": a.sid, "rooms": ["r", "q"]}));
    stage.done(1, "/v1/sockets/join", &json!({"sid": b.sid, "room": "r"}));
    stage.done(1, "/v1/sockets/join", &json!({"namespace": "/chat", "sid": d.sid, "room": "r"}));
    stage.done(0, "/v1/sockets/update", &json!({"sid": c.sid, "user": "u 7"}));
    let events = [
        ("all", json!({"broadcast": true})),
        ("room", json!({"room": "r"})),
        ("rooms", json!({"rooms": ["q", "r", "none"]})),
        ("sid", json!({"sid": b.sid})),
        ("sids", json!({"sids": [a.sid, b.sid]})),
        ("user", json!({"user": "u 7"})),
        ("users", json!({"users": ["u 7", "nobody"], "room": "q"})),
        ("except", json!({"broadcast": true, "except": ["q", c.sid]})),
        ("volatile", json!({"broadcast": true, "volatile": true})),
        ("chat", json!({"namespace": "/chat", "room": "r"})),
        ("nobody", json!({"room": "nobody is there"})),
        ("end", json!({"broadcast": true})),
        ("end", json!({"namespace": "/chat", "broadcast": true})),
    ];
    for (number, (event, selector)) in events.into_iter().enumerate() {
        let mut body = json!({"event": event});
        body.as_object_mut().unwrap().extend(selector.as_object().unwrap().clone());
        assert_eq!(stage.post(number, "/v1/emit", &body).status, 202, "{body}");
    }
    assert_eq!(a.names_until("end"), ["all", "room", "rooms", "sids", "users", "volatile"]);
    assert_eq!(b.names_until("end"), ["all", "room", "rooms", "sid", "sids", "except", "volatile"]);
    assert_eq!(c.names_until("end"), ["all", "user", "users", "volatile"]);
    assert_eq!(d.names_until("end"), ["chat"]);
}

fn binary_values_arrive(stage: &Stage) {
    let clients = [0, 1, 2].map(|number| stage.client(number, "/"));
    let args = json!([{"a": {"$binary": "AP8B"}}, "text", {"$binary": ""}]);
    stage.done(0, "/v1/emit", &json!({"broadcast": true, "event": "image", "args": args}));
    mark(stage, "/", "end");
    for client in &clients {
        let [heard] = &*client.until("end") else { panic!("one event") };
        let placeholder = |num: u64| json!({"_placeholder": true, "num": num});
        assert_eq!(heard.data, json!(["image", {"a": placeholder(0)}, "text", placeholder(1)]));
        assert_eq!(heard.attachments, [&[0_u8, 255, 1][..], &[]]);
    }
}

/// The join goes to one emitter, the event to the other; the socket is on any edge.
fn join_then_emit_never_misses(stage: &Stage) {
    let clients = [0, 1, 2].map(|number| stage.client(number, "/"));
    let mut expected = Vec::new();
    for number in 0..40 {
        let room = format!("room {number}");
        for client in &clients {
            let joined = stage.done(number, "/v1/sockets/join", &json!({"sid": client.sid, "room": room}));
            assert_eq!((&joined["sockets"], &joined["complete"]), (&json!(1), &json!(true)));
        }
        stage.done(number + 1, "/v1/emit", &json!({"room": room, "event": room}));
        expected.push(room);
    }
    mark(stage, "/", "end");
    clients.iter().for_each(|client| assert_eq!(client.names_until("end"), expected));
}

fn sockets_come_into_rooms_and_leave_them(stage: &Stage) {
    let clients = [0, 1, 2].map(|number| stage.client(number, "/"));
    let done = |number: usize, path: &str, body: Value, sockets: u64| {
        let answer = stage.done(number, path, &body);
        assert_eq!(answer, json!({"sockets": sockets, "complete": true, "missing_nodes": []}), "{body}");
    };
    done(0, "/v1/sockets/join", json!({"broadcast": true, "rooms": ["one", "two"]}), 3);
    done(1, "/v1/sockets/join", json!({"in": ["one"], "except": [clients[0].sid], "room": "three"}), 2);
    done(0, "/v1/sockets/join", json!({"sid": "nobody", "room": "four"}), 0);
    done(1, "/v1/sockets/leave", json!({"in": ["three"], "rooms": ["two", "three"]}), 2);
    for number in 0..2 {
        let listed = stage.get(number, "/v1/rooms");
        let rooms = json!([{"room": "one", "sockets": 3}, {"room": "two", "sockets": 1}]);
        assert_eq!((&listed["rooms"], &listed["complete"]), (&rooms, &json!(true)));
        let listed = stage.get(number, "/v1/sockets?room=two");
        assert_eq!(listed["sockets"][0]["sid"], clients[0].sid.as_str(), "{listed}");
    }
    for room in ["one", "two", "three"] {
        stage.done(1, "/v1/emit", &json!({"room": room, "event": room}));
    }
    mark(stage, "/", "end");
    assert_eq!(clients[0].names_until("end"), ["one", "two"]);
    assert_eq!(clients[1].names_until("end"), ["one"]);
    assert_eq!(clients[2].names_until("end"), ["one"]);
}

fn sockets_are_updated(stage: &Stage) {
    let [ann, bob, third] = [0, 1, 2].map(|number| stage.client(number, "/"));
    let update = |number: usize, body: Value| {
        let answer = stage.done(number, "/v1/sockets/update", &body);
        assert_eq!((&answer["sockets"], &answer["complete"]), (&json!(1), &json!(true)), "{body}");
    };
    update(0, json!({"sid": ann.sid, "user": "ann", "data": {"plan": ["pro"]}}));
    update(1, json!({"sid": bob.sid, "user": "bob"}));
    let listed = stage.get(1, "/v1/sockets?user=ann");
    let [only] = &**listed["sockets"].as_array().unwrap() else { panic!("{listed}") };
    assert_eq!((&only["sid"], &only["data"]), (&json!(ann.sid), &json!({"plan": ["pro"]})));
    let users = stage.get(0, "/v1/users");
    assert_eq!(users["users"], json!([{"user": "ann", "sockets": 1}, {"user": "bob", "sockets": 1}]));
    let asked = stage.done(1, "/v1/users/query", &json!({"users": ["bob", "eve"]}));
    let expected = json!([{"user": "bob", "online": true, "sockets": 1}, {"user": "eve", "online": false, "sockets": 0}]);
    assert_eq!(asked["users"], expected);
    // Somebody else's from now on; and what has no user is nobody's.
    update(1, json!({"sid": ann.sid, "user": "bob", "data": null}));
    update(0, json!({"sid": bob.sid, "user": null}));
    stage.done(1, "/v1/emit", &json!({"user": "bob", "event": "for bob"}));
    mark(stage, "/", "end");
    assert_eq!(ann.names_until("end"), ["for bob"]);
    assert!(bob.names_until("end").is_empty() && third.names_until("end").is_empty());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    update(0, json!({"sid": ann.sid, "expires_at": u64::try_from(now).unwrap() + 100}));
    ann.ends();
    mark(stage, "/", "behind it");
    assert!(bob.names_until("behind it").is_empty());
}

fn sockets_are_disconnected(stage: &Stage) {
    let clients = [0, 1, 2].map(|number| stage.client(number, "/"));
    let body = json!({"broadcast": true, "except": [clients[1].sid]});
    assert_eq!(stage.done(1, "/v1/sockets/disconnect", &body)["sockets"], 2);
    clients[0].ends();
    clients[2].ends();
    let body = json!({"sid": clients[1].sid, "close": true});
    assert_eq!(stage.done(0, "/v1/sockets/disconnect", &body)["sockets"], 1);
    clients[1].ends();
    assert_eq!(stage.get(1, "/v1/sockets")["sockets"], json!([]));
}

/// Repeats go to the same emitter and to the other one, which never heard of the first.
fn a_repeat_is_delivered_once(stage: &Stage) {
    let clients = [0, 1, 2].map(|number| stage.client(number, "/"));
    stage.done(0, "/v1/sockets/join", &json!({"broadcast": true, "room": "order"}));
    for (number, target) in [
        json!({"room": "order"}),
        json!({"broadcast": true}),
        json!({"sids": [clients[0].sid, clients[1].sid, clients[2].sid]}),
    ]
    .into_iter()
    .enumerate()
    {
        // The case is run more than once on the same emitters.
        let key = format!("{} edges, {number}", stage.edges.len());
        let mut body = json!({"event": "once", "idempotency_key": key});
        body.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
        let replies = [0, 1, 0, 1].map(|emitter| stage.post(emitter, "/v1/emit", &body));
        let ids: BTreeSet<String> = replies.iter().map(|reply| reply.json()["id"].to_string()).collect();
        assert_eq!(ids.len(), 1, "one event has one id: {ids:?}");
        for (at, reply) in replies.iter().enumerate() {
            let is_replayed = reply.header("idempotency-replayed") == Some("true");
            assert_eq!((reply.status, is_replayed), (202, at >= stage.apis.len()), "{at}");
        }
        stage
            .post(0, "/v1/emit", &json!({"room": "other", "event": "e", "idempotency_key": key}))
            .problem(409, "idempotency_conflict");
    }
    mark(stage, "/", "end");
    clients.iter().for_each(|client| assert_eq!(client.names_until("end"), ["once"; 3]));
}

fn a_batch_is_carried_out_in_order(stage: &Stage) {
    let clients = [0, 1, 2].map(|number| stage.client(number, "/"));
    let mut operations = Vec::new();
    for client in &clients {
        operations.push(json!({"op": "join", "sid": client.sid, "room": "batch"}));
        operations.push(
            json!({"op": "emit", "room": "batch", "event": format!("joined {}", operations.len() / 2)}),
        );
    }
    operations.push(json!({"op": "emit", "event": "to nobody"}));
    operations
        .extend((0..100).map(|number| json!({"op": "emit", "room": "batch", "event": format!("{number}")})));
    operations.push(json!({"op": "leave", "in": ["batch"], "room": "batch"}));
    operations.push(json!({"op": "emit", "room": "batch", "event": "too late"}));
    operations.push(json!({"op": "emit", "broadcast": true, "event": "end"}));
    let answer = stage.done(1, "/v1/batch", &json!({"operations": operations}));
    let statuses: Vec<u64> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["status"].as_u64().unwrap())
        .collect();
    let expected = [&[200, 202, 200, 202, 200, 202, 400][..], &[202; 100], &[200, 202, 202]].concat();
    assert_eq!(statuses, expected);
    for (number, client) in clients.iter().enumerate() {
        let joined = (number..3).map(|number| format!("joined {number}"));
        let expected: Vec<String> = joined.chain((0..100).map(|number| number.to_string())).collect();
        assert_eq!(client.names_until("end"), expected);
    }
}

/// The demo of each edge answers with what it heard.
fn servers_hear_each_other(stage: &Stage) {
    // An edge hears what is said in namespaces that it has open.
    let _clients: Vec<Client> = (0..stage.edges.len()).map(|number| stage.client(number, "/")).collect();
    assert_eq!(stage.post(0, "/v1/server-emit", &json!({"event": "e", "args": [1]})).status, 202);
    let answer = stage.done(1, "/v1/server-emit", &json!({"event": "e", "args": [1], "ack": {}}));
    assert_eq!(answer["responses"], json!(vec![json!(["e", 1]); stage.edges.len()]), "{answer}");
    assert_eq!((&answer["missing_nodes"], &answer["timed_out"]), (&json!([]), &json!(false)));
}

/// An emitter that has just started, and edges that it has not heard of: its first answers are whole.
fn a_fresh_emitter_knows_everybody(stage: &mut Stage) {
    let clients: Vec<Client> = (0..stage.edges.len()).map(|number| stage.client(number, "/fresh")).collect();
    stage.add_emitter();
    let last = stage.apis.len() - 1;
    let path = "/v1/sockets?namespace=/fresh";
    let mut listed = Value::Null;
    wait_until("an answer", WITHIN, || {
        let reply = crate::http::Request::new(stage.apis[last], "GET", path).send();
        listed = reply.json();
        reply.status == 200
    });
    let found: BTreeSet<&str> =
        listed["sockets"].as_array().unwrap().iter().map(|socket| socket["sid"].as_str().unwrap()).collect();
    assert_eq!(found, clients.iter().map(|client| client.sid.as_str()).collect(), "{listed}");
    assert_eq!(listed["complete"], true);
}

/// A thousand sockets: all answer, then ten are silent; lists are read while others come and go.
fn many_sockets(stage: &Stage) {
    let ports = stage.ports();
    let clients = stage.clients.connect_many(&ports, "/many", MANY);
    let everybody: BTreeSet<&str> = clients.iter().map(|client| client.sid.as_str()).collect();
    let ask = |number: usize, timeout_ms: u64| {
        let body =
            json!({"namespace": "/many", "broadcast": true, "event": "?", "ack": {"timeout_ms": timeout_ms}});
        stage.done(number, "/v1/emit", &body)
    };
    let answered = |answer: &Value| -> BTreeSet<String> {
        let responses = answer["responses"].as_array().unwrap();
        let sids = responses.iter().map(|response| {
            assert_eq!(response["args"], json!([response["sid"]]), "everybody answers with its own id");
            response["sid"].as_str().unwrap().to_owned()
        });
        let count = sids.len();
        let sids: BTreeSet<String> = sids.collect();
        assert_eq!(sids.len(), count, "nobody answers twice");
        sids
    };
    let answer = ask(0, 20_000);
    assert!(answered(&answer).iter().map(String::as_str).eq(everybody.iter().copied()));
    let rest =
        (&answer["missing"], &answer["missing_unnamed"], &answer["missing_nodes"], &answer["timed_out"]);
    assert_eq!(rest, (&json!([]), &json!(0), &json!([]), &json!(false)));

    let silent: BTreeSet<&str> =
        clients.iter().step_by(MANY / 10).map(|client| client.sid.as_str()).collect();
    clients.iter().step_by(MANY / 10).for_each(Client::keep_silent);
    let answer = ask(1, 5_000);
    assert_eq!((answered(&answer).len(), &answer["timed_out"]), (MANY - 10, &json!(true)));
    assert_eq!(answer["missing"], json!(silent), "the ten are named, in order");
    assert_eq!((&answer["missing_unnamed"], &answer["missing_nodes"]), (&json!(0), &json!([])));

    let constant: Vec<(&Client, String)> = clients
        .iter()
        .step_by(MANY / 50)
        .enumerate()
        .map(|(number, client)| (client, format!("c{number:02}")))
        .collect();
    let setup = constant.iter().flat_map(|(client, name)| {
        let namespace = "/many";
        [
            json!({"op": "join", "namespace": namespace, "sid": client.sid, "room": name}),
            json!({"op": "update", "namespace": namespace, "sid": client.sid, "user": name}),
        ]
    });
    let body = json!({"operations": setup.collect::<Vec<_>>()});
    let results = stage.done(0, "/v1/batch", &body);
    assert!(results["results"].as_array().unwrap().iter().all(|result| result["sockets"] == 1), "{results}");
    let names: Vec<&str> = constant.iter().map(|(_, name)| name.as_str()).collect();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Sockets come and go, and with them rooms and users between the others.
            for number in 0.. {
                if is_done.load(Ordering::Relaxed) {
                    break;
                }
                let guest = stage.client(number, "/many");
                let name = format!("c{:02}x{number}", number * 7 % 50);
                let (join, update) = (
                    json!({"namespace": "/many", "sid": guest.sid, "room": name}),
                    json!({"namespace": "/many", "sid": guest.sid, "user": name}),
                );
                stage.done(number, "/v1/sockets/join", &join);
                stage.done(number, "/v1/sockets/update", &update);
            }
        });
        let sockets = pages(stage, "/v1/sockets?namespace=/many&limit=171", "sockets", "sid");
        assert!(sockets.iter().filter(|sid| everybody.contains(sid.as_str())).eq(everybody.iter()));
        for (list, name) in [("rooms", "room"), ("users", "user")] {
            let found = pages(stage, &format!("/v1/{list}?namespace=/many&limit=9"), list, name);
            let found: Vec<&str> =
                found.iter().map(String::as_str).filter(|name| names.contains(name)).collect();
            assert_eq!(found, names, "{list}");
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

/// A page of few items out of a thousand sockets moves a small part of what all of them are.
fn a_page_moves_little(stage: &Stage) {
    let clients = stage.clients.connect_many(&stage.ports(), "/fresh", MANY);
    // So many that a shard looks at its sockets in more than one go.
    let rooms: Vec<String> = (0..16).map(|number| format!("room {number:02}")).collect();
    let everybody = json!({"namespace": "/fresh", "broadcast": true, "rooms": rooms});
    assert_eq!(stage.done(0, "/v1/sockets/join", &everybody)["sockets"], MANY);
    let ours = json!({"namespace": "/fresh", "broadcast": true, "user": "u"});
    assert_eq!(stage.done(0, "/v1/sockets/update", &ours)["sockets"], MANY);
    let moved = |path: &str| {
        let before = stage.received_bytes();
        let page = stage.get(0, path);
        assert_eq!(page["complete"], true, "{page}");
        (page, stage.received_bytes() - before)
    };
    let (page, whole) = moved("/v1/sockets?namespace=/fresh&limit=1000");
    assert_eq!(page["sockets"].as_array().unwrap().len(), MANY);
    let counted = |name: &str, names: &[String]| -> Value {
        names.iter().map(|item| json!({(name): item, "sockets": MANY})).collect()
    };
    let first = clients.iter().map(|client| client.sid.as_str()).min();
    for (path, list, expected) in [
        ("/v1/sockets?namespace=/fresh&limit=5", "sockets", None),
        ("/v1/sockets?namespace=/fresh&limit=5&user=u&room=room%2007", "sockets", None),
        ("/v1/rooms?namespace=/fresh", "rooms", Some(counted("room", &rooms))),
        ("/v1/users?namespace=/fresh", "users", Some(counted("user", &["u".to_owned()]))),
    ] {
        let (page, bytes) = moved(path);
        match expected {
            Some(expected) => assert_eq!(page[list], expected),
            None => {
                let sockets = page[list].as_array().unwrap();
                assert_eq!((sockets.len(), sockets[0]["sid"].as_str()), (5, first), "{page}");
                assert!(page["next_cursor"].is_string(), "{page}");
            }
        }
        eprintln!("{} edges, {path}: {bytes} bytes of {whole}", stage.edges.len());
        // Heartbeats are among them.
        assert!(bytes * 10 < whole, "{path}: {bytes} bytes of {whole}");
    }
}

/// Reads a list to its end, each page from another emitter; nothing appears twice.
fn pages(stage: &Stage, path: &str, list: &str, name: &str) -> Vec<String> {
    let (mut all, mut cursor, mut number) = (Vec::new(), String::new(), 0);
    loop {
        let page = stage.get(number, &format!("{path}{cursor}"));
        assert_eq!(page["complete"], true, "{page}");
        all.extend(page[list].as_array().unwrap().iter().map(|item| item[name].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        (cursor, number) = (format!("&cursor={next}"), number + 1);
    }
    assert!(all.is_sorted_by(|one, other| one < other), "each once, in order: {all:?}");
    all
}

/// Every call is refused in time through all emitters, at once, on a machine that is busy with it.
fn refuses(stage: &Stage) {
    thread::scope(|scope| {
        for api in &stage.apis {
            scope.spawn(|| all_refused(*api, None, 2 * SOON));
        }
    });
}

/// The broker is back: both emitters reach a client of every edge, and hear all of them.
fn works_again(stage: &Stage) {
    for number in 0..stage.apis.len() {
        let body = json!({"broadcast": true, "event": "hello?"});
        wait_until("a broker that is back", WITHIN, || stage.post(number, "/v1/emit", &body).status == 202);
    }
    for edge in &stage.edges {
        wait_until("an edge that is whole again", WITHIN, || edge.metric("jackfield_broker_whole") == 1);
    }
    let clients: Vec<Client> = (0..stage.edges.len()).map(|number| stage.client(number, "/")).collect();
    for number in 0..stage.apis.len() {
        let room = format!("again {number}");
        let joined = stage.done(number, "/v1/sockets/join", &json!({"broadcast": true, "room": room}));
        assert_eq!((&joined["sockets"], &joined["complete"]), (&json!(clients.len()), &json!(true)));
        stage.done(number + 1, "/v1/emit", &json!({"room": room, "event": room}));
    }
    mark(stage, "/", "end");
    for client in &clients {
        let heard = client.names_until("end");
        let again: Vec<&String> = heard.iter().filter(|name| name.starts_with("again")).collect();
        assert_eq!(again.len(), stage.apis.len(), "{heard:?}");
    }
}

/// All of it with two edges and with three, and then without the broker.
macro_rules! on_a_broker {
    ($name:ident, $server:ty, $sets:expr) => {
        #[test]
        fn $name() {
            let mut server = <$server>::start();
            let mut stage = Stage::start(2, stringify!($name), &$sets(&server.url()));
            operations(&stage);
            stage.add_edge();
            stage.meet();
            operations(&stage);
            a_fresh_emitter_knows_everybody(&mut stage);
            many_sockets(&stage);
            a_page_moves_little(&stage);
            server.freeze();
            refuses(&stage);
            server.thaw();
            works_again(&stage);
            server.stop(true);
            refuses(&stage);
            server.restart();
            works_again(&stage);
        }
    };
}

on_a_broker!(redis, RedisServer, |url: &str| [
    "broker.kind=redis".to_owned(),
    format!("broker.redis.url={url}")
]);
on_a_broker!(rabbitmq, RabbitmqServer, |url: &str| [
    "broker.kind=rabbitmq".to_owned(),
    format!("broker.rabbitmq.urls={url}")
]);

#[test]
fn memory() {
    let stage = Stage::alone();
    operations(&stage);
    many_sockets(&stage);
}
