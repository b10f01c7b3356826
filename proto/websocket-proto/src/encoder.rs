//! Server frames: final, not masked, so that the bytes of one frame serve every recipient.
//! Spec: RFC 6455 sections 5.1 and 5.2.

use crate::close::CloseCode;

/// The most bytes a control frame may carry. Spec: RFC 6455 section 5.5.
const CONTROL_BYTES_MAX: usize = 125;

/// Bytes of the close code in front of the reason.
const CLOSE_CODE_BYTES: usize = 2;

/// The frames a server sends here. There is no continuation: every message leaves in one frame.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Opcode {
    /// UTF-8 text; the caller vouches for the encoding.
    Text,
    /// Bytes.
    Binary,
    /// The end; [`close_frame`] builds it whole.
    Close,
    /// A question that the peer answers with a pong of the same payload, at most 125 bytes.
    Ping,
    /// The answer to a ping, at most 125 bytes.
    Pong,
}

impl Opcode {
    /// Returns the first byte of a final frame of this kind.
    const fn final_byte(self) -> u8 {
        match self {
            Self::Text => 0x81,
            Self::Binary => 0x82,
            Self::Close => 0x88,
            Self::Ping => 0x89,
            Self::Pong => 0x8a,
        }
    }
}

/// Appends one final frame that is not masked.
///
/// The payload of a close, ping or pong must not exceed 125 bytes; a payload that a [`Decoder`] handed out as a
/// ping never does.
///
/// [`Decoder`]: crate::decoder::Decoder
pub fn write_frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    write_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends only the header (2, 4 or 10 bytes) of a frame whose `payload_len` bytes the caller appends.
pub fn write_header(opcode: Opcode, payload_len: usize, out: &mut Vec<u8>) {
    debug_assert!(
        matches!(opcode, Opcode::Text | Opcode::Binary) || payload_len <= CONTROL_BYTES_MAX,
        "a control frame of {payload_len} bytes"
    );
    let first = opcode.final_byte();
    if let Ok(length @ 0..=125) = u8::try_from(payload_len) {
        out.extend_from_slice(&[first, length]);
    } else if let Ok(length) = u16::try_from(payload_len) {
        let [high, low] = length.to_be_bytes();
        out.extend_from_slice(&[first, 126, high, low]);
    } else {
        out.extend_from_slice(&[first, 127]);
        out.extend_from_slice(&(payload_len as u64).to_be_bytes());
    }
}

/// Returns a whole close frame, at most 127 bytes with its header.
///
/// The reason is cut to 123 bytes at a character's edge. Without a code there is no place for a reason on the wire,
/// so the frame is empty and the peer's library reports 1005.
pub fn close_frame(code: Option<CloseCode>, reason: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    let Some(code) = code else {
        write_header(Opcode::Close, 0, &mut frame);
        return frame;
    };
    let longest = reason.len().min(CONTROL_BYTES_MAX - CLOSE_CODE_BYTES);
    let reason =
        (0..=longest).rev().find_map(|cut| reason.split_at_checked(cut)).map_or("", |(kept, _)| kept);
    write_header(Opcode::Close, CLOSE_CODE_BYTES + reason.len(), &mut frame);
    frame.extend_from_slice(&code.as_u16().to_be_bytes());
    frame.extend_from_slice(reason.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use tungstenite::protocol::frame::{
        FrameHeader,
        coding::{Control, Data, OpCode},
    };

    use super::*;

    #[test]
    fn headers_are_those_of_tungstenite() {
        let kinds = [
            (Opcode::Text, OpCode::Data(Data::Text)),
            (Opcode::Binary, OpCode::Data(Data::Binary)),
            (Opcode::Close, OpCode::Control(Control::Close)),
            (Opcode::Ping, OpCode::Control(Control::Ping)),
            (Opcode::Pong, OpCode::Control(Control::Pong)),
        ];
        let lengths = [0_u32, 1, 125, 126, 127, 255, 256, 65_535, 65_536, 900_000, u32::MAX];
        for (ours, theirs) in kinds {
            let is_data = matches!(theirs, OpCode::Data(_));
            for length in lengths.into_iter().filter(|length| is_data || *length <= 125) {
                let mut expected = b"kept".to_vec();
                let header = FrameHeader { opcode: theirs, ..FrameHeader::default() };
                header.format(u64::from(length), &mut expected).unwrap();
                let mut actual = b"kept".to_vec();
                write_header(ours, length as usize, &mut actual);
                assert_eq!(actual, expected, "{ours:?} of {length}");
            }
        }
    }

    #[test]
    fn close_reasons_are_cut_between_characters() {
        let check = |reason: &str, expected: &str| {
            let frame = close_frame(Some(CloseCode::RESTART), reason);
            let mut whole = vec![0x88, u8::try_from(2 + expected.len()).unwrap(), 0x03, 0xf4];
            whole.extend_from_slice(expected.as_bytes());
            assert_eq!(frame, whole, "{reason:?}");
        };
        check("", "");
        check("drain", "drain");
        check(&"a".repeat(123), &"a".repeat(123));
        check(&"a".repeat(124), &"a".repeat(123));
        check(&"é".repeat(100), &"é".repeat(61));
        check(&"😀".repeat(40), &"😀".repeat(30));
        assert_eq!(close_frame(None, "lost"), [0x88, 0x00]);
    }
}
