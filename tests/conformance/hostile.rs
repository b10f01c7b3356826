//! Clients that mean harm, or are merely broken: each costs the server nothing but its own connection.

use std::time::{Duration, Instant};

use crate::wire::websocket::{frame, frame_header};
use crate::wire::{DEADLINE, RawWebSocket, Request, Server, soon};

/// Resident memory of the server in KiB.
fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The server still serves somebody else.
async fn check_alive(server: &Server) {
    let (mut socket, _) = server.socket().await;
    socket.send(r#"42["message","alive"]"#).await;
    socket.expect(&[r#"42["message-back","alive"]"#]).await;
}

#[tokio::test]
async fn request_heads_that_never_end_are_cut_off() {
    let server = Server::socketio(&["edge.limits.http_headers_timeout_ms=300"]);
    let mut slow = server.connect().await;
    slow.write(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\n").await;
    let since = Instant::now();
    let dripping = async {
        while slow.try_write(b"X-A: b\r\n").await && since.elapsed() < DEADLINE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the connection is cut", dripping).await;
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    check_alive(&server).await;
}

#[tokio::test]
async fn connections_that_say_nothing_are_cut_off() {
    let server = Server::socketio(&["edge.limits.http_headers_timeout_ms=300"]);
    let mut silent = server.connect().await;
    silent.end().await;
    check_alive(&server).await;
}

#[tokio::test]
async fn request_bodies_that_never_end_are_cut_off() {
    let server = Server::socketio(&["edge.limits.http_body_timeout_ms=300"]);
    let session = server.polling("EIO=4").await;
    let mut slow = server.connect().await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: 100\r\n\r\n40",
        server.target(&session.query()),
        server.port()
    );
    slow.write(head.as_bytes()).await;
    assert!(slow.reply_or_end().await.is_none_or(|reply| reply.status >= 400));
    check_alive(&server).await;
}

#[tokio::test]
async fn giant_heads_are_refused() {
    let server = Server::socketio(&[]);
    let target = server.target("EIO=4&transport=polling");
    let huge = "x".repeat(1 << 20);
    for request in [
        Request::get(&target).header("X-Huge", &huge),
        Request::get(&format!("{target}&huge={huge}")),
        Request::websocket(&format!("{target}&huge={huge}")),
    ] {
        let mut connection = server.connect().await;
        connection.try_write(&request.bytes(server.port())).await;
        let reply = connection.reply_or_end().await;
        assert!(reply.as_ref().is_none_or(|reply| (400..500).contains(&reply.status)), "{reply:?}");
    }
    check_alive(&server).await;
}

#[tokio::test]
async fn many_headers_are_refused_or_ignored() {
    let server = Server::socketio(&[]);
    let mut request = Request::get(&server.target("EIO=4&transport=polling"));
    for index in 0..2000 {
        request = request.header(&format!("X-{index}"), "1");
    }
    let mut connection = server.connect().await;
    connection.try_write(&request.bytes(server.port())).await;
    connection.reply_or_end().await;
    check_alive(&server).await;
}

#[tokio::test]
async fn garbage_instead_of_http_is_refused() {
    let server = Server::socketio(&[]);
    let cases: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /socket.io/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /socket.io/ HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    ];
    for bytes in cases {
        let mut connection = server.connect().await;
        connection.try_write(bytes).await;
        let reply = connection.reply_or_end().await;
        assert!(reply.as_ref().is_none_or(|reply| reply.status >= 400), "{reply:?}");
    }
    check_alive(&server).await;
}

#[tokio::test]
async fn smuggled_lengths_are_refused() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=4").await;
    let target = server.target(&session.query());
    for headers in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 6\r\nContent-Length: 7\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
    ] {
        let mut connection = server.connect().await;
        let head = format!("POST {target} HTTP/1.1\r\nHost: localhost:{}\r\n{headers}\r\n", server.port());
        connection.try_write(head.as_bytes()).await;
        connection.try_write(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n").await;
        if let Some(reply) = connection.reply_or_end().await {
            assert!(reply.status == 400 || reply.status == 200, "{headers}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn announced_post_above_the_limit_is_refused_before_its_body() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    let mut connection = server.connect().await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: 4000000000\r\n\r\n",
        server.target(&session.query()),
        server.port()
    );
    connection.write(head.as_bytes()).await;
    assert_eq!(connection.reply().await.status, 413);
    session.join().await;
}

#[tokio::test]
async fn request_in_single_bytes_is_understood() {
    let server = Server::socketio(&[]);
    let mut connection = server.connect().await;
    for byte in Request::get(&server.target("EIO=4&transport=polling")).bytes(server.port()) {
        connection.write(&[byte]).await;
    }
    assert_eq!(connection.reply().await.status, 200);
}

#[tokio::test]
async fn ten_thousand_packets_in_one_post() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    let body = [r#"42["nobody listens"]"#; 10_000].join("\x1e");
    session.post(body).await.expect(200, "ok");
    session.send(&[r#"42["message",1]"#]).await;
    session.poll().await.expect(200, r#"42["message-back",1]"#);
}

#[tokio::test]
async fn a_hundred_thousand_packets_of_one_byte_in_one_post() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=4").await;
    let before = resident_kib(&server);
    session.post("6\x1e".repeat(99_999) + "6").await.expect(200, "ok");
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB for a body of 200 kB");
    session.send(&["4alive"]).await;
    session.poll().await.expect(200, "4alive");
}

#[tokio::test]
async fn answers_that_nobody_polls_for_close_the_session() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    let event = format!(r#"42["message","{}"]"#, "x".repeat(900_000));
    let mut status = 200;
    for _ in 0..12 {
        status = session.post(event.as_str()).await.status;
        if status != 200 {
            break;
        }
    }
    assert_eq!(status, 400, "over 4 MiB wait for a client that never polls");
    check_alive(&server).await;
}

#[tokio::test]
async fn attachments_that_never_come_hold_little() {
    let server = Server::socketio(&[]);
    let before = resident_kib(&server);
    let mut sockets = Vec::new();
    for _ in 0..50 {
        let (mut socket, _) = server.socket().await;
        socket.send(r#"4510-["message",{"_placeholder":true,"num":0}]"#).await;
        sockets.push(socket);
    }
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB for 50 unfinished packets");
    check_alive(&server).await;
}

#[tokio::test]
async fn attachments_above_the_packet_limit_close() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    let placeholders: Vec<_> = (0..10).map(|num| format!(r#"{{"_placeholder":true,"num":{num}}}"#)).collect();
    socket.send(&format!(r#"4510-["message",{}]"#, placeholders.join(","))).await;
    let attachment = vec![7; 900_000];
    for _ in 0..10 {
        if !socket.try_send_binary(&attachment).await {
            break;
        }
    }
    assert!(socket.is_over().await, "9 MB in one packet were taken");
    check_alive(&server).await;
}

#[tokio::test]
async fn namespaces_above_the_limit_are_refused() {
    let server = Server::socketio(&["edge.namespaces=/,/n-*"]);
    let (mut socket, _) = server.socket().await;
    for index in 1..16 {
        socket.join(&format!("/n-{index}")).await;
    }
    socket.send("40/n-16,").await;
    let refusal = socket.text().await;
    assert!(refusal.starts_with(r#"44/n-16,{"message":""#), "{refusal}");
    socket.send("41/n-1,").await;
    socket.join("/n-16").await;
}

#[tokio::test]
async fn rooms_above_the_limit_are_not_joined() {
    let server = Server::socketio(&["edge.limits.rooms_per_socket_max=10"]);
    let (mut socket, sid) = server.socket().await;
    for index in 0..30 {
        socket.send(&format!(r#"42["join","room {index}"]"#)).await;
    }
    socket.send(r#"421["my_rooms"]"#).await;
    let reply = soon("the list of rooms", async {
        loop {
            let text = socket.text().await;
            if text.starts_with("431[") {
                return text;
            }
        }
    });
    let rooms = crate::wire::server::json_after(&reply.await, 3);
    // The room that is the socket's own id is not counted.
    let names = rooms[0].as_array().expect("a list");
    let expected: Vec<_> = [sid].into_iter().chain((0..10).map(|index| format!("room {index}"))).collect();
    assert_eq!(names, &expected);
    check_alive(&server).await;
}

#[tokio::test]
async fn pending_acks_above_the_limit_close_or_are_dropped() {
    let server = Server::socketio(&["edge.limits.acks_pending_max=10"]);
    let (mut socket, _) = server.socket().await;
    for _ in 0..100 {
        if !socket.try_send(r#"42["emit-with-ack",1]"#).await {
            break;
        }
    }
    let with_ack = soon("an end to the questions", async {
        let mut with_ack = 0;
        socket.try_send(r#"42["message","last"]"#).await;
        while let Some(text) = socket.text_or_end().await {
            if text == r#"42["message-back","last"]"# {
                break;
            }
            with_ack +=
                usize::from(text.ends_with(r#"["emit-with-ack",1]"#) && text.as_bytes()[2].is_ascii_digit());
        }
        with_ack
    });
    assert!(with_ack.await <= 10);
    check_alive(&server).await;
}

#[tokio::test]
async fn client_that_does_not_read_is_closed_and_others_go_on() {
    let server = Server::socketio(&[
        "edge.limits.outbox_bytes_max=2000000",
        "edge.limits.outbox_stalled_bytes_max=500000",
        "edge.limits.outbox_stalled_ms=300",
    ]);
    let mut stuck = server.raw_websocket("EIO=4").await;
    stuck.text("40").await;
    stuck.text(r#"421["join","victims"]"#).await;
    while stuck.frame().await.1 != b"431[true]" {}
    let (mut sender, _) = server.socket().await;
    let (mut reader, _) = server.socket().await;
    reader.send(r#"421["join","victims"]"#).await;
    reader.expect(&["431[true]"]).await;
    let payload = "x".repeat(100_000);
    let event = format!(r#"421["say","victims","data","{payload}"]"#);
    // Far more than its outbox and the kernel's buffers can hold.
    for _ in 0..150 {
        sender.send(&event).await;
        sender.expect(&["431[true]"]).await;
        assert_eq!(reader.text().await.len(), payload.len() + r#"42["data",""]"#.len());
    }
    let ending = async {
        let mut bytes = 0;
        while let Some((_, payload)) = stuck.frame_or_end().await {
            bytes += payload.len();
        }
        bytes
    };
    let received = soon("the client that does not read is closed", ending).await;
    assert!(received < 150 * payload.len(), "{received} bytes were kept for it");
    let kib = resident_kib(&server);
    assert!(kib < 64 << 10, "{kib} KiB");
    check_alive(&server).await;
}

#[tokio::test]
async fn unfinished_frames_hold_what_has_arrived_and_no_more() {
    let server = Server::socketio(&[]);
    let before = resident_kib(&server);
    let mut sockets = Vec::new();
    for _ in 0..100 {
        let mut socket = server.raw_websocket("EIO=4").await;
        socket.write(&frame_header(0x81, 1_000_000)).await;
        socket.write(&[0; 100]).await;
        sockets.push(socket);
    }
    server.settle().await;
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB for announced lengths");
}

#[tokio::test]
async fn floods_of_empty_fragments_hold_nothing() {
    let server = Server::socketio(&[]);
    let mut socket = server.raw_websocket("EIO=4").await;
    let before = resident_kib(&server);
    let mut flood = frame(0x01, b"");
    for _ in 0..50_000 {
        flood.extend(frame(0x00, b""));
    }
    socket.write(&flood).await;
    socket.write(&frame(0x89, b"still there")).await;
    assert_eq!(socket.frame().await, (0x8a, b"still there".to_vec()));
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 4 << 10, "{grown} KiB");
}

#[tokio::test]
async fn floods_of_pings_from_a_client_that_does_not_read_are_bounded() {
    let server = Server::socketio(&["edge.limits.outbox_stalled_ms=300"]);
    let mut socket = server.raw_websocket("EIO=4").await;
    let ping = frame(0x89, &[7; 125]);
    let burst = ping.repeat(500);
    let since = Instant::now();
    // The client never reads; the server either stops reading from it or closes.
    while since.elapsed() < Duration::from_secs(2) {
        match tokio::time::timeout(Duration::from_millis(500), socket.try_write(&burst)).await {
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
    }
    let kib = resident_kib(&server);
    assert!(kib < 64 << 10, "{kib} KiB");
    check_alive(&server).await;
}

#[tokio::test]
async fn connections_that_come_and_go_leave_no_memory_behind() {
    let server = Server::socketio(&[]);
    let wave = async || {
        for _ in 0..100 {
            let (mut socket, _) = server.socket().await;
            socket.send(r#"42["join","room"]"#).await;
            let half =
                RawWebSocket::open(&server, Request::websocket(&server.target("EIO=4&transport=websocket")));
            drop(half.await);
            let session = server.polling("EIO=4").await;
            session.send(&["1"]).await;
        }
    };
    wave().await;
    let before = resident_kib(&server);
    wave().await;
    wave().await;
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 4 << 10, "{grown} KiB after 600 connections");
}

#[tokio::test]
async fn session_ids_do_not_repeat() {
    let server = Server::socketio(&[]);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..200 {
        assert!(seen.insert(server.polling("EIO=4").await.sid));
    }
}
