//! The threads of an edge: each runs its own tasks, and none moves to another.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use adapter::adapter::Carrier;
use tokio::runtime::{Builder, Handle, LocalOptions, LocalRuntime};
use tokio::sync::oneshot;
use tokio::task::spawn_local;

/// How often somebody who waits for a thread looks whether it is done.
const POLL: Duration = Duration::from_millis(2);
/// How long a thread that ends waits for work of its own that blocks: a name that is looked up, what a program that embeds
/// the edge writes.
const BLOCKING_MAX: Duration = Duration::from_secs(2);

/// What a thread is there for.
struct Work(Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>);

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

/// A thread that waits for its work. Dropped, it ends.
#[derive(Debug)]
pub struct Idle {
    thread: JoinHandle<()>,
    runtime: Handle,
    work: oneshot::Sender<Work>,
    until: Option<oneshot::Sender<()>>,
    is_done: Arc<AtomicBool>,
}

/// A thread that has its work.
#[derive(Debug)]
pub struct Busy {
    thread: JoinHandle<()>,
    is_done: Arc<AtomicBool>,
    is_carrier: bool,
}

/// Starts a thread.
///
/// # Errors
/// What the system says when it has no thread or no descriptors to give.
pub fn start(name: &str) -> io::Result<Idle> {
    let (work, work_receiver) = oneshot::channel::<Work>();
    let (until, link_ended) = oneshot::channel();
    let (begin, begun) = mpsc::sync_channel(1);
    let is_done = Arc::new(AtomicBool::new(false));
    let done = is_done.clone();
    let run = move || {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            // Whoever starts a thread waits for this.
            Err(error) => return drop(begin.send(Err(error))),
        };
        let _ = begin.send(Ok(runtime.handle().clone()));
        runtime.block_on(async move {
            let mut has_failed = false;
            if let Ok(Work(work)) = work_receiver.await {
                // As a task: the future of `block_on` costs a look at the sockets each time something wakes it.
                has_failed = spawn_local(work()).await.is_err();
            }
            done.store(true, Ordering::Release);
            // A link that is carried has its goodbye to say; but after a panic, which has been reported, this node must
            // not seem alive to the others.
            if !has_failed {
                let _ = link_ended.await;
            }
        });
        runtime.shutdown_timeout(BLOCKING_MAX);
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
    let runtime = begun.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))?;
    Ok(Idle { thread, runtime, work, until: Some(until), is_done })
}

impl Idle {
    /// The thread as the carrier of a link, which it outlives; once.
    pub fn carrier(&mut self) -> Option<Carrier> {
        Some(Carrier { runtime: self.runtime.clone(), until: self.until.take()? })
    }

    /// Gives it its work.
    pub fn run<F: Future<Output = ()> + 'static>(self, work: impl FnOnce() -> F + Send + 'static) -> Busy {
        // It waits for nothing else.
        let _ = self.work.send(Work(Box::new(|| Box::pin(work()))));
        Busy { thread: self.thread, is_done: self.is_done, is_carrier: self.until.is_none() }
    }
}

impl Busy {
    /// Waits until the work is done and, unless a link is carried, the thread has ended; but not for ever.
    pub fn finish(&self, deadline: Instant) {
        let is_done = || self.is_carrier && self.is_done.load(Ordering::Acquire);
        wait(deadline, || is_done() || self.thread.is_finished());
    }

    /// Waits for the end of the thread, but not for ever.
    pub fn join(self, deadline: Instant) {
        wait(deadline, || self.thread.is_finished());
        if self.thread.is_finished() {
            let _ = self.thread.join();
        }
    }
}

/// Waits, on a thread that may block, but not for ever.
pub fn wait(deadline: Instant, is_done: impl Fn() -> bool) {
    while !is_done() && Instant::now() < deadline {
        thread::sleep(POLL);
    }
}

/// A runtime for the thread that calls.
///
/// # Errors
/// What the system says when it has no descriptors to give.
pub fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}
