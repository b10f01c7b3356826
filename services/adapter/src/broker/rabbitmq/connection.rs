//! One life of a connection to RabbitMQ: a queue of its own, which goes with it.
//!
//! The client's own recovery is not used. A node listens to one exclusive queue of bounded length, under a fresh name in
//! each life; what the queue drops is led to a second one of length one, by which a gap is noticed. An exclusive queue
//! that is named after the node id is the claim.

use std::time::Duration;

use cluster_proto::identity::NodeId;
use cluster_proto::rabbitmq::names::Names;
use lapin::options::{
    BasicConsumeOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, ConnectionProperties, Consumer, ErrorKind, ExchangeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Seconds between heartbeats of the connection itself, unless the URL says otherwise.
const HEARTBEAT_S: u16 = 10;
/// How long a message may wait for this node at RabbitMQ, in milliseconds: longer than any pause that a node survives.
const MESSAGE_TTL_MS: i32 = 60_000;
/// What a client says first, and is answered to before anything else.
const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// How to connect.
#[derive(Debug, Clone)]
pub struct Target {
    addresses: Vec<AMQPUri>,
    timeout: Duration,
    queue_messages_max: i64,
    queue_bytes_max: i64,
}

/// A URL of RabbitMQ cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("broker.rabbitmq.urls: number {number} cannot be used: {reason}")]
pub struct UrlError {
    number: usize,
    reason: &'static str,
}

impl Target {
    /// Reads URLs.
    ///
    /// # Errors
    /// [`UrlError`], which does not repeat the URL: it may hold a password.
    pub fn new(
        urls: &[String],
        timeout: Duration,
        queue_messages_max: u64,
        queue_bytes_max: usize,
    ) -> Result<Self, UrlError> {
        let mut addresses = Vec::new();
        for (index, url) in urls.iter().enumerate() {
            let refused = |reason| UrlError { number: index + 1, reason };
            let mut uri: AMQPUri = url.parse().map_err(|_: String| refused("it is no AMQP URL"))?;
            uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
            addresses.push(uri);
        }
        if addresses.is_empty() {
            return Err(UrlError { number: 1, reason: "there is none" });
        }
        Ok(Self {
            addresses,
            timeout,
            queue_messages_max: i64::try_from(queue_messages_max).unwrap_or(i64::MAX),
            queue_bytes_max: i64::try_from(queue_bytes_max).unwrap_or(i64::MAX),
        })
    }

    /// Where the broker is looked for.
    #[must_use]
    pub fn hosts(&self) -> Vec<(String, u16)> {
        self.addresses.iter().map(|uri| (uri.authority.host.clone(), uri.authority.port)).collect()
    }

    /// Where this attempt leads, for the log.
    #[must_use]
    pub fn place(&self, attempt: usize) -> String {
        let Some(uri) = self.address(attempt) else { return String::new() };
        format!("{}:{}", uri.authority.host, uri.authority.port)
    }

    /// The address for this attempt: each in turn.
    fn address(&self, attempt: usize) -> Option<&AMQPUri> {
        self.addresses.get(attempt.checked_rem(self.addresses.len())?)
    }
}

/// What one life consists of.
pub struct Connection {
    inner: lapin::Connection,
    /// Declares and binds, one thing after the other.
    pub control: Channel,
    /// Publishes, with confirms.
    pub publisher: Channel,
    /// Looks after things, so that it waits for no binding.
    watcher: Channel,
    /// The messages for this node, until somebody takes them.
    pub messages: Option<Consumer>,
    /// The queue of this life.
    pub queue: ShortString,
    dropped: ShortString,
    timeout: Duration,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("queue", &self.queue.as_str()).finish_non_exhaustive()
    }
}

/// Whose a claim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Ours, for as long as this connection lives.
    Ours,
    /// Another connection's, which may be an earlier one of our own that the broker has not given up yet.
    Held,
}

impl Connection {
    /// Connects, and declares the exchange and the queues. `life` tells one life of a process from the next.
    ///
    /// # Errors
    /// A text for the log.
    pub async fn open(target: &Target, names: &Names, incarnation: u64, life: usize) -> Result<Self, String> {
        let uri = target.address(life).ok_or("no address")?;
        timeout(target.timeout * 2, greeted(uri)).await.map_err(|_| "no answer while connecting")??;
        let connecting = Box::pin(Self::build(target, uri.clone(), names, incarnation, life));
        timeout(target.timeout * 5, connecting).await.map_err(|_| "no answer while connecting")?.map_err(text)
    }

