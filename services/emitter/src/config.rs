//! What an emitter can be told: the section `emitter`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ops::config::schema::must;
use ops::config_section;

/// Longest duration a key accepts: one day.
const DAY_MS: u64 = 86_400_000;

/// Largest count a key accepts: more than one process can hold.
const COUNT_MAX: usize = 1 << 24;

/// Longest wait for acks that a call may ask for, whatever is configured: proxies give up earlier.
const ACK_TIMEOUT_MAX_MS: u64 = 300_000;

config_section! {
    /// The HTTP API by which backends reach sockets.
    pub struct EmitterConfig {
        /// Address of the API; port 0 takes a free one.
        /// Without keys it must be a loopback address.
        /// The subcommand `emitter` listens on `0.0.0.0:4000` once there are keys, unless told otherwise.
        pub listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4000)),
        /// File with the API keys, TOML, or JSON if its name ends in `.json`; `jackfield token key` mints entries.
        pub keys_file: PathBuf = PathBuf::new(),
        /// Time between two looks at the files of keys and secrets, which are read anew when they have changed.
        pub keys_reload_ms: u64 = 2_000 => 50..=DAY_MS,
        /// Threads that serve the API; 0 takes one for each processor, at most four.
        pub threads: usize = 0 => 0..=256,
        /// Most connections at a time; more wait in the system's backlog.
        pub connections_max: usize = 4_096 => 1..=COUNT_MAX,
        /// How long a connection may take to send the head of a request, or be idle between two.
        pub idle_timeout_ms: u64 = 75_000 => 100..=DAY_MS,
        /// Most bytes of a request's body.
        pub body_bytes_max: usize = 1_000_000 => 1_024..=67_108_864,
        /// Most bytes of the bodies of all requests under way; beyond, a call is answered with 503.
        pub bodies_bytes_max: usize = 67_108_864 => 1_024..=1 << 40,
        /// How long the body of a request may take to arrive.
        pub body_timeout_ms: u64 = 10_000 => 100..=DAY_MS,
        /// Most requests under way; beyond, a call is answered with 503.
        pub requests_max: usize = 1_024 => 1..=COUNT_MAX,
        /// Calls a second that one key may make, each operation of a batch counted; 0 sets no limit. A key may have a limit of its own.
        pub rate_per_second: u64 = 0 => 0..=10_000_000,
        /// Calls that a key may save up while it is idle; 0 is what it may make in one second.
        pub rate_burst: u64 = 0 => 0..=10_000_000,
        /// Most operations of one batch.
        pub batch_operations_max: usize = 1_000 => 1..=100_000,
        /// Most rooms, sids or users that one list of a call may have.
        pub selector_items_max: usize = 1_000 => 1..=10_000,
        /// Most bytes of the data that `/v1/sockets/update` gives a socket.
        pub data_bytes_max: usize = 16_384 => 0..=4_000_000,
        /// How long the broker may take to confirm an event before the answer is 503.
        pub publish_timeout_ms: u64 = 2_500 => 100..=60_000,
        /// How long edges may take to answer a query, or to carry out a join, leave, disconnect or update.
        pub request_timeout_ms: u64 = 2_500 => 100..=60_000,
        /// How long a call that wants acks waits for them unless it says.
        pub ack_timeout_ms: u64 = 10_000 => 1..=ACK_TIMEOUT_MAX_MS,
        /// The longest wait for acks that a call may ask for.
        pub ack_timeout_max_ms: u64 = 60_000 => 1..=ACK_TIMEOUT_MAX_MS,
        /// Most acks in one answer; further ones are counted and left out.
        pub ack_responses_max: usize = 10_000 => 1..=COUNT_MAX,
        /// Most sockets, rooms or users on one page of a query.
        pub page_items_max: usize = 1_000 => 1..=10_000,
        /// Most bytes that are collected for one answer; what is beyond is left out, and the answer says so.
        pub answer_bytes_max: usize = 16_777_216 => 65_536..=1 << 40,
        /// Most idempotency keys whose answers are kept; beyond, the oldest go first.
        pub idempotency_keys_max: usize = 100_000 => 0..=COUNT_MAX,
        /// How long the answer to an idempotency key is kept. Edges remember a key for five minutes.
        pub idempotency_ttl_ms: u64 = 300_000 => 1_000..=DAY_MS,
        /// Tokens as an alternative to API keys.
        pub jwt: JwtConfig = JwtConfig::default(),
    }
    consistent: EmitterConfig::conflict_between_keys
}

