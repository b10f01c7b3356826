//! Several nodes on one broker: first on the one in memory, then on real ones that each test starts for itself.
//!
//! - [`adapter`]: the link to the broker alone

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test helper reports a failure"
)]

mod adapter;
