//! The packets of one client: the parsers that clients may use, and the protocol versions.
//!
//! The codecs are those of the gateway. What they do to bytes is checked elsewhere, against vectors and the official
//! clients; here they only carry what is sent and heard.

use bytes::Bytes;
use engineio_proto::ProtocolVersion as EngineVersion;
use serde_json::Value;
use socketio_proto::limits::Limits;
use socketio_proto::packet::{Outgoing, Packet, PacketType, ProtocolVersion};
use socketio_proto::parser::{Parser, msgpack, text};

/// How a client writes its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Protocol 5, the default parser.
    Text,
    /// Protocol 5, the msgpack parser.
    Msgpack,
    /// Protocol 4, as clients of 1.x and 2.x speak it on Engine.IO 3.
    Old,
}

/// One message of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(String),
    Binary(Bytes),
}

impl Dialect {
    pub(crate) fn engine(self) -> EngineVersion {
        match self {
            Dialect::Text | Dialect::Msgpack => EngineVersion::V4,
            Dialect::Old => EngineVersion::V3,
        }
    }

    /// The messages of one packet.
    pub(crate) fn encode(self, packet: &Outgoing<'_>) -> Vec<Message> {
        let mut bytes = Vec::new();
        if self == Dialect::Msgpack {
            msgpack::encode(packet, &mut bytes).expect("a packet that msgpack can say");
            return vec![Message::Binary(bytes.into())];
        }
        text::encode(packet, &mut bytes);
        let head = Message::Text(String::from_utf8(bytes).expect("UTF-8"));
        let attachments = if packet.is_binary() { packet.attachments } else { &[] };
        std::iter::once(head).chain(attachments.iter().cloned().map(Message::Binary)).collect()
    }
}

/// A packet that a client has heard.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Heard {
    /// Binary or not is not told apart here: a packet with attachments is binary.
    pub(crate) packet_type: PacketType,
    pub(crate) namespace: String,
    pub(crate) ack_id: Option<u64>,
    /// With placeholders in the places of attachments; `null` where there is no data.
    pub(crate) data: Value,
    pub(crate) attachments: Vec<Bytes>,
}

impl Heard {
    fn new(packet: Packet<'_>) -> Self {
        let data = if packet.data.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&packet.data).expect("the data of a packet is JSON")
        };
        Self {
            packet_type: packet.packet_type.without_attachments(),
            namespace: packet.namespace.into_owned(),
            ack_id: packet.ack_id.map(|id| id.0),
            data,
            attachments: packet.attachments,
        }
    }

    pub(crate) fn is_event(&self) -> bool {
        self.packet_type == PacketType::Event
    }

    pub(crate) fn is_ack(&self) -> bool {
        self.packet_type == PacketType::Ack
    }

    /// The name of the event.
    pub(crate) fn name(&self) -> String {
        self.data[0].as_str().unwrap_or_else(|| panic!("{self:?} is no event")).to_owned()
    }
}

/// Puts packets together.
#[derive(Debug)]
pub(crate) struct Decoder(Parser);

impl Decoder {
    pub(crate) fn new(dialect: Dialect) -> Self {
        let version = if dialect == Dialect::Old { ProtocolVersion::V4 } else { ProtocolVersion::V5 };
        Self(Parser::new(version))
    }

    /// Takes one message; the packet, if it is complete.
    pub(crate) fn decode(&mut self, message: Message) -> Option<Heard> {
        let limits = Limits::default();
        let packet = match &message {
            Message::Text(text) => self.0.handle_text(text, &limits),
            Message::Binary(bytes) => self.0.handle_binary(bytes, &limits),
        };
        packet.unwrap_or_else(|error| panic!("{error}: {message:?}")).map(Heard::new)
    }
}
