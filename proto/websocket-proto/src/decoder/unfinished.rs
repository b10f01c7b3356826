//! What a decoder owns while a header, a frame or a message is incomplete.

use std::borrow::Cow;

use super::{FrameError, Incoming, control_frame, message};
use crate::{
    header::{self, ControlKind, DataKind, FrameKind, HEADER_BYTES_MAX, Header},
    mask,
};

/// The three things that can be incomplete. A header and a frame never are at the same time; a message may be
/// beside either.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    header: HeaderStart,
    frame: Option<OpenFrame>,
    message: Option<OpenMessage>,
}

/// The first bytes of a header.
#[derive(Debug, Default)]
struct HeaderStart {
    bytes: [u8; HEADER_BYTES_MAX],
    len: usize,
}

/// A frame whose payload has not all arrived.
#[derive(Debug)]
struct OpenFrame {
    target: Target,
    /// Rotated so that the next byte of payload meets the first byte of the mask.
    mask: [u8; 4],
    /// Bytes of payload still to come, at least 1.
    missing: usize,
}

/// Where the payload of an open frame goes.
#[derive(Debug)]
enum Target {
    /// A control frame has bytes of its own, since it may come between the fragments of a message.
    Control { kind: ControlKind, payload: Vec<u8> },
    /// A data frame adds to the open message, whose bytes will never be more than `message_bytes_max`.
    Message { is_final: bool, message_bytes_max: usize },
}

/// A message whose last frame is not complete.
#[derive(Debug)]
struct OpenMessage {
    kind: DataKind,
    /// Unmasked payload of its frames so far.
    bytes: Vec<u8>,
}

impl Unfinished {
    pub(super) fn is_empty(&self) -> bool {
        self.header.len == 0 && self.frame.is_none() && self.message.is_none()
    }

    pub(super) fn held_bytes(&self) -> usize {
        let control = match &self.frame {
            Some(OpenFrame { target: Target::Control { payload, .. }, .. }) => payload.capacity(),
            Some(OpenFrame { target: Target::Message { .. }, .. }) | None => 0,
        };
        let message = self.message.as_ref().map_or(0, |message| message.bytes.capacity());
        size_of::<Self>() + control + message
    }

    /// Returns how many bytes of a message have arrived, or `None` between messages.
    pub(super) fn message_len(&self) -> Option<usize> {
        self.message.as_ref().map(|message| message.bytes.len())
    }

    /// Takes the rest of a header off the input, or keeps as much of it as there is.
    pub(super) fn take_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, FrameError> {
        let kept = self.header.len;
        let free = self.header.bytes.iter_mut().skip(kept);
        let copied = free.zip(input.iter()).map(|(slot, byte)| *slot = *byte).count();
        let bytes = self.header.bytes.get(..kept + copied).unwrap_or_default();
        let Some((header, header_len)) = header::parse(bytes)? else {
            // Fourteen bytes always make a header, so the input ended first.
            self.header.len = kept + copied;
            *input = &mut [];
            return Ok(None);
        };
        self.header.len = 0;
        header::skip(input, header_len.saturating_sub(kept));
        Ok(Some(header))
    }

    /// Begins a frame of which less than `payload_len` bytes have arrived.
    pub(super) fn open_frame(&mut self, header: &Header, payload_len: usize, message_bytes_max: usize) {
        let target = match header.kind {
            FrameKind::Control(kind) => Target::Control { kind, payload: Vec::with_capacity(payload_len) },
            FrameKind::Data(kind) => {
                self.message = Some(OpenMessage { kind, bytes: Vec::new() });
                Target::message(header.is_final, payload_len, message_bytes_max)
            }
            FrameKind::Continuation => {
                let so_far = self.message_len().unwrap_or_default();
                Target::message(header.is_final, so_far.saturating_add(payload_len), message_bytes_max)
            }
        };
        self.frame = Some(OpenFrame { target, mask: header.mask, missing: payload_len });
    }

    /// Moves payload of the open frame, if there is one, from the input to its place.
    /// Returns what the frame completes; `None` with input left means that no frame is open any more.
    pub(super) fn fill_frame<'i>(
        &mut self,
        input: &mut &'i mut [u8],
    ) -> Result<Option<Incoming<'i>>, FrameError> {
        let Some(mut frame) = self.frame.take() else {
            return Ok(None);
        };
        let taken = frame.missing.min(input.len());
        let chunk = input.split_off_mut(..taken).unwrap_or_default();
        mask::unmask(chunk, frame.mask);
        frame.mask = mask::advanced(frame.mask, taken);
        frame.missing -= taken;
        match (&mut frame.target, &mut self.message) {
            (Target::Control { payload, .. }, _) => payload.extend_from_slice(chunk),
            (Target::Message { message_bytes_max, .. }, Some(message)) => {
                append(&mut message.bytes, chunk, *message_bytes_max);
            }
            // An open data frame always has its message.
            (Target::Message { .. }, None) => {}
        }
        if frame.missing > 0 {
            self.frame = Some(frame);
            return Ok(None);
        }
        match frame.target {
            Target::Control { kind, payload } => control_frame(kind, Cow::Owned(payload)).map(Some),
            Target::Message { is_final: true, .. } => self.take_message(),
            Target::Message { is_final: false, .. } => Ok(None),
        }
    }

    /// Adds a whole unmasked fragment; returns the message if that was its last.
    pub(super) fn add_fragment<'i>(
        &mut self,
        header: &Header,
        payload: &[u8],
        message_bytes_max: usize,
    ) -> Result<Option<Incoming<'i>>, FrameError> {
        if let FrameKind::Data(kind) = header.kind {
            self.message = Some(OpenMessage { kind, bytes: Vec::new() });
        }
        if let Some(message) = &mut self.message {
            append(&mut message.bytes, payload, message_bytes_max);
        }
        if header.is_final { self.take_message() } else { Ok(None) }
    }

    fn take_message<'i>(&mut self) -> Result<Option<Incoming<'i>>, FrameError> {
        let Some(OpenMessage { kind, bytes }) = self.message.take() else {
            return Ok(None);
        };
        message(kind, Cow::Owned(bytes)).map(Some)
    }
}

impl Target {
    /// The last frame of a message tells how long the message is, which is a better bound than the limit.
    fn message(is_final: bool, message_len: usize, message_bytes_max: usize) -> Self {
        Self::Message { is_final, message_bytes_max: if is_final { message_len } else { message_bytes_max } }
    }
}

/// Appends `chunk`, doubling the capacity when it is full: each byte is moved a constant number of times on average,
/// and at most half of the memory is unused. The capacity stops at `capacity_max`, which the caller has checked
/// the length against.
fn append(bytes: &mut Vec<u8>, chunk: &[u8], capacity_max: usize) {
    let len = bytes.len().saturating_add(chunk.len());
    if len > bytes.capacity() {
        let capacity = bytes.capacity().saturating_mul(2).min(capacity_max).max(len);
        bytes.reserve_exact(capacity - bytes.len());
    }
    bytes.extend_from_slice(chunk);
}
