//! The msgpack parser of the JavaScript clients: one packet is one binary message, a map with
//! `type` (0 to 4), `nsp` (always), `data`, and `id`.
//!
//! Packets are transcoded by streaming, without a tree: binary values become placeholders and attachments on the way in,
//! and the other way round on the way out. What msgpack has and JSON has not is written as `JSON.stringify` would write the JavaScript value:
//!
//! | msgpack | JSON |
//! |---|---|
//! | extension 0, fixed form of one byte (undefined) | `null`; as the whole `data`, absent |
//! | extension 0 that says its length (an `ArrayBuffer`) | as binary |
//! | extension 0, fixed form of eight bytes (milliseconds), extension -1 (timestamp) | the text of the date, `"1970-01-01T00:00:01.500Z"`; `null` out of range |
//! | NaN and infinities | `null` |
//! | numbers as keys | their text |
//! | other extensions, other keys, text that is not UTF-8 | refused |
//!
//! On the way out an escaped lone surrogate becomes U+FFFD, for msgpack strings are UTF-8.
//!
//! The limits of a packet hold here too, so at most `limits.attachments_max` binary values, although Node has no such bound: the packet may go on to clients that do.
//! As in Node, reserved event names are not refused; whoever hands an event on asks [`crate::packet::is_reserved_event`].
//! Unlike Node, an event needs a name, and `nil` as `data` or `id` counts as absent, which the Python client sends.
//! A map that looks like a placeholder is plain data in a packet without binary values, and refused beside them ([`DecodeError::LiteralPlaceholder`]).

mod date;
mod decode;
mod encode;
mod value;

pub use decode::Data;
pub(super) use decode::decode;
pub use encode::{
    EncodeError, encode, push_array_head, push_binary, push_json, push_map_head, push_number, push_text,
};
pub use value::{Input, MsgpackError, Value};

#[cfg(doc)]
use crate::parser::DecodeError;
