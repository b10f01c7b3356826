//! What is said on one connection to Redis, without the connection: commands become bytes, replies become events.
//!
//! Redis answers in the order in which it was asked, so the questions under way are a queue, and the age of the first one
//! says whether Redis still lives. Subscriptions are announced, not answered; a PING behind them is their fence.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use cluster_proto::identity::{NodeId, NodeUid};
use cluster_proto::redis::channel::Names;

use super::claim::Claim;
use super::resp::{self, Reply};
use super::wire;
use crate::broker::event::EventSink;
use crate::broker::publish::Publish;
use crate::broker::renewal::End;
use crate::broker::window::Window;
use crate::broker::{
    Audience, Claimant, Command, Delivery, Event, Listeners, Publication, PublishError, Topic,
};

/// How often the claim of the node id is renewed: well before it ends by itself.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// How often Redis is asked something, whatever else goes on.
fn probe_every(timeout: Duration) -> Duration {
    (timeout / 2).min(RENEW_EVERY)
}

/// What an answer will be about.
#[derive(Debug)]
enum Question {
    /// One part of the publish of this number.
    Publish(u64),
    /// Subscriptions before it are active, under this number; or have ended.
    Fence(Option<u64>),
    /// The count of this number.
    Count(u64, Audience),
    /// The node id is still ours.
    Claim,
    /// Redis lives.
    Alive,
    /// The node id was given up.
    Release,
}

/// One life of a connection.
#[derive(Debug)]
pub struct Session {
    names: Names,
    /// Who sends what comes back to us.
    own: NodeUid,
    claim: Claim,
    timeout: Duration,
    /// What is to be sent.
    pub out: BytesMut,
    /// What is to be told, in order.
    pub told: Vec<Event>,
    asked: VecDeque<(Instant, Question)>,
    window: Window,
    /// When Redis is asked next whether it lives.
    probe_at: Instant,
    renewed: Instant,
    is_claim_lost: bool,
    /// Redis would not write the claim, which was logged.
    is_claim_refused: bool,
    /// When it ends although the goodbye was not answered.
    leaves_at: Option<Instant>,
}

impl Session {
    /// A life that begins; its claim was just made.
    #[must_use]
    pub fn new(now: Instant, names: &Names, claimant: &Claimant, node: NodeId, timeout: Duration) -> Self {
        Self {
            names: names.clone(),
            own: NodeUid::of_node(node),
            claim: Claim::new(names, claimant, node),
            timeout,
            out: BytesMut::new(),
            told: Vec::new(),
            asked: VecDeque::new(),
            window: Window::new(timeout),
            probe_at: now + probe_every(timeout),
            renewed: now,
            is_claim_lost: false,
            is_claim_refused: false,
            leaves_at: None,
        }
    }

