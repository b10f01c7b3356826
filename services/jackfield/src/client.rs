//! What the subcommands that call the emitter's API have in common: where it is, with which key, and how answers end.
//!
//! The URL is that of `--url`, else `JACKFIELD_URL`, else `emitter.listen` of the configuration; the key is that of
//! `--key`, else of `--key-file`, else `JACKFIELD_KEY`.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ops::config::load::load;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Request, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::config::GatewayConfig;
use crate::serve::url;
use crate::{Failure, SourceArguments, print};

/// How long a call may take; one that waits for acks has this on top.
const CALL_WITHIN: Duration = Duration::from_secs(10);

/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where the API is, and how its answers are shown.
#[derive(Debug, Args)]
pub(crate) struct ClientArguments {
    /// URL of the emitter's API [default: JACKFIELD_URL, else emitter.listen of the configuration].
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// API key, `id.secret`, or token; others on this machine can see it, so JACKFIELD_KEY or --key-file is better.
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    key: Option<String>,
    /// File that holds the key.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Prints the answer of the API as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    sources: SourceArguments,
}

impl ClientArguments {
    /// Where the configuration comes from.
    pub(crate) fn sources(&self) -> &SourceArguments {
        &self.sources
    }
}

/// The API of an emitter.
pub(crate) struct Client {
    agent: Agent,
    url: String,
    key: Option<String>,
}

impl Client {
    /// Finds out where the API is.
    pub(crate) fn new(arguments: &ClientArguments) -> Result<Self, Failure> {
        let url = match arguments.url.clone().or_else(|| variable("JACKFIELD_URL")) {
            Some(given) => given,
            None => {
                let sources = arguments.sources.clone().alone();
                url(load::<GatewayConfig>(&sources)?.config.emitter.listen)
            }
        };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Failure::Usage(format!(
                "{url:?} is no URL of an API; begin it with http:// or https://"
            )));
        }
        let key = match (&arguments.key, &arguments.key_file) {
            (Some(key), _) => Some(key.clone()),
            (None, Some(path)) => {
                let text = fs::read_to_string(path).map_err(|error| {
                    Failure::Usage(format!("cannot read {}: {error}; give a readable file", path.display()))
                })?;
                Some(text)
            }
            (None, None) => variable("JACKFIELD_KEY"),
        };
        let key = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        Ok(Self { agent: agent(&url)?, url: url.trim_end_matches('/').to_owned(), key })
    }

    /// Asks something.
    pub(crate) fn get(&self, path: &str, query: &[(&str, Option<&str>)]) -> Result<Value, Failure> {
        let given = query.iter().filter_map(|(name, value)| value.map(|value| (*name, value)));
        let pairs: Vec<String> = given.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let uri = match &*pairs {
            [] => format!("{}{path}", self.url),
            pairs => format!("{}{path}?{}", self.url, pairs.join("&")),
        };
        let request = self.head(Request::get(uri)).body(()).map_err(|error| unusable(&error))?;
        self.answer(self.agent.run(request))
    }

    /// Wants something done. `patience` is waited for beyond the usual.
    pub(crate) fn post(&self, path: &str, body: &Value, patience: Duration) -> Result<Value, Failure> {
        let request = self.head(Request::post(format!("{}{path}", self.url)));
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string())
            .map_err(|error| unusable(&error))?;
        let request = self.agent.configure_request(request);
        let request = request.timeout_global(Some(CALL_WITHIN + patience)).build();
        self.answer(self.agent.run(request))
    }

    fn head(&self, request: ureq::http::request::Builder) -> ureq::http::request::Builder {
        match &self.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }

    fn answer(
        &self,
        outcome: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, Failure> {
        let mut response = outcome.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let text = text.map_err(|error| self.unreachable(&error))?;
        let answer: Value = serde_json::from_str(&text).map_err(|_| {
            Failure::Running(format!("{} answers {status} without JSON; is it an emitter?", self.url))
        })?;
        if status.is_success() { Ok(answer) } else { Err(refusal(status, &answer)) }
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        Failure::Running(format!("cannot reach {}: {error}; is the emitter running there?", self.url))
    }
}

