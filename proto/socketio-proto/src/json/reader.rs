//! The streaming reader: one token per call, and never more state than the nesting needs.

/// A piece of JSON. Strings come without their quotes and with their escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// `[`
    BeginArray,
    /// `]`
    EndArray,
    /// `{`
    BeginObject,
    /// `}`
    EndObject,
    /// The key of a member; its value follows.
    Key(&'a str),
    /// A string.
    String(&'a str),
    /// A number as it was written.
    Number(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// `null`
    Null,
}

/// Why a text is not accepted as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The grammar does not allow what stands here; the end of the text may come too early, too.
    #[error("JSON syntax error at byte {at}")]
    Syntax {
        /// Offset of the fault in bytes.
        at: usize,
    },
    /// More arrays and objects inside one another than allowed.
    #[error("JSON nested deeper than {max} levels")]
    TooDeep {
        /// The bound that was given.
        max: usize,
    },
}

/// Reads one JSON value token by token, checking the grammar of RFC 8259 as it goes.
///
/// Call [`Reader::next_token`] until it gives `None`: only then the whole text is known to be valid.
/// After an error the reader is of no more use.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    position: usize,
    token_start: usize,
    expected: Expected,
    containers: Containers,
    depth_max: usize,
}

#[derive(Debug, Clone, Copy)]
enum Expected {
    Value,
    FirstElement,
    FirstKey,
    CommaOrEnd,
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of `text`. At most `depth_max` containers may be open at a time.
    #[must_use]
    pub fn new(text: &'a str, depth_max: usize) -> Self {
        Self {
            text,
            position: 0,
            token_start: 0,
            expected: Expected::Value,
            containers: Containers::default(),
            depth_max,
        }
    }

