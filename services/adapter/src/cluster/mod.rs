//! The cluster without I/O: who is alive, who still owes an answer, and what was heard before.
//!
//! Each machine takes what happened and the time, and hands back what to send and what to tell; none looks at a clock.
//!
//! - [`peers`]: heartbeats in and out, who has come, left and died
//! - [`requests`]: the answers to what this node asked
//! - [`duplicates`]: idempotency keys that were handled before

pub mod duplicates;
pub mod peers;
pub mod requests;
