//! Sockets whose joins wait for the cluster, and what their application wants behind those joins.
//!
//! Only the socket itself waits: its further events queue up with it as they do behind an answer of the upstream,
//! within the same bounds.

use std::collections::VecDeque;

use hashbrown::HashMap;
use socketio_proto::packet::AckId;

use super::deliver::Wishes;
use crate::rooms::index::SocketKey;
use crate::upstream::Args;

/// The rest of a reply: actions, and the acknowledgement behind them.
pub type Rest = (Wishes, Option<(AckId, Args)>);

/// The sockets that wait.
#[derive(Debug, Default)]
pub struct Joining {
    sockets: HashMap<SocketKey, Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    missing: usize,
    parked: VecDeque<Rest>,
}

impl Joining {
    /// A socket has one more join to wait for.
    pub fn add(&mut self, socket: SocketKey) {
        self.sockets.entry(socket).or_default().missing += 1;
    }

    /// Whether a socket waits for a join.
    pub fn waits(&self, socket: SocketKey) -> bool {
        self.sockets.get(&socket).is_some_and(|waits| waits.missing > 0)
    }

    /// Whether something of a socket waits behind its joins, which nothing later must overtake.
    pub fn has_parked(&self, socket: SocketKey) -> bool {
        !self.sockets.is_empty() && self.sockets.get(&socket).is_some_and(|waits| !waits.parked.is_empty())
    }

    /// Lets something wait behind the joins of a socket.
    pub fn park(&mut self, socket: SocketKey, actions: Wishes, ack: Option<(AckId, Args)>) {
        self.sockets.entry(socket).or_default().parked.push_back((actions, ack));
    }

    /// One of the joins is done; what waited for it, if it was the last one.
    pub fn done(&mut self, socket: SocketKey) -> Option<VecDeque<Rest>> {
        let waits = self.sockets.get_mut(&socket)?;
        waits.missing = waits.missing.saturating_sub(1);
        if waits.missing > 0 {
            return None;
        }
        self.sockets.remove(&socket).map(|waits| waits.parked)
    }

    /// A socket is going: what waited behind its joins.
    pub fn forget(&mut self, socket: SocketKey) -> VecDeque<Rest> {
        if self.sockets.is_empty() {
            return VecDeque::new();
        }
        self.sockets.remove(&socket).map(|waits| waits.parked).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Actions;

    #[test]
    fn what_is_parked_comes_back_in_order_after_the_last_join() {
        let socket = SocketKey { index: 1, generation: 1 };
        let mut joining = Joining::default();
        assert!(!joining.waits(socket));
        joining.add(socket);
        joining.add(socket);
        for id in [1, 2] {
            let ack = Some((AckId(id), Args::text("[]")));
            joining.park(socket, Actions::new().into_iter(), ack);
        }
        assert!(joining.has_parked(socket));
        assert!(joining.done(socket).is_none());
        let rest = joining.done(socket).unwrap();
        let ids: Vec<u64> = rest.iter().filter_map(|(_, ack)| Some(ack.as_ref()?.0.0)).collect();
        assert_eq!(ids, [1, 2]);
        assert!(joining.done(socket).is_none());
    }
}
