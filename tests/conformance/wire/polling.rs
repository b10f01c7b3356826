//! A session over HTTP long-polling, in both protocol versions.

use serde_json::Value;

use super::http::Connection;
use super::server::json_after;
use super::{Reply, Request, Server, soon};

/// A polling session. Requests go out on a connection each, as browsers may do.
#[derive(Debug)]
pub(crate) struct Polling<'s> {
    server: &'s Server,
    v3: bool,
    pub(crate) sid: String,
    /// The open packet's JSON.
    pub(crate) open: Value,
    /// Packets that shared the handshake response.
    pub(crate) early: Vec<String>,
}

impl<'s> Polling<'s> {
    pub(crate) async fn open(server: &'s Server, query: &str) -> Self {
        let reply = server.get(&format!("{query}&transport=polling")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let v3 = !query.contains("EIO=4");
        let mut packets = split(reply.text(), v3);
        let open = json_after(&packets.remove(0), 1);
        let sid = open["sid"].as_str().expect("a sid").to_owned();
        Self { server, v3, sid, open, early: packets }
    }

    /// The query of later requests, without `EIO`'s value being looked at again by the client.
    pub(crate) fn query(&self) -> String {
        format!("EIO={}&transport=polling&sid={}", if self.v3 { 3 } else { 4 }, self.sid)
    }

    /// The query with which a WebSocket takes this session over.
    pub(crate) fn upgrade_query(&self) -> String {
        format!("EIO={}&sid={}", if self.v3 { 3 } else { 4 }, self.sid)
    }

    pub(crate) async fn poll(&self) -> Reply {
        self.server.get(&self.query()).await
    }

    /// Sends a poll and lets the server park it.
    pub(crate) async fn park(&self) -> Connection {
        let connection = self.server.start(Request::get(&self.server.target(&self.query()))).await;
        self.server.settle().await;
        connection
    }

    /// The packets of the next poll.
    pub(crate) async fn packets(&self) -> Vec<String> {
        let reply = self.poll().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        split(reply.text(), self.v3)
    }

    /// Polls until `count` packets have come.
    pub(crate) async fn packets_until(&self, count: usize) -> Vec<String> {
        let mut packets = Vec::new();
        while packets.len() < count {
            packets.extend(self.packets().await);
        }
        assert_eq!(packets.len(), count, "{packets:?}");
        packets
    }

    /// Posts a body as it is.
    pub(crate) async fn post(&self, body: impl Into<Vec<u8>>) -> Reply {
        self.server.post(&self.query(), body).await
    }

    /// Posts packets and expects them to be taken.
    pub(crate) async fn send(&self, packets: &[&str]) {
        self.post(join(packets, self.v3)).await.expect(200, "ok");
    }

    /// Expects the session to be gone.
    pub(crate) async fn expect_gone(&self) {
        self.poll().await.expect(400, r#"{"code":1,"message":"Session ID unknown"}"#);
    }

    /// Waits until the session is gone. It is asked by posts, since a poll would end it itself.
    pub(crate) async fn ends(&self) {
        let noop = join(&["6"], self.v3);
        soon("the session ends", async { while self.post(noop.as_str()).await.status == 200 {} }).await;
        self.expect_gone().await;
    }

    /// Joins `/` over polling and reads the demo's first event; protocol 5.
    pub(crate) async fn join(&self) -> String {
        self.send(&["40"]).await;
        let packets = self.packets_until(2).await;
        assert_eq!(packets[1], r#"42["auth",{}]"#);
        json_after(&packets[0], 2)["sid"].as_str().expect("a sid").to_owned()
    }
}

/// A text payload of either version.
pub(crate) fn join(packets: &[&str], v3: bool) -> String {
    if v3 {
        return packets.iter().map(|packet| format!("{}:{packet}", packet.encode_utf16().count())).collect();
    }
    packets.join("\x1e")
}

/// The packets of a text payload; version 3 counts UTF-16 code units.
pub(crate) fn split(payload: &str, v3: bool) -> Vec<String> {
    if !v3 {
        return payload.split('\x1e').map(str::to_owned).collect();
    }
    let mut packets = Vec::new();
    let mut rest = payload;
    while !rest.is_empty() {
        let (units, tail) = rest.split_once(':').unwrap_or_else(|| panic!("no length in {rest:?}"));
        let units: usize = units.parse().unwrap_or_else(|_| panic!("{units:?} is no length"));
        let mut seen = 0;
        let end = tail.char_indices().find_map(|(at, character)| {
            let here = seen == units;
            seen += character.len_utf16();
            here.then_some(at)
        });
        let (packet, next) = tail.split_at(end.unwrap_or(tail.len()));
        assert_eq!(packet.encode_utf16().count(), units, "{payload:?}");
        packets.push(packet.to_owned());
        rest = next;
    }
    packets
}
