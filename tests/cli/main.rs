//! The binary as an operator meets it: its command line, its configuration, how it starts and how it ends.
//!
//! - `configuration`: sources and their order, what is refused, the printed reference
//! - `emitter`: the emitter and the subcommands that call it
//! - `lifecycle`: ports, the banner, the ops pages, signals, the time to ready
//! - `one_line`: every way to get it wrong gives one clear line and exit code 2

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test reports a failure"
)]

mod configuration;
mod emitter;
mod lifecycle;
mod one_line;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use system_tests::{Program, jackfield_bin};

/// How long a process may take for what should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The binary with arguments and without the caller's environment.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(jackfield_bin());
    command.env_clear().args(arguments);
    command
}

/// Runs the binary to its end.
fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary runs")
}

/// Runs the binary, expects success, and returns what it wrote to stdout.
fn stdout_of(arguments: &[&str]) -> String {
    let output = run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("stdout is UTF-8")
}

/// A running gateway and where it can be reached.
struct Running {
    program: Program,
    banner: String,
    clients: String,
    /// Where the emitter's API is; only `serve` has one.
    emitter: Option<String>,
    ops: String,
}

impl Running {
    fn start(command: Command) -> Self {
        let mut program = Program::spawn("jackfield", command);
        program.line_starting("next", PATIENCE);
        let banner = program.stdout();
        let address_after = |head: &str| {
            let line = banner.lines().find_map(|line| line.trim_start().strip_prefix(head));
            line.map(|url| url.trim().strip_prefix("http://").expect("a URL").to_owned())
        };
        let needed = |head| address_after(head).unwrap_or_else(|| panic!("no {head} line in {banner:?}"));
        let (clients, ops) = (needed("clients"), needed("ops"));
        Self { emitter: address_after("emitter"), clients, ops, program, banner }
    }

    /// Starts `serve` on free loopback ports, with more arguments.
    fn serve(more: &[&str]) -> Self {
        let mut command = command(&["serve"]);
        for key in ["edge.listen", "emitter.listen", "ops.listen"] {
            command.args(["--set", &format!("{key}=127.0.0.1:0")]);
        }
        command.args(more);
        Self::start(command)
    }

    /// The ops page at a path: the status line and the body.
    fn ops_page(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.ops).expect("the ops listener accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a stream takes a deadline");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: ops\r\nConnection: close\r\n\r\n")
            .expect("a request goes out");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer comes in");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }
}

/// A file that goes when its test ends.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn with(text: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("jackfield-cli-{}-{number}.toml", std::process::id()));
        fs::write(&path, text).expect("the temporary folder takes files");
        Self(path)
    }

    fn path(&self) -> &str {
        Path::to_str(&self.0).expect("the temporary folder has a plain name")
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}