    /// Reads the next token; `None` after the end of the value.
    ///
    /// # Errors
    /// [`JsonError`] at the first fault.
    #[inline]
    pub fn next_token(&mut self) -> Result<Option<Token<'a>>, JsonError> {
        self.skip_whitespace();
        self.token_start = self.position;
        let expected = self.expected;
        match expected {
            Expected::Value => self.value().map(Some),
            Expected::FirstElement if self.eat(b']') => Ok(Some(self.close(Token::EndArray))),
            Expected::FirstElement => self.value().map(Some),
            Expected::FirstKey if self.eat(b'}') => Ok(Some(self.close(Token::EndObject))),
            Expected::FirstKey => self.key().map(Some),
            Expected::CommaOrEnd => self.after_value(),
        }
    }

    /// Reads to the end, for the sake of validation alone.
    ///
    /// # Errors
    /// [`JsonError`] at the first fault.
    pub fn finish(&mut self) -> Result<(), JsonError> {
        while self.next_token()?.is_some() {}
        Ok(())
    }

    /// Offset after the last token; after a key, behind its colon.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Offset of the first byte of the last token, the quote included.
    #[must_use]
    pub fn token_start(&self) -> usize {
        self.token_start
    }

    /// How many containers are open.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.containers.depth
    }

    fn after_value(&mut self) -> Result<Option<Token<'a>>, JsonError> {
        let Some(container) = self.containers.innermost() else {
            return if self.position == self.text.len() { Ok(None) } else { Err(self.fault()) };
        };
        if self.eat(b',') {
            self.skip_whitespace();
            self.token_start = self.position;
            return match container {
                Container::Array => self.value().map(Some),
                Container::Object => self.key().map(Some),
            };
        }
        match container {
            Container::Array if self.eat(b']') => Ok(Some(self.close(Token::EndArray))),
            Container::Object if self.eat(b'}') => Ok(Some(self.close(Token::EndObject))),
            Container::Array | Container::Object => Err(self.fault()),
        }
    }

    #[inline]
    fn value(&mut self) -> Result<Token<'a>, JsonError> {
        self.expected = Expected::CommaOrEnd;
        match self.peek() {
            Some(b'"') => self.string().map(Token::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'[') => self.open(Container::Array, Expected::FirstElement, Token::BeginArray),
            Some(b'{') => self.open(Container::Object, Expected::FirstKey, Token::BeginObject),
            Some(b't') => self.literal("true", Token::Bool(true)),
            Some(b'f') => self.literal("false", Token::Bool(false)),
            Some(b'n') => self.literal("null", Token::Null),
            _ => Err(self.fault()),
        }
    }

    fn key(&mut self) -> Result<Token<'a>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.fault());
        }
        let key = self.string()?;
        self.skip_whitespace();
        if !self.eat(b':') {
            return Err(self.fault());
        }
        self.expected = Expected::Value;
        Ok(Token::Key(key))
    }

    fn open(
        &mut self,
        container: Container,
        expected: Expected,
        token: Token<'a>,
    ) -> Result<Token<'a>, JsonError> {
        if self.containers.depth >= self.depth_max {
            return Err(JsonError::TooDeep { max: self.depth_max });
        }
        self.position += 1;
        self.containers.push(container);
        self.expected = expected;
        Ok(token)
    }

    fn close(&mut self, token: Token<'a>) -> Token<'a> {
        self.containers.pop();
        self.expected = Expected::CommaOrEnd;
        token
    }

    /// Reads a string from its opening quote; gives what stands between the quotes.
    fn string(&mut self) -> Result<&'a str, JsonError> {
        self.position += 1;
        let start = self.position;
        loop {
            self.position += plain_bytes(self.rest());
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                _ => return Err(self.fault()),
            }
        }
        let raw = self.text.get(start..self.position).ok_or(JsonError::Syntax { at: start })?;
        self.position += 1;
        Ok(raw)
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.position += match self.rest() {
            [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [_, b'u', a, b, c, d, ..] if [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return Err(self.fault()),
        };
        Ok(())
    }

    fn number(&mut self) -> Result<Token<'a>, JsonError> {
        let start = self.position;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        self.text.get(start..self.position).map(Token::Number).ok_or(JsonError::Syntax { at: start })
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.position += count;
        if count == 0 { Err(self.fault()) } else { Ok(()) }
    }

    fn literal(&mut self, literal: &str, token: Token<'a>) -> Result<Token<'a>, JsonError> {
        if !self.rest().starts_with(literal.as_bytes()) {
            return Err(self.fault());
        }
        self.position += literal.len();
        Ok(token)
    }

    #[inline]
    fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.position += 1;
        }
    }

    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.position += usize::from(found);
        found
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.position..).unwrap_or_default()
    }

    fn fault(&self) -> JsonError {
        JsonError::Syntax { at: self.position }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

/// The open containers, one bit each: the innermost 128 in a word, the others in a list that packets
/// within the usual depth never touch.
#[derive(Debug, Default)]
struct Containers {
    depth: usize,
    innermost: u128,
    outer: Vec<u128>,
}

impl Containers {
    const WORD_BITS: usize = 128;

    fn push(&mut self, container: Container) {
        if self.depth > 0 && self.depth.is_multiple_of(Self::WORD_BITS) {
            self.outer.push(self.innermost);
        }
        self.innermost = self.innermost << 1 | u128::from(container == Container::Object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.innermost >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(Self::WORD_BITS) {
            self.innermost = self.outer.pop().unwrap_or_default();
        }
    }

    fn innermost(&self) -> Option<Container> {
        match (self.depth, self.innermost & 1) {
            (0, _) => None,
            (_, 0) => Some(Container::Array),
            _ => Some(Container::Object),
        }
    }
}

/// Counts the bytes before the first that means something inside a string: a quote, a backslash, or a control character.
/// Eight bytes are judged at a time: a byte that is wanted leaves its high bit set, and the lowest such bit is never a false one.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGHS;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);

    let (words, tail) = bytes.as_chunks::<8>();
    let mut plain = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let found = below(word, b' ') | equal(word, b'"') | equal(word, b'\\');
        if found != 0 {
            // The bit number divided by eight is at most seven.
            return plain + usize::try_from(found.trailing_zeros() / 8).unwrap_or_default();
        }
        plain += 8;
    }
    plain + tail.iter().take_while(|byte| !matches!(byte, 0..b' ' | b'"' | b'\\')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), JsonError>) {
        assert_eq!(Reader::new(text, 4).finish(), expected, "{text:?}");
    }

    #[test]
    fn valid_texts_pass() {
        for text in [
            "0",
            "-0",
            "1.5",
            "1e9",
            "-1.25E-7",
            "1E+400",
            "true",
            "false",
            "null",
            r#""""#,
            "[]",
            "{}",
            " [ ] ",
            "\t\n\r{ }\t",
            r#"{"a":1,"a":[2]}"#,
            r#""\u0000\ud800\"\\\/\b\f\n\r\t""#,
            "\"é😀\u{7f}\"",
            "[[[[]]]]",
            "123456789012345678901234567890",
        ] {
            check(text, Ok(()));
        }
    }

    #[test]
    fn faults_are_placed() {
        for (text, at) in [
            ("", 0),
            (" ", 1),
            ("[", 1),
            ("[1", 2),
            ("[1,", 3),
            ("[1,]", 3),
            ("[,1]", 1),
            ("[1 2]", 3),
            ("]", 0),
            ("[}", 1),
            ("{]", 1),
            ("{\"a\"}", 4),
            ("{\"a\":}", 5),
            ("{\"a\":1,}", 7),
            ("{a:1}", 1),
            ("{1:1}", 1),
            ("{\"a\":1", 6),
            ("01", 1),
            ("-", 1),
            ("1.", 2),
            (".5", 0),
            ("+1", 0),
            ("1e", 2),
            ("1e+", 3),
            ("-a", 1),
            ("tru", 0),
            ("nulll", 4),
            ("True", 0),
            ("NaN", 0),
            ("'a'", 0),
            ("\"a", 2),
            ("\"a\n\"", 2),
            ("\"\\x\"", 1),
            ("\"\\u12g4\"", 1),
            ("\"\\", 1),
            ("\"\\u12", 1),
            ("1 1", 2),
            ("[] []", 3),
            ("\u{a0}1", 0),
            ("\u{feff}1", 0),
            ("[1,/**/2]", 3),
        ] {
            check(text, Err(JsonError::Syntax { at }));
        }
    }

    #[test]
    fn depth_is_counted_in_open_containers() {
        check("[[[[]]]]", Ok(()));
        check("[[[[[]]]]]", Err(JsonError::TooDeep { max: 4 }));
        check(r#"{"a":{"a":{"a":{"a":{}}}}}"#, Err(JsonError::TooDeep { max: 4 }));
        check(&format!("[{}1]", "[[[]]],".repeat(1000)), Ok(()));
        assert_eq!(Reader::new("1", 0).finish(), Ok(()));
        assert_eq!(Reader::new("[]", 0).finish(), Err(JsonError::TooDeep { max: 0 }));
    }

    #[test]
    fn nesting_far_beyond_one_word_is_tracked() {
        for levels in [127, 128, 129, 256, 257, 100_000] {
            let text = format!("{}{}", r#"[{"a":"#.repeat(levels) + "1", "}]".repeat(levels));
            assert_eq!(Reader::new(&text, usize::MAX).finish(), Ok(()), "{levels}");
            let crossed = format!("{}{}", r#"[{"a":"#.repeat(levels) + "1", "]}".repeat(levels));
            assert!(Reader::new(&crossed, usize::MAX).finish().is_err(), "{levels}");
        }
    }

    #[test]
    fn plain_bytes_finds_the_first_special_at_every_offset() {
        for length in 0..40 {
            for at in 0..length {
                for special in [b'"', b'\\', 0, 0x1f] {
                    let mut bytes = vec![b'!'; length];
                    bytes[at] = special;
                    if at + 1 < length {
                        bytes[at + 1] = b'"';
                    }
                    assert_eq!(plain_bytes(&bytes), at);
                }
            }
            for plain in [0x20, 0x21, 0x23, 0x5b, 0x5d, 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                assert_eq!(plain_bytes(&vec![plain; length]), length);
            }
        }
    }
}
