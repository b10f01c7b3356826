//! The checkout as text.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const NOT_OURS: [&str; 5] = ["target", "node_modules", ".cache", ".git", "corpus"];

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let tests = system_tests::tests_dir();
    tests.parent().expect("the tests lie in the checkout").to_owned()
}

/// A file of ours.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Its path from the root, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// The lines that are neither comments nor unit tests, each with its number.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let code = numbered.take_while(|(_, line)| line.trim() != "#[cfg(test)]");
        code.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// The files below a folder whose names end so, in order.
pub(crate) fn files(folder: &str, ending: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join(folder), ending, &mut found);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!found.is_empty(), "no {ending} in {folder}");
    found
}

/// All Rust of this repository.
pub(crate) fn rust() -> Vec<Source> {
    ["proto", "services", "tests"].into_iter().flat_map(|folder| files(folder, ".rs")).collect()
}

fn collect(folder: &Path, ending: &str, found: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("an entry of a folder");
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type().expect("a file type").is_dir() {
            if !NOT_OURS.contains(&&*name) {
                collect(&path, ending, found);
            }
        } else if name.ends_with(ending) {
            let text =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let path = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
            found.push(Source { path, text });
        }
    }
}

/// Whether `text` has `word` with nothing before it that would make it part of a longer name.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let is_part = |before: char| before.is_alphanumeric() || before == '_';
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(is_part))
}

/// As [`has_word`], with nothing behind it either.
pub(crate) fn has_whole_word(text: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut found = text.match_indices(word);
    found.any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

/// Fails with all of these lines, if there are any.
#[track_caller]
pub(crate) fn expect_none(what: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{what}:\n  {}", offences.join("\n  "));
}

#[test]
fn words_end_where_names_end() {
    assert!(has_word("use http::Uri;", "http::"));
    assert!(!has_word("use ws_http::Uri;", "http::"));
    assert!(has_whole_word("limits.rooms_max,", "limits.rooms_max"));
    assert!(!has_whole_word("limits.rooms_max_of", "limits.rooms_max"));
}
