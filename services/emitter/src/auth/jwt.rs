//! JSON Web Tokens in place of API keys: HS256 with shared secrets, EdDSA and RS256 with a public key.
//!
//! The algorithm follows from the configured key, never from the token.

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use crate::auth::scope::Scope;
use crate::config::JwtConfig;

/// Shortest secret that is worth the name.
const SECRET_BYTES_MIN: usize = 32;

/// Longest subject that is told apart.
const SUBJECT_BYTES_MAX: usize = 256;

/// Judges tokens.
pub(crate) struct Tokens {
    verifiers: Vec<(DecodingKey, Validation)>,
    scopes_claim: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("verifiers", &self.verifiers.len()).finish_non_exhaustive()
    }
}

/// What a valid token says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    /// Tells callers apart: `jwt:<subject>`.
    pub(crate) caller: Arc<str>,
    pub(crate) scopes: Arc<[Scope]>,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// It was good once.
    Expired,
    /// Anything else; what exactly is nobody's business.
    Invalid,
}

impl Tokens {
    /// Reads the contents of the files that `config` names; `None` where it names none.
    ///
    /// # Errors
    /// What is wrong with them, as one line without a secret.
    pub(crate) fn parse(
        config: &JwtConfig,
        secrets: Option<&[u8]>,
        public_key: Option<&[u8]>,
    ) -> Result<Self, String> {
        let mut verifiers = Vec::new();
        for secret in secrets.unwrap_or_default().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if secret.is_empty() {
                continue;
            }
            if secret.len() < SECRET_BYTES_MIN {
                return Err(format!("each secret must have at least {SECRET_BYTES_MIN} bytes, one a line"));
            }
            verifiers.push((DecodingKey::from_secret(secret), validation(config, Algorithm::HS256)));
        }
        if secrets.is_some() && verifiers.is_empty() {
            return Err("the file of secrets is empty; write one secret a line".to_owned());
        }
        if let Some(pem) = public_key {
            let (key, algorithm) = match DecodingKey::from_ed_pem(pem) {
                Ok(key) => (key, Algorithm::EdDSA),
                Err(_) => match DecodingKey::from_rsa_pem(pem) {
                    Ok(key) => (key, Algorithm::RS256),
                    Err(_) => return Err("the public key must be Ed25519 or RSA, in PEM".to_owned()),
                },
            };
            verifiers.push((key, validation(config, algorithm)));
        }
        Ok(Self { verifiers, scopes_claim: config.scopes_claim.clone() })
    }

    /// Judges a token.
    pub(crate) fn judge(&self, token: &str) -> Result<Claims, TokenError> {
        let mut reason = TokenError::Invalid;
        for (key, validation) in &self.verifiers {
            match jsonwebtoken::decode::<Map<String, Value>>(token, key, validation) {
                Ok(data) => return self.claims(&data.claims),
                // Whoever made an expired token knew the key, and may be told.
                Err(error) if *error.kind() == ErrorKind::ExpiredSignature => reason = TokenError::Expired,
                Err(_) => {}
            }
        }
        Err(reason)
    }

    fn claims(&self, claims: &Map<String, Value>) -> Result<Claims, TokenError> {
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if subject.len() > SUBJECT_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let scopes = match claims.get(&self.scopes_claim) {
            None => Vec::new(),
            Some(Value::String(text)) => text.split_ascii_whitespace().map(Scope::parse).collect(),
            Some(Value::Array(list)) => {
                list.iter().map(|item| Scope::parse(item.as_str().unwrap_or_default())).collect()
            }
            Some(_) => return Err(TokenError::Invalid),
        };
        // An issuer may give scopes that mean something elsewhere: they open nothing here.
        let scopes: Vec<Scope> = scopes.into_iter().flatten().collect();
        Ok(Claims { caller: format!("jwt:{subject}").into(), scopes: scopes.into() })
    }
}

