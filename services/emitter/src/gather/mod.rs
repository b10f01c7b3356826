//! What the answers of edges add up to, without I/O and within bounds.
//!
//! - [`acks`]: the acks of a broadcast
//! - [`page`]: one page of a sorted list: sockets, or counts of rooms and users
//! - [`done`]: how many sockets an operation concerned
//! - [`values`]: what application code answered to a server-side emit

pub(crate) mod acks;
pub(crate) mod done;
pub(crate) mod page;
pub(crate) mod values;
