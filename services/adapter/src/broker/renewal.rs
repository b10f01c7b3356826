//! The renewal of a connection: one life after the other, for ever.

use std::time::Duration;

use cluster_proto::identity::NodeId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::event::EventSink;
use super::{Command, Event, PublishError};

/// A connection that has held for so long does not count as one more failure when it is lost.
pub const STEADY: Duration = Duration::from_secs(2);

/// What became of one life of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It is to be renewed; why it was lost, for the log.
    Lost(String),
    /// The adapter closes.
    Closed,
}

/// A connection that has begun.
#[derive(Debug)]
pub struct Opened<C> {
    /// The connection.
    pub connection: C,
    /// The node id that is claimed.
    pub node: NodeId,
    /// Where it leads, `host:port`.
    pub at: String,
}

/// A kind of connection, whose every life begins anew: nothing queued, nothing repeated, no subscription left over.
pub trait Lives: Send + Sync {
    /// One life.
    type Connection: Send;

    /// Connects and claims the node id that was held before, or else a free one. An error says where and why.
    fn open(
        &self,
        held: Option<NodeId>,
        events: &EventSink,
    ) -> impl Future<Output = Result<Opened<Self::Connection>, String>> + Send;

    /// Does what it is told until the connection is lost or the adapter closes, and gives the connection up.
    fn serve(
        &self,
        connection: Self::Connection,
        node: NodeId,
        commands: &mut mpsc::Receiver<Command>,
        events: &EventSink,
    ) -> impl Future<Output = End> + Send;
}

/// Renews connections until the adapter closes.
pub async fn keep<L: Lives>(lives: L, seed: u64, mut commands: mpsc::Receiver<Command>, events: EventSink) {
    let mut backoff = Backoff::new(seed);
    let mut held = None;
    loop {
        let opened = tokio::select! {
            opened = lives.open(held, &events) => opened,
            () = refuse(&mut commands, &events) => return,
        };
        let reason = match opened {
            Ok(Opened { connection, node, at }) => {
                held = Some(node);
                events.tell(Event::Up { node, at: at.clone() }).await;
                let began = Instant::now();
                let end = lives.serve(connection, node, &mut commands, &events).await;
                if began.elapsed() >= STEADY {
                    backoff.reset();
                }
                match end {
                    End::Closed => return,
                    End::Lost(reason) => format!("{at}: {reason}"),
                }
            }
            Err(reason) => reason,
        };
        events.tell(Event::Down { reason }).await;
        tokio::select! {
            () = sleep(backoff.wait()) => {}
            () = refuse(&mut commands, &events) => return,
        }
    }
}

/// Answers commands while there is no connection; returns when the adapter closes.
pub(super) async fn refuse(commands: &mut mpsc::Receiver<Command>, events: &EventSink) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Close => return,
            Command::Publish { mut publish, .. } => {
                tell_all(events, publish.tell(Err(PublishError::Away))).await;
            }
            Command::Count { number, .. } => {
                events.tell(Event::Counted { number, listeners: None }).await;
            }
            // The engine wants all of it anew once it hears of the next life.
            Command::Subscribe { .. } | Command::Unsubscribe(_) => {}
        }
    }
}

/// Tells the engine several things in their order.
pub(super) async fn tell_all(events: &EventSink, told: impl IntoIterator<Item = Event>) {
    for event in told {
        events.tell(event).await;
    }
}

/// A task that ends with its connection.
#[derive(Debug)]
pub(super) struct Bound<T>(pub(super) tokio::task::JoinHandle<T>);

impl<T> Drop for Bound<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::broker::event;

    /// Lives of so long each.
    struct Short(Duration, Arc<AtomicU32>);

    impl Lives for Short {
        type Connection = ();

        async fn open(&self, _: Option<NodeId>, _: &EventSink) -> Result<Opened<()>, String> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Ok(Opened { connection: (), node: NodeId::from_bytes([1, 2, 3]), at: "here".to_owned() })
        }

        async fn serve(&self, (): (), _: NodeId, _: &mut mpsc::Receiver<Command>, _: &EventSink) -> End {
            sleep(self.0).await;
            End::Lost("refused".to_owned())
        }
    }

    async fn lives_in_a_minute(each: Duration) -> u32 {
        let count = Arc::new(AtomicU32::new(0));
        let (_commands, receiver) = mpsc::channel(1);
        let (sink, mut source) = event::queue(1_000, Arc::default());
        let drain = async { while source.next().await.is_some() {} };
        let run = keep(Short(each, count.clone()), 1, receiver, sink);
        let both = async { tokio::join!(run, drain) };
        assert!(tokio::time::timeout(Duration::from_secs(60), both).await.is_err());
        count.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_life_that_has_held_is_renewed_at_once() {
        let refused = lives_in_a_minute(Duration::from_millis(1)).await;
        assert!((30..70).contains(&refused), "{refused}");
        let lost = lives_in_a_minute(STEADY).await;
        assert!((28..=30).contains(&lost), "{lost}");
    }
}
