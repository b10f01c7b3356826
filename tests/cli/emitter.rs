//! The emitter as a process, and the subcommands that call its API.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use system_tests::Program;
use system_tests::brokers::RedisServer;

use crate::{PATIENCE, Running, TemporaryFile, command, run, stdout_of};

/// A subcommand that calls the API of a running gateway.
fn call(running: &Running, arguments: &[&str]) -> Output {
    let url = format!("http://{}", running.emitter.as_deref().unwrap());
    command(arguments).env("JACKFIELD_URL", url).output().unwrap()
}

/// Its exit code and stdout; stderr is empty unless it fails, and one line then.
fn ended(running: &Running, arguments: &[&str]) -> (i32, String) {
    let output = call(running, arguments);
    let (code, stderr) = (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(stderr.lines().count(), usize::from(code != 0), "{arguments:?}: {stderr}");
    (code, String::from_utf8(output.stdout).unwrap())
}

/// `listen`, once it is connected; the id of its socket.
fn listen(running: &Running, arguments: &[&str]) -> (Program, String) {
    let mut command = command(&["listen", &format!("http://{}", running.clients)]);
    command.args(arguments).env("JACKFIELD_URL", format!("http://{}", running.emitter.as_deref().unwrap()));
    let mut program = Program::spawn("listen", command);
    let line = program.line_starting("connected to", PATIENCE);
    (program, line.rsplit(' ').next().unwrap().to_owned())
}

#[test]
fn events_are_sent_and_seen() {
    let running = Running::serve(&[]);
    let (mut blue, sid) = listen(&running, &["--room", "blue"]);
    let (mut other, other_sid) = listen(&running, &[]);
    assert_eq!(
        ended(&running, &["emit", "news", "1", r#"{"a":[true]}"#, "text", "--room", "blue"]),
        (0, "accepted\n".into())
    );
    assert_eq!(blue.line_starting("news", PATIENCE), r#"news 1 {"a":[true]} "text""#);
    let binary = r#"{"$binary":"AP8B"}"#;
    ended(&running, &["emit", "all", binary, "--broadcast"]);
    assert_eq!(blue.line_starting("all", PATIENCE), format!("all {binary}"));
    assert_eq!(other.line_starting("all", PATIENCE), format!("all {binary}"));
    ended(&running, &["emit", "one", "--sid", &other_sid]);
    other.line_starting("one", PATIENCE);

    // `listen` acknowledges nothing, so the answer is not whole.
    let (code, lines) = ended(&running, &["emit", "question", "--room", "blue", "--ack=1500"]);
    assert_eq!((code, lines), (3, format!("{sid} did not answer\n")));
    let (code, answer) = ended(&running, &["emit", "question", "--room", "blue", "--ack=1500", "--json"]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((code, &answer["missing"], &answer["timed_out"]), (3, &json!([sid]), &json!(true)));

    let (code, sockets) = ended(&running, &["sockets", "--room", "blue"]);
    assert_eq!((code, sockets), (0, format!("{sid}  -  blue\n")));
    let (code, sockets) = ended(&running, &["sockets", "--sid", &other_sid, "--json"]);
    let sockets: Value = serde_json::from_str(&sockets).unwrap();
    assert_eq!((code, &sockets["sockets"][0]["sid"]), (0, &json!(other_sid)));
    // The demo's greeting is the first event of two.
    let (mut red, _) = listen(&running, &["--room", "red", "--count", "2"]);
    assert_eq!(ended(&running, &["rooms", "r*"]), (0, format!("{:>8}  red\n", 1)));
    ended(&running, &["emit", "last", "--room", "red"]);
    assert_eq!(red.wait(PATIENCE).and_then(|status| status.code()), Some(0));
    assert_eq!(ended(&running, &["disconnect", "--sid", &other_sid]), (0, "disconnected 1\n".into()));
    assert_eq!(other.wait(PATIENCE).and_then(|status| status.code()), Some(1));
    assert!(other.stderr().contains("the server has disconnected this client"), "{}", other.stderr());
}

#[test]
fn a_call_at_fault_is_told_from_one_that_failed() {
    let running = Running::serve(&[]);
    for misuse in [
        &["emit", "e"][..],
        &["emit", "connect", "--broadcast"],
        &["emit", "e", "--room", "r", "--broadcast"],
        &["sockets", "--namespace", "chat"],
        &["disconnect"],
        &["emit", "e", "--broadcast", "--url", "localhost:1"],
    ] {
        assert_eq!(ended(&running, misuse).0, 2, "{misuse:?}");
    }
    let away = run(&["emit", "e", "--broadcast", "--url", "http://127.0.0.1:1"]);
    let stderr = String::from_utf8(away.stderr).unwrap();
    assert_eq!(away.status.code(), Some(1));
    assert!(stderr.starts_with("error: cannot reach http://127.0.0.1:1: "), "{stderr}");
}

/// Runs `token` with something on its stdin.
fn token(arguments: &[&str], stdin: &str) -> String {
    let mut command = command(&["token"]);
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn keys_that_were_minted_open_the_api() {
    let text = stdout_of(&["token", "key", "me", "--scope", "emit:/", "--expires-in", "60"]);
    let key = text.lines().nth(1).unwrap().to_owned();
    let entry = text.split_once("# For emitter.keys_file:\n").unwrap().1;
    let secret = "a secret of more than thirty-two bytes\n";
    let (keys, secrets) = (TemporaryFile::with(entry), TemporaryFile::with(secret));
    let sets =
        [format!("emitter.keys_file={}", keys.path()), format!("emitter.jwt.secret_file={}", secrets.path())];
    let running = Running::serve(&["--set", &sets[0], "--set", &sets[1]]);
    let emit = |key: &str| ended(&running, &["emit", "e", "--broadcast", "--key", key]).0;
    assert_eq!((emit(&key), emit("me.wrong"), emit("")), (0, 2, 2));
    assert_eq!(ended(&running, &["sockets", "--key", &key]).0, 2, "the scope does not cover it");
    let file = TemporaryFile::with(&key);
    assert_eq!(ended(&running, &["emit", "e", "--broadcast", "--key-file", file.path()]).0, 0);
    let jwt = token(&["jwt", "--secret-file", secrets.path(), "--subject", "s", "--scope", "emit:/"], "");
    assert_eq!(emit(&jwt), 0);
    let explained = token(&["explain", "--json"], &jwt);
    let explained: Value = serde_json::from_str(&explained).unwrap();
    assert_eq!((&explained["kind"], &explained["claims"]["sub"]), (&json!("JWT"), &json!("s")));
    let stale = token(&["jwt", "--secret-file", secrets.path(), "--scope", "emit", "--expires-in", "0"], "");
    assert_eq!(emit(&stale), 0, "clocks may differ by thirty seconds");
    let explained = token(&["explain"], &key);
    assert!(
        explained.contains("API key") && !explained.contains(key.split_once('.').unwrap().1),
        "{explained}"
    );
    assert_eq!(token(&["hash"], "test\n").trim().len(), 64);
}

#[test]
fn secrets_are_not_shown_whatever_the_log_level() {
    let text = stdout_of(&["token", "key", "me", "--scope", "*"]);
    let key = text.lines().nth(1).unwrap().to_owned();
    let keys = TemporaryFile::with(text.split_once("# For emitter.keys_file:\n").unwrap().1);
    let secret = "planted secret of the tokens, 32 bytes";
    let secrets = TemporaryFile::with(secret);
    let sets =
        [format!("emitter.keys_file={}", keys.path()), format!("emitter.jwt.secret_file={}", secrets.path())];
    let running = Running::serve(&["--set", &sets[0], "--set", &sets[1], "--set", "log.level=trace"]);
    let jwt = token(&["jwt", "--secret-file", secrets.path(), "--scope", "*"], "");
    for shown in [key.as_str(), jwt.trim(), "me.planted-wrong-secret", "planted.to.ken"] {
        ended(&running, &["emit", "e", "--broadcast", "--key", shown]);
    }
    let mut outputs = vec![running.program.stderr(), running.program.stdout()];
    outputs.extend(["/config", "/metrics"].map(|page| running.ops_page(page).1));
    let signature = jwt.trim().rsplit('.').next().unwrap();
    for planted in
        [key.split_once('.').unwrap().1, secret, "planted-wrong-secret", "planted.to.ken", signature]
    {
        for output in &outputs {
            assert!(!output.contains(planted), "{planted} is in\n{output}");
        }
    }
}

#[test]
fn an_emitter_reaches_edges_through_its_broker() {
    let redis = RedisServer::start();
    let url = format!("broker.redis.url={}", redis.url());
    let secret = TemporaryFile::with("a-secret-of-the-nodes-of-a-cluster\n");
    let secret = format!("cluster.secret_file={}", secret.path());
    let start = |subcommand: &str, sets: &[&str]| {
        let mut command = command(&[subcommand, "--set", "broker.kind=redis", "--set", &url]);
        command.args(sets.iter().flat_map(|set| ["--set", set]));
        command.args(["--set", "ops.listen=127.0.0.1:0"]);
        command
    };
    let edge = Running::start(start(
        "edge",
        &["upstream.kind=demo", "edge.listen=127.0.0.1:0", "cluster.listen=127.0.0.1:0", &secret],
    ));
    let mut emitter = Program::spawn("emitter", start("emitter", &["emitter.listen=127.0.0.1:0"]));
    let line = emitter.line_starting("emitter", PATIENCE);
    let address = line.trim().rsplit("http://").next().unwrap().to_owned();
    emitter.line_starting("next", PATIENCE);
    let both = Running { emitter: Some(address), ..edge };
    system_tests::brokers::wait_until("an emitter on Redis", PATIENCE, || {
        ended_quietly(&both, &["emit", "e", "--broadcast"]) == Some(0)
    });
    let (mut heard, _) = listen(&both, &["--room", "r"]);
    assert_eq!(ended(&both, &["emit", "hello", "--room", "r"]).0, 0);
    heard.line_starting("hello", PATIENCE);
    emitter.terminate();
    assert_eq!(emitter.wait(PATIENCE).and_then(|status| status.code()), Some(0), "{}", emitter.stderr());
}

fn ended_quietly(running: &Running, arguments: &[&str]) -> Option<i32> {
    call(running, arguments).status.code()
}

#[test]
fn an_emitter_that_could_not_work_does_not_start() {
    let refused = |arguments: &[&str]| {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let alone = refused(&["emitter"]);
    assert!(
        alone.starts_with("error: jackfield emitter reaches edges of other processes through a broker: "),
        "{alone}"
    );
    for arguments in [
        &["serve", "--set", "emitter.listen=0.0.0.0:0", "--set", "ops.listen=127.0.0.1:0"][..],
        &[
            "emitter",
            "--set",
            "broker.kind=redis",
            "--set",
            "emitter.listen=0.0.0.0:0",
            "--set",
            "ops.listen=127.0.0.1:0",
        ],
        &["check-config", "--set", "emitter.listen=0.0.0.0:0"],
    ] {
        let open = refused(arguments);
        for way in ["emitter.keys_file", "emitter.jwt.", "127.0.0.1"] {
            assert!(open.contains(way), "{open}");
        }
        assert_eq!(open.lines().count(), 1);
    }
    let unreadable = refused(&["check-config", "--set", "emitter.keys_file=/nowhere/keys"]);
    assert!(unreadable.starts_with("error: cannot read emitter.keys_file /nowhere/keys: "), "{unreadable}");
}

#[test]
fn shells_can_complete() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout_of(&["completion", shell]).contains("disconnect"), "{shell}");
    }
    let mut check = Command::new("bash");
    let mut child = check.args(["-n"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdout_of(&["completion", "bash"]).as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
