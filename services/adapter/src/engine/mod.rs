//! The thread of the broker: what the process asks for goes in, what the broker says comes back, and the machines decide.
//!
//! It owns membership, requests and publishes under way, and shares the table of interest with the handles. It waits for
//! nobody: orders and events are drained, and commands are given to the broker if there is room.

pub(crate) mod handle;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cluster_proto::error::EncodeError;
use cluster_proto::heartbeat::{NodeStatus, Role};
use cluster_proto::identity::{NodeId, NodeUid, RequestId};
use cluster_proto::message::ClusterMessage;
use socketio_proto::namespace::NamespacePath;
use tokio::sync::{mpsc, oneshot};

use self::handle::{Handle, Order, Outcome, Settings};
use crate::broker::event::{self, EventSource};
use crate::broker::{
    Broker, Command, Delivery, Edges, Event, Gap, Incoming, Interest, Publication, PublishError, Topic, Wire,
};
use crate::cluster::duplicates::Duplicates;
use crate::cluster::peers::{Own, Peer, PeerEvent, Peers};
use crate::cluster::requests::{self, RequestEnd, RequestEvent, RequestSink, Requests};
use crate::local::{LocalSockets, Replier};
use crate::metrics::Metrics;

/// Commands that may wait for the broker.
const COMMANDS_MAX: usize = 64 * 1024;
/// Orders and events that are worked off before the timers are looked at.
const TURN_MAX: usize = 256;
/// Namespaces in which this node may ask without having sockets there.
const ANSWERS_MAX: usize = 10_000;
/// How long each step of a goodbye may take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// What is known of a publish until the broker has answered.
struct Publish {
    bytes: usize,
    confirm: Option<oneshot::Sender<Outcome>>,
    request: Option<RequestId>,
}

/// A request that waits until its answers can be heard.
struct Held {
    message: ClusterMessage,
    bytes: usize,
    deadline: Instant,
    sink: RequestSink,
    /// Who wants to know whether the broker has it.
    confirm: Option<oneshot::Sender<Outcome>>,
}

