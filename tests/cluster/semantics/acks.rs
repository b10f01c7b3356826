//! Events that ask for an answer: of one socket, and of all in the cluster.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster_proto::broadcast::Selector;
use edge::cluster::Acks;
use edge::upstream::Args;
use futures_util::future::join_all;
use serde_json::{Value, json};
use system_tests::waiting::until;

use crate::client::Client;
use crate::nodes::{Node, Nodes, except, path, rooms};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where somebody keeps silent. The others answer far sooner.
const SOON: Duration = Duration::from_secs(2);

async fn ask(node: &Node, selector: Selector, timeout: Duration) -> Acks {
    let args = Args::text(r#"["question",1]"#);
    node.cluster.emit_with_ack(&path("/"), selector, args, timeout).await.expect("a valid event")
}

/// The client is asked, and answers with its name.
async fn answer(client: &mut Client) {
    let question = client.wait("a question", |heard| heard.data[0] == "question").await;
    let id = question.ack_id.expect("a question asks for an ack");
    let name = client.id.clone();
    client.mouth.ack("/", id, &json!([name, 2]), &[]).await;
}

async fn answer_all(crowd: impl Iterator<Item = &mut Client>) {
    for client in crowd {
        answer(client).await;
    }
}

/// Expects exactly these answers.
fn check<'a>(acks: &Acks, from: impl Iterator<Item = &'a Client>) {
    let mut heard: Vec<(String, Value)> = acks
        .acks
        .iter()
        .map(|ack| (ack.sid.clone().expect("a name"), serde_json::from_str(&ack.args.text).expect("JSON")))
        .collect();
    heard.sort_by(|one, other| one.0.cmp(&other.0));
    let mut expected: Vec<(String, Value)> =
        from.map(|client| (client.id.clone(), json!([client.id, 2]))).collect();
    expected.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(heard, expected);
    assert!(acks.missing.is_nobody(), "{:?}", acks.missing);
}

