//! GET and POST of a polling session.
//!
//! A GET that finds nothing waits inside the session until packets arrive, the session ends, or its client goes
//! away. A POST body is read by the connection that it came on, which may belong to another shard.

use std::rc::Rc;

use bytes::Bytes;
use engineio_proto as eio;
use engineio_proto::handshake::{ErrorCode, Query};
use engineio_proto::payload::{self, BodyForm, jsonp};
use engineio_proto::{ProtocolVersion, TransportKind, WirePacket};
use tokio::sync::oneshot;

use super::reply::Reply;
use crate::config::Eio3Payloads;
use crate::ids::SessionId;
use crate::session::app::SessionApp;
use crate::session::drive::Posted;
use crate::session::polling::Poll;
use crate::session::registry::SessionKey;
use crate::shard::Shard;

/// What a client wants of its session.
#[derive(Debug)]
pub struct PollRequest {
    /// The session.
    pub id: SessionId,
    /// What the query says.
    pub query: Query,
    /// The client's address.
    pub address: std::net::IpAddr,
    /// GET, POST, or something that no session serves.
    pub method: PollMethod,
}

/// The methods of a polling session.
#[derive(Debug)]
pub enum PollMethod {
    /// Asks for packets.
    Get,
    /// Brings packets: the form that its content type names, and the body once it has been read.
    Post(BodyForm, oneshot::Receiver<PostBody>),
    /// Any other method.
    Other,
}

/// A POST body, or what became of it.
#[derive(Debug)]
pub enum PostBody {
    /// The whole body.
    Complete(Bytes),
    /// It is larger than `edge.payload_bytes_max`; the session does not suffer.
    TooLarge,
}

/// Answers a request of a session that lives on this shard.
pub async fn answer<A: SessionApp>(shard: Rc<Shard<A>>, request: PollRequest) -> Reply {
    let mut request = request;
    let key = match find(&shard, &request) {
        Ok((key, base64)) => {
            request.query.base64 |= base64;
            key
        }
        Err(code) => return Reply::error(code),
    };
    match request.method {
        PollMethod::Get => get(shard, key, &request.query).await,
        PollMethod::Post(form, body) => post(shard, key, &request.query, form, body).await,
        PollMethod::Other => Reply::empty(500),
    }
}

/// The session that a request names, if the request may use it, and whether its handshake asked for base64.
fn find<A: SessionApp>(shard: &Rc<Shard<A>>, request: &PollRequest) -> Result<(SessionKey, bool), ErrorCode> {
    shard.with(|core| {
        let key = core.sessions.find(request.id).ok_or(ErrorCode::SessionIdUnknown)?;
        core.catch_up(key);
        let session = core.sessions.get(key).ok_or(ErrorCode::SessionIdUnknown)?;
        if shard.site.is_foreign_address(session, request.address) {
            return Err(ErrorCode::SessionIdUnknown);
        }
        if session.has_ended() && !matches!(request.method, PollMethod::Get) {
            return Err(ErrorCode::SessionIdUnknown);
        }
        if !session.has_ended() && session.machine.transport() != TransportKind::Polling
            || request.query.eio != Some(session.version())
        {
            return Err(ErrorCode::BadRequest);
        }
        Ok((key, session.base64()))
    })
}

async fn get<A: SessionApp>(shard: Rc<Shard<A>>, key: SessionKey, query: &Query) -> Reply {
    let packets = match shard.with(|core| core.poll(key)) {
        Some(Poll::Packets(packets)) => packets,
        Some(Poll::Parked(answer, poll)) => {
            let mut guard = ParkedGuard { shard: Some(shard.clone()), key, poll };
            let packets = answer.await;
            guard.shard = None;
            match packets {
                Ok(packets) => packets,
                // The session went without a word, which only happens when the shard ends.
                Err(_) => vec![WirePacket::control(eio::PacketType::Close)],
            }
        }
        Some(Poll::Overlap) => return Reply::empty(400),
        None => return Reply::error(ErrorCode::SessionIdUnknown),
    };
    payload_reply(&shard, query, &packets)
}

/// Tells the session when the client of its parked poll goes away: the connection's task is dropped then, and
/// this with it.
struct ParkedGuard<A: SessionApp> {
    /// `None` once the poll has been answered.
    shard: Option<Rc<Shard<A>>>,
    key: SessionKey,
    poll: u32,
}

impl<A: SessionApp> Drop for ParkedGuard<A> {
    fn drop(&mut self) {
        if let Some(shard) = &self.shard {
            shard.with(|core| core.poll_abandoned(self.key, self.poll));
        }
    }
}

/// Writes packets in the form that the client reads.
pub fn payload_reply<A: SessionApp>(shard: &Shard<A>, query: &Query, packets: &[WirePacket]) -> Reply {
    let version = query.eio.unwrap_or(ProtocolVersion::V4);
    let always_binary = shard.site.config.eio3_payloads == Eio3Payloads::Binary;
    let base64 = query.base64 || query.jsonp.is_some();
    let form = payload::choose_form(version, base64, always_binary, packets);
    let body = payload::encode(form, packets);
    let body = match &query.jsonp {
        None => body,
        Some(j) => jsonp::encode(&jsonp::index(j), &String::from_utf8_lossy(&body)).into_bytes(),
    };
    Reply { compressible: true, ..Reply::new(200, form.content_type(), body) }
}

async fn post<A: SessionApp>(
    shard: Rc<Shard<A>>,
    key: SessionKey,
    query: &Query,
    form: BodyForm,
    body: oneshot::Receiver<PostBody>,
) -> Reply {
    if !shard.with(|core| core.begin_post(key)) {
        return Reply::empty(400);
    }
    let mut guard = PostGuard { shard: Some(shard.clone()), key };
    let body = body.await;
    shard.room_for_turns(Some(key)).await;
    guard.shard = None;
    match body {
        Ok(PostBody::Complete(body)) => {
            shard.with(|core| core.end_post(key, false));
            let posted = match &query.jsonp {
                None => shard.with(|core| core.post(key, form, &body)),
                Some(_) => match jsonp::decode_form(&body) {
                    Some(payload) => shard.with(|core| core.post(key, BodyForm::Text, payload.as_bytes())),
                    None => Posted::Taken,
                },
            };
            match posted {
                Posted::Taken => Reply::new(200, "text/html", "ok"),
                Posted::InvalidContent => Reply::empty(400),
            }
        }
        Ok(PostBody::TooLarge) => {
            shard.metrics.limit_hits.add(1);
            shard.with(|core| core.end_post(key, false));
            Reply::empty(413)
        }
        Err(_) => {
            shard.with(|core| core.end_post(key, true));
            Reply::empty(400)
        }
    }
}

/// Ends the session when its client goes away in the middle of a POST.
struct PostGuard<A: SessionApp> {
    /// `None` once the body is there.
    shard: Option<Rc<Shard<A>>>,
    key: SessionKey,
}

impl<A: SessionApp> Drop for PostGuard<A> {
    fn drop(&mut self) {
        if let Some(shard) = &self.shard {
            shard.with(|core| core.end_post(self.key, true));
        }
    }
}
