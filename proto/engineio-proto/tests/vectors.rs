//! Plays the golden vectors of `proto/vectors/engineio/`: exact bytes, in both directions.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a vector that cannot be read is a failed test"
)]

use std::time::Duration;

use engineio_proto::handshake::{ErrorCode, OpenPacket, Query};
use engineio_proto::packet::{Frame, FrameKind};
use engineio_proto::payload::{self, BodyForm, PayloadForm, jsonp};
use engineio_proto::{Data, Limits, Packet, PacketType, ProtocolVersion, TransportKind, WirePacket};
use serde_json::Value;

/// The vectors of one file; a file without any is a mistake.
fn vectors(file: &str) -> Vec<Value> {
    let path = format!("{}/../vectors/engineio/{file}", env!("CARGO_MANIFEST_DIR"));
    let document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let vectors = document["vectors"].as_array().unwrap().clone();
    assert!(!vectors.is_empty(), "{path}");
    for vector in &vectors {
        assert!(vector["source"].is_string(), "{}: no source", vector["name"]);
    }
    vectors
}

fn string<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|digit| digit.to_digit(16).unwrap().try_into().unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The bytes of `{"text": …}` or `{"hex": …}`.
fn bytes(value: &Value) -> Vec<u8> {
    value["text"].as_str().map_or_else(|| unhex(string(value, "hex")), |text| text.as_bytes().to_vec())
}

fn version(value: &Value, key: &str) -> ProtocolVersion {
    if number(value, key) == 4 { ProtocolVersion::V4 } else { ProtocolVersion::V3 }
}

fn wire(value: &Value) -> WirePacket {
    match value["text"].as_str() {
        Some(text) => WirePacket::Text(text.to_owned().into()),
        None => WirePacket::Binary(unhex(string(value, "binary")).into()),
    }
}

/// What a packet of ours looks like to one who reads it.
fn read(packet: &WirePacket) -> Packet<'_> {
    match packet {
        WirePacket::Text(text) => {
            Packet::decode_text_frame(ProtocolVersion::V4, std::str::from_utf8(text).unwrap()).unwrap()
        }
        WirePacket::Binary(bytes) => Packet::decode_binary_frame(ProtocolVersion::V4, bytes).unwrap(),
    }
}

/// The packet back as one to send: only what a server sends, so binary is always a message.
fn written(packet: &Packet<'_>) -> WirePacket {
    match &packet.data {
        Data::Text(text) => {
            let digit = char::from(packet.packet_type.digit());
            WirePacket::Text(format!("{digit}{text}").into())
        }
        Data::Binary(bytes) => WirePacket::Binary(bytes.to_vec().into()),
    }
}

#[test]
fn frames() {
    for vector in vectors("frames.json") {
        let name = string(&vector, "name");
        let version = version(&vector, "version");
        let frame = bytes(&vector["frame"]);
        let is_text = vector["frame"]["text"].is_string();
        let packet = if is_text {
            Packet::decode_text_frame(version, std::str::from_utf8(&frame).unwrap())
        } else {
            Packet::decode_binary_frame(version, &frame)
        }
        .unwrap_or_else(|error| panic!("{name}: {error}"));

        let expected = &vector["packet"];
        assert_eq!(u64::from(packet.packet_type.value()), number(expected, "type"), "{name}");
        assert_eq!(packet.data.as_bytes(), bytes(expected), "{name}");
        assert_eq!(matches!(packet.data, Data::Text(_)), expected["text"].is_string(), "{name}");

        if string(&vector, "direction") == "both" {
            let kind = if is_text { FrameKind::Text } else { FrameKind::Binary };
            let ours: Frame = written(&packet).frame(version, vector["base64"].as_bool().unwrap());
            let content: Vec<u8> = ours.prefix.into_iter().chain(ours.payload.iter().copied()).collect();
            assert_eq!((ours.kind, ours.len()), (kind, frame.len()), "{name}");
            assert_eq!(content, frame, "{name}");
        }
    }
}

#[test]
fn frames_refused() {
    for vector in vectors("frames_refused.json") {
        let version = version(&vector, "version");
        let frame = bytes(&vector["frame"]);
        let outcome = if vector["frame"]["text"].is_string() {
            Packet::decode_text_frame(version, std::str::from_utf8(&frame).unwrap())
        } else {
            Packet::decode_binary_frame(version, &frame)
        };
        assert_eq!(outcome.unwrap_err().to_string(), string(&vector, "error"), "{}", vector["name"]);
    }
}

