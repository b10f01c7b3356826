//! RabbitMQ: the names of the exchange and the routing keys, the headers, and our own format.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`names`] | exchange, routing keys, and the address of a broadcast |
//! | [`hash`] | the hash of a room, which chooses its bucket and lets others drop a message undecoded |
//! | [`header`] | the names of message headers, and the list of room hashes |
//! | [`codec`] | messages, responses and heartbeats as MessagePack maps |

pub mod codec;
pub mod hash;
pub mod header;
pub mod names;
mod wire;
