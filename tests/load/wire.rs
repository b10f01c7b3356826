//! The bytes a minimal Engine.IO 4 client writes and reads over WebSocket, as far as measuring needs them.

use anyhow::{bail, ensure};

/// The handshake key of RFC 6455 section 1.3. A fixed one will do: nothing caches these answers.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The accept value that belongs to [`KEY`].
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Masking key of every frame we send. Servers may not care which, so a constant saves a random source.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Longest response head we wait for before giving up on the server, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What a frame carries, by its opcode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FrameKind {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// One whole frame, as it came off the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'b> {
    pub(crate) kind: FrameKind,
    pub(crate) payload: &'b [u8],
}

/// Writes the request that opens a WebSocket at the Engine.IO endpoint.
pub(crate) fn upgrade_request(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path}?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// Takes the response head off the front of `bytes`; `None` while it is incomplete.
///
/// # Errors
/// When the server does not switch protocols, or answers with a wrong accept value.
pub(crate) fn split_response_head(bytes: &[u8]) -> anyhow::Result<Option<&[u8]>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        ensure!(bytes.len() < HEAD_BYTES_MAX, "response head longer than {HEAD_BYTES_MAX} bytes");
        return Ok(None);
    };
    let (head, rest) = bytes.split_at_checked(end + 4).unwrap_or((bytes, &[]));
    let head = String::from_utf8_lossy(head);
    ensure!(head.starts_with("HTTP/1.1 101 "), "no upgrade: {}", head.lines().next().unwrap_or_default());
    ensure!(head.contains(ACCEPT), "wrong Sec-WebSocket-Accept in {head:?}");
    Ok(Some(rest))
}

/// Takes one unmasked server frame off the front of `bytes`; `None` while it is incomplete.
///
/// # Errors
/// A frame this client has no use for: masked, fragmented, reserved, or of 4 GiB and more.
pub(crate) fn split_frame(bytes: &[u8]) -> anyhow::Result<Option<(Frame<'_>, &[u8])>> {
    let [first, second, after @ ..] = bytes else { return Ok(None) };
    let kind = match first {
        0x81 => FrameKind::Text,
        0x82 => FrameKind::Binary,
        0x88 => FrameKind::Close,
        0x89 => FrameKind::Ping,
        0x8a => FrameKind::Pong,
        other => bail!("unexpected first byte of a frame: {other:#04x}"),
    };
    let (length, after) = match (second, after) {
        (0..=125, _) => (usize::from(*second), after),
        (126, [a, b, after @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), after),
        (127, [0, 0, 0, 0, a, b, c, d, after @ ..]) => {
            (usize::try_from(u32::from_be_bytes([*a, *b, *c, *d]))?, after)
        }
        (126, _) => return Ok(None),
        (127, _) if after.len() < 8 => return Ok(None),
        _ => bail!("server frame is masked or longer than 4 GiB"),
    };
    Ok(after.split_at_checked(length).map(|(payload, rest)| (Frame { kind, payload }, rest)))
}

/// Appends `payload` as one masked, final frame.
///
/// # Errors
/// When the payload does not fit a 16-bit length; nothing here sends that much.
pub(crate) fn write_client_frame(kind: FrameKind, payload: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
    out.push(match kind {
        FrameKind::Text => 0x81,
        FrameKind::Binary => 0x82,
        FrameKind::Close => 0x88,
        FrameKind::Ping => 0x89,
        FrameKind::Pong => 0x8a,
    });
    let length = u16::try_from(payload.len())?;
    match u8::try_from(length) {
        Ok(short) if short <= 125 => out.push(0x80 | short),
        _ => {
            out.push(0x80 | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Ok(())
}

/// How many payload bytes a server frame of `frame_bytes` in all carries (at least 2, at most 64 KiB).
pub(crate) fn payload_bytes(frame_bytes: u32) -> usize {
    let total = usize::try_from(frame_bytes).unwrap_or(usize::MAX);
    let header = if total <= 127 { 2 } else { 4 };
    total.saturating_sub(header)
}

/// Reads a run of decimal digits off the front of `text`; `None` without a digit or past `u32`.
pub(crate) fn split_number(text: &[u8]) -> Option<(u32, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    let first = digits.first()?.wrapping_sub(b'0');
    let number = digits.iter().skip(1).try_fold(u32::from(first), |number, digit| {
        number.checked_mul(10)?.checked_add(u32::from(digit.wrapping_sub(b'0')))
    })?;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_or_not_at_all() {
        let text_of = |length: usize| vec![b'x'; length];
        let cases: [(&[u8], usize); 3] =
            [(&[0x81, 5], 5), (&[0x81, 126, 1, 0], 256), (&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536)];
        for (header, length) in cases {
            let mut bytes = [header, &text_of(length), b"rest"].concat();
            let (frame, rest) = split_frame(&bytes).unwrap().unwrap();
            assert_eq!((frame.kind, frame.payload, rest), (FrameKind::Text, &*text_of(length), &b"rest"[..]));
            bytes.truncate(bytes.len() - "rest".len() - 1);
            for cut in [0, 1, 2, 3, 9, bytes.len()] {
                let front = bytes.get(..cut).unwrap_or(&bytes);
                assert!(split_frame(front).unwrap().is_none(), "{cut} bytes of {length}");
            }
        }
    }

    #[test]
    fn strange_frames_are_refused() {
        for bytes in [&[0x01, 1, b'x'][..], &[0xc1, 1, b'x'], &[0x81, 0x81, 1, 2, 3, 4, b'x']] {
            assert!(split_frame(bytes).is_err(), "{bytes:x?}");
        }
        assert!(split_frame(&[0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0]).is_err(), "2^56 bytes announced");
    }

    #[test]
    fn client_frames_are_masked() {
        let mut out = Vec::new();
        write_client_frame(FrameKind::Text, b"Hello", &mut out).unwrap();
        // The example of RFC 6455 section 5.7, which uses the same masking key.
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn numbers_end_at_the_first_other_byte() {
        assert_eq!(split_number(b"00000042x"), Some((42, &b"x"[..])));
        assert_eq!(split_number(b"4294967295"), Some((u32::MAX, &b""[..])));
        assert_eq!(split_number(b"4294967296"), None);
        assert_eq!(split_number(b"x"), None);
        assert_eq!(split_number(b""), None);
    }
}
