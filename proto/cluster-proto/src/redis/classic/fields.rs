//! The fields of a message that is a map, in JSON or MessagePack; each value as JSON text, with the binary values in it.

use std::borrow::Cow;

use bytes::Bytes;
use socketio_proto::json;
use socketio_proto::limits::Limits as PacketLimits;
use socketio_proto::namespace::NamespacePath;
use socketio_proto::parser::msgpack::{Data, Input, MsgpackError, Value};

use crate::broadcast::{BroadcastFlags, BroadcastOptions, Selector};
use crate::error::DecodeError;
use crate::identity::{NodeUid, RequestId};
use crate::limits::Limits;
use crate::listing::{self, Filter, Listing};
use crate::message::JsonData;

/// Levels of maps around the data of an event, which has its own limit.
const OUTER_LEVELS: usize = 4;
/// Bytes of a deduplication id and of a trace parent that are still read.
const ID_BYTES_MAX: usize = 64;

/// One value.
#[derive(Debug)]
pub(super) struct Field<'a> {
    /// JSON text, never empty.
    pub(super) text: Cow<'a, str>,
    pub(super) attachments: Vec<Bytes>,
}

impl Field<'_> {
    pub(super) fn into_data(self) -> JsonData {
        JsonData::with_attachments(self.text.into_owned(), self.attachments)
    }
}

/// The fields whose keys are known; of duplicate keys the last counts.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    fields: Vec<(&'static str, Field<'a>)>,
}