/// A variable of the environment; all that the clients read is read here.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn agent(url: &str) -> Result<Agent, Failure> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(CALL_WITHIN))
        .user_agent(concat!("jackfield/", env!("CARGO_PKG_VERSION")));
    if url.starts_with("https://") {
        // It fails only if there is a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            return Err(Failure::Running(
                "this system trusts no certificates; install ca-certificates".to_owned(),
            ));
        }
        let roots = found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>();
        let roots = RootCerts::Specific(Arc::new(roots));
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    Ok(config.build().new_agent())
}

fn unusable(error: &ureq::http::Error) -> Failure {
    Failure::Usage(format!("the call cannot be made: {error}; check the URL and the key"))
}

/// A refusal as a failure: the caller's fault is misuse, the rest is worth another attempt.
fn refusal(status: StatusCode, problem: &Value) -> Failure {
    let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
    let place = if text("pointer").is_empty() { text("parameter") } else { text("pointer") };
    let place = if place.is_empty() { String::new() } else { format!(" ({place})") };
    let message = format!("{}{place}: {}", text("code"), text("detail"));
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        Failure::Usage(message)
    } else {
        Failure::Running(message)
    }
}

/// A value as part of a query.
fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Prints an answer as it came, or as lines for people.
pub(crate) fn show(
    answer: &Value,
    is_json: bool,
    lines: impl FnOnce(&Value) -> String,
) -> Result<(), Failure> {
    if is_json {
        return print(&format!("{answer}\n"));
    }
    print(&lines(answer))
}

/// Says so, and with its own exit code, when some node had no part in an answer.
pub(crate) fn expect_complete(answer: &Value) -> Result<(), Failure> {
    if answer.get("complete").and_then(Value::as_bool) != Some(false) {
        return Ok(());
    }
    let named = answer.get("missing_nodes").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    let unnamed = answer.get("missing_unnamed").and_then(Value::as_u64).unwrap_or(0);
    Err(Failure::Partly(format!("{} of the nodes did not answer; the result is not whole", named + unnamed)))
}

/// Whom a subcommand is about.
#[derive(Debug, Args)]
pub(crate) struct TargetArguments {
    /// The namespace.
    #[arg(long, short, value_name = "NAMESPACE", default_value = "/")]
    pub(crate) namespace: String,
    /// Everybody in this room; may be repeated.
    #[arg(long = "room", short, value_name = "ROOM")]
    pub(crate) rooms: Vec<String>,
    /// This socket; may be repeated.
    #[arg(long = "sid", short, value_name = "SID")]
    pub(crate) sids: Vec<String>,
    /// All sockets of this user; may be repeated.
    #[arg(long = "user", short, value_name = "USER")]
    pub(crate) users: Vec<String>,
    /// Leaves out this room or socket; may be repeated.
    #[arg(long, value_name = "ROOM")]
    pub(crate) except: Vec<String>,
    /// Everybody in the namespace.
    #[arg(long, conflicts_with_all = ["rooms", "sids", "users"])]
    pub(crate) broadcast: bool,
}

impl TargetArguments {
    /// The fields of a call.
    pub(crate) fn fields(&self) -> serde_json::Map<String, Value> {
        let mut fields = serde_json::Map::new();
        fields.insert("namespace".to_owned(), self.namespace.clone().into());
        let lists =
            [("rooms", &self.rooms), ("sids", &self.sids), ("users", &self.users), ("except", &self.except)];
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            fields.insert(name.to_owned(), list.clone().into());
        }
        if self.broadcast {
            fields.insert("broadcast".to_owned(), true.into());
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_encoded_for_a_query() {
        assert_eq!(encoded("a b&c=d/ü"), "a%20b%26c%3Dd%2F%C3%BC");
    }

    #[test]
    fn a_refusal_is_one_line_and_says_whose_fault_it_is() {
        let problem = json!({"code": "invalid_room", "pointer": "/rooms/0", "detail": "too long"});
        let Failure::Usage(message) = refusal(StatusCode::UNPROCESSABLE_ENTITY, &problem) else { panic!() };
        assert_eq!(message, "invalid_room (/rooms/0): too long");
        for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
            assert!(matches!(refusal(status, &problem), Failure::Running(_)));
        }
    }
}
