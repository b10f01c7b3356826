//! What the handles of a process and its link to the cluster share: a bounded queue of orders, the table of interest
//! behind a lock that is held for one change, and a few numbers.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cluster_proto::broadcast::Selector;
use cluster_proto::heartbeat::{NodeStatus, Role};
use cluster_proto::identity::{NodeId, NodeUid, RequestId};
use cluster_proto::listing::Listing;
use cluster_proto::message::{Change, ClusterMessage, Operation};
use cluster_proto::response::{Answer, ClusterResponse};
use socketio_proto::namespace::NamespacePath;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::broker::publish::{Budget, Outcome, Publish};
use crate::broker::{Interest, PublishError, Topic, Wire};
use crate::cluster::peers::{Peer, PeerLimits};
use crate::cluster::requests::{self, RequestSink};
use crate::interest::{Finished, InterestLimits, Interests, JoinDone, JoinOutcome};
use crate::metrics::Metrics;

/// Orders that may wait for the thread; most are bounded in bytes long before.
const ORDERS_MAX: usize = 64 * 1024;
/// Bytes counted for a publish beside its data: what the client of a broker keeps until it is answered.
const PUBLISH_OVERHEAD: usize = 8 * 1024;
/// The same for an answer, of which a question to many sockets has as many.
const ANSWER_OVERHEAD: usize = 2 * 1024;

/// What an adapter is made of, read from the configuration once.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) role: Role,
    pub(crate) incarnation: u64,
    pub(crate) peer_address: Option<String>,
    pub(crate) interest: InterestLimits,
    pub(crate) peers: PeerLimits,
    pub(crate) unready_after: Duration,
    pub(crate) publish_bytes_max: usize,
    pub(crate) receive_bytes_max: usize,
    pub(crate) requests_max: usize,
    pub(crate) keys_max: usize,
}

/// How the link to the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Every subscription is active.
    Ready,
    /// The broker is away, or subscriptions are being restored; for so long.
    Degraded(Duration),
    /// The same for longer than `broker.unready_after_ms`, or the link was never whole.
    NotReady(Duration),
}

/// What a handle wants of the thread.
pub(super) enum Order {
    Publish { message: ClusterMessage, publish: Publish },
    Request { message: ClusterMessage, publish: Publish, deadline: Instant, sink: RequestSink },
    Respond { namespace: NamespacePath, asker: Option<NodeUid>, response: ClusterResponse, publish: Publish },
    Status(NodeStatus),
    Solicit,
    Leave(oneshot::Sender<()>),
}

/// What handles and the thread share.
pub(crate) struct Handle {
    orders: mpsc::Sender<Order>,
    interests: Mutex<Interests>,
    pub(super) budget: Arc<Budget>,
    started: Instant,
    ever_whole: AtomicBool,
    /// Milliseconds from `started` to the moment since which the link is not whole, plus one; 0 while it is.
    degraded_since: AtomicU64,
    nodes: watch::Sender<Arc<[Peer]>>,
    request_count: AtomicU64,
    pub(crate) settings: Settings,
    pub(super) wire: Arc<dyn Wire>,
    /// The id of this node, once it is claimed.
    pub(super) node: OnceLock<NodeId>,
    /// Says that the id is claimed and everything of the node's own can be heard.
    pub(super) claimed: watch::Sender<Option<NodeId>>,
    /// Interest has changed.
    pub(super) wake: Notify,
    pub(super) is_up: AtomicBool,
    /// Nobody is left who could want anything.
    pub(super) is_abandoned: AtomicBool,
    pub(crate) metrics: Arc<Metrics>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        f.debug_struct("Handle").field("node", &self.node).field("status", &status).finish_non_exhaustive()
    }
}

impl Handle {
    /// A handle, and the queue that it fills.
    pub(super) fn new(
        settings: Settings,
        wire: Arc<dyn Wire>,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let handle = Self {
            orders,
            interests: Mutex::new(Interests::new(settings.interest)),
            budget: Budget::new(settings.publish_bytes_max, metrics.clone()),
            started: Instant::now(),
            ever_whole: AtomicBool::new(false),
            degraded_since: AtomicU64::new(1),
            nodes: watch::Sender::new(Arc::new([])),
            request_count: AtomicU64::new(0),
            settings,
            wire,
            node: OnceLock::new(),
            claimed: watch::Sender::new(None),
            wake: Notify::new(),
            is_up: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
            metrics,
        };
        (handle, receiver)
    }

