//! What holds for any message: what is written is read back the same, and no bytes make a decoder panic.
#![allow(clippy::unwrap_used, reason = "a failing case fails its test")]

use bytes::Bytes;
use cluster_proto::broadcast::{BroadcastFlags, BroadcastOptions, Selector};
use cluster_proto::heartbeat::{Heartbeat, NodeStatus, Role};
use cluster_proto::identity::{NodeId, NodeUid, RequestId};
use cluster_proto::limits::Limits;
use cluster_proto::listing::{self, Filter, LIMIT_MAX, List, Listing};
use cluster_proto::message::{Change, ClusterMessage, JsonData, Operation, Reply, SocketUpdate};
use cluster_proto::rabbitmq::codec::{self, Delivery};
use cluster_proto::redis::channel::{Channel, Names};
use cluster_proto::redis::classic::{broadcast, request, response};
use cluster_proto::redis::heartbeat;
use cluster_proto::response::{Answer, ClusterResponse, RemoteSocket};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use socketio_proto::namespace::NamespacePath;

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,8}", "[A-Za-z0-9_-]{20}", ".{0,20}", Just("a#b*?[é😀".to_owned())]
}

fn names() -> impl Strategy<Value = Vec<String>> {
    vec(name(), 0..4)
}

fn namespace() -> impl Strategy<Value = NamespacePath> {
    prop_oneof![Just("/".to_owned()), "/[a-z#.*]{1,12}"].prop_map(|path| NamespacePath::parse(&path).unwrap())
}

/// A JSON value whose text survives MessagePack unchanged: no floats with a whole value, no duplicate keys.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        ".{0,40}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Into::into),
            vec(("[a-z]{0,6}", inner), 0..5)
                .prop_map(|members| { serde_json::Value::Object(members.into_iter().collect()) }),
        ]
    })
}

fn args() -> impl Strategy<Value = JsonData> {
    (vec(json(), 0..4), vec(vec(any::<u8>(), 0..40), 0..3)).prop_map(|(mut args, attachments)| {
        for num in 0..attachments.len() {
            args.push(serde_json::json!({ "_placeholder": true, "num": num }));
        }
        let text = serde_json::Value::Array(args).to_string();
        JsonData::with_attachments(text, attachments.into_iter().map(Bytes::from).collect())
    })
}

fn event() -> impl Strategy<Value = JsonData> {
    ("[a-z]{0,10} event", args()).prop_map(|(name, args)| {
        let rest = args.text.strip_prefix('[').unwrap();
        let comma = if rest == "]" { "" } else { "," };
        JsonData { text: format!("[\"{name}\"{comma}{rest}"), ..args }
    })
}

fn selector() -> impl Strategy<Value = Selector> {
    (names(), names()).prop_map(|(rooms, except)| Selector { rooms, except })
}

fn options() -> impl Strategy<Value = BroadcastOptions> {
    let flags = (any::<bool>(), any::<Option<bool>>(), any::<Option<u64>>(), any::<bool>());
    (selector(), flags).prop_map(|(selector, (volatile, compress, timeout_ms, expect_single_response))| {
        let flags = BroadcastFlags { volatile, compress, timeout_ms, expect_single_response };
        BroadcastOptions { selector, flags }
    })
}

fn request_id() -> impl Strategy<Value = RequestId> {
    any::<[u8; 12]>().prop_map(RequestId::from_bytes)
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![Just(Reply::None), request_id().prop_map(Reply::All)]
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<[u8; 3]>().prop_map(NodeId::from_bytes)
}

fn change<T: std::fmt::Debug + Clone + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Change<T>> {
    prop_oneof![Just(Change::Keep), Just(Change::Clear), value.prop_map(Change::Set)]
}

fn update() -> impl Strategy<Value = SocketUpdate> {
    let data = json().prop_filter("null is Clear", |json| !json.is_null()).prop_map(|json| json.to_string());
    (change(name()), change(data), change(any::<u64>()))
        .prop_map(|(user, data, expires_at_ms)| SocketUpdate { user, data, expires_at_ms })
}

