//! Responses on response channels: maps with `requestId` and what the request asked for.
//! All are JSON, but for the ack of a client, which may hold binary values and is MessagePack.

use socketio_proto::json;
use socketio_proto::parser::msgpack::{push_json, push_map_head, push_text};

use super::fields::{self, Fields, ObjectWriter};
use crate::error::{DecodeError, EncodeError};
use crate::identity::NodeId;
use crate::limits::Limits;
use crate::message::{JsonData, check_data};
use crate::response::{Answer, ClusterResponse, RemoteSocket};

/// Keys that responses have; all others are passed over.
const KEYS: [&str; 15] = [
    "type",
    "requestId",
    "node",
    "clientCount",
    "sids",
    "sid",
    "packet",
    "args",
    "sockets",
    "more",
    "through",
    "counts",
    "rooms",
    "data",
    "count",
];

/// Decodes a response. What it answers follows from its keys: Node says the type only in some.
///
/// # Errors
/// [`DecodeError`] if it is malformed or over a limit.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<ClusterResponse, DecodeError> {
    let limits = &limits.of_answers();
    let mut fields = Fields::read(bytes, &KEYS, limits)?;
    Ok(ClusterResponse {
        request: fields.needed_request()?,
        node: fields.string("node").and_then(|node| NodeId::parse(&node)),
        answer: answer(&mut fields, limits)?,
    })
}

fn answer(fields: &mut Fields<'_>, limits: &Limits) -> Result<Answer, DecodeError> {
    match fields.json("type") {
        Some("8") => {
            let count =
                fields.number("clientCount").ok_or(DecodeError::InvalidField { field: "clientCount" })?;
            let sids = fields.json("sids").map(|sids| strings(sids, "sids", limits)).transpose()?;
            return Ok(Answer::ClientCount { count, sids });
        }
        Some("9") => return ack(fields, limits),
        Some("6") => return Ok(Answer::ServerSideEmit(fields.json("data").map(str::to_owned))),
        _ => {}
    }
    let more = fields.json("more") == Some("true");
    if let Some(sockets) = fields.json("sockets") {
        let through = fields.json("through").map(|id| fields::listed_name(id, "through")).transpose()?;
        return listed(sockets, more, through, limits);
    }
    if let Some(counts) = fields.json("counts") {
        return Ok(Answer::Counts { counts: counted(counts, limits)?, more });
    }
    if let Some(rooms) = fields.json("rooms") {
        return strings(rooms, "rooms", limits).map(Answer::Rooms);
    }
    Ok(Answer::Done { sockets: fields.number("count") })
}

fn ack(fields: &mut Fields<'_>, limits: &Limits) -> Result<Answer, DecodeError> {
    let sid = match fields.json("sid") {
        None | Some("null") => None,
        Some(sid) => Some(fields::room(sid, "sid", limits)?),
    };
    let args = match (fields.take("args"), fields.take("packet")) {
        (Some(args), _) => args.into_data(),
        (None, Some(only)) => JsonData::with_attachments(format!("[{}]", only.text), only.attachments),
        (None, None) => JsonData::text("[]"),
    };
    check_data(&args, limits)?;
    Ok(Answer::Ack { sid, args })
}

/// Reads the answer to a fetch, or to the old request for ids.
fn listed(list: &str, more: bool, through: Option<String>, limits: &Limits) -> Result<Answer, DecodeError> {
    if !list.starts_with('[') {
        return Err(DecodeError::InvalidField { field: "sockets" });
    }
    if json::elements(list).next().is_some_and(|first| first.starts_with('"')) {
        return strings(list, "sockets", limits).map(Answer::SocketIds);
    }
    let mut sockets = Vec::new();
    for socket in json::elements(list) {
        if sockets.len() >= limits.answer_items_max {
            return Err(DecodeError::TooManyItems { max: limits.answer_items_max });
        }
        sockets.push(remote_socket(socket, limits)?);
    }
    Ok(Answer::Sockets { sockets, more, through })
}

/// Reads names with their counts: a list of pairs.
fn counted(list: &str, limits: &Limits) -> Result<Vec<(String, u64)>, DecodeError> {
    let invalid = DecodeError::InvalidField { field: "counts" };
    if !list.starts_with('[') {
        return Err(invalid);
    }
    let mut counts = Vec::new();
    for pair in json::elements(list) {
        if counts.len() >= limits.answer_items_max {
            return Err(DecodeError::TooManyItems { max: limits.answer_items_max });
        }
        let mut pair = json::elements(pair);
        let (Some(name), Some(count), None) = (pair.next(), pair.next(), pair.next()) else {
            return Err(invalid);
        };
        let count = count.parse().map_err(|_| invalid.clone())?;
        counts.push((fields::listed_name(name, "counts")?, count));
    }
    Ok(counts)
}

