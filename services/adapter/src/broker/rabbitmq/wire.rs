//! Routing keys, headers and bodies of our own format.

use cluster_proto::error::{DecodeError, EncodeError};
use cluster_proto::heartbeat::Heartbeat;
use cluster_proto::identity::{NodeId, NodeUid};
use cluster_proto::limits::Limits;
use cluster_proto::message::{ClusterMessage, Operation};
use cluster_proto::rabbitmq::codec::{self, Delivery as Body};
use cluster_proto::rabbitmq::hash;
use cluster_proto::rabbitmq::names::Names;
use cluster_proto::response::ClusterResponse;
use socketio_proto::namespace::NamespacePath;

use crate::broker::{Delivery, Edges, Incoming, Interest, Publication, Topic, Wire, node_of};

/// Keys of nodes that one request is addressed to beside its namespace's.
const NODE_KEYS_MAX: usize = 256;

/// The wire of one cluster.
#[derive(Debug, Clone)]
pub struct RabbitmqWire {
    names: Names,
    limits: Limits,
}

impl RabbitmqWire {
    /// The wire under these names.
    #[must_use]
    pub fn new(names: Names, limits: Limits) -> Self {
        Self { names, limits }
    }

    fn broadcast(&self, message: &ClusterMessage, body: Vec<u8>, edges: &dyn Edges) -> Option<Publication> {
        let Operation::Broadcast { options, .. } = &message.operation else { return None };
        let address = self.names.address(&message.namespace, options, |node| edges.is_edge(node));
        let (key, mut further, mut room_hashes) = (address.key, address.cc, address.room_hashes);
        if key != self.names.namespace(&message.namespace) {
            // An edge that was not heard of yet binds no buckets for its own sockets.
            let owners = options.selector.rooms.iter().filter_map(|room| NodeId::of_sid(room));
            for node in owners.filter(|node| !edges.is_edge(*node)) {
                let owner = self.names.node(node);
                room_hashes = None;
                if key != owner && !further.contains(&owner) {
                    further.push(owner);
                }
            }
        }
        Some(Publication { key, further, sender: message.sender.clone(), room_hashes, body: body.into() })
    }
}

impl Wire for RabbitmqWire {
    fn topics(&self, node: NodeId, interest: &Interest<'_>) -> Vec<Topic> {
        let channel = |name: String| Topic::Channel(name.into());
        match *interest {
            Interest::Own(_) => {
                vec![channel(self.names.heartbeat().to_owned()), channel(self.names.node(node))]
            }
            Interest::Namespace(namespace) => vec![channel(self.names.namespace(namespace))],
            Interest::Room(_, room) if NodeId::of_sid(room) == Some(node) => {
                vec![channel(self.names.node(node))]
            }
            Interest::Room(namespace, room) => {
                vec![channel(self.names.bucket_key(self.names.bucket(namespace, room)))]
            }
            // Answers come under the key of the node, and every living edge is waited for.
            Interest::Answers(_) | Interest::Whole => Vec::new(),
        }
    }

    fn mark(&self, namespace: &NamespacePath, room: &str) -> Option<u32> {
        Some(hash::room(namespace, room))
    }

    fn encode_message(
        &self,
        message: &ClusterMessage,
        edges: &dyn Edges,
    ) -> Result<Vec<Publication>, EncodeError> {
        let body = codec::encode_message(message)?;
        if matches!(message.operation, Operation::Broadcast { .. }) {
            return Ok(self.broadcast(message, body, edges).into_iter().collect());
        }
        // An edge that does not have the namespace open answers that it has nobody.
        let others = edges.others();
        let further = if others.len() > NODE_KEYS_MAX { Vec::new() } else { others };
        Ok(vec![Publication {
            key: self.names.namespace(&message.namespace),
            further: further.into_iter().map(|node| self.names.node(node)).collect(),
            sender: message.sender.clone(),
            room_hashes: None,
            body: body.into(),
        }])
    }

    fn encode_response(
        &self,
        _namespace: &NamespacePath,
        asker: Option<&NodeUid>,
        response: &ClusterResponse,
    ) -> Result<Publication, EncodeError> {
        let asker = asker
            .and_then(node_of)
            .ok_or(EncodeError::NotOnThisWire { what: "an answer to somebody without a name" })?;
        Ok(Publication::plain(self.names.node(asker), codec::encode_response(response)?))
    }

    fn encode_heartbeat(&self, heartbeat: &Heartbeat) -> Result<Publication, EncodeError> {
        let body = codec::encode_heartbeat(heartbeat)?;
        Ok(Publication::plain(self.names.heartbeat().to_owned(), body))
    }

    fn decode(&self, delivery: &Delivery) -> Result<Option<Incoming>, DecodeError> {
        let incoming = match codec::decode(&delivery.body, &self.limits)? {
            Body::Message(message) => Incoming::Message(message),
            Body::Response(response) => Incoming::Response(response),
            Body::Heartbeat(heartbeat) => Incoming::Heartbeat(heartbeat),
        };
        Ok(Some(incoming))
    }
}
