//! The three sources of configuration, their order, and the errors that name key, value and source.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::config::schema::{Anything, Entry, Field, Key, Shape};

/// Largest configuration file that is read; hand-written ones are a thousandth of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What every variable that configures us starts with.
const VARIABLE_PREFIX: &str = "JACKFIELD_";

/// Characters of a value or a key that an error message shows.
const SHOWN_CHARS_MAX: usize = 80;

/// Likeness, from 0 to 1, from which a known key is suggested in place of an unknown one.
const LIKENESS_MIN: f64 = 0.6;

/// Where values come from, in rising order of precedence.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The TOML file of `--config`.
    pub file: Option<PathBuf>,
    /// Environment variables; those that are not ours are ignored.
    pub variables: Vec<(String, String)>,
    /// The arguments of `--set`, each `section.key=value`.
    pub settings: Vec<String>,
}

impl Sources {
    /// Sources that include the environment of this process.
    pub fn of_process(file: Option<PathBuf>, settings: Vec<String>) -> Self {
        let text = |raw: OsString| raw.to_string_lossy().into_owned();
        let variables = std::env::vars_os()
            .map(|(name, value)| (text(name), text(value)))
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
            .collect();
        Self { file, variables, settings }
    }
}

/// A checked configuration that remembers which keys were given.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// The values, defaults included.
    pub config: C,
    given: BTreeMap<String, Origin>,
}

impl<C> Loaded<C> {
    /// Where a key was given; `None` when its default holds.
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        self.given.get(path)
    }
}

/// Where one value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of the configuration file; lines count from 1.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line of the key.
        line: usize,
    },
    /// An environment variable.
    Variable {
        /// Its name.
        name: String,
    },
    /// The command line.
    Setting,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(out, "{} line {line}", path.display()),
            Self::Variable { name } => write!(out, "variable {}", shown(name)),
            Self::Setting => out.write_str("--set"),
        }
    }
}

/// Why a configuration is not accepted. Each message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {error}; give a readable TOML file with --config")]
    Unreadable {
        /// The file as it was named.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("the configuration file {path} is larger than {max} bytes; give a TOML file with --config")]
    TooLarge {
        /// The file as it was named.
        path: PathBuf,
        /// Bytes that are read at most.
        max: u64,
    },
    /// The file is not TOML.
    #[error("{path} line {line} is not valid TOML: {problem}; correct the line")]
    Syntax {
        /// The file as it was named.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser says, in one line.
        problem: String,
    },
    /// A `--set` argument without a key or without `=`.
    #[error("--set {argument} is not a key with a value; write --set section.key=value")]
    NotASetting {
        /// The argument.
        argument: String,
    },
    /// A key that no section has.
    #[error("unknown key {path} ({origin}); {advice}")]
    UnknownKey {
        /// The key as it was given.
        path: String,
        /// Where it was given.
        origin: Origin,
        /// The nearest known key, or where to find them all.
        advice: String,
    },
    /// A value of the wrong type or out of range.
    #[error("{path} = {value} ({origin}) is not accepted; give {allowed}")]
    Refused {
        /// The key.
        path: String,
        /// The value, shortened.
        value: String,
        /// Where it was given.
        origin: Origin,
        /// The accepted values in words.
        allowed: String,
    },
    /// Keys that are acceptable alone but not together.
    #[error("{0}")]
    Conflict(String),
}

