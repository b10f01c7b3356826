//! Frames and packets in the log, at level `trace`: what a network sniffer would show, without the secrets.
//!
//! Session ids and what clients say of themselves on CONNECT are left out; binary data shows as its length.

use engineio_proto::{Data, Packet, WirePacket};
use websocket_proto::decoder::Incoming;

use super::registry::SessionKey;

/// The log target, for `log.level = "info,frames=trace"`.
const TARGET: &str = "frames";
/// Bytes of a text that are shown.
const SHOWN_BYTES: usize = 256;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    In,
    Out,
}

/// Whether anybody wants to see frames.
fn is_on() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::TRACE)
}

/// Logs one frame of a WebSocket, or one packet of a poll as the frame that it would be.
pub(crate) fn frame(direction: Direction, session: SessionKey, opcode: &'static str, payload: &[u8]) {
    if !is_on() {
        return;
    }
    let shown = if opcode == "binary" { String::new() } else { without_secrets(payload) };
    let (direction, bytes) = (format!("{direction:?}").to_lowercase(), payload.len());
    tracing::trace!(target: TARGET, session = session.number(), direction, opcode, bytes, "{shown}");
}

/// Logs a packet that goes out.
pub(crate) fn packet_out(session: SessionKey, packet: &WirePacket) {
    let opcode = if packet.is_binary() { "binary" } else { "text" };
    frame(Direction::Out, session, opcode, packet.as_bytes());
}

/// Logs a packet that a POST brought.
pub(crate) fn packet_in(session: SessionKey, packet: &Packet<'_>) {
    if !is_on() {
        return;
    }
    match &packet.data {
        Data::Binary(bytes) => frame(Direction::In, session, "binary", bytes),
        Data::Text(text) => {
            let digit = char::from(packet.packet_type.digit());
            frame(Direction::In, session, "text", format!("{digit}{text}").as_bytes());
        }
    }
}

/// Logs what came on a WebSocket.
pub(crate) fn frame_in(session: SessionKey, incoming: &Incoming<'_>) {
    match incoming {
        Incoming::Text(text) => frame(Direction::In, session, "text", text.as_bytes()),
        Incoming::Binary(bytes) => frame(Direction::In, session, "binary", bytes),
        Incoming::Ping(payload) => frame(Direction::In, session, "ping", payload),
        Incoming::Pong(payload) => frame(Direction::In, session, "pong", payload),
        Incoming::Close(close) => {
            let code = close.as_ref().map(|close| close.code.to_string()).unwrap_or_default();
            frame(Direction::In, session, "close", code.as_bytes());
        }
    }
}

/// The start of a text, cut before what must not be in a log: the session id of an open packet, the data and query
/// of a CONNECT, the query in its refusal, and the demo's echo of that data.
fn without_secrets(payload: &[u8]) -> String {
    let secret_from = match payload {
        [b'0', ..] => Some(1),
        [b'4', b'4', ..] => payload.iter().position(|byte| *byte == b'?'),
        [b'4', b'0', ..] => payload.iter().position(|byte| matches!(byte, b'{' | b'?')),
        _ if payload.windows(7).take(SHOWN_BYTES).any(|window| window == b"[\"auth\"") => Some(2),
        _ => None,
    };
    let shown = payload.get(..secret_from.unwrap_or(payload.len()).min(SHOWN_BYTES)).unwrap_or_default();
    let more = if shown.len() < payload.len() { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_cut_off() {
        let check = |payload: &str, expected: &str| assert_eq!(without_secrets(payload.as_bytes()), expected);
        check("2", "2");
        check("42[\"hello\",1]", "42[\"hello\",1]");
        check("0{\"sid\":\"abc\"}", "0…");
        check("40{\"token\":\"abc\"}", "40…");
        check("40/chat,{\"token\":\"abc\"}", "40/chat,…");
        check("40/chat?token=abc,", "40/chat…");
        check("44/chat?token=abc,{}", "44/chat…");
        check("44/chat,{\"message\":\"no\"}", "44/chat,{\"message\":\"no\"}");
        check("42[\"auth\",{\"token\":\"abc\"}]", "42…");
        check(&"x".repeat(300), &format!("{}…", "x".repeat(256)));
    }
}
