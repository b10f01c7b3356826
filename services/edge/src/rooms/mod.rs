//! Rooms of one shard, and deliveries to them.
//!
//! - [`index`]: which socket is in which room, both directions, by integer slots
//! - [`fan_out`]: one broadcast: its targets, its packet encoded once, and delivery in slices

pub mod fan_out;
pub mod index;
