//! What a URL of Redis says: where it is, who we are there, and whether it is found through Sentinel.

use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// Where Redis listens unless it is told otherwise, and where Sentinel does.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;

/// How to connect.
#[derive(Debug, Clone)]
pub struct Target {
    /// Redis, or the Sentinels that know where it is.
    pub hosts: Vec<Address>,
    /// The name under which Sentinel knows the primary.
    pub service: Option<String>,
    /// What is said to Redis.
    pub login: Option<Login>,
    /// What is said to Sentinel.
    pub sentinel_login: Option<Login>,
    /// The database of the claim; channels know of none.
    pub database: u32,
    /// Whether the connections are encrypted.
    pub is_encrypted: bool,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name; `default` where the URL has none.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The URL of Redis cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("broker.redis.url cannot be used: {0}")]
pub struct UrlError(&'static str);

impl Target {
    /// Reads a URL: plain, with TLS, or through Sentinel.
    ///
    /// # Errors
    /// [`UrlError`], which does not repeat the URL: it may hold a password.
    pub fn new(text: &str, timeout: Duration) -> Result<Self, UrlError> {
        let url = Url::parse(text).map_err(|_| UrlError("it is no URL"))?;
        let (is_encrypted, through_sentinel) = match url.scheme() {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis-sentinel" => (false, true),
            "rediss-sentinel" => (true, true),
            _ => {
                let schemes =
                    "it begins with none of redis://, rediss://, redis-sentinel://, rediss-sentinel://";
                return Err(UrlError(schemes));
            }
        };
        let port = url.port().unwrap_or(if through_sentinel { SENTINEL_PORT } else { PORT });
        let host =
            url.host().map(plain).filter(|host| !host.is_empty()).ok_or(UrlError("it names no host"))?;
        let mut target = Self {
            hosts: vec![Address { host, port }],
            service: None,
            login: login(Some(url.username()), url.password())?,
            sentinel_login: None,
            database: database(url.path())?,
            is_encrypted,
            timeout,
        };
        if through_sentinel {
            target.read_sentinels(&url)?;
        }
        Ok(target)
    }

    fn read_sentinels(&mut self, url: &Url) -> Result<(), UrlError> {
        let (mut user, mut password) = (None, None);
        for (name, value) in url.query_pairs() {
            match &*name {
                "sentinelServiceName" => self.service = Some(value.into_owned()),
                "sentinelUsername" => user = Some(value.into_owned()),
                "sentinelPassword" => password = Some(value.into_owned()),
                "node" => {
                    let node = Url::parse(&format!("redis://{value}")).ok();
                    let host = node.as_ref().and_then(Url::host).map(plain).filter(|host| !host.is_empty());
                    let host = host.ok_or(UrlError("node= is not host:port"))?;
                    let port = node.as_ref().and_then(Url::port).unwrap_or(SENTINEL_PORT);
                    self.hosts.push(Address { host, port });
                }
                _ => {}
            }
        }
        if self.service.is_none() {
            return Err(UrlError("Sentinel needs the name of the primary: sentinelServiceName=name"));
        }
        self.sentinel_login = password.map(|password| Login { user: named(user), password });
        Ok(())
    }

    /// Where the broker is looked for.
    #[must_use]
    pub fn hosts(&self) -> Vec<(String, u16)> {
        self.hosts.iter().map(|address| (address.host.clone(), address.port)).collect()
    }
}

fn plain(host: Host<&str>) -> String {
    match host {
        Host::Domain(name) => decoded(name).unwrap_or_default(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    }
}

fn login(user: Option<&str>, password: Option<&str>) -> Result<Option<Login>, UrlError> {
    let Some(password) = password.filter(|password| !password.is_empty()) else { return Ok(None) };
    let undecodable = UrlError("the user or the password is not UTF-8");
    let user = user.map(|user| decoded(user).ok_or(undecodable.clone())).transpose()?;
    Ok(Some(Login { user: named(user), password: decoded(password).ok_or(undecodable)? }))
}

fn named(user: Option<String>) -> String {
    user.filter(|user| !user.is_empty()).unwrap_or_else(|| "default".to_owned())
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

fn database(path: &str) -> Result<u32, UrlError> {
    match path.trim_matches('/') {
        "" => Ok(0),
        number => number.parse().map_err(|_| UrlError("the database behind the / is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, UrlError> {
        Target::new(url, Duration::from_secs(1))
    }

    #[test]
    fn urls_are_read_and_passwords_not_repeated() {
        let check = |url: &str, fits: bool| {
            let target = target(url);
            assert_eq!(target.is_ok(), fits, "{url}");
            let shown = target.map_or_else(|error| error.to_string(), |target| format!("{target:?}"));
            assert!(!shown.contains("secret"), "{shown}");
        };
        check("redis://127.0.0.1:6379", true);
        check("rediss://user:secret@host:6380/1", true);
        check("redis-sentinel://h:26379/?sentinelServiceName=main&node=h2:26379", true);
        check("redis-sentinel://h/?sentinelServiceName=main&sentinelPassword=secret", true);
        check("redis-sentinel://h:26379/", false);
        check("redis-sentinel://h/?sentinelServiceName=main&node=:1", false);
        check("redis-cluster://h:6379", false);
        check("http://user:secret@h", false);
        check("redis://user:secret@host/first", false);
        check("redis://user:secret@host:port", false);
        check("redis://:secret@", false);
        check("", false);
    }

    #[test]
    fn every_part_of_a_url_is_read() {
        let address = |host: &str, port| Address { host: host.to_owned(), port };
        let login =
            |user: &str, password: &str| Some(Login { user: user.to_owned(), password: password.to_owned() });
        let plain = target("redis://h").unwrap();
        assert_eq!((plain.hosts, plain.login, plain.database), (vec![address("h", 6379)], None, 0));
        let full = target("rediss://a:p%40ss%2F@[::1]:7000/12").unwrap();
        assert_eq!(full.hosts[0].to_string(), "[::1]:7000");
        assert_eq!((full.hosts, full.login), (vec![address("::1", 7000)], login("a", "p@ss/")));
        assert_eq!((full.database, full.is_encrypted, full.service), (12, true, None));
        assert_eq!(target("redis://:p@h").unwrap().login, login("default", "p"));
        let sentinel =
            "redis-sentinel://:p@a/2?sentinelServiceName=main&node=b:1&node=[::2]&sentinelPassword=q";
        let sentinel = target(sentinel).unwrap();
        assert_eq!(sentinel.hosts, [address("a", 26_379), address("b", 1), address("::2", 26_379)]);
        assert_eq!((sentinel.login, sentinel.sentinel_login), (login("default", "p"), login("default", "q")));
        assert_eq!((sentinel.database, sentinel.service.as_deref()), (2, Some("main")));
    }
}
