//! Packets: what was decoded, and what is to be encoded.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use crate::json;

/// The revision of the Socket.IO protocol that a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProtocolVersion {
    /// Spoken over Engine.IO 3, by JavaScript clients 1.x and 2.x.
    V4,
    /// Spoken over Engine.IO 4, by JavaScript clients 3.x and 4.x.
    V5,
}

impl ProtocolVersion {
    /// Tells whether the server joins `/` by itself as soon as the session opens.
    /// In protocol 5 nothing is joined before the client asks.
    #[must_use]
    pub fn joins_root_on_open(self) -> bool {
        matches!(self, Self::V4)
    }
}

/// The number that pairs an event with its answer: unsigned, 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AckId(pub u64);

impl fmt::Display for AckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The type of a packet; the wire digit of the default parser is given with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketType {
    /// `0`: joins a namespace, or confirms that it was joined.
    Connect,
    /// `1`: leaves a namespace.
    Disconnect,
    /// `2`: an event without attachments.
    Event,
    /// `3`: the answer to an event, without attachments.
    Ack,
    /// `4`: a namespace could not be joined. Protocol 4 calls it ERROR.
    ConnectError,
    /// `5`: an event with attachments.
    BinaryEvent,
    /// `6`: an answer with attachments.
    BinaryAck,
}

impl PacketType {
    /// Finds the type of a wire digit of the default parser.
    #[must_use]
    pub fn from_digit(digit: char) -> Option<Self> {
        match digit {
            '0' => Some(Self::Connect),
            '1' => Some(Self::Disconnect),
            '2' => Some(Self::Event),
            '3' => Some(Self::Ack),
            '4' => Some(Self::ConnectError),
            '5' => Some(Self::BinaryEvent),
            '6' => Some(Self::BinaryAck),
            _ => None,
        }
    }

    /// Tells whether packets of this type carry attachments.
    #[must_use]
    pub fn is_binary(self) -> bool {
        matches!(self, Self::BinaryEvent | Self::BinaryAck)
    }

    /// The same type with attachments: events and answers change, the others have no such form.
    #[must_use]
    pub fn with_attachments(self) -> Self {
        match self {
            Self::Event | Self::BinaryEvent => Self::BinaryEvent,
            Self::Ack | Self::BinaryAck => Self::BinaryAck,
            Self::Connect | Self::Disconnect | Self::ConnectError => self,
        }
    }

    /// The same type without attachments.
    #[must_use]
    pub fn without_attachments(self) -> Self {
        match self {
            Self::Event | Self::BinaryEvent => Self::Event,
            Self::Ack | Self::BinaryAck => Self::Ack,
            Self::Connect | Self::Disconnect | Self::ConnectError => self,
        }
    }

    /// The wire digit of the default parser, as ASCII.
    pub(crate) fn digit(self) -> u8 {
        match self {
            Self::Connect => b'0',
            Self::Disconnect => b'1',
            Self::Event => b'2',
            Self::Ack => b'3',
            Self::ConnectError => b'4',
            Self::BinaryEvent => b'5',
            Self::BinaryAck => b'6',
        }
    }
}

/// A decoded packet, complete with all its attachments.
///
/// `data` is valid JSON within the depth limit, without white space at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The type; a binary one only if attachments came with the packet.
    pub packet_type: PacketType,
    /// `/`, or a path such as `/chat`.
    pub namespace: Cow<'a, str>,
    /// The text after `?` in the namespace of a protocol 4 packet, else empty.
    /// In protocol 5 a `?` is an ordinary character of the namespace, as in Node.
    pub query: Cow<'a, str>,
    /// The id by which the sender pairs the answer; on an answer, the id it answers.
    pub ack_id: Option<AckId>,
    /// JSON text: an array for events and answers; an object, or a string in CONNECT_ERROR, otherwise; empty when absent.
    pub data: Cow<'a, str>,
    /// What the placeholders `{"_placeholder":true,"num":<index>}` in `data` stand for.
    pub attachments: Vec<Bytes>,
    /// The name of an event, `None` for other packets. A number as a name is given as its JSON text.
    /// An escaped lone surrogate, which UTF-8 cannot hold, appears as U+FFFD here and stays as it was in `data`.
    pub event: Option<Cow<'a, str>>,
    /// Where in `data` the arguments of an event begin: after the name and its comma, or at the closing bracket.
    pub args_start: usize,
}

