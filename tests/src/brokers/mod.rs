//! Real brokers as children of a test: Redis, Sentinel and RabbitMQ on private loopback ports, each in a folder of its
//! own that goes with it, and a relay that cuts connections.
//!
//! A broker keeps its port over restarts, so that clients find it again.
//!
//! - `redis`, `rabbitmq`: the servers
//! - `certificate`: what encrypted connections need
//! - `relay`: connections that are cut or held

mod certificate;
mod rabbitmq;
mod redis;
mod relay;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub use certificate::Certificate;
pub use rabbitmq::{RabbitmqCluster, RabbitmqServer};
pub use redis::{RedisServer, Sentinels};
pub use relay::Relay;

/// How long a broker may take to start on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Ports that tests give to servers: below those that the system gives to outgoing connections, of which some test has
/// hundreds, so that none of them takes a port between the look and the start, or while a server is down.
const PORTS: std::ops::Range<u32> = 10_000..32_000;
/// Tests that run at a time share them, so that none takes a port that another is about to use.
const SHARES: u32 = 16;
/// Ports that one process tries before it meets those of the next one.
const PORTS_PER_PROCESS: u32 = 64;

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // The runner of the tests numbers the places in which they run.
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok().and_then(|slot| slot.parse().ok());
    let share = (PORTS.end - PORTS.start) / SHARES;
    let start = PORTS.start + share * (slot.unwrap_or_else(std::process::id) % SHARES);
    let first = std::process::id().wrapping_mul(PORTS_PER_PROCESS);
    loop {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(start + number % share).expect("a port");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A folder that is removed with the value.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(kind: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("jackfield-{kind}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for a broker");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits until something holds.
///
/// # Panics
/// When it does not within the time.
pub fn wait_until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {} ms", within.as_millis());
        thread::sleep(POLL);
    }
}

pub(crate) fn accepts(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Duration::from_millis(200))
        .is_ok()
}

pub(crate) fn spawn(mut command: Command, log: &Path) -> Child {
    let output = fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
    command.stdin(Stdio::null()).stdout(output.try_clone().expect("a second handle")).stderr(output);
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; `tests/run` installs what it needs"))
}
