//! The one flat map that every body is. Keys are added, never given another meaning; a reader passes over those it does not know.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Only `v` and `t` are always there. Which of the others `t` needs, [`super::codec`] says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Body<'a> {
    /// Format version.
    pub(super) v: u64,
    /// Type.
    pub(super) t: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nsp: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tp: Option<&'a str>,
    /// Request id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) req: Option<&'a str>,
    /// Only the holder of the one socket answers.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) holder: bool,

    /// The JSON array of an event, the arguments of an ack, or one JSON value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<&'a str>,
    /// Attachments; without them placeholders are plain data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) att: Vec<Bytes>,

    /// The selector.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rooms: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) except: Vec<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) volatile: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compress: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) single: bool,

    /// Names: rooms to join or leave, rooms or ids that are answered, ids of an ack count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) names: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) close: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) page: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) listing: Option<Listing<'a>>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at_ms: Option<u64>,
    /// The properties that an update removes: `user`, `data`, `expires_at_ms`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) clear: Vec<&'a str>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sid: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sockets: Vec<Socket<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) through: Option<&'a str>,
    /// Names, each with a count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) counts: Vec<(&'a str, u64)>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) incarnation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interval_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) solicits: bool,
}

/// The part of a list that a fetch is for.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Listing<'a> {
    /// What is listed: `sockets`, `rooms`, `users`.
    pub(super) of: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rooms: Vec<&'a str>,
    pub(super) limit: u64,
}

/// One socket of the answer to a fetch.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Socket<'a> {
    pub(super) id: &'a str,
    pub(super) rooms: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handshake: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
}

/// The version alone, of a body that could not be read as a whole.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Version {
    pub(super) v: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}
