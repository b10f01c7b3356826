//! What committed Rust may not contain, whatever the lints say about a single crate.

use crate::tree::{expect_none, has_word, rust};

#[test]
fn nothing_is_left_for_later() {
    // Put together here, or this file would be the first offender.
    let macros = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!"));
    let ignored = format!("#[{}", "ignore");
    let marks = ["TODO", "FIXME", "XXX"].map(|mark| format!("{mark}{}", ":"));
    let mut offences = Vec::new();
    for source in rust() {
        for (index, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let found = macros.iter().find(|name| has_word(code, &format!("{name}(")));
            let found = found.or_else(|| Some(&ignored).filter(|ignored| code.contains(ignored.as_str())));
            let found = found.or_else(|| marks.iter().find(|mark| line.contains(mark.as_str())));
            offences.extend(found.map(|what| format!("{}:{} has {what}", source.path, index + 1)));
        }
    }
    expect_none("unfinished work", &offences);
}

#[test]
fn every_file_says_what_it_is() {
    let silent = rust().into_iter().filter(|source| {
        // Unit tests in a file of their own are introduced by the file that they test.
        let is_unit_tests = source.path.ends_with("/tests.rs");
        !is_unit_tests && !source.text.starts_with("//!") && !source.text.starts_with("#!/")
    });
    let silent: Vec<_> = silent.map(|source| source.path).collect();
    expect_none("files without a comment at their top", &silent);
}

#[test]
fn nothing_is_called_common_or_utils() {
    let vague = ["common", "utils", "util", "helpers", "manager", "misc"];
    let mut offences = Vec::new();
    for source in rust() {
        let mut parts = source.path.split('/').map(|part| part.trim_end_matches(".rs"));
        if parts.any(|part| vague.contains(&part)) {
            offences.push(source.path);
        }
    }
    expect_none("names that say nothing", &offences);
}
