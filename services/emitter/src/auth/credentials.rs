//! The keys and tokens that are accepted now, read anew when their files change.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::api::problem::{Code, Problem};
use crate::auth::Caller;
use crate::auth::jwt::{TokenError, Tokens};
use crate::auth::keys::Keys;
use crate::auth::rate::{Limiters, Rate};
use crate::auth::scope::Scope;
use crate::config::EmitterConfig;
use crate::metrics::Metrics;

/// Longest file of keys or secrets that is read.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Longest key or token that is looked at.
const SHOWN_BYTES_MAX: usize = 8 * 1024;

/// Why the files of keys and secrets cannot be used. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {key} {path}: {error}; give a readable file or leave the key empty")]
    Unreadable {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        error: String,
    },
    /// A file does not hold what it should.
    #[error("{key} is not accepted: {error}")]
    Malformed {
        /// The key of the configuration.
        key: &'static str,
        /// What is wrong.
        error: String,
    },
}

/// Judges who calls.
#[derive(Debug)]
pub(crate) struct Credentials {
    config: EmitterConfig,
    accepted: RwLock<Arc<Accepted>>,
    limiters: Limiters,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Accepted {
    keys: Keys,
    tokens: Tokens,
    contents: Contents,
}

/// What the files held, to see when that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    keys: Option<Vec<u8>>,
    secrets: Option<Vec<u8>>,
    public_key: Option<Vec<u8>>,
}

impl Credentials {
    /// Reads the files that the configuration names.
    pub(crate) fn load(config: &EmitterConfig, metrics: Arc<Metrics>) -> Result<Self, CredentialsError> {
        let accepted = Accepted::parse(config, Contents::read(config)?)?;
        metrics.keys.set(accepted.keys.len() as u64);
        Ok(Self {
            config: config.clone(),
            accepted: RwLock::new(Arc::new(accepted)),
            limiters: Limiters::default(),
            metrics,
        })
    }

    /// Finds out who shows this `Authorization` header.
    pub(crate) fn judge(&self, authorization: Option<&[u8]>) -> Result<Caller, Problem> {
        if !self.config.wants_credentials() {
            return Ok(Caller::anybody());
        }
        let outcome = self.identify(authorization);
        if let Err(problem) = &outcome {
            self.metrics.refuse_caller(problem.code);
        }
        outcome
    }

    fn identify(&self, authorization: Option<&[u8]>) -> Result<Caller, Problem> {
        let Some(authorization) = authorization else {
            let detail = "show a key as \"Authorization: Bearer ID.SECRET\"";
            return Err(Problem::new(Code::MissingCredentials, detail));
        };
        let shown = bearer(authorization).ok_or_else(invalid)?;
        let accepted = self.accepted();
        if shown.matches('.').count() == 2 {
            let claims = accepted.tokens.judge(shown).map_err(|error| match error {
                TokenError::Expired => expired(),
                TokenError::Invalid => invalid(),
            })?;
            return Ok(self.caller(claims.caller, claims.scopes, None));
        }
        let (id, secret) = shown.split_once('.').ok_or_else(invalid)?;
        let key = accepted.keys.find(id, secret).ok_or_else(invalid)?;
        if key.expires_at_ms.is_some_and(|expires| expires <= now_ms()) {
            return Err(expired());
        }
        Ok(self.caller(key.caller.clone(), key.scopes.clone(), key.rate_per_second))
    }

    fn caller(&self, id: Arc<str>, scopes: Arc<[Scope]>, own_rate: Option<u64>) -> Caller {
        let rate = match own_rate {
            Some(per_second) => Rate::new(per_second, 0),
            None => Rate::new(self.config.rate_per_second, self.config.rate_burst),
        };
        let limiter = rate.map(|rate| self.limiters.of(&id, rate, Instant::now()));
        Caller::new(id, scopes, limiter)
    }

