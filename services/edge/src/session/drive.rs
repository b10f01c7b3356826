//! Feeds each session's protocol machine, and hands what happens to the application in one order.
//!
//! [`Core`] is everything that one shard owns: its sessions and its application. All of it runs on the shard's
//! thread, one call at a time. While the application is busy with a long delivery, what happens to sessions is
//! kept as turns in one queue, so that no later event overtakes an earlier one; heartbeats, handshakes and
//! upgrades go on meanwhile.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use engineio_proto as eio;
use engineio_proto::handshake::OpenPacket;
use engineio_proto::payload::{self, BodyForm};
use engineio_proto::session::{CloseReason, SessionEvent, Verdict};
use engineio_proto::{Packet, TransportKind, WirePacket};
use tokio::net::TcpStream;
use websocket_proto::close::CloseCode;
use websocket_proto::decoder::Incoming;
use websocket_proto::encoder::{self, Opcode};

use super::app::{Handshake, Message, SessionApp};
use super::ending::Farewell;
use super::link::LinkId;
use super::polling::Poll;
use super::registry::{Opening, SessionKey, Sessions};
use super::timers::TICK;
use super::trace::{self, Direction};
use super::turns::Turn;
use crate::ids::SessionId;
use crate::outbox::queue::Written;

/// The longest message of a WebSocket that has not taken over yet: it has nothing to say but `2probe` and `5`.
const CANDIDATE_BYTES_MAX: usize = 125;

/// What a shard owns.
#[derive(Debug)]
pub struct Core<A: SessionApp> {
    /// The sessions.
    pub sessions: Sessions<A::State>,
    /// The application on top.
    pub app: A,
    pub(super) turns: VecDeque<Turn<A>>,
    pub(super) turns_bytes: usize,
    pub(super) turns_bytes_max: usize,
    /// Links that wait for the turns to drain before they read on.
    pub(super) held_back: HashSet<(SessionKey, LinkId)>,
    limits: eio::Limits,
    /// Nobody is let in any more.
    is_closed: bool,
}

/// What a handshake asks for.
#[derive(Debug)]
pub struct OpenRequest {
    /// The new session's id.
    pub id: SessionId,
    /// The version of the query.
    pub version: eio::ProtocolVersion,
    /// Whether the client cannot take binary.
    pub base64: bool,
    /// Whether the open packet offers the upgrade to a WebSocket.
    pub offer_upgrade: bool,
    /// The client's address.
    pub address: IpAddr,
    /// What the application may keep of the request.
    pub handshake: Handshake,
}

/// How a POST ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// The packets were taken; a bad one has closed the session, which the answer does not show.
    Taken,
    /// This version has no such content type; the session is closed.
    InvalidContent,
}

impl<A: SessionApp> Core<A> {
    /// Joins sessions and application.
    pub fn new(sessions: Sessions<A::State>, app: A, turns_bytes_max: usize) -> Core<A> {
        let limits = eio::Limits {
            payload_bytes_max: sessions.settings().payload_bytes_max,
            ..eio::Limits::default()
        };
        Core {
            sessions,
            app,
            turns: VecDeque::new(),
            turns_bytes: 0,
            turns_bytes_max,
            held_back: HashSet::new(),
            limits,
            is_closed: false,
        }
    }

    /// Starts a call from outside: fixes the time that it sees.
    pub fn at(&mut self, now: Instant) -> &mut Core<A> {
        self.sessions.set_now(now);
        self
    }

    /// Opens a session and sends its open packet.
    pub fn open(&mut self, request: OpenRequest, opening: Opening) -> Option<SessionKey> {
        if self.is_closed {
            return None;
        }
        let settings = self.sessions.settings().clone();
        let upgrades: &[TransportKind] =
            if request.offer_upgrade { &[TransportKind::WebSocket] } else { &[] };
        let id = request.id.to_string();
        let packet = OpenPacket {
            sid: &id,
            upgrades,
            ping_interval: settings.machine.ping_interval,
            ping_timeout: settings.machine.ping_timeout,
            max_payload: settings.payload_bytes_max as u64,
        }
        .encode();
        let state = self.app.admit(request.handshake);
        let key = self.sessions.insert(
            request.id,
            request.version,
            opening,
            request.address,
            request.base64,
            state,
        )?;
        self.sessions.send_open(key, &packet);
        self.turn(Turn::Opened(key));
        Some(key)
    }

