//! The topic exchange and its routing keys.
//!
//! | Key | Who binds it |
//! |---|---|
//! | `heartbeat` | every node |
//! | `node.<node id>` | that node: for its sockets, and for answers to it |
//! | `ns.<8 hexadecimal digits>` | every edge that has the namespace; the digits are the CRC-32 of its path |
//! | `room.<bucket>` | every edge with a member in a room of the bucket |
//!
//! Names of namespaces and rooms are hashed, for a topic key has 255 bytes at most and gives a meaning to `.`, `*` and `#`.

use std::collections::BTreeSet;

use socketio_proto::namespace::NamespacePath;

use super::codec::VERSION;
use super::hash;
use crate::broadcast::BroadcastOptions;
use crate::identity::NodeId;

/// Buckets that rooms are spread over, unless configured otherwise.
pub const BUCKETS_DEFAULT: u32 = 4096;
/// Keys of one publish; a broadcast that would need more goes to the namespace.
const KEYS_MAX: usize = 32;

/// Builds the names of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    exchange: String,
    buckets: u32,
}

/// Where a broadcast is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The routing key.
    pub key: String,
    /// Further keys, for the header [`super::header::CC`].
    pub cc: Vec<String>,
    /// The hashes of all its rooms, for the header [`super::header::ROOM_HASHES`].
    /// `None` if a node cannot decide by them: without rooms, and where single sockets are meant.
    pub room_hashes: Option<Vec<u32>>,
}

/// Whether what is published under a key is for members of a namespace or a room, and not for one node.
#[must_use]
pub fn is_for_members(key: &str) -> bool {
    key.starts_with("ns.") || key.starts_with("room.")
}

impl Names {
    /// The names under an exchange called `base`, with so many buckets; no bucket counts as one.
    /// Clusters that share a broker and a virtual host need different bases.
    #[must_use]
    pub fn new(base: &str, buckets: u32) -> Self {
        let buckets = buckets.max(1);
        Self { exchange: format!("{base}.v{VERSION}.{buckets}"), buckets }
    }

    /// The topic exchange: `jackfield.v1.4096`. Nodes that disagree on format or buckets do not share one.
    #[must_use]
    pub fn exchange(&self) -> &str {
        &self.exchange
    }

    /// The key of heartbeats.
    #[must_use]
    pub fn heartbeat(&self) -> &'static str {
        "heartbeat"
    }

    /// The key of what one node alone needs to hear.
    #[must_use]
    pub fn node(&self, node: NodeId) -> String {
        format!("node.{node}")
    }

    /// The key of what every edge with this namespace needs to hear.
    #[must_use]
    pub fn namespace(&self, namespace: &NamespacePath) -> String {
        format!("ns.{:08x}", hash::namespace(namespace))
    }

    /// The bucket of a room.
    #[must_use]
    pub fn bucket(&self, namespace: &NamespacePath, room: &str) -> u32 {
        self.bucket_of_hash(hash::room(namespace, room))
    }

    /// The bucket of a room whose hash is known.
    #[must_use]
    pub fn bucket_of_hash(&self, room_hash: u32) -> u32 {
        room_hash % self.buckets
    }

    /// The key of a bucket.
    #[must_use]
    pub fn bucket_key(&self, bucket: u32) -> String {
        format!("room.{bucket}")
    }

    /// Chooses where a broadcast without acks is published. Everything else goes to the namespace.
    ///
    /// `is_edge` tells which node ids are living edges: a room with the shape of their sockets' ids goes to the owner.
    #[must_use]
    pub fn address(
        &self,
        namespace: &NamespacePath,
        options: &BroadcastOptions,
        is_edge: impl Fn(NodeId) -> bool,
    ) -> Address {
        let rooms = &options.selector.rooms;
        let owner = |room: &str| NodeId::of_sid(room).filter(|node| is_edge(*node));
        let mut keys = BTreeSet::new();
        let mut room_hashes = Some(Vec::with_capacity(rooms.len()));
        for room in rooms {
            if let Some(node) = owner(room) {
                keys.insert(self.node(node));
                room_hashes = None;
                continue;
            }
            let hash = hash::room(namespace, room);
            keys.insert(self.bucket_key(self.bucket_of_hash(hash)));
            if let Some(hashes) = &mut room_hashes {
                hashes.push(hash);
            }
        }
        if keys.len() > KEYS_MAX {
            keys.clear();
        }
        let key = keys.pop_first().unwrap_or_else(|| self.namespace(namespace));
        let room_hashes = room_hashes.filter(|hashes| (1..=KEYS_MAX).contains(&hashes.len()));
        Address { key, cc: keys.into_iter().collect(), room_hashes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::Selector;

    fn address(rooms: &[&str]) -> Address {
        let rooms = rooms.iter().map(|room| (*room).to_owned()).collect();
        let options =
            BroadcastOptions { selector: Selector { rooms, except: Vec::new() }, ..Default::default() };
        let edge = NodeId::parse("AQID");
        names().address(&NamespacePath::root(), &options, |node| Some(node) == edge)
    }

    fn names() -> Names {
        Names::new("jackfield", BUCKETS_DEFAULT)
    }

    #[test]
    fn keys_say_whether_members_or_one_node_are_meant() {
        let names = Names::new("x", 8);
        assert!(is_for_members(&names.namespace(&NamespacePath::root())));
        assert!(is_for_members(&names.bucket_key(3)));
        assert!(!is_for_members(names.heartbeat()));
        assert!(!is_for_members(&names.node(NodeId::from_bytes([1, 2, 3]))));
    }

    #[test]
    fn names_are_fixed() {
        assert_eq!(names().exchange(), "jackfield.v1.4096");
        assert_eq!(Names::new("a", 0).exchange(), "a.v1.1");
        assert_eq!(names().node(NodeId::from_bytes([1, 2, 3])), "node.AQID");
        assert_eq!(names().namespace(&NamespacePath::root()), "ns.79d3d2d4");
        assert_eq!(names().bucket(&NamespacePath::root(), "room"), 2247);
    }

    #[test]
    fn a_broadcast_is_one_publish() {
        let none = address(&[]);
        assert_eq!(none.key, names().namespace(&NamespacePath::root()));
        assert_eq!((none.cc.len(), none.room_hashes), (0, None));

        let one = address(&["a"]);
        let hash = hash::room(&NamespacePath::root(), "a");
        assert_eq!(one.key, format!("room.{}", hash % 4096));
        assert_eq!((one.cc.len(), one.room_hashes), (0, Some(vec![hash])));

        let three = address(&["a", "b", "a"]);
        assert_eq!(three.cc.len(), 1);
        assert_eq!(three.room_hashes.map(|hashes| hashes.len()), Some(3));
    }

    #[test]
    fn sockets_of_edges_go_to_their_owner() {
        let owned = address(&["AQIDabcdefghijklmnop"]);
        assert_eq!((owned.key.as_str(), owned.cc.len(), owned.room_hashes), ("node.AQID", 0, None));
        let stranger = address(&["AQIEabcdefghijklmnop"]);
        assert!(stranger.key.starts_with("room."));
        let both = address(&["AQIDabcdefghijklmnop", "a"]);
        assert_eq!((both.cc.len(), both.room_hashes), (1, None));
    }

    #[test]
    fn many_rooms_go_to_the_namespace() {
        let rooms: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let rooms: Vec<&str> = rooms.iter().map(String::as_str).collect();
        let many = address(&rooms);
        assert_eq!(many.key, names().namespace(&NamespacePath::root()));
        assert_eq!((many.cc.len(), many.room_hashes), (0, None));
    }
}