    async fn build(
        target: &Target,
        uri: AMQPUri,
        names: &Names,
        incarnation: u64,
        life: usize,
    ) -> Result<Self, lapin::Error> {
        let properties = ConnectionProperties::default().with_connection_name("jackfield".into());
        let inner = lapin::Connection::connect_uri(uri, properties).await?;
        let (control, publisher) = (inner.create_channel().await?, inner.create_channel().await?);
        let watcher = inner.create_channel().await?;
        publisher.confirm_select(ConfirmSelectOptions::default()).await?;

        let exchange: ShortString = names.exchange().into();
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let none = FieldTable::default();
        control.exchange_declare(exchange, ExchangeKind::Topic, options, none.clone()).await?;

        let queue = ShortString::from(format!("{}.queue.{incarnation:016x}.{life}", names.exchange()));
        let dropped = ShortString::from(format!("{queue}.dropped"));
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(1));
        control.queue_declare(dropped.clone(), exclusive, arguments).await?;
        let mut arguments = FieldTable::default();
        for (name, value) in [
            ("x-max-length", AMQPValue::LongLongInt(target.queue_messages_max)),
            ("x-max-length-bytes", AMQPValue::LongLongInt(target.queue_bytes_max)),
            ("x-overflow", AMQPValue::LongString("drop-head".into())),
            ("x-message-ttl", AMQPValue::LongInt(MESSAGE_TTL_MS)),
            ("x-dead-letter-exchange", AMQPValue::LongString("".into())),
            ("x-dead-letter-routing-key", AMQPValue::LongString(dropped.as_str().into())),
        ] {
            arguments.insert(name.into(), value);
        }
        control.queue_declare(queue.clone(), exclusive, arguments).await?;
        // Nothing is acknowledged: what is delivered while this node cannot take it is lost anyway.
        let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
        let messages = control.basic_consume(queue.clone(), "".into(), options, none).await?;
        let timeout = target.timeout;
        Ok(Self { inner, control, publisher, watcher, messages: Some(messages), queue, dropped, timeout })
    }

    /// Claims a node id.
    ///
    /// # Errors
    /// A text for the log.
    pub async fn claim(&self, names: &Names, node: NodeId) -> Result<Claim, String> {
        let name = ShortString::from(format!("{}.{}", names.exchange(), names.node(node)));
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let claimed = async {
            // A refusal closes the channel, so this has one of its own.
            let channel = self.inner.create_channel().await?;
            channel.queue_declare(name, options, FieldTable::default()).await?;
            Ok::<_, lapin::Error>(())
        };
        match timeout(self.timeout * 2, claimed).await {
            Ok(Ok(())) => Ok(Claim::Ours),
            Ok(Err(error)) if is_locked(&error) => Ok(Claim::Held),
            Ok(Err(error)) => Err(text(error)),
            Err(_) => Err("no answer to the claim of the node id".to_owned()),
        }
    }

    /// Asks for a sign of life; how many messages were dropped since the last time, or at least whether.
    ///
    /// # Errors
    /// A text for the log.
    pub async fn probe(&self) -> Result<bool, String> {
        let purged = self.watcher.queue_purge(self.dropped.clone(), QueuePurgeOptions::default());
        match timeout(self.timeout * 2, purged).await {
            Ok(purged) => purged.map(|count| count > 0).map_err(text),
            Err(_) => Err("no answer to a sign of life".to_owned()),
        }
    }

    /// Takes leave, so that the broker forgets queue and claim at once.
    pub async fn close(&self) {
        // If this fails, the broker notices the lost connection.
        let _ = timeout(self.timeout, self.inner.close(200, "goodbye".into())).await;
    }
}

/// Waits until the server says its first word. The client's own thread for a connection waits without an end, so it is
/// started only where somebody answers.
async fn greeted(uri: &AMQPUri) -> Result<(), String> {
    let address = (uri.authority.host.as_str(), uri.authority.port);
    let mut stream = TcpStream::connect(address).await.map_err(text)?;
    if uri.scheme == AMQPScheme::AMQP {
        stream.write_all(PROTOCOL_HEADER).await.map_err(text)?;
        let mut first = [0; 1];
        stream.read_exact(&mut first).await.map_err(text)?;
    }
    Ok(())
}

fn is_locked(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    matches!(error.kind(), AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(urls: &[&str]) -> Result<Target, UrlError> {
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        Target::new(&urls, Duration::from_secs(2), 1_000, 1_000)
    }

    #[test]
    fn addresses_are_tried_in_turn() {
        let target = target(&["amqp://one", "amqps://user:secret@two:5671/chat?heartbeat=30"]).unwrap();
        let host = |attempt| target.address(attempt).unwrap().authority.host.clone();
        assert_eq!([host(0), host(1), host(2)], ["one", "two", "one"]);
        assert_eq!(target.address(0).unwrap().query.heartbeat, Some(HEARTBEAT_S));
        assert_eq!(target.address(1).unwrap().query.heartbeat, Some(30));
    }

    #[test]
    fn a_bad_url_is_named_by_its_place() {
        let error = target(&["amqp://one", "http://user:secret@two"]).unwrap_err().to_string();
        assert!(error.contains("number 2") && !error.contains("secret"), "{error}");
        assert!(target(&[]).is_err());
    }
}
