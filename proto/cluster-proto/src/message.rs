//! What one node asks of the others.

use std::borrow::Cow;

use bytes::Bytes;
use socketio_proto::json;
use socketio_proto::namespace::NamespacePath;
use socketio_proto::packet::is_reserved_event;
use socketio_proto::parser::attachments;

use crate::broadcast::{BroadcastOptions, Selector};
use crate::error::DecodeError;
use crate::identity::{NodeUid, RequestId};
use crate::limits::Limits;
use crate::listing::Listing;

/// A JSON array with the binary values that its placeholders stand for: an event with its name, or the arguments of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonData {
    /// Valid JSON text, an array.
    pub text: String,
    /// What the placeholders `{"_placeholder":true,"num":<index>}` in the text stand for.
    pub attachments: Vec<Bytes>,
    /// Whether placeholders stand for attachments; otherwise they are plain data.
    pub binary: bool,
}

impl JsonData {
    /// An array without attachments.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), attachments: Vec::new(), binary: false }
    }

    /// An array whose placeholders stand for `attachments`; plain text if there are none.
    #[must_use]
    pub fn with_attachments(text: String, attachments: Vec<Bytes>) -> Self {
        let binary = !attachments.is_empty();
        Self { text, attachments, binary }
    }

    /// The attachments, if the placeholders mean them.
    #[must_use]
    pub fn meant_attachments(&self) -> Option<&[Bytes]> {
        self.binary.then_some(&self.attachments)
    }

    /// Bytes of text and attachments.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.text.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }
}

/// One message from a node or an emitter to all nodes that it may concern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMessage {
    /// Who sent it; foreign emitters leave it out of requests. A message with one's own name is an echo.
    pub sender: Option<NodeUid>,
    /// The namespace that it is about.
    pub namespace: NamespacePath,
    /// By which a node knows a message that it has handled before: a hash of the caller's idempotency key. At most 64 bytes.
    pub id: Option<String>,
    /// The W3C `traceparent` of the call that caused it. At most 64 bytes.
    pub trace_parent: Option<String>,
    /// What is asked.
    pub operation: Operation,
}

impl ClusterMessage {
    /// A message without id and trace.
    #[must_use]
    pub fn new(sender: NodeUid, namespace: NamespacePath, operation: Operation) -> Self {
        Self { sender: Some(sender), namespace, id: None, trace_parent: None, operation }
    }
}

/// What a message asks of the nodes that receive it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Deliver an event. Nobody answers.
    Broadcast {
        /// The array of name and arguments.
        event: JsonData,
        /// Whom it is for.
        options: BroadcastOptions,
    },
    /// Deliver an event that asks for acks. Each node answers at once with the count of its clients, also when that is
    /// zero, and then with each ack.
    BroadcastWithAck {
        /// What the answers are paired by.
        request: RequestId,
        /// The array of name and arguments.
        event: JsonData,
        /// Whom it is for. Node's receivers drop the flags here.
        options: BroadcastOptions,
    },
    /// Put sockets into rooms.
    Join {
        /// Which sockets.
        selector: Selector,
        /// Into which rooms.
        rooms: Vec<String>,
        /// Who is to say when it is done.
        reply: Reply,
    },
    /// Take sockets out of rooms.
    Leave {
        /// Which sockets.
        selector: Selector,
        /// Out of which rooms.
        rooms: Vec<String>,
        /// Who is to say when it is done.
        reply: Reply,
    },
    /// Disconnect sockets from the namespace.
    Disconnect {
        /// Which sockets.
        selector: Selector,
        /// Whether to close the whole session with all its namespaces.
        close: bool,
        /// Who is to say when it is done.
        reply: Reply,
    },
    /// Change what is known of sockets. Only our own nodes know this operation.
    Update {
        /// Which sockets.
        selector: Selector,
        /// What to change.
        update: SocketUpdate,
        /// Who is to say when it is done.
        reply: Reply,
    },
    /// List sockets. Each node answers, in pages if it may.
    Fetch {
        /// What the answers are paired by.
        request: RequestId,
        /// Which sockets.
        selector: Selector,
        /// The most sockets that one answer may carry; without it the whole list must be one answer.
        page_sockets_max: Option<u32>,
        /// The part of a sorted list that is wanted. Node servers do not know it and answer with all sockets.
        listing: Option<Listing>,
    },
    /// List the rooms that have members.
    Rooms {
        /// What the answers are paired by.
        request: RequestId,
    },
    /// List the ids of the sockets in any of these rooms, or of all. Old Node servers ask so.
    SocketIds {
        /// What the answers are paired by.
        request: RequestId,
        /// Which rooms.
        rooms: Vec<String>,
    },
    /// Hand an event to the application code of every other node.
    ServerSideEmit {
        /// What the answers are paired by, if any are wanted.
        request: Option<RequestId>,
        /// The array of name and arguments; this wire has no binary values.
        event: JsonData,
    },
}

