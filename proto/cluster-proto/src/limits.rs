//! The bounds that hold while a message of another node is decoded.

use socketio_proto::limits::Limits as PacketLimits;

/// Bytes of a name in an answer: no edge may be configured to take longer ones.
const ANSWER_NAME_BYTES_MAX: usize = 66 * 1024;

/// Bounds on one message from the broker. Whoever can write to the broker is trusted with events, not with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message. Everything that is allocated is a small multiple of it.
    pub message_bytes_max: usize,
    /// Rooms in one list: of a selector, of its exceptions, or to join and leave.
    pub rooms_max: usize,
    /// Names or sockets in one answer: all rooms of a node, or all ids that a broadcast with acks went to.
    pub answer_items_max: usize,
    /// Bytes of a room name.
    pub room_bytes_max: usize,
    /// Bounds on the packet inside: attachments, nesting, event and namespace names, text and attachments together.
    pub packet: PacketLimits,
}

impl Limits {
    /// What answers are held to: rooms there are already, however long an edge lets them be.
    #[must_use]
    pub(crate) fn of_answers(&self) -> Self {
        Self { room_bytes_max: self.room_bytes_max.max(ANSWER_NAME_BYTES_MAX), ..*self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 8_000_000,
            rooms_max: 10_000,
            answer_items_max: 250_000,
            room_bytes_max: 256,
            packet: PacketLimits::default(),
        }
    }
}
