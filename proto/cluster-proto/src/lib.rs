//! What the nodes of a cluster say to each other, and the names under which they say it, without I/O.
//!
//! There is one model of a message, and a codec for each wire. Where a wire exists already in the Socket.IO world it is
//! written as it is, so that Node servers and emitters are members of the cluster; what we add travels where they ignore it.
//! An event is JSON text with attachments beside it, as in [`socketio_proto`]; nobody builds a tree.
//!
//! What this crate refuses to know: brokers and their clients, clocks, who is connected where, and who still owes an answer.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`identity`] | [`identity::NodeId`], [`identity::NodeUid`], [`identity::RequestId`] |
//! | [`message`] | [`message::ClusterMessage`] and its operations |
//! | [`listing`] | [`listing::Listing`]: which part of a sorted list is wanted |
//! | [`response`] | [`response::ClusterResponse`] and its answers |
//! | [`heartbeat`] | [`heartbeat::Heartbeat`]: who is there, and who is leaving |
//! | [`broadcast`] | [`broadcast::Selector`], [`broadcast::BroadcastOptions`]: whom a message is for |
//! | [`route`] | [`route::Route`]: which nodes need to hear a broadcast |
//! | [`redis`] | channel names, and the messages of `@socket.io/redis-adapter` |
//! | [`rabbitmq`] | exchange, routing keys, headers, and our own format |
//! | [`limits`], [`error`] | the bounds on what is decoded, and why something is refused |

pub mod broadcast;
pub mod error;
pub mod heartbeat;
pub mod identity;
pub mod limits;
pub mod listing;
pub mod message;
pub mod rabbitmq;
pub mod redis;
pub mod response;
pub mod route;
