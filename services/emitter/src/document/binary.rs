//! Binary values in a document: `{"$binary":"<base64>"}` on the outside, placeholders and attachments on the inside.
//!
//! A user's own object whose only key is `$`…`binary` has one more `$` outside than inside, so that it is never taken
//! for a binary value. Other objects, whatever their keys, are left alone.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use cluster_proto::message::JsonData;
use socketio_proto::json::{self, JsonError, Reader, Token};
use socketio_proto::parser::attachments;

/// Why the binary values of a document are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BinaryError {
    /// The text is no JSON within the depth limit.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// What stands beside `$binary` is no base64 text.
    #[error("\"$binary\" must be the only key of its object and hold a text in base64")]
    NotBase64,
    /// The text has objects that would be taken for placeholders.
    #[error("an object with \"_placeholder\": true cannot travel beside binary values")]
    LiteralPlaceholder,
}

/// Takes the binary values out of a document. The text is validated on the way; without a `$binary` it is not copied.
///
/// # Errors
/// [`BinaryError`], at the first fault.
pub(crate) fn take_out(text: &str, depth_max: usize) -> Result<(Cow<'_, str>, Vec<Bytes>), BinaryError> {
    let mut edits = Edits::default();
    let mut found = Vec::new();
    walk(text, depth_max, |object, end| {
        let Some((key, dollars)) = object.sole_dollar_key() else { return Ok(()) };
        if dollars > 1 {
            edits.push(key.start, key.end, quoted_key(dollars - 1));
            return Ok(());
        }
        let bytes = object.text.and_then(decode).ok_or(BinaryError::NotBase64)?;
        let mut placeholder = String::new();
        attachments::push_placeholder(found.len(), &mut placeholder);
        edits.push(object.start, end, placeholder);
        found.push(Bytes::from(bytes));
        Ok(())
    })?;
    let text = edits.apply(text);
    if !found.is_empty() {
        attachments::check(&text, found.len(), depth_max).map_err(|_| BinaryError::LiteralPlaceholder)?;
    }
    Ok((text, found))
}

/// Puts the binary values of an answer into its text. What cannot be read stays as it is: edges have checked it.
pub(crate) fn put_in(data: &JsonData) -> Cow<'_, str> {
    let mut edits = Edits::default();
    let outcome = walk(&data.text, usize::MAX, |object, end| {
        if let Some((key, dollars)) = object.sole_dollar_key() {
            edits.push(key.start, key.end, quoted_key(dollars + 1));
        }
        let attachment = object.num.filter(|_| data.binary && object.is_placeholder);
        if let Some(bytes) = attachment.and_then(|num| data.attachments.get(num)) {
            // Whatever was inside the placeholder goes with it.
            edits.drop_from(object.start);
            edits.push(object.start, end, format!("{{\"$binary\":\"{}\"}}", STANDARD.encode(bytes)));
        }
        Ok(())
    });
    if outcome.is_ok() { edits.apply(&data.text) } else { Cow::Borrowed(&data.text) }
}

/// The bytes of a `$binary` object, given the text between the quotes of its value.
pub(super) fn decode(raw: &str) -> Option<Vec<u8>> {
    let text = json::unescape(raw);
    STANDARD.decode(&*text).or_else(|_| STANDARD_NO_PAD.decode(&*text)).ok()
}

/// How many `$` stand before `binary`, if the key, given without quotes, is nothing else.
pub(super) fn dollars(raw: &str) -> Option<usize> {
    let key = json::unescape(raw);
    let stars = key.strip_suffix("binary")?;
    (!stars.is_empty() && stars.bytes().all(|byte| byte == b'$')).then_some(stars.len())
}

fn quoted_key(dollars: usize) -> String {
    format!("\"{}binary\"", "$".repeat(dollars))
}

/// A part of the text.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

/// An object whose end has not come yet; of an array only the place is kept.
#[derive(Debug)]
struct Open<'a> {
    start: usize,
    members: usize,
    is_array: bool,
    first_key: Option<(Span, usize)>,
    /// The value of the first member, if it is a string: what stands between its quotes.
    text: Option<&'a str>,
    key: &'a str,
    is_placeholder: bool,
    num: Option<usize>,
}

impl<'a> Open<'a> {
    fn new(start: usize, is_array: bool) -> Self {
        Self {
            start,
            members: 0,
            is_array,
            first_key: None,
            text: None,
            key: "",
            is_placeholder: false,
            num: None,
        }
    }

    fn note(&mut self, token: Token<'a>, at: Span) {
        if let Token::Key(raw) = token {
            self.members += 1;
            self.key = raw;
            if self.members == 1 {
                let end = at.start + raw.len() + 2;
                self.first_key = dollars(raw).map(|dollars| (Span { start: at.start, end }, dollars));
            }
            return;
        }
        if self.is_array {
            return;
        }
        if let (1, Token::String(raw)) = (self.members, token) {
            self.text = Some(raw);
        }
        match (self.key, token) {
            ("_placeholder", token) => self.is_placeholder = token == Token::Bool(true),
            ("num", Token::Number(text)) => self.num = text.parse().ok(),
            _ => {}
        }
    }

    /// The only key, if it is `$`…`binary`, and how many `$` it has.
    fn sole_dollar_key(&self) -> Option<(Span, usize)> {
        self.first_key.filter(|_| self.members == 1)
    }
}

