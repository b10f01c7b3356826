//! The official clients against the gateway: every supported version over every transport, as somebody would use
//! them. One test here is one version over one transport; it runs the scenarios of `scenarios.mjs` (JavaScript) or
//! `python_clients.py` (Python) one after the other on a gateway of its own and prints a line for each.
//!
//! To run one scenario of one client: `SCENARIO="nested bytes" tests/run -E 'test(javascript_2_5::polling)'`.
//! To check the scenarios themselves against another server: `JACKFIELD_TEST_URL=http://127.0.0.1:3000`.

use system_tests::{PythonClients, TestEdge, run_node, run_python};

/// The namespaces that the scenarios use; `/nope` is refused because it is not among them.
const NAMESPACES: &str = "edge.namespaces=/,/custom";

fn javascript(client: &str, transport: &str, parser: &[&str]) {
    let edge = TestEdge::start(&[NAMESPACES]);
    run_node("interop/clients.mjs", &[&[&edge.url(), client, transport], parser].concat(), &[]);
}

/// The Python client sometimes ends its writing thread before it has sent the packet that closes the session, and then
/// waits for its pending poll until the next ping (version 5) or until the server misses its pings (version 4). Hence
/// these intervals are shorter than the defaults.
fn python(clients: PythonClients, script: &str, transport: &str) {
    let edge = TestEdge::start(&[NAMESPACES, "edge.ping_interval_ms=5000", "edge.ping_timeout_ms=5000"]);
    run_python(clients, script, &[&edge.url(), transport], &[]);
}

/// A module with a test for each transport, which calls `$check` with `$args` and the name of the transport.
macro_rules! over_each_transport {
    ($module:ident, |$transport:ident| $check:expr) => {
        mod $module {
            use super::*;

            #[test]
            fn polling() {
                let $transport = "polling";
                $check;
            }

            #[test]
            fn websocket() {
                let $transport = "websocket";
                $check;
            }

            #[test]
            fn upgrade() {
                let $transport = "upgrade";
                $check;
            }
        }
    };
}

over_each_transport!(javascript_1_4, |transport| javascript("1-4", transport, &[]));
over_each_transport!(javascript_1_7, |transport| javascript("1-7", transport, &[]));
over_each_transport!(javascript_2_0, |transport| javascript("2-0", transport, &[]));
over_each_transport!(javascript_2_5, |transport| javascript("2-5", transport, &[]));
over_each_transport!(javascript_3_1, |transport| javascript("3-1", transport, &[]));
over_each_transport!(javascript_4_0, |transport| javascript("4-0", transport, &[]));
over_each_transport!(javascript_4_8, |transport| javascript("4-8", transport, &[]));
over_each_transport!(msgpack_3_1, |transport| javascript("3-1", transport, &["msgpack"]));
over_each_transport!(msgpack_4_8, |transport| javascript("4-8", transport, &["msgpack"]));

over_each_transport!(python_4_6, |transport| python(
    PythonClients::V4,
    "interop/python_clients.py",
    transport
));
over_each_transport!(python_5, |transport| python(PythonClients::V5, "interop/python_clients.py", transport));
over_each_transport!(python_5_asyncio, |transport| python(
    PythonClients::V5,
    "interop/python_async.py",
    transport
));

/// Every kind of client hears every other in one room, whatever protocol, parser and transport each uses.
#[test]
fn all_clients_meet_in_one_room() {
    let edge = TestEdge::start(&[NAMESPACES]);
    let mut kinds = Vec::new();
    for transport in ["polling", "websocket", "upgrade"] {
        let clients = ["1-4", "1-7", "2-0", "2-5", "3-1", "4-0", "4-8"];
        kinds.extend(clients.map(|client| format!("{client}:{transport}")));
        if !edge.is_external() {
            // The reference server speaks one parser only.
            kinds.extend(["3-1", "4-8"].map(|client| format!("{client}:{transport}:msgpack")));
        }
    }
    meet(&edge, &kinds);
}

/// A room whose members live on different shards, with polls and upgrades that land on the wrong one.
#[test]
fn all_clients_meet_across_shards() {
    let edge = TestEdge::start(&[NAMESPACES, "edge.shards=3"]);
    let kinds = ["4-8:polling", "4-8:websocket", "4-8:upgrade", "2-5:polling", "2-5:upgrade", "1-4:polling"];
    let twice: Vec<String> = kinds.iter().chain(&kinds).map(ToString::to_string).collect();
    meet(&edge, &twice);
}

fn meet(edge: &TestEdge, kinds: &[String]) {
    let url = edge.url();
    let args: Vec<&str> = std::iter::once(url.as_str()).chain(kinds.iter().map(String::as_str)).collect();
    run_node("interop/mixed.mjs", &args, &[]);
}

/// websocket-client knows RFC 6455 and nothing of Engine.IO: what its users do works on the plain echo and on the
/// raw endpoint.
#[test]
fn python_websocket_client() {
    let edge = TestEdge::start(&[NAMESPACES]);
    run_python(PythonClients::V5, "interop/python_raw.py", &[&edge.url()], &[]);
}
