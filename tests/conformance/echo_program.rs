//! The Engine.IO echo program as somebody starts it by hand: beside a gateway, and beside itself.

use std::process::Command;

use system_tests::{Program, TestEdge, engineio_echo_bin};

use crate::wire::{DEADLINE, WebSocket};

/// Starts the program with a free client port and nothing else said; returns it with that port.
fn start() -> (Program, u16) {
    let mut command = Command::new(engineio_echo_bin());
    command.args(["--set", "edge.listen=127.0.0.1:0"]);
    let mut program = Program::spawn("engineio-echo", command);
    let line = program.line_starting("clients", DEADLINE);
    let port = line.rsplit_once(':').and_then(|(_, port)| port.trim().parse().ok());
    (program, port.unwrap_or_else(|| panic!("no port in {line}")))
}

#[tokio::test]
async fn several_run_beside_each_other_and_a_gateway() {
    let _gateway = TestEdge::start(&[]);
    let running = [start(), start()];
    for (_, port) in &running {
        let mut socket = WebSocket::open(*port, "/engine.io/?EIO=4&transport=websocket").await;
        socket.open_packet().await;
        socket.send("4as it came").await;
        socket.expect(&["4as it came"]).await;
    }
}
