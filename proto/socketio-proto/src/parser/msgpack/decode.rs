//! From a msgpack message to a packet.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::json;
use crate::limits::Limits;
use crate::namespace;
use crate::packet::{AckId, Packet, PacketType};
use crate::parser::msgpack::date;
use crate::parser::msgpack::value::{Input, MsgpackError, Value};
use crate::parser::{DecodeError, attachments, check_data};

/// Decodes a message that is one packet.
pub(in crate::parser) fn decode<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Packet<'a>, DecodeError> {
    let mut input = Input::new(bytes);
    let Value::Map(count) = input.value()? else { return Err(MsgpackError::NotAMap.into()) };
    let mut fields = Fields::default();
    for _ in 0..count {
        let Value::Text(key) = input.value()? else { return Err(MsgpackError::InvalidKey.into()) };
        match key {
            "type" => fields.packet_type = packet_type(input.value()?),
            "nsp" => fields.namespace = text(input.value()?),
            "id" => fields.ack_id = ack_id(input.value()?)?,
            "data" => fields.data = Data::transcode(&mut input, limits)?,
            _ => input.skip_value()?,
        }
    }
    input.finish()?;
    fields.into_packet(limits)
}

/// The fields that a packet is made of. Of duplicate keys the last counts.
#[derive(Default)]
struct Fields<'a> {
    packet_type: Option<PacketType>,
    namespace: Option<&'a str>,
    ack_id: Option<AckId>,
    data: Data,
}

impl<'a> Fields<'a> {
    fn into_packet(self, limits: &Limits) -> Result<Packet<'a>, DecodeError> {
        let packet_type = self.packet_type.ok_or(DecodeError::UnknownPacketType)?;
        let namespace = self.namespace.ok_or(DecodeError::InvalidNamespace)?;
        if namespace.len() > limits.name_bytes_max {
            return Err(DecodeError::NamespaceTooLong { max: limits.name_bytes_max });
        }
        namespace::check(namespace).map_err(|_| DecodeError::InvalidNamespace)?;
        let Data { text, attachments } = self.data;
        let (event, args_start) = check_data(packet_type, &text, limits)?;
        let event = event.map(|name| Cow::Owned(name.into_owned()));
        let packet_type = if attachments.is_empty() {
            packet_type
        } else {
            // Each attachment has its placeholder already, so any other is out of range or a repetition.
            attachments::check(&text, attachments.len(), limits.depth_max)
                .map_err(|_| DecodeError::LiteralPlaceholder)?;
            packet_type.with_attachments()
        };
        if !packet_type.is_binary() && !attachments.is_empty() {
            return Err(DecodeError::InvalidPayload);
        }
        Ok(Packet {
            packet_type,
            namespace: Cow::Borrowed(namespace),
            query: Cow::Borrowed(""),
            ack_id: self.ack_id,
            data: Cow::Owned(text),
            attachments,
            event,
            args_start,
        })
    }
}

fn packet_type(value: Value<'_>) -> Option<PacketType> {
    let digit = char::from_digit(u32::try_from(integer(value)?).ok()?, 10)?;
    PacketType::from_digit(digit).filter(|packet_type| !packet_type.is_binary())
}

fn text(value: Value<'_>) -> Option<&str> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

fn ack_id(value: Value<'_>) -> Result<Option<AckId>, DecodeError> {
    if matches!(value, Value::Nil | Value::Undefined) {
        return Ok(None);
    }
    integer(value).map(|id| Some(AckId(id))).ok_or(DecodeError::InvalidAckId)
}

/// A number that JavaScript takes for an integer not below zero.
fn integer(value: Value<'_>) -> Option<u64> {
    if let Value::Unsigned(number) = value {
        return Some(number);
    }
    let Value::Float(number) = value else { return None };
    // Up to here whole floats are exact, and their text is that of an integer.
    (0.0..9_007_199_254_740_992.0).contains(&number).then(|| number.abs().to_string().parse().ok())?
}

/// One value as JSON text, and the binary values that were in it: the `data` of a packet, for example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Data {
    /// JSON text; empty for nil and `undefined`.
    pub text: String,
    /// What the placeholders in the text stand for, in their order.
    pub attachments: Vec<Bytes>,
}

/// A container whose values are being written.
struct Open {
    is_map: bool,
    is_empty: bool,
    remaining: u32,
}

impl Data {
    /// Transcodes one value, container by container; `limits` bound what is written and how deep it nests.
    ///
    /// # Errors
    /// [`DecodeError`] if no value stands here, or a limit does not hold.
    pub fn transcode(input: &mut Input<'_>, limits: &Limits) -> Result<Self, DecodeError> {
        let mut writer = Writer { data: Self::default(), binary_bytes: 0, limits };
        let first = input.value()?;
        if matches!(first, Value::Nil | Value::Undefined) {
            return Ok(writer.data);
        }
        let mut open = SmallVec::<[Open; 8]>::new();
        writer.value(first, &mut open)?;
        while let Some(innermost) = open.last_mut() {
            if innermost.remaining == 0 {
                writer.data.text.push(if innermost.is_map { '}' } else { ']' });
                open.pop();
                continue;
            }
            innermost.remaining -= 1;
            if !innermost.is_empty {
                writer.data.text.push(',');
            }
            innermost.is_empty = false;
            if innermost.is_map {
                writer.key(input.value()?)?;
            }
            writer.value(input.value()?, &mut open)?;
        }
        writer.check_size()?;
        Ok(writer.data)
    }
}

