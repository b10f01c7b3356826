//! Which part of a sorted list is wanted, and what of a socket decides over its place there.
//!
//! A list is sorted by what names its items. Each node has a part of it, and whoever asks wants the smallest names behind
//! the last one that it has; so a node sends no more of its own than that, and the smallest of all are among them.
//! The rules here hold on both sides: nodes that do not know them send all their sockets, and the asker judges.

use crate::error::DecodeError;
use crate::response::RemoteSocket;

/// What the rooms of users begin with: `user:<id>` holds the sockets of that user.
pub const USER_ROOM: &str = "user:";

/// Most items that may be asked for at once: each shard of a node holds so many names.
pub const LIMIT_MAX: u32 = 16_384;

/// Longest name in a list, in bytes. Rooms and ids are shorter; a user that an application made up may not be, and a longer
/// one is not listed.
pub const NAME_BYTES_MAX: usize = 1_024;

/// Most rooms that a listed socket may be asked to be in: each is looked for among those of every socket.
pub const FILTER_ROOMS_MAX: usize = 16;

/// The part of a list that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// What is listed.
    pub list: List,
    /// Which sockets are listed or counted, of those that the selector means.
    pub filter: Filter,
    /// Only names behind this one.
    pub after: Option<String>,
    /// The smallest of them, at most so many: 1 to [`LIMIT_MAX`].
    pub limit: u32,
}

/// What is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum List {
    /// Sockets, by id.
    Sockets,
    /// The rooms that sockets were put into, each with the number of sockets in it.
    Rooms(Names),
    /// Users, each with the number of sockets.
    Users(Names),
}

/// Which names are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// All.
    Any,
    /// This one.
    Exactly(String),
    /// Those that begin so.
    StartingWith(String),
}

/// Which sockets are listed or counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those in all of these rooms, of which its own id is one. At most [`FILTER_ROOMS_MAX`].
    pub rooms: Vec<String>,
    /// Those of this user.
    pub user: Option<String>,
}

/// What of a socket decides over its place in a list. A room may be named more than once.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a, R> {
    /// Its id.
    pub id: &'a str,
    /// Its rooms, with or without its own.
    pub rooms: R,
    /// Whose socket its node says it is.
    pub user: Option<&'a str>,
}

impl Listing {
    /// Calls something for each name that the list has of a socket, and that is wanted as far as this listing says.
    pub fn names<'a, R: Iterator<Item = &'a str> + Clone>(
        &self,
        candidate: &Candidate<'a, R>,
        mut take: impl FnMut(&'a str),
    ) {
        if !self.filter.matches(candidate) {
            return;
        }
        match &self.list {
            List::Sockets => {
                if self.is_behind(candidate.id) {
                    take(candidate.id);
                }
            }
            List::Users(names) => {
                if let Some(user) = candidate.user().filter(|user| self.wants(names, user)) {
                    take(user);
                }
            }
            List::Rooms(names) => {
                let mut rooms: Vec<&str> =
                    candidate.put_into().filter(|room| self.wants(names, room)).collect();
                if rooms.len() > 1 {
                    rooms.sort_unstable();
                    rooms.dedup();
                }
                rooms.into_iter().for_each(take);
            }
        }
    }

    /// Whether a name with its count, as a node has sent it, belongs to the list.
    #[must_use]
    pub fn counts(&self, name: &str) -> bool {
        match &self.list {
            List::Sockets => false,
            List::Rooms(names) | List::Users(names) => self.wants(names, name),
        }
    }

    fn wants(&self, names: &Names, name: &str) -> bool {
        names.matches(name) && self.is_behind(name)
    }

    fn is_behind(&self, name: &str) -> bool {
        name.len() <= NAME_BYTES_MAX && self.after.as_deref().is_none_or(|after| name > after)
    }

    /// Bytes of its texts, about.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        let names = match &self.list {
            List::Rooms(Names::Exactly(name) | Names::StartingWith(name))
            | List::Users(Names::Exactly(name) | Names::StartingWith(name)) => name.len(),
            List::Sockets | List::Rooms(Names::Any) | List::Users(Names::Any) => 0,
        };
        let texts = self.filter.rooms.iter().chain(&self.filter.user).chain(&self.after);
        texts.map(|text| text.len() + size_of::<String>()).sum::<usize>() + names
    }
}

impl List {
    /// Its name on the wire.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Rooms(_) => "rooms",
            Self::Users(_) => "users",
        }
    }

    /// Which names it has.
    pub(crate) fn names(&self) -> &Names {
        match self {
            Self::Sockets => &Names::Any,
            Self::Rooms(names) | Self::Users(names) => names,
        }
    }
}

impl Names {
    /// Whether a name is one of them.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(exact) => name == exact,
            Self::StartingWith(start) => name.starts_with(start.as_str()),
        }
    }

    /// The name and the beginning of names, as they stand on the wire.
    pub(crate) fn fields(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Any => (None, None),
            Self::Exactly(name) => (Some(name), None),
            Self::StartingWith(start) => (None, Some(start)),
        }
    }
}

impl Filter {
    /// Whether a socket is one of those.
    pub fn matches<'a, R: Iterator<Item = &'a str> + Clone>(&self, candidate: &Candidate<'a, R>) -> bool {
        let is_in =
            |room: &String| room == candidate.id || candidate.rooms.clone().any(|other| other == room);
        self.rooms.iter().all(is_in) && self.user.as_deref().is_none_or(|user| candidate.user() == Some(user))
    }
}

