//! Bodies: one MessagePack map with named fields for everything that our nodes say to each other.
//!
//! `v` is the format version and `t` the type. A reader takes this version and the one before, and passes over keys it does not know.
//!
//! | `t` | Needs | May have |
//! |---|---|---|
//! | `broadcast` | `nsp`, `data` | `att`, `rooms`, `except`, `volatile`, `compress`, `timeout_ms`, `single` |
//! | `broadcast_ack` | `nsp`, `data`, `req` | the same |
//! | `join`, `leave` | `nsp`, `names` | `rooms`, `except`, `req`, `holder` |
//! | `disconnect` | `nsp` | `rooms`, `except`, `close`, `req`, `holder` |
//! | `update` | `nsp` | `rooms`, `except`, `user`, `data`, `expires_at_ms`, `clear`, `req`, `holder` |
//! | `fetch` | `nsp`, `req` | `rooms`, `except`, `page`, `listing` |
//! | `list_rooms`, `list_ids` | `nsp`, `req` | `rooms` |
//! | `server_emit` | `nsp`, `data` | `att`, `req` |
//! | `count` | `req`, `count` | `node`, `names` |
//! | `ack` | `req`, `data` | `node`, `sid`, `att` |
//! | `sockets` | `req` | `node`, `sockets`, `more`, `through` |
//! | `counts` | `req` | `node`, `counts`, `more` |
//! | `ids`, `rooms` | `req`, `names` | `node` |
//! | `server_emit_ack` | `req` | `node`, `data` |
//! | `done` | `req` | `node`, `count` |
//! | `heartbeat` | `node`, `incarnation`, `seq`, `role`, `status`, `interval_ms` | `peer`, `solicits` |
//!
//! Messages also have `uid`, `id` and `tp` where there is something to say.

use serde::Deserialize;
use socketio_proto::json;
use socketio_proto::namespace::NamespacePath;

use super::wire::{self, Body, Socket, Version};
use crate::broadcast::{BroadcastFlags, BroadcastOptions, Selector};
use crate::error::{DecodeError, EncodeError};
use crate::heartbeat::{Heartbeat, NodeStatus, Role};
use crate::identity::{NodeId, NodeUid, RequestId};
use crate::limits::Limits;
use crate::listing::{self, Filter, Listing};
use crate::message::{
    Change, ClusterMessage, JsonData, Operation, Reply, SocketUpdate, check_data, check_event,
    check_server_event,
};
use crate::response::{Answer, ClusterResponse, RemoteSocket};

/// The format version that is written.
pub const VERSION: u64 = 1;

/// Levels of maps and arrays in a body. Ours have three; the rest is for what later versions may add.
/// The deserializer calls itself for each level, also below keys that it passes over.
const LEVELS_MAX: usize = 16;
/// Bytes of short texts of our own: ids for deduplication, trace parents.
const SHORT_BYTES_MAX: usize = 64;
const PEER_BYTES_MAX: usize = 256;
/// Characters of an unknown type that are reported.
const KIND_CHARS_MAX: usize = 32;

/// What a body may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Something is asked of this node.
    Message(ClusterMessage),
    /// Something that a node asked for.
    Response(ClusterResponse),
    /// Somebody is there.
    Heartbeat(Heartbeat),
}

/// Decodes a body.
///
/// # Errors
/// [`DecodeError`] if it is malformed, over a limit, of an unknown type or version, or not fit for clients.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Delivery, DecodeError> {
    if bytes.len() > limits.message_bytes_max {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), max: limits.message_bytes_max });
    }
    let body: Body<'_> = deserialize(bytes).map_err(|error| match deserialize::<Version>(bytes) {
        Ok(Version { v }) if check_version(v).is_err() => DecodeError::UnknownVersion { version: v },
        Ok(_) | Err(_) => DecodeError::Malformed(error.to_string()),
    })?;
    check_version(body.v)?;
    match body.t {
        "heartbeat" => heartbeat(&body).map(Delivery::Heartbeat),
        "count" | "ack" | "sockets" | "counts" | "ids" | "rooms" | "server_emit_ack" | "done" => {
            response(body, limits).map(Delivery::Response)
        }
        _ => message(body, limits).map(Delivery::Message),
    }
}

fn deserialize<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, rmp_serde::decode::Error> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(LEVELS_MAX);
    T::deserialize(&mut deserializer)
}

