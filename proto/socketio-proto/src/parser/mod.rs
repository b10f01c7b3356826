//! From Engine.IO messages to packets and back.
//!
//! | Module | What it does |
//! |---|---|
//! | [`text`] | the default grammar, one packet to one text message |
//! | [`attachments`] | placeholders, and the reassembly of packets with attachments |
//! | [`msgpack`] | the msgpack parser, one packet to one binary message |

pub mod attachments;
pub mod msgpack;
pub mod text;

use std::borrow::Cow;

use bytes::Bytes;

use crate::json::{JsonError, Reader, Token};
use crate::limits::Limits;
use crate::packet::{Packet, PacketType, ProtocolVersion, is_reserved_event};
use attachments::{Pending, PlaceholderError};
use msgpack::MsgpackError;

/// Why a message is not accepted. Each of these closes the session, as it does in Node.
///
/// The texts begin with what Node says, where Node refuses too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No type, or one that does not exist.
    #[error("unknown packet type")]
    UnknownPacketType,
    /// The data does not suit the type: an event without a name, an answer that is no array, and so on.
    #[error("invalid payload")]
    InvalidPayload,
    /// The data is no JSON, or nested too deep.
    #[error("invalid payload: {0}")]
    InvalidJson(#[from] JsonError),
    /// An event with a name that the libraries keep for themselves.
    #[error("invalid payload: reserved event name")]
    ReservedEvent,
    /// An event name over `limits.name_bytes_max`.
    #[error("invalid payload: event name over {max} bytes")]
    EventNameTooLong {
        /// The bound.
        max: usize,
    },
    /// An ack id that does not fit into 64 bits, or is no number.
    #[error("invalid payload: invalid ack id")]
    InvalidAckId,
    /// A binary packet without a proper count of attachments.
    #[error("Illegal attachments")]
    IllegalAttachments,
    /// More attachments than `limits.attachments_max`.
    #[error("too many attachments: {got}, at most {max}")]
    TooManyAttachments {
        /// What the packet announced or, in msgpack, had when it was refused.
        got: u64,
        /// The bound.
        max: usize,
    },
    /// A text message while attachments are awaited.
    #[error("got plaintext data when reconstructing a packet")]
    UnexpectedText,
    /// A binary message while no attachment is awaited.
    #[error("got binary data when not reconstructing a packet")]
    UnexpectedBinary,
    /// A placeholder without a number, with one out of range, or with one used before.
    #[error("illegal attachments")]
    IllegalPlaceholder,
    /// A text message from a client that uses the msgpack parser.
    #[error("got plaintext data from a msgpack client")]
    TextFromMsgpackClient,
    /// A namespace that does not start with `/`, or has a comma.
    #[error("invalid namespace")]
    InvalidNamespace,
    /// A namespace over `limits.name_bytes_max`.
    #[error("invalid namespace: over {max} bytes")]
    NamespaceTooLong {
        /// The bound.
        max: usize,
    },
    /// Text and attachments together over `limits.packet_bytes_max`.
    #[error("packet over {max} bytes")]
    PacketTooLarge {
        /// The bound.
        max: usize,
    },
    /// A message that is no msgpack packet.
    #[error("invalid msgpack: {0}")]
    Msgpack(#[from] MsgpackError),
    /// A msgpack packet with binary values and also a map that looks like a placeholder.
    /// The default parser has no way to write such a map beside attachments.
    #[error("invalid payload: data that looks like a placeholder beside attachments")]
    LiteralPlaceholder,
}

impl From<PlaceholderError> for DecodeError {
    fn from(error: PlaceholderError) -> Self {
        match error {
            PlaceholderError::Json(error) => Self::InvalidJson(error),
            PlaceholderError::Illegal => Self::IllegalPlaceholder,
        }
    }
}

/// The parser that a session uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParserKind {
    /// JSON text with attachments beside it.
    Default,
    /// One msgpack map per packet.
    Msgpack,
}

/// The decoding side of one session.
///
/// Give it every Engine.IO message in order; what it returns is complete.
///
/// ```text
///              text message                     header of a binary packet
///  Undecided ----------------> Default idle <-------------------------------> Default pending
///      |                                         last attachment arrived
///      +--binary message--> Msgpack
/// ```
///
/// Protocol 4 starts at "Default idle". After an error the session is to be closed.
#[derive(Debug)]
pub struct Parser(State);

#[derive(Debug)]
enum State {
    /// Only in protocol 5.
    Undecided,
    Default {
        version: ProtocolVersion,
        pending: Option<Box<Pending>>,
    },
    Msgpack,
}

impl Parser {
    /// Starts a session. In protocol 5 the first message decides which parser the client uses.
    #[must_use]
    pub fn new(version: ProtocolVersion) -> Self {
        Self(match version {
            ProtocolVersion::V4 => State::Default { version, pending: None },
            ProtocolVersion::V5 => State::Undecided,
        })
    }

