//! The WebSocket of one session: its stream, what was read of an unfinished frame, and what waits to be written.

use std::task::Waker;

use bytes::Bytes;
use engineio_proto::{PacketType, TransportKind, WirePacket};
use tokio::net::TcpStream;
use websocket_proto::close::CloseCode;
use websocket_proto::decoder::Decoder;

use super::ending::Farewell;
use super::registry::{Carrier, SessionKey, Sessions};
use crate::outbox::queue::FrameQueue;
use crate::outbox::slow_consumer::{self, Verdict};
use crate::outbox::wire::write_frame;

/// Names a link within its shard, so that the task that serves it notices when it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(pub(crate) u32);

/// One WebSocket.
#[derive(Debug)]
pub struct Link {
    pub(crate) id: LinkId,
    pub(crate) stream: TcpStream,
    pub(crate) decoder: Decoder,
    pub(crate) queue: FrameQueue,
    task: Task,
}

/// The task that serves a link. It is woken when the link goes, whichever way it goes, so that it ends too.
#[derive(Debug, Default)]
struct Task(Option<Waker>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(waker) = &self.0 {
            waker.wake_by_ref();
        }
    }
}

impl Link {
    pub(crate) fn new(id: LinkId, stream: TcpStream) -> Link {
        Link { id, stream, decoder: Decoder::new(), queue: FrameQueue::default(), task: Task::default() }
    }

    /// Remembers the task that serves this link.
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        if !self.task.0.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.task.0 = Some(waker.clone());
        }
    }

    /// Tells the link's task that there is something to do: to write, to read on, or to end.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.task.0 {
            waker.wake_by_ref();
        }
    }
}

/// A WebSocket whose session has let go of it: what is left to say goes out, then it is closed.
#[derive(Debug)]
pub struct Parting {
    /// The stream.
    pub stream: TcpStream,
    /// Frames that still go out, the close frame last.
    pub frames: Vec<Bytes>,
}

impl<S> Sessions<S> {
    /// The session's link with this id: its transport or its candidate.
    pub(crate) fn link_mut(&mut self, key: SessionKey, id: LinkId) -> Option<&mut Link> {
        let session = self.get_mut(key)?;
        if let Carrier::WebSocket(link) = &mut session.carrier
            && link.id == id
        {
            return Some(link);
        }
        session.candidate.as_deref_mut().filter(|link| link.id == id)
    }

    /// The id of the session's current link.
    pub(crate) fn link_id(&self, key: SessionKey) -> Option<LinkId> {
        match &self.get(key)?.carrier {
            Carrier::WebSocket(link) => Some(link.id),
            Carrier::Polling(_) | Carrier::Gone => None,
        }
    }

    /// Gives a polling session a WebSocket that may take over.
    ///
    /// # Errors
    /// Gives the stream back when the session is gone.
    pub(crate) fn set_candidate(&mut self, key: SessionKey, stream: TcpStream) -> Result<LinkId, TcpStream> {
        let id = self.next_link_id();
        let Some(session) = self.get_mut(key) else { return Err(stream) };
        session.candidate = Some(Box::new(Link::new(id, stream)));
        Ok(id)
    }

    /// The candidate takes over; what waited for a poll goes out on it.
    pub(crate) fn complete_upgrade(&mut self, key: SessionKey) {
        let now = self.now;
        let Some(session) = self.get_mut(key) else { return };
        let Some(mut link) = session.candidate.take() else { return };
        let (version, base64) = (session.machine.version(), session.base64);
        let before = session.backlog(now).bytes;
        let mut failed = None;
        if let Carrier::Polling(polling) = &mut session.carrier {
            if let Some(parked) = polling.parked.take() {
                let _ = parked.reply.send(vec![WirePacket::control(PacketType::Close)]);
            }
            for group in polling.queue.take_all() {
                let mut frames = Vec::new();
                for packet in &group {
                    write_frame(packet, version, base64, &mut frames);
                }
                link.queue.push(Bytes::from(frames), now);
            }
            failed = link.queue.flush(&link.stream, now).err();
            link.wake();
        }
        session.carrier = Carrier::WebSocket(*link);
        let after = session.backlog(now).bytes;
        self.count_outbox(before, after);
        self.metrics.sessions.sub(TransportKind::Polling, 1);
        self.metrics.sessions.add(TransportKind::WebSocket, 1);
        self.metrics.upgrades.add(1);
        if let Some(error) = failed {
            self.stream_failed(key, &error);
        }
    }

    /// The candidate did not make it; polling lives on.
    pub(crate) fn drop_candidate(&mut self, key: SessionKey, code: Option<CloseCode>) {
        let Some(session) = self.get_mut(key) else { return };
        if let Some(link) = session.candidate.take() {
            self.part(*link, Farewell::Discard(code));
        }
    }

    /// Queues a finished frame on a link, outside the packet order of its session (pongs).
    pub(crate) fn send_frame(&mut self, key: SessionKey, id: LinkId, frame: &[u8]) {
        let now = self.now;
        let Some((before, true)) = self.may_send(key, frame.len(), false) else { return };
        let Some(session) = self.get_mut(key) else { return };
        let is_carrier = matches!(&session.carrier, Carrier::WebSocket(link) if link.id == id);
        let slow = self.settings.slow;
        let Some(link) = self.link_mut(key, id) else { return };
        if slow_consumer::decide(link.queue.backlog(now), frame.len(), false, &slow) == Verdict::Close {
            self.drop_candidate(key, Some(CloseCode::TRY_AGAIN_LATER));
            self.candidate_lost(key);
            return;
        }
        let outcome = link.queue.send(&link.stream, frame, now);
        let after = link.queue.bytes();
        if is_carrier {
            self.settle_write(key, before, after, outcome);
        } else if outcome.is_err() {
            self.candidate_lost(key);
        }
    }

    /// A candidate's stream failed or ended.
    pub(crate) fn candidate_lost(&mut self, key: SessionKey) {
        if let Some(session) = self.get_mut(key) {
            session.candidate = None;
            session.machine.handle_upgrade_closed();
            self.arm(key);
        }
    }
}
