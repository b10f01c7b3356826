//! Schemathesis makes calls out of `/openapi.json`, good ones and bad ones: no call ends with a fault of ours or with an
//! answer that is not described.

use std::process::Command;
use std::time::Duration;

use cluster_proto::message::JsonData;
use system_tests::Program;
use system_tests::tools::tests_dir;

use crate::{Cluster, Folder};

/// Some seconds on a machine that has nothing else to do.
const WITHIN: Duration = Duration::from_secs(150);

/// Which calls are made up, always the same ones unless this says otherwise.
const SEED: &str = "JACKFIELD_FUZZ_SEED";

/// That a call which the description allows is accepted is not asked for: that it must name somebody, that names are
/// bounded in bytes and that some are reserved cannot be said there.
fn fuzz(filter: &[&str], not_checked: &str) {
    let cluster = Cluster::new(1);
    let sid = cluster.edges[0].user_socket("/", &["r"], "u");
    // Schemathesis has no more patience than an emit may ask for.
    cluster.edges[0].edit("/", &sid, |socket| socket.ack = Some(JsonData::text("[]")));
    let program = tests_dir().join(".cache/python-backends/bin/schemathesis");
    assert!(program.exists(), "{} is not there; `tests/run` installs it", program.display());
    let folder = Folder::new(&format!("fuzz-{}", cluster.port()));
    let mut command = Command::new(program);
    command
        .args(["run", &format!("http://127.0.0.1:{}/openapi.json", cluster.port())])
        .args(["--phases", "coverage,fuzzing", "--max-examples", "40", "--workers", "1", "--no-color"])
        .args(["--seed", &std::env::var(SEED).unwrap_or_else(|_| "1".to_owned())])
        .args(["--exclude-checks", not_checked])
        .args(filter)
        .current_dir(&folder.0);
    let printed = Program::spawn("schemathesis", command).finish(WITHIN);
    assert!(printed.contains("Test cases:"), "{printed}");
    assert!(!cluster.metrics().contains("status=\"other\""), "an answer that nobody expects");
}

#[test]
fn no_call_breaks_the_emitter() {
    fuzz(&["--exclude-path", "/v1/batch"], "positive_data_acceptance");
}

/// A batch is answered with 200 whatever is wrong with its operations.
#[test]
fn no_batch_breaks_the_emitter() {
    fuzz(&["--include-path", "/v1/batch"], "positive_data_acceptance,negative_data_rejection");
}
