//! The sockets of this node, as the cluster sees them.

use std::fmt;
use std::sync::Arc;

use cluster_proto::identity::{NodeUid, RequestId};
use cluster_proto::message::ClusterMessage;
use cluster_proto::response::{Answer, ClusterResponse};
use socketio_proto::namespace::NamespacePath;

use crate::broker::Gap;
use crate::cluster::peers::PeerEvent;
use crate::engine::handle::Handle;

/// Implemented by whoever holds sockets. Every call comes from the link, in the order in which things arrived, and must not
/// block, for clients may be served on the same thread: it posts to queues of its own, and sheds what they do not take.
pub trait LocalSockets: Send + Sync {
    /// Another node or emitter asks for something. With a `reply`, this node answers through it: a broadcast with acks by a
    /// count and then each ack, a fetch by its pages, everything else by one answer; also when it holds no socket that is meant.
    fn handle_message(&self, message: ClusterMessage, reply: Option<Replier>);

    /// Messages of other nodes may have been missed.
    fn handle_gap(&self, gap: Gap);

    /// A node has come, changed, left or died.
    fn handle_peer(&self, _event: &PeerEvent) {}

    /// Another process has this node's id: the node must drain and start again under another.
    fn handle_identity_lost(&self);
}

/// Holds no socket: what an emitter gives.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSockets;

impl LocalSockets for NoSockets {
    fn handle_message(&self, _message: ClusterMessage, _reply: Option<Replier>) {}

    fn handle_gap(&self, _gap: Gap) {}

    fn handle_identity_lost(&self) {}
}

/// Answers one request. May be cloned, kept and used from any thread; it never blocks.
#[derive(Clone)]
pub struct Replier {
    pub(crate) handle: Arc<Handle>,
    pub(crate) namespace: NamespacePath,
    pub(crate) asker: Option<NodeUid>,
    pub(crate) request: RequestId,
}

impl Replier {
    /// The request that is answered.
    #[must_use]
    pub fn request(&self) -> &RequestId {
        &self.request
    }

    /// Sends one answer; whether it is on its way. It is dropped while the broker is away or too much waits for it: whoever
    /// answers in parts sends no more then, so that the asker names this node as missing.
    pub fn answer(&self, answer: Answer) -> bool {
        let request = self.request.clone();
        let node = self.handle.node();
        self.handle.respond(
            self.namespace.clone(),
            self.asker.clone(),
            ClusterResponse { request, node, answer },
        )
    }
}

impl fmt::Debug for Replier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replier").field("request", &self.request).finish_non_exhaustive()
    }
}
