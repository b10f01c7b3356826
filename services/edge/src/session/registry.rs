//! The table of a shard's sessions: finding them, sending to them, ending them.
//!
//! A session is one slot. Its key carries a generation, so that a key kept too long finds nothing rather than
//! a stranger. The shard alone touches this table; nothing here is shared or locked.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engineio_proto as eio;
use engineio_proto::session::{CloseReason, SessionConfig};
use engineio_proto::{PacketType, TransportKind, WirePacket};
use hashbrown::HashMap;
use slab::Slab;
use smallvec::smallvec;
use tokio::net::TcpStream;
use websocket_proto::close::CloseCode;
use websocket_proto::encoder;

use super::link::{Link, LinkId, Parting};
use super::polling::{Parked, Poll, Polling};
use super::timers::TimerRing;
use crate::ids::{IdSource, SessionId};
use crate::metrics::ShardMetrics;
use crate::outbox::queue::Written;
use crate::outbox::slow_consumer::{self, Backlog, Verdict};
use crate::outbox::wire::{TextScratch, Wire, write_frame};

/// How long a session that we closed waits for the poll that tells its client (the reference waits as long).
const FAREWELL_POLL: Duration = Duration::from_secs(30);

/// What all sessions of a shard have in common.
#[derive(Debug)]
pub struct Settings {
    /// Heartbeat and upgrade times.
    pub machine: SessionConfig,
    /// `edge.payload_bytes_max`.
    pub payload_bytes_max: usize,
    /// `edge.poll_packets_max`.
    pub poll_packets_max: usize,
    /// The slow-consumer limits.
    pub slow: slow_consumer::Limits,
    /// `edge.limits.outbox_shared_bytes_max`.
    pub outbox_bytes_max: usize,
    /// `edge.limits.inbound_partial_bytes_max`.
    pub held_bytes_max: usize,
}

/// Finds a session; outlives it without harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    index: u32,
    generation: u32,
}

/// How the client of a session that ends is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Not at all: its transport is gone.
    None,
    /// What waits for it is still delivered, then it is closed without a code.
    Flush,
    /// What waits for it is dropped, then it is closed with this code, or none.
    Discard(Option<CloseCode>),
}

/// How a session's packets travel now.
#[derive(Debug)]
pub(crate) enum Carrier {
    Polling(Box<Polling>),
    WebSocket(Link),
    Gone,
}

/// One session.
#[derive(Debug)]
pub struct Session<S> {
    generation: u32,
    armed_tick: u64,
    id: SessionId,
    pub(crate) machine: eio::Session,
    pub(crate) carrier: Carrier,
    /// A WebSocket that may take over from polling.
    pub(crate) candidate: Option<Box<Link>>,
    /// What the application keeps; taken when it is told that the session has ended.
    pub(crate) state: Option<S>,
    app_deadline: Option<Instant>,
    address: IpAddr,
    base64: bool,
    ended: bool,
    paused: bool,
    held: u32,
}

impl<S> Session<S> {
    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The Engine.IO version.
    pub fn version(&self) -> eio::ProtocolVersion {
        self.machine.version()
    }

    /// Whether the client asked for base64 in place of binary.
    pub fn base64(&self) -> bool {
        self.base64
    }

    /// The client's address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether the session has ended; its application may still be about to hear of it.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// What the application keeps with the session.
    pub fn state(&self) -> Option<&S> {
        self.state.as_ref()
    }

    /// As [`Session::state`].
    pub fn state_mut(&mut self) -> Option<&mut S> {
        self.state.as_mut()
    }

    fn backlog(&self, now: Instant) -> Backlog {
        match &self.carrier {
            Carrier::Polling(polling) => polling.queue.backlog(now),
            Carrier::WebSocket(link) => link.queue.backlog(now),
            Carrier::Gone => Backlog { bytes: 0, stalled_for: Duration::ZERO },
        }
    }

    fn progress_at(&self) -> Option<Instant> {
        match &self.carrier {
            Carrier::Polling(polling) => polling.queue.progress_at(),
            Carrier::WebSocket(link) => link.queue.progress_at(),
            Carrier::Gone => None,
        }
    }
}

