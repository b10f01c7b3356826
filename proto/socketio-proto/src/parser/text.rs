//! The default grammar: `<type>[<attachments>-][<namespace>,][<ack id>][<JSON>]`.
//!
//! The namespace is left out for `/`; else it starts with `/` and ends at the first comma or with the text.
//! The ack id is the run of digits right before the JSON.
//! Spec: socket.io-protocol v5, "Packet encoding"; the Node parser 4.2.7 where it is silent.
//!
//! As in Node, an answer without data is an answer without arguments.
//! Three things are stricter than in Node, where they come from reading texts as JavaScript numbers and from not looking at absent data:
//! an empty text is no CONNECT, counts and ids are digits only, and an event without data is refused.

use std::borrow::Cow;

use crate::limits::Limits;
use crate::packet::{AckId, Outgoing, Packet, PacketType, ProtocolVersion};
use crate::parser::attachments;
use crate::parser::{DecodeError, check_data, check_reserved};

/// Digits that an attachment count may have; the bound on its value is far below.
const COUNT_DIGITS_MAX: usize = 10;

/// White space of JSON. It is cut off around the data, because JavaScript decoders take a space for an ack id.
const JSON_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Decodes the text of a packet. Also gives how many attachments must follow.
pub(super) fn decode<'a>(
    text: &'a str,
    version: ProtocolVersion,
    limits: &Limits,
) -> Result<(Packet<'a>, usize), DecodeError> {
    if text.len() > limits.packet_bytes_max {
        return Err(DecodeError::PacketTooLarge { max: limits.packet_bytes_max });
    }
    let (packet_type, rest) = take_type(text)?;
    let (attachments, rest) =
        if packet_type.is_binary() { take_attachments(rest, limits)? } else { (0, rest) };
    let (namespace, rest) = take_namespace(rest);
    let (namespace, query) = match version {
        ProtocolVersion::V4 => namespace.split_once('?').unwrap_or((namespace, "")),
        ProtocolVersion::V5 => (namespace, ""),
    };
    if namespace.len() > limits.name_bytes_max {
        return Err(DecodeError::NamespaceTooLong { max: limits.name_bytes_max });
    }
    let (ack_id, rest) = take_ack_id(rest)?;
    let data = match (packet_type, rest.trim_matches(JSON_SPACE)) {
        (PacketType::Ack | PacketType::BinaryAck, "") if rest.is_empty() => "[]",
        (_, "") if !rest.is_empty() => return Err(DecodeError::InvalidPayload),
        (_, data) => data,
    };
    let (event, args_start) = check_data(packet_type, data, limits)?;
    check_reserved(event.as_deref())?;
    if packet_type.is_binary() {
        attachments::check(data, attachments, limits.depth_max)?;
    }
    let packet = Packet {
        packet_type,
        namespace: Cow::Borrowed(namespace),
        query: Cow::Borrowed(query),
        ack_id,
        data: Cow::Borrowed(data),
        attachments: Vec::new(),
        event,
        args_start,
    };
    Ok((packet, attachments))
}

fn take_type(text: &str) -> Result<(PacketType, &str), DecodeError> {
    let mut chars = text.chars();
    let packet_type = chars.next().and_then(PacketType::from_digit).ok_or(DecodeError::UnknownPacketType)?;
    Ok((packet_type, chars.as_str()))
}

fn take_attachments<'a>(text: &'a str, limits: &Limits) -> Result<(usize, &'a str), DecodeError> {
    let (digits, rest) = take_digits(text);
    let rest = rest.strip_prefix('-').ok_or(DecodeError::IllegalAttachments)?;
    if digits.is_empty() || digits.len() > COUNT_DIGITS_MAX {
        return Err(DecodeError::IllegalAttachments);
    }
    let got: u64 = digits.parse().map_err(|_| DecodeError::IllegalAttachments)?;
    match usize::try_from(got) {
        Ok(0) => Err(DecodeError::IllegalAttachments),
        Ok(count) if count <= limits.attachments_max => Ok((count, rest)),
        _ => Err(DecodeError::TooManyAttachments { got, max: limits.attachments_max }),
    }
}

fn take_namespace(text: &str) -> (&str, &str) {
    if text.starts_with('/') { text.split_once(',').unwrap_or((text, "")) } else { ("/", text) }
}

fn take_ack_id(text: &str) -> Result<(Option<AckId>, &str), DecodeError> {
    let (digits, rest) = take_digits(text);
    if digits.is_empty() {
        return Ok((None, rest));
    }
    let id = digits.parse().map_err(|_| DecodeError::InvalidAckId)?;
    Ok((Some(AckId(id)), rest))
}

fn take_digits(text: &str) -> (&str, &str) {
    let count = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at_checked(count).unwrap_or((text, ""))
}

/// Appends the text of a packet, without the Engine.IO type digit.
/// The attachments follow as binary messages of their own, right after it and in order, if [`Outgoing::is_binary`].
pub fn encode(packet: &Outgoing<'_>, out: &mut Vec<u8>) {
    out.reserve(packet.namespace.len() + packet.data.len() + 32);
    out.push(packet.wire_type().digit());
    if packet.is_binary() {
        push_number(packet.attachments.len(), out);
        out.push(b'-');
    }
    if packet.namespace != "/" {
        out.extend_from_slice(packet.namespace.as_bytes());
        out.push(b',');
    }
    if let Some(AckId(id)) = packet.ack_id {
        push_number(id, out);
    }
    out.extend_from_slice(packet.data.as_bytes());
}

fn push_number(number: impl std::fmt::Display, out: &mut Vec<u8>) {
    use std::io::Write;
    // Writing to a `Vec` cannot fail.
    let _ = write!(out, "{number}");
}
