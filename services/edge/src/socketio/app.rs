//! Packets in: each session's messages become Socket.IO packets, and those reach their socket.
//!
//! A client that breaks the protocol loses its session, as the reference has it; nobody else notices.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adapter::adapter::Adapter;
use adapter::interest::JoinOutcome;
use engineio_proto as eio;
use engineio_proto::session::CloseReason;
use socketio_proto as sio;
use socketio_proto::connection::Connection;
use socketio_proto::json::JsonError;
use socketio_proto::packet::{Packet, PacketType};
use socketio_proto::parser::{DecodeError, Parser, ParserKind};

use super::acks::Askings;
use super::deliver::{BATCH_MAX, Job};
use super::gather::{Ask, Gather};
use super::interest::{Interest, Ticket};
use super::joining::Joining;
use super::namespace::Namespaces;
use super::siblings::{Remote, Siblings};
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
use crate::start::AppContext;
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
    /// A subscription is active, or takes too long.
    Subscribed(Ticket, JoinOutcome),
    /// What the upstream answers to the event of another server.
    ServerEvent(Arc<Gather>, Option<String>),
    /// All shards have looked for the sockets of a page; those that were found here.
    Chosen(Arc<Ask>, BTreeMap<String, SocketKey>),
}

/// The bounds that Socket.IO obeys.
#[derive(Debug)]
pub struct Bounds {
    pub(crate) packets: sio::limits::Limits,
    pub(super) namespaces_per_session_max: usize,
    pub(super) rooms: RoomBounds,
    pub(super) acks_pending_max: usize,
    pub(super) events_waiting_max: usize,
    pub(super) events_waiting_bytes_max: usize,
    pub(super) connect_timeout: Duration,
}

impl Bounds {
    pub(crate) fn new(config: &EdgeConfig) -> Bounds {
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
    pub(super) siblings: Siblings,
    pub(super) interest: Interest,
    pub(super) joining: Joining,
    pub(super) askings: Askings,
    /// Sockets that are to be disconnected at a time, in milliseconds since 1970.
    pub(super) expiring: BTreeSet<(u64, SocketKey)>,
    /// A job that does so is under way.
    pub(super) is_expiring: bool,
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
    /// A server for one shard, with its application and its link to the other nodes.
    pub fn new(context: AppContext<SocketIo>, upstream: Box<dyn Upstream>, adapter: Adapter) -> SocketIo {
        let AppContext { index, site, outlets, completions, metrics } = context;
        let others = outlets.into_iter().enumerate().filter(|(other, _)| *other != index);
        let others = others.map(|(_, outlet)| outlet).collect();
        let config = &site.config;
        SocketIo {
            bounds: Rc::new(Bounds::new(config)),
            sockets: Sockets::default(),
            by_id: SocketIds::default(),
            namespaces: Namespaces::new(config.namespaces.clone()),
            rooms: RoomIndex::default(),
            upstream,
            siblings: Siblings::new(others, config.limits.inbox_bytes_max, metrics.clone()),
            interest: Interest::new(adapter, completions.clone()),
            joining: Joining::default(),
            askings: Askings::default(),
            expiring: BTreeSet::new(),
            is_expiring: false,
            completions,
            node_metrics: site.metrics.clone(),
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
            interest: &self.interest,
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
        sessions: &mut Sessions<ClientState>,
        _session: SessionKey,
        state: ClientState,
        reason: CloseReason,
    ) {
        for (_, socket) in state.connection.iter() {
            self.finish_parked(sessions, socket);
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

    fn remote(&mut self, sessions: &mut Sessions<ClientState>, message: Remote) {
        self.take_remote(sessions, message);
    }

    fn completed(&mut self, sessions: &mut Sessions<ClientState>, completion: Completion) {
        match completion {
            Completion::Connect(session, path, decision) => self.decided(sessions, session, &path, decision),
            Completion::Reply(socket, ack_id, reply) => self.answered(sessions, socket, ack_id, reply),
            Completion::Acked(socket, reply) => self.do_job(sessions, Job::reply(socket, None, reply)),
            Completion::Subscribed(ticket, outcome) => self.subscribed(sessions, ticket, outcome),
            Completion::ServerEvent(gather, answer) => gather.event(answer),
            Completion::Chosen(ask, found) => self.do_job(sessions, Job::Chosen(ask, found)),
        }
    }

    fn tick(&mut self, sessions: &mut Sessions<ClientState>) {
        for session in self.siblings.retry() {
            sessions.pause(session, false);
        }
        self.end_late_askings(sessions.now());
        self.end_expired(sessions);
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
