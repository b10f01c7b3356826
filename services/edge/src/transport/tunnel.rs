//! A WebSocket whose session lives on another node: its bytes pass through here, both ways and unread.
//!
//! Frames, their rules and their limits are the owner's business. What is kept here while nothing moves is two streams
//! and a few words: bytes are read into the buffer that the whole shard shares, and only what the other side does
//! not take at once is kept. While it is, nothing more is read.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::metrics::{CountedConnection, CountedRelay};
use crate::session::app::SessionApp;
use crate::shard::Shard;

/// What one read takes, and so what is kept at most of one direction.
const READ_BYTES: usize = 16 * 1024;
/// Moves in one direction before others get their turn.
const MOVES_PER_TURN: usize = 8;
/// How long one direction may outlive the other. A session that has ended waits three seconds for its client.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(5);

/// The way to the owner, which has agreed.
#[derive(Debug)]
pub struct Tunnel {
    /// The stream to the owner.
    pub owner: TcpStream,
    /// What was read of it already.
    pub left_over: Bytes,
    /// The place that this takes.
    pub counted: CountedRelay,
}

/// Passes bytes on until both sides have ended, one is broken, or one takes nothing for too long. `client_left_over`
/// was read behind the client's request.
pub async fn serve<A: SessionApp>(
    shard: Rc<Shard<A>>,
    client: TcpStream,
    client_left_over: Bytes,
    tunnel: Box<Tunnel>,
) {
    let Tunnel { owner, left_over, counted } = *tunnel;
    let _counted = (CountedConnection::new(shard.metrics.clone()), counted);
    let config = &shard.site.config;
    // The owner judges slow clients by its own rules, and its heartbeats end what is dead. This is for when the owner
    // is gone too.
    let stalled_max = config.limits.http_body_timeout().max(config.ping_interval() + config.ping_timeout());
    let patience = Patience { stalled_max, half_closed_max: HALF_CLOSED_MAX };
    let mut pipe = Pipe::new(client, client_left_over.to_vec(), owner, left_over.to_vec(), patience);
    drop((client_left_over, left_over));
    poll_fn(|context| shard.with_buffer(|buffer| pipe.poll(buffer, context))).await;
}

/// Both streams and both directions.
#[derive(Debug)]
struct Pipe {
    client: TcpStream,
    owner: TcpStream,
    up: Way,
    down: Way,
    patience: Patience,
    /// Runs once one direction is closed.
    closing: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug)]
struct Patience {
    /// How long one side may take nothing of what waits for it.
    stalled_max: Duration,
    /// How long one direction may outlive the other.
    half_closed_max: Duration,
}

/// One direction.
#[derive(Debug)]
struct Way {
    /// Read and not written yet.
    waiting: Vec<u8>,
    state: State,
    /// Runs while something waits and nothing moves.
    stalled: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing more comes; what waits still goes out.
    Ended,
    /// The other side knows.
    Closed,
}

impl Pipe {
    fn new(
        client: TcpStream,
        from_client: Vec<u8>,
        owner: TcpStream,
        from_owner: Vec<u8>,
        patience: Patience,
    ) -> Pipe {
        let [up, down] =
            [from_client, from_owner].map(|waiting| Way { waiting, state: State::Open, stalled: None });
        Pipe { client, owner, up, down, patience, closing: None }
    }

    fn poll(&mut self, buffer: &mut [u8], context: &mut Context<'_>) -> Poll<()> {
        let Pipe { client, owner, up, down, patience, closing } = self;
        let Patience { stalled_max, half_closed_max } = *patience;
        // The owner's last words first: what the client still says may find nobody.
        let down = down.poll(owner, client, stalled_max, buffer, context);
        let up = up.poll(client, owner, stalled_max, buffer, context);
        let is_half_closed = match (up, down) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return self.abort(),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            (Poll::Pending, Poll::Pending) => false,
            (Poll::Ready(Ok(())), Poll::Pending) | (Poll::Pending, Poll::Ready(Ok(()))) => true,
        };
        if is_half_closed {
            let closing = closing.get_or_insert_with(|| Box::pin(sleep(half_closed_max)));
            ready!(closing.as_mut().poll(context));
            return self.abort();
        }
        Poll::Pending
    }

    /// Lets both sides see that this was no proper end.
    fn abort(&self) -> Poll<()> {
        for stream in [&self.client, &self.owner] {
            // Without it they see an end all the same.
            let _ = stream.set_zero_linger();
        }
        Poll::Ready(())
    }
}

