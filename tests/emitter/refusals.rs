//! Every code of a problem is provoked by a call, but for the one that says the emitter itself is at fault.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::{Cluster, config};

/// Provoked in `keys.rs` and `broker.rs`.
const ELSEWHERE: [&str; 8] = [
    "missing_credentials",
    "invalid_credentials",
    "expired_credentials",
    "insufficient_scope",
    "foreign_origin",
    "rate_limited",
    "outcome_unknown",
    "not_attempted",
];

/// Cannot be provoked: it would be a fault of ours.
const NEVER: [&str; 1] = ["internal"];

/// The codes that were seen.
struct Seen(Mutex<BTreeSet<String>>);

impl Seen {
    #[track_caller]
    fn note(&self, reply: &crate::http::Reply, status: u16, code: &str) -> Value {
        self.0.lock().unwrap().insert(code.to_owned());
        reply.problem(status, code)
    }
}

#[test]
fn every_code_is_provoked() {
    let mut config = config();
    config.body_bytes_max = 100_000;
    config.body_timeout_ms = 200;
    config.selector_items_max = 3;
    config.batch_operations_max = 2;
    let cluster = Cluster::with(1, config);
    let sid = cluster.edges[0].socket("/", &[]);
    let seen = Seen(Mutex::default());

    bodies(&cluster, &seen);
    events(&cluster, &seen);
    selectors(&cluster, &seen, &sid);
    questions(&cluster, &seen);
    connections(&cluster, &seen);
    cluster.bus.set_up(false);
    system_tests::brokers::wait_until("a broker that is away", crate::WITHIN, || {
        cluster.get("/v1/info").json()["broker"] != "ready"
    });
    let reply = cluster.post("/v1/emit", &json!({"broadcast": true, "event": "e"}));
    seen.note(&reply, 503, "broker_unavailable");
    overload(&seen);

    let document = cluster.get("/openapi.json").json();
    let known = document["components"]["schemas"]["Code"]["enum"].as_array().expect("the codes");
    let seen = seen.0.into_inner().unwrap();
    let missing: Vec<&str> = known
        .iter()
        .filter_map(Value::as_str)
        .filter(|code| !seen.contains(*code) && !ELSEWHERE.contains(code) && !NEVER.contains(code))
        .collect();
    assert_eq!(missing, [""; 0], "codes that no test provokes");
    assert!(known.len() > 30);
}

