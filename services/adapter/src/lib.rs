//! The link of one process to its cluster: what is published here is heard where it is wanted, and nowhere else.
//!
//! A process starts an [`adapter::Adapter`], tells it which rooms have members, and implements [`local::LocalSockets`]
//! for what comes in. One thread speaks to the broker; no call of the adapter blocks. Local delivery is none of its business:
//! whoever publishes serves its own sockets first.
//!
//! What this crate refuses to know: clients, sessions and shards. No broker's client is named outside [`broker`].
//!
//! | Module | What it holds |
//! |---|---|
//! | [`adapter`] | [`adapter::Adapter`]: publish, join, leave, request, status |
//! | [`local`] | [`local::LocalSockets`], and the reply to a request |
//! | `engine` | the thread that moves everything |
//! | [`interest`] | what this node wants to hear, without I/O |
//! | [`cluster`] | who is alive, who owes an answer, what was heard before, without I/O |
//! | [`broker`] | the brokers behind one trait |
//! | [`config`], [`metrics`] | the sections `broker` and `cluster`; what is counted |

pub mod adapter;
pub mod broker;
pub mod cluster;
pub mod config;
mod engine;
pub mod interest;
pub mod local;
pub mod metrics;

pub use engine::handle::Status;
