//! One polling request, relayed: sent to the owner of the session, and its response read.

use std::sync::Arc;
use std::time::Duration;

use cluster_proto::identity::NodeId;
use engineio_proto::handshake::ErrorCode;
use http::header::{self, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::Relay;
use super::pool::{Connection, Pool, SendError};
use super::upload::RelayBody;
use crate::listener::peer::head::ANSWERED;
use crate::listener::router::text_header;
use crate::metrics::CountedRelay;
use crate::transport::reply::Reply;

/// How often the pieces of an outbox may grow when they become a response: base64 and the quotes of a script.
const RESPONSE_GROWTH: usize = 8;

/// Why a request was not answered by its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The node is not there, or is another one by now.
    Unknown,
    /// The node does not accept our signature.
    Unsigned,
    /// The node broke off, or what it said makes no sense.
    Broken,
    /// The node did not answer.
    Late,
}

impl Failure {
    /// What the client is told.
    pub(super) fn reply(self) -> Reply {
        let text = |status, message| {
            Reply::new(status, "text/plain; charset=UTF-8", message).with_header("connection", "close")
        };
        match self {
            Failure::Unknown => Reply::error(ErrorCode::SessionIdUnknown),
            Failure::Unsigned | Failure::Broken => text(502, "The node of this session is gone"),
            Failure::Late => text(504, "The node of this session does not answer"),
        }
    }
}

/// What is to be relayed.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) node: NodeId,
    pub(super) address: String,
    pub(super) request: Request<RelayBody>,
    /// How long the owner may take to answer.
    pub(super) within: Duration,
    pub(super) response_bytes_max: usize,
    pub(super) counted: CountedRelay,
}

impl Exchange {
    /// The largest response that an outbox of this size can become.
    pub(super) fn response_bytes_max(outbox_bytes_max: usize) -> usize {
        outbox_bytes_max.saturating_mul(RESPONSE_GROWTH)
    }

    /// Has the owner answer. When whoever waits at `reply` goes away, so does the request, but not before the owner
    /// has it: it must learn that it was asked in vain, since that ends the session.
    pub(super) async fn run(
        self,
        relay: Arc<Relay>,
        pool: Pool,
        mut reply: oneshot::Sender<Result<Reply, Failure>>,
    ) {
        let Exchange { node, address, mut request, within, response_bytes_max, counted } = self;
        let is_post = *request.method() == Method::POST;
        let mut pooled = pool.take(node, &address).await;
        let answered = loop {
            let is_pooled = pooled.is_some();
            let mut connection = match pooled.take() {
                Some(connection) => connection,
                None => match relay.connect(&pool, node, &address).await {
                    Some(connection) => connection,
                    None => break Err(Failure::Unknown),
                },
            };
            let answering = timeout(within, answer(&mut connection, request, response_bytes_max));
            let answered = tokio::select! {
                biased;
                answered = answering => answered.unwrap_or(Err(Trouble::Failed(Failure::Late))),
                () = gone(&mut reply) => return,
            };
            match answered {
                Ok(answered) => {
                    // A POST that was answered early may still have body to send.
                    if !is_post || answered.status == 200 {
                        pool.give_back(node, connection);
                    }
                    break Ok(answered);
                }
                Err(Trouble::Unsent(unsent)) if is_pooled => request = *unsent,
                Err(Trouble::Unsent(_)) => break Err(Failure::Broken),
                Err(Trouble::Failed(failure)) => break Err(failure),
            }
        };
        drop(counted);
        // A client that has gone in this very moment does not miss the answer.
        let _ = reply.send(answered);
    }
}

enum Trouble {
    Unsent(Box<Request<RelayBody>>),
    Failed(Failure),
}

/// Waits until nobody waits for the answer any more and the request, which was sent before, has left: the task of its
/// connection is in front of this one.
async fn gone<T>(reply: &mut oneshot::Sender<T>) {
    reply.closed().await;
    yield_now().await;
    yield_now().await;
}

async fn answer(
    connection: &mut Connection,
    request: Request<RelayBody>,
    bytes_max: usize,
) -> Result<Reply, Trouble> {
    let response = connection.send(request).await.map_err(|error| match error {
        SendError::Unsent(request) => Trouble::Unsent(request),
        SendError::Lost => Trouble::Failed(Failure::Broken),
    })?;
    check(response.status(), response.headers()).map_err(Trouble::Failed)?;
    read(response, bytes_max).await.map_err(Trouble::Failed)
}

/// Whether a response comes from the node that was meant.
pub(super) fn check(status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
    match status {
        StatusCode::MISDIRECTED_REQUEST => Err(Failure::Unknown),
        StatusCode::UNAUTHORIZED => Err(Failure::Unsigned),
        _ if !headers.contains_key(ANSWERED) => Err(Failure::Broken),
        _ => Ok(()),
    }
}

async fn read(response: Response<Incoming>, bytes_max: usize) -> Result<Reply, Failure> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, bytes_max).collect().await.map_err(|_| Failure::Broken)?;
    let content_type = text_header(&parts.headers, header::CONTENT_TYPE).unwrap_or_default().to_owned();
    let mut reply = Reply::new(parts.status.as_u16(), content_type, body.to_bytes());
    // The owner leaves that to whoever speaks to the client.
    reply.compressible = parts.status == StatusCode::OK;
    if let Some(pause) = text_header(&parts.headers, header::RETRY_AFTER) {
        reply = reply.with_header("retry-after", pause);
    }
    Ok(reply)
}
