//! The names and bytes of `@socket.io/redis-adapter`, and where what we add travels.

use cluster_proto::error::{DecodeError, EncodeError};
use cluster_proto::heartbeat::{Heartbeat, Role};
use cluster_proto::identity::{NodeId, NodeUid};
use cluster_proto::limits::Limits;
use cluster_proto::message::{ClusterMessage, Operation};
use cluster_proto::redis::channel::{Channel, Names};
use cluster_proto::redis::classic::{broadcast, request, response};
use cluster_proto::redis::heartbeat;
use cluster_proto::response::ClusterResponse;
use cluster_proto::route::{Route, route};
use socketio_proto::namespace::NamespacePath;

use crate::broker::{Audience, Delivery, Edges, Incoming, Interest, Publication, Topic, Wire, node_of};
use crate::config::RedisSubscribe;

/// The wire of one cluster.
#[derive(Debug, Clone)]
pub struct RedisWire {
    names: Names,
    subscribe: RedisSubscribe,
    limits: Limits,
}

impl RedisWire {
    /// The wire under these names.
    #[must_use]
    pub fn new(names: Names, subscribe: RedisSubscribe, limits: Limits) -> Self {
        Self { names, subscribe, limits }
    }

    /// A channel, or the pattern that delivers it already: what both deliver would arrive twice.
    fn topic(&self, node: NodeId, channel: String) -> Topic {
        let is_sockets =
            self.subscribe == RedisSubscribe::Rooms && self.names.is_in_sockets_pattern(node, &channel);
        if is_sockets { self.sockets(node) } else { Topic::Channel(channel.into()) }
    }

    fn sockets(&self, node: NodeId) -> Topic {
        Topic::Pattern(self.names.sockets_pattern(node).into())
    }

    /// The pattern for everything in a namespace. It ends at a `#` inside the name, so that no two patterns overlap.
    fn everything(&self, namespace: &NamespacePath) -> Topic {
        let stem = namespace.as_str().split('#').next().unwrap_or_default();
        let stem = NamespacePath::parse(stem).unwrap_or_else(|_| namespace.clone());
        Topic::Pattern(self.names.namespace_pattern(&stem).into())
    }

    fn answers(&self, node: NodeId, namespace: &NamespacePath) -> [Topic; 2] {
        let own = self.names.response_to(namespace, &NodeUid::of_node(node));
        [self.names.response(namespace), own].map(|channel| Topic::Channel(channel.into()))
    }

    fn broadcasts(
        &self,
        message: &ClusterMessage,
        edges: &dyn Edges,
    ) -> Result<Vec<Publication>, EncodeError> {
        let namespace = &message.namespace;
        let Operation::Broadcast { event, options } = &message.operation else {
            return Err(EncodeError::NotOnThisWire { what: "a request among broadcasts" });
        };
        let channel = match route(options, |node| edges.is_edge(node)) {
            Route::Namespace => self.names.namespace(namespace),
            Route::Room(room) => self.names.room(namespace, &room),
            Route::Owners(groups) => {
                let mut part = ClusterMessage {
                    sender: message.sender.clone(),
                    namespace: namespace.clone(),
                    id: message.id.clone(),
                    trace_parent: message.trace_parent.clone(),
                    operation: Operation::Broadcast { event: event.clone(), options: options.clone() },
                };
                let part = |group: &cluster_proto::route::OwnerGroup| {
                    if let Operation::Broadcast { options: of_part, .. } = &mut part.operation {
                        *of_part = group.options(options);
                    }
                    let body = broadcast::encode(&part)?;
                    Ok(Publication::plain(self.names.room(namespace, &group.first), body))
                };
                return groups.iter().map(part).collect();
            }
        };
        Ok(vec![Publication::plain(channel, broadcast::encode(message)?)])
    }
}