config_section! {
    /// JSON Web Tokens that backends may show instead of an API key. They need an `exp`.
    pub struct JwtConfig {
        /// File with the secrets for HS256, one a line, of at least 32 bytes each; several during a rotation.
        pub secret_file: PathBuf = PathBuf::new(),
        /// File with a public key in PEM: Ed25519 for EdDSA, RSA for RS256.
        pub public_key_file: PathBuf = PathBuf::new(),
        /// What `iss` must be; empty accepts any.
        pub issuer: String = String::new(),
        /// What `aud` must hold, so that tokens made for clients do not open this API.
        pub audience: String = "jackfield-emitter".to_owned() => must("a name that is not empty", |name: &str| !name.is_empty()),
        /// The claim with the scopes, a list or one text with spaces.
        pub scopes_claim: String = "scope".to_owned() => must("the name of a claim", |name: &str| !name.is_empty()),
        /// How far clocks may differ.
        pub leeway_ms: u64 = 30_000 => 0..=DAY_MS,
    }
}

impl EmitterConfig {
    /// Whether callers must show who they are.
    #[must_use]
    pub fn wants_credentials(&self) -> bool {
        let files = [&self.keys_file, &self.jwt.secret_file, &self.jwt.public_key_file];
        files.iter().any(|file| !file.as_os_str().is_empty())
    }

    /// Time between two looks at the files of keys and secrets.
    #[must_use]
    pub fn keys_reload(&self) -> Duration {
        Duration::from_millis(self.keys_reload_ms)
    }

    /// How long a head may take, or an idle connection be kept.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    /// How long a body may take.
    #[must_use]
    pub fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    /// How long the broker may take to confirm.
    #[must_use]
    pub fn publish_timeout(&self) -> Duration {
        Duration::from_millis(self.publish_timeout_ms)
    }

    /// How long edges may take to answer.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// How long an answer to an idempotency key is kept.
    #[must_use]
    pub fn idempotency_ttl(&self) -> Duration {
        Duration::from_millis(self.idempotency_ttl_ms)
    }

    fn conflict_between_keys(&self) -> Option<String> {
        if self.ack_timeout_ms > self.ack_timeout_max_ms {
            return Some(format!(
                "emitter.ack_timeout_ms ({}) is above emitter.ack_timeout_max_ms ({}); lower it or raise the other",
                self.ack_timeout_ms, self.ack_timeout_max_ms
            ));
        }
        if self.body_bytes_max > self.bodies_bytes_max {
            return Some(format!(
                "emitter.body_bytes_max ({}) is above emitter.bodies_bytes_max ({}); lower it or raise the other",
                self.body_bytes_max, self.bodies_bytes_max
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_contradict_each_other_are_refused() {
        let check = |config: EmitterConfig, fits: bool| {
            assert_eq!(config.conflict_between_keys().is_none(), fits, "{config:?}");
        };
        check(EmitterConfig::default(), true);
        check(EmitterConfig { ack_timeout_ms: 60_001, ..EmitterConfig::default() }, false);
        check(EmitterConfig { bodies_bytes_max: 1_024, ..EmitterConfig::default() }, false);
    }

    #[test]
    fn any_file_of_keys_closes_the_api() {
        assert!(!EmitterConfig::default().wants_credentials());
        let mut config = EmitterConfig::default();
        config.jwt.public_key_file = "key.pem".into();
        assert!(config.wants_credentials());
    }
}
