//! The bounded queues in front of one client: finished frames for a WebSocket, packets for polling.
//!
//! Whoever sends fills them, the session's transport empties them, and [`super::slow_consumer`] decides what
//! happens when they grow. An empty queue owns no memory.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use bytes::{Buf, Bytes};
use engineio_proto::WirePacket;
use smallvec::SmallVec;
use tokio::net::TcpStream;

use super::slow_consumer::Backlog;

/// Buffers handed to the kernel in one call.
const SLICES_MAX: usize = 64;
/// What an entry costs besides its bytes. Counted, or a flood of tiny frames would hold many times its size.
const ENTRY_BYTES: usize = 64;

/// Frames that a WebSocket has not taken yet.
#[derive(Debug, Default)]
pub struct FrameQueue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// The first entry is the rest of something that the stream took in part.
    started: bool,
    progress_at: Option<Instant>,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The stream took everything.
    All,
    /// The rest waits; the writer must be told when the stream can take more.
    Rest,
}

impl FrameQueue {
    /// Bytes that wait, with what keeping them costs; zero when nothing waits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What waits, for the slow-consumer policy.
    pub fn backlog(&self, now: Instant) -> Backlog {
        backlog(self.bytes, self.progress_at, now)
    }

    /// When the stream last took a byte, while something waits.
    pub fn progress_at(&self) -> Option<Instant> {
        self.progress_at
    }

    /// Writes a finished frame at once if nothing waits before it; what the stream does not take is queued.
    ///
    /// # Errors
    /// What the stream reports; it is of no use after that.
    pub fn send(&mut self, stream: &TcpStream, frame: &[u8], now: Instant) -> io::Result<Written> {
        let rest = if self.frames.is_empty() { write_now(stream, frame)? } else { frame };
        if rest.is_empty() {
            return Ok(Written::All);
        }
        let started = rest.len() < frame.len();
        self.push(Bytes::copy_from_slice(rest), now);
        self.started |= started;
        Ok(Written::Rest)
    }

    /// As [`FrameQueue::send`], for bytes shared between many clients: what waits is not copied.
    ///
    /// # Errors
    /// As [`FrameQueue::send`].
    pub fn send_shared(&mut self, stream: &TcpStream, frame: &Bytes, now: Instant) -> io::Result<Written> {
        let rest = if self.frames.is_empty() { write_now(stream, frame)?.len() } else { frame.len() };
        if rest == 0 {
            return Ok(Written::All);
        }
        self.push(frame.slice(frame.len() - rest..), now);
        self.started |= rest < frame.len();
        Ok(Written::Rest)
    }

    /// Queues a frame without trying the stream.
    pub fn push(&mut self, frame: Bytes, now: Instant) {
        if frame.is_empty() {
            return;
        }
        if self.frames.is_empty() {
            self.progress_at = Some(now);
        }
        self.bytes += frame.len() + ENTRY_BYTES;
        self.frames.push_back(frame);
    }

    /// Writes what waits, many frames in one call, until the stream takes no more.
    ///
    /// # Errors
    /// As [`FrameQueue::send`].
    pub fn flush(&mut self, stream: &TcpStream, now: Instant) -> io::Result<Written> {
        while !self.frames.is_empty() {
            let mut slices: SmallVec<[io::IoSlice<'_>; SLICES_MAX]> = SmallVec::new();
            slices.extend(self.frames.iter().take(SLICES_MAX).map(|frame| io::IoSlice::new(frame)));
            match stream.try_write_vectored(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    drop(slices);
                    self.advance(taken, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Written::Rest),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Written::All)
    }

    /// Takes everything that waits.
    pub fn take_frames(&mut self) -> impl Iterator<Item = Bytes> + use<> {
        std::mem::take(self).frames.into_iter()
    }

    /// Drops what waits, but for the rest of what the stream has taken in part.
    pub fn take_started(&mut self) -> Option<Bytes> {
        let queue = std::mem::take(self);
        if queue.started { queue.frames.into_iter().next() } else { None }
    }

    fn advance(&mut self, mut taken: usize, now: Instant) {
        self.bytes = self.bytes.saturating_sub(taken);
        self.progress_at = Some(now);
        while let Some(front) = self.frames.front_mut() {
            if front.len() > taken {
                front.advance(taken);
                self.started |= taken > 0;
                break;
            }
            taken -= front.len();
            self.started = false;
            self.bytes = self.bytes.saturating_sub(ENTRY_BYTES);
            self.frames.pop_front();
        }
        if self.frames.is_empty() {
            *self = FrameQueue::default();
        }
    }
}

/// Writes what the stream takes now and returns the rest.
fn write_now<'b>(stream: &TcpStream, bytes: &'b [u8]) -> io::Result<&'b [u8]> {
    match stream.try_write(bytes) {
        Ok(taken) => Ok(bytes.get(taken..).unwrap_or_default()),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(bytes)
        }
        Err(error) => Err(error),
    }
}

