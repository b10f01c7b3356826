//! The numbers as Prometheus reads them.

use std::collections::BTreeSet;

use edge::metrics::Metrics;

#[test]
fn metrics_have_our_prefix_a_help_and_the_ending_of_their_kind() {
    let text = Metrics::new(2).render();
    let mut seen = BTreeSet::new();
    let mut help = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a kind");
            assert!(seen.insert(name.to_owned()), "{name} twice");
            assert!(name.starts_with("jackfield_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(["counter", "gauge"].contains(&kind), "{name} is a {kind}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            let (described, help) = help.split_once(' ').expect("a name and a help");
            assert!(described == name && help.ends_with('.') && help.len() > 10, "{name}: {help}");
        } else {
            let name = line.split(['{', ' ']).next().expect("a name");
            assert!(seen.contains(name), "{name} before its type");
        }
    }
    assert!(seen.len() > 20, "only {} metrics", seen.len());
}
