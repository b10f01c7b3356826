//! The revision 3 binary payload: `<0x00 text | 0x01 binary> <length digits> 0xff <data>`, repeated.
//!
//! The digits are raw values 0 to 9, one byte each, most significant first, and count the bytes of the data.
//! The data of a text entry is the packet as UTF-8; that of a binary entry is a type byte (not an ASCII
//! digit) and raw bytes.

use super::{Packets, PayloadError};
use crate::packet::{Packet, PacketType, WirePacket};
use crate::version::ProtocolVersion::V3;

const TEXT: u8 = 0;
const BINARY: u8 = 1;
/// Ends the digits of a length.
const LENGTH_END: u8 = 0xff;
/// No end mark within so many digits is an error: the reference server's bound, far beyond any real length.
const LENGTH_DIGITS_MAX: usize = 310;
/// Kind, end mark, type byte and the most digits a length can have.
const ENTRY_OVERHEAD_MAX: usize = 23;

/// Adds the packets of `body`; an empty body holds none.
pub(super) fn decode<'a>(body: &'a [u8], packets: &mut Packets<'a>) -> Result<(), PayloadError> {
    let mut rest = body;
    while let Some((&kind, after)) = rest.split_first() {
        if !matches!(kind, TEXT | BINARY) {
            return Err(PayloadError::UnknownEntryKind { byte: kind });
        }
        let (length, after) = split_length(after)?;
        let (data, after) = after.split_at_checked(length).ok_or(PayloadError::LengthMismatch)?;
        if kind == TEXT {
            packets.push(Packet::decode_text_frame(V3, super::text(data)?))?;
        } else {
            packets.push(Packet::decode_binary_frame(V3, data))?;
        }
        rest = after;
    }
    Ok(())
}

/// Reads the digits and their end mark. A length beyond `usize` is refused; zeros may lead.
fn split_length(bytes: &[u8]) -> Result<(usize, &[u8]), PayloadError> {
    let end = bytes.iter().take(LENGTH_DIGITS_MAX + 1).position(|&byte| byte == LENGTH_END);
    let (digits, rest) = end.and_then(|end| bytes.split_at_checked(end)).ok_or(PayloadError::BadLength)?;
    if digits.is_empty() || digits.iter().any(|&digit| digit > 9) {
        return Err(PayloadError::BadLength);
    }
    let length = digits.iter().try_fold(0_usize, |length, &digit| {
        length.checked_mul(10).and_then(|tens| tens.checked_add(usize::from(digit)))
    });
    Ok((length.ok_or(PayloadError::LengthMismatch)?, rest.get(1..).unwrap_or_default()))
}

pub(super) fn encode(packets: &[WirePacket]) -> Vec<u8> {
    let length = packets.iter().map(|packet| packet.len().saturating_add(ENTRY_OVERHEAD_MAX)).sum();
    let mut body = Vec::with_capacity(length);
    for packet in packets {
        match packet {
            WirePacket::Text(text) => {
                push_header(&mut body, TEXT, text.len());
                body.extend_from_slice(text);
            }
            WirePacket::Binary(bytes) => {
                push_header(&mut body, BINARY, bytes.len().saturating_add(1));
                body.push(PacketType::Message.value());
                body.extend_from_slice(bytes);
            }
        }
    }
    body
}

fn push_header(body: &mut Vec<u8>, kind: u8, length: usize) {
    body.push(kind);
    body.extend(length.to_string().bytes().map(|digit| digit - b'0'));
    body.push(LENGTH_END);
}
