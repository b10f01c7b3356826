//! One page of a list that every edge holds a part of.
//!
//! A list is sorted by what names its items, and a page is the smallest names behind the last page's last one. So
//! whatever is there throughout appears on exactly one page, whoever comes and goes meanwhile. Each page asks all
//! edges again for what it needs: one item more than it holds, so that it is known whether the list goes on. What a node
//! sends beyond that, as Node servers do, is left out here.

use std::collections::BTreeMap;

use cluster_proto::listing::{Filter, LIMIT_MAX, List, Listing};
use cluster_proto::response::{Answer, ClusterResponse, RemoteSocket};

use crate::link::Gather;

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
    /// Names from here on did not fit, or are not all known.
    ceiling: Option<String>,
    /// Up to here some node has told what it has, though the list goes on there.
    through: Option<String>,
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
            through: None,
            is_cut: false,
        }
    }

    /// What the edges are asked for.
    pub(crate) fn listing(&self, list: List, filter: Filter) -> Listing {
        let limit = u32::try_from(self.items_max).unwrap_or(u32::MAX).saturating_add(1).min(LIMIT_MAX);
        Listing { list, filter, after: self.after.clone(), limit }
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

    /// A node has more behind this name than it has told: the page ends there. The name itself may be gone by now.
    fn end_at(&mut self, through: String, size: impl Fn(&str, &T) -> usize) {
        // One that stands before the page would send its reader in circles.
        let is_news = self.after.as_ref().is_none_or(|after| through > *after)
            && self.through.as_ref().is_none_or(|known| through < *known);
        if !is_news {
            return;
        }
        while let Some(last) = self.items.last_entry()
            && *last.key() > through
        {
            let (name, item) = last.remove_entry();
            self.bytes = self.bytes.saturating_sub(size(&name, &item));
        }
        // Nothing stands between a text and itself with one more zero byte.
        let ceiling = format!("{through}\0");
        if self.ceiling.as_ref().is_none_or(|known| ceiling < *known) {
            self.ceiling = Some(ceiling);
        }
        self.through = Some(through);
    }

    /// The items in order, and the last name if the list goes on behind it.
    pub(crate) fn finish(self) -> (Vec<(String, T)>, Option<String>) {
        let last = self.items.last_key_value().map(|(name, _)| name.clone());
        let last = self.ceiling.and(last.or(self.through));
        (self.items.into_iter().collect(), last)
    }
}

/// A page of sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) page: Page<RemoteSocket>,
    /// What was asked for. Not every node can answer only that.
    pub(crate) listing: Listing,
}

impl Gather for Sockets {
    fn take(&mut self, response: ClusterResponse) {
        let Answer::Sockets { sockets, through, .. } = response.answer else { return };
        for socket in sockets {
            let mut is_meant = false;
            self.listing.names(&socket.candidate(), |id| is_meant = self.page.wants(id));
            if is_meant {
                let bytes = size_of_socket(&socket.id, &socket);
                self.page.insert(socket.id.clone(), socket, bytes, size_of_socket);
            }
        }
        if let Some(through) = through {
            self.page.end_at(through, size_of_socket);
        }
    }
}

/// A page of names with the number of sockets that have each.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) page: Page<u64>,
    /// What was asked for. Not every node can answer only that.
    pub(crate) listing: Listing,
}

impl Page<u64> {
    fn count(&mut self, name: &str, sockets: u64) {
        if !self.wants(name) {
            return;
        }
        match self.items.get_mut(name) {
            Some(count) => *count = count.saturating_add(sockets),
            None => self.insert(name.to_owned(), sockets, size_of_name(name, &sockets), size_of_name),
        }
    }
}

impl Gather for Counts {
    fn take(&mut self, response: ClusterResponse) {
        let Self { page, listing } = self;
        for_each_name(&response.answer, listing, |name, sockets| page.count(name, sockets));
    }
}

