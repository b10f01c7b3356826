//! Redis: the names of channels, patterns and keys, and the messages of `@socket.io/redis-adapter` in its pub/sub mode.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`channel`] | every channel, pattern and key name |
//! | [`classic`] | broadcasts, requests and responses as the Node adapter and the emitters write them |
//! | [`heartbeat`] | our own heartbeats, on a channel of their own |

pub mod channel;
pub mod classic;
pub mod heartbeat;