/// The thread's own state.
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
    publishes: HashMap<u64, Publish>,
    /// Counts of listeners under way, and whether this node is among them.
    counts: HashMap<u64, (RequestId, bool)>,
    answers_open: HashSet<NamespacePath>,
    held: Vec<Held>,
    unsubscribe: Vec<Topic>,
    next_number: u64,
    /// A gap is to be reported once everything is restored.
    is_restoring: bool,
    /// The other nodes know that this one is back.
    has_introduced: bool,
    /// Why the broker was away when that was last logged.
    last_reason: String,
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
        publishes: HashMap::new(),
        counts: HashMap::new(),
        answers_open: HashSet::new(),
        held: Vec::new(),
        unsubscribe: Vec::new(),
        next_number: 0,
        is_restoring: false,
        has_introduced: false,
        last_reason: String::new(),
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
            let due = self.poll_timeout();
            if due != fires_at {
                fires_at = due;
                due.into_iter().for_each(|due| timer.as_mut().reset(due.into()));
            }
            let order = tokio::select! {
                order = self.orders.recv() => Some(order?),
                event = self.events.next() => {
                    self.handle_event(Instant::now(), event?);
                    None
                }
                () = handle.wake.notified() => None,
                () = &mut timer, if fires_at.is_some() => {
                    fires_at = None;
                    None
                }
            };
            if let Some(goodbye) = self.turn(order) {
                self.say_goodbye(Instant::now()).await;
                return Some(goodbye);
            }
            if self.handle.is_abandoned.load(Ordering::Relaxed) {
                self.say_goodbye(Instant::now()).await;
                return None;
            }
            self.handle_timeout(Instant::now());
        }
    }

    /// Works off what has come meanwhile, orders and events in turn.
    fn turn(&mut self, first: Option<Order>) -> Option<oneshot::Sender<()>> {
        let now = Instant::now();
        let mut order = first;
        for _ in 0..TURN_MAX {
            let event = self.events.try_next();
            let is_idle = order.is_none() && event.is_none();
            if let Some(event) = event {
                self.handle_event(now, event);
            }
            match order.take() {
                Some(Order::Leave(goodbye)) => return Some(goodbye),
                Some(order) => self.handle_order(now, order),
                None if is_idle => return None,
                None => {}
            }
            order = self.orders.try_recv().ok();
        }
        match order {
            Some(Order::Leave(goodbye)) => Some(goodbye),
            Some(order) => {
                self.handle_order(now, order);
                None
            }
            None => None,
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

    // ---- what the process wants ----

    fn handle_order(&mut self, now: Instant, order: Order) {
        match order {
            Order::Publish { message, bytes, confirm } => {
                self.publish(message, Publish { bytes, confirm, request: None });
            }
            Order::Request { message, bytes, deadline, sink, confirm } => {
                self.handle.metrics.requests.add(1);
                self.request(now, Held { message, bytes, deadline, sink, confirm });
            }
            Order::Respond { namespace, asker, response, bytes } => {
                let encoded = self.handle.wire.encode_response(&namespace, asker.as_ref(), &response);
                let publish = Publish { bytes, confirm: None, request: None };
                self.send(encoded.map(|publication| vec![publication]), publish);
            }
            Order::Status(status) => {
                if let Some(peers) = &mut self.peers {
                    peers.set_status(now, status);
                }
            }
            Order::Solicit => {
                if let Some(peers) = &mut self.peers {
                    peers.solicit(now);
                }
            }
            // Taken out before: it ends the run.
            Order::Leave(_) => {}
        }
    }

    fn publish(&mut self, mut message: ClusterMessage, publish: Publish) {
        message.sender = self.handle.node().map(NodeUid::of_node);
        let encoded = match &self.peers {
            Some(peers) => self.handle.wire.encode_message(&message, &Living(peers)),
            None => Ok(Vec::new()),
        };
        self.send(encoded, publish);
    }

    fn send(&mut self, encoded: Result<Vec<Publication>, EncodeError>, publish: Publish) {
        let refusal = match encoded {
            Err(error) => PublishError::Encode(error),
            Ok(_) if !self.handle.is_up.load(Ordering::Relaxed) => PublishError::Away,
            Ok(publications) => {
                let (count, number) = (publications.len() as u64, self.number());
                match self.commands.try_send(Command::Publish { publications, number }) {
                    Ok(()) => {
                        self.handle.metrics.published.add(count);
                        self.publishes.insert(number, publish);
                        return;
                    }
                    Err(_) => PublishError::Full,
                }
            }
        };
        self.handle.release(publish.bytes);
        self.tell(publish.confirm, publish.request, Err(refusal));
    }

    /// Tells everybody concerned how a publish ended.
    fn tell(
        &mut self,
        confirm: Option<oneshot::Sender<Outcome>>,
        request: Option<RequestId>,
        outcome: Outcome,
    ) {
        if let Err(error) = &outcome {
            self.handle.metrics.publish_failed.add(1);
            tracing::debug!(%error, "a message was not published");
            if let Some(request) = request {
                self.requests.handle_unpublished(&request);
            }
        }
        if let Some(confirm) = confirm {
            let _ = confirm.send(outcome);
        }
    }

    /// Asks, or holds the request until its answers can be heard.
    fn request(&mut self, now: Instant, held: Held) {
        let waiting = self.requests.len() + self.held.len();
        let namespace = held.message.namespace.clone();
        let Some(node) = self.handle.node().filter(|_| waiting < self.handle.settings.requests_max) else {
            return self.refuse_request(held, PublishError::TooManyRequests);
        };
        let topics = self.handle.wire.topics(node, &Interest::Answers(&namespace));
        if self.are_active(&topics) {
            return self.ask(held);
        }
        if !self.answers_open.contains(&namespace) {
            if self.answers_open.len() >= ANSWERS_MAX {
                return self.refuse_request(held, PublishError::TooManyRequests);
            }
            // Kept for as long as the node lives: who asked once asks again.
            self.answers_open.insert(namespace);
            let finished = self.handle.interests().join(now, &topics, None, Box::new(|_| {}));
            self.handle.finish(finished);
        }
        self.held.push(held);
    }

    fn are_active(&self, topics: &[Topic]) -> bool {
        let interests = self.handle.interests();
        topics.iter().all(|topic| interests.is_active(topic))
    }

    fn refuse_request(&self, mut held: Held, refusal: PublishError) {
        self.handle.release(held.bytes);
        self.handle.metrics.requests_incomplete.add(1);
        (held.sink)(RequestEvent::End(RequestEnd { unpublished: true, ..RequestEnd::default() }));
        if let Some(confirm) = held.confirm.take() {
            let _ = confirm.send(Err(refusal));
        }
    }

    /// Publishes a request whose answers can be heard.
    fn ask(&mut self, held: Held) {
        let Held { message, bytes, deadline, sink, confirm } = held;
        let Some(request) = requests::answered(&message.operation).map(|(request, _)| request.clone()) else {
            return;
        };
        let audience = self.handle.wire.audience(&message.namespace);
        let nodes: Vec<NodeId> = self.peers.iter().flat_map(Peers::edges).collect();
        let sink = self.counting(sink);
        self.requests.begin(&message.operation, nodes.into_iter(), audience.is_some(), deadline, sink);
        if let Some(audience) = audience {
            let counts_self = self.are_active(&[Topic::Channel(audience.edges.as_str().into())]);
            let number = self.number();
            self.counts.insert(number, (request.clone(), counts_self));
            if self.commands.try_send(Command::Count { audience, number }).is_err() {
                self.handle_counted(number, None);
            }
        }
        self.publish(message, Publish { bytes, confirm, request: Some(request) });
    }

    fn counting(&self, mut sink: RequestSink) -> RequestSink {
        let metrics = self.handle.metrics.clone();
        Box::new(move |event| {
            if let RequestEvent::End(end) = &event
                && (end.timed_out || end.unpublished || !end.missing.is_empty())
            {
                metrics.requests_incomplete.add(1);
            }
            sink(event);
        })
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    // ---- what the broker says ----

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Up { node } => self.handle_up(now, node),
            Event::Down { reason } => self.handle_down(&reason),
            Event::Subscribed(batch) => self.handle_subscribed(now, batch),
            Event::Published { number, outcome } => {
                if let Some(publish) = self.publishes.get_mut(&number) {
                    let (confirm, request) = (publish.confirm.take(), publish.request.take());
                    self.tell(confirm, request, outcome);
                }
            }
            Event::Released { number } => {
                if let Some(publish) = self.publishes.remove(&number) {
                    self.handle.release(publish.bytes);
                }
            }
            Event::Counted { number, listeners } => self.handle_counted(number, listeners),
            Event::Delivery(delivery) => self.handle_delivery(now, &delivery),
            Event::Gap(gap) => self.tell_gap(gap),
            Event::ClaimLost => self.lose_identity(),
        }
    }

    fn handle_up(&mut self, now: Instant, node: NodeId) {
        let handle = self.handle.clone();
        if handle.node.set(node).is_ok() {
            let Settings { role, incarnation, peer_address, peers, .. } = handle.settings.clone();
            self.peers = Some(Peers::new(now, Own { node, incarnation, role, peer_address }, peers));
            let topics = handle.wire.topics(node, &Interest::Own(role));
            // Nobody waits for it: the others are greeted once it is active.
            let _ = handle.interests().join(now, &topics, None, Box::new(|_| {}));
        } else {
            self.is_restoring = true;
        }
        tracing::info!(%node, "the broker is connected");
        handle.metrics.connects.add(1);
        handle.interests().handle_up();
        handle.is_up.store(true, Ordering::Relaxed);
        self.has_introduced = false;
    }

    fn handle_down(&mut self, reason: &str) {
        let handle = self.handle.clone();
        let was_up = handle.is_up.swap(false, Ordering::Relaxed);
        handle.metrics.disconnects.add(u64::from(was_up));
        if was_up || self.last_reason != reason {
            tracing::warn!(reason, "the broker is away; local delivery goes on");
            reason.clone_into(&mut self.last_reason);
        }
        handle.set_degraded();
        let finished = handle.interests().handle_down();
        handle.finish(finished);
        if let Some(peers) = &mut self.peers {
            peers.handle_down();
        }
        self.unsubscribe.clear();
        for held in std::mem::take(&mut self.held) {
            self.refuse_request(held, PublishError::Away);
        }
    }

    fn handle_subscribed(&mut self, now: Instant, batch: u64) {
        let finished = self.handle.interests().handle_subscribed(now, batch);
        self.handle.finish(finished);
        // What the node itself needs to hear is the oldest interest, and so in the first batch.
        if !std::mem::replace(&mut self.has_introduced, true)
            && let Some(peers) = &mut self.peers
        {
            peers.handle_up(now);
        }
        for held in std::mem::take(&mut self.held) {
            self.request(now, held);
        }
    }

    fn handle_counted(&mut self, number: u64, listeners: Option<(u64, u64)>) {
        let Some((request, counts_self)) = self.counts.remove(&number) else { return };
        // Without a count every living edge is waited for, and no Node server.
        let (edges, node_servers) = listeners.map_or((u64::MAX, 0), |(everybody, edges)| {
            (edges.saturating_sub(u64::from(counts_self)), everybody.saturating_sub(edges))
        });
        self.requests.handle_counted(&request, edges, node_servers);
    }

    fn handle_delivery(&mut self, now: Instant, delivery: &Delivery) {
        let metrics = self.handle.metrics.clone();
        metrics.received.add(1);
        metrics.received_bytes.add(delivery.body.len() as u64);
        let own = self.handle.node().map(NodeUid::of_node);
        if own.is_some() && self.handle.wire.sender(delivery) == own.as_ref().map(NodeUid::as_str) {
            metrics.echoes.add(1);
            return;
        }
        if self.concerns_nobody(delivery) {
            metrics.passed_over.add(1);
            return;
        }
        match self.handle.wire.decode(delivery) {
            Ok(Some(Incoming::Message(message))) if message.sender.is_some() && message.sender == own => {
                metrics.echoes.add(1);
            }
            Ok(Some(Incoming::Message(message))) => self.handle_message(now, message),
            Ok(Some(Incoming::Response(response))) => {
                if !self.requests.handle_response(response) {
                    metrics.responses_unknown.add(1);
                }
            }
            Ok(Some(Incoming::Heartbeat(heartbeat))) => {
                metrics.heartbeats.add(1);
                if let Some(peers) = &mut self.peers {
                    peers.handle_heartbeat(now, &heartbeat);
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "a message of another node was refused");
                metrics.refuse(error.reason());
            }
        }
    }

    /// Whether a message says outside its body that no room of this node is meant.
    fn concerns_nobody(&self, delivery: &Delivery) -> bool {
        let Some(hashes) = &delivery.room_hashes else { return false };
        let interests = self.handle.interests();
        !hashes.iter().any(|hash| interests.holds_mark(*hash))
    }

    fn handle_message(&mut self, now: Instant, message: ClusterMessage) {
        if self.handle.settings.role == Role::Emitter {
            return;
        }
        if let Some(key) = &message.id
            && !self.duplicates.is_new(now, key)
        {
            self.handle.metrics.duplicates.add(1);
            return;
        }
        let reply = requests::answered(&message.operation).map(|(request, _)| Replier {
            handle: self.handle.clone(),
            namespace: message.namespace.clone(),
            asker: message.sender.clone(),
            request: request.clone(),
        });
        self.handle.metrics.messages.add(1);
        self.local.handle_message(message, reply);
    }

    fn handle_peer(&mut self, event: &PeerEvent) {
        match event {
            PeerEvent::Joined(_) | PeerEvent::Changed(_) => {}
            PeerEvent::Left(node) => self.requests.handle_lost(*node),
            PeerEvent::Died(node) => {
                tracing::warn!(%node, "a node of the cluster has gone silent");
                self.handle.metrics.nodes_died.add(1);
                self.requests.handle_lost(*node);
            }
            PeerEvent::Restarted(peer) => self.requests.handle_lost(peer.node),
            PeerEvent::OwnIdTaken => self.lose_identity(),
        }
        self.local.handle_peer(event);
    }

    fn lose_identity(&mut self) {
        self.handle.metrics.claims_lost.add(1);
        if std::mem::replace(&mut self.has_lost_identity, true) {
            return;
        }
        tracing::error!("another process has this node's id; this one must start again under another");
        self.local.handle_identity_lost();
    }

    fn tell_gap(&self, gap: Gap) {
        self.handle.metrics.gaps.add(1);
        self.local.handle_gap(gap);
    }

    // ---- time ----

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
        if self.unsubscribe.is_empty()
            && let Some((batch, topics)) = interests.poll_batch()
            && self.commands.try_send(Command::Subscribe { topics, batch }).is_err()
        {
            interests.give_back(batch);
        }
        let (is_whole, held) = (interests.is_whole(), interests.held());
        drop(interests);
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
        metrics.publish_bytes.set(handle.publish_bytes() as u64);
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
            self.next_number += 1;
            let number = self.next_number;
            match self.handle.wire.encode_heartbeat(&heartbeat) {
                // The next one comes soon: nobody waits for the outcome of this.
                Ok(publication) => {
                    let publications = vec![publication];
                    let _ = self.commands.try_send(Command::Publish { publications, number });
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

/// The edges as the machine of membership knows them.
struct Living<'a>(&'a Peers);

impl Edges for Living<'_> {
    fn is_edge(&self, node: NodeId) -> bool {
        self.0.is_edge(node)
    }

    fn others(&self) -> Vec<NodeId> {
        self.0.edges().collect()
    }
}
