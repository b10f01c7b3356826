//! The machine on a moved clock: every transition, every refusal.

use super::*;
use crate::packet::Data;
use ProtocolVersion::{V3, V4};
use TransportKind::{Polling, WebSocket};

const CONFIG: SessionConfig = SessionConfig {
    ping_interval: Duration::from_millis(25_000),
    ping_timeout: Duration::from_millis(20_000),
    upgrade_timeout: Duration::from_millis(10_000),
};

/// A session, and a clock that moves when told. Times are milliseconds since the session began.
struct Play {
    session: Session,
    start: Instant,
    now: Instant,
}

impl Play {
    #[allow(clippy::disallowed_methods, reason = "a machine test needs some moment to start from")]
    fn open(version: ProtocolVersion, transport: TransportKind) -> Self {
        let start = Instant::now();
        Self { session: Session::new(version, transport, start, &CONFIG), start, now: start }
    }

    /// An upgrading session, probed at the time 0 and drained.
    fn probed(version: ProtocolVersion) -> Self {
        let mut play = Self::open(version, Polling);
        play.session.handle_upgrade_opened(play.now, &CONFIG).unwrap();
        play.hears(WebSocket, "2probe");
        assert_eq!(play.sent(), [(WebSocket, "3probe".into()), (Polling, "6".into())]);
        play
    }

    /// An upgraded session, upgraded at the time 0 and drained.
    fn upgraded(version: ProtocolVersion) -> Self {
        let mut play = Self::probed(version);
        play.hears(WebSocket, "5");
        assert_eq!(play.happened(), [SessionEvent::Upgraded]);
        play
    }

    fn at(&mut self, ms: u64) -> &mut Self {
        self.now = self.start + Duration::from_millis(ms);
        self.session.handle_timeout(self.now, &CONFIG);
        self
    }

    fn tries(&mut self, via: TransportKind, text: &str) -> Result<Verdict, SessionError> {
        let packet = Packet::decode_text_frame(self.session.version(), text).unwrap();
        self.session.handle_packet(self.now, via, &packet, &CONFIG)
    }

    fn hears(&mut self, via: TransportKind, text: &str) -> &mut Self {
        let expected = if text.starts_with('4') { Verdict::Deliver } else { Verdict::Done };
        assert_eq!(self.tries(via, text), Ok(expected), "{text} by {via:?}");
        self
    }

    fn ignores(&mut self, via: TransportKind, text: &str) -> &mut Self {
        assert_eq!(self.tries(via, text), Ok(Verdict::Done), "{text} by {via:?}");
        assert_eq!((self.sent(), self.happened()), (vec![], vec![]), "{text} by {via:?}");
        self
    }

    fn sent(&mut self) -> Vec<(TransportKind, String)> {
        std::iter::from_fn(|| self.session.poll_transmit())
            .map(|(via, packet)| (via, String::from_utf8(packet.as_bytes().to_vec()).unwrap()))
            .collect()
    }

    fn happened(&mut self) -> Vec<SessionEvent> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// Nothing to send, nothing happened.
    fn is_quiet(&mut self) -> &mut Self {
        assert_eq!((self.sent(), self.happened()), (vec![], vec![]));
        self
    }

    fn wakes_at(&self) -> Option<u128> {
        self.session.poll_timeout().map(|at| at.duration_since(self.start).as_millis())
    }
}

fn closed(reason: CloseReason) -> [SessionEvent; 1] {
    [SessionEvent::Closed(reason)]
}

fn ping(via: TransportKind) -> [(TransportKind, String); 1] {
    [(via, "2".into())]
}

#[test]
fn a_session_is_small_and_owns_no_heap() {
    assert!(size_of::<Session>() <= 64, "{}", size_of::<Session>());
    assert!(!std::mem::needs_drop::<Session>());
}

#[test]
fn v4_pings_an_interval_after_each_pong() {
    for transport in [Polling, WebSocket] {
        let mut play = Play::open(V4, transport);
        assert_eq!(play.wakes_at(), Some(25_000));
        play.at(24_999).is_quiet();
        assert_eq!(play.at(25_000).sent(), ping(transport));
        assert_eq!(play.wakes_at(), Some(45_000));
        play.at(31_000).hears(transport, "3").is_quiet();
        assert_eq!(play.wakes_at(), Some(56_000));
        assert_eq!(play.at(56_000).sent(), ping(transport));
    }
}