    fn ask<'a>(&mut self, now: Instant, question: Question, parts: impl ExactSizeIterator<Item = &'a [u8]>) {
        resp::command(&mut self.out, parts);
        self.asked.push_back((now, question));
    }

    /// Whether nothing more is to be ordered.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaves_at.is_some()
    }

    // ---- what the engine wants ----

    /// Does what it is told.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Publish { publications, publish } => self.publish(now, &publications, publish),
            Command::Subscribe { topics, batch } => self.subscribe(now, &topics, Some(batch)),
            Command::Unsubscribe(topics) => self.subscribe(now, &topics, None),
            Command::Count { audience, number } => {
                let Audience { everybody, edges, whole } = &audience;
                let [everybody, edges, whole] = [everybody, edges, whole].map(String::as_bytes);
                resp::command(&mut self.out, [b"PUBSUB", b"NUMSUB", everybody, edges, whole].into_iter());
                self.asked.push_back((now, Question::Count(number, audience)));
            }
            Command::Close => self.leave(now),
        }
    }

    fn publish(&mut self, now: Instant, publications: &[Publication], publish: Publish) {
        let number = self.window.push(now, publish, publications.len());
        for Publication { key, body, .. } in publications {
            self.ask(now, Question::Publish(number), [b"PUBLISH", key.as_bytes(), body].into_iter());
        }
    }

    /// Begins subscriptions, or without a number ends them.
    fn subscribe(&mut self, now: Instant, topics: &[Topic], batch: Option<u64>) {
        let [channels, patterns] = match batch {
            Some(_) => ["SUBSCRIBE", "PSUBSCRIBE"],
            None => ["UNSUBSCRIBE", "PUNSUBSCRIBE"],
        };
        let (mut names, mut globs) = (vec![channels.as_bytes()], vec![patterns.as_bytes()]);
        for topic in topics {
            match topic {
                Topic::Channel(name) => names.push(name.as_bytes()),
                Topic::Pattern(glob) => globs.push(glob.as_bytes()),
            }
        }
        for parts in [names, globs].into_iter().filter(|parts| parts.len() > 1) {
            resp::command(&mut self.out, parts.into_iter());
        }
        self.ask(now, Question::Fence(batch), [&b"PING"[..]].into_iter());
    }

    /// Gives up the claim, behind everything that was published.
    pub fn leave(&mut self, now: Instant) {
        if self.leaves_at.is_none() {
            self.leaves_at = Some(now + self.timeout);
            resp::command(&mut self.out, self.claim.release().into_iter());
            self.asked.push_back((now, Question::Release));
        }
    }

    // ---- what Redis says ----

    /// Takes a reply or a push.
    ///
    /// # Errors
    /// The life ends.
    pub fn handle_reply(&mut self, reply: &Reply<'_>, events: &EventSink) -> Result<(), End> {
        if let Reply::Push(items) = reply {
            if let Some((channel, body)) = message(items) {
                self.take_message(&String::from_utf8_lossy(channel), body, events);
            }
            return Ok(());
        }
        let Some((_, question)) = self.asked.pop_front() else {
            return Err(End::Lost("the broker answers what was not asked".to_owned()));
        };
        let refused = |what: &str, error: String| End::Lost(format!("the broker refuses {what}: {error}"));
        match (question, reply.error()) {
            (Question::Publish(number), error) => {
                let outcome = error.map_or(Ok(()), |error| Err(PublishError::Refused(error)));
                self.window.handle_answer(number, outcome, &mut self.told);
            }
            (Question::Count(number, audience), _) => {
                self.told.push(Event::Counted { number, listeners: listeners(reply, &audience) });
            }
            (Question::Fence(batch), None) => self.told.extend(batch.map(Event::Subscribed)),
            // A Redis that cannot save refuses the PING, and subscribes all the same.
            (Question::Fence(batch), Some(error)) if error.starts_with("MISCONF") => {
                self.told.extend(batch.map(Event::Subscribed));
            }
            (Question::Claim, None) => {
                let is_lost = reply.integer() != Some(1);
                if is_lost && !self.is_claim_lost {
                    self.told.push(Event::ClaimLost);
                }
                self.is_claim_lost = is_lost;
                self.is_claim_refused = false;
            }
            (Question::Claim, Some(error)) if may_keep_id(&error) => {
                if !std::mem::replace(&mut self.is_claim_refused, true) {
                    tracing::warn!(
                        error,
                        "Redis takes no writes: the node id is kept without its claim being renewed"
                    );
                }
            }
            // Whatever it says, it lives.
            (Question::Alive, _) => {}
            (Question::Release, _) => return Err(End::Closed),
            (Question::Fence(_), Some(error)) => return Err(refused("a subscription", error)),
            (Question::Claim, Some(error)) => return Err(refused("the claim of the node id", error)),
        }
        Ok(())
    }

    fn take_message(&self, channel: &str, body: &[u8], events: &EventSink) {
        if wire::sender(&self.names, channel, body) == Some(self.own.as_str()) {
            return events.pass_echo(body.len());
        }
        // A copy: a small message must not keep all that arrived with it.
        let body = Bytes::copy_from_slice(body);
        events.deliver(Delivery { key: channel.to_owned(), room_hashes: None, body });
    }

    // ---- time ----

    /// When [`Session::handle_timeout`] has something to do. What is asked later is not due before it.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let times = [self.window.poll_timeout(), self.leaves_at];
        times.into_iter().flatten().fold(self.probe_at, Instant::min)
    }

    /// Time has passed, and what had arrived was read.
    ///
    /// # Errors
    /// The life ends.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), End> {
        self.window.handle_timeout(now, &mut self.told);
        if self.leaves_at.is_some_and(|at| at <= now) {
            return Err(End::Closed);
        }
        if self
            .asked
            .front()
            .is_some_and(|(since, _)| now.saturating_duration_since(*since) > self.timeout * 2)
        {
            return Err(End::Lost("the broker does not answer".to_owned()));
        }
        if self.probe_at <= now {
            self.probe_at = now + probe_every(self.timeout);
            if self.is_leaving() {
                return Ok(());
            }
            if now.saturating_duration_since(self.renewed) >= RENEW_EVERY {
                self.renewed = now;
                resp::command(&mut self.out, self.claim.claim().into_iter());
                self.asked.push_back((now, Question::Claim));
            } else if !self.asked.iter().any(|(_, question)| matches!(question, Question::Alive)) {
                self.ask(now, Question::Alive, [&b"PING"[..]].into_iter());
            }
        }
        Ok(())
    }

    /// The connection is gone: what was under way is undecided.
    pub fn abandon(&mut self) -> Vec<Event> {
        let mut told = std::mem::take(&mut self.told);
        self.window.abandon(&mut told);
        for (_, question) in self.asked.drain(..) {
            if let Question::Count(number, _) = question {
                told.push(Event::Counted { number, listeners: None });
            }
        }
        told
    }
}

