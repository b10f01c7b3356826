//! What holds on every broker.

use std::time::Duration;

use adapter::interest::JoinOutcome;
use cluster_proto::broadcast::{BroadcastOptions, Selector};
use cluster_proto::message::{JsonData, Operation, Reply};
use cluster_proto::response::Answer;

use crate::adapter::node::{Cluster, TestNode, broadcast, message};
use crate::nodes::beside_heartbeats;

/// One case, on nodes of its own.
type Case = fn(&Cluster);

/// Every case, one after the other, so that a broker is started once.
pub(crate) fn all(cluster: &Cluster) {
    let cases: [(&str, Case); 11] = [
        ("events reach the nodes with members", events_reach_the_nodes_with_members),
        ("strange names are only names", strange_names_are_only_names),
        ("sockets are reached at their node", sockets_are_reached_at_their_node),
        ("order is kept", order_is_kept),
        ("a join is fenced", a_join_is_fenced),
        ("binary data travels", binary_data_travels),
        ("keyed messages are handled once", keyed_messages_are_handled_once),
        ("requests are answered", requests_are_answered),
        ("the silent are named", the_silent_are_named),
        ("a goodbye is heard", a_goodbye_is_heard),
        ("idle nodes hear nothing", idle_nodes_hear_nothing),
    ];
    for (name, case) in cases {
        let began = std::time::Instant::now();
        case(cluster);
        eprintln!("{name}: {} ms", began.elapsed().as_millis());
    }
}

/// Publishes one more event to the namespace, behind which everything published before has arrived.
fn settle(from: &TestNode, nodes: &[&TestNode], mark: &str) {
    from.publish("/", &[], mark);
    for node in nodes {
        node.hears(mark);
    }
}

fn without_marks(node: &TestNode) -> Vec<String> {
    node.events().into_iter().filter(|event| !event.starts_with("mark")).collect()
}

fn events_reach_the_nodes_with_members(cluster: &Cluster) {
    let nodes = cluster.edges(3);
    let [a, b, c] = &*nodes else { panic!("three nodes") };
    for node in [a, b, c] {
        node.joined("/", None);
    }
    b.joined("/", Some("one"));
    c.joined("/", Some("two"));
    c.joined("/chat", None);
    a.publish("/", &[], "everybody");
    a.publish("/", &["one"], "room one");
    a.publish("/", &["one", "two"], "both rooms");
    a.publish("/chat", &[], "other namespace");
    a.publish("/chat", &["one"], "room of another namespace");
    settle(a, &[b, c], "mark 1");
    // Without members a room is not heard, but where two or more rooms are meant every node may look for itself.
    let heard = |node: &TestNode| without_marks(node);
    assert!(heard(b).contains(&"everybody".to_owned()) && heard(b).contains(&"room one".to_owned()));
    assert!(heard(b).contains(&"both rooms".to_owned()) && heard(c).contains(&"both rooms".to_owned()));
    assert!(!heard(c).contains(&"room one".to_owned()));
    assert!(heard(c).contains(&"other namespace".to_owned()));
    assert!(!heard(b).iter().chain(&heard(c)).any(|event| event == "room of another namespace"));
    for node in [b, c] {
        let mut events = node.events();
        let count = events.len();
        events.sort();
        events.dedup();
        assert_eq!(events.len(), count, "nothing arrives twice");
    }
    assert_eq!(a.events(), [""; 0], "nobody hears himself");

    b.adapter.leave(&crate::adapter::node::namespace("/"), Some("one"));
    b.joined("/", Some("one"));
    a.publish("/", &["one"], "back again");
    b.hears("back again");
}

fn strange_names_are_only_names(cluster: &Cluster) {
    let nodes = cluster.edges(2);
    let [a, b] = &*nodes else { panic!("two nodes") };
    let rooms = ["", "#", "a#b", "/", "*", "a*?[x]\\", "😀", "é", "true", "12", "twenty_characters_ab", " "];
    for path in ["/", "/x", "/x/y", "/x#y", "/xy"] {
        b.joined(path, None);
        for room in rooms {
            b.joined(path, Some(room));
        }
        for (number, room) in rooms.iter().enumerate() {
            a.publish(path, &[room], &format!("{path} {number}"));
        }
        a.publish(path, &[], &format!("{path} all"));
        b.hears(&format!("{path} all"));
    }
    b.joined("/", None);
    settle(a, &[b], "mark");
    let mut heard = without_marks(b);
    assert_eq!(heard.len(), 5 * (rooms.len() + 1), "{heard:?}");
    heard.sort();
    heard.dedup();
    assert_eq!(heard.len(), 5 * (rooms.len() + 1));
}

