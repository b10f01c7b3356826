//! One packet, and the one WebSocket frame or payload entry that carries it.
//!
//! [`Packet`] is what came in, borrowed from the bytes it was read from. [`WirePacket`] is what goes out:
//! finished bytes, shared by every session that gets them.

use std::borrow::Cow;

use bytes::Bytes;

use crate::base64_text;
use crate::version::ProtocolVersion;

/// The seven packet types, the same in both revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketType {
    /// `0`: the server's handshake.
    Open,
    /// `1`: the sender is leaving; has a meaning over polling only.
    Close,
    /// `2`: the server pings in revision 4, the client in revision 3; with data `probe`, the first word of an
    /// upgrade.
    Ping,
    /// `3`: the answer to a ping.
    Pong,
    /// `4`: data for the application.
    Message,
    /// `5`: the last word of an upgrade.
    Upgrade,
    /// `6`: nothing; releases a parked poll.
    Noop,
}

impl PacketType {
    /// The ASCII digit that opens a text packet.
    pub const fn digit(self) -> u8 {
        b'0' + self.value()
    }

    /// The type as a number, 0 to 6: the first byte of a binary packet in revision 3.
    pub const fn value(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Close => 1,
            Self::Ping => 2,
            Self::Pong => 3,
            Self::Message => 4,
            Self::Upgrade => 5,
            Self::Noop => 6,
        }
    }

    /// The type with this ASCII digit.
    pub const fn from_digit(digit: u8) -> Option<Self> {
        match digit.checked_sub(b'0') {
            Some(value) => Self::from_value(value),
            None => None,
        }
    }

    /// The type with this number.
    pub const fn from_value(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Open),
            1 => Some(Self::Close),
            2 => Some(Self::Ping),
            3 => Some(Self::Pong),
            4 => Some(Self::Message),
            5 => Some(Self::Upgrade),
            6 => Some(Self::Noop),
            _ => None,
        }
    }
}

/// What a packet carries after its type. Borrowed, unless base64 had to be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data<'a> {
    /// Text without the type digit; may be empty.
    Text(Cow<'a, str>),
    /// Raw bytes without any type byte; may be empty.
    Binary(Cow<'a, [u8]>),
}

impl Data<'_> {
    /// The bytes, whichever kind they are.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// One packet as a client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The type.
    pub packet_type: PacketType,
    /// What follows the type.
    pub data: Data<'a>,
}

/// Bytes that are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// There is not even a type.
    #[error("empty packet")]
    Empty,
    /// The byte in the type's place is not a type of this form of packet.
    #[error("unknown packet type byte {byte:#04x}")]
    UnknownType {
        /// That byte; the first one of a character longer than a byte.
        byte: u8,
    },
}

impl<'a> Packet<'a> {
    /// Decodes a text frame, or one entry of a text payload: `<type digit><text>`, or base64 behind a `b`.
    ///
    /// Base64 is `b<base64>` in revision 4, always a message, and `b<type digit><base64>` in revision 3. It
    /// is read leniently, as on the reference server: bytes outside the alphabet are skipped and never an
    /// error.
    ///
    /// # Errors
    /// [`PacketError`] when the text is empty or opens with no known type.
    pub fn decode_text_frame(version: ProtocolVersion, frame: &'a str) -> Result<Self, PacketError> {
        match (version, frame.strip_prefix('b')) {
            (_, None) => {
                let (packet_type, text) = split_type_digit(frame)?;
                Ok(Self { packet_type, data: Data::Text(Cow::Borrowed(text)) })
            }
            (ProtocolVersion::V3, Some(typed)) => {
                let (packet_type, base64) = split_type_digit(typed)?;
                Ok(Self { packet_type, data: Data::Binary(Cow::Owned(base64_text::decode(base64))) })
            }
            (ProtocolVersion::V4, Some(base64)) => {
                Ok(Self::message(Data::Binary(Cow::Owned(base64_text::decode(base64)))))
            }
        }
    }

