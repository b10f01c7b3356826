//! What is refused, and why: hostile, malformed and oversized messages on both wires.
#![allow(clippy::unwrap_used, reason = "a failing case fails its test")]

use cluster_proto::broadcast::Selector;
use cluster_proto::error::DecodeError;
use cluster_proto::limits::Limits;
use cluster_proto::message::{ClusterMessage, Operation, Reply};
use cluster_proto::rabbitmq::codec;
use cluster_proto::redis::classic::{broadcast, request, response};
use serde_json::{Value, json};
use socketio_proto::namespace::NamespacePath;
use socketio_proto::parser::msgpack::{push_array_head, push_json, push_map_head, push_text};

fn limits() -> Limits {
    Limits::default()
}

fn msgpack(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    push_json(&value.to_string(), None, &mut out).unwrap();
    out
}

fn broadcast_of(packet: &Value, options: &Value) -> Result<ClusterMessage, DecodeError> {
    broadcast::decode(&msgpack(&json!(["uid", packet, options])), &limits())
}

fn event_of(data: &Value) -> Result<ClusterMessage, DecodeError> {
    broadcast_of(&json!({ "type": 2, "data": data, "nsp": "/" }), &json!({ "rooms": [], "except": [] }))
}

#[test]
fn events_that_clients_must_not_see() {
    let check = |data: Value, expected: DecodeError| assert_eq!(event_of(&data), Err(expected), "{data}");
    for name in ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"] {
        check(json!([name]), DecodeError::ReservedEvent);
    }
    check(json!([]), DecodeError::NoEventName);
    check(json!([null]), DecodeError::NoEventName);
    check(json!([{}]), DecodeError::NoEventName);
    check(json!({ "0": "hello" }), DecodeError::NoEventName);
    check(json!("hello"), DecodeError::NoEventName);
    check(json!(null), DecodeError::NoEventName);
    check(json!(["x".repeat(257)]), DecodeError::EventNameTooLong { max: 256 });
    check(json!(["\u{1}".repeat(2000)]), DecodeError::EventNameTooLong { max: 256 });
    check(json!(["a", "x".repeat(4_000_000)]), DecodeError::PacketTooLarge { max: 4_000_000 });
    assert!(event_of(&json!(["a"])).is_ok());
    assert!(event_of(&json!([1])).is_ok());
}

#[test]
fn packets_that_are_no_events() {
    let check = |packet: Value, expected: DecodeError| {
        assert_eq!(broadcast_of(&packet, &json!({})), Err(expected), "{packet}");
    };
    for kind in [json!(0), json!(1), json!(3), json!(4), json!(6), json!("2"), json!(null), json!([2])] {
        let packet = json!({ "type": kind, "data": ["a"], "nsp": "/" });
        assert!(broadcast_of(&packet, &json!({})).is_err(), "{packet}");
    }
    check(json!({ "data": ["a"] }), DecodeError::NotAnEvent);
    check(json!({ "type": 2 }), DecodeError::NoEventName);
    check(json!({ "type": 2, "data": ["a"], "nsp": "chat" }), DecodeError::InvalidNamespace);
    check(json!({ "type": 2, "data": ["a"], "nsp": 1 }), DecodeError::InvalidNamespace);
    check(
        json!({ "type": 2, "data": ["a"], "nsp": format!("/{}", "x".repeat(256)) }),
        DecodeError::InvalidNamespace,
    );
    check(json!([]), DecodeError::InvalidField { field: "packet" });
    let root = broadcast_of(&json!({ "type": 2, "data": ["a"], "more": {"b": [1]} }), &json!({})).unwrap();
    assert!(root.namespace.is_root());
}

#[test]
fn options_that_are_none() {
    let check = |options: Value, expected: DecodeError| {
        let packet = json!({ "type": 2, "data": ["a"] });
        assert_eq!(broadcast_of(&packet, &options), Err(expected), "{options}");
    };
    check(json!([]), DecodeError::InvalidField { field: "opts" });
    check(json!({ "rooms": "all" }), DecodeError::InvalidField { field: "rooms" });
    check(json!({ "rooms": [null] }), DecodeError::InvalidField { field: "rooms" });
    check(json!({ "except": [{}] }), DecodeError::InvalidField { field: "except" });
    check(json!({ "rooms": ["x".repeat(257)] }), DecodeError::RoomTooLong { max: 256 });
    check(json!({ "rooms": vec!["x"; 10_001] }), DecodeError::TooManyRooms { max: 10_000 });
    // As PHP writes an empty map, and with flags that mean nothing here.
    let packet = json!({ "type": 2, "data": ["a"] });
    for flags in [json!([]), json!(null), json!({ "json": true, "timeout": -1, "local": true })] {
        assert!(broadcast_of(&packet, &json!({ "flags": flags, "rooms": null })).is_ok());
    }
}