fn listing() -> impl Strategy<Value = Listing> {
    let wanted = || {
        prop_oneof![
            Just(listing::Names::Any),
            name().prop_map(listing::Names::Exactly),
            name().prop_map(listing::Names::StartingWith)
        ]
    };
    let list =
        prop_oneof![Just(List::Sockets), wanted().prop_map(List::Rooms), wanted().prop_map(List::Users)];
    let filter = (names(), option::of(name())).prop_map(|(rooms, user)| Filter { rooms, user });
    (list, filter, option::of(name()), 1..=LIMIT_MAX).prop_map(|(list, filter, after, limit)| Listing {
        list,
        filter,
        after,
        limit,
    })
}

fn requests() -> impl Strategy<Value = Operation> {
    let text_event = event().prop_filter("text only", |event| !event.binary);
    prop_oneof![
        (request_id(), event(), options())
            .prop_map(|(request, event, options)| Operation::BroadcastWithAck { request, event, options }),
        (selector(), names(), reply()).prop_map(|(selector, rooms, reply)| Operation::Join {
            selector,
            rooms,
            reply
        }),
        (selector(), names(), reply()).prop_map(|(selector, rooms, reply)| Operation::Leave {
            selector,
            rooms,
            reply
        }),
        (name(), name(), request_id()).prop_map(|(sid, room, request)| Operation::Join {
            selector: Selector::room(sid),
            rooms: vec![room],
            reply: Reply::Holder(request),
        }),
        (selector(), any::<bool>(), reply()).prop_map(|(selector, close, reply)| Operation::Disconnect {
            selector,
            close,
            reply
        }),
        (selector(), update(), reply()).prop_map(|(selector, update, reply)| Operation::Update {
            selector,
            update,
            reply
        }),
        (request_id(), selector(), any::<Option<u32>>(), option::of(listing())).prop_map(
            |(request, selector, page_sockets_max, listing)| Operation::Fetch {
                request,
                selector,
                page_sockets_max,
                listing,
            }
        ),
        request_id().prop_map(|request| Operation::Rooms { request }),
        (request_id(), names()).prop_map(|(request, rooms)| Operation::SocketIds { request, rooms }),
        (option::of(request_id()), text_event)
            .prop_map(|(request, event)| Operation::ServerSideEmit { request, event }),
    ]
}

fn message(operation: impl Strategy<Value = Operation>) -> impl Strategy<Value = ClusterMessage> {
    let short = || option::of("[a-z0-9-]{1,64}");
    (option::of(node()), namespace(), short(), short(), operation).prop_map(
        |(sender, namespace, id, trace_parent, operation)| ClusterMessage {
            sender: sender.map(NodeUid::of_node),
            namespace,
            id,
            trace_parent,
            operation,
        },
    )
}

fn broadcasts() -> impl Strategy<Value = ClusterMessage> {
    message((event(), options()).prop_map(|(event, options)| Operation::Broadcast { event, options }))
}

fn remote_socket() -> impl Strategy<Value = RemoteSocket> {
    let object = vec(("[a-z]{1,6}", json()), 0..4)
        .prop_map(|members| serde_json::Value::Object(members.into_iter().collect()).to_string());
    let data = json().prop_map(|json| json.to_string());
    ("[A-Za-z0-9_-]{20}", names(), option::of(object), option::of(data), option::of(name()))
        .prop_map(|(id, rooms, handshake, data, user)| RemoteSocket { id, rooms, handshake, data, user })
}

fn responses() -> impl Strategy<Value = ClusterResponse> {
    let answer = prop_oneof![
        (any::<u64>(), option::of(names())).prop_map(|(count, sids)| Answer::ClientCount { count, sids }),
        (option::of("[A-Za-z0-9_-]{20}"), args()).prop_map(|(sid, args)| Answer::Ack { sid, args }),
        (vec(remote_socket(), 0..4), any::<bool>(), option::of(name()))
            .prop_map(|(sockets, more, through)| Answer::Sockets { sockets, more, through }),
        (vec((name(), any::<u64>()), 0..4), any::<bool>())
            .prop_map(|(counts, more)| Answer::Counts { counts, more }),
        vec(name(), 1..4).prop_map(Answer::SocketIds),
        names().prop_map(Answer::Rooms),
        option::of(json().prop_map(|json| json.to_string())).prop_map(Answer::ServerSideEmit),
        any::<Option<u64>>().prop_map(|sockets| Answer::Done { sockets }),
    ];
    (request_id(), option::of(node()), answer).prop_map(|(request, node, answer)| ClusterResponse {
        request,
        node,
        answer,
    })
}

