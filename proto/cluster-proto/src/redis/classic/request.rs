//! Requests on request channels: maps with `type`, `uid`, `requestId` and what the type needs.
//! The namespace is that of the channel. All are JSON, but for type 7, which carries an event and is MessagePack.

use socketio_proto::json;
use socketio_proto::namespace::NamespacePath;
use socketio_proto::parser::msgpack::{push_json, push_map_head, push_text};

use super::broadcast::{Packet, push_options, push_packet};
use super::fields::{self, Fields, ObjectWriter};
use crate::broadcast::{BroadcastOptions, Selector};
use crate::error::{DecodeError, EncodeError};
use crate::identity::{NodeUid, RequestId};
use crate::limits::Limits;
use crate::message::{Change, ClusterMessage, JsonData, Operation, Reply, SocketUpdate, check_server_event};

/// Keys that requests have; all others are passed over.
const KEYS: [&str; 16] = [
    "type",
    "uid",
    "requestId",
    "rooms",
    "opts",
    "close",
    "data",
    "packet",
    "sid",
    "room",
    "pageSize",
    "listing",
    "user",
    "expiresAt",
    "id",
    "tp",
];

/// Our own type of request; Node ignores what it does not know.
const UPDATE: &str = "update";
/// Bytes of an unknown type that are reported.
const KIND_BYTES_MAX: usize = 32;

/// Decodes a request that arrived on the request channel of `namespace`.
///
/// # Errors
/// [`DecodeError`] if it is malformed, over a limit, or of an unknown type.
pub fn decode(
    bytes: &[u8],
    namespace: &NamespacePath,
    limits: &Limits,
) -> Result<ClusterMessage, DecodeError> {
    let mut fields = Fields::read(bytes, &KEYS, limits)?;
    Ok(ClusterMessage {
        sender: fields.sender(),
        namespace: namespace.clone(),
        id: fields.short("id"),
        trace_parent: fields.short("tp"),
        operation: operation(&mut fields, limits)?,
    })
}

fn operation(fields: &mut Fields<'_>, limits: &Limits) -> Result<Operation, DecodeError> {
    let kind = fields.json("type").ok_or(DecodeError::InvalidField { field: "type" })?;
    match kind {
        "0" => Ok(Operation::SocketIds {
            request: fields.needed_request()?,
            rooms: fields.rooms("rooms", limits)?,
        }),
        "1" => Ok(Operation::Rooms { request: fields.needed_request()? }),
        "2" => {
            let (selector, rooms, reply) = membership(fields, limits)?;
            Ok(Operation::Join { selector, rooms, reply })
        }
        "3" => {
            let (selector, rooms, reply) = membership(fields, limits)?;
            Ok(Operation::Leave { selector, rooms, reply })
        }
        "4" => {
            let (selector, reply) = targets(fields, limits)?;
            Ok(Operation::Disconnect { selector, close: fields.json("close") == Some("true"), reply })
        }
        "5" => Ok(Operation::Fetch {
            request: fields.needed_request()?,
            selector: options(fields, limits)?.selector,
            page_sockets_max: fields.number("pageSize").and_then(|size| u32::try_from(size).ok()),
            listing: fields.json("listing").map(|listing| fields::listing(listing, limits)).transpose()?,
        }),
        "6" => server_side_emit(fields, limits),
        "7" => broadcast_with_ack(fields, limits),
        _ if json::unquote(kind).is_some_and(|kind| kind == UPDATE) => update(fields, limits),
        _ => Err(DecodeError::UnknownType {
            kind: kind.chars().scan(0, |bytes, c| within(bytes, c).then_some(c)).collect(),
        }),
    }
}

fn within(bytes: &mut usize, c: char) -> bool {
    *bytes += c.len_utf8();
    *bytes <= KIND_BYTES_MAX
}

fn options(fields: &Fields<'_>, limits: &Limits) -> Result<BroadcastOptions, DecodeError> {
    fields::options(fields.json("opts").ok_or(DecodeError::InvalidField { field: "opts" })?, limits)
}

