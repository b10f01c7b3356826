//! The table of where things live names only what is there.

use std::fs;

use crate::tree::{expect_none, root};

#[test]
fn the_table_of_where_things_live_names_files_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (_, section) = text.split_once("## Where does it live?").expect("the table");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert!(rows.len() > 20, "only {} rows", rows.len());
    let mut missing = Vec::new();
    for row in rows {
        missing.extend(missing_in(row).into_iter().map(|path| format!("{path} in {row}")));
    }
    expect_none("paths that do not exist", &missing);
}

/// The paths of a row that lead nowhere. A path may go on from the folder of the one before it, or from its crate.
fn missing_in(row: &str) -> Vec<&str> {
    // The first cell says what is meant, the others where it is.
    let cells = row.trim_start_matches('|').split_once('|').map_or("", |(_, cells)| cells);
    let named = cells.split('`').skip(1).step_by(2);
    let paths = named.filter(|name| !name.starts_with('/') && (name.contains('/') || name.ends_with(".rs")));
    let mut bases = vec![root().join("proto"), root().join("services"), root()];
    let mut missing = Vec::new();
    for path in paths {
        match bases.iter().rev().map(|base| base.join(path)).find(|found| found.exists()) {
            Some(found) => bases.extend(
                found.ancestors().skip(1).take(3).map(Into::into).collect::<Vec<_>>().into_iter().rev(),
            ),
            None => missing.push(path),
        }
    }
    missing
}

#[test]
fn a_path_may_go_on_from_the_one_before_it() {
    let row = |paths: &str| format!("| what it is in `no/such.rs` | {paths} |");
    assert_eq!(missing_in(&row("`edge/src/session/link.rs`, `transport/websocket.rs`")), [""; 0]);
    assert_eq!(missing_in(&row("`edge/src/rooms/index.rs` / `fan_out.rs` (`SLICE`)")), [""; 0]);
    assert_eq!(missing_in(&row("`edge/src/rooms/index.rs` / `fan_in.rs`, `fan_out.rs`")), ["fan_in.rs"]);
    assert_eq!(missing_in(&row("`edge/rooms/index.rs`")), ["edge/rooms/index.rs"]);
}
