//! Every key of the edge is obeyed somewhere, and every key that a document names exists.

use std::collections::BTreeSet;

use crate::tree::{Source, expect_none, files, has_whole_word};

const HOME: &str = "services/edge/src/config.rs";

/// A key of the section `edge`.
struct Key {
    /// As an operator writes it: `edge.limits.rooms_max`.
    name: String,
    /// As code reads it: `limits.rooms_max`, `config.path`.
    expression: String,
    field: String,
}

fn config() -> Source {
    let mut sources = files("services/edge/src", "config.rs");
    assert_eq!(sources.len(), 1);
    sources.remove(0)
}

/// The keys as `config_section!` declares them.
fn keys(config: &Source) -> Vec<Key> {
    let sections = [
        ("EdgeConfig", "edge", "config"),
        ("LimitsConfig", "edge.limits", "limits"),
        ("CorsConfig", "edge.cors", "cors"),
    ];
    let mut keys = Vec::new();
    let mut section = None;
    for (_, line) in config.code() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("pub struct ") {
            section = sections.iter().find(|(name, ..)| rest.starts_with(name));
        } else if line == "}" {
            section = None;
        } else if let (Some((_, prefix, value)), Some(rest)) = (section, line.strip_prefix("pub "))
            && let Some((field, _)) = rest.split_once(':')
        {
            keys.push(Key {
                name: format!("{prefix}.{field}"),
                expression: format!("{value}.{field}"),
                field: field.to_owned(),
            });
        }
    }
    keys
}

/// The methods of the configuration that others may call, each with its text.
fn methods(config: &Source) -> Vec<(String, String)> {
    let mut methods: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for (_, line) in config.code() {
        if line.starts_with("    pub fn ") {
            let name = line.trim_start_matches("    pub fn ").split('(').next().unwrap_or_default();
            methods.push((name.to_owned(), String::new()));
            inside = true;
        } else if line.starts_with("    fn ") || line == "}" {
            inside = line.starts_with("    fn capacity_on");
        }
        if let Some((_, text)) = methods.last_mut().filter(|_| inside) {
            text.push_str(line);
            text.push('\n');
        }
    }
    methods
}

#[test]
fn every_key_is_obeyed() {
    let config = config();
    let keys = keys(&config);
    assert!(keys.len() > 40, "only {} keys were found", keys.len());
    let code: String = files("services/edge/src", ".rs")
        .iter()
        .filter(|source| source.path != HOME)
        .flat_map(|source| source.code().map(|(_, line)| format!("{line}\n")).collect::<Vec<_>>())
        .collect();
    let called: Vec<String> = methods(&config)
        .into_iter()
        .filter(|(name, _)| code.contains(&format!(".{name}(")))
        .map(|(_, text)| text)
        .collect();
    let is_obeyed = |key: &Key| {
        let by_method = format!("self.{}", key.field);
        let by_nested = format!("self.limits.{}", key.field);
        has_whole_word(&code, &key.expression)
            || called.iter().any(|text| has_whole_word(text, &by_method) || has_whole_word(text, &by_nested))
    };
    let unread = Key { name: "edge.idle".into(), expression: "config.idle".into(), field: "idle".into() };
    assert!(!is_obeyed(&unread), "a key that nobody reads is noticed");
    let idle: Vec<String> = keys.iter().filter(|key| !is_obeyed(key)).map(|key| key.name.clone()).collect();
    expect_none("keys that nobody obeys", &idle);
}

#[test]
fn every_key_that_a_document_names_exists() {
    let known: BTreeSet<String> = keys(&config()).into_iter().map(|key| key.name).collect();
    let mut documents = files("docs", ".md");
    documents.extend(files("", ".md").into_iter().filter(|source| !source.path.contains('/')));
    documents.extend(files("services", ".rs"));
    let mut offences = Vec::new();
    for source in documents {
        for (index, line) in source.text.lines().enumerate() {
            for name in named_keys(line) {
                // A section may be named, or with `outbox_*` several keys at once.
                let begins_keys = |begin: &str| known.iter().any(|key| key.starts_with(begin));
                let exists = known.contains(name)
                    || begins_keys(&format!("{name}."))
                    || name.ends_with('_') && begins_keys(name);
                if !exists {
                    offences.push(format!("{}:{} names {name}", source.path, index + 1));
                }
            }
        }
    }
    expect_none("keys that do not exist", &offences);
}

/// What stands in backticks, quotes or after `--set` and begins like a key of the edge.
fn named_keys(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("edge.").filter_map(|(at, _)| {
        let before = line[..at].chars().next_back()?;
        let rest = &line[at..];
        let end = rest.find(|letter: char| {
            !(letter.is_ascii_lowercase() || letter.is_ascii_digit() || "._".contains(letter))
        });
        let name = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
        let is_file = [".rs", ".md", ".toml", ".js"].iter().any(|ending| name.ends_with(ending));
        let is_code = rest[name.len()..].starts_with('(') || line[..at].ends_with("    ");
        (matches!(before, '`' | ' ' | '"') && name.contains('.') && !is_file && !is_code).then_some(name)
    })
}
