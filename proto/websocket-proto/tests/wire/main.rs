//! The crate as its callers see it: golden vectors, tungstenite as the oracle, hostile bytes.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod client;

mod bounds;
mod differential;
mod vectors;
