//! Session and socket ids: 20 base64url characters that say which node and shard own them.
//!
//! Layout of the 15 bytes: node id (3), shard (1), random (11). The random part comes from the system's
//! generator, drawn in blocks; an Engine.IO session id is a secret, a Socket.IO socket id is public.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cluster_proto::identity::NodeId;

/// Characters of an id on the wire.
pub const ID_CHARS: usize = 20;
const ID_BYTES: usize = 15;
const RANDOM_BYTES: usize = 11;
/// Random bytes drawn from the system at once: enough for 372 ids.
const POOL_BYTES: usize = 4096 - 4096 % RANDOM_BYTES;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            /// Parses the 20 characters of an id; anything else is not one of ours.
            pub fn parse(text: &str) -> Option<Self> {
                if text.len() != ID_CHARS {
                    return None;
                }
                let mut bytes = [0; ID_BYTES];
                let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
                (length == ID_BYTES).then_some(Self(bytes))
            }

            /// The shard that made this id.
            pub fn shard(self) -> usize {
                let [_, _, _, shard, ..] = self.0;
                usize::from(shard)
            }

            /// The node that made this id.
            pub fn node(self) -> NodeId {
                let [a, b, c, ..] = self.0;
                NodeId::from_bytes([a, b, c])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; ID_CHARS];
                let length = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
                let text = text.get(..length).and_then(|text| str::from_utf8(text).ok());
                f.write_str(text.unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

id_type! {
    /// The `sid` of an Engine.IO session: whoever knows it may use the session.
    SessionId
}
id_type! {
    /// The public id of one Socket.IO socket, and the name of the room that holds only it.
    SocketId
}

impl SessionId {
    /// The socket id of an EIO3 session: the protocol makes the two equal.
    pub fn as_socket_id(self) -> SocketId {
        SocketId(self.0)
    }
}

/// Makes the ids of one shard.
#[derive(Debug)]
pub struct IdSource {
    node: NodeId,
    shard: u8,
    pool: Box<[u8; POOL_BYTES]>,
    used: usize,
}

impl IdSource {
    /// A source for shard number `shard` of `node`.
    pub fn new(node: NodeId, shard: u8) -> IdSource {
        IdSource { node, shard, pool: Box::new([0; POOL_BYTES]), used: POOL_BYTES }
    }

    /// A fresh session id.
    ///
    /// # Errors
    /// When the system has no random numbers to give; a guessable id is never handed out.
    pub fn session_id(&mut self) -> Result<SessionId, getrandom::Error> {
        self.bytes().map(SessionId)
    }

    /// A fresh socket id.
    ///
    /// # Errors
    /// As [`IdSource::session_id`].
    pub fn socket_id(&mut self) -> Result<SocketId, getrandom::Error> {
        self.bytes().map(SocketId)
    }

    fn bytes(&mut self) -> Result<[u8; ID_BYTES], getrandom::Error> {
        if self.used >= POOL_BYTES {
            getrandom::fill(self.pool.as_mut_slice())?;
            self.used = 0;
        }
        let mut id = [0; ID_BYTES];
        let (head, random) = id.split_at_mut(ID_BYTES - RANDOM_BYTES);
        let [a, b, c] = self.node.bytes();
        head.copy_from_slice(&[a, b, c, self.shard]);
        if let Some(fresh) = self.pool.get_mut(self.used..self.used + RANDOM_BYTES) {
            random.copy_from_slice(fresh);
            fresh.fill(0);
        }
        self.used += RANDOM_BYTES;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_node_and_shard_and_survives_the_wire() {
        let node = NodeId::from_bytes([1, 2, 3]);
        let mut source = IdSource::new(node, 7);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let id = source.session_id().unwrap();
            assert_eq!((id.node(), id.shard()), (node, 7));
            let text = id.to_string();
            assert_eq!(text.len(), ID_CHARS);
            assert_eq!(SessionId::parse(&text), Some(id));
            assert!(seen.insert(text));
        }
    }

    #[test]
    fn strangers_are_not_ids() {
        for text in ["", "short", "twenty+characters/no", "nineteen-characters", "öööööööööö"] {
            assert_eq!(SessionId::parse(text), None, "{text}");
        }
    }
}
