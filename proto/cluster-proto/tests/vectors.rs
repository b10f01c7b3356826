//! The golden vectors of `proto/vectors/cluster`: what the real packages publish, in both directions where we write the same.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken vector fails its test")]

use std::path::Path;

use cluster_proto::broadcast::{BroadcastFlags, BroadcastOptions, Selector};
use cluster_proto::limits::Limits;
use cluster_proto::message::{ClusterMessage, JsonData, Operation, Reply};
use cluster_proto::rabbitmq::codec::{self, Delivery};
use cluster_proto::redis::channel::{Channel, Names};
use cluster_proto::redis::classic::{broadcast, request, response};
use cluster_proto::response::{Answer, ClusterResponse};
use serde_json::{Map, Value, json};
use socketio_proto::namespace::NamespacePath;

fn vectors(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/cluster").join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text_of<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector.get(key).and_then(Value::as_str).unwrap_or_else(|| panic!("{key} in {vector}"))
}

fn bytes_of(vector: &Value) -> Vec<u8> {
    if let Some(json) = vector.get("json").and_then(Value::as_str) {
        return json.as_bytes().to_vec();
    }
    let digits: Vec<u32> = text_of(vector, "hex").chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(pair.iter().fold(0, |sum, d| sum * 16 + d)).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_node_publishes_is_read_and_written() {
    let (names, limits) = (Names::new("socket.io").unwrap(), Limits::default());
    for vector in vectors("redis_classic.json") {
        let bytes = bytes_of(&vector);
        let about = format!("{} {}", text_of(&vector, "source"), text_of(&vector, "name"));
        let channel = names.parse(text_of(&vector, "channel")).unwrap();
        let (decoded, written) = match channel {
            Channel::Broadcast { .. } => {
                let message = broadcast::decode(&bytes, &limits).unwrap_or_else(|e| panic!("{about}: {e}"));
                (show_broadcast(&message), broadcast::encode(&message).unwrap())
            }
            Channel::Request { namespace } => {
                let namespace = NamespacePath::parse(namespace).unwrap();
                let message =
                    request::decode(&bytes, &namespace, &limits).unwrap_or_else(|e| panic!("{about}: {e}"));
                (show_request(&message), request::encode(&message).unwrap())
            }
            Channel::Response { .. } => {
                let answer = response::decode(&bytes, &limits).unwrap_or_else(|e| panic!("{about}: {e}"));
                (show_response(&answer), response::encode(&answer).unwrap())
            }
            Channel::Heartbeat => panic!("{about}: no message of Node"),
        };
        assert_eq!(Some(&decoded), vector.get("decoded"), "{about}");
        let differs = vector.get("written_differently").is_some();
        assert_eq!(hex(&written) != hex(&bytes), differs, "{about}: {}", String::from_utf8_lossy(&written));
    }
}

#[test]
fn what_we_add_for_our_own_nodes_stays_readable() {
    let (root, limits) = (NamespacePath::root(), Limits::default());
    for vector in vectors("redis_additions.json") {
        let bytes = bytes_of(&vector);
        let (decoded, written) = match text_of(&vector, "kind") {
            "broadcast" => {
                let message = broadcast::decode(&bytes, &limits).unwrap();
                (format!("{message:?}"), broadcast::encode(&message))
            }
            "request" => {
                let message = request::decode(&bytes, &root, &limits).unwrap();
                (format!("{message:?}"), request::encode(&message))
            }
            _ => {
                let answer = response::decode(&bytes, &limits).unwrap();
                (format!("{answer:?}"), response::encode(&answer))
            }
        };
        assert_eq!(decoded, text_of(&vector, "decoded"), "{vector}");
        assert_eq!(hex(&written.unwrap()), hex(&bytes), "{vector}");
    }
}

#[test]
fn our_own_format_stays_readable() {
    let limits = Limits::default();
    for vector in vectors("rabbitmq.json") {
        let bytes = bytes_of(&vector);
        let delivery = codec::decode(&bytes, &limits).unwrap();
        assert_eq!(format!("{delivery:?}"), text_of(&vector, "decoded"), "{vector}");
        let written = match &delivery {
            Delivery::Message(message) => codec::encode_message(message),
            Delivery::Response(response) => codec::encode_response(response),
            Delivery::Heartbeat(heartbeat) => codec::encode_heartbeat(heartbeat),
        };
        assert_eq!(hex(&written.unwrap()), hex(&bytes), "{vector}");
    }
}

fn show_broadcast(message: &ClusterMessage) -> Value {
    let Operation::Broadcast { event, options } = &message.operation else { panic!("{message:?}") };
    let mut shown = json!({
        "sender": message.sender.as_ref().map(|uid| uid.as_str()),
        "namespace": message.namespace.as_str(),
    });
    merge(&mut shown, show_data(event));
    merge(&mut shown, show_options(options));
    shown
}

fn show_request(message: &ClusterMessage) -> Value {
    let id = |request: &cluster_proto::identity::RequestId| Some(request.as_str().to_owned());
    let reply = |reply: &Reply| match reply {
        Reply::None => (None, false),
        Reply::All(request) => (id(request), false),
        Reply::Holder(request) => (id(request), true),
    };
    let (op, (request, holder), details) = match &message.operation {
        Operation::Broadcast { .. } | Operation::Update { .. } => panic!("{message:?}"),
        Operation::BroadcastWithAck { request, event, options } => {
            let mut details = show_data(event);
            merge(&mut details, show_options(options));
            ("broadcast_with_ack", (id(request), false), details)
        }
        Operation::Join { selector, rooms, reply: answer } => {
            ("join", reply(answer), show_membership(selector, rooms))
        }
        Operation::Leave { selector, rooms, reply: answer } => {
            ("leave", reply(answer), show_membership(selector, rooms))
        }
        Operation::Disconnect { selector, close, reply: answer } => {
            let mut details = show_selector(selector);
            merge(&mut details, json!({ "close": close }));
            ("disconnect", reply(answer), details)
        }
        Operation::Fetch { request, selector, page_sockets_max: None, listing: None } => {
            ("fetch", (id(request), false), show_selector(selector))
        }
        Operation::Fetch { .. } => panic!("{message:?}"),
        Operation::Rooms { request } => ("rooms", (id(request), false), json!({})),
        Operation::SocketIds { request, rooms } => {
            ("socket_ids", (id(request), false), json!({ "rooms": rooms }))
        }
        Operation::ServerSideEmit { request, event } => {
            ("server_side_emit", (request.as_ref().and_then(id), false), show_data(event))
        }
    };
    let mut shown = json!({
        "sender": message.sender.as_ref().map(|uid| uid.as_str()), "request": request, "op": op
    });
    merge(&mut shown, details);
    if holder {
        merge(&mut shown, json!({ "holder": true }));
    }
    shown
}

fn show_response(response: &ClusterResponse) -> Value {
    assert_eq!(response.node, None);
    let details = match &response.answer {
        Answer::ClientCount { count, sids: None } => json!({ "answer": "client_count", "count": count }),
        Answer::Ack { sid: None, args } => {
            let mut details = show_data(args);
            merge(&mut details, json!({ "answer": "ack" }));
            details
        }
        Answer::ServerSideEmit(value) => json!({ "answer": "server_side_emit", "value": value }),
        Answer::SocketIds(ids) => json!({ "answer": "socket_ids", "names": ids }),
        Answer::Rooms(rooms) => json!({ "answer": "rooms", "names": rooms }),
        Answer::Done { sockets: None } => json!({ "answer": "done" }),
        Answer::Sockets { sockets, more: false, through: None } => {
            let shown: Vec<Value> = sockets
                .iter()
                .map(|socket| {
                    json!({
                        "id": socket.id, "handshake": socket.handshake, "rooms": socket.rooms, "data": socket.data
                    })
                })
                .collect();
            json!({ "answer": "sockets", "sockets": shown })
        }
        Answer::ClientCount { .. }
        | Answer::Ack { .. }
        | Answer::Sockets { .. }
        | Answer::Counts { .. }
        | Answer::Done { .. } => panic!("{response:?}"),
    };
    let mut shown = json!({ "request": response.request.as_str() });
    merge(&mut shown, details);
    shown
}

fn show_data(data: &JsonData) -> Value {
    let attachments: Vec<String> = data.attachments.iter().map(|bytes| hex(bytes)).collect();
    json!({ "data": data.text, "attachments": attachments })
}

fn show_options(options: &BroadcastOptions) -> Value {
    let BroadcastFlags { volatile, compress, timeout_ms, expect_single_response } = options.flags;
    let flags = [
        ("volatile", volatile.then_some(json!(true))),
        ("compress", compress.map(|compress| json!(compress))),
        ("timeout", timeout_ms.map(|timeout| json!(timeout))),
        ("expectSingleResponse", expect_single_response.then_some(json!(true))),
    ];
    let flags: Map<String, Value> =
        flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    let mut shown = show_selector(&options.selector);
    merge(&mut shown, json!({ "flags": flags }));
    shown
}

fn show_membership(selector: &Selector, rooms: &[String]) -> Value {
    let mut shown = show_selector(selector);
    merge(&mut shown, json!({ "names": rooms }));
    shown
}

fn show_selector(selector: &Selector) -> Value {
    json!({ "rooms": selector.rooms, "except": selector.except })
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
