//! One Engine.IO session of a client: messages in and out, over WebSocket or by polling.
//!
//! There are no heartbeats here: the edges of these tests have none in the time that a test takes.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use engineio_proto::limits::Limits;
use engineio_proto::packet::{Data, Packet, PacketType};
use engineio_proto::payload::{self, BodyForm, PayloadForm};
use engineio_proto::{ProtocolVersion, WirePacket};
use serde_json::Value;
use system_tests::stream::{connect, header, read_head};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::dialect::{Dialect, Message};

/// How long a connection may have been idle and still be used for the next request: an edge closes idle ones.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// What a client's messages travel over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    WebSocket,
    Polling,
}

/// Opens a session: its id, and its two ends.
pub(crate) async fn open(address: SocketAddr, dialect: Dialect, via: Via) -> (String, Sender, Receiver) {
    let version = dialect.engine();
    let query = match version {
        ProtocolVersion::V3 => "EIO=3&b64=1",
        ProtocolVersion::V4 => "EIO=4",
    };
    match via {
        Via::WebSocket => open_websocket(address, version, &query[..5]).await,
        Via::Polling => open_polling(address, version, query).await,
    }
}

/// The id in the open packet, which must be the next one.
fn session_id(packet: &Packet<'_>) -> String {
    assert_eq!(packet.packet_type, PacketType::Open);
    let open: Value = serde_json::from_slice(packet.data.as_bytes()).expect("the open packet is JSON");
    open["sid"].as_str().expect("a session id").to_owned()
}

async fn open_websocket(
    address: SocketAddr,
    version: ProtocolVersion,
    query: &str,
) -> (String, Sender, Receiver) {
    let mut stream = from_anywhere(address).await;
    let head = format!(
        "GET /socket.io/?{query}&transport=websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("the edge reads");
    let mut unread = BytesMut::new();
    let head = read_head(&mut stream, &mut unread).await.unwrap_or_default();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (stream, write) = stream.into_split();
    let mut frames = Frames { version, stream, unread };
    let (_, open) = frames.frame().await.expect("an open packet");
    let open = String::from_utf8(open.to_vec()).expect("UTF-8");
    let sid = session_id(&Packet::decode_text_frame(version, &open).expect("a packet"));
    (sid, Sender::WebSocket { version, stream: write }, Receiver::WebSocket(frames))
}

async fn open_polling(
    address: SocketAddr,
    version: ProtocolVersion,
    query: &str,
) -> (String, Sender, Receiver) {
    let mut http = Http::connect(address).await;
    let body = http.request("GET", &format!("{query}&transport=polling"), b"").await;
    let body = body.expect("a handshake");
    let decoded = payload::decode(version, BodyForm::Text, &body, &Limits::default());
    assert!(decoded.error.is_none(), "{decoded:?}");
    let (open, rest) = decoded.packets.split_first().expect("an open packet");
    let sid = session_id(open);
    let query = format!("{query}&transport=polling&sid={sid}");
    let waiting = rest.iter().filter_map(message).collect();
    let sender = Sender::Polling { version, http: Http::connect(address).await, query: query.clone() };
    (sid, sender, Receiver::Polling { version, http, query, waiting })
}

/// A connection from one of many addresses of this machine: one alone has not ports enough for all tests of a minute.
/// The address stays that of the process, because a session of Engine.IO 3 is bound to it.
async fn from_anywhere(address: SocketAddr) -> TcpStream {
    let last = u8::try_from(std::process::id() % 250 + 2).expect("below 256");
    connect(address, IpAddr::from(Ipv4Addr::new(127, 0, 0, last)), None).await
}

/// What a packet says to Socket.IO, if anything.
fn message(packet: &Packet<'_>) -> Option<Message> {
    if packet.packet_type != PacketType::Message {
        return None;
    }
    Some(match &packet.data {
        Data::Text(text) => Message::Text(text.clone().into_owned()),
        Data::Binary(bytes) => Message::Binary(Bytes::copy_from_slice(bytes)),
    })
}

/// The end that sends.
#[derive(Debug)]
pub(crate) enum Sender {
    WebSocket { version: ProtocolVersion, stream: OwnedWriteHalf },
    Polling { version: ProtocolVersion, http: Http, query: String },
}

impl Sender {
    /// Sends messages, in one go. A session that has ended takes nothing, which the other end tells.
    pub(crate) async fn send(&mut self, messages: &[Message]) {
        match self {
            Sender::WebSocket { version, stream } => {
                let mut frames = Vec::new();
                for message in messages {
                    match (message, *version) {
                        (Message::Text(text), _) => push_frame(0x81, b"4", text.as_bytes(), &mut frames),
                        (Message::Binary(bytes), ProtocolVersion::V3) => {
                            push_frame(0x82, &[PacketType::Message.value()], bytes, &mut frames);
                        }
                        (Message::Binary(bytes), ProtocolVersion::V4) => {
                            push_frame(0x82, &[], bytes, &mut frames);
                        }
                    }
                }
                let _ = stream.write_all(&frames).await;
            }
            Sender::Polling { version, http, query } => {
                let packets: Vec<WirePacket> = messages
                    .iter()
                    .map(|message| match message {
                        Message::Text(text) => WirePacket::text_message(text),
                        Message::Binary(bytes) => WirePacket::Binary(bytes.clone()),
                    })
                    .collect();
                let form = match version {
                    ProtocolVersion::V3 => PayloadForm::V3Text,
                    ProtocolVersion::V4 => PayloadForm::V4,
                };
                let _ = http.request("POST", query, &payload::encode(form, &packets)).await;
            }
        }
    }
}

/// A client frame whose mask is zero.
fn push_frame(first: u8, prefix: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    out.extend(header(first, prefix.len() + payload.len()));
    out.extend(prefix);
    out.extend(payload);
}

/// The end that receives.
#[derive(Debug)]
pub(crate) enum Receiver {
    WebSocket(Frames),
    Polling { version: ProtocolVersion, http: Http, query: String, waiting: VecDeque<Message> },
}

impl Receiver {
    /// The next message; `None` when the session has ended.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        match self {
            Receiver::WebSocket(frames) => frames.message().await,
            Receiver::Polling { version, http, query, waiting } => loop {
                if let Some(message) = waiting.pop_front() {
                    return Some(message);
                }
                let body = http.request("GET", query, b"").await?;
                let decoded = payload::decode(*version, BodyForm::Text, &body, &Limits::default());
                assert!(decoded.error.is_none(), "{decoded:?}");
                waiting.extend(decoded.packets.iter().filter_map(message));
                if waiting.is_empty()
                    && decoded.packets.iter().any(|one| one.packet_type == PacketType::Close)
                {
                    return None;
                }
            },
        }
    }
}

