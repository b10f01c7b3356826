//! A WebSocket client of few bytes, so that a test can hold thousands of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::BytesMut;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::polling::Reply;
use super::soon;
use super::stream::{connect, header, read_head};

/// How a client comes in.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    /// Everything of the query but the transport.
    pub(crate) query: &'a str,
    /// Further headers, each with its line end.
    pub(crate) headers: &'a str,
    /// The address that it comes from.
    pub(crate) from: IpAddr,
    /// The size of its receive buffer: a small one makes the edge wait soon.
    pub(crate) receive_buffer: Option<u32>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { query: "EIO=4", headers: "", from: Ipv4Addr::LOCALHOST.into(), receive_buffer: None }
    }
}

impl Options<'_> {
    /// A client that soon takes no more unless it reads.
    pub(crate) fn narrow() -> Self {
        Self { receive_buffer: Some(4096), ..Self::default() }
    }
}

/// What comes next from the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A text, heartbeats included.
    Text(String),
    /// A close frame, with its code if it has one.
    Closed(Option<u16>),
    /// The end of the stream, by a reset too.
    End,
}

/// One WebSocket session.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    unread: BytesMut,
    /// The open packet's JSON.
    pub(crate) open: Value,
    /// The id of the socket that was joined last.
    pub(crate) id: String,
}

impl Client {
    /// Opens a WebSocket and reads the open packet.
    pub(crate) async fn open(address: SocketAddr, options: &Options<'_>) -> Self {
        match Self::try_open(address, options).await {
            Ok(mut client) => {
                let Next::Text(packet) = client.next().await else { panic!("no open packet") };
                client.open = json_after(&packet, 1);
                client
            }
            Err(reply) => panic!("no WebSocket: {reply:?}"),
        }
    }

    /// Opens a WebSocket and reads nothing from it; the refusal if the edge does not want it.
    pub(crate) async fn try_open(address: SocketAddr, options: &Options<'_>) -> Result<Self, Reply> {
        let mut stream = connect(address, options.from, options.receive_buffer).await;
        let head = format!(
            "GET /socket.io/?{}&transport=websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
            options.query, options.headers
        );
        stream.write_all(head.as_bytes()).await.expect("the edge reads");
        let mut unread = BytesMut::new();
        let head = soon("a response to a WebSocket request", read_head(&mut stream, &mut unread)).await;
        let head = head.unwrap_or_default();
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(Reply::read(head, stream, unread).await);
        }
        Ok(Self { stream, unread, open: Value::Null, id: String::new() })
    }

    /// Joins a namespace and remembers the socket's id.
    pub(crate) async fn join(&mut self, namespace: &str) {
        let prefix = if namespace == "/" { String::new() } else { format!("{namespace},") };
        self.send(&format!("40{prefix}")).await;
        let reply = self.text().await;
        assert!(reply.starts_with(&format!("40{prefix}{{")), "{reply}");
        self.id = json_after(&reply, 2 + prefix.len())["sid"].as_str().expect("a sid").to_owned();
    }

    pub(crate) async fn send(&mut self, text: &str) {
        assert!(self.try_send(text).await, "the edge has hung up before {:.100}", text);
    }

    /// Sends a text and says whether the edge still took it.
    pub(crate) async fn try_send(&mut self, text: &str) -> bool {
        let mut frame = header(0x81, text.len());
        frame.extend_from_slice(text.as_bytes());
        self.try_write(&frame).await
    }

    /// Writes bytes as they are and says whether the edge still took them.
    pub(crate) async fn try_write(&mut self, bytes: &[u8]) -> bool {
        soon("the edge reads", self.stream.write_all(bytes)).await.is_ok()
    }

    /// Has the application do something.
    pub(crate) async fn act(&mut self, actions: Value) {
        let event = event("do", &[], &actions);
        self.send(&format!("42{event}")).await;
    }

    /// Has the application do something and waits for its ack, which must be the next thing that comes.
    pub(crate) async fn act_and_wait(&mut self, actions: Value) {
        let event = event("do", &[], &actions);
        self.send(&format!("420{event}")).await;
        self.expect(&["430[true]"]).await;
    }

    /// Has the application do something once the test opens the gate; the ack has this id.
    pub(crate) async fn act_later(&mut self, ack: u32, gate: &str, actions: Value) {
        let event = event("later", &[gate.into()], &actions);
        self.send(&format!("42{ack}{event}")).await;
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Next {
        soon("something from the edge", self.read_next()).await
    }

    async fn read_next(&mut self) -> Next {
        loop {
            let Some((first, payload)) = self.frame().await else { return Next::End };
            match first {
                0x81 => return Next::Text(String::from_utf8(payload.to_vec()).expect("UTF-8")),
                0x88 => {
                    return Next::Closed(payload.first_chunk().map(|code| u16::from_be_bytes(*code)));
                }
                0x8a => {}
                other => panic!("a frame that starts with {other:#x}"),
            }
        }
    }

    /// The next text that is no ping; pings are answered.
    pub(crate) async fn text(&mut self) -> String {
        loop {
            match self.next().await {
                Next::Text(text) if text == "2" => self.send("3").await,
                Next::Text(text) => return text,
                other => panic!("{other:?} in place of a text"),
            }
        }
    }

    /// Expects exactly these texts next.
    pub(crate) async fn expect(&mut self, texts: &[&str]) {
        for expected in texts {
            let got = self.text().await;
            assert!(got == *expected, "got {got:.200}\nnot {expected:.200}");
        }
    }

    /// Reads to the end: the texts, and how it ended.
    pub(crate) async fn rest(&mut self) -> (Vec<String>, Next) {
        let mut texts = Vec::new();
        loop {
            match self.next().await {
                Next::Text(text) => texts.push(text),
                end => return (texts, end),
            }
        }
    }

    /// Expects a close frame next, with this code or none.
    pub(crate) async fn expect_close(&mut self, code: Option<u16>) {
        assert_eq!(self.next().await, Next::Closed(code));
    }

    /// Bytes that have arrived and are not read.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        let in_kernel = rustix::io::ioctl_fionread(&self.stream).expect("an open stream");
        in_kernel + self.unread.len() as u64
    }

    /// Says goodbye and waits for the answer.
    pub(crate) async fn close(mut self) {
        self.try_write(&header(0x88, 0)).await;
        while matches!(self.next().await, Next::Text(_)) {}
    }

    /// Breaks the connection off with a reset.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("a stream");
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

/// An event for the puppet: name, arguments, and the actions if there are any.
pub(crate) fn event(name: &str, arguments: &[Value], actions: &Value) -> Value {
    let actions = actions.as_array().cloned().unwrap_or_default();
    [name.into()].into_iter().chain(arguments.iter().cloned()).chain(actions).collect()
}

/// The JSON behind a packet's first `digits` bytes.
pub(crate) fn json_after(packet: &str, digits: usize) -> Value {
    serde_json::from_str(&packet[digits..]).unwrap_or_else(|error| panic!("{packet}: {error}"))
}
