//! The peer listener: other nodes hand over requests of clients whose session lives here.
//!
//! It runs on a thread of its own that has no sessions: a poll goes to its shard as one from another shard does, and of
//! a WebSocket only the stream does. It connects to nobody, so no request can go round in a circle.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engineio_proto::handshake::ErrorCode;
use engineio_proto::payload::BodyForm;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_local;

use super::head::{self, ANSWERED, Asked, Errand, Refusal, TUNNEL};
use super::secret::Secrets;
use crate::ids::SessionId;
use crate::inbox::Outlet;
use crate::listener::body::{self, Holder};
use crate::listener::router::text_header;
use crate::listener::{Site, accept, forward};
use crate::shard::ShardMessage;
use crate::transport::polling::{PollMethod, PollRequest, PostBody};
use crate::transport::reply::Reply;
use crate::transport::stall::StallGuard;

/// How long a connection may be idle, or take over the head of a request. Well above [`super::super::relay`]'s own
/// patience, so that no node sends a request into a connection that is just being closed.
const IDLE: Duration = Duration::from_secs(30);
/// Pause between two log lines about requests that were refused.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);
/// How often the file with the secret is looked at.
const SECRET_LOOK: Duration = Duration::from_secs(1);
/// How long a listener that ends waits for its last responses to be written.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// How often it looks whether they are.
const GOODBYE_LOOK: Duration = Duration::from_millis(5);

/// What the listener works with.
#[derive(Debug)]
pub struct PeerListener<R> {
    site: Arc<Site>,
    secrets: Arc<Secrets>,
    outlets: Vec<Outlet<ShardMessage<R>>>,
    held_bytes: Cell<usize>,
    complained: Cell<Option<Instant>>,
    connections: Cell<usize>,
    /// Becomes true when the listener ends.
    ending: watch::Sender<bool>,
}

