//! From a packet to a msgpack message.

use bytes::Bytes;

use crate::json::{JsonError, Reader, Token, unescape};
use crate::packet::{AckId, Outgoing};
use crate::parser::attachments::{PlaceholderError, Shape, shapes};

/// Why a packet cannot be written. The data of a decoded packet always can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The data or its placeholders are not as [`Outgoing`] promises.
    #[error(transparent)]
    Data(#[from] PlaceholderError),
    /// A string or an attachment of 4 GiB or more.
    #[error("a value of {bytes} bytes does not fit into msgpack")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl From<JsonError> for EncodeError {
    fn from(error: JsonError) -> Self {
        Self::Data(error.into())
    }
}

/// Appends a packet as one msgpack message, with the keys in the order `type`, `data`, `id`, `nsp`.
///
/// Integers take their smallest form, other numbers are 64-bit floats. Placeholders become binary values if [`Outgoing::is_binary`].
/// The output is at most a few times the text plus the attachments, since each is named once. On an error nothing is appended.
///
/// # Errors
/// [`EncodeError`] if the packet breaks the promises of [`Outgoing`].
pub fn encode(packet: &Outgoing<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    let result = push_packet(packet, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn push_packet(packet: &Outgoing<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let count = 2 + u32::from(!packet.data.is_empty()) + u32::from(packet.ack_id.is_some());
    push_map_head(count, out);
    push_text("type", out)?;
    out.push(packet.packet_type.without_attachments().digit() - b'0');
    if !packet.data.is_empty() {
        push_text("data", out)?;
        push_json(packet.data, packet.is_binary().then_some(packet.attachments), out)?;
    }
    if let Some(AckId(id)) = packet.ack_id {
        push_text("id", out)?;
        push_unsigned(id, out);
    }
    push_text("nsp", out)?;
    push_text(packet.namespace, out)
}

/// Appends a JSON value; with attachments, placeholders become binary values. After an error, what was appended is of no use.
///
/// It takes two passes: the first counts what each container holds, which msgpack says before the contents.
///
/// # Errors
/// [`EncodeError`] if the text is no JSON, or its placeholders do not suit the attachments.
pub fn push_json(json: &str, attachments: Option<&[Bytes]>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut shapes = shapes(json, attachments.map(<[Bytes]>::len), usize::MAX)?.into_iter();
    let attachments = attachments.unwrap_or_default();
    let mut reader = Reader::new(json, usize::MAX);
    while let Some(token) = reader.next_token()? {
        match token {
            Token::BeginArray | Token::BeginObject => match shapes.next() {
                Some(Shape::Attachment(index)) => {
                    push_attachment(attachments.get(index), out)?;
                    skip_container(&mut reader, &mut shapes)?;
                }
                Some(Shape::Items(count)) if token == Token::BeginArray => push_array_head(count, out),
                Some(Shape::Items(count)) => push_map_head(count, out),
                None => return Err(PlaceholderError::Illegal.into()),
            },
            Token::Key(raw) | Token::String(raw) => push_text(&unescape(raw), out)?,
            Token::Number(text) => push_number(text, out),
            Token::Bool(value) => out.push(if value { 0xc3 } else { 0xc2 }),
            Token::Null => out.push(0xc0),
            Token::EndArray | Token::EndObject => {}
        }
    }
    Ok(())
}

/// Passes over what is left of the container that just began, and over the shapes of those inside it.
fn skip_container(
    reader: &mut Reader<'_>,
    shapes: &mut impl Iterator<Item = Shape>,
) -> Result<(), EncodeError> {
    let outside = reader.depth().saturating_sub(1);
    while reader.depth() > outside {
        if let Some(Token::BeginArray | Token::BeginObject) = reader.next_token()? {
            shapes.next();
        }
    }
    Ok(())
}

/// The format bytes of a kind of value whose length comes first.
struct Sizes {
    /// The short form holds the length itself, if it is below `short_below`.
    short: u8,
    short_below: u32,
    /// The form with a length of one byte, where there is one.
    one: Option<u8>,
    two: u8,
    four: u8,
}

const TEXT: Sizes = Sizes { short: 0xa0, short_below: 32, one: Some(0xd9), two: 0xda, four: 0xdb };
const BINARY: Sizes = Sizes { short: 0, short_below: 0, one: Some(0xc4), two: 0xc5, four: 0xc6 };
const ARRAY: Sizes = Sizes { short: 0x90, short_below: 16, one: None, two: 0xdc, four: 0xdd };
const MAP: Sizes = Sizes { short: 0x80, short_below: 16, one: None, two: 0xde, four: 0xdf };

/// Appends the head of a map; so many keys must follow, each with its value.
pub fn push_map_head(count: u32, out: &mut Vec<u8>) {
    push_head(count, &MAP, out);
}

/// Appends the head of an array; so many values must follow.
pub fn push_array_head(count: u32, out: &mut Vec<u8>) {
    push_head(count, &ARRAY, out);
}

fn push_head(length: u32, sizes: &Sizes, out: &mut Vec<u8>) {
    let [a, b, c, d] = length.to_be_bytes();
    match (length, sizes.one) {
        _ if length < sizes.short_below => out.push(sizes.short | d),
        (0..=0xff, Some(one)) => out.extend([one, d]),
        (0..=0xffff, _) => out.extend([sizes.two, c, d]),
        _ => out.extend([sizes.four, a, b, c, d]),
    }
}

fn push_bytes(bytes: &[u8], sizes: &Sizes, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let length = u32::try_from(bytes.len()).map_err(|_| EncodeError::TooLong { bytes: bytes.len() })?;
    push_head(length, sizes, out);
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends a string.
///
/// # Errors
/// [`EncodeError::TooLong`] from 4 GiB on.
pub fn push_text(text: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    push_bytes(text.as_bytes(), &TEXT, out)
}

/// Appends a binary value.
///
/// # Errors
/// [`EncodeError::TooLong`] from 4 GiB on.
pub fn push_binary(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    push_bytes(bytes, &BINARY, out)
}

fn push_attachment(attachment: Option<&Bytes>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    push_binary(attachment.ok_or(PlaceholderError::Illegal)?, out)
}

/// Appends a number, given as JSON. What JavaScript takes for an integer is written as one, `1.0` and `1e3` too.
pub fn push_number(text: &str, out: &mut Vec<u8>) {
    if let Ok(number) = text.parse() {
        return push_unsigned(number, out);
    }
    if let Ok(number) = text.parse() {
        return push_signed(number, out);
    }
    // A JSON number always reads as a float; one that is too large as infinity, as in JavaScript.
    let number: f64 = text.parse().unwrap_or(f64::NAN);
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        // Whole and below 2^53, so its text is the text of an integer; zero loses its sign.
        return push_signed(number.to_string().parse().unwrap_or_default(), out);
    }
    out.push(0xcb);
    out.extend(number.to_be_bytes());
}

fn push_signed(number: i64, out: &mut Vec<u8>) {
    if let Ok(number) = u64::try_from(number) {
        return push_unsigned(number, out);
    }
    match (i8::try_from(number), i16::try_from(number), i32::try_from(number)) {
        (Ok(small @ -32..), ..) => out.extend(small.to_be_bytes()),
        (Ok(small), ..) => push_format(0xd0, small.to_be_bytes(), out),
        (_, Ok(small), _) => push_format(0xd1, small.to_be_bytes(), out),
        (_, _, Ok(small)) => push_format(0xd2, small.to_be_bytes(), out),
        _ => push_format(0xd3, number.to_be_bytes(), out),
    }
}

fn push_unsigned(number: u64, out: &mut Vec<u8>) {
    match (u8::try_from(number), u16::try_from(number), u32::try_from(number)) {
        (Ok(small @ ..=0x7f), ..) => out.push(small),
        (Ok(small), ..) => push_format(0xcc, small.to_be_bytes(), out),
        (_, Ok(small), _) => push_format(0xcd, small.to_be_bytes(), out),
        (_, _, Ok(small)) => push_format(0xce, small.to_be_bytes(), out),
        _ => push_format(0xcf, number.to_be_bytes(), out),
    }
}

fn push_format<const N: usize>(format: u8, bytes: [u8; N], out: &mut Vec<u8>) {
    out.push(format);
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_their_smallest_form() {
        let check = |text: &str, expected: &[u8]| {
            let mut out = Vec::new();
            push_number(text, &mut out);
            assert_eq!(out, expected, "{text}");
        };
        check("0", &[0]);
        check("-0", &[0]);
        check("127", &[0x7f]);
        check("128", &[0xcc, 0x80]);
        check("256", &[0xcd, 1, 0]);
        check("65536", &[0xce, 0, 1, 0, 0]);
        check("4294967296", &[0xcf, 0, 0, 0, 1, 0, 0, 0, 0]);
        check("18446744073709551615", &[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]);
        check("-1", &[0xff]);
        check("-32", &[0xe0]);
        check("-33", &[0xd0, 0xdf]);
        check("-129", &[0xd1, 0xff, 0x7f]);
        check("-32769", &[0xd2, 0xff, 0xff, 0x7f, 0xff]);
        check("-2147483649", &[0xd3, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
        check("-9223372036854775808", &[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        check("1.0", &[1]);
        check("1e3", &[0xcd, 3, 0xe8]);
        check("-0.0", &[0]);
        check("1.5", &[0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
        check("1e400", &[0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0]);
        check("18446744073709551616", &[0xcb, 0x43, 0xf0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn lengths_take_their_smallest_form() {
        let check = |length, sizes: &Sizes, expected: &[u8]| {
            let mut out = Vec::new();
            push_head(length, sizes, &mut out);
            assert_eq!(out, expected, "{length}");
        };
        check(31, &TEXT, &[0xbf]);
        check(32, &TEXT, &[0xd9, 32]);
        check(256, &TEXT, &[0xda, 1, 0]);
        check(65536, &TEXT, &[0xdb, 0, 1, 0, 0]);
        check(0, &BINARY, &[0xc4, 0]);
        check(256, &BINARY, &[0xc5, 1, 0]);
        check(65536, &BINARY, &[0xc6, 0, 1, 0, 0]);
        check(15, &ARRAY, &[0x9f]);
        check(16, &ARRAY, &[0xdc, 0, 16]);
        check(65536, &ARRAY, &[0xdd, 0, 1, 0, 0]);
        check(15, &MAP, &[0x8f]);
        check(16, &MAP, &[0xde, 0, 16]);
        check(65536, &MAP, &[0xdf, 0, 1, 0, 0]);
    }
}