/// Who says when an operation is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nobody.
    None,
    /// Every node, when what it had to do takes effect: a join is answered when its subscription is active.
    /// Node servers never answer.
    All(RequestId),
    /// Only the node that holds the one socket that is named. Old Node servers ask so.
    Holder(RequestId),
}

/// What to change of a socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketUpdate {
    /// Whose socket it is.
    pub user: Change<String>,
    /// The application's own data, JSON text.
    pub data: Change<String>,
    /// When the socket is disconnected, in milliseconds since 1970.
    pub expires_at_ms: Change<u64>,
}

/// What happens to one property.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It is removed.
    Clear,
    /// It becomes this.
    Set(T),
}

/// Checks an event before it goes to clients: an array that begins with a name, a name that is not reserved, and placeholders
/// that suit the attachments.
///
/// # Errors
/// [`DecodeError`] if a node would refuse it.
pub fn check_event(event: &JsonData, limits: &Limits) -> Result<(), DecodeError> {
    check_data(event, limits)?;
    let name = check_event_name(event, limits)?;
    if is_reserved_event(&name) { Err(DecodeError::ReservedEvent) } else { Ok(()) }
}

/// Checks an event before it goes to applications: as for clients, but any name will do.
///
/// # Errors
/// [`DecodeError`] if a node would refuse it.
pub fn check_server_event(event: &JsonData, limits: &Limits) -> Result<(), DecodeError> {
    check_data(event, limits)?;
    check_event_name(event, limits).map(drop)
}

/// Finds the name of an event. A number as a name is given as its JSON text.
fn check_event_name<'a>(event: &'a JsonData, limits: &Limits) -> Result<Cow<'a, str>, DecodeError> {
    let name = json::elements(&event.text).next().ok_or(DecodeError::NoEventName)?;
    let max = limits.packet.name_bytes_max;
    // No escape is longer than six bytes.
    if name.len() / 6 > max {
        return Err(DecodeError::EventNameTooLong { max });
    }
    let name = match (json::unquote(name), name.as_bytes().first()) {
        (Some(name), _) => name,
        (None, Some(b'-' | b'0'..=b'9')) => Cow::Borrowed(name),
        (None, _) => return Err(DecodeError::NoEventName),
    };
    if name.len() > max { Err(DecodeError::EventNameTooLong { max }) } else { Ok(name) }
}

/// Checks size, attachments, nesting and placeholders; an array is asked for, but no name in it.
pub(crate) fn check_data(data: &JsonData, limits: &Limits) -> Result<(), DecodeError> {
    let limits = &limits.packet;
    if data.attachments.len() > limits.attachments_max {
        return Err(DecodeError::TooManyAttachments { max: limits.attachments_max });
    }
    if data.bytes_len() > limits.packet_bytes_max {
        return Err(DecodeError::PacketTooLarge { max: limits.packet_bytes_max });
    }
    if data.binary {
        attachments::check(&data.text, data.attachments.len(), limits.depth_max).map_err(
            |error| match error {
                attachments::PlaceholderError::Json(error) => error.into(),
                attachments::PlaceholderError::Illegal => DecodeError::IllegalPlaceholder,
            },
        )?;
    } else {
        json::validate(&data.text, limits.depth_max)?;
    }
    if data.text.trim_ascii_start().starts_with('[') { Ok(()) } else { Err(DecodeError::NoEventName) }
}
