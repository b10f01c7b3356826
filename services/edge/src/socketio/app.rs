//! Packets in: each session's messages become Socket.IO packets, and those reach their socket.
//!
//! A client that breaks the protocol loses its session, as the reference has it; nobody else notices.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engineio_proto as eio;
use engineio_proto::session::CloseReason;
use socketio_proto as sio;
use socketio_proto::connection::Connection;
use socketio_proto::json::JsonError;
use socketio_proto::packet::{Packet, PacketType};
use socketio_proto::parser::{DecodeError, Parser, ParserKind};

use super::deliver::{BATCH_MAX, Job};
use super::namespace::Namespaces;
use super::peers::{Peers, Remote};
use super::socket::{RoomBounds, SocketIds, SocketView, Sockets};
use crate::config::EdgeConfig;
use crate::metrics::{Metrics, ShardMetrics};
use crate::outbox::wire::Dialect;
use crate::rooms::fan_out::{EncodedOnce, FanOut};
use crate::rooms::index::{RoomIndex, SocketKey};
use crate::session::app::{Handshake, Message, SessionApp, Work};
use crate::session::ending::Farewell;
use crate::session::registry::{SessionKey, Sessions};
use crate::shard::Completions;
use crate::upstream::{Decision, Reply, Upstream};
use socketio_proto::namespace::NamespacePath;

/// What Socket.IO keeps with each session.
#[derive(Debug)]
pub struct ClientState {
    pub(super) parser: Parser,
    pub(super) connection: Connection<SocketKey>,
    pub(super) handshake: Box<Handshake>,
}

impl ClientState {
    pub(super) fn version(&self) -> sio::packet::ProtocolVersion {
        match self.handshake.version {
            eio::ProtocolVersion::V3 => sio::packet::ProtocolVersion::V4,
            eio::ProtocolVersion::V4 => sio::packet::ProtocolVersion::V5,
        }
    }
}

/// What a task of the upstream comes back with.
#[derive(Debug)]
pub enum Completion {
    /// Whether a client may connect.
    Connect(SessionKey, NamespacePath, Decision),
    /// The answer to an event, behind which others may wait.
    Reply(SocketKey, Option<sio::packet::AckId>, Reply),
    /// What comes of an acknowledgement; events do not wait for it.
    Acked(SocketKey, Reply),
}

/// The bounds that Socket.IO obeys.
#[derive(Debug)]
pub struct Bounds {
    pub(super) packets: sio::limits::Limits,
    pub(super) namespaces_per_session_max: usize,
    pub(super) rooms: RoomBounds,
    pub(super) acks_pending_max: usize,
    pub(super) events_waiting_max: usize,
    pub(super) events_waiting_bytes_max: usize,
    pub(super) connect_timeout: Duration,
}

impl Bounds {
    fn new(config: &EdgeConfig) -> Bounds {
        let limits = &config.limits;
        Bounds {
            packets: sio::limits::Limits {
                attachments_max: limits.attachments_max,
                depth_max: limits.json_depth_max,
                name_bytes_max: limits.name_bytes_max,
                packet_bytes_max: limits.packet_bytes_max,
            },
            namespaces_per_session_max: limits.namespaces_per_session_max,
            rooms: RoomBounds {
                per_socket_max: limits.rooms_per_socket_max,
                per_node_max: limits.rooms_max,
                name_bytes_max: limits.name_bytes_max,
            },
            acks_pending_max: limits.acks_pending_max,
            events_waiting_max: limits.events_waiting_max,
            events_waiting_bytes_max: limits.events_waiting_bytes_max,
            connect_timeout: config.connect_timeout(),
        }
    }
}

