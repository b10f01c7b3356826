//! What the process wants: publishes, answers, and requests, which wait until their answers can be heard.

use std::sync::atomic::Ordering;
use std::time::Instant;

use cluster_proto::error::EncodeError;
use cluster_proto::identity::{NodeId, NodeUid};
use cluster_proto::message::ClusterMessage;

use super::Asked;
use super::handle::Order;
use super::{Engine, Held};
use crate::broker::publish::Publish;
use crate::broker::{Command, Edges, Event, Interest, Publication, PublishError, Topic};
use crate::cluster::peers::Peers;
use crate::cluster::requests::{self, RequestEnd, RequestEvent, RequestSink};

/// Namespaces in which this node may ask without having sockets there.
const ANSWERS_MAX: usize = 10_000;

impl Engine {
    pub(super) fn handle_order(&mut self, now: Instant, order: Order) {
        self.is_stirred |= !matches!(order, Order::Publish { .. } | Order::Respond { .. });
        match order {
            Order::Publish { message, publish } => self.publish(message, publish),
            Order::Request { message, publish, deadline, sink } => {
                self.handle.metrics.requests.add(1);
                self.request(now, Held { message, publish, deadline, sink });
            }
            Order::Respond { namespace, asker, response, publish } => {
                let encoded = self.handle.wire.encode_response(&namespace, asker.as_ref(), &response);
                self.send(encoded.map(|publication| vec![publication]), publish);
            }
            Order::Status(status) => {
                if let Some(peers) = &mut self.peers {
                    peers.set_status(now, status);
                }
            }
            Order::Solicit => {
                if let Some(peers) = &mut self.peers {
                    peers.solicit(now);
                }
            }
            // Taken out before: it ends the run.
            Order::Leave(_) => {}
        }
    }

    fn publish(&mut self, mut message: ClusterMessage, publish: Publish) {
        message.sender = self.handle.node().map(NodeUid::of_node);
        let encoded = match &self.peers {
            Some(peers) => self.handle.wire.encode_message(&message, &Living(peers)),
            None => Ok(Vec::new()),
        };
        self.send(encoded, publish);
    }

    fn send(&mut self, encoded: Result<Vec<Publication>, EncodeError>, mut publish: Publish) {
        let publications = match encoded {
            Err(error) => return self.fail(publish, PublishError::Encode(error)),
            Ok(_) if !self.handle.is_up.load(Ordering::Relaxed) => {
                return self.fail(publish, PublishError::Away);
            }
            Ok(publications) => publications,
        };
        let count = publications.len() as u64;
        if count > 1 {
            publish.weigh(publications.iter().map(|one| one.body.len() as u64).sum());
        }
        match self.commands.try_send(Command::Publish { publications, publish }) {
            Ok(()) => self.handle.metrics.published.add(count),
            Err(error) => {
                if let Command::Publish { publish, .. } = error.into_inner() {
                    self.fail(publish, PublishError::Full);
                }
            }
        }
    }

    fn fail(&mut self, mut publish: Publish, error: PublishError) {
        if let Some(Event::Unpublished(request)) = publish.tell(Err(error)) {
            self.requests.handle_unpublished(&request);
        }
    }

    /// Asks, or holds the request until its answers can be heard.
    pub(super) fn request(&mut self, now: Instant, held: Held) {
        let waiting = self.requests.len() + self.held.len();
        let namespace = held.message.namespace.clone();
        let Some(node) = self.handle.node().filter(|_| waiting < self.handle.settings.requests_max) else {
            return self.refuse_request(held, PublishError::TooManyRequests);
        };
        let topics = self.handle.wire.topics(node, &Interest::Answers(&namespace));
        if !topics.is_empty() && !self.answers_open.contains(&namespace) {
            if self.answers_open.len() >= ANSWERS_MAX {
                return self.refuse_request(held, PublishError::TooManyRequests);
            }
            // Kept for as long as the node lives: who asked once asks again, and the last socket may leave meanwhile.
            self.answers_open.insert(namespace);
            let finished = self.handle.interests().join(now, &topics, None, Box::new(|_| {}));
            self.handle.finish(finished);
        }
        if self.are_active(&topics) {
            return self.ask(held);
        }
        self.held.push(held);
    }

    fn are_active(&self, topics: &[Topic]) -> bool {
        let interests = self.handle.interests();
        topics.iter().all(|topic| interests.is_active(topic))
    }

    pub(super) fn refuse_request(&self, mut held: Held, refusal: PublishError) {
        self.handle.metrics.requests_incomplete.add(1);
        (held.sink)(RequestEvent::End(RequestEnd { unpublished: true, ..RequestEnd::default() }));
        held.publish.decline(refusal);
    }

    /// Publishes a request whose answers can be heard.
    fn ask(&mut self, held: Held) {
        let Held { message, publish, deadline, sink } = held;
        let Some(request) = requests::answered(&message.operation).map(|(request, _)| request.clone()) else {
            return;
        };
        let audience = self.handle.wire.audience(&message.namespace);
        let nodes: Vec<NodeId> = self.peers.iter().flat_map(Peers::edges).collect();
        let sink = self.counting(sink);
        self.requests.begin(&message.operation, nodes.into_iter(), audience.is_some(), deadline, sink);
        if let Some(audience) = audience {
            let is_active = |channel: &str| self.are_active(&[Topic::Channel(channel.into())]);
            let (counts_self, is_whole) = (is_active(&audience.edges), is_active(&audience.whole));
            let number = self.number();
            self.counts.insert(number, Asked { request: request.clone(), counts_self, is_whole });
            if self.commands.try_send(Command::Count { audience, number }).is_err() {
                self.handle_counted(number, None);
            }
        }
        self.publish(message, publish.asking(request));
    }

    fn counting(&self, mut sink: RequestSink) -> RequestSink {
        let metrics = self.handle.metrics.clone();
        Box::new(move |event| {
            if let RequestEvent::End(end) = &event
                && (end.timed_out || end.unpublished || !end.missing.is_empty())
            {
                metrics.requests_incomplete.add(1);
            }
            sink(event);
        })
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

/// The edges as the machine of membership knows them.
struct Living<'a>(&'a Peers);

impl Edges for Living<'_> {
    fn is_edge(&self, node: NodeId) -> bool {
        self.0.is_edge(node)
    }

    fn others(&self) -> Vec<NodeId> {
        self.0.edges().collect()
    }
}
