//! Who speaks: node ids, the names of nodes on the wire, and the names of requests.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Characters of a node id on the wire.
pub const NODE_ID_CHARS: usize = 4;
/// Characters of a session or socket id; the first [`NODE_ID_CHARS`] of ours are the id of the node that owns it.
pub const SID_CHARS: usize = 20;
/// Bytes of a foreign uid or request id that are still taken for one. Node's have 6, its newer adapters' 16.
const TEXT_BYTES_MAX: usize = 64;
/// What the uid of one of our nodes begins with, so that a person reading the broker's traffic can tell.
const UID_PREFIX: &str = "jf";

/// The id of one of our nodes: three bytes, as text four base64url characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId([u8; 3]);

impl NodeId {
    /// The id of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 3]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; 3] {
        self.0
    }

    /// Parses the four characters; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != NODE_ID_CHARS {
            return None;
        }
        let mut bytes = [0; 3];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (length == 3).then_some(Self(bytes))
    }

    /// The node that a room name points to, if it has the shape of one of our socket ids:
    /// twenty base64url characters, alone or after a namespace and `#` as in protocol 4.
    /// A room of an application may have the same shape, so this is a guess until the node is known to exist.
    #[must_use]
    pub fn of_sid(room: &str) -> Option<Self> {
        let sid = room.rsplit_once('#').map_or(room, |(_, sid)| sid);
        if room.len() != sid.len() && !room.starts_with('/') {
            return None;
        }
        let (node, rest) = sid.split_at_checked(NODE_ID_CHARS)?;
        let rest_fits = sid.len() == SID_CHARS && rest.bytes().all(is_base64url);
        rest_fits.then(|| Self::parse(node))?
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; NODE_ID_CHARS];
        let length = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(text.get(..length).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// The name of a sender on the wire (`uid`). Ours are `jf` and the node id, six characters as Node's are;
/// emitters of the ecosystem call themselves `emitter`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeUid(Arc<str>);

impl NodeUid {
    /// The name of one of our nodes.
    #[must_use]
    pub fn of_node(node: NodeId) -> Self {
        Self(format!("{UID_PREFIX}{node}").into())
    }

    /// Parses a name: 1 to 64 base64url characters. `None` for anything else, which could not stand in a channel.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=TEXT_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_base64url);
        fits.then(|| Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What pairs a request with its answers: a text that the asking node chose, 1 to 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A request id of our own: sixteen base64url characters from random bytes.
    #[must_use]
    pub fn from_bytes(random: [u8; 12]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(random).into())
    }

    /// Takes over the id of somebody's request; `None` if it is empty or over 64 bytes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (1..=TEXT_BYTES_MAX).contains(&text.len()).then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_survives_its_text() {
        for bytes in [[0, 0, 0], [255, 255, 255], [1, 2, 3]] {
            let node = NodeId::from_bytes(bytes);
            assert_eq!(node.to_string().len(), NODE_ID_CHARS);
            assert_eq!(NodeId::parse(&node.to_string()), Some(node));
        }
        for text in ["", "abc", "abcde", "ab d", "é12", "ab+d"] {
            assert_eq!(NodeId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_owner_of_a_sid_is_in_its_first_four_characters() {
        let owner = NodeId::parse("AQID");
        assert_eq!(NodeId::of_sid("AQIDabcdefghijklmnop"), owner);
        assert_eq!(NodeId::of_sid("/chat#AQIDabcdefghijklmnop"), owner);
        for room in [
            "",
            "AQID",
            "AQIDabcdefghijklmno",
            "AQIDabcdefghijklmnopq",
            "AQIDabcdefghij lmnop",
            "x#AQIDabcdefghijklmnop",
            "AQIDabcdefghijklmn#p",
            "äöüäöüäöüä",
        ] {
            assert_eq!(NodeId::of_sid(room), None, "{room}");
        }
    }

    #[test]
    fn our_uid_has_six_characters() {
        let uid = NodeUid::of_node(NodeId::from_bytes([1, 2, 3]));
        assert_eq!(uid.as_str(), "jfAQID");
        assert_eq!(NodeUid::parse("jfAQID"), Some(uid));
        assert_eq!(NodeUid::parse("a#b"), None);
        assert_eq!(NodeUid::parse(""), None);
    }

    #[test]
    fn request_ids_are_bounded() {
        assert_eq!(RequestId::from_bytes([0; 12]).as_str(), "AAAAAAAAAAAAAAAA");
        assert!(RequestId::parse(&"x".repeat(64)).is_some());
        assert_eq!(RequestId::parse(&"x".repeat(65)), None);
        assert_eq!(RequestId::parse(""), None);
    }
}
