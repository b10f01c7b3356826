//! JSON without a tree: a streaming reader, and what little else packets need of JSON.
//!
//! The grammar is RFC 8259, strictly. Duplicate keys, numbers of any size and escaped lone surrogates pass, as they do in JavaScript.
//! Time is linear in the text; nesting is bounded by the caller and costs one bit a level.

mod reader;
mod string;

use std::borrow::Cow;

pub use reader::{JsonError, Reader, Token};
pub use string::{quote, unescape};

/// Checks that `text` is exactly one JSON value, nested at most `depth_max` levels.
/// White space around the value is part of the grammar and passes.
///
/// # Errors
/// [`JsonError`], with the place of the fault.
pub fn validate(text: &str, depth_max: usize) -> Result<(), JsonError> {
    let mut reader = Reader::new(text, depth_max);
    reader.finish()
}

/// Walks the elements of an array, each as its own JSON text.
///
/// The text should have been validated: the walk ends at the first fault, and a text that is no array has no elements.
pub fn elements(array: &str) -> impl Iterator<Item = &str> {
    let mut reader = Reader::new(array, usize::MAX);
    let is_array = matches!(reader.next_token(), Ok(Some(Token::BeginArray)));
    std::iter::from_fn(move || {
        if !is_array {
            return None;
        }
        let token = reader.next_token().ok()??;
        value_text(&mut reader, array, token)
    })
}

/// Walks the members of an object: the key without quotes and with its escapes, and the value as JSON text.
///
/// The text should have been validated: the walk ends at the first fault, and a text that is no object has no members.
pub fn members(object: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut reader = Reader::new(object, usize::MAX);
    let is_object = matches!(reader.next_token(), Ok(Some(Token::BeginObject)));
    std::iter::from_fn(move || {
        if !is_object {
            return None;
        }
        let Token::Key(key) = reader.next_token().ok()?? else { return None };
        let token = reader.next_token().ok()??;
        Some((key, value_text(&mut reader, object, token)?))
    })
}

/// Finds the value of a key in an object, as JSON text. Of duplicate keys the last counts, as in JavaScript.
#[must_use]
pub fn member<'a>(object: &'a str, key: &str) -> Option<&'a str> {
    members(object).filter(|(name, _)| unescape(name) == key).map(|(_, value)| value).last()
}

/// The text that a JSON string stands for, or `None` if `value` is no string.
/// An escaped lone surrogate becomes U+FFFD.
#[must_use]
pub fn unquote(value: &str) -> Option<Cow<'_, str>> {
    match Reader::new(value, 1).next_token() {
        Ok(Some(Token::String(raw))) => Some(unescape(raw)),
        _ => None,
    }
}

/// The text of the value whose first token was just read; `None` at the end of the container around it.
fn value_text<'a>(reader: &mut Reader<'a>, text: &'a str, first: Token<'a>) -> Option<&'a str> {
    let start = reader.token_start();
    match first {
        Token::EndArray | Token::EndObject | Token::Key(_) => return None,
        Token::BeginArray | Token::BeginObject => {
            let outside = reader.depth().checked_sub(1)?;
            while reader.depth() > outside {
                reader.next_token().ok()??;
            }
        }
        Token::String(_) | Token::Number(_) | Token::Bool(_) | Token::Null => {}
    }
    text.get(start..reader.position())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_the_texts_between_commas() {
        let check =
            |array: &str, expected: &[&str]| assert_eq!(elements(array).collect::<Vec<_>>(), expected);
        check("[]", &[]);
        check(" [ ] ", &[]);
        check(r#"["a",1]"#, &[r#""a""#, "1"]);
        check(
            r#"[ {"a":[1,2]} , [[]],"],",null , -1.5e3,true]"#,
            &[r#"{"a":[1,2]}"#, "[[]]", r#""],""#, "null", "-1.5e3", "true"],
        );
        check("{}", &[]);
        check("7", &[]);
        check("", &[]);
        check("[1,", &["1"]);
        check("[1,[2", &["1"]);
    }

    #[test]
    fn members_and_member() {
        let object = r#"{"a" : 1, "b":{"a":2},"\u0061":[3]}"#;
        assert_eq!(
            members(object).collect::<Vec<_>>(),
            [("a", "1"), ("b", r#"{"a":2}"#), (r"\u0061", "[3]")]
        );
        assert_eq!(member(object, "a"), Some("[3]"));
        assert_eq!(member(object, "c"), None);
        assert_eq!(member("[]", "a"), None);
    }

    #[test]
    fn unquote_gives_the_text_of_a_string() {
        assert_eq!(unquote(r#""a\n""#).as_deref(), Some("a\n"));
        assert_eq!(unquote("1"), None);
        assert_eq!(unquote(r#""a"#), None);
    }
}
