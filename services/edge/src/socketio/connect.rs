//! Joining and leaving namespaces.

use engineio_proto::session::CloseReason;
use socketio_proto::connection::{
    ConnectionError, INVALID_NAMESPACE, auth_from_query, connect_data, refusal_data,
};
use socketio_proto::namespace::NamespacePath;
use socketio_proto::packet::{Outgoing, Packet, PacketType, ProtocolVersion};

use super::app::{ClientState, Completion, SocketIo};
use super::deliver::{Job, Wishes, send};
use super::interest::Ticket;
use super::socket::name;
use crate::rooms::index::SocketKey;
use crate::session::ending::Farewell;
use crate::session::registry::{SessionKey, Sessions};
use crate::upstream::{Action, Actions, Answer, Connect, Decision};

impl SocketIo {
    /// A CONNECT of the client.
    pub(super) fn connect(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        session: SessionKey,
        packet: &Packet<'_>,
    ) {
        let Some(version) = version(sessions, session) else { return };
        let Ok(path) = NamespacePath::parse(&packet.namespace) else {
            Self::violation(sessions, session, "the namespace is not a path");
            return;
        };
        match version {
            ProtocolVersion::V5 => self.ask_to_connect(sessions, session, &path, &packet.data),
            ProtocolVersion::V4 => {
                self.ask_to_connect(sessions, session, &path, &auth_from_query(&packet.query));
            }
        }
    }

    /// A client of protocol 4 joins `/` without asking.
    pub(super) fn connect_root(&mut self, sessions: &mut Sessions<ClientState>, session: SessionKey) {
        self.ask_to_connect(sessions, session, &NamespacePath::root(), "{}");
    }

    fn ask_to_connect(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        session: SessionKey,
        path: &NamespacePath,
        auth: &str,
    ) {
        let namespaces_max = self.bounds.namespaces_per_session_max;
        let is_allowed = self.namespaces.allows(path.as_str());
        let Some(state) = sessions.get_mut(session).and_then(|session| session.state_mut()) else { return };
        if !is_allowed {
            self.refuse(sessions, session, path, INVALID_NAMESPACE);
            return;
        }
        match state.connection.handle_connect(path, namespaces_max) {
            Ok(()) => {}
            Err(ConnectionError::TooManyNamespaces { max }) => {
                self.metrics.limit_hits.add(1);
                let message = format!("Too many namespaces: a session may join {max}");
                let data = refusal_data(state.version(), &message, None);
                self.refuse(sessions, session, path, &data);
                return;
            }
            Err(
                error @ (ConnectionError::AlreadyConnected
                | ConnectionError::NotConnected
                | ConnectionError::Joining),
            ) => {
                Self::violation(sessions, session, &error.to_string());
                return;
            }
        }
        let request = Connect { namespace: path.as_str(), auth, handshake: &state.handshake };
        match self.upstream.connect(&request) {
            Answer::Now(decision) => self.decided(sessions, session, path, decision),
            Answer::Later(later) => {
                let path = path.clone();
                self.completions.spawn(async move {
                    let decision = later.await;
                    Completion::Connect(session, path, decision)
                });
            }
        }
    }

    /// The upstream has decided about a CONNECT; if the session has ended meanwhile, nobody is told.
    pub(super) fn decided(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        session: SessionKey,
        path: &NamespacePath,
        decision: Decision,
    ) {
        match decision {
            Decision::Accept(actions) => self.do_job(sessions, Job::accept(session, path.clone(), actions)),
            Decision::Refuse { message, data } => {
                let Some(state) = sessions.get_mut(session).and_then(|session| session.state_mut()) else {
                    return;
                };
                if state.connection.refuse(path.as_str()).is_ok() {
                    let data = refusal_data(state.version(), &message, data.as_deref());
                    self.refuse(sessions, session, path, &data);
                }
            }
        }
    }

