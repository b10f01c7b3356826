//! RabbitMQ, in a format of our own, on a topic exchange.
//!
//! - [`wire`]: routing keys, headers and bodies; the memory broker speaks it too
//! - [`connection`]: one life of a connection: its queues, the claim, the watch
//! - `bindings`: what the queue is bound to
//! - `confirms`: publishes that it has not confirmed yet
//! - [`exchange`]: what runs on a connection

mod bindings;
mod confirms;
pub mod connection;
pub mod exchange;
pub mod wire;