    /// The packets that the response to a polling handshake carries: the open packet and, in EIO3 when the
    /// application answered at once, the CONNECT of `/`. What follows waits for the first poll.
    pub fn take_handshake_packets(&mut self, key: SessionKey) -> Vec<WirePacket> {
        const OPEN_AND_CONNECT: usize = 2;
        self.sessions.take_packets(key, OPEN_AND_CONNECT)
    }

    /// A GET of a polling session.
    pub fn poll(&mut self, key: SessionKey) -> Option<Poll> {
        let poll = self.sessions.poll(key);
        self.settle();
        poll
    }

    /// The client of a parked GET has gone: the session ends.
    pub fn poll_abandoned(&mut self, key: SessionKey, poll: u32) {
        if self.sessions.poll_abandoned(key, poll) {
            self.sessions.close(key, CloseReason::TransportError, Farewell::None);
            self.settle();
        }
    }

    /// A POST has begun; `false` when another one is being read: the session is closed then.
    pub fn begin_post(&mut self, key: SessionKey) -> bool {
        let free = self.sessions.begin_post(key);
        if !free {
            self.sessions.close(key, CloseReason::TransportError, Farewell::Discard(None));
            self.settle();
        }
        free
    }

    /// A POST is over: read, refused for its size, or broken off (`aborted` closes the session).
    pub fn end_post(&mut self, key: SessionKey, aborted: bool) {
        if self.sessions.end_post(key) && aborted {
            self.sessions.close(key, CloseReason::TransportError, Farewell::None);
            self.settle();
        }
    }

    /// Takes the packets of a POST body.
    pub fn post(&mut self, key: SessionKey, form: BodyForm, body: &[u8]) -> Posted {
        let Some(version) = self.sessions.get(key).map(|session| session.version()) else {
            return Posted::Taken;
        };
        if form == BodyForm::Octets && version == eio::ProtocolVersion::V4 {
            self.sessions.close(key, CloseReason::TransportError, Farewell::Discard(None));
            self.settle();
            return Posted::InvalidContent;
        }
        let decoded = payload::decode(version, form, body, &self.limits);
        for packet in decoded.packets {
            if self.is_over(key) {
                break;
            }
            trace::packet_in(key, &packet);
            self.packet(key, TransportKind::Polling, &packet);
        }
        if decoded.error.is_some() && !self.is_over(key) {
            self.sessions.close(key, CloseReason::ParseError, Farewell::Discard(None));
        }
        self.after_input(key, 0);
        Posted::Taken
    }

    /// A WebSocket with a session's id has opened: it may take over from polling.
    ///
    /// # Errors
    /// Gives the stream back when it may not; the caller closes it.
    pub fn upgrade(&mut self, key: SessionKey, stream: TcpStream) -> Result<LinkId, TcpStream> {
        let now = self.sessions.now();
        let config = self.sessions.settings().clone();
        let Some(session) = self.sessions.get_mut(key) else { return Err(stream) };
        if session.has_ended() || session.machine.handle_upgrade_opened(now, &config.machine).is_err() {
            return Err(stream);
        }
        let link = self.sessions.set_candidate(key, stream)?;
        self.sessions.arm(key);
        Ok(link)
    }

