//! What the broker says: that it is there or away, how a publish ended, and messages.

use std::sync::atomic::Ordering;
use std::time::Instant;

use cluster_proto::heartbeat::Role;
use cluster_proto::identity::NodeId;
use cluster_proto::message::ClusterMessage;

use super::handle::Settings;
use super::{Asked, Engine};
use crate::broker::renewal::STEADY;
use crate::broker::{Delivery, Event, Gap, Incoming, Interest, Listeners, PublishError, node_of};
use crate::cluster::peers::{Own, PeerEvent, Peers};
use crate::cluster::requests;
use crate::local::Replier;

/// Reasons that are logged in one outage.
const REASONS_MAX: usize = 8;

impl Engine {
    pub(super) fn handle_event(&mut self, now: Instant, event: Event) {
        // A message stirs by itself if it is more than something for the sockets.
        self.is_stirred |= !matches!(event, Event::Delivery(_));
        match event {
            Event::Up { node, at } => self.handle_up(now, node, &at),
            Event::Down { reason } => self.handle_down(now, &reason),
            Event::Subscribed(batch) => self.handle_subscribed(now, batch),
            Event::Unpublished(request) => self.requests.handle_unpublished(&request),
            Event::Counted { number, listeners } => self.handle_counted(number, listeners),
            Event::Delivery(delivery) => self.handle_delivery(now, &delivery),
            Event::Gap(gap) => self.tell_gap(gap),
            Event::ClaimLost => self.lose_identity(),
        }
    }

    fn handle_up(&mut self, now: Instant, node: NodeId, at: &str) {
        let handle = self.handle.clone();
        if handle.node.set(node).is_ok() {
            let Settings { role, incarnation, peer_address, peers, .. } = handle.settings.clone();
            self.peers = Some(Peers::new(now, Own { node, incarnation, role, peer_address }, peers));
            let topics = handle.wire.topics(node, &Interest::Own(role));
            // Nobody waits for it: the others are greeted once it is active.
            let _ = handle.interests().join(now, &topics, None, Box::new(|_| {}));
            if role == Role::Edge {
                let whole = handle.wire.topics(node, &Interest::Whole);
                let _ = handle.interests().join_last(now, &whole);
            }
        } else {
            self.is_restoring = true;
        }
        tracing::info!(%node, at, "the broker is connected");
        self.up_since = Some(now);
        handle.metrics.connects.add(1);
        handle.interests().handle_up();
        handle.is_up.store(true, Ordering::Relaxed);
        self.has_introduced = false;
    }

    fn handle_down(&mut self, now: Instant, reason: &str) {
        let handle = self.handle.clone();
        if self.up_since.take().is_some_and(|since| now.saturating_duration_since(since) >= STEADY) {
            self.reasons.clear();
        }
        let was_up = handle.is_up.swap(false, Ordering::Relaxed);
        handle.metrics.disconnects.add(u64::from(was_up));
        // Several addresses fail in turn, each with a reason of its own.
        if self.reasons.len() < REASONS_MAX && self.reasons.insert(reason.to_owned()) {
            match (handle.settings.role, handle.node()) {
                (Role::Edge, None) => {
                    tracing::warn!(reason, "the broker cannot be reached; clients are taken once it can");
                }
                (Role::Edge, Some(_)) => tracing::warn!(reason, "the broker is away; local delivery goes on"),
                (Role::Emitter, _) => {
                    tracing::warn!(reason, "the broker is away; calls are refused until it is back")
                }
            }
        }
        handle.set_degraded();
        let finished = handle.interests().handle_down();
        handle.finish(finished);
        if let Some(peers) = &mut self.peers {
            peers.handle_down();
        }
        self.unsubscribe.clear();
        for held in std::mem::take(&mut self.held) {
            self.refuse_request(held, PublishError::Away);
        }
    }

    fn handle_subscribed(&mut self, now: Instant, batch: u64) {
        let finished = self.handle.interests().handle_subscribed(now, batch);
        self.handle.finish(finished);
        // What the node itself needs to hear is the oldest interest, and so in the first batch.
        if !std::mem::replace(&mut self.has_introduced, true)
            && let Some(peers) = &mut self.peers
        {
            peers.handle_up(now);
        }
        for held in std::mem::take(&mut self.held) {
            self.request(now, held);
        }
    }

