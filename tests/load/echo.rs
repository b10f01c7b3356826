//! Echo: every client sends an event that wants an ack, and sends the next when the ack has come.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::RunPlan;
use crate::histogram::Histogram;
use crate::process::{Measured, Stopwatch};
use crate::swarm::{PATIENCE, Receive, Swarm};
use crate::wire;

/// The first ack id. Ids keep seven digits, so every frame of a run has the same length.
const ACK_ID_FIRST: u32 = 1_000_000;

/// The last ack id; the first follows it.
const ACK_ID_LAST: u32 = 9_999_999;

/// Measures answered events per second of server CPU.
pub(crate) fn measure(swarm: &mut Swarm, measured: &Measured, plan: RunPlan) -> anyhow::Result<Value> {
    let mut echo = Echo::new(swarm.len(), plan.frame_bytes)?;
    echo.run(swarm, plan.warm_up())?;
    let before = echo.answered;
    echo.latency.clear();
    let stopwatch = Stopwatch::start(measured)?;
    echo.run(swarm, plan.measured())?;
    let used = stopwatch.stop(echo.answered - before)?;
    swarm.turn(Duration::from_millis(200), &mut echo)?;
    ensure!(echo.answered == echo.asked, "{} answers to {} events", echo.answered, echo.asked);
    Ok(json!({
        "workload": "echo",
        "sockets": swarm.len(),
        "frame_bytes": plan.frame_bytes,
        "used": used,
        "latency_us": echo.latency.report(),
    }))
}

/// The state of a run: each client has one event on its way, or none once the time is up.
#[derive(Debug)]
pub(crate) struct Echo {
    clients: Vec<Waiting>,
    /// What follows the ack id in an answer: the arguments as they were sent.
    answer_tail: Vec<u8>,
    asked: u64,
    answered: u64,
    until: Instant,
    latency: Histogram,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    ack_id: u32,
    sent_at: Instant,
}

impl Echo {
    /// Prepares events whose answers are frames of `frame_bytes`.
    pub(crate) fn new(sockets: usize, frame_bytes: u32) -> anyhow::Result<Self> {
        let fixed = "431000000[\"\"]".len();
        let padding = wire::payload_bytes(frame_bytes).checked_sub(fixed).context("frame too small")?;
        let now = Instant::now();
        Ok(Self {
            clients: vec![Waiting { ack_id: ACK_ID_FIRST, sent_at: now }; sockets],
            answer_tail: format!("[\"{}\"]", "x".repeat(padding)).into_bytes(),
            asked: 0,
            answered: 0,
            until: now,
            latency: Histogram::new(),
        })
    }

    /// Lets every client ask for `duration`, then waits for the last answers.
    ///
    /// # Errors
    /// An answer that is wrong or to another event; or none for [`PATIENCE`].
    pub(crate) fn run(&mut self, swarm: &mut Swarm, duration: Duration) -> anyhow::Result<()> {
        self.until = Instant::now() + duration;
        let mut event = Vec::new();
        for client in 0..swarm.len() {
            event.clear();
            self.ask(client, &mut event)?;
            swarm.send(client, &event)?;
        }
        let (mut progress, mut progressed_at) = (self.answered, Instant::now());
        while self.answered < self.asked {
            swarm.turn(Duration::from_millis(100), self)?;
            if progress != self.answered {
                (progress, progressed_at) = (self.answered, Instant::now());
            }
            ensure!(progressed_at.elapsed() < PATIENCE, "{} of {} answered", self.answered, self.asked);
        }
        Ok(())
    }

    /// Writes the client's next event: `42<id>["echo","xxx"]`.
    fn ask(&mut self, client: usize, event: &mut Vec<u8>) -> anyhow::Result<()> {
        let waiting = self.clients.get_mut(client).context("no such client")?;
        waiting.ack_id = if waiting.ack_id < ACK_ID_LAST { waiting.ack_id + 1 } else { ACK_ID_FIRST };
        waiting.sent_at = Instant::now();
        self.asked += 1;
        event.extend_from_slice(b"42");
        event.extend_from_slice(waiting.ack_id.to_string().as_bytes());
        event.extend_from_slice(b"[\"echo\",");
        event.extend(self.answer_tail.iter().skip(1));
        Ok(())
    }
}

impl Receive for Echo {
    fn handle_text(&mut self, client: usize, text: &[u8], reply: &mut Vec<u8>) -> anyhow::Result<()> {
        let Some(answer) = text.strip_prefix(b"43") else { return Ok(()) };
        let (ack_id, tail) = wire::split_number(answer).context("an ack without an id")?;
        let waiting = self.clients.get(client).context("no such client")?;
        ensure!(ack_id == waiting.ack_id, "ack {ack_id} came where {} was due", waiting.ack_id);
        ensure!(tail == self.answer_tail, "ack {ack_id} carries {:?}", String::from_utf8_lossy(tail));
        self.answered += 1;
        self.latency.record(waiting.sent_at.elapsed());
        if Instant::now() < self.until {
            self.ask(client, reply)?;
        }
        Ok(())
    }
}
