//! Which socket is in which room, both directions.
//!
//! Rooms and sockets are integer slots: a broadcast walks a plain list, and a leave is two swaps. The room of a
//! socket's own id has no row here; whoever looks for it finds the socket by its id.

use std::rc::Rc;

use hashbrown::{Equivalent, HashMap};
use slab::Slab;
use smallvec::SmallVec;

/// Finds a socket; outlives it without harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketKey {
    /// The slot.
    pub index: u32,
    /// Tells the slot's tenants apart.
    pub generation: u32,
}

/// A room of this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoomId(u32);

#[derive(Debug)]
struct Room {
    name: RoomName,
    members: Vec<Member>,
}

/// A member of a room, and where the room stands in the member's own list.
#[derive(Clone, Copy, Debug)]
struct Member {
    socket: SocketKey,
    entry: u32,
}

/// A room of a socket, and where the socket stands in the room's list.
#[derive(Clone, Copy, Debug)]
struct Entry {
    room: RoomId,
    position: u32,
}

/// A room's name; the room of everybody in a namespace has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RoomName {
    namespace: u32,
    name: Option<Rc<str>>,
}

/// A borrowed [`RoomName`].
#[derive(Hash)]
struct RoomNameRef<'a> {
    namespace: u32,
    name: Option<&'a str>,
}

impl Equivalent<RoomName> for RoomNameRef<'_> {
    fn equivalent(&self, key: &RoomName) -> bool {
        self.namespace == key.namespace && self.name == key.name.as_deref()
    }
}

/// All rooms of a shard.
#[derive(Debug, Default)]
pub struct RoomIndex {
    ids: HashMap<RoomName, RoomId>,
    rooms: Slab<Room>,
    /// By socket slot.
    entries: Vec<SmallVec<[Entry; 1]>>,
    /// Rooms that have lost their last member, until somebody asks.
    emptied: Vec<(u32, Rc<str>)>,
}

impl RoomIndex {
    /// How many rooms there are, those of whole namespaces included.
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// The room with this name, or with `None` the one that holds the whole namespace; if it has members.
    pub fn find(&self, namespace: u32, name: Option<&str>) -> Option<RoomId> {
        self.ids.get(&RoomNameRef { namespace, name }).copied()
    }

    /// The sockets in a room.
    pub fn members(&self, room: RoomId) -> impl Iterator<Item = SocketKey> {
        self.rooms.get(room.0 as usize).into_iter().flat_map(|room| &room.members).map(|member| member.socket)
    }

    /// Whether a socket is in a room.
    pub fn contains(&self, socket: SocketKey, room: RoomId) -> bool {
        self.entries_of(socket).iter().any(|entry| entry.room == room)
    }

    /// The names of a socket's rooms, without its namespace and without its own id.
    pub fn names(&self, socket: SocketKey) -> impl Iterator<Item = &str> + Clone {
        let rooms = self.entries_of(socket).iter().filter_map(|entry| self.rooms.get(entry.room.0 as usize));
        rooms.filter_map(|room| room.name.name.as_deref())
    }

    /// The names of a namespace's rooms.
    pub fn of_namespace(&self, namespace: u32) -> impl Iterator<Item = &str> {
        let of_it = self.rooms.iter().filter(move |(_, room)| room.name.namespace == namespace);
        of_it.filter_map(|(_, room)| room.name.name.as_deref())
    }

    /// How many rooms a socket is in, without its namespace and without its own id.
    pub fn count(&self, socket: SocketKey) -> usize {
        self.entries_of(socket).len().saturating_sub(1)
    }

    fn entries_of(&self, socket: SocketKey) -> &[Entry] {
        self.entries.get(socket.index as usize).map(SmallVec::as_slice).unwrap_or_default()
    }