    pub(super) fn handle_counted(&mut self, number: u64, listeners: Option<Listeners>) {
        let Some(Asked { request, counts_self, is_whole }) = self.counts.remove(&number) else { return };
        // Without a count every living edge is waited for, and no Node server.
        let (edges, node_servers) = listeners.map_or((u64::MAX, 0), |listeners| {
            let known = self.peers.iter().flat_map(Peers::edges).count() as u64 + u64::from(is_whole);
            // One that is being connected anew may have the namespace, and not show it yet: then all are waited for.
            let edges = if listeners.whole < known {
                u64::MAX
            } else {
                listeners.edges.saturating_sub(u64::from(counts_self))
            };
            (edges, listeners.everybody.saturating_sub(listeners.edges))
        });
        self.requests.handle_counted(&request, edges, node_servers);
    }

    fn handle_delivery(&mut self, now: Instant, delivery: &Delivery) {
        let metrics = self.handle.metrics.clone();
        let incoming = (!self.concerns_nobody(delivery)).then(|| self.handle.wire.decode(delivery));
        // Not before it is known what it is: who reads the numbers in between finds that they add up.
        metrics.received.add(1);
        metrics.received_bytes.add(delivery.body.len() as u64);
        let Some(incoming) = incoming else { return metrics.passed_over.add(1) };
        match incoming {
            Ok(Some(Incoming::Message(message))) if self.is_own(&message) => metrics.echoes.add(1),
            Ok(Some(Incoming::Message(message))) => self.handle_message(now, message),
            Ok(Some(Incoming::Response(response))) => {
                self.is_stirred = true;
                if !self.requests.handle_response(response) {
                    metrics.responses_unknown.add(1);
                }
            }
            Ok(Some(Incoming::Heartbeat(heartbeat))) => {
                self.is_stirred = true;
                metrics.heartbeats.add(1);
                if let Some(peers) = &mut self.peers {
                    peers.handle_heartbeat(now, &heartbeat);
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "a message of another node was refused");
                metrics.refuse(error.reason());
            }
        }
    }

    /// Whether this node sent a message: of some it can only be told once they are decoded.
    fn is_own(&self, message: &ClusterMessage) -> bool {
        let sender = message.sender.as_ref().and_then(node_of);
        sender.is_some() && sender == self.handle.node()
    }

    /// Whether a message says outside its body that no room of this node is meant.
    fn concerns_nobody(&self, delivery: &Delivery) -> bool {
        let Some(hashes) = &delivery.room_hashes else { return false };
        let interests = self.handle.interests();
        !hashes.iter().any(|hash| interests.holds_mark(*hash))
    }

    fn handle_message(&mut self, now: Instant, message: ClusterMessage) {
        if self.handle.settings.role == Role::Emitter {
            return;
        }
        if let Some(key) = &message.id
            && !self.duplicates.is_new(now, key)
        {
            self.handle.metrics.duplicates.add(1);
            return;
        }
        let reply = requests::answered(&message.operation).map(|(request, _)| Replier {
            handle: self.handle.clone(),
            namespace: message.namespace.clone(),
            asker: message.sender.clone(),
            request: request.clone(),
        });
        self.handle.metrics.messages.add(1);
        self.local.handle_message(message, reply);
    }

    pub(super) fn handle_peer(&mut self, event: &PeerEvent) {
        match event {
            PeerEvent::Joined(_) | PeerEvent::Changed(_) => {}
            PeerEvent::Left(node) => self.requests.handle_lost(*node),
            PeerEvent::Died(node) => {
                tracing::warn!(%node, "a node of the cluster has gone silent");
                self.handle.metrics.nodes_died.add(1);
                self.requests.handle_lost(*node);
            }
            PeerEvent::Restarted(peer) => self.requests.handle_lost(peer.node),
            PeerEvent::OwnIdTaken => self.lose_identity(),
        }
        self.local.handle_peer(event);
    }

    fn lose_identity(&mut self) {
        self.handle.metrics.claims_lost.add(1);
        if std::mem::replace(&mut self.has_lost_identity, true) {
            return;
        }
        tracing::error!("another process has this node's id; this one must start again under another");
        self.local.handle_identity_lost();
    }

    pub(super) fn tell_gap(&self, gap: Gap) {
        self.handle.metrics.gaps.add(1);
        self.local.handle_gap(gap);
    }
}
