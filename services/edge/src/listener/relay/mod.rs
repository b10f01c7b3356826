//! A request whose session lives on another node: it is handed to that node, and its answer to the client.
//!
//! - `directory`: where a node is
//! - [`pool`]: connections to other nodes
//! - `exchange`: one polling request
//! - `upload`: the body of a POST on its way
//! - `tunnel`: the opening of a WebSocket; its bytes are the business of [`crate::transport::tunnel`]
//!
//! This side judges origins and proxies, compresses, and speaks to the browser; everything about the session is the
//! owner's business, so that a client cannot tell whether it was relayed. The other side is [`super::peer`], which
//! never relays: a request makes one step and no more.

mod directory;
mod exchange;
pub mod pool;
mod tunnel;
mod upload;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adapter::adapter::Adapter;
use adapter::config::ClusterConfig;
use cluster_proto::identity::NodeId;
use engineio_proto::handshake::{ErrorCode, Query};
use http::header::{self, HeaderValue};
use http::{Method, Request};
use hyper::body::{Body, Incoming};
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::body::answer_while;
use super::forward::not_now;
use super::peer::head::{self, Errand, TUNNEL};
use super::peer::secret::Secrets;
use crate::config::EdgeConfig;
use crate::ids::SessionId;
use crate::metrics::{CountedRelay, ShardMetrics};
use crate::session::app::SessionApp;
use crate::shard::Shard;
use crate::transport::reply::Reply;
use crate::transport::tunnel::Tunnel;
use directory::Directory;
use exchange::{Exchange, Failure};
use pool::{Connection, Pool};
use tunnel::Opened;
use upload::RelayBody;

/// Pause between two log lines about nodes that do not believe us.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// How this node reaches the others; shared by its shards.
#[derive(Debug)]
pub struct Relay {
    secrets: Arc<Secrets>,
    directory: Directory,
    relays_max: usize,
    peer_timeout: Duration,
    /// How long a session may take to answer: longer than it may leave a poll without a heartbeat.
    answer_max: Duration,
    upgrade_max: Duration,
    stalled_max: Duration,
    started: Instant,
    /// When it was last logged that a node does not believe us, in seconds after `started`, plus one.
    complained: AtomicU64,
}

/// Why a WebSocket is not relayed.
#[derive(Debug)]
pub(super) enum Refused {
    /// The session does not want it, or there is none.
    Code(ErrorCode),
    /// For another reason, which this says.
    Reply(Reply),
}

impl Relay {
    /// Puts together what relaying needs.
    pub fn new(adapter: Adapter, secrets: Arc<Secrets>, cluster: &ClusterConfig, edge: &EdgeConfig) -> Relay {
        let body_max = edge.limits.http_body_timeout();
        Relay {
            secrets,
            directory: Directory::new(adapter, cluster.peer_timeout()),
            relays_max: cluster.relays_max,
            peer_timeout: cluster.peer_timeout(),
            answer_max: edge.ping_interval() + edge.ping_timeout() + body_max,
            upgrade_max: edge.upgrade_timeout(),
            stalled_max: body_max,
            started: Instant::now(),
            complained: AtomicU64::new(0),
        }
    }

    /// Notes which nodes go, for as long as the edge runs.
    pub(super) async fn watch(&self) {
        self.directory.watch().await;
    }

    async fn find(&self, node: NodeId, metrics: &ShardMetrics) -> Option<String> {
        if let Some(known) = self.directory.known(node) {
            return known;
        }
        self.directory.look_up(node, metrics).await
    }

    async fn connect(&self, pool: &Pool, node: NodeId, address: &str) -> Option<Connection> {
        match pool.connect(node, address, self.peer_timeout, self.stalled_max).await {
            Ok(connection) => Some(connection),
            Err(error) => {
                tracing::debug!(%node, address, %error, "a node cannot be reached");
                None
            }
        }
    }

    /// Counts a failure, and says so where only an operator can help.
    fn note(&self, metrics: &ShardMetrics, node: NodeId, failure: Failure) {
        metrics.relay_failures.add(1);
        let now = self.started.elapsed().as_secs() + 1;
        let last = self.complained.load(Ordering::Relaxed);
        if failure == Failure::Unsigned
            && (last == 0 || now.saturating_sub(last) >= COMPLAINT_PAUSE.as_secs())
        {
            self.complained.store(now, Ordering::Relaxed);
            tracing::warn!(%node, "a node does not accept requests signed with the secret of cluster.secret_file");
        }
    }
}