/// Whether a node may go on under the id that it has although Redis refuses to write the claim: for want of memory, of
/// replicas or of a disk. Nobody else can claim the id then either, and messages pass as ever. A replica is another case:
/// it is the wrong server.
#[must_use]
pub fn may_keep_id(refusal: &str) -> bool {
    ["OOM", "MISCONF", "NOREPLICAS"].iter().any(|code| refusal.starts_with(code))
}

/// Channel and body of the message in a push; nothing if it is something else.
fn message<'a>(items: &[Reply<'a>]) -> Option<(&'a [u8], &'a [u8])> {
    match *items {
        [Reply::Text(b"message"), Reply::Text(channel), Reply::Text(body)]
        | [Reply::Text(b"pmessage"), _, Reply::Text(channel), Reply::Text(body)] => Some((channel, body)),
        _ => None,
    }
}

fn listeners(reply: &Reply<'_>, audience: &Audience) -> Option<Listeners> {
    let Reply::List(items) = reply else { return None };
    let of = |channel: &String| {
        let (pairs, _) = items.as_chunks::<2>();
        let count = pairs.iter().find(|[name, _]| name.text() == Some(channel.as_bytes()));
        count.and_then(|[_, count]| count.integer()).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    };
    let Audience { everybody, edges, whole } = audience;
    Some(Listeners { everybody: of(everybody), edges: of(edges), whole: of(whole) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cluster_proto::broadcast::BroadcastOptions;
    use cluster_proto::heartbeat::Role;
    use cluster_proto::identity::RequestId;
    use cluster_proto::message::{ClusterMessage, JsonData, Operation};
    use cluster_proto::redis::classic::broadcast;
    use socketio_proto::namespace::NamespacePath;

    use super::*;
    use crate::broker::event;
    use crate::broker::publish::Budget;
    use crate::metrics::Metrics;

    const TIMEOUT: Duration = Duration::from_secs(2);

    fn node() -> NodeId {
        NodeId::from_bytes([1, 2, 3])
    }

    fn session(now: Instant) -> (Session, EventSink) {
        let claimant = Claimant {
            node: None,
            incarnation: 1,
            role: Role::Edge,
            peer_address: None,
            heartbeat_ms: 1_000,
        };
        let names = Names::new("socket.io").unwrap();
        let session = Session::new(now, &names, &claimant, node(), TIMEOUT);
        (session, event::queue(10_000, Arc::default()).0)
    }

    /// A request, so that the engine is told if it fails.
    fn publish(number: u8) -> Command {
        let publish = Budget::new(1_000, Arc::default()).reserve(1).unwrap().asking(request(number));
        Command::Publish { publications: vec![Publication::plain("c".to_owned(), b"x".to_vec())], publish }
    }

    fn request(number: u8) -> RequestId {
        RequestId::from_bytes([number; 12])
    }

    fn subscribe(batch: u64) -> Command {
        Command::Subscribe { topics: vec![Topic::Channel("a".into()), Topic::Pattern("b*".into())], batch }
    }

    #[test]
    fn answers_belong_to_the_questions_in_their_order() {
        let now = Instant::now();
        let (mut session, sink) = session(now);
        [publish(1), subscribe(7), publish(2)]
            .into_iter()
            .for_each(|command| session.handle_command(now, command));
        let out = String::from_utf8_lossy(&session.out).into_owned();
        let order = ["PUBLISH", "\r\nSUBSCRIBE", "PSUBSCRIBE", "PING"].map(|part| out.find(part).unwrap());
        assert!(order.is_sorted(), "{out}");
        session.handle_reply(&Reply::Integer(1), &sink).unwrap();
        session.handle_reply(&Reply::Push(vec![Reply::Text(b"subscribe")]), &sink).unwrap();
        session.handle_reply(&Reply::Text(b"PONG"), &sink).unwrap();
        session.handle_reply(&Reply::Error(b"NOPERM no"), &sink).unwrap();
        let expected = format!("{:?}", [Event::Subscribed(7), Event::Unpublished(request(2))]);
        assert_eq!(format!("{:?}", session.told), expected);
        assert!(session.handle_reply(&Reply::Null, &sink).is_err(), "nothing was asked");
    }

    #[test]
    fn a_refused_subscription_ends_the_life() {
        let now = Instant::now();
        let (mut session, sink) = session(now);
        session.handle_command(now, subscribe(1));
        let end = session.handle_reply(&Reply::Error(b"NOPERM no channel"), &sink);
        assert!(matches!(end, Err(End::Lost(reason)) if reason.contains("NOPERM")));
    }

    #[test]
    fn a_redis_that_takes_no_writes_still_lives() {
        let now = Instant::now();
        let (mut session, sink) = session(now);
        let misconf = Reply::Error(b"MISCONF Redis is configured to save RDB snapshots");
        session.handle_command(now, subscribe(1));
        session.handle_reply(&misconf, &sink).unwrap();
        assert!(matches!(&*session.told, [Event::Subscribed(1)]));
        session.handle_timeout(now + TIMEOUT / 2).unwrap();
        session.handle_reply(&misconf, &sink).unwrap();
        for refusal in ["OOM command not allowed", "NOREPLICAS Not enough", "MISCONF Redis is"] {
            session.asked.push_back((now, Question::Claim));
            session.handle_reply(&Reply::Error(refusal.as_bytes()), &sink).unwrap();
        }
        session.asked.push_back((now, Question::Claim));
        let end = session.handle_reply(&Reply::Error(b"READONLY You can't write against a replica"), &sink);
        assert!(matches!(end, Err(End::Lost(reason)) if reason.contains("READONLY")));
    }

    #[test]
    fn silence_ends_the_life_and_leaves_everything_undecided() {
        let now = Instant::now();
        let (mut session, _sink) = session(now);
        session.handle_command(now, publish(1));
        session.handle_timeout(now + TIMEOUT).unwrap();
        assert!(matches!(&*session.told, [Event::Unpublished(_)]));
        assert!(session.handle_timeout(now + TIMEOUT * 3).is_err());
        session.handle_command(now, publish(2));
        let told = session.abandon();
        assert!(matches!(&*told, [Event::Unpublished(_), Event::Unpublished(_)]), "{told:?}");
    }

    #[test]
    fn a_goodbye_ends_with_its_answer_or_with_time() {
        let now = Instant::now();
        let (mut first, sink) = session(now);
        first.leave(now);
        assert_eq!(first.handle_reply(&Reply::Integer(1), &sink), Err(End::Closed));
        let (mut second, _sink) = session(now);
        second.leave(now);
        assert_eq!(second.handle_timeout(now + TIMEOUT), Err(End::Closed));
    }

    #[test]
    fn what_this_node_sent_is_counted_and_not_delivered() {
        let (mut session, _) = session(Instant::now());
        let metrics = Arc::new(Metrics::default());
        let (sink, mut source) = event::queue(10_000, metrics.clone());
        for node in [node(), NodeId::from_bytes([3, 2, 1])] {
            let event = JsonData::text(r#"["x"]"#);
            let operation = Operation::Broadcast { event, options: BroadcastOptions::default() };
            let message = ClusterMessage::new(NodeUid::of_node(node), NamespacePath::root(), operation);
            let body = broadcast::encode(&message).unwrap();
            let items = [&b"message"[..], b"socket.io#/#", &body].map(Reply::Text);
            session.handle_reply(&Reply::Push(items.to_vec()), &sink).unwrap();
        }
        assert_eq!((metrics.echoes.get(), metrics.received.get()), (1, 1));
        assert!(matches!(source.try_next(), Some(Event::Delivery(_))));
        assert!(source.try_next().is_none());
    }
}
