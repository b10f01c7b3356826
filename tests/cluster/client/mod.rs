//! Socket.IO clients of every kind, so small that hundreds of them fit into a test.
//!
//! - [`dialect`]: what a client's packets look like: parser and protocol version
//! - [`link`]: one Engine.IO session, over WebSocket or by polling
//!
//! What a client hears is the same for all kinds: event names and arguments as JSON, and the attachments.

pub(crate) mod dialect;
pub(crate) mod link;

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use serde_json::{Value, json};
use socketio_proto::packet::{AckId, Outgoing, PacketType};
use system_tests::waiting::soon;

use dialect::{Decoder, Dialect, Heard};
use link::{Receiver, Sender, Via};

/// How a client speaks, and over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) dialect: Dialect,
    pub(crate) via: Via,
}

impl Kind {
    /// Every combination.
    pub(crate) const ALL: [Kind; 6] = [
        Kind { dialect: Dialect::Text, via: Via::WebSocket },
        Kind { dialect: Dialect::Msgpack, via: Via::WebSocket },
        Kind { dialect: Dialect::Old, via: Via::WebSocket },
        Kind { dialect: Dialect::Text, via: Via::Polling },
        Kind { dialect: Dialect::Msgpack, via: Via::Polling },
        Kind { dialect: Dialect::Old, via: Via::Polling },
    ];
    /// What most clients are.
    pub(crate) const USUAL: Kind = Kind { dialect: Dialect::Text, via: Via::WebSocket };
}

/// What a client sends.
#[derive(Debug)]
pub(crate) struct Mouth {
    dialect: Dialect,
    sender: Sender,
}

impl Mouth {
    pub(crate) async fn packet(&mut self, packet: &Outgoing<'_>) {
        self.sender.send(&self.dialect.encode(packet)).await;
    }

    /// Sends an event: the array of its name and arguments.
    pub(crate) async fn event(&mut self, namespace: &str, ack: Option<u64>, args: &Value, binary: &[Bytes]) {
        self.args(PacketType::Event, namespace, ack, args, binary).await;
    }

    /// Sends an ack.
    pub(crate) async fn ack(&mut self, namespace: &str, id: u64, args: &Value, binary: &[Bytes]) {
        self.args(PacketType::Ack, namespace, Some(id), args, binary).await;
    }

    async fn args(
        &mut self,
        packet_type: PacketType,
        namespace: &str,
        ack: Option<u64>,
        args: &Value,
        binary: &[Bytes],
    ) {
        let data = args.to_string();
        let packet = Outgoing {
            attachments: binary,
            binary: !binary.is_empty(),
            ..Outgoing::text(packet_type, namespace, ack.map(AckId), &data)
        };
        self.packet(&packet).await;
    }
}

/// What a client receives.
#[derive(Debug)]
pub(crate) struct Ear {
    receiver: Receiver,
    decoder: Decoder,
}

impl Ear {
    /// The next packet; `None` when the session has ended.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        loop {
            let message = self.receiver.next().await?;
            if let Some(heard) = self.decoder.decode(message) {
                return Some(heard);
            }
        }
    }
}

/// One client with one socket or more.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) kind: Kind,
    /// The number of its node.
    pub(crate) node: usize,
    /// The namespace of its first socket, and that socket's name.
    pub(crate) namespace: String,
    pub(crate) id: String,
    pub(crate) mouth: Mouth,
    ear: Ear,
    /// What came while something else was waited for.
    backlog: VecDeque<Heard>,
    acks: u64,
}

impl Client {
    /// A client with a socket in this namespace.
    pub(crate) async fn connect(node: usize, address: SocketAddr, kind: Kind, namespace: &str) -> Self {
        Self::connect_as(node, address, kind, namespace, &Value::Null).await
    }

    /// As [`Client::connect`], with the auth object of its CONNECT.
    pub(crate) async fn connect_as(
        node: usize,
        address: SocketAddr,
        kind: Kind,
        namespace: &str,
        auth: &Value,
    ) -> Self {
        let (sid, sender, receiver) = link::open(address, kind.dialect, kind.via).await;
        let mut client = Self {
            kind,
            node,
            namespace: namespace.to_owned(),
            id: sid,
            mouth: Mouth { dialect: kind.dialect, sender },
            ear: Ear { receiver, decoder: Decoder::new(kind.dialect) },
            backlog: VecDeque::new(),
            acks: 0,
        };
        if kind.dialect == Dialect::Old {
            let hello = client.next().await;
            assert_eq!((hello.packet_type, &*hello.namespace), (PacketType::Connect, "/"));
        }
        if kind.dialect != Dialect::Old || namespace != "/" {
            client.id = client.join(namespace, auth).await;
        }
        client
    }

