//! Several shards: broadcasts reach all of them in the order of their publisher, and a shard that is behind slows
//! its publishers down and loses nothing.

use std::time::Duration;

use edge::ids::{SessionId, SocketId};
use serde_json::json;

use crate::harness::websocket::event;
use crate::harness::{Client, Polling, Server, not_within, room_for_a_crowd, until};

/// What keeps a shard from taking anything.
const GATE: &str = "gate";

/// Long enough for an edge that should not act to act.
const QUIET: Duration = Duration::from_millis(300);

/// Holds up a client's whole shard until the gate opens.
async fn block(server: &Server, client: &mut Client) {
    client.send(&format!("42{}", event("block", &[GATE.into()], &json!([])))).await;
    server.hears("block").await;
}

#[tokio::test]
async fn rooms_span_the_shards_and_each_publisher_keeps_its_order() {
    let server = Server::start(|edge| edge.shards = 3);
    let mut clients = Vec::new();
    for shard in [0, 1, 2, 0, 1, 2] {
        let mut client = server.client_on(shard).await;
        client.act_and_wait(json!([{"join": "room"}])).await;
        clients.push(client);
    }
    let count = 200;
    for number in 0..count {
        for (publisher, client) in clients.iter_mut().take(3).enumerate() {
            let to = if number % 2 == 0 { json!(["room"]) } else { json!([]) };
            client.act(json!([{"to": to, "emit": ["n", publisher, number]}])).await;
        }
    }
    for client in &mut clients {
        let mut next = [0; 3];
        for _ in 0..3 * count {
            let text = client.text().await;
            let (publisher, next) = (0..3)
                .zip(&mut next)
                .find(|(publisher, _)| text.starts_with(&format!(r#"42["n",{publisher},"#)))
                .expect("a publisher");
            assert_eq!(text, format!(r#"42["n",{publisher},{next}]"#));
            *next += 1;
        }
    }
    assert_eq!(server.metric("jackfield_inbox_bytes"), 0);
}

#[tokio::test]
async fn own_rooms_and_exceptions_work_across_shards() {
    let server = Server::start(|edge| edge.shards = 2);
    let (mut here, mut there) = (server.client_on(0).await, server.client_on(1).await);
    here.act(json!([
        {"to": [there.id], "emit": ["for you"]},
        {"to": [], "except": [there.id], "emit": ["not for you"]},
        {"to": [], "except": [here.id], "emit": ["not for me"]},
    ]))
    .await;
    there.expect(&[r#"42["for you"]"#, r#"42["not for me"]"#]).await;
    here.expect(&[r#"42["not for you"]"#]).await;
}

#[tokio::test]
async fn a_full_inbox_pauses_the_publisher_and_loses_nothing() {
    let server = Server::start(|edge| {
        edge.shards = 2;
        edge.limits.inbox_bytes_max = 1 << 20;
    });
    let (mut publisher, mut bystander) = (server.client_on(0).await, server.client_on(0).await);
    let mut receiver = server.client_on(1).await;
    let mut blocker = server.client_on(1).await;
    block(&server, &mut blocker).await;
    let filler = "x".repeat(100_000);
    let count = 60;
    // The small one would still fit where the large one before it does not.
    let event = |number: usize| {
        let to = [&receiver.id, &bystander.id];
        json!([{"to": to, "emit": [number, filler]}, {"to": to, "emit": [number]}])
    };
    let events: Vec<_> = (0..count).map(event).collect();
    let publishing = tokio::spawn(async move {
        for event in events {
            publisher.act(event).await;
        }
        publisher
    });
    server.until("jackfield_inbox_full_total", 1).await;
    // Reading has stopped: what the bystander gets is what fits, and one read more.
    let mut seen = 0;
    while let Ok(text) = tokio::time::timeout(4 * QUIET, bystander.text()).await {
        assert!(text.starts_with(&format!("42[{seen},")), "{text:.40}");
        bystander.expect(&[&format!("42[{seen}]")]).await;
        seen += 1;
    }
    // The last fifth is kept for what other nodes ask.
    assert!((8..=12).contains(&seen), "{seen} events of 100 kB for four fifths of an inbox of 1 MiB");
    assert!(server.metric("jackfield_inbox_bytes") <= 1 << 20);
    // Others on the publisher's shard are served.
    bystander.act_and_wait(json!([])).await;
    server.strings.open(GATE);
    for (client, first) in [(&mut bystander, seen), (&mut receiver, 0)] {
        for number in first..count {
            let text = client.text().await;
            assert!(text.starts_with(&format!("42[{number},")), "{text:.40}");
            client.expect(&[&format!("42[{number}]")]).await;
        }
    }
    publishing.await.unwrap().act_and_wait(json!([])).await;
    until("nothing is left in an inbox", || server.metric("jackfield_inbox_bytes") == 0).await;
}

#[tokio::test]
async fn a_full_inbox_holds_up_the_posts_of_a_polling_publisher() {
    let server = Server::start(|edge| {
        edge.shards = 2;
        edge.limits.inbox_bytes_max = 1 << 20;
    });
    // The shard that will be blocked has the most connections, so that no request comes in by it.
    let mut receiver = server.client_on(1).await;
    let _others = [server.client_on(1).await, server.client_on(1).await];
    let publisher = polling_on(&server, 0).await;
    publisher.join().await;
    block(&server, &mut receiver).await;
    let filler = "x".repeat(300_000);
    let post = async |number: usize| {
        let actions = json!([{"to": [receiver.id], "emit": [number, filler]}]);
        publisher.start_post(&format!("42{}", event("do", &[], &actions))).await
    };
    // Two fit into four fifths of the inbox, the third waits for it.
    for number in 0..3 {
        post(number).await.reply().await.expect(200, "ok");
    }
    assert!(server.metric("jackfield_inbox_full_total") > 0);
    assert!(server.metric("jackfield_peer_backlog_bytes") > 300_000);
    let mut held_up = Box::pin(post(3).await.reply());
    not_within(QUIET, "the fourth is taken", &mut held_up).await;
    server.strings.open(GATE);
    held_up.await.expect(200, "ok");
    for number in 0..4 {
        let text = receiver.text().await;
        assert!(text.starts_with(&format!("42[{number},")), "{text:.40}");
    }
    until("nothing waits", || server.metric("jackfield_peer_backlog_bytes") == 0).await;
}

/// A polling session that lives on this shard: the fourth byte of its id says so.
async fn polling_on(server: &Server, shard: usize) -> Polling {
    loop {
        let session = server.polling().await;
        if SessionId::parse(&session.sid).expect("an id").shard() == shard {
            return session;
        }
    }
}

#[tokio::test]
async fn a_shard_in_a_long_delivery_leaves_in_its_inbox_what_it_may_not_hold() {
    let _room = room_for_a_crowd().await;
    let server = Server::start(|edge| {
        edge.shards = 2;
        edge.limits.inbox_bytes_max = 1 << 20;
        edge.limits.turns_bytes_max = 65_536;
    });
    let mut crowd = Vec::new();
    for mut client in server.clients(3_000).await {
        if SocketId::parse(&client.id).expect("an id").shard() == 1 {
            client.act_and_wait(json!([{"join": "room"}])).await;
            crowd.push(client);
        }
    }
    let mut publisher = server.client_on(0).await;
    let filler = "x".repeat(100_000);
    let count = 60;
    let mut most = 0;
    for number in 0..count {
        // Nobody is in the other room; what counts is the bytes on their way to the shard that is busy.
        let large = json!({"to": ["nobody"], "emit": [number, filler]});
        publisher.act(json!([{"to": ["room"], "emit": ["n"]}, large])).await;
        most = most.max(server.metric("jackfield_turns_bytes"));
    }
    for client in &mut crowd {
        for _ in 0..count {
            client.expect(&[r#"42["n"]"#]).await;
        }
    }
    // Each shard takes at most one more than it may hold; the rest waited where it was, and slowed the publisher.
    assert!(most <= 2 * (65_536 + 110_000), "{most} bytes");
    assert!(server.metric("jackfield_inbox_full_total") > 0);
    until("nothing is left", || {
        server.metric("jackfield_inbox_bytes") == 0 && server.metric("jackfield_turns_bytes") == 0
    })
    .await;
}
