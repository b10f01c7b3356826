//! Socket.IO on top of the sessions of one shard.
//!
//! - [`app`]: packets in, by session: the implementation of [`crate::session::app::SessionApp`]
//! - [`connect`]: joining and leaving namespaces
//! - [`namespace`]: the namespaces that exist, and which may
//! - [`socket`]: one client in one namespace
//! - `events`: events and acknowledgements, to the application and back
//! - [`acks`]: acknowledgements that clients still owe
//! - [`deliver`]: actions and broadcasts, carried out in one order
//! - `targets`: whom a selector means
//! - [`siblings`]: the other shards of this edge
//! - [`interest`]: what this shard wants to hear of other nodes
//! - [`joining`]: sockets whose joins wait for that
//! - [`local`]: what the cluster wants of this node's sockets, handed to the shards
//! - [`gather`]: the answers of all shards made into one
//! - `operate`: what is asked of the sockets of one shard
//! - [`bulk`]: what changes many sockets, some at a time
//! - [`selection`]: what one page of a list needs of one shard
//! - `describe`: a socket as other nodes see it

pub mod acks;
pub mod app;
pub mod bulk;
pub mod connect;
pub mod deliver;
mod describe;
mod events;
pub mod gather;
pub mod interest;
pub mod joining;
pub mod local;
pub mod namespace;
mod operate;
pub mod selection;
pub mod siblings;
pub mod socket;
mod targets;
