//! Publishes that the broker has not confirmed yet.
//!
//! Each is sent once, in order, and its outcome is told once: when the broker answers, or when it has not answered in
//! time. What it occupies is given back only when the broker has answered or the connection is gone, so that a broker
//! that is slow cannot make memory grow.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{Event, PublishError};

/// The answer to one publish.
pub type Confirm = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send>>;

type Numbered = Pin<Box<dyn Future<Output = (u64, Result<(), PublishError>)> + Send>>;

/// The publishes of one connection.
pub struct Window {
    timeout: Duration,
    under_way: FuturesUnordered<Numbered>,
    deadlines: VecDeque<(Instant, u64)>,
    open: HashMap<u64, Open>,
}

/// A publish that is not answered in full.
struct Open {
    parts: usize,
    /// What the answered parts came to.
    outcome: Result<(), PublishError>,
    /// The engine knows the outcome already.
    told: bool,
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window").field("open", &self.open.len()).finish_non_exhaustive()
    }
}

impl Window {
    /// An empty window; whoever has no answer after `timeout` is told that the outcome is unknown.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, under_way: FuturesUnordered::new(), deadlines: VecDeque::new(), open: HashMap::new() }
    }

    /// Sends the parts of one publish. Each is polled once here, in order, so that they leave in order.
    pub fn push(&mut self, number: u64, parts: impl Iterator<Item = Confirm>) {
        let mut count = 0;
        for mut part in parts {
            count += 1;
            let ready = match part.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(outcome) => Box::pin(std::future::ready((number, outcome))) as Numbered,
                Poll::Pending => Box::pin(async move { (number, part.await) }),
            };
            self.under_way.push(ready);
        }
        if count == 0 {
            self.under_way.push(Box::pin(std::future::ready((number, Ok(())))));
        }
        self.open.insert(number, Open { parts: count.max(1), outcome: Ok(()), told: false });
        self.deadlines.push_back((Instant::now() + self.timeout, number));
    }

    /// Whether every publish was answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Waits for the next answer or deadline; what the engine is to be told. Pending while there is nothing to wait for.
    /// A call that is given up has changed nothing.
    pub async fn next(&mut self) -> Vec<Event> {
        let deadline = self.deadlines.front().map(|(deadline, _)| *deadline);
        let timer = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((number, outcome)) = self.under_way.next() => self.answered(number, outcome),
            () = timer => self.passed(),
        }
    }

    /// The connection is gone: what was under way is undecided.
    pub fn abandon(&mut self) -> Vec<Event> {
        self.under_way.clear();
        self.deadlines.clear();
        let mut told = Vec::new();
        for (number, open) in std::mem::take(&mut self.open) {
            if !open.told {
                told.push(Event::Published { number, outcome: Err(PublishError::Unknown) });
            }
            told.push(Event::Released { number });
        }
        told
    }

    fn answered(&mut self, number: u64, outcome: Result<(), PublishError>) -> Vec<Event> {
        let Some(open) = self.open.get_mut(&number) else { return Vec::new() };
        open.parts -= 1;
        if outcome.is_err() && open.outcome.is_ok() {
            open.outcome = outcome;
        }
        if open.parts > 0 {
            return Vec::new();
        }
        let mut told = Vec::new();
        if let Some(open) = self.open.remove(&number) {
            if !open.told {
                told.push(Event::Published { number, outcome: open.outcome });
            }
            told.push(Event::Released { number });
        }
        // Answers mostly come in order, so the deadlines behind them go with them.
        while self.deadlines.pop_front_if(|(_, number)| !self.open.contains_key(number)).is_some() {}
        told
    }

    fn passed(&mut self) -> Vec<Event> {
        let now = Instant::now();
        let mut told = Vec::new();
        while let Some((_, number)) = self.deadlines.pop_front_if(|(deadline, _)| *deadline <= now) {
            if let Some(open) = self.open.get_mut(&number)
                && !std::mem::replace(&mut open.told, true)
            {
                told.push(Event::Published { number, outcome: Err(PublishError::Unknown) });
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn window() -> Window {
        Window::new(Duration::from_secs(2))
    }

    fn answer(receiver: oneshot::Receiver<Result<(), PublishError>>) -> Confirm {
        Box::pin(async move { receiver.await.unwrap_or(Err(PublishError::Unknown)) })
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

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_told_and_frees_its_place() {
        let mut window = window();
        let (sender, receiver) = oneshot::channel();
        window.push(1, std::iter::once(answer(receiver)));
        sender.send(Ok(())).unwrap();
        assert!(!window.is_empty());
        check(&window.next().await, Some(Ok(())), true);
        assert!(window.is_empty() && window.deadlines.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_changes_nothing_that_was_told() {
        let mut window = window();
        let (sender, receiver) = oneshot::channel();
        window.push(1, std::iter::once(answer(receiver)));
        // Its place is not free before the answer has come.
        check(&window.next().await, Some(Err(PublishError::Unknown)), false);
        sender.send(Ok(())).unwrap();
        check(&window.next().await, None, true);
    }

    #[tokio::test(start_paused = true)]
    async fn several_parts_have_one_outcome() {
        let mut window = window();
        let (one, first) = oneshot::channel();
        let (two, second) = oneshot::channel();
        window.push(7, [answer(first), answer(second)].into_iter());
        let refusal = Err(PublishError::Refused("no".to_owned()));
        one.send(refusal.clone()).unwrap();
        check(&window.next().await, None, false);
        two.send(Ok(())).unwrap();
        check(&window.next().await, Some(refusal), true);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_connection_leaves_nothing_open() {
        let mut window = window();
        let (_sender, receiver) = oneshot::channel();
        window.push(1, std::iter::once(answer(receiver)));
        check(&window.abandon(), Some(Err(PublishError::Unknown)), true);
        assert!(window.abandon().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_to_send_is_done_at_once() {
        let mut window = window();
        window.push(1, std::iter::empty());
        check(&window.next().await, Some(Ok(())), true);
    }
}
