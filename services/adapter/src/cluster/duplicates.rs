//! Messages that carry an idempotency key are handled once, also when they are published twice.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// How long a key is remembered.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// The keys of the last minutes. Beyond `keys_max` the oldest are forgotten early.
#[derive(Debug)]
pub struct Duplicates {
    keys_max: usize,
    known: HashSet<Box<str>>,
    order: VecDeque<(Instant, Box<str>)>,
}

impl Duplicates {
    /// Remembers up to `keys_max` keys.
    #[must_use]
    pub fn new(keys_max: usize) -> Self {
        Self { keys_max, known: HashSet::new(), order: VecDeque::new() }
    }

    /// Whether this key is new; from now on it is not.
    pub fn is_new(&mut self, now: Instant, key: &str) -> bool {
        while let Some((_, old)) = self.order.pop_front_if(|(at, _)| *at + REMEMBERED_FOR <= now) {
            self.known.remove(&old);
        }
        if self.keys_max == 0 {
            return true;
        }
        if !self.known.insert(key.into()) {
            return false;
        }
        self.order.push_back((now, key.into()));
        if self.order.len() > self.keys_max
            && let Some((_, old)) = self.order.pop_front()
        {
            self.known.remove(&old);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_handled_once_in_five_minutes() {
        let mut duplicates = Duplicates::new(10);
        let start = Instant::now();
        assert!(duplicates.is_new(start, "a"));
        assert!(!duplicates.is_new(start + Duration::from_secs(299), "a"));
        assert!(duplicates.is_new(start + Duration::from_secs(300), "a"));
    }

    #[test]
    fn only_so_many_keys_are_kept() {
        let mut duplicates = Duplicates::new(2);
        let now = Instant::now();
        for key in ["a", "b", "c"] {
            assert!(duplicates.is_new(now, key));
        }
        assert!(duplicates.is_new(now, "a"));
        assert!(!duplicates.is_new(now, "c"));
        assert!(Duplicates::new(0).is_new(now, "a"));
    }
}
