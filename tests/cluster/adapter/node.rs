//! A node of a test cluster: an adapter, and sockets that write down what they hear.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adapter::Status;
use adapter::adapter::{Adapter, Identity, Starting};
use adapter::broker::memory::MemoryBus;
use adapter::broker::{Gap, PublishError};
use adapter::cluster::peers::PeerEvent;
use adapter::cluster::requests::{RequestEnd, RequestEvent};
use adapter::config::{BrokerConfig, BrokerKind, ClusterConfig};
use adapter::interest::JoinOutcome;
use adapter::local::{LocalSockets, Replier};
use cluster_proto::broadcast::{BroadcastOptions, Selector};
use cluster_proto::heartbeat::Role;
use cluster_proto::identity::{NodeId, RequestId};
use cluster_proto::message::{ClusterMessage, JsonData, Operation};
use cluster_proto::response::{Answer, ClusterResponse, RemoteSocket};
use socketio_proto::namespace::NamespacePath;

/// Long for a machine that is busy with other tests; nothing waits so long when all is well.
pub(crate) const WITHIN: Duration = Duration::from_secs(10);

/// How long a node may be silent.
pub(crate) const DEAD_AFTER_MS: u64 = 6_000;

/// Where nodes are started.
pub(crate) struct Cluster {
    pub(crate) broker: BrokerConfig,
    pub(crate) cluster: ClusterConfig,
    bus: Option<MemoryBus>,
}

impl Cluster {
    fn new(broker: BrokerConfig, bus: Option<MemoryBus>) -> Self {
        // A join waits for its subscription here, however busy the machine.
        let broker = BrokerConfig { subscribe_timeout_ms: 10_000, ..broker };
        // After its broker's return a node may take two seconds to try again, and is not dead meanwhile.
        let cluster =
            ClusterConfig { heartbeat_ms: 200, dead_after_ms: DEAD_AFTER_MS, ..ClusterConfig::default() };
        Self { broker, cluster, bus }
    }

    pub(crate) fn memory() -> Self {
        Self::new(BrokerConfig::default(), Some(MemoryBus::new()))
    }

    pub(crate) fn memory_with_bus() -> (Self, MemoryBus) {
        let bus = MemoryBus::new();
        (Self::new(BrokerConfig::default(), Some(bus.clone())), bus)
    }

    pub(crate) fn redis(url: &str) -> Self {
        let mut broker = BrokerConfig { kind: BrokerKind::Redis, ..BrokerConfig::default() };
        broker.redis.url = url.to_owned();
        Self::new(broker, None)
    }

    pub(crate) fn rabbitmq(url: &str) -> Self {
        let mut broker = BrokerConfig { kind: BrokerKind::Rabbitmq, ..BrokerConfig::default() };
        broker.rabbitmq.urls = vec![url.to_owned()];
        Self::new(broker, None)
    }

    pub(crate) fn begin(&self, identity: &Identity) -> (Starting, Arc<Ears>) {
        let ears = Arc::new(Ears::default());
        let starting = match &self.bus {
            Some(bus) => {
                Adapter::start_on_bus(bus, &self.broker, &self.cluster, identity, ears.clone(), None)
            }
            None => Adapter::start(&self.broker, &self.cluster, identity, ears.clone(), None),
        };
        (starting.expect("an adapter"), ears)
    }

    /// An edge that can hear.
    pub(crate) fn edge(&self) -> TestNode {
        self.node(&Identity::new(Role::Edge))
    }

    pub(crate) fn node(&self, identity: &Identity) -> TestNode {
        let (starting, ears) = self.begin(identity);
        let adapter = block_on(async { tokio::time::timeout(WITHIN, starting.claimed()).await });
        let adapter = adapter.expect("a claim in time").expect("a running adapter");
        TestNode { adapter, ears }
    }