    // ---- for the threads of the process ----

    pub(crate) fn node(&self) -> Option<NodeId> {
        self.node.get().copied()
    }

    /// Waits until the node can hear what is for it; `None` if the thread has ended.
    pub(crate) async fn claimed(&self) -> Option<NodeId> {
        let mut claimed = self.claimed.subscribe();
        tokio::select! {
            node = claimed.wait_for(Option::is_some) => node.ok().and_then(|node| *node),
            () = self.orders.closed() => None,
        }
    }

    pub(crate) fn publish(
        &self,
        message: ClusterMessage,
        confirm: Option<oneshot::Sender<Outcome>>,
    ) -> Result<(), PublishError> {
        let publish = self.reserve(weight(&message.operation))?.confirmed_to(confirm);
        self.order(Order::Publish { message, publish })
    }

    pub(crate) fn request(
        &self,
        message: ClusterMessage,
        timeout: Duration,
        sink: RequestSink,
        confirm: Option<oneshot::Sender<Outcome>>,
    ) -> Result<(), PublishError> {
        if requests::answered(&message.operation).is_none() {
            return Err(PublishError::NoRequest);
        }
        let publish = self.reserve(weight(&message.operation))?.confirmed_to(confirm);
        let deadline = Instant::now() + timeout;
        self.order(Order::Request { message, publish, deadline, sink })
    }

    pub(crate) fn respond(
        &self,
        namespace: NamespacePath,
        asker: Option<NodeUid>,
        response: ClusterResponse,
    ) -> bool {
        // Whoever asked finds out by the missing answer; the refusal is counted.
        let Ok(publish) = self.reserve(answer_weight(&response.answer)) else { return false };
        self.order(Order::Respond { namespace, asker, response, publish }).is_ok()
    }

    pub(crate) fn set_status(&self, status: NodeStatus) {
        let _ = self.orders.try_send(Order::Status(status));
    }

    pub(crate) fn solicit(&self) {
        let _ = self.orders.try_send(Order::Solicit);
    }

    /// Ends the thread, which says goodbye.
    pub(crate) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    pub(crate) async fn shut_down(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.orders.send(Order::Leave(sender)).await.is_ok() {
            let _ = receiver.await;
        }
    }

    pub(crate) fn join(&self, namespace: &NamespacePath, room: Option<&str>, done: JoinDone) {
        let Some((topics, mark)) = self.topics_of(namespace, room) else {
            return done(JoinOutcome::Degraded);
        };
        let finished = self.interests().join(Instant::now(), &topics, mark, done);
        if finished.is_empty() {
            self.wake.notify_one();
        }
        self.finish(finished);
    }

    pub(crate) fn leave(&self, namespace: &NamespacePath, room: Option<&str>) {
        let Some((topics, mark)) = self.topics_of(namespace, room) else { return };
        let mut interests = self.interests();
        let due = interests.poll_timeout();
        interests.leave(Instant::now(), &topics, mark);
        let is_stirred = interests.has_unwanted() || interests.poll_timeout() != due;
        drop(interests);
        if is_stirred {
            self.wake.notify_one();
        }
    }

    fn topics_of(&self, namespace: &NamespacePath, room: Option<&str>) -> Option<(Vec<Topic>, Option<u32>)> {
        let node = self.node()?;
        let interest = room.map_or(Interest::Namespace(namespace), |room| Interest::Room(namespace, room));
        let mark = room.and_then(|room| self.wire.mark(namespace, room));
        Some((self.wire.topics(node, &interest), mark))
    }

    pub(crate) fn status(&self) -> Status {
        let since = self.degraded_since.load(Ordering::Relaxed);
        let Some(since) = since.checked_sub(1) else { return Status::Ready };
        let degraded = self.started.elapsed().saturating_sub(Duration::from_millis(since));
        if degraded < self.settings.unready_after && self.ever_whole.load(Ordering::Relaxed) {
            Status::Degraded(degraded)
        } else {
            Status::NotReady(degraded)
        }
    }

    pub(crate) fn nodes(&self) -> Arc<[Peer]> {
        self.nodes.borrow().clone()
    }

