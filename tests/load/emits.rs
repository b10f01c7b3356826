//! Emits: calls to the emitter's API by a thread of its own, and clients in rooms that must get every event once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};

use crate::caller::{Api, Caller, Events, NUMBER_DIGITS};
use crate::histogram::Histogram;
use crate::process::{Measured, Stopwatch, thread_cpu_time};
use crate::swarm::{PATIENCE, Receive, Swarm};
use crate::wire;

/// What a delivered event begins with; its number follows.
const DELIVERED_HEAD: &[u8] = b"42[\"msg\",\"";

/// The ack id of a client's wish to join its room, and the answer.
const JOINED: &[u8] = b"431[true]";

/// Events that may be emitted and not yet received where no rate is set, so that nothing in between overflows.
const AHEAD_MAX: u64 = 10_000;

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EmitPlan {
    /// Where the API is
    #[arg(long)]
    api: SocketAddr,
    /// The API takes lines, as `node_emitter.cjs` does, and not HTTP
    #[arg(long)]
    lines: bool,
    /// Clients connected
    #[arg(long, default_value_t = 1)]
    pub(crate) sockets: usize,
    /// Clients in each room; an event goes to one room
    #[arg(long, default_value_t = 1)]
    room_sockets: u32,
    /// Events in each call
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    batch: u32,
    /// Connections to the API, each with one call on its way
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// The processor on which calls are made; otherwise any that the generator may use
    #[arg(long)]
    caller_core: Option<usize>,
    /// Events a second; 0 emits as fast as answers come
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Bytes of each event's argument
    #[arg(long, default_value_t = 256)]
    payload_bytes: usize,
    /// Seconds measured
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of the same work before measuring begins
    #[arg(long, default_value_t = 1.0)]
    warm_up_seconds: f64,
}

/// What the thread that calls and the thread that receives tell each other.
#[derive(Debug)]
struct Shared {
    began: Instant,
    /// When each event was due, in nanoseconds since then.
    due: Vec<AtomicU64>,
    sent: AtomicU64,
    /// Events of which every client has its copy.
    received: AtomicU64,
    is_broken: AtomicBool,
}

/// Measures events per second of the emitting processes' CPU time, and from when an event is due to its receipt.
pub(crate) fn measure(swarm: &mut Swarm, measured: &Measured, plan: &EmitPlan) -> anyhow::Result<Value> {
    let rooms = u32::try_from(swarm.len())?.checked_div(plan.room_sockets).context("no sockets in a room")?;
    ensure!(rooms > 0, "fewer clients than one room has");
    let padding = plan.payload_bytes.checked_sub(NUMBER_DIGITS).context("payload too small")?;
    let api = if plan.lines { Api::Lines } else { Api::Http };
    let events = Events { api, batch: plan.batch, rooms, padding: "x".repeat(padding) };
    let seconds = plan.seconds + plan.warm_up_seconds + 1.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of seconds")]
    let capacity = (if plan.rate == 0 { 200_000.0 } else { f64::from(plan.rate) } * seconds) as usize;
    let mut receiver = Receiver {
        shared: Arc::new(Shared {
            began: Instant::now(),
            due: (0..capacity).map(|_| AtomicU64::new(0)).collect(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            is_broken: AtomicBool::new(false),
        }),
        rooms,
        copies: plan.room_sockets,
        delivered_bytes: DELIVERED_HEAD.len() + plan.payload_bytes + 2,
        left: vec![plan.room_sockets; capacity],
        joined: 0,
        deliveries: 0,
        latency: Histogram::new(),
    };
    receiver.join(swarm)?;
    let mut run = |seconds: f64| receiver.run(swarm, &events, plan, Duration::from_secs_f64(seconds));
    run(plan.warm_up_seconds)?;
    let stopwatch = Stopwatch::start(measured)?;
    let (events, caller_cpu) = run(plan.seconds)?;
    let used = stopwatch.stop(events)?;
    swarm.turn(Duration::from_millis(200), &mut receiver)?;
    let (deliveries, wanted) =
        (receiver.deliveries, receiver.shared.sent.load(Ordering::Relaxed) * u64::from(plan.room_sockets));
    ensure!(deliveries == wanted, "{deliveries} deliveries instead of {wanted}");
    #[expect(clippy::cast_precision_loss, reason = "counts of work stay far below 2^52")]
    let caller_cpu = caller_cpu.as_secs_f64() * 1e6 / events as f64;
    Ok(json!({
        "workload": "emits",
        "sockets": swarm.len(),
        "room_sockets": plan.room_sockets,
        "batch": plan.batch,
        "used": used,
        "caller_cpu_us_each": caller_cpu,
        "latency_us": receiver.latency.report(),
    }))
}

/// Calls at the rate, or as fast as answers come, for a while; then waits for the last answers. How many events there
/// were, and the CPU time that it took.
fn call(
    events: &Events,
    shared: &Shared,
    plan: &EmitPlan,
    duration: Duration,
) -> anyhow::Result<(u64, Duration)> {
    if let Some(core) = plan.caller_core {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores)?;
    }
    let rate = plan.rate;
    let mut caller = Caller::connect(plan.api, plan.connections, events.clone())?;
    let cpu = thread_cpu_time()?;
    let (start, batch) = (Instant::now(), caller.batch());
    let first = shared.sent.load(Ordering::Relaxed);
    let mut next = first;
    let spacing = if rate == 0 { Duration::ZERO } else { Duration::from_secs(1) / rate };
    loop {
        let now = Instant::now();
        let due = if rate == 0 { now } else { start + spacing * u32::try_from(next - first)? };
        if due >= start + duration {
            break;
        }
        let is_ahead = rate == 0 && next - shared.received.load(Ordering::Relaxed) > AHEAD_MAX;
        if due <= now && caller.has_idle() && !is_ahead {
            let at = u64::try_from((due - shared.began).as_nanos())?;
            for number in next..next + u64::from(batch) {
                let slot = shared.due.get(usize::try_from(number)?).context("more events than expected")?;
                slot.store(at, Ordering::Relaxed);
            }
            caller.call(u32::try_from(next)?)?;
            next += u64::from(batch);
            shared.sent.store(next, Ordering::Relaxed);
            continue;
        }
        let wait = if is_ahead { Duration::from_millis(1) } else { due.saturating_duration_since(now) };
        caller.turn(if caller.has_idle() { wait } else { Duration::from_millis(100) })?;
        ensure!(!shared.is_broken.load(Ordering::Relaxed), "the receiver has failed");
    }
    let ended = Instant::now();
    while caller.is_calling() {
        caller.turn(Duration::from_millis(100))?;
        ensure!(ended.elapsed() < PATIENCE, "the API does not answer");
    }
    Ok((next - first, thread_cpu_time()?.saturating_sub(cpu)))
}

