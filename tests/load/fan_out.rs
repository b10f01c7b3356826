//! Fan-out: one client asks for broadcasts to its namespace, every client must receive each of them, in order.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::RunPlan;
use crate::histogram::Histogram;
use crate::process::{Measured, Stopwatch};
use crate::swarm::{PATIENCE, Receive, Swarm};
use crate::wire;

/// What a delivered broadcast begins with; its sequence number follows.
const DELIVERED_HEAD: &[u8] = b"42[\"msg\",\"";

/// What a delivered broadcast ends with.
const DELIVERED_TAIL: &[u8] = b"\"]";

/// Digits of the sequence number at the front of each broadcast's text.
const SEQUENCE_DIGITS: usize = 8;

/// Measures deliveries per second of server CPU.
pub(crate) fn measure(
    swarm: &mut Swarm,
    measured: &Measured,
    plan: RunPlan,
    in_flight: u32,
) -> anyhow::Result<Value> {
    let mut fan_out = FanOut::new(swarm.len(), plan.frame_bytes, in_flight)?;
    fan_out.run(swarm, plan.warm_up())?;
    let before = fan_out.deliveries;
    fan_out.latency.clear();
    let stopwatch = Stopwatch::start(measured)?;
    fan_out.run(swarm, plan.measured())?;
    let deliveries = fan_out.deliveries - before;
    let used = stopwatch.stop(deliveries)?;
    fan_out.expect_silence(swarm)?;
    Ok(json!({
        "workload": "fan-out",
        "sockets": swarm.len(),
        "frame_bytes": plan.frame_bytes,
        "in_flight": in_flight,
        "broadcasts": fan_out.sent,
        "used": used,
        "latency_us": fan_out.latency.report(),
    }))
}

/// The state of a run: broadcasts are numbered, every client expects the next number and no other.
#[derive(Debug)]
pub(crate) struct FanOut {
    sockets: usize,
    padding: String,
    delivered_bytes: usize,
    sent: u32,
    completed: u32,
    deliveries: u64,
    expected: Vec<u32>,
    /// Broadcast `n` lives in slot `n % in_flight`: deliveries are in order, so `n` is complete before
    /// `n + in_flight` is sent.
    slots: Vec<Slot>,
    latency: Histogram,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    sent_at: Instant,
    delivered: usize,
}

impl FanOut {
    pub(crate) fn new(sockets: usize, frame_bytes: u32, in_flight: u32) -> anyhow::Result<Self> {
        let delivered_bytes = wire::payload_bytes(frame_bytes);
        let fixed = DELIVERED_HEAD.len() + SEQUENCE_DIGITS + DELIVERED_TAIL.len();
        let padding = delivered_bytes.checked_sub(fixed).context("frame too small for a broadcast")?;
        Ok(Self {
            sockets,
            padding: "x".repeat(padding),
            delivered_bytes,
            sent: 0,
            completed: 0,
            deliveries: 0,
            expected: vec![0; sockets],
            slots: vec![Slot { sent_at: Instant::now(), delivered: 0 }; usize::try_from(in_flight)?],
            latency: Histogram::new(),
        })
    }

    /// Broadcasts for `duration`, then waits until the last one has reached every client.
    ///
    /// # Errors
    /// A delivery that is wrong, out of order or twice; or none for [`PATIENCE`].
    pub(crate) fn run(&mut self, swarm: &mut Swarm, duration: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + duration;
        let (mut progress, mut progressed_at) = (self.deliveries, Instant::now());
        loop {
            let now = Instant::now();
            if now < until {
                self.fill(swarm)?;
            } else if self.completed == self.sent {
                return Ok(());
            }
            swarm.turn(Duration::from_millis(100), self)?;
            if progress != self.deliveries {
                (progress, progressed_at) = (self.deliveries, now);
            }
            ensure!(
                progressed_at.elapsed() < PATIENCE,
                "deliveries lost: {} of {}",
                self.deliveries,
                u64::from(self.sent) * u64::try_from(self.sockets)?
            );
        }
    }

    /// Proves that nothing is delivered beyond what was asked for.
    fn expect_silence(&mut self, swarm: &mut Swarm) -> anyhow::Result<()> {
        let wanted = u64::from(self.sent) * u64::try_from(self.sockets)?;
        swarm.turn(Duration::from_millis(200), self)?;
        ensure!(self.deliveries == wanted, "{} deliveries instead of {wanted}", self.deliveries);
        Ok(())
    }

    /// Sends broadcasts until as many are on their way as the plan allows.
    fn fill(&mut self, swarm: &mut Swarm) -> anyhow::Result<()> {
        while usize::try_from(self.sent - self.completed)? < self.slots.len() {
            let text = format!("42[\"broadcast\",null,\"{:08}{}\"]", self.sent, self.padding);
            let slot = slot_of(&mut self.slots, self.sent)?;
            *slot = Slot { sent_at: Instant::now(), delivered: 0 };
            self.sent += 1;
            swarm.send(0, text.as_bytes())?;
        }
        Ok(())
    }
}

impl Receive for FanOut {
    fn handle_text(&mut self, client: usize, text: &[u8], _: &mut Vec<u8>) -> anyhow::Result<()> {
        let Some(rest) = text.strip_prefix(DELIVERED_HEAD) else { return Ok(()) };
        let (digits, rest) = rest.split_at_checked(SEQUENCE_DIGITS).context("broadcast cut short")?;
        let (sequence, _) = wire::split_number(digits).context("no sequence number")?;
        ensure!(
            text.len() == self.delivered_bytes && rest.ends_with(DELIVERED_TAIL),
            "broadcast {sequence} came as {:?}",
            String::from_utf8_lossy(text)
        );
        let expected = self.expected.get_mut(client).context("no such client")?;
        ensure!(sequence == *expected, "broadcast {sequence} came where {expected} was due");
        *expected += 1;
        self.deliveries += 1;
        let slot = slot_of(&mut self.slots, sequence)?;
        slot.delivered += 1;
        self.latency.record(slot.sent_at.elapsed());
        if slot.delivered == self.sockets {
            self.completed += 1;
        }
        Ok(())
    }
}

fn slot_of(slots: &mut [Slot], sequence: u32) -> anyhow::Result<&mut Slot> {
    let place = usize::try_from(sequence)?.checked_rem(slots.len()).context("nothing may be in flight")?;
    slots.get_mut(place).context("no such slot")
}
