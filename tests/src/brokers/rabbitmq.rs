//! RabbitMQ servers, alone and three that are one broker.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Folder, POLL, START_WITHIN, accepts, free_port, spawn, wait_until};
use crate::program::signal;

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

    /// Kills the server that has the most connections; how many it had.
    ///
    /// # Panics
    /// When none has a connection.
    pub fn stop_one_in_use(&mut self) -> u64 {
        let connections = |server: &RabbitmqServer| -> u64 {
            let count = server.ctl(&["eval", "length(rabbit_networking:local_connections())."]);
            count.parse().unwrap_or_else(|_| panic!("a count of connections, not {count:?}"))
        };
        let counted = self.0.iter_mut().map(|server| (connections(server), server));
        let (count, busiest) = counted.max_by_key(|(count, _)| *count).expect("three servers");
        assert!(count > 0, "somebody is connected");
        busiest.stop(true);
        count
    }
}
