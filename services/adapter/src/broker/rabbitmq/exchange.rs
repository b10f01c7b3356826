//! Publish and subscribe on a topic exchange.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cluster_proto::identity::{NodeId, NodeUid};
use cluster_proto::rabbitmq::codec::VERSION;
use cluster_proto::rabbitmq::header;
use cluster_proto::rabbitmq::names::Names;
use futures_util::StreamExt;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, ByteArray, FieldArray, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Consumer};
use tokio::sync::mpsc;
use tokio::task::coop::consume_budget;
use tokio::time::{sleep, timeout};

use super::bindings::Bindings;
use super::confirms::{Confirm, Confirms};
use super::connection::{Claim, Connection, Target};
use crate::broker::event::EventSink;
use crate::broker::renewal::{Bound, End, Lives, Opened, keep, tell_all};
use crate::broker::{Broker, Claimant, Command, Delivery, Event, Gap, Publication, PublishError, Running};

/// Node ids that are tried before the system counts as having none to give.
const CLAIMS_MAX: u32 = 16;
/// How long our own id may be held by a connection that the broker has not given up yet.
const CLAIM_PATIENCE: Duration = Duration::from_secs(60);
/// A message that need not survive the broker.
const TRANSIENT: u8 = 1;

/// The driver.
#[derive(Debug)]
pub struct Rabbitmq {
    target: Target,
    names: Names,
    claimant: Claimant,
    timeout: Duration,
    lives: AtomicUsize,
}

impl Rabbitmq {
    /// A driver; it connects when it runs.
    #[must_use]
    pub fn new(target: Target, names: Names, claimant: Claimant, timeout: Duration) -> Self {
        // Nodes that are given the same addresses do not all begin with the same one.
        let first = usize::try_from(claimant.incarnation % 1_024).unwrap_or(0);
        Self { target, names, claimant, timeout, lives: AtomicUsize::new(first) }
    }

    /// Claims a free node id, or the one that is wanted.
    async fn claim(&self, connection: &Connection, events: &EventSink) -> Result<NodeId, String> {
        for _ in 0..CLAIMS_MAX {
            let node = self.claimant.candidate(None).map_err(|error| error.to_string())?;
            if connection.claim(&self.names, node).await? == Claim::Ours {
                return Ok(node);
            }
            if self.claimant.node.is_some() {
                events.tell(Event::ClaimLost).await;
                connection.close().await;
                return Err(format!("the node id {node} is claimed by another process"));
            }
        }
        Err("no free node id was found".to_owned())
    }

    /// Asks for signs of life, and for the claim while it is not ours, until the connection is lost; why.
    async fn watch(&self, connection: &Connection, node: NodeId, events: &EventSink) -> String {
        let began = Instant::now();
        let mut claim = Claim::Held;
        let mut told = false;
        loop {
            if claim == Claim::Held {
                claim = match connection.claim(&self.names, node).await {
                    Ok(claim) => claim,
                    Err(reason) => return reason,
                };
                if claim == Claim::Held && began.elapsed() > CLAIM_PATIENCE && !told {
                    told = true;
                    events.tell(Event::ClaimLost).await;
                }
            }
            sleep(self.timeout / 2).await;
            match connection.probe().await {
                Ok(true) => events.tell(Event::Gap(Gap::Overflowed)).await,
                Ok(false) => {}
                Err(reason) => return reason,
            }
            if !connection.publisher.status().connected() {
                // It refuses one message in this way, or all: only a new connection can tell.
                return "the broker has closed the channel for publishing: a message was too large, or the user may not \
                        publish to the exchange"
                    .to_owned();
            }
        }
    }
}

impl Lives for Rabbitmq {
    type Connection = Connection;

    async fn open(&self, held: Option<NodeId>, events: &EventSink) -> Result<Opened<Connection>, String> {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let at = self.target.place(life);
        let opened = async {
            let opening = Connection::open(&self.target, &self.names, self.claimant.incarnation, life);
            let connection = Box::pin(opening).await?;
            let node = match held {
                // The broker may not have noticed yet that the last connection is gone: the watch goes on asking.
                Some(node) => node,
                None => self.claim(&connection, events).await?,
            };
            Ok((connection, node))
        };
        let (connection, node) = opened.await.map_err(|reason: String| format!("{at}: {reason}"))?;
        Ok(Opened { connection, node, at })
    }

