//! Connections come in and are shared out between the shards.
//!
//! With one shard the shard accepts for itself; with more, one acceptor hands each connection to the shard that
//! has the fewest.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::Site;
use super::router::{self, AfterUpgrade};
use crate::inbox::Outlet;
use crate::metrics::{Cell, CountedConnection};
use crate::session::app::SessionApp;
use crate::shard::{Shard, ShardMessage};
use crate::transport::stall::StallGuard;
use crate::transport::{echo, tunnel, websocket};

/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept: out of descriptors, which only time cures.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Pause between two log lines about failed accepts.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);
/// The largest buffer for the head of one request.
pub(super) const HTTP_BUFFER_BYTES: usize = 32 * 1024;

/// Takes the client port; nobody can connect before [`listen`].
///
/// # Errors
/// What the system reports, for instance that the port is taken.
pub fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Lets clients connect.
///
/// # Errors
/// As [`bind`]: another process may have been quicker.
pub fn listen(socket: Socket) -> io::Result<std::net::TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts for one shard, on its own thread.
pub async fn accept_here<A: SessionApp>(shard: Rc<Shard<A>>, listener: TcpListener) {
    let mut complaints = Complaints::default();
    loop {
        let accepted = accept(&listener, &shard.metrics.accept_errors, &mut complaints).await;
        let Some((stream, address)) = accepted else { continue };
        serve(&shard, stream, address);
    }
}

/// Accepts for several shards: the one with the fewest connections gets the next.
pub async fn accept_for_all<R: Send>(
    site: Arc<Site>,
    outlets: Vec<Outlet<ShardMessage<R>>>,
    listener: TcpListener,
) {
    let mut complaints = Complaints::default();
    loop {
        let fewest =
            site.metrics.shards().iter().zip(&outlets).min_by_key(|(shard, _)| shard.connections.get());
        let Some((metrics, outlet)) = fewest else { return };
        let accepted = accept(&listener, &metrics.accept_errors, &mut complaints).await;
        let Some((stream, address)) = accepted else { continue };
        let Ok(stream) = stream.into_std() else { continue };
        // Counted by the receiver, which may take a moment: count here too, so that a burst is spread.
        metrics.connections.add_shared(1);
        if outlet.offer(ShardMessage::Accepted(stream, address), size_of::<ShardMessage<R>>()).is_err() {
            metrics.connections.sub_shared(1);
            metrics.connections_refused.add_shared(1);
        }
    }
}

/// When a failed accept was last logged.
#[derive(Debug, Default)]
pub(super) struct Complaints(Option<Instant>);

impl Complaints {
    fn log(&mut self, error: &io::Error) {
        if self.0.is_none_or(|last| last.elapsed() >= COMPLAINT_PAUSE) {
            self.0 = Some(Instant::now());
            tracing::warn!(%error, "cannot accept connections; trying again");
        }
    }
}

/// The next connection; `None` after an error, which is counted.
pub(super) async fn accept(
    listener: &TcpListener,
    errors: &Cell,
    complaints: &mut Complaints,
) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            errors.add_shared(1);
            let is_of_client = matches!(
                error.kind(),
                io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::Interrupted
            );
            if !is_of_client {
                complaints.log(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}

/// Takes a connection from the acceptor, which has counted it already.
pub fn adopt<A: SessionApp>(shard: &Rc<Shard<A>>, stream: std::net::TcpStream, address: SocketAddr) {
    shard.metrics.connections.sub_shared(1);
    if let Some(stream) = shard.register(stream) {
        serve(shard, stream, address);
    }
}

/// Serves one connection: HTTP, until it becomes a WebSocket or ends.
fn serve<A: SessionApp>(shard: &Rc<Shard<A>>, stream: TcpStream, address: SocketAddr) {
    if shard.site.metrics.connections() >= shard.site.capacity.connections_max as u64 {
        shard.metrics.connections_refused.add_shared(1);
        return;
    }
    let _ = stream.set_nodelay(true);
    spawn_local(serve_http(shard.clone(), stream, address));
}

async fn serve_http<A: SessionApp>(shard: Rc<Shard<A>>, stream: TcpStream, address: SocketAddr) {
    let _counted = CountedConnection::new(shard.metrics.clone());
    let after: Rc<RefCell<Option<AfterUpgrade>>> = Rc::default();
    let service = service_fn(|request| {
        // Boxed: the connection is polled by reference, and most of its life it waits for the next request.
        begin(Box::pin(router::answer(shard.clone(), address, after.clone(), request)))
    });
    let stalled_max = shard.site.config.limits.http_body_timeout();
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shard.site.config.limits.http_headers_timeout())
        .max_buf_size(HTTP_BUFFER_BYTES.max(shard.site.config.limits.http_header_bytes_max))
        .serve_connection(TokioIo::new(StallGuard::new(stream, stalled_max)), service);
    let ended = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let Some(after) = after.take() else { return };
    if ended.is_err() {
        return;
    }
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().into_inner();
    // Copied: a slice would keep the whole request buffer alive for as long as the session lives.
    let left_over = Bytes::copy_from_slice(&parts.read_buf);
    drop(parts.read_buf);
    match after {
        AfterUpgrade::Open(request) => {
            websocket::open(&shard, *request, stream, left_over);
        }
        AfterUpgrade::Join(id) => {
            let owner = id.shard();
            if owner == shard.index {
                websocket::join(&shard, id, stream, left_over);
            } else if let Ok(stream) = stream.into_std() {
                let bytes = size_of::<ShardMessage<A::Remote>>() + left_over.len();
                let _ = shard.send_to(owner, ShardMessage::Adopt(id, stream, left_over), bytes);
            }
        }
        AfterUpgrade::Relay(way) => {
            spawn_local(tunnel::serve(shard.clone(), stream, left_over, way));
        }
        AfterUpgrade::Echo => {
            let bytes_max = shard.site.config.payload_bytes_max;
            echo::serve(stream, left_over, bytes_max, stalled_max).await;
        }
    }
}

/// Takes the first step of a request at once. A client may close its connection right behind its request; hyper
/// then drops the response without having asked for it once, and a session would never hear of its lost poll.
pub(super) fn begin<F: Future<Output: Unpin> + Unpin>(
    mut answer: F,
) -> impl Future<Output = F::Output> + Unpin {
    let mut first = Some(Pin::new(&mut answer).poll(&mut Context::from_waker(Waker::noop())));
    poll_fn(move |context| match first.take() {
        Some(Poll::Ready(done)) => Poll::Ready(done),
        Some(Poll::Pending) | None => Pin::new(&mut answer).poll(context),
    })
}
