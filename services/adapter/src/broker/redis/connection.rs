//! One life of a connection to Redis: one client that publishes and one that subscribes.
//!
//! The clients never reconnect by themselves. When one is lost both are given up, and a new life begins with nothing
//! queued, nothing repeated and no subscription that somebody else remembers.

use std::time::Duration;

use cluster_proto::identity::NodeId;
use cluster_proto::redis::channel::Names;
use cluster_proto::redis::heartbeat;
use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface, LuaInterface};
use fred::types::Builder;
use fred::types::config::{Config, TcpConfig};
use fred::types::{Message, RespVersion, Value};
use tokio::sync::broadcast;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::broker::Claimant;

/// Messages that the client may hold until the reader takes them; the reader does nothing else.
const MESSAGES_MAX: usize = 65_536;

/// What a URL may begin with; a Redis Cluster is none of what this mode is for.
const SCHEMES: [&str; 4] = ["redis://", "rediss://", "redis-sentinel://", "rediss-sentinel://"];

/// Sets the claim if it is free or carries our incarnation; 1 if it is ours now. The claim of another life is left alone.
const CLAIM: &str = "local held = redis.call('GET', KEYS[1]) \
    if held and not string.find(held, ARGV[1], 1, true) then return 0 end \
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1";

/// Gives up the claim if it carries our incarnation.
const RELEASE: &str = "local held = redis.call('GET', KEYS[1]) \
    if held and string.find(held, ARGV[1], 1, true) then redis.call('DEL', KEYS[1]) end return 1";

/// How to connect.
#[derive(Debug, Clone)]
pub struct Target {
    config: Config,
    timeout: Duration,
}

/// The URL of Redis cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("broker.redis.url cannot be used: {0}")]
pub struct UrlError(String);

impl Target {
    /// Reads a URL: plain, with TLS, or through Sentinel.
    ///
    /// # Errors
    /// [`UrlError`], which does not repeat the URL: it may hold a password.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, UrlError> {
        if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
            return Err(UrlError(format!("it begins with none of {}", SCHEMES.join(", "))));
        }
        let mut config = Config::from_url(url).map_err(|error| UrlError(error.details().to_owned()))?;
        // With RESP3 a subscribing client can still be asked for a PING, which is the fence behind subscriptions.
        config.version = RespVersion::RESP3;
        config.fail_fast = true;
        Ok(Self { config, timeout })
    }

    /// Where the broker is looked for.
    #[must_use]
    pub fn hosts(&self) -> Vec<(String, u16)> {
        self.config.server.hosts().into_iter().map(|server| (server.host.to_string(), server.port)).collect()
    }

    async fn client(&self) -> Result<(Client, Link), String> {
        let patience = self.timeout;
        let client = Builder::from_config(self.config.clone())
            .with_connection_config(|connection| {
                connection.connection_timeout = patience * 2;
                connection.internal_command_timeout = patience * 2;
                connection.max_command_attempts = 1;
                connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
            })
            .with_performance_config(|performance| {
                performance.default_command_timeout = Duration::ZERO;
                performance.broadcast_channel_capacity = MESSAGES_MAX;
            })
            .build()
            .map_err(text)?;
        let task = client.connect();
        let link = Link(task.abort_handle());
        match timeout(patience * 3, client.wait_for_connect()).await {
            Ok(Ok(())) => Ok((client, link)),
            Ok(Err(error)) => Err(text(error)),
            Err(_) => Err("no answer while connecting".to_owned()),
        }
    }
}

/// Ends a client's connection when dropped.
#[derive(Debug)]
struct Link(AbortHandle);

impl Drop for Link {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The two clients.
#[derive(Debug)]
pub struct Connection {
    /// The one that publishes, claims and counts.
    pub publisher: Client,
    /// The one that subscribes.
    pub subscriber: Client,
    links: [Link; 2],
    timeout: Duration,
}

impl Connection {
    /// Connects both clients.
    ///
    /// # Errors
    /// A text for the log.
    pub async fn open(target: &Target) -> Result<Self, String> {
        let (publisher, first) = target.client().await?;
        let (subscriber, second) = target.client().await?;
        Ok(Self { publisher, subscriber, links: [first, second], timeout: target.timeout })
    }

    /// The messages of all subscriptions.
    #[must_use]
    pub fn messages(&self) -> broadcast::Receiver<Message> {
        self.subscriber.message_rx()
    }

    /// Claims a node id, or renews the claim; whether it is ours.
    ///
    /// # Errors
    /// A text for the log.
    pub async fn claim(&self, names: &Names, claimant: &Claimant, node: NodeId) -> Result<bool, String> {
        let value = heartbeat::encode(&claimant.heartbeat(node));
        let args = vec![
            Value::from(incarnation(claimant)),
            Value::Bytes(value.into()),
            Value::from(claim_ms(claimant)),
        ];
        let claimed = Box::pin(self.publisher.eval::<i64, _, _, _>(CLAIM, names.node_claim(node), args));
        match timeout(self.timeout * 2, claimed).await {
            Ok(answer) => answer.map(|claimed| claimed == 1).map_err(text),
            Err(_) => Err("no answer to the claim of the node id".to_owned()),
        }
    }

    /// Gives up the claim.
    pub async fn release(&self, names: &Names, claimant: &Claimant, node: NodeId) {
        let args = vec![incarnation(claimant)];
        let released = Box::pin(self.publisher.eval::<i64, _, _, _>(RELEASE, names.node_claim(node), args));
        // If this fails, the claim ends by itself.
        let _ = timeout(self.timeout, released).await;
    }

    /// Asks both clients for a sign of life.
    ///
    /// # Errors
    /// A text for the log.
    pub async fn probe(&self) -> Result<(), String> {
        if self.links.iter().any(|link| link.0.is_finished()) {
            return Err("the connection was closed".to_owned());
        }
        let one = Box::pin(self.publisher.ping::<Value>(None));
        let two = Box::pin(self.subscriber.ping::<Value>(None));
        let both = async {
            let (one, two) = tokio::join!(one, two);
            one.and(two)
        };
        match timeout(self.timeout * 2, both).await {
            Ok(answer) => answer.map(|_| ()).map_err(text),
            Err(_) => Err("no answer to a PING".to_owned()),
        }
    }

    /// Waits until a client reports that its connection broke.
    pub async fn broken(&self) -> String {
        let (mut one, mut two) = (self.publisher.error_rx(), self.subscriber.error_rx());
        let error = tokio::select! {
            error = one.recv() => error,
            error = two.recv() => error,
        };
        error.map_or_else(|_| "the connection was closed".to_owned(), |(error, _)| text(error))
    }
}

fn incarnation(claimant: &Claimant) -> String {
    format!("{:016x}", claimant.incarnation)
}

/// How long a claim outlives its last renewal, in milliseconds.
fn claim_ms(claimant: &Claimant) -> i64 {
    const LEAST: u64 = 30_000;
    i64::try_from(claimant.heartbeat_ms.saturating_mul(15).max(LEAST)).unwrap_or(i64::MAX)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_passwords_not_repeated() {
        let check = |url: &str, fits: bool| {
            let target = Target::new(url, Duration::from_secs(1));
            assert_eq!(target.is_ok(), fits, "{url}");
            if let Err(error) = target {
                assert!(!error.to_string().contains("secret"), "{error}");
            }
        };
        check("redis://127.0.0.1:6379", true);
        check("rediss://user:secret@host:6380/1", true);
        check("redis-sentinel://h:26379/?sentinelServiceName=main&node=h2:26379", true);
        check("redis-cluster://h:6379", false);
        check("http://user:secret@h", false);
        check("", false);
    }
}
