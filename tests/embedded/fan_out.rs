//! Long deliveries on one shard: who gets what before which, and what may happen meanwhile.

use serde_json::json;

use crate::harness::{Client, DEADLINE, Options, Server, room_for_a_crowd};

/// More sockets than a delivery serves in one slice, many times over.
const CROWD: usize = 3_000;

/// Bytes of the frame of a short text.
fn frame_bytes(text: &str) -> u64 {
    assert!(text.len() < 126);
    text.len() as u64 + 2
}

/// Expects that so many bytes lie ready for each client at this moment.
fn check_waiting(crowd: &[Client], at_least: u64) {
    let behind = crowd.iter().filter(|client| client.waiting_bytes() < at_least).count();
    assert_eq!(behind, 0, "clients that a later packet has overtaken, of {}", crowd.len());
}

async fn in_room(server: &Server, count: usize) -> Vec<Client> {
    let mut clients = server.clients(count).await;
    for client in &mut clients {
        client.act_and_wait(json!([{"join": "room"}])).await;
    }
    clients
}

#[tokio::test]
async fn a_packet_to_one_socket_waits_for_the_broadcasts_before_it() {
    let _room = room_for_a_crowd().await;
    let server = Server::start(|_| {});
    let mut crowd = server.clients(CROWD).await;
    let mut sender = crowd.pop().unwrap();
    sender
        .act(json!([
            {"to": [], "emit": ["a"]},
            {"to": [], "emit": ["b"]},
            {"emit": ["to myself"]},
            {"to": [], "emit": ["c"]},
            {"emit": ["the end"]},
        ]))
        .await;
    let one = frame_bytes(r#"42["a"]"#);
    sender.expect(&[r#"42["a"]"#, r#"42["b"]"#, r#"42["to myself"]"#]).await;
    check_waiting(&crowd, 2 * one);
    sender.expect(&[r#"42["c"]"#, r#"42["the end"]"#]).await;
    check_waiting(&crowd, 3 * one);
    for client in &mut crowd {
        client.expect(&[r#"42["a"]"#, r#"42["b"]"#, r#"42["c"]"#]).await;
    }
    assert_eq!(server.metric("jackfield_broadcasts_total"), 3);
    assert_eq!(server.metric("jackfield_deliveries_total"), 3 * CROWD as u64);
}

#[tokio::test]
async fn what_others_do_meanwhile_waits_for_the_end_of_a_long_delivery() {
    let _room = room_for_a_crowd().await;
    let server = Server::start(|_| {});
    let mut crowd = in_room(&server, CROWD).await;
    let mut first = crowd.remove(0);
    let (mut sender, mut newcomer) = (server.client().await, server.client().await);
    for round in 0..5 {
        let text = format!(r#"42["round {round}"]"#);
        sender.act(json!([{"to": ["room"], "emit": [format!("round {round}")]}])).await;
        // The first member has it, most others have not: an answer and a join must wait for them.
        first.expect(&[&text]).await;
        newcomer.act_and_wait(json!([{"join": "room"}])).await;
        check_waiting(&crowd, frame_bytes(&text));
        sender.act(json!([{"to": ["room"], "emit": ["next"]}])).await;
        // A member since before this one, but not of the one before.
        newcomer.expect(&[r#"42["next"]"#]).await;
        newcomer.act_and_wait(json!([{"leave": "room"}])).await;
        first.expect(&[r#"42["next"]"#]).await;
        for client in &mut crowd {
            client.expect(&[&text, r#"42["next"]"#]).await;
        }
    }
}

#[tokio::test]
async fn members_may_go_in_the_middle_of_a_delivery() {
    let _room = room_for_a_crowd().await;
    let server = Server::start(|_| {});
    let mut crowd = in_room(&server, CROWD).await;
    let mut sender = server.client().await;
    let late = crowd.split_off(CROWD / 2);
    sender.act(json!([{"to": ["room"], "emit": ["a"]}, {"to": ["room"], "emit": ["b"]}])).await;
    crowd[0].expect(&[r#"42["a"]"#]).await;
    for (index, mut client) in late.into_iter().enumerate() {
        match index % 3 {
            0 => client.reset(),
            1 => drop(client),
            _ => assert!(client.try_send("41").await),
        }
    }
    crowd[0].expect(&[r#"42["b"]"#]).await;
    for client in &mut crowd[1..] {
        client.expect(&[r#"42["a"]"#, r#"42["b"]"#]).await;
    }
    let left = CROWD as u64 / 2 + 1;
    crate::harness::until("those who went are gone", || server.metric("jackfield_sockets") == left).await;
    let before = server.metric("jackfield_deliveries_total");
    sender.act_and_wait(json!([{"to": ["room"], "emit": ["c"]}])).await;
    for client in &mut crowd {
        client.expect(&[r#"42["c"]"#]).await;
    }
    assert_eq!(server.metric("jackfield_deliveries_total") - before, CROWD as u64 / 2);
    assert_eq!(server.strings.heard_of("disconnected").len(), CROWD / 2);
}

#[tokio::test]
async fn adjacent_broadcasts_arrive_in_their_order_even_for_different_rooms() {
    let server = Server::start(|_| {});
    let mut clients = server.clients(40).await;
    for (index, client) in clients.iter_mut().enumerate() {
        client.act_and_wait(json!([{"join": if index % 2 == 0 { "even" } else { "odd" }}])).await;
    }
    // More than one walk takes at once.
    let broadcasts: Vec<_> = (0..200)
        .map(|number| match number % 3 {
            0 => json!({"to": [], "emit": [number]}),
            1 => json!({"to": ["even"], "emit": [number]}),
            _ => json!({"to": ["odd", "nobody"], "emit": [number]}),
        })
        .map(|mut broadcast| {
            broadcast["emit"] = json!(["n", broadcast["emit"][0]]);
            broadcast
        })
        .collect();
    clients[0].act(json!(broadcasts)).await;
    for (index, client) in clients.iter_mut().enumerate() {
        for number in (0..200).filter(|number| number % 3 == 0 || number % 3 == 1 + index % 2) {
            client.expect(&[&format!(r#"42["n",{number}]"#)]).await;
        }
    }
}

#[tokio::test]
async fn several_rooms_reach_each_socket_once_and_except_leaves_out() {
    let server = Server::start(|_| {});
    let mut clients = server.clients(5).await;
    let ids: Vec<String> = clients.iter().map(|client| client.id.clone()).collect();
    for (client, rooms) in clients.iter_mut().zip([&["a"][..], &["a", "b"], &["b"], &["c"], &[]]) {
        let joins: Vec<_> = rooms.iter().map(|room| json!({"join": room})).collect();
        client.act_and_wait(json!(joins)).await;
    }
    let cases = [
        (json!(["a", "b"]), json!([]), vec![0, 1, 2]),
        (json!(["a", "a", "a"]), json!([]), vec![0, 1]),
        (json!(["b", "a"]), json!(["a"]), vec![2]),
        (json!([]), json!(["a", "c"]), vec![2, 4]),
        (json!([]), json!([ids[0], ids[4]]), vec![1, 2, 3]),
        (json!([ids[4], "c", ids[3]]), json!([]), vec![3, 4]),
        (json!([ids[2]]), json!(["b"]), vec![]),
        (json!(["nobody", "is here"]), json!([]), vec![]),
        (json!(["a", "b", "c"]), json!(["nobody", ids[1]]), vec![0, 2, 3]),
    ];
    for (number, (to, except, expected)) in cases.into_iter().enumerate() {
        clients[4]
            .send(&format!(r#"42["do",{{"to":{to},"except":{except},"emit":["case",{number}]}}]"#))
            .await;
        for (index, client) in clients.iter_mut().enumerate() {
            if expected.contains(&index) {
                client.expect(&[&format!(r#"42["case",{number}]"#)]).await;
            }
        }
        // Whoever got it twice, or should not have got it, does not answer this alone.
        for client in &mut clients {
            client.act_and_wait(json!([])).await;
        }
    }
}

#[tokio::test]
async fn a_broadcast_stays_in_its_namespace() {
    let server = Server::start(|_| {});
    let (mut root, mut both) = (server.client().await, server.client().await);
    both.join("/custom").await;
    both.send(r#"42/custom,["do",{"join":"room"},{"to":["room"],"emit":["here"]},{"to":[],"emit":["all"]}]"#)
        .await;
    both.expect(&[r#"42/custom,["here"]"#, r#"42/custom,["all"]"#]).await;
    root.act(json!([{"to": ["room"], "emit": ["nobody"]}, {"to": [], "emit": ["root"]}])).await;
    root.expect(&[r#"42["root"]"#]).await;
    both.expect(&[r#"42["root"]"#]).await;
}

#[tokio::test]
async fn nobody_joins_the_room_that_is_another_socket() {
    let server = Server::start(|_| {});
    let (mut client, mut victim) = (server.client().await, server.client().await);
    client.act_and_wait(json!([{"join": victim.id}])).await;
    victim.act(json!([{"to": [victim.id], "emit": ["to the victim"]}])).await;
    victim.expect(&[r#"42["to the victim"]"#]).await;
    client.act_and_wait(json!([])).await;
    assert_eq!(server.metric("jackfield_limit_hits_total"), 1);
}

#[tokio::test]
async fn volatile_packets_are_left_out_only_for_a_websocket_that_takes_no_more() {
    let server = Server::start(|edge| edge.limits.outbox_stalled_ms = 60_000);
    let mut reader = server.client().await;
    let mut stuck = server.client_with(&Options::narrow()).await;
    let mut sender = server.client().await;
    let filler = "x".repeat(60_000);
    let text = |number: usize| format!(r#"42["v",{number},"{filler}"]"#);
    let mut sent = 0;
    let since = std::time::Instant::now();
    while server.metric("jackfield_volatile_dropped_total") < 5 {
        assert!(since.elapsed() < DEADLINE, "the kernel takes everything");
        sender.act(json!([{"to": [], "emit": ["v", sent, filler], "volatile": true}])).await;
        // Those who read miss nothing.
        for client in [&mut sender, &mut reader] {
            client.expect(&[&text(sent)]).await;
        }
        sent += 1;
    }
    // At most one packet waits: the one that the stream has taken in part.
    assert!(server.metric("jackfield_outbox_bytes") < 61_000, "{}", server.metric("jackfield_outbox_bytes"));
    let dropped = usize::try_from(server.metric("jackfield_volatile_dropped_total")).expect("a count");
    for number in 0..sent - dropped {
        stuck.expect(&[&text(number)]).await;
    }
    crate::harness::until("everything is written", || server.metric("jackfield_outbox_bytes") == 0).await;
    sender.act(json!([{"to": [], "emit": ["last"], "volatile": true}])).await;
    stuck.expect(&[r#"42["last"]"#]).await;
    assert_eq!(server.metric("jackfield_slow_consumers_closed_total"), 0);
}

#[tokio::test]
async fn volatile_packets_are_left_out_for_polling_only_when_something_waits_already() {
    let server = Server::start(|_| {});
    let session = server.polling().await;
    let id = session.join().await;
    let mut sender = server.client().await;
    let volatile = |name: &str| json!([{"to": [id], "emit": [name], "volatile": true}]);
    let before = server.metric("jackfield_http_requests_total");
    let poll = session.start_get().await;
    server.until("jackfield_http_requests_total", before + 1).await;
    sender.act(volatile("to a poll that waits")).await;
    poll.reply().await.expect(200, r#"42["to a poll that waits"]"#);
    sender.act_and_wait(volatile("into an empty outbox")).await;
    sender.act_and_wait(volatile("behind something else")).await;
    sender.act_and_wait(json!([{"to": [id], "emit": ["not volatile"]}])).await;
    assert_eq!(server.metric("jackfield_volatile_dropped_total"), 1);
    session.get().await.expect(200, "42[\"into an empty outbox\"]\x1e42[\"not volatile\"]");
}

#[tokio::test]
async fn handshakes_and_heartbeats_go_on_during_deliveries() {
    let _room = room_for_a_crowd().await;
    let server = Server::start(|edge| (edge.ping_interval_ms, edge.ping_timeout_ms) = (300, 20_000));
    let mut crowd = server.clients(1_000).await;
    let mut sender = server.client().await;
    let broadcasts: Vec<_> = (0..60).map(|_| json!({"to": [], "emit": ["flood"]})).collect();
    for _ in 0..4 {
        sender.act(json!(broadcasts)).await;
    }
    // It opens while the floods are delivered, and gets what was sent after it joined: nothing.
    let mut newcomer = server.client().await;
    assert_eq!(newcomer.next().await, crate::harness::Next::Text("2".to_owned()));
    for client in crowd.iter_mut().chain([&mut sender]) {
        for _ in 0..240 {
            client.expect(&[r#"42["flood"]"#]).await;
        }
    }
}
