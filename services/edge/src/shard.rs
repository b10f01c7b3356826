//! One shard: a thread with its own runtime, its own sessions and its own application.
//!
//! A shard is a complete server; shards share nothing but their inboxes. Everything it owns is in one
//! [`Core`], which its tasks borrow for one synchronous call at a time: nothing is ever borrowed over an await.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local, yield_now};
use tokio::time::MissedTickBehavior;

use crate::ids::SessionId;
use crate::inbox::{Inbox, Outlet, SendError};
use crate::listener::Site;
use crate::listener::accept;
use crate::listener::forward::{Forwarded, Inspection};
use crate::listener::relay::pool::Pool;
use crate::metrics::{CountedConnection, ShardMetrics};
use crate::session::app::{SessionApp, Work};
use crate::session::drive::Core;
use crate::session::link::Parting;
use crate::session::registry::SessionKey;
use crate::session::timers::TICK;
use crate::transport::websocket;

/// What one read takes at most.
const READ_BYTES: usize = 64 * 1024;

/// How long a shard that closes waits for its clients.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// What others have for a shard.
#[derive(Debug)]
pub enum ShardMessage<R> {
    /// A client connection.
    Accepted(std::net::TcpStream, SocketAddr),
    /// Something for the application.
    App(R),
    /// An HTTP request whose session lives here.
    Request(Forwarded),
    /// The question whether a WebSocket may join a session that lives here.
    Inspect(Inspection),
    /// A WebSocket for a session that lives here, and what was read of it already.
    Adopt(SessionId, std::net::TcpStream, Bytes),
    /// The edge closes: end every session, and then the shard.
    Close,
}

/// Where an application's tasks leave what they come back with.
#[derive(Debug)]
pub struct Completions<C> {
    queue: Rc<RefCell<VecDeque<C>>>,
    ready: Rc<Notify>,
}

impl<C> Clone for Completions<C> {
    fn clone(&self) -> Self {
        Completions { queue: self.queue.clone(), ready: self.ready.clone() }
    }
}

impl<C> Default for Completions<C> {
    fn default() -> Self {
        Completions { queue: Rc::default(), ready: Rc::default() }
    }
}

impl<C: 'static> Completions<C> {
    /// Runs a task on the shard; what it returns becomes a call of the application.
    pub fn spawn(&self, task: impl Future<Output = C> + 'static) {
        let completions = self.clone();
        spawn_local(async move {
            let completion = task.await;
            completions.queue.borrow_mut().push_back(completion);
            completions.ready.notify_one();
        });
    }

    async fn next(&self) -> C {
        loop {
            let next = self.queue.borrow_mut().pop_front();
            match next {
                Some(completion) => return completion,
                None => self.ready.notified().await,
            }
        }
    }
}

/// One shard, as its tasks see it.
#[derive(Debug)]
pub struct Shard<A: SessionApp> {
    /// Which one this is.
    pub index: usize,
    /// What all shards serve.
    pub site: Arc<Site>,
    /// The inboxes of all shards, this one included.
    pub outlets: Vec<Outlet<ShardMessage<A::Remote>>>,
    /// The counters of this shard.
    pub metrics: Arc<ShardMetrics>,
    /// Connections to other nodes.
    pub pool: Pool,
    core: RefCell<Core<A>>,
    read_buffer: RefCell<Box<[u8]>>,
    work: Notify,
    was_full: Cell<bool>,
    drained: Notify,
    partings: Cell<usize>,
}

impl<A: SessionApp> Shard<A> {
    /// Puts a shard together.
    pub fn new(
        index: usize,
        site: Arc<Site>,
        outlets: Vec<Outlet<ShardMessage<A::Remote>>>,
        metrics: Arc<ShardMetrics>,
        core: Core<A>,
    ) -> Rc<Shard<A>> {
        Rc::new(Shard {
            index,
            site,
            outlets,
            pool: Pool::new(metrics.clone()),
            metrics,
            core: RefCell::new(core),
            read_buffer: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
            work: Notify::new(),
            was_full: Cell::new(false),
            partings: Cell::new(0),
            drained: Notify::new(),
        })
    }

    /// Makes one call into what the shard owns, then sees to what the call has left to do.
    pub fn with<T>(self: &Rc<Self>, call: impl FnOnce(&mut Core<A>) -> T) -> T {
        let mut core = self.core.borrow_mut();
        let outcome = call(core.at(Instant::now()));
        let parting = core.sessions.take_parting();
        let (has_work, is_full) = (core.has_work(), core.is_full());
        let has_resumed = core.sessions.take_resumed();
        drop(core);
        for link in parting {
            spawn_local(self.clone().see_off(link));
        }
        if has_work {
            self.work.notify_one();
        }
        if self.was_full.replace(is_full) && !is_full || has_resumed {
            self.drained.notify_waiters();
        }
        outcome
    }

