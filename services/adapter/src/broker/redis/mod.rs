//! Redis and Valkey, in the format of the Node adapter, by publish and subscribe. The client is our own: every event
//! of the cluster passes it (docs/decisions/0013).
//!
//! - [`wire`]: channels and patterns, and which codec speaks where
//! - [`target`]: what a URL says
//! - [`resp`]: the bytes of commands and replies
//! - [`connection`]: from the first byte to the claim: TCP, TLS, Sentinel
//! - [`claim`]: whose a node id is
//! - [`session`]: what is said on a connection, without it
//! - [`pubsub`]: a session on its connection, and its renewal

pub mod claim;
pub mod connection;
pub mod pubsub;
pub mod resp;
pub mod session;
pub mod target;
pub mod wire;