fn sockets_are_reached_at_their_node(cluster: &Cluster) {
    let nodes = cluster.edges(3);
    let [a, b, c] = &*nodes else { panic!("three nodes") };
    for node in [a, b, c] {
        node.joined("/", None);
    }
    b.joined("/", Some(&b.sid(1)));
    a.publish("/", &[&b.sid(1)], "one socket");
    a.publish("/", &[&b.sid(1), &c.sid(1), &b.sid(2)], "three sockets");
    a.publish("/", &[&format!("/chat#{}", c.sid(3))], "a socket of protocol 4");
    settle(a, &[b, c], "mark");
    assert_eq!(without_marks(b), ["one socket", "three sockets"]);
    assert_eq!(without_marks(c), ["three sockets", "a socket of protocol 4"]);
}

fn order_is_kept(cluster: &Cluster) {
    let nodes = cluster.edges(2);
    let [a, b] = &*nodes else { panic!("two nodes") };
    b.joined("/", None);
    b.joined("/", Some("r"));
    for number in 0..2_000 {
        a.publish("/", &["r"], &number.to_string());
    }
    b.hears("1999");
    assert_eq!(b.events(), (0..2_000).map(|number: u32| number.to_string()).collect::<Vec<_>>());
}

/// What is published right after a join was acknowledged is heard, every time.
fn a_join_is_fenced(cluster: &Cluster) {
    let nodes = cluster.edges(2);
    let [a, b] = &*nodes else { panic!("two nodes") };
    b.joined("/", None);
    for number in 0..1_000 {
        let room = format!("fenced {number}");
        b.joined("/", Some(&room));
        a.publish("/", &[&room], &room);
    }
    settle(a, &[b], "mark");
    assert_eq!(without_marks(b).len(), 1_000);
    for number in 0..1_000 {
        b.adapter.leave(&crate::adapter::node::namespace("/"), Some(&format!("fenced {number}")));
    }
}

fn binary_data_travels(cluster: &Cluster) {
    let nodes = cluster.edges(2);
    let [a, b] = &*nodes else { panic!("two nodes") };
    b.joined("/", None);
    let text = r#"["bin",{"_placeholder":true,"num":0}]"#.to_owned();
    let event = JsonData::with_attachments(text, vec![vec![0, 255, 1].into()]);
    let operation = Operation::Broadcast { event: event.clone(), options: BroadcastOptions::default() };
    a.adapter.publish(message("/", operation)).unwrap();
    let heard = b.ears.wait("binary data", |heard| {
        let Operation::Broadcast { event, .. } = &heard.messages.first()?.operation else { return None };
        Some(event.clone())
    });
    assert_eq!(heard, event);
}

fn keyed_messages_are_handled_once(cluster: &Cluster) {
    let nodes = cluster.edges(3);
    let [a, b, c] = &*nodes else { panic!("three nodes") };
    b.joined("/", None);
    for (number, from) in [a, c, a].into_iter().enumerate() {
        let mut keyed = broadcast("/", &[], "keyed");
        keyed.id = Some("the key".to_owned());
        from.adapter.publish(keyed).unwrap();
        settle(from, &[b], &format!("mark {number}"));
    }
    assert_eq!(without_marks(b), ["keyed"]);
    assert_eq!(b.adapter.metrics().duplicates.get(), 2);
}

const SOON: Duration = Duration::from_secs(5);

