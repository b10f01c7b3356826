//! The secret that the nodes of a cluster share: its file, and signatures made with it.
//!
//! The file holds it on its first line. A second line is accepted too but never used to sign, so that the secret can
//! be changed without a pause: add the new one as second line on all nodes, swap the lines, drop the old one. The
//! file is read again while the node runs. A secret itself never travels.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

/// Shortest secret that is worth the name.
const SECRET_BYTES_MIN: usize = 16;
/// Longest file that is read: two secrets of any sensible length.
const FILE_BYTES_MAX: u64 = 4096;
/// Pause between two log lines about a file that cannot be used.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// Why the secret cannot be used: one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// None is configured.
    #[error(
        "nodes that share a broker need a secret: write one of at least 16 bytes into a file that all of them have \
         and name it with --set cluster.secret_file=FILE"
    )]
    Missing,
    /// The file cannot be read.
    #[error("cannot read cluster.secret_file {path}: {error}; give a readable file")]
    Unreadable {
        /// The file as configured.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file's content is no secret.
    #[error(
        "cluster.secret_file {path} must hold one secret, or two on a line each, of at least 16 bytes without \
         spaces; write one into it, such as what `openssl rand -hex 32` prints"
    )]
    Malformed {
        /// The file as configured.
        path: PathBuf,
    },
}

/// The secrets that hold now. They never appear in debug output.
pub struct Secrets {
    path: PathBuf,
    keys: RwLock<Arc<Keys>>,
}

struct Keys {
    /// The file as it was read.
    text: Vec<u8>,
    /// Signs and verifies.
    first: hmac::Key,
    /// Only verifies.
    second: Option<hmac::Key>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Reads `cluster.secret_file`.
    ///
    /// # Errors
    /// [`SecretError`] when it holds no secret.
    pub fn load(path: &Path) -> Result<Secrets, SecretError> {
        if path.as_os_str().is_empty() {
            return Err(SecretError::Missing);
        }
        let keys = read(path)?;
        Ok(Secrets { path: path.to_owned(), keys: RwLock::new(Arc::new(keys)) })
    }

    /// The signature of a message: 43 base64url characters of an HMAC-SHA256.
    pub fn sign(&self, message: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.keys().first, message))
    }

    /// Whether one of the secrets has made this signature. Compares in constant time.
    pub fn has_signed(&self, message: &[u8], signature: &str) -> bool {
        let Ok(tag) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        let keys = self.keys();
        let mut known = [Some(&keys.first), keys.second.as_ref()].into_iter().flatten();
        known.any(|key| hmac::verify(key, message, &tag).is_ok())
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again; whether that brought other secrets.
    ///
    /// # Errors
    /// [`SecretError`]; the secrets so far go on to hold.
    fn renew(&self) -> Result<bool, SecretError> {
        let keys = read(&self.path)?;
        if keys.text == self.keys().text {
            return Ok(false);
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(true)
    }

    /// Reads the file again every now and then, for ever. It is small and nearly always in the system's cache.
    pub(super) async fn watch(&self, every: Duration) {
        let mut complained: Option<Instant> = None;
        loop {
            tokio::time::sleep(every).await;
            match self.renew() {
                Ok(false) => {}
                Ok(true) => tracing::info!("the secret of the cluster has been read again"),
                Err(error) if complained.is_none_or(|last| last.elapsed() >= COMPLAINT_PAUSE) => {
                    complained = Some(Instant::now());
                    tracing::warn!(%error, "the secret of the cluster stays as it was");
                }
                Err(_) => {}
            }
        }
    }
}

fn read(path: &Path) -> Result<Keys, SecretError> {
    let unreadable = |error| SecretError::Unreadable { path: path.to_owned(), error };
    let mut text = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    parse(text).ok_or_else(|| SecretError::Malformed { path: path.to_owned() })
}

fn parse(text: Vec<u8>) -> Option<Keys> {
    if text.len() as u64 > FILE_BYTES_MAX {
        return None;
    }
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let is_secret = |line: &[u8]| line.len() >= SECRET_BYTES_MIN && line.iter().all(u8::is_ascii_graphic);
    let key = |line: &[u8]| is_secret(line).then(|| hmac::Key::new(hmac::HMAC_SHA256, line));
    let keys: Vec<hmac::Key> = lines.map(key).collect::<Option<_>>()?;
    let mut keys = keys.into_iter();
    let (first, second) = (keys.next()?, keys.next());
    keys.next().is_none().then_some(Keys { text, first, second })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const OLD: &str = "0123456789abcdef";
    const NEW: &str = "fedcba9876543210";

    fn file(name: &str, content: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("jackfield-secret-{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn a_file_holds_one_or_two_long_words() {
        for accepted in [OLD, "0123456789abcdef\n", "\n0123456789abcdef\r\n\nfedcba9876543210\n"] {
            assert!(parse(accepted.into()).is_some(), "{accepted:?}");
        }
        let three = format!("{OLD}\n{NEW}\n{OLD}\n");
        for refused in ["", "\n", "0123456789abcde", "0123456789 abcdef", "0123456789abcdef\nshort", &three] {
            assert!(parse(refused.into()).is_none(), "{refused:?}");
        }
        assert!(parse("x".repeat(5000).into()).is_none());
    }

    #[test]
    fn what_is_wrong_with_the_file_is_said_in_one_line() {
        let check = |path: &Path, beginning: &str| {
            let said = Secrets::load(path).unwrap_err().to_string();
            assert!(said.starts_with(beginning) && !said.contains('\n') && !said.contains("  "), "{said}");
        };
        check(Path::new(""), "nodes that share a broker need a secret: ");
        check(Path::new("/no/such/file"), "cannot read cluster.secret_file /no/such/file: ");
        let empty = file("empty", "");
        check(&empty, &format!("cluster.secret_file {} must hold ", empty.display()));
        fs::remove_file(empty).unwrap();
    }

    #[test]
    fn a_secret_is_changed_in_three_steps_without_a_pause() {
        let (one, two) = (file("one", OLD), file("two", OLD));
        let secrets = [&one, &two].map(|path| Secrets::load(path).unwrap());
        let agree = || {
            for (signer, verifier) in [(0, 1), (1, 0)] {
                let signature = secrets[signer].sign(b"message");
                assert!(secrets[verifier].has_signed(b"message", &signature));
                assert!(!secrets[verifier].has_signed(b"another", &signature));
            }
        };
        for content in [format!("{OLD}\n{NEW}\n"), format!("{NEW}\n{OLD}\n"), format!("{NEW}\n")] {
            for (path, secret) in [&one, &two].into_iter().zip(&secrets) {
                fs::write(path, &content).unwrap();
                assert!(secret.renew().unwrap());
                agree();
            }
        }
        assert!(!secrets[0].renew().unwrap());
        fs::write(&one, "short").unwrap();
        assert!(secrets[0].renew().is_err());
        agree();
        for path in [one, two] {
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn only_a_whole_signature_of_a_known_secret_counts() {
        let path = file("other", OLD);
        let secrets = Secrets::load(&path).unwrap();
        let signature = secrets.sign(b"message");
        assert_eq!(signature.len(), 43);
        let key = hmac::Key::new(hmac::HMAC_SHA256, NEW.as_bytes());
        let stranger = URL_SAFE_NO_PAD.encode(hmac::sign(&key, b"message"));
        for wrong in ["", "A", signature.get(..42).unwrap(), &stranger, &format!("{signature}AA")] {
            assert!(!secrets.has_signed(b"message", wrong), "{wrong}");
        }
        assert!(!format!("{secrets:?}").contains(OLD));
        fs::remove_file(path).unwrap();
    }
}
