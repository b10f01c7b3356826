//! What the system tests share: a gateway started as a real process on a private loopback port, and the
//! official clients run as real programs against it.
//!
//! Nothing here knows the protocols. A test asks for a [`TestEdge`], points a client at [`TestEdge::url`], and the
//! process ends with the value. Whatever a test needs and does not find (a binary, `node_modules`, a Python
//! environment) fails it with a line that names `tests/run`, which installs everything; no test is ever skipped.
//!
//! - [`brokers`]: Redis, Sentinel and RabbitMQ on private ports, and a relay that cuts connections
//! - [`edge`]: the gateway and the Engine.IO echo program as child processes
//! - [`program`]: a child process with a deadline, its output collected
//! - [`puppet`]: an application for an edge inside the test: clients tell it what to do, the test tells it when
//! - [`stream`], [`waiting`]: raw streams to such an edge, and events that have a deadline
//! - [`tools`]: where the binaries, the npm packages, the browser bundles and the Python environments are

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a panic is how a test helper reports a failure"
)]

pub mod brokers;
pub mod edge;
pub mod nodes;
pub mod program;
pub mod puppet;
pub mod stream;
pub mod tools;
pub mod waiting;

pub use edge::TestEdge;
pub use program::Program;
pub use tools::{
    PythonClients, bundles_dir, engineio_echo_bin, jackfield_bin, node_modules, python, run_node, run_python,
    spawn_node, spawn_python, tests_dir,
};
