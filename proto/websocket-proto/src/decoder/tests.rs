use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LIMIT: usize = 1000;

/// Builds a masked frame with the shortest length; `first` holds the final bit, reserved bits and opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

type Seen = (Vec<Incoming<'static>>, Option<FrameError>);

/// Feeds the pieces to a new decoder until the first error.
fn feed<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, limit: usize) -> (Seen, Decoder) {
    let mut decoder = Decoder::new();
    let mut seen = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut input = piece.as_mut_slice();
        loop {
            match decoder.decode(&mut input, limit) {
                Ok(Some(incoming)) => seen.push(owned(incoming)),
                Ok(None) => break,
                Err(error) => return ((seen, Some(error)), decoder),
            }
        }
        assert!(input.is_empty(), "asked for more with {} bytes unread", input.len());
    }
    ((seen, None), decoder)
}

fn owned(incoming: Incoming<'_>) -> Incoming<'static> {
    match incoming {
        Incoming::Text(text) => Incoming::Text(Cow::Owned(text.into_owned())),
        Incoming::Binary(bytes) => Incoming::Binary(Cow::Owned(bytes.into_owned())),
        Incoming::Ping(bytes) => Incoming::Ping(Cow::Owned(bytes.into_owned())),
        Incoming::Pong(bytes) => Incoming::Pong(Cow::Owned(bytes.into_owned())),
        Incoming::Close(close) => Incoming::Close(close),
    }
}

/// Checks what a stream of frames gives: in one read, byte by byte, and cut in two at every place.
fn check(frames: &[Vec<u8>], expected: &[Incoming<'static>], error: Option<FrameError>) {
    let bytes = frames.concat();
    let expected = (expected.to_vec(), error);
    assert_eq!(feed([bytes.as_slice()], LIMIT).0, expected, "in one read");
    assert_eq!(feed(bytes.chunks(1), LIMIT).0, expected, "byte by byte");
    for cut in 0..bytes.len() {
        let (first, second) = bytes.split_at(cut);
        assert_eq!(feed([first, second], LIMIT).0, expected, "cut at {cut}");
    }
}

fn text(text: &'static str) -> Incoming<'static> {
    Incoming::Text(Cow::Borrowed(text))
}

fn binary(bytes: &'static [u8]) -> Incoming<'static> {
    Incoming::Binary(Cow::Borrowed(bytes))
}

fn ping(bytes: &'static [u8]) -> Incoming<'static> {
    Incoming::Ping(Cow::Borrowed(bytes))
}

fn pong(bytes: &'static [u8]) -> Incoming<'static> {
    Incoming::Pong(Cow::Borrowed(bytes))
}

fn close(code: CloseCode, reason: &str) -> Incoming<'static> {
    Incoming::Close(Some(CloseFrame { code, reason: reason.to_owned() }))
}

#[test]
fn an_idle_decoder_is_two_words() {
    assert!(size_of::<Decoder>() <= 16);
    assert_eq!(Decoder::new().held_bytes(), 0);
}

#[test]
fn messages_in_one_frame() {
    check(&[], &[], None);
    check(&[frame(0x81, b"40")], &[text("40")], None);
    check(&[frame(0x81, b"")], &[text("")], None);
    check(&[frame(0x82, b"")], &[binary(b"")], None);
    check(&[frame(0x82, &[0, 255, 128])], &[binary(&[0, 255, 128])], None);
    check(&[frame(0x81, "4é😀".as_bytes()), frame(0x82, b"x")], &[text("4é😀"), binary(b"x")], None);
    check(&[frame(0x82, &[7; 126])], &[binary(&[7; 126])], None);
    check(&[frame(0x82, &[7; LIMIT])], &[binary(&[7; LIMIT])], None);
}

#[test]
fn the_three_length_forms() {
    for length in [0, 125, 126, 0xffff, 0x10000] {
        let payload = vec![b'a'; length];
        let bytes = frame(0x82, &payload);
        let (seen, decoder) = feed([bytes.as_slice()], length);
        assert_eq!(seen, (vec![Incoming::Binary(Cow::Owned(payload))], None));
        assert_eq!(decoder.held_bytes(), 0);
    }
}

#[test]
fn a_zero_mask_is_a_mask() {
    check(&[vec![0x81, 0x82, 0, 0, 0, 0, b'4', b'0']], &[text("40")], None);
}

#[test]
fn fragments_are_joined() {
    let pieces = [frame(0x01, b"4"), frame(0x00, b""), frame(0x80, b"0")];
    check(&pieces, &[text("40")], None);
    check(&[frame(0x02, b""), frame(0x80, b"")], &[binary(b"")], None);
    let (head, tail) = "é".as_bytes().split_at(1);
    check(&[frame(0x01, head), frame(0x80, tail)], &[text("é")], None);
    check(&[frame(0x01, b"4")], &[], None);
}

#[test]
fn control_frames_come_out_between_fragments() {
    let frames = [
        frame(0x01, b"4"),
        frame(0x89, b"hb"),
        frame(0x00, b"2"),
        frame(0x8a, b""),
        frame(0x80, b"[]"),
        frame(0x89, &[1; 125]),
    ];
    check(&frames, &[ping(b"hb"), pong(b""), text("42[]"), ping(&[1; 125])], None);
}

#[test]
fn close_is_the_last_word() {
    check(&[frame(0x88, b""), frame(0x81, b"late")], &[Incoming::Close(None)], None);
    let normal = [frame(0x02, b"half"), frame(0x88, b"\x03\xe8done"), vec![0xff; 3]];
    check(&normal, &[close(CloseCode::NORMAL, "done")], None);
    check(&[frame(0x88, b"\x03")], &[], Some(FrameError::CloseTooShort));
    check(&[frame(0x88, b"\x03\xee")], &[], Some(FrameError::CloseCodeInvalid { code: 1006 }));
    check(&[frame(0x88, b"\x03\xe8\xff")], &[], Some(FrameError::CloseReasonNotUtf8 { valid_bytes: 0 }));
}

#[test]
fn headers_that_break_the_rules() {
    let refused = |bytes: Vec<u8>, error| check(&[frame(0x89, b"1"), bytes], &[ping(b"1")], Some(error));
    refused(vec![0x81, 0x02, b'h', b'i'], FrameError::Unmasked);
    refused(vec![0x89, 0x00], FrameError::Unmasked);
    refused(frame(0xc1, b"x"), FrameError::ReservedBits);
    refused(frame(0xa1, b"x"), FrameError::ReservedBits);
    refused(frame(0x91, b"x"), FrameError::ReservedBits);
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        refused(frame(0x80 | opcode, b"x"), FrameError::ReservedOpcode { opcode });
    }
    for opcode in [8, 9, 10] {
        refused(frame(opcode, b""), FrameError::ControlFragmented);
        refused(frame(0x80 | opcode, &[b'x'; 126]), FrameError::ControlTooLong { got: 126 });
    }
    refused(frame(0x80, b"x"), FrameError::StrayContinuation);
    refused(frame(0x00, b""), FrameError::StrayContinuation);
}

#[test]
fn lengths_that_break_the_rules() {
    let refused = |length: &[u8], error| {
        let mut bytes = vec![0x82];
        bytes.extend(length);
        bytes.extend(MASK);
        check(&[bytes], &[], Some(error));
    };
    refused(&[0xfe, 0, 125], FrameError::LengthNotMinimal { length: 125 });
    refused(&[0xfe, 0, 0], FrameError::LengthNotMinimal { length: 0 });
    refused(&[0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], FrameError::LengthNotMinimal { length: 0xffff });
    refused(&[0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameError::LengthTopBit);
    refused(&[0xff; 9], FrameError::LengthTopBit);
    let huge = i64::MAX.unsigned_abs();
    refused(
        &[0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        FrameError::MessageTooLarge { got: huge, max: LIMIT as u64 },
    );
}

#[test]
fn a_message_must_end_before_the_next_begins() {
    check(&[frame(0x01, b"4"), frame(0x81, b"0")], &[], Some(FrameError::MessageInterrupted));
    check(&[frame(0x02, b""), frame(0x02, b"")], &[], Some(FrameError::MessageInterrupted));
    let after_the_end = [frame(0x01, b"4"), frame(0x80, b"0"), frame(0x80, b"x")];
    check(&after_the_end, &[text("40")], Some(FrameError::StrayContinuation));
}

#[test]
fn the_limit_counts_all_fragments() {
    let max = LIMIT as u64;
    let too_large = |got| Some(FrameError::MessageTooLarge { got, max });
    check(&[frame(0x82, &[0; LIMIT + 1])], &[], too_large(max + 1));
    check(&[frame(0x02, &[0; 600]), frame(0x80, &[0; 400])], &[binary(&[0; LIMIT])], None);
    check(&[frame(0x02, &[0; 600]), frame(0x80, &[0; 401])], &[], too_large(max + 1));
    check(&[frame(0x02, &[0; LIMIT]), frame(0x00, b""), frame(0x00, b"x")], &[], too_large(max + 1));
}

#[test]
fn the_limit_is_decided_by_the_header_alone() {
    let bytes = frame(0x82, &[0; LIMIT + 1]);
    let header = &bytes[..8];
    let (seen, decoder) = feed([header], LIMIT);
    assert_eq!(seen.1.map(|error| error.close_code()), Some(CloseCode::TOO_LARGE));
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn text_must_be_utf8() {
    let refused = |frames: &[Vec<u8>], valid_bytes| {
        check(frames, &[], Some(FrameError::TextNotUtf8 { valid_bytes }));
    };
    refused(&[frame(0x81, b"4\xff")], 1);
    refused(&[frame(0x81, "é".as_bytes().split_last().unwrap().1)], 0);
    refused(&[frame(0x81, b"\xed\xa0\x80")], 0);
    refused(&[frame(0x81, b"\xc0\xaf")], 0);
    refused(&[frame(0x01, b"ok\xc3"), frame(0x80, b"(")], 2);
    refused(&[frame(0x01, b"ok\xc3"), frame(0x80, b"")], 2);
    check(&[frame(0x82, b"\xff")], &[binary(b"\xff")], None);
}

#[test]
fn close_codes_of_errors() {
    let cases = [
        (FrameError::Unmasked, CloseCode::PROTOCOL_ERROR),
        (FrameError::TextNotUtf8 { valid_bytes: 0 }, CloseCode::INVALID_DATA),
        (FrameError::CloseReasonNotUtf8 { valid_bytes: 0 }, CloseCode::INVALID_DATA),
        (FrameError::MessageTooLarge { got: 2, max: 1 }, CloseCode::TOO_LARGE),
    ];
    for (error, expected) in cases {
        assert_eq!(error.close_code(), expected, "{error}");
    }
}

#[test]
fn a_whole_frame_is_borrowed_from_the_input() {
    let mut bytes = [frame(0x81, b"40"), frame(0x02, b"a"), frame(0x89, b"hb"), frame(0x80, b"b")].concat();
    let mut input = bytes.as_mut_slice();
    let mut decoder = Decoder::new();
    let mut next = || decoder.decode(&mut input, LIMIT).unwrap();
    assert!(matches!(next(), Some(Incoming::Text(Cow::Borrowed("40")))));
    assert!(matches!(next(), Some(Incoming::Ping(Cow::Borrowed(b"hb")))));
    assert!(matches!(next(), Some(Incoming::Binary(Cow::Owned(bytes))) if bytes == b"ab"));
    assert_eq!(next(), None);
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn an_end_frees_what_was_held() {
    let half = frame(0x01, &[b'x'; 500]);
    let (_, decoder) = feed([half.as_slice()], LIMIT);
    assert!(decoder.held_bytes() >= 500);
    let (_, decoder) = feed([[half.clone(), frame(0x81, b"")].concat().as_slice()], LIMIT);
    assert_eq!(decoder.held_bytes(), 0);
    let (_, mut decoder) = feed([[half, frame(0x88, b"")].concat().as_slice()], LIMIT);
    assert_eq!(decoder.held_bytes(), 0);
    let mut late = frame(0x81, b"late");
    let mut input = late.as_mut_slice();
    assert_eq!(decoder.decode(&mut input, LIMIT), Ok(None));
    assert!(input.is_empty());
}

/// Feeds pieces of a message of a million bytes; returns how often the memory grew.
/// At every moment the memory is bounded by what arrived.
fn growths(wire: &[u8], piece_bytes: usize) -> usize {
    const MESSAGE_BYTES_MAX: usize = 1_000_000;
    let mut decoder = Decoder::new();
    let (mut arrived, mut held, mut growths, mut messages) = (0, 0, 0, 0);
    for piece in wire.chunks(piece_bytes) {
        let mut piece = piece.to_vec();
        arrived += piece.len();
        let mut input = piece.as_mut_slice();
        while let Some(incoming) = decoder.decode(&mut input, MESSAGE_BYTES_MAX).unwrap() {
            assert!(matches!(incoming, Incoming::Binary(bytes) if bytes.len() == MESSAGE_BYTES_MAX));
            messages += 1;
        }
        growths += usize::from(decoder.held_bytes() > held);
        held = decoder.held_bytes();
        assert!(held <= 2 * arrived + 300, "{held} bytes held for {arrived}");
        assert!(held <= MESSAGE_BYTES_MAX + 300, "{held} bytes held");
    }
    assert_eq!((messages, decoder.held_bytes()), (1, 0));
    growths
}

#[test]
fn memory_follows_what_arrived_in_few_steps() {
    let whole = frame(0x82, &vec![1; 1_000_000]);
    assert!(growths(&whole, 65_536) <= 6);
    assert!(growths(&whole, 1) <= 22);
    let mut crumbs = frame(0x02, b"");
    for _ in 0..500_000 {
        crumbs.extend(frame(0x00, b"ab"));
    }
    crumbs.extend(frame(0x80, b""));
    assert!(growths(&crumbs, 1000) <= 22);
}

#[test]
fn empty_fragments_hold_nothing_more() {
    let flood = [frame(0x01, b""), frame(0x00, b"").repeat(100_000)].concat();
    let (seen, decoder) = feed(flood.chunks(4096), LIMIT);
    assert_eq!(seen, (vec![], None));
    assert!(decoder.held_bytes() < 300);
}
