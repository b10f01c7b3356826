//! The emitter: an HTTP API by which any backend reaches any socket, room, user or namespace of the cluster.
//!
//! An emitter holds no client connection and keeps nothing that must outlive it. It checks a call, turns it into one
//! message to the edges, and says whether the broker has it or what the edges answered.
//!
//! What this crate refuses to know: clients, sessions, and how a broker is spoken to.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`server`] | [`server::Emitter`]: starting, listening, closing |
//! | [`config`], [`metrics`] | the section `emitter`; what is counted |
//! | `api` | the calls, one file each, and what they have in common |
//! | `auth` | API keys, tokens, scopes, rates |
//! | `link` | the adapter, bounded by the time that a call may take |
//! | `gather` | what the answers of edges add up to, without I/O |
//! | `document` | binary values in JSON, and MessagePack |
//! | `event`, `selector`, `cursor`, `idempotency` | what is sent, to whom, where a list goes on, what is a repeat |

mod api;
mod auth;
pub mod config;
mod cursor;
mod document;
mod event;
mod gather;
mod idempotency;
mod link;
pub mod metrics;
mod selector;
pub mod server;

pub use auth::credentials::CredentialsError;
