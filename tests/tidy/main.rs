//! The house rules that a compiler does not know: who may depend on whom, where things live, and that every key of
//! the configuration is obeyed.
//!
//! Whoever changes a rule changes it here in the same commit, with a few lines in `docs/decisions/`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a panic is how a test reports a failure"
)]

mod tree;

mod configuration;
mod dependencies;
mod documents;
mod metrics;
mod sources;