struct Writer<'l> {
    data: Data,
    binary_bytes: usize,
    limits: &'l Limits,
}

impl Writer<'_> {
    fn value(&mut self, value: Value<'_>, open: &mut SmallVec<[Open; 8]>) -> Result<(), DecodeError> {
        let text = &mut self.data.text;
        match value {
            Value::Nil | Value::Undefined | Value::Date(None) => text.push_str("null"),
            Value::Bool(value) => text.push_str(if value { "true" } else { "false" }),
            Value::Unsigned(number) => push(text, number),
            Value::Negative(number) => push(text, number),
            Value::Float(number) => push_float(text, number),
            Value::Text(value) => json::quote(value, text),
            Value::Date(Some(milliseconds)) => json::quote(&date::iso_text(milliseconds), text),
            Value::Binary(bytes) => return self.binary(bytes),
            Value::Array(count) => return self.open(false, count, open),
            Value::Map(count) => return self.open(true, count, open),
        }
        self.check_size()
    }

    fn key(&mut self, value: Value<'_>) -> Result<(), DecodeError> {
        let text = &mut self.data.text;
        match value {
            Value::Text(key) => json::quote(key, text),
            Value::Unsigned(number) => push(text, format_args!("\"{number}\"")),
            Value::Negative(number) => push(text, format_args!("\"{number}\"")),
            Value::Float(number) => {
                text.push('"');
                push_float(text, number);
                text.push('"');
            }
            Value::Nil
            | Value::Undefined
            | Value::Bool(_)
            | Value::Binary(_)
            | Value::Date(_)
            | Value::Array(_)
            | Value::Map(_) => return Err(MsgpackError::InvalidKey.into()),
        }
        text.push(':');
        self.check_size()
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let index = self.data.attachments.len();
        let max = self.limits.attachments_max;
        if index >= max {
            let got = u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1);
            return Err(DecodeError::TooManyAttachments { got, max });
        }
        self.binary_bytes += bytes.len();
        self.check_size()?;
        attachments::push_placeholder(index, &mut self.data.text);
        self.data.attachments.push(Bytes::copy_from_slice(bytes));
        Ok(())
    }

    fn open(&mut self, is_map: bool, count: u32, open: &mut SmallVec<[Open; 8]>) -> Result<(), DecodeError> {
        let max = self.limits.depth_max;
        if open.len() >= max {
            return Err(json::JsonError::TooDeep { max }.into());
        }
        self.data.text.push(if is_map { '{' } else { '[' });
        open.push(Open { is_map, is_empty: true, remaining: count });
        self.check_size()
    }

    /// Called after every value, whose text is at most some thirty times its own bytes.
    fn check_size(&self) -> Result<(), DecodeError> {
        let max = self.limits.packet_bytes_max;
        if self.data.text.len().saturating_add(self.binary_bytes) > max {
            return Err(DecodeError::PacketTooLarge { max });
        }
        Ok(())
    }
}

fn push(text: &mut String, value: impl std::fmt::Display) {
    // Writing to a `String` cannot fail.
    let _ = write!(text, "{value}");
}

/// Writes a number as `JSON.stringify` does: an exponent from 1e21 on and below 1e-6, `null` for what JSON has no number for.
fn push_float(text: &mut String, number: f64) {
    let size = number.abs();
    if !number.is_finite() {
        text.push_str("null");
    } else if size == 0.0 {
        text.push('0');
    } else if (1e-6..1e21).contains(&size) {
        push(text, number);
    } else {
        let written = format!("{number:e}");
        let sign = if size > 1.0 { "e+" } else { "e" };
        text.push_str(&written.replace('e', sign));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_in_javascript() {
        let check = |number, expected: &str| {
            let mut text = String::new();
            push_float(&mut text, number);
            assert_eq!(text, expected);
        };
        check(0.0, "0");
        check(-0.0, "0");
        check(1.0, "1");
        check(-1.5, "-1.5");
        check(0.1, "0.1");
        check(0.000_001, "0.000001");
        check(0.000_000_15, "1.5e-7");
        check(123_456_789_012_345_680_000.0, "123456789012345680000");
        check(1e21, "1e+21");
        check(-1.5e300, "-1.5e+300");
        check(f64::NAN, "null");
        check(f64::NEG_INFINITY, "null");
    }

    #[test]
    fn integers_may_come_as_floats() {
        assert_eq!(integer(Value::Float(2.0)), Some(2));
        assert_eq!(integer(Value::Float(-0.0)), Some(0));
        assert_eq!(integer(Value::Float(2.5)), None);
        assert_eq!(integer(Value::Float(f64::NAN)), None);
        assert_eq!(integer(Value::Negative(-1)), None);
    }
}
