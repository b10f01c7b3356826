//! The polling side of one session: the parked GET, the POST being read, and packets for the next poll.

use engineio_proto::WirePacket;
use tokio::sync::oneshot;

use crate::outbox::queue::PacketQueue;

/// Polling as the transport of a session.
#[derive(Debug, Default)]
pub struct Polling {
    /// The GET that waits for packets, if one does.
    pub(crate) parked: Option<Parked>,
    /// A POST body is being read.
    pub(crate) posting: bool,
    /// Packets for the next poll.
    pub(crate) queue: PacketQueue,
    /// Polls parked so far: names the parked one.
    pub(crate) polls: u32,
}

/// A GET that waits.
#[derive(Debug)]
pub struct Parked {
    pub(crate) reply: oneshot::Sender<Vec<WirePacket>>,
}

/// How a GET is answered.
#[derive(Debug)]
pub enum Poll {
    /// With these packets.
    Packets(Vec<WirePacket>),
    /// With what arrives here later. The number names the poll for [`super::drive::Core::poll_abandoned`].
    Parked(oneshot::Receiver<Vec<WirePacket>>, u32),
    /// Not: another GET is pending. The session is closed.
    Overlap,
}