/// The Socket.IO server of one shard.
pub struct SocketIo {
    pub(super) bounds: Rc<Bounds>,
    pub(super) sockets: Sockets,
    pub(super) by_id: SocketIds,
    pub(super) namespaces: Namespaces,
    pub(super) rooms: RoomIndex,
    pub(super) upstream: Box<dyn Upstream>,
    pub(super) peers: Peers,
    pub(super) completions: Completions<Completion>,
    pub(super) node_metrics: Arc<Metrics>,
    pub(super) metrics: Arc<ShardMetrics>,
    /// Adjacent broadcasts whose delivery has not begun.
    pub(super) batch: Vec<EncodedOnce>,
    /// The delivery under way.
    pub(super) fan_out: Option<FanOut>,
    /// What must wait for it.
    pub(super) jobs: VecDeque<Job>,
    /// Marks for sockets already seen while targets are picked: the number of the pick that saw them.
    pub(super) marks: Vec<u32>,
    pub(super) pick: u32,
}

impl std::fmt::Debug for SocketIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketIo")
            .field("sockets", &self.sockets.len())
            .field("rooms", &self.rooms.len())
            .finish()
    }
}

impl SocketIo {
    /// A server for one shard.
    pub fn new(
        config: &EdgeConfig,
        upstream: Box<dyn Upstream>,
        peers: Peers,
        completions: Completions<Completion>,
        node_metrics: Arc<Metrics>,
        metrics: Arc<ShardMetrics>,
    ) -> SocketIo {
        SocketIo {
            bounds: Rc::new(Bounds::new(config)),
            sockets: Sockets::default(),
            by_id: SocketIds::default(),
            namespaces: Namespaces::new(config.namespaces.clone()),
            rooms: RoomIndex::default(),
            upstream,
            peers,
            completions,
            node_metrics,
            metrics,
            batch: Vec::new(),
            fan_out: None,
            jobs: VecDeque::new(),
            marks: Vec::new(),
            pick: 0,
        }
    }

    /// How a session's packets are written.
    pub(super) fn dialect(sessions: &Sessions<ClientState>, session: SessionKey) -> Option<Dialect> {
        let session = sessions.get(session)?;
        Some(Dialect {
            version: session.version(),
            msgpack: session.state()?.parser.kind() == ParserKind::Msgpack,
            base64: session.base64(),
        })
    }

    fn packet(&mut self, sessions: &mut Sessions<ClientState>, session: SessionKey, packet: Packet<'_>) {
        match packet.packet_type {
            PacketType::Connect => self.connect(sessions, session, &packet),
            PacketType::ConnectError => Self::violation(sessions, session, "CONNECT_ERROR from a client"),
            PacketType::Disconnect
            | PacketType::Event
            | PacketType::BinaryEvent
            | PacketType::Ack
            | PacketType::BinaryAck => {
                let joined = sessions
                    .get(session)
                    .and_then(|session| session.state())
                    .map(|state| state.connection.socket(&packet.namespace));
                match joined {
                    Some(Ok(socket)) => self.socket_packet(sessions, session, socket, packet),
                    Some(Err(error)) => Self::violation(sessions, session, &error.to_string()),
                    None => {}
                }
            }
        }
    }

    fn socket_packet(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        session: SessionKey,
        socket: SocketKey,
        packet: Packet<'_>,
    ) {
        match packet.packet_type {
            PacketType::Event | PacketType::BinaryEvent => self.event(sessions, socket, packet),
            PacketType::Ack | PacketType::BinaryAck => self.ack(sessions, socket, &packet),
            PacketType::Disconnect => {
                self.leave_namespace(sessions, session, socket, "client namespace disconnect");
            }
            PacketType::Connect | PacketType::ConnectError => {}
        }
    }

    /// Closes a session whose client broke the protocol.
    pub(super) fn violation(sessions: &mut Sessions<ClientState>, session: SessionKey, what: &str) {
        tracing::debug!(what, "closing a client that broke the protocol");
        sessions.close(session, CloseReason::ForcedClose, Farewell::Flush);
    }

    /// Lets the upstream look at a socket.
    pub(super) fn with_view<T>(
        &mut self,
        key: SocketKey,
        call: impl FnOnce(&mut dyn Upstream, &SocketView<'_>) -> T,
    ) -> Option<T> {
        let view = SocketView {
            key,
            socket: self.sockets.get(key)?,
            namespaces: &self.namespaces,
            rooms: &self.rooms,
            bounds: &self.bounds.rooms,
            metrics: &self.node_metrics,
        };
        Some(call(&mut *self.upstream, &view))
    }
}

impl SessionApp for SocketIo {
    type State = ClientState;
    type Remote = Remote;
    type Completion = Completion;