    pub(crate) fn watch_nodes(&self) -> watch::Receiver<Arc<[Peer]>> {
        self.nodes.subscribe()
    }

    pub(crate) fn request_id(&self) -> RequestId {
        // Unique, not secret: six bytes for the process and six for the count.
        let life = self.settings.incarnation.to_be_bytes();
        let count = self.request_count.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut bytes = [0; 12];
        for (to, from) in bytes.iter_mut().zip(life.iter().take(6).chain(count.iter().skip(2))) {
            *to = *from;
        }
        RequestId::from_bytes(bytes)
    }

    /// Begins a publish, if the broker is there and takes more.
    fn reserve(&self, bytes: usize) -> Result<Publish, PublishError> {
        let reserved = if self.is_up.load(Ordering::Relaxed) {
            self.budget.reserve(bytes).ok_or(PublishError::Full)
        } else {
            Err(PublishError::Away)
        };
        reserved.inspect_err(|_| self.metrics.publish_refused.add(1))
    }

    fn order(&self, order: Order) -> Result<(), PublishError> {
        self.orders.try_send(order).map_err(|_| {
            self.metrics.publish_refused.add(1);
            PublishError::Full
        })
    }

    // ---- for the link ----

    pub(super) fn set_degraded(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        // Only the first moment counts.
        let _ = self.degraded_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether this is news.
    pub(super) fn set_whole(&self) -> bool {
        self.ever_whole.store(true, Ordering::Relaxed);
        self.degraded_since.swap(0, Ordering::Relaxed) != 0
    }

    pub(super) fn set_nodes(&self, nodes: Arc<[Peer]>) {
        self.nodes.send_replace(nodes);
    }

    pub(super) fn interests(&self) -> MutexGuard<'_, Interests> {
        // Every change is complete before the lock is given back.
        self.interests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls back; no lock may be held.
    pub(super) fn finish(&self, finished: Finished) {
        for (done, outcome) in finished {
            if outcome == JoinOutcome::Degraded {
                self.metrics.joins_degraded.add(1);
            }
            done(outcome);
        }
    }
}

/// Bytes that a message occupies until the broker has it, about.
fn weight(operation: &Operation) -> usize {
    let selected = |selector: &Selector| names(&selector.rooms) + names(&selector.except);
    let data = match operation {
        Operation::Broadcast { event, options } | Operation::BroadcastWithAck { event, options, .. } => {
            event.bytes_len() + selected(&options.selector)
        }
        Operation::Join { selector, rooms, .. } | Operation::Leave { selector, rooms, .. } => {
            selected(selector) + names(rooms)
        }
        Operation::Update { selector, update, .. } => {
            let data = match &update.data {
                Change::Set(data) => data.len(),
                Change::Keep | Change::Clear => 0,
            };
            selected(selector) + data
        }
        Operation::Disconnect { selector, .. } => selected(selector),
        Operation::Fetch { selector, listing, .. } => {
            selected(selector) + listing.as_ref().map_or(0, Listing::bytes_len)
        }
        Operation::Rooms { .. } => 0,
        Operation::SocketIds { rooms, .. } => names(rooms),
        Operation::ServerSideEmit { event, .. } => event.bytes_len(),
    };
    data + PUBLISH_OVERHEAD
}

fn answer_weight(answer: &Answer) -> usize {
    let data = match answer {
        Answer::ClientCount { sids, .. } => sids.as_deref().map_or(0, names),
        Answer::Ack { args, .. } => args.bytes_len(),
        Answer::Sockets { sockets, .. } => sockets
            .iter()
            .map(|socket| {
                let texts = [&socket.handshake, &socket.data, &socket.user];
                let texts: usize = texts.into_iter().flatten().map(String::len).sum();
                names(&socket.rooms) + texts + socket.id.len() + 64
            })
            .sum(),
        Answer::Counts { counts, .. } => counts.iter().map(|(name, _)| name.len() + 16).sum(),
        Answer::SocketIds(list) | Answer::Rooms(list) => names(list),
        Answer::ServerSideEmit(data) => data.as_ref().map_or(0, String::len),
        Answer::Done { .. } => 0,
    };
    data + ANSWER_OVERHEAD
}

fn names(names: &[String]) -> usize {
    names.iter().map(|name| name.len() + 8).sum()
}
