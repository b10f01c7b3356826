//! A certificate for brokers that encrypt.

use std::process::Command;

use super::Folder;

/// A certificate of its own authority for `localhost`.
#[derive(Debug)]
pub struct Certificate(Folder);

impl Certificate {
    /// Makes one.
    ///
    /// # Panics
    /// When `openssl` does not.
    pub fn make() -> Self {
        let certificate = Self(Folder::new("certificate"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        command.args(["-keyout", &certificate.key(), "-out", &certificate.file()]);
        let output = command.output().expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        certificate
    }

    /// The file of the certificate.
    pub fn file(&self) -> String {
        self.0.path("certificate.pem").to_string_lossy().into_owned()
    }

    /// The file of its key.
    pub fn key(&self) -> String {
        self.0.path("key.pem").to_string_lossy().into_owned()
    }

    /// Runs one test of the running binary again, in a process that trusts this certificate and is given the URL of a
    /// server that has it.
    ///
    /// # Panics
    /// When that test fails.
    pub fn again(&self, test: &str, url: &str) {
        let exe = std::env::current_exe().expect("a running program knows its path");
        let mut command = Command::new(exe);
        command.args(["--exact", test, "--nocapture"]);
        command.env("SSL_CERT_FILE", self.file()).env("JACKFIELD_TEST_TLS_URL", url);
        let output = command.output().expect("the test runs again");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}
