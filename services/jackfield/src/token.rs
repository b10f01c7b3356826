//! `token`: makes and explains API keys and JSON Web Tokens.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::emit::value;
use crate::{Failure, print};

/// Bytes of randomness in a secret.
const SECRET_BYTES: usize = 32;

/// Longest text that is read from stdin or a file.
const TEXT_BYTES_MAX: u64 = 64 * 1024;

/// Makes and explains keys and tokens.
#[derive(Debug, Args)]
pub(crate) struct TokenArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Makes an API key, and the entry for emitter.keys_file that goes with it.
    Key(KeyArguments),
    /// Prints the SHA-256 of a secret that comes on stdin, as emitter.keys_file wants it.
    Hash,
    /// Signs a JSON Web Token.
    Jwt(JwtArguments),
    /// Says what a key or a token holds, without checking its signature.
    Explain {
        /// The key or token; without one it is read from stdin.
        token: Option<String>,
        /// Prints it as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct KeyArguments {
    /// Who will use it: letters, digits, - and _.
    id: String,
    /// What it may do, such as emit:/chat or sockets:read; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<String>,
    /// For how many seconds it is good; for ever unless given.
    #[arg(long, value_name = "SECONDS")]
    expires_in: Option<u64>,
    /// Calls a second that it may make.
    #[arg(long, value_name = "CALLS")]
    rate: Option<u64>,
    /// Prints key and entry as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct JwtArguments {
    /// File with the secret for HS256; of several lines the first.
    #[arg(long, value_name = "FILE", required_unless_present = "private_key_file")]
    secret_file: Option<PathBuf>,
    /// File with a private key in PEM: Ed25519 for EdDSA, RSA for RS256.
    #[arg(long, value_name = "FILE", conflicts_with = "secret_file")]
    private_key_file: Option<PathBuf>,
    /// Whom it is about.
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// What it may do at the emitter; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Whom it is for.
    #[arg(long, value_name = "NAME", default_value = "jackfield-emitter")]
    audience: String,
    /// Who made it.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// For how many seconds it is good.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    expires_in: u64,
    /// Another claim, its value JSON or text; may be repeated.
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
}

pub(crate) fn run(arguments: &TokenArguments) -> Result<(), Failure> {
    match &arguments.what {
        What::Key(arguments) => key(arguments),
        What::Hash => {
            let secret = stdin()?;
            print(&format!("{}\n", hash(secret.trim())))
        }
        What::Jwt(arguments) => jwt(arguments),
        What::Explain { token, json } => {
            let token = token.clone().map_or_else(stdin, Ok)?;
            let explained = explain(token.trim())?;
            if *json {
                return print(&format!("{explained}\n"));
            }
            print(&lines(&explained))
        }
    }
}

fn key(arguments: &KeyArguments) -> Result<(), Failure> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret)
        .map_err(|error| Failure::Running(format!("the system has no random numbers to give: {error}")))?;
    let secret = URL_SAFE_NO_PAD.encode(secret);
    let mut entry = Map::new();
    entry.insert("id".to_owned(), arguments.id.clone().into());
    entry.insert("sha256".to_owned(), hash(&secret).into());
    entry.insert("scopes".to_owned(), arguments.scopes.clone().into());
    if let Some(seconds) = arguments.expires_in {
        let expires = now().saturating_add(seconds).saturating_mul(1_000);
        entry.insert("expires_at_ms".to_owned(), expires.into());
    }
    if let Some(rate) = arguments.rate {
        entry.insert("rate_per_second".to_owned(), rate.into());
    }
    // The emitter is to read what is printed here.
    emitter::server::check_keys(&json!({ "keys": [&entry] }).to_string()).map_err(Failure::Usage)?;
    let key = format!("{}.{secret}", arguments.id);
    if arguments.json {
        return print(&format!("{}\n", json!({ "key": key, "entry": entry })));
    }
    let entry = toml::to_string(&BTreeMap::from([("keys", [&entry])]))
        .map_err(|error| Failure::Running(format!("the entry cannot be written: {error}")))?;
    print(&format!(
        "# The key, for the caller; it is not shown again:\n{key}\n\n# For emitter.keys_file:\n{entry}"
    ))
}

