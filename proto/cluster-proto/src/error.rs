//! Why a message of another node is refused.

use socketio_proto::json::JsonError;
use socketio_proto::parser::DecodeError as PacketError;
use socketio_proto::parser::msgpack::MsgpackError;

/// Why a message is not accepted. The message is dropped and counted by [`DecodeError::reason`]; the sender is not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than `limits.message_bytes_max`.
    #[error("message of {bytes} bytes, at most {max}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The bytes are not of the format that they seem to be of.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// A field that the message needs is missing, or is not of the type that it has on this wire.
    #[error("field {field:?} is missing or invalid")]
    InvalidField {
        /// Its name on the wire.
        field: &'static str,
    },
    /// A type of message that this version does not know.
    #[error("unknown message type {kind}")]
    UnknownType {
        /// What stands in its place, at most 32 bytes of it.
        kind: String,
    },
    /// A format version that this version does not read.
    #[error("unknown format version {version}")]
    UnknownVersion {
        /// What the message says.
        version: u64,
    },
    /// A broadcast of something that is no event.
    #[error("a broadcast that is no event")]
    NotAnEvent,
    /// The data of an event is no array that begins with a name.
    #[error("event data that is no array beginning with a name")]
    NoEventName,
    /// An event name over `limits.packet.name_bytes_max`.
    #[error("event name over {max} bytes")]
    EventNameTooLong {
        /// The bound.
        max: usize,
    },
    /// An event with a name that the libraries keep for themselves.
    #[error("reserved event name")]
    ReservedEvent,
    /// More attachments than `limits.packet.attachments_max`.
    #[error("too many attachments, at most {max}")]
    TooManyAttachments {
        /// The bound.
        max: usize,
    },
    /// Values nested deeper than `limits.packet.depth_max`.
    #[error("nested deeper than {max} levels")]
    TooDeep {
        /// The bound.
        max: usize,
    },
    /// A packet over `limits.packet.packet_bytes_max`.
    #[error("packet over {max} bytes")]
    PacketTooLarge {
        /// The bound.
        max: usize,
    },
    /// More rooms than `limits.rooms_max` in one list.
    #[error("more than {max} rooms")]
    TooManyRooms {
        /// The bound.
        max: usize,
    },
    /// More sockets than `limits.answer_items_max` in one answer.
    #[error("more than {max} sockets in one answer")]
    TooManyItems {
        /// The bound.
        max: usize,
    },
    /// A room name over `limits.room_bytes_max`.
    #[error("room name over {max} bytes")]
    RoomTooLong {
        /// The bound.
        max: usize,
    },
    /// A name in a list over [`crate::listing::NAME_BYTES_MAX`].
    #[error("listed name over {max} bytes")]
    NameTooLong {
        /// The bound.
        max: usize,
    },
    /// A namespace that could not travel to a client.
    #[error("invalid namespace")]
    InvalidNamespace,
    /// Placeholders that do not suit the attachments.
    #[error("illegal attachments")]
    IllegalPlaceholder,
}

impl DecodeError {
    /// A short fixed name of the reason, fit for the label of a counter.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::PacketTooLarge { .. } => "size",
            Self::Malformed(_) | Self::InvalidField { .. } => "malformed",
            Self::UnknownType { .. } => "unknown_type",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::NotAnEvent => "not_an_event",
            Self::NoEventName => "no_event_name",
            Self::EventNameTooLong { .. } => "event_name_length",
            Self::ReservedEvent => "reserved_event",
            Self::TooManyAttachments { .. } => "attachments",
            Self::TooDeep { .. } => "depth",
            Self::TooManyRooms { .. } | Self::RoomTooLong { .. } | Self::NameTooLong { .. } => "rooms",
            Self::TooManyItems { .. } => "answer_items",
            Self::InvalidNamespace => "namespace",
            Self::IllegalPlaceholder => "placeholders",
        }
    }
}

impl From<MsgpackError> for DecodeError {
    fn from(error: MsgpackError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<JsonError> for DecodeError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::TooDeep { max } => Self::TooDeep { max },
            JsonError::Syntax { .. } => Self::Malformed(error.to_string()),
        }
    }
}

impl From<PacketError> for DecodeError {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::InvalidJson(error) => error.into(),
            PacketError::TooManyAttachments { max, .. } => Self::TooManyAttachments { max },
            PacketError::PacketTooLarge { max } => Self::PacketTooLarge { max },
            PacketError::IllegalPlaceholder | PacketError::LiteralPlaceholder => Self::IllegalPlaceholder,
            PacketError::ReservedEvent => Self::ReservedEvent,
            PacketError::EventNameTooLong { max } => Self::EventNameTooLong { max },
            PacketError::InvalidNamespace | PacketError::NamespaceTooLong { .. } => Self::InvalidNamespace,
            PacketError::UnknownPacketType
            | PacketError::InvalidPayload
            | PacketError::InvalidAckId
            | PacketError::IllegalAttachments
            | PacketError::UnexpectedText
            | PacketError::UnexpectedBinary
            | PacketError::TextFromMsgpackClient
            | PacketError::Msgpack(_) => Self::Malformed(error.to_string()),
        }
    }
}

/// Why a message cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Its data is not what its type promises, or a value is too long for the format.
    #[error("the data of the message cannot be written: {0}")]
    Data(String),
    /// This wire has no form for it.
    #[error("this wire has no form for {what}")]
    NotOnThisWire {
        /// What was to be sent.
        what: &'static str,
    },
}

impl From<socketio_proto::parser::msgpack::EncodeError> for EncodeError {
    fn from(error: socketio_proto::parser::msgpack::EncodeError) -> Self {
        Self::Data(error.to_string())
    }
}
