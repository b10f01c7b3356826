//! What other nodes, or the application on threads of its own, ask of the sockets of this shard.
//!
//! Such a question comes to every shard ([`super::local`]) and takes its place in the order of jobs: whatever touches
//! a socket or a room waits until the delivery under way is over. Changes of many sockets are made in [`super::bulk`]; the
//! answers meet in [`super::gather`].

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster_proto::broadcast::Selector;
use cluster_proto::listing::USER_ROOM;
use cluster_proto::message::{Change, JsonData, Operation, SocketUpdate};
use socketio_proto::packet::Packet;

use super::acks::{BroadcastKey, Owner};
use super::app::{ClientState, Completion, SocketIo};
use super::deliver::{Job, broadcast_of};
use super::gather::{Ask, weight};
use super::interest::Ticket;
use super::selection::Selection;
use super::socket::name;
use crate::rooms::fan_out::{EncodedOnce, SLICE};
use crate::rooms::index::SocketKey;
use crate::session::registry::Sessions;
use crate::upstream::Answer;

/// How long acks are waited for when the asker does not say: Node servers leave it out on the wire.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest that acks are waited for, whatever the asker says.
const ACK_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Sockets that are described in one go, before others get their turn; also the size of a page where none is given.
const PAGE_SOCKETS: usize = 500;
/// Bytes from which on a page is full, whatever it holds: far below what one message may have.
const PAGE_BYTES: usize = 1024 * 1024;

impl SocketIo {
    /// Does what is asked, or gives it back if it must wait.
    pub(super) fn operate(&mut self, sessions: &mut Sessions<ClientState>, ask: Arc<Ask>) -> Option<Job> {
        let must_wait = match &ask.operation {
            Operation::Join { .. }
            | Operation::Leave { .. }
            | Operation::Disconnect { .. }
            | Operation::Update { .. } => self.is_delivering(),
            Operation::BroadcastWithAck { .. } => self.cannot_batch(),
            Operation::Broadcast { .. }
            | Operation::Fetch { .. }
            | Operation::Rooms { .. }
            | Operation::SocketIds { .. }
            | Operation::ServerSideEmit { .. } => false,
        };
        if must_wait {
            return Some(Job::Ask(ask));
        }
        let Ask { namespace, operation, gather } = &*ask;
        match operation {
            Operation::Join { selector, .. }
            | Operation::Leave { selector, .. }
            | Operation::Disconnect { selector, .. }
            | Operation::Update { selector, .. } => return self.begin_bulk(sessions, &ask, selector),
            Operation::Fetch { selector, listing: None, .. } => {
                let targets = self.pick(namespace, selector);
                return self.list(sessions, ask, targets.into_iter());
            }
            Operation::Fetch { selector, listing: Some(listing), .. } => {
                let targets = self.pick(namespace, selector);
                let selection = Selection::new(targets, listing);
                return self.select(sessions, ask, selection);
            }
            Operation::Rooms { .. } => {
                let found = self.namespaces.find(namespace.as_str());
                let rooms = found.into_iter().flat_map(|namespace| self.rooms.of_namespace(namespace));
                gather.names(rooms.map(str::to_owned), false);
            }
            Operation::SocketIds { rooms, .. } => {
                let selector = Selector { rooms: rooms.clone(), except: Vec::new() };
                let targets = self.pick(namespace, &selector);
                let sockets = targets.into_iter().filter_map(|key| self.sockets.get(key));
                gather.names(sockets.map(|socket| name(socket, &self.namespaces)), true);
            }
            Operation::BroadcastWithAck { .. } => self.ask_all(sessions, &ask),
            Operation::ServerSideEmit { event, .. } => {
                match self.upstream.server_event(namespace.as_str(), event) {
                    Answer::Now(answer) => gather.event(answer),
                    Answer::Later(later) => {
                        let gather = gather.clone();
                        self.completions.spawn(async move { Completion::ServerEvent(gather, later.await) });
                    }
                }
            }
            // It comes as a broadcast.
            Operation::Broadcast { .. } => {}
        }
        None
    }

    /// Describes some of the sockets that were asked for; the rest is a job of its own.
    pub(super) fn list(
        &mut self,
        sessions: &Sessions<ClientState>,
        ask: Arc<Ask>,
        mut rest: std::vec::IntoIter<SocketKey>,
    ) -> Option<Job> {
        let page = if let Operation::Fetch { page_sockets_max: Some(max), .. } = &ask.operation {
            PAGE_SOCKETS.min(*max as usize).max(1)
        } else {
            PAGE_SOCKETS
        };
        let (mut sockets, mut bytes) = (Vec::new(), 0);
        while sockets.len() < page
            && bytes < PAGE_BYTES
            && let Some(key) = rest.next()
        {
            let Some(socket) = self.describe(sessions, key) else { continue };
            bytes += weight(&socket);
            sockets.push(socket);
        }
        let is_last = rest.len() == 0;
        if !ask.gather.sockets(sockets, is_last) {
            self.metrics.limit_hits.add(1);
        }
        (!is_last).then(|| Job::List(ask, rest))
    }

