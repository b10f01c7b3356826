//! Frames and payloads on and off the wire.
//!
//! - [`polling`]: GET and POST of a polling session
//! - [`websocket`]: the task of one WebSocket, and the end of one
//! - [`echo`]: a plain WebSocket echo for the demo, without Engine.IO
//! - [`stall`]: a stream that does not wait for ever
//! - [`tunnel`]: a WebSocket whose session lives on another node
//! - [`reply`]: an HTTP response that can cross threads

pub mod echo;
pub mod polling;
pub mod reply;
pub mod stall;
pub mod tunnel;
pub mod websocket;
