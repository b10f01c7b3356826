//! HTTP/1.1 on a plain stream, to see exactly what the server writes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

/// A request in the making. `Host` and `Content-Length` are filled in; anything else is up to the test.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).header("Content-Type", "text/plain;charset=UTF-8").body(body)
    }

    /// Sets a header, replacing one of the same name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets a header unless there is one of that name.
    pub(crate) fn or_header(self, name: &str, value: &str) -> Self {
        let is_set = self.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        if is_set { self } else { self.header(name, value) }
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The handshake of a WebSocket client, with the key of RFC 6455's example.
    pub(crate) fn websocket(target: &str) -> Self {
        Self::get(target)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    /// The request as it goes over the wire.
    pub(crate) fn bytes(&self, port: u16) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: localhost:{port}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let has_length = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        if !has_length && (!self.body.is_empty() || self.method == "POST") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A whole response.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// Expects a status and a body.
    pub(crate) fn expect(&self, status: u16, body: &str) {
        let got = String::from_utf8_lossy(&self.body);
        let cut = |text: &str| text.chars().take(300).collect::<String>();
        assert!(
            (self.status, got.as_ref()) == (status, body),
            "got {} {}\nnot {status} {}",
            self.status,
            cut(&got),
            cut(body)
        );
    }
}

/// One client connection; replies are read in order.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    port: u16,
    unread: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(port: u16) -> Self {
        let stream =
            soon("a TCP connection", TcpStream::connect(("127.0.0.1", port))).await.expect("connect");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self { stream, port, unread: Vec::new() }
    }

    pub(crate) async fn send(&mut self, request: &Request) {
        let bytes = request.bytes(self.port);
        self.write(&bytes).await;
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        soon("the server reads", self.stream.write_all(bytes)).await.expect("write");
    }

    /// Writes and says whether the server still took it, for tests in which it may hang up first.
    pub(crate) async fn try_write(&mut self, bytes: &[u8]) -> bool {
        soon("the server reads or hangs up", self.stream.write_all(bytes)).await.is_ok()
    }

    /// The next response.
    pub(crate) async fn reply(&mut self) -> Reply {
        soon("a response", self.read_reply()).await.expect("a response before the end of the stream")
    }

    /// The next response, or `None` when the server hangs up without one.
    pub(crate) async fn reply_or_end(&mut self) -> Option<Reply> {
        soon("a response or the end", self.read_reply()).await
    }

    /// Waits until the server hangs up and returns what it wrote before.
    pub(crate) async fn end(&mut self) -> Vec<u8> {
        let reading = async { while self.fill().await {} };
        soon("the server hangs up", reading).await;
        std::mem::take(&mut self.unread)
    }

    /// The stream and the bytes read ahead, once the connection has become something else.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.unread)
    }

    async fn read_reply(&mut self) -> Option<Reply> {
        let head_end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head = String::from_utf8(self.unread.drain(..head_end).collect()).expect("a head in ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a header line");
            (name.to_owned(), value.trim().to_owned())
        });
        let mut reply =
            Reply { status: status.parse().expect("a status"), headers: headers.collect(), body: Vec::new() };
        if matches!(reply.status, 100..=199 | 204 | 304) {
            return Some(reply);
        }
        if reply.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            reply.body = self.read_chunks().await?;
        } else if let Some(length) = reply.header("content-length") {
            let length = length.parse().expect("a length");
            reply.body = self.take(length).await?;
        } else {
            while self.fill().await {}
            reply.body = std::mem::take(&mut self.unread);
        }
        Some(reply)
    }

    async fn read_chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line_end = loop {
                if let Some(at) = find(&self.unread, b"\r\n") {
                    break at;
                }
                if !self.fill().await {
                    return None;
                }
            };
            let line = self.take(line_end + 2).await?;
            let size = std::str::from_utf8(&line).expect("a chunk size").trim();
            let size = usize::from_str_radix(size, 16).expect("a hexadecimal chunk size");
            let chunk = self.take(size + 2).await?;
            if size == 0 {
                return Some(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.unread.drain(..length).collect())
    }

    /// Reads more; false at the end of the stream, however it ended.
    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..))
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
