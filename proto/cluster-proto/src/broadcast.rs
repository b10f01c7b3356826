//! Whom a message is for, and how it is to be delivered.

use crate::error::DecodeError;
use crate::limits::Limits;

/// Whom something is for: every socket in any of `rooms`, or with no rooms every socket of the namespace, but for `except`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// Rooms, among them the ids of single sockets.
    pub rooms: Vec<String>,
    /// Rooms and socket ids that are left out.
    pub except: Vec<String>,
}

impl Selector {
    /// Checks how many names it has, and how long they are.
    ///
    /// # Errors
    /// [`DecodeError`] if a node would refuse it.
    pub fn check(&self, limits: &Limits) -> Result<(), DecodeError> {
        for names in [&self.rooms, &self.except] {
            if names.len() > limits.rooms_max {
                return Err(DecodeError::TooManyRooms { max: limits.rooms_max });
            }
            if names.iter().any(|name| name.len() > limits.room_bytes_max) {
                return Err(DecodeError::RoomTooLong { max: limits.room_bytes_max });
            }
        }
        Ok(())
    }

    /// Everybody in one room; a socket id is a room, too.
    #[must_use]
    pub fn room(room: impl Into<String>) -> Self {
        Self { rooms: vec![room.into()], except: Vec::new() }
    }
}

/// The flags of a broadcast. Others that foreign senders set mean nothing beyond their own process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BroadcastFlags {
    /// Clients that are behind may miss it.
    pub volatile: bool,
    /// Whether the sender asked for compression, or for none.
    pub compress: Option<bool>,
    /// How long the sender waits for answers, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The sender waits for one answer, not for a list.
    pub expect_single_response: bool,
}

/// The options of a broadcast.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BroadcastOptions {
    /// Whom it is for.
    pub selector: Selector,
    /// How it is delivered.
    pub flags: BroadcastFlags,
}
