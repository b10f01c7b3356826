//! Where a node is, and what is known of ids that belong to nobody.
//!
//! Usually the adapter knows the node, and nothing here is touched. An id that it does not know is looked for once: all
//! nodes are asked to show themselves, and whoever comes with that id meanwhile waits for the same answer. If none
//! came, the id is nobody's for a while. Ids that clients invent thus cost a place in a table of fixed size and, however
//! many they are, a few questions a second.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adapter::adapter::Adapter;
use adapter::cluster::peers::Peer;
use cluster_proto::identity::NodeId;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout_at};

use crate::metrics::ShardMetrics;

/// Ids that are remembered to be nobody's; beyond, the oldest are forgotten.
const REMEMBERED_MAX: usize = 4096;
/// How long an id that was looked for in vain stays nobody's.
const NOBODY: Duration = Duration::from_secs(5);
/// How long an id whose node has left or died does: its clients are elsewhere by then.
const GONE: Duration = Duration::from_secs(600);
/// Shortest time between two questions to all nodes. They answer at most as often.
const SOLICIT_EVERY: Duration = Duration::from_millis(100);

/// Finds nodes.
#[derive(Debug)]
pub(super) struct Directory {
    adapter: Adapter,
    strangers: Mutex<Strangers>,
}

impl Directory {
    /// The nodes that the adapter knows; others are looked for no longer than `lookup_max`.
    pub(super) fn new(adapter: Adapter, lookup_max: Duration) -> Directory {
        Directory { adapter, strangers: Mutex::new(Strangers::new(lookup_max)) }
    }

    /// Where the peer listener of a node is, if the adapter knows the node and it has one.
    pub(super) fn known(&self, node: NodeId) -> Option<Option<String>> {
        find(&self.adapter.nodes(), node)
    }

    /// The same, for a node that is not known so far.
    pub(super) async fn look_up(&self, node: NodeId, metrics: &ShardMetrics) -> Option<String> {
        if self.adapter.is_alone() {
            return None;
        }
        let search = {
            let (now, mut strangers) = (Instant::now(), self.strangers());
            // It may have gone this moment.
            strangers.see(now, &self.adapter.nodes());
            strangers.ask(now, node)
        };
        let Search::Wait { until, solicit_in } = search else { return None };
        metrics.relay_lookups.add(1);
        let mut nodes = self.adapter.watch_nodes();
        let appears = async {
            let nodes = nodes.wait_for(|nodes| find(nodes, node).is_some()).await.ok()?;
            find(&nodes, node)?
        };
        if let Some(pause) = solicit_in {
            // Others count on the question, so it does not end with the client that caused it.
            let adapter = self.adapter.clone();
            spawn_local(async move {
                sleep(pause).await;
                adapter.solicit();
            });
        }
        timeout_at(until.into(), appears).await.ok().flatten()
    }

