//! Whom a selector means: the members of rooms, each once, without those that are excepted.

use cluster_proto::broadcast::Selector;
use socketio_proto::namespace::NamespacePath;

use super::acks::BroadcastKey;
use super::app::SocketIo;
use super::socket::parse_name;
use crate::rooms::fan_out::EncodedOnce;
use crate::rooms::index::SocketKey;

impl SocketIo {
    /// The sockets that a broadcast is for, each once; those that cannot owe one more ack are left out if it asks for one.
    pub(super) fn targets(&mut self, encoded: &EncodedOnce) -> Vec<SocketKey> {
        let broadcast = encoded.broadcast();
        let targets = self.pick(&broadcast.namespace, &broadcast.selector);
        match encoded.asks() {
            Some(asking) => self.expect_acks(BroadcastKey(asking), targets),
            None => targets,
        }
    }

    /// The sockets that a selector means, each once.
    pub(super) fn pick(&mut self, namespace: &NamespacePath, selector: &Selector) -> Vec<SocketKey> {
        let path = namespace.as_str();
        let Some(namespace) = self.namespaces.find(path) else { return Vec::new() };
        let Selector { rooms, except } = selector;
        let everyone = self.rooms.find(namespace, None);
        match (rooms.as_slice(), except.as_slice()) {
            ([], []) => return everyone.map(|room| self.rooms.members(room).collect()).unwrap_or_default(),
            ([room], []) => return self.in_room(namespace, path, room).collect(),
            _ => {}
        }
        let mut marks = std::mem::take(&mut self.marks);
        self.pick = self.pick.wrapping_add(1);
        if self.pick == 0 {
            marks.clear();
            self.pick = 1;
        }
        let pick = self.pick;
        let mut is_first = |socket: SocketKey| {
            let index = socket.index as usize;
            if marks.len() <= index {
                marks.resize(index + 1, 0);
            }
            marks.get_mut(index).is_some_and(|mark| std::mem::replace(mark, pick) != pick)
        };
        for name in except {
            self.in_room(namespace, path, name).for_each(|socket| {
                is_first(socket);
            });
        }
        let mut targets = Vec::new();
        if rooms.is_empty() {
            let all = everyone.into_iter().flat_map(|room| self.rooms.members(room));
            targets.extend(all.filter(|socket| is_first(*socket)));
        }
        for name in rooms {
            targets.extend(self.in_room(namespace, path, name).filter(|socket| is_first(*socket)));
        }
        self.marks = marks;
        targets
    }

    /// The members of a room, or the socket whose own room it is.
    fn in_room(&self, namespace: u32, path: &str, name: &str) -> impl Iterator<Item = SocketKey> {
        let own = parse_name(path, name).and_then(|id| self.by_id.get(&(namespace, id)).copied());
        let room = if own.is_some() { None } else { self.rooms.find(namespace, Some(name)) };
        own.into_iter().chain(room.into_iter().flat_map(|room| self.rooms.members(room)))
    }
}
