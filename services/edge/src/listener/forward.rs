//! A request whose session lives on another shard.
//!
//! It comes from the shard that has its connection, or from the peer listener, which has no sessions. The request
//! travels as plain data through the owner's inbox and is answered by a oneshot; its connection stays
//! where it is. Only the stream of a WebSocket moves. A client that goes away takes its request with it: the
//! oneshot closes and the owner drops what it was doing, which ends a parked poll as it should.

use std::net::IpAddr;
use std::rc::Rc;

use engineio_proto::ProtocolVersion;
use engineio_proto::handshake::ErrorCode;
use tokio::sync::oneshot;

use crate::ids::SessionId;
use crate::inbox::{Outlet, SendError};
use crate::session::app::SessionApp;
use crate::shard::{Shard, ShardMessage};
use crate::transport::polling::{self, PollRequest};
use crate::transport::reply::Reply;

/// A polling request on its way to the shard that owns its session.
#[derive(Debug)]
pub struct Forwarded {
    request: PollRequest,
    reply: oneshot::Sender<Reply>,
}

impl Forwarded {
    /// Answers on the owner's side.
    pub async fn answer<A: SessionApp>(self, shard: Rc<Shard<A>>) {
        let Forwarded { request, mut reply } = self;
        let answer = tokio::select! {
            // In this order: a poll whose client has gone already must still reach its session, to end it.
            biased;
            answer = polling::answer(shard, request) => answer,
            () = reply.closed() => return,
        };
        // A client that has gone in this very moment does not miss the answer.
        let _ = reply.send(answer);
    }
}

/// Answers a polling request of a session of this node.
pub async fn answer<A: SessionApp>(shard: Rc<Shard<A>>, request: PollRequest) -> Reply {
    if request.id.shard() == shard.index {
        return polling::answer(shard, request).await;
    }
    shard.metrics.requests_forwarded.add(1);
    hand_over(&shard.outlets, request).await
}

/// Has the shard that owns its session answer a polling request.
pub(super) async fn hand_over<R>(outlets: &[Outlet<ShardMessage<R>>], request: PollRequest) -> Reply {
    let Some(outlet) = outlets.get(request.id.shard()) else {
        return Reply::error(ErrorCode::SessionIdUnknown);
    };
    let (reply, answer) = oneshot::channel();
    let message = ShardMessage::Request(Forwarded { request, reply });
    match outlet.offer(message, size_of::<PollRequest>()) {
        Ok(()) => answer.await.unwrap_or_else(|_| Reply::error(ErrorCode::SessionIdUnknown)),
        Err(SendError::Full(_)) => not_now(),
        Err(SendError::Closed(_)) => Reply::error(ErrorCode::SessionIdUnknown),
    }
}

/// The answer to a request that finds everything taken for a moment.
pub(super) fn not_now() -> Reply {
    Reply::empty(503).with_header("retry-after", "1")
}

/// The question whether a WebSocket may join a session.
#[derive(Debug)]
pub struct Inspection {
    id: SessionId,
    version: Option<ProtocolVersion>,
    address: IpAddr,
    reply: oneshot::Sender<Result<(), ErrorCode>>,
}

impl Inspection {
    /// Answers on the owner's side.
    pub fn answer<A: SessionApp>(self, shard: &Rc<Shard<A>>) {
        let verdict = inspect_here(shard, self.id, self.version, self.address);
        let _ = self.reply.send(verdict);
    }
}

/// Asks the shard that owns a session of this node whether a WebSocket may join it.
///
/// # Errors
/// The code to refuse the WebSocket with.
pub async fn inspect<A: SessionApp>(
    shard: &Rc<Shard<A>>,
    id: SessionId,
    version: Option<ProtocolVersion>,
    address: IpAddr,
) -> Result<(), ErrorCode> {
    if id.shard() == shard.index {
        return inspect_here(shard, id, version, address);
    }
    shard.metrics.requests_forwarded.add(1);
    inspect_there(&shard.outlets, id, version, address).await
}

/// As [`inspect`], from a thread without sessions.
///
/// # Errors
/// As [`inspect`].
pub(super) async fn inspect_there<R>(
    outlets: &[Outlet<ShardMessage<R>>],
    id: SessionId,
    version: Option<ProtocolVersion>,
    address: IpAddr,
) -> Result<(), ErrorCode> {
    let unknown = Err(ErrorCode::SessionIdUnknown);
    let (reply, answer) = oneshot::channel();
    let message = ShardMessage::Inspect(Inspection { id, version, address, reply });
    let sent = outlets.get(id.shard()).map(|outlet| outlet.offer(message, size_of::<Inspection>()));
    match sent {
        Some(Ok(())) => answer.await.unwrap_or(unknown),
        Some(Err(SendError::Full(_) | SendError::Closed(_))) | None => unknown,
    }
}

fn inspect_here<A: SessionApp>(
    shard: &Rc<Shard<A>>,
    id: SessionId,
    version: Option<ProtocolVersion>,
    address: IpAddr,
) -> Result<(), ErrorCode> {
    shard.with(|core| {
        let session = core.sessions.find(id).and_then(|key| core.sessions.get(key));
        let session = session.filter(|session| !session.has_ended()).ok_or(ErrorCode::SessionIdUnknown)?;
        if shard.site.is_foreign_address(session, address) {
            return Err(ErrorCode::SessionIdUnknown);
        }
        if version != Some(session.version()) {
            return Err(ErrorCode::BadRequest);
        }
        Ok(())
    })
}
