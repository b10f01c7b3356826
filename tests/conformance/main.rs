//! The protocol as a client sees it: every test starts a real server on loopback and speaks to it with bytes.
//!
//! The published protocol suites are here as tests of our own, and beside them what a suite leaves out: exact
//! bodies and headers, every refusal, the order of packets across an upgrade, and hostile clients. The clients are
//! hand-made (see [`wire`]), so that nothing hides a wrong byte; official clients are tested in `tests/interop`.
//!
//! Tests of one area share a module and a small `check` helper. Nothing sleeps for luck: a test waits for an event
//! with a deadline, or for a duration that the protocol itself prescribes.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unreachable,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a panic is how a test reports a failure"
)]
#![allow(clippy::large_futures, reason = "a test holds one future, and not for long")]

mod wire;

mod suite_engineio_v3;
mod suite_engineio_v4;
mod suite_socketio_v5;

mod bundles;
mod echo_program;
mod errors;
mod handshake;
mod jsonp;
mod origin;
mod polling;

mod frames;
mod heartbeat;
mod shards;
mod trace;
mod upgrade;

mod connection;
mod demo;
mod msgpack;
mod refusals;
mod socketio_v4;

mod hostile;