#[test]
fn v4_without_a_pong_ends_after_the_timeout() {
    let mut play = Play::open(V4, WebSocket);
    play.at(25_000).sent();
    play.at(44_999).is_quiet();
    assert_eq!(play.at(45_000).happened(), closed(CloseReason::PingTimeout));
    assert_eq!(play.wakes_at(), None);
}

#[test]
fn v4_waits_the_whole_timeout_after_a_ping_that_left_late() {
    let mut play = Play::open(V4, WebSocket);
    assert_eq!(play.at(90_000).sent(), ping(WebSocket));
    play.at(109_999).is_quiet();
    assert_eq!(play.at(110_000).happened(), closed(CloseReason::PingTimeout));
}

#[test]
fn v4_the_first_other_packet_moves_the_deadline_once() {
    for packet in ["4hello", "6"] {
        let mut play = Play::open(V4, WebSocket);
        play.at(10_000).hears(WebSocket, "4before the ping does not count");
        play.at(25_000).sent();
        play.at(40_000).hears(WebSocket, packet);
        assert_eq!(play.wakes_at(), Some(60_000));
        play.at(50_000).hears(WebSocket, packet);
        assert_eq!(play.wakes_at(), Some(60_000));
        play.at(59_999).is_quiet();
        assert_eq!(play.at(60_000).happened(), closed(CloseReason::PingTimeout));
    }
}

#[test]
fn v4_each_ping_may_be_extended_anew() {
    let mut play = Play::open(V4, WebSocket);
    play.at(25_000).hears(WebSocket, "4a").hears(WebSocket, "3");
    assert_eq!(play.wakes_at(), Some(50_000));
    play.at(50_000).sent();
    play.at(69_000).hears(WebSocket, "4b");
    assert_eq!(play.wakes_at(), Some(89_000));
}

#[test]
fn v4_an_early_or_extra_pong_changes_nothing() {
    let mut play = Play::open(V4, WebSocket);
    play.at(1_000).ignores(WebSocket, "3").ignores(WebSocket, "3probe");
    assert_eq!(play.wakes_at(), Some(25_000));
    play.at(25_000).sent();
    play.at(26_000).hears(WebSocket, "3").ignores(WebSocket, "3");
    assert_eq!(play.wakes_at(), Some(51_000));
}

#[test]
fn v4_a_ping_from_the_client_ends_the_session() {
    for (transport, packet) in [(Polling, "2"), (WebSocket, "2"), (WebSocket, "2probe"), (Polling, "2probe")]
    {
        let mut play = Play::open(V4, transport);
        let error = SessionError::HeartbeatDirection { version: V4, packet_type: PacketType::Ping };
        assert_eq!(play.tries(transport, packet), Err(error));
        assert_eq!(play.happened(), closed(CloseReason::TransportError));
    }
}

#[test]
fn v3_answers_every_ping_without_its_data() {
    for transport in [Polling, WebSocket] {
        let mut play = Play::open(V3, transport);
        for packet in ["2", "2probe", "b2AQID"] {
            play.hears(transport, packet);
            assert_eq!(play.sent(), [(transport, "3".into())]);
        }
    }
}

#[test]
fn v3_only_pings_keep_a_session_alive() {
    let mut play = Play::open(V3, WebSocket);
    assert_eq!(play.wakes_at(), Some(45_000));
    play.at(30_000).hears(WebSocket, "2").sent();
    assert_eq!(play.wakes_at(), Some(75_000));
    play.at(70_000).hears(WebSocket, "4hello").hears(WebSocket, "6").is_quiet();
    assert_eq!(play.wakes_at(), Some(75_000));
    play.at(74_999).is_quiet();
    assert_eq!(play.at(75_000).happened(), closed(CloseReason::PingTimeout));
}

#[test]
fn v3_a_pong_from_the_client_ends_the_session() {
    let mut play = Play::open(V3, WebSocket);
    let error = SessionError::HeartbeatDirection { version: V3, packet_type: PacketType::Pong };
    assert_eq!(play.tries(WebSocket, "3"), Err(error));
    assert_eq!(play.happened(), closed(CloseReason::TransportError));
}

#[test]
fn v3_a_silent_session_ends_after_an_upgrade_too() {
    let mut play = Play::upgraded(V3);
    assert_eq!(play.at(45_000).happened(), closed(CloseReason::PingTimeout));

    let mut play = Play::upgraded(V3);
    play.at(25_000).hears(WebSocket, "2");
    assert_eq!(play.sent(), [(WebSocket, "3".into())]);
    assert_eq!(play.at(70_000).happened(), closed(CloseReason::PingTimeout));
}