    /// Changes what is known of a socket; what has to be waited for until its user's room is heard.
    pub(super) fn update(&mut self, key: SocketKey, update: SocketUpdate) -> Option<Ticket> {
        let socket = self.sockets.get_mut(key)?;
        let namespace = socket.namespace;
        let profile = socket.profile.get_or_insert_default();
        let (left, joined) = match update.user {
            Change::Keep => (None, None),
            Change::Clear => (profile.user.take(), None),
            Change::Set(user) => (profile.user.replace(user.clone()), Some(user)),
        };
        match update.data {
            Change::Keep => {}
            Change::Clear => profile.data = None,
            Change::Set(data) => profile.data = Some(data),
        }
        let before = profile.expires_at_ms;
        match update.expires_at_ms {
            Change::Keep => {}
            Change::Clear => profile.expires_at_ms = None,
            Change::Set(at) => profile.expires_at_ms = Some(at),
        }
        let after = profile.expires_at_ms;
        if before != after {
            if let Some(at) = before {
                self.expiring.remove(&(at, key));
            }
            if let Some(at) = after {
                self.expiring.insert((at, key));
            }
        }
        if let Some(user) = left {
            self.leave_room(key, namespace, &format!("{USER_ROOM}{user}"));
        }
        self.join_room(key, namespace, &format!("{USER_ROOM}{}", joined?))
    }

    /// Has the sockets whose time is over disconnected, behind what is under way.
    pub(super) fn end_expired(&mut self, sessions: &mut Sessions<ClientState>) {
        if !self.is_expiring && self.next_expired().is_some() {
            self.is_expiring = true;
            self.do_job(sessions, Job::Expire);
        }
    }

    /// Disconnects some of them.
    pub(super) fn expire(&mut self, sessions: &mut Sessions<ClientState>) -> Option<Job> {
        if self.is_delivering() {
            return Some(Job::Expire);
        }
        for _ in 0..SLICE {
            let Some((at, key)) = self.next_expired() else { break };
            self.expiring.remove(&(at, key));
            self.disconnect(sessions, key, false);
        }
        self.is_expiring = self.next_expired().is_some();
        self.is_expiring.then_some(Job::Expire)
    }

    fn next_expired(&self) -> Option<(u64, SocketKey)> {
        let (at, key) = self.expiring.first().copied()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        (u128::from(at) <= now).then_some((at, key))
    }

    // ---- broadcasts that ask for acks ----

    /// Sends an event that asks every target for an ack.
    fn ask_all(&mut self, sessions: &Sessions<ClientState>, ask: &Arc<Ask>) {
        let Operation::BroadcastWithAck { event, options, .. } = &ask.operation else { return };
        let namespace = self.namespaces.find(ask.namespace.as_str());
        let timeout = options.flags.timeout_ms.map_or(ACK_TIMEOUT, Duration::from_millis);
        let deadline = sessions.now() + timeout.min(ACK_TIMEOUT_MAX);
        let begun = namespace.and_then(|namespace| {
            let id = self.namespaces.next_ack(namespace);
            Some((id, self.askings.begin(id, ask.gather.clone(), deadline)?))
        });
        let Some((id, key)) = begun else {
            ask.gather.counted(Vec::new());
            return;
        };
        let selector = options.selector.clone();
        let mut broadcast =
            broadcast_of(ask.namespace.clone(), selector, event.clone().into(), options.flags.volatile);
        broadcast.packet.ack_id = Some(id);
        self.batch.push(EncodedOnce::asking(Arc::new(broadcast), key.0));
    }

    /// Writes down who is asked by a broadcast; those that owe too much already are left out.
    pub(super) fn expect_acks(&mut self, key: BroadcastKey, mut targets: Vec<SocketKey>) -> Vec<SocketKey> {
        let Some(id) = self.askings.id(key) else { return Vec::new() };
        let max = self.bounds.acks_pending_max;
        let mut names = Vec::with_capacity(targets.len());
        let before = targets.len();
        targets.retain(|target| {
            let Some(socket) = self.sockets.get_mut(*target) else { return false };
            let asked = socket.acks.ask(id, Owner::Broadcast(key), max);
            if asked {
                names.push(name(socket, &self.namespaces));
            }
            asked
        });
        self.metrics.limit_hits.add((before - targets.len()) as u64);
        self.metrics.acks_pending.add(targets.len() as u64);
        if let Some(gather) = self.askings.asked(key, &targets) {
            gather.counted(names);
        }
        targets
    }

    /// A client has answered a broadcast.
    pub(super) fn broadcast_acked(&mut self, key: SocketKey, broadcast: BroadcastKey, packet: &Packet<'_>) {
        let Some(gather) = self.askings.answered(broadcast) else { return };
        let Some(socket) = self.sockets.get(key) else { return };
        let args = JsonData {
            text: packet.data.clone().into_owned(),
            attachments: packet.attachments.clone(),
            binary: packet.is_binary(),
        };
        gather.ack(name(socket, &self.namespaces), args);
    }

    /// Stops waiting for acks that nobody waits for any longer.
    pub(super) fn end_late_askings(&mut self, now: Instant) {
        for asking in self.askings.late(now) {
            for key in asking.sockets {
                let taken = self.sockets.get_mut(key).and_then(|socket| socket.acks.take(asking.id));
                self.metrics.acks_pending.sub(u64::from(taken.is_some()));
            }
        }
    }
}
