//! Two clusters on one broker, under different names, hear nothing of each other.

use std::time::Duration;

use cluster_proto::broadcast::Selector;
use edge::upstream::Args;
use serde_json::json;
use system_tests::waiting::until;

use crate::brokers::Broker;
use crate::client::Client;
use crate::nodes::{Nodes, beside_heartbeats, hear_all, path, rooms};

/// Names that begin like each other, and one that would be a pattern.
const NAMES: [&str; 4] = ["socket.io", "socket.io2", "socket.io/", "socket.*"];
/// RabbitMQ takes fewer characters; in a topic key `.` separates words.
const EXCHANGES: [&str; 3] = ["jackfield", "jackfield2", "jackfield.v1"];

/// Nobody answers, so it is short; nodes may take half a second longer.
const SILENT_FOR: Duration = Duration::from_millis(500);

struct Apart {
    // They go first: an edge that closes waits for its clients.
    crowd: Vec<Client>,
    nodes: Nodes,
}

async fn start(broker: &Broker, name: &str) -> Apart {
    let nodes = Nodes::start(&broker.cluster(name), 2).await;
    let mut crowd = nodes.few("/").await;
    for client in &mut crowd {
        client.act(json!([{"join": "r"}, {"user": "ann"}])).await;
    }
    Apart { crowd, nodes }
}

/// One cluster does all that there is, with the names of everybody's sockets; the others must not notice.
async fn busy(one: &mut Apart, everybody: &[String]) {
    let root = path("/");
    let own = one.crowd.len() as u64;
    for node in &one.nodes.0 {
        for selector in [rooms([]), rooms(["r"]), rooms(["r", "s"]), rooms(["user:ann"])] {
            node.emit("/", selector, "event");
        }
        let all = Selector { rooms: everybody.to_vec(), except: Vec::new() };
        node.emit("/", all.clone(), "event");
        for id in everybody {
            node.emit("/", rooms([id]), "event");
        }
        node.cluster.server_emit(&root, Args::text(r#"["hello"]"#)).expect("a valid event");
        let asked = node.cluster.server_emit_with_ack(&root, Args::text(r#"["question"]"#)).await;
        let answers = asked.expect("a valid event");
        assert_eq!((answers.answers.len(), answers.missing.is_nobody()), (1, true), "{answers:?}");
        for selector in [rooms([]), all] {
            let found = node.cluster.fetch(&root, selector.clone()).await;
            assert_eq!(
                (found.sockets.len() as u64, found.missing.is_nobody()),
                (own, true),
                "{:?}",
                found.missing
            );
            let joined = node.cluster.join(&root, selector.clone(), vec!["joined".to_owned()]).await;
            assert_eq!((joined.sockets, joined.missing.is_nobody()), (own, true), "{joined:?}");
            let left = node.cluster.leave(&root, selector, vec!["joined".to_owned()]).await;
            assert_eq!((left.sockets, left.missing.is_nobody()), (own, true), "{left:?}");
        }
        let args = Args::text(r#"["question"]"#);
        let asked = node.cluster.emit_with_ack(&root, rooms(["r"]), args, SILENT_FOR).await;
        let acks = asked.expect("a valid event");
        assert_eq!((acks.silent_count, acks.missing.is_nobody()), (own, true), "{acks:?}");
        node.emit("/", rooms([]), "mark");
        for heard in hear_all(&mut one.crowd, "mark").await {
            // Four to rooms, one to all names and one to its own, and the question.
            assert_eq!(heard.len(), 7, "{heard:?}");
        }
        // When this is answered, the node has heard its own echoes too.
        node.cluster.fetch(&root, rooms([])).await;
    }
}

async fn all(broker: &Broker, names: &[&str]) {
    let mut clusters = Vec::new();
    for name in names {
        clusters.push(start(broker, name).await);
    }
    let everybody: Vec<String> =
        clusters.iter().flat_map(|one| one.crowd.iter().map(|client| client.id.clone())).collect();
    let received = |one: &Apart| -> Vec<u64> {
        let metrics = one.nodes.0.iter().map(|node| node.metrics());
        metrics.map(beside_heartbeats).collect()
    };
    for number in 0..clusters.len() {
        let before: Vec<_> = clusters.iter().map(received).collect();
        busy(&mut clusters[number], &everybody).await;
        // What one says to itself comes behind what it could have heard of the busy one.
        for (at, one) in clusters.iter_mut().enumerate().filter(|(at, _)| *at != number) {
            let echoes = || one.nodes.first().metrics().echoes.get();
            let echoes_before = echoes();
            one.nodes.first().emit("/", rooms([]), "mark");
            for heard in hear_all(&mut one.crowd, "mark").await {
                assert_eq!(heard, [""; 0], "{} heard {}", names[at], names[number]);
            }
            // The first hears its mark as an echo, whenever that comes.
            until("the echo of the mark", || echoes() > echoes_before).await;
            let beside: Vec<u64> =
                received(one).iter().zip(&before[at]).map(|(now, before)| now - before).collect();
            assert_eq!(beside, [1, 1], "{} received what {} published", names[at], names[number]);
        }
    }
    // Two more heartbeats of everybody, in which strangers would have been seen.
    for one in &clusters {
        for node in &one.nodes.0 {
            let before = node.metrics().heartbeats.get();
            until("two more heartbeats", || node.metrics().heartbeats.get() >= before + 4).await;
            assert_eq!(node.cluster.adapter().nodes().len(), 1);
            let heard = node.strings.heard_of("server event");
            assert_eq!(heard.len(), 2, "{heard:?}");
        }
    }
}

fn check(broker: &Broker, names: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(all(broker, names));
}

#[test]
fn prefixes_on_redis() {
    check(&Broker::redis(), &NAMES);
}

#[test]
fn exchanges_on_rabbitmq() {
    check(&Broker::rabbitmq(), &EXCHANGES);
}
