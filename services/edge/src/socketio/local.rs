//! What the cluster wants of this node's sockets, handed to the shards.
//!
//! The link to the cluster must never wait: a broadcast that finds the queue of a shard nearly full is left out there
//! and counted, and a question that does not fit is not answered. An order that is lost would leave the node with a
//! wrong state, so the node must start again then.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use adapter::broker::Gap;
use adapter::cluster::peers::PeerEvent;
use adapter::local::{LocalSockets, Replier};
use cluster_proto::identity::NodeId;
use cluster_proto::listing::Listing;
use cluster_proto::message::{Change, ClusterMessage, Operation};
use smallvec::SmallVec;
use socketio_proto::namespace::NamespacePath;
use socketio_proto::packet::PacketType;
use tokio::sync::watch;

use super::gather::{Ask, Gather, Sink};
use super::siblings::{Remote, broadcast_weight};
use super::socket::parse_name;
use crate::inbox::{Outlet, SendError};
use crate::metrics::Metrics;
use crate::rooms::fan_out::{Broadcast, OutPacket};
use crate::shard::ShardMessage;

/// Bytes counted for a question beside what it carries.
const ASK_OVERHEAD_BYTES: usize = 512;

/// Why an edge must close its sessions and start anew, under another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Another process has this node's id.
    IdentityLost,
    /// A shard had no room for something that must not be lost.
    Overflowed,
}

impl Fate {
    /// The same for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Fate::IdentityLost => "another process has this node's id",
            Fate::Overflowed => "a shard had no room for what other nodes asked",
        }
    }
}

/// The shards, as the cluster and the application see them.
#[derive(Debug)]
pub struct LocalShards {
    outlets: Vec<Outlet<ShardMessage<Remote>>>,
    node: OnceLock<NodeId>,
    metrics: Arc<Metrics>,
    fate: watch::Sender<Option<Fate>>,
    lag: Lag,
}

/// Messages that this node was too slow to take and that the log has not told yet: it does so once a second.
#[derive(Debug, Default)]
struct Lag(Mutex<(Option<Instant>, u64)>);

impl Lag {
    /// So many more; how many are to be told now.
    fn told(&self, now: Instant, count: u64) -> Option<u64> {
        let mut lag = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, untold) = &mut *lag;
        *untold = untold.saturating_add(count);
        if told.is_some_and(|told| now.saturating_duration_since(told) < Duration::from_secs(1)) {
            return None;
        }
        *told = Some(now);
        Some(std::mem::take(untold))
    }
}

impl LocalShards {
    /// The shards behind these queues, and what becomes of the edge.
    pub fn new(
        outlets: Vec<Outlet<ShardMessage<Remote>>>,
        metrics: Arc<Metrics>,
    ) -> (LocalShards, watch::Receiver<Option<Fate>>) {
        let (sender, fate) = watch::channel(None);
        let (node, lag) = (OnceLock::new(), Lag::default());
        (LocalShards { outlets, node, metrics, fate: sender, lag }, fate)
    }

    /// Says who this node is, once that is known.
    pub fn set_node(&self, node: NodeId) {
        // It never changes after the first time.
        let _ = self.node.set(node);
    }

    /// Delivers a broadcast on the shards that it may concern, but for those that have no room.
    pub fn broadcast(&self, broadcast: &Arc<Broadcast>) {
        let bytes = broadcast_weight(broadcast);
        for (index, outlet) in self.concerned(broadcast) {
            let message = ShardMessage::App(Remote::Broadcast(broadcast.clone()));
            if let Err(SendError::Full(_)) = outlet.offer(message, bytes)
                && let Some(metrics) = self.metrics.shards().get(index)
            {
                metrics.broadcasts_shed.add_shared(1);
            }
        }
    }

    /// The shards of single sockets, if a broadcast names only those; else all.
    fn concerned(&self, broadcast: &Broadcast) -> Vec<(usize, &Outlet<ShardMessage<Remote>>)> {
        let path = broadcast.namespace.as_str();
        let rooms = &broadcast.selector.rooms;
        let owner = |room: &String| {
            let id = parse_name(path, room)?;
            (self.node.get() == Some(&id.node())).then(|| id.shard())
        };
        let owners: Option<SmallVec<[usize; 4]>> = rooms.iter().map(owner).collect();
        let owners = owners.filter(|owners| !owners.is_empty());
        let is_concerned = |index: &usize| owners.as_ref().is_none_or(|owners| owners.contains(index));
        self.outlets.iter().enumerate().filter(|(index, _)| is_concerned(index)).collect()
    }

