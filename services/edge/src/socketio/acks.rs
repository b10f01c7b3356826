//! Acknowledgements that clients still owe: for each socket, ack id to who waits; and broadcasts that asked many.
//!
//! The upstream, and broadcasts that ask for acks, fill it; the client's answer empties it, and it goes with the
//! socket. When it is full, an event that asks for one more is not sent. A broadcast stops waiting at its deadline.

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use slab::Slab;
use socketio_proto::packet::AckId;

use super::gather::Gather;
use crate::rooms::index::SocketKey;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The upstream, which gave this token.
    Upstream(u64),
    /// A broadcast.
    Broadcast(BroadcastKey),
}

/// Names a broadcast that waits for acks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BroadcastKey(pub u32);

/// What one socket owes.
#[derive(Debug, Default)]
pub struct Acks {
    // Boxed: most sockets never owe anything.
    pending: Option<Box<HashMap<u64, Owner>>>,
}

/// A broadcast that waits for acks.
#[derive(Debug)]
pub struct Asking {
    /// Under which all its sockets were asked.
    pub id: AckId,
    /// Where the answers go.
    pub gather: Arc<Gather>,
    /// The sockets that were asked, whether or not they have answered.
    pub sockets: Vec<SocketKey>,
    deadline: Instant,
    /// How many have not answered; `None` before anybody was asked.
    left: Option<usize>,
}

/// The broadcasts of a shard that wait for acks.
#[derive(Debug, Default)]
pub struct Askings {
    slots: Slab<Asking>,
}

impl Askings {
    /// A broadcast is about to ask; nobody has been asked yet. `None` when the slots are used up.
    pub fn begin(&mut self, id: AckId, gather: Arc<Gather>, deadline: Instant) -> Option<BroadcastKey> {
        let key = u32::try_from(self.slots.vacant_key()).ok()?;
        self.slots.insert(Asking { id, gather, sockets: Vec::new(), deadline, left: None });
        Some(BroadcastKey(key))
    }

    /// Writes down who was asked, and where their answers go; without anybody the broadcast is forgotten.
    pub fn asked(&mut self, key: BroadcastKey, sockets: &[SocketKey]) -> Option<Arc<Gather>> {
        let asking = self.slots.get_mut(key.0 as usize)?;
        let gather = asking.gather.clone();
        asking.left = Some(sockets.len());
        asking.sockets = sockets.to_vec();
        if sockets.is_empty() {
            self.slots.remove(key.0 as usize);
        }
        Some(gather)
    }

    /// One of those who were asked has answered, or is gone and will not: where the answer goes.
    pub fn answered(&mut self, key: BroadcastKey) -> Option<Arc<Gather>> {
        let asking = self.slots.get_mut(key.0 as usize)?;
        let gather = asking.gather.clone();
        asking.left = asking.left.and_then(|left| left.checked_sub(1));
        if asking.left == Some(0) {
            self.slots.remove(key.0 as usize);
        }
        Some(gather)
    }

    /// The id under which a broadcast asks.
    pub fn id(&self, key: BroadcastKey) -> Option<AckId> {
        self.slots.get(key.0 as usize).map(|asking| asking.id)
    }

    /// The broadcasts whose deadline is over. They are forgotten, and whoever was asked need not answer.
    pub fn late(&mut self, now: Instant) -> Vec<Asking> {
        if self.slots.is_empty() {
            return Vec::new();
        }
        let is_late = |asking: &Asking| asking.left.is_some() && asking.deadline <= now;
        let late = self.slots.iter().filter(|(_, asking)| is_late(asking)).map(|(key, _)| key);
        let late: Vec<usize> = late.collect();
        late.into_iter().filter_map(|key| self.slots.try_remove(key)).collect()
    }
}

impl Acks {
    /// Expects an answer; `false` when `max` are expected already.
    pub fn ask(&mut self, id: AckId, owner: Owner, max: usize) -> bool {
        let pending = self.pending.get_or_insert_default();
        if pending.len() >= max {
            return false;
        }
        pending.insert(id.0, owner);
        true
    }

    /// Takes who waits for an answer; nobody waits for an unknown one.
    pub fn take(&mut self, id: AckId) -> Option<Owner> {
        let pending = self.pending.as_mut()?;
        let owner = pending.remove(&id.0);
        if pending.is_empty() {
            self.pending = None;
        }
        owner
    }

    /// The broadcasts that wait for an answer.
    pub fn broadcasts(&self) -> impl Iterator<Item = BroadcastKey> {
        self.pending.iter().flat_map(|pending| pending.values()).filter_map(|owner| match owner {
            Owner::Broadcast(key) => Some(*key),
            Owner::Upstream(_) => None,
        })
    }

    /// How many answers are expected.
    pub fn len(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.len())
    }

    /// Whether none is expected.
    pub fn is_empty(&self) -> bool {
        self.pending.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_and_no_more_are_expected_than_allowed() {
        let mut acks = Acks::default();
        let [first, second] = [Owner::Upstream(10), Owner::Broadcast(BroadcastKey(20))];
        assert!(acks.ask(AckId(1), first, 2));
        assert!(acks.ask(AckId(2), second, 2));
        assert!(!acks.ask(AckId(3), first, 2));
        assert_eq!(acks.take(AckId(3)), None);
        assert_eq!(acks.take(AckId(1)), Some(first));
        assert_eq!(acks.take(AckId(1)), None);
        assert_eq!(acks.len(), 1);
        assert_eq!(acks.take(AckId(2)), Some(second));
        assert!(acks.is_empty());
    }
}
