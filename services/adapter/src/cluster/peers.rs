//! Who is alive.
//!
//! Every node sends a heartbeat each `cluster.heartbeat_ms`; who was silent for `cluster.dead_after_ms` is dead.
//! The clock is one's own heartbeat, which comes back from the broker: while that is away or stands still nobody can be
//! heard, so nobody dies, and afterwards everybody has the whole time again.
//!
//! ```text
//!           first heartbeat                     silence
//!   (none) ----------------> alive ----------------------------> (none), Died
//!                            |   |  heartbeat with status gone
//!                            |   +----------------------------> (none), Left
//!                            +-- another incarnation ---------> alive, Restarted
//! ```

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use cluster_proto::heartbeat::{Heartbeat, NodeStatus, Role};
use cluster_proto::identity::NodeId;

/// How soon a node that was asked for a heartbeat may send the next one.
const SOLICITED_EVERY: Duration = Duration::from_millis(100);

/// Who this node is.
#[derive(Debug, Clone)]
pub struct Own {
    /// Its id.
    pub node: NodeId,
    /// Tells this life of the id from others.
    pub incarnation: u64,
    /// What kind of process it is.
    pub role: Role,
    /// Where its peer listener is, if it has one.
    pub peer_address: Option<String>,
}

/// The times and bounds of membership.
#[derive(Debug, Clone, Copy)]
pub struct PeerLimits {
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// Silence after which a node is dead.
    pub dead_after: Duration,
    /// Nodes that are told apart.
    pub nodes_max: usize,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub node: NodeId,
    /// Which life of the id.
    pub incarnation: u64,
    /// What kind of process it is.
    pub role: Role,
    /// How it is.
    pub status: NodeStatus,
    /// Where its peer listener is reached.
    pub address: Option<String>,
}

/// What changed among the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// A node was heard for the first time.
    Joined(Peer),
    /// A node's status or address changed.
    Changed(Peer),
    /// A node says that it is gone.
    Left(NodeId),
    /// A node was silent for too long.
    Died(NodeId),
    /// Another process lives under the id of this peer.
    Restarted(Peer),
    /// Another process lives under our own id.
    OwnIdTaken,
}

#[derive(Debug)]
struct Known {
    peer: Peer,
    sequence: u64,
    heard: Instant,
}

/// The membership machine. Feed it heartbeats, the broker's coming and going and the time;
/// drain [`Peers::poll_transmit`] and [`Peers::poll_event`] after each call.
#[derive(Debug)]
pub struct Peers {
    own: Own,
    limits: PeerLimits,
    status: NodeStatus,
    known: HashMap<NodeId, Known>,
    sequence: u64,
    link: Link,
    /// When this node's own heartbeat last came back.
    echoed: Instant,
    transmit: VecDeque<Heartbeat>,
    events: VecDeque<PeerEvent>,
}

#[derive(Debug, Clone, Copy)]
enum Link {
    Away,
    Up { next: Instant, last: Instant },
}

