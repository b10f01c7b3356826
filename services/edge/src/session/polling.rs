//! The polling side of one session: the parked GET, the POST being read, and packets for the next poll.

use engineio_proto::session::CloseReason;
use engineio_proto::{PacketType, WirePacket};
use tokio::sync::oneshot;

use super::ending::Farewell;
use super::registry::{Carrier, SessionKey, Sessions};
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

impl<S> Sessions<S> {
    /// A GET came: its packets, or a place to wait for them.
    pub(crate) fn poll(&mut self, key: SessionKey) -> Option<Poll> {
        let (now, packets_max) = (self.now, self.settings.poll_packets_max);
        let session = self.get_mut(key)?;
        let before = session.backlog(now).bytes;
        let Carrier::Polling(polling) = &mut session.carrier else { return None };
        if session.ended {
            let mut packets = polling.queue.take(usize::MAX, now);
            if packets.is_empty() {
                packets.push(WirePacket::control(PacketType::Noop));
            }
            packets.push(WirePacket::control(PacketType::Close));
            session.carrier = Carrier::Gone;
            self.count_outbox(before, 0);
            self.release(key);
            return Some(Poll::Packets(packets));
        }
        if polling.parked.is_some() {
            self.close(key, CloseReason::TransportError, Farewell::Discard(None));
            return Some(Poll::Overlap);
        }
        if !polling.queue.is_empty() {
            let packets = polling.queue.take(packets_max, now);
            let after = polling.queue.bytes();
            self.count_outbox(before, after);
            return Some(Poll::Packets(packets));
        }
        let (reply, answer) = oneshot::channel();
        polling.polls = polling.polls.wrapping_add(1);
        polling.parked = Some(Parked { reply });
        Some(Poll::Parked(answer, polling.polls))
    }

    /// The client of a parked GET has gone. Whether that poll was still the parked one.
    pub(crate) fn poll_abandoned(&mut self, key: SessionKey, poll: u32) -> bool {
        let Some(session) = self.get_mut(key) else { return false };
        let Carrier::Polling(polling) = &mut session.carrier else { return false };
        polling.polls == poll && {
            // Answered or not: if its client has not taken the answer, the packets in it are lost.
            polling.parked = None;
            true
        }
    }

    /// Takes up to `packets_max` packets that wait.
    pub(crate) fn take_packets(&mut self, key: SessionKey, packets_max: usize) -> Vec<WirePacket> {
        let now = self.now;
        let Some(session) = self.get_mut(key) else { return Vec::new() };
        let before = session.backlog(now).bytes;
        let Carrier::Polling(polling) = &mut session.carrier else { return Vec::new() };
        let packets = polling.queue.take(packets_max, now);
        let after = polling.queue.bytes();
        self.count_outbox(before, after);
        packets
    }

    /// Marks that a POST body is being read; `false` if one already is.
    pub(crate) fn begin_post(&mut self, key: SessionKey) -> bool {
        match self.get_mut(key).map(|session| &mut session.carrier) {
            Some(Carrier::Polling(polling)) => !std::mem::replace(&mut polling.posting, true),
            Some(Carrier::WebSocket(_) | Carrier::Gone) | None => false,
        }
    }

    /// A POST body has been read, or will not come. Whether it was still awaited.
    pub(crate) fn end_post(&mut self, key: SessionKey) -> bool {
        match self.get_mut(key).map(|session| &mut session.carrier) {
            Some(Carrier::Polling(polling)) => std::mem::replace(&mut polling.posting, false),
            Some(Carrier::WebSocket(_) | Carrier::Gone) | None => false,
        }
    }
}
