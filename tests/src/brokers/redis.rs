//! Redis servers and the Sentinels that watch them.

use std::fs;
use std::process::{Child, Command};

use rustix::process::Signal;

use super::{Folder, START_WITHIN, accepts, free_port, spawn, wait_until};
use crate::program::signal;

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
