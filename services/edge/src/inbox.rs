//! The queue in front of one shard: what the acceptor and other shards have for it.
//!
//! Others fill it, the shard empties it. It is bounded in bytes; whoever finds it full keeps its message and
//! tries again, and meanwhile reads no more from the client that caused it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::metrics::ShardMetrics;

/// Messages that may wait, whatever their size.
const MESSAGES_MAX: usize = 64 * 1024;

/// The shard's own end.
#[derive(Debug)]
pub struct Inbox<M> {
    queue: mpsc::Receiver<(M, usize)>,
    bytes: Arc<AtomicUsize>,
    metrics: Arc<ShardMetrics>,
}

/// The end that others hold.
#[derive(Debug)]
pub struct Outlet<M> {
    queue: mpsc::Sender<(M, usize)>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    metrics: Arc<ShardMetrics>,
}

impl<M> Clone for Outlet<M> {
    fn clone(&self) -> Self {
        Outlet {
            queue: self.queue.clone(),
            bytes: self.bytes.clone(),
            bytes_max: self.bytes_max,
            metrics: self.metrics.clone(),
        }
    }
}

/// Why a message was not taken; it comes back.
#[derive(Debug)]
pub enum SendError<M> {
    /// The queue is full.
    Full(M),
    /// The shard has ended.
    Closed(M),
}

/// Makes the queue of one shard.
pub fn inbox<M>(bytes_max: usize, metrics: Arc<ShardMetrics>) -> (Outlet<M>, Inbox<M>) {
    let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
    let bytes = Arc::new(AtomicUsize::new(0));
    (
        Outlet { queue: sender, bytes: bytes.clone(), bytes_max, metrics: metrics.clone() },
        Inbox { queue: receiver, bytes, metrics },
    )
}

impl<M> Outlet<M> {
    /// Puts a message of about `bytes` into the queue. An empty queue takes a message of any size.
    ///
    /// # Errors
    /// [`SendError`], with the message.
    pub fn send(&self, message: M, bytes: usize) -> Result<(), SendError<M>> {
        self.put(message, bytes, self.bytes_max)
    }

    /// As [`Outlet::send`], for what may be left out: the last fifth of the queue is kept for what may not.
    ///
    /// # Errors
    /// As [`Outlet::send`].
    pub fn offer(&self, message: M, bytes: usize) -> Result<(), SendError<M>> {
        if self.queue.capacity() < MESSAGES_MAX / 5 {
            self.metrics.inbox_full.add_shared(1);
            return Err(SendError::Full(message));
        }
        self.put(message, bytes, self.bytes_max / 5 * 4)
    }

    fn put(&self, message: M, bytes: usize, bytes_max: usize) -> Result<(), SendError<M>> {
        // Counted before it is put in, so that the number never falls below what is there.
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let refused = if waiting > 0 && waiting.saturating_add(bytes) > bytes_max {
            SendError::Full(message)
        } else {
            self.metrics.inbox_bytes.add_shared(bytes as u64);
            let refused = match self.queue.try_send((message, bytes)) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full((message, _))) => SendError::Full(message),
                Err(mpsc::error::TrySendError::Closed((message, _))) => SendError::Closed(message),
            };
            self.metrics.inbox_bytes.sub_shared(bytes as u64);
            refused
        };
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.metrics.inbox_full.add_shared(1);
        Err(refused)
    }
}

impl<M> Inbox<M> {
    /// The next message, and the bytes it was counted with; `None` when nobody is left to send one.
    pub async fn next(&mut self) -> Option<(M, usize)> {
        let (message, bytes) = self.queue.recv().await?;
        self.took(bytes);
        Some((message, bytes))
    }

    fn took(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.metrics.inbox_bytes.sub_shared(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_inbox_gives_the_message_back_until_there_is_room() {
        let (outlet, mut inbox) = inbox::<u8>(100, Arc::default());
        assert!(outlet.send(1, 1000).is_ok(), "an empty queue takes any message");
        assert!(matches!(outlet.send(2, 1), Err(SendError::Full(2))));
        assert_eq!(inbox.next().await, Some((1, 1000)));
        assert!(outlet.send(3, 60).is_ok());
        assert!(outlet.send(4, 40).is_ok());
        assert!(matches!(outlet.send(5, 1), Err(SendError::Full(5))));
        assert_eq!(inbox.next().await, Some((3, 60)));
        assert_eq!(inbox.next().await, Some((4, 40)));
        assert!(outlet.offer(7, 80).is_ok());
        assert!(matches!(outlet.offer(8, 1), Err(SendError::Full(8))), "the last fifth is kept");
        assert!(outlet.send(9, 20).is_ok(), "for what may not be left out");
        drop(inbox);
        assert!(matches!(outlet.send(6, 0), Err(SendError::Closed(6))));
    }
}
