//! The external system that carries messages, behind one trait.
//!
//! A driver is a [`Wire`], which knows names and bytes, and a [`Broker`], which knows connections. A broker keeps no
//! wishes of its own: it connects, says so, does what it is told, and says when it is away. What is wanted is in
//! [`crate::interest`], and after each [`Event::Up`] it is told anew.
//!
//! - [`event`]: the bounded queue from a broker to the engine
//! - [`publish`]: one publish, from its order to its outcome
//! - [`window`]: those that the broker has not confirmed yet
//! - [`backoff`]: how long to wait before the next attempt
//! - [`renewal`]: one connection after the other
//! - [`memory`]: adapters of one process, for tests and for a single node
//! - [`redis`], [`rabbitmq`]: the real ones; the client of the latter is named nowhere else

pub mod backoff;
pub mod event;
pub mod memory;
pub mod publish;
pub mod rabbitmq;
pub mod redis;
pub mod renewal;
pub mod window;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use cluster_proto::error::{DecodeError, EncodeError};
use cluster_proto::heartbeat::{Heartbeat, Role};
use cluster_proto::identity::{NodeId, NodeUid, RequestId};
use cluster_proto::message::ClusterMessage;
use cluster_proto::response::ClusterResponse;
use socketio_proto::namespace::NamespacePath;
use tokio::sync::mpsc;

use crate::broker::event::EventSink;
use crate::broker::publish::Publish;

/// An address at a broker that a node listens to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Exactly this channel or routing key.
    Channel(Arc<str>),
    /// Every channel that matches.
    Pattern(Arc<str>),
}

impl Topic {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Channel(text) | Self::Pattern(text) => text,
        }
    }
}

/// Something that a node may want to hear.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Interest<'a> {
    /// What every node hears: heartbeats, and for an edge what its sockets are sent.
    Own(Role),
    /// What an edge hears of a namespace that has members here.
    Namespace(&'a NamespacePath),
    /// What is sent to a room that has members here.
    Room(&'a NamespacePath, &'a str),
    /// Answers to requests in a namespace.
    Answers(&'a NamespacePath),
    /// What an edge subscribes to last, to show that it misses nothing else.
    Whole,
}

/// One message on its way to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The channel or routing key.
    pub key: String,
    /// Further routing keys; a node that listens to several gets one copy.
    pub further: Vec<String>,
    /// Who sends it, where that travels outside the body.
    pub sender: Option<NodeUid>,
    /// The hashes of its rooms, where they travel outside the body.
    pub room_hashes: Option<Vec<u32>>,
    /// The message.
    pub body: Bytes,
}

impl Publication {
    /// A message for one channel, with nothing outside the body.
    #[must_use]
    pub fn plain(key: String, body: Vec<u8>) -> Self {
        Self { key, further: Vec::new(), sender: None, room_hashes: None, body: body.into() }
    }
}

/// One message from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The channel or routing key that it was published to.
    pub key: String,
    /// The hashes of its rooms, if they are said outside the body.
    pub room_hashes: Option<Vec<u32>>,
    /// The message.
    pub body: Bytes,
}

impl Delivery {
    /// Bytes that it holds, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const OVERHEAD: usize = 256;
        self.body.len() + self.key.len() + OVERHEAD
    }
}

/// A delivery, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Something is asked of this node.
    Message(ClusterMessage),
    /// An answer to somebody's request.
    Response(ClusterResponse),
    /// Somebody is there.
    Heartbeat(Heartbeat),
}

/// Channels whose subscribers tell how many edges and how many Node servers hear a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience {
    /// Node servers and our edges listen here.
    pub everybody: String,
    /// Only our edges listen here.
    pub edges: String,
    /// Our edges listen here, whatever namespaces they have, as long as they miss no subscription.
    pub whole: String,
}

/// How many listen to the channels of an [`Audience`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listeners {
    /// Node servers and our edges.
    pub everybody: u64,
    /// Our edges that have the namespace open.
    pub edges: u64,
    /// Our edges that miss no subscription.
    pub whole: u64,
}

/// What the nodes are that hold clients, as far as this one knows.
pub trait Edges {
    /// Whether this id is a living edge.
    fn is_edge(&self, node: NodeId) -> bool;
    /// The living edges, without ourselves.
    fn others(&self) -> Vec<NodeId>;
}