fn check_version(version: u64) -> Result<(), DecodeError> {
    let readable = version == VERSION || (version > 0 && version.checked_add(1) == Some(VERSION));
    if readable { Ok(()) } else { Err(DecodeError::UnknownVersion { version }) }
}

fn message(mut body: Body<'_>, limits: &Limits) -> Result<ClusterMessage, DecodeError> {
    let operation = operation(&mut body, limits)?;
    let short = |text: Option<&str>| text.filter(|text| text.len() <= SHORT_BYTES_MAX).map(str::to_owned);
    let path = body.nsp.filter(|path| path.len() <= limits.packet.name_bytes_max);
    let namespace =
        NamespacePath::parse(path.unwrap_or_default()).map_err(|_| DecodeError::InvalidNamespace)?;
    Ok(ClusterMessage {
        sender: body.uid.and_then(NodeUid::parse),
        namespace,
        id: short(body.id),
        trace_parent: short(body.tp),
        operation,
    })
}

fn operation(body: &mut Body<'_>, limits: &Limits) -> Result<Operation, DecodeError> {
    match body.t {
        "broadcast" => {
            Ok(Operation::Broadcast { event: event(body, limits)?, options: options(body, limits)? })
        }
        "broadcast_ack" => Ok(Operation::BroadcastWithAck {
            request: needed_request(body)?,
            event: event(body, limits)?,
            options: options(body, limits)?,
        }),
        "join" => Ok(Operation::Join {
            selector: selector(body, limits)?,
            rooms: needed_names(body, limits)?,
            reply: reply(body)?,
        }),
        "leave" => Ok(Operation::Leave {
            selector: selector(body, limits)?,
            rooms: needed_names(body, limits)?,
            reply: reply(body)?,
        }),
        "disconnect" => Ok(Operation::Disconnect {
            selector: selector(body, limits)?,
            close: body.close,
            reply: reply(body)?,
        }),
        "update" => Ok(Operation::Update {
            selector: selector(body, limits)?,
            update: update(body, limits)?,
            reply: reply(body)?,
        }),
        "fetch" => Ok(Operation::Fetch {
            request: needed_request(body)?,
            selector: selector(body, limits)?,
            page_sockets_max: body.page,
            listing: body.listing.as_ref().map(|body| listing(body, limits)).transpose()?,
        }),
        "list_rooms" => Ok(Operation::Rooms { request: needed_request(body)? }),
        "list_ids" => Ok(Operation::SocketIds {
            request: needed_request(body)?,
            rooms: rooms(&body.rooms, limits.rooms_max, limits)?,
        }),
        "server_emit" => {
            let event = taken_data(body)?;
            check_server_event(&event, limits)?;
            Ok(Operation::ServerSideEmit { request: request(body)?, event })
        }
        kind => Err(DecodeError::UnknownType { kind: kind.chars().take(KIND_CHARS_MAX).collect() }),
    }
}

fn response(mut body: Body<'_>, limits: &Limits) -> Result<ClusterResponse, DecodeError> {
    let limits = &limits.of_answers();
    let request = needed_request(&body)?;
    let node = body.node.and_then(NodeId::parse);
    let many = |names: &[&str]| rooms(names, limits.answer_items_max, limits);
    let names = || body.names.as_deref().ok_or(DecodeError::InvalidField { field: "names" });
    let answer = match body.t {
        "count" => Answer::ClientCount {
            count: body.count.ok_or(DecodeError::InvalidField { field: "count" })?,
            sids: body.names.as_deref().map(many).transpose()?,
        },
        "ack" => {
            let sid = body.sid.map(str::to_owned);
            Answer::Ack { sid, args: data(&mut body, limits)? }
        }
        "sockets" => {
            let through = body.through.map(listed_name).transpose()?;
            Answer::Sockets { sockets: sockets(&body, limits)?, more: body.more, through }
        }
        "counts" => Answer::Counts { counts: counts(&body, limits)?, more: body.more },
        "ids" => Answer::SocketIds(many(names()?)?),
        "rooms" => Answer::Rooms(many(names()?)?),
        "server_emit_ack" => Answer::ServerSideEmit(json_value(body.data, limits)?),
        _ => Answer::Done { sockets: body.count },
    };
    Ok(ClusterResponse { request, node, answer })
}