    /// Decodes a binary frame, or one binary entry of a payload: a bare message in revision 4, and in
    /// revision 3 `<type byte, 0x00 to 0x06><data>`.
    ///
    /// # Errors
    /// [`PacketError`] when a revision 3 frame is empty or opens with no known type; never in revision 4.
    pub fn decode_binary_frame(version: ProtocolVersion, frame: &'a [u8]) -> Result<Self, PacketError> {
        match version {
            ProtocolVersion::V3 => {
                let (&byte, data) = frame.split_first().ok_or(PacketError::Empty)?;
                let packet_type = PacketType::from_value(byte).ok_or(PacketError::UnknownType { byte })?;
                Ok(Self { packet_type, data: Data::Binary(Cow::Borrowed(data)) })
            }
            ProtocolVersion::V4 => Ok(Self::message(Data::Binary(Cow::Borrowed(frame)))),
        }
    }

    /// Whether this is the text packet `2probe`, the first word of an upgrade.
    pub fn is_probe(&self) -> bool {
        self.packet_type == PacketType::Ping && self.data == Data::Text(Cow::Borrowed("probe"))
    }

    fn message(data: Data<'a>) -> Self {
        Self { packet_type: PacketType::Message, data }
    }
}

fn split_type_digit(text: &str) -> Result<(PacketType, &str), PacketError> {
    let &byte = text.as_bytes().first().ok_or(PacketError::Empty)?;
    let packet_type = PacketType::from_digit(byte).ok_or(PacketError::UnknownType { byte })?;
    Ok((packet_type, text.get(1..).unwrap_or_default()))
}

/// One packet ready to go out, not yet framed for a transport. A clone shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WirePacket {
    /// The whole text of the packet with its type digit, `42["hi"]`. Must be UTF-8. Must not hold the byte
    /// `0x1e` if the packet may travel in a revision 4 payload, where it separates packets; JSON never holds
    /// it.
    Text(Bytes),
    /// The raw data of a binary message, without a type byte.
    Binary(Bytes),
}

impl WirePacket {
    /// The answer to the probe of an upgrade.
    pub const PROBE_PONG: Self = Self::Text(Bytes::from_static(b"3probe"));

    /// A packet of a type and nothing else. Nothing is allocated.
    pub const fn control(packet_type: PacketType) -> Self {
        let digit: &'static [u8] = match packet_type {
            PacketType::Open => b"0",
            PacketType::Close => b"1",
            PacketType::Ping => b"2",
            PacketType::Pong => b"3",
            PacketType::Message => b"4",
            PacketType::Upgrade => b"5",
            PacketType::Noop => b"6",
        };
        Self::Text(Bytes::from_static(digit))
    }

    /// A message of text: `4<text>`, copied once.
    pub fn text_message(text: &str) -> Self {
        Self::Text([&[PacketType::Message.digit()], text.as_bytes()].concat().into())
    }

    /// The bytes as given, whichever kind they are.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes,
        }
    }

    /// The number of bytes as given: with the type digit of a text, without any framing.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether there are no bytes at all. Only a binary message may be so.
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// Whether this is a binary message.
    pub fn is_binary(&self) -> bool {
        matches!(self, Self::Binary(_))
    }

    /// The WebSocket frame this packet becomes. Only base64 copies the bytes.
    ///
    /// `base64` is for a client that asked for no binary frames (`b64` in its query): a binary message
    /// becomes the text `b<base64>` in revision 4 and `b4<base64>` in revision 3. Otherwise it is a binary
    /// frame, which in revision 3 opens with the byte `0x04`.
    pub fn frame(&self, version: ProtocolVersion, base64: bool) -> Frame {
        match (self, version, base64) {
            (Self::Text(text), _, _) => Frame { kind: FrameKind::Text, prefix: None, payload: text.clone() },
            (Self::Binary(bytes), _, true) => {
                let mut text = String::with_capacity(base64_entry_len(version, bytes.len()));
                push_base64_entry(version, bytes, &mut text);
                Frame { kind: FrameKind::Text, prefix: None, payload: text.into() }
            }
            (Self::Binary(bytes), ProtocolVersion::V3, false) => Frame {
                kind: FrameKind::Binary,
                prefix: Some(PacketType::Message.value()),
                payload: bytes.clone(),
            },
            (Self::Binary(bytes), ProtocolVersion::V4, false) => {
                Frame { kind: FrameKind::Binary, prefix: None, payload: bytes.clone() }
            }
        }
    }
}