    fn accepted(&self) -> Arc<Accepted> {
        self.accepted.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files again. What is broken is logged once and changes nothing; `refused` is what was broken before.
    pub(crate) fn reload(&self, refused: Option<Contents>) -> Option<Contents> {
        let contents = match Contents::read(&self.config) {
            Ok(contents) => contents,
            Err(error) => {
                // A file that is being replaced may be away for a moment; the next look tells.
                let absent = Contents { keys: None, secrets: None, public_key: None };
                return self.keep_old(&error, absent, refused);
            }
        };
        if contents == self.accepted().contents {
            return None;
        }
        match Accepted::parse(&self.config, contents.clone()) {
            Ok(accepted) => {
                tracing::info!(keys = accepted.keys.len(), "the keys of callers were read anew");
                self.metrics.keys.set(accepted.keys.len() as u64);
                self.metrics.keys_reloaded.add(1);
                *self.accepted.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(accepted);
                None
            }
            Err(error) => self.keep_old(&error, contents, refused),
        }
    }

    fn keep_old(
        &self,
        error: &CredentialsError,
        contents: Contents,
        refused: Option<Contents>,
    ) -> Option<Contents> {
        if refused.as_ref() != Some(&contents) {
            self.metrics.keys_refused.add(1);
            tracing::warn!(%error, "the keys of callers stay as they were");
        }
        Some(contents)
    }
}

impl Accepted {
    fn parse(config: &EmitterConfig, contents: Contents) -> Result<Self, CredentialsError> {
        let malformed = |key, error| CredentialsError::Malformed { key, error };
        let keys = match &contents.keys {
            None => Keys::default(),
            Some(bytes) => {
                let is_json = config.keys_file.extension().is_some_and(|extension| extension == "json");
                str::from_utf8(bytes)
                    .map_err(|_| "it is not UTF-8".to_owned())
                    .and_then(|text| Keys::parse(text, is_json))
                    .map_err(|error| malformed("emitter.keys_file", error))?
            }
        };
        let tokens = Tokens::parse(&config.jwt, contents.secrets.as_deref(), contents.public_key.as_deref())
            .map_err(|error| malformed("emitter.jwt", error))?;
        Ok(Self { keys, tokens, contents })
    }
}

impl Contents {
    fn read(config: &EmitterConfig) -> Result<Self, CredentialsError> {
        Ok(Self {
            keys: read("emitter.keys_file", &config.keys_file)?,
            secrets: read("emitter.jwt.secret_file", &config.jwt.secret_file)?,
            public_key: read("emitter.jwt.public_key_file", &config.jwt.public_key_file)?,
        })
    }
}

/// The content of a file, `None` if none is named.
fn read(key: &'static str, path: &Path) -> Result<Option<Vec<u8>>, CredentialsError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content));
    let unreadable =
        |error: String| CredentialsError::Unreadable { key, path: path.display().to_string(), error };
    match read {
        Err(error) => Err(unreadable(error.to_string())),
        Ok(_) if content.len() as u64 > FILE_BYTES_MAX => {
            Err(unreadable(format!("it has more than {FILE_BYTES_MAX} bytes")))
        }
        Ok(_) => Ok(Some(content)),
    }
}

/// Reads the files that a configuration names, without keeping anything.
pub(crate) fn check(config: &EmitterConfig) -> Result<(), CredentialsError> {
    Contents::read(config).and_then(|contents| Accepted::parse(config, contents)).map(drop)
}

/// What follows `Bearer`; the scheme is not case-sensitive.
fn bearer(authorization: &[u8]) -> Option<&str> {
    let text = str::from_utf8(authorization).ok().filter(|text| text.len() <= SHOWN_BYTES_MAX)?;
    let (scheme, shown) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| shown.trim())
}

fn invalid() -> Problem {
    Problem::new(Code::InvalidCredentials, "the key is unknown here, was withdrawn, or its secret is wrong")
}