    /// Joins a namespace; the name of the new socket.
    pub(crate) async fn join(&mut self, namespace: &str, auth: &Value) -> String {
        let data = if auth.is_null() { String::new() } else { auth.to_string() };
        self.mouth.packet(&Outgoing::text(PacketType::Connect, namespace, None, &data)).await;
        let is_answer = |heard: &Heard| {
            heard.namespace == namespace
                && matches!(heard.packet_type, PacketType::Connect | PacketType::ConnectError)
        };
        let reply = self.wait("the answer to a CONNECT", is_answer).await;
        assert_eq!(reply.packet_type, PacketType::Connect, "{reply:?}");
        if self.kind.dialect == Dialect::Old {
            return format!("{namespace}#{}", self.id);
        }
        reply.data["sid"].as_str().expect("a sid").to_owned()
    }

    /// Takes the client apart into what sends and what receives.
    pub(crate) fn split(self) -> (Mouth, Ear) {
        (self.mouth, self.ear)
    }

    /// Has the application do something, in the client's first namespace, and waits until it is done.
    pub(crate) async fn act(&mut self, actions: Value) {
        let answer = self.ask("do", actions, &[]).await;
        assert_eq!(answer, json!([true]));
    }

    /// As [`Client::act`], with attachments for the placeholders in the actions.
    pub(crate) async fn act_with(&mut self, actions: Value, binary: &[Bytes]) {
        self.ask("do", actions, binary).await;
    }

    /// Sends an event with these arguments and waits for its ack.
    pub(crate) async fn ask(&mut self, event: &str, args: Value, binary: &[Bytes]) -> Value {
        let (namespace, id) = (self.namespace.clone(), self.acks);
        self.acks += 1;
        let args: Value =
            [json!(event)].into_iter().chain(args.as_array().cloned().unwrap_or_default()).collect();
        self.mouth.event(&namespace, Some(id), &args, binary).await;
        let is_answer =
            |heard: &Heard| heard.is_ack() && heard.ack_id == Some(id) && heard.namespace == namespace;
        self.wait(&format!("the answer to {args}"), is_answer).await.data
    }

    /// The next packet.
    pub(crate) async fn next(&mut self) -> Heard {
        self.try_next().await.unwrap_or_else(|| panic!("the session of {} has ended", self.id))
    }

    /// The next packet; `None` when the session has ended.
    pub(crate) async fn try_next(&mut self) -> Option<Heard> {
        if let Some(heard) = self.backlog.pop_front() {
            return Some(heard);
        }
        soon(&format!("something for {}, {:?}", self.id, self.kind), self.ear.next()).await
    }

    /// The next packet that is meant; what comes before it is kept for later.
    pub(crate) async fn wait(&mut self, what: &str, is_meant: impl Fn(&Heard) -> bool) -> Heard {
        if let Some(at) = self.backlog.iter().position(&is_meant)
            && let Some(heard) = self.backlog.remove(at)
        {
            return heard;
        }
        loop {
            let heard = soon(&format!("{what} for {}, {:?}", self.id, self.kind), self.ear.next()).await;
            let heard = heard.unwrap_or_else(|| panic!("{what}: the session of {} has ended", self.id));
            if is_meant(&heard) {
                return heard;
            }
            self.backlog.push_back(heard);
        }
    }

    /// All events before the one of this name, which is taken too.
    pub(crate) async fn until(&mut self, mark: &str) -> Vec<Heard> {
        let mut all = Vec::new();
        loop {
            let heard = self.next().await;
            if heard.data[0] == mark {
                return all;
            }
            assert!(heard.is_event(), "{heard:?} before {mark}, {:?}", self.kind);
            all.push(heard);
        }
    }

    /// The names of all events before that one.
    pub(crate) async fn names_until(&mut self, mark: &str) -> Vec<String> {
        self.until(mark).await.iter().map(Heard::name).collect()
    }

    /// Expects that the socket is told to leave its namespace.
    pub(crate) async fn is_disconnected(&mut self) {
        let namespace = self.namespace.clone();
        let is_meant =
            |heard: &Heard| heard.packet_type == PacketType::Disconnect && heard.namespace == namespace;
        self.wait("a DISCONNECT", is_meant).await;
    }

    /// Expects that the whole session ends, and nothing but goodbyes comes before.
    pub(crate) async fn is_closed(&mut self) {
        while let Some(heard) = self.try_next().await {
            assert_eq!(heard.packet_type, PacketType::Disconnect, "{heard:?}");
        }
    }
}
