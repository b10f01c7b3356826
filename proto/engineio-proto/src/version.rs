//! Which revision of the protocol a client speaks.

/// A revision of Engine.IO; fixed for the life of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProtocolVersion {
    /// Revision 3: the client pings. Spoken by Socket.IO clients 1.x and 2.x.
    V3,
    /// Revision 4: the server pings. Spoken by Socket.IO clients 3.x and 4.x.
    V4,
}

impl ProtocolVersion {
    /// Reads the value of the `EIO` query parameter.
    ///
    /// Only the exact texts `3` and `4` are revisions. The reference server takes everything else for 3 where it
    /// serves 3; its own conformance suites expect a refusal, and no client that we know sends anything else.
    pub fn from_query(value: &str) -> Option<Self> {
        match value {
            "3" => Some(Self::V3),
            "4" => Some(Self::V4),
            _ => None,
        }
    }

    /// The number a client puts into `EIO`.
    pub const fn number(self) -> u8 {
        match self {
            Self::V3 => 3,
            Self::V4 => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ProtocolVersion::{self, V3, V4};

    #[test]
    fn only_the_exact_texts_are_revisions() {
        for (value, expected) in [
            ("4", Some(V4)),
            ("3", Some(V3)),
            ("5", None),
            ("04", None),
            ("4 ", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(ProtocolVersion::from_query(value), expected, "{value:?}");
        }
    }
}