fn expired() -> Problem {
    Problem::new(Code::ExpiredCredentials, "the key or token has expired; use a newer one")
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// The hashes of `test` and of `other`.
    const TEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const OTHER: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("jackfield-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn config(&self, keys: &str) -> EmitterConfig {
            let keys_file = self.0.join("keys.toml");
            fs::write(&keys_file, keys).unwrap();
            EmitterConfig { keys_file, ..EmitterConfig::default() }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn entry(id: &str, hash: &str, rest: &str) -> String {
        format!("[[keys]]\nid = \"{id}\"\nsha256 = \"{hash}\"\nscopes = [\"emit\"]\n{rest}\n")
    }

    fn judge(credentials: &Credentials, header: &str) -> Result<String, Code> {
        let outcome = credentials.judge(Some(header.as_bytes()));
        outcome.map(|caller| caller.id.to_string()).map_err(|problem| problem.code)
    }

    #[test]
    fn only_a_whole_key_gets_through() {
        let folder = Folder::new("whole-key");
        let keys = [entry("a", TEST, ""), entry("b", TEST, "expires_at_ms = 1")].concat();
        let credentials = Credentials::load(&folder.config(&keys), Arc::default()).unwrap();
        assert_eq!(judge(&credentials, "Bearer a.test"), Ok("key:a".to_owned()));
        assert_eq!(judge(&credentials, "bearer  a.test "), Ok("key:a".to_owned()));
        for header in [
            "Bearer a.tes",
            "Bearer a",
            "Bearer .test",
            "Bearer c.test",
            "Basic a.test",
            "a.test",
            "",
            "Bearer a.b.test",
        ] {
            assert_eq!(judge(&credentials, header), Err(Code::InvalidCredentials), "{header}");
        }
        assert_eq!(judge(&credentials, "Bearer b.test"), Err(Code::ExpiredCredentials));
        assert_eq!(credentials.judge(None).unwrap_err().code, Code::MissingCredentials);
        assert_eq!(
            judge(&credentials, &format!("Bearer a.{}", "x".repeat(9_000))),
            Err(Code::InvalidCredentials)
        );
    }

    #[test]
    fn without_files_everybody_may_call() {
        let credentials = Credentials::load(&EmitterConfig::default(), Arc::default()).unwrap();
        assert_eq!(&*credentials.judge(None).unwrap().id, "-");
    }

    #[test]
    fn a_changed_file_is_taken_and_a_broken_one_is_not() {
        let folder = Folder::new("changed-file");
        let metrics = Arc::new(Metrics::default());
        let credentials = Credentials::load(&folder.config(&entry("a", TEST, "")), metrics.clone()).unwrap();
        assert_eq!(credentials.reload(None), None);
        folder.config(&entry("a", OTHER, ""));
        assert_eq!(credentials.reload(None), None);
        assert_eq!(judge(&credentials, "Bearer a.test"), Err(Code::InvalidCredentials));
        assert_eq!(judge(&credentials, "Bearer a.other"), Ok("key:a".to_owned()));
        folder.config("[[keys]");
        let refused = credentials.reload(None);
        assert!(refused.is_some());
        assert_eq!(credentials.reload(refused.clone()), refused);
        assert_eq!(metrics.keys_refused.get(), 1, "it is said once");
        fs::remove_file(folder.0.join("keys.toml")).unwrap();
        assert!(credentials.reload(refused).is_some());
        assert_eq!(judge(&credentials, "Bearer a.other"), Ok("key:a".to_owned()));
    }

    #[test]
    fn a_key_has_its_own_rate() {
        let folder = Folder::new("own-rate");
        let config = folder.config(&entry("a", TEST, "rate_per_second = 1"));
        let credentials = Credentials::load(&config, Arc::default()).unwrap();
        let charge = || credentials.judge(Some(b"Bearer a.test")).unwrap().charge();
        assert_eq!(charge(), Ok(()));
        assert_eq!(charge().unwrap_err().code, Code::RateLimited);
    }

    #[test]
    fn a_file_that_cannot_be_used_stops_the_start() {
        let folder = Folder::new("unusable");
        let load = |config: &EmitterConfig| check(config).unwrap_err().to_string();
        assert!(
            load(&folder.config("x = 1")).starts_with("emitter.keys_file is not accepted: unknown field")
        );
        let config = EmitterConfig { keys_file: folder.0.join("none"), ..EmitterConfig::default() };
        assert!(load(&config).starts_with("cannot read emitter.keys_file"));
    }
}
