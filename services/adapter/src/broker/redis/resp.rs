//! RESP3, as far as Redis speaks it to us: commands out, replies and pushes in.
//!
//! Specification: <https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md>. A frame is read in place
//! and borrows from the buffer; nothing is allocated for a length that was only announced.

use bytes::BytesMut;

/// How deep lists may lie in each other: twice as deep as in any answer to what is asked here.
const DEPTH_MAX: usize = 8;
/// Items of a list: those that are asked for have a few, or one for each replica.
const ITEMS_MAX: usize = 1_024;
/// A line: a number, a status, or an error text.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Bytes that cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RespError {
    /// This is not RESP3, or a part of it that Redis does not use.
    #[error("the broker sent something that is not RESP3: {0}")]
    Malformed(&'static str),
    /// More than this node takes at once.
    #[error("the broker sent a message of {0} bytes or more, which is beyond broker.receive_bytes_max")]
    TooLong(usize),
}

/// One reply, or one push.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply<'a> {
    /// A status, a string, or a number that is no integer.
    Text(&'a [u8]),
    /// An error: a code in capitals and a text.
    Error(&'a [u8]),
    /// An integer or a boolean.
    Integer(i64),
    /// Nothing.
    Null,
    /// A list or a set; of a map, keys and values in turn.
    List(Vec<Reply<'a>>),
    /// What was not asked for: messages, and the ends and beginnings of subscriptions.
    Push(Vec<Reply<'a>>),
}

impl Reply<'_> {
    /// The bytes of a text.
    #[must_use]
    pub fn text(&self) -> Option<&[u8]> {
        let Self::Text(bytes) = self else { return None };
        Some(bytes)
    }

    /// The number, if it is one.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        let Self::Integer(number) = self else { return None };
        Some(*number)
    }

    /// The text of an error, for the log.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let Self::Error(bytes) = self else { return None };
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Appends a command.
pub fn command<'a>(out: &mut BytesMut, parts: impl ExactSizeIterator<Item = &'a [u8]>) {
    header(out, b'*', parts.len());
    for part in parts {
        header(out, b'$', part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

fn header(out: &mut BytesMut, kind: u8, number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        }
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// What has arrived and is not read yet.
#[derive(Debug)]
pub struct Input {
    /// The bytes; the connection appends to them.
    pub buffer: BytesMut,
    /// Without so many bytes nothing can be read.
    needed: usize,
    frame_bytes_max: usize,
}

impl Input {
    /// An empty input that takes frames of at most so many bytes.
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), needed: 1, frame_bytes_max }
    }

    /// From now on frames may have so many bytes.
    pub fn frame_bytes_max(&mut self, bytes: usize) {
        self.frame_bytes_max = bytes;
    }

    /// The first whole frame from `at` on, and where the next one begins; `None` if it has not arrived in full.
    ///
    /// # Errors
    /// [`RespError`]; the connection cannot be used any more.
    pub fn frame(&mut self, at: usize) -> Result<Option<(Reply<'_>, usize)>, RespError> {
        let Some(bytes) = self.buffer.get(at..).filter(|bytes| bytes.len() >= self.needed) else {
            return Ok(None);
        };
        let mut reader = Reader { bytes, at: 0, frame_bytes_max: self.frame_bytes_max };
        match reader.frame(0) {
            Ok(reply) => {
                self.needed = 1;
                Ok(Some((reply, at + reader.at)))
            }
            Err(Stop::Needs(bytes)) => {
                // The next look at it is worth the while only then.
                self.needed = bytes;
                Ok(None)
            }
            Err(Stop::Error(error)) => Err(error),
        }
    }
}

enum Stop {
    /// At least so many bytes of the frame are needed.
    Needs(usize),
    Error(RespError),
}

fn malformed(what: &'static str) -> Stop {
    Stop::Error(RespError::Malformed(what))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    frame_bytes_max: usize,
}

impl<'a> Reader<'a> {
    fn frame(&mut self, depth: usize) -> Result<Reply<'a>, Stop> {
        if depth > DEPTH_MAX {
            return Err(malformed("lists too deep in each other"));
        }
        let kind = *self.bytes.get(self.at).ok_or(Stop::Needs(self.at + 1))?;
        self.at += 1;
        let line = self.line()?;
        match kind {
            b'+' | b',' | b'(' => Ok(Reply::Text(line)),
            b'-' => Ok(Reply::Error(line)),
            b':' => number(line).map(Reply::Integer),
            b'#' => Ok(Reply::Integer(i64::from(line == b"t"))),
            b'_' => Ok(Reply::Null),
            b'$' => Ok(self.bulk(line)?.map_or(Reply::Null, Reply::Text)),
            b'!' => Ok(self.bulk(line)?.map_or(Reply::Null, Reply::Error)),
            // Before a verbatim string stands its format and a colon.
            b'=' => Ok(self
                .bulk(line)?
                .map_or(Reply::Null, |text| Reply::Text(text.get(4..).unwrap_or_default()))),
            b'*' | b'~' => Ok(self.list(line, 1, depth)?.map_or(Reply::Null, Reply::List)),
            b'%' => Ok(self.list(line, 2, depth)?.map_or(Reply::Null, Reply::List)),
            b'>' => Ok(self.list(line, 1, depth)?.map_or(Reply::Null, Reply::Push)),
            // What is said about a reply comes before it, and is of no interest here.
            b'|' => {
                self.list(line, 2, depth)?;
                self.frame(depth + 1)
            }
            _ => Err(malformed("an unknown type")),
        }
    }

    /// The rest of the line, without its end.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\r') else {
            if rest.len() >= LINE_BYTES_MAX {
                return Err(malformed("a line without an end"));
            }
            return Err(Stop::Needs(self.bytes.len() + 1));
        };
        self.take(length)
    }

    /// So many bytes, and the end of a line behind them.
    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.saturating_add(length);
        if end > self.frame_bytes_max {
            return Err(Stop::Error(RespError::TooLong(end)));
        }
        let taken = self.bytes.get(self.at..end + 2).ok_or(Stop::Needs(end + 2))?;
        let (taken, line_end) = taken.split_at(length);
        if line_end != b"\r\n" {
            return Err(malformed("a line that ends otherwise"));
        }
        self.at = end + 2;
        Ok(taken)
    }

    fn bulk(&mut self, line: &[u8]) -> Result<Option<&'a [u8]>, Stop> {
        length(line)?.map(|length| self.take(length)).transpose()
    }

    fn list(&mut self, line: &[u8], each: usize, depth: usize) -> Result<Option<Vec<Reply<'a>>>, Stop> {
        let Some(count) = length(line)? else { return Ok(None) };
        let count = count.saturating_mul(each);
        if count > ITEMS_MAX {
            return Err(malformed("a list that is too long"));
        }
        // Each item takes three bytes at least.
        let mut items = Vec::with_capacity(count.min(self.bytes.len() / 3));
        for _ in 0..count {
            items.push(self.frame(depth + 1)?);
        }
        Ok(Some(items))
    }
}

