//! API keys: what a caller shows is `id.secret`, and the file holds the id with the SHA-256 of the secret.
//!
//! ```toml
//! [[keys]]
//! id = "billing"
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! scopes = ["emit:/orders", "sockets:read"]
//! expires_at_ms = 1893456000000   # optional
//! rate_per_second = 50            # optional, instead of emitter.rate_per_second
//! ```
//!
//! In JSON the same is `{"keys": [{"id": …}]}`. A secret is random and long, so its plain hash gives nothing away.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::auth::scope::Scope;

/// Most keys of one file.
const KEYS_MAX: usize = 100_000;

/// Longest id of a key.
const ID_BYTES_MAX: usize = 64;

/// The keys of a file, by id.
#[derive(Debug, Default)]
pub(crate) struct Keys(HashMap<String, Key>);

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Tells callers apart: `key:<id>`.
    pub(crate) caller: Arc<str>,
    hash: [u8; 32],
    pub(crate) scopes: Arc<[Scope]>,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) rate_per_second: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    sha256: String,
    scopes: Vec<Scope>,
    expires_at_ms: Option<u64>,
    rate_per_second: Option<u64>,
}

impl Keys {
    /// Reads the text of a keys file.
    ///
    /// # Errors
    /// What is wrong with it, as one line that holds no secret and no hash.
    pub(crate) fn parse(text: &str, is_json: bool) -> Result<Self, String> {
        let file: File = if is_json {
            serde_json::from_str(text).map_err(|error| first_line(&error.to_string()))?
        } else {
            toml::from_str(text).map_err(|error| first_line(error.message()))?
        };
        if file.keys.len() > KEYS_MAX {
            return Err(format!("at most {KEYS_MAX} keys"));
        }
        let mut keys = HashMap::with_capacity(file.keys.len());
        for entry in file.keys {
            if !is_id(&entry.id) {
                return Err(format!(
                    "the id {:?} must be 1 to {ID_BYTES_MAX} letters, digits, - and _",
                    entry.id
                ));
            }
            let hash = parse_hash(&entry.sha256).ok_or_else(|| {
                format!(
                    "the sha256 of {:?} must be 64 hexadecimal digits; `jackfield token hash` prints it",
                    entry.id
                )
            })?;
            let key = Key {
                caller: format!("key:{}", entry.id).into(),
                hash,
                scopes: entry.scopes.into(),
                expires_at_ms: entry.expires_at_ms,
                rate_per_second: entry.rate_per_second,
            };
            if keys.insert(entry.id.clone(), key).is_some() {
                return Err(format!("the id {:?} is there twice", entry.id));
            }
        }
        Ok(Self(keys))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Finds the key of an id and compares the secret, in a time that does not depend on either.
    pub(crate) fn find(&self, id: &str, secret: &str) -> Option<&Key> {
        let shown: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let key = self.0.get(id);
        let expected = key.map_or(&[0; 32], |key| &key.hash);
        let is_equal = bool::from(expected.ct_eq(&shown));
        key.filter(|_| is_equal)
    }
}

fn is_id(id: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_part)
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(hash)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scope::Action;

    /// The hash of `test`.
    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn both_formats_hold_the_same() {
        let toml = format!("[[keys]]\nid = \"a\"\nsha256 = \"{HASH}\"\nscopes = [\"emit:/chat\"]\n");
        let json = format!(r#"{{"keys":[{{"id":"a","sha256":"{HASH}","scopes":["emit:/chat"]}}]}}"#);
        for keys in [Keys::parse(&toml, false).unwrap(), Keys::parse(&json, true).unwrap()] {
            assert_eq!(keys.len(), 1);
            let key = keys.find("a", "test").unwrap();
            assert!(key.scopes.iter().any(|scope| scope.covers(Action::Emit, "/chat")));
            assert!(keys.find("a", "Test").is_none() && keys.find("a", "").is_none());
            assert!(keys.find("b", "test").is_none());
        }
    }

    #[test]
    fn faults_are_named_without_the_hash() {
        let check = |text: &str, expected: &str| {
            let error = Keys::parse(text, true).unwrap_err();
            assert!(error.contains(expected) && !error.contains(HASH), "{error}");
        };
        let entry = |id: &str, hash: &str, rest: &str| {
            format!(r#"{{"id":"{id}","sha256":"{hash}","scopes":[]{rest}}}"#)
        };
        let file = |entries: &[String]| format!(r#"{{"keys":[{}]}}"#, entries.join(","));
        check(&file(&[entry("a.b", HASH, "")]), "the id \"a.b\" must be");
        check(&file(&[entry("a", "xyz", "")]), "64 hexadecimal digits");
        check(&file(&[entry("a", &"+1".repeat(32), "")]), "64 hexadecimal digits");
        check(&file(&[entry("a", HASH, ""), entry("a", HASH, "")]), "there twice");
        check(&file(&[entry("a", HASH, r#","scope":"x""#)]), "unknown field `scope`");
        check(r#"{"keys":[{"id":"a"}]}"#, "missing field `sha256`");
        check("[", "EOF");
        let scope = r#"{"keys":[{"id":"a","sha256":"","scopes":["emti"]}]}"#;
        check(scope, "\"emti\" is no scope");
    }
}
