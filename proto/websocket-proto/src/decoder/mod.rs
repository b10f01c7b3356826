//! Client frames to messages: buffering, unmasking, fragments, UTF-8. Spec: RFC 6455 sections 5.2 to 5.6.
//!
//! The caller reads into one buffer that it shares between all sessions, and hands what it read to the session's
//! [`Decoder`] until that asks for more. A frame that lies whole in the buffer is unmasked there and borrowed.
//! `unfinished` holds what a decoder keeps of the others.

mod unfinished;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, str};

use thiserror::Error;

use self::unfinished::Unfinished;
use crate::{
    close::{self, CloseCode, CloseFrame},
    header::{self, ControlKind, DataKind, FrameKind, Header},
    mask,
};

/// The receiving half of one WebSocket connection.
///
/// After a close frame or an error the decoder is at its end: it holds nothing, and takes and drops whatever else
/// arrives, as RFC 6455 section 5.5.1 wants it.
///
/// ```text
///   whole frames                                 more of it, fragments,
///    +-------+                                   control frames between them
///    |       v                                          +-------+
///    |  +------+    an incomplete rest     +------------+       |
///    +--| idle |-------------------------->| unfinished |<------+
///       +------+<--------------------------+------------+
///           |      its message is complete        |
///           |                                     |
///           +---- close frame or error -----------+----> ended
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    unfinished: Option<Box<Unfinished>>,
    has_ended: bool,
}

/// What a client sent: a complete message, or a control frame.
///
/// It borrows from the caller's buffer when it came in one frame and one read, and owns its bytes otherwise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Incoming<'i> {
    /// A text message.
    Text(Cow<'i, str>),
    /// A binary message.
    Binary(Cow<'i, [u8]>),
    /// A ping, to be answered by a pong with the same payload (at most 125 bytes).
    Ping(Cow<'i, [u8]>),
    /// A pong, asked for or not; at most 125 bytes.
    Pong(Cow<'i, [u8]>),
    /// The last thing a client says; `None` when it gave no code.
    Close(Option<CloseFrame>),
}

/// Why a client's bytes are refused. The connection is beyond repair: send a close frame with
/// [`FrameError::close_code`] and end it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum FrameError {
    /// A client must mask every frame (section 5.1).
    #[error("frame is not masked")]
    Unmasked,
    /// A reserved bit is set, though no extension was agreed on.
    #[error("a reserved bit is set")]
    ReservedBits,
    /// Opcodes 3 to 7 and 11 to 15 mean nothing.
    #[error("opcode {opcode} is reserved")]
    ReservedOpcode {
        /// The four bits as they came.
        opcode: u8,
    },
    /// A 64-bit length must leave its top bit clear (section 5.2).
    #[error("frame length has its top bit set")]
    LengthTopBit,
    /// A length must use the shortest of its three forms (section 5.2).
    #[error("frame length {length} is not in its shortest form")]
    LengthNotMinimal {
        /// The length that was announced, in bytes.
        length: u64,
    },
    /// Control frames come in one piece (section 5.4).
    #[error("control frame is fragmented")]
    ControlFragmented,
    /// Control frames carry at most 125 bytes (section 5.5).
    #[error("control frame of {got} bytes, at most 125 are allowed")]
    ControlTooLong {
        /// The length that was announced, in bytes.
        got: u64,
    },
    /// A continuation came while no message was under way.
    #[error("continuation of nothing")]
    StrayContinuation,
    /// A new message began before the fragmented one had ended.
    #[error("a message began inside a fragmented one")]
    MessageInterrupted,
    /// The message is above the caller's limit. Decided from the header: none of this frame was kept.
    #[error("message of {got} bytes or more, at most {max} are allowed")]
    MessageTooLarge {
        /// Bytes of the fragments so far, with those announced by the frame that was refused.
        got: u64,
        /// The limit, in bytes.
        max: u64,
    },
    /// A text message is not UTF-8.
    #[error("text is not UTF-8 after {valid_bytes} bytes")]
    TextNotUtf8 {
        /// How many bytes at the start of the message are good.
        valid_bytes: usize,
    },
    /// A close frame has a payload of one byte: half a code.
    #[error("close frame with half a code")]
    CloseTooShort,
    /// The code must not stand on the wire (section 7.4).
    #[error("close code {code} is not allowed in a frame")]
    CloseCodeInvalid {
        /// The code as it came.
        code: u16,
    },
    /// The reason of a close frame is not UTF-8.
    #[error("close reason is not UTF-8 after {valid_bytes} bytes")]
    CloseReasonNotUtf8 {
        /// How many bytes at the start of the reason are good.
        valid_bytes: usize,
    },
}

impl FrameError {
    /// Returns the code to close the connection with: 1002, 1007 for bad UTF-8, 1009 for too large.
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::TextNotUtf8 { .. } | Self::CloseReasonNotUtf8 { .. } => CloseCode::INVALID_DATA,
            Self::MessageTooLarge { .. } => CloseCode::TOO_LARGE,
            Self::Unmasked
            | Self::ReservedBits
            | Self::ReservedOpcode { .. }
            | Self::LengthTopBit
            | Self::LengthNotMinimal { .. }
            | Self::ControlFragmented
            | Self::ControlTooLong { .. }
            | Self::StrayContinuation
            | Self::MessageInterrupted
            | Self::CloseTooShort
            | Self::CloseCodeInvalid { .. } => CloseCode::PROTOCOL_ERROR,
        }
    }
}

impl Decoder {
    /// Creates a decoder that holds nothing.
    pub const fn new() -> Self {
        Self { unfinished: None, has_ended: false }
    }

