//! The WebSocket of one session: its stream, what was read of an unfinished frame, and what waits to be written.

use std::task::Waker;

use bytes::Bytes;
use tokio::net::TcpStream;
use websocket_proto::decoder::Decoder;

use crate::outbox::queue::FrameQueue;

/// Names a link within its shard, so that the task that serves it notices when it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkId(pub(crate) u32);

/// One WebSocket.
#[derive(Debug)]
pub struct Link {
    pub(crate) id: LinkId,
    pub(crate) stream: TcpStream,
    pub(crate) decoder: Decoder,
    pub(crate) queue: FrameQueue,
    waker: Option<Waker>,
}

impl Link {
    pub(crate) fn new(id: LinkId, stream: TcpStream) -> Link {
        Link { id, stream, decoder: Decoder::new(), queue: FrameQueue::default(), waker: None }
    }

    /// Remembers the task that serves this link.
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// Tells the link's task that there is something to do: to write, to read on, or to end.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// A WebSocket whose session has let go of it: what is left to say goes out, then it is closed.
#[derive(Debug)]
pub struct Parting {
    /// The stream.
    pub stream: TcpStream,
    /// Frames that still go out, the close frame last.
    pub frames: Vec<Bytes>,
}
