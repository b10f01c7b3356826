//! Actions and broadcasts, carried out in one order.
//!
//! Broadcasts that come one after the other are collected and delivered as one batch at the end of the shard's
//! turn; anything else that touches a socket or a room ends the batch and waits until it is delivered. A long
//! delivery goes on in slices, and until its end no later packet reaches any session.

use std::collections::BTreeMap;
use std::sync::Arc;

use adapter::adapter::Adapter;
use cluster_proto::broadcast::{BroadcastFlags, BroadcastOptions, Selector};
use cluster_proto::listing::USER_ROOM;
use cluster_proto::message::{ClusterMessage, Operation};
use engineio_proto::session::CloseReason;
use smallvec::SmallVec;
use socketio_proto::namespace::NamespacePath;
use socketio_proto::packet::{AckId, Outgoing, PacketType};
use socketio_proto::parser::text;
use websocket_proto::close::CloseCode;

use super::acks::Owner;
use super::app::{ClientState, SocketIo};
use super::bulk::Bulk;
use super::gather::Ask;
use super::interest::Waiter;
use super::selection::Selection;
use super::siblings::{Passed, Remote};
use super::socket::is_own_room;
use crate::outbox::wire::{Dialect, Wire};
use crate::rooms::fan_out::{Broadcast, EncodedOnce, FanOut, OutPacket, SLICE, encode};
use crate::rooms::index::SocketKey;
use crate::session::app::Work;
use crate::session::ending::Farewell;
use crate::session::registry::{SessionKey, Sessions};
use crate::upstream::{Action, Actions, Args, Reply};

/// Broadcasts delivered in one walk.
pub(super) const BATCH_MAX: usize = 64;

/// Deliveries from which on one walk takes up no further broadcast: to put so many in order takes some ten milliseconds.
const TARGETS_MAX: usize = 256 * 1024;

/// Sockets that a delivery looks at ahead of their turn: their memory is fetched side by side instead of one after
/// the other, each between two system calls.
const AHEAD: usize = 16;

/// Something to carry out in order.
#[derive(Debug)]
pub enum Job {
    /// Waits until events of the namespace can be heard, makes a socket and confirms its CONNECT; then its first actions.
    Accept(SessionKey, NamespacePath, Actions),
    /// The same when they can be heard.
    Enter(SessionKey, NamespacePath, Actions),
    /// Answers a CONNECT with CONNECT_ERROR.
    Refuse(SessionKey, NamespacePath, String),
    /// What an upstream wants done for a socket, then the acknowledgement.
    Reply(SocketKey, Wishes, Option<(AckId, Args)>),
    /// What another node, or the application on a thread of its own, asks of this shard.
    Ask(Arc<Ask>),
    /// A change of many sockets, as far as it is not done.
    Bulk(Bulk),
    /// The list of sockets that was asked for, as far as it has not been given.
    List(Arc<Ask>, std::vec::IntoIter<SocketKey>),
    /// What one page of a list needs of this shard, as far as it has been looked for.
    Select(Arc<Ask>, Box<Selection>),
    /// All shards have looked; the sockets that were found here.
    Chosen(Arc<Ask>, BTreeMap<String, SocketKey>),
    /// Sockets whose time is over are disconnected.
    Expire,
    /// The next event of a socket is put to the upstream, behind what came of the one before.
    Next(SocketKey),
}

/// What is left of the actions that an upstream wants.
pub type Wishes = smallvec::IntoIter<[Action; 1]>;

impl Job {
    /// What an upstream made of an event.
    pub(super) fn reply(socket: SocketKey, ack_id: Option<AckId>, reply: Reply) -> Job {
        // An acknowledgement that was asked for and not given stays open: the client's timeout tells it.
        Job::Reply(socket, reply.actions.into_iter(), ack_id.zip(reply.ack))
    }
}

impl SocketIo {
    /// Carries out a job, now or after what must come before it.
    pub(super) fn do_job(&mut self, sessions: &mut Sessions<ClientState>, job: Job) {
        if self.jobs.is_empty() {
            if let Some(rest) = self.run(sessions, job) {
                self.jobs.push_front(rest);
            }
        } else {
            self.jobs.push_back(job);
        }
    }