/// Names and bytes of one kind of broker. It has no state that changes.
pub trait Wire: Send + Sync + fmt::Debug {
    /// The topics of an interest; none if there is nothing to hear.
    fn topics(&self, node: NodeId, interest: &Interest<'_>) -> Vec<Topic>;

    /// The hash of a room, where messages carry hashes outside the body.
    fn mark(&self, _namespace: &NamespacePath, _room: &str) -> Option<u32> {
        None
    }

    /// How the Node servers of a namespace are counted, if there can be any.
    fn audience(&self, _namespace: &NamespacePath) -> Option<Audience> {
        None
    }

    /// Encodes a message: one publication, or several where owners are addressed one by one.
    ///
    /// # Errors
    /// [`EncodeError`] if this wire cannot say it.
    fn encode_message(
        &self,
        message: &ClusterMessage,
        edges: &dyn Edges,
    ) -> Result<Vec<Publication>, EncodeError>;

    /// Encodes an answer to a request that `asker` made in a namespace.
    ///
    /// # Errors
    /// [`EncodeError`] if this wire cannot say it, or the asker cannot be addressed.
    fn encode_response(
        &self,
        namespace: &NamespacePath,
        asker: Option<&NodeUid>,
        response: &ClusterResponse,
    ) -> Result<Publication, EncodeError>;

    /// Encodes a heartbeat.
    ///
    /// # Errors
    /// [`EncodeError`] if this wire cannot say it.
    fn encode_heartbeat(&self, heartbeat: &Heartbeat) -> Result<Publication, EncodeError>;

    /// Decodes a delivery; `None` for what concerns nobody.
    ///
    /// # Errors
    /// [`DecodeError`] if it is refused.
    fn decode(&self, delivery: &Delivery) -> Result<Option<Incoming>, DecodeError>;
}

/// The node id in a uid, if it is that of one of our nodes.
#[must_use]
pub fn node_of(uid: &NodeUid) -> Option<NodeId> {
    let text = uid.as_str();
    let at = text.len().checked_sub(cluster_proto::identity::NODE_ID_CHARS)?;
    let node = NodeId::parse(text.get(at..)?)?;
    (NodeUid::of_node(node) == *uid).then_some(node)
}

/// What a broker is told to do.
#[derive(Debug)]
pub enum Command {
    /// Publish, once and in this order, and tell the outcome.
    Publish {
        /// The messages.
        publications: Vec<Publication>,
        /// Who is told.
        publish: Publish,
    },
    /// Subscribe, and report the fence.
    Subscribe {
        /// The topics.
        topics: Vec<Topic>,
        /// The number of the batch.
        batch: u64,
    },
    /// End subscriptions.
    Unsubscribe(Vec<Topic>),
    /// Count who listens.
    Count {
        /// Where.
        audience: Audience,
        /// Under which the result is reported.
        number: u64,
    },
    /// Give up the claim on the node id and close.
    Close,
}

/// Why a publish failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker is away; nobody got it.
    #[error("the broker is away")]
    Away,
    /// Too much waits for the broker; nobody got it.
    #[error("too much waits for the broker")]
    Full,
    /// The broker did not answer in time, or the connection broke meanwhile: it is not known who got it.
    #[error("the broker did not answer: the outcome is unknown")]
    Unknown,
    /// The broker refused it.
    #[error("the broker refused it: {0}")]
    Refused(String),
    /// It has no form on this wire.
    #[error("{0}")]
    Encode(EncodeError),
    /// Too many requests wait for answers.
    #[error("too many requests wait for answers")]
    TooManyRequests,
    /// The operation expects no answer.
    #[error("the operation expects no answer")]
    NoRequest,
}

/// Why messages of other nodes may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// The broker was away.
    Reconnected,
    /// This node was too slow to take so many messages.
    Lagged(u64),
    /// The broker dropped messages because too many waited for this node.
    Overflowed,
}

/// What a broker tells.
#[derive(Debug)]
pub enum Event {
    /// The node id is claimed and the connection is ready; it knows of no subscription.
    Up {
        /// The id. It never changes after the first time.
        node: NodeId,
        /// Where the broker is, for the log: `host:port`.
        at: String,
    },
    /// The connection is gone, and with it every subscription.
    Down {
        /// Where and why, for the log.
        reason: String,
    },
    /// Everything in this batch is active.
    Subscribed(u64),
    /// A request was not published, or it is not known whether it was.
    Unpublished(RequestId),
    /// How many listen to the channels of an audience.
    Counted {
        /// The number of the question.
        number: u64,
        /// The count; `None` if the broker did not say.
        listeners: Option<Listeners>,
    },
    /// A message.
    Delivery(Delivery),
    /// Messages may have been missed.
    Gap(Gap),
    /// Another process has our node id.
    ClaimLost,
}

/// Who connects.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The id to claim; without one a random id is drawn until one is free.
    pub node: Option<NodeId>,
    /// Tells this process from others under the same id.
    pub incarnation: u64,
    /// What kind of process it is.
    pub role: Role,
    /// Where its peer listener is.
    pub peer_address: Option<String>,
    /// Time between two heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
}

impl Claimant {
    /// What stands in the claim of an id.
    #[must_use]
    pub fn heartbeat(&self, node: NodeId) -> Heartbeat {
        Heartbeat {
            node,
            incarnation: self.incarnation,
            sequence: 0,
            role: self.role,
            status: cluster_proto::heartbeat::NodeStatus::Serving,
            interval_ms: self.heartbeat_ms,
            peer_address: self.peer_address.clone(),
            solicits: false,
        }
    }

    /// The id to try: the one that was held before, the one that was asked for, or a random one.
    ///
    /// # Errors
    /// When the system has no random numbers to give.
    pub fn candidate(&self, held: Option<NodeId>) -> Result<NodeId, getrandom::Error> {
        if let Some(node) = held.or(self.node) {
            return Ok(node);
        }
        let mut bytes = [0; 3];
        getrandom::fill(&mut bytes)?;
        Ok(NodeId::from_bytes(bytes))
    }
}

/// A future of a driver.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection to a broker that renews itself for ever.
pub trait Broker: Send {
    /// Runs until it is told to close or the commands end. Reads commands also while it is away, and never stops reading
    /// messages. What this node sent itself, as far as that can be told without decoding it, is counted and not delivered.
    fn run(self: Box<Self>, commands: mpsc::Receiver<Command>, events: EventSink) -> Running;
}
