//! Who may depend on whom, from `cargo metadata`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::tree::{expect_none, files, has_word, root};

/// Each crate and the crates of ours that it may use. `system-tests` may use all of them.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("engineio-proto", &[]),
    ("socketio-proto", &[]),
    ("websocket-proto", &[]),
    ("cluster-proto", &["socketio-proto"]),
    ("ops", &[]),
    ("adapter", &["cluster-proto", "socketio-proto", "ops"]),
    ("edge", &["engineio-proto", "socketio-proto", "websocket-proto", "cluster-proto", "adapter", "ops"]),
    ("emitter", &["cluster-proto", "socketio-proto", "adapter", "ops"]),
    (
        "jackfield",
        &[
            "edge",
            "emitter",
            "adapter",
            "ops",
            "engineio-proto",
            "socketio-proto",
            "websocket-proto",
            "cluster-proto",
        ],
    ),
];

/// What the protocol core must not even know of: sockets, clocks, tasks.
const OUTSIDE_WORLD: [&str; 9] =
    ["tokio", "async-std", "mio", "socket2", "rustix", "hyper", "http", "futures-util", "tracing"];

/// Inside the edge: each folder, and those of its neighbours that it must not import. News travels back as messages.
const MUST_NOT_IMPORT: [(&str, &[&str]); 6] = [
    ("outbox", &["rooms", "session", "socketio", "upstream", "transport", "listener", "shard"]),
    ("rooms", &["session", "socketio", "upstream", "transport", "listener", "shard"]),
    ("session", &["rooms", "socketio", "upstream", "transport", "listener", "shard"]),
    ("upstream", &["socketio", "transport", "listener", "shard"]),
    ("socketio", &["transport", "listener"]),
    ("transport", &["rooms", "socketio", "upstream", "listener"]),
];

/// A member of the workspace.
struct Member {
    name: String,
    manifest: String,
    /// Everything that it names, of whatever kind.
    dependencies: Vec<String>,
}

fn members() -> Vec<Member> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let member = |package: &Value| Member {
        name: text(&package["name"]),
        manifest: text(&package["manifest_path"]),
        dependencies: package["dependencies"]
            .as_array()
            .expect("a list of dependencies")
            .iter()
            .map(|dependency| text(&dependency["name"]))
            .collect(),
    };
    packages.iter().map(member).collect()
}

#[test]
fn crates_depend_only_on_what_the_table_allows() {
    let members = members();
    let is_ours = |name: &String| members.iter().any(|member| member.name == *name);
    let mut offences = Vec::new();
    for member in members.iter().filter(|member| member.name != "system-tests") {
        let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| *name == member.name) else {
            offences.push(format!("{} has no row in the table", member.name));
            continue;
        };
        let ours = member.dependencies.iter().filter(|name| is_ours(name));
        let strangers = ours.filter(|name| !may_use.contains(&name.as_str()));
        offences.extend(strangers.map(|name| format!("{} must not use {name}", member.name)));
    }
    expect_none("arrows that the table does not have", &offences);
}

#[test]
fn the_protocol_core_knows_nothing_of_the_outside_world() {
    let mut offences = Vec::new();
    for member in members().iter().filter(|member| member.name.ends_with("-proto")) {
        let outside = member.dependencies.iter().filter(|name| OUTSIDE_WORLD.contains(&name.as_str()));
        offences.extend(outside.map(|name| format!("{} depends on {name}", member.name)));
    }
    for source in files("proto", ".rs") {
        // Machines are tested on a clock that starts now.
        let is_core = source.path.contains("/src/") && !source.path.ends_with("/tests.rs");
        for (number, line) in source.code().filter(|_| is_core) {
            for word in ["tokio", "std::net", "std::thread", "std::fs", "Instant::now", "SystemTime::now"] {
                if has_word(line, word) {
                    offences.push(format!("{}:{number} says {word}", source.path));
                }
            }
        }
    }
    expect_none("sockets, clocks or tasks in proto/", &offences);
}

#[test]
fn every_crate_obeys_the_lints_of_the_workspace_and_is_named_as_its_folder() {
    let mut offences = Vec::new();
    for member in members() {
        let text = fs::read_to_string(&member.manifest).expect("a manifest");
        let lints = text.split_once("\n[lints]\n").map(|(_, rest)| rest.trim_start());
        if !lints.is_some_and(|lints| lints.starts_with("workspace = true")) {
            offences.push(format!("{}: no `[lints] workspace = true`", member.manifest));
        }
        let folder = Path::new(&member.manifest).parent().and_then(Path::file_name);
        if member.name != "system-tests" && folder.is_none_or(|folder| *folder != *member.name) {
            offences.push(format!("{} is called {}", member.manifest, member.name));
        }
    }
    expect_none("manifests", &offences);
}

#[test]
fn modules_of_the_edge_look_one_way() {
    let mut offences = Vec::new();
    for (folder, forbidden) in MUST_NOT_IMPORT {
        for source in files(&format!("services/edge/src/{folder}"), ".rs") {
            for (number, line) in source.code() {
                for other in forbidden.iter().filter(|other| has_word(line, &format!("crate::{other}"))) {
                    offences.push(format!("{}:{number} looks at {other}", source.path));
                }
            }
        }
    }
    expect_none("imports against the arrows", &offences);
}

#[test]
fn http_types_stay_where_http_is_spoken() {
    let at_home =
        ["services/edge/src/listener/", "services/edge/src/transport/", "services/edge/src/config.rs"];
    let mut offences = Vec::new();
    for source in files("services/edge/src", ".rs") {
        if at_home.iter().any(|home| source.path.starts_with(home)) {
            continue;
        }
        for (number, line) in source.code() {
            for word in ["hyper::", "hyper_util::", "http::", "http_body_util::"] {
                if has_word(line, word) {
                    offences.push(format!("{}:{number} says {word}", source.path));
                }
            }
        }
    }
    expect_none("HTTP types outside listener and transport", &offences);
}
