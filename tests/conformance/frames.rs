//! WebSocket framing at the byte level: what is taken, what is refused and with which close code.

use crate::wire::websocket::{frame, frame_header, masked_frame};
use crate::wire::{RawWebSocket, Request, Server};

/// Writes these bytes on a fresh session and expects the server to close with this code.
async fn check_closes(what: &str, bytes: &[u8], code: u16) {
    let server = Server::engineio(&[]);
    let mut socket = server.raw_websocket("EIO=4").await;
    socket.write(bytes).await;
    socket.expect_close(what, Some(code)).await;
}

/// Writes these bytes and expects the echo program to answer with this text.
async fn check_echo(what: &str, bytes: &[u8], text: &str) {
    let server = Server::engineio(&[]);
    let mut socket = server.raw_websocket("EIO=4").await;
    socket.write(bytes).await;
    let (first, payload) = socket.frame().await;
    assert_eq!((first, String::from_utf8_lossy(&payload).as_ref()), (0x81, text), "{what}");
}

#[tokio::test]
async fn pings_are_answered_with_their_payload_at_any_time() {
    for version in ["EIO=4", "EIO=3"] {
        let server = Server::engineio(&[]);
        let mut socket = server.raw_websocket(version).await;
        for payload in [&b""[..], b"hb", &[0xff; 125]] {
            socket.write(&frame(0x89, payload)).await;
            assert_eq!(socket.frame().await, (0x8a, payload.to_vec()));
        }
    }
}

#[tokio::test]
async fn pings_between_fragments_are_answered_at_once() {
    let server = Server::engineio(&[]);
    let mut socket = server.raw_websocket("EIO=4").await;
    socket.write(&frame(0x01, b"4hel")).await;
    socket.write(&frame(0x89, b"now")).await;
    assert_eq!(socket.frame().await, (0x8a, b"now".to_vec()));
    socket.write(&frame(0x80, b"lo")).await;
    assert_eq!(socket.frame().await, (0x81, b"4hello".to_vec()));
}

#[tokio::test]
async fn unsolicited_pongs_are_ignored() {
    let bytes = [frame(0x8a, b"whatever"), frame(0x81, b"4hello")].concat();
    check_echo("a pong", &bytes, "4hello").await;
}

#[tokio::test]
async fn fragments_are_put_together() {
    check_echo("two", &[frame(0x01, b"4"), frame(0x80, b"0")].concat(), "40").await;
    let empty = [frame(0x01, b""), frame(0x00, b""), frame(0x00, b"4hello"), frame(0x80, b"")].concat();
    check_echo("with empty ones", &empty, "4hello").await;
    let euro = "€".as_bytes();
    let cut = [frame(0x01, &[b"4", &euro[..1]].concat()), frame(0x80, &euro[1..])].concat();
    check_echo("cut inside a character", &cut, "4€").await;
}

#[tokio::test]
async fn frames_may_arrive_byte_by_byte() {
    let server = Server::engineio(&[]);
    let mut socket = server.raw_websocket("EIO=4").await;
    let long = format!("4{}", "é".repeat(200));
    for byte in [frame(0x81, b"4hello"), frame(0x81, long.as_bytes())].concat() {
        socket.write(&[byte]).await;
    }
    assert_eq!(socket.frame().await, (0x81, b"4hello".to_vec()));
    assert_eq!(socket.frame().await, (0x81, long.into_bytes()));
}

#[tokio::test]
async fn many_frames_may_arrive_in_one_segment() {
    let server = Server::engineio(&[]);
    let mut socket = server.raw_websocket("EIO=4").await;
    let bytes: Vec<u8> = (0..500).flat_map(|index| frame(0x81, format!("4{index}").as_bytes())).collect();
    socket.write(&bytes).await;
    for index in 0..500 {
        assert_eq!(socket.frame().await, (0x81, format!("4{index}").into_bytes()));
    }
}

#[tokio::test]
async fn frames_may_follow_the_handshake_in_the_same_segment() {
    let server = Server::engineio(&[]);
    let mut connection = server.connect().await;
    let request = Request::websocket(&server.target("EIO=4&transport=websocket"));
    connection.write(&[request.bytes(server.port()), frame(0x81, b"4early")].concat()).await;
    assert_eq!(connection.reply().await.status, 101);
    let (mut stream, mut unread) = connection.into_parts();
    while !unread.windows(6).any(|window| window == b"4early") {
        let more = tokio::io::AsyncReadExt::read_buf(&mut stream, &mut unread).await.expect("bytes");
        assert_ne!(more, 0, "{}", String::from_utf8_lossy(&unread));
    }
}

#[tokio::test]
async fn any_mask_will_do() {
    for mask in [[0; 4], [0xff; 4], [1, 2, 3, 4]] {
        check_echo("a mask", &masked_frame(0x81, b"4hello", mask), "4hello").await;
    }
}

#[tokio::test]
async fn lengths_of_every_form() {
    for length in [125, 126, 127, 65_535, 65_536, 100_000] {
        let text = format!("4{}", "x".repeat(length - 1));
        check_echo("a length", &frame(0x81, text.as_bytes()), &text).await;
    }
}

#[tokio::test]
async fn unmasked_frames_are_refused() {
    check_closes("an unmasked text", &[0x81, 6, b'4', b'h', b'e', b'l', b'l', b'o'], 1002).await;
    check_closes("an unmasked ping", &[0x89, 0], 1002).await;
}

