//! What is done to all sockets that a selector means: some at a time, so that nobody waits for the whole of a namespace.
//!
//! Whom it concerns is written down when it begins. Until its end no later job and no later event touches a socket or a
//! room; reads, accepts and timers have their turn in between. A socket that has gone meanwhile is passed over.

use std::rc::Rc;
use std::sync::Arc;

use cluster_proto::broadcast::Selector;
use cluster_proto::listing::USER_ROOM;
use cluster_proto::message::Operation;

use super::app::{ClientState, SocketIo};
use super::deliver::Job;
use super::gather::{Ask, Share};
use super::interest::Waiter;
use super::socket::is_own_room;
use crate::rooms::fan_out::SLICE;
use crate::rooms::index::SocketKey;
use crate::session::registry::Sessions;
use crate::upstream::Socket as _;

/// A change of many sockets, as far as it is not done.
#[derive(Debug)]
pub struct Bulk {
    ask: Arc<Ask>,
    share: Rc<Share>,
    rest: std::vec::IntoIter<SocketKey>,
}

impl Bulk {
    /// Sockets that are changed in one go: each room of each is a change of its own.
    fn slice(&self) -> usize {
        let (Operation::Join { rooms, .. } | Operation::Leave { rooms, .. }) = &self.ask.operation else {
            return SLICE;
        };
        SLICE.checked_div(rooms.len()).unwrap_or(SLICE).max(1)
    }
}

impl SocketIo {
    /// Begins to change the sockets that `selector` means.
    pub(super) fn begin_bulk(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        ask: &Arc<Ask>,
        selector: &Selector,
    ) -> Option<Job> {
        let targets = self.pick(&ask.namespace, selector);
        let share = Rc::new(Share::new(ask.gather.clone(), targets.len() as u64));
        self.bulk(sessions, Bulk { ask: ask.clone(), share, rest: targets.into_iter() })
    }

    /// Changes the next ones; the rest is a job of its own.
    pub(super) fn bulk(&mut self, sessions: &mut Sessions<ClientState>, mut bulk: Bulk) -> Option<Job> {
        for _ in 0..bulk.slice() {
            let Some(key) = bulk.rest.next() else { break };
            match &bulk.ask.operation {
                Operation::Join { rooms, .. } => self.join_rooms(key, &bulk, rooms),
                Operation::Leave { rooms, .. } => self.leave_rooms(key, rooms),
                Operation::Disconnect { close, .. } => self.disconnect(sessions, key, *close),
                Operation::Update { update, .. } => {
                    if let Some(ticket) = self.update(key, update.clone()) {
                        self.interest.wait(ticket, Waiter::Share(bulk.share.clone()));
                    }
                }
                // These change nothing.
                Operation::Broadcast { .. }
                | Operation::BroadcastWithAck { .. }
                | Operation::Fetch { .. }
                | Operation::Rooms { .. }
                | Operation::SocketIds { .. }
                | Operation::ServerSideEmit { .. } => {}
            }
        }
        (bulk.rest.len() > 0).then(|| Job::Bulk(bulk))
    }

    fn join_rooms(&mut self, key: SocketKey, bulk: &Bulk, rooms: &[String]) {
        let Some(socket) = self.sockets.get(key) else { return };
        let (namespace, path) = (socket.namespace, bulk.ask.namespace.as_str());
        for room in rooms {
            if self.with_view(key, |_, view| view.may_join(room)) != Some(true) {
                self.metrics.limit_hits.add(1);
            } else if !self.sockets.get(key).is_some_and(|socket| is_own_room(path, socket, room))
                && let Some(ticket) = self.join_room(key, namespace, room)
            {
                self.interest.wait(ticket, Waiter::Share(bulk.share.clone()));
            }
        }
    }

    fn leave_rooms(&mut self, key: SocketKey, rooms: &[String]) {
        let Some(socket) = self.sockets.get(key) else { return };
        let namespace = socket.namespace;
        for room in rooms.iter().filter(|room| !room.starts_with(USER_ROOM)) {
            self.leave_room(key, namespace, room);
        }
    }
}
