//! The revision 4 payload: packets joined by `0x1e`, UTF-8, a binary message as `b<base64>`.

use super::{Packets, PayloadError};
use crate::packet::{Packet, WirePacket, base64_entry_len, push_base64_entry};
use crate::version::ProtocolVersion::V4;

/// ASCII's record separator. JSON writes it escaped, so it cannot occur inside a packet of JSON.
const SEPARATOR: u8 = 0x1e;

/// Adds the packets of `body` until its end or the first bad one. An empty piece is a bad one, so an empty
/// body and a trailing separator are errors.
pub(super) fn decode<'a>(body: &'a str, packets: &mut Packets<'a>) -> Result<(), PayloadError> {
    for piece in body.split(char::from(SEPARATOR)) {
        packets.push(Packet::decode_text_frame(V4, piece))?;
    }
    Ok(())
}

pub(super) fn encode(packets: &[WirePacket]) -> Vec<u8> {
    let length = packets.iter().map(|packet| entry_len(packet).saturating_add(1)).sum();
    let mut body = Vec::with_capacity(length);
    let mut base64 = String::new();
    for (index, packet) in packets.iter().enumerate() {
        if index > 0 {
            body.push(SEPARATOR);
        }
        match packet {
            WirePacket::Text(text) => body.extend_from_slice(text),
            WirePacket::Binary(bytes) => {
                base64.clear();
                push_base64_entry(V4, bytes, &mut base64);
                body.extend_from_slice(base64.as_bytes());
            }
        }
    }
    body
}

fn entry_len(packet: &WirePacket) -> usize {
    match packet {
        WirePacket::Text(text) => text.len(),
        WirePacket::Binary(bytes) => base64_entry_len(V4, bytes.len()),
    }
}