    fn admit(&mut self, handshake: Handshake) -> ClientState {
        let state_of = |version| ClientState {
            parser: Parser::new(version),
            connection: Connection::new(),
            handshake: Box::new(handshake.clone()),
        };
        match handshake.version {
            eio::ProtocolVersion::V3 => state_of(sio::packet::ProtocolVersion::V4),
            eio::ProtocolVersion::V4 => state_of(sio::packet::ProtocolVersion::V5),
        }
    }

    fn opened(&mut self, sessions: &mut Sessions<ClientState>, session: SessionKey) {
        let deadline = sessions.now() + self.bounds.connect_timeout;
        sessions.set_deadline(session, Some(deadline));
        let joins_root = sessions
            .get(session)
            .and_then(|session| session.state())
            .is_some_and(|state| state.version().joins_root_on_open());
        if joins_root {
            self.connect_root(sessions, session);
        }
    }

    fn message(&mut self, sessions: &mut Sessions<ClientState>, session: SessionKey, message: Message<'_>) {
        let Some(state) = sessions.get_mut(session).and_then(|session| session.state_mut()) else { return };
        let decoded = match message {
            Message::Text(text) => state.parser.handle_text(text, &self.bounds.packets),
            Message::Binary(bytes) => state.parser.handle_binary(bytes, &self.bounds.packets),
        };
        match decoded {
            Ok(Some(packet)) => self.packet(sessions, session, packet),
            Ok(None) => {}
            Err(error) => {
                if is_limit(&error) {
                    self.metrics.limit_hits.add(1);
                }
                Self::violation(sessions, session, &error.to_string());
            }
        }
    }

    fn closed(
        &mut self,
        _sessions: &mut Sessions<ClientState>,
        _session: SessionKey,
        state: ClientState,
        reason: CloseReason,
    ) {
        for (_, socket) in state.connection.iter() {
            self.remove_socket(socket, reason.as_str());
        }
    }

    fn deadline(&mut self, sessions: &mut Sessions<ClientState>, session: SessionKey, _now: Instant) {
        let is_idle = sessions
            .get(session)
            .and_then(|session| session.state())
            .is_some_and(|state| state.connection.iter().next().is_none());
        if is_idle {
            Self::violation(sessions, session, "no namespace was joined in time");
        }
    }

    fn remote(&mut self, _sessions: &mut Sessions<ClientState>, message: Remote) {
        self.take_remote(message);
    }

    fn completed(&mut self, sessions: &mut Sessions<ClientState>, completion: Completion) {
        match completion {
            Completion::Connect(session, path, decision) => self.decided(sessions, session, &path, decision),
            Completion::Reply(socket, ack_id, reply) => self.answered(sessions, socket, ack_id, reply),
            Completion::Acked(socket, reply) => self.do_job(sessions, Job::reply(socket, None, reply)),
        }
    }

    fn tick(&mut self, sessions: &mut Sessions<ClientState>) {
        for session in self.peers.retry() {
            sessions.pause(session, false);
        }
    }

    fn is_busy(&self) -> bool {
        self.fan_out.is_some() || !self.jobs.is_empty() || self.batch.len() >= BATCH_MAX
    }

    fn has_work(&self) -> bool {
        self.is_busy() || !self.batch.is_empty()
    }

    fn work(&mut self, sessions: &mut Sessions<ClientState>) -> Work {
        self.deliver(sessions)
    }

    fn held_bytes(state: &ClientState) -> usize {
        state.parser.held_bytes()
    }
}

/// Whether a packet was refused for its size and not for its form.
fn is_limit(error: &DecodeError) -> bool {
    matches!(
        error,
        DecodeError::EventNameTooLong { .. }
            | DecodeError::NamespaceTooLong { .. }
            | DecodeError::TooManyAttachments { .. }
            | DecodeError::PacketTooLarge { .. }
            | DecodeError::InvalidJson(JsonError::TooDeep { .. })
    )
}
