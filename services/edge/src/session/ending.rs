//! How sessions end, and what their clients and applications are told.
//!
//! A session that ends keeps its slot until its application has had its last call and, when its client must learn
//! of the end by a poll, until that poll came.

use std::time::Duration;

use bytes::Bytes;
use engineio_proto::session::CloseReason;
use engineio_proto::{PacketType, WirePacket};
use websocket_proto::close::CloseCode;
use websocket_proto::encoder;

use super::link::{Link, LinkId, Parting};
use super::registry::{Carrier, SessionKey, Sessions};
use crate::outbox::queue::PacketQueue;

/// How long a session that we closed waits for the poll that tells its client (the reference waits as long).
const FAREWELL_POLL: Duration = Duration::from_secs(30);

/// Bytes that are still delivered to a client whose session has ended; more is dropped.
const FAREWELL_BYTES_MAX: usize = 64 * 1024;

/// How the client of a session that ends is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Not at all: its transport is gone.
    None,
    /// What waits for it is still delivered if it is not much, then it is closed without a code.
    Flush,
    /// What waits for it is dropped, then it is closed with this code, or none.
    Discard(Option<CloseCode>),
}

impl<S> Sessions<S> {
    /// Ends a session; the application hears of it in its turn. Ending it twice does nothing.
    pub fn close(&mut self, key: SessionKey, reason: CloseReason, farewell: Farewell) {
        let now = self.now;
        let Some(session) = self.get_mut(key) else { return };
        if std::mem::replace(&mut session.ended, true) {
            return;
        }
        session.machine.handle_close(reason);
        session.app_deadline = None;
        let before = session.backlog(now).bytes;
        let candidate = session.candidate.take();
        let held = std::mem::take(&mut session.held) as usize;
        let mut after = 0;
        match (std::mem::replace(&mut session.carrier, Carrier::Gone), farewell) {
            (Carrier::WebSocket(_) | Carrier::Gone, Farewell::None) | (Carrier::Gone, _) => {}
            (Carrier::WebSocket(link), _) => {
                link.wake();
                self.part(link, farewell);
            }
            (Carrier::Polling(mut polling), _) => match (polling.parked.take(), farewell) {
                (Some(parked), Farewell::None) => {
                    // The client itself said goodbye: its poll only has to end.
                    let _ = parked.reply.send(vec![WirePacket::control(PacketType::Noop)]);
                }
                (Some(parked), Farewell::Flush | Farewell::Discard(_)) => {
                    let mut packets = polling.queue.take(usize::MAX, now);
                    packets.push(WirePacket::control(PacketType::Close));
                    let _ = parked.reply.send(packets);
                }
                (None, Farewell::Flush) => {
                    // The client learns of it by its next poll.
                    if polling.queue.bytes() > FAREWELL_BYTES_MAX {
                        polling.queue = PacketQueue::default();
                    }
                    after = polling.queue.bytes();
                    session.carrier = Carrier::Polling(polling);
                    session.app_deadline = Some(now + FAREWELL_POLL);
                }
                (None, Farewell::None | Farewell::Discard(_)) => {}
            },
        }
        if let Some(link) = candidate {
            link.wake();
            self.part(*link, Farewell::Discard(None));
        }
        self.count_outbox(before, after);
        self.held_bytes = self.held_bytes.saturating_sub(held);
        self.metrics.held_bytes.set(self.held_bytes as u64);
        self.metrics.sessions_closed.add(reason, 1);
        self.ended.push_back((key, reason));
        self.arm(key);
    }

    /// Lets go of a link: what is left to say is handed to a task that outlives the session.
    pub(super) fn part(&mut self, mut link: Link, farewell: Farewell) {
        let close = |code| Bytes::from(encoder::close_frame(code, ""));
        let frames = match farewell {
            Farewell::None => return,
            // A frame that is half written is finished, or the close frame would not be understood.
            Farewell::Flush if link.queue.bytes() > FAREWELL_BYTES_MAX => {
                link.queue.take_started().into_iter().chain([close(None)]).collect()
            }
            Farewell::Flush => link.queue.take_frames().chain([close(None)]).collect(),
            Farewell::Discard(code) => link.queue.take_started().into_iter().chain([close(code)]).collect(),
        };
        self.parting.push(Parting { stream: link.stream, frames });
    }

    /// Ends a session whose client closed its WebSocket: the close frame is answered with the same code.
    pub(crate) fn close_answered(&mut self, key: SessionKey, id: LinkId, answer: Bytes) {
        let now = self.now;
        if self.link_id(key) == Some(id) {
            let Some(session) = self.get_mut(key) else { return };
            let before = session.backlog(now).bytes;
            let carrier = std::mem::replace(&mut session.carrier, Carrier::Gone);
            if let Carrier::WebSocket(mut link) = carrier {
                let frames = link.queue.take_started().into_iter().chain([answer]).collect();
                self.parting.push(Parting { stream: link.stream, frames });
            }
            self.count_outbox(before, 0);
            self.close(key, CloseReason::TransportClose, Farewell::None);
        } else if let Some(session) = self.get_mut(key)
            && let Some(link) = session.candidate.take()
        {
            self.parting.push(Parting { stream: link.stream, frames: vec![answer] });
            self.candidate_lost(key);
        }
    }

    /// Streams to see off since the last call.
    pub(crate) fn take_parting(&mut self) -> Vec<Parting> {
        std::mem::take(&mut self.parting)
    }

    /// The next ended session that its application has not heard of.
    pub(crate) fn pop_ended(&mut self) -> Option<(SessionKey, CloseReason)> {
        self.ended.pop_front()
    }

    /// Gives up on telling the client of an ended session by a poll.
    pub(super) fn forget_farewell(&mut self, key: SessionKey) {
        let now = self.now;
        let Some(session) = self.get_mut(key) else { return };
        let before = session.backlog(now).bytes;
        session.carrier = Carrier::Gone;
        self.count_outbox(before, 0);
        self.release(key);
    }

    /// Takes the application's state of an ended session, for its last call.
    pub(crate) fn take_state(&mut self, key: SessionKey) -> Option<S> {
        self.get_mut(key)?.state.take()
    }

    /// Frees the slot of a session that has ended, whose application knows, and whose client knows.
    pub(crate) fn release(&mut self, key: SessionKey) {
        let Some(session) = self.get(key) else { return };
        if session.ended && session.state.is_none() && matches!(session.carrier, Carrier::Gone) {
            let (id, transport) = (session.id, session.machine.transport());
            // Counted until now: a session that waits for its last poll takes a place like any other.
            self.metrics.sessions.sub(transport, 1);
            self.slots.remove(key.index as usize);
            self.by_id.remove(&id);
            if self.slots.is_empty() {
                self.slots.shrink_to_fit();
                self.by_id.shrink_to_fit();
            }
        }
    }
}
