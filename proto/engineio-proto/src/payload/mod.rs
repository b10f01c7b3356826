//! Several packets in one HTTP body.
//!
//! A body from a client is decoded by revision and content type, see [`decode`]; a body for a client is
//! encoded in the form that revision and client allow, see [`choose_form`] and [`encode`]. [`jsonp`] wraps a
//! text body in script.

pub mod jsonp;
mod v3_binary;
mod v3_text;
mod v4;

use crate::limits::Limits;
use crate::packet::{Packet, PacketError, WirePacket};
use crate::version::ProtocolVersion;

/// How a client labelled the body it posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyForm {
    /// Any content type but the one below, or none.
    Text,
    /// `application/octet-stream`.
    Octets,
}

/// What a body held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The packets that count, in order, borrowed from the body where they can be.
    pub packets: Vec<Packet<'a>>,
    /// What ended the decoding early. The packets are to be handled first, then the session is to close.
    pub error: Option<PayloadError>,
}

/// Why a body could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The body is longer than allowed; nothing was decoded.
    #[error("payload of {got} bytes, at most {max} allowed")]
    TooLarge {
        /// Bytes of the body.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// There are more packets than allowed.
    #[error("more than {max} packets in one payload")]
    TooManyPackets {
        /// The limit.
        max: usize,
    },
    /// A binary body in revision 4, which has none. The reference server answers it with 400.
    #[error("binary payload in revision 4")]
    OctetsInV4,
    /// Text that is not UTF-8.
    #[error("payload is not valid UTF-8")]
    NotUtf8,
    /// An empty body in revision 3, text form, where even no packets are `0:`.
    #[error("empty payload")]
    Empty,
    /// A length that is missing, not a number, or has no end mark.
    #[error("malformed packet length")]
    BadLength,
    /// A length that reaches beyond the body, or ends inside a character.
    #[error("packet length does not fit the payload")]
    LengthMismatch,
    /// A revision 3 binary entry that is neither text (0) nor binary (1).
    #[error("unknown entry kind {byte:#04x}")]
    UnknownEntryKind {
        /// The byte in its place.
        byte: u8,
    },
    /// An entry that is no packet.
    #[error("invalid packet in payload: {0}")]
    Packet(#[from] PacketError),
}

/// Decodes the body of a POST.
///
/// In revision 4 the packets before a bad one are kept and the error follows them; in revision 3 a bad
/// payload is rejected whole. Both is what the reference server does. Text that is not UTF-8 is rejected
/// whole in both.
///
/// Time is linear in the body. Memory is at most 100 bytes per packet beside base64 that was undone (three
/// quarters of its text), and [`Limits::packets_per_payload_max`] bounds the packets.
pub fn decode<'a>(version: ProtocolVersion, form: BodyForm, body: &'a [u8], limits: &Limits) -> Decoded<'a> {
    if body.len() > limits.payload_bytes_max {
        let error = PayloadError::TooLarge { got: body.len(), max: limits.payload_bytes_max };
        return Decoded { packets: Vec::new(), error: Some(error) };
    }
    let mut packets = Packets::new(limits.packets_per_payload_max);
    let outcome = match (version, form) {
        (ProtocolVersion::V4, BodyForm::Octets) => Err(PayloadError::OctetsInV4),
        (ProtocolVersion::V4, BodyForm::Text) => text(body).and_then(|body| v4::decode(body, &mut packets)),
        (ProtocolVersion::V3, BodyForm::Text) => {
            text(body).and_then(|body| v3_text::decode(body, &mut packets))
        }
        (ProtocolVersion::V3, BodyForm::Octets) => v3_binary::decode(body, &mut packets),
    };
    let mut packets = packets.list;
    if outcome.is_err() && version == ProtocolVersion::V3 {
        packets = Vec::new();
    }
    Decoded { packets, error: outcome.err() }
}

fn text(body: &[u8]) -> Result<&str, PayloadError> {
    std::str::from_utf8(body).map_err(|_| PayloadError::NotUtf8)
}

/// The packets found so far, never more than allowed.
struct Packets<'a> {
    list: Vec<Packet<'a>>,
    max: usize,
}

impl<'a> Packets<'a> {
    fn new(max: usize) -> Self {
        Self { list: Vec::new(), max }
    }

    fn push(&mut self, packet: Result<Packet<'a>, PacketError>) -> Result<(), PayloadError> {
        if self.list.len() >= self.max {
            return Err(PayloadError::TooManyPackets { max: self.max });
        }
        self.list.push(packet?);
        Ok(())
    }
}

/// The layout of a body for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadForm {
    /// Revision 4: packets separated by `0x1e`, binary as base64.
    V4,
    /// Revision 3: `<length>:<packet>`, binary as base64.
    V3Text,
    /// Revision 3 for clients that read bytes: a binary header before each packet.
    V3Binary,
}

impl PayloadForm {
    /// The `Content-Type` of a body in this form.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::V4 | Self::V3Text => "text/plain; charset=UTF-8",
            Self::V3Binary => "application/octet-stream",
        }
    }
}

/// Chooses the form for these packets and this client.
///
/// `base64` says that the client cannot read binary: it asked with `b64`, or it uses JSONP. `always_binary`
/// gives every other revision 3 client the binary form, as old servers did; without it that form is used only
/// when there is a binary packet to carry, as on the reference server. Revision 4 has one form.
pub fn choose_form(
    version: ProtocolVersion,
    base64: bool,
    always_binary: bool,
    packets: &[WirePacket],
) -> PayloadForm {
    match version {
        ProtocolVersion::V4 => PayloadForm::V4,
        ProtocolVersion::V3 if base64 => PayloadForm::V3Text,
        ProtocolVersion::V3 if always_binary || packets.iter().any(WirePacket::is_binary) => {
            PayloadForm::V3Binary
        }
        ProtocolVersion::V3 => PayloadForm::V3Text,
    }
}

/// Encodes packets as one body. No packets are `0:` in [`PayloadForm::V3Text`] and nothing in the others.
pub fn encode(form: PayloadForm, packets: &[WirePacket]) -> Vec<u8> {
    match form {
        PayloadForm::V4 => v4::encode(packets),
        PayloadForm::V3Text => v3_text::encode(packets),
        PayloadForm::V3Binary => v3_binary::encode(packets),
    }
}

#[cfg(test)]
mod tests;