/// The frames of a WebSocket.
#[derive(Debug)]
pub(crate) struct Frames {
    version: ProtocolVersion,
    stream: OwnedReadHalf,
    unread: BytesMut,
}

impl Frames {
    async fn message(&mut self) -> Option<Message> {
        loop {
            let (opcode, payload) = self.frame().await?;
            let found = match opcode {
                0x81 => {
                    let text = std::str::from_utf8(&payload).expect("UTF-8");
                    message(&Packet::decode_text_frame(self.version, text).expect("a packet"))
                }
                0x82 => message(&Packet::decode_binary_frame(self.version, &payload).expect("a packet")),
                0x88 => return None,
                other => panic!("a frame that starts with {other:#x}"),
            };
            if found.is_some() {
                return found;
            }
        }
    }

    async fn frame(&mut self) -> Option<(u8, BytesMut)> {
        self.fill(2).await?;
        assert_eq!(self.unread[1] & 0x80, 0, "a server never masks");
        let extended = match self.unread[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        self.fill(2 + extended).await?;
        let head = self.unread.split_to(2 + extended);
        let length = match extended {
            0 => usize::from(head[1]),
            _ => head[2..].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        self.fill(length).await?;
        Some((head[0], self.unread.split_to(length)))
    }

    async fn fill(&mut self, length: usize) -> Option<()> {
        while self.unread.len() < length {
            self.unread.reserve(length - self.unread.len());
            if !matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..)) {
                return None;
            }
        }
        Some(())
    }
}

/// Requests one after the other, on one connection as long as it is used.
#[derive(Debug)]
pub(crate) struct Http {
    address: SocketAddr,
    stream: TcpStream,
    unread: BytesMut,
    used: Instant,
}

impl Http {
    async fn connect(address: SocketAddr) -> Self {
        let stream = from_anywhere(address).await;
        Self { address, stream, unread: BytesMut::new(), used: Instant::now() }
    }

    /// The body of the response; `None` if the session is not known (any more).
    async fn request(&mut self, method: &str, query: &str, body: &[u8]) -> Option<Vec<u8>> {
        if self.used.elapsed() > IDLE_MAX {
            *self = Self::connect(self.address).await;
        }
        let head = format!(
            "{method} /socket.io/?{query} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain;charset=UTF-8\r\n\
             Content-Length: {}\r\n\r\n",
            self.address,
            body.len(),
        );
        self.stream.write_all(&[head.as_bytes(), body].concat()).await.ok()?;
        let head = read_head(&mut self.stream, &mut self.unread).await?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().expect("a length"))
        });
        let length: usize = length.unwrap_or_else(|| panic!("a response without a length: {head}"));
        while self.unread.len() < length {
            if !matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..)) {
                return None;
            }
        }
        self.used = Instant::now();
        let body = self.unread.split_to(length).to_vec();
        head.starts_with("HTTP/1.1 200 ").then_some(body)
    }
}