impl Wire for RedisWire {
    fn topics(&self, node: NodeId, interest: &Interest<'_>) -> Vec<Topic> {
        let all = self.subscribe == RedisSubscribe::All;
        let channel = |name: String| Topic::Channel(name.into());
        match *interest {
            Interest::Own(role) => {
                let sockets = (role == Role::Edge && !all).then(|| self.sockets(node));
                std::iter::once(channel(self.names.heartbeat())).chain(sockets).collect()
            }
            Interest::Namespace(namespace) => {
                let broadcasts = if all {
                    self.everything(namespace)
                } else {
                    self.topic(node, self.names.namespace(namespace))
                };
                let requests = [self.names.edges(namespace), self.names.request(namespace)].map(channel);
                let answers = self.answers(node, namespace);
                std::iter::once(broadcasts).chain(answers).chain(requests).collect()
            }
            Interest::Room(namespace, _) if all => vec![self.everything(namespace)],
            Interest::Room(namespace, room) => vec![self.topic(node, self.names.room(namespace, room))],
            Interest::Answers(namespace) => self.answers(node, namespace).into(),
            Interest::Whole => vec![channel(self.names.whole())],
        }
    }

    fn audience(&self, namespace: &NamespacePath) -> Option<Audience> {
        Some(Audience {
            everybody: self.names.request(namespace),
            edges: self.names.edges(namespace),
            whole: self.names.whole(),
        })
    }

    fn encode_message(
        &self,
        message: &ClusterMessage,
        edges: &dyn Edges,
    ) -> Result<Vec<Publication>, EncodeError> {
        if matches!(message.operation, Operation::Broadcast { .. }) {
            return self.broadcasts(message, edges);
        }
        let channel = self.names.request(&message.namespace);
        Ok(vec![Publication::plain(channel, request::encode(message)?)])
    }

    fn encode_response(
        &self,
        namespace: &NamespacePath,
        asker: Option<&NodeUid>,
        answer: &ClusterResponse,
    ) -> Result<Publication, EncodeError> {
        let ours = asker.filter(|asker| node_of(asker).is_some());
        let channel = match ours {
            Some(asker) => self.names.response_to(namespace, asker),
            None => self.names.response(namespace),
        };
        Ok(Publication::plain(channel, response::encode(answer)?))
    }

    fn encode_heartbeat(&self, heartbeat: &Heartbeat) -> Result<Publication, EncodeError> {
        Ok(Publication::plain(self.names.heartbeat(), heartbeat::encode(heartbeat)))
    }

    fn decode(&self, delivery: &Delivery) -> Result<Option<Incoming>, DecodeError> {
        let (bytes, limits) = (&*delivery.body, &self.limits);
        if bytes.len() > limits.message_bytes_max {
            return Err(DecodeError::TooLarge { bytes: bytes.len(), max: limits.message_bytes_max });
        }
        let incoming = match self.names.parse(&delivery.key) {
            Some(Channel::Broadcast { .. }) => Incoming::Message(broadcast::decode(bytes, limits)?),
            Some(Channel::Request { namespace }) => {
                let namespace = NamespacePath::parse(namespace).map_err(|_| DecodeError::InvalidNamespace)?;
                Incoming::Message(request::decode(bytes, &namespace, limits)?)
            }
            Some(Channel::Response { .. }) => Incoming::Response(response::decode(bytes, limits)?),
            Some(Channel::Heartbeat) => Incoming::Heartbeat(heartbeat::decode(bytes)?),
            None => return Ok(None),
        };
        Ok(Some(incoming))
    }
}

/// Who sent a message, if that can be told without decoding it.
pub(super) fn sender<'a>(names: &Names, channel: &str, body: &'a [u8]) -> Option<&'a str> {
    match names.parse(channel)? {
        Channel::Broadcast { .. } => broadcast::sender(body),
        Channel::Request { .. } | Channel::Response { .. } | Channel::Heartbeat => None,
    }
}

#[cfg(test)]
mod tests {
    use cluster_proto::broadcast::{BroadcastOptions, Selector};
    use cluster_proto::message::JsonData;

    use super::*;

    struct Known(Vec<NodeId>);

    impl Edges for Known {
        fn is_edge(&self, node: NodeId) -> bool {
            self.0.contains(&node)
        }

        fn others(&self) -> Vec<NodeId> {
            self.0.clone()
        }
    }

    fn node(text: &str) -> NodeId {
        NodeId::parse(text).unwrap()
    }