impl Peers {
    /// A cluster of which nobody else is known; the broker is away.
    #[must_use]
    pub fn new(now: Instant, own: Own, limits: PeerLimits) -> Self {
        Self {
            echoed: now,
            own,
            limits,
            status: NodeStatus::Serving,
            known: HashMap::new(),
            sequence: 0,
            link: Link::Away,
            transmit: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Heartbeats can be heard: this node introduces itself and asks who else is there.
    pub fn handle_up(&mut self, now: Instant) {
        self.give_time(now);
        self.link = Link::Up { next: now, last: now };
        self.beat(now, true);
    }

    /// The broker is away.
    pub fn handle_down(&mut self) {
        self.link = Link::Away;
        self.transmit.clear();
    }

    /// A heartbeat has arrived, perhaps one's own.
    pub fn handle_heartbeat(&mut self, now: Instant, heartbeat: &Heartbeat) {
        if heartbeat.node == self.own.node {
            if heartbeat.incarnation == self.own.incarnation {
                self.handle_echo(now);
            } else if heartbeat.status != NodeStatus::Gone {
                self.events.push_back(PeerEvent::OwnIdTaken);
            }
            return;
        }
        if heartbeat.solicits
            && let Link::Up { last, .. } = self.link
            && now.saturating_duration_since(last) >= SOLICITED_EVERY.min(self.limits.heartbeat)
        {
            self.beat(now, false);
        } else if heartbeat.solicits
            && let Link::Up { next, last } = &mut self.link
        {
            *next = (*next).min(*last + SOLICITED_EVERY);
        }
        self.note(now, heartbeat);
    }

    fn note(&mut self, now: Instant, heartbeat: &Heartbeat) {
        let peer = Peer {
            node: heartbeat.node,
            incarnation: heartbeat.incarnation,
            role: heartbeat.role,
            status: heartbeat.status,
            address: heartbeat.peer_address.clone(),
        };
        let Some(known) = self.known.get_mut(&peer.node) else {
            if peer.status != NodeStatus::Gone && self.known.len() < self.limits.nodes_max {
                let sequence = heartbeat.sequence;
                self.known.insert(peer.node, Known { peer: peer.clone(), sequence, heard: now });
                self.events.push_back(PeerEvent::Joined(peer));
            }
            return;
        };
        let same_life = known.peer.incarnation == peer.incarnation;
        if same_life && heartbeat.sequence <= known.sequence {
            return;
        }
        if peer.status == NodeStatus::Gone {
            // The goodbye of an earlier life says nothing about this one.
            if same_life {
                self.known.remove(&peer.node);
                self.events.push_back(PeerEvent::Left(peer.node));
            }
            return;
        }
        let event = if !same_life {
            Some(PeerEvent::Restarted(peer.clone()))
        } else if known.peer == peer {
            None
        } else {
            Some(PeerEvent::Changed(peer.clone()))
        };
        *known = Known { peer, sequence: heartbeat.sequence, heard: now };
        self.events.extend(event);
    }

    /// This node's own heartbeat has come back, so others would have been heard too.
    fn handle_echo(&mut self, now: Instant) {
        let PeerLimits { heartbeat, dead_after, .. } = self.limits;
        let pause = now.saturating_duration_since(self.echoed);
        if pause > heartbeat + dead_after / 2 {
            return self.give_time(now);
        }
        self.echoed = now;
        let silent = |known: &Known| now.saturating_duration_since(known.heard) >= dead_after;
        let dead: Vec<NodeId> =
            self.known.values().filter(|known| silent(known)).map(|known| known.peer.node).collect();
        for node in dead {
            self.known.remove(&node);
            self.events.push_back(PeerEvent::Died(node));
        }
    }

    /// Nobody could be heard until now.
    fn give_time(&mut self, now: Instant) {
        self.echoed = now;
        for known in self.known.values_mut() {
            known.heard = now;
        }
    }

    /// Time has passed: a heartbeat may be due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Link::Up { next, .. } = self.link
            && next <= now
        {
            self.beat(now, false);
        }
    }

    /// Asks every node for a heartbeat at once, so that one that was never heard of shows itself.
    pub fn solicit(&mut self, now: Instant) {
        if matches!(self.link, Link::Up { .. }) {
            self.beat(now, true);
        }
    }

    /// Changes how this node is, and says so.
    pub fn set_status(&mut self, now: Instant, status: NodeStatus) {
        self.status = status;
        if matches!(self.link, Link::Up { .. }) {
            self.beat(now, false);
        }
    }

    fn beat(&mut self, now: Instant, solicits: bool) {
        self.sequence += 1;
        self.link = Link::Up { next: now + self.limits.heartbeat, last: now };
        self.transmit.push_back(Heartbeat {
            node: self.own.node,
            incarnation: self.own.incarnation,
            sequence: self.sequence,
            role: self.own.role,
            status: self.status,
            interval_ms: u64::try_from(self.limits.heartbeat.as_millis()).unwrap_or(u64::MAX),
            peer_address: self.own.peer_address.clone(),
            solicits,
        });
    }

    /// The next heartbeat to send.
    pub fn poll_transmit(&mut self) -> Option<Heartbeat> {
        self.transmit.pop_front()
    }

    /// The next change to tell.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// When [`Peers::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.link {
            Link::Up { next, .. } => Some(next),
            Link::Away => None,
        }
    }

    /// Whether this is a living edge other than ourselves, or ourselves.
    #[must_use]
    pub fn is_edge(&self, node: NodeId) -> bool {
        let is_own = node == self.own.node && self.own.role == Role::Edge;
        is_own || self.known.get(&node).is_some_and(|known| known.peer.role == Role::Edge)
    }

    /// The other edges that are alive.
    pub fn edges(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.known.values().filter(|known| known.peer.role == Role::Edge).map(|known| known.peer.node)
    }

    /// All other nodes that are alive, by id.
    #[must_use]
    pub fn all(&self) -> Vec<Peer> {
        let mut peers: Vec<Peer> = self.known.values().map(|known| known.peer.clone()).collect();
        peers.sort_unstable_by_key(|peer| peer.node);
        peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PeerLimits =
        PeerLimits { heartbeat: Duration::from_secs(2), dead_after: Duration::from_secs(10), nodes_max: 3 };

    fn own(number: u8) -> Own {
        Own {
            node: NodeId::from_bytes([0, 0, number]),
            incarnation: u64::from(number),
            role: Role::Edge,
            peer_address: Some(format!("10.0.0.{number}:7000")),
        }
    }

    fn peers() -> (Peers, Instant) {
        let now = Instant::now();
        let mut peers = Peers::new(now, own(1), LIMITS);
        peers.handle_up(now);
        assert!(peers.poll_transmit().unwrap().solicits);
        (peers, now)
    }

    /// The node's own heartbeats come back each second after `now`, up to so many.
    fn echo(peers: &mut Peers, now: Instant, seconds: std::ops::RangeInclusive<u64>) {
        for second in seconds {
            peers.handle_heartbeat(now + Duration::from_secs(second), &beat(1, second));
        }
    }

    fn beat(number: u8, sequence: u64) -> Heartbeat {
        let Own { node, incarnation, role, peer_address } = own(number);
        Heartbeat {
            node,
            incarnation,
            sequence,
            role,
            status: NodeStatus::Serving,
            interval_ms: 2_000,
            peer_address,
            solicits: false,
        }
    }

    fn events(peers: &mut Peers) -> Vec<PeerEvent> {
        std::iter::from_fn(|| peers.poll_event()).collect()
    }

    fn id(number: u8) -> NodeId {
        own(number).node
    }

    #[test]
    fn two_machines_find_each_other_at_once() {
        let (mut one, now) = peers();
        let mut two = Peers::new(now, own(2), LIMITS);
        let later = now + Duration::from_secs(1);
        two.handle_up(later);
        let hello = two.poll_transmit().unwrap();
        one.handle_heartbeat(later, &hello);
        let answer = one.poll_transmit().unwrap();
        assert!(!answer.solicits);
        two.handle_heartbeat(later, &answer);
        assert_eq!(one.edges().collect::<Vec<_>>(), [id(2)]);
        assert_eq!(two.edges().collect::<Vec<_>>(), [id(1)]);
        assert!(two.is_edge(id(1)) && two.is_edge(id(2)) && !two.is_edge(id(3)));
    }

    #[test]
    fn heartbeats_go_out_in_their_rhythm() {
        let (mut peers, now) = peers();
        peers.handle_timeout(now + Duration::from_millis(1_999));
        assert_eq!(peers.poll_transmit(), None);
        assert_eq!(peers.poll_timeout(), Some(now + Duration::from_secs(2)));
        peers.handle_timeout(now + Duration::from_secs(2));
        assert_eq!(peers.poll_transmit().unwrap().sequence, 2);
    }

    #[test]
    fn many_who_ask_get_few_answers() {
        let (mut peers, now) = peers();
        let mut asking = beat(2, 1);
        asking.solicits = true;
        for sequence in 1..100 {
            asking.sequence = sequence;
            peers.handle_heartbeat(now + Duration::from_millis(sequence), &asking);
        }
        assert_eq!(peers.poll_transmit(), None);
        assert_eq!(peers.poll_timeout(), Some(now + SOLICITED_EVERY));
        peers.handle_timeout(now + SOLICITED_EVERY);
        assert!(peers.poll_transmit().is_some() && peers.poll_transmit().is_none());
    }

    #[test]
    fn who_is_silent_for_too_long_is_dead() {
        let (mut peers, now) = peers();
        peers.handle_heartbeat(now, &beat(2, 1));
        peers.handle_heartbeat(now, &beat(3, 1));
        events(&mut peers);
        peers.handle_heartbeat(now + Duration::from_secs(5), &beat(3, 2));
        echo(&mut peers, now, 1..=9);
        assert_eq!(events(&mut peers), []);
        echo(&mut peers, now, 10..=10);
        assert_eq!(events(&mut peers), [PeerEvent::Died(id(2))]);
        assert_eq!(peers.all().len(), 1);
    }

    #[test]
    fn nobody_dies_while_the_broker_is_away() {
        let (mut peers, now) = peers();
        peers.handle_heartbeat(now, &beat(2, 1));
        events(&mut peers);
        peers.handle_down();
        assert_eq!(peers.poll_timeout(), None);
        let back = now + Duration::from_secs(600);
        peers.handle_up(back);
        echo(&mut peers, back, 1..=9);
        assert_eq!(events(&mut peers), []);
        echo(&mut peers, back, 10..=10);
        assert_eq!(events(&mut peers), [PeerEvent::Died(id(2))]);
    }

    #[test]
    fn nobody_dies_while_the_broker_stands_still() {
        let (mut peers, now) = peers();
        peers.handle_heartbeat(now, &beat(2, 1));
        events(&mut peers);
        // Everything that waited arrives at once, one's own first.
        let later = now + Duration::from_secs(60);
        echo(&mut peers, later, 0..=0);
        peers.handle_heartbeat(later, &beat(2, 2));
        echo(&mut peers, later, 1..=9);
        assert_eq!(events(&mut peers), []);
        echo(&mut peers, later, 10..=10);
        assert_eq!(events(&mut peers), [PeerEvent::Died(id(2))]);
    }

    #[test]
    fn a_goodbye_is_believed_only_of_the_same_life() {
        let (mut peers, now) = peers();
        peers.handle_heartbeat(now, &beat(2, 5));
        events(&mut peers);
        let mut goodbye = beat(2, 6);
        goodbye.status = NodeStatus::Gone;
        let mut old_life = goodbye.clone();
        old_life.incarnation = 99;
        peers.handle_heartbeat(now, &old_life);
        assert_eq!(events(&mut peers), []);
        peers.handle_heartbeat(now, &goodbye);
        assert_eq!(events(&mut peers), [PeerEvent::Left(id(2))]);
        peers.handle_heartbeat(now, &goodbye);
        assert_eq!(events(&mut peers), []);
    }

    #[test]
    fn a_new_life_and_a_new_status_are_told() {
        let (mut peers, now) = peers();
        peers.handle_heartbeat(now, &beat(2, 5));
        events(&mut peers);
        peers.handle_heartbeat(now, &beat(2, 5));
        peers.handle_heartbeat(now, &beat(2, 6));
        assert_eq!(events(&mut peers), []);
        let mut draining = beat(2, 7);
        draining.status = NodeStatus::Draining;
        peers.handle_heartbeat(now, &draining);
        assert!(
            matches!(&*events(&mut peers), [PeerEvent::Changed(peer)] if peer.status == NodeStatus::Draining)
        );
        let mut reborn = beat(2, 1);
        reborn.incarnation = 77;
        peers.handle_heartbeat(now, &reborn);
        assert!(matches!(&*events(&mut peers), [PeerEvent::Restarted(peer)] if peer.incarnation == 77));
    }

    #[test]
    fn another_process_under_our_id_is_noticed() {
        let (mut peers, now) = peers();
        peers.handle_heartbeat(now, &beat(1, 1));
        assert_eq!(events(&mut peers), []);
        let mut stranger = beat(1, 1);
        stranger.incarnation = 2;
        peers.handle_heartbeat(now, &stranger);
        assert_eq!(events(&mut peers), [PeerEvent::OwnIdTaken]);
    }

    #[test]
    fn only_so_many_nodes_are_told_apart() {
        let (mut peers, now) = peers();
        for number in 2..10 {
            peers.handle_heartbeat(now, &beat(number, 1));
        }
        assert_eq!(peers.all().len(), 3);
    }
}
