//! Who may come in: pages of other origins, and whose word on addresses is believed.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

use crate::config::EdgeConfig;

/// Refused origins that are remembered, so that each is logged once.
const LOGGED_MAX: usize = 256;
/// The longest origin that is logged or compared.
const ORIGIN_BYTES_MAX: usize = 512;

/// Which pages of other origins may connect.
#[derive(Debug)]
pub struct Origins {
    listed: HashSet<String>,
    any: bool,
    this_machine: bool,
    logged: Mutex<HashSet<String>>,
}

/// What was found of a request's `Origin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// There is none, or it is the edge's own: nothing to tell the browser.
    Own,
    /// It may connect, with credentials.
    Listed(&'a str),
    /// Every origin may connect, without credentials.
    Any,
    /// It may not connect.
    Refused,
    /// It is not an origin at all.
    Invalid,
}

impl Origins {
    /// The rules of `edge.cors`; with `this_machine`, pages of any port of this machine may connect (the demo).
    pub fn new(config: &EdgeConfig, this_machine: bool) -> Origins {
        let listed: HashSet<String> =
            config.cors.origins.iter().map(|origin| origin.to_lowercase()).collect();
        let any = listed.contains("*");
        Origins { listed, any, this_machine, logged: Mutex::default() }
    }

    /// Judges a request. `trusted` is whether it comes from a trusted proxy, which may name the original host.
    pub fn judge<'a>(&self, headers: &'a HeaderMap, trusted: bool) -> Origin<'a> {
        let Some(value) = headers.get(ORIGIN) else { return Origin::Own };
        let Some(origin) = value.to_str().ok().filter(|origin| origin.len() <= ORIGIN_BYTES_MAX) else {
            return Origin::Invalid;
        };
        let forwarded = if trusted { headers.get("x-forwarded-host") } else { None };
        let host = forwarded.or_else(|| headers.get(HOST)).and_then(|host| host.to_str().ok());
        if host.is_some_and(|host| is_same_host(origin, host)) {
            return Origin::Own;
        }
        if self.listed.contains(&origin.to_lowercase()) || self.this_machine && is_this_machine(origin) {
            return Origin::Listed(origin);
        }
        if self.any {
            return Origin::Any;
        }
        self.log_refusal(origin);
        Origin::Refused
    }

    fn log_refusal(&self, origin: &str) {
        let Ok(mut logged) = self.logged.lock() else { return };
        if logged.len() < LOGGED_MAX && logged.insert(origin.to_owned()) {
            tracing::warn!(
                "refused a page of origin {origin:?}; to admit it, add it to the configuration: \
                 edge.cors.origins = [{origin:?}]"
            );
        }
    }
}

/// Splits `http://host:port` into host and port; the port of the scheme if none is named.
fn host_and_port(origin: &str) -> Option<(&str, u16)> {
    let (scheme, authority) = origin.split_once("://")?;
    let default = match scheme {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        _ => return None,
    };
    split_port(authority, default)
}

fn split_port(authority: &str, default: u16) -> Option<(&str, u16)> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => Some((host, port.parse().ok()?)),
        _ => Some((authority, default)),
    }
}

fn is_same_host(origin: &str, host: &str) -> bool {
    let Some((origin_host, origin_port)) = host_and_port(origin) else { return false };
    // A Host without a port leaves it to the scheme, which only the origin knows here.
    let default = if origin.starts_with("https") || origin.starts_with("wss") { 443 } else { 80 };
    split_port(host.trim(), default)
        .is_some_and(|(host, port)| host.eq_ignore_ascii_case(origin_host) && port == origin_port)
}

fn is_this_machine(origin: &str) -> bool {
    host_and_port(origin).is_some_and(|(host, _)| {
        let host = host.to_ascii_lowercase();
        host == "localhost" || host.ends_with(".localhost") || host == "127.0.0.1" || host == "[::1]"
    })
}

