//! What everybody has done and heard, with the time of one clock in microseconds.

use std::time::Instant;

/// The clock of a game.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).expect("not so long")
    }
}

/// Whom a message is for, within the namespace of its publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Everybody,
    /// The members of any of these rooms, but for those of the others.
    Rooms {
        rooms: Vec<usize>,
        except: Vec<usize>,
    },
    /// These clients.
    Sockets(Vec<usize>),
}

/// A message.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// Just before it was sent.
    pub(super) at: u64,
    pub(super) target: Target,
    /// The client that is left out: the publisher itself.
    pub(super) without: Option<usize>,
}

/// A client or an application that publishes; its messages are numbered from 0, and the last is for everybody.
#[derive(Clone, Debug, Default)]
pub(super) struct Publisher {
    pub(super) namespace: usize,
    pub(super) sent: Vec<Sent>,
}

/// A join or leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) room: usize,
    pub(super) joins: bool,
    /// Just before it was asked for.
    pub(super) begun: u64,
    /// When it was known to be done.
    pub(super) done: u64,
}

/// A message that has arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) publisher: usize,
    pub(super) number: usize,
    pub(super) at: u64,
}

/// What one client has done and heard.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientRecord {
    /// For people: its kind and node.
    pub(super) name: String,
    pub(super) namespace: usize,
    /// One after the other.
    pub(super) changes: Vec<Change>,
    pub(super) received: Vec<Received>,
    /// Why it heard no more before the last messages had come.
    pub(super) broken: Option<String>,
}

/// A game.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) publishers: Vec<Publisher>,
    pub(super) clients: Vec<ClientRecord>,
}
