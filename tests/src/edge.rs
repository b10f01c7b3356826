//! The server under test: the gateway, or the Engine.IO echo program, as a child process on a private port.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::brokers::free_port;
use crate::program::Program;
use crate::tools;

/// From the start of the process to its banner. It takes under 100 ms; the rest is for a busy machine.
const START_WITHIN: Duration = Duration::from_secs(10);
/// From SIGTERM to a clean end.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Points the tests at a server that already runs, such as the reference implementation in Node, so that the tests
/// themselves can be checked against it.
const EXTERNAL_URL: &str = "JACKFIELD_TEST_URL";

/// A running server. Dropping it kills the process; if the test is failing, its log goes to stderr first.
#[derive(Debug)]
pub struct TestEdge {
    /// `None` for a server that somebody else runs.
    own: Option<Own>,
    url: String,
    ops_url: Option<String>,
    emitter_url: Option<String>,
}

#[derive(Debug)]
struct Own {
    binary: PathBuf,
    /// Everything but the port of the client listener.
    args: Vec<String>,
    /// `None` between [`TestEdge::stop`] and [`TestEdge::restart`].
    process: Option<Program>,
}

impl TestEdge {
    /// Starts `jackfield serve` on free loopback ports with each of `sets` given as `--set <key>=<value>`, and
    /// returns once it accepts connections. With `JACKFIELD_TEST_URL` set, returns that server instead.
    ///
    /// # Panics
    /// When the server does not come up; the message holds its log.
    pub fn start(sets: &[&str]) -> Self {
        match std::env::var(EXTERNAL_URL) {
            Ok(url) => Self::external(&url),
            Err(_) => Self::start_own(
                tools::jackfield_bin(),
                &["serve", "--set", "emitter.listen=127.0.0.1:0"],
                sets,
            ),
        }
    }

    /// Starts the `engineio-echo` program of this package: the gateway's transports and sessions at `/engine.io/`
    /// with every message sent back, and no Socket.IO. Otherwise as [`TestEdge::start`].
    ///
    /// # Panics
    /// When the server does not come up; the message holds its log.
    pub fn start_engineio_echo(sets: &[&str]) -> Self {
        match std::env::var(EXTERNAL_URL) {
            Ok(url) => Self::external(&url),
            Err(_) => Self::start_own(tools::engineio_echo_bin(), &[], sets),
        }
    }

    /// Starts `jackfield edge`: a node of a cluster, with the demo upstream and the broker that `sets` name.
    ///
    /// # Panics
    /// When the server does not come up; the message holds its log.
    pub fn start_node(sets: &[&str]) -> Self {
        let defaults = ["upstream.kind=demo", "cluster.listen=127.0.0.1:0"];
        Self::start_own(tools::jackfield_bin(), &["edge"], &[&defaults, sets].concat())
    }

    fn external(url: &str) -> Self {
        Self { own: None, url: url.trim_end_matches('/').to_owned(), ops_url: None, emitter_url: None }
    }

    fn start_own(binary: PathBuf, head: &[&str], sets: &[&str]) -> Self {
        let defaults = ["ops.listen=127.0.0.1:0"];
        let mut args: Vec<String> = head.iter().map(|arg| (*arg).to_owned()).collect();
        for set in defaults.iter().chain(sets) {
            args.extend(["--set".to_owned(), (*set).to_owned()]);
        }
        let mut edge = Self::external("");
        edge.own = Some(Own { binary, args, process: None });
        edge.spawn(None);
        edge
    }

    /// Starts the process and reads the addresses from its banner.
    fn spawn(&mut self, port: Option<u16>) {
        let own = self.own.as_mut().expect("only a server of our own is started");
        // A port that the system chooses could be somebody else's while the server is down.
        let listen = format!("edge.listen=127.0.0.1:{}", port.unwrap_or_else(free_port));
        let mut command = Command::new(&own.binary);
        command.args(&own.args).args(["--set", &listen]);
        let name = own.binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut process = Program::spawn(name, command);
        process.line_starting("next", START_WITHIN);
        let banner = process.stdout();
        let address = |head: &str| {
            let line = banner.lines().find_map(|line| line.trim_start().strip_prefix(head));
            line.map(|rest| rest.trim().trim_end_matches('/').to_owned())
        };
        self.url = address("clients").unwrap_or_else(|| panic!("the banner names no client URL:\n{banner}"));
        self.ops_url = address("ops");
        self.emitter_url = address("emitter");
        own.process = Some(process);
    }

