//! Connections of one shard to other nodes, kept for the next request.
//!
//! A connection carries one request at a time. Whoever drops it while it does has it closed at once: that is how the
//! owner of a session learns that a client has gone.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_proto::identity::NodeId;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;

use super::upload::RelayBody;
use crate::listener::accept::HTTP_BUFFER_BYTES;
use crate::metrics::ShardMetrics;
use crate::transport::stall::StallGuard;

/// Idle connections to one node that one shard keeps.
const IDLE_MAX: usize = 16;
/// How long they are kept: well below what the other side allows, so that it never closes one that is just used.
const IDLE_TIME: Duration = Duration::from_secs(10);
/// How long the end of one request may take to be noticed before the next one rather opens a connection.
const TURNAROUND: Duration = Duration::from_millis(50);
/// When, and how often, a silent connection is probed, so that the loss of a whole machine is noticed.
const PROBE_EVERY: Duration = Duration::from_secs(15);

/// The idle connections of one shard. Clones are the same.
#[derive(Clone, Debug)]
pub struct Pool(Rc<Idle>);

#[derive(Debug)]
struct Idle {
    nodes: RefCell<HashMap<NodeId, Vec<Connection>>>,
    metrics: Arc<ShardMetrics>,
}

/// A connection to another node. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<RelayBody>,
    address: String,
    idle_since: Rc<Cell<Option<Instant>>>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum SendError {
    /// The connection was closed before anything was sent: the request comes back.
    Unsent(Box<Request<RelayBody>>),
    /// The connection broke; the other node may have the request.
    Lost,
}

impl Pool {
    /// No connections yet.
    pub fn new(metrics: Arc<ShardMetrics>) -> Pool {
        Pool(Rc::new(Idle { nodes: RefCell::default(), metrics }))
    }

    /// An idle connection to a node that is still there and still at this address.
    pub(super) async fn take(&self, node: NodeId, address: &str) -> Option<Connection> {
        loop {
            let mut connection = self.0.nodes.borrow_mut().get_mut(&node)?.pop()?;
            self.0.metrics.relay_idle.sub(1);
            if connection.address == address
                && matches!(timeout(TURNAROUND, connection.sender.ready()).await, Ok(Ok(())))
            {
                connection.idle_since.set(None);
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose request has been answered.
    pub(super) fn give_back(&self, node: NodeId, connection: Connection) {
        let mut nodes = self.0.nodes.borrow_mut();
        let idle = nodes.entry(node).or_default();
        if idle.len() < IDLE_MAX && !connection.sender.is_closed() {
            connection.idle_since.set(Some(Instant::now()));
            idle.push(connection);
            self.0.metrics.relay_idle.add(1);
        }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// What the system reports, or that it took longer than `within`.
    pub(super) async fn connect(
        &self,
        node: NodeId,
        address: &str,
        within: Duration,
        stalled_max: Duration,
    ) -> io::Result<Connection> {
        let stream = StallGuard::new(dial(address, within).await?, stalled_max);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HTTP_BUFFER_BYTES);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let idle_since = Rc::<Cell<Option<Instant>>>::default();
        let task = spawn_local(drive(self.clone(), node, connection, idle_since.clone())).abort_handle();
        Ok(Connection { sender, address: address.to_owned(), idle_since, task })
    }

    /// Lets go of connections that have ended.
    fn tidy(&self, node: NodeId) {
        let mut nodes = self.0.nodes.borrow_mut();
        let Some(idle) = nodes.get_mut(&node) else { return };
        let before = idle.len();
        idle.retain(|connection| !connection.sender.is_closed());
        self.0.metrics.relay_idle.sub((before - idle.len()) as u64);
        if idle.is_empty() {
            nodes.remove(&node);
        }
    }
}

impl Connection {
    /// Sends a request; it is on its way even before this is awaited.
    pub(super) fn send(
        &mut self,
        request: Request<RelayBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, SendError>> {
        let answer = self.sender.try_send_request(request);
        async move {
            answer.await.map_err(|mut error| match error.take_message() {
                Some(request) => SendError::Unsent(Box::new(request)),
                None => SendError::Lost,
            })
        }
    }
}

/// Opens a stream to a peer listener.
pub(super) async fn dial(address: &str, within: Duration) -> io::Result<TcpStream> {
    let stream = timeout(within, TcpStream::connect(address)).await??;
    // Neither is needed for what is right, only for what is quick.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(PROBE_EVERY).with_interval(PROBE_EVERY);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    Ok(stream)
}

/// The task of one connection: it ends with it, or when it has been idle for long enough.
async fn drive(
    pool: Pool,
    node: NodeId,
    connection: http1::Connection<TokioIo<StallGuard>, RelayBody>,
    idle_since: Rc<Cell<Option<Instant>>>,
) {
    let mut connection = Box::pin(connection);
    while timeout(IDLE_TIME, &mut connection).await.is_err() {
        if idle_since.get().is_some_and(|since| since.elapsed() >= IDLE_TIME) {
            break;
        }
    }
    // First the connection, then its place: only then does it count as closed.
    drop(connection);
    pool.tidy(node);
}
