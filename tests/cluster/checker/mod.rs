//! Five nodes and five hundred clients of every kind that join, leave and publish at random, and a judge of what they
//! have heard: each publisher in its order, nothing twice, nothing missed, and nothing that was not for them.
//!
//! - [`players`]: what clients and applications do
//! - [`record`]: what each of them writes down
//! - [`judge`]: what must hold of that
//! - [`random`]: numbers that a seed repeats
//!
//! The seed is printed. `JACKFIELD_CHECKER_SEED` repeats the choices, though not the moments at which they meet, and
//! `JACKFIELD_CHECKER_SECONDS` plays for longer.

mod judge;
mod players;
mod random;
mod record;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::brokers::Broker;

const NODES: usize = 5;
const CLIENTS: usize = 500;
const SECONDS: u64 = 30;

fn number_from(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn play(broker: &Broker) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let seed = number_from("JACKFIELD_CHECKER_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    let seconds = number_from("JACKFIELD_CHECKER_SECONDS").unwrap_or(SECONDS);
    eprintln!("{}: JACKFIELD_CHECKER_SEED={seed} JACKFIELD_CHECKER_SECONDS={seconds}", broker.name());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let record = runtime.block_on(players::play(broker, seed, Duration::from_secs(seconds)));
    let verdict = judge::judge(&record);
    eprintln!("{}: {verdict}", broker.name());
    verdict.check();
}

#[test]
fn memory() {
    play(&Broker::Memory);
}

#[test]
fn redis() {
    play(&Broker::redis());
}

#[test]
fn rabbitmq() {
    play(&Broker::rabbitmq());
}
