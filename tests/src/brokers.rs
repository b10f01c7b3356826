//! Real brokers as children of a test: Redis, Sentinel and RabbitMQ on private loopback ports, each in a folder of its
//! own that goes with it, and a relay that cuts connections.
//!
//! A broker keeps its port over restarts, so that clients find it again.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::signal;

/// How long a broker may take to start on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Ports that tests give to servers: below those that the system gives to outgoing connections, of which some test has
/// hundreds, so that none of them takes a port between the look and the start, or while a server is down.
const PORTS: std::ops::Range<u32> = 10_000..32_000;
/// Ports that one process tries before it meets those of the next one.
const PORTS_PER_PROCESS: u32 = 64;

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(PORTS_PER_PROCESS);
    loop {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + number % (PORTS.end - PORTS.start)).expect("a port");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A folder that is removed with the value.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(kind: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("jackfield-{kind}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for a broker");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits until something holds.
///
/// # Panics
/// When it does not within the time.
pub fn wait_until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {} ms", within.as_millis());
        thread::sleep(POLL);
    }
}

pub(crate) fn accepts(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Duration::from_millis(200))
        .is_ok()
}

pub(crate) fn spawn(mut command: Command, log: &Path) -> Child {
    let output = fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
    command.stdin(Stdio::null()).stdout(output.try_clone().expect("a second handle")).stderr(output);
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; `tests/run` installs what it needs"))
}

/// A Redis server without persistence.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    port: u16,
    folder: Folder,
    arguments: Vec<String>,
}

impl RedisServer {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further arguments.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub fn start_with(arguments: &[&str]) -> Self {
        let (port, folder) = (free_port(), Folder::new("redis"));
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = Self::launch(port, &folder, &arguments);
        Self { child, port, folder, arguments }
    }

    fn launch(port: u16, folder: &Folder, arguments: &[String]) -> Child {
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(["--dir", &folder.0.to_string_lossy()]).args(arguments);
        let child = spawn(command, &folder.path("log"));
        wait_until("redis-server listens", START_WITHIN, || accepts(port));
        child
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it as an operator would, or with SIGKILL, and waits for the end.
    ///
    /// # Panics
    /// When it has ended before.
    pub fn stop(&mut self, is_kill: bool) {
        signal(self.child.id(), if is_kill { Signal::KILL } else { Signal::TERM });
        self.child.wait().expect("a child of ours can be waited for");
    }

    /// Starts it again on the same port, empty.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.child = Self::launch(self.port, &self.folder, &self.arguments);
    }

