//! Answers that take their time: connects and events decided later, in the order that was promised.

use serde_json::json;

use crate::harness::Server;
use crate::harness::polling::Request;
use system_tests::puppet::TOKEN_LATER;

#[tokio::test]
async fn a_connect_accepted_later_is_confirmed_then() {
    let server = Server::start(|_| {});
    let mut client = server.session().await;
    client.send(r#"40{"gate":"in"}"#).await;
    server.hears("connect / from 127.0.0.1").await;
    assert_eq!(server.metric("jackfield_sockets"), 0);
    // Another namespace does not wait for the first.
    client.join("/custom").await;
    server.strings.open("in");
    let confirmation = client.text().await;
    assert!(confirmation.starts_with(r#"40{"sid":""#), "{confirmation}");
    client.act_and_wait(json!([])).await;
}

#[tokio::test]
async fn a_connect_refused_later_is_told_then_and_may_be_tried_again() {
    let server = Server::start(|_| {});
    let mut client = server.session().await;
    client.send(r#"40{"gate":"in","refuse":"not today"}"#).await;
    server.hears("connect").await;
    server.strings.open("in");
    client.expect(&[r#"44{"message":"not today"}"#]).await;
    assert_eq!(server.metric("jackfield_connects_refused_total"), 1);
    client.join("/").await;
    assert_eq!(server.strings.heard_of("disconnected"), [] as [&str; 0]);
}

#[tokio::test]
async fn a_session_that_ends_before_its_connect_is_decided_leaves_no_ghost() {
    let server = Server::start(|_| {});
    let mut client = server.session().await;
    client.send(r#"40{"gate":"in"}"#).await;
    server.hears("connect").await;
    client.close().await;
    server.empties().await;
    server.strings.open("in");
    // The next client's slot may be the one that the answer was for.
    let mut next = server.client().await;
    next.act(json!([{"to": [], "emit": ["to all"]}])).await;
    next.expect(&[r#"42["to all"]"#]).await;
    assert_eq!(server.metric("jackfield_deliveries_total"), 1);
    assert_eq!(server.metric("jackfield_sockets"), 1);
    next.close().await;
    server.empties().await;
    assert_eq!(server.strings.heard_of("disconnected").len(), 1, "{:?}", server.strings.heard());
}

#[tokio::test]
async fn packets_for_a_namespace_that_is_still_joining_close_the_session() {
    let server = Server::start(|_| {});
    for early in [r#"42["do"]"#, "41", "40"] {
        let mut client = server.session().await;
        client.send(r#"40{"gate":"in"}"#).await;
        client.send(early).await;
        client.expect_close(None).await;
    }
    server.empties().await;
    assert_eq!(server.closed_for("forced close"), 3);
}

#[tokio::test]
async fn the_first_connect_of_protocol_4_may_come_later_too() {
    let server = Server::start(|_| {});
    let handshake = Request::get("EIO=3&transport=polling&gate=in").send(server.address).await;
    assert_eq!(handshake.body.matches("0{").count(), 1, "{handshake:?}");
    assert!(!handshake.body.ends_with("2:40"), "{handshake:?}");
    let (_, rest) = handshake.body.split_once(r#""sid":""#).expect("an open packet");
    let query = format!("EIO=3&transport=polling&sid={}", &rest[..20]);
    let poll = Request::get(&query).start(server.address).await;
    server.strings.open("in");
    poll.reply().await.expect(200, "2:40");
}

#[tokio::test]
async fn events_answered_later_keep_their_order_and_other_sockets_go_on() {
    let server = Server::start(|_| {});
    let (mut slow, mut other) = (server.client().await, server.client().await);
    for number in 0..6 {
        slow.act_later(number, "gate", json!([{"emit": ["answer", number]}])).await;
    }
    slow.act(json!([{"emit": ["now"]}])).await;
    server.hears("later").await;
    for _ in 0..20 {
        other.act_and_wait(json!([])).await;
    }
    assert_eq!(server.strings.heard_of("later").len(), 1, "one event of a socket is in flight");
    for number in 0..6 {
        server.strings.open("gate");
        slow.expect(&[&format!(r#"42["answer",{number}]"#), &format!("43{number}[true]")]).await;
    }
    slow.expect(&[r#"42["now"]"#]).await;
}

#[tokio::test]
async fn sockets_of_one_session_do_not_wait_for_each_other() {
    let server = Server::start(|_| {});
    let mut client = server.client().await;
    client.join("/custom").await;
    client.act_later(1, "gate", json!([])).await;
    client.send(r#"42/custom,5["do"]"#).await;
    client.expect(&["43/custom,5[true]"]).await;
    server.strings.open("gate");
    client.expect(&["431[true]"]).await;
}

#[tokio::test]
async fn too_many_waiting_events_close_the_session() {
    let server = Server::start(|edge| edge.limits.events_waiting_max = 4);
    let mut client = server.client().await;
    for number in 0..5 {
        client.act_later(number, "gate", json!([])).await;
    }
    // One in flight and four that wait are as many as may be.
    server.until("jackfield_events_total", 5).await;
    assert_eq!(server.metric("jackfield_upstream_overloaded_total"), 0);
    client.act_later(5, "gate", json!([])).await;
    client.expect_close(Some(1013)).await;
    server.empties().await;
    assert_eq!(server.metric("jackfield_upstream_overloaded_total"), 1);
    assert_eq!(server.strings.heard_of("later").len(), 1);
    let gone = format!("disconnected / {} forced server close", client.id);
    assert_eq!(server.strings.heard_of("disconnected"), [gone]);
    // The answer that comes now is for nobody.
    server.strings.open("gate");
    server.client().await.act_and_wait(json!([])).await;
}

#[tokio::test]
async fn too_many_waiting_bytes_close_the_session() {
    let server = Server::start(|edge| edge.limits.events_waiting_bytes_max = 10_000);
    let mut client = server.client().await;
    let large = json!([{"emit": ["x".repeat(4_000)]}]);
    for number in 0..3 {
        client.act_later(number, "gate", large.clone()).await;
    }
    server.until("jackfield_events_total", 3).await;
    assert_eq!(server.metric("jackfield_upstream_overloaded_total"), 0);
    client.act_later(3, "gate", large).await;
    client.expect_close(Some(1013)).await;
    assert_eq!(server.metric("jackfield_upstream_overloaded_total"), 1);
}

#[tokio::test]
async fn bytes_of_events_that_were_answered_count_no_longer() {
    let server = Server::start(|edge| edge.limits.events_waiting_bytes_max = 10_000);
    let mut client = server.client().await;
    let large = json!([{"emit": ["x".repeat(4_000)]}]);
    for number in 0..30 {
        client.act_later(number, "gate", large.clone()).await;
        client.act(json!([])).await;
        server.strings.open("gate");
        client.text().await;
        client.expect(&[&format!("43{number}[true]")]).await;
    }
}

#[tokio::test]
async fn actions_come_in_their_order_and_the_ack_after_them() {
    let server = Server::start(|_| {});
    let (mut client, mut other) = (server.client().await, server.client().await);
    client
        .act_later(
            7,
            "gate",
            json!([
                {"emit": ["first"]},
                {"to": ["room"], "emit": ["before the join"]},
                {"join": "room"},
                {"to": ["room"], "emit": ["in the room"]},
                {"emit": ["between"]},
                {"leave": "room"},
                {"to": ["room"], "emit": ["after the leave"]},
                {"to": [], "emit": ["to all"]},
            ]),
        )
        .await;
    server.strings.open("gate");
    client.expect(&[r#"42["first"]"#, r#"42["in the room"]"#, r#"42["between"]"#, r#"42["to all"]"#]).await;
    client.expect(&["437[true]"]).await;
    other.expect(&[r#"42["to all"]"#]).await;
}

#[tokio::test]
async fn an_answer_reaches_the_application_once_with_its_token() {
    let server = Server::start(|_| {});
    let (mut client, mut other) = (server.client().await, server.client().await);
    client.act(json!([{"emit": ["a"], "ack": 7}, {"emit": ["b"], "ack": 8}])).await;
    client.expect(&[r#"420["a"]"#, r#"421["b"]"#]).await;
    assert_eq!(server.metric("jackfield_acks_pending"), 2);
    // Nobody asked the other one, and nobody asked for number 9.
    other.send(r#"430["stolen"]"#).await;
    other.act_and_wait(json!([])).await;
    for answer in [r#"431["B",1]"#, r#"439["unasked"]"#, r#"430["A"]"#, r#"430["again"]"#] {
        client.send(answer).await;
    }
    client.act_and_wait(json!([])).await;
    assert_eq!(server.strings.heard_of("acked"), [r#"acked 8 ["B",1]"#, r#"acked 7 ["A"]"#]);
    assert_eq!(server.metric("jackfield_acks_pending"), 0);
}

#[tokio::test]
async fn an_ack_answered_later_lets_no_event_overtake() {
    let server = Server::start(|_| {});
    let mut client = server.client().await;
    client.act(json!([{"emit": ["question"], "ack": TOKEN_LATER}])).await;
    client.expect(&[r#"420["question"]"#]).await;
    client.act_later(1, "first", json!([{"emit": ["first"]}])).await;
    client.act_later(2, "second", json!([{"emit": ["second"]}])).await;
    client.send(r#"430["answer"]"#).await;
    server.hears("acked").await;
    server.strings.open("acked");
    client.expect(&[r#"42["answered",1000]"#]).await;
    assert_eq!(server.strings.heard_of("later"), ["later first"], "the first event is not answered yet");
    server.strings.open("second");
    server.strings.open("first");
    client.expect(&[r#"42["first"]"#, "431[true]", r#"42["second"]"#, "432[true]"]).await;
}

#[tokio::test]
async fn an_answer_for_a_socket_that_has_gone_does_nothing() {
    let server = Server::start(|_| {});
    let mut other = server.client().await;
    let mut client = server.client().await;
    client.act_later(1, "gate", json!([{"join": "room"}, {"to": [], "emit": ["from a ghost"]}])).await;
    client.send("41").await;
    server.hears("disconnected").await;
    // The same client again: another socket, perhaps in the same slot.
    client.join("/").await;
    server.strings.open("gate");
    client.act_and_wait(json!([])).await;
    other.act_and_wait(json!([])).await;
    assert_eq!(server.metric("jackfield_rooms"), 0);
    assert_eq!(server.metric("jackfield_broadcasts_total"), 0);
}
