//! How long to wait before the next attempt to connect: longer each time, and never in step with other nodes.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
/// Short enough that a node is whole again a few seconds after its broker.
const LONGEST: Duration = Duration::from_secs(2);

/// The waits of one connection.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    seed: u64,
}

impl Backoff {
    /// `seed` differs from node to node.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { next: FIRST, seed: seed | 1 }
    }

    /// A connection has held: the next wait is short again.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next wait: between half of the step and the whole of it.
    pub fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(LONGEST);
        // Xorshift: nothing here needs to be unpredictable.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let half = step / 2;
        half + half * u32::try_from(self.seed % 1_000).unwrap_or(0) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_differ() {
        let (mut one, mut two) = (Backoff::new(1), Backoff::new(99));
        let waits: Vec<Duration> = (0..20).map(|_| one.wait()).collect();
        assert!(waits.iter().all(|wait| *wait >= FIRST / 2 && *wait <= LONGEST));
        assert!(waits[10] >= LONGEST / 2);
        assert_ne!(waits, (0..20).map(|_| two.wait()).collect::<Vec<_>>());
        one.reset();
        assert!(one.wait() <= FIRST);
    }
}
