//! Binary data, and data that only looks like it.

use bytes::Bytes;
use edge::upstream::Args;
use serde_json::{Value, json};

use crate::nodes::{Nodes, rooms};

fn placeholder(number: usize) -> Value {
    json!({"_placeholder": true, "num": number})
}

fn contents() -> Vec<Bytes> {
    let large: Vec<u8> = (0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    vec![Bytes::from_static(b"\x00\xff\x1e\x04b"), Bytes::new(), large.into()]
}

pub(super) async fn attachments(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    let (contents, data) =
        (contents(), json!([placeholder(0), {"a": [placeholder(1)], "b": placeholder(2)}, "end"]));
    for publisher in 0..crowd.len() {
        let actions = json!([{"to": [], "emit": ["binary", data]}]);
        crowd[publisher].act_with(actions, &contents).await;
        for client in &mut crowd {
            let heard = client.next().await;
            assert_eq!(heard.data, json!(["binary", data]), "from {publisher} to {:?}", client.kind);
            assert!(heard.attachments == contents, "from {publisher} to {:?}", client.kind);
        }
    }
}

pub(super) async fn literal_placeholders(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    let data = json!([placeholder(0), placeholder(7), {"_placeholder": "no"}, {"$binary": "AA=="}]);
    for publisher in 0..crowd.len() {
        crowd[publisher].act(json!([{"to": [], "emit": ["literal", data]}])).await;
        for client in &mut crowd {
            let heard = client.next().await;
            assert_eq!(heard.data, json!(["literal", data]), "from {publisher} to {:?}", client.kind);
            assert!(heard.attachments.is_empty());
        }
    }
}

pub(super) async fn from_the_application(nodes: &Nodes) {
    let mut crowd = nodes.crowd("/").await;
    let data = json!(["binary", placeholder(1), placeholder(0), [placeholder(2)]]);
    for node in &nodes.0 {
        let with = Args { data: data.to_string(), attachments: contents(), binary: true };
        let literal = Args::text(data.to_string());
        node.emit_args("/", rooms([]), with);
        node.emit_args("/", rooms([]), literal);
        for client in &mut crowd {
            let heard = client.next().await;
            // Whoever writes msgpack numbers the attachments as they come.
            let [_, first, second, third] = &heard.data.as_array().unwrap()[..] else { panic!("{heard:?}") };
            let of =
                |place: &Value| &heard.attachments[usize::try_from(place["num"].as_u64().unwrap()).unwrap()];
            let contents = contents();
            assert!([of(first), of(second), of(&third[0])] == [&contents[1], &contents[0], &contents[2]]);
            let heard = client.next().await;
            assert_eq!((heard.data, heard.attachments.len()), (data.clone(), 0));
        }
    }
}

/// As much as a packet may hold, more than a client may send.
pub(super) async fn large(nodes: &Nodes) {
    let mut few = nodes.few("/").await;
    let content = Bytes::from(vec![7; 3_900_000]);
    let data = json!(["large", placeholder(0)]);
    for node in &nodes.0 {
        let args = Args { data: data.to_string(), attachments: vec![content.clone()], binary: true };
        node.emit_args("/", rooms([]), args);
        let text = Args::text(json!(["text", "é".repeat(1_500_000)]).to_string());
        node.emit_args("/", rooms([]), text);
        for client in &mut few {
            let heard = client.next().await;
            assert!(heard.data == data && heard.attachments == [content.clone()], "from {}", node.id());
            assert!(client.next().await.data[1].as_str().is_some_and(|text| text.len() == 3_000_000));
        }
    }
}
