//! All deadlines of a shard, on one coarse tick: a ring of buckets, one for each tick.
//!
//! A deadline fires late by at most one tick, never early. Entries are not removed when a deadline moves:
//! whoever is woken looks up its real deadline and sets it again. Deadlines beyond the ring wait in its last
//! bucket and are set again from there.

use std::time::{Duration, Instant};

/// The length of one tick.
pub const TICK: Duration = Duration::from_millis(25);
/// Buckets of the ring: 51.2 seconds, more than twice the default ping interval.
const BUCKETS: usize = 2048;
/// Entries for which an emptied bucket keeps its memory.
const BUCKET_KEEP: usize = 32;

/// A ring of buckets with things to wake.
#[derive(Debug)]
pub struct TimerRing<T> {
    buckets: Vec<Vec<T>>,
    start: Instant,
    /// The next tick to fire.
    tick: u64,
}

impl<T> TimerRing<T> {
    /// An empty ring whose first tick is at `start`.
    pub fn new(start: Instant) -> TimerRing<T> {
        TimerRing { buckets: (0..BUCKETS).map(|_| Vec::new()).collect(), start, tick: 0 }
    }

    /// The tick at which a deadline fires: the first one that is not before it, within the ring.
    pub fn tick_of(&self, deadline: Instant) -> u64 {
        let nanos = deadline.saturating_duration_since(self.start).as_nanos();
        let tick = u64::try_from(nanos.div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX);
        tick.clamp(self.tick, self.tick + BUCKETS as u64 - 1)
    }

    /// Wakes `entry` at `tick`, which comes from [`TimerRing::tick_of`].
    pub fn insert(&mut self, tick: u64, entry: T) {
        if let Some(bucket) = self.bucket(tick) {
            bucket.push(entry);
        }
    }

    /// Takes the entries of the next tick that is due at `now`; call until `None`.
    pub fn pop_due(&mut self, now: Instant) -> Option<(u64, Vec<T>)> {
        let due =
            u64::try_from(now.saturating_duration_since(self.start).as_nanos() / TICK.as_nanos()).ok()?;
        if self.tick > due {
            return None;
        }
        let tick = self.tick;
        self.tick += 1;
        let entries = self.bucket(tick).map(std::mem::take).unwrap_or_default();
        Some((tick, entries))
    }

    /// Gives an emptied bucket its memory back, if that is small.
    pub fn recycle(&mut self, tick: u64, mut entries: Vec<T>) {
        entries.clear();
        if entries.capacity() <= BUCKET_KEEP
            && let Some(bucket) = self.bucket(tick)
            && bucket.capacity() == 0
        {
            *bucket = entries;
        }
    }

    fn bucket(&mut self, tick: u64) -> Option<&mut Vec<T>> {
        let index = usize::try_from(tick % BUCKETS as u64).ok()?;
        self.buckets.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(ring: &mut TimerRing<u32>, now: Instant) -> Vec<u32> {
        let mut all = Vec::new();
        while let Some((tick, entries)) = ring.pop_due(now) {
            all.extend(&entries);
            ring.recycle(tick, entries);
        }
        all
    }

    #[test]
    fn a_deadline_fires_never_early_and_at_most_one_tick_late() {
        let start = Instant::now();
        let mut ring = TimerRing::new(start);
        let deadline = start + Duration::from_millis(110);
        ring.insert(ring.tick_of(deadline), 1);
        assert!(fired(&mut ring, start + Duration::from_millis(109)).is_empty());
        assert_eq!(fired(&mut ring, start + Duration::from_millis(125)), [1]);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_tick_and_a_far_one_within_the_ring() {
        let start = Instant::now();
        let mut ring = TimerRing::new(start);
        assert!(fired(&mut ring, start + Duration::from_secs(1)).is_empty());
        ring.insert(ring.tick_of(start), 1);
        ring.insert(ring.tick_of(start + Duration::from_secs(3600)), 2);
        assert_eq!(fired(&mut ring, start + Duration::from_millis(1025)), [1]);
        assert_eq!(fired(&mut ring, start + Duration::from_secs(60)), [2]);
    }
}