#[test]
fn v4_a_silent_session_ends_after_an_upgrade_too() {
    let mut play = Play::upgraded(V4);
    assert_eq!(play.at(25_000).sent(), ping(WebSocket));
    assert_eq!(play.at(45_000).happened(), closed(CloseReason::PingTimeout));
}

#[test]
fn messages_are_delivered_from_the_current_transport_only() {
    for version in [V3, V4] {
        let mut play = Play::open(version, Polling);
        play.hears(Polling, "4text").ignores(WebSocket, "4text");
        let binary = Packet { packet_type: PacketType::Message, data: Data::Binary(vec![1].into()) };
        let verdict = play.session.handle_packet(play.now, Polling, &binary, &CONFIG);
        assert_eq!(verdict, Ok(Verdict::Deliver));

        let mut play = Play::upgraded(version);
        play.hears(WebSocket, "4text").ignores(Polling, "4text").ignores(Polling, "1").ignores(Polling, "2");
    }
}

#[test]
fn packets_without_a_meaning_on_a_websocket_are_ignored() {
    for version in [V3, V4] {
        let mut play = Play::open(version, WebSocket);
        for packet in ["0", "1", "5", "6"] {
            play.ignores(WebSocket, packet);
        }
        assert!(!play.session.is_closed());
    }
}

#[test]
fn packets_without_a_meaning_by_polling_are_ignored() {
    for version in [V3, V4] {
        let mut play = Play::open(version, Polling);
        for packet in ["0", "5", "6"] {
            play.ignores(Polling, packet);
        }
        assert_eq!(play.session.transport(), Polling);
    }
}

#[test]
fn a_close_packet_by_polling_ends_the_session_and_silences_the_rest() {
    for version in [V3, V4] {
        let mut play = Play::open(version, Polling);
        play.hears(Polling, "1");
        assert_eq!(play.happened(), closed(CloseReason::TransportClose));
        play.ignores(Polling, "4late").ignores(Polling, "1").ignores(Polling, "2").ignores(Polling, "3");
    }
}

#[test]
fn an_upgrade_runs_from_probe_to_upgraded() {
    for version in [V3, V4] {
        let mut play = Play::open(version, Polling);
        assert!(!play.session.is_upgrading());
        play.session.handle_upgrade_opened(play.now, &CONFIG).unwrap();
        play.is_quiet();
        assert!(play.session.is_upgrading());
        assert_eq!(play.wakes_at(), Some(10_000));

        play.at(50).hears(WebSocket, "2probe");
        assert_eq!(play.sent(), [(WebSocket, "3probe".into()), (Polling, "6".into())]);
        assert_eq!(play.session.transport(), Polling);
        play.hears(Polling, "4still by polling");
        play.at(149).is_quiet();
        assert_eq!(play.at(150).sent(), [(Polling, "6".into())]);
        assert_eq!(play.at(260).sent(), [(Polling, "6".into())]);
        assert_eq!(play.wakes_at(), Some(360));

        play.hears(WebSocket, "5");
        assert_eq!(play.happened(), [SessionEvent::Upgraded]);
        assert_eq!(play.session.transport(), WebSocket);
        assert!(!play.session.is_upgrading());
        play.at(360).is_quiet();
    }
}

#[test]
fn probe_upgrade_and_messages_may_come_in_one_read() {
    for version in [V3, V4] {
        let mut play = Play::open(version, Polling);
        play.session.handle_upgrade_opened(play.now, &CONFIG).unwrap();
        play.hears(WebSocket, "2probe").hears(WebSocket, "5").hears(WebSocket, "40{}");
        // Undrained until now: the answer to the probe is still owed, the noop is not.
        assert_eq!(play.sent(), [(WebSocket, "3probe".into())]);
        assert_eq!(play.happened(), [SessionEvent::Upgraded]);
    }
}

#[test]
fn a_second_probe_is_answered_again() {
    let mut play = Play::probed(V4);
    play.at(50).hears(WebSocket, "2probe");
    assert_eq!(play.sent(), [(WebSocket, "3probe".into()), (Polling, "6".into())]);
    assert_eq!(play.wakes_at(), Some(150));
    assert_eq!(play.at(10_000).happened(), [SessionEvent::UpgradeFailed], "more probes give no more time");
}