impl<R: Send + 'static> PeerListener<R> {
    /// A listener in front of these shards.
    pub fn new(site: Arc<Site>, secrets: Arc<Secrets>, outlets: Vec<Outlet<ShardMessage<R>>>) -> Rc<Self> {
        Rc::new(PeerListener {
            site,
            secrets,
            outlets,
            held_bytes: Cell::new(0),
            complained: Cell::new(None),
            connections: Cell::new(0),
            ending: watch::Sender::new(false),
        })
    }

    /// Serves until it is told to stop, or nobody is left to tell it; then what has begun is answered, for a moment.
    /// Call it where tasks may be spawned locally.
    pub async fn run(self: Rc<Self>, listener: TcpListener, stopped: oneshot::Receiver<()>) {
        let secrets = self.secrets.clone();
        tokio::select! {
            () = self.accept(&listener) => {}
            () = secrets.watch(SECRET_LOOK) => {}
            () = self.note_who_goes() => {}
            _ = stopped => {}
        }
        drop(listener);
        self.ending.send_replace(true);
        let deadline = Instant::now() + GOODBYE_MAX;
        while self.connections.get() > 0 && Instant::now() < deadline {
            tokio::time::sleep(GOODBYE_LOOK).await;
        }
    }

    async fn note_who_goes(&self) {
        match &self.site.relay {
            Some(relay) => relay.watch().await,
            None => std::future::pending().await,
        }
    }

    async fn accept(self: &Rc<Self>, listener: &TcpListener) {
        let mut complaints = accept::Complaints::default();
        let metrics = self.site.metrics.peers();
        loop {
            let accepted = accept::accept(listener, &metrics.accept_errors, &mut complaints).await;
            let Some((stream, address)) = accepted else { continue };
            if self.site.metrics.connections() >= self.site.capacity.connections_max as u64 {
                metrics.connections_refused.add(1);
                continue;
            }
            let _ = stream.set_nodelay(true);
            // Counted before it is served, or a burst would slip through.
            spawn_local(self.clone().serve(stream, address, Counted::new(self)));
        }
    }

    /// Serves one connection: polls, until it becomes a tunnel or ends.
    async fn serve(self: Rc<Self>, stream: TcpStream, address: SocketAddr, _counted: Counted<R>) {
        let limits = &self.site.config.limits;
        let after: Rc<Cell<Option<SessionId>>> = Rc::default();
        let service = service_fn(|request| {
            accept::begin(Box::pin(self.clone().answer(address, after.clone(), request)))
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(accept::HTTP_BUFFER_BYTES.max(limits.http_header_bytes_max))
            .serve_connection(TokioIo::new(StallGuard::new(stream, limits.http_body_timeout())), service);
        let mut ending = self.ending.subscribe();
        let ended = tokio::select! {
            ended = poll_fn(|context| connection.poll_without_shutdown(context)) => Some(ended),
            _ = ending.wait_for(|ending| *ending) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                Pin::new(&mut connection).graceful_shutdown();
                poll_fn(|context| connection.poll_without_shutdown(context)).await
            }
        };
        let Some(id) = after.take().filter(|_| ended.is_ok()) else { return };
        let parts = connection.into_parts();
        let Ok(stream) = parts.io.into_inner().into_inner().into_std() else { return };
        // Copied, as with any WebSocket: a slice would keep the whole buffer alive.
        let left_over = Bytes::copy_from_slice(&parts.read_buf);
        let bytes = size_of::<ShardMessage<R>>() + left_over.len();
        if let Some(outlet) = self.outlets.get(id.shard()) {
            // A shard that has no room for it drops it, and the client tries again.
            let _ = outlet.offer(ShardMessage::Adopt(id, stream, left_over), bytes);
        }
    }

    async fn answer(
        self: Rc<Self>,
        address: SocketAddr,
        after: Rc<Cell<Option<SessionId>>>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        self.site.metrics.peers().requests.add(1);
        let (parts, body) = request.into_parts();
        let asked = match head::read(&self.secrets, self.site.node, &parts) {
            Ok(asked) => asked,
            Err(refusal) => return Ok(self.refuse(address, refusal)),
        };
        let reply = match asked.errand {
            Errand::Tunnel => {
                let id = asked.id;
                match forward::inspect_there(&self.outlets, id, asked.query.eio, asked.client).await {
                    Ok(()) => {
                        after.set(Some(id));
                        return Ok(tunnel());
                    }
                    Err(code) => return Ok(respond(Reply::error(code), Some(code))),
                }
            }
            Errand::Poll | Errand::Oversized => {
                let form = text_header(&parts.headers, header::CONTENT_TYPE);
                let form =
                    if form == Some("application/octet-stream") { BodyForm::Octets } else { BodyForm::Text };
                self.poll(asked, &parts.method, form, body).await
            }
        };
        Ok(respond(reply, None))
    }

    async fn poll(&self, asked: Asked, method: &Method, form: BodyForm, body: Incoming) -> Reply {
        let Asked { id, errand, query, client } = asked;
        let (reader, arriving) = oneshot::channel();
        let method = match *method {
            Method::GET => PollMethod::Get,
            Method::POST => PollMethod::Post(form, arriving),
            _ => PollMethod::Other,
        };
        let is_post = matches!(method, PollMethod::Post(..));
        let request = PollRequest { id, query, address: client, method };
        let answer = forward::hand_over(&self.outlets, request);
        if !is_post {
            return answer.await;
        }
        if errand == Errand::Oversized {
            // Whoever answers may not have waited for it.
            let _ = reader.send(PostBody::TooLarge);
            return answer.await;
        }
        let config = &self.site.config;
        let within = config.limits.http_body_timeout();
        body::answer_while(body::read(self, body, config.payload_bytes_max, within, reader), answer).await
    }

    fn refuse(&self, address: SocketAddr, refusal: Refusal) -> Response<Full<Bytes>> {
        self.site.metrics.peers().requests_refused.add(1);
        let is_due = self.complained.get().is_none_or(|last| last.elapsed() >= COMPLAINT_PAUSE);
        if refusal == Refusal::Unsigned && is_due {
            self.complained.set(Some(Instant::now()));
            tracing::warn!(
                %address,
                "refused a request to the peer listener that is not signed with the secret of cluster.secret_file"
            );
        }
        let mut response = Response::new(Full::default());
        *response.status_mut() = refusal.status();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// Bodies that are being read here count towards the same bound as those of one shard.
impl<R> Holder for PeerListener<R> {
    fn hold(&self, bytes: usize) -> bool {
        let held = self.held_bytes.get() + bytes;
        self.held_bytes.set(held);
        self.site.metrics.peers().held_bytes.set(held as u64);
        held <= self.site.config.limits.inbound_partial_bytes_max
    }

    fn let_go(&self, bytes: usize) {
        let held = self.held_bytes.get().saturating_sub(bytes);
        self.held_bytes.set(held);
        self.site.metrics.peers().held_bytes.set(held as u64);
    }
}

/// Counts one connection for as long as it carries HTTP.
struct Counted<R>(Rc<PeerListener<R>>);

impl<R> Counted<R> {
    fn new(listener: &Rc<PeerListener<R>>) -> Self {
        listener.connections.set(listener.connections.get() + 1);
        listener.site.metrics.peers().connections.add(1);
        Counted(listener.clone())
    }
}

impl<R> Drop for Counted<R> {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get().saturating_sub(1));
        self.0.site.metrics.peers().connections.sub(1);
    }
}

fn tunnel() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    out.insert(header::UPGRADE, HeaderValue::from_static(TUNNEL));
    out.insert(ANSWERED, head::answered(None));
    response
}

fn respond(reply: Reply, code: Option<ErrorCode>) -> Response<Full<Bytes>> {
    let Reply { status, content_type, body, headers, .. } = reply;
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let out = response.headers_mut();
    out.insert(ANSWERED, head::answered(code));
    if let Ok(value) = HeaderValue::from_str(&content_type)
        && !content_type.is_empty()
    {
        out.insert(header::CONTENT_TYPE, value);
    }
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            out.append(HeaderName::from_static(name), value);
        }
    }
    response
}