    /// Makes the socket, confirms it to the client, and returns it.
    pub(super) fn accept(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        session: SessionKey,
        path: &NamespacePath,
    ) -> Option<SocketKey> {
        let version = version(sessions, session)?;
        let dialect = Self::dialect(sessions, session)?;
        if sessions.get(session)?.has_ended() {
            return None;
        }
        let id = match version {
            ProtocolVersion::V4 => sessions.get(session)?.id().as_socket_id(),
            ProtocolVersion::V5 => match sessions.ids().socket_id() {
                Ok(id) => id,
                Err(error) => {
                    tracing::error!(%error, "no random numbers for a socket id");
                    sessions.close(session, CloseReason::ForcedServerClose, Farewell::Flush);
                    return None;
                }
            },
        };
        let namespace = self.namespaces.enter(path);
        let socket = self.sockets.insert(namespace, session, id, dialect)?;
        let state = sessions.get_mut(session)?.state_mut()?;
        if state.connection.accept(path.as_str(), socket).is_err() {
            self.sockets.remove(socket);
            self.namespaces.exit(namespace);
            return None;
        }
        self.rooms.join(socket, namespace, None);
        self.by_id.insert((namespace, id), socket);
        sessions.set_deadline(session, None);
        self.count();
        let socket_name = self.sockets.get(socket).map(|socket| name(socket, &self.namespaces))?;
        let data = connect_data(version, &socket_name);
        let reply = Outgoing::text(PacketType::Connect, path.as_str(), None, &data);
        send(sessions, session, dialect, &reply, false);
        Some(socket)
    }

    fn refuse(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        session: SessionKey,
        path: &NamespacePath,
        data: &str,
    ) {
        self.metrics.connects_refused.add(1);
        self.do_job(sessions, Job::refuse(session, path.clone(), data.to_owned()));
    }

    /// Tells the client that a namespace does not take it.
    pub(super) fn send_refusal(
        sessions: &mut Sessions<ClientState>,
        session: SessionKey,
        path: &NamespacePath,
        data: &str,
    ) {
        if let Some(dialect) = Self::dialect(sessions, session) {
            let reply = Outgoing::text(PacketType::ConnectError, path.as_str(), None, data);
            send(sessions, session, dialect, &reply, false);
        }
    }

    /// A socket leaves its namespace while its session lives on.
    pub(super) fn leave_namespace(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        session: SessionKey,
        socket: SocketKey,
        reason: &'static str,
    ) {
        let path =
            self.sockets.get(socket).and_then(|socket| self.namespaces.path(socket.namespace)).cloned();
        let state = sessions.get_mut(session).and_then(|session| session.state_mut());
        if let (Some(path), Some(state)) = (path, state) {
            state.connection.remove(path.as_str());
        }
        self.finish_parked(sessions, socket);
        self.remove_socket(socket, reason);
    }

    /// Disconnects a socket from its namespace and tells its client; with `close`, all of its session.
    pub(super) fn disconnect(&mut self, sessions: &mut Sessions<ClientState>, key: SocketKey, close: bool) {
        let Some(session) = self.sockets.get(key).map(|socket| socket.session) else { return };
        let sockets: Vec<SocketKey> = if close {
            let state = sessions.get(session).and_then(|session| session.state());
            state.map(|state| state.connection.iter().map(|(_, socket)| socket).collect()).unwrap_or_default()
        } else {
            vec![key]
        };
        for key in sockets {
            let Some(socket) = self.sockets.get(key) else { continue };
            if let Some(path) = self.namespaces.path(socket.namespace) {
                let goodbye = Outgoing::text(PacketType::Disconnect, path.as_str(), None, "");
                send(sessions, session, socket.dialect, &goodbye, false);
            }
            self.leave_namespace(sessions, session, key, "server namespace disconnect");
        }
        if close {
            sessions.close(session, CloseReason::ForcedServerClose, Farewell::Flush);
        }
    }