/// How a new session's client is connected.
#[derive(Debug)]
pub enum Opening {
    /// By a polling handshake.
    Polling,
    /// By a WebSocket.
    WebSocket(TcpStream),
}

/// The sessions of one shard.
#[derive(Debug)]
pub struct Sessions<S> {
    slots: Slab<Session<S>>,
    by_id: HashMap<SessionId, SessionKey>,
    next_generation: u32,
    next_link: u32,
    ids: IdSource,
    timers: TimerRing<SessionKey>,
    settings: Rc<Settings>,
    metrics: Arc<ShardMetrics>,
    scratch: TextScratch,
    outbox_bytes: usize,
    held_bytes: usize,
    now: Instant,
    ended: VecDeque<(SessionKey, CloseReason)>,
    parting: Vec<Parting>,
}

impl<S> Sessions<S> {
    /// An empty table.
    pub fn new(settings: Rc<Settings>, ids: IdSource, metrics: Arc<ShardMetrics>, now: Instant) -> Sessions<S> {
        Sessions {
            slots: Slab::new(),
            by_id: HashMap::new(),
            next_generation: 0,
            next_link: 0,
            ids,
            timers: TimerRing::new(now),
            settings,
            metrics,
            scratch: TextScratch::default(),
            outbox_bytes: 0,
            held_bytes: 0,
            now,
            ended: VecDeque::new(),
            parting: Vec::new(),
        }
    }

    /// The time of the current turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Counters of this shard.
    pub fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    /// What all sessions have in common.
    pub fn settings(&self) -> &Rc<Settings> {
        &self.settings
    }

    /// Makes ids.
    pub fn ids(&mut self) -> &mut IdSource {
        &mut self.ids
    }

    /// The session behind a key, ended or not.
    pub fn get(&self, key: SessionKey) -> Option<&Session<S>> {
        self.slots.get(key.index as usize).filter(|session| session.generation == key.generation)
    }

    /// As [`Sessions::get`].
    pub fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session<S>> {
        self.slots.get_mut(key.index as usize).filter(|session| session.generation == key.generation)
    }

    /// The session with this id.
    pub fn find(&self, id: SessionId) -> Option<SessionKey> {
        self.by_id.get(&id).copied()
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All sessions, for a shard that closes.
    pub fn keys(&self) -> Vec<SessionKey> {
        self.slots
            .iter()
            .filter_map(|(index, session)| {
                let index = u32::try_from(index).ok()?;
                Some(SessionKey { index, generation: session.generation })
            })
            .collect()
    }

    /// Adds a session. The caller sends the open packet.
    pub(crate) fn insert(
        &mut self,
        id: SessionId,
        version: eio::ProtocolVersion,
        opening: Opening,
        address: IpAddr,
        base64: bool,
        state: S,
    ) -> Option<SessionKey> {
        let transport = match &opening {
            Opening::Polling => TransportKind::Polling,
            Opening::WebSocket(_) => TransportKind::WebSocket,
        };
        let machine = eio::Session::new(version, transport, self.now, &self.settings.machine);
        let carrier = match opening {
            Opening::Polling => Carrier::Polling(Box::default()),
            Opening::WebSocket(stream) => Carrier::WebSocket(Link::new(self.next_link_id(), stream)),
        };
        let index = u32::try_from(self.slots.vacant_key()).ok()?;
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let key = SessionKey { index, generation };
        self.slots.insert(Session {
            generation,
            armed_tick: u64::MAX,
            id,
            machine,
            carrier,
            candidate: None,
            state: Some(state),
            app_deadline: None,
            address,
            base64,
            ended: false,
            paused: false,
            held: 0,
        });
        self.by_id.insert(id, key);
        self.metrics.sessions_opened.add(transport, 1);
        self.metrics.sessions.add(transport, 1);
        self.arm(key);
        Some(key)
    }

    fn next_link_id(&mut self) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link = self.next_link.wrapping_add(1);
        id
    }

    // ---- links ----

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

    // ---- sending ----

    /// Sends one text packet, written by `write` after its message type digit. Nothing is allocated unless the
    /// packet has to wait.
    pub fn send_text(&mut self, key: SessionKey, volatile: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let mut scratch = std::mem::take(&mut self.scratch);
        write(scratch.start());
        self.send_scratch(key, volatile, &mut scratch);
        scratch.trim();
        self.scratch = scratch;
    }

