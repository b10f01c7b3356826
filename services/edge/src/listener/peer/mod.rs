//! What nodes ask of each other over HTTP/1.1: requests of clients whose session lives elsewhere.
//!
//! - `head`: the head of such a request, on both sides
//! - [`secret`]: what it is signed with
//! - [`port`]: the port of the listener, taken before other nodes hear of it
//! - [`serve`]: the listener: it serves sessions of this node and never asks another one
//!
//! The other side is [`super::relay`].

pub(super) mod head;
pub mod port;
pub mod secret;
pub mod serve;