/// Which sockets types 2 to 4 are about, and who answers: with `opts` many sockets, in the old form the one with `sid`.
fn targets(fields: &Fields<'_>, limits: &Limits) -> Result<(Selector, Reply), DecodeError> {
    let request = fields.request()?;
    if fields.json("opts").is_some_and(|opts| opts != "null") {
        let reply = request.map_or(Reply::None, Reply::All);
        return Ok((options(fields, limits)?.selector, reply));
    }
    let sid = fields.json("sid").ok_or(DecodeError::InvalidField { field: "opts" })?;
    let sid = fields::room(sid, "sid", limits)?;
    Ok((Selector::room(sid), request.map_or(Reply::None, Reply::Holder)))
}

fn membership(fields: &Fields<'_>, limits: &Limits) -> Result<(Selector, Vec<String>, Reply), DecodeError> {
    let (selector, reply) = targets(fields, limits)?;
    let rooms = match (fields.json("rooms"), fields.json("room")) {
        (None, Some(room)) => vec![fields::room(room, "room", limits)?],
        _ => fields.rooms("rooms", limits)?,
    };
    Ok((selector, rooms, reply))
}

fn server_side_emit(fields: &mut Fields<'_>, limits: &Limits) -> Result<Operation, DecodeError> {
    let request = fields.request()?;
    let data = fields.take("data").ok_or(DecodeError::InvalidField { field: "data" })?;
    let event = data.into_data();
    check_server_event(&event, limits)?;
    Ok(Operation::ServerSideEmit { request, event })
}

fn broadcast_with_ack(fields: &mut Fields<'_>, limits: &Limits) -> Result<Operation, DecodeError> {
    let request = fields.needed_request()?;
    let options = options(fields, limits)?;
    let packet = fields.take("packet").ok_or(DecodeError::InvalidField { field: "packet" })?;
    Ok(Operation::BroadcastWithAck { request, event: Packet::of_field(packet, limits)?, options })
}

fn update(fields: &Fields<'_>, limits: &Limits) -> Result<Operation, DecodeError> {
    let (selector, reply) = targets(fields, limits)?;
    let user = change(fields.json("user"), "user", |user| fields::room(user, "user", limits).ok())?;
    let data = change(fields.json("data"), "data", |data| Some(data.to_owned()))?;
    let expires_at_ms = change(fields.json("expiresAt"), "expiresAt", |at| at.parse().ok())?;
    Ok(Operation::Update { selector, update: SocketUpdate { user, data, expires_at_ms }, reply })
}

