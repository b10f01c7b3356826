//! Long-polling: what a POST and a poll are answered with, and what ends a session.

use std::io::Read;

use crate::wire::{DEADLINE, Request, Server, not_within};

/// A POST with this body is taken, and then the session is gone.
async fn check_post_closes(version: &str, body: &[u8]) {
    let server = Server::engineio(&[]);
    let session = server.polling(version).await;
    session.post(body).await.expect(200, "ok");
    session.expect_gone().await;
}

#[tokio::test]
async fn post_is_answered_with_ok() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    let reply = session.post("40").await;
    reply.expect(200, "ok");
    assert_eq!(reply.header("content-type"), Some("text/html"));
    assert_eq!(reply.header("content-length"), Some("2"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn poll_is_parked_until_there_is_a_packet() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    let mut parked = session.park().await;
    session.send(&[r#"42["message",1]"#]).await;
    let reply = parked.reply().await;
    reply.expect(200, r#"42["message-back",1]"#);
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn ping_of_version_3_releases_the_parked_poll() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=3").await;
    session.packets_until(2 - session.early.len()).await;
    let mut parked = session.park().await;
    session.send(&["2"]).await;
    parked.reply().await.expect(200, "1:3");
}

/// A joined client parks a poll and posts these packets, which nothing answers. The poll stays parked: it is the one
/// that begins with the answer to something later.
async fn check_poll_stays(version: &str, unanswered: &[&str], later: &str, answer: &str) {
    let server = Server::socketio(&[]);
    let session = server.polling(version).await;
    if version == "EIO=4" {
        session.join().await;
    } else {
        session.packets_until(2 - session.early.len()).await;
    }
    let mut parked = session.park().await;
    session.send(unanswered).await;
    session.send(&[later]).await;
    let reply = parked.reply().await;
    assert!(reply.status == 200 && reply.text().starts_with(answer), "{unanswered:?}: {reply:?}");
}

#[tokio::test]
async fn parked_poll_outlasts_events_without_an_answer() {
    for unanswered in [r#"42["nobody listens",1]"#, r#"42["join","room"]"#, "439[1]"] {
        let (later, answer) = (r#"42["message",1]"#, r#"42["message-back",1]"#);
        check_poll_stays("EIO=4", &[unanswered], later, answer).await;
        check_poll_stays("EIO=3", &[unanswered, unanswered], later, &format!("20:{answer}")).await;
    }
}

#[tokio::test]
async fn parked_poll_outlasts_leaving() {
    check_poll_stays("EIO=4", &["41"], "40", r#"40{"sid":""#).await;
    check_poll_stays("EIO=3", &["41"], "2", "1:3").await;
}

#[tokio::test]
async fn second_poll_closes_the_session() {
    for (version, close) in [("EIO=4", "1"), ("EIO=3", "1:1")] {
        let server = Server::engineio(&[]);
        let session = server.polling(version).await;
        let mut first = session.park().await;
        session.poll().await.expect(400, "");
        first.reply().await.expect(200, close);
        session.expect_gone().await;
    }
}

#[tokio::test]
async fn second_post_closes_the_session() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    let mut first = server.connect().await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: 100\r\n\r\n40",
        server.target(&session.query()),
        server.port()
    );
    first.write(head.as_bytes()).await;
    server.settle().await;
    session.post("40").await.expect(400, "");
    session.expect_gone().await;
}

#[tokio::test]
async fn cancelled_poll_closes_the_session() {
    for version in ["EIO=4", "EIO=3"] {
        let server = Server::engineio(&[]);
        let session = server.polling(version).await;
        drop(session.park().await);
        session.ends().await;
    }
}

#[tokio::test]
async fn poll_whose_client_leaves_at_once_closes_the_session() {
    let server = Server::engineio(&[]);
    for _ in 0..20 {
        let session = server.polling("EIO=4").await;
        drop(server.start(Request::get(&server.target(&session.query()))).await);
        session.ends().await;
    }
}

#[tokio::test]
async fn cancelled_post_closes_the_session_or_leaves_it_whole() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: 100\r\n\r\n40",
        server.target(&session.query()),
        server.port()
    );
    let mut connection = server.connect().await;
    connection.write(head.as_bytes()).await;
    drop(connection);
    server.settle().await;
    match session.post("40").await.status {
        200 => assert!(session.packets().await[0].starts_with("40{")),
        status => assert_eq!(status, 400),
    }
}

#[tokio::test]
async fn close_packet_ends_the_session_and_what_follows_it_is_ignored() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    let mut parked = session.park().await;
    session.send(&["1", r#"42["message",1]"#]).await;
    parked.reply().await.expect(200, "6");
    session.expect_gone().await;
}

#[tokio::test]
async fn unknown_packets_close_the_session_after_an_ok() {
    for body in ["abc", "", "40\x1e", "9", "\x1e"] {
        check_post_closes("EIO=4", body.as_bytes()).await;
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_closes_the_session_after_an_ok() {
    check_post_closes("EIO=4", b"4\xff\xfe").await;
    check_post_closes("EIO=3", b"3:4\xff\xfe").await;
}

#[tokio::test]
async fn malformed_version_3_payloads_close_the_session_after_an_ok() {
    for body in ["abc", "5:40", "-1:4", "2:40x", "99999999999999999999:4", "1:9"] {
        check_post_closes("EIO=3", body.as_bytes()).await;
    }
}

#[tokio::test]
async fn packets_before_the_bad_one_are_delivered_in_version_4() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=4").await;
    let mut parked = session.park().await;
    session.post("4hello\x1eabc").await.expect(200, "ok");
    let reply = parked.reply().await;
    assert!(reply.text() == "4hello" || reply.text() == "4hello\x1e1", "{reply:?}");
}

#[tokio::test]
async fn octets_in_version_4_are_refused_and_close_the_session() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    let target = server.target(&session.query());
    let request = Request::post(&target, "40").header("Content-Type", "application/octet-stream");
    server.send(request).await.expect(400, "");
    session.expect_gone().await;
}

#[tokio::test]
async fn any_other_content_type_is_taken_for_text() {
    let server = Server::socketio(&[]);
    for content_type in ["application/json", "text/plain", "nonsense"] {
        let session = server.polling("EIO=4").await;
        let request =
            Request::post(&server.target(&session.query()), "40").header("Content-Type", content_type);
        server.send(request).await.expect(200, "ok");
    }
}

#[tokio::test]
async fn octets_in_version_3_are_the_binary_form() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=3").await;
    let body =
        b"\x00\x06\xff4hello\x00\x01\x01\xff4\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80!\x01\x03\xff\x04\x01\xff";
    let request = Request::post(&server.target(&session.query()), *body)
        .header("Content-Type", "application/octet-stream");
    server.send(request).await.expect(200, "ok");
    let reply = session.poll().await;
    assert_eq!(reply.body, body);
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
}

#[tokio::test]
async fn base64_is_remembered_from_the_handshake() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=3&b64=1").await;
    assert!(!session.query().contains("b64"));
    session.send(&["b4AQID"]).await;
    session.poll().await.expect(200, "6:b4AQID");
}

#[tokio::test]
async fn version_3_text_lengths_count_utf16_code_units() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=3").await;
    let payload = r#"16:42["echo","€😀"]"#;
    session.post(payload).await.expect(200, "ok");
    session.poll().await.expect(200, payload);
}

