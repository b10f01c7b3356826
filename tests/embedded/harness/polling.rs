//! HTTP one request at a time, and polling sessions of protocol 5 (and their handshake in protocol 4).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::BytesMut;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;
use super::stream::{connect, read_head};
use super::websocket::{event, json_after};

/// A whole response.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Reply {
    /// Reads the body behind a head: the server closes after each response.
    pub(crate) async fn read(head: String, mut stream: TcpStream, mut unread: BytesMut) -> Self {
        let reading = async { while matches!(stream.read_buf(&mut unread).await, Ok(1..)) {} };
        soon("the end of a response", reading).await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head, body: String::from_utf8_lossy(&unread).into_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    #[track_caller]
    pub(crate) fn expect(&self, status: u16, body: &str) {
        assert!((self.status, &*self.body) == (status, body), "{self:.300?}\nnot {status} {body:.300}");
    }
}

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Pending(TcpStream);

impl Pending {
    /// The client goes away.
    pub(crate) fn abandon(self) {
        drop(self.0);
    }

    /// Its response; status 0 if the edge hangs up without one.
    pub(crate) async fn reply(mut self) -> Reply {
        let mut unread = BytesMut::new();
        let head = soon("a response", read_head(&mut self.0, &mut unread)).await.unwrap_or_default();
        Reply::read(head, self.0, unread).await
    }
}

/// A request in the making.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) query: &'a str,
    /// Further headers, each with its line end.
    pub(crate) headers: &'a str,
    /// With a body it is a POST.
    pub(crate) body: Option<&'a str>,
    pub(crate) from: IpAddr,
}

impl<'a> Request<'a> {
    pub(crate) fn get(query: &'a str) -> Self {
        Self { query, headers: "", body: None, from: Ipv4Addr::LOCALHOST.into() }
    }

    pub(crate) async fn start(&self, address: SocketAddr) -> Pending {
        let mut stream = connect(address, self.from, None).await;
        let (method, body) = self.body.map_or(("GET", ""), |body| ("POST", body));
        let head = format!(
            "{method} /socket.io/?{} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Length: {}\r\n{}\r\n",
            self.query,
            body.len(),
            self.headers
        );
        // An edge that refuses may hang up before it has read everything; its answer says why.
        let _ = soon("the edge reads", stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())).await;
        Pending(stream)
    }

    pub(crate) async fn send(&self, address: SocketAddr) -> Reply {
        self.start(address).await.reply().await
    }
}

/// A polling session.
#[derive(Debug)]
pub(crate) struct Polling {
    address: SocketAddr,
    /// The query of its requests.
    pub(crate) query: String,
    pub(crate) sid: String,
}

impl Polling {
    /// Opens a session of protocol 5.
    pub(crate) async fn open(address: SocketAddr, query: &str) -> Self {
        let reply = Request::get(&format!("{query}&transport=polling")).send(address).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        Self::opened(address, &reply)
    }

    /// A session of protocol 5 that this response has opened.
    pub(crate) fn opened(address: SocketAddr, handshake: &Reply) -> Self {
        let open = json_after(&handshake.body, 1);
        let sid = open["sid"].as_str().expect("a sid").to_owned();
        Self { address, query: format!("EIO=4&transport=polling&sid={sid}"), sid }
    }

    /// The same session, asked for at another edge.
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        Self { address, query: self.query.clone(), sid: self.sid.clone() }
    }

    /// Joins `/`.
    pub(crate) async fn join(&self) -> String {
        self.post("40").await.expect(200, "ok");
        let reply = self.get().await;
        assert!(reply.body.starts_with("40{"), "{reply:?}");
        json_after(&reply.body, 2)["sid"].as_str().expect("a sid").to_owned()
    }

    pub(crate) async fn get(&self) -> Reply {
        Request::get(&self.query).send(self.address).await
    }

    pub(crate) async fn start_get(&self) -> Pending {
        Request::get(&self.query).start(self.address).await
    }

    pub(crate) async fn post(&self, body: &str) -> Reply {
        self.start_post(body).await.reply().await
    }

    pub(crate) async fn start_post(&self, body: &str) -> Pending {
        Request { body: Some(body), ..Request::get(&self.query) }.start(self.address).await
    }

    /// Has the application do something.
    pub(crate) async fn act(&self, actions: Value) {
        let event = event("do", &[], &actions);
        self.post(&format!("42{event}")).await.expect(200, "ok");
    }
}