fn requests_are_answered(cluster: &Cluster) {
    let nodes = cluster.edges(3);
    let [a, b, c] = &*nodes else { panic!("three nodes") };
    for (node, sockets) in [(b, 3), (c, 0)] {
        node.joined("/", None);
        node.ears.change(|heard| heard.sockets = Some(sockets));
    }
    a.joined("/", None);
    let mut both = [b.adapter.node(), c.adapter.node()];
    both.sort();

    let (answers, end) = a.ask(SOON, |request| Operation::Fetch {
        request,
        selector: Selector::default(),
        page_sockets_max: Some(2),
        listing: None,
    });
    let pages: Vec<usize> = answers
        .iter()
        .filter(|answer| answer.node == Some(b.adapter.node()))
        .map(|answer| {
            let Answer::Sockets { sockets, .. } = &answer.answer else { panic!("{answer:?}") };
            sockets.len()
        })
        .collect();
    assert_eq!((pages, end.answered, end.timed_out), (vec![2, 1], both.to_vec(), false));

    let (answers, end) = a.ask(SOON, |request| Operation::BroadcastWithAck {
        request,
        event: JsonData::text(r#"["question"]"#),
        options: BroadcastOptions::default(),
    });
    let acks = answers.iter().filter(|answer| matches!(answer.answer, Answer::Ack { .. })).count();
    assert_eq!((acks, end.answered, end.missing_acks, end.timed_out), (3, both.to_vec(), 0, false));

    let (answers, end) = a.ask(SOON, |request| Operation::Join {
        selector: Selector::default(),
        rooms: vec!["x".to_owned()],
        reply: Reply::All(request),
    });
    assert_eq!((answers.len(), end.answered), (2, both.to_vec()));

    // Who has no sockets there can ask as well.
    let asker = cluster.node(&adapter::adapter::Identity::new(cluster_proto::heartbeat::Role::Emitter));
    asker.sees(3);
    a.ears.change(|heard| heard.sockets = Some(0));
    let (answers, end) = asker.ask(SOON, |request| Operation::Rooms { request });
    assert_eq!((answers.len(), end.answered.len(), end.missing.len()), (3, 3, 0), "{answers:?}");
    assert_eq!(a.adapter.metrics().requests_incomplete.get(), 0);
}

fn the_silent_are_named(cluster: &Cluster) {
    let nodes = cluster.edges(3);
    let [a, b, c] = &*nodes else { panic!("three nodes") };
    b.joined("/", None);
    c.joined("/", None);
    b.ears.change(|heard| heard.sockets = Some(1));
    let (answers, end) = a.ask(Duration::from_millis(1_500), |request| Operation::Rooms { request });
    assert_eq!(
        (answers.len(), end.answered, end.missing),
        (1, vec![b.adapter.node()], vec![c.adapter.node()])
    );
    assert!(end.timed_out);
}

fn a_goodbye_is_heard(cluster: &Cluster) {
    let (a, b) = (cluster.edge(), cluster.edge());
    a.sees(1);
    let node = b.adapter.node();
    drop(b);
    a.ears.wait("a goodbye", |heard| {
        heard.peers.contains(&adapter::cluster::peers::PeerEvent::Left(node)).then_some(())
    });
    a.sees(0);
}

/// Of an event for one room with members on one node, the others hear nothing at all.
fn idle_nodes_hear_nothing(cluster: &Cluster) {
    let nodes = cluster.edges(5);
    let (a, others) = nodes.split_first().unwrap();
    let (holder, idle) = others.split_first().unwrap();
    for node in &nodes {
        node.joined("/", None);
        node.joined("/", Some(&format!("own room of {}", node.adapter.node())));
    }
    holder.joined("/", Some("held"));
    assert_eq!(holder.join("/", Some("held")), JoinOutcome::Active);
    let beside = |node: &TestNode| {
        let metrics = node.adapter.metrics();
        beside_heartbeats(metrics) - metrics.echoes.get()
    };
    let before: Vec<u64> = idle.iter().map(beside).collect();
    for number in 0..500 {
        a.publish("/", &["held"], &number.to_string());
        a.publish("/", &[&holder.sid(7)], &format!("sid {number}"));
    }
    holder.hears("499");
    holder.hears("sid 499");
    // What was published before this has been routed already.
    settle(a, &others.iter().collect::<Vec<_>>(), "mark");
    let heard: Vec<u64> = idle.iter().zip(before).map(|(node, before)| beside(node) - before).collect();
    assert_eq!(heard, vec![1; idle.len()], "only the mark");
}