#[tokio::test]
async fn version_3_binary_settings_answer_in_bytes_even_without_binary_packets() {
    let server = Server::engineio(&["edge.eio3_payloads=binary"]);
    let reply = server.get("EIO=3&transport=polling").await;
    let open = reply.body.strip_prefix(b"\x00\x01\x01\x08\xff0").expect("an open packet of 118 bytes");
    let open: serde_json::Value = serde_json::from_slice(open).expect("JSON to the end");
    let query = format!("EIO=3&transport=polling&sid={}", open["sid"].as_str().expect("a sid"));
    server.post(&query, "6:4hello").await.expect(200, "ok");
    assert_eq!(server.get(&query).await.body, *b"\x00\x06\xff4hello");
}

#[tokio::test]
async fn oversized_post_is_refused_and_the_session_survives() {
    let server = Server::socketio(&["edge.payload_bytes_max=2000"]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    let body = format!(r#"42["message","{}"]"#, "x".repeat(2000));
    session.post(body).await.expect(413, "");
    session.send(&[r#"42["message",1]"#]).await;
    session.poll().await.expect(200, r#"42["message-back",1]"#);
}

#[tokio::test]
async fn refusal_of_a_large_post_reaches_a_client_that_is_still_sending() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    let body = vec![b'4'; 3_000_000];
    for (query, status) in [(session.query(), 413), ("EIO=4&transport=polling&sid=nobody".to_owned(), 400)] {
        for _ in 0..5 {
            let mut connection = server.connect().await;
            connection
                .try_write(&Request::post(&server.target(&query), body.as_slice()).bytes(server.port()))
                .await;
            let reply = connection.reply_or_end().await;
            assert_eq!(reply.map(|reply| reply.status), Some(status));
        }
    }
    session.join().await;
}

#[tokio::test]
async fn oversized_chunked_post_is_refused_and_the_session_survives() {
    let server = Server::socketio(&["edge.payload_bytes_max=2000"]);
    let session = server.polling("EIO=4").await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost:{}\r\nTransfer-Encoding: chunked\r\n\r\n",
        server.target(&session.query()),
        server.port()
    );
    let mut connection = server.connect().await;
    connection.write(head.as_bytes()).await;
    let chunk = format!("400\r\n{}\r\n", "4".repeat(0x400));
    for _ in 0..3 {
        connection.try_write(chunk.as_bytes()).await;
    }
    assert_eq!(connection.reply().await.status, 413);
    session.join().await;
}

#[tokio::test]
async fn chunked_post_is_taken() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=4").await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost:{}\r\nTransfer-Encoding: chunked\r\n\r\n",
        server.target(&session.query()),
        server.port()
    );
    let mut connection = server.connect().await;
    connection.write(head.as_bytes()).await;
    connection.write(b"3\r\n4he\r\n3\r\nllo\r\n0\r\n\r\n").await;
    connection.reply().await.expect(200, "ok");
    session.poll().await.expect(200, "4hello");
}

#[tokio::test]
async fn poll_returns_at_most_sixteen_packets() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    let events: Vec<_> = (0..40).map(|index| format!(r#"42["message",{index}]"#)).collect();
    session.send(&events.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut seen = Vec::new();
    while seen.len() < 40 {
        let packets = session.packets().await;
        assert!(packets.len() <= 16, "{} packets in one response", packets.len());
        seen.extend(packets);
    }
    let expected: Vec<_> = (0..40).map(|index| format!(r#"42["message-back",{index}]"#)).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn poll_never_parts_a_header_from_its_attachments() {
    let server = Server::socketio(&["edge.poll_packets_max=3"]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    let placeholders = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
    let group = [&format!(r#"452-["message",{placeholders}]"#), "bAQ==", "bAg=="];
    session.send(&[&[r#"42["message",0]"#], &group[..], &group[..]].concat()).await;
    let mut packets = Vec::new();
    while packets.len() < 7 {
        let response = session.packets().await;
        let whole = response.iter().filter(|packet| packet.starts_with("452-")).count() * 2;
        let parts = response.iter().filter(|packet| packet.starts_with('b')).count();
        assert_eq!(whole, parts, "{response:?}");
        packets.extend(response);
    }
    let header = format!(r#"452-["message-back",{placeholders}]"#);
    let expected = [r#"42["message-back",0]"#, &header, "bAQ==", "bAg==", &header, "bAQ==", "bAg=="];
    assert_eq!(packets, expected);
}

#[tokio::test]
async fn poll_gives_up_a_group_larger_than_its_limit_whole() {
    let server = Server::socketio(&["edge.poll_packets_max=2"]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    let placeholders: Vec<_> = (0..10).map(|num| format!(r#"{{"_placeholder":true,"num":{num}}}"#)).collect();
    let header = format!(r#"4510-["message",{}]"#, placeholders.join(","));
    let attachments = ["bAQ=="; 10];
    session.send(&[&[header.as_str()], &attachments[..]].concat()).await;
    assert_eq!(session.packets().await.len(), 11);
}

#[tokio::test]
async fn large_responses_are_compressed_for_clients_that_ask() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    let poll = Request::get(&server.target(&session.query())).header("Accept-Encoding", "gzip, deflate, br");

    session.send(&[r#"42["message","small"]"#]).await;
    let reply = server.send(poll.clone()).await;
    assert_eq!(reply.header("content-encoding"), None);
    reply.expect(200, r#"42["message-back","small"]"#);

    let event = format!(r#"42["message","{}"]"#, "x".repeat(5000));
    session.send(&[&event]).await;
    let reply = server.send(poll).await;
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert!(reply.body.len() < 1000, "{} bytes", reply.body.len());
    let mut text = String::new();
    flate2::read::GzDecoder::new(reply.body.as_slice()).read_to_string(&mut text).expect("gzip");
    assert_eq!(text, event.replace("message", "message-back"));

    session.send(&[&event]).await;
    let reply = session.poll().await;
    assert_eq!(reply.header("content-encoding"), None, "nobody asked");
    reply.expect(200, &event.replace("message", "message-back"));
}

#[tokio::test]
async fn compression_can_be_declined_and_switched_off() {
    let event = format!(r#"42["message","{}"]"#, "x".repeat(5000));
    for (set, encodings) in
        [("edge.http_compression_bytes_min=1024", "gzip;q=0"), ("edge.http_compression_bytes_min=0", "gzip")]
    {
        let server = Server::socketio(&[set]);
        let session = server.polling("EIO=4").await;
        session.join().await;
        session.send(&[&event]).await;
        let poll = Request::get(&server.target(&session.query())).header("Accept-Encoding", encodings);
        assert_eq!(server.send(poll).await.header("content-encoding"), None, "{set} {encodings}");
    }
}

#[tokio::test]
async fn one_connection_serves_a_whole_session() {
    let server = Server::socketio(&[]);
    let mut connection = server.connect().await;
    connection.send(&Request::get(&server.target("EIO=4&transport=polling"))).await;
    let reply = connection.reply().await;
    let sid = crate::wire::server::json_after(reply.text(), 1)["sid"].as_str().expect("a sid").to_owned();
    let target = server.target(&format!("EIO=4&transport=polling&sid={sid}"));
    connection.send(&Request::post(&target, "40")).await;
    connection.reply().await.expect(200, "ok");
    connection.send(&Request::get(&target)).await;
    assert!(connection.reply().await.text().starts_with("40{"));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::engineio(&[]);
    let session = server.polling("EIO=4").await;
    let target = server.target(&session.query());
    let mut connection = server.connect().await;
    let requests = [
        Request::post(&target, "4one").bytes(server.port()),
        Request::get(&target).bytes(server.port()),
        Request::post(&target, "4two").bytes(server.port()),
        Request::get(&target).bytes(server.port()),
    ];
    connection.write(&requests.concat()).await;
    for expected in ["ok", "4one", "ok", "4two"] {
        connection.reply().await.expect(200, expected);
    }
}

#[tokio::test]
async fn session_outlives_its_connections() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    let mut parked = session.park().await;
    not_within(std::time::Duration::from_millis(50), "a poll without packets is answered", parked.reply())
        .await;
    session.send(&["40"]).await;
    let reply = tokio::time::timeout(DEADLINE, parked.reply()).await.expect("the poll");
    assert!(reply.text().starts_with("40{"), "{reply:?}");
}
