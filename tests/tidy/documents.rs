//! What documents point at is there: the table of where things live, links, headings, and every crate on the map.

use std::fs;

use crate::tree::{Source, expect_none, files, root};

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
fn the_code_map_has_every_crate() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (_, section) = text.split_once("## Code map").expect("the map");
    let map = section.split("\n### ").next().unwrap_or_default();
    let manifests = [files("proto", "Cargo.toml"), files("services", "Cargo.toml")].concat();
    let folders = manifests.iter().map(|manifest| manifest.path.trim_end_matches("/Cargo.toml"));
    let absent: Vec<String> =
        folders.filter(|folder| !map.contains(&format!("`{folder}`"))).map(str::to_owned).collect();
    expect_none("crates that the code map of ARCHITECTURE.md does not show", &absent);
}

#[test]
fn relative_links_lead_somewhere() {
    let documents = files("", ".md");
    let mut seen = 0;
    let mut broken = Vec::new();
    for document in &documents {
        for (number, link) in links(&document.text) {
            seen += 1;
            if !leads_somewhere(document, link, &documents) {
                broken.push(format!("{}:{number} links to {link}", document.path));
            }
        }
    }
    assert!(seen > 15, "only {seen} links were found");
    expect_none("links that lead nowhere", &broken);
}

/// The relative links of a document, each with the number of its line. Code is no text, whatever it looks like.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut is_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            let prose = line.split('`').step_by(2);
            // A link whose text is code is cut in two, so what counts is how it ends.
            let targets =
                prose.flat_map(|part| part.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
            let here = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
            found.extend(here.map(|target| (index + 1, target)));
        }
    }
    found
}

/// Whether a link of `document` names a file or folder that exists and, in one of our documents, a heading.
fn leads_somewhere(document: &Source, link: &str, documents: &[Source]) -> bool {
    let (path, heading) = link.split_once('#').map_or((link, None), |(path, heading)| (path, Some(heading)));
    let from = root().join(&document.path);
    let target = if path.is_empty() { from } else { from.with_file_name("").join(path) };
    let Ok(target) = target.canonicalize() else { return false };
    let Some(heading) = heading else { return true };
    let other = documents
        .iter()
        .find(|other| root().join(&other.path).canonicalize().is_ok_and(|path| path == target));
    other.is_some_and(|other| headings(&other.text).any(|found| found == heading))
}

/// The names under which the headings of a document can be linked to.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let titles =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    titles.map(|title| {
        let kept = title.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter.to_ascii_lowercase() }).collect()
    })
}

#[test]
fn links_are_found_and_followed() {
    let text = "# One `two` (three)\n[a](b.md) [`c`](d#e)\n```\n[no](x)\n```\n`[no](y)` [far](https://z)\n";
    assert_eq!(links(text), [(2, "b.md"), (2, "d#e")]);
    assert_eq!(headings(text).collect::<Vec<_>>(), ["one-two-three"]);
    let [one, other] =
        ["docs/one.md", "other.md"].map(|path| Source { path: path.into(), text: text.into() });
    let check = |link: &str| leads_somewhere(&one, link, &[]);
    assert!(check("../Cargo.toml") && check("../docs/") && !check("Cargo.toml") && !check("../docs/none.md"));
    assert!(!leads_somewhere(&one, "../README.md#one-two-three", &[other]));
}

#[test]
fn a_path_may_go_on_from_the_one_before_it() {
    let row = |paths: &str| format!("| what it is in `no/such.rs` | {paths} |");
    assert_eq!(missing_in(&row("`edge/src/session/link.rs`, `transport/websocket.rs`")), [""; 0]);
    assert_eq!(missing_in(&row("`edge/src/rooms/index.rs` / `fan_out.rs` (`SLICE`)")), [""; 0]);
    assert_eq!(missing_in(&row("`edge/src/rooms/index.rs` / `fan_in.rs`, `fan_out.rs`")), ["fan_in.rs"]);
    assert_eq!(missing_in(&row("`edge/rooms/index.rs`")), ["edge/rooms/index.rs"]);
}
