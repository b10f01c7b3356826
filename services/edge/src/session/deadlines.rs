//! When a session is to be looked at again: its heartbeat, its application's deadline, a stalled outbox.

use std::time::Instant;

use super::registry::{SessionKey, Sessions};
use crate::outbox::slow_consumer;

impl<S> Sessions<S> {
    /// Sets the application's own deadline for a session.
    pub fn set_deadline(&mut self, key: SessionKey, deadline: Option<Instant>) {
        if let Some(session) = self.get_mut(key) {
            session.app_deadline = deadline;
            self.arm(key);
        }
    }

    /// Makes sure that the shard's tick looks at this session by its next deadline.
    pub(crate) fn arm(&mut self, key: SessionKey) {
        let stalled_bytes_max = self.settings.slow.stalled_bytes_max;
        let stalled_max = self.settings.slow.stalled_max;
        let now = self.now;
        let Some(session) = self.get(key) else { return };
        let stalled = (session.backlog(now).bytes > stalled_bytes_max)
            .then(|| session.progress_at().map(|at| at + stalled_max))
            .flatten();
        let machine = if session.ended { None } else { session.machine.poll_timeout() };
        let Some(deadline) = [machine, session.app_deadline, stalled].into_iter().flatten().min() else {
            return;
        };
        let tick = self.timers.tick_of(deadline);
        if tick < session.armed_tick {
            self.timers.insert(tick, key);
            if let Some(session) = self.get_mut(key) {
                session.armed_tick = tick;
            }
        }
    }

    /// The sessions that the tick has to look at, tick by tick; call until `None`.
    pub(crate) fn pop_due(&mut self) -> Option<(u64, Vec<SessionKey>)> {
        self.timers.pop_due(self.now)
    }

    pub(crate) fn recycle(&mut self, tick: u64, entries: Vec<SessionKey>) {
        self.timers.recycle(tick, entries);
    }

    /// What is due for a session at this tick; the caller arms it again afterwards.
    pub(crate) fn due(&mut self, key: SessionKey, tick: u64) -> Due {
        let (now, slow) = (self.now, self.settings.slow);
        let Some(session) = self.get_mut(key) else { return Due::default() };
        if session.armed_tick != tick {
            return Due::default();
        }
        session.armed_tick = u64::MAX;
        if session.ended {
            if session.app_deadline.is_some_and(|at| at <= now) {
                self.forget_farewell(key);
            }
            return Due { session: self.get(key).is_some(), ..Due::default() };
        }
        let machine = session.machine.poll_timeout().is_some_and(|at| at <= now);
        let app = session.app_deadline.is_some_and(|at| at <= now);
        if app {
            session.app_deadline = None;
        }
        if slow_consumer::is_stalled(session.backlog(now), &slow) {
            self.close_slow(key);
            return Due { session: true, ..Due::default() };
        }
        Due { session: true, machine, app }
    }
}

/// What a tick found for one session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Due {
    /// The session is there and was waiting for this tick.
    pub(crate) session: bool,
    /// A deadline of its protocol machine is over.
    pub(crate) machine: bool,
    /// The application's deadline is over.
    pub(crate) app: bool,
}
