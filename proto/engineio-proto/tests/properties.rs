//! What holds for any input: nothing panics, nothing grows beyond its bound, and what we write we can read.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed property")]

use std::time::{Duration, Instant};

use engineio_proto::handshake::Query;
use engineio_proto::payload::{self, BodyForm, PayloadForm, jsonp};
use engineio_proto::session::{CloseReason, SessionConfig, SessionEvent, Verdict};
use engineio_proto::{Data, Limits, Packet, PacketType, ProtocolVersion, Session, TransportKind, WirePacket};
use proptest::collection::vec;
use proptest::prelude::*;

fn versions() -> impl Strategy<Value = ProtocolVersion> {
    prop_oneof![Just(ProtocolVersion::V3), Just(ProtocolVersion::V4)]
}

fn transports() -> impl Strategy<Value = TransportKind> {
    prop_oneof![Just(TransportKind::Polling), Just(TransportKind::WebSocket)]
}

fn packet_types() -> impl Strategy<Value = PacketType> {
    (0..7_u8).prop_map(|value| PacketType::from_value(value).unwrap())
}

/// Any packet a server may send. No record separator in texts: revision 4 payloads cannot carry it.
fn wire_packets() -> impl Strategy<Value = WirePacket> {
    prop_oneof![
        (packet_types(), ".*").prop_map(|(packet_type, text)| {
            let text = text.replace('\u{1e}', "");
            WirePacket::Text(format!("{}{text}", char::from(packet_type.digit())).into())
        }),
        vec(any::<u8>(), 0..200).prop_map(|bytes| WirePacket::Binary(bytes.into())),
    ]
}

/// Bodies that look enough like payloads to get deep into the decoders.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\x1e".to_vec()),
        Just(b"\xff".to_vec()),
        Just(b":".to_vec()),
        Just(b"b4".to_vec()),
        Just("😀é".as_bytes().to_vec()),
        (0..40_u32).prop_map(|length| length.to_string().into_bytes()),
        vec(0..10_u8, 0..4),
        vec(any::<u8>(), 0..6),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn assert_same(packet: &Packet<'_>, wire: &WirePacket) {
    match (&packet.data, wire) {
        (Data::Text(text), WirePacket::Text(bytes)) => {
            assert_eq!(bytes.split_first().unwrap(), (&packet.packet_type.digit(), text.as_bytes()));
        }
        (Data::Binary(data), WirePacket::Binary(bytes)) => {
            assert_eq!((packet.packet_type, &data[..]), (PacketType::Message, &bytes[..]));
        }
        other => panic!("text and binary mixed up: {other:?}"),
    }
}

