//! The link to the cluster: what the process asks for goes in, what the broker says comes back, and the machines decide.
//!
//! It owns membership and requests, and shares the table of interest with the handles. It waits for nobody: orders and
//! events are drained, some at a time, and commands are given to the broker if there is room.
//!
//! - [`handle`]: what it shares with the process
//! - `orders`: what the process wants
//! - `events`: what the broker says

mod events;
pub(crate) mod handle;
mod orders;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cluster_proto::heartbeat::NodeStatus;
use cluster_proto::identity::RequestId;
use cluster_proto::message::ClusterMessage;
use socketio_proto::namespace::NamespacePath;
use tokio::sync::{mpsc, oneshot};

use self::handle::{Handle, Order, Settings};
use crate::broker::event::{self, EventSource};
use crate::broker::publish::Publish;
use crate::broker::{Broker, Command, Gap, PublishError, Topic, Wire};
use crate::cluster::duplicates::Duplicates;
use crate::cluster::peers::{Peer, Peers};
use crate::cluster::requests::{RequestSink, Requests};
use crate::local::LocalSockets;
use crate::metrics::Metrics;

/// Commands that may wait for the broker.
const COMMANDS_MAX: usize = 64 * 1024;
/// Orders, and events, that are worked off before timers and whatever else runs on the thread have their turn.
const TURN_MAX: usize = 256;
/// How long each step of a goodbye may take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// A request that waits until its answers can be heard.
struct Held {
    message: ClusterMessage,
    publish: Publish,
    deadline: Instant,
    sink: RequestSink,
}

/// A request whose listeners are being counted.
struct Asked {
    request: RequestId,
    /// This node is one of them.
    counts_self: bool,
    /// This node is among the edges that miss no subscription.
    is_whole: bool,
}

/// What a turn has left behind.
enum Left {
    /// Nothing.
    Nothing,
    /// There may be more to do.
    More,
    /// The node leaves.
    Leave(oneshot::Sender<()>),
}

/// The state of the link.
struct Engine {
    handle: Arc<Handle>,
    local: Arc<dyn LocalSockets>,
    orders: mpsc::Receiver<Order>,
    commands: mpsc::Sender<Command>,
    events: EventSource,
    /// There once the node has an id.
    peers: Option<Peers>,
    requests: Requests,
    duplicates: Duplicates,
    /// Counts of listeners under way.
    counts: HashMap<u64, Asked>,
    answers_open: HashSet<NamespacePath>,
    held: Vec<Held>,
    unsubscribe: Vec<Topic>,
    next_number: u64,
    /// Something has come that the machines may have to act on: more than messages that only pass through.
    is_stirred: bool,
    /// A gap is to be reported once everything is restored.
    is_restoring: bool,
    /// The other nodes know that this one is back.
    has_introduced: bool,
    /// What was logged of why the broker is away.
    reasons: BTreeSet<String>,
    up_since: Option<Instant>,
    has_lost_identity: bool,
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Whoever asks later must not believe in a link that nobody keeps up.
        self.handle.is_up.store(false, Ordering::Relaxed);
        self.handle.set_degraded();
        let finished = self.handle.interests().handle_down();
        self.handle.finish(finished);
    }
}

/// Makes an engine on a broker; the future is to be given a thread with a runtime.
pub(crate) fn engine(
    settings: Settings,
    wire: Arc<dyn Wire>,
    local: Arc<dyn LocalSockets>,
    broker: Box<dyn Broker>,
    metrics: Arc<Metrics>,
) -> (Arc<Handle>, impl Future<Output = ()> + Send) {
    let (commands, command_receiver) = mpsc::channel(COMMANDS_MAX);
    let (sink, events) = event::queue(settings.receive_bytes_max, metrics.clone());
    let keys_max = settings.keys_max;
    let (handle, orders) = Handle::new(settings, wire, metrics);
    let handle = Arc::new(handle);
    let engine = Engine {
        handle: handle.clone(),
        local,
        orders,
        commands,
        events,
        peers: None,
        requests: Requests::default(),
        duplicates: Duplicates::new(keys_max),
        counts: HashMap::new(),
        answers_open: HashSet::new(),
        held: Vec::new(),
        unsubscribe: Vec::new(),
        next_number: 0,
        is_stirred: false,
        is_restoring: false,
        has_introduced: false,
        reasons: BTreeSet::new(),
        up_since: None,
        has_lost_identity: false,
    };
    let run = async move {
        let broker = tokio::spawn(broker.run(command_receiver, sink));
        let goodbye = Box::pin(engine.run()).await;
        // It was told to close, and is not waited for longer than a goodbye takes.
        let abort = broker.abort_handle();
        if tokio::time::timeout(GOODBYE_MAX, broker).await.is_err() {
            abort.abort();
        }
        if let Some(goodbye) = goodbye {
            let _ = goodbye.send(());
        }
    };
    (handle, run)
}

