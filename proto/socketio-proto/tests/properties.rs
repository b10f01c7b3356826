//! Properties of the JSON reader and of both parsers, on random and on hostile input.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken property fails its test")]

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use socketio_proto::json::{elements, quote, unquote, validate};
use socketio_proto::limits::Limits;
use socketio_proto::packet::{AckId, Outgoing, Packet, PacketType, ProtocolVersion};
use socketio_proto::parser::{Parser, msgpack, text};

/// JSON values whose numbers both sides write alike.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1_000_000..1_000_000_i32).prop_map(|n| json!(f64::from(n) / 8.0 + 0.0625)),
        ".{0,12}".prop_map(Value::String),
        "[\\x00-\\x7f]{0,12}".prop_map(Value::String),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
            prop::collection::vec(("[a-z_\"\\\\é]{0,8}", inner), 0..20)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Texts near to JSON: random ones over its alphabet, and valid ones with a byte or two changed.
fn near_json() -> impl Strategy<Value = String> {
    let alphabet = prop::sample::select(vec![
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"num\"",
        "\"_placeholder\"",
        "\\",
        "\\u",
        "\\ud83d",
        "0",
        "1",
        "-",
        ".",
        "e",
        "E",
        "+",
        "true",
        "false",
        "null",
        " ",
        "\n",
        "\t",
        "é",
        "\u{0}",
        "x",
        "12.5e3",
    ]);
    prop_oneof![
        prop::collection::vec(alphabet.clone(), 0..24).prop_map(|parts| parts.concat()),
        (value(), any::<prop::sample::Index>(), alphabet, any::<bool>()).prop_map(
            |(value, at, part, cut)| {
                let mut chars: Vec<char> = value.to_string().chars().collect();
                let at = at.index(chars.len());
                if cut {
                    chars.remove(at);
                }
                chars.splice(at..at, part.chars());
                chars.into_iter().collect()
            }
        ),
    ]
}

