//! Edges and emitters as the processes that they are in a deployment, on a broker or alone.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use system_tests::brokers::wait_until;
use system_tests::{Program, TestEdge, jackfield_bin};

use crate::clients::{Client, Clients};
use crate::http::{Reply, Request};
use crate::{Folder, WITHIN};

/// Namespaces in which these tests have sockets.
const NAMESPACES: &str = "edge.namespaces=/,/chat,/many,/fresh";

/// `jackfield emitter`, which ends with the value.
struct EmitterProcess {
    _program: Program,
    port: u16,
    ops: u16,
}

/// Edges of one cluster, the emitters that reach them, and the clients on them.
pub(crate) struct Stage {
    sets: Vec<String>,
    pub(crate) edges: Vec<TestEdge>,
    emitters: Vec<EmitterProcess>,
    /// Where the API is to be had.
    pub(crate) apis: Vec<u16>,
    pub(crate) clients: Clients,
    _folder: Folder,
}

impl Stage {
    /// `jackfield serve`: everything in one process.
    pub(crate) fn alone() -> Self {
        let edge = TestEdge::start(&[NAMESPACES]);
        let api = port_of(&edge.emitter_url().expect("serve has an emitter"));
        let stage = Self {
            sets: Vec::new(),
            edges: vec![edge],
            emitters: Vec::new(),
            apis: vec![api],
            clients: Clients::start(),
            _folder: Folder::new("alone"),
        };
        stage.meet();
        stage
    }

    /// So many edges and two emitters on the broker that `sets` name.
    pub(crate) fn start(edges: usize, name: &str, sets: &[String]) -> Self {
        let folder = Folder::new(name);
        let secret = folder.write("secret", "a-secret-that-only-the-nodes-of-this-test-know\n");
        let secret = format!("cluster.secret_file={}", secret.display());
        let sets = [&[secret, NAMESPACES.to_owned()], sets].concat();
        let mut stage = Self {
            sets,
            edges: Vec::new(),
            emitters: Vec::new(),
            apis: Vec::new(),
            clients: Clients::start(),
            _folder: folder,
        };
        (0..edges).for_each(|_| stage.add_edge());
        (0..2).for_each(|_| stage.add_emitter());
        stage.meet();
        stage
    }

    /// One more edge, which nobody needs to know yet.
    pub(crate) fn add_edge(&mut self) {
        self.edges.push(TestEdge::start_node(&self.sets.iter().map(String::as_str).collect::<Vec<_>>()));
    }

    /// One more emitter, which needs to know nobody yet.
    pub(crate) fn add_emitter(&mut self) {
        let emitter = EmitterProcess::start(&self.sets);
        self.apis.push(emitter.port);
        self.emitters.push(emitter);
    }

    /// Waits until every emitter knows every edge.
    pub(crate) fn meet(&self) {
        for api in &self.apis {
            wait_until("an emitter that knows the edges", WITHIN, || {
                let info = Request::new(*api, "GET", "/v1/info").send().json();
                let nodes = info["nodes"].as_array().expect("nodes");
                let edges = nodes.iter().filter(|node| node["role"] == "edge").count();
                info["broker"] == "ready" && edges == self.edges.len()
            });
        }
    }

    /// Waits until the edges know that the clients of a case are gone.
    pub(crate) fn is_left(&self) {
        for namespace in ["/", "/chat"] {
            let path = format!("/v1/sockets?limit=1&namespace={namespace}");
            wait_until("clients that are gone", WITHIN, || self.get(0, &path)["sockets"] == json!([]));
        }
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.edges.iter().map(TestEdge::port).collect()
    }

    /// A client of one of the edges, by turns.
    pub(crate) fn client(&self, number: usize, namespace: &'static str) -> Client {
        self.clients.connect(self.edges[number % self.edges.len()].port(), namespace)
    }

    /// Sends a call to one of the emitters, by turns.
    pub(crate) fn post(&self, number: usize, path: &str, body: &Value) -> Reply {
        Request::new(self.apis[number % self.apis.len()], "POST", path).json(body).send()
    }

    pub(crate) fn get(&self, number: usize, path: &str) -> Value {
        let reply = Request::new(self.apis[number % self.apis.len()], "GET", path).send();
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()
    }

    /// Bytes that the first emitter has had from the broker.
    pub(crate) fn received_bytes(&self) -> u64 {
        let page = Request::new(self.emitters[0].ops, "GET", "/metrics").send().text();
        let value = page.lines().find_map(|line| line.strip_prefix("jackfield_broker_received_bytes_total "));
        value.expect("the number").parse().expect("a number")
    }

    /// A call that goes well; its answer.
    #[track_caller]
    pub(crate) fn done(&self, number: usize, path: &str, body: &Value) -> Value {
        let reply = self.post(number, path, body);
        assert!(matches!(reply.status, 200 | 202), "{path} {body}: {reply:?}");
        reply.json()
    }
}

impl EmitterProcess {
    fn start(sets: &[String]) -> Self {
        let mut command = Command::new::<PathBuf>(jackfield_bin());
        command.args(["emitter", "--set", "emitter.listen=127.0.0.1:0", "--set", "ops.listen=127.0.0.1:0"]);
        for set in sets {
            command.args(["--set", set]);
        }
        let mut program = Program::spawn("jackfield emitter", command);
        let port = port_of(program.line_starting("emitter", WITHIN).trim());
        let ops = port_of(program.line_starting("ops", WITHIN).trim());
        Self { _program: program, port, ops }
    }
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{url} has no port"))
}
