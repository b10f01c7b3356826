//! The slow-consumer policy: a pure function from what waits to what happens.

use std::time::Duration;

/// The limits that the policy obeys, from `edge.limits`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Closed at this many waiting bytes (`outbox_bytes_max`).
    pub bytes_max: usize,
    /// Above this many waiting bytes a client must make progress (`outbox_stalled_bytes_max`).
    pub stalled_bytes_max: usize,
    /// How long it may make none (`outbox_stalled_ms`).
    pub stalled_max: Duration,
}

/// What waits in front of one client.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    /// Bytes that the transport has not taken.
    pub bytes: usize,
    /// Time since the transport last took a byte; zero when nothing waits.
    pub stalled_for: Duration,
}

/// What to do with one more packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send or queue it.
    Keep,
    /// Leave it out: it is volatile and the transport is behind.
    DropVolatile,
    /// The client is too slow: close it.
    Close,
}

/// Decides over one more packet of `packet_bytes`: an empty outbox takes any one packet.
pub fn decide(backlog: Backlog, packet_bytes: usize, volatile: bool, limits: &Limits) -> Verdict {
    if backlog.bytes == 0 {
        return Verdict::Keep;
    }
    if volatile {
        return Verdict::DropVolatile;
    }
    if backlog.bytes.saturating_add(packet_bytes) >= limits.bytes_max || is_stalled(backlog, limits) {
        return Verdict::Close;
    }
    Verdict::Keep
}

/// Whether a client holds more than `stalled_bytes_max` and has taken nothing for `stalled_max`.
pub fn is_stalled(backlog: Backlog, limits: &Limits) -> bool {
    backlog.bytes > limits.stalled_bytes_max && backlog.stalled_for >= limits.stalled_max
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { bytes_max: 4 << 20, stalled_bytes_max: 1 << 20, stalled_max: Duration::from_secs(5) };

    fn check(bytes: usize, stalled_secs: u64, packet_bytes: usize, volatile: bool, expected: Verdict) {
        let backlog = Backlog { bytes, stalled_for: Duration::from_secs(stalled_secs) };
        assert_eq!(
            decide(backlog, packet_bytes, volatile, &LIMITS),
            expected,
            "{bytes} B stalled {stalled_secs} s, +{packet_bytes} B, volatile {volatile}"
        );
    }

    #[test]
    fn the_policy_as_a_table() {
        check(0, 0, 10 << 20, false, Verdict::Keep);
        check(0, 0, 10 << 20, true, Verdict::Keep);
        check(1, 0, 10, true, Verdict::DropVolatile);
        check(1, 60, 10, false, Verdict::Keep);
        check(1 << 20, 60, 10, false, Verdict::Keep);
        check((1 << 20) + 1, 4, 10, false, Verdict::Keep);
        check((1 << 20) + 1, 5, 10, false, Verdict::Close);
        check(3 << 20, 0, 1 << 20, false, Verdict::Close);
        check(1, 0, usize::MAX, false, Verdict::Close);
    }
}