fn heartbeat(body: &Body<'_>) -> Result<Heartbeat, DecodeError> {
    let missing = |field| DecodeError::InvalidField { field };
    Ok(Heartbeat {
        node: body.node.and_then(NodeId::parse).ok_or(missing("node"))?,
        incarnation: body.incarnation.ok_or(missing("incarnation"))?,
        sequence: body.seq.ok_or(missing("seq"))?,
        role: body.role.and_then(Role::parse).ok_or(missing("role"))?,
        status: body.status.and_then(NodeStatus::parse).ok_or(missing("status"))?,
        interval_ms: body.interval_ms.ok_or(missing("interval_ms"))?,
        peer_address: body.peer.filter(|peer| peer.len() <= PEER_BYTES_MAX).map(str::to_owned),
        solicits: body.solicits,
    })
}

fn request(body: &Body<'_>) -> Result<Option<RequestId>, DecodeError> {
    let parse = |text| RequestId::parse(text).ok_or(DecodeError::InvalidField { field: "req" });
    body.req.map(parse).transpose()
}

fn needed_request(body: &Body<'_>) -> Result<RequestId, DecodeError> {
    request(body)?.ok_or(DecodeError::InvalidField { field: "req" })
}

fn reply(body: &Body<'_>) -> Result<Reply, DecodeError> {
    Ok(match (request(body)?, body.holder) {
        (None, _) => Reply::None,
        (Some(request), false) => Reply::All(request),
        (Some(request), true) => Reply::Holder(request),
    })
}

fn event(body: &mut Body<'_>, limits: &Limits) -> Result<JsonData, DecodeError> {
    let event = taken_data(body)?;
    check_event(&event, limits)?;
    Ok(event)
}

fn data(body: &mut Body<'_>, limits: &Limits) -> Result<JsonData, DecodeError> {
    let data = taken_data(body)?;
    check_data(&data, limits)?;
    Ok(data)
}

fn taken_data(body: &mut Body<'_>) -> Result<JsonData, DecodeError> {
    let text = body.data.ok_or(DecodeError::InvalidField { field: "data" })?;
    Ok(JsonData::with_attachments(text.to_owned(), std::mem::take(&mut body.att)))
}

fn json_value(value: Option<&str>, limits: &Limits) -> Result<Option<String>, DecodeError> {
    let Some(value) = value else { return Ok(None) };
    json::validate(value, limits.packet.depth_max)?;
    Ok(Some(value.to_owned()))
}

fn options(body: &Body<'_>, limits: &Limits) -> Result<BroadcastOptions, DecodeError> {
    let flags = BroadcastFlags {
        volatile: body.volatile,
        compress: body.compress,
        timeout_ms: body.timeout_ms,
        expect_single_response: body.single,
    };
    Ok(BroadcastOptions { selector: selector(body, limits)?, flags })
}

fn selector(body: &Body<'_>, limits: &Limits) -> Result<Selector, DecodeError> {
    let max = limits.rooms_max;
    Ok(Selector { rooms: rooms(&body.rooms, max, limits)?, except: rooms(&body.except, max, limits)? })
}

fn needed_names(body: &Body<'_>, limits: &Limits) -> Result<Vec<String>, DecodeError> {
    let names = body.names.as_deref().ok_or(DecodeError::InvalidField { field: "names" })?;
    rooms(names, limits.rooms_max, limits)
}

fn rooms(names: &[&str], max: usize, limits: &Limits) -> Result<Vec<String>, DecodeError> {
    if names.len() > max {
        return Err(DecodeError::TooManyRooms { max });
    }
    names.iter().map(|name| room(name, limits)).collect()
}

fn room(name: &str, limits: &Limits) -> Result<String, DecodeError> {
    let max = limits.room_bytes_max;
    if name.len() > max { Err(DecodeError::RoomTooLong { max }) } else { Ok(name.to_owned()) }
}

fn update(body: &Body<'_>, limits: &Limits) -> Result<SocketUpdate, DecodeError> {
    let user = body.user.map(|user| room(user, limits)).transpose()?;
    let data = json_value(body.data, limits)?;
    Ok(SocketUpdate {
        user: change(user, body, "user"),
        data: change(data, body, "data"),
        expires_at_ms: change(body.expires_at_ms, body, "expires_at_ms"),
    })
}

fn change<T>(value: Option<T>, body: &Body<'_>, name: &str) -> Change<T> {
    match value {
        Some(value) => Change::Set(value),
        None if body.clear.contains(&name) => Change::Clear,
        None => Change::Keep,
    }
}