    /// Whether something is under way that a packet to one socket must not overtake.
    pub(super) fn is_delivering(&self) -> bool {
        self.fan_out.is_some() || !self.batch.is_empty()
    }

    /// Whether one more broadcast has to wait for the batch under way.
    pub(super) fn cannot_batch(&self) -> bool {
        self.fan_out.is_some() || self.batch.len() >= BATCH_MAX
    }

    /// Runs a job as far as it goes; the rest of it if it must wait.
    fn run(&mut self, sessions: &mut Sessions<ClientState>, job: Job) -> Option<Job> {
        match job {
            Job::Accept(session, path, actions) => {
                if self.is_delivering() {
                    return Some(Job::Accept(session, path, actions));
                }
                if let Some(ticket) = self.interest.hold(&path) {
                    self.interest.wait(ticket, Waiter::Accept(session, path, actions));
                    return None;
                }
                self.run(sessions, Job::Enter(session, path, actions))
            }
            Job::Enter(session, path, actions) => {
                if self.is_delivering() {
                    return Some(Job::Enter(session, path, actions));
                }
                let Some(socket) = self.accept(sessions, session, &path) else {
                    self.interest.release(&path);
                    return None;
                };
                self.run(sessions, Job::Reply(socket, actions.into_iter(), None))
            }
            Job::Refuse(session, path, data) => {
                if self.is_delivering() {
                    return Some(Job::Refuse(session, path, data));
                }
                Self::send_refusal(sessions, session, &path, &data);
                None
            }
            Job::Ask(ask) => self.operate(sessions, ask),
            Job::Bulk(bulk) => self.bulk(sessions, bulk),
            Job::List(ask, rest) => self.list(sessions, ask, rest),
            Job::Select(ask, selection) => self.select(sessions, ask, selection),
            Job::Chosen(ask, found) => self.list_chosen(sessions, ask, found),
            Job::Expire => self.expire(sessions),
            Job::Next(socket) => {
                self.next(sessions, socket);
                None
            }
            Job::Reply(socket, mut actions, ack) => {
                if self.joining.has_parked(socket) {
                    self.joining.park(socket, actions, ack);
                    return None;
                }
                while let Some(next) = actions.as_slice().first() {
                    let must_wait = match next {
                        Action::Broadcast { .. } => self.cannot_batch(),
                        Action::Emit { .. }
                        | Action::Join(_)
                        | Action::Leave(_)
                        | Action::Update(_)
                        | Action::Disconnect { .. } => self.is_delivering(),
                    };
                    if must_wait {
                        return Some(Job::Reply(socket, actions, ack));
                    }
                    // Joins wait together for what they need; whatever comes behind them waits for all.
                    if !matches!(next, Action::Join(_) | Action::Update(_)) && self.joining.waits(socket) {
                        self.park(socket, actions, ack);
                        return None;
                    }
                    if let Some(action) = actions.next() {
                        self.act(sessions, socket, action);
                    }
                }
                if ack.is_some() && self.is_delivering() {
                    return Some(Job::Reply(socket, actions, ack));
                }
                if ack.is_some() && self.joining.waits(socket) {
                    self.park(socket, actions, ack);
                    return None;
                }
                if let Some((id, args)) = ack {
                    self.emit(sessions, socket, PacketType::Ack, Some(id), &args, false);
                }
                None
            }
        }
    }

