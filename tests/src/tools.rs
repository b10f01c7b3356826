//! Where the programs and packages are that the tests drive, and how they are run. `tests/run` puts them there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::program::Program;

/// How long a client script may run. A script has shorter deadlines of its own; this one only ends a hang.
const SCRIPT_WITHIN: Duration = Duration::from_secs(120);

/// Which generation of the Python clients: each needs packages that exclude the other's, so each has its own
/// environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PythonClients {
    /// python-socketio 4.6 on python-engineio 3: Engine.IO protocol 3.
    V4,
    /// python-socketio 5 on python-engineio 4: Engine.IO protocol 4. Holds websocket-client for raw use too.
    V5,
}

/// The `tests` folder of the checkout.
pub fn tests_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The gateway binary of the build profile that this test was built with.
///
/// # Panics
/// When it is not built.
pub fn jackfield_bin() -> PathBuf {
    binary("jackfield")
}

/// The Engine.IO echo program of the build profile that this test was built with.
///
/// # Panics
/// When it is not built.
pub fn engineio_echo_bin() -> PathBuf {
    binary("engineio-echo")
}

/// Finds a binary of the workspace beside the running one: a test executable lies in `<profile>/deps/`, a program
/// in `<profile>/`.
fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("a running program knows its path");
    let folder = exe.parent().expect("an executable lies in a folder");
    let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    needed(profile.join(name), "builds it")
}

/// The npm packages: every client version under its alias (`sio-1-4` … `sio-4-8`), playwright-core and others.
///
/// # Panics
/// When they are not installed.
pub fn node_modules() -> PathBuf {
    needed(tests_dir().join("node_modules"), "installs it")
}

/// The official browser bundles, laid out as `edge.client_bundles_dir` wants them: 4.x at the root, 2.x in `v2/`,
/// and further versions in `v1-4/`, `v1-7/` and `v2-0/`.
///
/// # Panics
/// When they are not installed.
pub fn bundles_dir() -> PathBuf {
    needed(tests_dir().join(".cache/bundles"), "installs it")
}

/// The Python interpreter of an environment that holds one generation of the clients.
///
/// # Panics
/// When it is not installed.
pub fn python(clients: PythonClients) -> PathBuf {
    let environment = match clients {
        PythonClients::V4 => "python-v4",
        PythonClients::V5 => "python-v5",
    };
    needed(tests_dir().join(".cache").join(environment).join("bin/python"), "installs it")
}

fn needed(path: PathBuf, remedy: &str) -> PathBuf {
    assert!(path.exists(), "{} is not there; `tests/run` {remedy}", path.display());
    path
}

/// Starts Node on a script, which is named relative to the `tests` folder.
///
/// # Panics
/// When Node or the packages are not installed.
pub fn spawn_node(script: impl AsRef<Path>, args: &[&str], envs: &[(&str, &str)]) -> Program {
    node_modules();
    spawn(Command::new("node"), script.as_ref(), args, envs)
}

/// Starts Python on a script, which is named relative to the `tests` folder.
///
/// # Panics
/// When the environment is not installed.
pub fn spawn_python(
    clients: PythonClients,
    script: impl AsRef<Path>,
    args: &[&str],
    envs: &[(&str, &str)],
) -> Program {
    let mut command = Command::new(python(clients));
    command.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    spawn(command, script.as_ref(), args, envs)
}

fn spawn(mut command: Command, script: &Path, args: &[&str], envs: &[(&str, &str)]) -> Program {
    let path = needed(tests_dir().join(script), "belongs to a whole checkout");
    command.arg(path).args(args).envs(envs.iter().copied());
    Program::spawn(format!("{} {}", script.display(), args.join(" ")), command)
}

/// Runs a Node script to its end, prints what it printed, and returns its stdout.
///
/// # Panics
/// When it fails or takes longer than two minutes; the message holds its output.
pub fn run_node(script: impl AsRef<Path>, args: &[&str], envs: &[(&str, &str)]) -> String {
    shown(spawn_node(script, args, envs).finish(SCRIPT_WITHIN))
}

/// Runs a Python script to its end, prints what it printed, and returns its stdout.
///
/// # Panics
/// When it fails or takes longer than two minutes; the message holds its output.
pub fn run_python(
    clients: PythonClients,
    script: impl AsRef<Path>,
    args: &[&str],
    envs: &[(&str, &str)],
) -> String {
    shown(spawn_python(clients, script, args, envs).finish(SCRIPT_WITHIN))
}

fn shown(output: String) -> String {
    println!("{output}");
    output
}