    /// Asks every shard; the answers of the node go to `sink`.
    pub fn ask(&self, namespace: NamespacePath, operation: Operation, sink: Option<Sink>) {
        let is_event = matches!(operation, Operation::ServerSideEmit { .. });
        let changes_sockets = match &operation {
            Operation::Join { .. }
            | Operation::Leave { .. }
            | Operation::Disconnect { .. }
            | Operation::Update { .. } => true,
            Operation::Broadcast { .. }
            | Operation::BroadcastWithAck { .. }
            | Operation::Fetch { .. }
            | Operation::Rooms { .. }
            | Operation::SocketIds { .. }
            | Operation::ServerSideEmit { .. } => false,
        };
        let bytes = weight(&operation) + ASK_OVERHEAD_BYTES;
        let gather = Gather::new(self.outlets.len(), &operation, sink);
        let ask = Arc::new(Ask { namespace, operation, gather });
        // The application hears an event once, however many shards it runs on.
        let shards = if is_event { 1 } else { self.outlets.len() };
        for outlet in self.outlets.iter().take(shards) {
            let message = ShardMessage::App(Remote::Ask(ask.clone()));
            let Err(error) = outlet.send(message, bytes) else { continue };
            ask.gather.pass_over();
            if changes_sockets && matches!(error, SendError::Full(_)) {
                // A question that is lost leaves a node that did not answer; an order leaves a wrong state.
                self.end(Fate::Overflowed);
            }
        }
    }

    fn end(&self, fate: Fate) {
        let is_news = self.fate.send_if_modified(|known| known.replace(fate).is_none());
        if is_news {
            tracing::error!("{}: every session is closed, and the edge starts again", fate.as_str());
        }
    }
}

impl LocalSockets for LocalShards {
    fn handle_message(&self, message: ClusterMessage, reply: Option<Replier>) {
        let ClusterMessage { namespace, operation, .. } = message;
        if let Operation::Broadcast { event, options } = operation {
            let packet = OutPacket {
                packet_type: PacketType::Event,
                ack_id: None,
                data: event.text,
                attachments: event.attachments,
                binary: event.binary,
            };
            let volatile = options.flags.volatile;
            self.broadcast(&Arc::new(Broadcast { namespace, selector: options.selector, packet, volatile }));
            return;
        }
        let sink = reply.map(|reply| -> Sink { Box::new(move |answer| reply.answer(answer)) });
        self.ask(namespace, operation, sink);
    }

    fn handle_gap(&self, gap: Gap) {
        // Counted by the adapter. Until packets can be recovered, all that can be done is to say so.
        let gap = match gap {
            Gap::Lagged(count) => self.lag.told(Instant::now(), count).map(Gap::Lagged),
            Gap::Reconnected | Gap::Overflowed => Some(gap),
        };
        if let Some(gap) = gap {
            tracing::warn!(?gap, "events of other nodes may have been missed");
        }
    }

    fn handle_peer(&self, event: &PeerEvent) {
        match event {
            PeerEvent::Joined(peer) => tracing::info!(node = %peer.node, "a node has joined the cluster"),
            PeerEvent::Left(node) => tracing::info!(%node, "a node has left the cluster"),
            PeerEvent::Restarted(peer) => tracing::info!(node = %peer.node, "a node has started again"),
            // Deaths and stolen ids are logged where they are found out.
            PeerEvent::Changed(_) | PeerEvent::Died(_) | PeerEvent::OwnIdTaken => {}
        }
    }

    fn handle_identity_lost(&self) {
        self.end(Fate::IdentityLost);
    }
}

fn weight(operation: &Operation) -> usize {
    match operation {
        Operation::Broadcast { event, .. }
        | Operation::BroadcastWithAck { event, .. }
        | Operation::ServerSideEmit { event, .. } => event.bytes_len(),
        Operation::Join { selector, rooms, .. } | Operation::Leave { selector, rooms, .. } => {
            names(&selector.rooms) + names(&selector.except) + names(rooms)
        }
        Operation::Update { selector, update, .. } => {
            let data = match &update.data {
                Change::Set(data) => data.len(),
                Change::Keep | Change::Clear => 0,
            };
            names(&selector.rooms) + names(&selector.except) + data
        }
        Operation::Disconnect { selector, .. } => names(&selector.rooms) + names(&selector.except),
        Operation::Fetch { selector, listing, .. } => {
            let listing = listing.as_ref().map_or(0, Listing::bytes_len);
            names(&selector.rooms) + names(&selector.except) + listing
        }
        Operation::Rooms { .. } => 0,
        Operation::SocketIds { rooms, .. } => names(rooms),
    }
}

fn names(names: &[String]) -> usize {
    names.iter().map(|name| name.len() + size_of::<String>()).sum()
}