fn validation(config: &JwtConfig, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = config.leeway_ms.div_ceil(1_000);
    validation.validate_nbf = true;
    validation.set_audience(&[&config.audience]);
    validation.set_required_spec_claims(&["exp", "aud"]);
    if !config.issuer.is_empty() {
        validation.set_issuer(&[&config.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
    }
    validation
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;
    use crate::auth::scope::Action;

    const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
    const OTHER: &[u8] = b"another secret, also of at least 32 bytes";

    /// A pair made with `openssl genpkey` for these tests alone, without the lines around it.
    const PAIR: [&str; 2] = [
        "MC4CAQAwBQYDK2VwBCIEIP6Qz3P1y0h2nn6U+gWHZRs59i0oRmn47SFNopqUUTb3",
        "MCowBQYDK2VwAyEAF91Tfhyc4lb6ETxeSjoi52zpbXGdyUKwkoz7dkQTlHs=",
    ];

    fn pem(kind: &str, base64: &str) -> Vec<u8> {
        format!("-----BEGIN {kind} KEY-----\n{base64}\n-----END {kind} KEY-----\n").into_bytes()
    }

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, key).unwrap()
    }

    fn hs256(secret: &[u8], claims: &Value) -> String {
        sign(Algorithm::HS256, &EncodingKey::from_secret(secret), claims)
    }

    fn tokens(issuer: &str) -> Tokens {
        let config = JwtConfig { issuer: issuer.to_owned(), ..JwtConfig::default() };
        let secrets = [SECRET, b"\n", OTHER, b"\n"].concat();
        Tokens::parse(&config, Some(&secrets), None).unwrap()
    }

    #[test]
    fn a_token_of_any_secret_is_good() {
        let claims =
            json!({"exp": now() + 60, "aud": "jackfield-emitter", "sub": "s", "scope": "emit:/a other"});
        for secret in [SECRET, OTHER] {
            let claims = tokens("").judge(&hs256(secret, &claims)).unwrap();
            assert_eq!((&*claims.caller, claims.scopes.len()), ("jwt:s", 1));
            assert!(claims.scopes[0].covers(Action::Emit, "/a"));
        }
        let listed = json!({"exp": now() + 60, "aud": ["x", "jackfield-emitter"], "scope": ["emit", 1]});
        assert_eq!(tokens("").judge(&hs256(SECRET, &listed)).unwrap().scopes.len(), 1);
    }

    #[test]
    fn a_bad_token_is_refused() {
        let check = |issuer: &str, secret: &[u8], claims: Value, expected| {
            let outcome = tokens(issuer).judge(&hs256(secret, &claims));
            assert_eq!(outcome.unwrap_err(), expected, "{claims}");
        };
        let (aud, later) = ("jackfield-emitter", now() + 60);
        check("", SECRET, json!({"exp": now() - 60, "aud": aud}), TokenError::Expired);
        check("", SECRET, json!({"aud": aud}), TokenError::Invalid);
        check("", SECRET, json!({"exp": later}), TokenError::Invalid);
        check("", SECRET, json!({"exp": later, "aud": "clients"}), TokenError::Invalid);
        check("", SECRET, json!({"exp": later, "aud": aud, "nbf": now() + 300}), TokenError::Invalid);
        check("", SECRET, json!({"exp": later, "aud": aud, "scope": 7}), TokenError::Invalid);
        check("me", SECRET, json!({"exp": later, "aud": aud}), TokenError::Invalid);
        check("me", SECRET, json!({"exp": later, "aud": aud, "iss": "you"}), TokenError::Invalid);
        check(
            "",
            b"a third secret that nobody here knows",
            json!({"exp": later, "aud": aud}),
            TokenError::Invalid,
        );
        for token in ["", "a.b.c", "eyJhbGciOiJub25lIn0.eyJhdWQiOiJ4In0."] {
            assert_eq!(tokens("").judge(token), Err(TokenError::Invalid), "{token}");
        }
    }

    #[test]
    fn the_key_and_not_the_token_says_which_algorithm() {
        let [private, public] = PAIR;
        let public = pem("PUBLIC", public);
        let tokens = Tokens::parse(&JwtConfig::default(), None, Some(&public)).unwrap();
        let claims = json!({"exp": now() + 60, "aud": "jackfield-emitter", "sub": "s"});
        let key = EncodingKey::from_ed_pem(&pem("PRIVATE", private)).unwrap();
        assert_eq!(&*tokens.judge(&sign(Algorithm::EdDSA, &key, &claims)).unwrap().caller, "jwt:s");
        assert_eq!(tokens.judge(&hs256(&public, &claims)), Err(TokenError::Invalid));
    }

    #[test]
    fn bad_files_are_named_without_their_contents() {
        let parse =
            |secrets: Option<&[u8]>, key: Option<&[u8]>| Tokens::parse(&JwtConfig::default(), secrets, key);
        let short = parse(Some(b"short secret\n"), None).unwrap_err();
        assert!(short.contains("32 bytes") && !short.contains("short secret"));
        assert!(parse(Some(b"\n"), None).is_err());
        assert!(parse(None, Some(b"no key")).is_err());
    }
}