    pub(super) fn act(&mut self, sessions: &mut Sessions<ClientState>, key: SocketKey, action: Action) {
        let Some(socket) = self.sockets.get(key) else { return };
        let namespace = socket.namespace;
        match action {
            Action::Emit { args, volatile, ack } => {
                let ack_id = match ack {
                    None => None,
                    Some(token) => match self.expect_ack(key, namespace, token) {
                        Some(id) => Some(id),
                        None => return,
                    },
                };
                self.emit(sessions, key, PacketType::Event, ack_id, &args, volatile);
            }
            Action::Broadcast { selector, args, volatile, local } => {
                let session = socket.session;
                let Some(path) = self.namespaces.path(namespace).cloned() else { return };
                let broadcast = broadcast_of(path, selector, args, volatile);
                self.broadcast(sessions, session, broadcast, local);
            }
            Action::Join(room) => {
                let path = self.namespaces.path(namespace).map_or("/", |path| path.as_str());
                let is_own = is_own_room(path, socket, &room);
                let may = self.with_view(key, |_, view| crate::upstream::Socket::may_join(view, &room));
                if may != Some(true) {
                    self.metrics.limit_hits.add(1);
                } else if !is_own && let Some(ticket) = self.join_room(key, namespace, &room) {
                    self.joining.add(key);
                    self.interest.wait(ticket, Waiter::Socket(key));
                }
            }
            // Who is in the room of a user is that user, until an update says otherwise.
            Action::Leave(room) if room.starts_with(USER_ROOM) => self.metrics.limit_hits.add(1),
            Action::Leave(room) => self.leave_room(key, namespace, &room),
            Action::Update(update) => {
                if let Some(ticket) = self.update(key, update) {
                    self.joining.add(key);
                    self.interest.wait(ticket, Waiter::Socket(key));
                }
            }
            Action::Disconnect { close } => self.disconnect(sessions, key, close),
        }
    }

    fn expect_ack(&mut self, key: SocketKey, namespace: u32, token: u64) -> Option<AckId> {
        let max = self.bounds.acks_pending_max;
        let id = self.namespaces.next_ack(namespace);
        if !self.sockets.get_mut(key)?.acks.ask(id, Owner::Upstream(token), max) {
            self.metrics.limit_hits.add(1);
            return None;
        }
        self.metrics.acks_pending.add(1);
        Some(id)
    }

    /// Sends an event or an acknowledgement to one socket.
    fn emit(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        key: SocketKey,
        packet_type: PacketType,
        ack_id: Option<AckId>,
        args: &Args,
        volatile: bool,
    ) {
        let Some(socket) = self.sockets.get(key) else { return };
        let Some(path) = self.namespaces.path(socket.namespace) else { return };
        let packet = Outgoing {
            packet_type,
            namespace: path.as_str(),
            ack_id,
            data: &args.data,
            attachments: &args.attachments,
            binary: args.binary,
        };
        send(sessions, socket.session, socket.dialect, &packet, volatile);
    }

    /// Sends an event to rooms: here, on the other shards, and unless it is `local` on the other nodes.
    fn broadcast(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        cause: SessionKey,
        broadcast: Broadcast,
        local: bool,
    ) {
        let broadcast = Arc::new(broadcast);
        match self.siblings.broadcast(&broadcast, cause) {
            Passed::On => {}
            Passed::Waits => sessions.pause(cause, true),
            Passed::Refused => {
                self.metrics.limit_hits.add(1);
                let farewell = Farewell::Discard(Some(CloseCode::TRY_AGAIN_LATER));
                sessions.close(cause, CloseReason::ForcedServerClose, farewell);
                return;
            }
        }
        if !local {
            let flags = BroadcastFlags { volatile: broadcast.volatile, ..BroadcastFlags::default() };
            publish(self.interest.adapter(), &broadcast, flags);
        }
        self.batch.push(EncodedOnce::new(broadcast));
    }

    /// What somebody else has for this shard.
    pub(super) fn take_remote(&mut self, sessions: &mut Sessions<ClientState>, message: Remote) {
        match message {
            Remote::Broadcast(broadcast) => self.batch.push(EncodedOnce::new(broadcast)),
            Remote::Ask(ask) => self.do_job(sessions, Job::Ask(ask)),
        }
    }

    /// Delivers what has been collected, in slices, and runs the jobs behind it.
    pub(super) fn deliver(&mut self, sessions: &mut Sessions<ClientState>) -> Work {
        let mut budget = SLICE;
        while budget > 0 {
            if self.fan_out.is_none() && !self.batch.is_empty() {
                self.begin_fan_out();
            }
            if let Some(mut fan_out) = self.fan_out.take() {
                budget -= self.deliver_slice(sessions, &mut fan_out, budget).min(budget);
                if !fan_out.is_done() {
                    self.fan_out = Some(fan_out);
                }
                continue;
            }
            let Some(job) = self.jobs.pop_front() else { return Work::Done };
            // To change some sockets, to describe a page of them, or to look for it, is as much work as to serve a slice.
            let is_long =
                matches!(job, Job::Bulk(_) | Job::List(..) | Job::Select(..) | Job::Chosen(..) | Job::Expire);
            budget -= if is_long { budget } else { 1 };
            if let Some(rest) = self.run(sessions, job) {
                self.jobs.push_front(rest);
            }
        }
        Work::More
    }

