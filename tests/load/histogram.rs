//! Latencies, counted by the microsecond.

use std::time::Duration;

use serde_json::{Value, json};

/// Longest latency told apart, in microseconds; anything later counts as this.
const LATENCY_US_MAX: usize = 1_000_000;

/// Counts of latencies in buckets of one microsecond, up to a second.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Vec<u32>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; LATENCY_US_MAX + 1], total: 0 }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let bucket = usize::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX).min(LATENCY_US_MAX);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
            self.total += 1;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    /// The latency in microseconds that `part` in a thousand do not exceed.
    fn per_mille(&self, part: u64) -> usize {
        let wanted = (self.total * part).div_ceil(1000).max(1);
        let mut seen = 0;
        self.counts
            .iter()
            .position(|count| {
                seen += u64::from(*count);
                seen >= wanted
            })
            .unwrap_or(0)
    }

    /// Median, 99th percentile and largest, in microseconds.
    pub(crate) fn report(&self) -> Value {
        json!({ "p50": self.per_mille(500), "p99": self.per_mille(990), "max": self.per_mille(1000) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_latencies_not_exceeded() {
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|us| histogram.record(Duration::from_micros(us)));
        assert_eq!(histogram.report(), json!({ "p50": 500, "p99": 990, "max": 1000 }));
        histogram.clear();
        histogram.record(Duration::from_secs(9));
        assert_eq!(histogram.report(), json!({ "p50": 1_000_000, "p99": 1_000_000, "max": 1_000_000 }));
    }
}