fn sockets(body: &Body<'_>, limits: &Limits) -> Result<Vec<RemoteSocket>, DecodeError> {
    let socket = |socket: &Socket<'_>| {
        Ok(RemoteSocket {
            id: room(socket.id, limits)?,
            rooms: rooms(&socket.rooms, limits.rooms_max, limits)?,
            handshake: json_value(socket.handshake, limits)?,
            data: json_value(socket.data, limits)?,
            user: socket.user.map(str::to_owned),
        })
    };
    let max = limits.answer_items_max;
    if body.sockets.len() > max {
        return Err(DecodeError::TooManyItems { max });
    }
    body.sockets.iter().map(socket).collect()
}

fn counts(body: &Body<'_>, limits: &Limits) -> Result<Vec<(String, u64)>, DecodeError> {
    let max = limits.answer_items_max;
    if body.counts.len() > max {
        return Err(DecodeError::TooManyItems { max });
    }
    body.counts.iter().map(|(name, count)| Ok((listed_name(name)?, *count))).collect()
}

fn listed_name(name: &str) -> Result<String, DecodeError> {
    listing::check_name(name)?;
    Ok(name.to_owned())
}

fn listing(body: &wire::Listing<'_>, limits: &Limits) -> Result<Listing, DecodeError> {
    let text = |text: Option<&str>| text.map(|text| room(text, limits)).transpose();
    let filter =
        Filter { rooms: rooms(&body.rooms, listing::FILTER_ROOMS_MAX, limits)?, user: text(body.user)? };
    listing::Fields {
        of: body.of,
        name: text(body.name)?,
        prefix: text(body.prefix)?,
        filter,
        after: body.after.map(listed_name).transpose()?,
        limit: body.limit,
    }
    .check()
}

/// Encodes a message.
///
/// # Errors
/// [`EncodeError::Data`] if the serializer refuses it, which is our own bug.
pub fn encode_message(message: &ClusterMessage) -> Result<Vec<u8>, EncodeError> {
    let mut body = operation_body(&message.operation);
    body.uid = message.sender.as_ref().map(NodeUid::as_str);
    body.nsp = Some(message.namespace.as_str());
    body.id = message.id.as_deref();
    body.tp = message.trace_parent.as_deref();
    encode(&body)
}

fn operation_body(operation: &Operation) -> Body<'_> {
    match operation {
        Operation::Broadcast { event, options } => options_body("broadcast", event, options),
        Operation::BroadcastWithAck { request, event, options } => {
            Body { req: Some(request.as_str()), ..options_body("broadcast_ack", event, options) }
        }
        Operation::Join { selector, rooms, reply } => {
            Body { names: Some(texts(rooms)), ..selector_body("join", selector, reply) }
        }
        Operation::Leave { selector, rooms, reply } => {
            Body { names: Some(texts(rooms)), ..selector_body("leave", selector, reply) }
        }
        Operation::Disconnect { selector, close, reply } => {
            Body { close: *close, ..selector_body("disconnect", selector, reply) }
        }
        Operation::Update { selector, update, reply } => {
            update_body(selector_body("update", selector, reply), update)
        }
        Operation::Fetch { request, selector, page_sockets_max, listing } => Body {
            req: Some(request.as_str()),
            page: *page_sockets_max,
            listing: listing.as_ref().map(listing_body),
            ..selector_body("fetch", selector, &Reply::None)
        },
        Operation::Rooms { request } => Body { req: Some(request.as_str()), ..empty_body("list_rooms") },
        Operation::SocketIds { request, rooms } => {
            Body { req: Some(request.as_str()), rooms: texts(rooms), ..empty_body("list_ids") }
        }
        Operation::ServerSideEmit { request, event } => {
            Body { req: request.as_ref().map(RequestId::as_str), ..data_body("server_emit", event) }
        }
    }
}

