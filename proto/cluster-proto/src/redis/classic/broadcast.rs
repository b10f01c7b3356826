//! Broadcasts on namespace and room channels: the MessagePack array `[uid, {type, data, nsp}, {rooms, except, flags}]`,
//! to which we add `{id, tp}` as a fourth element when there is something to say.

use socketio_proto::json;
use socketio_proto::namespace::NamespacePath;
use socketio_proto::parser::msgpack::{
    Input, MsgpackError, Value, push_array_head, push_json, push_map_head, push_text,
};

use super::fields::{self, Field};
use crate::broadcast::{BroadcastFlags, BroadcastOptions};
use crate::error::{DecodeError, EncodeError};
use crate::identity::NodeUid;
use crate::limits::Limits;
use crate::message::{ClusterMessage, JsonData, Operation, check_event};

/// The packet types of an event; emitters of 1.x wrote the binary one.
const EVENT: u64 = 2;
const BINARY_EVENT: u64 = 5;
/// The sender of those who say no other.
const EMITTER: &str = "emitter";

/// Decodes a broadcast. Its namespace and rooms are those that the message says, whatever the channel.
///
/// # Errors
/// [`DecodeError`] if it is malformed, over a limit, or not fit for clients.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<ClusterMessage, DecodeError> {
    fields::check_size(bytes, limits)?;
    let mut input = Input::new(bytes);
    let Value::Array(count @ 3..) = input.value()? else {
        return Err(DecodeError::Malformed("no array of three".to_owned()));
    };
    let uid = input.value()?;
    if matches!(uid, Value::Array(_) | Value::Map(_)) {
        return Err(DecodeError::InvalidField { field: "uid" });
    }
    let sender = text(uid).and_then(NodeUid::parse);
    let Packet { namespace, event } = Packet::decode(&mut input, limits)?;
    let options = fields::options(&fields::transcode(&mut input, limits)?.text, limits)?;
    let (mut id, mut trace_parent) = (None, None);
    if count > 3 {
        let ours = fields::transcode(&mut input, limits)?;
        id = json::member(&ours.text, "id").and_then(fields::short);
        trace_parent = json::member(&ours.text, "tp").and_then(fields::short);
    }
    for _ in 4..count {
        input.skip_value()?;
    }
    input.finish()?;
    let operation = Operation::Broadcast { event, options };
    Ok(ClusterMessage { sender, namespace, id, trace_parent, operation })
}

/// Reads who sent a broadcast and nothing else: one's own come back, and need not be decoded to be dropped.
#[must_use]
pub fn sender(bytes: &[u8]) -> Option<&str> {
    let mut input = Input::new(bytes);
    let Ok(Value::Array(_)) = input.value() else { return None };
    input.value().ok().and_then(text)
}

/// Encodes a broadcast.
///
/// # Errors
/// [`EncodeError`] if its data is not as promised, or the message is another operation.
pub fn encode(message: &ClusterMessage) -> Result<Vec<u8>, EncodeError> {
    let Operation::Broadcast { event, options } = &message.operation else {
        return Err(EncodeError::NotOnThisWire { what: "a request among broadcasts" });
    };
    let ours = [("id", &message.id), ("tp", &message.trace_parent)];
    let ours_count = ours.iter().filter(|(_, value)| value.is_some()).fold(0, |count, _| count + 1);
    let mut out = Vec::with_capacity(event.bytes_len() + 128);
    push_array_head(if ours_count > 0 { 4 } else { 3 }, &mut out);
    push_text(message.sender.as_ref().map_or(EMITTER, NodeUid::as_str), &mut out)?;
    push_packet(event, &message.namespace, &mut out)?;
    push_options(options, &mut out)?;
    if ours_count > 0 {
        push_map_head(ours_count, &mut out);
        for (key, value) in ours {
            if let Some(value) = value {
                push_text(key, &mut out)?;
                push_text(value, &mut out)?;
            }
        }
    }
    Ok(out)
}

