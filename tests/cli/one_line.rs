//! Every way to get it wrong gives one clear line on stderr and exit code 2.

use std::net::TcpListener;

use crate::{TemporaryFile, command, run};

/// Runs the binary with arguments and a variable, and expects exit code 2, an empty stdout and one line on stderr.
fn refused_with(arguments: &[&str], variable: Option<(&str, &str)>) -> String {
    let mut command = command(arguments);
    command.envs(variable);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert_eq!(output.stdout, b"", "{arguments:?}");
    let line = stderr.strip_suffix('\n').unwrap_or_else(|| panic!("{arguments:?}: no line in {stderr:?}"));
    assert!(!line.contains('\n'), "{arguments:?}: more than one line: {stderr}");
    line.strip_prefix("error: ").unwrap_or_else(|| panic!("{arguments:?}: {line}")).to_owned()
}

fn refused(arguments: &[&str]) -> String {
    refused_with(arguments, None)
}

#[test]
fn an_unknown_key_names_the_nearest_and_the_source() {
    assert_eq!(
        refused(&["serve", "--set", "edge.ping_intervall_ms=300"]),
        "unknown key edge.ping_intervall_ms (--set); did you mean edge.ping_interval_ms?"
    );
    assert_eq!(
        refused(&["--set", "rooms_max=300"]),
        "unknown key rooms_max (--set); did you mean edge.limits.rooms_max?"
    );
    let file =
        TemporaryFile::with("# edges\n[edge]\nlisten = \"127.0.0.1:0\"\n[edge.limit]\nrooms_max = 3\n");
    let expected = format!("unknown key edge.limit ({} line 4); did you mean edge.limits?", file.path());
    assert_eq!(refused(&["check-config", "--config", file.path()]), expected);
    assert_eq!(
        refused_with(&["check-config"], Some(("JACKFIELD_LOG__LEVL", "info"))),
        "unknown key log.levl (variable JACKFIELD_LOG__LEVL); did you mean log.level?"
    );
    assert_eq!(
        refused_with(&["check-config"], Some(("JACKFIELD_EDGE_LISTEN", "127.0.0.1:0"))),
        "unknown key edge_listen (variable JACKFIELD_EDGE_LISTEN); did you mean JACKFIELD_EDGE__LISTEN?"
    );
}

#[test]
fn a_refused_value_says_what_is_accepted() {
    let cases = [
        (
            "edge.ping_interval_ms=0",
            "edge.ping_interval_ms = 0 (--set) is not accepted; give a whole number from 1 to 86400000",
        ),
        ("edge.eio3=maybe", "edge.eio3 = \"maybe\" (--set) is not accepted; give true or false"),
        (
            "upstream.kind=webhook",
            "upstream.kind = \"webhook\" (--set) is not accepted; give \"demo\" or \"none\"",
        ),
        (
            "edge.payload_bytes_max=100000001",
            "edge.payload_bytes_max = 100000001 (--set) is not accepted; give a whole number from 1000 to 100000000",
        ),
        (
            "edge.trusted_proxies=10.0.0.0/33",
            "edge.trusted_proxies = [\"10.0.0.0/33\"] (--set) is not accepted; give a list, an IP address or a CIDR range such as 10.0.0.0/8 each",
        ),
    ];
    for (setting, expected) in cases {
        assert_eq!(refused(&["check-config", "--set", setting]), expected);
    }
    for setting in [
        "edge.listen=localhost",
        "edge.path=socket.io",
        "edge.path=/",
        "edge.namespaces=",
        "edge.namespaces=custom",
        "edge.transports=carrier-pigeon",
        "edge.cors.origins=app.example.com",
        "edge.cookie=a b",
        "edge.poll_packets_max=0",
        "edge.limits.packet_bytes_max=1000",
        "edge.limits.outbox_stalled_bytes_max=4194305",
        "edge.eio3_payloads=text",
        "log.level=loud",
    ] {
        refused(&["check-config", "--set", setting]);
    }
}

