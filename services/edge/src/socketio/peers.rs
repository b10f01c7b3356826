//! The other shards of this edge: what is broadcast here is broadcast there.
//!
//! A shard whose inbox is full keeps its sender waiting: the message is tried again with every tick, and until
//! then nothing is read from the client that caused it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::inbox::{Outlet, SendError};
use crate::rooms::fan_out::Broadcast;
use crate::session::registry::SessionKey;
use crate::shard::ShardMessage;

/// Bytes counted for a broadcast beside its payload.
const BROADCAST_OVERHEAD_BYTES: usize = 256;

/// What shards tell each other.
#[derive(Clone, Debug)]
pub enum Remote {
    /// A broadcast, to be delivered there too.
    Broadcast(Arc<Broadcast>),
}

/// The inboxes of the other shards.
#[derive(Debug)]
pub struct Peers {
    outlets: Vec<Outlet<ShardMessage<Remote>>>,
    unsent: VecDeque<(usize, Arc<Broadcast>)>,
    paused: Vec<SessionKey>,
}

impl Peers {
    /// All outlets but the shard's own.
    pub fn new(outlets: Vec<Outlet<ShardMessage<Remote>>>) -> Peers {
        Peers { outlets, unsent: VecDeque::new(), paused: Vec::new() }
    }

    /// Passes a broadcast on; `false` when it has to wait, and with it the session that caused it.
    pub fn broadcast(&mut self, broadcast: &Arc<Broadcast>, cause: SessionKey) -> bool {
        let mut sent = true;
        for peer in 0..self.outlets.len() {
            // Behind one that waits, all wait: the order of broadcasts is kept.
            let waits = self.unsent.iter().any(|(waiting, _)| *waiting == peer);
            if waits || !self.send(peer, broadcast.clone()) {
                self.unsent.push_back((peer, broadcast.clone()));
                sent = false;
            }
        }
        if !sent && !self.paused.contains(&cause) {
            self.paused.push(cause);
        }
        sent
    }

    fn send(&self, peer: usize, broadcast: Arc<Broadcast>) -> bool {
        let bytes = broadcast.packet.bytes() + BROADCAST_OVERHEAD_BYTES;
        let message = ShardMessage::App(Remote::Broadcast(broadcast));
        match self.outlets.get(peer).map(|outlet| outlet.send(message, bytes)) {
            Some(Err(SendError::Full(_))) => false,
            // A shard that has ended has no sockets left.
            Some(Ok(()) | Err(SendError::Closed(_))) | None => true,
        }
    }

    /// Tries again what had to wait; the sessions that may be read again once nothing waits.
    pub fn retry(&mut self) -> Vec<SessionKey> {
        while let Some((peer, broadcast)) = self.unsent.pop_front() {
            if !self.send(peer, broadcast.clone()) {
                self.unsent.push_front((peer, broadcast));
                return Vec::new();
            }
        }
        std::mem::take(&mut self.paused)
    }
}