impl Packet<'_> {
    /// Tells whether the placeholders in `data` stand for attachments. When false they are plain data.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        self.packet_type.is_binary()
    }

    /// The arguments of an event as `arg1,arg2]`, or `]` when there are none.
    /// For other packets this is the whole of `data`.
    #[must_use]
    pub fn args_tail(&self) -> &str {
        self.data.get(self.args_start..).unwrap_or_default()
    }

    /// The bytes of the text and the attachments.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.data.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// Copies what was borrowed from the frame.
    #[must_use]
    pub fn into_owned(self) -> Packet<'static> {
        Packet {
            packet_type: self.packet_type,
            namespace: Cow::Owned(self.namespace.into_owned()),
            query: Cow::Owned(self.query.into_owned()),
            ack_id: self.ack_id,
            data: Cow::Owned(self.data.into_owned()),
            attachments: self.attachments,
            event: self.event.map(|name| Cow::Owned(name.into_owned())),
            args_start: self.args_start,
        }
    }

    /// The view under which this packet is encoded again.
    #[must_use]
    pub fn as_outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            packet_type: self.packet_type,
            namespace: &self.namespace,
            ack_id: self.ack_id,
            data: &self.data,
            attachments: &self.attachments,
            binary: self.is_binary(),
        }
    }
}

/// A packet to encode. `data` must be valid JSON (or empty); the encoders trust the caller for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The type. Whether events and answers take their binary form follows from [`Outgoing::is_binary`].
    pub packet_type: PacketType,
    /// `/`, or a path such as `/chat`.
    pub namespace: &'a str,
    /// The id to answer with, or the id that is answered.
    pub ack_id: Option<AckId>,
    /// JSON text, empty when the packet carries none.
    pub data: &'a str,
    /// What the placeholders stand for.
    pub attachments: &'a [Bytes],
    /// Whether placeholders in `data` stand for attachments; otherwise they are plain data.
    pub binary: bool,
}

impl<'a> Outgoing<'a> {
    /// An event or an answer without attachments, or a packet of any other type.
    #[must_use]
    pub fn text(packet_type: PacketType, namespace: &'a str, ack_id: Option<AckId>, data: &'a str) -> Self {
        Self { packet_type, namespace, ack_id, data, attachments: &[], binary: false }
    }

    /// Tells whether the attachments are sent: they exist, and the placeholders mean them.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        self.binary && !self.attachments.is_empty() && self.packet_type.with_attachments().is_binary()
    }

    /// The type as the default parser writes it.
    #[must_use]
    pub fn wire_type(&self) -> PacketType {
        if self.is_binary() {
            self.packet_type.with_attachments()
        } else {
            self.packet_type.without_attachments()
        }
    }
}

/// Names that the Socket.IO libraries keep for themselves.
/// A JavaScript peer with the default parser disconnects when it receives an event so named.
const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Tells whether an event may not have this name.
#[must_use]
pub fn is_reserved_event(name: &str) -> bool {
    RESERVED_EVENTS.contains(&name)
}

/// Builds the data of an event from its name and arguments as [`Packet::args_tail`] gives them:
/// `name` and `1,2]` become `["name",1,2]`.
#[must_use]
pub fn event_data(name: &str, args_tail: &str) -> String {
    let mut data = String::with_capacity(name.len() + args_tail.len() + 8);
    data.push('[');
    json::quote(name, &mut data);
    if !args_tail.trim_start().starts_with(']') {
        data.push(',');
    }
    data.push_str(args_tail);
    data
}

/// Builds the data of an answer from arguments as [`Packet::args_tail`] gives them: `1,2]` becomes `[1,2]`.
#[must_use]
pub fn ack_data(args_tail: &str) -> String {
    let mut data = String::with_capacity(args_tail.len() + 1);
    data.push('[');
    data.push_str(args_tail);
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_data_joins_name_and_arguments() {
        assert_eq!(event_data("a\"b", "1,2]"), r#"["a\"b",1,2]"#);
        assert_eq!(event_data("a", "]"), r#"["a"]"#);
        assert_eq!(event_data("a", " ]"), r#"["a" ]"#);
        assert_eq!(ack_data("]"), "[]");
        assert_eq!(ack_data("1]"), "[1]");
    }

    #[test]
    fn attachments_count_only_when_placeholders_mean_them() {
        let attachments = [Bytes::from_static(b"x")];
        let event = Outgoing {
            attachments: &attachments,
            binary: true,
            ..Outgoing::text(PacketType::Event, "/", None, "[]")
        };
        assert_eq!(event.wire_type(), PacketType::BinaryEvent);
        assert_eq!(Outgoing { binary: false, ..event }.wire_type(), PacketType::Event);
        assert_eq!(Outgoing { attachments: &[], ..event }.wire_type(), PacketType::Event);
        assert_eq!(
            Outgoing { packet_type: PacketType::BinaryAck, ..event }.wire_type(),
            PacketType::BinaryAck
        );
        assert_eq!(Outgoing { packet_type: PacketType::Connect, ..event }.wire_type(), PacketType::Connect);
    }
}
