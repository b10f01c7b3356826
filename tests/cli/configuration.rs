//! Sources and their order, and the printed reference.

use std::fs;

use crate::{Running, TemporaryFile, command, stdout_of};

#[test]
fn a_flag_wins_over_a_variable_and_that_over_the_file() {
    let file = TemporaryFile::with(
        "[edge]\nping_interval_ms = 1001\nping_timeout_ms = 1001\nupgrade_timeout_ms = 1001\n\
         [edge.limits]\nrooms_max = 1001\n",
    );
    let mut command = command(&["--config", file.path(), "--set", "edge.listen=127.0.0.1:0"]);
    command
        .args(["serve", "--set", "ops.listen=127.0.0.1:0", "--set", "emitter.listen=127.0.0.1:0"])
        .args(["--set", "edge.ping_interval_ms=1003"])
        .env("JACKFIELD_EDGE__PING_INTERVAL_MS", "1002")
        .env("JACKFIELD_EDGE__PING_TIMEOUT_MS", "1002")
        .env("JACKFIELD_EDGE__LIMITS__ROOMS_MAX", "1002")
        .env("JACKFIELD_SERVICE_PORT", "tcp://10.0.0.1:3000");
    let running = Running::start(command);
    let (status, config) = running.ops_page("/config");
    assert_eq!(status, "HTTP/1.1 200 OK");
    for line in [
        "ping_interval_ms = 1003",
        "ping_timeout_ms = 1002",
        "upgrade_timeout_ms = 1001",
        "connect_timeout_ms = 45000",
        "rooms_max = 1002",
    ] {
        assert!(config.lines().any(|found| found == line), "{line} is not in\n{config}");
    }
}

#[test]
fn a_list_may_be_written_with_commas() {
    let running =
        Running::serve(&["--set", "edge.namespaces=/,/custom", "--set", "edge.transports=websocket"]);
    let (_, config) = running.ops_page("/config");
    let compact: String = config.chars().filter(|letter| !letter.is_whitespace()).collect();
    assert!(compact.contains(r#"namespaces=["/","/custom"#), "{config}");
    assert!(compact.contains(r#"transports=["websocket"#), "{config}");
}

#[test]
fn the_default_file_is_accepted_and_changes_nothing() {
    let file = TemporaryFile::with(&stdout_of(&["default-config"]));
    assert_eq!(stdout_of(&["check-config", "--config", file.path()]), "the configuration is accepted\n");
    // Ports are chosen by the flags; everything else comes from the file in one process and is a default in the other.
    let flags = ["--set", "log.level=warn"];
    let with_file = Running::serve(&["--config", file.path(), "--set", "log.level=warn"]).ops_page("/config");
    assert_eq!(with_file, Running::serve(&flags).ops_page("/config"));
}

#[test]
fn the_committed_reference_is_what_the_program_prints() {
    let path = system_tests::tests_dir().join("../docs/configuration.md");
    let committed = fs::read_to_string(path).unwrap();
    assert!(
        committed == stdout_of(&["config-doc"]),
        "docs/configuration.md is out of date; write it with: cargo run -- config-doc > docs/configuration.md"
    );
}

#[test]
fn every_default_key_is_in_the_reference() {
    let reference = stdout_of(&["config-doc"]);
    let mut section = String::new();
    let mut keys = 0;
    for line in stdout_of(&["default-config"]).lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((key, _)) = line.split_once(" = ") {
            keys += 1;
            assert!(reference.contains(&format!("| `{section}.{key}` |")), "{section}.{key}");
        }
    }
    assert!(keys > 40, "only {keys} keys");
}
