//! One client frame header, checked against every rule that concerns a header alone. Spec: RFC 6455 section 5.2.

use std::{io::Cursor, mem};

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use crate::decoder::FrameError;

/// The longest client header: two bytes, eight of length, four of mask.
pub(crate) const HEADER_BYTES_MAX: usize = 14;

/// The most bytes a control frame may carry. Spec: RFC 6455 section 5.5.
const CONTROL_BYTES_MAX: u64 = 125;

/// A frame header that a server may go on with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: FrameKind,
    /// Whether the message ends with this frame; always so for control frames.
    pub(crate) is_final: bool,
    pub(crate) mask: [u8; 4],
    /// Announced, not received; at most 125 for control frames.
    pub(crate) payload_len: u64,
}

/// What a frame is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FrameKind {
    /// The next piece of the message that is under way.
    Continuation,
    /// A message, or its first piece.
    Data(DataKind),
    /// A frame that may stand between the pieces of a message.
    Control(ControlKind),
}

/// The two kinds of message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DataKind {
    Text,
    Binary,
}

/// The three kinds of control frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ControlKind {
    Close,
    Ping,
    Pong,
}

/// Parses the header at the start of `bytes`. Returns it with its own length, or `None` while it is incomplete.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, FrameError> {
    let mut cursor = Cursor::new(bytes);
    // The opcode is all that this parser refuses.
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| reserved_opcode(bytes))?;
    let Some((wire, payload_len)) = parsed else {
        return Ok(None);
    };
    if wire.rsv1 || wire.rsv2 || wire.rsv3 {
        return Err(FrameError::ReservedBits);
    }
    let Some(mask) = wire.mask else {
        return Err(FrameError::Unmasked);
    };
    if payload_len > i64::MAX.unsigned_abs() {
        return Err(FrameError::LengthTopBit);
    }
    // The shortest form is a rule of the RFC, and tungstenite writes nothing else.
    let header_len = wire.len(payload_len);
    if cursor.position() != header_len as u64 {
        return Err(FrameError::LengthNotMinimal { length: payload_len });
    }
    let kind = kind(wire.opcode)?;
    if matches!(kind, FrameKind::Control(_)) {
        check_control(wire.is_final, payload_len)?;
    }
    Ok(Some((Header { kind, is_final: wire.is_final, mask, payload_len }, header_len)))
}

/// Drops the first `count` bytes of `input`.
pub(crate) fn skip(input: &mut &mut [u8], count: usize) {
    *input = mem::take(input).get_mut(count..).unwrap_or_default();
}

fn check_control(is_final: bool, payload_len: u64) -> Result<(), FrameError> {
    if !is_final {
        return Err(FrameError::ControlFragmented);
    }
    if payload_len > CONTROL_BYTES_MAX {
        return Err(FrameError::ControlTooLong { got: payload_len });
    }
    Ok(())
}

fn kind(opcode: OpCode) -> Result<FrameKind, FrameError> {
    match opcode {
        OpCode::Data(Data::Continue) => Ok(FrameKind::Continuation),
        OpCode::Data(Data::Text) => Ok(FrameKind::Data(DataKind::Text)),
        OpCode::Data(Data::Binary) => Ok(FrameKind::Data(DataKind::Binary)),
        OpCode::Control(Control::Close) => Ok(FrameKind::Control(ControlKind::Close)),
        OpCode::Control(Control::Ping) => Ok(FrameKind::Control(ControlKind::Ping)),
        OpCode::Control(Control::Pong) => Ok(FrameKind::Control(ControlKind::Pong)),
        OpCode::Data(Data::Reserved(opcode)) | OpCode::Control(Control::Reserved(opcode)) => {
            Err(FrameError::ReservedOpcode { opcode })
        }
    }
}

fn reserved_opcode(bytes: &[u8]) -> FrameError {
    FrameError::ReservedOpcode { opcode: bytes.first().map_or(0, |first| first & 0x0f) }
}
