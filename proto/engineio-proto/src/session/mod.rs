//! One session as a machine: what arrived and what time it is go in; what to send, what happened and when to
//! come back go out.
//!
//! The rules live in `heartbeat.rs` (who pings, when to give up) and `upgrade.rs` (the move to a WebSocket);
//! here they meet, and a session ends.

mod heartbeat;
mod upgrade;

use std::time::{Duration, Instant};

use self::heartbeat::{Beat, Heartbeat};
use self::upgrade::{Link, Step};
use crate::packet::{Packet, PacketType, WirePacket};
use crate::transport::TransportKind;
use crate::version::ProtocolVersion;

/// The times a session lives by; the same for every session of a server, so passed to each call and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionConfig {
    /// Revision 4: from a pong to the next ping. Revision 3: how often the client is told to ping.
    pub ping_interval: Duration,
    /// Revision 4: how long to wait for a pong. Revision 3: how long beyond the interval to wait for a ping.
    pub ping_timeout: Duration,
    /// How long a candidate has, from its opening to its `5`.
    pub upgrade_timeout: Duration,
}

/// One Engine.IO session.
///
/// ```text
///   new(polling)                                   new(websocket)
///        │                                               │
///        ▼                  upgrade.rs                   ▼
///     Polling ◀──▶ Probing ──▶ Probed ──────────▶ WebSocket
///        │            │           │                  │
///        └────────────┴─────┬─────┴──────────────────┘
///                           │  `1` by polling, heartbeat missed or in the wrong direction,
///                           ▼  transport gone, closed by us
///                        Closed(reason)
/// ```
///
/// After every `handle_*` call, drain [`poll_transmit`](Self::poll_transmit) and then
/// [`poll_event`](Self::poll_event), and come back with [`handle_timeout`](Self::handle_timeout) no earlier
/// than [`poll_timeout`](Self::poll_timeout) says. Coming late delays what was due and harms nothing. What is
/// not drained is kept, but the same control packet or event twice is kept once.
///
/// The caller writes the open packet, queues messages, and parks polls; this machine only says which control
/// packets join them. No heap: what one session costs is its size, and that is small.
#[derive(Debug)]
pub struct Session {
    version: ProtocolVersion,
    state: State,
    due: Due,
}

#[derive(Debug)]
enum State {
    Open {
        link: Link,
        heartbeat: Heartbeat,
    },
    /// `transport` is the one that was current at the end.
    Closed {
        reason: CloseReason,
        transport: TransportKind,
    },
}

/// What to do with a packet that was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// A message: the application gets its data.
    Deliver,
    /// Nothing is left to do: it was a control packet, or it came where nothing is heard any more.
    Done,
}

/// Something the caller has to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent {
    /// The candidate is to be closed; the session lives on by polling.
    UpgradeFailed,
    /// The candidate is the transport now: what waits goes out by it, and a poll still parked is released.
    Upgraded,
    /// The session is over; every transport is to be closed, a candidate too. Comes once, and last.
    Closed(CloseReason),
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client missed its heartbeat.
    PingTimeout,
    /// The client closed the transport, or said `1` by polling.
    TransportClose,
    /// The transport failed, or was used against its rules.
    TransportError,
    /// The client sent bytes that are no packet.
    ParseError,
    /// The application closed the session.
    ForcedClose,
    /// The server closed the session: no namespace was joined in time, or a limit was passed.
    ForcedServerClose,
    /// The server is leaving.
    ServerShuttingDown,
}

impl CloseReason {
    /// The reason as applications know it from the reference server.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PingTimeout => "ping timeout",
            Self::TransportClose => "transport close",
            Self::TransportError => "transport error",
            Self::ParseError => "parse error",
            Self::ForcedClose => "forced close",
            Self::ForcedServerClose => "forced server close",
            Self::ServerShuttingDown => "server shutting down",
        }
    }
}

/// A packet that ended the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A ping from a client of revision 4, or a pong from one of revision 3.
    #[error("invalid heartbeat direction: {packet_type:?} from a client of revision {}", version.number())]
    HeartbeatDirection {
        /// What the client speaks.
        version: ProtocolVersion,
        /// What it sent.
        packet_type: PacketType,
    },
}

