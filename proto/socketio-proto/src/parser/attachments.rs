//! Placeholders in the JSON, and the reassembly of packets with attachments.
//!
//! In a binary packet an object with `"_placeholder": true` stands for the attachment whose index is its `num`,
//! whatever else it contains. In a text packet the same object is plain data.
//!
//! As in Node, an attachment that no placeholder names is allowed, and an index out of range is not.
//! Stricter than Node: an attachment is named at most once (no encoder does otherwise, and a short text could else unfold into a huge
//! packet), objects inside a placeholder are held to the same rules, and all of this is judged when the header comes, not with the last attachment.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::json::{JsonError, Reader, Token, unescape};
use crate::limits::Limits;
use crate::packet::Packet;
use crate::parser::DecodeError;

/// Why the placeholders of a text do not suit its attachments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// The text is no JSON within the depth limit.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A placeholder has no number, one out of range, or one that another placeholder has.
    #[error("illegal attachments")]
    Illegal,
}

/// Checks that every placeholder of `data` names one of `attachments` attachments, each at most once.
/// `data` is validated along the way.
///
/// # Errors
/// [`PlaceholderError`], at the first fault.
pub fn check(data: &str, attachments: usize, depth_max: usize) -> Result<(), PlaceholderError> {
    survey(data, Some(attachments), depth_max, |_, _| {})
}

/// What an array or an object of a text holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// So many elements or members.
    Items(u32),
    /// It is a placeholder for the attachment with this index.
    Attachment(usize),
}

/// Lists the shape of each array and object of `data` in the order in which they begin.
/// Without a number of attachments no object is a placeholder.
pub(super) fn shapes(
    data: &str,
    attachments: Option<usize>,
    depth_max: usize,
) -> Result<Vec<Shape>, PlaceholderError> {
    let mut shapes = Vec::new();
    survey(data, attachments, depth_max, |index, shape| {
        // Containers end after those inside them, so an outer one finds its place already made.
        if shapes.len() <= index {
            shapes.resize(index + 1, Shape::Items(0));
        }
        if let Some(place) = shapes.get_mut(index) {
            *place = shape;
        }
    })?;
    Ok(shapes)
}

/// Reads `data` once, and reports each container as it ends: how many began before it, and its shape.
fn survey(
    data: &str,
    attachments: Option<usize>,
    depth_max: usize,
    mut report: impl FnMut(usize, Shape),
) -> Result<(), PlaceholderError> {
    let mut reader = Reader::new(data, depth_max);
    let mut open = SmallVec::<[Open; 8]>::new();
    let mut begun = 0;
    let mut named = attachments.map(Named::new);
    while let Some(token) = reader.next_token()? {
        if let (Some(innermost), false) =
            (open.last_mut(), matches!(token, Token::EndArray | Token::EndObject))
        {
            innermost.note(token);
        }
        match token {
            Token::BeginArray | Token::BeginObject => {
                open.push(Open::new(begun));
                begun += 1;
            }
            Token::EndArray | Token::EndObject => {
                if let Some(ended) = open.pop() {
                    let shape = match named.as_mut().filter(|_| ended.is_placeholder) {
                        Some(named) => named.claim(ended.num)?,
                        None => Shape::Items(ended.items),
                    };
                    report(ended.index, shape);
                }
            }
            Token::Key(_) | Token::String(_) | Token::Number(_) | Token::Bool(_) | Token::Null => {}
        }
    }
    Ok(())
}

/// A container whose end has not come yet, and what its members said so far. An array has no keys, so it is never a placeholder.
#[derive(Debug)]
struct Open {
    index: usize,
    items: u32,
    key: Key,
    is_placeholder: bool,
    num: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Key {
    Placeholder,
    Num,
    Other,
}

impl Open {
    fn new(index: usize) -> Self {
        Self { index, items: 0, key: Key::Other, is_placeholder: false, num: None }
    }

    /// Takes note of a key or a value directly inside. Of duplicate keys the last counts.
    fn note(&mut self, token: Token<'_>) {
        if let Token::Key(raw) = token {
            self.key = Key::of(raw);
            return;
        }
        self.items = self.items.saturating_add(1);
        match self.key {
            Key::Placeholder => self.is_placeholder = token == Token::Bool(true),
            Key::Num => self.num = index(token),
            Key::Other => {}
        }
        self.key = Key::Other;
    }
}

impl Key {
    fn of(raw: &str) -> Self {
        // No escape is longer than six bytes, so a longer key is none of ours and is not unescaped.
        if raw.len() > 6 * "_placeholder".len() {
            return Self::Other;
        }
        match &*unescape(raw) {
            "_placeholder" => Self::Placeholder,
            "num" => Self::Num,
            _ => Self::Other,
        }
    }
}

/// Reads a number the way JavaScript does, so that `1`, `1.0` and `1e0` are the same index.
fn index(token: Token<'_>) -> Option<usize> {
    let Token::Number(text) = token else { return None };
    if let Ok(index) = text.parse() {
        return Some(index);
    }
    let value: f64 = text.parse().ok()?;
    // Indices are small; what has more digits than this is out of range anyway.
    if value.fract() != 0.0 || !(0.0..=1e9).contains(&value) {
        return None;
    }
    format!("{}", value.abs()).parse().ok()
}

/// Which attachments have been named.
#[derive(Debug)]
struct Named {
    seen: SmallVec<[bool; 16]>,
}

impl Named {
    fn new(attachments: usize) -> Self {
        Self { seen: SmallVec::from_elem(false, attachments) }
    }

