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
    let name = event.event.as_deref()?;
    let cluster = cluster.clone();
    let path = NamespacePath::parse(namespace).ok()?;
    let mut elements = json::elements(&event.data).skip(1);
    let selector = selector(elements.next().unwrap_or("null"))?;
    let second = elements.next();
    let rooms = move || rooms(second?);
    let args = |name: &str, data: &str| Args {
        data: format!("[{},{data}]", super::quoted(name)),
        attachments: event.attachments.clone(),
        binary: event.is_binary(),
    };
    let later: Later<Value> = match name {
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
                let of = |args: &JsonData| serde_json::from_str(&args.text).unwrap_or(Value::Null);
                let acks: Vec<Value> =
                    heard.acks.iter().map(|ack| json!({"sid": ack.sid, "args": of(&ack.args)})).collect();
                json!({"acks": acks, "silent": heard.silent, "missing": missing(&heard.missing)})
            })
        }
        "server_emit" => {
            let args = args("server_event", second.unwrap_or("null"));
            Box::pin(async move {
                let heard = cluster.server_emit_with_ack(&path, args).await;
                let answers: Vec<Value> =
                    heard.answers.iter().filter_map(|answer| serde_json::from_str(answer).ok()).collect();
                json!({"answers": answers, "missing": missing(&heard.missing)})
            })
        }
        _ => return None,
    };
    Some(Answer::Later(Box::pin(async move { Reply::ack(Args::text(json!([later.await]).to_string())) })))
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
