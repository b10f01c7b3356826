//! Load generator: many raw Socket.IO clients on one thread, and the server's own work per delivery.
//!
//! A server's speed is given as work per second of the CPU time it used, so a generator that shares the
//! machine cannot flatter or spoil the figure. Every delivery is checked: right bytes, right order, none
//! missing, none twice. One run does one workload and prints one line of JSON; `compare`, beside this file,
//! alternates two servers and prints medians.
//!
//! Map: [`swarm`] holds the connections, [`wire`] the bytes, [`fan_out`], [`echo`], [`emits`] and [`idle`] are the
//! workloads, [`caller`] calls the emitter's API, [`process`] asks the system what the server used, [`histogram`] keeps latencies.

mod caller;
mod echo;
mod emits;
mod fan_out;
mod histogram;
mod idle;
mod process;
mod swarm;
mod wire;

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::emits::EmitPlan;
use crate::process::Measured;
use crate::swarm::{Swarm, SwarmPlan};

/// Drives a Socket.IO server that speaks the demo upstream's events, and measures it.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Cli {
    /// Where the server listens, for example 127.0.0.1:3000; repeated, clients are spread over several servers
    #[arg(long = "target", required = true)]
    targets: Vec<SocketAddr>,

    /// Path of the Engine.IO endpoint
    #[arg(long, default_value = "/socket.io/")]
    path: String,

    /// Process whose CPU time and memory are measured; repeated, the CPU time of several is added up
    #[arg(long = "pid", required = true)]
    pids: Vec<u32>,

    /// Process of a broker, whose CPU time is given apart
    #[arg(long)]
    broker_pid: Option<u32>,

    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// One client broadcasts to the namespace, over and over; every client receives
    FanOut {
        /// Clients connected; the sender is one of them
        #[arg(long, default_value_t = 1000)]
        sockets: usize,
        #[command(flatten)]
        plan: RunPlan,
        /// Broadcasts on their way at once; more than one lets a server batch
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
        in_flight: u32,
    },
    /// Every client sends an event with an ack and waits for the answer before the next
    Echo {
        /// Clients connected, each with one event in flight
        #[arg(long, default_value_t = 100)]
        sockets: usize,
        #[command(flatten)]
        plan: RunPlan,
    },
    /// Events from the emitter's API to rooms; the pids are those of the emitting processes
    Emits(EmitPlan),
    /// Memory per session: idle, after a burst, after everybody left and came back
    Idle {
        /// Clients connected
        #[arg(long, default_value_t = 10_000)]
        sockets: usize,
        /// Seconds of broadcasts, then of echoes, in the burst
        #[arg(long, default_value_t = 2.0)]
        burst_seconds: f64,
    },
}

/// How long to measure, and how large a frame.
#[derive(Clone, Copy, Debug, clap::Args)]
struct RunPlan {
    /// Seconds measured
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of the same work before measuring begins
    #[arg(long, default_value_t = 1.0)]
    warm_up_seconds: f64,
    /// Bytes of the delivered WebSocket frame, its header included
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(32..=16_384))]
    frame_bytes: u32,
}

impl RunPlan {
    fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_seconds)
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let connect = |sockets| SwarmPlan { targets: cli.targets.clone(), path: cli.path.clone(), sockets };
    let measured = Measured { servers: cli.pids.clone(), broker: cli.broker_pid };
    let report = match cli.workload {
        Workload::FanOut { sockets, plan, in_flight } => {
            let mut swarm = Swarm::connect(&connect(sockets))?;
            fan_out::measure(&mut swarm, &measured, plan, in_flight)?
        }
        Workload::Echo { sockets, plan } => {
            let mut swarm = Swarm::connect(&connect(sockets))?;
            echo::measure(&mut swarm, &measured, plan)?
        }
        Workload::Emits(plan) => {
            let mut swarm = Swarm::connect(&connect(plan.sockets))?;
            emits::measure(&mut swarm, &measured, &plan)?
        }
        Workload::Idle { sockets, burst_seconds } => {
            let [pid] = *cli.pids else { anyhow::bail!("memory is measured of one process") };
            idle::measure(&connect(sockets), pid, Duration::from_secs_f64(burst_seconds))?
        }
    };
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}
