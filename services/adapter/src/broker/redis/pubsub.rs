//! Publish and subscribe on Redis, and the renewal of its connection.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster_proto::identity::NodeId;
use cluster_proto::redis::channel::Names;
use fred::clients::Client;
use fred::error::ErrorKind;
use fred::interfaces::{ClientLike, PubsubInterface};
use fred::types::{Message, Value};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{sleep, timeout};

use super::connection::{Connection, Target};
use crate::broker::event::EventSink;
use crate::broker::renewal::{Bound, End, Lives, keep, tell_all};
use crate::broker::window::{Confirm, Window};
use crate::broker::{
    Audience, Broker, Claimant, Command, Delivery, Event, Publication, PublishError, Running, Topic,
};

/// Node ids that are tried before the system counts as having none to give.
const CLAIMS_MAX: u32 = 16;

/// How often the claim of the node id is renewed: well before it ends by itself.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// The driver.
#[derive(Debug)]
pub struct Redis {
    target: Target,
    names: Names,
    claimant: Claimant,
    timeout: Duration,
}

impl Redis {
    /// A driver; it connects when it runs.
    #[must_use]
    pub fn new(target: Target, names: Names, claimant: Claimant, timeout: Duration) -> Self {
        Self { target, names, claimant, timeout }
    }

    /// Asks for signs of life and renews the claim until the connection is lost; why.
    async fn watch(&self, connection: &Connection, node: NodeId, events: &EventSink) -> String {
        let watched = async {
            let mut lost = false;
            let mut renewed = Instant::now();
            loop {
                sleep(self.timeout / 2).await;
                if let Err(reason) = connection.probe().await {
                    return reason;
                }
                if renewed.elapsed() < RENEW_EVERY {
                    continue;
                }
                renewed = Instant::now();
                match connection.claim(&self.names, &self.claimant, node).await {
                    Ok(true) => lost = false,
                    Ok(false) if !std::mem::replace(&mut lost, true) => events.tell(Event::ClaimLost).await,
                    Ok(false) => {}
                    Err(reason) => return reason,
                }
            }
        };
        tokio::select! {
            reason = watched => reason,
            reason = connection.broken() => reason,
        }
    }
}

impl Lives for Redis {
    type Connection = Connection;

    async fn open(&self, held: Option<NodeId>, events: &EventSink) -> Result<(Connection, NodeId), String> {
        let connection = Box::pin(Connection::open(&self.target)).await?;
        for _ in 0..CLAIMS_MAX {
            let node = self.claimant.candidate(held).map_err(|error| error.to_string())?;
            if connection.claim(&self.names, &self.claimant, node).await? {
                return Ok((connection, node));
            }
            if held.is_some() || self.claimant.node.is_some() {
                events.tell(Event::ClaimLost).await;
                return Err(format!("the node id {node} is claimed by another process"));
            }
        }
        Err("no free node id was found".to_owned())
    }

    async fn serve(
        &self,
        connection: Connection,
        node: NodeId,
        commands: &mut mpsc::Receiver<Command>,
        events: &EventSink,
    ) -> End {
        let _reader = Bound(tokio::spawn(read(connection.messages(), events.clone())));
        let mut window = Window::new(self.timeout);
        let mut subscriptions = Subscriptions::new(connection.subscriber.clone(), self.timeout);
        let mut watch = Box::pin(self.watch(&connection, node, events));
        let end = loop {
            tokio::select! {
                reason = &mut watch => break End::Lost(reason),
                fence = subscriptions.next() => match fence {
                    Ok(Some(batch)) => events.tell(Event::Subscribed(batch)).await,
                    Ok(None) => {}
                    Err(reason) => break End::Lost(reason),
                },
                told = window.next() => tell_all(events, told).await,
                command = commands.recv() => match command {
                    None | Some(Command::Close) => break End::Closed,
                    Some(Command::Publish { publications, number }) => {
                        let client = &connection.publisher;
                        window.push(number, publications.into_iter().map(|one| publish(client, one)));
                    }
                    Some(Command::Subscribe { topics, batch }) => subscriptions.add(topics, Some(batch)),
                    Some(Command::Unsubscribe(topics)) => subscriptions.add(topics, None),
                    Some(Command::Count { audience, number }) => {
                        let client = connection.publisher.clone();
                        tokio::spawn(count(client, audience, number, self.timeout, events.clone()));
                    }
                },
            }
        };
        if end == End::Closed {
            // What was published just before is on its way on the same connection.
            connection.release(&self.names, &self.claimant, node).await;
        }
        tell_all(events, window.abandon()).await;
        end
    }
}

