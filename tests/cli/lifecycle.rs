//! Ports, the banner, the ops pages, signals, and the time to ready.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{PATIENCE, Running, command};

/// From the start of the process to a port that accepts.
const READY_WITHIN: Duration = Duration::from_millis(100);

#[test]
fn the_banner_says_where_it_is_and_what_to_do() {
    let running = Running::serve(&[]);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "jackfield {version} · serve · broker memory · upstream demo\n  clients  http://{clients}\n  \
         emitter  http://{emitter}\n  ops      http://{ops}\n  next     open http://{clients} in a browser\n",
        clients = running.clients,
        emitter = running.emitter.as_deref().unwrap(),
        ops = running.ops
    );
    assert_eq!(running.banner.trim_end(), expected.trim_end());
    TcpStream::connect(&running.clients).unwrap();
}

#[test]
fn every_address_is_shown_as_localhost() {
    let mut command = command(&["edge", "--set", "broker.kind=memory", "--set", "upstream.kind=none"]);
    command.args(["--set", "edge.listen=0.0.0.0:0", "--set", "ops.listen=[::1]:0"]);
    let running = Running::start(command);
    assert!(running.banner.contains(" · edge · broker memory · upstream none\n"), "{}", running.banner);
    assert!(running.clients.starts_with("localhost:"), "{}", running.clients);
    assert!(running.ops.starts_with("[::1]:"), "{}", running.ops);
}

#[test]
fn the_ops_pages_answer() {
    let running = Running::serve(&[]);
    let page = |path| running.ops_page(path);
    assert_eq!(page("/livez"), ("HTTP/1.1 200 OK".to_owned(), "alive\n".to_owned()));
    assert_eq!(page("/readyz"), ("HTTP/1.1 200 OK".to_owned(), "ready\n".to_owned()));
    let (status, metrics) = page("/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let is_ours = |line: &str| line.starts_with('#') || line.starts_with("jackfield_");
    assert!(!metrics.is_empty() && metrics.lines().all(is_ours), "{metrics}");
    assert_eq!(page("/nothing").0, "HTTP/1.1 404 Not Found");
}

#[test]
fn a_stop_signal_ends_it_cleanly() {
    for stop in [Signal::TERM, Signal::INT] {
        let mut running = Running::serve(&[]);
        running.program.signal(stop);
        let status = running.program.wait(PATIENCE).unwrap_or_else(|| panic!("{stop:?} does not stop it"));
        assert_eq!(status.code(), Some(0), "{stop:?}: {}", running.program.stderr());
        TcpStream::connect(&running.clients).unwrap_err();
    }
}

#[test]
fn it_is_ready_at_once() {
    let mut times = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        let running = Running::serve(&[]);
        TcpStream::connect(&running.clients).unwrap();
        times.push(started.elapsed());
    }
    times.sort_unstable();
    assert!(times[2] < READY_WITHIN, "five starts took {times:?}");
}
