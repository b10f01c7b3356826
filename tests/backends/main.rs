//! The programs of `docs/backends/`, run as a reader would run them, against a gateway with a client in it.
//!
//! A page marks its files as ```` ```language file=NAME ```` and what to run as ```` ```sh run ````. Each program tells
//! the room `order:42` that the order is paid, counts the sockets in it, and is refused once.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test reports a failure"
)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use system_tests::{Program, TestEdge, jackfield_bin, tests_dir};

/// A compiler may have to warm up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a page holds.
struct Page {
    files: Vec<(String, String)>,
    commands: Vec<String>,
}

impl Page {
    fn read(name: &str) -> Self {
        let path = tests_dir().join("../docs/backends").join(name);
        let text = fs::read_to_string(path).expect("a page");
        let mut page = Self { files: Vec::new(), commands: Vec::new() };
        for block in text.split("\n```").skip(1).step_by(2) {
            let (head, body) = block.split_once('\n').expect("a block of several lines");
            match head.split_once(' ') {
                Some((_, "run")) => page.commands.push(body.to_owned()),
                Some((_, mark)) => {
                    let file = mark.strip_prefix("file=").expect("a mark that is known");
                    page.files.push((file.to_owned(), format!("{body}\n")));
                }
                None => {}
            }
        }
        assert!(!page.files.is_empty() && !page.commands.is_empty(), "{name} has nothing to run");
        page
    }
}

/// A folder that is removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("jackfield-backends-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Mints a key; what the caller shows, and the entry for the file of keys.
fn key() -> (String, String) {
    let output = Command::new(jackfield_bin())
        .args([
            "token",
            "key",
            "backend",
            "--scope",
            "emit:/",
            "--scope",
            "sockets:read",
            "--scope",
            "sockets:write",
        ])
        .output()
        .expect("the binary runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let key = text.lines().nth(1).expect("a key").to_owned();
    (key, text.split_once("# For emitter.keys_file:\n").expect("an entry").1.to_owned())
}

/// Runs a page's commands and gives all that they print. The room hears the event so many times.
fn check(page: &str, pushes: usize) -> String {
    let page = Page::read(page);
    let folder = Folder::new();
    for (name, text) in &page.files {
        fs::write(folder.0.join(name), text).expect("a file");
    }
    let (key, entry) = key();
    let keys = folder.0.join("keys.toml");
    fs::write(&keys, entry).expect("a file");
    let edge = TestEdge::start(&[&format!("emitter.keys_file={}", keys.display())]);
    let url = edge.emitter_url().expect("a gateway with an emitter");
    let command = |program: &str| {
        let mut command = Command::new(program);
        command.env("JACKFIELD_URL", &url).env("JACKFIELD_KEY", &key).current_dir(&folder.0);
        command
    };
    let mut listener = command(jackfield_bin().to_str().expect("a plain path"));
    listener.args(["listen", &edge.url(), "--room", "order:42", "--json"]);
    let mut listener = Program::spawn("listen", listener);
    // The demo greets once the client is connected; it is in the room a moment later.
    listener.line_starting(r#"{"args":[{}],"event":"auth""#, PATIENCE);
    system_tests::brokers::wait_until("a client in the room", PATIENCE, || {
        let mut rooms = command(jackfield_bin().to_str().expect("a plain path"));
        let output = rooms.args(["rooms", "order:42"]).output().expect("the binary runs");
        !output.stdout.is_empty()
    });
    let path = std::env::var("PATH").unwrap_or_default();
    let environment = tests_dir().join(".cache/python-backends/bin");
    let mut printed = String::new();
    for script in &page.commands {
        let mut shell = command("sh");
        shell.env("PATH", format!("{}:{path}", environment.display())).env("PYTHONDONTWRITEBYTECODE", "1");
        shell.env("GOFLAGS", "-mod=mod").env("GO111MODULE", "off").env("GOCACHE", folder.0.join("go-cache"));
        shell.args(["-ec", script]);
        printed.push_str(&Program::spawn(script.clone(), shell).finish(PATIENCE));
        printed.push('\n');
    }
    for _ in 0..pushes {
        let line = listener.line_starting(r#"{"args""#, PATIENCE);
        let event: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(event["event"], "order.updated");
        assert_eq!(event["args"], json!([{"id": 42, "state": "paid"}]));
    }
    assert!(printed.contains("refused: reserved_event"), "{printed}");
    printed
}

#[test]
fn curl() {
    let printed = check("curl.md", 1);
    assert!(printed.contains(r#""accepted":true"#) && printed.matches(r#""sid""#).count() == 1, "{printed}");
}

#[test]
fn python() {
    let printed = check("python.md", 3);
    for line in ["sockets: 1", "flask: {'ok': True}", "django: {'ok': True}"] {
        assert!(printed.contains(line), "{printed}");
    }
}

fn counts(page: &str) {
    let printed = check(page, 1);
    assert!(printed.contains("sockets: 1"), "{printed}");
}

#[test]
fn php() {
    counts("php.md");
}

#[test]
fn ruby() {
    counts("ruby.md");
}

#[test]
fn go() {
    counts("go.md");
}

#[test]
fn node() {
    counts("node.md");
}

#[test]
fn java() {
    counts("java.md");
}
