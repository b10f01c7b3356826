//! The edge inside the test's own process, with an application that does what its clients ask for.
//!
//! `tests/conformance` speaks to a real process and its demo. Here a test holds the other end as well: it lets
//! answers come late, blocks a shard, sets bounds so low that they are reached, and reads every counter. What is
//! shown is order, bounds and endings: who gets which packet before which, who is closed and who is not, and what
//! the application hears of it.
//!
//! Nothing sleeps for luck: a test waits for an event or a counter with a deadline.

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

mod harness;

mod endings;
mod later;

mod nodes;
mod nodes_hostile;
mod nodes_lost;

mod bulk;
mod fan_out;
mod shards;
mod slow_consumers;

mod addresses;
mod leaks;
mod limits;
mod timers;
