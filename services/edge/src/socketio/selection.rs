//! What one page of a sorted list needs of this shard: the smallest names behind the last page, and no more of them.
//!
//! Sockets are looked at in slices, and of what they are called only what may belong to the page is kept. Which sockets
//! belong to it is known once all shards have looked ([`super::gather`]); only those are described.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_proto::listing::{Candidate, List, Listing};
use cluster_proto::message::Operation;

use super::app::{ClientState, Completion, SocketIo};
use super::deliver::Job;
use super::gather::Ask;
use super::socket::write_name;
use crate::rooms::index::SocketKey;
use crate::session::registry::Sessions;

/// Sockets and rooms that are looked at in one go, before others get their turn: less work than to describe a page.
const STEPS: usize = 1_024;

/// The smallest names that were offered, as many as are wanted.
#[derive(Debug)]
pub struct Smallest<T> {
    limit: usize,
    items: BTreeMap<String, T>,
}

impl<T> Smallest<T> {
    /// None so far; at most `limit` of them.
    pub fn new(limit: u32) -> Smallest<T> {
        Smallest { limit: limit as usize, items: BTreeMap::new() }
    }

    /// Whether a name is among the smallest, so far. Once it is not, it never will be.
    fn has_room_for(&self, name: &str) -> bool {
        self.items.len() < self.limit
            || self.items.last_key_value().is_some_and(|(last, _)| name < last.as_str())
    }

    /// Puts an item in its place, and lets the last one go if that is one too many.
    pub fn insert(&mut self, name: &str, item: T) {
        if self.has_room_for(name) {
            self.items.insert(name.to_owned(), item);
            if self.items.len() > self.limit {
                self.items.pop_last();
            }
        }
    }

    /// Whether there are as many as are wanted; perhaps there were more.
    pub fn is_full(&self) -> bool {
        self.items.len() >= self.limit
    }

    /// The largest of them.
    pub fn last(&self) -> Option<&str> {
        self.items.last_key_value().map(|(name, _)| name.as_str())
    }

    /// Whether a name is among them.
    pub fn contains(&self, name: &str) -> bool {
        self.items.contains_key(name)
    }

    /// All of them, in order.
    pub fn into_items(self) -> BTreeMap<String, T> {
        self.items
    }
}

impl Smallest<u64> {
    /// Counts something of this name.
    pub fn add(&mut self, name: &str, count: u64) {
        match self.items.get_mut(name) {
            Some(sum) => *sum = sum.saturating_add(count),
            None => self.insert(name, count),
        }
    }
}

/// The sockets of this shard that are still to be looked at, and what was found.
#[derive(Debug)]
pub struct Selection {
    rest: std::vec::IntoIter<SocketKey>,
    found: Found,
}

#[derive(Debug)]
enum Found {
    Sockets(Smallest<SocketKey>),
    Counts(Smallest<u64>),
}

impl Selection {
    /// Nothing was found among these, so far.
    pub(super) fn new(targets: Vec<SocketKey>, listing: &Listing) -> Box<Selection> {
        let found = match listing.list {
            List::Sockets => Found::Sockets(Smallest::new(listing.limit)),
            List::Rooms(_) | List::Users(_) => Found::Counts(Smallest::new(listing.limit)),
        };
        Box::new(Selection { rest: targets.into_iter(), found })
    }
}

impl Found {
    fn offer<'a>(
        &mut self,
        listing: &Listing,
        candidate: &Candidate<'a, impl Iterator<Item = &'a str> + Clone>,
        key: SocketKey,
    ) {
        match self {
            Found::Sockets(found) => listing.names(candidate, |id| found.insert(id, key)),
            Found::Counts(found) => listing.names(candidate, |name| found.add(name, 1)),
        }
    }
}

impl SocketIo {
    /// Looks at some of the sockets that were asked for; the rest is a job of its own.
    pub(super) fn select(
        &mut self,
        sessions: &Sessions<ClientState>,
        ask: Arc<Ask>,
        mut selection: Box<Selection>,
    ) -> Option<Job> {
        let Operation::Fetch { listing: Some(listing), .. } = &ask.operation else { return None };
        let (mut steps, mut id) = (0, String::new());
        while steps < STEPS
            && let Some(key) = selection.rest.next()
        {
            let Some(socket) = self.sockets.get(key) else { continue };
            id.clear();
            write_name(socket, &self.namespaces, &mut id);
            let user = socket.profile.as_deref().and_then(|profile| profile.user.as_deref());
            let candidate = Candidate { id: &id, rooms: self.rooms.names(key), user };
            selection.found.offer(listing, &candidate, key);
            steps += 1 + self.rooms.count(key);
        }
        if selection.rest.len() > 0 {
            return Some(Job::Select(ask, selection));
        }
        match selection.found {
            Found::Counts(found) => {
                ask.gather.counts(found);
                None
            }
            Found::Sockets(found) => {
                let found = found.into_items();
                match ask.gather.choose(&found) {
                    None => self.list_chosen(sessions, ask, found),
                    Some(others) => {
                        self.completions.spawn(async move {
                            // It ends when the last shard has looked.
                            let _ = others.await;
                            Completion::Chosen(ask, found)
                        });
                        None
                    }
                }
            }
        }
    }

    /// Describes those of the sockets found here that are still wanted, now that all shards have looked.
    pub(super) fn list_chosen(
        &mut self,
        sessions: &Sessions<ClientState>,
        ask: Arc<Ask>,
        mut found: BTreeMap<String, SocketKey>,
    ) -> Option<Job> {
        ask.gather.retain_chosen(&mut found);
        let chosen: Vec<SocketKey> = found.into_values().collect();
        self.list(sessions, ask, chosen.into_iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<T>(found: Smallest<T>) -> Vec<String> {
        found.into_items().into_keys().collect()
    }

    #[test]
    fn the_smallest_are_kept_whatever_their_order() {
        let mut found = Smallest::new(3);
        for name in ["d", "b", "e", "a", "c", "b"] {
            found.insert(name, ());
        }
        assert!(found.is_full() && found.contains("c") && !found.contains("d"));
        assert_eq!(found.last(), Some("c"));
        assert_eq!(names(found), ["a", "b", "c"]);
    }

    #[test]
    fn counts_of_the_smallest_are_exact() {
        let all = ["z", "a", "y", "b", "z", "c", "b", "a", "x", "c", "a"];
        for limit in 1..=7 {
            let mut found = Smallest::new(limit);
            all.iter().for_each(|name| found.add(name, 1));
            let expected = [("a", 3), ("b", 2), ("c", 2), ("x", 1), ("y", 1), ("z", 2)];
            let expected: Vec<(String, u64)> = expected
                .iter()
                .take(limit as usize)
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect();
            assert_eq!(found.into_items().into_iter().collect::<Vec<_>>(), expected);
        }
        let mut found = Smallest::new(1);
        found.add("a", u64::MAX);
        found.add("a", 1);
        assert_eq!(found.into_items().get("a"), Some(&u64::MAX));
    }
}