impl<'a, R: Iterator<Item = &'a str> + Clone> Candidate<'a, R> {
    /// Whose socket it is; a Node server does not say, but may have put it into the user's room.
    pub fn user(&self) -> Option<&'a str> {
        let by_room = || self.rooms.clone().find_map(|room| room.strip_prefix(USER_ROOM));
        self.user.or_else(by_room).filter(|user| !user.is_empty())
    }

    /// The rooms that it was put into: neither its own nor those of users.
    fn put_into(&self) -> impl Iterator<Item = &'a str> {
        let id = self.id;
        self.rooms.clone().filter(move |room| *room != id && !room.starts_with(USER_ROOM))
    }
}

impl RemoteSocket {
    /// What decides over its place in a list.
    #[must_use]
    pub fn candidate(&self) -> Candidate<'_, impl Iterator<Item = &str> + Clone> {
        Candidate { id: &self.id, rooms: self.rooms.iter().map(String::as_str), user: self.user.as_deref() }
    }
}

/// A listing as it stands on a wire; its rooms and its user are checked already.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) of: &'a str,
    pub(crate) name: Option<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) filter: Filter,
    pub(crate) after: Option<String>,
    pub(crate) limit: u64,
}

impl Fields<'_> {
    pub(crate) fn check(self) -> Result<Listing, DecodeError> {
        let names = match (self.name, self.prefix) {
            (Some(name), _) => Names::Exactly(name),
            (None, Some(start)) => Names::StartingWith(start),
            (None, None) => Names::Any,
        };
        let list = match self.of {
            "sockets" => List::Sockets,
            "rooms" => List::Rooms(names),
            "users" => List::Users(names),
            _ => return Err(DecodeError::InvalidField { field: "of" }),
        };
        let limit = u32::try_from(self.limit).ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let limit = limit.ok_or(DecodeError::InvalidField { field: "limit" })?;
        Ok(Listing { list, filter: self.filter, after: self.after, limit })
    }
}

/// Checks the length of a name in a list.
pub(crate) fn check_name(name: &str) -> Result<(), DecodeError> {
    let max = NAME_BYTES_MAX;
    if name.len() > max { Err(DecodeError::NameTooLong { max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(id: &str, rooms: &[&str], user: Option<&str>) -> RemoteSocket {
        RemoteSocket {
            id: id.to_owned(),
            rooms: rooms.iter().map(|room| (*room).to_owned()).collect(),
            user: user.map(str::to_owned),
            ..RemoteSocket::default()
        }
    }

    fn names(listing: &Listing, socket: &RemoteSocket) -> Vec<String> {
        let mut names = Vec::new();
        listing.names(&socket.candidate(), |name| names.push(name.to_owned()));
        names
    }

    fn listing(list: List, after: Option<&str>) -> Listing {
        Listing { list, filter: Filter::default(), after: after.map(str::to_owned), limit: 1 }
    }

    #[test]
    fn a_user_is_whom_the_node_says_or_whose_room_it_is() {
        let check = |rooms: &[&str], user: Option<&str>, expected: Option<&str>| {
            assert_eq!(socket("a", rooms, user).candidate().user(), expected, "{rooms:?} {user:?}");
        };
        check(&["user:u"], Some("v"), Some("v"));
        check(&["r", "user:u"], None, Some("u"));
        check(&["r"], None, None);
        check(&["user:"], None, None);
        check(&["user:u"], Some(""), None);
    }

    #[test]
    fn rooms_are_those_that_a_socket_was_put_into() {
        let socket = socket("a", &["a", "z", "user:u", "b", "z", "ba"], Some("u"));
        assert_eq!(names(&listing(List::Rooms(Names::Any), None), &socket), ["b", "ba", "z"]);
        assert_eq!(names(&listing(List::Rooms(Names::Any), Some("b")), &socket), ["ba", "z"]);
        let starting = Names::StartingWith("b".to_owned());
        assert_eq!(names(&listing(List::Rooms(starting), None), &socket), ["b", "ba"]);
        let exactly = |name: &str| listing(List::Rooms(Names::Exactly(name.to_owned())), None);
        assert_eq!(names(&exactly("b"), &socket), ["b"]);
        assert!(names(&exactly("a"), &socket).is_empty() && names(&exactly("user:u"), &socket).is_empty());
        assert_eq!(names(&listing(List::Users(Names::Any), None), &socket), ["u"]);
        assert_eq!(names(&listing(List::Sockets, None), &socket), ["a"]);
        assert!(names(&listing(List::Sockets, Some("a")), &socket).is_empty());
    }

    #[test]
    fn names_that_no_cursor_could_hold_are_not_listed() {
        let socket = socket("a", &[], Some(&"u".repeat(NAME_BYTES_MAX + 1)));
        assert!(names(&listing(List::Users(Names::Any), None), &socket).is_empty());
    }

    #[test]
    fn filters_hold_together() {
        let filter = Filter { rooms: vec!["r".to_owned(), "a".to_owned()], user: Some("u".to_owned()) };
        let check = |socket: RemoteSocket, expected: bool| {
            assert_eq!(filter.matches(&socket.candidate()), expected, "{socket:?}");
        };
        check(socket("a", &["r"], Some("u")), true);
        check(socket("a", &["r", "user:u"], None), true);
        check(socket("b", &["r"], Some("u")), false);
        check(socket("b", &["r", "a"], Some("u")), true);
        check(socket("a", &["r"], Some("v")), false);
        check(socket("a", &["r"], None), false);
        check(socket("a", &[], Some("u")), false);
    }
}