    /// Bytes arrived on a link.
    pub fn link_bytes(&mut self, key: SessionKey, id: LinkId, mut input: &mut [u8]) {
        self.catch_up(key);
        let payload_bytes_max = self.sessions.settings().payload_bytes_max;
        self.sessions.metrics().bytes_received.add(input.len() as u64);
        let mut held = 0;
        loop {
            let is_carrier = self.sessions.link_id(key) == Some(id);
            let bytes_max = if is_carrier { payload_bytes_max } else { CANDIDATE_BYTES_MAX };
            let Some(link) = self.sessions.link_mut(key, id) else { break };
            let incoming = match link.decoder.decode(&mut input, bytes_max) {
                Ok(Some(incoming)) => incoming,
                Ok(None) => {
                    held = if is_carrier { link.decoder.held_bytes() } else { 0 };
                    break;
                }
                Err(error) => {
                    self.link_failed(key, id, error.close_code());
                    break;
                }
            };
            trace::frame_in(key, &incoming);
            match incoming {
                Incoming::Text(text) => self.link_text(key, id, &text),
                Incoming::Binary(bytes) => self.link_binary(key, id, &bytes),
                Incoming::Ping(payload) => {
                    let mut frame = Vec::with_capacity(payload.len() + 2);
                    encoder::write_frame(Opcode::Pong, &payload, &mut frame);
                    trace::frame(Direction::Out, key, "pong", &payload);
                    self.sessions.send_frame(key, id, &frame);
                }
                Incoming::Pong(_) => {}
                Incoming::Close(frame) => {
                    let answer = Bytes::from(encoder::close_frame(frame.map(|frame| frame.code), ""));
                    self.sessions.close_answered(key, id, answer);
                    break;
                }
            }
        }
        self.after_input(key, held);
    }

    fn link_text(&mut self, key: SessionKey, id: LinkId, text: &str) {
        let Some(version) = self.sessions.get(key).map(|session| session.version()) else { return };
        match Packet::decode_text_frame(version, text) {
            Ok(packet) => self.packet(key, TransportKind::WebSocket, &packet),
            Err(_) => self.link_garbled(key, id),
        }
    }

    fn link_binary(&mut self, key: SessionKey, id: LinkId, bytes: &[u8]) {
        let Some(version) = self.sessions.get(key).map(|session| session.version()) else { return };
        match Packet::decode_binary_frame(version, bytes) {
            Ok(packet) => self.packet(key, TransportKind::WebSocket, &packet),
            Err(_) => self.link_garbled(key, id),
        }
    }

    /// A frame of a link is not an Engine.IO packet.
    fn link_garbled(&mut self, key: SessionKey, id: LinkId) {
        if self.sessions.link_id(key) == Some(id) {
            self.sessions.close(key, CloseReason::ParseError, Farewell::Discard(None));
        } else {
            self.candidate_failed(key, None);
        }
    }

    /// A link broke the rules of WebSocket.
    fn link_failed(&mut self, key: SessionKey, id: LinkId, code: CloseCode) {
        if code == CloseCode::TOO_LARGE {
            self.sessions.metrics().limit_hits.add(1);
        }
        if self.sessions.link_id(key) == Some(id) {
            self.sessions.close(key, CloseReason::TransportError, Farewell::Discard(Some(code)));
        } else {
            self.candidate_failed(key, Some(code));
        }
    }

    fn candidate_failed(&mut self, key: SessionKey, code: Option<CloseCode>) {
        self.sessions.drop_candidate(key, code);
        self.sessions.candidate_lost(key);
    }

    /// A link's stream ended without a close frame, or failed.
    pub fn link_ended(&mut self, key: SessionKey, id: LinkId, failed: bool) {
        if self.sessions.link_id(key) == Some(id) {
            let reason = if failed { CloseReason::TransportError } else { CloseReason::TransportClose };
            self.sessions.close(key, reason, Farewell::None);
        } else if self.sessions.link_mut(key, id).is_some() {
            self.sessions.candidate_lost(key);
        }
        self.settle();
    }

    /// A link can take more bytes.
    pub fn link_writable(&mut self, key: SessionKey, id: LinkId) -> Option<Written> {
        let written = self.sessions.flush_link(key, id);
        self.settle();
        written
    }

