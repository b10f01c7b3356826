//! Who is there: what our nodes tell each other about themselves, on a channel that is none of Node's.
//!
//! The same bytes are the value of a node's claim at the broker, so that a node that was never heard of can be looked up.

use crate::identity::{NodeId, NodeUid};

/// What a node says about itself every `cluster.heartbeat_ms`, and whenever its status changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The node.
    pub node: NodeId,
    /// Random, drawn when the process started: tells two lives of one node id apart.
    pub incarnation: u64,
    /// Counts up with every heartbeat, so that an old one that arrives late is known.
    pub sequence: u64,
    /// What kind of process it is.
    pub role: Role,
    /// How it is.
    pub status: NodeStatus,
    /// The time until its next heartbeat, in milliseconds.
    pub interval_ms: u64,
    /// Where its peer listener is reached, `host:port`; an emitter has none. At most 256 bytes.
    pub peer_address: Option<String>,
    /// Asks every node for a heartbeat at once.
    pub solicits: bool,
}

impl Heartbeat {
    /// The name under which this node's other messages travel.
    #[must_use]
    pub fn uid(&self) -> NodeUid {
        NodeUid::of_node(self.node)
    }
}

/// What kind of process a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It holds clients and answers requests.
    Edge,
    /// It only publishes.
    Emitter,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Emitter => "emitter",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "edge" => Some(Self::Edge),
            "emitter" => Some(Self::Emitter),
            _ => None,
        }
    }
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeStatus {
    /// It takes clients.
    Serving,
    /// It takes no new clients and is closing those that it has; it still answers.
    Draining,
    /// It is gone for good as of this message: nobody waits for it any longer.
    Gone,
}

impl NodeStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "serving" => Some(Self::Serving),
            "draining" => Some(Self::Draining),
            "gone" => Some(Self::Gone),
            _ => None,
        }
    }
}