    /// Puts a socket into a room; the first join of a socket is that of its namespace (`None`).
    /// Joining twice changes nothing. Whether it is the first member.
    pub fn join(&mut self, socket: SocketKey, namespace: u32, name: Option<&str>) -> bool {
        let known = self.find(namespace, name);
        let room = match known {
            Some(room) if self.contains(socket, room) => return false,
            Some(room) => room,
            None => {
                let name = RoomName { namespace, name: name.map(Rc::from) };
                let Ok(id) = u32::try_from(self.rooms.vacant_key()).map(RoomId) else { return false };
                self.ids.insert(name.clone(), id);
                self.rooms.insert(Room { name, members: Vec::new() });
                id
            }
        };
        let index = socket.index as usize;
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, SmallVec::new);
        }
        let (Some(row), Some(entries)) = (self.rooms.get_mut(room.0 as usize), self.entries.get_mut(index))
        else {
            return false;
        };
        let (Ok(position), Ok(entry)) = (u32::try_from(row.members.len()), u32::try_from(entries.len()))
        else {
            return false;
        };
        row.members.push(Member { socket, entry });
        entries.push(Entry { room, position });
        known.is_none()
    }

    /// Takes a socket out of a room; whether it was in it.
    pub fn leave(&mut self, socket: SocketKey, namespace: u32, name: &str) -> bool {
        let Some(room) = self.find(namespace, Some(name)) else { return false };
        let Some(at) = self.entries_of(socket).iter().position(|entry| entry.room == room) else {
            return false;
        };
        self.remove(socket, at);
        true
    }

    /// Takes a socket out of all its rooms.
    pub fn leave_all(&mut self, socket: SocketKey) {
        while let Some(last) = self.entries_of(socket).len().checked_sub(1) {
            self.remove(socket, last);
        }
        if let Some(entries) = self.entries.get_mut(socket.index as usize) {
            *entries = SmallVec::new();
        }
    }

    /// Removes entry number `at` of a socket, and mends the two that are moved into the gaps.
    fn remove(&mut self, socket: SocketKey, at: usize) {
        let Some(entries) = self.entries.get_mut(socket.index as usize) else { return };
        if at >= entries.len() {
            return;
        }
        let Entry { room, position } = entries.swap_remove(at);
        if let Some(moved) = entries.get(at).copied()
            && let Some(member) = self.member_mut(moved)
        {
            member.entry = u32::try_from(at).unwrap_or(u32::MAX);
        }
        let Some(row) = self.rooms.get_mut(room.0 as usize) else { return };
        if (position as usize) < row.members.len() {
            row.members.swap_remove(position as usize);
        }
        if let Some(moved) = row.members.get(position as usize).copied() {
            let entry = self
                .entries
                .get_mut(moved.socket.index as usize)
                .and_then(|entries| entries.get_mut(moved.entry as usize));
            if let Some(entry) = entry {
                entry.position = position;
            }
        }
        self.drop_if_empty(room);
    }

    fn member_mut(&mut self, entry: Entry) -> Option<&mut Member> {
        self.rooms.get_mut(entry.room.0 as usize)?.members.get_mut(entry.position as usize)
    }

    fn drop_if_empty(&mut self, room: RoomId) {
        let is_empty = self.rooms.get(room.0 as usize).is_some_and(|row| row.members.is_empty());
        if is_empty {
            let row = self.rooms.remove(room.0 as usize);
            self.ids.remove(&row.name);
            if let RoomName { namespace, name: Some(name) } = row.name {
                self.emptied.push((namespace, name));
            }
        }
    }

    /// The rooms that have lost their last member since this was last asked, with their namespaces.
    pub fn take_emptied(&mut self) -> Vec<(u32, Rc<str>)> {
        std::mem::take(&mut self.emptied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn key(index: u32) -> SocketKey {
        SocketKey { index, generation: 0 }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(u32, u8),
        Leave(u32, u8),
        LeaveAll(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let socket = 0..12u32;
        let room = 0..8u8;
        prop_oneof![
            4 => (socket.clone(), room.clone()).prop_map(|(socket, room)| Step::Join(socket, room)),
            3 => (socket.clone(), room).prop_map(|(socket, room)| Step::Leave(socket, room)),
            1 => socket.prop_map(Step::LeaveAll),
        ]
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_plain_sets(steps in proptest::collection::vec(step(), 0..400)) {
            let mut index = RoomIndex::default();
            let mut model: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Join(socket, room) => {
                        index.join(key(socket), 0, None);
                        index.join(key(socket), 0, Some(&room.to_string()));
                        model.entry(socket).or_default().insert(room.to_string());
                    }
                    Step::Leave(socket, room) => {
                        let was_in = index.leave(key(socket), 0, &room.to_string());
                        let expected = model.get_mut(&socket).is_some_and(|rooms| rooms.remove(&room.to_string()));
                        prop_assert_eq!(was_in, expected);
                    }
                    Step::LeaveAll(socket) => {
                        index.leave_all(key(socket));
                        model.remove(&socket);
                    }
                }
                for (socket, rooms) in &model {
                    let names: BTreeSet<String> = index.names(key(*socket)).map(str::to_owned).collect();
                    prop_assert_eq!(&names, rooms);
                }
                for room in 0..8u8 {
                    let name = room.to_string();
                    let members: BTreeSet<u32> = index
                        .find(0, Some(&name))
                        .map(|room| index.members(room).map(|socket| socket.index).collect())
                        .unwrap_or_default();
                    let expected: BTreeSet<u32> =
                        model.iter().filter(|(_, rooms)| rooms.contains(&name)).map(|(socket, _)| *socket).collect();
                    prop_assert_eq!(members, expected);
                }
            }
            for socket in 0..12 {
                index.leave_all(key(socket));
            }
            prop_assert!(index.is_empty());
        }
    }

    #[test]
    fn rooms_of_two_namespaces_are_two_rooms() {
        let mut index = RoomIndex::default();
        for (socket, namespace) in [(1, 0), (2, 1)] {
            index.join(key(socket), namespace, None);
            index.join(key(socket), namespace, Some("a"));
        }
        let room = index.find(1, Some("a")).unwrap();
        assert_eq!(index.members(room).collect::<Vec<_>>(), [key(2)]);
    }
}
