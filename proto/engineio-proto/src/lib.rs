//! Engine.IO 3 and 4 without I/O: packets, payloads, the handshake and the session machine.
//!
//! Values in, values out. This crate knows no socket, no clock, no task and no HTTP type: the caller reads
//! bytes, passes the time, and carries out what comes back. It does not know Socket.IO either: a message is
//! opaque here. Whatever a client sends, nothing here panics, allocates beyond a small multiple of its input,
//! or takes more than linear time.
//!
//! Follows the Engine.IO protocol documents, revisions 3 and 4; where they are silent, or the reference
//! server behaves otherwise, the reference server is followed and the spot says so. The samples that pin the
//! bytes are in `proto/vectors/engineio/`.
//!
//! | Module | Holds |
//! |---|---|
//! | [`version`], [`transport`] | the `EIO` and `transport` query parameters |
//! | [`packet`] | one packet, and the one WebSocket frame it fits in |
//! | [`payload`] | many packets in one HTTP body: four codecs, JSONP around them |
//! | [`handshake`] | query string, open packet, error bodies |
//! | [`session`] | heartbeat, upgrade, close: a machine on the caller's clock |
//! | [`limits`] | what one client may make us hold |

pub mod handshake;
pub mod limits;
pub mod packet;
pub mod payload;
pub mod session;
pub mod transport;
pub mod urlencoded;
pub mod version;

mod base64_text;
mod json_string;

// The words the other crates say all day, as `eio::Packet`.
pub use limits::Limits;
pub use packet::{Data, Frame, FrameKind, Packet, PacketType, WirePacket};
pub use session::Session;
pub use transport::TransportKind;
pub use version::ProtocolVersion;
