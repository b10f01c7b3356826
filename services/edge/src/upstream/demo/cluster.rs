//! The part of the demo that reaches over all nodes. Each event must ask for an acknowledgement, which tells the outcome.

use std::time::Duration;

use cluster_proto::broadcast::Selector;
use cluster_proto::message::JsonData;
use serde_json::{Value, json};
use socketio_proto::json;
use socketio_proto::namespace::NamespacePath;
use socketio_proto::packet::Packet;

use super::name_of;
use crate::cluster::{Cluster, Missing};
use crate::upstream::{Answer, Args, Later, Reply};

/// How long clients have for their acks.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// What a client wants of the cluster; `None` if the event is none of these.
pub(super) fn answer(cluster: &Cluster, namespace: &str, event: &Packet<'_>) -> Option<Answer<Reply>> {
    const NAMES: [&str; 6] = [
        "fetch_sockets",
        "sockets_join",
        "sockets_leave",
        "disconnect_sockets",
        "broadcast_with_ack",
        "server_emit",
    ];
    let name = event.event.as_deref().filter(|name| NAMES.contains(name))?;
    Some(match wish(cluster, namespace, name, event) {
        Some(later) => {
            Answer::Later(Box::pin(async move { Reply::ack(Args::text(json!([later.await]).to_string())) }))
        }
        None => Answer::Now(Reply::ack(Args::text("[false]"))),
    })
}

/// What is to be done; `None` if it cannot be made out.
fn wish(cluster: &Cluster, namespace: &str, name: &str, event: &Packet<'_>) -> Option<Later<Value>> {
    let cluster = cluster.clone();
    let path = NamespacePath::parse(namespace).ok()?;
    let mut elements = json::elements(&event.data).skip(1);
    let first = elements.next().unwrap_or("null");
    let second = elements.next();
    // An argument that is not passed on may be the one with the binary values.
    if elements.next().is_some() || (name == "server_emit" && second.is_some()) {
        return None;
    }
    let rooms = move || rooms(second?);
    let args = |name: &str, data: &str| Args {
        data: format!("[{},{data}]", super::quoted(name)),
        attachments: event.attachments.clone(),
        binary: event.is_binary(),
    };
    if name == "server_emit" {
        let args = args("server_event", first);
        return Some(Box::pin(async move {
            let Ok(heard) = cluster.server_emit_with_ack(&path, args).await else {
                return Value::Bool(false);
            };
            let answers: Vec<Value> =
                heard.answers.iter().filter_map(|answer| serde_json::from_str(answer).ok()).collect();
            json!({"answers": answers, "missing": missing(&heard.missing)})
        }));
    }
    let selector = selector(first)?;
    Some(match name {
        "fetch_sockets" => Box::pin(async move {
            let found = cluster.fetch(&path, selector).await;
            let ids: Vec<String> = found.sockets.into_iter().map(|socket| socket.id).collect();
            json!({"sockets": ids, "missing": missing(&found.missing)})
        }),
        "sockets_join" => {
            let rooms = rooms()?;
            Box::pin(async move { done(cluster.join(&path, selector, rooms).await) })
        }
        "sockets_leave" => {
            let rooms = rooms()?;
            Box::pin(async move { done(cluster.leave(&path, selector, rooms).await) })
        }
        "disconnect_sockets" => {
            Box::pin(async move { done(cluster.disconnect(&path, selector, false).await) })
        }
        "broadcast_with_ack" => {
            let args = args("msg", second.unwrap_or("null"));
            Box::pin(async move {
                let heard = cluster.emit_with_ack(&path, selector, args, ACK_TIMEOUT).await;
                let Ok(heard) = heard else { return Value::Bool(false) };
                let of = |args: &JsonData| serde_json::from_str(&args.text).unwrap_or(Value::Null);
                let acks: Vec<Value> =
                    heard.acks.iter().map(|ack| json!({"sid": ack.sid, "args": of(&ack.args)})).collect();
                json!({"acks": acks, "silent": heard.silent, "missing": missing(&heard.missing)})
            })
        }
        _ => return None,
    })
}

fn done(done: crate::cluster::Done) -> Value {
    json!({"sockets": done.sockets, "missing": missing(&done.missing)})
}

/// How many nodes did not answer.
fn missing(missing: &Missing) -> u64 {
    missing.unnamed + missing.nodes.len() as u64 + u64::from(missing.unasked)
}

/// `null` is everybody, a name is a room or a socket.
fn selector(value: &str) -> Option<Selector> {
    if value == "null" { Some(Selector::default()) } else { Some(Selector::room(name_of(value)?)) }
}

/// One room, or a list of rooms.
fn rooms(value: &str) -> Option<Vec<String>> {
    if value.starts_with('[') {
        return json::elements(value).map(|room| Some(name_of(room)?.into_owned())).collect();
    }
    Some(vec![name_of(value)?.into_owned()])
}