/// Encodes a response.
///
/// # Errors
/// As [`encode_message`].
pub fn encode_response(response: &ClusterResponse) -> Result<Vec<u8>, EncodeError> {
    let node = response.node.map(|node| node.to_string());
    let body = match &response.answer {
        Answer::ClientCount { count, sids } => {
            Body { count: Some(*count), names: sids.as_deref().map(texts), ..empty_body("count") }
        }
        Answer::Ack { sid, args } => Body { sid: sid.as_deref(), ..data_body("ack", args) },
        Answer::Sockets { sockets, more, through } => Body {
            sockets: sockets.iter().map(socket_body).collect(),
            more: *more,
            through: through.as_deref(),
            ..empty_body("sockets")
        },
        Answer::Counts { counts, more } => Body {
            counts: counts.iter().map(|(name, count)| (name.as_str(), *count)).collect(),
            more: *more,
            ..empty_body("counts")
        },
        Answer::SocketIds(ids) => Body { names: Some(texts(ids)), ..empty_body("ids") },
        Answer::Rooms(rooms) => Body { names: Some(texts(rooms)), ..empty_body("rooms") },
        Answer::ServerSideEmit(data) => Body { data: data.as_deref(), ..empty_body("server_emit_ack") },
        Answer::Done { sockets } => Body { count: *sockets, ..empty_body("done") },
    };
    encode(&Body { req: Some(response.request.as_str()), node: node.as_deref(), ..body })
}

/// Encodes a heartbeat.
///
/// # Errors
/// As [`encode_message`].
pub fn encode_heartbeat(heartbeat: &Heartbeat) -> Result<Vec<u8>, EncodeError> {
    encode(&Body {
        node: Some(&heartbeat.node.to_string()),
        incarnation: Some(heartbeat.incarnation),
        seq: Some(heartbeat.sequence),
        role: Some(heartbeat.role.as_str()),
        status: Some(heartbeat.status.as_str()),
        interval_ms: Some(heartbeat.interval_ms),
        peer: heartbeat.peer_address.as_deref(),
        solicits: heartbeat.solicits,
        ..empty_body("heartbeat")
    })
}

fn encode(body: &Body<'_>) -> Result<Vec<u8>, EncodeError> {
    rmp_serde::to_vec_named(body).map_err(|error| EncodeError::Data(error.to_string()))
}

fn empty_body(kind: &str) -> Body<'_> {
    Body { v: VERSION, t: kind, ..Body::default() }
}

fn data_body<'a>(kind: &'a str, data: &'a JsonData) -> Body<'a> {
    let att = data.meant_attachments().unwrap_or_default().to_vec();
    Body { data: Some(&data.text), att, ..empty_body(kind) }
}

fn options_body<'a>(kind: &'a str, event: &'a JsonData, options: &'a BroadcastOptions) -> Body<'a> {
    let BroadcastFlags { volatile, compress, timeout_ms, expect_single_response } = options.flags;
    Body {
        rooms: texts(&options.selector.rooms),
        except: texts(&options.selector.except),
        volatile,
        compress,
        timeout_ms,
        single: expect_single_response,
        ..data_body(kind, event)
    }
}

fn selector_body<'a>(kind: &'a str, selector: &'a Selector, reply: &'a Reply) -> Body<'a> {
    let (req, holder) = match reply {
        Reply::None => (None, false),
        Reply::All(request) => (Some(request.as_str()), false),
        Reply::Holder(request) => (Some(request.as_str()), true),
    };
    let (rooms, except) = (texts(&selector.rooms), texts(&selector.except));
    Body { req, holder, rooms, except, ..empty_body(kind) }
}

fn update_body<'a>(mut body: Body<'a>, update: &'a SocketUpdate) -> Body<'a> {
    match &update.user {
        Change::Keep => {}
        Change::Clear => body.clear.push("user"),
        Change::Set(user) => body.user = Some(user),
    }
    match &update.data {
        Change::Keep => {}
        Change::Clear => body.clear.push("data"),
        Change::Set(data) => body.data = Some(data),
    }
    match update.expires_at_ms {
        Change::Keep => {}
        Change::Clear => body.clear.push("expires_at_ms"),
        Change::Set(at) => body.expires_at_ms = Some(at),
    }
    body
}

fn listing_body(listing: &Listing) -> wire::Listing<'_> {
    let Listing { list, filter, after, limit } = listing;
    let (name, prefix) = list.names().fields();
    wire::Listing {
        of: list.as_str(),
        name,
        prefix,
        user: filter.user.as_deref(),
        after: after.as_deref(),
        rooms: texts(&filter.rooms),
        limit: u64::from(*limit),
    }
}

fn socket_body(socket: &RemoteSocket) -> Socket<'_> {
    Socket {
        id: &socket.id,
        rooms: texts(&socket.rooms),
        handshake: socket.handshake.as_deref(),
        data: socket.data.as_deref(),
        user: socket.user.as_deref(),
    }
}

fn texts(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}