    /// Freezes it, connections and all.
    ///
    /// # Panics
    /// When it has ended.
    pub fn freeze(&self) {
        signal(self.child.id(), Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it has ended.
    pub fn thaw(&self) {
        signal(self.child.id(), Signal::CONT);
    }

    /// Runs one command of `redis-cli` and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn cli(&self, arguments: &[&str]) -> String {
        redis_cli(self.port, arguments)
    }
}

fn redis_cli(port: u16, arguments: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(arguments);
    let output = command.output().expect("redis-cli runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three Sentinels that watch a Redis server and its replica.
#[derive(Debug)]
pub struct Sentinels {
    children: Vec<Child>,
    ports: Vec<u16>,
    _folder: Folder,
}

impl Sentinels {
    /// Starts them on a server, with a second server as its replica, and waits until they agree.
    ///
    /// # Panics
    /// When they do not.
    pub fn start(primary: &RedisServer, replica: &RedisServer) -> Self {
        let folder = Folder::new("sentinel");
        replica.cli(&["replicaof", "127.0.0.1", &primary.port().to_string()]);
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let start = |port: &u16| {
            let (file, port) = (folder.path(&format!("{port}.conf")), *port);
            let text = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n",
                folder.0.display(),
                primary.port()
            );
            fs::write(&file, text).expect("a configuration of Sentinel");
            let mut command = Command::new("redis-sentinel");
            command.arg(file);
            spawn(command, &folder.path("log"))
        };
        let sentinels = Self { children: ports.iter().map(start).collect(), ports, _folder: folder };
        wait_until("the sentinels agree", START_WITHIN, || {
            sentinels.ports.iter().all(|port| {
                let info = redis_cli(*port, &["sentinel", "master", "main"]);
                let field = |name: &str| {
                    let mut lines = info.lines().skip_while(|line| *line != name);
                    lines.nth(1).and_then(|value| value.parse::<u32>().ok())
                };
                field("num-other-sentinels") == Some(2) && field("num-slaves") == Some(1)
            })
        });
        sentinels
    }

    /// Where clients find the primary.
    pub fn url(&self) -> String {
        let nodes: Vec<String> = self.ports.iter().map(|port| format!("node=127.0.0.1:{port}")).collect();
        let (first, others) = nodes.split_first().expect("three sentinels");
        let first = first.trim_start_matches("node=");
        format!("redis-sentinel://{first}/?sentinelServiceName=main&{}", others.join("&"))
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A RabbitMQ server of one node.
#[derive(Debug)]
pub struct RabbitmqServer {
    child: Child,
    port: u16,
    ports: [u16; 2],
    folder: Folder,
    /// Whether the name server of the virtual machines goes with this one.
    owns_epmd: bool,
}

/// Where Debian has the scripts that do not change user.
const RABBITMQ_BIN: &str = "/usr/lib/rabbitmq/bin";

impl RabbitmqServer {
    /// Starts one; this takes seconds.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts one with further lines of configuration.
    ///
    /// # Panics
    /// As [`RabbitmqServer::start`].
    pub fn start_with(lines: &str) -> Self {
        Self::start_at(free_port(), lines)
    }

    /// Starts one whose name server is at this port, and perhaps there already.
    fn start_at(epmd: u16, lines: &str) -> Self {
        let (port, ports, folder) = (free_port(), [free_port(), epmd], Folder::new("rabbitmq"));
        fs::create_dir_all(folder.path("home")).expect("a home");
        let cookie = folder.path("home").join(".erlang.cookie");
        fs::write(&cookie, "NODESOFONETESTKNOWEACHOTHER").expect("a cookie");
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400)).expect("a cookie for the owner");
        fs::write(folder.path("plugins"), "[].").expect("a list of plugins");
        // Connections of tests are looked at by nobody; what is logged goes to the one file.
        let configuration = format!("log.console = true\nlog.file = false\n{lines}");
        fs::write(folder.path("rabbitmq.conf"), configuration).expect("a configuration");
        let child = Self::launch(port, ports, &folder);
        let server = Self { child, port, ports, folder, owns_epmd: true };
        server.wait_for_start();
        server
    }

    fn environment(command: &mut Command, port: u16, [dist, epmd]: [u16; 2], folder: &Folder) {
        let text = |name: &str| folder.path(name).to_string_lossy().into_owned();
        command
            .env("HOME", text("home"))
            .env("RABBITMQ_NODENAME", format!("test{port}@localhost"))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", port.to_string())
            .env("RABBITMQ_DIST_PORT", dist.to_string())
            .env("RABBITMQ_MNESIA_BASE", text("mnesia"))
            .env("RABBITMQ_LOG_BASE", text("logs"))
            .env("RABBITMQ_PID_FILE", text("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", text("plugins"))
            .env("RABBITMQ_CONFIG_FILE", text("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("LC_ALL", "C.UTF-8")
            .env("ERL_CRASH_DUMP", text("crash"))
            .env("ERL_EPMD_PORT", epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}");
    }

    fn launch(port: u16, ports: [u16; 2], folder: &Folder) -> Child {
        let _ = fs::remove_file(folder.path("pid"));
        let mut command = Command::new(Path::new(RABBITMQ_BIN).join("rabbitmq-server"));
        Self::environment(&mut command, port, ports, folder);
        // A group of its own, so that a signal to the test does not reach it first.
        command.process_group(0);
        spawn(command, &folder.path("log"))
    }

    /// A connection is greeted only once the server serves.
    fn wait_for_start(&self) {
        wait_until("rabbitmq-server serves", START_WITHIN, || self.greets());
    }

    fn greets(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) else {
            return false;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let mut first = [0; 1];
        stream.write_all(b"AMQP\x00\x00\x09\x01").is_ok() && matches!(stream.read(&mut first), Ok(1))
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port)
    }

    /// The process id of the virtual machine; the child is only a shell around it.
    fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.folder.path("pid")).ok()?.trim().parse().ok()
    }

    /// Ends it as an operator would, or with SIGKILL, and waits for the end.
    ///
    /// # Panics
    /// When it has ended before.
    pub fn stop(&mut self, is_kill: bool) {
        let pid = self.pid().expect("a running server");
        signal(pid, if is_kill { Signal::KILL } else { Signal::TERM });
        self.child.wait().expect("a child of ours can be waited for");
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.child = Self::launch(self.port, self.ports, &self.folder);
        self.wait_for_start();
    }

    /// Freezes it, connections and all.
    ///
    /// # Panics
    /// When it has ended.
    pub fn freeze(&self) {
        signal(self.pid().expect("a running server"), Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it has ended.
    pub fn thaw(&self) {
        signal(self.pid().expect("a running server"), Signal::CONT);
    }

    /// Runs `rabbitmqctl` and returns what it prints; each call takes a good part of a second.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(Path::new(RABBITMQ_BIN).join("rabbitmqctl"));
        Self::environment(&mut command, self.port, self.ports, &self.folder);
        let output = command.arg("-q").args(arguments).output().expect("rabbitmqctl runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for RabbitmqServer {
    fn drop(&mut self) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            // It fails only for a process that has ended already.
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let [_, epmd] = self.ports;
        if !self.owns_epmd {
            return;
        }
        // The name server of the virtual machine outlives it, and stays until it has noticed that nobody is left.
        let deadline = Instant::now() + Duration::from_secs(5);
        while accepts(epmd) && Instant::now() < deadline {
            let mut command = Command::new("epmd");
            command.arg("-kill").env("ERL_EPMD_PORT", epmd.to_string());
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            thread::sleep(POLL);
        }
    }
}

/// Three RabbitMQ servers that are one broker.
#[derive(Debug)]
pub struct RabbitmqCluster(Vec<RabbitmqServer>);

impl RabbitmqCluster {
    /// Starts them and joins them; this takes some seconds.
    ///
    /// # Panics
    /// When one does not start or join.
    pub fn start() -> Self {
        let epmd = free_port();
        let mut servers: Vec<RabbitmqServer> =
            (0..3).map(|_| RabbitmqServer::start_at(epmd, "cluster_partition_handling = ignore\n")).collect();
        let first = format!("test{}@localhost", servers[0].port);
        for server in &mut servers[1..] {
            server.owns_epmd = false;
            server.ctl(&["stop_app"]);
            server.ctl(&["join_cluster", &first]);
            server.ctl(&["start_app"]);
            server.wait_for_start();
        }
        // The first goes last, and with it the name server.
        servers.rotate_left(1);
        Self(servers)
    }

    /// Where clients find them.
    pub fn urls(&self) -> Vec<String> {
        self.0.iter().map(RabbitmqServer::url).collect()
    }

    /// Kills the server that has the most connections; its port.
    ///
    /// # Panics
    /// When none has a connection.
    pub fn stop_one_in_use(&mut self) -> u16 {
        let connections = |server: &&mut RabbitmqServer| -> u32 {
            let count = server.ctl(&["eval", "length(rabbit_networking:local_connections())."]);
            count.parse().unwrap_or_else(|_| panic!("a count of connections, not {count:?}"))
        };
        let busiest = self.0.iter_mut().max_by_key(connections).expect("three servers");
        assert!(connections(&busiest) > 0, "somebody is connected");
        busiest.stop(true);
        busiest.port
    }
}

/// A certificate of its own authority for `localhost`.
#[derive(Debug)]
pub struct Certificate(Folder);

impl Certificate {
    /// Makes one.
    ///
    /// # Panics
    /// When `openssl` does not.
    pub fn make() -> Self {
        let certificate = Self(Folder::new("certificate"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        command.args(["-keyout", &certificate.key(), "-out", &certificate.file()]);
        let output = command.output().expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        certificate
    }

    /// The file of the certificate.
    pub fn file(&self) -> String {
        self.0.path("certificate.pem").to_string_lossy().into_owned()
    }

    /// The file of its key.
    pub fn key(&self) -> String {
        self.0.path("key.pem").to_string_lossy().into_owned()
    }

    /// Runs one test of the running binary again, in a process that trusts this certificate and is given the URL of a
    /// server that has it.
    ///
    /// # Panics
    /// When that test fails.
    pub fn again(&self, test: &str, url: &str) {
        let exe = std::env::current_exe().expect("a running program knows its path");
        let mut command = Command::new(exe);
        command.args(["--exact", test, "--nocapture"]);
        command.env("SSL_CERT_FILE", self.file()).env("JACKFIELD_TEST_TLS_URL", url);
        let output = command.output().expect("the test runs again");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}

/// A relay in front of a broker, whose connections can be cut.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    is_open: Arc<AtomicBool>,
    is_held: Arc<AtomicBool>,
}

impl Relay {
    /// Relays to a port of this machine.
    ///
    /// # Panics
    /// When there is no port to listen on.
    pub fn start(target: u16) -> Self {
        Self::start_slow(target, Duration::ZERO)
    }

    /// As [`Relay::start`]; whatever comes is on its way for so long, in both directions.
    ///
    /// # Panics
    /// As [`Relay::start`].
    pub fn start_slow(target: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let port = listener.local_addr().expect("its address").port();
        let streams = Arc::new(Mutex::new(Vec::new()));
        let is_open = Arc::new(AtomicBool::new(true));
        let is_held = Arc::new(AtomicBool::new(false));
        let relay =
            Self { port, streams: streams.clone(), is_open: is_open.clone(), is_held: is_held.clone() };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let to = TcpStream::connect((Ipv4Addr::LOCALHOST, target));
                let (true, Ok(to)) = (is_open.load(Ordering::Relaxed), to) else { continue };
                let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
                let mut kept = streams.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend([clone(&stream), clone(&to)]);
                drop(kept);
                for (mut from, mut to) in [(clone(&stream), clone(&to)), (to, stream)] {
                    let is_held = is_held.clone();
                    thread::spawn(move || {
                        let mut buffer = vec![0; 64 * 1024];
                        while let Ok(read @ 1..) = from.read(&mut buffer) {
                            thread::sleep(delay);
                            while is_held.load(Ordering::Relaxed) {
                                thread::sleep(POLL);
                            }
                            if to.write_all(&buffer[..read]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        relay
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every connection; new ones are relayed.
    pub fn cut(&self) {
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets nothing through, or everything again; connections stay.
    pub fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    /// Refuses new connections, or relays them again.
    pub fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Relaxed);
    }
}
