//! An application on strings: clients tell it what to do, the test tells it when, and it writes down what it hears.
//!
//! Events:
//! - `["do", action…]` does the actions at once and acks `true`
//! - `["later", gate, action…]` does the same once the test has opened the gate
//! - `["block", gate]` holds up the whole shard until then
//! - `["may_join", room]` acks whether the socket may
//! - `["rooms"]` acks the list of the socket's rooms
//!
//! Actions are objects: `{"emit":[…], "volatile":true, "ack":7}`, `{"to":[rooms], "except":[rooms], "emit":[…]}`
//! with `"volatile":true` or `"local":true`, `{"join":room}`, `{"leave":room}`, `{"user":name}`, `{"kick":true}` (the
//! namespace), `{"kick":"session"}`. The attachments of a binary event go with whatever its actions emit.
//!
//! A CONNECT is accepted at once unless its auth (or in EIO3 the query) says otherwise: `{"gate":name}` decides
//! later, `{"refuse":message}` refuses, `{"do":[action…]}` does something behind it. An answer with a token from
//! [`TOKEN_LATER`] on is answered behind the gate `acked`.
//!
//! An event of another server is answered by itself, unless its name is `silent` (no answer) or `slow` (behind the
//! gate of that name).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cluster_proto::broadcast::Selector;
use cluster_proto::message::{Change, JsonData, SocketUpdate};
use edge::upstream::{Action, Actions, Answer, Args, Connect, Decision, Reply, Socket, Upstream};
use serde_json::Value;
use socketio_proto::packet::Packet;
use tokio::sync::Semaphore;

/// Acks with this token or a higher one are answered later.
pub const TOKEN_LATER: u64 = 1000;

/// What the applications of all shards share with the test.
#[derive(Clone, Debug, Default)]
pub struct Strings {
    heard: Arc<Mutex<Vec<String>>>,
    gates: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

impl Strings {
    /// Everything heard so far, one line each.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// The lines that start with `head`.
    pub fn heard_of(&self, head: &str) -> Vec<String> {
        self.heard().into_iter().filter(|line| line.starts_with(head)).collect()
    }

    /// Lets one answer through the gate, now or when it comes to it.
    pub fn open(&self, gate: &str) {
        self.gate(gate).add_permits(1);
    }

    fn gate(&self, name: &str) -> Arc<Semaphore> {
        self.gates
            .lock()
            .unwrap()
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(0)))
            .clone()
    }

    fn hear(&self, line: String) {
        self.heard.lock().unwrap().push(line);
    }

    fn behind<T: 'static>(&self, gate: &str, answer: T) -> Answer<T> {
        let gate = self.gate(gate);
        Answer::Later(Box::pin(async move {
            gate.acquire().await.expect("gates stay").forget();
            answer
        }))
    }
}

/// The application of one shard.
#[derive(Debug)]
pub struct Puppet(pub Strings);

impl Upstream for Puppet {
    fn connect(&mut self, request: &Connect<'_>) -> Answer<Decision> {
        self.0.hear(format!("connect {} from {}", request.namespace, request.handshake.address));
        let auth: Value = serde_json::from_str(request.auth).unwrap_or_default();
        let decision = match auth["refuse"].as_str() {
            Some(message) => Decision::Refuse { message: message.to_owned(), data: None },
            None => Decision::Accept(actions(auth["do"].as_array().map_or(&[], Vec::as_slice), None)),
        };
        let in_query = request.handshake.url.split_once("gate=").map(|(_, gate)| gate);
        match auth["gate"].as_str().or(in_query) {
            Some(gate) => self.0.behind(gate, decision),
            None => Answer::Now(decision),
        }
    }

    fn event(&mut self, socket: &dyn Socket, event: &Packet<'_>) -> Answer<Reply> {
        let data: Vec<Value> = serde_json::from_str(&event.data).expect("an event is a JSON array");
        match (data[0].as_str(), &data[1..]) {
            (Some("do"), list) => Answer::Now(reply(list, Some(event))),
            (Some("may_join"), [Value::String(room)]) => {
                Answer::Now(Reply::ack(Args::text(format!("[{}]", socket.may_join(room)))))
            }
            (Some("rooms"), []) => {
                let rooms = serde_json::to_string(&[socket.rooms()]).expect("names are JSON");
                Answer::Now(Reply::ack(Args::text(rooms)))
            }
            (Some("later"), [Value::String(gate), list @ ..]) => {
                self.0.hear(format!("later {gate}"));
                self.0.behind(gate, reply(list, Some(event)))
            }
            (Some("block"), [Value::String(gate)]) => {
                self.0.hear(format!("block {gate}"));
                let gate = self.0.gate(gate);
                while gate.try_acquire().map(|permit| permit.forget()).is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Answer::Now(reply(&[], None))
            }
            other => panic!("the puppet does not know {other:?}"),
        }
    }

    fn acked(&mut self, _socket: &dyn Socket, token: u64, answer: &Packet<'_>) -> Answer<Reply> {
        self.0.hear(format!("acked {token} {}", answer.data));
        if token >= TOKEN_LATER {
            return self.0.behind("acked", Reply::action(emit(serde_json::json!(["answered", token]))));
        }
        Answer::Now(Reply::default())
    }

    fn disconnected(&mut self, socket: &dyn Socket, reason: &'static str) {
        self.0.hear(format!("disconnected {} {} {reason}", socket.namespace(), socket.name()));
    }

    fn server_event(&mut self, namespace: &str, event: &JsonData) -> Answer<Option<String>> {
        self.0.hear(format!("server event {namespace} {}", event.text));
        let data: Vec<Value> = serde_json::from_str(&event.text).expect("an event is a JSON array");
        match data[0].as_str() {
            Some("silent") => Answer::Now(None),
            Some("slow") => self.0.behind("slow", Some(event.text.clone())),
            _ => Answer::Now(Some(event.text.clone())),
        }
    }
}

fn reply(list: &[Value], event: Option<&Packet<'_>>) -> Reply {
    Reply { actions: actions(list, event), ack: Some(Args::text("[true]")) }
}

fn actions(list: &[Value], event: Option<&Packet<'_>>) -> Actions {
    let binary = event.filter(|event| event.is_binary());
    let attachments = binary.map(|event| event.attachments.clone()).unwrap_or_default();
    list.iter().map(|described| action(described, &attachments)).collect()
}

fn emit(data: Value) -> Action {
    Action::Emit { args: Args::text(data.to_string()), volatile: false, ack: None }
}

fn action(described: &Value, attachments: &[Bytes]) -> Action {
    let text = |key: &str| described[key].as_str().map(str::to_owned);
    if let Some(room) = text("join") {
        return Action::Join(room);
    }
    if let Some(room) = text("leave") {
        return Action::Leave(room);
    }
    if let Some(user) = text("user") {
        return Action::Update(SocketUpdate { user: Change::Set(user), ..SocketUpdate::default() });
    }
    if !described["kick"].is_null() {
        return Action::Disconnect { close: text("kick").is_some() };
    }
    let args = Args {
        data: described["emit"].to_string(),
        attachments: attachments.to_vec(),
        binary: !attachments.is_empty(),
    };
    let is = |key: &str| described[key] == true;
    if described["to"].is_null() {
        return Action::Emit { args, volatile: is("volatile"), ack: described["ack"].as_u64() };
    }
    let names = |key: &str| serde_json::from_value(described[key].clone()).unwrap_or_default();
    Action::Broadcast {
        selector: Selector { rooms: names("to"), except: names("except") },
        args,
        volatile: is("volatile"),
        local: is("local"),
    }
}
