//! Publishes that the broker has not confirmed yet.
//!
//! Each is sent once, in order, and its outcome is told once: when the broker answers, or when it has not answered in
//! time. What it occupies is given back only when the broker has answered or the connection is gone, so that a broker
//! that is slow cannot make memory grow.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::{Event, PublishError};

/// The publishes of one connection.
#[derive(Debug)]
pub struct Window {
    timeout: Duration,
    deadlines: VecDeque<(Instant, u64)>,
    open: HashMap<u64, Open>,
}

/// A publish that is not answered in full.
#[derive(Debug)]
struct Open {
    parts: usize,
    /// What the answered parts came to.
    outcome: Result<(), PublishError>,
    /// The engine knows the outcome already.
    told: bool,
}

impl Window {
    /// An empty window; whoever has no answer after `timeout` is told that the outcome is unknown.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, deadlines: VecDeque::new(), open: HashMap::new() }
    }

    /// Notes a publish that was sent in so many parts, each of which will be answered.
    pub fn push(&mut self, now: Instant, number: u64, parts: usize, told: &mut Vec<Event>) {
        if parts == 0 {
            told.extend([Event::Published { number, outcome: Ok(()) }, Event::Released { number }]);
            return;
        }
        self.open.insert(number, Open { parts, outcome: Ok(()), told: false });
        self.deadlines.push_back((now + self.timeout, number));
    }

    /// Whether every publish was answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// One part was answered.
    pub fn handle_answer(&mut self, number: u64, outcome: Result<(), PublishError>, told: &mut Vec<Event>) {
        let Some(open) = self.open.get_mut(&number) else { return };
        open.parts -= 1;
        if outcome.is_err() && open.outcome.is_ok() {
            open.outcome = outcome;
        }
        if open.parts > 0 {
            return;
        }
        if let Some(open) = self.open.remove(&number) {
            if !open.told {
                told.push(Event::Published { number, outcome: open.outcome });
            }
            told.push(Event::Released { number });
        }
        // Answers mostly come in order, so the deadlines behind them go with them.
        while self.deadlines.pop_front_if(|(_, number)| !self.open.contains_key(number)).is_some() {}
    }

    /// When [`Window::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant, told: &mut Vec<Event>) {
        while let Some((_, number)) = self.deadlines.pop_front_if(|(deadline, _)| *deadline <= now) {
            if let Some(open) = self.open.get_mut(&number)
                && !std::mem::replace(&mut open.told, true)
            {
                told.push(Event::Published { number, outcome: Err(PublishError::Unknown) });
            }
        }
    }

    /// The connection is gone: what was under way is undecided.
    pub fn abandon(&mut self, told: &mut Vec<Event>) {
        self.deadlines.clear();
        for (number, open) in std::mem::take(&mut self.open) {
            if !open.told {
                told.push(Event::Published { number, outcome: Err(PublishError::Unknown) });
            }
            told.push(Event::Released { number });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);

    fn window() -> (Window, Instant) {
        (Window::new(TIMEOUT), Instant::now())
    }

    fn push(window: &mut Window, now: Instant, number: u64, parts: usize) -> Vec<Event> {
        let mut told = Vec::new();
        window.push(now, number, parts, &mut told);
        told
    }

    fn answer(window: &mut Window, number: u64, outcome: Result<(), PublishError>) -> Vec<Event> {
        let mut told = Vec::new();
        window.handle_answer(number, outcome, &mut told);
        told
    }

    fn pass(window: &mut Window, now: Instant) -> Vec<Event> {
        let mut told = Vec::new();
        window.handle_timeout(now, &mut told);
        told
    }

    fn check(told: &[Event], published: Option<Result<(), PublishError>>, is_released: bool) {
        let outcome = told.iter().find_map(|event| {
            let Event::Published { outcome, .. } = event else { return None };
            Some(outcome.clone())
        });
        assert_eq!(outcome, published, "{told:?}");
        let released = told.iter().any(|event| matches!(event, Event::Released { .. }));
        assert_eq!(released, is_released, "{told:?}");
    }

    #[test]
    fn an_answer_is_told_and_frees_its_place() {
        let (mut window, now) = window();
        check(&push(&mut window, now, 1, 1), None, false);
        assert!(!window.is_empty());
        check(&answer(&mut window, 1, Ok(())), Some(Ok(())), true);
        assert!(window.is_empty() && window.poll_timeout().is_none());
        check(&answer(&mut window, 1, Ok(())), None, false);
    }

    #[test]
    fn a_late_answer_changes_nothing_that_was_told() {
        let (mut window, now) = window();
        push(&mut window, now, 1, 1);
        assert_eq!(window.poll_timeout(), Some(now + TIMEOUT));
        // Its place is not free before the answer has come.
        check(&pass(&mut window, now + TIMEOUT), Some(Err(PublishError::Unknown)), false);
        check(&pass(&mut window, now + TIMEOUT), None, false);
        check(&answer(&mut window, 1, Ok(())), None, true);
    }

    #[test]
    fn several_parts_have_one_outcome() {
        let (mut window, now) = window();
        push(&mut window, now, 7, 2);
        let refusal = Err(PublishError::Refused("no".to_owned()));
        check(&answer(&mut window, 7, refusal.clone()), None, false);
        check(&answer(&mut window, 7, Ok(())), Some(refusal), true);
    }

    #[test]
    fn a_lost_connection_leaves_nothing_open() {
        let (mut window, now) = window();
        push(&mut window, now, 1, 1);
        let mut told = Vec::new();
        window.abandon(&mut told);
        check(&told, Some(Err(PublishError::Unknown)), true);
        told.clear();
        window.abandon(&mut told);
        assert!(told.is_empty() && window.is_empty());
    }

    #[test]
    fn nothing_to_send_is_done_at_once() {
        let (mut window, now) = window();
        check(&push(&mut window, now, 1, 0), Some(Ok(())), true);
        assert!(window.is_empty());
    }
}