#[test]
fn a_file_that_cannot_be_used_says_so() {
    let missing = refused(&["--config", "/nowhere/jackfield.toml"]);
    assert!(missing.starts_with("cannot read the configuration file /nowhere/jackfield.toml: "), "{missing}");
    let folder = refused(&["--config", "/"]);
    assert!(folder.starts_with("cannot read the configuration file /: "), "{folder}");
    let file = TemporaryFile::with("[edge]\nlisten 3000\n");
    let malformed = refused(&["--config", file.path()]);
    assert!(malformed.starts_with(&format!("{} line 2 is not valid TOML: ", file.path())), "{malformed}");
    let token = refused(&["--set", "ops.listen=127.0.0.1:0", "--set", "ops.token_file=/nowhere/token"]);
    assert!(token.starts_with("cannot read ops.token_file /nowhere/token: "), "{token}");
}

#[test]
fn a_taken_port_names_the_way_out() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let ports = ["edge.listen", "emitter.listen", "ops.listen"];
    for key in ports {
        let others = ports.iter().filter(|other| **other != key).map(|other| format!("{other}=127.0.0.1:0"));
        let sets: Vec<String> =
            others.chain([format!("{key}={taken}"), "log.level=off".to_owned()]).collect();
        let mut arguments = vec!["serve"];
        arguments.extend(sets.iter().flat_map(|set| ["--set", set.as_str()]));
        let line = refused(&arguments);
        let expected =
            format!("{taken} is taken by another process; stop it or choose another with --set {key}=");
        assert!(line.starts_with(&expected), "{line}");
    }
}

#[test]
fn an_edge_must_be_told_its_broker_and_its_upstream() {
    assert_eq!(
        refused(&["edge"]),
        "jackfield edge must be told broker.kind (\"memory\" or \"redis\" or \"rabbitmq\") and upstream.kind \
         (\"demo\" or \"none\"); for example --set broker.kind=rabbitmq --set upstream.kind=none"
    );
    assert_eq!(
        refused(&["edge", "--set", "broker.kind=memory"]),
        "jackfield edge must be told upstream.kind (\"demo\" or \"none\"); for example --set upstream.kind=none"
    );
}

#[test]
fn a_wrong_command_line_points_at_help() {
    for arguments in
        [&["--bogus"][..], &["frobnicate"], &["serve", "--set"], &["config-doc", "--set", "a.b=1"]]
    {
        let line = refused(arguments);
        assert!(line.ends_with("; `jackfield --help` lists what there is"), "{line}");
    }
    assert_eq!(
        refused(&["--set", "edge.listen"]),
        "--set edge.listen is not a key with a value; write --set section.key=value"
    );
}

#[test]
fn version_and_help_are_no_failure() {
    assert_eq!(crate::stdout_of(&["--version"]), format!("jackfield {}\n", env!("CARGO_PKG_VERSION")));
    assert!(run(&["--help"]).status.success());
    assert!(run(&["serve", "--help"]).status.success());
}

#[test]
fn check_config_reads_the_files_that_are_named() {
    for (kind, key) in [
        ("memory", "edge.client_bundles_dir"),
        ("memory", "ops.token_file"),
        ("memory", "cluster.secret_file"),
        ("redis", "broker.redis.url_file"),
        ("rabbitmq", "broker.rabbitmq.urls_file"),
    ] {
        let (kind, setting) = (format!("broker.kind={kind}"), format!("{key}=/nowhere/at/all"));
        let line = refused(&["check-config", "--set", &kind, "--set", &setting]);
        assert!(line.contains("/nowhere/at/all") && line.contains(key), "{setting}: {line}");
    }
    let url = refused(&["check-config", "--set", "broker.kind=redis", "--set", "broker.redis.url=http://a"]);
    assert!(url.contains("broker.redis.url"), "{url}");
}