    /// Takes a text message, without its Engine.IO type digit.
    /// Gives `None` for the header of a binary packet, which waits for its attachments.
    ///
    /// # Errors
    /// [`DecodeError`] if the session must be closed.
    pub fn handle_text<'a>(
        &mut self,
        text: &'a str,
        limits: &Limits,
    ) -> Result<Option<Packet<'a>>, DecodeError> {
        if matches!(self.0, State::Undecided) {
            self.0 = State::Default { version: ProtocolVersion::V5, pending: None };
        }
        let State::Default { version, pending } = &mut self.0 else {
            return Err(DecodeError::TextFromMsgpackClient);
        };
        if pending.is_some() {
            return Err(DecodeError::UnexpectedText);
        }
        let (packet, attachments) = text::decode(text, *version, limits)?;
        if attachments == 0 {
            return Ok(Some(packet));
        }
        *pending = Some(Box::new(Pending::new(packet.into_owned(), attachments)));
        Ok(None)
    }

    /// Takes a binary message. Gives `None` for an attachment that others must follow.
    ///
    /// # Errors
    /// [`DecodeError`] if the session must be closed.
    pub fn handle_binary<'a>(
        &mut self,
        data: &'a [u8],
        limits: &Limits,
    ) -> Result<Option<Packet<'a>>, DecodeError> {
        let State::Default { pending, .. } = &mut self.0 else {
            self.0 = State::Msgpack;
            return msgpack::decode(data, limits).map(Some);
        };
        let Some(waiting) = pending else { return Err(DecodeError::UnexpectedBinary) };
        waiting.check_room(data.len(), limits)?;
        waiting.push(Bytes::copy_from_slice(data));
        Ok(pending.take_if(|waiting| waiting.is_complete()).map(|complete| complete.into_packet()))
    }

    /// The parser to answer with. Before the first message of a protocol 5 session it is the default one.
    #[must_use]
    pub fn kind(&self) -> ParserKind {
        match self.0 {
            State::Undecided | State::Default { .. } => ParserKind::Default,
            State::Msgpack => ParserKind::Msgpack,
        }
    }

    /// Bytes of text and attachments that are kept until a packet is complete.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match &self.0 {
            State::Default { pending: Some(pending), .. } => pending.held_bytes(),
            State::Undecided | State::Default { pending: None, .. } | State::Msgpack => 0,
        }
    }
}

/// Checks the data of a packet in one pass and, for an event, finds its name and where its arguments start.
fn check_data<'a>(
    packet_type: PacketType,
    data: &'a str,
    limits: &Limits,
) -> Result<(Option<Cow<'a, str>>, usize), DecodeError> {
    use PacketType::{Ack, BinaryAck, BinaryEvent, Connect, ConnectError, Disconnect, Event};
    match (packet_type, data.as_bytes().first()) {
        (Event | BinaryEvent, Some(b'[')) => return check_event(data, limits),
        (Connect | Disconnect | ConnectError, None) => return Ok((None, 0)),
        (Connect, Some(b'{')) | (ConnectError, Some(b'{' | b'"')) | (Ack | BinaryAck, Some(b'[')) => {}
        // What is no JSON at all is worth a better explanation.
        (_, Some(_)) => {
            Reader::new(data, limits.depth_max).finish()?;
            return Err(DecodeError::InvalidPayload);
        }
        (Event | BinaryEvent | Ack | BinaryAck, None) => return Err(DecodeError::InvalidPayload),
    }
    Reader::new(data, limits.depth_max).finish()?;
    Ok((None, 0))
}

fn check_event<'a>(data: &'a str, limits: &Limits) -> Result<(Option<Cow<'a, str>>, usize), DecodeError> {
    let mut reader = Reader::new(data, limits.depth_max);
    reader.next_token()?;
    let name = match reader.next_token()? {
        Some(Token::String(raw)) => event_name(raw, limits)?,
        Some(Token::Number(number)) if number.len() <= limits.name_bytes_max => Cow::Borrowed(number),
        Some(Token::Number(_)) => {
            return Err(DecodeError::EventNameTooLong { max: limits.name_bytes_max });
        }
        _ => {
            reader.finish()?;
            return Err(DecodeError::InvalidPayload);
        }
    };
    let after_name = reader.position();
    reader.finish()?;
    // Validated by now: after white space comes a comma or the closing bracket.
    let rest = data.get(after_name..).unwrap_or_default();
    let space = rest.len() - rest.trim_ascii_start().len();
    let comma = usize::from(rest.trim_ascii_start().starts_with(','));
    Ok((Some(name), after_name + space + comma))
}

fn event_name<'a>(raw: &'a str, limits: &Limits) -> Result<Cow<'a, str>, DecodeError> {
    // An escape of six bytes stands for one byte at least, so this bounds what is allocated.
    let too_long = DecodeError::EventNameTooLong { max: limits.name_bytes_max };
    if raw.len() / 6 > limits.name_bytes_max {
        return Err(too_long);
    }
    let name = crate::json::unescape(raw);
    if name.len() > limits.name_bytes_max { Err(too_long) } else { Ok(name) }
}

/// Refuses events that the default parser refuses by name.
fn check_reserved(event: Option<&str>) -> Result<(), DecodeError> {
    match event {
        Some(name) if is_reserved_event(name) => Err(DecodeError::ReservedEvent),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
