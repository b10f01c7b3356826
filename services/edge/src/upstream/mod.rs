//! Where client events leave for the application.
//!
//! An [`Upstream`] decides about connects and answers events, at once or later. What it wants done comes back as
//! [`Action`]s, which the shard carries out in order; an acknowledgement goes out after them.
//!
//! - [`demo`]: the built-in demo application
//! - [`none`]: accepts everybody and drops their events

pub mod demo;
pub mod none;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use cluster_proto::broadcast::Selector;
use cluster_proto::message::{JsonData, SocketUpdate};
use smallvec::SmallVec;
use socketio_proto::packet::{Packet, event_data};

use crate::ids::SocketId;
use crate::session::app::Handshake;

/// An answer that may take its time.
pub type Later<T> = Pin<Box<dyn Future<Output = T>>>;

/// An answer, now or later. One that is there at once costs no future.
pub enum Answer<T> {
    /// Here it is.
    Now(T),
    /// It will come; meanwhile further events of the same socket wait.
    Later(Later<T>),
}

impl<T> std::fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Answer::Now(_) => "Now",
            Answer::Later(_) => "Later",
        })
    }
}

/// The arguments of an event or an answer: a JSON array and what its placeholders stand for.
#[derive(Clone, Debug, Default)]
pub struct Args {
    /// The JSON array; for an event its name comes first.
    pub data: String,
    /// The attachments.
    pub attachments: Vec<Bytes>,
    /// Whether placeholders in `data` mean attachments; otherwise they are plain data.
    pub binary: bool,
}

impl Args {
    /// Arguments without attachments: `data` is a JSON array.
    pub fn text(data: impl Into<String>) -> Args {
        Args { data: data.into(), attachments: Vec::new(), binary: false }
    }

    /// The arguments that follow the name of an event, or of an answer, under a new event name.
    pub fn renamed(event: &str, packet: &Packet<'_>) -> Args {
        Args {
            data: event_data(event, packet.args_tail()),
            attachments: packet.attachments.clone(),
            binary: packet.is_binary(),
        }
    }
}

impl From<JsonData> for Args {
    fn from(JsonData { text, attachments, binary }: JsonData) -> Args {
        Args { data: text, attachments, binary }
    }
}

impl From<Args> for JsonData {
    fn from(Args { data, attachments, binary }: Args) -> JsonData {
        JsonData { text: data, attachments, binary }
    }
}

/// Something to be done on behalf of a socket.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sends an event to this socket.
    Emit {
        /// Name and arguments.
        args: Args,
        /// Whether it may be left out when the client is behind.
        volatile: bool,
        /// Asks for an acknowledgement, which comes back to [`Upstream::acked`] with this token.
        ack: Option<u64>,
    },
    /// Sends an event to rooms of the namespace, or to all of it.
    Broadcast {
        /// Whom it is for.
        selector: Selector,
        /// Name and arguments.
        args: Args,
        /// Whether clients that are behind may miss it.
        volatile: bool,
        /// Whether it stays on this node.
        local: bool,
    },
    /// Puts this socket into a room.
    Join(String),
    /// Takes it out of a room.
    Leave(String),
    /// Changes what is known of this socket.
    Update(SocketUpdate),
    /// Disconnects this socket from its namespace; with `close`, ends the whole session.
    Disconnect {
        /// Whether the session ends too.
        close: bool,
    },
}

/// Actions to carry out, in order.
pub type Actions = SmallVec<[Action; 1]>;

/// What an upstream makes of an event.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// What is to be done.
    pub actions: Actions,
    /// The arguments of the acknowledgement, if the client asked for one; sent after the actions.
    pub ack: Option<Args>,
}

impl Reply {
    /// Nothing but an acknowledgement.
    pub fn ack(args: Args) -> Reply {
        Reply { actions: Actions::new(), ack: Some(args) }
    }

    /// Nothing but one action.
    pub fn action(action: Action) -> Reply {
        Reply { actions: Actions::from_iter([action]), ack: None }
    }

    /// The same with an acknowledgement.
    #[must_use]
    pub fn with_ack(mut self, args: Args) -> Reply {
        self.ack = Some(args);
        self
    }
}

/// Whether a socket may connect.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It may; these actions follow its CONNECT.
    Accept(Actions),
    /// It may not: the client gets a CONNECT_ERROR.
    Refuse {
        /// Why, for people.
        message: String,
        /// More, as JSON.
        data: Option<String>,
    },
}

/// A client that wants to connect to a namespace.
#[derive(Debug)]
pub struct Connect<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// What the client says of itself: a JSON object, or empty.
    pub auth: &'a str,
    /// The request that opened the session.
    pub handshake: &'a Handshake,
}

/// A connected socket, as an upstream sees it.
pub trait Socket {
    /// Its id.
    fn id(&self) -> SocketId;
    /// Its id as clients know it, which is also the name of its own room.
    fn name(&self) -> String;
    /// Its namespace.
    fn namespace(&self) -> &str;
    /// Whose socket it is, once somebody has said so.
    fn user(&self) -> Option<&str>;
    /// The application's own data: one JSON value.
    fn data(&self) -> Option<&str>;
    /// Its rooms, its own among them.
    fn rooms(&self) -> Vec<String>;
    /// Whether it may join a room: its name is not too long, and neither the socket nor the node is in too many.
    fn may_join(&self, room: &str) -> bool;
}

/// Where client events go. Each shard has its own, so it needs no lock. It runs on the shard's thread and must not block
/// it: what takes its time is an [`Answer::Later`].
pub trait Upstream {
    /// Decides whether a client may connect to a namespace. The client waits for it.
    fn connect(&mut self, request: &Connect<'_>) -> Answer<Decision>;

    /// Takes an event. Events of one socket come one after the other, each after the answer to the one before.
    fn event(&mut self, socket: &dyn Socket, event: &Packet<'_>) -> Answer<Reply>;

    /// Takes a client's answer to an event that asked for one.
    fn acked(&mut self, socket: &dyn Socket, token: u64, answer: &Packet<'_>) -> Answer<Reply>;

    /// Hears that a socket is gone, and why: one of the reference's reasons.
    fn disconnected(&mut self, socket: &dyn Socket, reason: &'static str);

    /// Takes an event that another server of the cluster sends to the applications of all others: a JSON array that
    /// begins with its name. The answer is one JSON value; it goes back if the sender wants it.
    fn server_event(&mut self, _namespace: &str, _event: &JsonData) -> Answer<Option<String>> {
        Answer::Now(None)
    }
}
