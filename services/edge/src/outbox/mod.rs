//! Encoded packets that wait for one session's transport, and the policy for those who read too slowly.
//!
//! - [`wire`]: one packet (a text and its attachments), encoded once per dialect and shared by everyone
//! - [`queue`]: the bounded queues in front of one client, one for each transport
//! - [`slow_consumer`]: keep, drop, or close

pub mod queue;
pub mod slow_consumer;
pub mod wire;