impl Broker for Redis {
    fn run(self: Box<Self>, commands: mpsc::Receiver<Command>, events: EventSink) -> Running {
        let seed = self.claimant.incarnation;
        Box::pin(keep(*self, seed, commands, events))
    }
}

/// Takes messages from the client as fast as they come.
async fn read(mut messages: broadcast::Receiver<Message>, events: EventSink) {
    loop {
        match messages.recv().await {
            Ok(message) => {
                if let Some(body) = body(message.value) {
                    let key = message.channel.to_string();
                    events.deliver(Delivery { key, sender: None, room_hashes: None, body });
                }
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => events.lagged(missed),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn body(value: Value) -> Option<Bytes> {
    if let Value::Bytes(bytes) = value {
        Some(bytes)
    } else if let Value::String(text) = value {
        Some(text.into_inner())
    } else {
        None
    }
}

fn publish(client: &Client, publication: Publication) -> Confirm {
    let client = client.clone();
    Box::pin(async move {
        let sent = Box::pin(client.publish::<i64, _, _>(publication.key, publication.body));
        sent.await.map(|_| ()).map_err(|error| {
            let is_undecided =
                [ErrorKind::IO, ErrorKind::Timeout, ErrorKind::Canceled].contains(error.kind());
            if is_undecided {
                PublishError::Unknown
            } else {
                PublishError::Refused(error.details().to_owned())
            }
        })
    })
}

async fn count(client: Client, audience: Audience, number: u64, within: Duration, events: EventSink) {
    let channels = vec![audience.everybody.clone(), audience.edges.clone()];
    let counted = Box::pin(client.pubsub_numsub::<HashMap<String, u64>, _>(channels));
    let counted = timeout(within, counted).await;
    let listeners = counted.ok().and_then(Result::ok).map(|counts| {
        let of = |channel: &String| counts.get(channel).copied().unwrap_or(0);
        (of(&audience.everybody), of(&audience.edges))
    });
    events.tell(Event::Counted { number, listeners }).await;
}

type Step = Pin<Box<dyn Future<Output = Result<Option<u64>, String>> + Send>>;

/// Subscriptions and their ends, one after the other: a channel that is left and joined again ends up joined.
struct Subscriptions {
    client: Client,
    timeout: Duration,
    waiting: VecDeque<(Vec<Topic>, Option<u64>)>,
    under_way: Option<Step>,
}

impl Subscriptions {
    fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout, waiting: VecDeque::new(), under_way: None }
    }

    /// Subscribes with a fence of this number, or without one ends subscriptions.
    fn add(&mut self, topics: Vec<Topic>, batch: Option<u64>) {
        self.waiting.push_back((topics, batch));
    }

    /// Waits for the next fence. Pending while there is nothing to do.
    async fn next(&mut self) -> Result<Option<u64>, String> {
        if self.under_way.is_none() {
            match self.waiting.pop_front() {
                Some((topics, batch)) => self.under_way = Some(self.step(topics, batch)),
                None => return std::future::pending().await,
            }
        }
        let Some(step) = &mut self.under_way else { return Ok(None) };
        let done = step.await;
        self.under_way = None;
        done
    }

    fn step(&self, topics: Vec<Topic>, batch: Option<u64>) -> Step {
        let (client, within) = (self.client.clone(), self.timeout * 2);
        let (mut channels, mut patterns) = (Vec::new(), Vec::new());
        for topic in topics {
            match topic {
                Topic::Channel(name) => channels.push(name.to_string()),
                Topic::Pattern(name) => patterns.push(name.to_string()),
            }
        }
        let begins = batch.is_some();
        let steps = async move {
            match (channels.is_empty(), begins) {
                (true, _) => {}
                (false, true) => Box::pin(client.subscribe(channels)).await?,
                (false, false) => Box::pin(client.unsubscribe(channels)).await?,
            }
            match (patterns.is_empty(), begins) {
                (true, _) => {}
                (false, true) => Box::pin(client.psubscribe(patterns)).await?,
                (false, false) => Box::pin(client.punsubscribe(patterns)).await?,
            }
            // The client answers for a subscription before the server has; the server answers in order.
            Box::pin(client.ping::<Value>(None)).await
        };
        Box::pin(async move {
            match timeout(within, steps).await {
                Ok(Ok(_)) => Ok(batch),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer to a subscription".to_owned()),
            }
        })
    }
}