fn heartbeats() -> impl Strategy<Value = Heartbeat> {
    let role = prop_oneof![Just(Role::Edge), Just(Role::Emitter)];
    let status = prop_oneof![Just(NodeStatus::Serving), Just(NodeStatus::Draining), Just(NodeStatus::Gone)];
    let peer = option::of("[a-z0-9.:\"]{1,40}");
    let numbers = any::<(u64, u64, u64, bool)>();
    (node(), role, status, peer, numbers).prop_map(
        |(node, role, status, peer_address, (incarnation, sequence, interval_ms, solicits))| Heartbeat {
            node,
            incarnation,
            sequence,
            role,
            status,
            interval_ms,
            peer_address,
            solicits,
        },
    )
}

/// What no one sends: any bytes, and any bytes that begin as a message does.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..200),
        (prop_oneof![Just(0x93_u8), Just(0x94), Just(0x85), Just(0xdf), Just(b'{')], vec(any::<u8>(), 0..200))
            .prop_map(|(first, rest)| [vec![first], rest].concat()),
        r#"\{("(type|opts|rooms|data|requestId|packet|sockets|uid|listing|counts|through)":(\[|\{|"x"|[0-9]|null|,|\}|\])*,?){0,5}\}"#
            .prop_map(String::into_bytes),
    ]
}

fn decode_all(bytes: &[u8]) {
    let limits = Limits::default();
    let _ = broadcast::decode(bytes, &limits);
    let _ = request::decode(bytes, &NamespacePath::root(), &limits);
    let _ = response::decode(bytes, &limits);
    let _ = heartbeat::decode(bytes);
    let _ = codec::decode(bytes, &limits);
}

proptest! {
    #[test]
    fn a_broadcast_survives_redis(message in broadcasts()) {
        let sender = message.sender.clone().or_else(|| NodeUid::parse("emitter"));
        let decoded = broadcast::decode(&broadcast::encode(&message).unwrap(), &Limits::default());
        prop_assert_eq!(decoded, Ok(ClusterMessage { sender, ..message }));
    }

    #[test]
    fn a_request_survives_redis(message in message(requests())) {
        let bytes = request::encode(&message).unwrap();
        let decoded = request::decode(&bytes, &message.namespace, &Limits::default());
        prop_assert_eq!(decoded, Ok(message));
    }

    #[test]
    fn a_response_survives_redis(answer in responses()) {
        let decoded = response::decode(&response::encode(&answer).unwrap(), &Limits::default());
        prop_assert_eq!(decoded, Ok(answer));
    }

    #[test]
    fn everything_survives_rabbitmq(message in prop_oneof![broadcasts(), message(requests())], answer in responses()) {
        let limits = Limits::default();
        let decoded = codec::decode(&codec::encode_message(&message).unwrap(), &limits);
        prop_assert_eq!(decoded, Ok(Delivery::Message(message)));
        let decoded = codec::decode(&codec::encode_response(&answer).unwrap(), &limits);
        prop_assert_eq!(decoded, Ok(Delivery::Response(answer)));
    }

    #[test]
    fn a_heartbeat_survives_both(beat in heartbeats()) {
        prop_assert_eq!(heartbeat::decode(&heartbeat::encode(&beat)), Ok(beat.clone()));
        let decoded = codec::decode(&codec::encode_heartbeat(&beat).unwrap(), &Limits::default());
        prop_assert_eq!(decoded, Ok(Delivery::Heartbeat(beat)));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in hostile()) {
        decode_all(&bytes);
    }

    #[test]
    fn a_damaged_message_makes_no_decoder_panic(
        message in prop_oneof![broadcasts(), message(requests())],
        answer in responses(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let encoded = [
            codec::encode_message(&message).unwrap(),
            broadcast::encode(&message).or_else(|_| request::encode(&message)).unwrap(),
            response::encode(&answer).unwrap(),
        ];
        for mut bytes in encoded {
            decode_all(bytes.get(..cut.index(bytes.len())).unwrap());
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            decode_all(&bytes);
        }
    }

    #[test]
    fn a_channel_names_its_room(room in name(), node in node()) {
        let names = Names::new("a*b").unwrap();
        let channel = names.room(&NamespacePath::root(), &room);
        prop_assert_eq!(
            names.parse(&channel),
            Some(Channel::Broadcast { namespace: "/", room: Some(&room) })
        );
        let own = NodeId::of_sid(&room) == Some(node);
        prop_assert!(!own || names.is_in_sockets_pattern(node, &channel));
    }
}
