//! Emits: who gets what, acks, repeats, batches.

use std::time::{Duration, Instant};

use cluster_proto::message::{JsonData, Operation};
use serde_json::{Value, json};

use crate::{Cluster, config, emitter_on};

#[test]
fn the_example_of_the_documentation_works() {
    let cluster = Cluster::new(1);
    let sid = cluster.edges[0].socket("/", &[]);
    let body = r#"{"broadcast":true,"event":"msg","args":["hi"]}"#;
    let reply = cluster.request("POST", "/v1/emit").text(body).send();
    assert_eq!(reply.status, 202);
    assert_eq!(reply.json()["accepted"], true);
    assert_eq!(cluster.edges[0].events("/", &sid, 1), [r#"["msg","hi"]"#]);
}

#[test]
fn an_event_reaches_whom_it_is_for_on_every_edge() {
    let cluster = Cluster::new(2);
    let [one, other] = &*cluster.edges else { panic!("two edges") };
    let a = one.socket("/", &["r", "q"]);
    let b = other.socket("/", &["r"]);
    let c = other.user_socket("/", &[], "u 7");
    let d = other.socket("/chat", &["r"]);
    let check = |selector: Value, event: &str| {
        let mut body = json!({"event": event});
        body.as_object_mut().unwrap().extend(selector.as_object().unwrap().clone());
        assert_eq!(cluster.post("/v1/emit", &body).status, 202, "{body}");
    };
    check(json!({"broadcast": true}), "all");
    check(json!({"room": "r"}), "room");
    check(json!({"rooms": ["q", "none"]}), "rooms");
    check(json!({"sid": &b}), "sid");
    check(json!({"sids": [&a, &b]}), "sids");
    check(json!({"user": "u 7"}), "user");
    check(json!({"users": ["u 7", "nobody"], "room": "q"}), "users");
    check(json!({"broadcast": true, "except": ["q", &c]}), "except");
    check(json!({"namespace": "/chat", "room": "r"}), "chat");
    check(json!({"room": "nobody is there"}), "nobody");
    check(json!({"broadcast": true}), "end");
    check(json!({"namespace": "/chat", "broadcast": true}), "end");
    let names = |edge: &crate::edge::FakeEdge, path: &str, sid: &str, count| -> Vec<String> {
        let events = edge.events(path, sid, count);
        events.iter().map(|event| event.trim_matches(['[', ']', '"']).to_owned()).collect()
    };
    assert_eq!(names(one, "/", &a, 6), ["all", "room", "rooms", "sids", "users", "end"]);
    assert_eq!(names(other, "/", &b, 6), ["all", "room", "sid", "sids", "except", "end"]);
    assert_eq!(names(other, "/", &c, 4), ["all", "user", "users", "end"]);
    assert_eq!(names(other, "/chat", &d, 2), ["chat", "end"]);
}

#[test]
fn arguments_travel_verbatim_and_binary_values_as_attachments() {
    let cluster = Cluster::new(1);
    let edge = &cluster.edges[0];
    let sid = edge.socket("/", &[]);
    let emit = |rest: &str| {
        let body = format!(r#"{{"broadcast":true,"event":"e",{rest}}}"#);
        let reply = cluster.request("POST", "/v1/emit").text(&body).send();
        assert_eq!(reply.status, 202, "{rest}: {reply:?}");
    };
    emit(r#""args":[1.0, 12345678901234567890,"\u00e9",{"a":[]}]"#);
    emit(r#""data":{"x":null}"#);
    emit(r#""data":null"#);
    emit(r#""args":[]"#);
    emit(r#""args":[{"$binary":"AP8B"},{"$$binary":"AP8B"}]"#);
    emit(r#""args":[{"_placeholder":true,"num":0}]"#);
    let events = edge.events("/", &sid, 6);
    assert_eq!(
        events,
        [
            r#"["e",1.0, 12345678901234567890,"\u00e9",{"a":[]}]"#,
            r#"["e",{"x":null}]"#,
            r#"["e",null]"#,
            r#"["e"]"#,
            r#"["e",{"_placeholder":true,"num":0},{"$binary":"AP8B"}]"#,
            r#"["e",{"_placeholder":true,"num":0}]"#,
        ]
    );
    let events: Vec<JsonData> = edge.edit("/", &sid, |socket| socket.events.clone());
    assert_eq!(events[4].attachments, [&[0_u8, 255, 1][..]]);
    assert!(events[4].binary && !events[5].binary);
}

#[test]
fn message_pack_is_the_same_document() {
    let cluster = Cluster::new(1);
    let edge = &cluster.edges[0];
    let sid = edge.socket("/", &[]);
    edge.edit("/", &sid, |socket| {
        let text = r#"[{"_placeholder":true,"num":0}]"#.to_owned();
        socket.ack = Some(JsonData::with_attachments(text, vec![vec![7].into()]));
    });
    // {"broadcast":true,"event":"e","args":[<00 ff>],"ack":{}}
    let body = [
        &[0x84][..],
        b"\xa9broadcast\xc3",
        b"\xa5event\xa1e",
        b"\xa4args\x91\xc4\x02\x00\xff",
        b"\xa3ack\x80",
    ]
    .concat();
    let reply = cluster.request("POST", "/v1/emit").bytes("application/msgpack", &body).send();
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/msgpack")), "{reply:?}");
    let binary = b"\xa4args\x91\xc4\x01\x07";
    assert!(reply.body.windows(binary.len()).any(|window| window == binary), "{reply:?}");
    let sent = edge.edit("/", &sid, |socket| socket.events[0].clone());
    assert_eq!(
        (sent.text.as_str(), &*sent.attachments[0]),
        (r#"["e",{"_placeholder":true,"num":0}]"#, &[0, 255][..])
    );
    let reply = cluster
        .request("POST", "/v1/emit")
        .bytes("application/msgpack", &body)
        .header("accept", "application/json")
        .send();
    assert_eq!(reply.json()["responses"][0]["args"], json!([{"$binary": "Bw=="}]));
}

#[test]
fn acks_of_all_edges_come_back_and_the_silent_are_named() {
    let cluster = Cluster::new(3);
    let mut answering = Vec::new();
    let mut silent = Vec::new();
    for edge in &cluster.edges {
        for number in 0..20 {
            let sid = edge.socket("/", &[]);
            if number == 0 {
                silent.push(sid);
                continue;
            }
            let ack = JsonData::text(format!(r#"[{{"$binary":{number}}},"{sid}"]"#));
            edge.edit("/", &sid, |socket| socket.ack = Some(ack));
            answering.push(sid);
        }
    }
    let began = Instant::now();
    let body = json!({"broadcast": true, "event": "q", "ack": {"timeout_ms": 2_000}});
    let answer = cluster.done("/v1/emit", &body);
    assert!(began.elapsed() >= Duration::from_secs(2));
    let mut heard: Vec<String> = Vec::new();
    for response in answer["responses"].as_array().unwrap() {
        let sid = response["sid"].as_str().unwrap();
        assert_eq!(response["args"][1], sid);
        assert!(response["args"][0].get("$$binary").is_some(), "a user's own object gains a dollar");
        heard.push(sid.to_owned());
    }
    heard.sort();
    answering.sort();
    silent.sort();
    assert_eq!(heard, answering);
    assert_eq!(answer["missing"], json!(silent));
    assert_eq!((&answer["timed_out"], &answer["missing_unnamed"]), (&json!(true), &json!(0)));

    let began = Instant::now();
    let one = cluster.done("/v1/emit", &json!({"sid": answering[0], "event": "q", "ack": {}}));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!((one["responses"].as_array().unwrap().len(), &one["timed_out"]), (1, &json!(false)));
    let nobody = cluster.done("/v1/emit", &json!({"room": "nobody", "event": "q", "ack": {}}));
    assert_eq!(nobody["responses"], json!([]));
}

#[test]
fn an_edge_that_says_nothing_is_named() {
    let cluster = Cluster::new(2);
    cluster.edges[0].socket("/", &[]);
    cluster.edges[1].socket("/", &[]);
    cluster.edges[1].change(|state| state.is_silent = true);
    let answer =
        cluster.done("/v1/emit", &json!({"broadcast": true, "event": "q", "ack": {"timeout_ms": 1_500}}));
    assert_eq!(answer["missing_nodes"], json!([cluster.edges[1].adapter.node().to_string()]));
    assert_eq!((&answer["timed_out"], answer["missing"].as_array().unwrap().len()), (&json!(true), 1));
}

#[test]
fn too_many_acks_are_counted() {
    let mut config = config();
    config.ack_responses_max = 3;
    let cluster = Cluster::with(1, config);
    for _ in 0..5 {
        let sid = cluster.edges[0].socket("/", &[]);
        cluster.edges[0].edit("/", &sid, |socket| socket.ack = Some(JsonData::text("[]")));
    }
    let answer = cluster.done("/v1/emit", &json!({"broadcast": true, "event": "q", "ack": {}}));
    assert_eq!((answer["responses"].as_array().unwrap().len(), &answer["left_out"]), (3, &json!(2)));
    assert!(cluster.metrics().contains("jackfield_emitter_acks_left_out_total 2\n"));
}

#[test]
fn a_repeat_is_delivered_once_through_whichever_emitter() {
    let cluster = Cluster::new(1);
    let second = emitter_on(&cluster.bus, config());
    let sid = cluster.edges[0].socket("/", &[]);
    let body = json!({"broadcast": true, "event": "once", "idempotency_key": "k1"});
    let first = cluster.post("/v1/emit", &body);
    assert_eq!((first.status, first.header("idempotency-replayed")), (202, None));
    let again = cluster.post("/v1/emit", &body);
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, Some("true")));
    assert_eq!(again.json(), first.json());
    // Fields in another order are the same call.
    let text = r#"{ "idempotency_key":"k1", "event":"once", "broadcast":true }"#;
    assert_eq!(
        cluster.request("POST", "/v1/emit").text(text).send().header("idempotency-replayed"),
        Some("true")
    );
    // The header is as good as the field, and the id is the same at every emitter.
    let request = crate::http::Request::new(second.local_addr().port(), "POST", "/v1/emit");
    let other = {
        let plain = json!({"broadcast": true, "event": "once"});
        system_tests::brokers::wait_until("a second emitter", crate::WITHIN, || {
            let probe = crate::http::Request::new(second.local_addr().port(), "GET", "/v1/info").send();
            probe.json()["broker"] == "ready"
        });
        request.json(&plain).header("idempotency-key", "k1").send()
    };
    assert_eq!((other.status, other.header("idempotency-replayed")), (202, None));
    assert_eq!(other.json(), first.json());
    let conflict =
        cluster.post("/v1/emit", &json!({"broadcast": true, "event": "x", "idempotency_key": "k1"}));
    conflict.problem(409, "idempotency_conflict");
    cluster.done("/v1/emit", &json!({"broadcast": true, "event": "end"}));
    assert_eq!(cluster.edges[0].events("/", &sid, 2), [r#"["once"]"#, r#"["end"]"#]);
    second.close(Duration::from_secs(1));
}

#[test]
fn a_batch_is_carried_out_in_order_with_a_result_for_each() {
    let cluster = Cluster::new(2);
    let sid = cluster.edges[0].socket("/", &[]);
    let other = cluster.edges[1].socket("/", &[]);
    let answer = cluster.done(
        "/v1/batch",
        &json!({"operations": [
            {"op": "emit", "broadcast": true, "event": "1"},
            {"op": "join", "sid": &sid, "rooms": ["fresh room"]},
            {"op": "emit", "room": "fresh room", "event": "2"},
            {"op": "emit", "event": "nobody"},
            {"op": "dance"},
            7,
            {"op": "emit", "room": "fresh room", "event": "q", "ack": {}},
            {"op": "leave", "sid": &sid, "rooms": ["fresh room"]},
            {"op": "emit", "room": "fresh room", "event": "3"},
            {"op": "update", "sid": &sid, "user": "u", "data": {"a": 1}},
            {"op": "emit", "user": "u", "event": "4"},
            {"op": "disconnect", "sid": &other},
            {"op": "emit", "broadcast": true, "event": "5"},
        ]}),
    );
    let results = answer["results"].as_array().unwrap();
    let statuses: Vec<u64> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [202, 200, 202, 400, 400, 400, 422, 200, 202, 200, 202, 200, 202], "{answer}");
    assert_eq!(results[1]["sockets"], 1);
    assert_eq!(results[3]["code"], "no_target");
    assert_eq!(
        (&results[4]["code"], &results[4]["pointer"]),
        (&json!("invalid_body"), &json!("/operations/4/op"))
    );
    assert_eq!(
        (&results[6]["code"], &results[6]["pointer"]),
        (&json!("ack_in_batch"), &json!("/operations/6/ack"))
    );
    assert_eq!(cluster.edges[0].events("/", &sid, 4), [r#"["1"]"#, r#"["2"]"#, r#"["4"]"#, r#"["5"]"#]);
    assert_eq!(cluster.edges[1].ids("/"), [""; 0]);
}

#[test]
fn a_batch_with_a_key_can_be_sent_again() {
    let cluster = Cluster::new(1);
    let sid = cluster.edges[0].socket("/", &[]);
    let body = json!({"operations": [
        {"op": "emit", "broadcast": true, "event": "a"},
        {"op": "emit", "broadcast": true, "event": "b"},
        {"op": "emit", "broadcast": true, "event": "c", "idempotency_key": "own"},
    ]});
    for _ in 0..2 {
        let request = cluster.request("POST", "/v1/batch").json(&body).header("idempotency-key", "batch 1");
        assert_eq!(request.send().status, 200);
    }
    cluster.done("/v1/emit", &json!({"broadcast": true, "event": "c", "idempotency_key": "own"}));
    cluster.done("/v1/emit", &json!({"broadcast": true, "event": "end"}));
    let events = cluster.edges[0].events("/", &sid, 4);
    assert_eq!(events, [r#"["a"]"#, r#"["b"]"#, r#"["c"]"#, r#"["end"]"#]);
    assert!(cluster.metrics().contains("jackfield_emitter_idempotency_replayed_total 4\n"));
}

#[test]
fn volatile_and_the_trace_travel_along() {
    let cluster = Cluster::new(1);
    let sid = cluster.edges[0].socket("/", &[]);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let body = json!({"broadcast": true, "event": "e", "volatile": true});
    let reply = cluster.request("POST", "/v1/emit").json(&body).header("traceparent", trace).send();
    assert_eq!(reply.status, 202);
    cluster.edges[0].events("/", &sid, 1);
    let message = cluster.edges[0].change(|state| state.messages[0].clone());
    assert_eq!((message.trace_parent.as_deref(), message.id), (Some(trace), None));
    assert!(matches!(message.operation, Operation::Broadcast { options, .. } if options.flags.volatile));
}

#[test]
fn application_code_of_servers_is_reached() {
    let cluster = Cluster::new(2);
    cluster.edges.iter().for_each(|edge| drop(edge.socket("/", &[])));
    let answer = cluster
        .done("/v1/server-emit", &json!({"event": "hello", "args": [1], "ack": {"timeout_ms": 2_000}}));
    assert_eq!(answer["responses"], json!([{"here": true}, {"here": true}]));
    assert_eq!(cluster.post("/v1/server-emit", &json!({"event": "hello"})).status, 202);
}