fn change<T>(
    value: Option<&str>,
    field: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Change<T>, DecodeError> {
    match value {
        None => Ok(Change::Keep),
        Some("null") => Ok(Change::Clear),
        Some(value) => parse(value).map(Change::Set).ok_or(DecodeError::InvalidField { field }),
    }
}

/// Encodes a request.
///
/// # Errors
/// [`EncodeError`] if its data is not as promised, or the message is a broadcast, which travels elsewhere.
pub fn encode(message: &ClusterMessage) -> Result<Vec<u8>, EncodeError> {
    if let Operation::BroadcastWithAck { request, event, options } = &message.operation {
        return encode_msgpack(message, request, event, options);
    }
    encode_json(message, &message.operation).map(String::into_bytes)
}

fn encode_json(message: &ClusterMessage, operation: &Operation) -> Result<String, EncodeError> {
    let mut object = ObjectWriter::new();
    if let Some(sender) = &message.sender {
        object.string("uid", sender.as_str());
    }
    if let Some(request) = request_of(operation) {
        object.string("requestId", request.as_str());
    }
    push_operation(operation, &mut object)?;
    for (key, value) in [("id", &message.id), ("tp", &message.trace_parent)] {
        if let Some(value) = value {
            object.string(key, value);
        }
    }
    Ok(object.finish())
}

fn request_of(operation: &Operation) -> Option<&RequestId> {
    match operation {
        Operation::Broadcast { .. } => None,
        Operation::BroadcastWithAck { request, .. }
        | Operation::Fetch { request, .. }
        | Operation::Rooms { request }
        | Operation::SocketIds { request, .. } => Some(request),
        Operation::ServerSideEmit { request, .. } => request.as_ref(),
        Operation::Join { reply, .. }
        | Operation::Leave { reply, .. }
        | Operation::Disconnect { reply, .. }
        | Operation::Update { reply, .. } => match reply {
            Reply::None => None,
            Reply::All(request) | Reply::Holder(request) => Some(request),
        },
    }
}

fn push_operation(operation: &Operation, object: &mut ObjectWriter) -> Result<(), EncodeError> {
    match operation {
        Operation::SocketIds { rooms, .. } => {
            object.display("type", 0);
            object.list("rooms", rooms);
        }
        Operation::Rooms { .. } => object.display("type", 1),
        Operation::Join { selector, rooms, reply } => push_membership(2, selector, rooms, reply, object)?,
        Operation::Leave { selector, rooms, reply } => push_membership(3, selector, rooms, reply, object)?,
        Operation::Disconnect { selector, close, reply } => {
            object.display("type", 4);
            push_targets(selector, reply, object)?;
            object.display("close", close);
        }
        Operation::Update { selector, update, reply } => {
            object.string("type", UPDATE);
            push_targets(selector, reply, object)?;
            push_update(update, object);
        }
        Operation::Fetch { selector, page_sockets_max, listing, .. } => {
            object.display("type", 5);
            object.selector(selector);
            if let Some(size) = page_sockets_max {
                object.display("pageSize", size);
            }
            if let Some(listing) = listing {
                object.listing(listing);
            }
        }
        Operation::ServerSideEmit { event, .. } => {
            if event.binary {
                return Err(EncodeError::NotOnThisWire { what: "binary values in a server-side emit" });
            }
            object.display("type", 6);
            object.json("data", &event.text);
        }
        Operation::Broadcast { .. } | Operation::BroadcastWithAck { .. } => {
            return Err(EncodeError::NotOnThisWire { what: "a broadcast among requests" });
        }
    }
    Ok(())
}

fn push_membership(
    kind: u8,
    selector: &Selector,
    rooms: &[String],
    reply: &Reply,
    object: &mut ObjectWriter,
) -> Result<(), EncodeError> {
    object.display("type", kind);
    push_targets(selector, reply, object)?;
    match (reply, rooms) {
        (Reply::Holder(_), [room]) => object.string("room", room),
        (Reply::Holder(_), _) => return Err(EncodeError::NotOnThisWire { what: "several rooms of one sid" }),
        (Reply::None | Reply::All(_), rooms) => object.list("rooms", rooms),
    }
    Ok(())
}

fn push_targets(selector: &Selector, reply: &Reply, object: &mut ObjectWriter) -> Result<(), EncodeError> {
    match (reply, &*selector.rooms) {
        (Reply::Holder(_), [sid]) => object.string("sid", sid),
        (Reply::Holder(_), _) => {
            return Err(EncodeError::NotOnThisWire { what: "a holder of other than one sid" });
        }
        (Reply::None | Reply::All(_), _) => object.selector(selector),
    }
    Ok(())
}

fn push_update(update: &SocketUpdate, object: &mut ObjectWriter) {
    let SocketUpdate { user, data, expires_at_ms } = update;
    match user {
        Change::Keep => {}
        Change::Clear => object.json("user", "null"),
        Change::Set(user) => object.string("user", user),
    }
    match data {
        Change::Keep => {}
        Change::Clear => object.json("data", "null"),
        Change::Set(data) => object.json("data", data),
    }
    match expires_at_ms {
        Change::Keep => {}
        Change::Clear => object.json("expiresAt", "null"),
        Change::Set(at) => object.display("expiresAt", at),
    }
}

fn encode_msgpack(
    message: &ClusterMessage,
    request: &RequestId,
    event: &JsonData,
    options: &BroadcastOptions,
) -> Result<Vec<u8>, EncodeError> {
    let texts = [
        ("uid", message.sender.as_ref().map(NodeUid::as_str)),
        ("requestId", Some(request.as_str())),
        ("id", message.id.as_deref()),
        ("tp", message.trace_parent.as_deref()),
    ];
    let mut out = Vec::with_capacity(event.bytes_len() + 192);
    let count = texts.iter().filter(|(_, text)| text.is_some()).fold(3, |count, _| count + 1);
    push_map_head(count, &mut out);
    for (key, text) in texts {
        if let Some(text) = text {
            push_text(key, &mut out)?;
            push_text(text, &mut out)?;
        }
    }
    push_text("type", &mut out)?;
    push_json("7", None, &mut out)?;
    push_text("packet", &mut out)?;
    push_packet(event, &message.namespace, &mut out)?;
    push_text("opts", &mut out)?;
    push_options(options, &mut out)?;
    Ok(out)
}