    /// Carries out what a client wanted of others before it left, as far as that waited only for its joins.
    pub(super) fn finish_parked(&mut self, sessions: &mut Sessions<ClientState>, key: SocketKey) {
        let parked = self.joining.forget(key);
        let waiting = self.sockets.get_mut(key).and_then(|socket| socket.waiting.take());
        for (actions, _) in parked {
            self.broadcast_all(sessions, key, actions);
        }
        // Behind an answer that the upstream still owes nothing is put to it.
        let Some(waiting) = waiting.filter(|waiting| !waiting.asked) else { return };
        for event in waiting.events {
            match self.with_view(key, |upstream, view| upstream.event(view, &event)) {
                Some(Answer::Now(reply)) => self.broadcast_all(sessions, key, reply.actions.into_iter()),
                // What it does on its way is done; what comes back for a socket that has gone is nothing.
                Some(Answer::Later(later)) => {
                    self.completions.spawn(async move { Completion::Reply(key, None, later.await) });
                }
                None => {}
            }
        }
    }

    fn broadcast_all(&mut self, sessions: &mut Sessions<ClientState>, key: SocketKey, actions: Wishes) {
        for action in actions.filter(|action| matches!(action, Action::Broadcast { .. })) {
            self.act(sessions, key, action);
        }
    }

    /// Forgets a socket; the upstream still sees its rooms.
    pub(super) fn remove_socket(&mut self, key: SocketKey, reason: &'static str) {
        self.with_view(key, |upstream, view| upstream.disconnected(view, reason));
        self.rooms.leave_all(key);
        self.close_emptied_rooms();
        if let Some(socket) = self.sockets.remove(key) {
            self.by_id.remove(&(socket.namespace, socket.id));
            if let Some(path) = self.namespaces.path(socket.namespace) {
                self.interest.release(path);
            }
            self.namespaces.exit(socket.namespace);
            if let Some(at) = socket.profile.and_then(|profile| profile.expires_at_ms) {
                self.expiring.remove(&(at, key));
            }
            self.metrics.acks_pending.sub(socket.acks.len() as u64);
            for broadcast in socket.acks.broadcasts() {
                self.askings.answered(broadcast);
            }
        }
        if self.sockets.is_empty() {
            self.by_id.shrink_to_fit();
            self.marks = Vec::new();
        }
        self.count();
    }

    /// Puts a socket into a room; what it has to wait for until it hears everybody, if anything.
    pub(super) fn join_room(&mut self, key: SocketKey, namespace: u32, room: &str) -> Option<Ticket> {
        let is_first = self.rooms.join(key, namespace, Some(room));
        self.count();
        let path = self.namespaces.path(namespace)?;
        if is_first { self.interest.open_room(path, room) } else { self.interest.enter_room(path, room) }
    }

    /// Takes a socket out of a room.
    pub(super) fn leave_room(&mut self, key: SocketKey, namespace: u32, room: &str) {
        if self.rooms.leave(key, namespace, room) {
            self.close_emptied_rooms();
            self.count();
        }
    }

    fn close_emptied_rooms(&mut self) {
        for (namespace, room) in self.rooms.take_emptied() {
            if let Some(path) = self.namespaces.path(namespace) {
                self.interest.close_room(path, &room);
            }
        }
    }

    pub(super) fn count(&self) {
        self.metrics.sockets.set(self.sockets.len() as u64);
        self.metrics.namespaces.set(self.namespaces.len() as u64);
        // The room of everybody in a namespace is not one that users know.
        self.metrics.rooms.set(self.rooms.len().saturating_sub(self.namespaces.len()) as u64);
    }
}

fn version(sessions: &Sessions<ClientState>, session: SessionKey) -> Option<ProtocolVersion> {
    Some(sessions.get(session)?.state()?.version())
}

impl Job {
    fn accept(session: SessionKey, path: NamespacePath, actions: Actions) -> Job {
        Job::Accept(session, path, actions)
    }

    fn refuse(session: SessionKey, path: NamespacePath, data: String) -> Job {
        Job::Refuse(session, path, data)
    }
}
