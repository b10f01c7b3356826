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
    /// Reads the value of the `EIO` query parameter, `None` when there is none.
    ///
    /// Only the exact text `4` is revision 4. Anything else is 3, as on the reference server: `04`, `5` and a
    /// missing parameter alike.
    pub fn from_query(value: Option<&str>) -> Self {
        match value {
            Some("4") => Self::V4,
            _ => Self::V3,
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
    fn only_the_exact_text_4_is_revision_4() {
        for (value, expected) in [
            (Some("4"), V4),
            (Some("3"), V3),
            (Some("5"), V3),
            (Some("04"), V3),
            (Some("4 "), V3),
            (Some(""), V3),
            (None, V3),
        ] {
            assert_eq!(ProtocolVersion::from_query(value), expected, "{value:?}");
        }
    }
}
