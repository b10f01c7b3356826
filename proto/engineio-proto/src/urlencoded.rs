//! `application/x-www-form-urlencoded`, as a URL's query string and a JSONP body use it.

use std::borrow::Cow;

/// Splits into raw `name`, `value` pairs, in order; a piece without `=` has an empty value, an empty piece is
/// skipped.
pub(crate) fn pairs(raw: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    raw.split(|&byte| byte == b'&').filter(|piece| !piece.is_empty()).map(|piece| {
        let at = memchr::memchr(b'=', piece).unwrap_or(piece.len());
        let (name, rest) = piece.split_at_checked(at).unwrap_or((piece, &[]));
        (name, rest.get(1..).unwrap_or_default())
    })
}

/// The parameters of a query string as text, decoded, in order.
pub fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    pairs(query.as_bytes()).map(|(name, value)| (decode_text(name), decode_text(value)))
}

/// Undoes the encoding of one name or value: `+` is a space, `%` and two hex digits are a byte, a `%` without
/// them stands for itself. The result is never longer than the input.
pub(crate) fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, tail @ ..]) => match (hex_value(*high), hex_value(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    rest = tail;
                }
                _ => decoded.push(b'%'),
            },
            _ => decoded.push(byte),
        }
    }
    Cow::Owned(decoded)
}

/// [`decode`], then UTF-8 with U+FFFD for what is not.
pub(crate) fn decode_text(raw: &[u8]) -> Cow<'_, str> {
    match decode(raw) {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }),
    }
}

fn hex_value(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_split_at_the_first_equals_sign() {
        let split: Vec<_> = pairs(b"a=1&&b&c=d=e&=f&").collect();
        let expected: &[(&[u8], &[u8])] = &[(b"a", b"1"), (b"b", b""), (b"c", b"d=e"), (b"", b"f")];
        assert_eq!(split, expected);
    }

    #[test]
    fn percent_and_plus_are_decoded_and_broken_escapes_kept() {
        for (raw, expected) in [
            ("plain", "plain"),
            ("a+b%20c", "a b c"),
            ("%41%6a%6A", "Ajj"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%%41", "%A"),
            ("%C3%A9", "é"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(decode_text(raw.as_bytes()), expected, "{raw:?}");
        }
    }
}
