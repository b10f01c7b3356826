//! Idle: what a session costs in memory when nothing happens, and what stays behind when something did.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::echo::Echo;
use crate::fan_out::FanOut;
use crate::process::{self, Memory};
use crate::swarm::{Swarm, SwarmPlan};

/// How long the server may settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);

/// How long the server may take to close what its clients have left.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// Frame size of the burst, in bytes: larger than any buffer a server could sensibly embed in a session.
const BURST_FRAME_BYTES: u32 = 1024;

/// Measures the server's memory before, with idle sessions, after a burst, after everybody left, and after
/// everybody came back.
pub(crate) fn measure(plan: &SwarmPlan, pid: u32, burst: Duration) -> anyhow::Result<Value> {
    let before = Memory::of(pid)?;
    let files_before = process::open_files(pid)?;

    let mut swarm = Swarm::connect(plan)?;
    swarm.idle_for(SETTLE)?;
    let idle = Memory::of(pid)?;

    FanOut::new(swarm.len(), BURST_FRAME_BYTES, 1)?.run(&mut swarm, burst)?;
    Echo::new(swarm.len(), BURST_FRAME_BYTES)?.run(&mut swarm, burst)?;
    swarm.idle_for(SETTLE)?;
    let after_burst = Memory::of(pid)?;

    drop(swarm);
    wait_for_close(pid, files_before)?;
    let after_leave = Memory::of(pid)?;

    let mut swarm = Swarm::connect(plan)?;
    swarm.idle_for(SETTLE)?;
    let after_return = Memory::of(pid)?;

    let per_session = |now: &Memory| {
        let sessions = u64::try_from(plan.sockets).unwrap_or(u64::MAX).max(1);
        let share = |now: u64, before: u64| now.saturating_sub(before) / sessions;
        json!({
            "rss": share(now.rss, before.rss),
            "pss": share(now.pss, before.pss),
            "anonymous": share(now.anonymous, before.anonymous),
        })
    };
    Ok(json!({
        "workload": "idle",
        "sockets": plan.sockets,
        "bytes": {
            "before": before.report(),
            "idle": idle.report(),
            "after_burst": after_burst.report(),
            "after_leave": after_leave.report(),
            "after_return": after_return.report(),
        },
        "bytes_per_session": {
            "idle": per_session(&idle),
            "after_burst": per_session(&after_burst),
            "after_return": per_session(&after_return),
        },
    }))
}

/// Waits until the server holds no more descriptors than it did without clients, then lets it settle.
fn wait_for_close(pid: u32, files_before: usize) -> anyhow::Result<()> {
    let until = Instant::now() + CLOSING_MAX;
    while process::open_files(pid)? > files_before && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(SETTLE);
    Ok(())
}