    /// So many edges that all know each other.
    pub(crate) fn edges(&self, count: usize) -> Vec<TestNode> {
        let nodes: Vec<TestNode> = (0..count).map(|_| self.edge()).collect();
        for node in &nodes {
            node.sees(count - 1);
        }
        nodes
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// What a node has heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) messages: Vec<ClusterMessage>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) peers: Vec<PeerEvent>,
    pub(crate) identity_lost: usize,
    /// How many sockets it says it has when asked; `None` keeps silent.
    pub(crate) sockets: Option<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Ears {
    heard: Mutex<Heard>,
    changed: Condvar,
}

impl Ears {
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Heard) -> T) -> T {
        let changed = change(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
        changed
    }

    /// Waits until something is found in what was heard.
    pub(crate) fn wait<T>(&self, what: &str, mut find: impl FnMut(&Heard) -> Option<T>) -> T {
        let deadline = Instant::now() + WITHIN;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = find(&heard) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: not in time; heard {heard:?}");
            heard = self.changed.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl LocalSockets for Ears {
    fn handle_message(&self, message: ClusterMessage, reply: Option<Replier>) {
        let sockets = self.change(|heard| heard.sockets);
        if let (Some(reply), Some(sockets)) = (reply, sockets) {
            match &message.operation {
                Operation::BroadcastWithAck { .. } => {
                    let sids: Vec<String> = (0..sockets).map(|number| format!("s{number}")).collect();
                    reply.answer(Answer::ClientCount { count: sockets as u64, sids: Some(sids.clone()) });
                    for sid in sids {
                        let args = JsonData::text(format!("[{sid:?}]"));
                        reply.answer(Answer::Ack { sid: Some(sid), args });
                    }
                }
                Operation::Fetch { page_sockets_max, .. } => {
                    let page = page_sockets_max.map_or(usize::MAX, |max| max as usize).min(sockets.max(1));
                    let all: Vec<RemoteSocket> = (0..sockets)
                        .map(|number| RemoteSocket { id: format!("s{number}"), ..RemoteSocket::default() })
                        .collect();
                    let mut pages = all.chunks(page).peekable();
                    if pages.peek().is_none() {
                        reply.answer(Answer::Sockets { sockets: Vec::new(), more: false, through: None });
                    }
                    while let Some(page) = pages.next() {
                        let more = pages.peek().is_some();
                        reply.answer(Answer::Sockets { sockets: page.to_vec(), more, through: None });
                    }
                }
                Operation::Rooms { .. } => {
                    reply.answer(Answer::Rooms(vec!["r".to_owned()]));
                }
                Operation::ServerSideEmit { .. } => {
                    reply.answer(Answer::ServerSideEmit(Some("1".to_owned())));
                }
                Operation::Broadcast { .. }
                | Operation::Join { .. }
                | Operation::Leave { .. }
                | Operation::Disconnect { .. }
                | Operation::Update { .. }
                | Operation::SocketIds { .. } => {
                    reply.answer(Answer::Done { sockets: Some(sockets as u64) });
                }
            }
        }
        self.change(|heard| heard.messages.push(message));
    }

    fn handle_gap(&self, gap: Gap) {
        self.change(|heard| heard.gaps.push(gap));
    }

    fn handle_peer(&self, event: &PeerEvent) {
        self.change(|heard| heard.peers.push(event.clone()));
    }

    fn handle_identity_lost(&self) {
        self.change(|heard| heard.identity_lost += 1);
    }
}

pub(crate) struct TestNode {
    pub(crate) adapter: Adapter,
    pub(crate) ears: Arc<Ears>,
}

pub(crate) fn namespace(path: &str) -> NamespacePath {
    NamespacePath::parse(path).expect("a namespace")
}

/// An event for rooms, as one node publishes it.
pub(crate) fn broadcast(path: &str, rooms: &[&str], event: &str) -> ClusterMessage {
    let selector =
        Selector { rooms: rooms.iter().map(|room| (*room).to_owned()).collect(), except: Vec::new() };
    let options = BroadcastOptions { selector, ..BroadcastOptions::default() };
    let operation = Operation::Broadcast { event: JsonData::text(format!("[{event:?}]")), options };
    message(path, operation)
}

pub(crate) fn message(path: &str, operation: Operation) -> ClusterMessage {
    ClusterMessage { sender: None, namespace: namespace(path), id: None, trace_parent: None, operation }
}

/// The name of the event, if it is one.
pub(crate) fn event_of(message: &ClusterMessage) -> Option<String> {
    let (Operation::Broadcast { event, .. } | Operation::BroadcastWithAck { event, .. }) = &message.operation
    else {
        return None;
    };
    Some(event.text.trim_matches(['[', ']', '"']).to_owned())
}

impl TestNode {
    /// Joins and waits until it is done.
    pub(crate) fn join(&self, path: &str, room: Option<&str>) -> JoinOutcome {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let done = Box::new(move |outcome| sender.send(outcome).expect("the test waits"));
        self.adapter.join(&namespace(path), room, done);
        receiver.recv_timeout(WITHIN).expect("a join that is done")
    }

    pub(crate) fn joined(&self, path: &str, room: Option<&str>) {
        assert_eq!(self.join(path, room), JoinOutcome::Active, "{path} {room:?}");
    }

    pub(crate) fn publish(&self, path: &str, rooms: &[&str], event: &str) {
        self.adapter.publish(broadcast(path, rooms, event)).expect("a broker that takes it");
    }

    pub(crate) fn confirmed(&self, path: &str, rooms: &[&str], event: &str) -> Result<(), PublishError> {
        block_on(self.adapter.publish_confirmed(broadcast(path, rooms, event)))
    }

    /// The names of all events heard so far.
    pub(crate) fn events(&self) -> Vec<String> {
        self.ears.change(|heard| heard.messages.iter().filter_map(event_of).collect())
    }

    /// Waits until an event was heard.
    pub(crate) fn hears(&self, event: &str) {
        self.ears.wait(event, |heard| {
            heard.messages.iter().any(|message| event_of(message).as_deref() == Some(event)).then_some(())
        });
    }

    pub(crate) fn forget(&self) {
        self.ears.change(|heard| heard.messages.clear());
    }

    /// Waits until it knows so many other nodes.
    pub(crate) fn sees(&self, count: usize) {
        self.eventually("other nodes", || self.adapter.nodes().len() == count);
    }

    pub(crate) fn eventually(&self, what: &str, holds: impl FnMut() -> bool) {
        system_tests::brokers::wait_until(what, WITHIN, holds);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.adapter.status() == Status::Ready
    }

    /// A socket id of this node.
    pub(crate) fn sid(&self, rest: u8) -> String {
        sid_of(self.adapter.node(), rest)
    }

    /// Asks and waits for the end; the answers and the end.
    pub(crate) fn ask(
        &self,
        timeout: Duration,
        operation: impl FnOnce(RequestId) -> Operation,
    ) -> (Vec<ClusterResponse>, RequestEnd) {
        let (sender, receiver) = std::sync::mpsc::sync_channel(100_000);
        let request = message("/", operation(self.adapter.request_id()));
        let sink = Box::new(move |event| sender.send(event).expect("the test waits"));
        self.adapter.request(request, timeout, sink).expect("a request that is published");
        let mut answers = Vec::new();
        loop {
            match receiver.recv_timeout(WITHIN + timeout).expect("an end") {
                RequestEvent::Answer(answer) => answers.push(answer),
                RequestEvent::End(end) => return (answers, end),
            }
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        block_on(self.adapter.shut_down());
    }
}

pub(crate) fn sid_of(node: NodeId, rest: u8) -> String {
    format!("{node}abcdefghijklmn{rest:02}")
}