/// A packet as either parser may carry it: binary values as placeholders, each named once.
fn packet() -> impl Strategy<Value = Packet<'static>> {
    let namespace = prop_oneof![Just("/".to_owned()), "/[a-zA-Z0-9?_-]{0,20}"];
    let ack_id = prop::option::of(any::<u64>().prop_map(AckId));
    let event = (".{1,20}", prop::collection::vec(value(), 0..4), attachments())
        .prop_filter("reserved", |(name, ..)| !socketio_proto::packet::is_reserved_event(name))
        .prop_map(|(name, args, attachments)| {
            let args = [vec![Value::String(name)], args].concat();
            (PacketType::Event, with_placeholders(args, attachments.len()), attachments)
        });
    let ack = (prop::collection::vec(value(), 0..4), attachments()).prop_map(|(args, attachments)| {
        (PacketType::Ack, with_placeholders(args, attachments.len()), attachments)
    });
    let auth = prop_oneof![Just(String::new()), Just("{}".to_owned()), Just(r#"{"token":"é"}"#.to_owned())];
    let connect = auth.prop_map(|data| (PacketType::Connect, data, Vec::new()));
    let rest = prop_oneof![
        Just((PacketType::Disconnect, String::new(), Vec::new())),
        Just((PacketType::ConnectError, r#"{"message":"no"}"#.to_owned(), Vec::new())),
        Just((PacketType::ConnectError, r#""no""#.to_owned(), Vec::new())),
    ];
    let body = prop_oneof![4 => event, 2 => ack, 1 => connect, 1 => rest];
    (namespace, ack_id, body).prop_map(|(namespace, ack_id, (packet_type, data, attachments))| {
        let name = elements(&data).next().filter(|_| packet_type == PacketType::Event).map(str::to_owned);
        let args_start =
            name.as_ref().map_or(0, |raw| 1 + raw.len() + usize::from(elements(&data).count() > 1));
        Packet {
            packet_type: if attachments.is_empty() { packet_type } else { packet_type.with_attachments() },
            namespace: namespace.into(),
            query: "".into(),
            ack_id,
            event: name.map(|raw| unquote(&raw).unwrap().into_owned().into()),
            args_start,
            data: data.into(),
            attachments,
        }
    })
}

fn attachments() -> impl Strategy<Value = Vec<Bytes>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from), 0..5)
}

fn with_placeholders(mut args: Vec<Value>, attachments: usize) -> String {
    for index in 0..attachments {
        let placeholder = json!({ "_placeholder": true, "num": index });
        args.push(if index % 2 == 0 { placeholder } else { json!([{ "x": placeholder }]) });
    }
    Value::Array(args).to_string()
}

/// Decodes a whole packet, its attachments following the text.
fn decode_text(packet: &Packet<'_>) -> Packet<'static> {
    let mut bytes = Vec::new();
    text::encode(&packet.as_outgoing(), &mut bytes);
    let header = String::from_utf8(bytes).unwrap();
    let mut parser = Parser::new(ProtocolVersion::V5);
    let mut decoded = parser.handle_text(&header, &Limits::default()).unwrap().map(Packet::into_owned);
    for attachment in &packet.attachments {
        assert!(decoded.is_none());
        decoded = parser.handle_binary(attachment, &Limits::default()).unwrap().map(Packet::into_owned);
    }
    decoded.unwrap()
}

fn decode_msgpack(packet: &Packet<'_>) -> Packet<'static> {
    let mut message = Vec::new();
    msgpack::encode(&packet.as_outgoing(), &mut message).unwrap();
    let mut parser = Parser::new(ProtocolVersion::V5);
    parser.handle_binary(&message, &Limits::default()).unwrap().unwrap().into_owned()
}

proptest! {
    #[test]
    fn reader_agrees_with_serde_json(text in near_json()) {
        // A raw value is checked for syntax only, so lone surrogates and huge numbers pass there, too.
        let expected = serde_json::from_str::<&RawValue>(&text).is_ok();
        prop_assert_eq!(validate(&text, 100).is_ok(), expected);
    }

    #[test]
    fn reader_accepts_what_serde_json_writes(value in value()) {
        prop_assert_eq!(validate(&value.to_string(), 100), Ok(()));
        prop_assert_eq!(validate(&serde_json::to_string_pretty(&value).unwrap(), 100), Ok(()));
    }

    #[test]
    fn quote_agrees_with_serde_json(text in "\\PC*|[\\x00-\\x7f]*") {
        let mut quoted = String::new();
        quote(&text, &mut quoted);
        prop_assert_eq!(&quoted, &serde_json::to_string(&text).unwrap());
        let read = unquote(&quoted);
        prop_assert_eq!(read.as_deref(), Some(&*text));
    }

    #[test]
    fn elements_agree_with_serde_json(values in prop::collection::vec(value(), 0..6)) {
        let text = serde_json::to_string_pretty(&values).unwrap();
        let read: Vec<Value> = elements(&text).map(|element| serde_json::from_str(element).unwrap()).collect();
        prop_assert_eq!(read, values);
    }

    #[test]
    fn text_packets_survive_the_wire(packet in packet()) {
        prop_assert_eq!(decode_text(&packet), packet);
    }

    #[test]
    fn msgpack_packets_survive_the_wire(packet in packet()) {
        prop_assert_eq!(decode_msgpack(&packet), packet);
    }

    #[test]
    fn random_text_never_panics(parts in "[0-6]{0,1}[0-9]{0,3}-?(/[a-z]{0,3},?)?[0-9]{0,21}", data in near_json()) {
        for version in [ProtocolVersion::V4, ProtocolVersion::V5] {
            let text = format!("{parts}{data}");
            let mut parser = Parser::new(version);
            if let Ok(Some(packet)) = parser.handle_text(&text, &Limits::default()) {
                check_decoded(&packet);
            }
        }
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,64}") {
        let _ = Parser::new(ProtocolVersion::V5).handle_text(&text, &Limits::default());
    }

    #[test]
    fn random_msgpack_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Parser::new(ProtocolVersion::V5).handle_binary(&bytes, &Limits::default());
    }

    #[test]
    fn damaged_msgpack_never_panics(packet in packet(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut message = Vec::new();
        msgpack::encode(&packet.as_outgoing(), &mut message).unwrap();
        let at = at.index(message.len());
        let cut = message.get(..at).unwrap();
        prop_assert!(Parser::new(ProtocolVersion::V5).handle_binary(cut, &Limits::default()).is_err());
        *message.get_mut(at).unwrap() = byte;
        if let Ok(Some(packet)) = Parser::new(ProtocolVersion::V5).handle_binary(&message, &Limits::default()) {
            check_decoded(&packet);
        }
    }
}

/// What holds for every packet that was accepted, whoever sent it.
fn check_decoded(packet: &Packet<'_>) {
    let limits = Limits::default();
    assert!(packet.bytes_len() <= limits.packet_bytes_max);
    assert!(packet.attachments.len() <= limits.attachments_max);
    assert!(packet.namespace.starts_with('/'));
    assert_eq!(packet.is_binary(), !packet.attachments.is_empty());
    if !packet.data.is_empty() {
        assert_eq!(validate(&packet.data, limits.depth_max), Ok(()));
    }
    if packet.event.is_some() {
        assert_eq!(validate(&format!("[{}", packet.args_tail()), limits.depth_max), Ok(()));
    }
    let mut out = Vec::new();
    text::encode(&packet.as_outgoing(), &mut out);
    msgpack::encode(&packet.as_outgoing(), &mut out).unwrap();
}

/// A fifth of a megabyte of each of these must be done with at once: a quadratic step would take minutes.
#[test]
fn long_messages_take_linear_time() {
    let limits = Limits { depth_max: usize::MAX, ..Limits::default() };
    let count = 200_000;
    for part in [
        "[",
        "[[],",
        "{\"a\":",
        "{\"a\":1,",
        "\"",
        "\\",
        "\\u0061",
        "1",
        "1,",
        "-",
        "0.",
        "1e",
        " ",
        "/",
        "/,",
        ",",
        "-",
        "é",
        "[{\"num\":",
        "{\"_placeholder\":true,\"num\":0},",
    ] {
        let body = part.repeat(count / part.len());
        for head in ["", "0", "2", "2[\"a\",", "2[\"", "2/", "21", "3[", "51-[\"a\",", "5", "51-/"] {
            let text = format!("{head}{body}");
            let _ = Parser::new(ProtocolVersion::V4).handle_text(&text, &limits);
        }
        let event = format!("[\"a\",{body}");
        assert!(elements(&event).count() <= count);
        let attachments = [Bytes::new()];
        let packet = Outgoing {
            attachments: &attachments,
            binary: true,
            ..Outgoing::text(PacketType::Event, "/", None, &event)
        };
        let _ = msgpack::encode(&packet, &mut Vec::new());
    }
    for byte in [0x00, 0x81, 0x91, 0xa0, 0xc0, 0xc4, 0xcb, 0xd4, 0xd7, 0xdd, 0xdf, 0xff] {
        for head in [
            &b""[..],
            b"\x81\xa1x",
            b"\x81\xa4data",
            b"\x81\xa4data\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
        ] {
            let message = [head, &vec![byte; count]].concat();
            assert!(Parser::new(ProtocolVersion::V5).handle_binary(&message, &limits).is_err());
        }
    }
}

#[test]
fn a_shared_attachment_cannot_unfold() {
    let attachments = [Bytes::from(vec![0; 100_000])];
    let data = format!("[\"a\"{}]", r#",{"_placeholder":true,"num":0}"#.repeat(10_000));
    let packet = Outgoing {
        attachments: &attachments,
        binary: true,
        ..Outgoing::text(PacketType::Event, "/", None, &data)
    };
    let mut out = Vec::new();
    assert!(msgpack::encode(&packet, &mut out).is_err());
    assert!(out.is_empty());
    let header = format!("51-{data}");
    assert!(Parser::new(ProtocolVersion::V5).handle_text(&header, &Limits::default()).is_err());
}

/// Numbers come out of msgpack as `JSON.stringify` would write them.
#[test]
fn numbers_leave_msgpack_as_javascript_writes_them() {
    for (number, expected) in [
        ("1e300", "1e+300"),
        ("1E-7", "1e-7"),
        ("123456789.125", "123456789.125"),
        ("1.0", "1"),
        ("1e3", "1000"),
        ("-0", "0"),
        ("1e400", "null"),
        ("100000000000000000000", "100000000000000000000"),
        ("18446744073709551615", "18446744073709551615"),
    ] {
        let data = format!("[\"n\",{number}]");
        let packet = Outgoing::text(PacketType::Event, "/", None, &data);
        let mut message = Vec::new();
        msgpack::encode(&packet, &mut message).unwrap();
        let mut parser = Parser::new(ProtocolVersion::V5);
        let decoded = parser.handle_binary(&message, &Limits::default()).unwrap().unwrap();
        assert_eq!(decoded.args_tail(), format!("{expected}]"));
    }
}
