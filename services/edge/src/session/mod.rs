//! Engine.IO sessions of one shard.
//!
//! - [`registry`]: the table of sessions, and what each one is
//! - [`send`]: packets to a session's outbox
//! - [`ending`]: how a session ends and who is told
//! - [`deadlines`], [`timers`]: all deadlines of the shard on one tick
//! - [`drive`]: feeds each session's protocol machine with what its transports bring
//! - [`turns`]: calls to the application that must wait for one another
//! - [`link`]: the WebSocket of one session
//! - [`polling`]: the parked poll of one session and the packets that wait for the next one
//! - `trace`: frames in the log
//! - [`app`]: the application on top, as a trait

pub mod app;
pub mod deadlines;
pub mod drive;
pub mod ending;
pub mod link;
pub mod polling;
pub mod registry;
pub mod send;
pub mod timers;
mod trace;
pub mod turns;
