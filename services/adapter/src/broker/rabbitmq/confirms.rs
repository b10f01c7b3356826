//! Publishes whose confirms are futures of the client.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use crate::broker::window::Window;
use crate::broker::{Event, PublishError};

/// The answer to one publish.
pub(super) type Confirm = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send>>;

type Numbered = Pin<Box<dyn Future<Output = (u64, Result<(), PublishError>)> + Send>>;

/// The publishes of one connection.
pub(super) struct Confirms {
    window: Window,
    under_way: FuturesUnordered<Numbered>,
    /// What was told while it was sent.
    told: Vec<Event>,
}

impl Confirms {
    /// None; whoever has no answer after `timeout` is told that the outcome is unknown.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { window: Window::new(timeout), under_way: FuturesUnordered::new(), told: Vec::new() }
    }

    /// Sends the parts of one publish. Each is polled once here, in order, so that they leave in order.
    pub(super) fn push(&mut self, number: u64, parts: impl Iterator<Item = Confirm>) {
        let mut count = 0;
        for mut part in parts {
            count += 1;
            let ready = match part.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(outcome) => Box::pin(std::future::ready((number, outcome))) as Numbered,
                Poll::Pending => Box::pin(async move { (number, part.await) }),
            };
            self.under_way.push(ready);
        }
        self.window.push(Instant::now().into_std(), number, count, &mut self.told);
    }

    /// Whether every publish was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Waits for the next answer or deadline; what the engine is to be told. Pending while there is nothing to wait for.
    /// A call that is given up has changed nothing.
    pub(super) async fn next(&mut self) -> Vec<Event> {
        if !self.told.is_empty() {
            return std::mem::take(&mut self.told);
        }
        let deadline = self.window.poll_timeout();
        let timer = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let mut told = Vec::new();
        tokio::select! {
            biased;
            Some((number, outcome)) = self.under_way.next() => {
                self.window.handle_answer(number, outcome, &mut told);
            }
            () = timer => self.window.handle_timeout(Instant::now().into_std(), &mut told),
        }
        told
    }

    /// The connection is gone: what was under way is undecided.
    pub(super) fn abandon(&mut self) -> Vec<Event> {
        self.under_way.clear();
        let mut told = std::mem::take(&mut self.told);
        self.window.abandon(&mut told);
        told
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn answer(receiver: oneshot::Receiver<Result<(), PublishError>>) -> Confirm {
        Box::pin(async move { receiver.await.unwrap_or(Err(PublishError::Unknown)) })
    }

    fn outcomes(told: &[Event]) -> Vec<Result<(), PublishError>> {
        let outcome = |event: &Event| {
            let Event::Published { outcome, .. } = event else { return None };
            Some(outcome.clone())
        };
        told.iter().filter_map(outcome).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_told_and_a_late_one_is_not() {
        let mut confirms = Confirms::new(Duration::from_secs(2));
        let (one, first) = oneshot::channel();
        let (two, second) = oneshot::channel();
        confirms.push(1, std::iter::once(answer(first)));
        confirms.push(2, std::iter::once(answer(second)));
        one.send(Ok(())).unwrap();
        assert_eq!(outcomes(&confirms.next().await), [Ok(())]);
        // Time passes by itself where nothing else can happen.
        assert_eq!(outcomes(&confirms.next().await), [Err(PublishError::Unknown)]);
        two.send(Ok(())).unwrap();
        assert!(matches!(&*confirms.next().await, [Event::Released { number: 2 }]));
        assert!(confirms.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_to_send_is_done_at_once() {
        let mut confirms = Confirms::new(Duration::from_secs(2));
        confirms.push(1, std::iter::empty());
        assert_eq!(outcomes(&confirms.next().await), [Ok(())]);
        assert!(confirms.abandon().is_empty());
    }
}
