//! The revision 3 text payload: `<length>:<packet>`, repeated; a binary packet as `b<type digit><base64>`.
//!
//! The length is decimal and counts UTF-16 code units, type digit included, because the format is that of a
//! JavaScript string. So `€😀` counts 3: neither its 7 bytes nor its 2 characters.

use super::{Packets, PayloadError};
use crate::packet::{Packet, WirePacket, base64_entry_len, push_base64_entry};
use crate::version::ProtocolVersion::V3;

/// What no packets look like.
const EMPTY_LIST: &str = "0:";
/// The most decimal digits a length can have, and its colon.
const LENGTH_BYTES_MAX: usize = 21;

/// Adds the packets of `body`. An entry of length 0 holds no packet and is skipped, which is how
/// [`EMPTY_LIST`] reads.
pub(super) fn decode<'a>(body: &'a str, packets: &mut Packets<'a>) -> Result<(), PayloadError> {
    if body.is_empty() {
        return Err(PayloadError::Empty);
    }
    let mut rest = body;
    while !rest.is_empty() {
        let (digits, after) = rest.split_once(':').ok_or(PayloadError::BadLength)?;
        let units = parse_length(digits)?;
        let (packet, after) = split_at_utf16(after, units).ok_or(PayloadError::LengthMismatch)?;
        if !packet.is_empty() {
            packets.push(Packet::decode_text_frame(V3, packet))?;
        }
        rest = after;
    }
    Ok(())
}

/// Reads a length. Zeros may lead, signs and spaces may not, and a number beyond `usize` is refused.
fn parse_length(digits: &str) -> Result<usize, PayloadError> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PayloadError::BadLength);
    }
    digits.parse().map_err(|_| PayloadError::LengthMismatch)
}

/// Splits after `units` UTF-16 code units; `None` if there are fewer, or a surrogate pair would be torn.
fn split_at_utf16(text: &str, units: usize) -> Option<(&str, &str)> {
    // A code unit takes at least one byte, so a length beyond the bytes is refused without a walk.
    let head = text.as_bytes().get(..units)?;
    if head.is_ascii() {
        return text.split_at_checked(units);
    }
    let mut missing = units;
    for (at, character) in text.char_indices() {
        if missing == 0 {
            return text.split_at_checked(at);
        }
        missing = missing.checked_sub(character.len_utf16())?;
    }
    (missing == 0).then_some((text, ""))
}

pub(super) fn encode(packets: &[WirePacket]) -> Vec<u8> {
    if packets.is_empty() {
        return EMPTY_LIST.into();
    }
    let length = packets.iter().map(|packet| entry_len(packet).saturating_add(LENGTH_BYTES_MAX)).sum();
    let mut body = Vec::with_capacity(length);
    let mut base64 = String::new();
    for packet in packets {
        match packet {
            WirePacket::Text(text) => push_entry(&mut body, utf16_len(text), text),
            WirePacket::Binary(bytes) => {
                base64.clear();
                push_base64_entry(V3, bytes, &mut base64);
                push_entry(&mut body, base64.len(), base64.as_bytes());
            }
        }
    }
    body
}

fn entry_len(packet: &WirePacket) -> usize {
    match packet {
        WirePacket::Text(text) => text.len(),
        WirePacket::Binary(bytes) => base64_entry_len(V3, bytes.len()),
    }
}

fn push_entry(body: &mut Vec<u8>, units: usize, packet: &[u8]) {
    body.extend_from_slice(units.to_string().as_bytes());
    body.push(b':');
    body.extend_from_slice(packet);
}

/// Counts the UTF-16 code units of UTF-8 text by its bytes: one for each that begins a character, one more
/// for each that begins a character of four bytes.
fn utf16_len(utf8: &[u8]) -> usize {
    utf8.iter().map(|&byte| usize::from(byte & 0xc0 != 0x80) + usize::from(byte >= 0xf0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf16_units_are_counted_as_the_standard_library_counts_them() {
        for text in ["", "4", "é", "€", "😀", "4a€😀é\u{ffff}\u{10000}\u{10ffff}"] {
            assert_eq!(utf16_len(text.as_bytes()), text.encode_utf16().count(), "{text:?}");
        }
    }

    #[test]
    fn a_split_never_tears_a_surrogate_pair() {
        assert_eq!(split_at_utf16("€😀é", 0), Some(("", "€😀é")));
        assert_eq!(split_at_utf16("€😀é", 1), Some(("€", "😀é")));
        assert_eq!(split_at_utf16("€😀é", 2), None);
        assert_eq!(split_at_utf16("€😀é", 3), Some(("€😀", "é")));
        assert_eq!(split_at_utf16("€😀é", 4), Some(("€😀é", "")));
        assert_eq!(split_at_utf16("€😀é", 5), None);
        assert_eq!(split_at_utf16("ab", usize::MAX), None);
        assert_eq!(split_at_utf16("ab😀", 2), Some(("ab", "😀")));
    }
}