/// The packet inside a broadcast, with or without acks.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) namespace: NamespacePath,
    pub(super) event: JsonData,
}

impl Packet {
    /// Reads a packet straight from MessagePack.
    fn decode(input: &mut Input<'_>, limits: &Limits) -> Result<Self, DecodeError> {
        let Value::Map(count) = input.value()? else {
            return Err(DecodeError::InvalidField { field: "packet" });
        };
        let (mut kind, mut namespace, mut data) = (None, "/", None);
        for _ in 0..count {
            let Value::Text(key) = input.value()? else { return Err(MsgpackError::InvalidKey.into()) };
            match key {
                "type" => kind = Some(input.value()?),
                "nsp" => {
                    let value = input.value()?;
                    if !matches!(value, Value::Nil | Value::Undefined) {
                        namespace = text(value).ok_or(DecodeError::InvalidNamespace)?;
                    }
                }
                "data" => data = Some(fields::transcode(input, limits)?),
                _ => input.skip_value()?,
            }
        }
        match kind {
            Some(Value::Unsigned(EVENT | BINARY_EVENT)) => {}
            _ => return Err(DecodeError::NotAnEvent),
        }
        Ok(Self { namespace: fields::namespace(namespace, limits)?, event: event(data, limits)? })
    }

    /// Reads the packet of a request, whose values are JSON text already.
    pub(super) fn of_field(field: Field<'_>, limits: &Limits) -> Result<JsonData, DecodeError> {
        if !field.text.starts_with('{') {
            return Err(DecodeError::InvalidField { field: "packet" });
        }
        match json::member(&field.text, "type") {
            Some("2" | "5") => {}
            _ => return Err(DecodeError::NotAnEvent),
        }
        let data = json::member(&field.text, "data")
            .map(|data| Field { text: data.to_owned().into(), attachments: field.attachments });
        event(data, limits)
    }
}

fn text(value: Value<'_>) -> Option<&str> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

fn event(data: Option<Field<'_>>, limits: &Limits) -> Result<JsonData, DecodeError> {
    let event = data.ok_or(DecodeError::NoEventName)?.into_data();
    check_event(&event, limits)?;
    Ok(event)
}

pub(super) fn push_packet(
    event: &JsonData,
    namespace: &NamespacePath,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    push_map_head(3, out);
    push_text("type", out)?;
    push_json("2", None, out)?;
    push_text("data", out)?;
    push_json(&event.text, event.meant_attachments(), out)?;
    push_text("nsp", out)?;
    push_text(namespace.as_str(), out)?;
    Ok(())
}

pub(super) fn push_options(options: &BroadcastOptions, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    push_map_head(3, out);
    for (key, list) in [("rooms", &options.selector.rooms), ("except", &options.selector.except)] {
        push_text(key, out)?;
        push_list(list, out)?;
    }
    push_text("flags", out)?;
    push_flags(options.flags, out)
}

fn push_list(list: &[String], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let count = u32::try_from(list.len()).map_err(|error| EncodeError::Data(error.to_string()))?;
    push_array_head(count, out);
    for text in list {
        push_text(text, out)?;
    }
    Ok(())
}

fn push_flags(flags: BroadcastFlags, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let BroadcastFlags { volatile, compress, timeout_ms, expect_single_response } = flags;
    let members = [
        ("volatile", volatile.then(|| "true".to_owned())),
        ("compress", compress.map(|compress| compress.to_string())),
        ("timeout", timeout_ms.map(|timeout| timeout.to_string())),
        ("expectSingleResponse", expect_single_response.then(|| "true".to_owned())),
    ];
    push_map_head(members.iter().filter(|(_, value)| value.is_some()).fold(0, |count, _| count + 1), out);
    for (key, value) in members {
        if let Some(value) = value {
            push_text(key, out)?;
            push_json(&value, None, out)?;
        }
    }
    Ok(())
}
