//! Who pings, and when we give up.
//!
//! ```text
//! revision 4                    ping_at reached: send `2`
//!     Resting { ping_at } ─────────────────────────────────▶ AwaitingPong { deadline }
//!            ▲                                                 │   │ other packet, once:
//!            └──────────────── `3` ────────────────────────────┘   └ deadline moves
//!
//! revision 3
//!     AwaitingPing { deadline } ── `2`: send `3`, deadline moves
//!
//! A deadline that passes closes the session.
//! ```

use std::time::Instant;

use super::{SessionConfig, after};
use crate::version::ProtocolVersion;

/// The heartbeat of an open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heartbeat {
    /// Revision 4, nothing outstanding.
    Resting {
        /// When to ping.
        ping_at: Instant,
    },
    /// Revision 4, a ping was sent.
    AwaitingPong {
        /// When to give up.
        deadline: Instant,
        /// Whether another packet has already moved the deadline; it may once.
        extended: bool,
    },
    /// Revision 3, the client's turn.
    AwaitingPing {
        /// When to give up.
        deadline: Instant,
    },
}

/// What a deadline brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// It has not come yet.
    Early,
    /// A ping is to be sent.
    SendPing,
    /// The client is gone.
    Dead,
}

impl Heartbeat {
    pub(super) fn new(version: ProtocolVersion, now: Instant, config: &SessionConfig) -> Self {
        match version {
            ProtocolVersion::V3 => Self::awaiting_ping(now, config),
            ProtocolVersion::V4 => Self::resting(now, config),
        }
    }

    /// When [`Heartbeat::handle_timeout`] has something to do.
    pub(super) fn deadline(&self) -> Instant {
        match *self {
            Self::Resting { ping_at } => ping_at,
            Self::AwaitingPong { deadline, .. } | Self::AwaitingPing { deadline } => deadline,
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, config: &SessionConfig) -> Beat {
        if now < self.deadline() {
            return Beat::Early;
        }
        match self {
            Self::Resting { .. } => {
                // Counted from when the ping leaves, not from when it was due: a late tick is not the
                // client's fault.
                *self = Self::AwaitingPong { deadline: after(now, config.ping_timeout), extended: false };
                Beat::SendPing
            }
            Self::AwaitingPong { .. } | Self::AwaitingPing { .. } => Beat::Dead,
        }
    }

    /// A client of revision 3 pinged.
    pub(super) fn handle_ping(&mut self, now: Instant, config: &SessionConfig) {
        *self = Self::awaiting_ping(now, config);
    }

    /// A client of revision 4 answered. A pong nobody asked for changes nothing.
    pub(super) fn handle_pong(&mut self, now: Instant, config: &SessionConfig) {
        match self {
            Self::AwaitingPong { .. } => *self = Self::resting(now, config),
            Self::Resting { .. } | Self::AwaitingPing { .. } => {}
        }
    }

    /// Any other packet arrived. While a pong is due, the first one shows life and restarts the wait, because
    /// the ping may be stuck behind what the client is sending; later ones do not, or a client could chat for
    /// ever without answering. In revision 3 only pings count.
    pub(super) fn handle_other(&mut self, now: Instant, config: &SessionConfig) {
        match self {
            Self::AwaitingPong { deadline, extended: extended @ false } => {
                *deadline = after(now, config.ping_timeout);
                *extended = true;
            }
            Self::AwaitingPong { extended: true, .. } | Self::Resting { .. } | Self::AwaitingPing { .. } => {}
        }
    }

    fn resting(now: Instant, config: &SessionConfig) -> Self {
        Self::Resting { ping_at: after(now, config.ping_interval) }
    }

    fn awaiting_ping(now: Instant, config: &SessionConfig) -> Self {
        let patience = config.ping_interval.saturating_add(config.ping_timeout);
        Self::AwaitingPing { deadline: after(now, patience) }
    }
}
