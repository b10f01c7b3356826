//! The built-in demo application: enough to try every kind of traffic without writing a server.
//!
//! The table of what it answers is in `docs/protocol.md`.

mod cluster;

use std::borrow::Cow;

use cluster_proto::broadcast::Selector;
use cluster_proto::message::JsonData;
use socketio_proto::json;
use socketio_proto::packet::{Packet, ack_data, event_data};

use super::{Action, Actions, Answer, Args, Connect, Decision, Reply, Socket, Upstream};
use crate::cluster::Cluster;

/// Marks the events whose answers the demo sends back as events.
const EMIT_WITH_ACK: u64 = 1;

/// The demo application.
#[derive(Clone, Debug)]
pub struct Demo {
    cluster: Cluster,
}

impl Demo {
    /// The demo on one shard of this node of a cluster.
    pub fn new(cluster: Cluster) -> Demo {
        Demo { cluster }
    }
}

impl Upstream for Demo {
    fn connect(&mut self, request: &Connect<'_>) -> Answer<Decision> {
        let auth = if request.auth.is_empty() { "{}" } else { request.auth };
        let hello = emit(Args::text(format!("[\"auth\",{auth}]")));
        Answer::Now(Decision::Accept(Actions::from_iter([hello])))
    }

    fn event(&mut self, socket: &dyn Socket, event: &Packet<'_>) -> Answer<Reply> {
        let over_all_nodes =
            event.ack_id.and_then(|_| cluster::answer(&self.cluster, socket.namespace(), event));
        over_all_nodes.unwrap_or_else(|| Answer::Now(answer(socket, event)))
    }

    fn acked(&mut self, _socket: &dyn Socket, token: u64, answer: &Packet<'_>) -> Answer<Reply> {
        Answer::Now(match token {
            EMIT_WITH_ACK => Reply::action(emit(answer_as_event("emit-with-ack", answer))),
            _ => Reply::default(),
        })
    }

    fn disconnected(&mut self, _socket: &dyn Socket, _reason: &'static str) {}

    fn server_event(&mut self, _namespace: &str, event: &JsonData) -> Answer<Option<String>> {
        Answer::Now(Some(event.text.clone()))
    }
}

fn answer(socket: &dyn Socket, event: &Packet<'_>) -> Reply {
    match event.event.as_deref().unwrap_or_default() {
        "client_event" => client_event(event),
        "echo" if event.ack_id.is_some() => Reply::ack(same_args(event)),
        "echo" => Reply::action(emit(Args::renamed("echo", event))),
        "message" => Reply::action(emit(Args::renamed("message-back", event))),
        "message-with-ack" => Reply::ack(same_args(event)),
        "join" => on_room(event, |room| socket.may_join(room).then(|| Action::Join(room.to_owned()))),
        "leave" => on_room(event, |room| (room != socket.name()).then(|| Action::Leave(room.to_owned()))),
        "broadcast" => broadcast(event),
        "say" => say(event),
        "my_rooms" => Reply::ack(Args::text(quoted_list(&socket.rooms()))),
        "whoami" => Reply::ack(Args::text(format!("[{}]", quoted(&socket.name())))),
        "emit-with-ack" => Reply::action(Action::Emit {
            args: Args::renamed("emit-with-ack", event),
            volatile: false,
            ack: Some(EMIT_WITH_ACK),
        }),
        "kick" => Reply::action(Action::Disconnect { close: false }),
        _ => Reply::default(),
    }
}

fn emit(args: Args) -> Action {
    Action::Emit { args, volatile: false, ack: None }
}

/// The arguments of an event, without its name.
fn same_args(event: &Packet<'_>) -> Args {
    Args {
        data: ack_data(event.args_tail()),
        attachments: event.attachments.clone(),
        binary: event.is_binary(),
    }
}

/// An answer's arguments as an event.
fn answer_as_event(name: &str, answer: &Packet<'_>) -> Args {
    let inside = answer.data.trim_start().strip_prefix('[').unwrap_or("]");
    Args {
        data: event_data(name, inside),
        attachments: answer.attachments.clone(),
        binary: answer.is_binary(),
    }
}

/// `client_event {data}` is answered by `server_response {data: upper case}`.
fn client_event(event: &Packet<'_>) -> Reply {
    let argument = json::elements(&event.data).nth(1).unwrap_or_default();
    let text = json::member(argument, "data").and_then(json::unquote).unwrap_or_default();
    let upper = quoted(&text.to_uppercase());
    Reply::action(emit(Args::text(format!("[\"server_response\",{{\"data\":{upper}}}]"))))
}

/// `join` and `leave`: acks whether it was done.
fn on_room(event: &Packet<'_>, action: impl FnOnce(&str) -> Option<Action>) -> Reply {
    let room = json::elements(&event.data).nth(1).and_then(name_of);
    match room.and_then(|room| action(&room)) {
        Some(action) => Reply::action(action).with_ack(Args::text("[true]")),
        None => Reply::ack(Args::text("[false]")),
    }
}

/// `broadcast <room or null> <payload>`: emits `msg <payload>`.
fn broadcast(event: &Packet<'_>) -> Reply {
    let mut elements = json::elements(&event.data).skip(1);
    let room = elements.next().unwrap_or("null");
    let rooms = match name_of(room) {
        Some(room) => vec![room.into_owned()],
        None if room == "null" => Vec::new(),
        None => return Reply::ack(Args::text("[false]")),
    };
    let payload = elements.next().unwrap_or("null");
    // An argument that is not passed on may be the one with the binary values.
    if elements.next().is_some() {
        return Reply::ack(Args::text("[false]"));
    }
    let args = Args {
        data: format!("[\"msg\",{payload}]"),
        attachments: event.attachments.clone(),
        binary: event.is_binary(),
    };
    to_rooms(rooms, args)
}

/// `say <room> <event> <args…>`: emits the event to the room.
fn say(event: &Packet<'_>) -> Reply {
    let mut elements = json::elements(&event.data).skip(1);
    let (Some(room), Some(name)) = (elements.next().and_then(name_of), elements.next().and_then(name_of))
    else {
        return Reply::ack(Args::text("[false]"));
    };
    if socketio_proto::packet::is_reserved_event(&name) {
        return Reply::ack(Args::text("[false]"));
    }
    let mut data = format!("[{}", quoted(&name));
    for argument in elements {
        data.push(',');
        data.push_str(argument);
    }
    data.push(']');
    let args = Args { data, attachments: event.attachments.clone(), binary: event.is_binary() };
    to_rooms(vec![room.into_owned()], args)
}

fn to_rooms(rooms: Vec<String>, args: Args) -> Reply {
    let selector = Selector { rooms, except: Vec::new() };
    Reply::action(Action::Broadcast { selector, args, volatile: false, local: false })
        .with_ack(Args::text("[true]"))
}

/// A room or event name: a string, or a number as its text.
fn name_of(value: &str) -> Option<Cow<'_, str>> {
    match value.as_bytes().first()? {
        b'"' => json::unquote(value),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(value)),
        _ => None,
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    json::quote(text, &mut out);
    out
}

fn quoted_list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[[{}]]", texts.join(","))
}
