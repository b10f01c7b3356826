//! The move from polling to a WebSocket.
//!
//! ```text
//!            candidate opens            `2probe`: send `3probe`             `5`
//!   Polling ────────────────▶ Probing ──────────────────────────▶ Probed ────────▶ WebSocket
//!      ▲                         │                                  │ every 100 ms: `6` by polling
//!      │                         │ any other packet                 │
//!      └──── candidate gone ─────┴──────── or no time left ─────────┘
//! ```
//!
//! The candidate is a WebSocket that named an existing session. Until its `5` the session lives on polling,
//! and a candidate that breaks the rules costs the client nothing but the candidate. The noops release a
//! parked poll, so that the client can stop polling before it says `5`; a client that does not wait for them
//! is served as well.

use std::time::{Duration, Instant};

use super::{SessionConfig, UpgradeRefused, after};
use crate::packet::{Packet, PacketType};
use crate::transport::TransportKind;

/// Time between two noops while the client should stop polling: a client sends the next poll at once, so one
/// that was on its way when the first noop left is released by the second. The reference server's interval.
const NOOP_INTERVAL: Duration = Duration::from_millis(100);

/// What carries the packets of an open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// Polling, and no candidate.
    Polling,
    /// Polling; a candidate is open and has said nothing.
    Probing {
        /// When the candidate is given up.
        give_up_at: Instant,
    },
    /// Polling; the candidate has been probed.
    Probed {
        /// When the candidate is given up.
        give_up_at: Instant,
        /// When the next noop is due.
        noop_at: Instant,
    },
    /// The WebSocket, from the start or after an upgrade.
    WebSocket,
}

/// What became of the candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing yet.
    Wait,
    /// The candidate probed: it is to be answered, and a parked poll released.
    Probed,
    /// A parked poll is to be released.
    Noop,
    /// The candidate is the session's transport now.
    Upgraded,
    /// The candidate is to be closed; the session goes on by polling.
    Failed,
}

impl Link {
    pub(super) fn new(transport: TransportKind) -> Self {
        match transport {
            TransportKind::Polling => Self::Polling,
            TransportKind::WebSocket => Self::WebSocket,
        }
    }

    /// The transport packets go out by.
    pub(super) fn current(&self) -> TransportKind {
        match self {
            Self::Polling | Self::Probing { .. } | Self::Probed { .. } => TransportKind::Polling,
            Self::WebSocket => TransportKind::WebSocket,
        }
    }

    pub(super) fn has_candidate(&self) -> bool {
        matches!(self, Self::Probing { .. } | Self::Probed { .. })
    }

    /// When [`Link::handle_timeout`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match *self {
            Self::Polling | Self::WebSocket => None,
            Self::Probing { give_up_at } => Some(give_up_at),
            Self::Probed { give_up_at, noop_at } => Some(give_up_at.min(noop_at)),
        }
    }

    pub(super) fn handle_opened(
        &mut self,
        now: Instant,
        config: &SessionConfig,
    ) -> Result<(), UpgradeRefused> {
        match self {
            Self::Polling => {
                *self = Self::Probing { give_up_at: after(now, config.upgrade_timeout) };
                Ok(())
            }
            Self::Probing { .. } | Self::Probed { .. } => Err(UpgradeRefused::AlreadyUpgrading),
            Self::WebSocket => Err(UpgradeRefused::AlreadyWebSocket),
        }
    }

    /// A packet came from the candidate. Without a candidate nothing happens.
    pub(super) fn handle_packet(&mut self, now: Instant, packet: &Packet<'_>) -> Step {
        match (&mut *self, packet.packet_type) {
            (Self::Polling | Self::WebSocket, _) => Step::Wait,
            (&mut (Self::Probing { give_up_at } | Self::Probed { give_up_at, .. }), PacketType::Ping)
                if packet.is_probe() =>
            {
                *self = Self::Probed { give_up_at, noop_at: after(now, NOOP_INTERVAL) };
                Step::Probed
            }
            (Self::Probed { .. }, PacketType::Upgrade) => {
                *self = Self::WebSocket;
                Step::Upgraded
            }
            (Self::Probing { .. } | Self::Probed { .. }, _) => {
                *self = Self::Polling;
                Step::Failed
            }
        }
    }

    /// The candidate went away by itself; says whether there was one.
    pub(super) fn handle_closed(&mut self) -> bool {
        let had_candidate = self.has_candidate();
        if had_candidate {
            *self = Self::Polling;
        }
        had_candidate
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Step {
        match self {
            Self::Polling | Self::WebSocket => Step::Wait,
            Self::Probing { give_up_at } | Self::Probed { give_up_at, .. } if now >= *give_up_at => {
                *self = Self::Polling;
                Step::Failed
            }
            Self::Probed { noop_at, .. } if now >= *noop_at => {
                *noop_at = after(now, NOOP_INTERVAL);
                Step::Noop
            }
            Self::Probing { .. } | Self::Probed { .. } => Step::Wait,
        }
    }
}
