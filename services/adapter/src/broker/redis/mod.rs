//! Redis and Valkey, in the format of the Node adapter, by publish and subscribe.
//!
//! - [`wire`]: channels and patterns, and which codec speaks where
//! - [`connection`]: one life of a connection: two clients, the claim, the watch
//! - [`pubsub`]: what runs on it, and its renewal

pub mod connection;
pub mod pubsub;
pub mod wire;