/// A length; `None` where RESP2 says that there is nothing.
fn length(line: &[u8]) -> Result<Option<usize>, Stop> {
    match number(line)? {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| malformed("a negative length")),
    }
}

fn number(line: &[u8]) -> Result<i64, Stop> {
    let text = str::from_utf8(line).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| malformed("a number that is none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: &[u8]) -> Input {
        let mut input = Input::new(1_000);
        input.buffer.extend_from_slice(bytes);
        input
    }

    #[test]
    fn commands_are_lists_of_strings() {
        let mut out = BytesMut::new();
        let long = [b'x'; 100];
        command(&mut out, [&b"PUBLISH"[..], b"a", b"", &long].into_iter());
        let text = format!("*4\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$0\r\n\r\n$100\r\n{}\r\n", "x".repeat(100));
        assert_eq!(out, text.as_bytes());
    }

    #[test]
    fn every_type_is_read() {
        let check = |bytes: &[u8], expected: Reply<'_>| {
            let mut whole = input(bytes);
            assert_eq!(whole.frame(0), Ok(Some((expected, bytes.len()))), "{}", bytes.escape_ascii());
            // However it is cut, it is not read before it is whole.
            for cut in 0..bytes.len() {
                let mut part = input(&bytes[..cut]);
                assert_eq!(part.frame(0), Ok(None), "{} at {cut}", bytes.escape_ascii());
                part.buffer.extend_from_slice(&bytes[cut..]);
                assert!(matches!(part.frame(0), Ok(Some((_, end))) if end == bytes.len()));
            }
        };
        check(b"+OK\r\n", Reply::Text(b"OK"));
        check(b"-ERR no\r\n", Reply::Error(b"ERR no"));
        check(b":-12\r\n", Reply::Integer(-12));
        check(b"#t\r\n", Reply::Integer(1));
        check(b"_\r\n", Reply::Null);
        check(b",1.5\r\n", Reply::Text(b"1.5"));
        check(b"(123456789012345678901234567890\r\n", Reply::Text(b"123456789012345678901234567890"));
        check(b"$-1\r\n", Reply::Null);
        check(b"$0\r\n\r\n", Reply::Text(b""));
        check(b"$4\r\na\r\nb\r\n", Reply::Text(b"a\r\nb"));
        check(b"!5\r\nERR x\r\n", Reply::Error(b"ERR x"));
        check(b"=6\r\ntxt:ab\r\n", Reply::Text(b"ab"));
        check(b"*-1\r\n", Reply::Null);
        check(
            b"*2\r\n:1\r\n*1\r\n_\r\n",
            Reply::List(vec![Reply::Integer(1), Reply::List(vec![Reply::Null])]),
        );
        check(b"%1\r\n+a\r\n:1\r\n", Reply::List(vec![Reply::Text(b"a"), Reply::Integer(1)]));
        check(b"~1\r\n:1\r\n", Reply::List(vec![Reply::Integer(1)]));
        check(b"|1\r\n+ttl\r\n:1\r\n:7\r\n", Reply::Integer(7));
        let message = vec![Reply::Text(b"message"), Reply::Text(b"c"), Reply::Text(b"hi")];
        check(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n", Reply::Push(message));
    }

    #[test]
    fn frames_follow_each_other() {
        let mut input = input(b":1\r\n:2\r\n:");
        let Ok(Some((Reply::Integer(1), at))) = input.frame(0) else { panic!("the first") };
        let Ok(Some((Reply::Integer(2), at))) = input.frame(at) else { panic!("the second") };
        assert_eq!(input.frame(at), Ok(None));
    }

    #[test]
    fn what_is_no_resp3_is_refused_without_an_allocation() {
        let check = |bytes: &[u8]| {
            let shown = bytes.get(..40).unwrap_or(bytes);
            assert!(input(bytes).frame(0).is_err(), "{}", shown.escape_ascii());
        };
        check(b"HTTP/1.1 400 Bad Request\r\n");
        check(b":1x\r\n");
        check(b":\r\n");
        check(b"$-2\r\n");
        check(b"$1\r\nab\r\n");
        check(b"+a\rb\r\n");
        check(b"*4611686018427387904\r\n");
        check(b"%9223372036854775807\r\n");
        check(b"$9223372036854775807\r\n");
        check(b"$?\r\n");
        check("*1\r\n".repeat(20).as_bytes());
        check("|0\r\n".repeat(20).as_bytes());
        check("x".repeat(LINE_BYTES_MAX + 1).replacen('x', "+", 1).as_bytes());
        assert_eq!(input(b"$1000\r\n").frame(0), Err(RespError::TooLong(1_007)));
        // Many small ones are too much as well.
        let bytes = [b">20\r\n".to_vec(), b"$90\r\n".to_vec()].concat();
        let item = [b"$90\r\n".to_vec(), vec![b'x'; 90], b"\r\n".to_vec()].concat();
        assert!(matches!(input(&[bytes, item.repeat(20)].concat()).frame(0), Err(RespError::Malformed(_))));
        assert!(matches!(
            input(&[b">20\r\n".to_vec(), item.repeat(20)].concat()).frame(0),
            Err(RespError::TooLong(_))
        ));
    }
}
