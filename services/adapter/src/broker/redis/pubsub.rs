//! Publish and subscribe on Redis, and the renewal of its connection.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Buf;
use cluster_proto::identity::NodeId;
use cluster_proto::redis::channel::Names;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::claim::Claim;
use super::connection::{Connection, READ_BYTES, Stream};
use super::resp::Input;
use super::session::{Session, may_keep_id};
use super::target::Target;
use crate::broker::event::EventSink;
use crate::broker::renewal::{End, Lives, Opened, keep, tell_all};
use crate::broker::{Broker, Claimant, Command, Event, Running};

/// Node ids that are tried before the system counts as having none to give.
const CLAIMS_MAX: u32 = 16;
/// Commands that are taken before the connection is looked at again.
const TURN_MAX: usize = 256;
/// Reads before others on the thread have their turn.
const READS_MAX: usize = 8;
/// Less room than this is not read into.
const READ_BYTES_MIN: usize = 4 * 1024;
/// An empty buffer that has grown beyond this is given back.
const BUFFER_KEPT_BYTES: usize = 1024 * 1024;

/// The driver.
#[derive(Debug)]
pub struct Redis {
    target: Target,
    names: Names,
    claimant: Claimant,
    message_bytes_max: usize,
}

impl Redis {
    /// A driver; it connects when it runs. A message of more than `message_bytes_max` bytes ends the connection.
    #[must_use]
    pub fn new(target: Target, names: Names, claimant: Claimant, message_bytes_max: usize) -> Self {
        Self { target, names, claimant, message_bytes_max }
    }
}

impl Redis {
    async fn claim(
        &self,
        connection: &mut Connection,
        held: Option<NodeId>,
        events: &EventSink,
    ) -> Result<NodeId, String> {
        for _ in 0..CLAIMS_MAX {
            let node = self.claimant.candidate(held).map_err(|error| error.to_string())?;
            let claim = Claim::new(&self.names, &self.claimant, node);
            let claimed = connection.ask(&claim.claim()).await?;
            // It was ours a moment ago; the claim is made with the next renewal.
            let may_go_on = held.is_some() && claimed.refusal.as_deref().is_some_and(may_keep_id);
            if may_go_on || claimed.text("the claim of the node id")? == "1" {
                return Ok(node);
            }
            if held.is_some() || self.claimant.node.is_some() {
                events.tell(Event::ClaimLost).await;
                return Err(format!("the node id {node} is claimed by another process"));
            }
        }
        Err("no free node id was found".to_owned())
    }
}

impl Lives for Redis {
    type Connection = Connection;

    async fn open(&self, held: Option<NodeId>, events: &EventSink) -> Result<Opened<Connection>, String> {
        let mut connection = Box::pin(Connection::open(&self.target, self.message_bytes_max)).await?;
        let at = connection.address.to_string();
        let claimed = self.claim(&mut connection, held, events).await;
        let node = claimed.map_err(|reason| format!("{at}: {reason}"))?;
        Ok(Opened { connection, node, at })
    }

    async fn serve(
        &self,
        connection: Connection,
        node: NodeId,
        commands: &mut mpsc::Receiver<Command>,
        events: &EventSink,
    ) -> End {
        let timeout = self.target.timeout;
        let session = Session::new(Instant::now(), &self.names, &self.claimant, node, timeout);
        let timer = Box::pin(tokio::time::sleep_until(session.poll_timeout().into()));
        let Connection { stream, input, .. } = connection;
        let mut life = Life { session, stream, input, timer };
        let end = loop {
            let end = std::future::poll_fn(|context| life.poll(context, commands, events)).await;
            tell_all(events, std::mem::take(&mut life.session.told)).await;
            if let Some(end) = end {
                break end;
            }
        };
        tell_all(events, life.session.abandon()).await;
        end
    }
}

impl Broker for Redis {
    fn run(self: Box<Self>, commands: mpsc::Receiver<Command>, events: EventSink) -> Running {
        let seed = self.claimant.incarnation;
        Box::pin(keep(*self, seed, commands, events))
    }
}

/// A session on its connection.
struct Life {
    session: Session,
    stream: Box<dyn Stream>,
    input: Input,
    timer: Pin<Box<Sleep>>,
}

impl Life {
    /// Goes on until there is something to tell, or until the life has ended.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        commands: &mut mpsc::Receiver<Command>,
        events: &EventSink,
    ) -> Poll<Option<End>> {
        let now = Instant::now();
        self.take_commands(now, context, commands);
        let gone_on = self
            .write(context)
            .and_then(|()| self.read(context, events))
            // Last, so that an answer that has arrived is not missed however late this is.
            .and_then(|()| self.pass_time(context));
        match gone_on {
            Err(end) => Poll::Ready(Some(end)),
            Ok(()) if self.session.told.is_empty() => Poll::Pending,
            Ok(()) => Poll::Ready(None),
        }
    }

    fn take_commands(
        &mut self,
        now: Instant,
        context: &mut Context<'_>,
        commands: &mut mpsc::Receiver<Command>,
    ) {
        for _ in 0..TURN_MAX {
            if self.session.is_leaving() {
                return;
            }
            match commands.poll_recv(context) {
                Poll::Ready(Some(command)) => self.session.handle_command(now, command),
                Poll::Ready(None) => self.session.leave(now),
                Poll::Pending => return,
            }
        }
        context.waker().wake_by_ref();
    }

    fn write(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        while !self.session.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, &self.session.out) {
                Poll::Ready(Ok(0)) => return Err(lost("the connection was closed")),
                Poll::Ready(Ok(written)) => self.session.out.advance(written),
                Poll::Ready(Err(error)) => return Err(lost(error)),
                Poll::Pending => return Ok(()),
            }
        }
        if self.session.out.capacity() > BUFFER_KEPT_BYTES {
            self.session.out = bytes::BytesMut::new();
        }
        // An encrypted stream may hold something back.
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Err(error)) => Err(lost(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn read(&mut self, context: &mut Context<'_>, events: &EventSink) -> Result<(), End> {
        for _ in 0..READS_MAX {
            let buffer = &mut self.input.buffer;
            if buffer.capacity() - buffer.len() < READ_BYTES_MIN {
                buffer.reserve(READ_BYTES);
            }
            match pin!(self.stream.read_buf(buffer)).poll(context) {
                Poll::Ready(Ok(0)) => return Err(lost("the connection was closed")),
                Poll::Ready(Ok(_)) => self.take_replies(events)?,
                Poll::Ready(Err(error)) => return Err(lost(error)),
                Poll::Pending => return Ok(()),
            }
        }
        context.waker().wake_by_ref();
        Ok(())
    }

    fn take_replies(&mut self, events: &EventSink) -> Result<(), End> {
        let mut at = 0;
        while let Some((reply, end)) = self.input.frame(at).map_err(lost)? {
            self.session.handle_reply(&reply, events)?;
            at = end;
        }
        let buffer = &mut self.input.buffer;
        buffer.advance(at);
        if buffer.is_empty() && buffer.capacity() > BUFFER_KEPT_BYTES {
            *buffer = bytes::BytesMut::new();
        }
        Ok(())
    }

    fn pass_time(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        while self.timer.as_mut().poll(context).is_ready() {
            self.session.handle_timeout(Instant::now())?;
            self.timer.as_mut().reset(self.session.poll_timeout().into());
            self.write(context)?;
        }
        Ok(())
    }
}

fn lost(reason: impl std::fmt::Display) -> End {
    End::Lost(reason.to_string())
}