/// The names of a list in an answer, each with its number of sockets: as an edge has counted them, or socket by socket
/// where a node sends all it has.
pub(crate) fn for_each_name(answer: &Answer, listing: &Listing, mut take: impl FnMut(&str, u64)) {
    match answer {
        Answer::Counts { counts, .. } => {
            let wanted = counts.iter().filter(|(name, _)| listing.counts(name));
            wanted.for_each(|(name, sockets)| take(name, *sockets));
        }
        Answer::Sockets { sockets, .. } => {
            for socket in sockets {
                listing.names(&socket.candidate(), |name| take(name, 1));
            }
        }
        Answer::ClientCount { .. }
        | Answer::Ack { .. }
        | Answer::SocketIds(_)
        | Answer::Rooms(_)
        | Answer::ServerSideEmit(_)
        | Answer::Done { .. } => {}
    }
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
    use cluster_proto::listing::Names;

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
        through(sockets, None)
    }

    fn through(sockets: Vec<RemoteSocket>, through: Option<&str>) -> ClusterResponse {
        response(Answer::Sockets { sockets, more: false, through: through.map(str::to_owned) })
    }

    fn response(answer: Answer) -> ClusterResponse {
        ClusterResponse { request: RequestId::from_bytes([0; 12]), node: None, answer }
    }

    fn sockets(after: Option<&str>, items_max: usize, bytes_max: usize) -> Sockets {
        let page = Page::new(after.map(str::to_owned), items_max, bytes_max);
        Sockets { listing: page.listing(List::Sockets, Filter::default()), page }
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
        page.listing.filter =
            Filter { rooms: vec!["r".to_owned(), "q".to_owned()], user: Some("u".to_owned()) };
        page.take(answer(vec![
            socket("a", &["r", "q"], Some("u")),
            socket("b", &["r"], Some("u")),
            socket("c", &["r", "q"], None),
            socket("d", &["r", "q", "user:u"], None),
        ]));
        assert_eq!(names(page.page).0, ["a", "d"]);
    }

    #[test]
    fn a_page_ends_where_a_node_ends_that_has_more() {
        let all =
            |ids: &[&str]| -> Vec<RemoteSocket> { ids.iter().map(|id| socket(id, &[], None)).collect() };
        // The other node had two more, of which one has gone: what is behind them it has not told.
        let mut page = sockets(None, 10, 10_000);
        page.take(answer(all(&["b", "d", "f"])));
        page.take(through(all(&["a"]), Some("c")));
        page.take(through(all(&["e"]), Some("g")));
        assert_eq!(names(page.page), (vec!["a".into(), "b".into()], Some("b".into())));
        // All have gone meanwhile, and still the list goes on.
        let mut page = sockets(Some("a"), 10, 10_000);
        page.take(through(Vec::new(), Some("c")));
        page.take(answer(all(&["d"])));
        assert_eq!(names(page.page), (Vec::new(), Some("c".into())));
        // Nobody is sent in circles.
        let mut page = sockets(Some("c"), 10, 10_000);
        page.take(through(all(&["d"]), Some("b")));
        assert_eq!(names(page.page), (vec!["d".into()], None));
    }

    fn counts(list: List, items_max: usize) -> Counts {
        let page = Page::new(None, items_max, 10_000);
        let mut counts = Counts { listing: page.listing(list, Filter::default()), page };
        counts.take(answer(vec![
            socket("1", &["1", "z", "b", "user:u"], Some("u")),
            socket("2", &["2", "a", "b"], None),
            socket("3", &["3", "b", "ba"], Some("u")),
        ]));
        counts
    }

    fn check(counts: Counts, expected: &[(&str, u64)]) {
        let (items, _) = counts.page.finish();
        let items: Vec<(&str, u64)> = items.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(items, expected);
    }

    #[test]
    fn rooms_and_users_are_counted() {
        let starting = Names::StartingWith("b".to_owned());
        check(counts(List::Rooms(Names::Any), 10), &[("a", 1), ("b", 3), ("ba", 1), ("z", 1)]);
        check(counts(List::Rooms(Names::Any), 2), &[("a", 1), ("b", 3)]);
        check(counts(List::Rooms(starting), 10), &[("b", 3), ("ba", 1)]);
        check(counts(List::Rooms(Names::Exactly("b".to_owned())), 10), &[("b", 3)]);
        check(counts(List::Users(Names::Any), 10), &[("u", 2)]);
    }

    #[test]
    fn counts_of_nodes_and_sockets_of_others_add_up() {
        let counted = |names: &[(&str, u64)]| {
            let counts = names.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            response(Answer::Counts { counts, more: false })
        };
        let mut all = counts(List::Rooms(Names::Any), 3);
        all.take(counted(&[("aa", 5), ("b", 4), ("c", u64::MAX), ("d", 1)]));
        all.take(counted(&[("c", 2), ("b", u64::MAX)]));
        check(all, &[("a", 1), ("aa", 5), ("b", u64::MAX)]);
        // What was not asked for is left out, whoever sends it.
        let mut some = counts(List::Rooms(Names::StartingWith("b".to_owned())), 3);
        some.take(counted(&[("a", 1), ("bc", 1)]));
        check(some, &[("b", 3), ("ba", 1), ("bc", 1)]);
    }

    #[test]
    fn one_more_than_a_page_is_asked_for() {
        let limit = |items| Page::<u64>::new(None, items, 1).listing(List::Sockets, Filter::default()).limit;
        assert_eq!([limit(100), limit(0), limit(usize::MAX)], [101, 2, LIMIT_MAX]);
    }
}
