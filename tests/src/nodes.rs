//! Several edges on one broker, as processes, and a plain round-robin nginx in front of them.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use crate::TestEdge;
use crate::brokers::{Folder, accepts, free_port, spawn, wait_until};

/// What every node of a test cluster shares.
const SECRET: &str = "a-secret-that-only-the-nodes-of-this-test-know\n";
/// How long a node may take until it has heard of all others.
const MEET_WITHIN: Duration = Duration::from_secs(20);

/// Edges of one cluster behind nginx. Dropping it ends all of them.
#[derive(Debug)]
pub struct Nodes {
    /// The edges.
    pub edges: Vec<TestEdge>,
    nginx: Nginx,
    _folder: Folder,
}

impl Nodes {
    /// Starts so many edges with these settings, which name the broker, waits until they know each other, and puts
    /// nginx in front.
    ///
    /// # Panics
    /// When something does not start.
    pub fn start(count: usize, sets: &[&str]) -> Self {
        let folder = Folder::new("nodes");
        let secret = folder.path("secret");
        fs::write(&secret, SECRET).expect("a file for the secret");
        let secret = format!("cluster.secret_file={}", secret.display());
        let sets = [&[secret.as_str(), "edge.namespaces=/,/custom"], sets].concat();
        let edges: Vec<TestEdge> = (0..count).map(|_| TestEdge::start_node(&sets)).collect();
        let nginx = Nginx::start(&edges.iter().map(TestEdge::port).collect::<Vec<_>>());
        let nodes = Self { edges, nginx, _folder: folder };
        nodes.meet();
        nodes
    }

    /// Waits until every node knows all others.
    ///
    /// # Panics
    /// When one does not.
    pub fn meet(&self) {
        let others = (self.edges.len() - 1) as u64;
        for edge in &self.edges {
            wait_until("the nodes know each other", MEET_WITHIN, || {
                edge.metric("jackfield_cluster_nodes") == others
            });
        }
    }

    /// Where clients connect: each request goes to the next edge.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.nginx.port)
    }
}

/// nginx with one upstream group and no stickiness of any kind.
#[derive(Debug)]
struct Nginx {
    child: Child,
    port: u16,
    _folder: Folder,
}

impl Nginx {
    fn start(upstreams: &[u16]) -> Self {
        let (port, folder) = (free_port(), Folder::new("nginx"));
        let servers: String = upstreams
            .iter()
            .map(|port| format!("    server 127.0.0.1:{port} max_fails=1 fail_timeout=2s;\n"))
            .collect();
        let text = CONFIGURATION
            .replace("FOLDER", &folder.path("").to_string_lossy())
            .replace("SERVERS", &servers)
            .replace("PORT", &port.to_string());
        let file = folder.path("nginx.conf");
        fs::write(&file, text).expect("a configuration of nginx");
        let child = spawn(Self::command(&file), &folder.path("log"));
        wait_until("nginx listens", Duration::from_secs(20), || accepts(port));
        Self { child, port, _folder: folder }
    }

    fn command(file: &Path) -> Command {
        let mut command = Command::new("/usr/sbin/nginx");
        let folder = file.parent().expect("a file in a folder");
        command.arg("-p").arg(folder).arg("-c").arg(file);
        command
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One worker that ends with the process it is started as; requests go round, whatever they are.
const CONFIGURATION: &str = "
daemon off;
master_process off;
pid FOLDER/nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  client_max_body_size 0;
  map $http_upgrade $connection_up { default upgrade; '' close; }
  upstream edges {
SERVERS  }
  server {
    listen 127.0.0.1:PORT backlog=1024;
    location / {
      proxy_pass http://edges;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_up;
      proxy_read_timeout 3600s;
      proxy_buffering off;
      proxy_request_buffering off;
    }
  }
}
";