/// Reads a text once and reports each object as it ends, with the offset behind it.
fn walk<'a>(
    text: &'a str,
    depth_max: usize,
    mut report: impl FnMut(&Open<'a>, usize) -> Result<(), BinaryError>,
) -> Result<(), BinaryError> {
    let mut reader = Reader::new(text, depth_max);
    let mut open: Vec<Open<'a>> = Vec::new();
    while let Some(token) = reader.next_token()? {
        let at = Span { start: reader.token_start(), end: reader.position() };
        if let (Some(innermost), false) =
            (open.last_mut(), matches!(token, Token::EndArray | Token::EndObject))
        {
            innermost.note(token, at);
        }
        match token {
            Token::BeginArray => open.push(Open::new(at.start, true)),
            Token::BeginObject => open.push(Open::new(at.start, false)),
            Token::EndArray => _ = open.pop(),
            Token::EndObject => {
                if let Some(ended) = open.pop() {
                    report(&ended, at.end)?;
                }
            }
            Token::Key(_) | Token::String(_) | Token::Number(_) | Token::Bool(_) | Token::Null => {}
        }
    }
    Ok(())
}

/// Replacements in a text; no two overlap.
#[derive(Debug, Default)]
struct Edits(Vec<(Span, String)>);

impl Edits {
    fn push(&mut self, start: usize, end: usize, by: String) {
        self.0.push((Span { start, end }, by));
    }

    /// Forgets the edits inside an object that ends now; they were the last ones.
    fn drop_from(&mut self, start: usize) {
        self.0.retain(|(span, _)| span.start < start);
    }

    fn apply(mut self, text: &str) -> Cow<'_, str> {
        if self.0.is_empty() {
            return Cow::Borrowed(text);
        }
        // An object is reported at its end, so a key that stands outside comes later in the list.
        self.0.sort_by_key(|(span, _)| span.start);
        let mut out = String::with_capacity(text.len());
        let mut copied = 0;
        for (span, by) in &self.0 {
            out.push_str(text.get(copied..span.start).unwrap_or_default());
            out.push_str(by);
            copied = span.end;
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        Cow::Owned(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outside: &str, inside: &str, attachments: &[&[u8]]) {
        let (text, found) = take_out(outside, 16).unwrap();
        assert_eq!((&*text, found.len()), (inside, attachments.len()), "{outside}");
        assert!(found.iter().zip(attachments).all(|(one, other)| **one == **other));
        assert_eq!(put_in(&JsonData::with_attachments(inside.to_owned(), found)), outside);
    }

    #[test]
    fn binary_values_become_placeholders_and_come_back() {
        check(r#"[1,"a",{"b":[]}]"#, r#"[1,"a",{"b":[]}]"#, &[]);
        check(r#"[{"$binary":"AP8B"}]"#, r#"[{"_placeholder":true,"num":0}]"#, &[&[0, 255, 1]]);
        check(
            r#"[{"a":{"$binary":""},"b":[{"$binary":"QQ=="}]}]"#,
            r#"[{"a":{"_placeholder":true,"num":0},"b":[{"_placeholder":true,"num":1}]}]"#,
            &[b"", b"A"],
        );
    }

    #[test]
    fn an_object_of_the_user_loses_and_gains_a_dollar() {
        check(r#"[{"$$binary":"x"}]"#, r#"[{"$binary":"x"}]"#, &[]);
        check(r#"[{"$$$binary":{"$$binary":1}}]"#, r#"[{"$$binary":{"$binary":1}}]"#, &[]);
        check(
            r#"[{"$$binary":{"$binary":"QQ=="}}]"#,
            r#"[{"$binary":{"_placeholder":true,"num":0}}]"#,
            &[b"A"],
        );
        check(r#"[{"$binary":"x","b":1}]"#, r#"[{"$binary":"x","b":1}]"#, &[]);
        check(r#"[{"b":1,"$binary":"x"},{"binary":1}]"#, r#"[{"b":1,"$binary":"x"},{"binary":1}]"#, &[]);
    }

    #[test]
    fn escapes_in_keys_and_missing_padding_are_understood() {
        let (text, found) = take_out(r#"[{"\u0024binary":"QQ"}]"#, 16).unwrap();
        assert_eq!(
            (&*text, &*found),
            (r#"[{"_placeholder":true,"num":0}]"#, &[Bytes::from_static(b"A")][..])
        );
        assert_eq!(take_out(r#"[{"\u0024$binary":1}]"#, 16).unwrap().0, r#"[{"$binary":1}]"#);
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in
            [r#"[{"$binary":1}]"#, r#"[{"$binary":"~"}]"#, r#"[{"$binary":{}}]"#, r#"[{"$binary":null}]"#]
        {
            assert_eq!(take_out(text, 16), Err(BinaryError::NotBase64), "{text}");
        }
        assert!(matches!(take_out("[[[1]]]", 2), Err(BinaryError::Json(JsonError::TooDeep { .. }))));
        assert!(matches!(take_out("[1", 2), Err(BinaryError::Json(JsonError::Syntax { .. }))));
    }

    #[test]
    fn a_literal_placeholder_is_data_unless_there_are_binary_values() {
        let literal = r#"[{"_placeholder":true,"num":0}]"#;
        assert_eq!(take_out(literal, 16).unwrap().0, literal);
        let mixed = r#"[{"_placeholder":true,"num":0},{"$binary":""}]"#;
        assert_eq!(take_out(mixed, 16), Err(BinaryError::LiteralPlaceholder));
        assert_eq!(put_in(&JsonData::text(literal)), literal);
    }

    #[test]
    fn a_placeholder_goes_with_all_that_is_inside_it() {
        let text = r#"[{"x":{"$binary":1},"_placeholder":true,"num":0},{"$binary":2}]"#.to_owned();
        let data = JsonData::with_attachments(text, vec![Bytes::from_static(b"A")]);
        assert_eq!(put_in(&data), r#"[{"$binary":"QQ=="},{"$$binary":2}]"#);
    }
}
