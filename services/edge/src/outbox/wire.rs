//! One Socket.IO packet as it goes out: a text and its attachments, encoded once per dialect and shared.

use std::cell::OnceCell;

use bytes::Bytes;
use engineio_proto as eio;
use engineio_proto::WirePacket;
use smallvec::SmallVec;
use websocket_proto::encoder::{self, Opcode};

/// The longest header of a server frame: two bytes and a 64-bit length.
const FRAME_HEADER_BYTES_MAX: usize = 10;

/// What decides over the bytes of one packet: two sessions of the same dialect get the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The Engine.IO version, and with it the Socket.IO version.
    pub version: eio::ProtocolVersion,
    /// The msgpack parser instead of the default one.
    pub msgpack: bool,
    /// The client cannot take binary: attachments travel as base64.
    pub base64: bool,
}

impl Dialect {
    /// How many dialects there are.
    pub const COUNT: usize = 8;

    /// A number below [`Dialect::COUNT`], for tables.
    pub fn index(self) -> usize {
        usize::from(self.version == eio::ProtocolVersion::V4)
            | usize::from(self.msgpack) << 1
            | usize::from(self.base64) << 2
    }
}

/// A packet in one dialect. Its parts stay together: a text and its attachments are one group.
#[derive(Debug)]
pub struct Wire {
    packets: SmallVec<[WirePacket; 1]>,
    version: eio::ProtocolVersion,
    base64: bool,
    frames: OnceCell<Bytes>,
}

impl Wire {
    /// Wraps the Engine.IO packets of one Socket.IO packet, already encoded for `dialect`.
    pub fn new(packets: SmallVec<[WirePacket; 1]>, dialect: Dialect) -> Wire {
        Wire { packets, version: dialect.version, base64: dialect.base64, frames: OnceCell::new() }
    }

    /// The Engine.IO packets, for polling.
    pub fn packets(&self) -> &SmallVec<[WirePacket; 1]> {
        &self.packets
    }

    /// The finished WebSocket frames, header and all, in one piece.
    pub fn frames(&self) -> &Bytes {
        self.frames.get_or_init(|| {
            let mut out = Vec::with_capacity(self.bytes() + FRAME_HEADER_BYTES_MAX * self.packets.len());
            for packet in &self.packets {
                write_frame(packet, self.version, self.base64, &mut out);
            }
            Bytes::from(out)
        })
    }

    /// Payload bytes of all parts.
    pub fn bytes(&self) -> usize {
        self.packets.iter().map(WirePacket::len).sum()
    }
}

/// Appends the WebSocket frame of one Engine.IO packet.
pub fn write_frame(packet: &WirePacket, version: eio::ProtocolVersion, base64: bool, out: &mut Vec<u8>) {
    let frame = packet.frame(version, base64);
    let opcode = match frame.kind {
        eio::packet::FrameKind::Text => Opcode::Text,
        eio::packet::FrameKind::Binary => Opcode::Binary,
    };
    encoder::write_header(opcode, frame.len(), out);
    out.extend(frame.prefix);
    out.extend_from_slice(&frame.payload);
}

/// A reused buffer for one text packet: room for the frame header is left in front, so that the usual packet
/// to one socket is encoded, framed and written without an allocation.
#[derive(Debug, Default)]
pub struct TextScratch {
    bytes: Vec<u8>,
    header: Vec<u8>,
}

impl TextScratch {
    /// Starts a packet; the caller appends to the buffer, which already holds the message type digit.
    pub fn start(&mut self) -> &mut Vec<u8> {
        self.bytes.clear();
        self.bytes.resize(FRAME_HEADER_BYTES_MAX, 0);
        self.bytes.push(b'4');
        &mut self.bytes
    }

    /// The Engine.IO packet without a frame.
    pub fn packet(&self) -> &[u8] {
        self.bytes.get(FRAME_HEADER_BYTES_MAX..).unwrap_or_default()
    }

    /// The packet as a finished text frame.
    pub fn frame(&mut self) -> &[u8] {
        self.header.clear();
        encoder::write_header(
            Opcode::Text,
            self.bytes.len().saturating_sub(FRAME_HEADER_BYTES_MAX),
            &mut self.header,
        );
        let start = FRAME_HEADER_BYTES_MAX.saturating_sub(self.header.len());
        if let Some(space) = self.bytes.get_mut(start..FRAME_HEADER_BYTES_MAX) {
            space.copy_from_slice(&self.header);
        }
        self.bytes.get(start..).unwrap_or_default()
    }

    /// Gives memory back after an unusually large packet.
    pub fn trim(&mut self) {
        const KEEP: usize = 64 * 1024;
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
    }
}
