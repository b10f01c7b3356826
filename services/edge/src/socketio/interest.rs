//! What this shard wants to hear of other nodes: namespaces with sockets here, and rooms with members here.
//!
//! A join counts as done once its subscription is active at the broker, so that whatever anybody sends to the room
//! from then on arrives. Whoever has to wait for that is written down here; nobody else waits.

use std::rc::Rc;

use adapter::adapter::Adapter;
use cluster_proto::identity::NodeId;
use hashbrown::HashMap;
use socketio_proto::namespace::NamespacePath;
use tokio::sync::oneshot;

use super::app::Completion;
use super::gather::Share;
use crate::rooms::index::SocketKey;
use crate::session::registry::SessionKey;
use crate::shard::Completions;
use crate::upstream::Actions;

/// Names a subscription that is not active yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What waits for a subscription.
#[derive(Debug)]
pub enum Waiter {
    /// The rest of what an application wants of a socket.
    Socket(SocketKey),
    /// A client that may connect.
    Accept(SessionKey, NamespacePath, Actions),
    /// A shard's share in a join that somebody else asked for; it only has to be dropped.
    Share(Rc<Share>),
}

/// The subscriptions of one shard.
#[derive(Debug)]
pub struct Interest {
    adapter: Adapter,
    completions: Completions<Completion>,
    next: u64,
    open: HashMap<Ticket, Open>,
    /// Rooms whose subscription is not active yet.
    pending: HashMap<(NamespacePath, Rc<str>), Ticket>,
    /// Sockets of each namespace, and clients that are about to have one.
    namespaces: HashMap<NamespacePath, Held>,
}

/// A subscription that is not active yet.
#[derive(Debug)]
struct Open {
    path: NamespacePath,
    room: Option<Rc<str>>,
    waiters: Vec<Waiter>,
}

#[derive(Debug)]
struct Held {
    count: usize,
    pending: Option<Ticket>,
}

impl Interest {
    /// Nothing is wanted so far.
    pub fn new(adapter: Adapter, completions: Completions<Completion>) -> Interest {
        Interest {
            adapter,
            completions,
            next: 0,
            open: HashMap::new(),
            pending: HashMap::new(),
            namespaces: HashMap::new(),
        }
    }

    /// The link to the other nodes.
    pub fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// Whether an id is that of a node of this cluster.
    pub fn is_node(&self, node: NodeId) -> bool {
        self.adapter.node() == node || self.adapter.nodes().iter().any(|peer| peer.node == node)
    }

    /// Somebody needs the namespace: what has to be waited for, if anything.
    pub fn hold(&mut self, path: &NamespacePath) -> Option<Ticket> {
        if let Some(held) = self.namespaces.get_mut(path) {
            held.count += 1;
            return held.pending;
        }
        let pending = self.subscribe(path, None);
        self.namespaces.insert(path.clone(), Held { count: 1, pending });
        pending
    }

    /// Somebody needs the namespace no more.
    pub fn release(&mut self, path: &NamespacePath) {
        let Some(held) = self.namespaces.get_mut(path) else { return };
        held.count -= 1;
        if held.count == 0 {
            self.namespaces.remove(path);
            self.adapter.leave(path, None);
        }
    }

    /// A room has its first member here: what has to be waited for, if anything.
    pub fn open_room(&mut self, path: &NamespacePath, room: &str) -> Option<Ticket> {
        let ticket = self.subscribe(path, Some(room))?;
        self.pending.insert((path.clone(), Rc::from(room)), ticket);
        Some(ticket)
    }

    /// A room has lost its last member here.
    pub fn close_room(&mut self, path: &NamespacePath, room: &str) {
        self.pending.remove(&(path.clone(), Rc::from(room)));
        self.adapter.leave(path, Some(room));
    }

    /// What one more member of a room has to wait for, if anything.
    pub fn pending(&self, path: &NamespacePath, room: &str) -> Option<Ticket> {
        if self.pending.is_empty() {
            return None;
        }
        self.pending.get(&(path.clone(), Rc::from(room))).copied()
    }

    /// Lets something wait for a subscription.
    pub fn wait(&mut self, ticket: Ticket, waiter: Waiter) {
        if let Some(open) = self.open.get_mut(&ticket) {
            open.waiters.push(waiter);
        }
    }

    /// A subscription is active, or takes too long: who has waited for it.
    pub fn subscribed(&mut self, ticket: Ticket) -> Vec<Waiter> {
        let Some(Open { path, room, waiters }) = self.open.remove(&ticket) else { return Vec::new() };
        match room {
            // The room may have been left and joined again meanwhile, which is another subscription.
            Some(room) => {
                let name = (path, room);
                if self.pending.get(&name) == Some(&ticket) {
                    self.pending.remove(&name);
                }
            }
            None => {
                if let Some(held) = self.namespaces.get_mut(&path) {
                    held.pending.take_if(|pending| *pending == ticket);
                }
            }
        }
        waiters
    }

    fn subscribe(&mut self, path: &NamespacePath, room: Option<&str>) -> Option<Ticket> {
        let (sender, mut done) = oneshot::channel();
        let done_there = move |outcome| {
            // A shard that has ended does not miss it.
            let _ = sender.send(outcome);
        };
        self.adapter.join(path, room, Box::new(done_there));
        if !matches!(done.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            return None;
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.open.insert(ticket, Open { path: path.clone(), room: room.map(Rc::from), waiters: Vec::new() });
        self.completions.spawn(async move {
            // Degraded or not: the adapter has counted it, and the join stands.
            let _ = done.await;
            Completion::Subscribed(ticket)
        });
        Some(ticket)
    }
}