    fn packet(&mut self, key: SessionKey, via: TransportKind, packet: &Packet<'_>) {
        let now = self.sessions.now();
        let settings = self.sessions.settings().clone();
        self.sessions.metrics().packets_received.add(1);
        let Some(session) = self.sessions.get_mut(key) else { return };
        match session.machine.handle_packet(now, via, packet, &settings.machine) {
            Ok(Verdict::Deliver) => {
                match &packet.data {
                    eio::Data::Text(text) => self.message(key, Message::Text(text)),
                    eio::Data::Binary(bytes) => self.message(key, Message::Binary(bytes)),
                }
                self.sessions.arm(key);
            }
            // After an error the session is closed, and the machine's event says so.
            Ok(Verdict::Done) | Err(_) => self.pump(key),
        }
    }

    /// Sends what a session's machine has to say and does what it has decided.
    fn pump(&mut self, key: SessionKey) {
        while let Some((via, packet)) =
            self.sessions.get_mut(key).and_then(|session| session.machine.poll_transmit())
        {
            self.sessions.send_control(key, via, packet);
        }
        while let Some(event) = self.sessions.get_mut(key).and_then(|session| session.machine.poll_event()) {
            match event {
                SessionEvent::Upgraded => self.sessions.complete_upgrade(key),
                SessionEvent::UpgradeFailed => self.sessions.drop_candidate(key, None),
                SessionEvent::Closed(reason) => {
                    let farewell = if reason == CloseReason::TransportClose {
                        Farewell::None
                    } else {
                        Farewell::Discard(None)
                    };
                    self.sessions.close(key, reason, farewell);
                }
            }
        }
        self.sessions.arm(key);
    }

    fn is_over(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_none_or(|session| session.has_ended())
    }

    fn after_input(&mut self, key: SessionKey, held: usize) {
        self.settle();
        let held = match self.sessions.get(key) {
            Some(session) if !session.has_ended() => {
                held + session.state().map(A::held_bytes).unwrap_or_default()
            }
            _ => return,
        };
        self.sessions.set_held(key, held);
        self.settle();
    }

    /// Looks at every session whose deadline may be over.
    pub fn tick(&mut self) {
        while let Some((tick, keys)) = self.sessions.pop_due() {
            for key in &keys {
                self.due(*key, tick);
            }
            self.sessions.recycle(tick, keys);
        }
        self.app.tick(&mut self.sessions);
        self.settle();
    }

    fn due(&mut self, key: SessionKey, tick: u64) {
        let due = self.sessions.due(key, tick);
        if due.machine {
            self.catch_up(key);
        }
        if due.app {
            self.turn(Turn::Deadline(key));
        }
        if due.session {
            self.sessions.arm(key);
        }
    }

    /// Lets a session's machine see the deadlines that are over, before anything later reaches it.
    ///
    /// The tick comes a little late; the machine hears the time that was due, so that lateness does not add up.
    /// After a long stop of the whole process it hears the time that is, or every client would seem dead.
    pub fn catch_up(&mut self, key: SessionKey) {
        let now = self.sessions.now();
        let is_due = self.sessions.get(key).and_then(|session| session.machine.poll_timeout());
        if is_due.is_none_or(|deadline| deadline > now) {
            return;
        }
        let settings = self.sessions.settings().clone();
        while let Some(session) = self.sessions.get_mut(key)
            && let Some(deadline) = session.machine.poll_timeout().filter(|deadline| *deadline <= now)
        {
            let is_prompt = now.saturating_duration_since(deadline) <= 4 * TICK;
            session.machine.handle_timeout(if is_prompt { deadline } else { now }, &settings.machine);
            self.pump(key);
        }
        self.settle();
    }

    /// Closes every session, as a server that goes away, and opens no more.
    pub fn close_all(&mut self) {
        self.is_closed = true;
        for key in self.sessions.keys() {
            let farewell = Farewell::Discard(Some(CloseCode::RESTART));
            self.sessions.close(key, CloseReason::ServerShuttingDown, farewell);
        }
        self.settle();
    }
}
