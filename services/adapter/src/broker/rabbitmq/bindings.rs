//! Bindings and their ends, in an order in which a key that is left and wanted again ends up bound.
//!
//! To bind is urgent, because joins wait for it; to unbind is not, and takes the broker as long. So bindings go first, and
//! a key that waits for its end and is wanted again simply stays.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::QueueBindOptions;
use lapin::types::{FieldTable, ShortString};
use tokio::time::timeout;

use crate::broker::Topic;

/// Keys that are unbound at a time; bindings that come meanwhile wait for them.
const UNBIND_MAX: usize = 64;

type Step = Pin<Box<dyn Future<Output = Result<Option<u64>, String>> + Send>>;

/// The bindings of one queue.
pub(super) struct Bindings {
    channel: Channel,
    queue: ShortString,
    exchange: ShortString,
    timeout: Duration,
    binding: VecDeque<(Vec<Topic>, u64)>,
    unbinding: VecDeque<Topic>,
    under_way: Option<Step>,
}

impl Bindings {
    pub(super) fn new(channel: Channel, queue: ShortString, exchange: &str, timeout: Duration) -> Self {
        Self {
            channel,
            queue,
            exchange: exchange.into(),
            timeout,
            binding: VecDeque::new(),
            unbinding: VecDeque::new(),
            under_way: None,
        }
    }

    pub(super) fn bind(&mut self, topics: Vec<Topic>, batch: u64) {
        if !self.unbinding.is_empty() {
            let wanted: HashSet<&Topic> = topics.iter().collect();
            self.unbinding.retain(|topic| !wanted.contains(topic));
        }
        self.binding.push_back((topics, batch));
    }

    pub(super) fn unbind(&mut self, topics: Vec<Topic>) {
        self.unbinding.extend(topics);
    }

    /// Waits for the next batch to be bound. Pending while there is nothing to do.
    pub(super) async fn next(&mut self) -> Result<Option<u64>, String> {
        if self.under_way.is_none() {
            self.under_way = self.step();
        }
        let Some(step) = &mut self.under_way else { return std::future::pending().await };
        let done = step.await;
        self.under_way = None;
        done
    }

    fn step(&mut self) -> Option<Step> {
        let (channel, queue, exchange) = (self.channel.clone(), self.queue.clone(), self.exchange.clone());
        let key = |topic: Topic| ShortString::from(topic.as_str());
        if let Some((topics, batch)) = self.binding.pop_front() {
            // The broker binds one after the other and answers each; a thousand take a good part of a second.
            let within = self.timeout * 5;
            let steps = async move {
                let bind = |topic| {
                    let options = QueueBindOptions::default();
                    channel.queue_bind(
                        queue.clone(),
                        exchange.clone(),
                        key(topic),
                        options,
                        FieldTable::default(),
                    )
                };
                try_join_all(topics.into_iter().map(bind)).await.map(|_| Some(batch))
            };
            return Some(bounded(within, steps));
        }
        if self.unbinding.is_empty() {
            return None;
        }
        let topics: Vec<Topic> = self.unbinding.drain(..self.unbinding.len().min(UNBIND_MAX)).collect();
        let steps = async move {
            let unbind = |topic| {
                channel.queue_unbind(queue.clone(), exchange.clone(), key(topic), FieldTable::default())
            };
            try_join_all(topics.into_iter().map(unbind)).await.map(|_| None)
        };
        Some(bounded(self.timeout * 2, steps))
    }
}

fn bounded(
    within: Duration,
    steps: impl Future<Output = Result<Option<u64>, lapin::Error>> + Send + 'static,
) -> Step {
    Box::pin(async move {
        match timeout(within, steps).await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err("no answer to a binding".to_owned()),
        }
    })
}