impl Way {
    /// Moves what can be moved; ready when this direction is closed or broken.
    fn poll(
        &mut self,
        from: &TcpStream,
        to: &mut TcpStream,
        stalled_max: Duration,
        buffer: &mut [u8],
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..MOVES_PER_TURN {
            if !self.waiting.is_empty() {
                ready!(self.poll_write(to, stalled_max, context))?;
            }
            match self.state {
                State::Closed => return Poll::Ready(Ok(())),
                State::Ended => {
                    ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                    self.state = State::Closed;
                }
                State::Open => ready!(self.poll_read(from, to, buffer, context))?,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes all that waits.
    fn poll_write(
        &mut self,
        to: &TcpStream,
        stalled_max: Duration,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let Poll::Ready(writable) = to.poll_write_ready(context) else {
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stalled_max)));
                return stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()));
            };
            writable?;
            match to.try_write(&self.waiting) {
                Ok(written) => {
                    self.stalled = None;
                    if written == self.waiting.len() {
                        // An idle direction keeps nothing.
                        self.waiting = Vec::new();
                        return Poll::Ready(Ok(()));
                    }
                    self.waiting.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads once, and writes what the other side takes of it at once.
    fn poll_read(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        buffer: &mut [u8],
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let length = buffer.len().min(READ_BYTES);
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        loop {
            ready!(from.poll_read_ready(context))?;
            let read = match from.try_read(buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(error)),
            };
            let read = buffer.get(..read).unwrap_or_default();
            if read.is_empty() {
                self.state = State::Ended;
                return Poll::Ready(Ok(()));
            }
            let written = match to.try_write(read) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Poll::Ready(Err(error)),
            };
            self.waiting.extend_from_slice(read.get(written..).unwrap_or_default());
            return Poll::Ready(Ok(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::{JoinHandle, spawn};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (connected.unwrap(), accepted.unwrap().0)
    }

    /// A client and an owner with a tunnel between them, in which these bytes wait already.
    async fn tunnel(
        from_client: &str,
        from_owner: &str,
        [stalled_ms, half_closed_ms]: [u64; 2],
    ) -> (TcpStream, TcpStream, JoinHandle<()>) {
        let ((client, near), (far, owner)) = (pair().await, pair().await);
        let patience = Patience {
            stalled_max: Duration::from_millis(stalled_ms),
            half_closed_max: Duration::from_millis(half_closed_ms),
        };
        let mut pipe = Pipe::new(near, from_client.into(), far, from_owner.into(), patience);
        let running = spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            poll_fn(|context| pipe.poll(&mut buffer, context)).await;
        });
        (client, owner, running)
    }

    async fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        stream.read_exact(&mut read).await.unwrap();
        read
    }

    const LONG: [u64; 2] = [60_000; 2];

    #[tokio::test]
    async fn what_was_left_over_comes_first_both_ways() {
        let (mut client, mut owner, _running) = tunnel("up ", "down ", LONG).await;
        client.write_all(b"more").await.unwrap();
        owner.write_all(b"more").await.unwrap();
        assert_eq!(read(&mut owner, 7).await, b"up more");
        assert_eq!(read(&mut client, 9).await, b"down more");
    }

    #[tokio::test]
    async fn megabytes_pass_unchanged_while_both_sides_write() {
        let (mut client, mut owner, running) = tunnel("", "", LONG).await;
        let sent: Vec<u8> = (0..4_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let both = [&mut client, &mut owner].map(|stream| {
            let (mut reading, mut writing) = stream.split();
            let sent = &sent;
            async move {
                let write = async {
                    writing.write_all(sent).await.unwrap();
                    writing.shutdown().await.unwrap();
                };
                let mut received = Vec::new();
                let (_, read) = tokio::join!(write, reading.read_to_end(&mut received));
                read.unwrap();
                assert!(received == *sent, "{} bytes", received.len());
            }
        });
        let [one, other] = both;
        tokio::join!(one, other);
        running.await.unwrap();
    }

    #[tokio::test]
    async fn the_end_of_one_direction_passes_while_the_other_goes_on() {
        let (mut client, mut owner, running) = tunnel("", "", LONG).await;
        client.shutdown().await.unwrap();
        assert_eq!(owner.read(&mut [0; 8]).await.unwrap(), 0);
        owner.write_all(b"still here").await.unwrap();
        drop(owner);
        assert_eq!(read(&mut client, 10).await, b"still here");
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        running.await.unwrap();
    }

    #[tokio::test]
    async fn a_break_passes_both_ways() {
        let (client, mut owner, running) = tunnel("", "", LONG).await;
        client.set_zero_linger().unwrap();
        drop(client);
        assert_eq!(owner.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        running.await.unwrap();
        let (mut client, owner, running) = tunnel("", "", LONG).await;
        owner.set_zero_linger().unwrap();
        drop(owner);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        running.await.unwrap();
    }

    #[tokio::test]
    async fn a_side_that_takes_nothing_is_given_up_and_little_is_kept_for_it() {
        let (client, mut owner, running) = tunnel("", "", [200, 60_000]).await;
        let mut sent = 0;
        let failed = loop {
            match owner.write(&[7; 64 * 1024]).await {
                Ok(written) => sent += written,
                Err(error) => break error,
            }
        };
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionReset, "after {sent} bytes");
        running.await.unwrap();
        drop(client);
    }

    #[tokio::test]
    async fn a_direction_outlives_the_other_for_a_moment_only() {
        let (mut client, mut owner, running) = tunnel("", "", [60_000, 50]).await;
        owner.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        running.await.unwrap();
    }
}