impl Engine {
    /// Runs until told to leave, until nobody holds a handle, or until the broker has ended.
    async fn run(mut self) -> Option<oneshot::Sender<()>> {
        let handle = self.handle.clone();
        // One timer, set anew only when it is to fire at another time.
        let mut timer = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let mut fires_at = None;
        loop {
            let order = tokio::select! {
                order = self.orders.recv() => Some(order?),
                event = self.events.next() => {
                    self.handle_event(Instant::now(), event?);
                    None
                }
                () = handle.wake.notified() => {
                    self.is_stirred = true;
                    None
                }
                () = &mut timer, if fires_at.is_some() => {
                    self.is_stirred = true;
                    fires_at = None;
                    None
                }
            };
            let left = self.turn(order);
            if let Left::Leave(goodbye) = left {
                self.say_goodbye(Instant::now()).await;
                return Some(goodbye);
            }
            if self.handle.is_abandoned.load(Ordering::Relaxed) {
                self.say_goodbye(Instant::now()).await;
                return None;
            }
            // Most turns pass messages through, and there are many.
            if std::mem::take(&mut self.is_stirred) || self.events.has_gap() {
                self.handle_timeout(Instant::now());
                let due = self.poll_timeout();
                if due != fires_at {
                    fires_at = due;
                    due.into_iter().for_each(|due| timer.as_mut().reset(due.into()));
                }
            }
            if matches!(left, Left::More) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Works off what has come meanwhile, orders and events in turn.
    fn turn(&mut self, first: Option<Order>) -> Left {
        let now = Instant::now();
        let mut order = first;
        for _ in 0..TURN_MAX {
            let event = self.events.try_next();
            let is_idle = order.is_none() && event.is_none();
            if let Some(event) = event {
                self.handle_event(now, event);
            }
            match order.take() {
                Some(Order::Leave(goodbye)) => return Left::Leave(goodbye),
                Some(order) => self.handle_order(now, order),
                None if is_idle => return Left::Nothing,
                None => {}
            }
            order = self.orders.try_recv().ok();
        }
        match order {
            Some(Order::Leave(goodbye)) => Left::Leave(goodbye),
            Some(order) => {
                self.handle_order(now, order);
                Left::More
            }
            None => Left::More,
        }
    }

    async fn say_goodbye(&mut self, now: Instant) {
        self.handle.is_up.store(false, Ordering::Relaxed);
        if let Some(peers) = &mut self.peers {
            peers.set_status(now, NodeStatus::Gone);
        }
        self.flush();
        let _ = tokio::time::timeout(GOODBYE_MAX, self.commands.send(Command::Close)).await;
        // What the broker still has to say must not stop it.
        let drained = async { while self.events.next().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE_MAX, drained).await;
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let peers = self.peers.as_ref().and_then(Peers::poll_timeout);
        let interests = self.handle.interests().poll_timeout();
        let held = self.held.iter().map(|held| held.deadline).min();
        [peers, interests, held, self.requests.poll_timeout()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        let finished = self.handle.interests().handle_timeout(now);
        self.handle.finish(finished);
        self.requests.handle_timeout(now);
        if let Some(peers) = &mut self.peers {
            peers.handle_timeout(now);
        }
        let late: Vec<Held> = self.held.extract_if(.., |held| held.deadline <= now).collect();
        for held in late {
            self.refuse_request(held, PublishError::Away);
        }
        self.flush();
    }

    /// Hands over what the machines have to say.
    fn flush(&mut self) {
        let handle = self.handle.clone();
        let mut interests = handle.interests();
        // In this order: a topic that was given up and is wanted again must end up subscribed to.
        self.unsubscribe.extend(interests.poll_unwanted());
        if !self.unsubscribe.is_empty()
            && let Ok(permit) = self.commands.try_reserve()
        {
            permit.send(Command::Unsubscribe(std::mem::take(&mut self.unsubscribe)));
        }
        // What found no room is tried again at the next turn.
        self.is_stirred |= !self.unsubscribe.is_empty();
        if self.unsubscribe.is_empty()
            && let Some((batch, topics)) = interests.poll_batch()
            && self.commands.try_send(Command::Subscribe { topics, batch }).is_err()
        {
            interests.give_back(batch);
            self.is_stirred = true;
        }
        let (is_whole, held, finished) = (interests.is_whole(), interests.held(), interests.poll_finished());
        drop(interests);
        handle.finish(finished);
        self.flush_peers();
        if is_whole {
            self.note_whole(held.topics);
        }
        if let Some(gap) = self.events.take_gap() {
            self.tell_gap(gap);
        }
        let metrics = &handle.metrics;
        metrics.up.set(u64::from(handle.is_up.load(Ordering::Relaxed)));
        metrics.whole.set(u64::from(is_whole));
        metrics.subscriptions.set(held.topics as u64);
        metrics.subscriptions_wanted.set(held.wanted as u64);
        metrics.subscriptions_lingering.set(held.lingering as u64);
        metrics.requests_pending.set((self.requests.len() + self.held.len()) as u64);
    }

    fn note_whole(&mut self, subscriptions: usize) {
        if self.handle.set_whole() {
            tracing::info!(subscriptions, "every subscription is active");
            if std::mem::take(&mut self.is_restoring) {
                self.tell_gap(Gap::Reconnected);
            }
        }
        let claimed = &self.handle.claimed;
        if claimed.borrow().is_none() {
            claimed.send_replace(self.handle.node());
        }
    }

    fn flush_peers(&mut self) {
        let Some(peers) = &mut self.peers else { return };
        while let Some(heartbeat) = peers.poll_transmit() {
            match self.handle.wire.encode_heartbeat(&heartbeat) {
                // The next one comes soon: nobody waits for the outcome of this.
                Ok(publication) => {
                    let (publications, publish) = (vec![publication], self.handle.budget.unattended());
                    let _ = self.commands.try_send(Command::Publish { publications, publish });
                }
                Err(error) => tracing::error!(%error, "a heartbeat cannot be written"),
            }
        }
        let mut changes = Vec::new();
        while let Some(event) = peers.poll_event() {
            changes.push(event);
        }
        if changes.is_empty() {
            return;
        }
        let all: Arc<[Peer]> = peers.all().into();
        self.handle.metrics.nodes.set(all.len() as u64);
        self.handle.set_nodes(all);
        for event in &changes {
            self.handle_peer(event);
        }
    }
}