fn jwt(arguments: &JwtArguments) -> Result<(), Failure> {
    let (algorithm, key) = signer(arguments)?;
    let mut claims = Map::new();
    claims.insert("aud".to_owned(), arguments.audience.clone().into());
    claims.insert("iat".to_owned(), now().into());
    claims.insert("exp".to_owned(), now().saturating_add(arguments.expires_in).into());
    for (name, value) in [("sub", &arguments.subject), ("iss", &arguments.issuer)] {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value.clone().into());
        }
    }
    if !arguments.scopes.is_empty() {
        claims.insert("scope".to_owned(), arguments.scopes.join(" ").into());
    }
    for claim in &arguments.claims {
        let (name, text) = claim
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("{claim:?} is no claim; write NAME=VALUE")))?;
        claims.insert(name.to_owned(), value(text));
    }
    let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, &key)
        .map_err(|error| Failure::Usage(format!("the token cannot be signed with this key: {error}")))?;
    print(&format!("{token}\n"))
}

fn signer(arguments: &JwtArguments) -> Result<(Algorithm, EncodingKey), Failure> {
    if let Some(path) = &arguments.private_key_file {
        let pem = file(path)?;
        let ed = EncodingKey::from_ed_pem(&pem).map(|key| (Algorithm::EdDSA, key));
        return ed.or_else(|_| EncodingKey::from_rsa_pem(&pem).map(|key| (Algorithm::RS256, key))).map_err(
            |_| Failure::Usage(format!("{} must hold an Ed25519 or RSA private key in PEM", path.display())),
        );
    }
    let path = arguments.secret_file.clone().unwrap_or_default();
    let secrets = file(&path)?;
    let secret = secrets.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).find(|line| !line.is_empty());
    match secret {
        Some(secret) if secret.len() >= 32 => Ok((Algorithm::HS256, EncodingKey::from_secret(secret))),
        _ => Err(Failure::Usage(format!("{} must hold a secret of at least 32 bytes", path.display()))),
    }
}

/// What can be read off a key or a token by anybody who has it.
fn explain(token: &str) -> Result<Value, Failure> {
    let parts: Vec<&str> = token.split('.').collect();
    match *parts {
        [id, secret] if !id.is_empty() && !secret.is_empty() => {
            Ok(json!({ "kind": "API key", "id": id, "sha256": hash(secret) }))
        }
        [header, claims, _signature] => {
            let part = |name: &str, text: &str| -> Result<Value, Failure> {
                let bytes = URL_SAFE_NO_PAD.decode(text).ok();
                bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(|| {
                    Failure::Usage(format!("the {name} of this token is no JSON in base64url"))
                })
            };
            let (header, claims) = (part("header", header)?, part("payload", claims)?);
            let expires = claims.get("exp").and_then(Value::as_u64);
            let state = match expires {
                None => "it never expires, so the emitter refuses it".to_owned(),
                Some(at) if at <= now() => format!("it expired {} seconds ago", now() - at),
                Some(at) => format!("it expires in {} seconds", at - now()),
            };
            Ok(json!({ "kind": "JWT", "header": header, "claims": claims, "state": state }))
        }
        _ => Err(Failure::Usage("this is neither an API key (ID.SECRET) nor a JWT (three parts)".to_owned())),
    }
}

fn lines(explained: &Value) -> String {
    let mut lines = String::new();
    for (name, value) in explained.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        lines.push_str(&format!("{name:<8}{value}\n"));
    }
    lines
}

fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin()
        .take(TEXT_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Failure::Usage(format!("cannot read stdin: {error}")))?;
    Ok(text)
}

fn file(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        Failure::Usage(format!("cannot read {}: {error}; give a readable file", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_keys_file() {
        assert_eq!(hash("test"), "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
    }

    #[test]
    fn keys_and_tokens_are_told_apart() {
        let key = explain("a.test").unwrap();
        assert_eq!((&key["kind"], &key["sha256"]), (&json!("API key"), &json!(hash("test"))));
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.x";
        let token = explain(token).unwrap();
        assert_eq!((&token["kind"], &token["claims"]["exp"]), (&json!("JWT"), &json!(1)));
        assert!(token["state"].as_str().unwrap().starts_with("it expired "));
        for text in ["", "a", "a.", ".b", "a.b.c", "a.b.c.d"] {
            assert!(explain(text).is_err(), "{text}");
        }
    }
}