#[test]
fn any_other_first_packet_costs_the_candidate_only() {
    for version in [V3, V4] {
        for packet in ["2", "2prob", "2probe ", "3", "3probe", "4hello", "5", "0", "1", "6", "b4AQID"] {
            let mut play = Play::open(version, Polling);
            play.session.handle_upgrade_opened(play.now, &CONFIG).unwrap();
            assert_eq!(play.tries(WebSocket, packet), Ok(Verdict::Done), "{packet}");
            assert_eq!(play.happened(), [SessionEvent::UpgradeFailed], "{packet}");
            play.hears(Polling, "4polling lives on").ignores(WebSocket, "2probe").ignores(WebSocket, "5");
            assert_eq!(play.session.handle_upgrade_opened(play.now, &CONFIG), Ok(()), "another may try");
        }
    }
}

#[test]
fn a_binary_probe_is_no_probe() {
    let mut play = Play::open(V3, Polling);
    play.session.handle_upgrade_opened(play.now, &CONFIG).unwrap();
    let packet = Packet::decode_binary_frame(V3, b"\x02probe").unwrap();
    assert_eq!(play.session.handle_packet(play.now, WebSocket, &packet, &CONFIG), Ok(Verdict::Done));
    assert_eq!(play.happened(), [SessionEvent::UpgradeFailed]);
}

#[test]
fn after_the_probe_only_the_upgrade_counts() {
    for version in [V3, V4] {
        for packet in ["2", "3", "4hello", "1", "6"] {
            let mut play = Play::probed(version);
            assert_eq!(play.tries(WebSocket, packet), Ok(Verdict::Done), "{packet}");
            assert_eq!(play.happened(), [SessionEvent::UpgradeFailed], "{packet}");
            play.at(200).is_quiet();
        }
    }
}

#[test]
fn a_candidate_has_only_so_much_time() {
    let mut play = Play::open(V4, Polling);
    play.session.handle_upgrade_opened(play.now, &CONFIG).unwrap();
    play.at(9_999).is_quiet();
    assert_eq!(play.at(10_000).happened(), [SessionEvent::UpgradeFailed]);
    assert_eq!(play.wakes_at(), Some(25_000));

    let mut play = Play::probed(V4);
    play.at(9_999).sent();
    assert_eq!(play.at(10_000).happened(), [SessionEvent::UpgradeFailed]);
    play.is_quiet().hears(Polling, "4polling lives on").at(10_100).is_quiet();
}

#[test]
fn a_candidate_that_leaves_is_forgotten() {
    let mut play = Play::open(V4, Polling);
    play.session.handle_upgrade_opened(play.now, &CONFIG).unwrap();
    play.hears(WebSocket, "2probe");
    play.session.handle_upgrade_closed();
    play.is_quiet();
    assert!(!play.session.is_upgrading());
    assert_eq!(play.wakes_at(), Some(25_000));
    assert_eq!(play.session.handle_upgrade_opened(play.now, &CONFIG), Ok(()));

    let mut play = Play::upgraded(V4);
    play.session.handle_upgrade_closed();
    play.is_quiet().hears(WebSocket, "4no candidate, no effect");
}

#[test]
fn a_second_candidate_is_refused() {
    let mut play = Play::open(V4, Polling);
    play.session.handle_upgrade_opened(play.now, &CONFIG).unwrap();
    let again = play.session.handle_upgrade_opened(play.now, &CONFIG);
    assert_eq!(again, Err(UpgradeRefused::AlreadyUpgrading));

    let mut play = Play::probed(V4);
    let again = play.session.handle_upgrade_opened(play.now, &CONFIG);
    assert_eq!(again, Err(UpgradeRefused::AlreadyUpgrading));
    play.is_quiet().hears(WebSocket, "5");
    assert_eq!(play.happened(), [SessionEvent::Upgraded], "the first is not disturbed");

    for mut play in [Play::upgraded(V3), Play::open(V4, WebSocket)] {
        let again = play.session.handle_upgrade_opened(play.now, &CONFIG);
        assert_eq!(again, Err(UpgradeRefused::AlreadyWebSocket));
    }
}

#[test]
fn a_ping_falls_due_during_an_upgrade() {
    let mut play = Play::open(V4, Polling);
    play.at(24_990);
    play.session.handle_upgrade_opened(play.now, &CONFIG).unwrap();
    play.hears(WebSocket, "2probe").sent();
    assert_eq!(play.at(25_000).sent(), ping(Polling));
    play.at(25_010).hears(WebSocket, "5").happened();
    // The ping waits in the outbox and leaves by the new transport; so does its answer.
    play.at(25_020).hears(WebSocket, "3");
    assert_eq!(play.wakes_at(), Some(50_020));
}

