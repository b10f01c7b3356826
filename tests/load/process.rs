//! What the system says a process has used: CPU time to the nanosecond, memory by kind.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

/// CPU time, user and system, of all threads alive in the process.
///
/// Read from the scheduler's own count, because `utime` and `stime` come in ticks of 10 ms. A thread that
/// ends between two readings takes its share with it; servers under load do not end threads.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the measured process is gone")? {
        let path = task?.path().join("schedstat");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let on_cpu = text.split_whitespace().next().context("empty schedstat")?;
        nanoseconds += on_cpu.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// CPU time, user and system, of the calling thread.
pub(crate) fn thread_cpu_time() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let on_cpu = text.split_whitespace().next().context("empty schedstat")?;
    Ok(Duration::from_nanos(on_cpu.parse()?))
}

/// Number of open file descriptors of the process.
pub(crate) fn open_files(pid: u32) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd")).context("the measured process is gone")?.count())
}

/// Memory of a process at one moment, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident pages, shared ones counted in full.
    pub(crate) rss: u64,
    /// Resident pages, shared ones divided among their users.
    pub(crate) pss: u64,
    /// Resident pages that belong to no file: heap and stacks.
    pub(crate) anonymous: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .context("cannot read the memory of the measured process")?;
        let field = |name: &str| -> anyhow::Result<u64> {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name)).context("field missing")?;
            let kib = line.split_whitespace().next().context("value missing")?;
            Ok(kib.parse::<u64>()? * 1024)
        };
        Ok(Self { rss: field("Rss:")?, pss: field("Pss:")?, anonymous: field("Anonymous:")? })
    }

    pub(crate) fn report(&self) -> Value {
        json!({ "rss": self.rss, "pss": self.pss, "anonymous": self.anonymous })
    }
}

/// The processes that are measured.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// The servers, whose CPU time is added up.
    pub(crate) servers: Vec<u32>,
    /// The broker behind them.
    pub(crate) broker: Option<u32>,
}

impl Measured {
    fn servers(&self) -> anyhow::Result<Duration> {
        self.servers.iter().map(|pid| cpu_time(*pid)).sum()
    }

    fn broker(&self) -> anyhow::Result<Duration> {
        self.broker.map_or(Ok(Duration::ZERO), cpu_time)
    }
}

/// A stretch of time over which servers and the generator itself are measured.
#[derive(Debug)]
pub(crate) struct Stopwatch<'a> {
    measured: &'a Measured,
    server: Duration,
    broker: Duration,
    generator: Duration,
    started: Instant,
}

impl<'a> Stopwatch<'a> {
    pub(crate) fn start(measured: &'a Measured) -> anyhow::Result<Self> {
        Ok(Self {
            measured,
            server: measured.servers()?,
            broker: measured.broker()?,
            generator: cpu_time(std::process::id())?,
            started: Instant::now(),
        })
    }

    /// Ends the measurement over `work` units: rates per second of server CPU and of wall time, and how busy
    /// server and generator were. A generator near 1 was the bottleneck of the wall rate, not of the CPU rate.
    pub(crate) fn stop(self, work: u64) -> anyhow::Result<Value> {
        let wall = self.started.elapsed().as_secs_f64();
        let server = self.measured.servers()?.saturating_sub(self.server).as_secs_f64();
        let broker = self.measured.broker()?.saturating_sub(self.broker).as_secs_f64();
        let generator = cpu_time(std::process::id())?.saturating_sub(self.generator).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "counts of work stay far below 2^52")]
        let work_done = work as f64;
        Ok(json!({
            "work": work,
            "per_cpu_second": (work_done / server).round(),
            "per_second": (work_done / wall).round(),
            "server_cpu_us_each": server * 1e6 / work_done,
            "broker_cpu_us_each": broker * 1e6 / work_done,
            "server_busy": server / wall,
            "generator_busy": generator / wall,
            "wall_seconds": wall,
        }))
    }
}
