//! The plumbing of WebSockets: the small task of each one, and the end of one.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;
use websocket_proto::encoder;

use crate::ids::SessionId;
use crate::metrics::CountedConnection;
use crate::outbox::queue::Written;
use crate::session::app::SessionApp;
use crate::session::drive::{Core, OpenRequest};
use crate::session::link::{LinkId, Parting};
use crate::session::registry::{Opening, SessionKey};
use crate::shard::Shard;

/// Reads of one link before the others get their turn.
const READS_PER_TURN: usize = 8;
/// How long a link that ends may take to accept what is left to say.
const FAREWELL_WRITE: Duration = Duration::from_secs(5);
/// How long we wait for the client to close its side after our close frame.
const FAREWELL_READ: Duration = Duration::from_secs(3);

/// Opens a session on a fresh WebSocket; `left_over` was read behind the request.
pub fn open<A: SessionApp>(shard: &Rc<Shard<A>>, request: OpenRequest, stream: TcpStream, left_over: Bytes) {
    let opened = shard.with(|core| {
        let key = core.open(request, Opening::WebSocket(stream))?;
        Some((key, core.sessions.link_id(key)?))
    });
    if let Some((key, link)) = opened {
        start(shard, key, link, left_over);
    }
}

/// Gives a WebSocket that came through another shard to its session here.
pub fn adopt<A: SessionApp>(
    shard: &Rc<Shard<A>>,
    id: SessionId,
    stream: std::net::TcpStream,
    left_over: Bytes,
) {
    if let Some(stream) = shard.register(stream) {
        join(shard, id, stream, left_over);
    }
}

/// Gives a WebSocket to the session that it named; a session that does not want it closes it.
pub fn join<A: SessionApp>(shard: &Rc<Shard<A>>, id: SessionId, stream: TcpStream, left_over: Bytes) {
    let joined = shard.with(|core| match core.sessions.find(id) {
        Some(key) => core.upgrade(key, stream).map(|link| (key, link)),
        None => Err(stream),
    });
    match joined {
        Ok((key, link)) => start(shard, key, link, left_over),
        Err(stream) => {
            let frames = vec![Bytes::from(encoder::close_frame(None, ""))];
            spawn_local(see_off(Parting { stream, frames }));
        }
    }
}

fn start<A: SessionApp>(shard: &Rc<Shard<A>>, key: SessionKey, link: LinkId, left_over: Bytes) {
    if !left_over.is_empty() {
        let mut bytes = left_over.to_vec();
        shard.with(|core| core.link_bytes(key, link, &mut bytes));
    }
    spawn_local(serve(shard.clone(), key, link));
}

/// The task of one link: it waits for bytes, and for room to write when something waits. It lives as long as its
/// link, so it holds nothing but names.
pub(crate) async fn serve<A: SessionApp>(shard: Rc<Shard<A>>, key: SessionKey, link: LinkId) {
    let _counted = CountedConnection::new(shard.metrics.clone());
    poll_fn(|context| poll_link(&shard, key, link, context)).await;
}

fn poll_link<A: SessionApp>(
    shard: &Rc<Shard<A>>,
    key: SessionKey,
    link: LinkId,
    context: &mut Context<'_>,
) -> Poll<()> {
    for _ in 0..READS_PER_TURN {
        let more = shard.with_read_buffer(|core, buffer| {
            if poll_write(core, key, link, context).is_none() {
                return Poll::Ready(false);
            }
            poll_read(core, key, link, buffer, context)
        });
        if !ready!(more) {
            return Poll::Ready(());
        }
    }
    context.waker().wake_by_ref();
    Poll::Pending
}

/// Writes what waits and asks to be woken for the rest; `None` when the link is gone.
fn poll_write<A: SessionApp>(
    core: &mut Core<A>,
    key: SessionKey,
    id: LinkId,
    context: &mut Context<'_>,
) -> Option<()> {
    loop {
        let link = core.sessions.link_mut(key, id)?;
        link.set_waker(context.waker());
        if link.queue.bytes() == 0 {
            return Some(());
        }
        match link.stream.poll_write_ready(context) {
            Poll::Pending => return Some(()),
            Poll::Ready(Ok(())) => {
                if core.link_writable(key, id)? == Written::All {
                    return Some(());
                }
            }
            Poll::Ready(Err(_)) => {
                core.link_ended(key, id, true);
                return None;
            }
        }
    }
}

/// Reads once; whether the link is still there.
fn poll_read<A: SessionApp>(
    core: &mut Core<A>,
    key: SessionKey,
    id: LinkId,
    buffer: &mut [u8],
    context: &mut Context<'_>,
) -> Poll<bool> {
    if !core.may_read(key, id) {
        return Poll::Pending;
    }
    let Some(link) = core.sessions.link_mut(key, id) else { return Poll::Ready(false) };
    let mut space = ReadBuf::new(buffer);
    match ready!(Pin::new(&mut link.stream).poll_read(context, &mut space)) {
        Ok(()) if space.filled().is_empty() => {
            core.link_ended(key, id, false);
            Poll::Ready(false)
        }
        Ok(()) => {
            core.link_bytes(key, id, space.filled_mut());
            Poll::Ready(core.sessions.link_mut(key, id).is_some())
        }
        Err(_) => {
            core.link_ended(key, id, true);
            Poll::Ready(false)
        }
    }
}

/// Says the last words of a link whose session has let go of it, then waits a moment for the client's.
///
/// Closing at once, with bytes of the client unread, would reset the connection and might take the close frame
/// with it.
pub async fn see_off(parting: Parting) {
    let Parting { mut stream, frames } = parting;
    let written = timeout(FAREWELL_WRITE, async {
        for frame in frames {
            stream.write_all(&frame).await?;
        }
        stream.shutdown().await
    });
    if !matches!(written.await, Ok(Ok(()))) {
        return;
    }
    let _ = timeout(FAREWELL_READ, async {
        let mut discarded = [0; 512];
        while matches!(stream.read(&mut discarded).await, Ok(1..)) {}
    })
    .await;
}