#[test]
fn a_heartbeat_missed_during_an_upgrade_ends_everything() {
    let mut play = Play::open(V3, Polling);
    play.at(44_000);
    play.session.handle_upgrade_opened(play.now, &CONFIG).unwrap();
    play.hears(WebSocket, "2probe").sent();
    assert_eq!(play.at(45_000).happened(), closed(CloseReason::PingTimeout));
    play.ignores(WebSocket, "5");
    assert_eq!(play.session.transport(), Polling);
}

#[test]
fn what_fails_before_the_end_is_told_before_the_end() {
    let mut play = Play::probed(V4);
    play.hears_nothing_from_candidate();
    play.session.handle_close(CloseReason::ForcedClose);
    let expected = [SessionEvent::UpgradeFailed, SessionEvent::Closed(CloseReason::ForcedClose)];
    assert_eq!(play.happened(), expected);
}

impl Play {
    fn hears_nothing_from_candidate(&mut self) {
        assert_eq!(self.tries(WebSocket, "4not the upgrade"), Ok(Verdict::Done));
    }
}

#[test]
fn the_first_reason_counts_and_is_told_once() {
    for version in [V3, V4] {
        let mut play = Play::probed(version);
        play.session.handle_transport_closed(CloseReason::TransportError);
        play.session.handle_close(CloseReason::ForcedClose);
        play.session.handle_transport_closed(CloseReason::TransportClose);
        play.at(1_000_000);
        assert_eq!(play.happened(), closed(CloseReason::TransportError));
        assert_eq!(play.session.close_reason(), Some(CloseReason::TransportError));
        for packet in ["0", "1", "2", "2probe", "3", "4hello", "5", "6"] {
            play.ignores(Polling, packet).ignores(WebSocket, packet);
        }
        play.session.handle_upgrade_closed();
        play.is_quiet();
        assert_eq!(play.session.handle_upgrade_opened(play.now, &CONFIG), Err(UpgradeRefused::Closed));
        assert_eq!(play.wakes_at(), None);
    }
}

#[test]
fn what_waited_to_be_sent_is_forgotten_at_the_end() {
    let mut play = Play::open(V3, WebSocket);
    play.hears(WebSocket, "2");
    play.session.handle_close(CloseReason::ServerShuttingDown);
    assert_eq!(play.sent(), []);
}

#[test]
fn times_beyond_the_clock_are_cut() {
    let endless = SessionConfig {
        ping_interval: Duration::MAX,
        ping_timeout: Duration::MAX,
        upgrade_timeout: Duration::MAX,
    };
    for version in [V3, V4] {
        let mut play = Play::open(version, Polling);
        play.session = Session::new(version, Polling, play.now, &endless);
        play.session.handle_upgrade_opened(play.now, &endless).unwrap();
        play.session.handle_timeout(play.now + Duration::from_secs(1_000_000), &endless);
        play.is_quiet();
        assert!(play.wakes_at().unwrap() > 1_000_000_000);
    }
}

#[test]
fn reasons_have_the_reference_names() {
    for (reason, name) in [
        (CloseReason::PingTimeout, "ping timeout"),
        (CloseReason::TransportClose, "transport close"),
        (CloseReason::TransportError, "transport error"),
        (CloseReason::ParseError, "parse error"),
        (CloseReason::ForcedClose, "forced close"),
        (CloseReason::ForcedServerClose, "forced server close"),
        (CloseReason::ServerShuttingDown, "server shutting down"),
    ] {
        assert_eq!(reason.as_str(), name);
    }
}

/// A revision 4 client in small: knows when the server has been silent for too long.
struct Client {
    heard_at: Instant,
    patience: Duration,
}

/// Two machines wired together for ten minutes: the client answers, so neither side ever gives up.
#[test]
fn a_pair_that_answers_stays_together() {
    for delay_ms in [0, 40, 19_000] {
        let delay = Duration::from_millis(delay_ms);
        let mut play = Play::upgraded(V4);
        let mut client = Client { heard_at: play.now, patience: CONFIG.ping_interval + CONFIG.ping_timeout };
        let mut pongs: Vec<Instant> = Vec::new();
        let mut pings = 0;
        for ms in (0..600_000).step_by(25) {
            play.at(ms);
            if pongs.first().is_some_and(|&due| due <= play.now) {
                pongs.remove(0);
                play.hears(WebSocket, "3");
            }
            for (via, packet) in play.sent() {
                assert_eq!((via, packet.as_str()), (WebSocket, "2"));
                client.heard_at = play.now;
                pongs.push(play.now + delay);
                pings += 1;
            }
            assert_eq!(play.happened(), []);
            assert!(play.now < client.heard_at + client.patience);
        }
        assert!(pings >= 600_000 / (25_000 + delay_ms + 50), "{pings}");
    }
}
