//! Reading msgpack value by value. Containers give their count; what is inside follows.
//! Spec: the MessagePack specification, "Formats".
//!
//! Public because messages between nodes are msgpack of the same dialects.

use crate::parser::msgpack::date;

/// Why bytes are no msgpack packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MsgpackError {
    /// The bytes end inside a value.
    #[error("truncated")]
    Truncated,
    /// Bytes follow the packet.
    #[error("{count} bytes after the packet")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A byte that begins no value.
    #[error("no format {byte:#04x}")]
    UnknownFormat {
        /// The byte.
        byte: u8,
    },
    /// An extension that stands for nothing in JavaScript.
    #[error("unknown extension {kind} of {bytes} bytes")]
    UnknownExtension {
        /// The application's number for it.
        kind: i8,
        /// Its length.
        bytes: usize,
    },
    /// A string that is not UTF-8.
    #[error("a string that is not UTF-8")]
    InvalidUtf8,
    /// A map key that is neither a string nor a number.
    #[error("a key that is neither a string nor a number")]
    InvalidKey,
    /// The outermost value is no map.
    #[error("a packet is a map")]
    NotAMap,
}

/// One value, or the head of a container.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    Nil,
    /// JavaScript's `undefined`, in the extension of the older encoders.
    Undefined,
    /// A truth value.
    Bool(bool),
    /// An integer that is not below zero.
    Unsigned(u64),
    /// An integer below zero.
    Negative(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(&'a str),
    /// Binary, also in the extension in which older encoders write an `ArrayBuffer`.
    Binary(&'a [u8]),
    /// Milliseconds since 1970, `None` out of range.
    Date(Option<i64>),
    /// The head of an array; so many values follow.
    Array(u32),
    /// The head of a map; so many keys follow, each with its value.
    Map(u32),
}

/// What is left of a message.
#[derive(Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`MsgpackError::TrailingBytes`] otherwise.
    pub fn finish(&self) -> Result<(), MsgpackError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(MsgpackError::TrailingBytes { count }),
        }
    }

    /// Reads a value; of a container, its head.
    ///
    /// # Errors
    /// [`MsgpackError`] if no value stands here.
    pub fn value(&mut self) -> Result<Value<'a>, MsgpackError> {
        let [format] = self.array::<1>()?;
        Ok(match format {
            0x00..=0x7f => Value::Unsigned(format.into()),
            0x80..=0x8f => Value::Map((format & 0x0f).into()),
            0x90..=0x9f => Value::Array((format & 0x0f).into()),
            0xa0..=0xbf => self.text((format & 0x1f).into())?,
            0xc0 => Value::Nil,
            0xc1 => return Err(MsgpackError::UnknownFormat { byte: format }),
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xc4 => self.u8().and_then(|length| self.binary(length.into()))?,
            0xc5 => self.u16().and_then(|length| self.binary(length.into()))?,
            0xc6 => self.u32().and_then(|length| self.binary(length))?,
            0xc7 => self.u8().and_then(|length| self.sized_extension(length.into()))?,
            0xc8 => self.u16().and_then(|length| self.sized_extension(length.into()))?,
            0xc9 => self.u32().and_then(|length| self.sized_extension(length))?,
            0xca => Value::Float(f32::from_be_bytes(self.array()?).into()),
            0xcb => Value::Float(f64::from_be_bytes(self.array()?)),
            0xcc => Value::Unsigned(self.u8()?.into()),
            0xcd => Value::Unsigned(self.u16()?.into()),
            0xce => Value::Unsigned(self.u32()?.into()),
            0xcf => Value::Unsigned(u64::from_be_bytes(self.array()?)),
            0xd0 => signed(i8::from_be_bytes(self.array()?).into()),
            0xd1 => signed(i16::from_be_bytes(self.array()?).into()),
            0xd2 => signed(i32::from_be_bytes(self.array()?).into()),
            0xd3 => signed(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => self.extension(1 << (format - 0xd4))?,
            0xd9 => self.u8().and_then(|length| self.text(length.into()))?,
            0xda => self.u16().and_then(|length| self.text(length.into()))?,
            0xdb => self.u32().and_then(|length| self.text(length))?,
            0xdc => Value::Array(self.u16()?.into()),
            0xdd => Value::Array(self.u32()?),
            0xde => Value::Map(self.u16()?.into()),
            0xdf => Value::Map(self.u32()?),
            0xe0..=0xff => Value::Negative(i8::from_be_bytes([format]).into()),
        })
    }

    /// Passes over one value with all that is inside it. Every value is at least a byte long, so this ends.
    ///
    /// # Errors
    /// [`MsgpackError`] if no value stands here.
    pub fn skip_value(&mut self) -> Result<(), MsgpackError> {
        let mut remaining: u64 = 1;
        while remaining > 0 {
            remaining -= 1;
            remaining += match self.value()? {
                Value::Array(count) => u64::from(count),
                Value::Map(count) => 2 * u64::from(count),
                Value::Nil
                | Value::Undefined
                | Value::Bool(_)
                | Value::Unsigned(_)
                | Value::Negative(_)
                | Value::Float(_)
                | Value::Text(_)
                | Value::Binary(_)
                | Value::Date(_) => 0,
            };
        }
        Ok(())
    }

    fn text(&mut self, length: u32) -> Result<Value<'a>, MsgpackError> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| MsgpackError::InvalidUtf8)?;
        Ok(Value::Text(text))
    }

    fn binary(&mut self, length: u32) -> Result<Value<'a>, MsgpackError> {
        self.take(length).map(Value::Binary)
    }

    /// An extension that says its length. The JavaScript encoders of version 2 write an `ArrayBuffer` as extension 0
    /// in these forms, and keep the forms of fixed length for `undefined` and dates.
    fn sized_extension(&mut self, length: u32) -> Result<Value<'a>, MsgpackError> {
        if self.rest.first() == Some(&0) {
            self.array::<1>()?;
            return self.binary(length);
        }
        self.extension(length)
    }

    fn extension(&mut self, length: u32) -> Result<Value<'a>, MsgpackError> {
        let kind = i8::from_be_bytes(self.array()?);
        let data = self.take(length)?;
        let unknown = MsgpackError::UnknownExtension { kind, bytes: data.len() };
        match (kind, data.len()) {
            (0, 1) => Ok(Value::Undefined),
            (0, 8) => date::from_milliseconds(data).map(Value::Date).ok_or(unknown),
            (-1, _) => date::from_timestamp(data).map(Value::Date).ok_or(unknown),
            _ => Err(unknown),
        }
    }

    fn u8(&mut self) -> Result<u8, MsgpackError> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, MsgpackError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, MsgpackError> {
        self.array().map(u32::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MsgpackError> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, length: u32) -> Result<&'a [u8], MsgpackError> {
        let length = usize::try_from(length).map_err(|_| MsgpackError::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

fn signed<'a>(number: i64) -> Value<'a> {
    u64::try_from(number).map_or(Value::Negative(number), Value::Unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Result<Value<'_>, MsgpackError>) {
        let mut input = Input::new(bytes);
        assert_eq!(input.value(), expected, "{bytes:02x?}");
        if expected.is_ok() {
            assert_eq!(input.finish(), Ok(()), "{bytes:02x?}");
        }
    }

    #[test]
    fn every_format_is_read() {
        check(&[0x00], Ok(Value::Unsigned(0)));
        check(&[0x7f], Ok(Value::Unsigned(127)));
        check(&[0x8f], Ok(Value::Map(15)));
        check(&[0x9f], Ok(Value::Array(15)));
        check(&[0xa2, b'h', b'i'], Ok(Value::Text("hi")));
        check(&[0xc0], Ok(Value::Nil));
        check(&[0xc2], Ok(Value::Bool(false)));
        check(&[0xc3], Ok(Value::Bool(true)));
        check(&[0xc4, 1, 9], Ok(Value::Binary(&[9])));
        check(&[0xc5, 0, 1, 9], Ok(Value::Binary(&[9])));
        check(&[0xc6, 0, 0, 0, 1, 9], Ok(Value::Binary(&[9])));
        check(&[0xc7, 1, 0, 9], Ok(Value::Binary(&[9])));
        check(&[0xc7, 8, 0, 0, 0, 0, 0, 0, 0, 5, 0xdc], Ok(Value::Binary(&[0, 0, 0, 0, 0, 0, 5, 0xdc])));
        check(&[0xc8, 0, 1, 0, 9], Ok(Value::Binary(&[9])));
        check(&[0xc9, 0, 0, 0, 1, 0, 9], Ok(Value::Binary(&[9])));
        check(&[0xc7, 12, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], Ok(Value::Date(Some(1000))));
        check(&[0xca, 0x3f, 0xc0, 0, 0], Ok(Value::Float(1.5)));
        check(&[0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0], Ok(Value::Float(1.5)));
        check(&[0xcc, 0xff], Ok(Value::Unsigned(255)));
        check(&[0xcd, 1, 0], Ok(Value::Unsigned(256)));
        check(&[0xce, 1, 0, 0, 0], Ok(Value::Unsigned(1 << 24)));
        check(&[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Ok(Value::Unsigned(u64::MAX)));
        check(&[0xd0, 0x80], Ok(Value::Negative(-128)));
        check(&[0xd0, 0x01], Ok(Value::Unsigned(1)));
        check(&[0xd1, 0x80, 0], Ok(Value::Negative(-32768)));
        check(&[0xd2, 0x80, 0, 0, 0], Ok(Value::Negative(i32::MIN.into())));
        check(&[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], Ok(Value::Negative(i64::MIN)));
        check(&[0xd4, 0, 0], Ok(Value::Undefined));
        check(&[0xd7, 0, 0, 0, 0, 0, 0, 0, 5, 0xdc], Ok(Value::Date(Some(1500))));
        check(&[0xd6, 0xff, 0, 0, 0, 1], Ok(Value::Date(Some(1000))));
        check(&[0xd9, 1, b'x'], Ok(Value::Text("x")));
        check(&[0xda, 0, 1, b'x'], Ok(Value::Text("x")));
        check(&[0xdb, 0, 0, 0, 1, b'x'], Ok(Value::Text("x")));
        check(&[0xdc, 1, 0], Ok(Value::Array(256)));
        check(&[0xdd, 1, 0, 0, 0], Ok(Value::Array(1 << 24)));
        check(&[0xde, 1, 0], Ok(Value::Map(256)));
        check(&[0xdf, 1, 0, 0, 0], Ok(Value::Map(1 << 24)));
        check(&[0xe0], Ok(Value::Negative(-32)));
        check(&[0xff], Ok(Value::Negative(-1)));
    }

    #[test]
    fn faults_are_told_apart() {
        check(&[], Err(MsgpackError::Truncated));
        check(&[0xc1], Err(MsgpackError::UnknownFormat { byte: 0xc1 }));
        check(&[0xa2, b'h'], Err(MsgpackError::Truncated));
        check(&[0xc6, 0xff, 0xff, 0xff, 0xff, 0], Err(MsgpackError::Truncated));
        check(&[0xa1, 0xff], Err(MsgpackError::InvalidUtf8));
        check(&[0xd4, 1, 0], Err(MsgpackError::UnknownExtension { kind: 1, bytes: 1 }));
        check(&[0xd5, 0, 0, 0], Err(MsgpackError::UnknownExtension { kind: 0, bytes: 2 }));
        check(&[0xd5, 0xff, 0, 0], Err(MsgpackError::UnknownExtension { kind: -1, bytes: 2 }));
        check(&[0xc7, 0, 1], Err(MsgpackError::UnknownExtension { kind: 1, bytes: 0 }));
    }

    #[test]
    fn a_value_is_skipped_with_all_inside_it() {
        let mut input = Input::new(&[0x92, 0x81, 0xa1, b'k', 0x91, 0xc0, 0xc4, 1, 7, 0x2a]);
        assert_eq!(input.skip_value(), Ok(()));
        assert_eq!(input.value(), Ok(Value::Unsigned(42)));
        let mut endless = Input::new(&[0xdf, 0xff, 0xff, 0xff, 0xff, 0xc0]);
        assert_eq!(endless.skip_value(), Err(MsgpackError::Truncated));
        let deep = vec![0x91; 1_000_000];
        assert_eq!(Input::new(&deep).skip_value(), Err(MsgpackError::Truncated));
    }
}