impl<'a> Fields<'a> {
    /// Reads a whole message. Keys that are not in `known` are passed over.
    pub(super) fn read(
        bytes: &'a [u8],
        known: &[&'static str],
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        check_size(bytes, limits)?;
        let mut fields = Self { fields: Vec::new() };
        if bytes.first() == Some(&b'{') {
            fields.read_json(bytes, known, limits)?;
        } else {
            fields.read_msgpack(bytes, known, limits)?;
        }
        Ok(fields)
    }

    fn read_json(
        &mut self,
        bytes: &'a [u8],
        known: &[&'static str],
        limits: &Limits,
    ) -> Result<(), DecodeError> {
        let text = str::from_utf8(bytes).map_err(|error| DecodeError::Malformed(error.to_string()))?;
        json::validate(text, limits.packet.depth_max + OUTER_LEVELS)?;
        for (key, value) in json::members(text) {
            let key = json::unescape(key);
            if let Some(key) = known.iter().find(|known| **known == key) {
                self.put(key, Field { text: Cow::Borrowed(value), attachments: Vec::new() });
            }
        }
        Ok(())
    }

    fn read_msgpack(
        &mut self,
        bytes: &'a [u8],
        known: &[&'static str],
        limits: &Limits,
    ) -> Result<(), DecodeError> {
        let mut input = Input::new(bytes);
        let Value::Map(count) = input.value()? else { return Err(MsgpackError::NotAMap.into()) };
        for _ in 0..count {
            let Value::Text(key) = input.value()? else { return Err(MsgpackError::InvalidKey.into()) };
            match known.iter().find(|known| **known == key) {
                Some(key) => self.put(key, transcode(&mut input, limits)?),
                None => input.skip_value()?,
            }
        }
        input.finish()?;
        Ok(())
    }

    fn put(&mut self, key: &'static str, field: Field<'a>) {
        self.fields.retain(|(known, _)| *known != key);
        self.fields.push((key, field));
    }

    /// Takes a field out.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Field<'a>> {
        let at = self.fields.iter().position(|(known, _)| *known == key)?;
        Some(self.fields.swap_remove(at).1)
    }

    /// The JSON text of a field.
    pub(super) fn json(&self, key: &'static str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| *known == key).map(|(_, field)| &*field.text)
    }

    /// A field that is a string.
    pub(super) fn string(&self, key: &'static str) -> Option<Cow<'_, str>> {
        json::unquote(self.json(key)?)
    }

    /// A field that is an integer not below zero.
    pub(super) fn number(&self, key: &'static str) -> Option<u64> {
        self.json(key)?.parse().ok()
    }

    /// The sender, if the message says one that could be in a channel.
    pub(super) fn sender(&self) -> Option<NodeUid> {
        NodeUid::parse(&self.string("uid")?)
    }

    /// The request id, if there is one.
    pub(super) fn request(&self) -> Result<Option<RequestId>, DecodeError> {
        let invalid = DecodeError::InvalidField { field: "requestId" };
        match self.json("requestId") {
            None | Some("null") => Ok(None),
            Some(text) => json::unquote(text).and_then(|id| RequestId::parse(&id)).map(Some).ok_or(invalid),
        }
    }

    /// The request id of a message that must have one.
    pub(super) fn needed_request(&self) -> Result<RequestId, DecodeError> {
        self.request()?.ok_or(DecodeError::InvalidField { field: "requestId" })
    }

    /// A list of rooms, empty when absent.
    pub(super) fn rooms(&self, key: &'static str, limits: &Limits) -> Result<Vec<String>, DecodeError> {
        rooms(self.json(key), key, limits)
    }

    /// A text of our own of at most 64 bytes; anything else counts as absent, for the message is good without it.
    pub(super) fn short(&self, key: &'static str) -> Option<String> {
        short(self.json(key)?)
    }
}

pub(super) fn check_size(bytes: &[u8], limits: &Limits) -> Result<(), DecodeError> {
    let max = limits.message_bytes_max;
    if bytes.len() > max { Err(DecodeError::TooLarge { bytes: bytes.len(), max }) } else { Ok(()) }
}

/// Transcodes one value under the limits of the message; what is in it is held to its own limits afterwards.
pub(super) fn transcode<'a>(input: &mut Input<'_>, limits: &Limits) -> Result<Field<'a>, DecodeError> {
    let limits = PacketLimits {
        depth_max: limits.packet.depth_max + OUTER_LEVELS,
        packet_bytes_max: limits.message_bytes_max,
        ..limits.packet
    };
    let Data { text, attachments } = Data::transcode(input, &limits)?;
    let text = if text.is_empty() { Cow::Borrowed("null") } else { Cow::Owned(text) };
    Ok(Field { text, attachments })
}

/// Reads a JSON array of room names. Node's rooms may be numbers, which are named by their text.
pub(super) fn rooms(
    list: Option<&str>,
    field: &'static str,
    limits: &Limits,
) -> Result<Vec<String>, DecodeError> {
    let list = match list {
        None | Some("null") => return Ok(Vec::new()),
        Some(list) if list.starts_with('[') => list,
        Some(_) => return Err(DecodeError::InvalidField { field }),
    };
    let mut rooms = Vec::new();
    for element in json::elements(list) {
        if rooms.len() >= limits.rooms_max {
            return Err(DecodeError::TooManyRooms { max: limits.rooms_max });
        }
        rooms.push(room(element, field, limits)?);
    }
    Ok(rooms)
}

/// Reads one room name.
pub(super) fn room(element: &str, field: &'static str, limits: &Limits) -> Result<String, DecodeError> {
    let name = match (json::unquote(element), element.as_bytes().first()) {
        (Some(name), _) => name,
        (None, Some(b'-' | b'0'..=b'9')) => Cow::Borrowed(element),
        (None, _) => return Err(DecodeError::InvalidField { field }),
    };
    let max = limits.room_bytes_max;
    if name.len() > max { Err(DecodeError::RoomTooLong { max }) } else { Ok(name.into_owned()) }
}

/// Reads the options of a broadcast or a request from a JSON object. Node takes missing lists for empty ones.
pub(super) fn options(object: &str, limits: &Limits) -> Result<BroadcastOptions, DecodeError> {
    if !object.starts_with('{') {
        return Err(DecodeError::InvalidField { field: "opts" });
    }
    let mut options = BroadcastOptions::default();
    for (key, value) in json::members(object) {
        match &*json::unescape(key) {
            "rooms" => options.selector.rooms = rooms(Some(value), "rooms", limits)?,
            "except" => options.selector.except = rooms(Some(value), "except", limits)?,
            "flags" => options.flags = flags(value),
            _ => {}
        }
    }
    Ok(options)
}

/// Reads which part of a list is wanted from a JSON object.
pub(super) fn listing(object: &str, limits: &Limits) -> Result<Listing, DecodeError> {
    if !object.starts_with('{') {
        return Err(DecodeError::InvalidField { field: "listing" });
    }
    let few = Limits { rooms_max: listing::FILTER_ROOMS_MAX, ..*limits };
    let mut of = Cow::Borrowed("");
    let mut fields = listing::Fields::default();
    for (key, value) in json::members(object) {
        match &*json::unescape(key) {
            "of" => of = json::unquote(value).ok_or(DecodeError::InvalidField { field: "of" })?,
            "name" => fields.name = Some(room(value, "name", limits)?),
            "prefix" => fields.prefix = Some(room(value, "prefix", limits)?),
            "rooms" => fields.filter.rooms = rooms(Some(value), "rooms", &few)?,
            "user" => fields.filter.user = Some(room(value, "user", limits)?),
            "after" => fields.after = Some(listed_name(value, "after")?),
            "limit" => fields.limit = value.parse().unwrap_or_default(),
            _ => {}
        }
    }
    listing::Fields { of: &of, ..fields }.check()
}

/// Reads a name in a list.
pub(super) fn listed_name(value: &str, field: &'static str) -> Result<String, DecodeError> {
    let name = json::unquote(value).ok_or(DecodeError::InvalidField { field })?;
    listing::check_name(&name)?;
    Ok(name.into_owned())
}

/// Reads the flags; what is no object has none, which is how PHP writes an empty map.
fn flags(object: &str) -> BroadcastFlags {
    let mut flags = BroadcastFlags::default();
    for (key, value) in json::members(object) {
        match &*json::unescape(key) {
            "volatile" => flags.volatile = value == "true",
            "compress" => flags.compress = value.parse().ok(),
            "timeout" => flags.timeout_ms = value.parse().ok(),
            "expectSingleResponse" => flags.expect_single_response = value == "true",
            _ => {}
        }
    }
    flags
}

/// Parses a namespace from outside.
pub(super) fn namespace(path: &str, limits: &Limits) -> Result<NamespacePath, DecodeError> {
    if path.len() > limits.packet.name_bytes_max {
        return Err(DecodeError::InvalidNamespace);
    }
    NamespacePath::parse(path).map_err(|_| DecodeError::InvalidNamespace)
}

pub(super) fn short(value: &str) -> Option<String> {
    let text = json::unquote(value)?;
    (1..=ID_BYTES_MAX).contains(&text.len()).then(|| text.into_owned())
}

/// The selector without flags, as a JSON object.
fn push_selector(selector: &Selector, out: &mut String) {
    out.push_str(r#"{"rooms":"#);
    push_list(&selector.rooms, out);
    out.push_str(r#","except":"#);
    push_list(&selector.except, out);
    out.push('}');
}

/// A JSON array of strings.
fn push_list(list: &[String], out: &mut String) {
    out.push('[');
    for (index, text) in list.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        json::quote(text, out);
    }
    out.push(']');
}

/// Writes a JSON object member by member.
#[derive(Debug)]
pub(super) struct ObjectWriter(String);

impl ObjectWriter {
    pub(super) fn new() -> Self {
        Self("{".to_owned())
    }

    /// A member whose value is JSON already.
    pub(super) fn json(&mut self, key: &str, value: &str) {
        self.key(key).push_str(value);
    }

    /// A member that is a string.
    pub(super) fn string(&mut self, key: &str, value: &str) {
        json::quote(value, self.key(key));
    }

    /// A member that is a number or a truth value.
    pub(super) fn display(&mut self, key: &str, value: impl ToString) {
        self.json(key, &value.to_string());
    }

    pub(super) fn list(&mut self, key: &str, list: &[String]) {
        push_list(list, self.key(key));
    }

    pub(super) fn selector(&mut self, selector: &Selector) {
        push_selector(selector, self.key("opts"));
    }

    pub(super) fn listing(&mut self, listing: &Listing) {
        let mut object = Self::new();
        let Listing { list, filter: Filter { rooms, user }, after, limit } = listing;
        let (name, prefix) = list.names().fields();
        object.string("of", list.as_str());
        let texts =
            [("name", name), ("prefix", prefix), ("user", user.as_deref()), ("after", after.as_deref())];
        for (key, text) in texts {
            if let Some(text) = text {
                object.string(key, text);
            }
        }
        if !rooms.is_empty() {
            object.list("rooms", rooms);
        }
        object.display("limit", limit);
        self.json("listing", &object.finish());
    }

    /// Begins a member; the value is to be appended to what is given.
    pub(super) fn key(&mut self, key: &str) -> &mut String {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        json::quote(key, &mut self.0);
        self.0.push(':');
        &mut self.0
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}
