//! The measuring tools themselves: the generator checks every delivery, so a run that ends well has lost nothing.
//! No figure is judged here; `compare` does that on a quiet machine.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failed expectation is how a test fails, in its helper functions too"
)]

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use system_tests::{Program, TestEdge};

/// How long one short run may take on a busy machine.
const RUN_WITHIN: Duration = Duration::from_secs(30);

/// The process under load and the address it listens on.
struct Target {
    pid: u32,
    address: String,
}

#[test]
fn raw_loop_loses_nothing() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raw-loop"));
    command.arg("127.0.0.1:0");
    let mut program = Program::spawn("raw-loop", command);
    let line = program.line_starting("listening on ", RUN_WITHIN);
    let address = line.trim_start_matches("listening on ").to_owned();
    check(&Target { pid: program.pid(), address });
}

#[test]
fn edge_loses_nothing() {
    let edge = TestEdge::start(&["edge.shards=1"]);
    if !edge.is_external() {
        check(&Target { pid: edge.pid(), address: format!("127.0.0.1:{}", edge.port()) });
    }
}

#[test]
fn emits_arrive_once() {
    let edge = TestEdge::start(&["edge.shards=1"]);
    let Some(api) = edge.emitter_url() else { return };
    let target = Target { pid: edge.pid(), address: format!("127.0.0.1:{}", edge.port()) };
    let short = [
        "emits",
        "--api",
        api.trim_start_matches("http://"),
        "--seconds",
        "0.2",
        "--warm-up-seconds",
        "0.05",
    ];
    let single = load(&target, &[&short[..], &["--sockets", "10", "--room-sockets", "5"]].concat());
    assert!(single["used"]["work"].as_u64().unwrap() > 0, "{single}");
    let batch = load(&target, &[&short[..], &["--batch", "50", "--connections", "2"]].concat());
    assert_eq!(batch["used"]["work"].as_u64().unwrap() % 50, 0, "whole batches only: {batch}");
    let paced = load(&target, &[&short[..], &["--rate", "500"]].concat());
    assert_eq!(paced["used"]["work"], 100, "{paced}");
}

/// Runs each workload for a moment.
fn check(target: &Target) {
    let short = ["--sockets", "50", "--seconds", "0.2", "--warm-up-seconds", "0.05"];
    let one = load(target, &[&["fan-out"], &short[..]].concat());
    assert_eq!(one["used"]["work"].as_u64().unwrap() % 50, 0, "whole broadcasts only: {one}");
    let batched =
        load(target, &[&["fan-out", "--in-flight", "8", "--frame-bytes", "300"], &short[..]].concat());
    assert_eq!(batched["used"]["work"].as_u64().unwrap() % 50, 0, "whole broadcasts only: {batched}");
    let echo = load(target, &[&["echo"], &short[..]].concat());
    assert!(echo["used"]["work"].as_u64().unwrap() >= 50, "one answer each at least: {echo}");
}

/// Runs the generator and returns its report.
fn load(target: &Target, workload: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    command.args(["--target", &target.address, "--pid", &target.pid.to_string()]).args(workload);
    let report = Program::spawn(format!("load {}", workload.join(" ")), command).finish(RUN_WITHIN);
    serde_json::from_str(&report).unwrap()
}
