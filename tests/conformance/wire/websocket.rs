//! WebSocket clients: one that speaks in messages, one whose every byte the test chooses.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::server::json_after;
use super::{Reply, Request, Server, soon};

/// A WebSocket that speaks in whole messages.
#[derive(Debug)]
pub(crate) struct WebSocket {
    inner: WebSocketStream<TcpStream>,
    /// The last message sent, for the report when nothing comes back.
    last_sent: String,
}

impl WebSocket {
    pub(crate) async fn open(port: u16, target: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let url = format!("ws://localhost:{port}{target}");
        let opening = tokio_tungstenite::client_async(url, stream);
        let (inner, _) = soon("a WebSocket handshake", opening).await.expect("101");
        Self { inner, last_sent: "the handshake".into() }
    }

    /// The next message other than WebSocket pings and pongs; `None` once the stream is over.
    pub(crate) async fn message(&mut self) -> Option<Message> {
        loop {
            let what = format!("a WebSocket message after {}", self.last_sent);
            match soon(&what, self.inner.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next text, heartbeats included.
    pub(crate) async fn any_text(&mut self) -> String {
        match self.message().await {
            Some(Message::Text(text)) => text.to_string(),
            other => panic!("expected a text frame after {}, got {other:?}", self.last_sent),
        }
    }

    /// The next text that is not a ping of protocol 4; those are answered.
    pub(crate) async fn text(&mut self) -> String {
        loop {
            let text = self.any_text().await;
            if text != "2" {
                return text;
            }
            self.send("3").await;
        }
    }

    /// The next binary frame.
    pub(crate) async fn binary(&mut self) -> Vec<u8> {
        match self.message().await {
            Some(Message::Binary(data)) => data.to_vec(),
            other => panic!("expected a binary frame after {}, got {other:?}", self.last_sent),
        }
    }

    /// Expects exactly these texts next, heartbeats aside.
    pub(crate) async fn expect(&mut self, texts: &[&str]) {
        for expected in texts {
            assert_eq!(&self.text().await, expected);
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.last_sent = text.chars().take(200).collect();
        self.send_message(Message::text(text)).await;
    }

    pub(crate) async fn send_binary(&mut self, data: &[u8]) {
        self.last_sent = format!("{:02x?}", &data[..data.len().min(100)]);
        self.send_message(Message::binary(data.to_vec())).await;
    }

    async fn send_message(&mut self, message: Message) {
        soon("the server reads", self.inner.send(message)).await.expect("send");
    }

    /// Sends, and says whether the server still took it.
    pub(crate) async fn try_send(&mut self, text: &str) -> bool {
        soon("the server reads or hangs up", self.inner.send(Message::text(text))).await.is_ok()
    }

    /// Sends, and says whether the server still took it.
    pub(crate) async fn try_send_binary(&mut self, data: &[u8]) -> bool {
        soon("the server reads or hangs up", self.inner.send(Message::binary(data.to_vec()))).await.is_ok()
    }

    /// The next text, or `None` once the server has closed.
    pub(crate) async fn text_or_end(&mut self) -> Option<String> {
        match self.message().await {
            Some(Message::Text(text)) => Some(text.to_string()),
            _ => None,
        }
    }

    /// Whether the next thing is the server's close.
    pub(crate) async fn is_over(&mut self) -> bool {
        matches!(self.message().await, None | Some(Message::Close(_)))
    }

    /// Sends several texts in one write.
    pub(crate) async fn send_all(&mut self, texts: &[&str]) {
        for text in texts {
            self.inner.feed(Message::text(*text)).await.expect("feed");
        }
        soon("the server reads", self.inner.flush()).await.expect("flush");
    }

    /// Reads until the server closes. `Some(code)` when its close frame has one, `None` for an empty close frame;
    /// fails when the stream ends without a close frame.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.message().await {
                Some(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Some(_) => {}
                None => panic!("the stream ended without a close frame after {}", self.last_sent),
            }
        }
    }

    /// Sends an empty close frame and waits for the answer.
    pub(crate) async fn close(&mut self) {
        self.inner.close(None).await.expect("close");
        while self.message().await.is_some() {}
    }

    /// Reads the open packet.
    pub(crate) async fn open_packet(&mut self) -> Value {
        let packet = self.any_text().await;
        assert!(packet.starts_with('0'), "{packet}");
        json_after(&packet, 1)
    }

    /// Joins a namespace in protocol 5, reads the demo's first event, and returns the socket id.
    pub(crate) async fn join(&mut self, namespace: &str) -> String {
        let prefix = if namespace == "/" { String::new() } else { format!("{namespace},") };
        self.send(&format!("40{prefix}")).await;
        let reply = self.text().await;
        assert!(reply.starts_with(&format!("40{prefix}{{")), "{reply}");
        assert_eq!(self.text().await, format!(r#"42{prefix}["auth",{{}}]"#));
        json_after(&reply, 2 + prefix.len())["sid"].as_str().expect("a sid").to_owned()
    }
}

/// A WebSocket whose frames the test writes itself.
#[derive(Debug)]
pub(crate) struct RawWebSocket {
    stream: TcpStream,
    unread: Vec<u8>,
    /// The response to the handshake.
    pub(crate) handshake: Reply,
}

impl RawWebSocket {
    pub(crate) async fn open(server: &Server, request: Request) -> Self {
        let mut connection = server.connect().await;
        connection.send(&request).await;
        let handshake = connection.reply().await;
        assert_eq!(handshake.status, 101, "{handshake:?}");
        let (stream, unread) = connection.into_parts();
        Self { stream, unread, handshake }
    }

    /// The next frame: its first byte and its payload. Fails on a masked one.
    pub(crate) async fn frame(&mut self) -> (u8, Vec<u8>) {
        self.frame_or_end().await.expect("a frame before the end of the stream")
    }

    /// The next frame, or `None` at the end of the stream.
    pub(crate) async fn frame_or_end(&mut self) -> Option<(u8, Vec<u8>)> {
        soon("a WebSocket frame", self.read_frame()).await
    }

    async fn read_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.take(2).await?;
        assert_eq!(head[1] & 0x80, 0, "a server never masks");
        let length = match head[1] {
            126 => self.take(2).await?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            127 => self.take(8).await?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            short => usize::from(short),
        };
        Some((head[0], self.take(length).await?))
    }

    async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            if !matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..)) {
                return None;
            }
        }
        Some(self.unread.drain(..length).collect())
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        soon("the server reads", self.stream.write_all(bytes)).await.expect("write");
    }

    /// Writes what the server takes before it hangs up; true if that was everything.
    pub(crate) async fn try_write(&mut self, bytes: &[u8]) -> bool {
        soon("the server reads or hangs up", self.stream.write_all(bytes)).await.is_ok()
    }

    /// Sends a text frame.
    pub(crate) async fn text(&mut self, text: &str) {
        self.write(&frame(0x81, text.as_bytes())).await;
    }

    /// Expects a close frame with this code, answers it, and expects the end of the stream.
    pub(crate) async fn expect_close(&mut self, what: &str, code: Option<u16>) {
        loop {
            let Some((first, payload)) = self.frame_or_end().await else {
                panic!("the stream ended without a close frame after {what}");
            };
            if first != 0x88 {
                continue;
            }
            let got = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            assert_eq!(got, code, "close frame {payload:02x?} after {what}");
            self.try_write(&frame(0x88, &payload)).await;
            break;
        }
        assert_eq!(self.frame_or_end().await, None, "nothing follows a close frame, after {what}");
    }
}

/// A client frame with a fixed mask.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked_frame(first, payload, [0x37, 0xfa, 0x21, 0x3d])
}

/// A client frame with the mask of the test's choice.
pub(crate) fn masked_frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = frame_header(first, payload.len());
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The head of a masked client frame, without the mask.
pub(crate) fn frame_header(first: u8, length: usize) -> Vec<u8> {
    match u16::try_from(length) {
        Ok(short @ 0..=125) => vec![first, 0x80 | short.to_be_bytes()[1]],
        Ok(medium) => [&[first, 0x80 | 126], &medium.to_be_bytes()[..]].concat(),
        Err(_) => [&[first, 0x80 | 127], &(length as u64).to_be_bytes()[..]].concat(),
    }
}