/// Packets that wait for the next poll, in groups that are never split: a text and its attachments.
#[derive(Debug, Default)]
pub struct PacketQueue {
    groups: VecDeque<SmallVec<[WirePacket; 1]>>,
    bytes: usize,
    progress_at: Option<Instant>,
}

impl PacketQueue {
    /// Bytes that wait, with what keeping them costs; zero when nothing waits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// What waits, for the slow-consumer policy.
    pub fn backlog(&self, now: Instant) -> Backlog {
        backlog(self.bytes, self.progress_at, now)
    }

    /// When a poll last took something, while something waits.
    pub fn progress_at(&self) -> Option<Instant> {
        self.progress_at
    }

    /// Queues one group.
    pub fn push(&mut self, group: SmallVec<[WirePacket; 1]>, now: Instant) {
        if self.groups.is_empty() {
            self.progress_at = Some(now);
        }
        self.bytes += cost(&group);
        self.groups.push_back(group);
    }

    /// Takes the packets of one poll response: whole groups, at most `packets_max` packets unless the first
    /// group alone is larger.
    pub fn take(&mut self, packets_max: usize, now: Instant) -> Vec<WirePacket> {
        let mut packets = Vec::new();
        while let Some(group) = self.groups.front() {
            if !packets.is_empty() && packets.len() + group.len() > packets_max {
                break;
            }
            self.bytes = self.bytes.saturating_sub(cost(group));
            packets.extend(self.groups.pop_front().into_iter().flatten());
        }
        self.progress_at = Some(now);
        if self.groups.is_empty() {
            *self = PacketQueue::default();
        }
        packets
    }

    /// Takes everything, for a transport that has no such limit.
    pub fn take_all(&mut self) -> impl Iterator<Item = SmallVec<[WirePacket; 1]>> + use<> {
        std::mem::take(self).groups.into_iter()
    }
}

fn cost(group: &[WirePacket]) -> usize {
    group.iter().map(|packet| packet.len() + ENTRY_BYTES).sum()
}

fn backlog(bytes: usize, progress_at: Option<Instant>, now: Instant) -> Backlog {
    let stalled_for = progress_at.map(|at| now.saturating_duration_since(at)).unwrap_or_default();
    Backlog { bytes, stalled_for }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    fn text(content: &'static str) -> WirePacket {
        WirePacket::Text(Bytes::from_static(content.as_bytes()))
    }

    fn group(parts: usize) -> SmallVec<[WirePacket; 1]> {
        (0..parts).map(|_| text("4x")).collect()
    }

    #[test]
    fn a_poll_takes_whole_groups_up_to_the_limit() {
        let now = Instant::now();
        let mut queue = PacketQueue::default();
        for parts in [1, 11, 4, 1, 30, 1] {
            queue.push(group(parts), now);
        }
        assert_eq!(queue.bytes(), (2 + ENTRY_BYTES) * 48);
        let mut taken = Vec::new();
        while !queue.is_empty() {
            taken.push(queue.take(16, now).len());
        }
        assert_eq!(taken, [16, 1, 30, 1]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn stalled_time_counts_from_the_last_progress() {
        let start = Instant::now();
        let later = start + std::time::Duration::from_secs(9);
        let mut queue = FrameQueue::default();
        assert_eq!(queue.backlog(later).stalled_for.as_secs(), 0);
        queue.push(Bytes::from_static(b"abcdef"), start);
        assert_eq!(queue.backlog(later).stalled_for.as_secs(), 9);
        queue.advance(2, later);
        assert_eq!((queue.bytes(), queue.backlog(later).stalled_for.as_secs()), (4 + ENTRY_BYTES, 0));
        queue.advance(4, later);
        assert_eq!((queue.bytes(), queue.progress_at()), (0, None));
        let _: SmallVec<[WirePacket; 1]> = smallvec![text("2")];
    }
}
