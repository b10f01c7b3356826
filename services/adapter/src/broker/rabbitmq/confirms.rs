//! Publishes whose confirms are futures of the client.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use crate::broker::Event;
use crate::broker::publish::{Outcome, Publish};
use crate::broker::window::Window;

/// The answer to one publish.
pub(super) type Confirm = Pin<Box<dyn Future<Output = Outcome> + Send>>;

type Numbered = Pin<Box<dyn Future<Output = (u64, Outcome)> + Send>>;

/// The publishes of one connection.
pub(super) struct Confirms {
    window: Window,
    under_way: FuturesUnordered<Numbered>,
}

impl Confirms {
    /// None; whoever has no answer after `timeout` is told that the outcome is unknown.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { window: Window::new(timeout), under_way: FuturesUnordered::new() }
    }

    /// Sends the parts of one publish. Each is polled once here, in order, so that they leave in order.
    pub(super) fn push(&mut self, publish: Publish, parts: impl ExactSizeIterator<Item = Confirm>) {
        let number = self.window.push(Instant::now().into_std(), publish, parts.len());
        for mut part in parts {
            let ready = match part.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(outcome) => Box::pin(std::future::ready((number, outcome))) as Numbered,
                Poll::Pending => Box::pin(async move { (number, part.await) }),
            };
            self.under_way.push(ready);
        }
    }

    /// Whether every publish was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Waits for the next answer or deadline; what the engine is to be told. Pending while there is nothing to wait for.
    /// A call that is given up has changed nothing.
    pub(super) async fn next(&mut self) -> Vec<Event> {
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
        let mut told = Vec::new();
        self.window.abandon(&mut told);
        told
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;
    use crate::broker::PublishError;
    use crate::broker::publish::Budget;

    fn answer(receiver: oneshot::Receiver<Outcome>) -> Confirm {
        Box::pin(async move { receiver.await.unwrap_or(Err(PublishError::Unknown)) })
    }

    fn publish() -> (Publish, oneshot::Receiver<Outcome>) {
        let (sender, outcome) = oneshot::channel();
        let publish = Budget::new(1_000, Arc::default()).reserve(1).unwrap();
        (publish.confirmed_to(Some(sender)), outcome)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_told_and_a_late_one_is_not() {
        let mut confirms = Confirms::new(Duration::from_secs(2));
        let [(one, mut first), (two, mut second)] = [publish(), publish()];
        let (answer_one, confirm_one) = oneshot::channel();
        let (answer_two, confirm_two) = oneshot::channel();
        confirms.push(one, std::iter::once(answer(confirm_one)));
        confirms.push(two, std::iter::once(answer(confirm_two)));
        answer_one.send(Ok(())).unwrap();
        confirms.next().await;
        assert_eq!(first.try_recv(), Ok(Ok(())));
        // Time passes by itself where nothing else can happen.
        confirms.next().await;
        assert_eq!(second.try_recv(), Ok(Err(PublishError::Unknown)));
        answer_two.send(Ok(())).unwrap();
        assert!(!confirms.is_empty());
        confirms.next().await;
        assert!(confirms.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_to_send_is_done_at_once() {
        let mut confirms = Confirms::new(Duration::from_secs(2));
        let (publish, mut outcome) = publish();
        confirms.push(publish, std::iter::empty());
        assert_eq!(outcome.try_recv(), Ok(Ok(())));
        assert!(confirms.abandon().is_empty());
    }
}
