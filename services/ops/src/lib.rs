//! What every process of the gateway needs: configuration, logs, the ops listener, signals, and what the machine
//! allows.
//!
//! The crate knows nothing of clients, sessions or brokers, and depends on no other crate of ours.
//!
//! - [`config`]: declared sections, the three sources, the reference
//! - [`resources`]: processors, memory and open files that this process may use
//! - [`telemetry`]: log lines on stderr, as text or JSON
//! - [`admin`]: the ops listener with `/livez`, `/readyz`, `/metrics` and `/config`
//! - [`signals`]: SIGINT and SIGTERM as something to await

pub mod admin;
pub mod config;
pub mod resources;
pub mod signals;
pub mod telemetry;