#[test]
fn payloads() {
    for vector in vectors("payloads.json") {
        let name = string(&vector, "name");
        let (form, version, label) = match string(&vector, "form") {
            "v4" => (PayloadForm::V4, ProtocolVersion::V4, BodyForm::Text),
            "v3_text" => (PayloadForm::V3Text, ProtocolVersion::V3, BodyForm::Text),
            "v3_binary" => (PayloadForm::V3Binary, ProtocolVersion::V3, BodyForm::Octets),
            other => panic!("{name}: unknown form {other}"),
        };
        let body = bytes(&vector["body"]);
        let packets: Vec<WirePacket> = vector["packets"].as_array().unwrap().iter().map(wire).collect();

        // No packets at all have a body, but nobody posts it in revision 4.
        let decoded = payload::decode(version, label, &body, &Limits::default());
        assert_eq!(decoded.error, None, "{name}");
        assert_eq!(decoded.packets, packets.iter().map(read).collect::<Vec<_>>(), "{name}");

        if string(&vector, "direction") == "both" {
            assert_eq!(payload::encode(form, &packets), body, "{name}");
        }
    }
}

#[test]
fn payloads_refused() {
    for vector in vectors("payloads_refused.json") {
        let name = string(&vector, "name");
        let label = if string(&vector, "form") == "octets" { BodyForm::Octets } else { BodyForm::Text };
        let body = bytes(&vector["body"]);
        let packets: Vec<WirePacket> = vector["packets"].as_array().unwrap().iter().map(wire).collect();
        let decoded = payload::decode(version(&vector, "version"), label, &body, &Limits::default());
        let error = decoded.error.unwrap_or_else(|| panic!("{name}: not refused"));
        assert_eq!(error.to_string(), string(&vector, "error"), "{name}");
        assert_eq!(decoded.packets, packets.iter().map(read).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn jsonp_responses() {
    for vector in vectors("jsonp_responses.json") {
        let index = jsonp::index(string(&vector, "j"));
        let script = jsonp::encode(&index, string(&vector, "payload"));
        assert_eq!(script, string(&vector, "script"), "{}", vector["name"]);

        // What the browser makes of it: the argument of the call, read as JSON, is the payload again.
        let argument = script.split_once('(').unwrap().1.strip_suffix(");").unwrap();
        assert_eq!(serde_json::from_str::<String>(argument).unwrap(), string(&vector, "payload"));
    }
}

#[test]
fn jsonp_forms() {
    for vector in vectors("jsonp_forms.json") {
        let payload = jsonp::decode_form(string(&vector, "form").as_bytes());
        assert_eq!(payload.as_deref(), vector["payload"].as_str(), "{}", vector["name"]);
    }
}

#[test]
fn open_packets() {
    for vector in vectors("open_packets.json") {
        let upgrades: Vec<TransportKind> = vector["upgrades"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| TransportKind::parse(name.as_str().unwrap()).unwrap())
            .collect();
        let open = OpenPacket {
            sid: string(&vector, "sid"),
            upgrades: &upgrades,
            ping_interval: Duration::from_millis(number(&vector, "ping_interval_ms")),
            ping_timeout: Duration::from_millis(number(&vector, "ping_timeout_ms")),
            max_payload: number(&vector, "max_payload"),
        };
        assert_eq!(open.encode(), string(&vector, "packet"), "{}", vector["name"]);
        let read = open.encode();
        let packet = Packet::decode_text_frame(ProtocolVersion::V4, &read).unwrap();
        assert_eq!(packet.packet_type, PacketType::Open);
    }
}

#[test]
fn queries() {
    for vector in vectors("queries.json") {
        let expected = Query {
            eio: (!vector["eio"].is_null()).then(|| version(&vector, "eio")),
            transport: vector["transport"].as_str().and_then(TransportKind::parse),
            sid: vector["sid"].as_str().map(str::to_owned),
            jsonp: vector["jsonp"].as_str().map(str::to_owned),
            base64: vector["base64"].as_bool().unwrap(),
        };
        assert_eq!(Query::parse(string(&vector, "query")), expected, "{}", vector["name"]);
    }
}

#[test]
fn errors() {
    let all = [
        ErrorCode::TransportUnknown,
        ErrorCode::SessionIdUnknown,
        ErrorCode::BadHandshakeMethod,
        ErrorCode::BadRequest,
        ErrorCode::Forbidden,
        ErrorCode::UnsupportedProtocolVersion,
    ];
    let vectors = vectors("errors.json");
    assert_eq!(vectors.len(), all.len());
    for (vector, error) in vectors.iter().zip(all) {
        assert_eq!(u64::from(error.code()), number(vector, "code"));
        assert_eq!(u64::from(error.http_status()), number(vector, "status"));
        assert_eq!(error.json_body(), string(vector, "body"));
        assert_eq!(error.message(), string(vector, "websocket_body"));
    }
}
