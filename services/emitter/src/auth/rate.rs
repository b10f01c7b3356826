//! How often one caller may call.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// Callers that are told apart; more, which only tokens with ever new subjects can make, share one limit.
const CALLERS_MAX: usize = 10_000;

/// The limit of one caller.
#[derive(Debug)]
pub(crate) struct Limiter {
    rate: Rate,
    bucket: RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<Instant>>,
}

/// Calls a second, and how many may be saved up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

impl Rate {
    /// A rate; `None` for 0, which is no limit. A burst of 0 is that of one second.
    pub(crate) fn new(per_second: u64, burst: u64) -> Option<Self> {
        let number = |value: u64| NonZeroU32::new(u32::try_from(value).unwrap_or(u32::MAX));
        let per_second = number(per_second)?;
        Some(Self { per_second, burst: number(burst).unwrap_or(per_second) })
    }
}

impl Limiter {
    fn new(rate: Rate) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self { rate, bucket: RateLimiter::direct_with_clock(quota, MonotonicClock) }
    }

    /// Counts a call; how long to wait if it is one too many.
    pub(crate) fn charge(&self) -> Option<Duration> {
        let refusal = self.bucket.check().err()?;
        Some(refusal.wait_time_from(MonotonicClock.now()))
    }
}

/// The limits of all callers that have called lately.
#[derive(Debug, Default)]
pub(crate) struct Limiters(Mutex<HashMap<Arc<str>, Used>>);

/// A limit, and when it was last asked for.
#[derive(Debug)]
struct Used {
    limiter: Arc<Limiter>,
    at: Instant,
}

impl Limiters {
    /// The limit of a caller, kept from earlier calls unless its rate has changed.
    pub(crate) fn of(&self, caller: &Arc<str>, rate: Rate, now: Instant) -> Arc<Limiter> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = all.get_mut(caller)
            && used.limiter.rate == rate
        {
            used.at = now;
            return used.limiter.clone();
        }
        if all.len() >= CALLERS_MAX {
            all.retain(|_, used| now.duration_since(used.at) < refill(used.limiter.rate));
        }
        let key = if all.len() < CALLERS_MAX { caller.clone() } else { "the others".into() };
        let used = all.entry(key).or_insert_with(|| Used { limiter: Arc::new(Limiter::new(rate)), at: now });
        if used.limiter.rate != rate {
            used.limiter = Arc::new(Limiter::new(rate));
        }
        used.at = now;
        used.limiter.clone()
    }
}

/// After so long a limit is as good as new, and can be forgotten.
fn refill(rate: Rate) -> Duration {
    Duration::from_secs(u64::from(rate.burst.get()) / u64::from(rate.per_second.get()) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_wait_is_named() {
        let limiter = Limiter::new(Rate::new(1, 3).unwrap());
        assert!((0..3).all(|_| limiter.charge().is_none()));
        let wait = limiter.charge().unwrap();
        assert!(wait > Duration::from_millis(900) && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(Rate::new(0, 5), None);
        assert_eq!(Rate::new(7, 0).unwrap().burst.get(), 7);
    }

    #[test]
    fn a_caller_keeps_the_limit_until_its_rate_changes() {
        let limiters = Limiters::default();
        let (caller, now) = (Arc::from("key:a"), Instant::now());
        let slow = Rate::new(1, 1).unwrap();
        let first = limiters.of(&caller, slow, now);
        assert!(Arc::ptr_eq(&first, &limiters.of(&caller, slow, now)));
        assert!(!Arc::ptr_eq(&first, &limiters.of(&caller, Rate::new(2, 2).unwrap(), now)));
    }

    #[test]
    fn ever_new_callers_share_one_limit_in_the_end() {
        let limiters = Limiters::default();
        let (rate, now) = (Rate::new(1, 1).unwrap(), Instant::now());
        for number in 0..CALLERS_MAX {
            limiters.of(&format!("jwt:{number}").into(), rate, now);
        }
        let one = limiters.of(&"jwt:one".into(), rate, now);
        assert!(Arc::ptr_eq(&one, &limiters.of(&"jwt:two".into(), rate, now)));
        let later = now + Duration::from_secs(3);
        assert!(!Arc::ptr_eq(&one, &limiters.of(&"jwt:three".into(), rate, later)));
    }
}
