//! A Socket.IO server of Node in the same cluster, on its Redis adapter, with clients of its own: what asks for acks is
//! answered from both sides, and whoever keeps silent there is counted.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use system_tests::brokers::{RedisServer, wait_until};
use system_tests::{Program, spawn_node};

use crate::WITHIN;
use crate::clients::Client;
use crate::processes::Stage;

/// How many clients the server of Node has.
const OURS: usize = 2;
const THEIRS: usize = 3;

/// The server and its clients, one process.
struct NodeServer {
    program: Program,
    sids: BTreeSet<String>,
}

impl NodeServer {
    fn start(redis: &RedisServer) -> Self {
        let mut program = spawn_node("emitter/node_member.mjs", &[&redis.url()], &[]);
        let sids = program.line_starting("sids", Duration::from_secs(30));
        Self { sids: serde_json::from_str(sids.trim_start_matches("sids ")).expect("a list of ids"), program }
    }

    /// Has it do something; its answer.
    fn told(&mut self, what: &str, answer: &str) -> Value {
        self.program.send_line(what);
        let line = self.program.line_starting(answer, WITHIN * 2);
        serde_json::from_str(line.trim_start_matches(answer)).expect("JSON")
    }
}

/// Asks the whole cluster through one of the emitters.
fn ask(stage: &Stage, number: usize, event: &str, timeout_ms: u64) -> Value {
    let body = json!({"broadcast": true, "event": event, "ack": {"timeout_ms": timeout_ms}});
    stage.done(number, "/v1/emit", &body)
}

/// Who answered, ours and Node's: each with its own id. Of its own Node does not say who they are.
fn answered(answer: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
    for response in answer["responses"].as_array().expect("a list") {
        let [id] = &**response["args"].as_array().expect("a list") else { panic!("{answer}") };
        let id = id.as_str().expect("an id").to_owned();
        let is_new = match response.get("sid") {
            Some(sid) => {
                assert_eq!(*sid, id, "{answer}");
                ours.insert(id)
            }
            None => theirs.insert(id),
        };
        assert!(is_new, "nobody answers twice: {answer}");
    }
    (ours, theirs)
}

#[test]
fn answers_of_a_node_server_are_part_of_the_cluster() {
    let redis = RedisServer::start();
    let sets = ["broker.kind=redis".to_owned(), format!("broker.redis.url={}", redis.url())];
    let stage = Stage::start(2, "node-member", &sets);
    let mut node = NodeServer::start(&redis);
    let clients: Vec<Client> = (0..OURS).map(|number| stage.client(number, "/")).collect();
    let ours: BTreeSet<String> = clients.iter().map(|client| client.sid.clone()).collect();
    let rest = |answer: &Value| {
        ["missing", "missing_unnamed", "missing_nodes", "timed_out"].map(|field| answer[field].clone())
    };
    let nobody = [json!([]), json!(0), json!([]), json!(false)];

    // From an emitter, whose every answer comes through.
    for number in 0..2 {
        let answer = ask(&stage, number, "ask", 10_000);
        assert_eq!(answered(&answer), (ours.clone(), node.sids.clone()), "{answer}");
        assert_eq!(rest(&answer), nobody, "{answer}");
    }
    // Of a socket there that keeps silent nothing is known but that it is one.
    let answer = ask(&stage, 0, "half", 3_000);
    assert_eq!((answered(&answer).0, answered(&answer).1.len()), (ours.clone(), THEIRS - 1), "{answer}");
    assert_eq!(rest(&answer), [json!([]), json!(1), json!([]), json!(true)], "{answer}");

    // From the server of Node: our edges answer as servers of its own kind do.
    let answers = node.told("ask from node", "asked");
    let answers: Vec<Value> = answers.as_array().expect("a list").clone();
    let found: BTreeSet<String> = answers.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let everybody: BTreeSet<String> = ours.union(&node.sids).cloned().collect();
    assert_eq!((answers.len(), &found), (OURS + THEIRS, &everybody), "{answers:?}");

    // Its sockets are listed with ours, come into rooms, and hear what is for them.
    let listed = stage.get(1, "/v1/sockets");
    let sids = listed["sockets"].as_array().expect("a list").iter();
    let sids: BTreeSet<String> =
        sids.filter_map(|socket| socket["sid"].as_str()).map(str::to_owned).collect();
    assert_eq!((sids, &listed["complete"]), (everybody, &json!(true)), "{listed}");
    let first = node.sids.first().expect("a client").clone();
    stage.done(0, "/v1/sockets/join", &json!({"sids": [first, clients[0].sid], "room": "mixed"}));
    node.told("heard", "heard");
    stage.done(0, "/v1/emit", &json!({"room": "mixed", "event": "to a room"}));
    stage.done(0, "/v1/emit", &json!({"sid": first, "event": "to one"}));
    stage.done(0, "/v1/emit", &json!({"broadcast": true, "except": ["mixed"], "event": "to the others"}));
    let mut heard = Vec::new();
    wait_until("events at the server of Node", WITHIN, || {
        let news = node.told("heard", "heard");
        heard.extend(
            news.as_array()
                .expect("lists")
                .iter()
                .flat_map(|names| names.as_array().expect("a list").clone()),
        );
        heard.len() >= 1 + 1 + (THEIRS - 1)
    });
    let count = |name: &str| heard.iter().filter(|event| *event == name).count();
    assert_eq!(["to a room", "to one", "to the others"].map(count), [1, 1, THEIRS - 1], "{heard:?}");

    // One that says nothing is counted as one; one that is gone is not waited for.
    node.program.signal(Signal::STOP);
    let answer = ask(&stage, 1, "ask", 3_000);
    assert_eq!(answered(&answer), (ours.clone(), BTreeSet::new()), "{answer}");
    assert_eq!(rest(&answer), [json!([]), json!(1), json!([]), json!(true)], "{answer}");
    drop(node);
    let mut answer = Value::Null;
    wait_until("an answer that waits for nobody", WITHIN, || {
        answer = ask(&stage, 0, "ask", 5_000);
        answer["timed_out"] == false
    });
    assert_eq!(answered(&answer), (ours, BTreeSet::new()), "{answer}");
    assert_eq!(rest(&answer), nobody, "{answer}");
}