/// Reads, merges and checks all sources.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong; sources are looked at in rising order of precedence.
pub fn load<C: Field + Default>(sources: &Sources) -> Result<Loaded<C>, ConfigError> {
    let known = Known::of::<C>();
    let mut values: BTreeMap<String, (Value, Origin)> = BTreeMap::new();
    if let Some(path) = &sources.file {
        known.add_file(path, &mut values)?;
    }
    for (name, text) in &sources.variables {
        known.add_variable(name, text, &mut values)?;
    }
    for argument in &sources.settings {
        known.add_setting(argument, &mut values)?;
    }
    let mut tree = Table::new();
    for (path, (value, _)) in &values {
        insert(&mut tree, path, value.clone());
    }
    // Every value was checked against its own key, so this cannot fail for a reason the caller has not seen.
    let config: C =
        Value::Table(tree).try_into().map_err(|error| ConfigError::Conflict(one_line(error.message())))?;
    if let Some(conflict) = config.conflict() {
        return Err(ConfigError::Conflict(conflict));
    }
    let given = values.into_iter().map(|(path, (_, origin))| (path, origin)).collect();
    Ok(Loaded { config, given })
}

/// The keys and sections that exist.
struct Known {
    keys: BTreeMap<String, Key>,
    sections: Vec<String>,
}

impl Known {
    fn of<C: Field + Default>() -> Self {
        let mut entries = Vec::new();
        C::default().describe("", &[], Anything, &mut entries);
        let mut known = Self { keys: BTreeMap::new(), sections: Vec::new() };
        for entry in entries {
            match entry {
                Entry::Section { path, .. } if path.is_empty() => {}
                Entry::Section { path, .. } => known.sections.push(path),
                Entry::Key(key) => {
                    known.keys.insert(key.path.clone(), key);
                }
            }
        }
        known
    }

    fn add_file(
        &self,
        path: &Path,
        values: &mut BTreeMap<String, (Value, Origin)>,
    ) -> Result<(), ConfigError> {
        let text = read(path)?;
        let syntax = |error: &toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_of(&text, &span)),
            problem: one_line(error.message()),
        };
        let lines = key_lines(&text).map_err(|error| syntax(&error))?;
        let table: Table = toml::from_str(&text).map_err(|error| syntax(&error))?;
        let mut pending = vec![(String::new(), table)];
        while let Some((prefix, table)) = pending.pop() {
            for (name, value) in table {
                let key = crate::config::schema::join(&prefix, &name);
                let line = lines.get(&key).copied().unwrap_or(1);
                let origin = Origin::File { path: path.to_owned(), line };
                match value.as_table() {
                    Some(inner) if self.sections.contains(&key) => pending.push((key, inner.clone())),
                    _ => self.add(key, value, origin, values)?,
                }
            }
        }
        Ok(())
    }

    /// A variable without `__` is not ours: orchestrators make up names such as `JACKFIELD_SERVICE_HOST`. One that
    /// would be a key if its single underscores were double is a slip, and is refused rather than ignored.
    fn add_variable(
        &self,
        name: &str,
        text: &str,
        values: &mut BTreeMap<String, (Value, Origin)>,
    ) -> Result<(), ConfigError> {
        let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else {
            return Ok(());
        };
        let origin = Origin::Variable { name: name.to_owned() };
        if !rest.contains("__") {
            let flat = rest.to_ascii_lowercase();
            let Some(key) = self.keys.keys().find(|key| key.replace('.', "_") == flat) else {
                return Ok(());
            };
            let advice = format!("did you mean {}?", variable_of(key));
            return Err(ConfigError::UnknownKey { path: flat, origin, advice });
        }
        let path = rest.to_ascii_lowercase().replace("__", ".");
        self.add_text(path, text, origin, values)
    }

    fn add_setting(
        &self,
        argument: &str,
        values: &mut BTreeMap<String, (Value, Origin)>,
    ) -> Result<(), ConfigError> {
        match argument.split_once('=') {
            Some((path, text)) if !path.trim().is_empty() => {
                self.add_text(path.trim().to_owned(), text, Origin::Setting, values)
            }
            _ => Err(ConfigError::NotASetting { argument: shown(argument) }),
        }
    }

    fn add_text(
        &self,
        path: String,
        text: &str,
        origin: Origin,
        values: &mut BTreeMap<String, (Value, Origin)>,
    ) -> Result<(), ConfigError> {
        let shape = self.keys.get(&path).map_or(Shape::Text, |key| key.shape);
        self.add(path, value_of(text, shape), origin, values)
    }

    fn add(
        &self,
        path: String,
        value: Value,
        origin: Origin,
        values: &mut BTreeMap<String, (Value, Origin)>,
    ) -> Result<(), ConfigError> {
        let allowed = match self.keys.get(&path) {
            Some(key) if key.accepts(&value) => {
                values.insert(path, (value, origin));
                return Ok(());
            }
            Some(key) => key.allowed.clone(),
            None if self.sections.contains(&path) => {
                format!("a key inside it, such as {}", self.first_key_in(&path))
            }
            None => {
                let advice = self.advice(&path);
                return Err(ConfigError::UnknownKey { path: shown(&path), origin, advice });
            }
        };
        Err(ConfigError::Refused { path, value: shown_value(&value), origin, allowed })
    }

    fn first_key_in(&self, section: &str) -> &str {
        let inside = |key: &&String| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
        self.keys.keys().find(inside).map_or("section.key", String::as_str)
    }

    fn advice(&self, unknown: &str) -> String {
        let unknown: String = unknown.chars().take(SHOWN_CHARS_MAX).collect();
        let nearest = self
            .keys
            .keys()
            .chain(&self.sections)
            .map(|known| (likeness(&unknown, known), known))
            .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
            .max_by(|(left, _), (right, _)| left.total_cmp(right));
        match nearest {
            Some((_, known)) => format!("did you mean {known}?"),
            None => "`jackfield default-config` lists every key".to_owned(),
        }
    }
}

