//! The process that holds client connections.
//!
//! An edge listens for Socket.IO clients of every age and keeps their sessions on shards: threads that share
//! nothing, each a complete server. Brokers are the business of the `adapter`; client events leave through
//! [`upstream`]. [`start`] puts an edge together.
//!
//! Modules look one way: [`listener`] → [`transport`] → [`session`] → [`socketio`] → [`rooms`] → [`outbox`], with
//! [`upstream`] beside `rooms`. News travels back as messages on queues. [`shard`] holds them together.
//!
//! Specifications: Engine.IO protocol 3 and 4, Socket.IO protocol 4 and 5, RFC 6455. Where the reference server
//! and the documents differ, `docs/protocol.md` says which one is followed.

pub mod cluster;
pub mod config;
pub mod ids;
pub mod inbox;
pub mod listener;
pub mod metrics;
pub mod outbox;
pub mod rooms;
pub mod session;
pub mod shard;
pub mod socketio;
pub mod start;
pub mod threads;
pub mod transport;
pub mod upstream;

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use bytes::Bytes;
    use tokio::net::TcpStream;

    use super::session::link::LinkId;
    use super::session::registry::{Session, SessionKey};
    use super::shard::Shard;
    use super::socketio::app::{ClientState, SocketIo};
    use super::socketio::socket::Socket;
    use super::transport::{self, tunnel::Tunnel};

    /// The bytes of the future that an async function returns.
    fn future_bytes<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// The same of one with four arguments.
    fn long_future_bytes<A, B, C, D, F: Future>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_lives_as_long_as_a_session_stays_small() {
        let serve: fn(Rc<Shard<SocketIo>>, SessionKey, LinkId) -> _ = transport::websocket::serve;
        let relay: fn(Rc<Shard<SocketIo>>, TcpStream, Bytes, Box<Tunnel>) -> _ = transport::tunnel::serve;
        for (what, bytes, bytes_max) in [
            ("a session with its client's state", size_of::<Session<ClientState>>(), 352),
            ("a socket", size_of::<Socket>(), 64),
            ("the task of a WebSocket", future_bytes(serve), 96),
            ("the task of a relayed WebSocket", long_future_bytes(relay), 384),
        ] {
            assert!(bytes <= bytes_max, "{what} takes {bytes} bytes, {bytes_max} allowed");
        }
    }
}
