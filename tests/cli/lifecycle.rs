//! Ports, the banner, the ops pages, signals, and the time to ready.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use system_tests::Program;
use system_tests::brokers::{free_port, wait_until};

use crate::{PATIENCE, Running, TemporaryFile, command};

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

/// The log says where the broker was looked for, and what that means, once for each reason.
#[test]
fn a_broker_that_is_not_there_is_named() {
    let secret = TemporaryFile::with("a-secret-of-the-nodes-of-a-cluster\n");
    let secret = format!("cluster.secret_file={}", secret.path());
    let edge = ["upstream.kind=none", "edge.listen=127.0.0.1:0", "cluster.listen=127.0.0.1:0", &secret];
    let [one, two] = [free_port(), free_port()];
    let redis = format!("broker.redis.url=redis://:hush@127.0.0.1:{one}");
    let rabbitmq = format!("broker.rabbitmq.urls=amqp://127.0.0.1:{one},amqp://u:hush@127.0.0.1:{two}");
    for (subcommand, sets, kind, url, expected) in [
        ("edge", &edge[..], "redis", &redis, "the broker cannot be reached; clients are taken once it can"),
        (
            "edge",
            &edge[..],
            "rabbitmq",
            &rabbitmq,
            "the broker cannot be reached; clients are taken once it can",
        ),
        (
            "emitter",
            &["emitter.listen=127.0.0.1:0"][..],
            "redis",
            &redis,
            "calls are refused until it is back",
        ),
    ] {
        let mut command = command(&[subcommand, "--set", "ops.listen=127.0.0.1:0", "--set", url]);
        command.arg("--set").arg(format!("broker.kind={kind}"));
        command.args(sets.iter().flat_map(|set| ["--set", set]));
        let mut program = Program::spawn(subcommand, command);
        let ports = if kind == "redis" { vec![one] } else { vec![one, two] };
        for port in &ports {
            wait_until("the address in the log", PATIENCE, || {
                program.stderr().contains(&format!("127.0.0.1:{port}: Connection refused"))
            });
        }
        // A few more attempts have nothing to add.
        std::thread::sleep(Duration::from_millis(1_500));
        let log = program.stderr();
        assert_eq!(log.matches(expected).count(), ports.len(), "{log}");
        assert!(!log.contains("hush"), "{log}");
        program.terminate();
        assert_eq!(program.wait(PATIENCE).and_then(|status| status.code()), Some(0), "{log}");
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
