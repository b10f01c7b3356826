//! The demo upstream, row by row.

use serde_json::Value;

use crate::wire::server::json_after;
use crate::wire::{Server, WebSocket};

/// A joined client sends these and gets those back.
async fn check(sends: &[&str], expects: &[&str]) {
    let server = Server::socketio(&["edge.namespaces=/,/custom"]);
    let (mut socket, _) = server.socket().await;
    socket.send_all(sends).await;
    socket.expect(expects).await;
    // The same row in another namespace.
    let in_custom = |packet: &&str| {
        let (head, tail) = packet.split_at(2);
        format!("{head}/custom,{tail}")
    };
    socket.join("/custom").await;
    for packet in sends.iter().map(in_custom) {
        socket.send(&packet).await;
    }
    for packet in expects.iter().map(in_custom) {
        socket.expect(&[&packet]).await;
    }
}

/// Emits with an acknowledgement and returns its arguments.
async fn ask(socket: &mut WebSocket, event: &str) -> Value {
    socket.send(&format!("4277{event}")).await;
    let reply = socket.text().await;
    assert!(reply.starts_with("4377["), "{event}: {reply}");
    json_after(&reply, 4)
}

#[tokio::test]
async fn client_event_comes_back_in_upper_case() {
    check(&[r#"42["client_event",{"data":"test"}]"#], &[r#"42["server_response",{"data":"TEST"}]"#]).await;
    check(&[r#"42["client_event",{"data":"straße é"}]"#], &[r#"42["server_response",{"data":"STRASSE É"}]"#])
        .await;
}

#[tokio::test]
async fn echo_acknowledges_or_emits() {
    check(&[r#"429["echo",1,"2",{"3":[true]}]"#], &[r#"439[1,"2",{"3":[true]}]"#]).await;
    check(&[r#"42["echo",1,"2",{"3":[true]}]"#], &[r#"42["echo",1,"2",{"3":[true]}]"#]).await;
    check(&[r#"429["echo"]"#, r#"42["echo"]"#], &["439[]", r#"42["echo"]"#]).await;
}

#[tokio::test]
async fn message_comes_back() {
    check(
        &[r#"42["message","a",null]"#, r#"42["message"]"#],
        &[r#"42["message-back","a",null]"#, r#"42["message-back"]"#],
    )
    .await;
}

#[tokio::test]
async fn message_with_ack_is_acknowledged() {
    check(&[r#"42456["message-with-ack",1,"2"]"#], &[r#"43456[1,"2"]"#]).await;
}

#[tokio::test]
async fn emit_with_ack_passes_the_answer_on() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    let mut ids = Vec::new();
    for round in 0..3 {
        socket.send(&format!(r#"42["emit-with-ack",{round}]"#)).await;
        let event = socket.text().await;
        let id = event
            .strip_prefix("42")
            .and_then(|rest| rest.strip_suffix(&format!(r#"["emit-with-ack",{round}]"#)));
        ids.push(id.unwrap_or_else(|| panic!("{event}")).to_owned());
    }
    // Answers may come in any order, each once.
    for round in [2, 0, 1] {
        socket.send(&format!(r#"43{}["answer",{round}]"#, ids[round])).await;
        socket.expect(&[&format!(r#"42["emit-with-ack","answer",{round}]"#)]).await;
    }
    socket.send(&format!(r#"43{}["again"]"#, ids[0])).await;
    socket.send(r#"42["message",1]"#).await;
    socket.expect(&[r#"42["message-back",1]"#]).await;
}

#[tokio::test]
async fn emit_with_ack_takes_binary_answers() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    socket.send(r#"42["emit-with-ack"]"#).await;
    let event = socket.text().await;
    let id =
        event.strip_prefix("42").and_then(|rest| rest.strip_suffix(r#"["emit-with-ack"]"#)).expect("an id");
    socket.send(&format!(r#"461-{id}[{{"_placeholder":true,"num":0}}]"#)).await;
    socket.send_binary(&[7]).await;
    socket.expect(&[r#"451-["emit-with-ack",{"_placeholder":true,"num":0}]"#]).await;
    assert_eq!(socket.binary().await, [7]);
}

#[tokio::test]
async fn rooms_are_joined_listed_and_left() {
    let server = Server::socketio(&[]);
    let (mut socket, sid) = server.socket().await;
    assert_eq!(ask(&mut socket, r#"["my_rooms"]"#).await, serde_json::json!([[sid]]));
    assert_eq!(ask(&mut socket, r#"["join","é room"]"#).await, serde_json::json!([true]));
    assert_eq!(ask(&mut socket, r#"["join","é room"]"#).await, serde_json::json!([true]));
    let rooms = ask(&mut socket, r#"["my_rooms"]"#).await;
    let mut rooms: Vec<_> = rooms[0].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    rooms.sort_unstable();
    let mut expected = [sid.as_str(), "é room"];
    expected.sort_unstable();
    assert_eq!(rooms, expected);
    assert_eq!(ask(&mut socket, r#"["leave","é room"]"#).await, serde_json::json!([true]));
    assert_eq!(ask(&mut socket, r#"["leave","never joined"]"#).await, serde_json::json!([true]));
    assert_eq!(ask(&mut socket, r#"["my_rooms"]"#).await, serde_json::json!([[sid]]));
}

#[tokio::test]
async fn whoami_tells_the_socket_id() {
    let server = Server::socketio(&[]);
    let (mut socket, sid) = server.socket().await;
    assert_eq!(ask(&mut socket, r#"["whoami"]"#).await, serde_json::json!([sid]));
}

#[tokio::test]
async fn broadcast_reaches_a_room_or_everyone() {
    let server = Server::socketio(&["edge.namespaces=/,/custom"]);
    let (mut inside, _) = server.socket().await;
    let (mut outside, _) = server.socket().await;
    let (mut elsewhere, _) = server.socket().await;
    elsewhere.join("/custom").await;
    elsewhere.send("41").await;
    ask(&mut inside, r#"["join","room"]"#).await;
    outside.send(r#"42["broadcast","room",{"n":1}]"#).await;
    inside.expect(&[r#"42["msg",{"n":1}]"#]).await;
    outside.send(r#"42["broadcast",null,"all"]"#).await;
    for socket in [&mut inside, &mut outside] {
        socket.expect(&[r#"42["msg","all"]"#]).await;
    }
    elsewhere.send(r#"42/custom,["message","only this"]"#).await;
    elsewhere.expect(&[r#"42/custom,["message-back","only this"]"#]).await;
}

#[tokio::test]
async fn say_emits_any_event_to_a_room() {
    let server = Server::socketio(&[]);
    let (mut inside, sid) = server.socket().await;
    let (mut outside, _) = server.socket().await;
    assert_eq!(
        ask(&mut outside, &format!(r#"["say","{sid}","own event",1,[2]]"#)).await,
        serde_json::json!([true])
    );
    inside.expect(&[r#"42["own event",1,[2]]"#]).await;
    ask(&mut inside, r#"["join","room"]"#).await;
    outside.send(r#"42["say","room","quiet"]"#).await;
    inside.expect(&[r#"42["quiet"]"#]).await;
}

#[tokio::test]
async fn say_carries_binary() {
    let server = Server::socketio(&[]);
    let (mut inside, sid) = server.socket().await;
    let (mut outside, _) = server.socket().await;
    outside.send(&format!(r#"451-["say","{sid}","blob",{{"a":{{"_placeholder":true,"num":0}}}}]"#)).await;
    outside.send_binary(&[1, 2]).await;
    inside.expect(&[r#"451-["blob",{"a":{"_placeholder":true,"num":0}}]"#]).await;
    assert_eq!(inside.binary().await, [1, 2]);
}

#[tokio::test]
async fn binary_is_echoed_nested_and_in_order() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    let args = r#"{"b":{"_placeholder":true,"num":1},"a":[{"_placeholder":true,"num":0}]},"text""#;
    socket.send(&format!(r#"452-5["echo",{args}]"#)).await;
    socket.send_binary(&[]).await;
    socket.send_binary(&[0xff; 300]).await;
    socket.expect(&[&format!("462-5[{args}]")]).await;
    assert_eq!(socket.binary().await, b"");
    assert_eq!(socket.binary().await, [0xff; 300]);
}

#[tokio::test]
async fn events_without_a_row_are_ignored() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    socket.send(r#"42["nobody listens",1]"#).await;
    socket.send("42[7,1]").await;
    socket.send(r#"42["message","next"]"#).await;
    socket.expect(&[r#"42["message-back","next"]"#]).await;
}

#[tokio::test]
async fn rows_with_arguments_of_the_wrong_kind_do_no_harm() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    for event in [
        r#"["client_event"]"#,
        r#"["client_event",7]"#,
        r#"["client_event",{"data":7}]"#,
        r#"["join"]"#,
        r#"["join",{}]"#,
        r#"["leave",null]"#,
        r#"["broadcast"]"#,
        r#"["broadcast",{},1]"#,
        r#"["say"]"#,
        r#"["say","room"]"#,
        r#"["say","room",7]"#,
    ] {
        socket.send(&format!("42{event}")).await;
    }
    socket.send(r#"4288["echo","alive"]"#).await;
    while socket.text().await != r#"4388["alive"]"# {}
}

/// Else a header could announce attachments that no placeholder stands for.
#[tokio::test]
async fn arguments_that_would_be_left_out_are_refused() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    for event in [r#"["broadcast",null,1,2]"#, r#"["broadcast_with_ack",null,1,2]"#, r#"["server_emit",1,2]"#]
    {
        socket.send(&format!("427{event}")).await;
        socket.expect(&["437[false]"]).await;
    }
    socket.send(r#"451-8["broadcast",null,"text",{"_placeholder":true,"num":0}]"#).await;
    socket.send_binary(b"binary").await;
    socket.expect(&["438[false]"]).await;
}

#[tokio::test]
async fn order_is_kept_over_two_hundred_events() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    let events: Vec<_> = (0..200).map(|index| format!(r#"42{index}["echo",{index}]"#)).collect();
    socket.send_all(&events.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for index in 0..200 {
        socket.expect(&[&format!("43{index}[{index}]")]).await;
    }
}

#[tokio::test]
async fn text_of_900_kb_makes_the_round_trip() {
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    let text = "é".repeat(450_000);
    socket.send(&format!(r#"421["echo","{text}"]"#)).await;
    socket.expect(&[&format!(r#"431["{text}"]"#)]).await;
}

#[tokio::test]
async fn json_is_passed_on_as_written() {
    let args = r#"1.0,1e400,-0,12345678901234567890,"\u0000\ud83d\ude00é",{"a":1,"a":2},[]"#;
    let server = Server::socketio(&[]);
    let (mut socket, _) = server.socket().await;
    socket.send(&format!(r#"421["echo",{args}]"#)).await;
    socket.expect(&[&format!("431[{args}]")]).await;
}