proptest! {
    #[test]
    fn what_is_encoded_can_be_decoded(packets in vec(wire_packets(), 0..20)) {
        for (form, version, label) in [
            (PayloadForm::V4, ProtocolVersion::V4, BodyForm::Text),
            (PayloadForm::V3Text, ProtocolVersion::V3, BodyForm::Text),
            (PayloadForm::V3Binary, ProtocolVersion::V3, BodyForm::Octets),
        ] {
            if form == PayloadForm::V4 && packets.is_empty() {
                continue;
            }
            let body = payload::encode(form, &packets);
            let decoded = payload::decode(version, label, &body, &Limits::default());
            prop_assert_eq!(decoded.error, None);
            prop_assert_eq!(decoded.packets.len(), packets.len());
            for (packet, wire) in decoded.packets.iter().zip(&packets) {
                assert_same(packet, wire);
            }
        }
    }

    #[test]
    fn a_frame_reads_back(wire in wire_packets(), version in versions(), base64: bool) {
        let frame = wire.frame(version, base64);
        let content: Vec<u8> = frame.prefix.into_iter().chain(frame.payload.iter().copied()).collect();
        prop_assert_eq!(content.len(), frame.len());
        let packet = match frame.kind {
            engineio_proto::packet::FrameKind::Text => {
                Packet::decode_text_frame(version, std::str::from_utf8(&content).unwrap())
            }
            engineio_proto::packet::FrameKind::Binary => Packet::decode_binary_frame(version, &content),
        };
        assert_same(&packet.unwrap(), &wire);
    }

    #[test]
    fn any_body_is_decoded_or_refused(body in bodies(), version in versions(), octets: bool, max in 0..10_usize) {
        let label = if octets { BodyForm::Octets } else { BodyForm::Text };
        let limits = Limits { payload_bytes_max: 1_000, packets_per_payload_max: max };
        let decoded = payload::decode(version, label, &body, &limits);
        prop_assert!(decoded.packets.len() <= max);
        if version == ProtocolVersion::V3 && decoded.error.is_some() {
            prop_assert!(decoded.packets.is_empty());
        }
        let held: usize = decoded.packets.iter().map(|packet| packet.data.as_bytes().len()).sum();
        prop_assert!(held <= body.len());
    }

    #[test]
    fn any_frame_is_decoded_or_refused(frame: Vec<u8>, text: String, version in versions()) {
        let _ = Packet::decode_binary_frame(version, &frame);
        let _ = Packet::decode_text_frame(version, &text);
        let _ = Packet::decode_text_frame(version, &format!("b4{text}"));
    }

    #[test]
    fn any_form_and_query_are_read(raw: Vec<u8>, query in "[a-zA-Z0-9%+&=é€]{0,80}", j: String) {
        if let Some(payload) = jsonp::decode_form(&raw) {
            prop_assert!(payload.len() <= raw.len() * 3);
        }
        let parsed = Query::parse(&query);
        prop_assert!(parsed.sid.is_none_or(|sid| !sid.is_empty() && sid.len() <= 128));
        prop_assert!(jsonp::index(&j).bytes().all(|byte| byte.is_ascii_digit()));
    }

    #[test]
    fn a_script_argument_is_json_and_holds_the_payload(payload: String, j: String) {
        let index = jsonp::index(&j);
        let script = jsonp::encode(&index, &payload);
        let argument = script.strip_prefix(&format!("___eio[{index}](")).unwrap().strip_suffix(");").unwrap();
        let ends_a_line = |c: char| ['\u{2028}', '\u{2029}', '\n', '\r'].contains(&c);
        prop_assert_eq!(argument.find(ends_a_line), None);
        prop_assert_eq!(serde_json::from_str::<String>(argument).unwrap(), payload);
    }

    #[test]
    fn any_history_of_a_session_ends_at_most_once(
        version in versions(),
        opened_by in transports(),
        steps in vec(steps(), 0..60),
    ) {
        let mut history = History::new(version, opened_by);
        for step in steps {
            history.play(step);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Packet(TransportKind, PacketType, bool),
    Wait(u64),
    UpgradeOpened,
    UpgradeClosed,
    TransportClosed,
    Close,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (transports(), packet_types(), any::<bool>()).prop_map(|(via, kind, probe)| Step::Packet(via, kind, probe)),
        8 => (0..600_u64).prop_map(Step::Wait),
        6 => Just(Step::UpgradeOpened),
        2 => Just(Step::UpgradeClosed),
        1 => Just(Step::TransportClosed),
        1 => Just(Step::Close),
    ]
}

/// A session and what a caller must always find true of it.
struct History {
    session: Session,
    now: Instant,
    closed: u32,
}

const CONFIG: SessionConfig = SessionConfig {
    ping_interval: Duration::from_millis(300),
    ping_timeout: Duration::from_millis(200),
    upgrade_timeout: Duration::from_millis(500),
};

impl History {
    #[allow(clippy::disallowed_methods, reason = "a machine test needs some moment to start from")]
    fn new(version: ProtocolVersion, transport: TransportKind) -> Self {
        let now = Instant::now();
        Self { session: Session::new(version, transport, now, &CONFIG), now, closed: 0 }
    }

    fn play(&mut self, step: Step) {
        let was_closed = self.session.is_closed();
        match step {
            Step::Packet(via, packet_type, probe) => {
                let data = Data::Text(if probe { "probe".into() } else { "".into() });
                let packet = Packet { packet_type, data };
                let current = self.session.transport();
                match self.session.handle_packet(self.now, via, &packet, &CONFIG) {
                    Ok(Verdict::Deliver) => {
                        assert!(!was_closed && via == current && packet_type == PacketType::Message);
                    }
                    Ok(Verdict::Done) => {}
                    Err(_) => assert!(!was_closed && self.session.is_closed()),
                }
            }
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.session.handle_timeout(self.now, &CONFIG);
                assert!(self.session.poll_timeout().is_none_or(|at| at > self.now));
            }
            Step::UpgradeOpened => {
                let was_upgrading = self.session.is_upgrading();
                let polling = self.session.transport() == TransportKind::Polling;
                let outcome = self.session.handle_upgrade_opened(self.now, &CONFIG);
                assert_eq!(outcome.is_ok(), !was_closed && !was_upgrading && polling);
            }
            Step::UpgradeClosed => self.session.handle_upgrade_closed(),
            Step::TransportClosed => self.session.handle_transport_closed(CloseReason::TransportError),
            Step::Close => self.session.handle_close(CloseReason::ForcedClose),
        }
        self.drain();
    }

    fn drain(&mut self) {
        let mut drained = 0;
        while let Some((_, packet)) = self.session.poll_transmit() {
            assert!(!self.session.is_closed(), "{packet:?} after the end");
            drained += 1;
        }
        while let Some(event) = self.session.poll_event() {
            assert_eq!(self.closed, 0, "{event:?} after the end");
            self.closed += u32::from(matches!(event, SessionEvent::Closed(_)));
            drained += 1;
        }
        assert!(drained <= 6);
        assert_eq!(self.closed > 0, self.session.is_closed());
        assert_eq!(self.session.poll_timeout().is_none(), self.session.is_closed());
    }
}
