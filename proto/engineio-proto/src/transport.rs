//! How the packets of a session travel.

/// One of the two ways a session's packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// HTTP long polling: a GET carries packets to the client, a POST carries them here. JSONP is a dress of
    /// it.
    Polling,
    /// One WebSocket, one packet per frame.
    WebSocket,
}

impl TransportKind {
    /// The name on the wire: in the `transport` query parameter and in the open packet's `upgrades`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
        }
    }

    /// Reads the value of the `transport` query parameter; `None` for any name but ours. Case matters.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "polling" => Some(Self::Polling),
            "websocket" => Some(Self::WebSocket),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TransportKind;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for kind in [TransportKind::Polling, TransportKind::WebSocket] {
            assert_eq!(TransportKind::parse(kind.name()), Some(kind));
        }
        for name in ["", "WebSocket", "webtransport", "constructor", "__proto__", "polling "] {
            assert_eq!(TransportKind::parse(name), None, "{name:?}");
        }
    }
}
