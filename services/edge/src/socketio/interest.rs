//! What this shard wants to hear of other nodes: namespaces with sockets here, and rooms with members here.
//!
//! A join counts as done once its subscription is active at the broker, so that whatever anybody sends to the room
//! from then on arrives. Whoever has to wait for that is written down here; nobody else waits.

use std::rc::Rc;
use std::time::{Duration, Instant};

use adapter::Status;
use adapter::adapter::Adapter;
use adapter::interest::JoinOutcome;
use cluster_proto::identity::NodeId;
use hashbrown::{HashMap, HashSet};
use socketio_proto::namespace::NamespacePath;
use tokio::sync::oneshot::{self, error::TryRecvError};

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
    pending: HashMap<(NamespacePath, Rc<str>), (Ticket, Instant)>,
    /// Rooms whose join was over before their subscription was active: the next member asks again.
    deaf: HashSet<(NamespacePath, Rc<str>)>,
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

/// How long those who come later wait with the first one. Behind that they have a time of their own, so that a slow
/// subscription is not given up for somebody who has hardly waited.
const SHARED_FOR: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Held {
    count: usize,
    pending: Option<(Ticket, Instant)>,
    deaf: bool,
}

/// How far a subscription is.
enum Subscribed {
    Active,
    /// It is not active, and nobody waits for it.
    Degraded,
    Pending(Ticket),
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
            deaf: HashSet::new(),
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
        let is_cut_off = self.is_cut_off();
        if let Some(held) = self.namespaces.get_mut(path) {
            held.count += 1;
            match held.pending {
                Some((ticket, since)) if since.elapsed() < SHARED_FOR => return Some(ticket),
                None if !held.deaf && !is_cut_off => return None,
                Some(_) | None => {}
            }
        } else {
            self.namespaces.insert(path.clone(), Held { count: 1, pending: None, deaf: false });
            let subscribed = self.subscribe(path, None);
            return self.note_namespace(path, &subscribed);
        }
        let subscribed = self.subscribe_again(path, None);
        self.note_namespace(path, &subscribed)
    }

    fn note_namespace(&mut self, path: &NamespacePath, subscribed: &Subscribed) -> Option<Ticket> {
        let held = self.namespaces.get_mut(path)?;
        held.deaf = matches!(subscribed, Subscribed::Degraded);
        held.pending = subscribed.ticket().map(|ticket| (ticket, Instant::now()));
        subscribed.ticket()
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
        let subscribed = self.subscribe(path, Some(room));
        self.note_room(path, room, &subscribed)
    }

    /// A room has one more member here: what it has to wait for, if anything.
    pub fn enter_room(&mut self, path: &NamespacePath, room: &str) -> Option<Ticket> {
        let is_cut_off = self.is_cut_off();
        if self.pending.is_empty() && self.deaf.is_empty() && !is_cut_off {
            return None;
        }
        let name = (path.clone(), Rc::from(room));
        match self.pending.get(&name) {
            Some((ticket, since)) if since.elapsed() < SHARED_FOR => return Some(*ticket),
            None if !is_cut_off && !self.deaf.contains(&name) => return None,
            Some(_) | None => {}
        }
        let subscribed = self.subscribe_again(path, Some(room));
        self.note_room(path, room, &subscribed)
    }

    fn note_room(&mut self, path: &NamespacePath, room: &str, subscribed: &Subscribed) -> Option<Ticket> {
        let name = || (path.clone(), Rc::from(room));
        match subscribed {
            Subscribed::Active if self.deaf.is_empty() => {}
            Subscribed::Active => drop(self.deaf.remove(&name())),
            Subscribed::Degraded => drop(self.deaf.insert(name())),
            Subscribed::Pending(ticket) => drop(self.pending.insert(name(), (*ticket, Instant::now()))),
        }
        subscribed.ticket()
    }

    /// A room has lost its last member here.
    pub fn close_room(&mut self, path: &NamespacePath, room: &str) {
        if !self.pending.is_empty() || !self.deaf.is_empty() {
            let name = (path.clone(), Rc::from(room));
            self.pending.remove(&name);
            self.deaf.remove(&name);
        }
        self.adapter.leave(path, Some(room));
    }

    /// Whether subscriptions that were active may not be.
    fn is_cut_off(&self) -> bool {
        self.adapter.status() != Status::Ready
    }

    /// Lets something wait for a subscription.
    pub fn wait(&mut self, ticket: Ticket, waiter: Waiter) {
        if let Some(open) = self.open.get_mut(&ticket) {
            open.waiters.push(waiter);
        }
    }

    /// A subscription is active, or takes too long: who has waited for it.
    pub fn subscribed(&mut self, ticket: Ticket, outcome: JoinOutcome) -> Vec<Waiter> {
        let Some(Open { path, room, waiters }) = self.open.remove(&ticket) else { return Vec::new() };
        let is_deaf = outcome == JoinOutcome::Degraded;
        match room {
            // The room may have been left and joined again meanwhile, which is another subscription.
            Some(room) => {
                let name = (path, room);
                if self.pending.get(&name).is_some_and(|(pending, _)| *pending == ticket) {
                    self.pending.remove(&name);
                    if is_deaf {
                        self.deaf.insert(name);
                    } else {
                        self.deaf.remove(&name);
                    }
                }
            }
            None => {
                if let Some(held) = self.namespaces.get_mut(&path)
                    && held.pending.take_if(|(pending, _)| *pending == ticket).is_some()
                {
                    held.deaf = is_deaf;
                }
            }
        }
        waiters
    }

    /// Asks once more for what is wanted already, without counting it twice.
    fn subscribe_again(&mut self, path: &NamespacePath, room: Option<&str>) -> Subscribed {
        let subscribed = self.subscribe(path, room);
        self.adapter.leave(path, room);
        subscribed
    }

    fn subscribe(&mut self, path: &NamespacePath, room: Option<&str>) -> Subscribed {
        let (sender, mut done) = oneshot::channel();
        let done_there = move |outcome| {
            // A shard that has ended does not miss it.
            let _ = sender.send(outcome);
        };
        self.adapter.join(path, room, Box::new(done_there));
        match done.try_recv() {
            Ok(JoinOutcome::Active) => return Subscribed::Active,
            Ok(JoinOutcome::Degraded) | Err(TryRecvError::Closed) => return Subscribed::Degraded,
            Err(TryRecvError::Empty) => {}
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.open.insert(ticket, Open { path: path.clone(), room: room.map(Rc::from), waiters: Vec::new() });
        self.completions.spawn(async move {
            Completion::Subscribed(ticket, done.await.unwrap_or(JoinOutcome::Degraded))
        });
        Subscribed::Pending(ticket)
    }
}

impl Subscribed {
    fn ticket(&self) -> Option<Ticket> {
        match self {
            Subscribed::Pending(ticket) => Some(*ticket),
            Subscribed::Active | Subscribed::Degraded => None,
        }
    }
}