#[tokio::test]
async fn malformed_frames_are_refused() {
    check_closes("a reserved bit", &frame(0xc1, b"4hello"), 1002).await;
    check_closes("a reserved data opcode", &frame(0x83, b"4hello"), 1002).await;
    check_closes("a reserved control opcode", &frame(0x8b, b""), 1002).await;
    check_closes("a fragmented ping", &frame(0x09, b"hb"), 1002).await;
    check_closes("a long ping", &frame(0x89, &[0; 126]), 1002).await;
    check_closes("a stray continuation", &frame(0x80, b"lo"), 1002).await;
    check_closes("a text inside a text", &[frame(0x01, b"4a"), frame(0x81, b"4b")].concat(), 1002).await;
}

#[tokio::test]
async fn text_that_is_not_utf8_is_refused() {
    for text in [&b"4\xff"[..], b"4\xc3", b"4\xed\xa0\x80", b"4\xf4\x90\x80\x80", b"4\xc0\xaf"] {
        check_closes("bad UTF-8", &frame(0x81, text), 1007).await;
    }
    check_closes("bad UTF-8 in pieces", &[frame(0x01, b"4\xc3"), frame(0x80, b"a")].concat(), 1007).await;
}

#[tokio::test]
async fn messages_above_the_limit_are_refused_by_their_header_alone() {
    let header = |first: u8, length: usize| [frame_header(first, length), vec![0; 4]].concat();
    check_closes("one frame", &header(0x81, 1_000_001), 1009).await;
    check_closes("an absurd length", &header(0x81, usize::MAX >> 1), 1009).await;
    let pieces = [frame(0x01, &[b'4'; 600_000]), header(0x80, 400_001)].concat();
    check_closes("the sum of fragments", &pieces, 1009).await;
}

#[tokio::test]
async fn message_at_the_limit_is_taken() {
    let text = format!("4{}", "x".repeat(999_999));
    check_echo("1,000,000 bytes", &frame(0x81, text.as_bytes()), &text).await;
}

#[tokio::test]
async fn close_is_echoed() {
    for (payload, code) in
        [(&b""[..], None), (&1000_u16.to_be_bytes(), Some(1000)), (b"\x0f\xa0bye", Some(4000))]
    {
        let server = Server::engineio(&[]);
        let mut socket = server.raw_websocket("EIO=4").await;
        socket.write(&frame(0x88, payload)).await;
        socket.expect_close("a close frame", code).await;
    }
}

#[tokio::test]
async fn malformed_close_frames_are_refused() {
    check_closes("one byte", &frame(0x88, &[3]), 1002).await;
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        check_closes(&format!("code {code}"), &frame(0x88, &code.to_be_bytes()), 1002).await;
    }
    check_closes("a reason that is not UTF-8", &frame(0x88, b"\x03\xe8\xff"), 1007).await;
}

#[tokio::test]
async fn packets_that_are_none_close_without_a_code() {
    let server = Server::engineio(&[]);
    for (version, bytes) in [
        ("EIO=4", frame(0x81, b"Hello")),
        ("EIO=4", frame(0x81, b"")),
        ("EIO=4", frame(0x81, b"9")),
        ("EIO=3", frame(0x81, b"Hello")),
    ] {
        let mut socket = server.raw_websocket(version).await;
        socket.write(&bytes).await;
        socket.expect_close(&format!("{version} {bytes:02x?}"), None).await;
    }
}

#[tokio::test]
async fn control_packets_without_meaning_are_ignored() {
    let server = Server::engineio(&[]);
    let mut socket = server.raw_websocket("EIO=4").await;
    for packet in ["0", "1", "5", "6", "3", "4still here"] {
        socket.text(packet).await;
    }
    assert_eq!(socket.frame().await, (0x81, b"4still here".to_vec()));
}

#[tokio::test]
async fn base64_sessions_take_and_get_text_only() {
    let server = Server::engineio(&[]);
    for (version, packet) in [("EIO=4&b64=1", "bAQID"), ("EIO=3&b64=1", "b4AQID")] {
        let mut socket = server.raw_websocket(version).await;
        socket.text(packet).await;
        assert_eq!(socket.frame().await, (0x81, packet.as_bytes().to_vec()));
    }
    let mut socket = server.raw_websocket("EIO=4&b64=1").await;
    socket.write(&frame(0x82, &[1, 2, 3])).await;
    assert_eq!(socket.frame().await, (0x81, b"bAQID".to_vec()));
    let mut socket = server.raw_websocket("EIO=4").await;
    socket.text("bAQID").await;
    assert_eq!(socket.frame().await, (0x82, vec![1, 2, 3]));
}

#[tokio::test]
async fn plain_echo_endpoint_returns_every_message() {
    let server = Server::socketio(&[]);
    let mut socket = RawWebSocket::open(&server, Request::websocket("/echo")).await;
    for (first, payload) in [(0x81, &b"Hello, World"[..]), (0x82, &[0, 255]), (0x81, b"")] {
        socket.write(&frame(first, payload)).await;
        assert_eq!(socket.frame().await, (first, payload.to_vec()));
    }
    socket.write(&frame(0x89, b"hb")).await;
    assert_eq!(socket.frame().await, (0x8a, b"hb".to_vec()));
    socket.write(&frame(0x88, &1000_u16.to_be_bytes())).await;
    socket.expect_close("a close frame", Some(1000)).await;
}
