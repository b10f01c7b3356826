//! One page of a list that every edge holds a part of.
//!
//! A list is sorted by what names its items, and a page is the smallest names behind the last page's last one. So
//! whatever is there throughout appears on exactly one page, whoever comes and goes meanwhile. Each page asks all
//! edges again, and of what they say only one page is kept.

use std::collections::BTreeMap;

use cluster_proto::response::{Answer, ClusterResponse, RemoteSocket};

use crate::link::Gather;
use crate::selector::USER_ROOM;

/// Bytes counted for an item beside its texts.
const OVERHEAD: usize = 128;

/// The smallest names behind `after`, as many as fit.
#[derive(Debug)]
pub(crate) struct Page<T> {
    after: Option<String>,
    items_max: usize,
    bytes_max: usize,
    bytes: usize,
    items: BTreeMap<String, T>,
    /// Names from here on did not fit.
    ceiling: Option<String>,
    /// Whether it was for their size that they did not.
    pub(crate) is_cut: bool,
}

impl<T> Page<T> {
    pub(crate) fn new(after: Option<String>, items_max: usize, bytes_max: usize) -> Self {
        Self {
            after,
            items_max: items_max.max(1),
            bytes_max,
            bytes: 0,
            items: BTreeMap::new(),
            ceiling: None,
            is_cut: false,
        }
    }

    /// Whether an item of this name belongs on the page, so far.
    fn wants(&self, name: &str) -> bool {
        self.after.as_deref().is_none_or(|after| name > after)
            && self.ceiling.as_deref().is_none_or(|ceiling| name < ceiling)
    }

    /// Puts an item in its place, and takes the last one out if that is one too many.
    fn insert(&mut self, name: String, item: T, bytes: usize, size: impl Fn(&str, &T) -> usize) {
        self.bytes += bytes;
        if let Some(old) = self.items.insert(name.clone(), item) {
            self.bytes = self.bytes.saturating_sub(size(&name, &old));
        }
        while self.items.len() > self.items_max || self.bytes > self.bytes_max && self.items.len() > 1 {
            self.is_cut |= self.items.len() <= self.items_max;
            let Some((name, item)) = self.items.pop_last() else { return };
            self.bytes = self.bytes.saturating_sub(size(&name, &item));
            self.ceiling = Some(name);
        }
    }

    /// The items in order, and the last name if the list goes on behind it.
    pub(crate) fn finish(self) -> (Vec<(String, T)>, Option<String>) {
        let last = self.ceiling.and_then(|_| self.items.last_key_value().map(|(name, _)| name.clone()));
        (self.items.into_iter().collect(), last)
    }
}

/// A page of sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) page: Page<RemoteSocket>,
    /// Only sockets in all of these rooms.
    pub(crate) rooms: Vec<String>,
    /// Only sockets of this user.
    pub(crate) user: Option<String>,
}

impl Gather for Sockets {
    fn take(&mut self, response: ClusterResponse) {
        let Answer::Sockets { sockets, .. } = response.answer else { return };
        for socket in sockets {
            let is_meant = self.rooms.iter().all(|room| *room == socket.id || socket.rooms.contains(room))
                && self.user.as_deref().is_none_or(|user| user_of(&socket) == Some(user));
            if is_meant && self.page.wants(&socket.id) {
                let bytes = size_of_socket(&socket.id, &socket);
                self.page.insert(socket.id.clone(), socket, bytes, size_of_socket);
            }
        }
    }
}

/// A page of names with the number of sockets that have each.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) page: Page<u64>,
    /// What is counted.
    pub(crate) what: What,
    /// Which names.
    pub(crate) names: Names,
}

/// What of a socket is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// The rooms that it was put into: neither its own nor that of its user.
    Rooms,
    /// Its user.
    Users,
}

/// Which names are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Names {
    /// All.
    Any,
    /// This one.
    Exactly(String),
    /// Those that begin so.
    StartingWith(String),
}

impl Names {
    /// Parses a filter: a name, or the beginning of names and `*`.
    pub(crate) fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(start) => Self::StartingWith(start.to_owned()),
            None => Self::Exactly(text.to_owned()),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(exact) => name == exact,
            Self::StartingWith(start) => name.starts_with(start),
        }
    }
}

impl Counts {
    fn count(&mut self, name: &str) {
        if !self.names.matches(name) || !self.page.wants(name) {
            return;
        }
        match self.page.items.get_mut(name) {
            Some(count) => *count += 1,
            None => self.page.insert(name.to_owned(), 1, size_of_name(name, &1), size_of_name),
        }
    }
}

impl Gather for Counts {
    fn take(&mut self, response: ClusterResponse) {
        let Answer::Sockets { sockets, .. } = response.answer else { return };
        for socket in &sockets {
            match self.what {
                What::Users => {
                    if let Some(user) = user_of(socket) {
                        self.count(user);
                    }
                }
                What::Rooms => {
                    let mut rooms: Vec<&String> =
                        socket.rooms.iter().filter(|room| **room != socket.id).collect();
                    rooms.sort_unstable();
                    rooms.dedup();
                    for room in rooms.into_iter().filter(|room| !room.starts_with(USER_ROOM)) {
                        self.count(room);
                    }
                }
            }
        }
    }
}