    /// Remembers who has gone, so that nobody looks for them; for as long as the adapter lives.
    pub(in crate::listener) async fn watch(&self) {
        let mut nodes = self.adapter.watch_nodes();
        loop {
            {
                // Read under the lock, so that nobody sees an older list after a newer one.
                let mut strangers = self.strangers();
                let alive = nodes.borrow_and_update().clone();
                strangers.see(Instant::now(), &alive);
            }
            if nodes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        // Every change is complete before the lock is given back.
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(nodes: &[Peer], node: NodeId) -> Option<Option<String>> {
    // The adapter keeps them in order.
    let index = nodes.binary_search_by_key(&node, |peer| peer.node).ok()?;
    nodes.get(index).map(|peer| peer.address.clone())
}

/// The ids that are not known, on any clock.
#[derive(Debug)]
struct Strangers {
    lookup_max: Duration,
    /// The nodes that were alive when somebody looked last.
    alive: Arc<[Peer]>,
    known: HashMap<NodeId, Stranger>,
    /// Oldest first.
    order: VecDeque<NodeId>,
    /// When all nodes were, or will be, asked to show themselves.
    solicited: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Stranger {
    /// Looked for since then.
    Sought(Instant),
    /// Known to be gone since then.
    Gone(Instant),
}

/// What to do about an id that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// It is nobody's.
    Nobody,
    /// Wait whether the node shows itself; if `solicit_in` says so, ask all nodes after that time.
    Wait { until: Instant, solicit_in: Option<Duration> },
}

impl Strangers {
    fn new(lookup_max: Duration) -> Strangers {
        let (known, order) = (HashMap::new(), VecDeque::new());
        Strangers { lookup_max, alive: Arc::default(), known, order, solicited: None }
    }

    fn ask(&mut self, now: Instant, node: NodeId) -> Search {
        let age = |since: Instant| now.saturating_duration_since(since);
        match self.known.get(&node) {
            Some(Stranger::Gone(since)) if age(*since) < GONE => return Search::Nobody,
            Some(Stranger::Sought(since)) if age(*since) < self.lookup_max => {
                return Search::Wait { until: *since + self.lookup_max, solicit_in: None };
            }
            Some(Stranger::Sought(since)) if age(*since) < self.lookup_max + NOBODY => return Search::Nobody,
            Some(Stranger::Gone(_) | Stranger::Sought(_)) | None => {}
        }
        self.remember(node, Stranger::Sought(now));
        Search::Wait { until: now + self.lookup_max, solicit_in: self.solicit(now) }
    }

    /// When the asker has to ask all nodes, unless somebody else is about to.
    fn solicit(&mut self, now: Instant) -> Option<Duration> {
        let next = self.solicited.map_or(now, |last| (last + SOLICIT_EVERY).max(now));
        if self.solicited.is_some_and(|last| last > now) {
            return None;
        }
        self.solicited = Some(next);
        Some(next.saturating_duration_since(now))
    }

    /// Remembers who has gone since the last look.
    fn see(&mut self, now: Instant, alive: &Arc<[Peer]>) {
        let before = std::mem::replace(&mut self.alive, alive.clone());
        for peer in before.iter().filter(|peer| find(alive, peer.node).is_none()) {
            self.remember(peer.node, Stranger::Gone(now));
        }
    }

    fn remember(&mut self, node: NodeId, stranger: Stranger) {
        if self.known.insert(node, stranger).is_some() {
            return;
        }
        self.order.push_back(node);
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use cluster_proto::heartbeat::{NodeStatus, Role};

    use super::*;

    const LOOKUP_MAX: Duration = Duration::from_millis(500);

    fn node(number: u16) -> NodeId {
        let [a, b] = number.to_be_bytes();
        NodeId::from_bytes([0, a, b])
    }

    fn peer(number: u16) -> Peer {
        let (role, status) = (Role::Edge, NodeStatus::Serving);
        Peer { node: node(number), incarnation: 1, role, status, address: None }
    }

    fn wait(until: Instant, solicit_in: Option<u64>) -> Search {
        Search::Wait { until, solicit_in: solicit_in.map(Duration::from_millis) }
    }

    #[test]
    fn an_unknown_id_is_looked_for_once_and_then_nobodys_for_a_while() {
        let (mut strangers, start) = (Strangers::new(LOOKUP_MAX), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(strangers.ask(start, node(1)), wait(after(500), Some(0)));
        assert_eq!(strangers.ask(after(499), node(1)), wait(after(500), None));
        assert_eq!(strangers.ask(after(500), node(1)), Search::Nobody);
        assert_eq!(strangers.ask(after(5_499), node(1)), Search::Nobody);
        assert_eq!(strangers.ask(after(5_500), node(1)), wait(after(6_000), Some(0)));
    }

    #[test]
    fn who_has_gone_is_not_looked_for() {
        let (mut strangers, start) = (Strangers::new(LOOKUP_MAX), Instant::now());
        strangers.see(start, &[peer(1), peer(2)].into());
        strangers.see(start, &[peer(2)].into());
        assert_eq!(strangers.ask(start, node(1)), Search::Nobody);
        assert!(matches!(strangers.ask(start + GONE, node(1)), Search::Wait { .. }));
    }

    #[test]
    fn many_ids_cause_few_questions_and_each_is_covered_by_a_later_one() {
        let (mut strangers, start) = (Strangers::new(LOOKUP_MAX), Instant::now());
        let mut solicited = Vec::new();
        for number in 0..1000_u16 {
            let now = start + Duration::from_millis(u64::from(number));
            let Search::Wait { solicit_in, .. } = strangers.ask(now, node(number)) else {
                panic!("{number}")
            };
            solicited.extend(solicit_in.map(|pause| now + pause));
            assert!(solicited.last().is_some_and(|last| *last >= now), "{number}");
        }
        assert!(solicited.windows(2).all(|two| two[1] - two[0] >= SOLICIT_EVERY), "{solicited:?}");
        assert_eq!(solicited.len(), 11);
    }

    #[test]
    fn the_table_has_a_size() {
        let (mut strangers, start) = (Strangers::new(LOOKUP_MAX), Instant::now());
        for number in 0..=u16::MAX {
            strangers.ask(start, node(number));
        }
        assert_eq!((strangers.known.len(), strangers.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    }
}
