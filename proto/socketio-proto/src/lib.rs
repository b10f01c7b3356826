//! Socket.IO protocols 4 and 5 without I/O: packets, parsers, namespaces.
//!
//! An event is kept as the text of its JSON argument array plus its attachments.
//! One streaming pass checks that text; nobody builds a tree, and a text event that was decoded borrows from its frame.
//!
//! What this crate refuses to know: Engine.IO (callers strip and add the message digit), sockets, clocks, rooms, and what an application does with an event.
//!
//! It follows the socket.io-protocol documents, revision 4 (spoken by JavaScript clients 1.x and 2.x) and revision 5 (3.x and 4.x), and the Node server where those are silent.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`packet`] | [`packet::Packet`] (decoded), [`packet::Outgoing`] (to encode), their types and ids |
//! | [`parser`] | one [`parser::Parser`] per session; the text grammar, placeholders, msgpack |
//! | [`namespace`] | [`namespace::NamespacePath`] |
//! | [`connection`] | which namespaces one session has joined; what CONNECT answers look like |
//! | [`json`] | the streaming reader that everything above rests on |
//! | [`limits`] | the bounds a caller sets |

pub mod connection;
pub mod json;
pub mod limits;
pub mod namespace;
pub mod packet;
pub mod parser;
