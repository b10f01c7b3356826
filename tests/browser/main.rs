//! The gateway seen from a real browser: the demo page with each client, the legacy page, and JSONP, which only
//! works in a document.
//!
//! Each test starts a gateway, runs one script in Chromium against it and fails with what the script printed. A
//! script asks for a stop or a start of the gateway with a line of its own and gets `done` back; no side ever sleeps.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test reports a failure"
)]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use system_tests::{Program, TestEdge, bundles_dir, node_modules, run_node, spawn_node};

/// One browser at a time: several at once would only wait for each other.
static BROWSER: Mutex<()> = Mutex::new(());

/// From the start of a script to its next request, or from there to its end. Every step inside has a shorter
/// deadline; this one only ends a hang.
const SCRIPT_WITHIN: Duration = Duration::from_secs(120);

fn browser() -> MutexGuard<'static, ()> {
    // A test that failed leaves nothing behind that could spoil the next one.
    BROWSER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a gateway that has the official bundles.
fn edge_with_bundles() -> TestEdge {
    let bundles = format!("edge.client_bundles_dir={}", bundles_dir().display());
    TestEdge::start(&["edge.namespaces=/,/custom", &bundles])
}

/// Runs the page script with one client, and stops and starts the gateway when the script asks for it.
fn check_page(client: &str) {
    let _turn = browser();
    let mut edge = edge_with_bundles();
    let mut script = spawn_node("browser/page.mjs", &[&edge.url(), client], &[]);
    obey(&mut script, "stop", || edge.stop());
    obey(&mut script, "start", || edge.restart());
    script.finish(SCRIPT_WITHIN);
}

fn obey(script: &mut Program, request: &str, act: impl FnOnce()) {
    script.line_starting(request, SCRIPT_WITHIN);
    act();
    script.send_line("done");
}

#[test]
fn page_works_with_our_client() {
    check_page("ours");
}

#[test]
fn page_works_with_the_official_client() {
    check_page("official");
}

#[test]
fn legacy_page_works_with_the_official_2_x_client() {
    check_page("legacy");
}

#[test]
fn pages_explain_missing_bundles() {
    let _turn = browser();
    let edge = TestEdge::start(&[]);
    run_node("browser/bare.mjs", &[&edge.url()], &[]);
}

#[test]
fn our_client_speaks_the_whole_protocol_on_each_transport() {
    let _turn = browser();
    let edge = TestEdge::start(&["edge.namespaces=/,/custom"]);
    for transports in ["polling", "websocket", "polling,websocket"] {
        run_node("browser/client.mjs", &[&edge.url(), transports], &[]);
    }
}

#[test]
fn jsonp_clients_work_in_a_document() {
    let _turn = browser();
    let edge = TestEdge::start(&["edge.namespaces=/,/custom"]);
    let bundles = [
        "sio-1-4/socket.io.js",
        "sio-1-7/dist/socket.io.js",
        "sio-2-0/dist/socket.io.js",
        "sio-2-5/dist/socket.io.js",
    ]
    .map(|bundle| node_modules().join(bundle).display().to_string());
    let url = edge.url();
    let args: Vec<&str> = std::iter::once(url.as_str()).chain(bundles.iter().map(String::as_str)).collect();
    run_node("browser/jsonp.mjs", &args, &[]);
}