/// Relays a polling request; nothing is kept of it but what is under way.
pub(super) async fn poll<A: SessionApp>(
    shard: Rc<Shard<A>>,
    client: IpAddr,
    request: Request<Incoming>,
    query: &Query,
    id: SessionId,
) -> Reply {
    let unknown = Reply::error(ErrorCode::SessionIdUnknown);
    let Some(relay) = shard.site.relay.clone() else { return unknown };
    let Some(address) = relay.find(id.node(), &shard.metrics).await else { return unknown };
    let Some(counted) = CountedRelay::new(&shard.site.metrics, relay.relays_max) else {
        shard.metrics.relays_refused.add(1);
        return not_now();
    };
    shard.metrics.relayed_requests.add(1);

    let config = &shard.site.config;
    let bytes_max = config.payload_bytes_max;
    let is_post = *request.method() == Method::POST;
    let is_oversized = is_post && request.body().size_hint().lower() > bytes_max as u64;
    let errand = if is_oversized { Errand::Oversized } else { Errand::Poll };
    // What is neither GET nor POST is refused by the session, whatever it is called.
    let method = match *request.method() {
        Method::GET => Method::GET,
        Method::POST => Method::POST,
        _ => Method::PUT,
    };
    let content_type = request.headers().get(header::CONTENT_TYPE).filter(|_| is_post).cloned();
    let (upload, body) = if is_post && !is_oversized {
        let (upload, body) = upload::upload(request.into_body());
        (Some(upload), body)
    } else {
        (None, RelayBody::default())
    };
    let mut builder = head::write(&relay.secrets, errand, &method, &address, id, query, client);
    if let Some(value) = content_type {
        builder = builder.header(header::CONTENT_TYPE, value);
    }
    let Ok(request) = builder.body(body) else { return unknown };
    let exchange = Exchange {
        node: id.node(),
        address,
        request,
        within: relay.answer_max,
        response_bytes_max: Exchange::response_bytes_max(config.limits.outbox_bytes_max),
        counted,
    };

    let (reply, answered) = oneshot::channel();
    spawn_local(exchange.run(relay.clone(), shard.pool.clone(), reply));
    let answer = async {
        match answered.await.unwrap_or(Err(Failure::Broken)) {
            Ok(reply) => reply,
            Err(failure) => {
                relay.note(&shard.metrics, id.node(), failure);
                failure.reply()
            }
        }
    };
    match upload {
        None => answer.await,
        Some(upload) => answer_while(upload.run(bytes_max, config.limits.http_body_timeout()), answer).await,
    }
}

/// Asks the owner of a session to take a WebSocket.
pub(super) async fn websocket<A: SessionApp>(
    shard: &Rc<Shard<A>>,
    client: IpAddr,
    query: &Query,
    id: SessionId,
) -> Result<Box<Tunnel>, Refused> {
    let unknown = Refused::Code(ErrorCode::SessionIdUnknown);
    let (node, metrics) = (id.node(), &shard.metrics);
    let Some(relay) = shard.site.relay.clone() else { return Err(unknown) };
    let Some(address) = relay.find(node, metrics).await else { return Err(unknown) };
    let Some(counted) = CountedRelay::new(&shard.site.metrics, relay.relays_max) else {
        metrics.relays_refused.add(1);
        return Err(Refused::Reply(not_now().with_header("connection", "close")));
    };
    let builder = head::write(&relay.secrets, Errand::Tunnel, &Method::GET, &address, id, query, client)
        .header(header::CONNECTION, HeaderValue::from_static("upgrade"))
        .header(header::UPGRADE, HeaderValue::from_static(TUNNEL));
    let Ok(request) = builder.body(RelayBody::default()) else { return Err(unknown) };
    let opened = match pool::dial(&address, relay.peer_timeout).await {
        Ok(stream) => tunnel::open(stream, request, relay.upgrade_max).await,
        Err(_) => Err(Failure::Unknown),
    };
    match opened {
        Ok(Opened::Tunnel(owner, left_over)) => {
            metrics.relayed_tunnels.add(1);
            Ok(Box::new(Tunnel { owner, left_over, counted }))
        }
        Ok(Opened::Refused(code)) => Err(Refused::Code(code)),
        Err(failure) => {
            relay.note(metrics, node, failure);
            Err(match failure {
                Failure::Unknown => unknown,
                Failure::Unsigned | Failure::Broken | Failure::Late => Refused::Reply(failure.reply()),
            })
        }
    }
}
