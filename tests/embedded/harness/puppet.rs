//! An application on strings: clients tell it what to do, the test tells it when, and it writes down what it hears.
//!
//! Events:
//! - `["do", action…]` does the actions at once and acks `true`
//! - `["later", gate, action…]` does the same once the test has opened the gate
//! - `["block", gate]` holds up the whole shard until then
//!
//! Actions are objects: `{"emit":[…], "volatile":true, "ack":7}`, `{"to":[rooms], "except":[rooms], "emit":[…]}`,
//! `{"join":room}`, `{"leave":room}`, `{"kick":true}` (the namespace), `{"kick":"session"}`.
//!
//! A CONNECT is accepted at once unless its auth (or in EIO3 the query) says otherwise: `{"gate":name}` decides
//! later, `{"refuse":message}` refuses. An answer with a token from [`TOKEN_LATER`] on is answered behind the gate
//! `acked`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_proto::broadcast::Selector;
use edge::upstream::{Action, Actions, Answer, Args, Connect, Decision, Reply, Socket, Upstream};
use serde_json::Value;
use socketio_proto::packet::Packet;
use tokio::sync::Semaphore;

/// Acks with this token or a higher one are answered later.
pub(crate) const TOKEN_LATER: u64 = 1000;

/// What the applications of all shards share with the test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strings {
    heard: Arc<Mutex<Vec<String>>>,
    gates: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

impl Strings {
    /// Everything heard so far, one line each.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// The lines that start with `head`.
    pub(crate) fn heard_of(&self, head: &str) -> Vec<String> {
        self.heard().into_iter().filter(|line| line.starts_with(head)).collect()
    }

    /// Lets one answer through the gate, now or when it comes to it.
    pub(crate) fn open(&self, gate: &str) {
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
pub(crate) struct Puppet(pub(crate) Strings);

impl Upstream for Puppet {
    fn connect(&mut self, request: &Connect<'_>) -> Answer<Decision> {
        self.0.hear(format!("connect {} from {}", request.namespace, request.handshake.address));
        let auth: Value = serde_json::from_str(request.auth).unwrap_or_default();
        let decision = match auth["refuse"].as_str() {
            Some(message) => Decision::Refuse { message: message.to_owned(), data: None },
            None => Decision::Accept(Actions::new()),
        };
        let in_query = request.handshake.url.split_once("gate=").map(|(_, gate)| gate);
        match auth["gate"].as_str().or(in_query) {
            Some(gate) => self.0.behind(gate, decision),
            None => Answer::Now(decision),
        }
    }

    fn event(&mut self, _socket: &dyn Socket, event: &Packet<'_>) -> Answer<Reply> {
        let data: Vec<Value> = serde_json::from_str(&event.data).expect("an event is a JSON array");
        match (data[0].as_str(), &data[1..]) {
            (Some("do"), list) => Answer::Now(reply(list)),
            (Some("later"), [Value::String(gate), list @ ..]) => {
                self.0.hear(format!("later {gate}"));
                self.0.behind(gate, reply(list))
            }
            (Some("block"), [Value::String(gate)]) => {
                self.0.hear(format!("block {gate}"));
                let gate = self.0.gate(gate);
                while gate.try_acquire().map(|permit| permit.forget()).is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Answer::Now(reply(&[]))
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
}

fn reply(list: &[Value]) -> Reply {
    Reply { actions: list.iter().map(action).collect(), ack: Some(Args::text("[true]")) }
}

fn emit(data: Value) -> Action {
    Action::Emit { args: Args::text(data.to_string()), volatile: false, ack: None }
}

fn action(described: &Value) -> Action {
    let text = |key: &str| described[key].as_str().map(str::to_owned);
    if let Some(room) = text("join") {
        return Action::Join(room);
    }
    if let Some(room) = text("leave") {
        return Action::Leave(room);
    }
    if !described["kick"].is_null() {
        return Action::Disconnect { close: text("kick").is_some() };
    }
    let args = Args::text(described["emit"].to_string());
    let volatile = described["volatile"] == true;
    if described["to"].is_null() {
        return Action::Emit { args, volatile, ack: described["ack"].as_u64() };
    }
    let names = |key: &str| serde_json::from_value(described[key].clone()).unwrap_or_default();
    Action::Broadcast {
        selector: Selector { rooms: names("to"), except: names("except") },
        args,
        volatile,
        local: false,
    }
}
