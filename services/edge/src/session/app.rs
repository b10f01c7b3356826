//! The application that a session serves, known by [`SessionApp`] only.
//!
//! Socket.IO is one implementation; a plain Engine.IO server is another. Whatever happens to a shard's
//! sessions reaches its application as one ordered sequence of calls.

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use engineio_proto as eio;
use engineio_proto::session::CloseReason;

use super::registry::{SessionKey, Sessions};

/// One Engine.IO message, as the client sent it.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// A text message, without its type digit.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

impl Message<'_> {
    /// Bytes of the message.
    pub fn len(&self) -> usize {
        match self {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether the message is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is kept of the request that opened a session.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// The Engine.IO version of the session.
    pub version: eio::ProtocolVersion,
    /// When the session was opened.
    pub time: SystemTime,
    /// The client's address; behind a trusted proxy the one that the proxy named.
    pub address: IpAddr,
    /// Whether the client came over TLS.
    pub secure: bool,
    /// Path and query of the request, cut at `edge.limits.url_bytes_max`.
    pub url: Box<str>,
    /// Whether `url` was cut.
    pub url_cut: bool,
    /// The allow-listed request headers (`edge.headers`), names in lower case.
    pub headers: Box<[(Box<str>, Box<str>)]>,
}

/// Whether an application has more to do before it can take the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Everything is done.
    Done,
    /// There is more; call again after others had their turn.
    More,
}

/// An application on top of a shard's sessions.
///
/// Calls come in the order in which things happened. While [`SessionApp::is_busy`] says so, the shard holds
/// the next calls back and lets the application go on by [`SessionApp::work`], in slices.
pub trait SessionApp: Debug + Sized + 'static {
    /// What the application keeps with each session.
    type State: Debug + 'static;
    /// What the shards of one edge tell each other.
    type Remote: Debug + Send + 'static;
    /// What a task of the application comes back with.
    type Completion: Debug + 'static;

    /// Makes the state of a session that is about to open.
    fn admit(&mut self, handshake: Handshake) -> Self::State;

    /// A session is open; its open packet is on its way.
    fn opened(&mut self, sessions: &mut Sessions<Self::State>, session: SessionKey);

    /// The client sent a message.
    fn message(&mut self, sessions: &mut Sessions<Self::State>, session: SessionKey, message: Message<'_>);

    /// A session has ended; this is the last call for it.
    fn closed(
        &mut self,
        sessions: &mut Sessions<Self::State>,
        session: SessionKey,
        state: Self::State,
        reason: CloseReason,
    );

    /// The deadline that the application set for a session is over.
    fn deadline(&mut self, sessions: &mut Sessions<Self::State>, session: SessionKey, now: Instant);

    /// Another shard of this edge has something to say.
    fn remote(&mut self, sessions: &mut Sessions<Self::State>, message: Self::Remote);

    /// A task of the application has finished.
    fn completed(&mut self, sessions: &mut Sessions<Self::State>, completion: Self::Completion);

    /// Another tick of the shard's clock ([`super::timers::TICK`]).
    fn tick(&mut self, sessions: &mut Sessions<Self::State>);

    /// Whether the application must finish something before it takes the next call.
    fn is_busy(&self) -> bool;

    /// Whether [`SessionApp::work`] has something to do.
    fn has_work(&self) -> bool;

    /// Goes on with a long delivery, for a slice of it.
    fn work(&mut self, sessions: &mut Sessions<Self::State>) -> Work;

    /// Bytes that the application keeps for messages of a session that are incomplete.
    fn held_bytes(state: &Self::State) -> usize;
}