/// The ack of one socket and those of a broadcast do not take each other's answers.
pub(super) async fn of_one_socket(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    for (number, client) in crowd.iter_mut().enumerate() {
        client.act(json!([{"emit": ["mine"], "ack": number}])).await;
    }
    let (acks, ()) = tokio::join!(ask(nodes.last(), rooms([]), PATIENCE), answer_all(crowd.iter_mut()));
    check(&acks, crowd.iter());
    for (number, client) in crowd.iter_mut().enumerate() {
        let mine = client.wait("its own question", |heard| heard.data[0] == "mine").await;
        client.mouth.ack("/", mine.ack_id.expect("an ack id"), &json!(["for", number]), &[]).await;
        let strings = nodes.0[client.node].strings.clone();
        let line = format!(r#"acked {number} ["for",{number}]"#);
        until(&line, || strings.heard().contains(&line)).await;
    }
}

pub(super) async fn of_everybody(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    for node in &nodes.0 {
        let (acks, ()) = tokio::join!(ask(node, rooms([]), PATIENCE), answer_all(crowd.iter_mut()));
        check(&acks, crowd.iter());
        assert_eq!((acks.silent.len(), acks.silent_count), (0, 0));
    }
}

/// Those that keep silent, and those that go before they answer.
pub(super) async fn silent_clients_are_named(nodes: &Nodes) {
    let (mut few, mut silent, mut gone) = (nodes.few("/").await, nodes.few("/").await, nodes.few("/").await);
    let mut names: Vec<String> = silent.iter().chain(&gone).map(|client| client.id.clone()).collect();
    names.sort();
    let began = Instant::now();
    let others = async {
        for mut client in gone.drain(..) {
            client.wait("a question", |heard| heard.data[0] == "question").await;
        }
        answer_all(few.iter_mut()).await;
    };
    let (acks, ()) = tokio::join!(ask(nodes.first(), rooms([]), SOON), others);
    assert!(began.elapsed() >= SOON, "who is silent is waited for");
    check(&acks, few.iter());
    assert_eq!((acks.silent_count, acks.silent), (names.len() as u64, names));
    // An answer that comes too late is nobody's, and harms nobody.
    answer_all(silent.iter_mut()).await;
    few.append(&mut silent);
    let (acks, ()) = tokio::join!(ask(nodes.first(), rooms([]), PATIENCE), answer_all(few.iter_mut()));
    check(&acks, few.iter());
}

/// Questions of several applications at a time; the clients answer the last one first.
pub(super) async fn several_questions_at_once(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    let (root, count) = (path("/"), nodes.0.len());
    let asking = join_all(nodes.0.iter().enumerate().map(|(number, node)| {
        let args = Args::text(json!(["question", number]).to_string());
        node.cluster.emit_with_ack(&root, rooms([]), args, PATIENCE)
    }));
    let answering = async {
        for client in &mut crowd {
            let mut questions = Vec::new();
            for _ in 0..count {
                questions.push(client.next().await);
            }
            for question in questions.iter().rev() {
                let args = json!([client.id, question.data[1]]);
                client.mouth.ack("/", question.ack_id.expect("an ack id"), &args, &[]).await;
            }
        }
    };
    let (answers, ()) = tokio::join!(asking, answering);
    for (number, acks) in answers.into_iter().enumerate() {
        let acks = acks.expect("a valid event");
        assert_eq!((acks.acks.len(), acks.silent_count, acks.missing.is_nobody()), (crowd.len(), 0, true));
        for ack in acks.acks {
            let args: Value = serde_json::from_str(&ack.args.text).expect("JSON");
            assert_eq!(args, json!([ack.sid, number]));
        }
    }
}

pub(super) async fn nobody_is_asked(nodes: &Nodes) {
    let _few = nodes.few("/").await;
    for node in &nodes.0 {
        for selector in [rooms(["nobody"]), rooms(["AAAAabcdefghijklmnop"]), rooms(["nobody", "nowhere"])] {
            let began = Instant::now();
            assert_eq!(ask(node, selector, PATIENCE).await, Acks::default());
            assert!(began.elapsed() < PATIENCE / 2, "there is nothing to wait for");
        }
        let nowhere = path("/nowhere");
        let args = Args::text(r#"["question"]"#);
        let acks = node.cluster.emit_with_ack(&nowhere, rooms([]), args, PATIENCE).await;
        assert_eq!(acks, Ok(Acks::default()));
    }
}

pub(super) async fn binary_answers(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    let of = |name: &str| Bytes::from(format!("\0{name}"));
    let answering = async {
        for client in &mut crowd {
            let question = client.wait("a question", |heard| heard.data[0] == "question").await;
            let args = json!([1, {"_placeholder": true, "num": 0}]);
            let binary = of(&client.id);
            client.mouth.ack("/", question.ack_id.expect("an ack id"), &args, &[binary]).await;
        }
    };
    let (acks, ()) = tokio::join!(ask(nodes.last(), rooms([]), PATIENCE), answering);
    let mut heard: Vec<(String, Vec<Bytes>)> = acks
        .acks
        .into_iter()
        .inspect(|ack| assert!(ack.args.binary, "{ack:?}"))
        .map(|ack| (ack.sid.expect("a name"), ack.args.attachments))
        .collect();
    heard.sort();
    let mut expected: Vec<_> = crowd.iter().map(|client| (client.id.clone(), vec![of(&client.id)])).collect();
    expected.sort();
    assert_eq!(heard, expected);
}

pub(super) async fn asked_within_rooms(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    for client in crowd.iter_mut().step_by(2) {
        client.act(json!([{"join": "r"}])).await;
    }
    let left_out = crowd[0].id.clone();
    for node in &nodes.0 {
        let asked = ask(node, except(["r"], [&left_out]), PATIENCE);
        let (acks, ()) = tokio::join!(asked, answer_all(crowd.iter_mut().step_by(2).skip(1)));
        check(&acks, crowd.iter().step_by(2).skip(1));
        let last = crowd.len() - 1;
        let (name, client) = (crowd[last].id.clone(), &mut crowd[last..]);
        let (acks, ()) = tokio::join!(ask(node, rooms([&name]), PATIENCE), answer_all(client.iter_mut()));
        check(&acks, client.iter());
    }
}
