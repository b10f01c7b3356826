//! JSONP: polling for pages that can only load scripts. A text payload inside a script call, and inside a
//! form field.

use crate::{json_string, urlencoded};

/// Digits kept of the `j` parameter. A client counts its scripts from 0, so real values are short.
const INDEX_DIGITS_MAX: usize = 20;

/// Takes the payload out of a posted form: the field `d`, the last one if there are several, `None` without
/// one.
///
/// After URL decoding, a backslash and `n` are a line feed, and two backslashes and `n` are a backslash and
/// `n`: browsers used to rewrite real line feeds in a form, so clients escape them. Bytes that are not UTF-8
/// become U+FFFD. The caller bounds the body.
pub fn decode_form(body: &[u8]) -> Option<String> {
    let (_, raw) = urlencoded::pairs(body).filter(|(name, _)| *urlencoded::decode(name) == *b"d").last()?;
    Some(unescape_line_feeds(&urlencoded::decode_text(raw)))
}

fn unescape_line_feeds(text: &str) -> String {
    let mut unescaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        unescaped.push_str(before);
        rest = if let Some(after) = after.strip_prefix('n') {
            unescaped.push('\n');
            after
        } else if let Some(after) = after.strip_prefix("\\n") {
            unescaped.push_str("\\n");
            after
        } else {
            unescaped.push('\\');
            after
        };
    }
    unescaped.push_str(rest);
    unescaped
}

/// Reduces the `j` parameter to its digits, which is all of it that may enter a script. Possibly nothing is
/// left.
pub fn index(j: &str) -> String {
    j.chars().filter(char::is_ascii_digit).take(INDEX_DIGITS_MAX).collect()
}

/// Wraps a text payload into the script a client waits for: `___eio[<index>]("<payload>");`. `index` must
/// come from [`index`].
pub fn encode(index: &str, payload: &str) -> String {
    let mut script =
        String::with_capacity(payload.len().saturating_add(payload.len() / 4).saturating_add(40));
    script.push_str("___eio[");
    script.push_str(index);
    script.push_str("](");
    json_string::push(&mut script, payload, true);
    script.push_str(");");
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_feeds_are_unescaped_once() {
        for (escaped, expected) in [
            (r"a\nb", "a\nb"),
            (r"a\\nb", r"a\nb"),
            (r"a\\\nb", r"a\\nb"),
            (r"a\\\\nb", r"a\\\nb"),
            (r"a\tb\", r"a\tb\"),
            (r"\n\n", "\n\n"),
            ("", ""),
        ] {
            assert_eq!(unescape_line_feeds(escaped), expected, "{escaped:?}");
        }
    }

    #[test]
    fn the_form_field_is_d_and_nothing_else() {
        assert_eq!(decode_form(b"d=2%3A40").as_deref(), Some("2:40"));
        assert_eq!(decode_form(b"x=1&d=a+b&y").as_deref(), Some("a b"));
        assert_eq!(decode_form(b"d=1&d=2").as_deref(), Some("2"));
        assert_eq!(decode_form(b"%64=1").as_deref(), Some("1"));
        assert_eq!(decode_form(b"d").as_deref(), Some(""));
        assert_eq!(decode_form(b"dd=1&D=2"), None);
        assert_eq!(decode_form(b""), None);
    }

    #[test]
    fn only_digits_reach_the_script() {
        assert_eq!(index("a1b2"), "12");
        assert_eq!(index(" "), "");
        assert_eq!(index("٣](alert(1));//"), "1");
        assert_eq!(index(&"7".repeat(1000)).len(), INDEX_DIGITS_MAX);
    }
}
