//! A publish from the moment it is ordered until the broker has answered: what it occupies, and who waits for its outcome.
//!
//! It travels with its messages, from the thread that wants it to the connection, and is told its outcome once. What it
//! occupies is given back when it is dropped, wherever that happens.

use std::sync::Arc;

use cluster_proto::identity::RequestId;
use tokio::sync::oneshot;

use super::{Event, PublishError};
use crate::metrics::Metrics;

/// How a publish ended.
pub type Outcome = Result<(), PublishError>;

/// The bytes that all publishes of a node may occupy together.
#[derive(Debug)]
pub struct Budget {
    bytes_max: u64,
    /// Its `publish_bytes` is the sum.
    metrics: Arc<Metrics>,
}

impl Budget {
    /// A budget of which nothing is taken.
    #[must_use]
    pub fn new(bytes_max: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { bytes_max: bytes_max as u64, metrics })
    }

    /// A publish of about so many bytes, if there is room for it. An empty budget takes one of any size.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Publish> {
        let publish = self.publish(bytes as u64);
        let before = self.metrics.publish_bytes.raise(publish.bytes);
        // What is not kept gives back what it took.
        (before == 0 || before.saturating_add(publish.bytes) <= self.bytes_max).then_some(publish)
    }

    /// A publish that takes nothing and whose outcome is of no interest: a heartbeat.
    #[must_use]
    pub fn unattended(self: &Arc<Self>) -> Publish {
        let mut publish = self.publish(0);
        publish.is_told = true;
        publish
    }

    fn publish(self: &Arc<Self>, bytes: u64) -> Publish {
        Publish { budget: self.clone(), bytes, confirm: None, request: None, is_told: false }
    }
}

/// One publish under way.
#[derive(Debug)]
pub struct Publish {
    budget: Arc<Budget>,
    bytes: u64,
    confirm: Option<oneshot::Sender<Outcome>>,
    request: Option<RequestId>,
    is_told: bool,
}

impl Publish {
    /// Says what its messages occupy, if that is more than was reserved: several may hold the same event.
    pub fn weigh(&mut self, bytes: u64) {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        self.budget.metrics.publish_bytes.raise(more);
    }

    /// Names somebody who waits for the outcome.
    #[must_use]
    pub fn confirmed_to(mut self, confirm: Option<oneshot::Sender<Outcome>>) -> Self {
        self.confirm = confirm;
        self
    }

    /// Names the request that it carries: if it fails, nobody is going to answer.
    #[must_use]
    pub fn asking(mut self, request: RequestId) -> Self {
        self.request = Some(request);
        self
    }

    /// Tells whoever waits that it does not even begin.
    pub fn decline(&mut self, error: PublishError) {
        self.is_told = true;
        if let Some(confirm) = self.confirm.take() {
            // Whoever has asked may have given up.
            let _ = confirm.send(Err(error));
        }
    }

    /// Tells the outcome; only the first one counts. What the engine is to be told of it.
    pub fn tell(&mut self, outcome: Outcome) -> Option<Event> {
        if std::mem::replace(&mut self.is_told, true) {
            return None;
        }
        let failed = outcome.as_ref().err().map(|error| {
            self.budget.metrics.publish_failed.add(1);
            tracing::debug!(%error, "a message was not published");
        });
        if let Some(confirm) = self.confirm.take() {
            // Whoever has asked may have given up.
            let _ = confirm.send(outcome);
        }
        let request = self.request.take();
        failed.and(request).map(Event::Unpublished)
    }
}

impl Drop for Publish {
    fn drop(&mut self) {
        self.budget.metrics.publish_bytes.lower(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_budget_takes_nothing_and_an_empty_one_anything() {
        let metrics = Arc::new(Metrics::default());
        let budget = Budget::new(100, metrics.clone());
        let large = budget.reserve(1_000).unwrap();
        assert!(budget.reserve(1).is_none());
        assert_eq!(metrics.publish_bytes.get(), 1_000, "what is refused takes nothing");
        drop(budget.unattended());
        drop(large);
        let fits = [60, 40].map(|bytes| budget.reserve(bytes).unwrap());
        assert!(budget.reserve(1).is_none());
        drop(fits);
        assert_eq!(metrics.publish_bytes.get(), 0);
    }

    #[test]
    fn the_first_outcome_counts() {
        let metrics = Arc::new(Metrics::default());
        let budget = Budget::new(100, metrics.clone());
        let (sender, mut receiver) = oneshot::channel();
        let request = RequestId::from_bytes([7; 12]);
        let mut publish = budget.reserve(1).unwrap().confirmed_to(Some(sender)).asking(request.clone());
        let told = publish.tell(Err(PublishError::Unknown));
        assert!(matches!(told, Some(Event::Unpublished(failed)) if failed == request));
        assert!(publish.tell(Ok(())).is_none() && publish.tell(Err(PublishError::Away)).is_none());
        assert_eq!(receiver.try_recv(), Ok(Err(PublishError::Unknown)));
        assert_eq!(metrics.publish_failed.get(), 1);
        budget.unattended().tell(Err(PublishError::Away));
        let (sender, mut receiver) = oneshot::channel();
        budget.reserve(1).unwrap().confirmed_to(Some(sender)).decline(PublishError::TooManyRequests);
        assert_eq!(receiver.try_recv(), Ok(Err(PublishError::TooManyRequests)));
        assert_eq!(metrics.publish_failed.get(), 1, "neither was a publish that failed");
    }
}
