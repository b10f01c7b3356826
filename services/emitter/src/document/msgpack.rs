//! A document as MessagePack: the same values, with native binary values in place of `{"$binary":…}`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use socketio_proto::json::{Reader, Token};
use socketio_proto::limits::Limits;
use socketio_proto::parser::attachments;
use socketio_proto::parser::msgpack::{
    Data, Input, push_array_head, push_binary, push_map_head, push_number, push_text,
};

use super::binary::{decode, dollars};

/// Reads a MessagePack body as the JSON document that it stands for, at most `bytes_max` bytes of it.
///
/// # Errors
/// What is wrong with the bytes, as one line.
pub(crate) fn to_json(body: &[u8], depth_max: usize, bytes_max: usize) -> Result<String, String> {
    let limits =
        Limits { attachments_max: body.len(), depth_max, packet_bytes_max: bytes_max, ..Limits::default() };
    let mut input = Input::new(body);
    let data = Data::transcode(&mut input, &limits).map_err(|error| error.to_string())?;
    input.finish().map_err(|error| error.to_string())?;
    if data.attachments.is_empty() {
        return Ok(data.text);
    }
    attachments::check(&data.text, data.attachments.len(), depth_max)
        .map_err(|_| "an object with \"_placeholder\": true cannot travel beside binary values".to_owned())?;
    let mut text = String::with_capacity(data.text.len());
    let mut rest = data.text.as_str();
    for (index, attachment) in data.attachments.iter().enumerate() {
        let mut placeholder = String::new();
        attachments::push_placeholder(index, &mut placeholder);
        // Quotes inside a string are escaped, so this is found only where it was put.
        let Some((before, after)) = rest.split_once(&placeholder) else { break };
        text.push_str(before);
        text.push_str("{\"$binary\":\"");
        STANDARD.encode_string(attachment, &mut text);
        text.push_str("\"}");
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// Writes a document of our own as MessagePack; `None` if it is no JSON.
pub(crate) fn from_json(text: &str) -> Option<Vec<u8>> {
    let shapes = shapes(text)?;
    let mut shapes = shapes.into_iter();
    let mut out = Vec::with_capacity(text.len());
    let mut reader = Reader::new(text, usize::MAX);
    while let Some(token) = reader.next_token().ok()? {
        match token {
            Token::BeginArray | Token::BeginObject => match shapes.next()? {
                Shape::Binary(bytes) => {
                    push_binary(&bytes, &mut out).ok()?;
                    // Its key, its value and its end.
                    for _ in 0..3 {
                        reader.next_token().ok()?;
                    }
                }
                Shape::Array(count) => push_array_head(count, &mut out),
                Shape::Map(count) => push_map_head(count, &mut out),
            },
            Token::Key(raw) | Token::String(raw) => {
                push_text(&socketio_proto::json::unescape(raw), &mut out).ok()?;
            }
            Token::Number(text) => push_number(text, &mut out),
            Token::Bool(value) => out.push(if value { 0xc3 } else { 0xc2 }),
            Token::Null => out.push(0xc0),
            Token::EndArray | Token::EndObject => {}
        }
    }
    Some(out)
}

/// What a container of the text becomes.
#[derive(Debug)]
enum Shape {
    Array(u32),
    Map(u32),
    Binary(Vec<u8>),
}

/// A container whose end has not come yet.
struct Open<'a> {
    index: usize,
    is_map: bool,
    items: u32,
    /// The only member so far is `$binary`, and its value is this text.
    only: Only<'a>,
}

#[derive(Clone, Copy)]
enum Only<'a> {
    Other,
    Key,
    Value(&'a str),
}

/// The shapes of all containers, in the order in which they begin; those inside a binary value are none.
fn shapes(text: &str) -> Option<Vec<Shape>> {
    let mut reader = Reader::new(text, usize::MAX);
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut shapes: Vec<Shape> = Vec::new();
    while let Some(token) = reader.next_token().ok()? {
        if let Some(innermost) = open.last_mut() {
            innermost.note(token);
        }
        match token {
            Token::BeginArray | Token::BeginObject => {
                let is_map = token == Token::BeginObject;
                open.push(Open { index: shapes.len(), is_map, items: 0, only: Only::Other });
                shapes.push(Shape::Array(0));
            }
            Token::EndArray | Token::EndObject => {
                let ended = open.pop()?;
                let place = shapes.get_mut(ended.index)?;
                *place = ended.shape();
            }
            Token::Key(_) | Token::String(_) | Token::Number(_) | Token::Bool(_) | Token::Null => {}
        }
    }
    Some(shapes)
}

impl<'a> Open<'a> {
    fn note(&mut self, token: Token<'a>) {
        match token {
            Token::EndArray | Token::EndObject => {}
            Token::Key(raw) => {
                self.items = self.items.saturating_add(1);
                self.only = if self.items == 1 && dollars(raw) == Some(1) { Only::Key } else { Only::Other };
            }
            Token::String(raw) if matches!(self.only, Only::Key) => self.only = Only::Value(raw),
            Token::BeginArray
            | Token::BeginObject
            | Token::String(_)
            | Token::Number(_)
            | Token::Bool(_)
            | Token::Null => {
                self.only = Only::Other;
                self.items = self.items.saturating_add(u32::from(!self.is_map));
            }
        }
    }

    fn shape(self) -> Shape {
        if let Only::Value(raw) = self.only
            && let Some(bytes) = decode(raw)
        {
            return Shape::Binary(bytes);
        }
        if self.is_map { Shape::Map(self.items) } else { Shape::Array(self.items) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) {
        let packed = from_json(json).unwrap();
        assert_eq!(to_json(&packed, 16, 10_000).unwrap(), json);
    }

    #[test]
    fn documents_survive_both_ways() {
        check("{}");
        check(r#"{"a":[1,-2,1.5,"x\n",true,false,null,[],{}],"b":{"c":{"d":300}}}"#);
        check(r#"{"$binary":"AP8B"}"#);
        check(r#"[{"$binary":"QQ=="},{"$$binary":"x"},{"$binary":"QQ==","b":1},{"b":1,"$binary":""}]"#);
        check(r#"[{"$binary":{"$binary":"QQ=="}}]"#);
    }

    #[test]
    fn binary_values_are_native() {
        assert_eq!(from_json(r#"[{"$binary":"QQ=="}]"#).unwrap(), [0x91, 0xc4, 1, b'A']);
        assert_eq!(to_json(&[0x91, 0xc4, 1, b'A'], 16, 100).unwrap(), r#"[{"$binary":"QQ=="}]"#);
    }

    #[test]
    fn bad_bytes_are_refused() {
        for bytes in [&[0xc1][..], &[0x91], &[0xc0, 0xc0], &[0xa2, 0xff, 0xff], &[0x91, 0x91, 0x91, 0xc0]] {
            assert!(to_json(bytes, 2, 100).is_err(), "{bytes:?}");
        }
        let literal = from_json(r#"[{"_placeholder":true,"num":0},{"$binary":""}]"#).unwrap();
        assert!(to_json(&literal, 16, 100).is_err());
        assert!(from_json("[").is_none());
    }
}