/// Likeness of two keys; a right last name in a wrong or missing section counts almost as a match.
fn likeness(unknown: &str, key: &str) -> f64 {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let whole = strsim::normalized_damerau_levenshtein(unknown, key);
    whole.max(0.9 * strsim::normalized_damerau_levenshtein(&last(unknown), &last(key)))
}

/// The variable that sets a key.
fn variable_of(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable { path: path.to_owned(), error };
    let file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned(), max: FILE_BYTES_MAX });
    }
    Ok(text)
}

/// The line of every key in a file, by dotted name.
fn key_lines(text: &str) -> Result<BTreeMap<String, usize>, toml::de::Error> {
    let table = DeTable::parse(text)?;
    let mut lines = BTreeMap::new();
    let mut pending = vec![(String::new(), table.get_ref())];
    while let Some((prefix, table)) = pending.pop() {
        for (name, value) in table {
            let path = crate::config::schema::join(&prefix, name.get_ref());
            lines.insert(path.clone(), line_of(text, &name.span()));
            if let DeValue::Table(inner) = value.get_ref() {
                pending.push((path, inner));
            }
        }
    }
    Ok(lines)
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.as_bytes().get(..span.start).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// Understands bare text as the key's shape wants it; what is no TOML value stays text and is refused or taken as such.
fn value_of(text: &str, shape: Shape) -> Value {
    let parsed = text.trim().parse::<Value>().ok();
    match (shape, parsed) {
        (Shape::Text, Some(Value::String(quoted))) => Value::String(quoted),
        (Shape::List, Some(Value::Array(items))) => Value::Array(items),
        (Shape::List, Some(Value::String(quoted))) => Value::Array(vec![Value::String(quoted)]),
        (Shape::List, _) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
        (Shape::Number, Some(value)) => value,
        (Shape::Text | Shape::Number, _) => Value::String(text.to_owned()),
    }
}

fn insert(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

fn shown_value(value: &Value) -> String {
    match value.as_str() {
        Some(text) => format!("{:?}", clipped(text)),
        None => shown(&value.to_string()),
    }
}

/// The text in one line, without control characters, shortened.
fn shown(text: &str) -> String {
    clipped(text).escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

fn clipped(text: &str) -> String {
    let mut clipped: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macros declare public items")]
mod tests;
