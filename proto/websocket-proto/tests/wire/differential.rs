//! The same client bytes through our decoder and through tungstenite's server: the same messages, and both accept or
//! both refuse.
//!
//! tungstenite is the laxer one about lengths that are not in their shortest form, which the generator leaves out;
//! it answers a forbidden close code by 1002 instead of reporting it, which [`tungstenite_sees`] undoes. It refuses
//! bad text at the end of a fragment, we at the end of the message, which [`check`] allows for.

use std::io::{self, Read, Write};

use proptest::prelude::*;
use tungstenite::{
    Error, Message, WebSocket,
    protocol::{Role, WebSocketConfig, frame::coding::CloseCode},
};

use crate::client::{ClientFrame, Receiver, Seen, any_frame, any_sizes, pieces};

const MESSAGE_BYTES_MAX: usize = 300;

/// How a connection went.
#[derive(Debug, PartialEq)]
enum Verdict {
    Accepted,
    Refused,
    RefusedText,
}

/// A stream that gives its pieces one per read and forgets what is written.
struct Pieces<'w>(std::vec::IntoIter<&'w [u8]>, &'w [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            self.1 = self.0.next().unwrap_or_default();
        }
        self.1.read(buffer)
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tungstenite_sees(wire: &[u8], sizes: &[usize]) -> (Vec<Seen>, Verdict) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .read_buffer_size(64);
    let stream = Pieces(pieces(wire, sizes).into_iter(), &[]);
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => seen.push(Seen::Text(text.as_str().to_owned())),
            Ok(Message::Binary(bytes)) => seen.push(Seen::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => seen.push(Seen::Ping(bytes.to_vec())),
            Ok(Message::Pong(bytes)) => seen.push(Seen::Pong(bytes.to_vec())),
            Ok(Message::Close(Some(close)))
                if close.code == CloseCode::Protocol && close.reason.as_str() == "Protocol violation" =>
            {
                return (seen, Verdict::Refused);
            }
            Ok(Message::Close(close)) => {
                let close = close.map(|close| (close.code.into(), close.reason.as_str().to_owned()));
                seen.push(Seen::Close(close));
                return (seen, Verdict::Accepted);
            }
            Ok(Message::Frame(frame)) => panic!("a raw frame: {frame}"),
            Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                return (seen, Verdict::Accepted);
            }
            Err(Error::Utf8(_)) => return (seen, Verdict::RefusedText),
            Err(_) => return (seen, Verdict::Refused),
        }
    }
}

fn check(frames: &[ClientFrame], sizes: &[usize]) {
    let wire: Vec<u8> = frames.iter().flat_map(ClientFrame::wire).collect();
    let (expected, verdict) = tungstenite_sees(&wire, sizes);
    let mut receiver = Receiver::new(MESSAGE_BYTES_MAX);
    for piece in pieces(&wire, sizes) {
        receiver.read(piece);
    }
    if verdict == Verdict::RefusedText {
        // The bad message may not have ended yet: end it. Only a close frame makes that too late.
        receiver.read(&ClientFrame { first: 0x80, mask: Some([1; 4]), payload: Vec::new() }.wire());
        assert!(receiver.seen.starts_with(&expected), "{:?} instead of {expected:?}", receiver.seen);
        let more = &receiver.seen[expected.len()..];
        let has_closed = matches!(more.last(), Some(Seen::Close(_)));
        assert!(receiver.error.is_some() || has_closed, "bad text was accepted: {:?}", receiver.seen);
        let is_data = |seen: &Seen| matches!(seen, Seen::Text(_) | Seen::Binary(_));
        assert!(!more.iter().any(is_data), "{more:?}");
    } else {
        assert_eq!(receiver.seen, expected);
        assert_eq!(receiver.error.is_some(), verdict == Verdict::Refused, "{:?}", receiver.error);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn same_messages_and_same_refusals(
        frames in prop::collection::vec(any_frame(), 0..12),
        sizes in any_sizes(),
    ) {
        check(&frames, &sizes);
    }

    /// Sequences that obey the order of fragments, so that long messages come to their end.
    #[test]
    fn same_messages_from_orderly_fragments(
        messages in prop::collection::vec(
            (any::<bool>(), prop::collection::vec(("[a-zé😀]{0,9}", any::<bool>(), any::<[u8; 4]>()), 1..8)),
            0..6,
        ),
        sizes in any_sizes(),
    ) {
        let mut frames = Vec::new();
        for (is_text, fragments) in messages {
            let last = fragments.len() - 1;
            for (index, (payload, with_ping, mask)) in fragments.into_iter().enumerate() {
                let opcode = match (index, is_text) {
                    (0, true) => 1,
                    (0, false) => 2,
                    _ => 0,
                };
                let first = if index == last { 0x80 | opcode } else { opcode };
                let payload = payload.into_bytes();
                if with_ping {
                    frames.push(ClientFrame { first: 0x89, mask: Some(mask), payload: payload.clone() });
                }
                frames.push(ClientFrame { first, mask: Some(mask), payload });
            }
        }
        check(&frames, &sizes);
    }
}
