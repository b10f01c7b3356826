//! One client in one namespace.

use std::collections::VecDeque;
use std::fmt::Write;

use cluster_proto::identity::NodeId;
use cluster_proto::listing::USER_ROOM;
use hashbrown::HashMap;
use slab::Slab;
use socketio_proto::packet::Packet;

use super::acks::Acks;
use super::interest::Interest;
use super::namespace::Namespaces;
use crate::ids::{ID_CHARS, SocketId};
use crate::metrics::Metrics;
use crate::outbox::wire::Dialect;
use crate::rooms::index::{RoomIndex, SocketKey};
use crate::session::registry::SessionKey;
use crate::upstream;
use engineio_proto::ProtocolVersion;

/// A connected socket.
#[derive(Debug)]
pub struct Socket {
    generation: u32,
    /// Its namespace.
    pub namespace: u32,
    /// The session that carries it.
    pub session: SessionKey,
    /// Its id.
    pub id: SocketId,
    /// How its packets are written.
    pub dialect: Dialect,
    /// What its client owes.
    pub acks: Acks,
    /// Events behind an answer that has not come yet.
    pub waiting: Option<Box<Waiting>>,
    /// What the application has said of it.
    pub profile: Option<Box<Profile>>,
}

/// What an application, or a backend through the cluster, has said of a socket.
#[derive(Debug, Default)]
pub struct Profile {
    /// Whose socket it is.
    pub user: Option<String>,
    /// The application's own data: one JSON value.
    pub data: Option<String>,
    /// When it is disconnected, in milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
}

/// Events of a socket that wait for the answer to an earlier one, or for the joins that came of it.
///
/// The client fills it and the upstream's answer empties it; when it is full the session is closed.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The events, oldest first.
    pub events: VecDeque<Packet<'static>>,
    /// Bytes of all of them.
    pub bytes: usize,
    /// Whether the upstream still owes the answer; otherwise only joins are waited for.
    pub asked: bool,
    /// Whether a job is queued that goes on with them.
    pub has_turn: bool,
}

/// The sockets of a shard.
#[derive(Debug, Default)]
pub struct Sockets {
    slots: Slab<Socket>,
    next_generation: u32,
}

impl Sockets {
    /// Adds a socket.
    pub fn insert(
        &mut self,
        namespace: u32,
        session: SessionKey,
        id: SocketId,
        dialect: Dialect,
    ) -> Option<SocketKey> {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let index = u32::try_from(self.slots.vacant_key()).ok()?;
        self.slots.insert(Socket {
            generation,
            namespace,
            session,
            id,
            dialect,
            acks: Acks::default(),
            waiting: None,
            profile: None,
        });
        Some(SocketKey { index, generation })
    }

    /// The socket behind a key.
    pub fn get(&self, key: SocketKey) -> Option<&Socket> {
        self.slots.get(key.index as usize).filter(|socket| socket.generation == key.generation)
    }

    /// As [`Sockets::get`].
    pub fn get_mut(&mut self, key: SocketKey) -> Option<&mut Socket> {
        self.slots.get_mut(key.index as usize).filter(|socket| socket.generation == key.generation)
    }

    /// Removes a socket.
    pub fn remove(&mut self, key: SocketKey) -> Option<Socket> {
        self.get(key)?;
        let socket = self.slots.try_remove(key.index as usize);
        if self.slots.is_empty() {
            self.slots.shrink_to_fit();
        }
        socket
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

/// The id of a socket as its client knows it: EIO3 clients in a namespace put its path in front.
pub fn name(socket: &Socket, namespaces: &Namespaces) -> String {
    let mut name = String::with_capacity(ID_CHARS);
    write_name(socket, namespaces, &mut name);
    name
}

/// As [`name`], into a buffer that may be used again.
pub fn write_name(socket: &Socket, namespaces: &Namespaces, out: &mut String) {
    let path = namespaces.path(socket.namespace).map_or("/", |path| path.as_str());
    // To write into a string never fails.
    let _ = if socket.dialect.version == ProtocolVersion::V3 && path != "/" {
        write!(out, "{path}#{}", socket.id)
    } else {
        write!(out, "{}", socket.id)
    };
}

/// Reads the name of a socket's own room, as [`name`] writes it.
pub fn parse_name(path: &str, name: &str) -> Option<SocketId> {
    let id = match name.strip_prefix(path).and_then(|rest| rest.strip_prefix('#')) {
        Some(id) if path != "/" => id,
        _ => name,
    };
    SocketId::parse(id)
}

/// A socket as the upstream sees it.
#[derive(Debug)]
pub struct SocketView<'a> {
    pub(super) key: SocketKey,
    pub(super) socket: &'a Socket,
    pub(super) namespaces: &'a Namespaces,
    pub(super) rooms: &'a RoomIndex,
    pub(super) interest: &'a Interest,
    pub(super) bounds: &'a RoomBounds,
    pub(super) metrics: &'a Metrics,
}

/// Sockets by namespace and id.
pub type SocketIds = HashMap<(u32, SocketId), SocketKey>;

/// Whether a room is the one that holds a socket and nobody else.
pub fn is_own_room(path: &str, socket: &Socket, room: &str) -> bool {
    parse_name(path, room) == Some(socket.id)
}

/// The bounds on rooms.
#[derive(Clone, Copy, Debug)]
pub struct RoomBounds {
    /// `edge.limits.rooms_per_socket_max`.
    pub per_socket_max: usize,
    /// `edge.limits.rooms_max`.
    pub per_node_max: usize,
    /// `edge.limits.name_bytes_max`.
    pub name_bytes_max: usize,
}

impl upstream::Socket for SocketView<'_> {
    fn id(&self) -> SocketId {
        self.socket.id
    }

    fn name(&self) -> String {
        name(self.socket, self.namespaces)
    }

    fn namespace(&self) -> &str {
        self.namespaces.path(self.socket.namespace).map_or("/", |path| path.as_str())
    }

    fn user(&self) -> Option<&str> {
        self.socket.profile.as_ref()?.user.as_deref()
    }

    fn data(&self) -> Option<&str> {
        self.socket.profile.as_ref()?.data.as_deref()
    }

    fn rooms(&self) -> Vec<String> {
        std::iter::once(self.name()).chain(self.rooms.names(self.key).map(str::to_owned)).collect()
    }

    fn may_join(&self, room: &str) -> bool {
        if room.is_empty() || room.len() > self.bounds.name_bytes_max {
            return false;
        }
        if is_own_room(self.namespace(), self.socket, room) {
            // One is always in one's own room.
            return true;
        }
        if room.starts_with(USER_ROOM) {
            // Who is in such a room is that user: only an update says so.
            return false;
        }
        if NodeId::of_sid(room).is_some_and(|node| self.interest.is_node(node)) {
            // The room of another socket of this cluster stays its own. Of what looks like one, in any namespace, nobody
            // else would hear: it is sent to the node in its name.
            return false;
        }
        match self.rooms.find(self.socket.namespace, Some(room)) {
            Some(known) if self.rooms.contains(self.key, known) => true,
            known => {
                self.rooms.count(self.key) < self.bounds.per_socket_max
                    && (known.is_some() || self.metrics.rooms() < self.bounds.per_node_max as u64)
            }
        }
    }
}
