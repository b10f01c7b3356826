//! The table of a shard's sessions: finding them, sending to them, ending them.
//!
//! A session is one slot. Its key carries a generation, so that a key kept too long finds nothing rather than
//! a stranger. The shard alone touches this table; nothing here is shared or locked.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engineio_proto as eio;
use engineio_proto::TransportKind;
use engineio_proto::session::{CloseReason, SessionConfig};
use hashbrown::HashMap;
use slab::Slab;
use tokio::net::TcpStream;
use websocket_proto::close::CloseCode;

use super::ending::Farewell;
use super::link::{Link, LinkId, Parting};
use super::polling::Polling;
use super::timers::TimerRing;
use crate::ids::{IdSource, SessionId};
use crate::metrics::ShardMetrics;
use crate::outbox::slow_consumer::{self, Backlog};
use crate::outbox::wire::TextScratch;

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
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl SessionKey {
    /// A number for logs: the ids on the wire are secrets.
    pub(crate) fn number(self) -> u32 {
        self.generation
    }
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
    pub(super) generation: u32,
    pub(super) armed_tick: u64,
    pub(super) id: SessionId,
    pub(crate) machine: eio::Session,
    pub(crate) carrier: Carrier,
    /// A WebSocket that may take over from polling.
    pub(crate) candidate: Option<Box<Link>>,
    /// What the application keeps; taken when it is told that the session has ended.
    pub(crate) state: Option<S>,
    pub(super) app_deadline: Option<Instant>,
    pub(super) address: IpAddr,
    pub(super) base64: bool,
    pub(super) ended: bool,
    pub(super) paused: bool,
    pub(super) held: u32,
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

    pub(super) fn backlog(&self, now: Instant) -> Backlog {
        match &self.carrier {
            Carrier::Polling(polling) => polling.queue.backlog(now),
            Carrier::WebSocket(link) => link.queue.backlog(now),
            Carrier::Gone => Backlog { bytes: 0, stalled_for: Duration::ZERO },
        }
    }

    pub(super) fn progress_at(&self) -> Option<Instant> {
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
    pub(super) slots: Slab<Session<S>>,
    pub(super) by_id: HashMap<SessionId, SessionKey>,
    pub(super) next_generation: u32,
    pub(super) next_link: u32,
    pub(super) ids: IdSource,
    pub(super) timers: TimerRing<SessionKey>,
    pub(super) settings: Rc<Settings>,
    pub(super) metrics: Arc<ShardMetrics>,
    pub(super) scratch: TextScratch,
    pub(super) outbox_bytes: usize,
    pub(super) held_bytes: usize,
    pub(super) now: Instant,
    pub(super) ended: VecDeque<(SessionKey, CloseReason)>,
    pub(super) parting: Vec<Parting>,
    /// A paused session may be read again since the last look.
    resumed: bool,
}

impl<S> Sessions<S> {
    /// An empty table.
    pub fn new(
        settings: Rc<Settings>,
        ids: IdSource,
        metrics: Arc<ShardMetrics>,
        now: Instant,
    ) -> Sessions<S> {
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
            resumed: false,
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

    pub(super) fn next_link_id(&mut self) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link = self.next_link.wrapping_add(1);
        id
    }

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

    /// Books bytes that are held outside a session, a request body; `false` when the shard holds too much.
    pub(crate) fn hold(&mut self, bytes: usize) -> bool {
        self.held_bytes += bytes;
        self.metrics.held_bytes.set(self.held_bytes as u64);
        let fits = self.held_bytes <= self.settings.held_bytes_max;
        if !fits {
            self.metrics.limit_hits.add(1);
        }
        fits
    }

    /// Books that such bytes are held no longer.
    pub(crate) fn let_go(&mut self, bytes: usize) {
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
        self.metrics.held_bytes.set(self.held_bytes as u64);
    }

    pub(super) fn close_largest_holder(&mut self) {
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

    /// Stops or resumes reading from a session's WebSocket.
    pub fn pause(&mut self, key: SessionKey, paused: bool) {
        if let Some(session) = self.get_mut(key) {
            session.paused = paused;
            if paused {
                return;
            }
            if let Carrier::WebSocket(link) = &session.carrier {
                link.wake();
            }
            if let Some(link) = &session.candidate {
                link.wake();
            }
            self.resumed = true;
        }
    }

    /// Whether a paused session may be read again since the last call.
    pub(crate) fn take_resumed(&mut self) -> bool {
        std::mem::take(&mut self.resumed)
    }

    /// Whether nothing is read from this session for now.
    pub(crate) fn is_paused(&self, key: SessionKey) -> bool {
        self.get(key).is_some_and(|session| session.paused)
    }
}