    async fn serve(
        &self,
        mut connection: Connection,
        node: NodeId,
        commands: &mut mpsc::Receiver<Command>,
        events: &EventSink,
    ) -> End {
        let Some(messages) = connection.messages.take() else {
            return End::Lost("the messages were taken before".to_owned());
        };
        let mut reader = Bound(tokio::spawn(read(messages, NodeUid::of_node(node), events.clone())));
        let mut confirms = Confirms::new(self.timeout);
        let exchange = self.names.exchange();
        let mut bindings =
            Bindings::new(connection.control.clone(), connection.queue.clone(), exchange, self.timeout);
        let mut watch = Box::pin(self.watch(&connection, node, events));
        let end = loop {
            tokio::select! {
                reason = &mut watch => break End::Lost(reason),
                reason = &mut reader.0 => {
                    break End::Lost(reason.unwrap_or_else(|_| "the reader has ended".to_owned()));
                }
                fence = bindings.next() => match fence {
                    Ok(Some(batch)) => events.tell(Event::Subscribed(batch)).await,
                    Ok(None) => {}
                    Err(reason) => break End::Lost(reason),
                },
                told = confirms.next() => tell_all(events, told).await,
                command = commands.recv() => match command {
                    None | Some(Command::Close) => break End::Closed,
                    Some(Command::Publish { publications, publish }) => {
                        let channel = &connection.publisher;
                        confirms.push(publish, publications.into_iter().map(|one| send(channel, exchange, one)));
                    }
                    Some(Command::Subscribe { topics, batch }) => bindings.bind(topics, batch),
                    Some(Command::Unsubscribe(topics)) => bindings.unbind(topics),
                    Some(Command::Count { number, .. }) => {
                        events.tell(Event::Counted { number, listeners: None }).await;
                    }
                },
            }
        };
        drop(watch);
        if end == End::Closed {
            // The client sends what closes the connection before what waits to be published: the goodbye would be lost.
            let confirmed = async {
                while !confirms.is_empty() {
                    let told = confirms.next().await;
                    tell_all(events, told).await;
                }
            };
            let _ = timeout(self.timeout, confirmed).await;
            connection.close().await;
        } else {
            // The broker may not answer any more; nobody waits for it.
            tokio::spawn(async move { connection.close().await });
        }
        tell_all(events, confirms.abandon()).await;
        end
    }
}

impl Broker for Rabbitmq {
    fn run(self: Box<Self>, commands: mpsc::Receiver<Command>, events: EventSink) -> Running {
        let seed = self.claimant.incarnation;
        Box::pin(keep(*self, seed, commands, events))
    }
}

/// Takes messages from the client as fast as they come; why there are no more.
async fn read(mut messages: Consumer, own: NodeUid, events: EventSink) -> String {
    while let Some(message) = messages.next().await {
        // Others on the thread have their turn: the client hands over without an end what has arrived.
        consume_budget().await;
        match message {
            Ok(message) => {
                let headers = message.properties.headers().as_ref();
                if headers.and_then(sender) == Some(own.as_str().as_bytes()) {
                    events.pass_echo(message.data.len());
                    continue;
                }
                events.deliver(Delivery {
                    key: message.routing_key.to_string(),
                    room_hashes: headers.and_then(room_hashes),
                    body: message.data.into(),
                });
            }
            Err(error) => return error.to_string(),
        }
    }
    "the broker ended the subscription".to_owned()
}

fn sender(headers: &FieldTable) -> Option<&[u8]> {
    let AMQPValue::LongString(text) = headers.inner().get(header::SENDER)? else { return None };
    Some(text.as_bytes())
}

fn room_hashes(headers: &FieldTable) -> Option<Vec<u32>> {
    let AMQPValue::ByteArray(bytes) = headers.inner().get(header::ROOM_HASHES)? else { return None };
    header::decode_room_hashes(bytes.as_slice()).map(Iterator::collect)
}

fn send(channel: &Channel, exchange: &str, publication: Publication) -> Confirm {
    let (channel, exchange) = (channel.clone(), ShortString::from(exchange));
    Box::pin(async move {
        let Publication { key, further, sender, room_hashes, body } = publication;
        let mut headers = FieldTable::default();
        headers.insert(header::VERSION.into(), AMQPValue::LongLongInt(i64::try_from(VERSION).unwrap_or(0)));
        if let Some(sender) = sender {
            headers.insert(header::SENDER.into(), AMQPValue::LongString(sender.as_str().into()));
        }
        if let Some(hashes) = room_hashes {
            let bytes = ByteArray::from(header::encode_room_hashes(&hashes));
            headers.insert(header::ROOM_HASHES.into(), AMQPValue::ByteArray(bytes));
        }
        if !further.is_empty() {
            let keys: Vec<AMQPValue> =
                further.into_iter().map(|key| AMQPValue::LongString(key.into())).collect();
            headers.insert(header::CC.into(), AMQPValue::FieldArray(FieldArray::from(keys)));
        }
        let properties = BasicProperties::default().with_headers(headers).with_delivery_mode(TRANSIENT);
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish(exchange, key.into(), options, &body, properties).await;
        match sent.map_err(unknown)?.await.map_err(unknown)? {
            Confirmation::Ack(_) | Confirmation::NotRequested => Ok(()),
            Confirmation::Nack(_) => Err(PublishError::Refused("it was not taken".to_owned())),
        }
    })
}

fn unknown(error: lapin::Error) -> PublishError {
    tracing::debug!(%error, "a publish was not confirmed");
    PublishError::Unknown
}