/// Why a WebSocket cannot become a session's candidate. It is to be closed; the session is untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeRefused {
    /// Another candidate is there already.
    #[error("the session is already upgrading")]
    AlreadyUpgrading,
    /// The session's transport is a WebSocket, from the start or since an upgrade.
    #[error("the session is already on a websocket")]
    AlreadyWebSocket,
    /// The session is over.
    #[error("the session is closed")]
    Closed,
}

impl Session {
    /// A session that was opened just now by this transport.
    pub fn new(
        version: ProtocolVersion,
        transport: TransportKind,
        now: Instant,
        config: &SessionConfig,
    ) -> Self {
        let (link, heartbeat) = (Link::new(transport), Heartbeat::new(version, now, config));
        Self { version, state: State::Open { link, heartbeat }, due: Due::default() }
    }

    /// A packet arrived by polling or by a WebSocket, which may be the candidate.
    ///
    /// Nothing is heard from a transport that is neither current nor candidate, nor after the end: such
    /// packets are [`Verdict::Done`].
    ///
    /// # Errors
    /// [`SessionError`] when the packet ended the session; [`SessionEvent::Closed`] with
    /// [`CloseReason::TransportError`] follows.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        via: TransportKind,
        packet: &Packet<'_>,
        config: &SessionConfig,
    ) -> Result<Verdict, SessionError> {
        let State::Open { link, heartbeat } = &mut self.state else {
            return Ok(Verdict::Done);
        };
        if via != link.current() {
            let step = link.handle_packet(now, packet);
            self.apply(step);
            return Ok(Verdict::Done);
        }
        match (packet.packet_type, self.version) {
            (PacketType::Ping, ProtocolVersion::V3) => {
                heartbeat.handle_ping(now, config);
                // The data of the ping is not echoed: the reference server answers a bare pong.
                self.due.insert(Due::PONG);
            }
            (PacketType::Pong, ProtocolVersion::V4) => heartbeat.handle_pong(now, config),
            (PacketType::Ping, ProtocolVersion::V4) | (PacketType::Pong, ProtocolVersion::V3) => {
                self.close(CloseReason::TransportError);
                let (version, packet_type) = (self.version, packet.packet_type);
                return Err(SessionError::HeartbeatDirection { version, packet_type });
            }
            // On a WebSocket the client says goodbye by closing it, and a close packet means nothing.
            (PacketType::Close, _) if via == TransportKind::Polling => {
                self.close(CloseReason::TransportClose)
            }
            (PacketType::Message, _) => {
                heartbeat.handle_other(now, config);
                return Ok(Verdict::Deliver);
            }
            (PacketType::Open | PacketType::Close | PacketType::Upgrade | PacketType::Noop, _) => {
                heartbeat.handle_other(now, config);
            }
        }
        Ok(Verdict::Done)
    }

    /// A WebSocket that names this session opened: it becomes the candidate.
    ///
    /// # Errors
    /// [`UpgradeRefused`] when the session cannot take it.
    pub fn handle_upgrade_opened(
        &mut self,
        now: Instant,
        config: &SessionConfig,
    ) -> Result<(), UpgradeRefused> {
        match &mut self.state {
            State::Open { link, .. } => link.handle_opened(now, config),
            State::Closed { .. } => Err(UpgradeRefused::Closed),
        }
    }

    /// The candidate went away before its `5`; polling lives on. Without a candidate nothing happens.
    pub fn handle_upgrade_closed(&mut self) {
        if let State::Open { link, .. } = &mut self.state
            && link.handle_closed()
        {
            self.due.remove(Due::PROBE_PONG | Due::NOOP);
        }
    }

    /// The current transport ended or failed.
    pub fn handle_transport_closed(&mut self, reason: CloseReason) {
        self.close(reason);
    }

    /// We close the session, or its client broke a rule above this layer.
    pub fn handle_close(&mut self, reason: CloseReason) {
        self.close(reason);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant, config: &SessionConfig) {
        let State::Open { link, heartbeat } = &mut self.state else {
            return;
        };
        let step = link.handle_timeout(now);
        match heartbeat.handle_timeout(now, config) {
            Beat::Early => {}
            Beat::SendPing => self.due.insert(Due::PING),
            Beat::Dead => return self.close(CloseReason::PingTimeout),
        }
        self.apply(step);
    }

    /// The next control packet to send, and by which transport. A noop is to be dropped when no poll is
    /// parked.
    pub fn poll_transmit(&mut self) -> Option<(TransportKind, WirePacket)> {
        let State::Open { link, .. } = &self.state else {
            return None;
        };
        let current = link.current();
        if self.due.take(Due::PROBE_PONG) {
            Some((TransportKind::WebSocket, WirePacket::PROBE_PONG))
        } else if self.due.take(Due::NOOP) {
            Some((TransportKind::Polling, WirePacket::control(PacketType::Noop)))
        } else if self.due.take(Due::PONG) {
            Some((current, WirePacket::control(PacketType::Pong)))
        } else if self.due.take(Due::PING) {
            Some((current, WirePacket::control(PacketType::Ping)))
        } else {
            None
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        if self.due.take(Due::UPGRADE_FAILED) {
            Some(SessionEvent::UpgradeFailed)
        } else if self.due.take(Due::UPGRADED) {
            Some(SessionEvent::Upgraded)
        } else if self.due.take(Due::CLOSED) {
            self.close_reason().map(SessionEvent::Closed)
        } else {
            None
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` once the session is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let State::Open { link, heartbeat } = &self.state else {
            return None;
        };
        let beat = heartbeat.deadline();
        Some(link.deadline().map_or(beat, |upgrade| upgrade.min(beat)))
    }

    /// The revision the client speaks.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// The transport messages go out by; the last one once the session is over.
    pub fn transport(&self) -> TransportKind {
        match &self.state {
            State::Open { link, .. } => link.current(),
            State::Closed { transport, .. } => *transport,
        }
    }

    /// Whether there is a candidate.
    pub fn is_upgrading(&self) -> bool {
        matches!(&self.state, State::Open { link, .. } if link.has_candidate())
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.close_reason().is_some()
    }

    /// Why the session is over, if it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        match self.state {
            State::Open { .. } => None,
            State::Closed { reason, .. } => Some(reason),
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Wait => {}
            Step::Probed => self.due.insert(Due::PROBE_PONG | Due::NOOP),
            Step::Noop => self.due.insert(Due::NOOP),
            Step::Upgraded => {
                self.due.remove(Due::NOOP);
                self.due.insert(Due::UPGRADED);
            }
            Step::Failed => {
                self.due.remove(Due::PROBE_PONG | Due::NOOP);
                self.due.insert(Due::UPGRADE_FAILED);
            }
        }
    }

    /// Ends the session. Only the first reason counts, and packets that wait are forgotten.
    fn close(&mut self, reason: CloseReason) {
        if self.is_closed() {
            return;
        }
        self.state = State::Closed { reason, transport: self.transport() };
        self.due.remove(Due::PROBE_PONG | Due::NOOP | Due::PONG | Due::PING);
        self.due.insert(Due::CLOSED);
    }
}

/// The control packets and events that wait to be drained: a set, so it cannot grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Due(u8);

impl Due {
    const PROBE_PONG: u8 = 1;
    const NOOP: u8 = 1 << 1;
    const PONG: u8 = 1 << 2;
    const PING: u8 = 1 << 3;
    const UPGRADE_FAILED: u8 = 1 << 4;
    const UPGRADED: u8 = 1 << 5;
    const CLOSED: u8 = 1 << 6;

    fn insert(&mut self, items: u8) {
        self.0 |= items;
    }

    fn remove(&mut self, items: u8) {
        self.0 &= !items;
    }

    /// Removes one item and says whether it was there.
    fn take(&mut self, item: u8) -> bool {
        let there = self.0 & item != 0;
        self.remove(item);
        there
    }
}

/// The moment `wait` after `now`. A wait nobody lives to see is cut to a century, so that the sum cannot
/// overflow.
fn after(now: Instant, wait: Duration) -> Instant {
    const WAIT_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    now.checked_add(wait.min(WAIT_MAX)).unwrap_or(now)
}

#[cfg(test)]
mod tests;
