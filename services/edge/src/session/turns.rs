//! What happens to sessions reaches the application as turns, in one order.
//!
//! A turn is taken at once while the application is free. While it is busy with a long delivery, turns wait here,
//! and when too many bytes wait, links read no further.

use std::collections::VecDeque;

use engineio_proto::session::CloseReason;

use super::app::{Message, SessionApp, Work};
use super::drive::Core;
use super::link::LinkId;
use super::registry::SessionKey;

/// Turns taken before reads, accepts and timers get theirs.
const TURNS_PER_SLICE: usize = 256;

/// Something that happened while the application was busy.
pub(super) enum Turn<A: SessionApp> {
    Opened(SessionKey),
    Text(SessionKey, Box<str>),
    Binary(SessionKey, Box<[u8]>),
    Closed(SessionKey, CloseReason),
    Deadline(SessionKey),
    Remote(A::Remote, usize),
    Completed(A::Completion),
}

impl<A: SessionApp> std::fmt::Debug for Turn<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Turn")
    }
}

impl<A: SessionApp> Turn<A> {
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Turn::Text(_, text) => text.len(),
                Turn::Binary(_, bytes) => bytes.len(),
                Turn::Remote(_, bytes) => *bytes,
                Turn::Opened(_) | Turn::Closed(..) | Turn::Deadline(_) | Turn::Completed(_) => 0,
            }
    }
}

impl<A: SessionApp> Core<A> {
    pub(super) fn message(&mut self, key: SessionKey, message: Message<'_>) {
        if self.is_free() {
            self.app.message(&mut self.sessions, key, message);
            return;
        }
        self.push_turn(match message {
            Message::Text(text) => Turn::Text(key, text.into()),
            Message::Binary(bytes) => Turn::Binary(key, bytes.into()),
        });
    }

    /// Another shard has something to say, of about so many bytes.
    pub fn remote(&mut self, message: A::Remote, bytes: usize) {
        self.turn(Turn::Remote(message, bytes));
        self.settle();
    }

    /// A task of the application has finished.
    pub fn completed(&mut self, completion: A::Completion) {
        self.turn(Turn::Completed(completion));
        self.settle();
    }

    pub(super) fn turn(&mut self, turn: Turn<A>) {
        if self.is_free() {
            self.dispatch(turn);
        } else {
            self.push_turn(turn);
        }
    }

    pub(super) fn push_turn(&mut self, turn: Turn<A>) {
        self.turns_bytes += turn.bytes();
        self.turns.push_back(turn);
        self.sessions.metrics().turns_bytes.set(self.turns_bytes as u64);
    }

    /// Whether the application can take a call now without anything being overtaken.
    pub(super) fn is_free(&self) -> bool {
        self.turns.is_empty() && !self.app.is_busy()
    }

    pub(super) fn dispatch(&mut self, turn: Turn<A>) {
        match turn {
            Turn::Opened(key) => self.app.opened(&mut self.sessions, key),
            // Behind a violation, or a disconnect by the server, nothing of the client counts any more.
            Turn::Text(key, _) | Turn::Binary(key, _) if self.was_cut_off(key) => {}
            Turn::Text(key, text) => self.app.message(&mut self.sessions, key, Message::Text(&text)),
            Turn::Binary(key, bytes) => self.app.message(&mut self.sessions, key, Message::Binary(&bytes)),
            Turn::Closed(key, reason) => {
                if let Some(state) = self.sessions.take_state(key) {
                    self.app.closed(&mut self.sessions, key, state, reason);
                }
                self.sessions.release(key);
            }
            Turn::Deadline(key) => {
                let now = self.sessions.now();
                self.app.deadline(&mut self.sessions, key, now);
            }
            Turn::Remote(message, _) => self.app.remote(&mut self.sessions, message),
            Turn::Completed(completion) => self.app.completed(&mut self.sessions, completion),
        }
    }

    fn was_cut_off(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(|session| {
            let reason = session.machine.close_reason();
            matches!(reason, Some(CloseReason::ForcedClose | CloseReason::ForcedServerClose))
        })
    }

    /// Tells the application of the sessions that have ended.
    pub(super) fn settle(&mut self) {
        while let Some((key, reason)) = self.sessions.pop_ended() {
            self.turn(Turn::Closed(key, reason));
        }
    }

    /// Goes on with what waits: a slice of a long delivery, then some of the turns behind it. [`Work::More`] asks
    /// for another call after others had their turn.
    pub fn work(&mut self) -> Work {
        for _ in 0..TURNS_PER_SLICE {
            if self.app.is_busy() {
                let work = self.app.work(&mut self.sessions);
                self.settle();
                if work == Work::More {
                    return Work::More;
                }
                if self.app.is_busy() {
                    // It waits for something that comes from outside, and with that another call.
                    return Work::Done;
                }
            }
            let Some(turn) = self.turns.pop_front() else {
                return self.finish();
            };
            self.turns_bytes = self.turns_bytes.saturating_sub(turn.bytes());
            self.dispatch(turn);
            self.settle();
        }
        self.sessions.metrics().turns_bytes.set(self.turns_bytes as u64);
        if self.turns_bytes < self.turns_bytes_max / 2 {
            self.resume_links();
        }
        Work::More
    }

    /// Wakes the links that had to wait for turns to be worked off.
    fn resume_links(&mut self) {
        for (key, id) in std::mem::take(&mut self.held_back) {
            if let Some(link) = self.sessions.link_mut(key, id) {
                link.wake();
            }
        }
    }

    /// No turn waits any more: what the application has collected goes out, and links may be read again.
    fn finish(&mut self) -> Work {
        self.sessions.metrics().turns_bytes.set(0);
        self.resume_links();
        self.turns = VecDeque::new();
        if !self.app.has_work() {
            return Work::Done;
        }
        let work = self.app.work(&mut self.sessions);
        self.settle();
        if work == Work::More || self.has_work() { Work::More } else { Work::Done }
    }

    /// Whether [`Core::work`] has something to do.
    pub fn has_work(&self) -> bool {
        self.app.has_work() || (!self.turns.is_empty() && !self.app.is_busy())
    }

    /// Whether so many turns wait that nothing more should be brought in.
    pub fn is_full(&self) -> bool {
        self.turns_bytes > self.turns_bytes_max
    }

    /// Whether a link may read on; if not, its task is woken when it may.
    pub fn may_read(&mut self, key: SessionKey, id: LinkId) -> bool {
        if self.is_full() {
            self.held_back.insert((key, id));
            return false;
        }
        !self.sessions.is_paused(key)
    }
}
