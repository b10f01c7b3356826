//! Calls that carry an idempotency key: what was answered to it, and for which body.
//!
//! A message travels under a hash of caller, namespace and key, and edges deliver an id once. So a repeat through another
//! emitter, or before the first call has ended, is harmless; what is remembered here spares the way and finds misuse.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::api::problem::{Code, Problem};

/// Longest key that is accepted.
pub(crate) const KEY_BYTES_MAX: usize = 255;

/// Bytes of the hash that make an id: 144 bits, 24 characters.
const ID_BYTES: usize = 18;

/// The id under which a keyed message travels: the same at every emitter.
pub(crate) fn message_id(caller: &str, namespace: &str, key: &str) -> String {
    let mut hash = Sha256::new();
    for part in [caller, namespace, key] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let hash: [u8; 32] = hash.finalize().into();
    URL_SAFE_NO_PAD.encode(hash.get(..ID_BYTES).unwrap_or_default())
}

/// Checks a key that a caller gave.
pub(crate) fn check_key(key: &str) -> Result<(), Problem> {
    if (1..=KEY_BYTES_MAX).contains(&key.len()) {
        return Ok(());
    }
    let detail = format!("an idempotency key has 1 to {KEY_BYTES_MAX} bytes");
    Err(Problem::new(Code::InvalidValue, detail))
}

/// What is known of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Nothing, or its outcome was unclear: the call is to be made.
    New,
    /// It was accepted.
    Accepted,
}

#[derive(Debug)]
struct Entry {
    body: [u8; 32],
    expires: Instant,
    is_accepted: bool,
}

/// The ids of the last minutes. Filled by calls with a key, emptied by age and, when it is full, from the oldest on.
#[derive(Debug)]
pub(crate) struct Memories {
    ids_max: usize,
    ttl: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<String, Entry>,
    /// The ids in the order in which they came, which is that in which they expire.
    order: VecDeque<String>,
    evicted: u64,
}

impl Memories {
    pub(crate) fn new(ids_max: usize, ttl: Duration) -> Self {
        Self { ids_max, ttl, state: Mutex::default() }
    }

    /// Looks an id up, and notes the body that it came with.
    ///
    /// # Errors
    /// [`Code::IdempotencyConflict`] if it came with another body before.
    pub(crate) fn begin(&self, id: &str, body: [u8; 32], now: Instant) -> Result<Memory, Problem> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget(now);
        if let Some(entry) = state.entries.get(id) {
            if entry.body != body {
                let detail = "this idempotency key was used for another call; take a new key for a new call";
                return Err(Problem::new(Code::IdempotencyConflict, detail));
            }
            return Ok(if entry.is_accepted { Memory::Accepted } else { Memory::New });
        }
        if self.ids_max == 0 {
            return Ok(Memory::New);
        }
        while state.entries.len() >= self.ids_max {
            state.evict();
        }
        state.entries.insert(id.to_owned(), Entry { body, expires: now + self.ttl, is_accepted: false });
        state.order.push_back(id.to_owned());
        Ok(Memory::New)
    }

    /// The call was accepted: repeats need not be made.
    pub(crate) fn accept(&self, id: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = state.entries.get_mut(id) {
            entry.is_accepted = true;
        }
    }

    /// How many ids are remembered, and how many were forgotten early.
    pub(crate) fn counts(&self) -> (usize, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.entries.len(), state.evicted)
    }
}

impl State {
    fn forget(&mut self, now: Instant) {
        while let Some(id) = self.order.front()
            && self.entries.get(id).is_none_or(|entry| entry.expires <= now)
        {
            self.entries.remove(id);
            self.order.pop_front();
        }
    }

    fn evict(&mut self) {
        match self.order.pop_front() {
            Some(id) => {
                self.entries.remove(&id);
                self.evicted += 1;
            }
            // Every entry has a place in the order.
            None => self.entries.clear(),
        }
    }
}

/// What tells one body from another: everything that a call asks for, whatever order its fields had.
pub(crate) fn fingerprint(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    #[test]
    fn an_id_depends_on_caller_namespace_and_key() {
        let ids = [
            message_id("key:a", "/", "k"),
            message_id("key:b", "/", "k"),
            message_id("key:a", "/x", "k"),
            message_id("key:a", "/", "kk"),
            message_id("key:a/", "", "k"),
        ];
        assert_eq!(ids[0], message_id("key:a", "/", "k"));
        let mut different = ids.to_vec();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), ids.len());
        assert!(ids.iter().all(|id| id.len() == 24));
    }

    #[test]
    fn a_repeat_is_known_once_it_was_accepted() {
        let (memories, now) = (Memories::new(10, TTL), Instant::now());
        assert_eq!(memories.begin("a", [1; 32], now), Ok(Memory::New));
        assert_eq!(memories.begin("a", [1; 32], now), Ok(Memory::New));
        assert_eq!(memories.begin("a", [2; 32], now).unwrap_err().code, Code::IdempotencyConflict);
        memories.accept("a");
        assert_eq!(memories.begin("a", [1; 32], now), Ok(Memory::Accepted));
        assert_eq!(memories.begin("a", [2; 32], now).unwrap_err().code, Code::IdempotencyConflict);
        assert_eq!(memories.begin("a", [2; 32], now + TTL), Ok(Memory::New));
    }

    #[test]
    fn the_oldest_go_first() {
        let (memories, now) = (Memories::new(2, TTL), Instant::now());
        for id in ["a", "b", "c"] {
            assert_eq!(memories.begin(id, [1; 32], now), Ok(Memory::New));
        }
        assert_eq!(memories.counts(), (2, 1));
        assert_eq!(memories.begin("a", [2; 32], now), Ok(Memory::New), "it is forgotten");
        assert_eq!(memories.begin("c", [2; 32], now).unwrap_err().code, Code::IdempotencyConflict);
        let none = Memories::new(0, TTL);
        assert_eq!(none.begin("a", [1; 32], now), Ok(Memory::New));
        assert_eq!(none.counts(), (0, 0));
    }

    #[test]
    fn keys_are_bounded() {
        assert!(check_key("k").is_ok() && check_key(&"k".repeat(255)).is_ok());
        assert!(check_key("").is_err() && check_key(&"k".repeat(256)).is_err());
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"a", b"bc"]));
    }
}
