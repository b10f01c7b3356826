//! The server under test and the first steps with it.

use serde_json::Value;
use system_tests::TestEdge;

use super::http::Connection;
use super::{Polling, RawWebSocket, Reply, Request, WebSocket};

/// A running server and the path that its protocol lives under.
#[derive(Debug)]
pub(crate) struct Server {
    edge: TestEdge,
    path: &'static str,
}

impl Server {
    /// The gateway with the demo upstream, on one shard unless `sets` say otherwise.
    pub(crate) fn socketio(sets: &[&str]) -> Self {
        Self { edge: TestEdge::start(&with_defaults(sets)), path: "/socket.io/" }
    }

    /// The Engine.IO layer alone, which sends every message back.
    pub(crate) fn engineio(sets: &[&str]) -> Self {
        Self { edge: TestEdge::start_engineio_echo(&with_defaults(sets)), path: "/engine.io/" }
    }

    pub(crate) fn port(&self) -> u16 {
        self.edge.port()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.edge.pid()
    }

    /// What the server has logged so far; the last lines may still be under way.
    pub(crate) fn log(&self) -> String {
        self.edge.log()
    }

    /// The request target for a query.
    pub(crate) fn target(&self, query: &str) -> String {
        format!("{}?{query}", self.path)
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.port()).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(&self, request: Request) -> Reply {
        self.start(request).await.reply().await
    }

    /// Sends a request and leaves its response to be read later.
    pub(crate) async fn start(&self, request: Request) -> Connection {
        let mut connection = self.connect().await;
        connection.send(&request.or_header("Connection", "close")).await;
        connection
    }

    pub(crate) async fn get(&self, query: &str) -> Reply {
        self.send(Request::get(&self.target(query))).await
    }

    pub(crate) async fn post(&self, query: &str, body: impl Into<Vec<u8>>) -> Reply {
        self.send(Request::post(&self.target(query), body)).await
    }

    /// Lets the server take in what was sent on other connections before: it answers these round trips only
    /// after a turn of the loop in which the earlier bytes were there to be read.
    pub(crate) async fn settle(&self) {
        for _ in 0..3 {
            let reply = self.get("EIO=4&transport=polling&sid=nobody").await;
            assert_eq!(reply.status, 400);
        }
    }

    /// Opens a polling session; `query` holds `EIO` and whatever else the handshake should carry.
    pub(crate) async fn polling(&self, query: &str) -> Polling<'_> {
        Polling::open(self, query).await
    }

    /// Opens a WebSocket; `query` is everything but the transport. Nothing is read from it yet.
    pub(crate) async fn websocket(&self, query: &str) -> WebSocket {
        WebSocket::open(self.port(), &self.target(&format!("{query}&transport=websocket"))).await
    }

    /// Opens a WebSocket whose frames the test writes byte by byte, and reads the open packet.
    pub(crate) async fn raw_websocket(&self, query: &str) -> RawWebSocket {
        let target = self.target(&format!("{query}&transport=websocket"));
        let mut socket = RawWebSocket::open(self, Request::websocket(&target)).await;
        let (first, payload) = socket.frame().await;
        assert_eq!((first, payload.first()), (0x81, Some(&b'0')));
        socket
    }

    /// A WebSocket session of protocol 5 that has joined `/`; returns it with its socket id.
    pub(crate) async fn socket(&self) -> (WebSocket, String) {
        let mut socket = self.websocket("EIO=4").await;
        socket.open_packet().await;
        let sid = socket.join("/").await;
        (socket, sid)
    }
}

/// One shard makes "before" and "after" mean something to a test with several connections.
fn with_defaults<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    [&["edge.shards=1"], sets].concat()
}

/// The JSON after a packet's `digits` leading bytes.
pub(crate) fn json_after(packet: &str, digits: usize) -> Value {
    serde_json::from_str(&packet[digits..]).unwrap_or_else(|error| panic!("{packet}: {error}"))
}
