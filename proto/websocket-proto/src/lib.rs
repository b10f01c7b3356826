//! The server side of the WebSocket protocol (RFC 6455) without I/O: accept key, frames, fragments, close codes.
//!
//! The crate refuses to know sockets, clocks, HTTP and what the messages mean. It takes the bytes that a shard has
//! just read and gives back messages that borrow from them; a [`decoder::Decoder`] owns bytes only while a frame or
//! a message is incomplete, so a quiet session costs it nothing.
//!
//! `tungstenite` supplies the vocabulary (accept key, frame header, opcodes) and is the oracle that the tests compare
//! with. Its read buffer per connection and its frame per recipient are what this crate does without.
//!
//! Extensions are never negotiated, so every reserved bit is an error.
//!
//! | Module | What is inside |
//! |---|---|
//! | [`handshake`] | `Sec-WebSocket-Key` and `Sec-WebSocket-Accept` (RFC 6455 section 4.2.2) |
//! | [`decoder`] | client frames to messages (sections 5.2 to 5.6) |
//! | [`encoder`] | server frames (section 5.1: not masked) |
//! | [`close`] | close codes and the payload of a close frame (sections 5.5.1 and 7.4) |
//! | `header`, `mask` | one checked client frame header; the XOR of section 5.3 |

pub mod handshake;

pub mod decoder;

pub mod encoder;

pub mod close;

mod header;
mod mask;