    fn begin_fan_out(&mut self) {
        let mut waiting = std::mem::take(&mut self.batch).into_iter();
        let (mut batch, mut targets, mut count) = (Vec::new(), Vec::new(), 0);
        while batch.len() < BATCH_MAX
            && count < TARGETS_MAX
            && let Some(encoded) = waiting.next()
        {
            let these = self.targets(&encoded);
            count += these.len();
            targets.push(these);
            batch.push(encoded);
        }
        self.batch = waiting.collect();
        self.metrics.broadcasts.add(batch.len() as u64);
        self.metrics.deliveries.add(count as u64);
        self.fan_out = Some(FanOut::new(batch, targets));
    }

    /// Serves up to `budget` sockets; how many, and at least one.
    fn deliver_slice(
        &self,
        sessions: &mut Sessions<ClientState>,
        fan_out: &mut FanOut,
        budget: usize,
    ) -> usize {
        let mut served = 0;
        while served < budget {
            if served % AHEAD == 0 {
                let sockets = fan_out.upcoming(AHEAD).filter_map(|key| self.sockets.get(key));
                std::hint::black_box(sockets.map(|socket| sessions.touch(socket.session)).sum::<usize>());
            }
            let Some((key, packets)) = fan_out.pop() else { break };
            served += 1;
            let Some(socket) = self.sockets.get(key) else { continue };
            let wires = packets
                .iter()
                .filter_map(|packet| Some((packet.wire(socket.dialect)?, packet.broadcast().volatile)));
            let wires: SmallVec<[(&Wire, bool); 4]> = wires.collect();
            if wires.len() > 1 && wires.iter().all(|(_, volatile)| !volatile) {
                let wires: SmallVec<[&Wire; 4]> = wires.iter().map(|(wire, _)| *wire).collect();
                sessions.send_wires(socket.session, &wires);
            } else {
                for (wire, volatile) in wires {
                    sessions.send_wire(socket.session, volatile, wire);
                }
            }
        }
        served.max(1)
    }
}

/// An event for rooms.
pub(crate) fn broadcast_of(
    namespace: NamespacePath,
    selector: Selector,
    args: Args,
    volatile: bool,
) -> Broadcast {
    let packet = OutPacket {
        packet_type: PacketType::Event,
        ack_id: None,
        data: args.data,
        attachments: args.attachments,
        binary: args.binary,
    };
    Broadcast { namespace, selector, packet, volatile }
}

/// Passes a broadcast on to the other nodes. Nobody here waits for that; what the broker does not take is counted.
pub(crate) fn publish(adapter: &Adapter, broadcast: &Broadcast, flags: BroadcastFlags) {
    let Some(selector) = adapter.beyond(&broadcast.selector) else { return };
    let (namespace, event) = (broadcast.namespace.clone(), broadcast.packet.as_json_data());
    let options = BroadcastOptions { selector, flags };
    let operation = Operation::Broadcast { event, options };
    let message = ClusterMessage { sender: None, namespace, id: None, trace_parent: None, operation };
    if let Err(error) = adapter.publish(message) {
        tracing::debug!(%error, "a broadcast stays on this node");
    }
}

/// Sends a packet to one session.
pub(super) fn send(
    sessions: &mut Sessions<ClientState>,
    session: SessionKey,
    dialect: Dialect,
    packet: &Outgoing<'_>,
    volatile: bool,
) {
    if !dialect.msgpack && !packet.is_binary() {
        sessions.send_text(session, volatile, |out| text::encode(packet, out));
    } else if let Some(wire) = encode(packet, dialect) {
        sessions.send_wire(session, volatile, &wire);
    } else {
        // Only JSON that a webhook or an embedder made up can end here: clients' packets were checked.
        tracing::debug!("a packet cannot be written in its client's format");
        sessions.close(session, CloseReason::ForcedServerClose, Farewell::Flush);
    }
}
