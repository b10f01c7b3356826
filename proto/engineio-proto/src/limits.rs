//! What one request may make us hold.

/// Bounds on one payload that a client posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one HTTP body. Announced to the client as `maxPayload`; the caller should refuse a longer
    /// body before it has read it, this is the second line.
    pub payload_bytes_max: usize,
    /// Packets in one payload. A decoded packet takes a few dozen bytes beside its data, so this number, not
    /// the body, bounds what a payload of tiny packets costs.
    pub packets_per_payload_max: usize,
}

impl Default for Limits {
    /// One million bytes, as the reference server. One packet per eight bytes of that is room for an unbroken
    /// run of the shortest real events (`42["a"]` and its separator), and holds the list of packets to a few
    /// megabytes.
    fn default() -> Self {
        Self { payload_bytes_max: 1_000_000, packets_per_payload_max: 125_000 }
    }
}
