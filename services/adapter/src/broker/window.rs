//! Publishes that the broker has not confirmed yet.
//!
//! Each is sent once, in order, and is told its outcome once: when the broker answers, or when it has not answered in
//! time. What it occupies is given back only when the broker has answered or the connection is gone, so that a broker
//! that is slow cannot make memory grow.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::publish::{Outcome, Publish};
use super::{Event, PublishError};

/// The publishes of one connection.
#[derive(Debug)]
pub struct Window {
    timeout: Duration,
    deadlines: VecDeque<(Instant, u64)>,
    open: HashMap<u64, Open>,
    next_number: u64,
}

/// A publish that is not answered in full.
#[derive(Debug)]
struct Open {
    parts: usize,
    /// What the answered parts came to.
    outcome: Outcome,
    publish: Publish,
}

impl Window {
    /// An empty window; whoever has no answer after `timeout` is told that the outcome is unknown.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, deadlines: VecDeque::new(), open: HashMap::new(), next_number: 0 }
    }

    /// Notes a publish that is sent in so many parts, each of which will be answered; the number that they are known by.
    pub fn push(&mut self, now: Instant, mut publish: Publish, parts: usize) -> u64 {
        self.next_number += 1;
        if parts == 0 {
            // It is no failure, so there is nothing to tell the engine.
            publish.tell(Ok(()));
        } else {
            self.open.insert(self.next_number, Open { parts, outcome: Ok(()), publish });
            self.deadlines.push_back((now + self.timeout, self.next_number));
        }
        self.next_number
    }

    /// Whether every publish was answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// One part was answered.
    pub fn handle_answer(&mut self, number: u64, outcome: Outcome, told: &mut Vec<Event>) {
        let Some(open) = self.open.get_mut(&number) else { return };
        open.parts -= 1;
        if outcome.is_err() && open.outcome.is_ok() {
            open.outcome = outcome;
        }
        if open.parts > 0 {
            return;
        }
        if let Some(mut open) = self.open.remove(&number) {
            told.extend(open.publish.tell(open.outcome));
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
            if let Some(open) = self.open.get_mut(&number) {
                told.extend(open.publish.tell(Err(PublishError::Unknown)));
            }
        }
    }

    /// The connection is gone: what was under way is undecided.
    pub fn abandon(&mut self, told: &mut Vec<Event>) {
        self.deadlines.clear();
        for mut open in std::mem::take(&mut self.open).into_values() {
            told.extend(open.publish.tell(Err(PublishError::Unknown)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cluster_proto::identity::RequestId;
    use tokio::sync::oneshot;

    use super::*;
    use crate::broker::publish::Budget;
    use crate::metrics::Metrics;

    const TIMEOUT: Duration = Duration::from_secs(2);

    /// A window, and one publish in it.
    struct Case {
        window: Window,
        now: Instant,
        number: u64,
        told: Vec<Event>,
        metrics: Arc<Metrics>,
        outcome: oneshot::Receiver<Outcome>,
    }

    impl Case {
        fn new(parts: usize) -> Self {
            let (metrics, now) = (Arc::new(Metrics::default()), Instant::now());
            let (sender, outcome) = oneshot::channel();
            let publish = Budget::new(1_000, metrics.clone()).reserve(1).unwrap();
            let publish = publish.confirmed_to(Some(sender)).asking(RequestId::from_bytes([1; 12]));
            let mut window = Window::new(TIMEOUT);
            let number = window.push(now, publish, parts);
            Self { window, now, number, told: Vec::new(), metrics, outcome }
        }

        fn answer(&mut self, outcome: Outcome) {
            self.window.handle_answer(self.number, outcome, &mut self.told);
        }

        fn time_out(&mut self) {
            self.window.handle_timeout(self.now + TIMEOUT, &mut self.told);
        }

        /// What was told since the last time, and whether what it occupied was given back.
        fn check(&mut self, outcome: Option<Outcome>, is_released: bool) {
            assert_eq!(self.outcome.try_recv().ok(), outcome);
            assert_eq!(self.metrics.publish_bytes.get() == 0, is_released);
            assert_eq!(self.window.is_empty(), is_released);
            let failed = matches!(&*std::mem::take(&mut self.told), [Event::Unpublished(_)]);
            assert_eq!(failed, outcome.is_some_and(|outcome| outcome.is_err()));
        }
    }

    #[test]
    fn an_answer_is_told_and_frees_its_place() {
        let mut case = Case::new(1);
        case.check(None, false);
        case.answer(Ok(()));
        assert!(case.window.poll_timeout().is_none());
        case.check(Some(Ok(())), true);
        case.answer(Ok(()));
        case.check(None, true);
    }

    #[test]
    fn a_late_answer_changes_nothing_that_was_told() {
        let mut case = Case::new(1);
        case.time_out();
        // Its place is not free before the answer has come.
        case.check(Some(Err(PublishError::Unknown)), false);
        case.time_out();
        case.check(None, false);
        case.answer(Ok(()));
        case.check(None, true);
    }

    #[test]
    fn several_parts_have_one_outcome() {
        let mut case = Case::new(2);
        let refusal = Err(PublishError::Refused("no".to_owned()));
        case.answer(refusal.clone());
        case.check(None, false);
        case.answer(Ok(()));
        case.check(Some(refusal), true);
    }

    #[test]
    fn a_lost_connection_leaves_nothing_open() {
        let mut case = Case::new(1);
        case.window.abandon(&mut case.told);
        case.check(Some(Err(PublishError::Unknown)), true);
        case.window.abandon(&mut case.told);
        case.check(None, true);
    }

    #[test]
    fn nothing_to_send_is_done_at_once() {
        let mut case = Case::new(0);
        case.check(Some(Ok(())), true);
    }
}