    fn wire(subscribe: RedisSubscribe) -> RedisWire {
        RedisWire::new(Names::new("socket.io").unwrap(), subscribe, Limits::default())
    }

    fn topics(subscribe: RedisSubscribe, interest: Interest<'_>) -> Vec<String> {
        wire(subscribe)
            .topics(node("AAAA"), &interest)
            .into_iter()
            .map(|topic| match topic {
                Topic::Channel(name) => name.to_string(),
                Topic::Pattern(name) => format!("pattern {name}"),
            })
            .collect()
    }

    #[test]
    fn interest_becomes_the_channels_of_the_node_adapter() {
        let (root, hash) = (NamespacePath::root(), NamespacePath::parse("/a#b").unwrap());
        let rooms = |interest| topics(RedisSubscribe::Rooms, interest);
        let all = |interest| topics(RedisSubscribe::All, interest);
        let sockets = "pattern socket.io#*#AAAA????????????????#";
        assert_eq!(rooms(Interest::Own(Role::Edge)), ["socket.io-jackfield#heartbeat", sockets]);
        assert_eq!(rooms(Interest::Own(Role::Emitter)), ["socket.io-jackfield#heartbeat"]);
        assert_eq!(
            rooms(Interest::Namespace(&root)),
            [
                "socket.io#/#",
                "socket.io-response#/#",
                "socket.io-response#/#jfAAAA#",
                "socket.io-jackfield#edges#/#",
                "socket.io-request#/#"
            ]
        );
        assert_eq!(rooms(Interest::Room(&root, "r")), ["socket.io#/#r#"]);
        assert_eq!(rooms(Interest::Room(&root, "AAAAabcdefghijklmnop")), [sockets]);
        assert_eq!(
            rooms(Interest::Room(&root, "BBBBabcdefghijklmnop")),
            ["socket.io#/#BBBBabcdefghijklmnop#"]
        );
        assert_eq!(all(Interest::Own(Role::Edge)), ["socket.io-jackfield#heartbeat"]);
        assert_eq!(all(Interest::Namespace(&root))[0], "pattern socket.io#/#*");
        assert_eq!(all(Interest::Room(&root, "AAAAabcdefghijklmnop")), ["pattern socket.io#/#*"]);
        assert_eq!(all(Interest::Room(&hash, "r")), ["pattern socket.io#/a#*"], "patterns do not overlap");
    }

    #[test]
    fn a_broadcast_goes_where_it_is_heard_and_reads_back() {
        let check = |rooms: &[&str], expected: &[&str]| {
            let selector =
                Selector { rooms: rooms.iter().map(|room| (*room).to_owned()).collect(), except: Vec::new() };
            let options = BroadcastOptions { selector, ..BroadcastOptions::default() };
            let operation = Operation::Broadcast { event: JsonData::text(r#"["x",1]"#), options };
            let sender = NodeUid::of_node(node("AAAA"));
            let message = ClusterMessage::new(sender, NamespacePath::root(), operation);
            let wire = wire(RedisSubscribe::Rooms);
            let sent = wire.encode_message(&message, &Known(vec![node("AAAA"), node("BBBB")])).unwrap();
            let keys: Vec<&str> = sent.iter().map(|publication| &*publication.key).collect();
            assert_eq!(keys, expected);
            for Publication { key, body, .. } in sent {
                let delivery = Delivery { key, room_hashes: None, body };
                assert!(matches!(wire.decode(&delivery), Ok(Some(Incoming::Message(_)))));
            }
        };
        check(&[], &["socket.io#/#"]);
        check(&["r"], &["socket.io#/#r#"]);
        check(&["r", "s"], &["socket.io#/#"]);
        check(&["BBBBabcdefghijklmnop"], &["socket.io#/#BBBBabcdefghijklmnop#"]);
        check(
            &["BBBBabcdefghijklmnop", "AAAAabcdefghijklmnop", "BBBBabcdefghijklmnoq"],
            &["socket.io#/#AAAAabcdefghijklmnop#", "socket.io#/#BBBBabcdefghijklmnop#"],
        );
    }
}