/// Whose socket it is; a Node server does not say, but may have put it into the user's room.
pub(crate) fn user_of(socket: &RemoteSocket) -> Option<&str> {
    let by_room = || socket.rooms.iter().find_map(|room| room.strip_prefix(USER_ROOM));
    socket.user.as_deref().or_else(by_room).filter(|user| !user.is_empty())
}

fn size_of_socket(id: &str, socket: &RemoteSocket) -> usize {
    let texts = [&socket.handshake, &socket.data, &socket.user];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    let rooms: usize = socket.rooms.iter().map(|room| room.len() + 8).sum();
    OVERHEAD + 2 * id.len() + texts + rooms
}

fn size_of_name(name: &str, _count: &u64) -> usize {
    OVERHEAD + name.len()
}

#[cfg(test)]
mod tests {
    use cluster_proto::identity::RequestId;

    use super::*;

    fn socket(id: &str, rooms: &[&str], user: Option<&str>) -> RemoteSocket {
        RemoteSocket {
            id: id.to_owned(),
            rooms: rooms.iter().map(|room| (*room).to_owned()).collect(),
            user: user.map(str::to_owned),
            ..RemoteSocket::default()
        }
    }

    fn answer(sockets: Vec<RemoteSocket>) -> ClusterResponse {
        let answer = Answer::Sockets { sockets, more: false, through: None };
        ClusterResponse { request: RequestId::from_bytes([0; 12]), node: None, answer }
    }

    fn sockets(after: Option<&str>, items_max: usize, bytes_max: usize) -> Sockets {
        let page = Page::new(after.map(str::to_owned), items_max, bytes_max);
        Sockets { page, rooms: Vec::new(), user: None }
    }

    fn names<T>(page: Page<T>) -> (Vec<String>, Option<String>) {
        let (items, last) = page.finish();
        (items.into_iter().map(|(name, _)| name).collect(), last)
    }

    #[test]
    fn a_page_holds_the_smallest_names_whatever_their_order() {
        let all = ["d", "a", "e", "c", "b"].map(|id| socket(id, &[], None));
        let mut first = sockets(None, 2, 10_000);
        all.iter().for_each(|socket| first.take(answer(vec![socket.clone()])));
        assert_eq!(names(first.page), (vec!["a".into(), "b".into()], Some("b".into())));
        let mut second = sockets(Some("b"), 3, 10_000);
        second.take(answer(all.to_vec()));
        assert_eq!(names(second.page), (vec!["c".into(), "d".into(), "e".into()], None));
    }

    #[test]
    fn whoever_is_there_throughout_appears_once() {
        let constant: Vec<String> = (0..100).map(|number| format!("{:02}", number)).collect();
        let (mut seen, mut after, mut round) = (Vec::new(), None, 0);
        loop {
            round += 1;
            let mut page = sockets(after.as_deref(), 7, 100_000);
            let passing = (0..50).map(|number| format!("{:02}-{round}", (number * 7 + round) % 100));
            for id in constant.iter().cloned().chain(passing) {
                page.take(answer(vec![socket(&id, &[], None)]));
            }
            let (ids, last) = names(page.page);
            seen.extend(ids.into_iter().filter(|id| id.len() == 2));
            after = last;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, constant);
    }

    #[test]
    fn large_items_shorten_a_page_but_never_stop_it() {
        let mut page = sockets(None, 10, 500);
        let large = |id: &str| RemoteSocket { data: Some("x".repeat(300)), ..socket(id, &[], None) };
        page.take(answer(vec![large("c"), large("a"), large("b")]));
        assert!(page.page.is_cut);
        assert_eq!(names(page.page), (vec!["a".into()], Some("a".into())));
    }

    #[test]
    fn filters_hold_together() {
        let mut page = sockets(None, 10, 10_000);
        page.rooms = vec!["r".to_owned(), "q".to_owned()];
        page.user = Some("u".to_owned());
        page.take(answer(vec![
            socket("a", &["r", "q"], Some("u")),
            socket("b", &["r"], Some("u")),
            socket("c", &["r", "q"], None),
            socket("d", &["r", "q", "user:u"], None),
        ]));
        assert_eq!(names(page.page).0, ["a", "d"]);
    }

    fn counts(what: What, names: Names, items_max: usize) -> Counts {
        let mut counts = Counts { page: Page::new(None, items_max, 10_000), what, names };
        counts.take(answer(vec![
            socket("1", &["1", "z", "b", "user:u"], Some("u")),
            socket("2", &["2", "a", "b"], None),
            socket("3", &["3", "b", "ba"], Some("u")),
        ]));
        counts
    }

    #[test]
    fn rooms_and_users_are_counted() {
        let check = |counts: Counts, expected: &[(&str, u64)]| {
            let (items, _) = counts.page.finish();
            let items: Vec<(&str, u64)> = items.iter().map(|(name, count)| (name.as_str(), *count)).collect();
            assert_eq!(items, expected);
        };
        check(counts(What::Rooms, Names::Any, 10), &[("a", 1), ("b", 3), ("ba", 1), ("z", 1)]);
        check(counts(What::Rooms, Names::Any, 2), &[("a", 1), ("b", 3)]);
        check(counts(What::Rooms, Names::parse("b*"), 10), &[("b", 3), ("ba", 1)]);
        check(counts(What::Rooms, Names::parse("b"), 10), &[("b", 3)]);
        check(counts(What::Users, Names::Any, 10), &[("u", 2)]);
    }
}
