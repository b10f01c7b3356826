//! The queue from a broker to the engine.
//!
//! The broker fills it and the engine empties it. What a connection has to say always finds room; messages are bounded in
//! bytes and number, and what does not fit is dropped, counted and reported as a gap: the broker must be read on, or it
//! would take this node for dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::{Delivery, Event, Gap};
use crate::metrics::Metrics;

/// Events that may wait, whatever their size.
const EVENTS_MAX: usize = 64 * 1024;
/// How many of them may not be messages.
const CONTROL_RESERVE: usize = 1024;

/// The broker's end.
#[derive(Debug, Clone)]
pub struct EventSink {
    queue: mpsc::Sender<Event>,
    waiting: Arc<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    bytes: AtomicUsize,
    bytes_max: usize,
    dropped: AtomicU64,
    metrics: Arc<Metrics>,
}

/// The engine's end.
#[derive(Debug)]
pub struct EventSource {
    queue: mpsc::Receiver<Event>,
    waiting: Arc<Waiting>,
}

/// Makes the queue; at most `bytes_max` of messages wait in it.
#[must_use]
pub fn queue(bytes_max: usize, metrics: Arc<Metrics>) -> (EventSink, EventSource) {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    let waiting =
        Arc::new(Waiting { bytes: AtomicUsize::new(0), bytes_max, dropped: AtomicU64::new(0), metrics });
    (EventSink { queue: sender, waiting: waiting.clone() }, EventSource { queue: receiver, waiting })
}

impl EventSink {
    /// Says something that must not be lost; waits while the queue is full. An engine that has ended hears nothing.
    pub async fn tell(&self, event: Event) {
        let _ = self.queue.send(event).await;
    }

    /// Counts a message that this node sent itself, instead of handing it over.
    pub fn pass_echo(&self, body_bytes: usize) {
        let metrics = &self.waiting.metrics;
        metrics.received.add(1);
        metrics.received_bytes.add(body_bytes as u64);
        metrics.echoes.add(1);
    }

    /// Hands a message over, or drops and counts it.
    pub fn deliver(&self, delivery: Delivery) {
        let bytes = delivery.bytes();
        let waiting = &self.waiting;
        let before = waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == 0 || before.saturating_add(bytes) <= waiting.bytes_max;
        if fits
            && self.queue.capacity() > CONTROL_RESERVE
            && self.queue.try_send(Event::Delivery(delivery)).is_ok()
        {
            return;
        }
        waiting.bytes.fetch_sub(bytes, Ordering::Relaxed);
        waiting.dropped.fetch_add(1, Ordering::Relaxed);
        waiting.metrics.dropped.add(1);
    }
}

impl EventSource {
    /// The next event; `None` when the broker has ended.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.queue.recv().await?;
        Some(self.took(event))
    }

    /// The next event if there is one.
    pub fn try_next(&mut self) -> Option<Event> {
        let event = self.queue.try_recv().ok()?;
        Some(self.took(event))
    }

    /// Whether messages were dropped since the gap was taken.
    #[must_use]
    pub fn has_gap(&self) -> bool {
        self.waiting.dropped.load(Ordering::Relaxed) > 0
    }

    /// The gap that dropped messages left behind, once.
    #[must_use]
    pub fn take_gap(&self) -> Option<Gap> {
        self.has_gap().then(|| Gap::Lagged(self.waiting.dropped.swap(0, Ordering::Relaxed)))
    }

    fn took(&self, event: Event) -> Event {
        if let Event::Delivery(delivery) = &event {
            self.waiting.bytes.fetch_sub(delivery.bytes(), Ordering::Relaxed);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(bytes: usize) -> Delivery {
        Delivery { key: String::new(), room_hashes: None, body: vec![0; bytes].into() }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_reported_once() {
        let (sink, mut source) = queue(10_000, Arc::default());
        for _ in 0..10 {
            sink.deliver(delivery(4_000));
        }
        assert_eq!(source.take_gap(), Some(Gap::Lagged(8)));
        assert_eq!(source.take_gap(), None);
        sink.tell(Event::Subscribed(1)).await;
        assert!(matches!(source.next().await, Some(Event::Delivery(_))));
        assert!(matches!(source.try_next(), Some(Event::Delivery(_))));
        assert!(matches!(source.try_next(), Some(Event::Subscribed(1))));
        sink.deliver(delivery(100_000));
        assert!(matches!(source.try_next(), Some(Event::Delivery(_))), "an empty queue takes any message");
    }
}
