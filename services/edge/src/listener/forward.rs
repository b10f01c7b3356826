//! A request whose session lives on another shard.
//!
//! The request travels as plain data through the owner's inbox and is answered by a oneshot; its connection stays
//! where it is. Only the stream of a WebSocket moves. A client that goes away takes its request with it: the
//! oneshot closes and the owner drops what it was doing, which ends a parked poll as it should.

use std::rc::Rc;

use engineio_proto::ProtocolVersion;
use engineio_proto::handshake::ErrorCode;
use tokio::sync::oneshot;

use crate::ids::SessionId;
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

/// Answers a polling request wherever its session lives.
pub async fn answer<A: SessionApp>(shard: Rc<Shard<A>>, request: PollRequest) -> Reply {
    let owner = request.id.shard();
    if request.id.node() != shard.site.node {
        return Reply::error(ErrorCode::SessionIdUnknown);
    }
    if owner == shard.index {
        return polling::answer(shard, request).await;
    }
    shard.metrics.requests_forwarded.add(1);
    let (reply, answer) = oneshot::channel();
    let message = ShardMessage::Request(Forwarded { request, reply });
    if shard.send_to(owner, message, size_of::<PollRequest>()).is_none() {
        return not_now(&shard, owner);
    }
    match answer.await {
        Ok(reply) => reply,
        Err(_) => Reply::error(ErrorCode::SessionIdUnknown),
    }
}

/// The owner's inbox is full, or there is no such shard.
fn not_now<A: SessionApp>(shard: &Shard<A>, owner: usize) -> Reply {
    if owner < shard.outlets.len() {
        Reply::empty(503).with_header("retry-after", "1")
    } else {
        Reply::error(ErrorCode::SessionIdUnknown)
    }
}

/// The question whether a WebSocket may join a session.
#[derive(Debug)]
pub struct Inspection {
    id: SessionId,
    version: Option<ProtocolVersion>,
    address: std::net::IpAddr,
    reply: oneshot::Sender<Result<(), ErrorCode>>,
}

impl Inspection {
    /// Answers on the owner's side.
    pub fn answer<A: SessionApp>(self, shard: &Rc<Shard<A>>) {
        let verdict = inspect_here(shard, self.id, self.version, self.address);
        let _ = self.reply.send(verdict);
    }
}

/// Asks the owner of a session whether a WebSocket may join it.
///
/// # Errors
/// The code to refuse the WebSocket with.
pub async fn inspect<A: SessionApp>(
    shard: &Rc<Shard<A>>,
    id: SessionId,
    version: Option<ProtocolVersion>,
    address: std::net::IpAddr,
) -> Result<(), ErrorCode> {
    let owner = id.shard();
    if id.node() != shard.site.node {
        return Err(ErrorCode::SessionIdUnknown);
    }
    if owner == shard.index {
        return inspect_here(shard, id, version, address);
    }
    shard.metrics.requests_forwarded.add(1);
    let (reply, answer) = oneshot::channel();
    let message = ShardMessage::Inspect(Inspection { id, version, address, reply });
    shard.send_to(owner, message, size_of::<Inspection>()).ok_or(ErrorCode::SessionIdUnknown)?;
    answer.await.unwrap_or(Err(ErrorCode::SessionIdUnknown))
}

fn inspect_here<A: SessionApp>(
    shard: &Rc<Shard<A>>,
    id: SessionId,
    version: Option<ProtocolVersion>,
    address: std::net::IpAddr,
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
