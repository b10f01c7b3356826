//! Socket.IO on top of the sessions of one shard.
//!
//! - [`app`]: packets in, by session: the implementation of [`crate::session::app::SessionApp`]
//! - [`connect`]: joining and leaving namespaces
//! - [`namespace`]: the namespaces that exist, and which may
//! - [`socket`]: one client in one namespace
//! - `events`: events and acknowledgements, to the application and back
//! - [`acks`]: acknowledgements that clients still owe
//! - [`deliver`]: actions and broadcasts, carried out in one order
//! - [`peers`]: the other shards of this edge

pub mod acks;
pub mod app;
pub mod connect;
pub mod deliver;
mod events;
pub mod namespace;
pub mod peers;
pub mod socket;
