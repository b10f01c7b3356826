//! Several nodes on one broker: first on the one in memory, then on real ones that each test starts for itself.
//!
//! - [`adapter`]: the link to the broker alone
//! - [`semantics`]: what holds for clients and applications, on every broker, with one node, two and five
//! - [`promises`]: whoever has joined is reached, ten thousand times
//! - [`routing`]: who receives what, counted
//! - [`apart`]: two clusters on one broker
//! - [`comings`]: nodes that come and go, and one with very many sockets
//! - [`round_robin`]: no sticky sessions: the official clients behind a plain load balancer
//! - [`idle`]: nodes that a busy room does not concern
//! - [`outages`]: what clients notice when a broker fails
//! - [`checker`]: five hundred clients at random, and a judge of what they hear
//!
//! [`brokers`], [`nodes`] and [`client`] are what they are made of: brokers, edges in this process with puppets behind
//! them, and clients of every kind.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a panic is how a test helper reports a failure"
)]
#![allow(clippy::large_futures, reason = "a test holds one future, and not for long")]

mod brokers;
mod client;
mod nodes;

mod adapter;
mod apart;
mod checker;
mod comings;
mod idle;
mod outages;
mod promises;
mod round_robin;
mod routing;
mod semantics;
