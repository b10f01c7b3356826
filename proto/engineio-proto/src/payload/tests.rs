//! Rules that a table of bytes cannot show: bounds, time, the choice of a form. The bytes are in the vectors.

use super::*;
use crate::packet::Data;

fn wire(text: &str) -> WirePacket {
    WirePacket::Text(text.to_owned().into())
}

#[test]
fn the_form_follows_version_client_and_packets() {
    use PayloadForm::{V3Binary, V3Text, V4};
    use ProtocolVersion as Version;
    let text = [wire("40")];
    let binary = [wire("451-[]"), WirePacket::Binary("x".into())];
    for (version, base64, always_binary, packets, expected) in [
        (Version::V4, false, false, &binary[..], V4),
        (Version::V4, true, true, &binary, V4),
        (Version::V3, false, false, &text, V3Text),
        (Version::V3, false, false, &binary, V3Binary),
        (Version::V3, false, true, &text, V3Binary),
        (Version::V3, true, false, &binary, V3Text),
        (Version::V3, true, true, &binary, V3Text),
        (Version::V3, false, false, &[], V3Text),
        (Version::V3, false, true, &[], V3Binary),
    ] {
        assert_eq!(choose_form(version, base64, always_binary, packets), expected);
    }
    assert_eq!(V4.content_type(), "text/plain; charset=UTF-8");
    assert_eq!(V3Text.content_type(), "text/plain; charset=UTF-8");
    assert_eq!(V3Binary.content_type(), "application/octet-stream");
}

#[test]
fn a_body_beyond_the_limit_is_not_looked_at() {
    let limits = Limits { payload_bytes_max: 3, ..Limits::default() };
    for version in [ProtocolVersion::V3, ProtocolVersion::V4] {
        let decoded = decode(version, BodyForm::Text, b"2:40", &limits);
        assert_eq!(decoded.error, Some(PayloadError::TooLarge { got: 4, max: 3 }));
        assert_eq!(decoded.packets, []);
    }
    assert_eq!(decode(ProtocolVersion::V4, BodyForm::Text, b"42x", &limits).error, None);
}

#[test]
fn packets_are_counted_in_every_form() {
    let limits = Limits { packets_per_payload_max: 2, ..Limits::default() };
    let bodies: [(_, _, &[u8], usize); 3] = [
        (ProtocolVersion::V4, BodyForm::Text, b"2\x1e2\x1e2", 2),
        (ProtocolVersion::V3, BodyForm::Text, b"1:21:21:2", 0),
        (ProtocolVersion::V3, BodyForm::Octets, b"\0\x01\xff2\0\x01\xff2\0\x01\xff2", 0),
    ];
    for (version, form, body, kept) in bodies {
        let decoded = decode(version, form, body, &limits);
        assert_eq!(decoded.error, Some(PayloadError::TooManyPackets { max: 2 }));
        assert_eq!(decoded.packets.len(), kept);
    }
}

#[test]
fn a_decoded_packet_is_small() {
    assert!(size_of::<Packet<'_>>() <= 40, "{}", size_of::<Packet<'_>>());
}

#[test]
fn text_is_borrowed_from_the_body() {
    let bodies: [(_, _, &[u8]); 4] = [
        (ProtocolVersion::V4, BodyForm::Text, b"4a\x1e4b"),
        (ProtocolVersion::V3, BodyForm::Text, b"2:4a2:4b"),
        (ProtocolVersion::V3, BodyForm::Octets, b"\0\x02\xff4a\0\x02\xff4b"),
        (ProtocolVersion::V3, BodyForm::Octets, b"\x01\x02\xff\x04a\x01\x02\xff\x04b"),
    ];
    for (version, form, body) in bodies {
        let decoded = decode(version, form, body, &Limits::default());
        assert_eq!(decoded.packets.len(), 2);
        for packet in decoded.packets {
            assert!(match packet.data {
                Data::Text(text) => matches!(text, std::borrow::Cow::Borrowed(_)),
                Data::Binary(bytes) => matches!(bytes, std::borrow::Cow::Borrowed(_)),
            });
        }
    }
}

#[test]
fn the_largest_bodies_of_every_unkind_shape_come_to_an_end() {
    let repeat = |piece: &[u8]| piece.iter().copied().cycle().take(1_000_000).collect::<Vec<u8>>();
    for piece in [
        &b"0:"[..],
        b"1:4",
        b"2\x1e",
        b"9",
        b":",
        b"\x1e",
        b"\0",
        b"\0\x01\xff2",
        b"\x01\x01\xff\x04",
        b"b",
        b"4:4a\xf0\x9f\x98\x80",
    ] {
        for version in [ProtocolVersion::V3, ProtocolVersion::V4] {
            for form in [BodyForm::Text, BodyForm::Octets] {
                let body = repeat(piece);
                let decoded = decode(version, form, &body, &Limits::default());
                assert!(decoded.packets.len() <= Limits::default().packets_per_payload_max);
            }
        }
    }
}

#[test]
fn long_lengths_are_written_in_full() {
    let long = wire(&format!("4{}", "é".repeat(60_000)));
    let body = encode(PayloadForm::V3Text, std::slice::from_ref(&long));
    assert!(body.starts_with(b"60001:4"));
    let body = encode(PayloadForm::V3Binary, &[long]);
    assert!(body.starts_with(&[0, 1, 2, 0, 0, 0, 1, 0xff, b'4']));
}