    /// Takes the index of a placeholder.
    fn claim(&mut self, num: Option<usize>) -> Result<Shape, PlaceholderError> {
        let index = num.ok_or(PlaceholderError::Illegal)?;
        match self.seen.get_mut(index) {
            Some(seen) if !*seen => {
                *seen = true;
                Ok(Shape::Attachment(index))
            }
            _ => Err(PlaceholderError::Illegal),
        }
    }
}

/// Appends the placeholder for the attachment with this index, as the JavaScript encoder writes it.
pub fn push_placeholder(index: usize, out: &mut String) {
    use std::fmt::Write;
    // Writing to a `String` cannot fail.
    let _ = write!(out, "{{\"_placeholder\":true,\"num\":{index}}}");
}

/// A packet that waits for attachments. Filled by the binary messages that follow its header;
/// `limits.packet_bytes_max` bounds it.
#[derive(Debug)]
pub(super) struct Pending {
    packet: Packet<'static>,
    attachments: usize,
    held_bytes: usize,
}

impl Pending {
    pub(super) fn new(packet: Packet<'static>, attachments: usize) -> Self {
        let held_bytes = packet.data.len() + packet.namespace.len() + packet.query.len();
        Self { packet, attachments, held_bytes }
    }

    /// Refuses an attachment that would make the packet too large, before it is copied.
    pub(super) fn check_room(&self, attachment_bytes: usize, limits: &Limits) -> Result<(), DecodeError> {
        if self.held_bytes.saturating_add(attachment_bytes) > limits.packet_bytes_max {
            return Err(DecodeError::PacketTooLarge { max: limits.packet_bytes_max });
        }
        Ok(())
    }

    pub(super) fn push(&mut self, attachment: Bytes) {
        self.held_bytes += attachment.len();
        self.packet.attachments.push(attachment);
    }

    pub(super) fn is_complete(&self) -> bool {
        self.packet.attachments.len() >= self.attachments
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) fn into_packet(self) -> Packet<'static> {
        self.packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ILLEGAL: Result<(), PlaceholderError> = Err(PlaceholderError::Illegal);

    fn check_case(data: &str, attachments: usize, expected: Result<(), PlaceholderError>) {
        assert_eq!(check(data, attachments, 16), expected, "{data}");
    }

    #[test]
    fn placeholders_name_attachments_in_range() {
        check_case(r#"[{"_placeholder":true,"num":0}]"#, 1, Ok(()));
        check_case(r#"[{"num":1,"_placeholder":true},{"_placeholder":true,"num":0}]"#, 2, Ok(()));
        check_case(r#"[{"_placeholder":true,"num":1}]"#, 1, ILLEGAL);
        check_case(r#"[{"_placeholder":true,"num":-1}]"#, 1, ILLEGAL);
        check_case(r#"[{"_placeholder":true,"num":0.5}]"#, 1, ILLEGAL);
        check_case(r#"[{"_placeholder":true,"num":1e300}]"#, 1, ILLEGAL);
        check_case(r#"[{"_placeholder":true,"num":"0"}]"#, 1, ILLEGAL);
        check_case(r#"[{"_placeholder":true,"num":[0]}]"#, 1, ILLEGAL);
        check_case(r#"[{"_placeholder":true,"num":null}]"#, 1, ILLEGAL);
        check_case(r#"[{"_placeholder":true}]"#, 1, ILLEGAL);
    }

    #[test]
    fn placeholder_numbers_are_read_as_in_javascript() {
        for num in ["1", "1.0", "1e0", "10e-1", "0.1E1"] {
            check_case(&format!(r#"[{{"_placeholder":true,"num":{num}}}]"#), 2, Ok(()));
        }
        check_case(r#"[{"_placeholder":true,"num":-0}]"#, 1, Ok(()));
    }

    #[test]
    fn only_true_makes_a_placeholder() {
        for value in ["false", "1", "\"true\"", "null", "{}", "[true]"] {
            check_case(&format!(r#"[{{"_placeholder":{value},"num":7}}]"#), 1, Ok(()));
        }
        check_case(r#"[{"_placeholder":true,"num":7,"_placeholder":false}]"#, 1, Ok(()));
        check_case(r#"[{"_placeholder":false,"num":0,"_placeholder":true,"num":7}]"#, 1, ILLEGAL);
        check_case(r#"[{"a":{"_placeholder":false},"x":true,"num":7}]"#, 1, Ok(()));
    }

    #[test]
    fn escaped_keys_count() {
        check_case(r#"[{"\u005fplaceholder":true,"n\u0075m":7}]"#, 1, ILLEGAL);
        check_case(r#"[{"\u005fplaceholder":true,"n\u0075m":0}]"#, 1, Ok(()));
    }

    #[test]
    fn an_attachment_is_named_at_most_once_and_may_be_left_out() {
        check_case(r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#, 2, ILLEGAL);
        check_case("[1]", 3, Ok(()));
    }

    #[test]
    fn shapes_come_in_the_order_of_beginning() {
        let data = r#"["a",{"b":[1,2,3],"c":{"_placeholder":true,"num":0,"x":[]}},[]]"#;
        use Shape::{Attachment, Items};
        assert_eq!(
            shapes(data, Some(1), 16),
            Ok(vec![Items(3), Items(2), Items(3), Attachment(0), Items(0), Items(0)])
        );
        assert_eq!(
            shapes(data, None, 16),
            Ok(vec![Items(3), Items(2), Items(3), Items(3), Items(0), Items(0)])
        );
    }
}