fn bodies(cluster: &Cluster, seen: &Seen) {
    let text = |path: &str, body: &str| cluster.request("POST", path).text(body).send();
    seen.note(&text("/v1/emit", "{"), 400, "invalid_json");
    seen.note(&text("/v1/emit", r#"{"event":"e","broadcast":true} x"#), 400, "invalid_json");
    seen.note(&text("/v1/emit", ""), 400, "invalid_json");
    let msgpack = |body: &[u8]| cluster.request("POST", "/v1/emit").bytes("application/msgpack", body).send();
    seen.note(&msgpack(&[0xc1]), 400, "invalid_msgpack");
    seen.note(&msgpack(&[0x81]), 400, "invalid_msgpack");
    let utf16 = cluster.request("POST", "/v1/emit").bytes("application/json", &[0xff, 0xfe]).send();
    seen.note(&utf16, 400, "invalid_json");
    let pointed = |body: &str, pointer: &str| {
        let problem = seen.note(&text("/v1/emit", body), 400, "invalid_body");
        assert_eq!(problem["pointer"], pointer, "{body}");
    };
    pointed("[]", "");
    pointed("7", "");
    pointed("{}", "/event");
    pointed(r#"{"event":7}"#, "/event");
    pointed(r#"{"event":"e","roms":["x"]}"#, "/roms");
    pointed(r#"{"event":"e","rooms":["a",7]}"#, "/rooms/1");
    pointed(r#"{"event":"e","rooms":"a"}"#, "/rooms");
    pointed(r#"{"event":"e","broadcast":true,"args":{}}"#, "/args");
    pointed(r#"{"event":"e","broadcast":true,"args":[],"data":1}"#, "/data");
    pointed(r#"{"event":"e","broadcast":true,"ack":{"timeout":1}}"#, "/ack/timeout");
    pointed(r#"{"op":"join","event":"e","broadcast":true}"#, "/op");
    let form = cluster.request("POST", "/v1/emit").bytes("application/x-www-form-urlencoded", b"{}").send();
    let problem = seen.note(&form, 415, "unsupported_media_type");
    assert_eq!(problem["parameter"], "Content-Type");
    let large = format!(r#"{{"event":"e","broadcast":true,"data":"{}"}}"#, "x".repeat(100_000));
    seen.note(&text("/v1/emit", &large), 413, "body_too_large");
    let chunked = cluster
        .request("POST", "/v1/emit")
        .bytes("application/json", format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len()).as_bytes())
        .header("transfer-encoding", "chunked")
        .header("content-length", "");
    drop(chunked);
    // A length that nobody can keep is refused before anything is read.
    let liar = cluster.request("POST", "/v1/emit").text("{}").header("content-length", "99999999999").send();
    seen.note(&liar, 413, "body_too_large");
}

fn events(cluster: &Cluster, seen: &Seen) {
    let refused = |mut body: Value, code: &str, pointer: &str| {
        body["broadcast"] = json!(true);
        let problem = seen.note(&cluster.post("/v1/emit", &body), 422, code);
        assert_eq!(problem["pointer"], pointer, "{body}");
    };
    for namespace in ["", "chat", "/a,b", &format!("/{}", "x".repeat(256))] {
        refused(json!({"namespace": namespace, "event": "e"}), "invalid_namespace", "/namespace");
    }
    refused(json!({"event": ""}), "invalid_event", "/event");
    refused(json!({"event": "x".repeat(257)}), "invalid_event", "/event");
    for event in ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]
    {
        refused(json!({"event": event}), "reserved_event", "/event");
    }
    refused(json!({"event": "e", "args": [{"$binary": "?"}]}), "invalid_args", "/args");
    refused(json!({"event": "e", "data": {"$binary": 7}}), "invalid_args", "/data");
    let many = vec![json!({"$binary": ""}); 11];
    refused(json!({"event": "e", "args": many}), "too_many_attachments", "/args");
    let deep = format!(r#"{{"broadcast":true,"event":"e","data":{}{}}}"#, "[".repeat(128), "]".repeat(128));
    seen.note(&cluster.request("POST", "/v1/emit").text(&deep).send(), 422, "invalid_args");
    let endless = "[".repeat(50_000);
    let endless =
        cluster.request("POST", "/v1/emit").text(&format!(r#"{{"event":"e","data":{endless}"#)).send();
    assert_eq!(endless.status, 400);
    refused(json!({"event": "e", "ack": {"timeout_ms": 0}}), "invalid_value", "/ack/timeout_ms");
    refused(json!({"event": "e", "ack": {"timeout_ms": 10_000_000}}), "invalid_value", "/ack/timeout_ms");
    refused(json!({"event": "e", "idempotency_key": ""}), "invalid_value", "/idempotency_key");
    let keyed = json!({"event": "e", "idempotency_key": "k", "ack": {}});
    refused(keyed, "ack_with_idempotency_key", "/ack");
    let body = json!({"event": "e", "broadcast": true});
    let keyed =
        |key: &str| cluster.request("POST", "/v1/emit").json(&body).header("idempotency-key", key).send();
    assert_eq!(keyed("first").status, 202);
    let other = json!({"event": "other", "broadcast": true, "idempotency_key": "first"});
    seen.note(&cluster.post("/v1/emit", &other), 409, "idempotency_conflict");
    let problem = seen.note(&keyed("\u{e9}"), 400, "invalid_header");
    assert_eq!(problem["parameter"], "Idempotency-Key");
    let batch = json!({"operations": [{}, {}, {}]});
    seen.note(&cluster.post("/v1/batch", &batch), 422, "too_many_items");
    let asking = json!({"operations": [{"op": "emit", "event": "e", "broadcast": true, "ack": {}}]});
    let results = cluster.done("/v1/batch", &asking);
    assert_eq!(results["results"][0]["code"], "ack_in_batch");
    seen.0.lock().unwrap().insert("ack_in_batch".to_owned());
    let binary = json!({"event": "e", "args": [{"$binary": ""}]});
    seen.note(&cluster.post("/v1/server-emit", &binary), 422, "invalid_args");
    let data = json!({"broadcast": true, "data": "x".repeat(20_000)});
    seen.note(&cluster.post("/v1/sockets/update", &data), 422, "event_too_large");
}

fn selectors(cluster: &Cluster, seen: &Seen, sid: &str) {
    let refused = |path: &str, body: Value, status: u16, code: &str, pointer: Option<&str>| {
        let problem = seen.note(&cluster.post(path, &body), status, code);
        assert_eq!(problem["pointer"].as_str(), pointer, "{body}");
    };
    let emit = |mut body: Value, status: u16, code: &str, pointer: Option<&str>| {
        body["event"] = json!("e");
        refused("/v1/emit", body, status, code, pointer);
    };
    emit(json!({}), 400, "no_target", None);
    emit(json!({"except": ["x"]}), 400, "no_target", None);
    emit(json!({"broadcast": false}), 400, "no_target", None);
    emit(json!({"rooms": []}), 400, "no_target", Some("/rooms"));
    emit(json!({"room": "r", "broadcast": true}), 422, "selector_conflict", Some("/broadcast"));
    emit(json!({"rooms": ["1", "2", "3", "4"]}), 422, "too_many_items", Some("/rooms"));
    emit(json!({"rooms": ["1", "x".repeat(257)]}), 422, "invalid_room", Some("/rooms/1"));
    emit(json!({"sid": ""}), 422, "invalid_sid", Some("/sid"));
    emit(json!({"users": [""]}), 422, "invalid_user", Some("/users/0"));
    let join = "/v1/sockets/join";
    refused(join, json!({"broadcast": true}), 422, "invalid_value", Some("/rooms"));
    refused(join, json!({"rooms": ["r"]}), 400, "no_target", None);
    refused(join, json!({"broadcast": true, "rooms": ["user:7"]}), 422, "reserved_room", Some("/rooms/0"));
    refused(join, json!({"broadcast": true, "room": sid}), 422, "reserved_room", Some("/room"));
    refused(
        join,
        json!({"broadcast": true, "room": "a", "rooms": ["b"]}),
        400,
        "invalid_body",
        Some("/room"),
    );
    refused("/v1/sockets/leave", json!({"sid": sid, "rooms": [sid]}), 422, "reserved_room", Some("/rooms/0"));
    refused("/v1/sockets/disconnect", json!({}), 400, "no_target", None);
    let update = "/v1/sockets/update";
    refused(update, json!({"broadcast": true}), 400, "invalid_body", None);
    refused(update, json!({"broadcast": true, "user": ""}), 422, "invalid_user", Some("/user"));
    refused(update, json!({"broadcast": true, "expires_at": -1}), 400, "invalid_body", Some("/expires_at"));
    let far = json!({"broadcast": true, "expires_at": 1_u64 << 53});
    refused(update, far, 422, "invalid_value", Some("/expires_at"));
    refused(update, json!({"broadcast": true, "data": {"$binary": ""}}), 422, "invalid_args", Some("/data"));
    refused("/v1/users/query", json!({"users": []}), 422, "invalid_value", Some("/users"));
    refused("/v1/users/query", json!({"users": vec!["u"; 1_001]}), 422, "too_many_items", Some("/users"));
}

fn questions(cluster: &Cluster, seen: &Seen) {
    let refused = |path: &str, status: u16, code: &str, parameter: &str| {
        let problem = seen.note(&cluster.get(path), status, code);
        assert_eq!(problem["parameter"], parameter, "{path}");
    };
    refused("/v1/sockets?limit=0", 400, "invalid_query", "limit");
    refused("/v1/sockets?limit=x", 400, "invalid_query", "limit");
    refused("/v1/sockets?rooms=x", 400, "invalid_query", "rooms");
    refused("/v1/sockets?cursor=x", 400, "invalid_cursor", "cursor");
    refused("/v1/sockets?namespace=x", 422, "invalid_namespace", "namespace");
    refused("/v1/sockets?user=", 422, "invalid_user", "user");
    refused("/v1/sockets?sid=", 422, "invalid_sid", "sid");
    refused("/v1/info?x=1", 400, "invalid_query", "x");
    seen.note(&cluster.get("/v1/none"), 404, "not_found");
    seen.note(&cluster.get("/"), 404, "not_found");
    let wrong = cluster.get("/v1/emit");
    seen.note(&wrong, 405, "method_not_allowed");
    assert_eq!(wrong.header("allow"), Some("POST"));
}

/// A caller that announces a body and does not send it.
fn connections(cluster: &Cluster, seen: &Seen) {
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.port())).unwrap();
    let head = "POST /v1/emit HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"body_timeout\""), "{answer}");
    seen.0.lock().unwrap().insert("body_timeout".to_owned());
}

/// More requests than may be under way, and more bytes.
fn overload(seen: &Seen) {
    let mut config = config();
    config.requests_max = 1;
    config.request_timeout_ms = 3_000;
    let cluster = Cluster::with(1, config);
    cluster.edges[0].socket("/", &[]);
    cluster.edges[0].change(|state| state.is_silent = true);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| cluster.get("/v1/sockets"));
        system_tests::brokers::wait_until("a request under way", crate::WITHIN, || {
            cluster.metrics().contains("jackfield_emitter_requests_pending 1\n")
        });
        let refused = cluster.get("/v1/info");
        seen.note(&refused, 503, "overloaded");
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert_eq!(slow.join().unwrap().status, 200);
    });
    let mut config = crate::config();
    config.body_bytes_max = 1_024;
    config.bodies_bytes_max = 1_024;
    let cluster = Cluster::with(0, config);
    let mut holder = TcpStream::connect(("127.0.0.1", cluster.port())).unwrap();
    let head = "POST /v1/emit HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{";
    holder.write_all(head.as_bytes()).unwrap();
    system_tests::brokers::wait_until("bytes set aside", crate::WITHIN, || {
        cluster.metrics().contains("jackfield_emitter_bodies_bytes 1000\n")
    });
    let body = json!({"broadcast": true, "event": "event of some length"});
    seen.note(&cluster.post("/v1/emit", &body), 503, "overloaded");
}
