//! The golden vectors of `proto/vectors/socketio`, in both directions where the peer writes what we write.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken vector fails its test")]

use std::path::Path;

use bytes::Bytes;
use serde_json::Value;
use socketio_proto::limits::Limits;
use socketio_proto::packet::{AckId, Packet, PacketType, ProtocolVersion};
use socketio_proto::parser::{DecodeError, Parser, msgpack, text};

fn vectors(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/socketio").join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text_of<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector.get(key).and_then(Value::as_str).unwrap_or_else(|| panic!("{key} in {vector}"))
}

fn list<'a>(vector: &'a Value, key: &str) -> &'a [Value] {
    vector.get(key).and_then(Value::as_array).unwrap_or_else(|| panic!("{key} in {vector}"))
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(pair.iter().fold(0, |sum, d| sum * 16 + d)).unwrap())
        .collect()
}

fn version(vector: &Value) -> ProtocolVersion {
    match vector.get("version").and_then(Value::as_u64) {
        Some(4) => ProtocolVersion::V4,
        Some(5) => ProtocolVersion::V5,
        other => panic!("version {other:?}"),
    }
}

fn packet_type(name: &str) -> PacketType {
    match name {
        "connect" => PacketType::Connect,
        "disconnect" => PacketType::Disconnect,
        "event" => PacketType::Event,
        "ack" => PacketType::Ack,
        "connect_error" => PacketType::ConnectError,
        "binary_event" => PacketType::BinaryEvent,
        "binary_ack" => PacketType::BinaryAck,
        _ => panic!("type {name}"),
    }
}

/// Gives every frame to one parser, and gives back what the last frame completed.
fn decode(version: ProtocolVersion, frames: &[Value]) -> Result<Option<Packet<'static>>, DecodeError> {
    let mut parser = Parser::new(version);
    let mut packet = None;
    for frame in frames {
        packet = match frame.get("text") {
            Some(text) => {
                parser.handle_text(text.as_str().unwrap(), &Limits::default())?.map(Packet::into_owned)
            }
            None => {
                parser.handle_binary(&hex(text_of(frame, "hex")), &Limits::default())?.map(Packet::into_owned)
            }
        };
    }
    Ok(packet)
}

fn check_packet(name: &str, packet: &Packet<'_>, expected: &Value) {
    assert_eq!(packet.packet_type, packet_type(text_of(expected, "type")), "{name}");
    assert_eq!(packet.namespace, text_of(expected, "namespace"), "{name}");
    assert_eq!(packet.query, text_of(expected, "query"), "{name}");
    assert_eq!(packet.data, text_of(expected, "data"), "{name}");
    let ack_id = expected.get("ack_id").and_then(Value::as_str).map(|id| AckId(id.parse().unwrap()));
    assert_eq!(packet.ack_id, ack_id, "{name}");
    assert_eq!(packet.event.as_deref(), expected.get("event").and_then(Value::as_str), "{name}");
    let attachments: Vec<Bytes> =
        list(expected, "attachments").iter().map(|bytes| hex(bytes.as_str().unwrap()).into()).collect();
    assert_eq!(packet.attachments, attachments, "{name}");
}

#[test]
fn text_vectors_decode_and_encode() {
    for vector in vectors("text.json") {
        let name = text_of(&vector, "name");
        let frames = list(&vector, "frames");
        let packet = decode(version(&vector), frames).unwrap_or_else(|error| panic!("{name}: {error}"));
        let packet = packet.unwrap_or_else(|| panic!("{name}: incomplete"));
        check_packet(name, &packet, vector.get("packet").unwrap());
        if text_of(&vector, "direction") == "both" {
            let mut out = Vec::new();
            text::encode(&packet.as_outgoing(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text_of(frames.first().unwrap(), "text"), "{name}");
        }
    }
}

#[test]
fn msgpack_vectors_decode_and_encode() {
    for vector in vectors("msgpack.json") {
        let name = text_of(&vector, "name");
        let message = hex(text_of(&vector, "hex"));
        let mut parser = Parser::new(ProtocolVersion::V5);
        let packet = parser.handle_binary(&message, &Limits { attachments_max: 1000, ..Limits::default() });
        let packet = packet.unwrap_or_else(|error| panic!("{name}: {error}")).unwrap();
        check_packet(name, &packet, vector.get("packet").unwrap());
        if text_of(&vector, "direction") == "both" {
            let mut out = Vec::new();
            msgpack::encode(&packet.as_outgoing(), &mut out).unwrap();
            assert_eq!(out, message, "{name}");
        }
    }
}

#[test]
fn refused_vectors_are_refused_with_the_words_of_node() {
    for vector in vectors("refused.json") {
        let name = text_of(&vector, "name");
        let error = decode(version(&vector), list(&vector, "frames")).expect_err(name);
        assert!(error.to_string().starts_with(text_of(&vector, "error")), "{name}: {error}");
    }
}
