//! A broker inside one process: adapters that share a bus are a cluster.
//!
//! It speaks the wire of RabbitMQ, so that what holds on it holds on a real broker, and it can be taken away and
//! brought back. A single node has a bus of its own.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster_proto::heartbeat::Role;
use cluster_proto::identity::{NodeId, NodeUid};
use cluster_proto::rabbitmq::names;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::event::EventSink;
use super::{Broker, Claimant, Command, Delivery, Event, Publication, Running, Topic};

/// How long a node waits whose id another one holds.
const RETRY: Duration = Duration::from_millis(200);

/// What adapters of one process share.
#[derive(Debug, Clone)]
pub struct MemoryBus(Arc<Bus>);

#[derive(Debug)]
struct Bus {
    state: Mutex<State>,
    /// Read with every publish, so it is not behind the lock.
    edges: AtomicUsize,
    is_up: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    members: HashMap<u64, Member>,
    next: u64,
    claims: HashMap<NodeId, u64>,
}

#[derive(Debug)]
struct Member {
    role: Role,
    uid: NodeUid,
    topics: HashSet<Topic>,
    events: EventSink,
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBus {
    /// A bus without members.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Bus {
            state: Mutex::default(),
            edges: AtomicUsize::new(0),
            is_up: watch::Sender::new(true),
        }))
    }

    /// Takes the bus away from all its members, or brings it back. Claims are forgotten meanwhile.
    pub fn set_up(&self, is_up: bool) {
        if !is_up {
            self.state().claims.clear();
        }
        self.0.is_up.send_replace(is_up);
    }

    /// Edges that live, on the bus or waiting for it: nobody else hears what is published.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.0.edges.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before the lock is given back.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The only edge hears all that is for members of something, whether it has subscribed already or not: its joins are
    /// done at once.
    fn publish(&self, publication: &Publication, edges: usize) {
        let keys = || std::iter::once(&publication.key).chain(&publication.further);
        let topics: Vec<Topic> = keys().map(|key| Topic::Channel(key.as_str().into())).collect();
        let is_for_members = edges == 1 && keys().any(|key| names::is_for_members(key));
        for member in self.members.values() {
            let hears_all = is_for_members && member.role == Role::Edge;
            if !hears_all && !topics.iter().any(|topic| member.topics.contains(topic)) {
                continue;
            }
            if publication.sender.as_ref() == Some(&member.uid) {
                member.events.pass_echo(publication.body.len());
            } else {
                member.events.deliver(Delivery {
                    key: publication.key.clone(),
                    room_hashes: publication.room_hashes.clone(),
                    body: publication.body.clone(),
                });
            }
        }
    }
}

/// The driver.
#[derive(Debug)]
pub struct Memory {
    bus: MemoryBus,
    claimant: Claimant,
}

impl Memory {
    /// A driver on a bus.
    #[must_use]
    pub fn new(bus: MemoryBus, claimant: Claimant) -> Self {
        let driver = Self { bus, claimant };
        driver.bus.0.edges.fetch_add(driver.edges(), Ordering::Relaxed);
        driver
    }

    fn edges(&self) -> usize {
        usize::from(self.claimant.role == Role::Edge)
    }

    fn claim(&self, held: Option<NodeId>) -> Result<NodeId, String> {
        loop {
            let node = self.claimant.candidate(held).map_err(|error| error.to_string())?;
            let holder = *self.bus.state().claims.entry(node).or_insert(self.claimant.incarnation);
            if holder == self.claimant.incarnation {
                return Ok(node);
            }
            if held.is_some() || self.claimant.node.is_some() {
                return Err(format!("the node id {node} is claimed by another process"));
            }
        }
    }

    async fn keep(self, mut commands: mpsc::Receiver<Command>, events: EventSink) {
        let mut is_up = self.bus.0.is_up.subscribe();
        let mut held = None;
        loop {
            let reason = if *is_up.borrow_and_update() {
                match self.claim(held) {
                    Ok(node) => {
                        held = Some(node);
                        match self.serve(node, &mut is_up, &mut commands, &events).await {
                            Some(reason) => reason,
                            None => return,
                        }
                    }
                    Err(reason) => {
                        events.tell(Event::ClaimLost).await;
                        reason
                    }
                }
            } else {
                "the bus is away".to_owned()
            };
            events.tell(Event::Down { reason }).await;
            tokio::select! {
                _ = is_up.changed() => {}
                () = sleep(RETRY) => {}
                () = super::renewal::refuse(&mut commands, &events) => return,
            }
        }
    }

    /// Runs until the bus is taken away, and says so, or until the adapter closes.
    async fn serve(
        &self,
        node: NodeId,
        is_up: &mut watch::Receiver<bool>,
        commands: &mut mpsc::Receiver<Command>,
        events: &EventSink,
    ) -> Option<String> {
        let seat = Seat::take(&self.bus, self.claimant.role, node, events.clone());
        events.tell(Event::Up { node, at: "memory".to_owned() }).await;
        loop {
            tokio::select! {
                _ = is_up.changed() => return Some("the bus was taken away".to_owned()),
                command = commands.recv() => match command {
                    None | Some(Command::Close) => {
                        self.bus.state().claims.remove(&node);
                        return None;
                    }
                    Some(command) => seat.obey(command, events).await,
                },
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.bus.0.edges.fetch_sub(self.edges(), Ordering::Relaxed);
    }
}

impl Broker for Memory {
    fn run(self: Box<Self>, commands: mpsc::Receiver<Command>, events: EventSink) -> Running {
        Box::pin(self.keep(commands, events))
    }
}

/// A place on the bus, left when dropped.
struct Seat<'a> {
    bus: &'a MemoryBus,
    number: u64,
}

impl<'a> Seat<'a> {
    fn take(bus: &'a MemoryBus, role: Role, node: NodeId, events: EventSink) -> Self {
        let mut state = bus.state();
        let number = state.next;
        state.next += 1;
        let uid = NodeUid::of_node(node);
        state.members.insert(number, Member { role, uid, topics: HashSet::new(), events });
        Self { bus, number }
    }

    fn topics(&self, change: impl FnOnce(&mut HashSet<Topic>)) {
        if let Some(member) = self.bus.state().members.get_mut(&self.number) {
            change(&mut member.topics);
        }
    }

    async fn obey(&self, command: Command, events: &EventSink) {
        match command {
            Command::Close => {}
            Command::Publish { publications, mut publish } => {
                let edges = self.bus.edges();
                publications.iter().for_each(|publication| self.bus.state().publish(publication, edges));
                // It is no failure, so there is nothing to tell the engine.
                publish.tell(Ok(()));
            }
            Command::Subscribe { topics, batch } => {
                self.topics(|all| all.extend(topics));
                events.tell(Event::Subscribed(batch)).await;
            }
            Command::Unsubscribe(topics) => self.topics(|all| all.retain(|topic| !topics.contains(topic))),
            Command::Count { number, .. } => {
                events.tell(Event::Counted { number, listeners: None }).await;
            }
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.bus.state().members.remove(&self.number);
    }
}
