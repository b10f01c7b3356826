//! JSON string literals, written exactly as JavaScript's own serializer writes them.

/// Appends `text` as a JSON string literal, quotes included.
///
/// `escape_line_separators` also escapes U+2028 and U+2029, which are valid in JSON but once ended a line of
/// JavaScript source.
pub(crate) fn push(out: &mut String, text: &str, escape_line_separators: bool) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\0'..='\u{1f}' => {
                out.push_str("\\u00");
                out.push(if character < '\u{10}' { '0' } else { '1' });
                out.extend(char::from_digit(u32::from(character) & 0xf, 16));
            }
            '\u{2028}' if escape_line_separators => out.push_str("\\u2028"),
            '\u{2029}' if escape_line_separators => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_control_character_reads_back() {
        let text: String = ('\0'..='\u{ff}').chain(['\u{2028}', '\u{2029}', '😀']).collect();
        for escape in [false, true] {
            let mut literal = String::new();
            super::push(&mut literal, &text, escape);
            assert_eq!(serde_json::from_str::<String>(&literal).unwrap(), text);
            assert_eq!(literal.contains('\u{2028}'), !escape);
        }
    }

    #[test]
    fn the_record_separator_is_four_lower_case_digits() {
        let mut literal = String::new();
        super::push(&mut literal, "a\u{1e}b\u{1}", false);
        assert_eq!(literal, "\"a\\u001eb\\u0001\"");
    }
}