/// The client's address, and whether the request came through a trusted proxy. Of the addresses that proxies
/// added, the last one that is not a trusted proxy itself is the client's. What stands before something that is
/// no address is not believed: nobody knows who wrote it.
pub fn client_address(config: &EdgeConfig, peer: IpAddr, headers: &HeaderMap) -> (IpAddr, bool) {
    let peer = peer.to_canonical();
    if config.trusted_proxies.is_empty() || !config.is_trusted_proxy(peer) {
        return (peer, false);
    }
    let hops = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = hops.flat_map(|value| value.split(',')).collect();
    let mut client = peer;
    for hop in hops.into_iter().rev().map_while(hop_address) {
        client = hop;
        if !config.is_trusted_proxy(hop) {
            break;
        }
    }
    (client, true)
}

/// Reads an address as proxies write it: alone, or with a port, or in brackets.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let address = hop.parse::<IpAddr>().ok().or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip()));
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.or_else(bracketed).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn config(origins: &[&str], proxies: &[&str]) -> EdgeConfig {
        let mut config = EdgeConfig::default();
        config.cors.origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        config.trusted_proxies = proxies.iter().map(|proxy| proxy.parse().unwrap()).collect();
        config
    }

    fn check(origins: &[&str], demo: bool, origin: &str, host: &str, expected: Origin<'_>) {
        let rules = Origins::new(&config(origins, &[]), demo);
        let headers = headers(&[("origin", origin), ("host", host)]);
        assert_eq!(rules.judge(&headers, false), expected, "{origin} at {host}");
    }

    #[test]
    fn origins_as_a_table() {
        check(&[], false, "http://a.example", "a.example", Origin::Own);
        check(&[], false, "https://a.example", "a.example", Origin::Own);
        check(&[], false, "https://a.example", "A.example:443", Origin::Own);
        check(&[], false, "http://a.example:3000", "a.example:3000", Origin::Own);
        check(&[], false, "http://a.example:3000", "a.example", Origin::Refused);
        check(&[], false, "http://[::1]:3000", "[::1]:3000", Origin::Own);
        check(&[], false, "http://b.example", "a.example", Origin::Refused);
        check(&[], false, "null", "a.example", Origin::Refused);
        check(
            &["http://b.example"],
            false,
            "http://B.example",
            "a.example",
            Origin::Listed("http://B.example"),
        );
        check(&["*"], false, "http://b.example", "a.example", Origin::Any);
        check(&[], true, "http://localhost:8080", "a.example", Origin::Listed("http://localhost:8080"));
        check(&[], true, "http://localhost.evil.example", "a.example", Origin::Refused);
        check(&[], true, "http://evil.example/localhost", "a.example", Origin::Refused);
    }

    #[test]
    fn only_a_trusted_proxy_may_name_the_host_and_the_client() {
        let config = config(&[], &["10.0.0.0/8"]);
        let rules = Origins::new(&config, false);
        let headers = headers(&[
            ("origin", "https://a.example"),
            ("host", "10.1.1.1:3000"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-for", "6.6.6.6, 9.9.9.9, 10.2.2.2"),
        ]);
        assert_eq!(rules.judge(&headers, true), Origin::Own);
        assert_eq!(rules.judge(&headers, false), Origin::Refused);
        let proxy = "10.0.0.1".parse().unwrap();
        let stranger = "8.8.8.8".parse().unwrap();
        assert_eq!(client_address(&config, proxy, &headers), ("9.9.9.9".parse().unwrap(), true));
        assert_eq!(client_address(&config, stranger, &headers), (stranger, false));
    }

    #[test]
    fn forwarded_addresses_as_a_table() {
        let config = config(&[], &["10.0.0.0/8"]);
        let check = |forwarded: &str, expected: &str| {
            let headers = headers(&[("x-forwarded-for", forwarded)]);
            let (client, _) = client_address(&config, "10.0.0.1".parse().unwrap(), &headers);
            assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{forwarded}");
        };
        check("1.2.3.4", "1.2.3.4");
        check("6.6.6.6, 1.2.3.4:5678", "1.2.3.4");
        check("6.6.6.6, [2001:db8::1]:5678", "2001:db8::1");
        check("6.6.6.6, [2001:db8::1]", "2001:db8::1");
        check("6.6.6.6, unknown, 10.2.2.2", "10.2.2.2");
        check("6.6.6.6, unknown", "10.0.0.1");
        check("10.3.3.3, 10.2.2.2", "10.3.3.3");
    }
}
