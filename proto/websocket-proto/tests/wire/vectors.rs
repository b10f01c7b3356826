//! The golden vectors in `proto/vectors/websocket`.

use websocket_proto::{
    close::CloseCode,
    encoder::{Opcode, close_frame, write_frame},
    handshake::{accept_key, is_valid_key},
};

use crate::client::{Receiver, Seen};

const ACCEPT_KEYS: &str = include_str!("../../../vectors/websocket/accept_keys.txt");
const CLIENT_FRAMES: &str = include_str!("../../../vectors/websocket/client_frames.txt");
const CLOSE_FRAMES: &str = include_str!("../../../vectors/websocket/close_frames.txt");
const SERVER_FRAMES: &str = include_str!("../../../vectors/websocket/server_frames.txt");

/// Lines that are neither empty nor a comment; a file without any would prove nothing.
fn cases(file: &str) -> Vec<&str> {
    let cases: Vec<&str> =
        file.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).collect();
    assert!(!cases.is_empty());
    cases
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|digit| !digit.is_whitespace() && *digit != '-').collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).expect("two hex digits"))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn outcome(seen: &Seen) -> String {
    let (word, rest) = match seen {
        Seen::Text(text) => ("text", text.clone()),
        Seen::Binary(bytes) => ("binary", hex(bytes)),
        Seen::Ping(bytes) => ("ping", hex(bytes)),
        Seen::Pong(bytes) => ("pong", hex(bytes)),
        Seen::Close(None) => ("close", String::new()),
        Seen::Close(Some((code, reason))) => ("close", format!("{code} {reason}")),
    };
    format!("{word} {rest}").trim_end().to_owned()
}

#[test]
fn accept_keys() {
    for case in cases(ACCEPT_KEYS) {
        let (key, expected) = case.split_once(' ').expect("key and accept");
        assert!(is_valid_key(key), "{key}");
        assert_eq!(accept_key(key), expected, "{key}");
    }
}

#[test]
fn client_frames() {
    for case in cases(CLIENT_FRAMES) {
        let [name, limit, frames, expected] = case.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("not four columns: {case}");
        };
        let wire = bytes(frames);
        for piece_bytes in [1, 2, 3, 5, wire.len()] {
            let mut receiver = Receiver::new(limit.parse().expect("a limit"));
            for piece in wire.chunks(piece_bytes) {
                receiver.read(piece);
            }
            let mut outcomes: Vec<String> = receiver.seen.iter().map(outcome).collect();
            outcomes.extend(receiver.error.map(|error| format!("error {}", error.close_code())));
            let actual = if outcomes.is_empty() { "waits".to_owned() } else { outcomes.join("; ") };
            assert_eq!(actual, expected, "{name}, {piece_bytes} bytes a read");
        }
    }
}

#[test]
fn server_frames() {
    for case in cases(SERVER_FRAMES) {
        let [kind, payload, expected] = case.split(' ').collect::<Vec<_>>()[..] else {
            panic!("not three columns: {case}");
        };
        let opcode = match kind {
            "text" => Opcode::Text,
            "binary" => Opcode::Binary,
            "close" => Opcode::Close,
            "ping" => Opcode::Ping,
            "pong" => Opcode::Pong,
            other => panic!("no such kind: {other}"),
        };
        let mut out = Vec::new();
        write_frame(opcode, &bytes(payload), &mut out);
        assert_eq!(hex(&out), expected, "{case}");
    }
}

#[test]
fn close_frames() {
    for case in cases(CLOSE_FRAMES) {
        let mut columns = case.splitn(3, ' ');
        let code = columns
            .next()
            .and_then(|code| code.parse().ok())
            .map(|code| CloseCode::from_wire(code).expect("a code that may stand on the wire"));
        let expected = columns.next().expect("a frame");
        let reason = columns.next().unwrap_or_default();
        assert_eq!(hex(&close_frame(code, reason)), expected, "{case}");
    }
}
