//! The other shards of this edge: what is broadcast here is broadcast there.
//!
//! A shard whose inbox is full keeps its sender waiting: the message is tried again with every tick, and until
//! then nothing is read from the client that caused it. Beyond a bound that client is closed.

use std::collections::VecDeque;
use std::sync::Arc;

use cluster_proto::broadcast::Selector;

use super::gather::Ask;
use crate::inbox::{Outlet, SendError};
use crate::metrics::ShardMetrics;
use crate::rooms::fan_out::Broadcast;
use crate::session::registry::SessionKey;
use crate::shard::ShardMessage;

/// Bytes counted for a broadcast beside its payload.
const BROADCAST_OVERHEAD_BYTES: usize = 256;

/// What a shard is told by others: its siblings, the application's own threads, and the cluster.
#[derive(Clone, Debug)]
pub enum Remote {
    /// A broadcast, to be delivered there too.
    Broadcast(Arc<Broadcast>),
    /// A question to every shard.
    Ask(Arc<Ask>),
}

/// The inboxes of the other shards.
#[derive(Debug)]
pub struct Siblings {
    siblings: Vec<Sibling>,
    unsent_bytes: usize,
    unsent_bytes_max: usize,
    paused: Vec<SessionKey>,
    metrics: Arc<ShardMetrics>,
}

/// What became of a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// Every other shard has it.
    On,
    /// It has to wait for at least one of them; nothing more should be read from the client that caused it.
    Waits,
    /// Too much waits already: no other shard gets it.
    Refused,
}

impl Siblings {
    /// All outlets but the shard's own; at most `unsent_bytes_max` wait for them.
    pub fn new(
        outlets: Vec<Outlet<ShardMessage<Remote>>>,
        unsent_bytes_max: usize,
        metrics: Arc<ShardMetrics>,
    ) -> Siblings {
        let siblings =
            outlets.into_iter().map(|outlet| Sibling { outlet, unsent: VecDeque::new() }).collect();
        Siblings { siblings, unsent_bytes: 0, unsent_bytes_max, paused: Vec::new(), metrics }
    }

    /// Passes a broadcast on.
    pub fn broadcast(&mut self, broadcast: &Arc<Broadcast>, cause: SessionKey) -> Passed {
        if self.unsent_bytes > 0 && self.unsent_bytes + broadcast_weight(broadcast) > self.unsent_bytes_max {
            return Passed::Refused;
        }
        let mut passed = Passed::On;
        for sibling in &mut self.siblings {
            // Behind one that waits, all wait: the order of broadcasts is kept.
            if !sibling.unsent.is_empty() || !sibling.send(broadcast) {
                sibling.unsent.push_back(broadcast.clone());
                self.unsent_bytes += broadcast_weight(broadcast);
                passed = Passed::Waits;
            }
        }
        if passed == Passed::Waits {
            self.metrics.unsent_bytes.set(self.unsent_bytes as u64);
            if !self.paused.contains(&cause) {
                self.paused.push(cause);
            }
        }
        passed
    }

    /// Tries again what had to wait; the sessions that may be read again once nothing waits.
    pub fn retry(&mut self) -> Vec<SessionKey> {
        if self.unsent_bytes == 0 {
            return Vec::new();
        }
        for sibling in &mut self.siblings {
            while let Some(broadcast) = sibling.unsent.front() {
                if !sibling.send(broadcast) {
                    break;
                }
                self.unsent_bytes = self.unsent_bytes.saturating_sub(broadcast_weight(broadcast));
                sibling.unsent.pop_front();
            }
        }
        self.metrics.unsent_bytes.set(self.unsent_bytes as u64);
        if self.unsent_bytes == 0 { std::mem::take(&mut self.paused) } else { Vec::new() }
    }
}

/// One other shard, and the broadcasts that wait for room in its inbox.
#[derive(Debug)]
struct Sibling {
    outlet: Outlet<ShardMessage<Remote>>,
    unsent: VecDeque<Arc<Broadcast>>,
}

impl Sibling {
    fn send(&self, broadcast: &Arc<Broadcast>) -> bool {
        let message = ShardMessage::App(Remote::Broadcast(broadcast.clone()));
        // A shard that has ended has no sockets left.
        !matches!(self.outlet.offer(message, broadcast_weight(broadcast)), Err(SendError::Full(_)))
    }
}

/// Bytes that a broadcast is counted with in the queue of a shard.
pub(super) fn broadcast_weight(broadcast: &Broadcast) -> usize {
    let Selector { rooms, except } = &broadcast.selector;
    let names = rooms.iter().chain(except).map(|name| name.len() + size_of::<String>());
    broadcast.packet.bytes() + names.sum::<usize>() + BROADCAST_OVERHEAD_BYTES
}
