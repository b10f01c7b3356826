//! Socket.IO clients on real edges, many on one thread: they write down what they hear, and answer what asks for an ack
//! with their own id.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use socketio_proto::limits::Limits;
use socketio_proto::packet::{Outgoing, PacketType, ProtocolVersion};
use socketio_proto::parser::{Parser, text};
use system_tests::brokers::wait_until;
use system_tests::waiting::soon;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::WITHIN;

/// Handshakes at a time: fewer than an edge takes into its backlog.
const HANDSHAKES: usize = 50;

/// An event as a client has heard it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heard {
    /// Name and arguments, with placeholders for attachments.
    pub(crate) data: Value,
    pub(crate) attachments: Vec<Bytes>,
}

#[derive(Debug, Default)]
struct State {
    heard: Mutex<Vec<Heard>>,
    is_silent: AtomicBool,
    /// The server has disconnected it, or its connection has ended.
    has_ended: AtomicBool,
}

/// A client with one socket; dropping it breaks the connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) sid: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    async fn connect(port: u16, namespace: &'static str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let url = format!("ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket");
        let opening = tokio_tungstenite::client_async(url, stream);
        let (mut socket, _) = soon("a WebSocket", opening).await.expect("101");
        let mut join = Vec::new();
        text::encode(&Outgoing::text(PacketType::Connect, namespace, None, ""), &mut join);
        send(&mut socket, join).await;
        let state = Arc::new(State::default());
        let mut talk = Talk { socket, namespace, parser: Parser::new(ProtocolVersion::V5), sid: None };
        // The demo greets with an event, behind which everything is the test's own.
        while state.heard().is_empty() {
            assert!(soon("the demo's greeting", talk.step(&state)).await, "the edge refused {namespace}");
        }
        state.heard().clear();
        let (sid, kept) = (talk.sid.clone().expect("a sid"), state.clone());
        let task = tokio::spawn(async move {
            while talk.step(&state).await {}
            state.has_ended.store(true, Ordering::Relaxed);
        });
        Self { sid, state: kept, task }
    }

    /// From now on it answers nothing.
    pub(crate) fn keep_silent(&self) {
        self.state.is_silent.store(true, Ordering::Relaxed);
    }

    /// Waits for the event of this name; all that came before it, which is taken.
    pub(crate) fn until(&self, mark: &str) -> Vec<Heard> {
        let mut found = Vec::new();
        wait_until(&format!("{mark} for {}", self.sid), WITHIN, || {
            let mut heard = self.state.heard();
            let Some(at) = heard.iter().position(|heard| heard.data[0] == mark) else { return false };
            found = heard.drain(..=at).collect();
            true
        });
        found.pop();
        found
    }

    /// As [`Client::until`], only the names.
    pub(crate) fn names_until(&self, mark: &str) -> Vec<String> {
        self.until(mark).iter().map(|heard| heard.data[0].as_str().expect("a name").to_owned()).collect()
    }

    /// Waits until the server has ended it.
    pub(crate) fn ends(&self) {
        wait_until("a disconnect", WITHIN, || self.state.has_ended.load(Ordering::Relaxed));
    }
}

impl State {
    fn heard(&self) -> std::sync::MutexGuard<'_, Vec<Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a session.
struct Talk {
    socket: WebSocketStream<TcpStream>,
    namespace: &'static str,
    parser: Parser,
    sid: Option<String>,
}

impl Talk {
    /// Takes one message; whether more may come.
    async fn step(&mut self, state: &State) -> bool {
        let limits = Limits::default();
        let packet = match self.socket.next().await {
            Some(Ok(Message::Text(text))) if text.as_str() == "2" => {
                return self.socket.send(Message::text("3")).await.is_ok();
            }
            Some(Ok(Message::Text(text))) => match text.as_str().strip_prefix('4') {
                Some(packet) => self
                    .parser
                    .handle_text(packet, &limits)
                    .expect("a packet")
                    .map(socketio_proto::packet::Packet::into_owned),
                None => None,
            },
            Some(Ok(Message::Binary(bytes))) => self
                .parser
                .handle_binary(&bytes, &limits)
                .expect("a packet")
                .map(socketio_proto::packet::Packet::into_owned),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return true,
        };
        let Some(packet) = packet else { return true };
        match packet.packet_type.without_attachments() {
            PacketType::Connect => {
                let data: Value = serde_json::from_str(&packet.data).expect("JSON");
                self.sid = data["sid"].as_str().map(str::to_owned);
            }
            PacketType::Event => {
                let data = serde_json::from_str(&packet.data).expect("JSON");
                state.heard().push(Heard { data, attachments: packet.attachments });
                if let Some(id) = packet.ack_id
                    && !state.is_silent.load(Ordering::Relaxed)
                {
                    let answer = json!([self.sid]).to_string();
                    let packet = Outgoing::text(PacketType::Ack, self.namespace, Some(id), &answer);
                    let mut bytes = Vec::new();
                    text::encode(&packet, &mut bytes);
                    send(&mut self.socket, bytes).await;
                }
            }
            PacketType::Ack | PacketType::BinaryAck | PacketType::BinaryEvent => {}
            PacketType::Disconnect | PacketType::ConnectError => return false,
        }
        true
    }
}

/// Sends one packet; a session that has ended takes none, which the other end tells.
async fn send(socket: &mut WebSocketStream<TcpStream>, packet: Vec<u8>) {
    let _ = socket.send(Message::text(format!("4{}", String::from_utf8(packet).expect("UTF-8")))).await;
}

/// The thread of all clients of a test.
#[derive(Debug)]
pub(crate) struct Clients(Runtime);

impl Clients {
    pub(crate) fn start() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Self(builder.worker_threads(1).enable_all().build().expect("a runtime"))
    }

    /// A client of the edge at this port, with a socket in the namespace.
    pub(crate) fn connect(&self, port: u16, namespace: &'static str) -> Client {
        self.0.block_on(Client::connect(port, namespace))
    }

    /// So many clients, spread over these edges.
    pub(crate) fn connect_many(&self, ports: &[u16], namespace: &'static str, count: usize) -> Vec<Client> {
        let ports: Vec<u16> = ports.iter().copied().cycle().take(count).collect();
        self.0.block_on(async {
            let mut all = Vec::new();
            for ports in ports.chunks(HANDSHAKES) {
                let opening: JoinSet<Client> =
                    ports.iter().map(|port| Client::connect(*port, namespace)).collect();
                all.extend(opening.join_all().await);
            }
            all
        })
    }
}