    /// Takes the next message or control frame off the front of `input`, unmasking it in place.
    ///
    /// `None` means that `input` was used up: what it held of an incomplete frame or message was copied. The caller
    /// calls again until then, and with each further read. Control frames between two fragments come out at once.
    /// `message_bytes_max` bounds one message, that is the sum of its fragments; memory grows with what arrived,
    /// never with what was announced.
    ///
    /// # Errors
    /// [`FrameError`] as soon as a rule is broken, which for [`FrameError::MessageTooLarge`] is before any payload
    /// of that frame is kept. The decoder is at its end then, and so is the connection.
    pub fn decode<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        message_bytes_max: usize,
    ) -> Result<Option<Incoming<'i>>, FrameError> {
        if self.has_ended {
            *input = &mut [];
            return Ok(None);
        }
        let outcome = self.advance(input, message_bytes_max);
        if matches!(outcome, Err(_) | Ok(Some(Incoming::Close(_)))) {
            *self = Self { unfinished: None, has_ended: true };
            *input = &mut [];
        } else if self.unfinished.as_deref().is_some_and(Unfinished::is_empty) {
            self.unfinished = None;
        }
        outcome
    }

    /// Returns the bytes of memory kept for an unfinished frame or message: at most `message_bytes_max` and a
    /// constant below 300; 0 while idle.
    pub fn held_bytes(&self) -> usize {
        self.unfinished.as_deref().map_or(0, Unfinished::held_bytes)
    }

    /// Consumes frames until one completes a message or is a control frame, or until `input` is empty.
    fn advance<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        message_bytes_max: usize,
    ) -> Result<Option<Incoming<'i>>, FrameError> {
        loop {
            if let Some(unfinished) = self.unfinished.as_deref_mut()
                && let Some(incoming) = unfinished.fill_frame(input)?
            {
                return Ok(Some(incoming));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let Some(header) = self.take_header(input)? else {
                return Ok(None);
            };
            let payload_len = self.admit(&header, message_bytes_max)?;
            let Some(payload) = input.split_off_mut(..payload_len) else {
                self.unfinished.get_or_insert_default().open_frame(&header, payload_len, message_bytes_max);
                continue;
            };
            mask::unmask(payload, header.mask);
            if let Some(incoming) = self.take_frame(&header, payload, message_bytes_max)? {
                return Ok(Some(incoming));
            }
        }
    }

    /// Takes a header off the input, or keeps its beginning.
    fn take_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, FrameError> {
        if let Some(unfinished) = self.unfinished.as_deref_mut() {
            return unfinished.take_header(input);
        }
        let Some((header, header_len)) = header::parse(input)? else {
            return self.unfinished.get_or_insert_default().take_header(input);
        };
        header::skip(input, header_len);
        Ok(Some(header))
    }

    /// Checks a header against the message that is under way and the limit; returns the payload's length.
    fn admit(&self, header: &Header, message_bytes_max: usize) -> Result<usize, FrameError> {
        let message_len = self.unfinished.as_deref().and_then(Unfinished::message_len);
        let (so_far, max) = match (header.kind, message_len) {
            (FrameKind::Control(_), _) => (0, u64::MAX),
            (FrameKind::Continuation, None) => return Err(FrameError::StrayContinuation),
            (FrameKind::Data(_), Some(_)) => return Err(FrameError::MessageInterrupted),
            (FrameKind::Continuation, Some(so_far)) => (so_far as u64, message_bytes_max as u64),
            (FrameKind::Data(_), None) => (0, message_bytes_max as u64),
        };
        let got = header.payload_len.saturating_add(so_far);
        if got > max {
            return Err(FrameError::MessageTooLarge { got, max });
        }
        usize::try_from(header.payload_len).map_err(|_| FrameError::MessageTooLarge { got, max })
    }

    /// Handles a frame that lay whole in the input. A fragment that is not the last gives nothing yet.
    fn take_frame<'i>(
        &mut self,
        header: &Header,
        payload: &'i [u8],
        message_bytes_max: usize,
    ) -> Result<Option<Incoming<'i>>, FrameError> {
        match header.kind {
            FrameKind::Control(kind) => control_frame(kind, Cow::Borrowed(payload)).map(Some),
            FrameKind::Data(kind) if header.is_final => message(kind, Cow::Borrowed(payload)).map(Some),
            FrameKind::Data(_) | FrameKind::Continuation => {
                let unfinished = self.unfinished.get_or_insert_default();
                unfinished.add_fragment(header, payload, message_bytes_max)
            }
        }
    }
}

/// Names a complete message, checking the encoding of text.
fn message(kind: DataKind, payload: Cow<'_, [u8]>) -> Result<Incoming<'_>, FrameError> {
    let not_utf8 = |error: str::Utf8Error| FrameError::TextNotUtf8 { valid_bytes: error.valid_up_to() };
    match (kind, payload) {
        (DataKind::Binary, payload) => Ok(Incoming::Binary(payload)),
        (DataKind::Text, Cow::Borrowed(bytes)) => {
            str::from_utf8(bytes).map(|text| Incoming::Text(Cow::Borrowed(text))).map_err(not_utf8)
        }
        (DataKind::Text, Cow::Owned(bytes)) => String::from_utf8(bytes)
            .map(|text| Incoming::Text(Cow::Owned(text)))
            .map_err(|error| not_utf8(error.utf8_error())),
    }
}

/// Names a complete control frame, parsing the payload of a close.
fn control_frame(kind: ControlKind, payload: Cow<'_, [u8]>) -> Result<Incoming<'_>, FrameError> {
    match kind {
        ControlKind::Ping => Ok(Incoming::Ping(payload)),
        ControlKind::Pong => Ok(Incoming::Pong(payload)),
        ControlKind::Close => close::parse(&payload).map(Incoming::Close),
    }
}