/// What the clients have received.
#[derive(Debug)]
struct Receiver {
    shared: Arc<Shared>,
    rooms: u32,
    /// How many clients get each event.
    copies: u32,
    delivered_bytes: usize,
    /// How many copies of each event are still to come.
    left: Vec<u32>,
    joined: usize,
    deliveries: u64,
    latency: Histogram,
}

impl Receiver {
    /// Puts each client into its room.
    fn join(&mut self, swarm: &mut Swarm) -> anyhow::Result<()> {
        let began = Instant::now();
        for client in 0..swarm.len() {
            let room = u32::try_from(client)? % self.rooms;
            swarm.send(client, format!("421[\"join\",\"r{room}\"]").as_bytes())?;
        }
        while self.joined < swarm.len() {
            swarm.turn(Duration::from_millis(100), self)?;
            ensure!(began.elapsed() < PATIENCE, "{} of {} clients have joined", self.joined, swarm.len());
        }
        Ok(())
    }

    fn run(
        &mut self,
        swarm: &mut Swarm,
        events: &Events,
        plan: &EmitPlan,
        duration: Duration,
    ) -> anyhow::Result<(u64, Duration)> {
        self.latency.clear();
        let shared = self.shared.clone();
        thread::scope(|scope| {
            let calling = scope.spawn(|| call(events, &shared, plan, duration));
            let received = self.receive(swarm, || calling.is_finished());
            shared.is_broken.store(received.is_err(), Ordering::Relaxed);
            let called = calling.join().map_err(|_| anyhow::anyhow!("the calling thread has failed"))?;
            received?;
            called
        })
    }

    /// Receives until the caller has ended and everything is there.
    fn receive(&mut self, swarm: &mut Swarm, has_ended: impl Fn() -> bool) -> anyhow::Result<()> {
        let (mut progress, mut progressed_at) = (self.deliveries, Instant::now());
        loop {
            let is_last = has_ended();
            let wanted = self.shared.sent.load(Ordering::Relaxed) * u64::from(self.copies);
            if is_last && self.deliveries == wanted {
                return Ok(());
            }
            swarm.turn(Duration::from_millis(20), self)?;
            if progress != self.deliveries {
                (progress, progressed_at) = (self.deliveries, Instant::now());
            }
            ensure!(progressed_at.elapsed() < PATIENCE, "{} of {wanted} deliveries", self.deliveries);
        }
    }
}

impl Receive for Receiver {
    fn handle_text(&mut self, client: usize, text: &[u8], _: &mut Vec<u8>) -> anyhow::Result<()> {
        self.joined += usize::from(text == JOINED);
        let Some(rest) = text.strip_prefix(DELIVERED_HEAD) else { return Ok(()) };
        let (digits, _) = rest.split_at_checked(NUMBER_DIGITS).context("event cut short")?;
        let (number, _) = wire::split_number(digits).context("no number")?;
        ensure!(
            text.len() == self.delivered_bytes && text.ends_with(b"\"]"),
            "event {number} came as {:?}",
            String::from_utf8_lossy(text)
        );
        let place = usize::try_from(number)?;
        ensure!(
            Some(number % self.rooms) == u32::try_from(client)?.checked_rem(self.rooms),
            "event {number} came to {client}"
        );
        let left = self.left.get_mut(place).context("a number that is too large")?;
        *left = left.checked_sub(1).with_context(|| format!("event {number} came once too often"))?;
        let due = self.shared.due.get(place).context("no such event")?.load(Ordering::Relaxed);
        let now = self.shared.began.elapsed();
        self.latency.record(now.saturating_sub(Duration::from_nanos(due)));
        self.deliveries += 1;
        if *left == 0 {
            self.shared.received.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
