//! What the nodes answer.

use crate::identity::{NodeId, RequestId};
use crate::message::JsonData;

/// One answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterResponse {
    /// The request that it answers.
    pub request: RequestId,
    /// Which of our nodes answers; Node servers do not say who they are.
    pub node: Option<NodeId>,
    /// The answer.
    pub answer: Answer,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// How many clients of this node were sent a broadcast that asks for acks.
    ClientCount {
        /// The count.
        count: u64,
        /// Their ids, so that those who never answer can be named; only our nodes say.
        sids: Option<Vec<String>>,
    },
    /// The ack of one client.
    Ack {
        /// Who answered; only our nodes say.
        sid: Option<String>,
        /// The array of arguments. Of a Node server's clients only the first arrives.
        args: JsonData,
    },
    /// The sockets that were asked for.
    Sockets {
        /// The sockets, or some of them.
        sockets: Vec<RemoteSocket>,
        /// Whether this node has more to send for the same request.
        more: bool,
        /// Of a list that goes on: the last id up to which this node has told all that it has. It may be the id of a socket
        /// that has gone meanwhile. Only the last answer says so.
        through: Option<String>,
    },
    /// The smallest names that were asked for, in order, each with the number of sockets of this node that have it.
    Counts {
        /// The names, or some of them.
        counts: Vec<(String, u64)>,
        /// Whether this node has more to send for the same request.
        more: bool,
    },
    /// The ids of the sockets that were asked for. Without any, this reads back as [`Answer::Sockets`].
    SocketIds(Vec<String>),
    /// The rooms that have members on this node.
    Rooms(Vec<String>),
    /// What one node's application code answered to a server-side emit: one JSON value, `None` if it gave none.
    ServerSideEmit(Option<String>),
    /// A join, leave, disconnect or update is done.
    Done {
        /// How many sockets it concerned; only our nodes say.
        sockets: Option<u64>,
    },
}

/// A socket of another node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteSocket {
    /// Its id.
    pub id: String,
    /// Its rooms.
    pub rooms: Vec<String>,
    /// What is shown of its handshake: a JSON object. Cookies, authorization and auth payloads do not belong here.
    pub handshake: Option<String>,
    /// The application's own data: one JSON value.
    pub data: Option<String>,
    /// Whose socket it is; only our nodes say.
    pub user: Option<String>,
}