/// Appends a binary message as text: `b<base64>`, with the type digit after the `b` in revision 3.
pub(crate) fn push_base64_entry(version: ProtocolVersion, bytes: &[u8], out: &mut String) {
    out.push_str(match version {
        ProtocolVersion::V3 => "b4",
        ProtocolVersion::V4 => "b",
    });
    base64_text::encode_into(bytes, out);
}

/// How many bytes [`push_base64_entry`] appends.
pub(crate) fn base64_entry_len(version: ProtocolVersion, bytes: usize) -> usize {
    let mark = match version {
        ProtocolVersion::V3 => 2,
        ProtocolVersion::V4 => 1,
    };
    base64_text::encoded_len(bytes).saturating_add(mark)
}

/// The kind of a WebSocket data frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Opcode 1.
    Text,
    /// Opcode 2.
    Binary,
}

/// The content of one WebSocket frame: `prefix`, if there is one, then `payload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Text or binary.
    pub kind: FrameKind,
    /// A byte that goes before the payload, so that the payload can stay shared between revisions.
    pub prefix: Option<u8>,
    /// The rest, shared with the packet unless base64 was needed.
    pub payload: Bytes,
}

impl Frame {
    /// The length of the frame's content in bytes, the prefix included.
    pub fn len(&self) -> usize {
        self.payload.len().saturating_add(usize::from(self.prefix.is_some()))
    }

    /// Whether the frame has no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProtocolVersion::{V3, V4};

    #[test]
    fn digits_and_values_name_the_seven_types() {
        for value in 0..=255 {
            let by_value = PacketType::from_value(value);
            assert_eq!(by_value.is_some(), value < 7);
            assert_eq!(by_value, PacketType::from_digit(value.wrapping_add(b'0')));
            assert!(by_value.is_none_or(|known| known.value() == value && known.digit() == b'0' + value));
        }
    }

    #[test]
    fn control_packets_are_their_digit() {
        for value in 0..7 {
            let packet_type = PacketType::from_value(value).unwrap();
            assert_eq!(WirePacket::control(packet_type).as_bytes(), [packet_type.digit()]);
        }
        assert_eq!(WirePacket::text_message("héllo"), WirePacket::Text("4héllo".into()));
    }

    #[test]
    fn a_frame_shares_the_bytes_of_its_packet() {
        let bytes = Bytes::from(vec![7; 100]);
        for version in [V3, V4] {
            let text = WirePacket::Text(bytes.clone()).frame(version, true);
            let binary = WirePacket::Binary(bytes.clone()).frame(version, false);
            assert_eq!(text.payload.as_ptr(), bytes.as_ptr());
            assert_eq!(binary.payload.as_ptr(), bytes.as_ptr());
        }
    }

    #[test]
    fn only_the_exact_text_is_a_probe() {
        let is_probe = |text| Packet::decode_text_frame(V4, text).unwrap().is_probe();
        assert!(is_probe("2probe"));
        for text in ["2", "2prob", "2probes", "2Probe", "3probe", "4probe"] {
            assert!(!is_probe(text), "{text}");
        }
        assert!(!Packet::decode_text_frame(V3, "b2cHJvYmU=").unwrap().is_probe());
    }
}