    /// `http://host:port` of the client listener, without a trailing slash.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The port of the client listener.
    ///
    /// # Panics
    /// When the URL names no port, which only an external server's may.
    pub fn port(&self) -> u16 {
        let port = self.url.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        port.unwrap_or_else(|| panic!("{} names no port", self.url))
    }

    /// `host:port` of the client listener, as `TcpStream::connect` takes it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// `http://host:port` of the emitter's API, which only `serve` has.
    pub fn emitter_url(&self) -> Option<String> {
        self.emitter_url.clone()
    }

    /// `http://host:port` of the ops listener, without a trailing slash.
    ///
    /// # Panics
    /// When the server printed none: an external one, or the Engine.IO echo program.
    pub fn ops_url(&self) -> String {
        self.ops_url.clone().expect("this server has no ops listener")
    }

    /// A number that the server shows to Prometheus: its name, with labels if it has any.
    ///
    /// # Panics
    /// When the server does not show it.
    pub fn metric(&self, name: &str) -> u64 {
        let [value] = self.metrics([name]);
        value
    }

    /// Numbers of one page, so that little can happen between them.
    ///
    /// # Panics
    /// When the ops listener does not answer, or knows no such number.
    pub fn metrics<const N: usize>(&self, names: [&str; N]) -> [u64; N] {
        let page = self.ops_page("/metrics").1;
        names.map(|name| {
            let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.unwrap_or_else(|| panic!("{name} is not in\n{page}")).parse().expect("a number")
        })
    }

    /// A page of the ops listener: its HTTP status and its body.
    ///
    /// # Panics
    /// When the ops listener does not answer.
    pub fn ops_page(&self, path: &str) -> (u16, String) {
        let address = self.ops_url();
        let address = address.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("the ops listener accepts");
        stream.set_read_timeout(Some(START_WITHIN)).expect("a stream takes a deadline");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: ops\r\nConnection: close\r\n\r\n")
            .expect("a request goes out");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer comes in");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("an answer has a status"), body.to_owned())
    }

    /// The id of the server process.
    ///
    /// # Panics
    /// When the server is stopped or not ours.
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Whether the tests run against a server that somebody else started.
    pub fn is_external(&self) -> bool {
        self.own.is_none()
    }

    /// What the server has logged since it was last started.
    pub fn log(&self) -> String {
        self.own.as_ref().and_then(|own| own.process.as_ref()).map(Program::stderr).unwrap_or_default()
    }

    /// Ends the server with SIGTERM and expects exit status 0 within ten seconds.
    ///
    /// # Panics
    /// When it does not end in time, or with another status; or when it is stopped already or not ours.
    pub fn stop(&mut self) {
        self.process().terminate();
        let own = self.own.as_mut().expect("a server of our own");
        let mut process = own.process.take().expect("a running server");
        let status = process.wait(STOP_WITHIN);
        assert!(
            status.is_some_and(|status| status.success()),
            "the server ended with {status:?} after SIGTERM; its log:\n{}",
            process.stderr()
        );
    }

    /// Ends the server as a crash would (SIGKILL).
    ///
    /// # Panics
    /// When the server is stopped already or not ours.
    pub fn kill(&mut self) {
        let own = self.own.as_mut().expect("a server of our own");
        drop(own.process.take().expect("a running server"));
    }

    /// Starts the server again on the port that it had, after stopping it if it runs.
    ///
    /// # Panics
    /// As [`TestEdge::stop`] and [`TestEdge::start`].
    pub fn restart(&mut self) {
        let port = self.port();
        if self.own.as_ref().is_some_and(|own| own.process.is_some()) {
            self.stop();
        }
        self.spawn(Some(port));
    }

    fn process(&self) -> &Program {
        let own = self.own.as_ref().expect("a server that the test started itself");
        own.process.as_ref().expect("a running server")
    }
}

impl Drop for TestEdge {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.is_external() {
            eprintln!("--- log of the server at {}\n{}", self.url, self.log());
        }
    }
}