#[test]
fn binary_values_are_counted_and_placeholders_checked() {
    let with_binary = |count: u32, literal: bool| {
        let mut out = Vec::new();
        push_array_head(3, &mut out);
        push_text("uid", &mut out).unwrap();
        push_map_head(2, &mut out);
        push_text("type", &mut out).unwrap();
        out.push(2);
        push_text("data", &mut out).unwrap();
        push_array_head(2 + count, &mut out);
        push_text("a", &mut out).unwrap();
        let other = if literal { json!({ "_placeholder": true, "num": 0 }) } else { json!(1) };
        out.extend(msgpack(&other));
        for _ in 0..count {
            out.extend([0xc4, 1, 7]);
        }
        out.extend(msgpack(&json!({})));
        broadcast::decode(&out, &limits())
    };
    assert!(with_binary(10, false).is_ok());
    assert_eq!(with_binary(11, false), Err(DecodeError::TooManyAttachments { max: 10 }));
    assert!(with_binary(0, true).is_ok());
    assert_eq!(with_binary(1, true), Err(DecodeError::IllegalPlaceholder));
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize| -> Vec<u8> {
        let text = format!("[\"a\",{}{}]", "[".repeat(levels - 1), "]".repeat(levels - 1));
        let mut out = Vec::new();
        push_array_head(3, &mut out);
        push_text("uid", &mut out).unwrap();
        push_map_head(2, &mut out);
        push_text("type", &mut out).unwrap();
        out.push(2);
        push_text("data", &mut out).unwrap();
        push_json(&text, None, &mut out).unwrap();
        out.extend(msgpack(&json!({})));
        out
    };
    assert!(broadcast::decode(&nested(128), &limits()).is_ok());
    assert_eq!(broadcast::decode(&nested(129), &limits()), Err(DecodeError::TooDeep { max: 128 }));
    assert!(broadcast::decode(&nested(1_000_000), &limits()).is_err());

    let json = |levels: usize| {
        format!("{{\"type\":6,\"data\":[\"a\",{}{}]}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
    };
    let decode = |text: &str| request::decode(text.as_bytes(), &NamespacePath::root(), &limits());
    assert!(decode(&json(128)).is_ok());
    assert_eq!(decode(&json(129)), Err(DecodeError::TooDeep { max: 128 }));
    assert!(decode(&json(1_000_000)).is_err());

    // An unknown key of our own format is passed over, but not however deep it is.
    let mut body = vec![0x83, 0xa1, b'v', 1, 0xa1, b't', 0xa4, b'd', b'o', b'n', b'e', 0xa1, b'x'];
    body.extend(vec![0x91; 1_000_000]);
    assert!(matches!(codec::decode(&body, &limits()), Err(DecodeError::Malformed(_))));
}

#[test]
fn lengths_are_not_believed() {
    for head in [0xdc_u8, 0xdd, 0xde, 0xdf, 0xc4, 0xc5, 0xc6, 0xc9, 0xda, 0xdb] {
        let bytes = [head, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(broadcast::decode(&bytes, &limits()).is_err());
        assert!(request::decode(&bytes, &NamespacePath::root(), &limits()).is_err());
        assert!(response::decode(&bytes, &limits()).is_err());
        assert!(codec::decode(&bytes, &limits()).is_err());
        let inside = [&[0x93, 0xa1, b'u', 0x81, 0xa4][..], b"data", &bytes].concat();
        assert!(broadcast::decode(&inside, &limits()).is_err());
        let att = [&[0x83, 0xa1, b'v', 1, 0xa1, b't', 0xa1, b'x', 0xa3][..], b"att", &bytes].concat();
        assert!(codec::decode(&att, &limits()).is_err());
    }
}

#[test]
fn messages_over_the_limit_are_not_looked_at() {
    let small = Limits { message_bytes_max: 10, ..limits() };
    let expected = DecodeError::TooLarge { bytes: 11, max: 10 };
    let bytes = [0x80; 11];
    assert_eq!(broadcast::decode(&bytes, &small), Err(expected.clone()));
    assert_eq!(request::decode(&bytes, &NamespacePath::root(), &small), Err(expected.clone()));
    assert_eq!(response::decode(&bytes, &small), Err(expected.clone()));
    assert_eq!(codec::decode(&bytes, &small), Err(expected));
}

#[test]
fn answers_are_bounded_in_items() {
    let small = Limits { answer_items_max: 2, ..limits() };
    let decode = |text: &str| response::decode(text.as_bytes(), &small).map(|_| ());
    assert_eq!(decode(r#"{"requestId":"r","rooms":["a","b"]}"#), Ok(()));
    assert_eq!(
        decode(r#"{"requestId":"r","rooms":["a","b","c"]}"#),
        Err(DecodeError::TooManyRooms { max: 2 })
    );
    assert_eq!(decode(r#"{"requestId":"r","sockets":[{"id":"a"},{"id":"b"}]}"#), Ok(()));
    let three = r#"{"requestId":"r","sockets":[{"id":"a"},{"id":"b"},{"id":"c"}]}"#;
    assert_eq!(decode(three), Err(DecodeError::TooManyItems { max: 2 }));
    let body = json!({ "v": 1, "t": "sockets", "req": "r", "sockets": [{}, {}, {}] });
    assert_eq!(codec::decode(&msgpack(&body), &small), Err(DecodeError::TooManyItems { max: 2 }));
}

#[test]
fn listings_are_bounded() {
    let long = |bytes: usize| "x".repeat(bytes);
    let check = |listing: Value, expected: Result<(), DecodeError>| {
        let request = json!({ "type": 5, "requestId": "r", "opts": {}, "listing": listing });
        let decoded = request::decode(request.to_string().as_bytes(), &NamespacePath::root(), &limits());
        assert_eq!(decoded.map(|_| ()), expected, "{listing}");
        let body = json!({ "v": 1, "t": "fetch", "nsp": "/", "req": "r", "listing": listing });
        assert_eq!(codec::decode(&msgpack(&body), &limits()).map(|_| ()), expected, "{listing}");
    };
    let invalid = |field| Err(DecodeError::InvalidField { field });
    check(json!({ "of": "users", "limit": 16_384, "after": long(1_024), "new": [{}] }), Ok(()));
    check(json!({ "limit": 1 }), invalid("of"));
    check(json!({ "of": "namespaces", "limit": 1 }), invalid("of"));
    check(json!({ "of": "rooms" }), invalid("limit"));
    check(json!({ "of": "rooms", "limit": 0 }), invalid("limit"));
    check(json!({ "of": "rooms", "limit": 16_385 }), invalid("limit"));
    check(json!({ "of": "rooms", "limit": u64::MAX }), invalid("limit"));
    for field in ["name", "prefix", "user"] {
        let error = DecodeError::RoomTooLong { max: 256 };
        check(json!({ "of": "rooms", "limit": 1, (field): long(257) }), Err(error));
    }
    let error = DecodeError::NameTooLong { max: 1_024 };
    check(json!({ "of": "sockets", "limit": 1, "after": long(1_025) }), Err(error));
    let error = DecodeError::TooManyRooms { max: 16 };
    check(json!({ "of": "sockets", "limit": 1, "rooms": vec!["x"; 17] }), Err(error));
    let request = json!({ "type": 5, "requestId": "r", "opts": {}, "listing": ["rooms", 1] }).to_string();
    let decoded = request::decode(request.as_bytes(), &NamespacePath::root(), &limits());
    assert_eq!(decoded.map(|_| ()), invalid("listing"));
}

#[test]
fn counts_are_bounded() {
    let small = Limits { answer_items_max: 2, ..limits() };
    let check = |counts: Value, expected: Result<(), DecodeError>| {
        let answer = json!({ "requestId": "r", "counts": counts }).to_string();
        let decoded = response::decode(answer.as_bytes(), &small).map(|_| ());
        assert_eq!(decoded, expected, "{counts}");
        let body = json!({ "v": 1, "t": "counts", "req": "r", "counts": counts });
        let decoded = codec::decode(&msgpack(&body), &small).map(|_| ());
        // There the deserializer knows the form of a pair.
        match (decoded, &expected) {
            (Err(DecodeError::Malformed(_)), Err(DecodeError::InvalidField { .. })) => {}
            (decoded, expected) => assert_eq!(&decoded, expected, "{counts}"),
        }
    };
    let invalid = || Err(DecodeError::InvalidField { field: "counts" });
    check(json!([]), Ok(()));
    check(json!([["a", 1], ["", u64::MAX]]), Ok(()));
    check(json!([["a", 1], ["b", 1], ["c", 1]]), Err(DecodeError::TooManyItems { max: 2 }));
    check(json!([["x".repeat(1_025), 1]]), Err(DecodeError::NameTooLong { max: 1_024 }));
    for counts in
        [json!({}), json!([["a"]]), json!([["a", 1, 2]]), json!([["a", -1]]), json!([[1, 1]]), json!(["a"])]
    {
        check(counts, invalid());
    }
    let through = json!({ "requestId": "r", "sockets": [], "through": "x".repeat(1_025) }).to_string();
    let error = DecodeError::NameTooLong { max: 1_024 };
    assert_eq!(response::decode(through.as_bytes(), &limits()), Err(error));
}

#[test]
fn requests_and_responses_lack_what_they_need() {
    let check = |text: &str, expected: DecodeError| {
        assert_eq!(
            request::decode(text.as_bytes(), &NamespacePath::root(), &limits()),
            Err(expected),
            "{text}"
        );
    };
    let missing = |field| DecodeError::InvalidField { field };
    check("{}", missing("type"));
    check(r#"{"type":1}"#, missing("requestId"));
    check(r#"{"type":1,"requestId":7}"#, missing("requestId"));
    check(r#"{"type":1,"requestId":""}"#, missing("requestId"));
    check(r#"{"type":2,"rooms":["x"]}"#, missing("opts"));
    check(r#"{"type":2,"opts":{},"rooms":{}}"#, missing("rooms"));
    check(r#"{"type":5,"requestId":"r"}"#, missing("opts"));
    check(r#"{"type":6}"#, missing("data"));
    check(r#"{"type":6,"data":[]}"#, DecodeError::NoEventName);
    check(r#"{"type":7,"requestId":"r","opts":{}}"#, missing("packet"));
    check(
        r#"{"type":7,"requestId":"r","opts":{},"packet":{"type":2,"data":["connect"]}}"#,
        DecodeError::ReservedEvent,
    );
    check(r#"{"type":"update","opts":{},"user":[]}"#, missing("user"));
    check(r#"{"type":8}"#, DecodeError::UnknownType { kind: "8".to_owned() });
    let long = format!(r#"{{"type":"{}"}}"#, "é".repeat(100));
    check(&long, DecodeError::UnknownType { kind: format!("\"{}", "é".repeat(15)) });

    let check = |text: &str, expected: DecodeError| {
        assert_eq!(response::decode(text.as_bytes(), &limits()), Err(expected), "{text}");
    };
    check("{}", missing("requestId"));
    check(r#"{"requestId":"r","type":8}"#, missing("clientCount"));
    check(r#"{"requestId":"r","sockets":{}}"#, missing("sockets"));
    check(r#"{"requestId":"r","sockets":[{}]}"#, missing("id"));
    check(r#"{"requestId":"r","rooms":[[]]}"#, missing("rooms"));
}

#[test]
fn a_request_may_be_either_format() {
    let value = json!({ "type": 2, "opts": { "rooms": [1], "except": null }, "rooms": ["x"], "else": [{}] });
    let root = NamespacePath::root();
    let from_json = request::decode(value.to_string().as_bytes(), &root, &limits()).unwrap();
    assert_eq!(request::decode(&msgpack(&value), &root, &limits()), Ok(from_json.clone()));
    let expected =
        Operation::Join { selector: Selector::room("1"), rooms: vec!["x".to_owned()], reply: Reply::None };
    assert_eq!(from_json.operation, expected);
}

#[test]
fn other_versions_and_types_of_our_own_format() {
    let check = |value: Value, expected: DecodeError| {
        assert_eq!(codec::decode(&msgpack(&value), &limits()), Err(expected), "{value}");
    };
    check(json!({}), DecodeError::UnknownVersion { version: 0 });
    check(json!({ "v": 2, "t": "broadcast" }), DecodeError::UnknownVersion { version: 2 });
    // A later version may give a field another type.
    check(json!({ "v": 2, "t": "broadcast", "rooms": 7 }), DecodeError::UnknownVersion { version: 2 });
    check(json!({ "v": 1, "t": "dance", "nsp": "/" }), DecodeError::UnknownType { kind: "dance".to_owned() });
    check(json!({ "v": 1, "t": "broadcast", "nsp": "/" }), DecodeError::InvalidField { field: "data" });
    check(json!({ "v": 1, "t": "broadcast", "data": "[\"a\"]" }), DecodeError::InvalidNamespace);
    check(json!({ "v": 1, "t": "broadcast", "data": "[\"connect\"]" }), DecodeError::ReservedEvent);
    check(json!({ "v": 1, "t": "fetch", "nsp": "/" }), DecodeError::InvalidField { field: "req" });
    check(json!({ "v": 1, "t": "rooms", "req": "r" }), DecodeError::InvalidField { field: "names" });
    let known = json!({ "v": 1, "t": "done", "req": "r", "new": { "a": [1, {}] } });
    assert!(codec::decode(&msgpack(&known), &limits()).is_ok());
}
