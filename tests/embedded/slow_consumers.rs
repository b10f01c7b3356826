//! Clients that take no more, or never finish what they send: they are closed, and they alone.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::stream::header;
use crate::harness::{Client, DEADLINE, Next, Options, Server, until};

/// An event of this size is sent again and again until something gives way.
const EVENT_BYTES: usize = 50_000;

/// Broadcasts to these rooms until the outboxes hold `bytes`, if that is asked for, or somebody is closed; how often.
/// With no rooms the sender gets its own, and must keep up.
async fn flood(server: &Server, sender: &mut Client, rooms: &[&str], bytes: Option<u64>) -> usize {
    let filler = "x".repeat(EVENT_BYTES);
    let since = Instant::now();
    for sent in 0.. {
        let is_full = bytes.is_some_and(|bytes| server.metric("jackfield_outbox_bytes") >= bytes);
        if is_full || server.metric("jackfield_slow_consumers_closed_total") > 0 {
            return sent;
        }
        assert!(since.elapsed() < DEADLINE, "after {sent} events");
        sender.act_and_wait(json!([{"to": rooms, "except": [sender.id], "emit": [filler, sent]}])).await;
    }
    unreachable!()
}

/// Reads so many events of the flood, which must be the first ones.
async fn expect_flood(client: &mut Client, count: usize) {
    for number in 0..count {
        let text = client.text().await;
        assert!(
            text.ends_with(&format!("x\",{number}]")),
            "{:?} is not number {number}",
            text.get(text.len() - 20..)
        );
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_at_its_bound_and_alone() {
    let server = Server::start(|edge| {
        edge.limits.outbox_bytes_max = 300_000;
        edge.limits.outbox_stalled_bytes_max = 300_000;
    });
    let (mut sender, mut reader) = (server.client().await, server.client().await);
    let mut stuck = server.client_with(&Options::narrow()).await;
    let filler = "x".repeat(EVENT_BYTES);
    let mut sent = 0;
    while server.metric("jackfield_slow_consumers_closed_total") == 0 {
        sender.act(json!([{"to": [], "emit": [filler, sent]}])).await;
        sender.text().await;
        let text = reader.text().await;
        assert!(text.ends_with(&format!("\",{sent}]")), "the reader misses nothing");
        // What keeping the last one costs comes on top.
        assert!(server.metric("jackfield_outbox_bytes") <= 300_100);
        sent += 1;
    }
    // The last one that it gets is whole, then it reads why.
    let (texts, end) = stuck.rest().await;
    assert_eq!(end, Next::Closed(Some(1013)));
    assert!(
        texts.len() < sent && texts.iter().all(|text| text.len() > EVENT_BYTES),
        "{} of {sent}",
        texts.len()
    );
    drop(stuck);
    sender.act(json!([{"to": [], "emit": ["on"]}])).await;
    reader.expect(&[r#"42["on"]"#]).await;
    assert_eq!(server.metric("jackfield_sockets"), 2);
    assert_eq!(server.metric("jackfield_outbox_bytes"), 0);
    assert_eq!(server.strings.heard_of("disconnected").len(), 1);
    assert_eq!(server.closed_for("transport error"), 1);
}

#[tokio::test]
async fn a_client_that_takes_nothing_for_too_long_is_closed_without_another_packet() {
    let server = Server::start(|edge| {
        edge.limits.outbox_stalled_bytes_max = 100_000;
        edge.limits.outbox_stalled_ms = 300;
    });
    let mut sender = server.client().await;
    let mut stuck = server.client_with(&Options::narrow()).await;
    let since = Instant::now();
    flood(&server, &mut sender, &[], Some(100_100)).await;
    server.until("jackfield_slow_consumers_closed_total", 1).await;
    assert!(since.elapsed() >= Duration::from_millis(300));
    assert_eq!(stuck.rest().await.1, Next::Closed(Some(1013)));
    sender.act_and_wait(json!([])).await;
}

#[tokio::test]
async fn a_client_below_the_stall_bound_may_take_its_time() {
    let server = Server::start(|edge| {
        edge.limits.outbox_stalled_bytes_max = 1_000_000;
        edge.limits.outbox_stalled_ms = 50;
    });
    let mut sender = server.client().await;
    let mut stuck = server.client_with(&Options::narrow()).await;
    let sent = flood(&server, &mut sender, &[], Some(1)).await;
    // Longer than the stall time, by the protocol's own clock.
    tokio::time::sleep(Duration::from_millis(200)).await;
    expect_flood(&mut stuck, sent).await;
    assert_eq!(server.metric("jackfield_slow_consumers_closed_total"), 0);
}

#[tokio::test]
async fn many_adjacent_broadcasts_do_not_pass_the_bound_together() {
    let server = Server::start(|edge| {
        edge.limits.outbox_bytes_max = 300_000;
        edge.limits.outbox_stalled_bytes_max = 300_000;
    });
    let session = server.polling().await;
    session.join().await;
    let mut sender = server.client().await;
    // Sixty of them are one walk over the sockets.
    let filler = "x".repeat(10_000);
    let broadcasts: Vec<_> =
        (0..60).map(|_| json!({"to": [], "except": [sender.id], "emit": [filler]})).collect();
    sender.act_and_wait(json!(broadcasts)).await;
    assert_eq!(server.metric("jackfield_slow_consumers_closed_total"), 1);
    assert_eq!(server.metric("jackfield_outbox_bytes"), 0);
    session.get().await.expect(400, r#"{"code":1,"message":"Session ID unknown"}"#);
}

#[tokio::test]
async fn one_packet_larger_than_the_bound_is_taken_by_an_empty_outbox() {
    let server = Server::start(|edge| {
        edge.limits.outbox_bytes_max = 10_000;
        edge.limits.outbox_stalled_bytes_max = 10_000;
    });
    let session = server.polling().await;
    let id = session.join().await;
    let mut sender = server.client().await;
    let filler = "x".repeat(500_000);
    sender.act_and_wait(json!([{"to": [id], "emit": [filler]}])).await;
    session.get().await.expect(200, &format!(r#"42["{filler}"]"#));
    assert_eq!(server.metric("jackfield_slow_consumers_closed_total"), 0);
}

#[tokio::test]
async fn a_polling_client_that_stays_away_is_closed_at_its_bound() {
    let server = Server::start(|edge| {
        edge.limits.outbox_bytes_max = 300_000;
        edge.limits.outbox_stalled_bytes_max = 300_000;
    });
    let session = server.polling().await;
    session.join().await;
    let mut sender = server.client().await;
    let sent = flood(&server, &mut sender, &[], None).await;
    assert_eq!(sent, 6, "five events fit into the bound");
    session.get().await.expect(400, r#"{"code":1,"message":"Session ID unknown"}"#);
}

#[tokio::test]
async fn a_shard_that_holds_too_much_closes_the_largest_outbox() {
    let server = Server::start(|edge| edge.limits.outbox_shared_bytes_max = 1 << 20);
    let mut sender = server.client().await;
    let (mut small, mut large) =
        (server.client_with(&Options::narrow()).await, server.client_with(&Options::narrow()).await);
    let kept = flood(&server, &mut sender, &[&small.id], Some(250_000)).await;
    flood(&server, &mut sender, &[&large.id], None).await;
    assert_eq!(large.rest().await.1, Next::Closed(Some(1013)));
    expect_flood(&mut small, kept).await;
    assert_eq!(server.metric("jackfield_slow_consumers_closed_total"), 1);
    assert_eq!(
        server.strings.heard_of("disconnected"),
        [format!("disconnected / {} transport error", large.id)]
    );
}

#[tokio::test]
async fn a_shard_that_holds_too_many_half_messages_closes_the_largest_holder() {
    let server = Server::start(|edge| edge.limits.inbound_partial_bytes_max = 1 << 20);
    let (mut small, mut large) = (server.client().await, server.client().await);
    let event = format!(r#"427["do",{{"emit":["{}"]}}]"#, "x".repeat(500_000));
    let frame = [&header(0x81, event.len()), event.as_bytes()].concat();
    let (first, second) = frame.split_at(400_000);
    small.try_write(first).await;
    server.until("jackfield_inbound_partial_bytes", 390_000).await;
    large.try_write(&header(0x81, 900_000)).await;
    large.try_write(&vec![b' '; 800_000]).await;
    large.expect_close(Some(1013)).await;
    assert_eq!(server.metric("jackfield_limit_hits_total"), 1);
    small.try_write(second).await;
    assert_eq!(small.text().await.len(), 500_000 + r#"42[""]"#.len());
    small.expect(&["437[true]"]).await;
    until("nothing is held", || server.metric("jackfield_inbound_partial_bytes") == 0).await;
    assert_eq!(server.metric("jackfield_sockets"), 1);
}
