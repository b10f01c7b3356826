//! JSON strings: quoting, and resolving escapes.

use std::borrow::Cow;
use std::fmt::Write;

/// Appends `text` as a JSON string with its quotes, escaped exactly as `JSON.stringify` does.
pub fn quote(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        let Some((plain, special)) = rest.split_at_checked(at) else { break };
        out.push_str(plain);
        let mut chars = special.chars();
        if let Some(c) = chars.next() {
            push_escaped(c, out);
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

fn push_escaped(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{8}' => out.push_str("\\b"),
        '\t' => out.push_str("\\t"),
        '\n' => out.push_str("\\n"),
        '\u{c}' => out.push_str("\\f"),
        '\r' => out.push_str("\\r"),
        // Writing to a `String` cannot fail.
        _ => _ = write!(out, "\\u{:04x}", u32::from(c)),
    }
}

/// Resolves the escapes of a validated string, given without its quotes.
/// A lone surrogate becomes U+FFFD: UTF-8 has no form for it.
#[must_use]
pub fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        rest = push_unescaped(escape, &mut text);
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Resolves the escape whose backslash was just passed, and gives what follows it.
fn push_unescaped<'a>(escape: &'a str, text: &mut String) -> &'a str {
    let mut chars = escape.chars();
    let after = |chars: std::str::Chars<'a>| chars.as_str();
    match chars.next() {
        Some('u') => return push_utf16(after(chars), text),
        Some('b') => text.push('\u{8}'),
        Some('f') => text.push('\u{c}'),
        Some('n') => text.push('\n'),
        Some('r') => text.push('\r'),
        Some('t') => text.push('\t'),
        Some(other) => text.push(other),
        None => {}
    }
    after(chars)
}

fn push_utf16<'a>(digits: &'a str, text: &mut String) -> &'a str {
    let Some((unit, rest)) = hex_unit(digits) else { return digits };
    let low = rest.strip_prefix("\\u").and_then(hex_unit);
    if let (0xd800..=0xdbff, Some((low @ 0xdc00..=0xdfff, rest))) = (unit, low) {
        let code = 0x10000 + ((unit & 0x3ff) << 10 | (low & 0x3ff));
        text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        return rest;
    }
    text.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
    rest
}

fn hex_unit(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    Some((u32::from_str_radix(digits, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quote_escapes_as_json_stringify() {
        let check = |text: &str, expected: &str| {
            let mut out = String::new();
            quote(text, &mut out);
            assert_eq!(out, expected);
            assert_eq!(unescape(out.trim_matches('"')), text);
        };
        check("", r#""""#);
        check("é😀/\u{2028}\u{7f}", "\"é😀/\u{2028}\u{7f}\"");
        check("a\"b\\c", r#""a\"b\\c""#);
        check("\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f}", r#""\u0000\b\t\n\u000b\f\r\u001f""#);
    }

    #[test]
    fn unescape_pairs_surrogates_and_replaces_lone_ones() {
        let check = |raw: &str, expected: &str| assert_eq!(unescape(raw), expected);
        check("plain", "plain");
        check(r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t");
        check(r"\u00e9\uD83D\ude00", "é😀");
        check(r"\ud83d", "\u{fffd}");
        check(r"\ud83d\u0041", "\u{fffd}A");
        check(r"\ude00\ud83d", "\u{fffd}\u{fffd}");
        check(r"\\u0041", r"\u0041");
    }

    #[test]
    fn unescape_does_not_fail_on_what_no_reader_lets_through() {
        let _ = (unescape(r"\"), unescape(r"\u"), unescape(r"\uzzzz"), unescape(r"\u12é"));
    }
}