    fn send_scratch(&mut self, key: SessionKey, volatile: bool, scratch: &mut TextScratch) {
        let Some((before, true)) = self.may_send(key, scratch.packet().len(), volatile) else { return };
        let now = self.now;
        let Some(session) = self.get_mut(key) else { return };
        match &mut session.carrier {
            Carrier::WebSocket(link) => {
                let outcome = link.queue.send(&link.stream, scratch.frame(), now);
                let after = link.queue.bytes();
                self.settle_write(key, before, after, outcome);
            }
            Carrier::Polling(polling) => {
                polling.queue.push(
                    smallvec![WirePacket::Text(Bytes::copy_from_slice(scratch.packet()))],
                    now,
                );
                self.settle_queue(key, before);
            }
            Carrier::Gone => {}
        }
        self.metrics.packets_sent.add(1);
    }

    /// Sends one packet that others may share.
    pub fn send_wire(&mut self, key: SessionKey, volatile: bool, wire: &Wire) {
        let Some((before, true)) = self.may_send(key, wire.bytes(), volatile) else { return };
        let now = self.now;
        let Some(session) = self.get_mut(key) else { return };
        match &mut session.carrier {
            Carrier::WebSocket(link) => {
                let outcome = link.queue.send_shared(&link.stream, wire.frames(), now);
                let after = link.queue.bytes();
                self.settle_write(key, before, after, outcome);
            }
            Carrier::Polling(polling) => {
                polling.queue.push(wire.packets().clone(), now);
                self.settle_queue(key, before);
            }
            Carrier::Gone => {}
        }
        self.metrics.packets_sent.add(1);
    }

    /// Sends several shared packets in one write.
    pub fn send_wires(&mut self, key: SessionKey, wires: &[&Wire]) {
        let now = self.now;
        let total = wires.iter().map(|wire| wire.bytes()).sum();
        let Some((before, true)) = self.may_send(key, total, false) else { return };
        let Some(session) = self.get_mut(key) else { return };
        match &mut session.carrier {
            Carrier::WebSocket(link) => {
                for wire in wires {
                    link.queue.push(wire.frames().clone(), now);
                }
                let outcome = link.queue.flush(&link.stream, now);
                let after = link.queue.bytes();
                self.settle_write(key, before, after, outcome);
            }
            Carrier::Polling(polling) => {
                for wire in wires {
                    polling.queue.push(wire.packets().clone(), now);
                }
                self.settle_queue(key, before);
            }
            Carrier::Gone => {}
        }
        self.metrics.packets_sent.add(wires.len() as u64);
    }

    /// Sends a control packet of the session's machine.
    pub(crate) fn send_control(&mut self, key: SessionKey, via: TransportKind, packet: WirePacket) {
        let now = self.now;
        let Some((before, true)) = self.may_send(key, packet.len(), false) else { return };
        let Some(session) = self.get_mut(key) else { return };
        let (version, base64) = (session.machine.version(), session.base64);
        match (&mut session.carrier, via) {
            (Carrier::Polling(polling), TransportKind::Polling) => {
                if packet == WirePacket::control(PacketType::Noop) {
                    // A noop only frees a waiting poll; a client without one does not miss it.
                    if let Some(parked) = polling.parked.take() {
                        let _ = parked.reply.send(vec![packet]);
                    }
                    return;
                }
                polling.queue.push(smallvec![packet], now);
                self.settle_queue(key, before);
            }
            (Carrier::WebSocket(link), TransportKind::WebSocket) => {
                let mut frame = Vec::with_capacity(16);
                write_frame(&packet, version, base64, &mut frame);
                let outcome = link.queue.send(&link.stream, &frame, now);
                let after = link.queue.bytes();
                self.settle_write(key, before, after, outcome);
            }
            (Carrier::Polling(_), TransportKind::WebSocket) => {
                let mut frame = Vec::with_capacity(16);
                write_frame(&packet, version, base64, &mut frame);
                if let Some(link) = session.candidate.as_deref_mut() {
                    match link.queue.send(&link.stream, &frame, now) {
                        Ok(Written::All) => {}
                        Ok(Written::Rest) => link.wake(),
                        Err(_) => self.candidate_lost(key),
                    }
                }
            }
            (Carrier::WebSocket(_) | Carrier::Gone, _) => {}
        }
    }