    /// As [`Shard::with`], with the buffer that all reads of the shard share.
    pub fn with_read_buffer<T>(self: &Rc<Self>, call: impl FnOnce(&mut Core<A>, &mut [u8]) -> T) -> T {
        let mut buffer = self.read_buffer.borrow_mut();
        self.with(|core| call(core, &mut buffer))
    }

    /// Lends that buffer to something that has no part in the sessions.
    pub fn with_buffer<T>(&self, call: impl FnOnce(&mut [u8]) -> T) -> T {
        call(&mut self.read_buffer.borrow_mut())
    }

    /// Runs until the edge closes; with a listener it accepts for itself.
    pub async fn run(
        self: Rc<Self>,
        mut inbox: Inbox<ShardMessage<A::Remote>>,
        completions: Completions<A::Completion>,
        listener: Option<TcpListener>,
    ) {
        let accepting = listener.map(|listener| spawn_local(accept::accept_here(self.clone(), listener)));
        spawn_local(self.clone().deliver());
        spawn_local(self.clone().keep_time());
        spawn_local(self.clone().complete(completions));
        while let Some((message, bytes)) = inbox.next().await {
            match message {
                ShardMessage::Accepted(stream, address) => accept::adopt(&self, stream, address),
                ShardMessage::App(message) => {
                    self.room_for_turns(None).await;
                    self.with(|core| core.remote(message, bytes));
                }
                ShardMessage::Request(forwarded) => {
                    spawn_local(forwarded.answer(self.clone()));
                }
                ShardMessage::Inspect(inspection) => inspection.answer(&self),
                ShardMessage::Adopt(id, stream, left_over) => websocket::adopt(&self, id, stream, left_over),
                ShardMessage::Close => {
                    accepting.inspect(JoinHandle::abort);
                    self.with(Core::close_all);
                    self.say_goodbye().await;
                    return;
                }
            }
        }
    }

    /// Waits until the shard may take in more than it has to work off; of a session, until it may be read.
    pub async fn room_for_turns(&self, session: Option<SessionKey>) {
        // Nothing else runs between the question and the wait, so no answer is missed.
        while self.must_wait(session) {
            self.drained.notified().await;
        }
    }

    fn must_wait(&self, session: Option<SessionKey>) -> bool {
        let core = self.core.borrow();
        core.is_full() || session.is_some_and(|session| core.sessions.is_paused(session))
    }

    async fn see_off(self: Rc<Self>, link: Parting) {
        let _counted = CountedConnection::new(self.metrics.clone());
        self.partings.set(self.partings.get() + 1);
        websocket::see_off(link).await;
        self.partings.set(self.partings.get() - 1);
    }

    /// Waits until clients have taken what is left to say to them, but not for ever.
    async fn say_goodbye(&self) {
        let deadline = Instant::now() + GOODBYE_MAX;
        // Once for the polls, whose responses are written by their connections' tasks.
        tokio::time::sleep(TICK).await;
        while self.partings.get() > 0 && Instant::now() < deadline {
            tokio::time::sleep(TICK).await;
        }
    }

    /// Goes on with long deliveries, a slice at a time.
    async fn deliver(self: Rc<Self>) {
        loop {
            self.work.notified().await;
            while self.with(Core::work) == Work::More {
                yield_now().await;
            }
        }
    }

    async fn complete(self: Rc<Self>, completions: Completions<A::Completion>) {
        loop {
            let completion = completions.next().await;
            self.with(|core| core.completed(completion));
        }
    }

    async fn keep_time(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.with(Core::tick);
        }
    }

    /// Sends a message to the shard that owns a session; `None` when no such shard exists.
    pub fn send_to(&self, shard: usize, message: ShardMessage<A::Remote>, bytes: usize) -> Option<()> {
        match self.outlets.get(shard)?.offer(message, bytes) {
            Ok(()) => Some(()),
            Err(SendError::Full(_) | SendError::Closed(_)) => None,
        }
    }

    /// Wraps a stream from another thread for this shard's runtime.
    pub fn register(&self, stream: std::net::TcpStream) -> Option<TcpStream> {
        TcpStream::from_std(stream).ok()
    }
}
