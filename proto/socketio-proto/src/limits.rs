//! The bounds that hold while a packet is decoded.

/// Bounds on what one client may send in one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Attachments of one packet. The JavaScript clients disconnect above 10, so a larger value
    /// only suits a closed world.
    pub attachments_max: usize,
    /// Levels of arrays and objects inside one another; the argument array is the first.
    pub depth_max: usize,
    /// Bytes of an event name, and of a namespace.
    pub name_bytes_max: usize,
    /// Bytes of a packet's text together with all its attachments.
    pub packet_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { attachments_max: 10, depth_max: 128, name_bytes_max: 256, packet_bytes_max: 4_000_000 }
    }
}