    /// Asks the slow-consumer policy; `None` if the session is gone, `false` if the packet is not to be sent.
    fn may_send(&mut self, key: SessionKey, packet_bytes: usize, volatile: bool) -> Option<(usize, bool)> {
        let (now, slow) = (self.now, self.settings.slow);
        let session = self.get(key)?;
        if session.ended {
            return None;
        }
        let backlog = session.backlog(now);
        match slow_consumer::decide(backlog, packet_bytes, volatile, &slow) {
            Verdict::Keep => Some((backlog.bytes, true)),
            Verdict::DropVolatile => {
                self.metrics.volatile_dropped.add(1);
                Some((backlog.bytes, false))
            }
            Verdict::Close => {
                self.close_slow(key);
                None
            }
        }
    }

    fn close_slow(&mut self, key: SessionKey) {
        self.metrics.slow_consumers_closed.add(1);
        self.close(key, CloseReason::TransportError, Farewell::Discard(Some(CloseCode::TRY_AGAIN_LATER)));
    }

    /// Books a write and asks the link's task for help when the stream did not take everything.
    fn settle_write(&mut self, key: SessionKey, before: usize, after: usize, outcome: io::Result<Written>) {
        match outcome {
            Ok(Written::All) if before == 0 => {}
            Ok(Written::All) => self.count_outbox(before, after),
            Ok(Written::Rest) => {
                self.count_outbox(before, after);
                if let Some(Session { carrier: Carrier::WebSocket(link), .. }) = self.get(key) {
                    link.wake();
                }
                self.backlog_grew(key, after);
            }
            Err(error) => {
                self.count_outbox(before, after);
                self.stream_failed(key, &error);
            }
        }
    }

    /// Books packets queued for polling and answers the parked poll with them.
    fn settle_queue(&mut self, key: SessionKey, before: usize) {
        self.answer_parked(key);
        let now = self.now;
        let after = self.get(key).map(|session| session.backlog(now).bytes).unwrap_or_default();
        self.count_outbox(before, after);
        if after > 0 {
            self.backlog_grew(key, after);
        }
    }

    fn answer_parked(&mut self, key: SessionKey) {
        let (now, packets_max) = (self.now, self.settings.poll_packets_max);
        let Some(session) = self.get_mut(key) else { return };
        let Carrier::Polling(polling) = &mut session.carrier else { return };
        if polling.queue.is_empty() {
            return;
        }
        if let Some(parked) = polling.parked.take() {
            // A reply that nobody waits for belongs to a client that has gone: its poll says so.
            let _ = parked.reply.send(polling.queue.take(packets_max, now));
        }
    }

    fn backlog_grew(&mut self, key: SessionKey, bytes: usize) {
        if bytes > self.settings.slow.stalled_bytes_max {
            self.arm(key);
        }
        if self.outbox_bytes > self.settings.outbox_bytes_max {
            self.close_largest_outbox();
        }
    }

    /// The shard holds too much for slow clients: the one that holds most goes.
    fn close_largest_outbox(&mut self) {
        let now = self.now;
        let largest = self
            .slots
            .iter()
            .filter(|(_, session)| !session.ended)
            .max_by_key(|(_, session)| session.backlog(now).bytes)
            .and_then(|(index, session)| {
                Some(SessionKey { index: u32::try_from(index).ok()?, generation: session.generation })
            });
        if let Some(key) = largest {
            self.close_slow(key);
        }
    }

    fn count_outbox(&mut self, before: usize, after: usize) {
        self.outbox_bytes = (self.outbox_bytes + after).saturating_sub(before);
        self.metrics.outbox_bytes.set(self.outbox_bytes as u64);
    }

