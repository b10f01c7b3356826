//! What a Socket.IO client must not send. Each case closes the whole connection with an empty close frame; the
//! sockets of others stay.

use crate::wire::Server;

/// A joined client sends these texts, and the connection is closed without a code.
async fn check(server: &Server, packets: &[&str]) {
    let (mut socket, _) = server.socket().await;
    for packet in packets {
        socket.send(packet).await;
    }
    assert_eq!(socket.closed().await, None, "{packets:?}");
}

/// A joined client sends these texts, and the session goes on.
async fn check_harmless(server: &Server, packets: &[&str]) {
    let (mut socket, _) = server.socket().await;
    for packet in packets {
        socket.send(packet).await;
    }
    socket.send(r#"42["message","alive"]"#).await;
    socket.expect(&[r#"42["message-back","alive"]"#]).await;
}

#[tokio::test]
async fn unknown_packet_types() {
    let server = Server::socketio(&[]);
    for packet in ["4abc", "47", "49", "4", "4-", "4é"] {
        check(&server, &[packet]).await;
    }
}

#[tokio::test]
async fn invalid_payloads() {
    let server = Server::socketio(&[]);
    let packets = [
        "42{}",
        "42[]",
        "42[{}]",
        "42[[]]",
        "42[null]",
        "42[true]",
        r#"42"message""#,
        r#"42abc["x"]"#,
        r#"42["x"#,
        r#"42["x"]]"#,
        r#"42["x",]"#,
        r#"42["x",01]"#,
        r#"42["x",NaN]"#,
        "42['x']",
        "42[\"x\ty\"]",
        r#"41{"a":1}"#,
        "43{}",
        r#"43"a""#,
    ];
    for packet in packets {
        check(&server, &[packet]).await;
    }
}

#[tokio::test]
async fn reserved_event_names() {
    let server = Server::socketio(&[]);
    for name in ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"] {
        check(&server, &[&format!(r#"42["{name}"]"#)]).await;
        check(&server, &[&format!(r#"421["{name}",1]"#)]).await;
    }
    check(&server, &[r#"42["\u0064isconnect"]"#]).await;
}

#[tokio::test]
async fn invalid_connect_payloads() {
    let server = Server::socketio(&["edge.namespaces=/,/custom"]);
    for packet in ["40abc", "40[]", r#"40"a""#, "40/custom,[1]", r#"40/custom,{"a":"#] {
        let mut socket = server.websocket("EIO=4").await;
        socket.open_packet().await;
        socket.send(packet).await;
        assert_eq!(socket.closed().await, None, "{packet}");
    }
}

#[tokio::test]
async fn illegal_attachments() {
    let server = Server::socketio(&[]);
    for packet in ["45", "46", r#"450-["message"]"#, r#"45x-["message"]"#, r#"45["message"]"#, "45-", "451"] {
        check(&server, &[packet]).await;
    }
}

#[tokio::test]
async fn too_many_attachments() {
    let server = Server::socketio(&[]);
    for count in ["11", "99999", "4294967296", "18446744073709551616", &"9".repeat(400)] {
        check(&server, &[&format!(r#"45{count}-["message",{{"_placeholder":true,"num":0}}]"#)]).await;
    }
}

#[tokio::test]
async fn attachment_limit_can_be_set() {
    let server = Server::socketio(&["edge.limits.attachments_max=2"]);
    let (mut socket, _) = server.socket().await;
    let header = r#"["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    socket.send(&format!("452-{header}")).await;
    socket.send_binary(&[1]).await;
    socket.send_binary(&[2]).await;
    assert!(socket.text().await.starts_with("452-"));
    check(&server, &[&format!("453-{header}")]).await;
}

#[tokio::test]
async fn text_while_attachments_are_awaited() {
    let server = Server::socketio(&[]);
    let header = r#"451-["message",{"_placeholder":true,"num":0}]"#;
    check(&server, &[header, r#"42["message",1]"#]).await;
    check(&server, &[header, header]).await;
}

#[tokio::test]
async fn binary_that_nobody_announced() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    socket.send_binary(&[1, 2, 3]).await;
    assert_eq!(socket.closed().await, None);
}

#[tokio::test]
async fn placeholders_that_point_nowhere() {
    let server = Server::socketio(&[]);
    for num in ["1", "-1", r#""0""#, "null", "99999999999999999999"] {
        let (mut socket, _) = server.socket().await;
        socket.send(&format!(r#"451-["message",{{"_placeholder":true,"num":{num}}}]"#)).await;
        socket.send_binary(&[1]).await;
        assert_eq!(socket.closed().await, None, "{num}");
    }
}

#[tokio::test]
async fn placeholder_in_a_text_event_is_plain_data() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    socket.send(r#"42["message",{"_placeholder":true,"num":0}]"#).await;
    socket.expect(&[r#"42["message-back",{"_placeholder":true,"num":0}]"#]).await;
}

#[tokio::test]
async fn second_connect_to_a_joined_namespace() {
    let server = Server::socketio(&["edge.namespaces=/,/custom"]);
    check(&server, &["40"]).await;
    let (mut socket, _) = server.socket().await;
    socket.join("/custom").await;
    socket.send("40/custom,").await;
    assert_eq!(socket.closed().await, None);
}

#[tokio::test]
async fn packets_for_a_namespace_that_was_not_joined() {
    let server = Server::socketio(&["edge.namespaces=/,/custom"]);
    for packet in [r#"42/custom,["x"]"#, "43/custom,1[]", "41/custom", r#"42/nowhere,["x"]"#] {
        check(&server, &[packet]).await;
    }
    check(&server, &["41", r#"42["x"]"#]).await;
    let mut socket = server.websocket("EIO=4").await;
    socket.open_packet().await;
    socket.send(r#"42["message",1]"#).await;
    assert_eq!(socket.closed().await, None);
}

#[tokio::test]
async fn connect_error_from_a_client() {
    let server = Server::socketio(&[]);
    check(&server, &[r#"44{"message":"no"}"#]).await;
    check(&server, &[r#"44"no""#]).await;
}

#[tokio::test]
async fn acknowledgements_that_nobody_awaits_are_ignored() {
    let server = Server::socketio(&[]);
    check_harmless(&server, &["43[1]", "4399[1]", "4318446744073709551615[]"]).await;
}

#[tokio::test]
async fn ack_ids_are_unsigned_and_kept_to_the_last_digit() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    for id in ["0", "7", "9007199254740993", "18446744073709551615"] {
        socket.send(&format!(r#"42{id}["echo",1]"#)).await;
        socket.expect(&[&format!("43{id}[1]")]).await;
    }
    check(&server, &[r#"4218446744073709551616["echo"]"#]).await;
    check(&server, &[&format!(r#"42{}["echo"]"#, "9".repeat(500))]).await;
}

#[tokio::test]
async fn refusal_over_polling_answers_ok_and_then_closes() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    let mut parked = session.park().await;
    session.post("42{}").await.expect(200, "ok");
    parked.reply().await.expect(200, "1");
    session.expect_gone().await;
}

#[tokio::test]
async fn refusal_over_polling_hands_over_what_was_waiting() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    session.send(&[r#"42["message",1]"#, r#"42["message",2]"#, "42{}", r#"42["message",3]"#]).await;
    let answers = [r#"42["message-back",1]"#, r#"42["message-back",2]"#, "1"];
    session.poll().await.expect(200, &answers.join("\x1e"));
    session.expect_gone().await;
}

#[tokio::test]
async fn refusal_over_polling_without_a_parked_poll_closes_with_the_next_one() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    session.join().await;
    session.post("42{}").await.expect(200, "ok");
    // Nothing was waiting. As in Node, a noop stands in for it.
    session.poll().await.expect(200, "6\x1e1");
    session.expect_gone().await;
}

#[tokio::test]
async fn refusal_of_one_client_leaves_the_others() {
    let server = Server::socketio(&[]);
    let (mut other, _) = server.socket().await;
    check(&server, &["42{}"]).await;
    other.send(r#"42["message",1]"#).await;
    other.expect(&[r#"42["message-back",1]"#]).await;
}

#[tokio::test]
async fn names_above_their_limit() {
    let server = Server::socketio(&[]);
    let name = "n".repeat(256);
    check_harmless(&server, &[&format!(r#"42["{name}"]"#)]).await;
    check(&server, &[&format!(r#"42["{name}n"]"#)]).await;
}

#[tokio::test]
async fn nesting_above_its_limit() {
    let server = Server::socketio(&[]);
    let nested = |depth: usize| format!(r#"42["message",{}{}]"#, "[".repeat(depth), "]".repeat(depth));
    let (mut socket, _) = server.socket().await;
    socket.send(&nested(127)).await;
    socket.expect(&[&nested(127).replace("message", "message-back")]).await;
    check(&server, &[&nested(128)]).await;
    check(&server, &[&format!(r#"42["message",{}"#, "[".repeat(400_000))]).await;
    check(&server, &[&format!(r#"42["message",{}"#, r#"{"a":"#.repeat(150_000))]).await;
}
