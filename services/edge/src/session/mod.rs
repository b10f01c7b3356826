//! Engine.IO sessions of one shard.
//!
//! - [`registry`]: the table of sessions, what they send, how they end
//! - [`drive`]: feeds each session's protocol machine and hands messages to the application in order
//! - [`link`]: the WebSocket of one session
//! - [`polling`]: the parked poll of one session and the packets that wait for the next one
//! - [`timers`]: all deadlines of the shard on one tick
//! - [`app`]: the application on top, as a trait

pub mod app;
pub mod drive;
pub mod link;
pub mod polling;
pub mod registry;
pub mod timers;