    /// Writes what waits on a link. `None` when the link is gone; otherwise whether something still waits.
    pub(crate) fn flush_link(&mut self, key: SessionKey, id: LinkId) -> Option<Written> {
        let now = self.now;
        let link = self.link_mut(key, id)?;
        let before = link.queue.bytes();
        let outcome = link.queue.flush(&link.stream, now);
        let after = link.queue.bytes();
        let is_carrier = self.link_id(key) == Some(id);
        if is_carrier {
            self.count_outbox(before, after);
        }
        match outcome {
            Ok(written) => Some(written),
            Err(error) => {
                if is_carrier {
                    self.stream_failed(key, &error);
                } else {
                    self.candidate_lost(key);
                }
                None
            }
        }
    }

    fn stream_failed(&mut self, key: SessionKey, _error: &io::Error) {
        self.close(key, CloseReason::TransportError, Farewell::None);
    }

    // ---- polling ----

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
        let (reply, answer) = tokio::sync::oneshot::channel();
        polling.polls = polling.polls.wrapping_add(1);
        polling.parked = Some(Parked { reply });
        Some(Poll::Parked(answer, polling.polls))
    }

    /// The client of a parked GET has gone. Whether that poll was still the parked one.
    pub(crate) fn poll_abandoned(&mut self, key: SessionKey, poll: u32) -> bool {
        let Some(session) = self.get_mut(key) else { return false };
        let Carrier::Polling(polling) = &mut session.carrier else { return false };
        polling.polls == poll && polling.parked.take().is_some()
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

    /// Queues the open packet, before anything else.
    pub(crate) fn send_open(&mut self, key: SessionKey, packet: &str) {
        let now = self.now;
        let Some(session) = self.get_mut(key) else { return };
        match &mut session.carrier {
            Carrier::Polling(polling) => {
                polling.queue.push(smallvec![WirePacket::Text(Bytes::copy_from_slice(packet.as_bytes()))], now);
                let after = polling.queue.bytes();
                self.count_outbox(0, after);
            }
            Carrier::WebSocket(link) => {
                let mut frame = Vec::with_capacity(packet.len() + 4);
                encoder::write_frame(encoder::Opcode::Text, packet.as_bytes(), &mut frame);
                let outcome = link.queue.send(&link.stream, &frame, now);
                let after = link.queue.bytes();
                self.settle_write(key, 0, after, outcome);
            }
            Carrier::Gone => {}
        }
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

    // ---- incomplete input ----

    /// Books the bytes that a session keeps for an incomplete frame, message or packet.
    pub(crate) fn set_held(&mut self, key: SessionKey, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Some(session) = self.get_mut(key) else { return };
        let before = std::mem::replace(&mut session.held, bytes);
        if before == bytes {
            return;
        }
        self.held_bytes = (self.held_bytes + bytes as usize).saturating_sub(before as usize);
        self.metrics.held_bytes.set(self.held_bytes as u64);
        if self.held_bytes > self.settings.held_bytes_max {
            self.close_largest_holder();
        }
    }

    fn close_largest_holder(&mut self) {
        let largest = self
            .slots
            .iter()
            .filter(|(_, session)| !session.ended)
            .max_by_key(|(_, session)| session.held)
            .and_then(|(index, session)| {
                Some(SessionKey { index: u32::try_from(index).ok()?, generation: session.generation })
            });
        if let Some(key) = largest {
            self.metrics.limit_hits.add(1);
            self.close(key, CloseReason::TransportError, Farewell::Discard(Some(CloseCode::TRY_AGAIN_LATER)));
        }
    }

    // ---- pausing ----

    /// Stops or resumes reading from a session's WebSocket.
    pub fn pause(&mut self, key: SessionKey, paused: bool) {
        if let Some(session) = self.get_mut(key) {
            session.paused = paused;
            if !paused && let Carrier::WebSocket(link) = &session.carrier {
                link.wake();
            }
        }
    }

    /// Whether nothing is read from this session for now.
    pub(crate) fn is_paused(&self, key: SessionKey) -> bool {
        self.get(key).is_some_and(|session| session.paused)
    }

    // ---- ending ----

    /// Ends a session; the application hears of it in its turn. Ending it twice does nothing.
    pub fn close(&mut self, key: SessionKey, reason: CloseReason, farewell: Farewell) {
        let now = self.now;
        let Some(session) = self.get_mut(key) else { return };
        if std::mem::replace(&mut session.ended, true) {
            return;
        }
        let transport = session.machine.transport();
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
        self.metrics.sessions.sub(transport, 1);
        self.metrics.sessions_closed.add(reason, 1);
        self.ended.push_back((key, reason));
        self.arm(key);
    }

    /// Lets go of a link: what is left to say is handed to a task that outlives the session.
    fn part(&mut self, mut link: Link, farewell: Farewell) {
        let close = |code| Bytes::from(encoder::close_frame(code, ""));
        let frames = match farewell {
            Farewell::None => return,
            Farewell::Flush => link.queue.take_frames().chain([close(None)]).collect(),
            // A frame that is half written is finished, or the close frame would not be understood.
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

    /// Takes the application's state of an ended session, for its last call.
    pub(crate) fn take_state(&mut self, key: SessionKey) -> Option<S> {
        self.get_mut(key)?.state.take()
    }

    /// Frees the slot of a session that has ended, whose application knows, and whose client knows.
    pub(crate) fn release(&mut self, key: SessionKey) {
        let Some(session) = self.get(key) else { return };
        if session.ended && session.state.is_none() && matches!(session.carrier, Carrier::Gone) {
            let id = session.id;
            self.slots.remove(key.index as usize);
            self.by_id.remove(&id);
            if self.slots.is_empty() {
                self.slots.shrink_to_fit();
                self.by_id.shrink_to_fit();
            }
        }
    }

    // ---- deadlines ----

    /// Sets the application's own deadline for a session.
    pub fn set_deadline(&mut self, key: SessionKey, deadline: Option<Instant>) {
        if let Some(session) = self.get_mut(key) {
            session.app_deadline = deadline;
            self.arm(key);
        }
    }

    /// Makes sure that the shard's tick looks at this session by its next deadline.
    pub(crate) fn arm(&mut self, key: SessionKey) {
        let stalled_bytes_max = self.settings.slow.stalled_bytes_max;
        let stalled_max = self.settings.slow.stalled_max;
        let now = self.now;
        let Some(session) = self.get(key) else { return };
        let stalled = (session.backlog(now).bytes > stalled_bytes_max)
            .then(|| session.progress_at().map(|at| at + stalled_max))
            .flatten();
        let machine = if session.ended { None } else { session.machine.poll_timeout() };
        let Some(deadline) = [machine, session.app_deadline, stalled].into_iter().flatten().min() else { return };
        let tick = self.timers.tick_of(deadline);
        if tick < session.armed_tick {
            self.timers.insert(tick, key);
            if let Some(session) = self.get_mut(key) {
                session.armed_tick = tick;
            }
        }
    }

    /// The sessions that the tick has to look at, tick by tick; call until `None`.
    pub(crate) fn pop_due(&mut self) -> Option<(u64, Vec<SessionKey>)> {
        self.timers.pop_due(self.now)
    }

    pub(crate) fn recycle(&mut self, tick: u64, entries: Vec<SessionKey>) {
        self.timers.recycle(tick, entries);
    }

    /// What is due for a session at this tick; the caller arms it again afterwards.
    pub(crate) fn due(&mut self, key: SessionKey, tick: u64) -> Due {
        let (now, slow) = (self.now, self.settings.slow);
        let Some(session) = self.get_mut(key) else { return Due::default() };
        if session.armed_tick != tick {
            return Due::default();
        }
        session.armed_tick = u64::MAX;
        if session.ended {
            if session.app_deadline.is_some_and(|at| at <= now) {
                let before = session.backlog(now).bytes;
                session.carrier = Carrier::Gone;
                self.count_outbox(before, 0);
                self.release(key);
            }
            return Due { session: self.get(key).is_some(), ..Due::default() };
        }
        let machine = session.machine.poll_timeout().is_some_and(|at| at <= now);
        let app = session.app_deadline.is_some_and(|at| at <= now);
        if app {
            session.app_deadline = None;
        }
        if slow_consumer::is_stalled(session.backlog(now), &slow) {
            self.close_slow(key);
            return Due { session: true, ..Due::default() };
        }
        Due { session: true, machine, app }
    }
}

/// What a tick found for one session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Due {
    /// The session is there and was waiting for this tick.
    pub(crate) session: bool,
    /// A deadline of its protocol machine is over.
    pub(crate) machine: bool,
    /// The application's deadline is over.
    pub(crate) app: bool,
}