fn remote_socket(object: &str, limits: &Limits) -> Result<RemoteSocket, DecodeError> {
    let mut socket = RemoteSocket::default();
    for (key, value) in json::members(object) {
        match &*json::unescape(key) {
            "id" => socket.id = fields::room(value, "id", limits)?,
            "rooms" => socket.rooms = fields::rooms(Some(value), "rooms", limits)?,
            "handshake" if value.starts_with('{') => socket.handshake = Some(value.to_owned()),
            "data" => socket.data = Some(value.to_owned()),
            "user" => socket.user = json::unquote(value).map(Into::into),
            _ => {}
        }
    }
    if socket.id.is_empty() { Err(DecodeError::InvalidField { field: "id" }) } else { Ok(socket) }
}

/// Reads a list of names that may be longer than those of a selector: all rooms of a node, or all its sockets.
fn strings(list: &str, field: &'static str, limits: &Limits) -> Result<Vec<String>, DecodeError> {
    fields::rooms(Some(list), field, &Limits { rooms_max: limits.answer_items_max, ..*limits })
}

/// Encodes a response.
///
/// # Errors
/// [`EncodeError`] if its data is not as promised.
pub fn encode(response: &ClusterResponse) -> Result<Vec<u8>, EncodeError> {
    if let Answer::Ack { sid, args } = &response.answer {
        return encode_ack(response, sid.as_deref(), args);
    }
    let mut object = ObjectWriter::new();
    match &response.answer {
        Answer::ClientCount { .. } => object.display("type", 8),
        Answer::ServerSideEmit(_) => object.display("type", 6),
        Answer::Ack { .. }
        | Answer::Sockets { .. }
        | Answer::Counts { .. }
        | Answer::SocketIds(_)
        | Answer::Rooms(_)
        | Answer::Done { .. } => {}
    }
    object.string("requestId", response.request.as_str());
    push_answer(&response.answer, &mut object);
    if let Some(node) = response.node {
        object.string("node", &node.to_string());
    }
    Ok(object.finish().into_bytes())
}

fn push_answer(answer: &Answer, object: &mut ObjectWriter) {
    match answer {
        Answer::ClientCount { count, sids } => {
            object.display("clientCount", count);
            if let Some(sids) = sids {
                object.list("sids", sids);
            }
        }
        Answer::ServerSideEmit(Some(data)) => object.json("data", data),
        Answer::Sockets { sockets, more, through } => {
            push_sockets(sockets, object.key("sockets"));
            if *more {
                object.display("more", true);
            }
            if let Some(through) = through {
                object.string("through", through);
            }
        }
        Answer::Counts { counts, more } => {
            push_counts(counts, object.key("counts"));
            if *more {
                object.display("more", true);
            }
        }
        Answer::SocketIds(ids) => object.list("sockets", ids),
        Answer::Rooms(rooms) => object.list("rooms", rooms),
        Answer::Done { sockets: Some(count) } => object.display("count", count),
        Answer::ServerSideEmit(None) | Answer::Done { sockets: None } | Answer::Ack { .. } => {}
    }
}

fn push_sockets(sockets: &[RemoteSocket], out: &mut String) {
    out.push('[');
    for (index, socket) in sockets.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let mut object = ObjectWriter::new();
        object.string("id", &socket.id);
        if let Some(handshake) = &socket.handshake {
            object.json("handshake", handshake);
        }
        object.list("rooms", &socket.rooms);
        if let Some(data) = &socket.data {
            object.json("data", data);
        }
        if let Some(user) = &socket.user {
            object.string("user", user);
        }
        out.push_str(&object.finish());
    }
    out.push(']');
}

fn push_counts(counts: &[(String, u64)], out: &mut String) {
    out.push('[');
    for (index, (name, count)) in counts.iter().enumerate() {
        out.push_str(if index > 0 { ",[" } else { "[" });
        json::quote(name, out);
        out.push(',');
        out.push_str(&count.to_string());
        out.push(']');
    }
    out.push(']');
}

/// Encodes an ack. Node reads `packet`, the first argument; `args` says all of them where there are several.
fn encode_ack(
    response: &ClusterResponse,
    sid: Option<&str>,
    args: &JsonData,
) -> Result<Vec<u8>, EncodeError> {
    let node = response.node.map(|node| node.to_string());
    let mut arguments = json::elements(&args.text);
    let (first, has_more) = (arguments.next(), arguments.next().is_some());
    let all = has_more.then_some(&*args.text);
    let texts = [("requestId", Some(response.request.as_str())), ("node", node.as_deref()), ("sid", sid)];
    let values = [("packet", first), ("args", all)];

    let mut out = Vec::with_capacity(args.bytes_len() + 96);
    let count = texts.iter().chain(&values).filter(|(_, value)| value.is_some()).fold(1, |n, _| n + 1);
    push_map_head(count, &mut out);
    push_text("type", &mut out)?;
    push_json("9", None, &mut out)?;
    for (key, text) in texts {
        if let Some(text) = text {
            push_text(key, &mut out)?;
            push_text(text, &mut out)?;
        }
    }
    for (key, value) in values {
        if let Some(value) = value {
            push_text(key, &mut out)?;
            push_json(value, args.meant_attachments(), &mut out)?;
        }
    }
    Ok(out)
}
