//! Log lines on stderr, as text for people or JSON for machines.

use std::fmt;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::EnvFilter;

use crate::config::schema::must;
use crate::{config_choice, config_section};

config_choice! {
    /// How a log line is written.
    pub enum LogFormat {
        /// For people; coloured on a terminal.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

config_section! {
    /// Log lines; they go to stderr.
    pub struct LogConfig {
        /// Lines for people, or one JSON object a line.
        pub format: LogFormat = LogFormat::Text,
        /// Least important level that is written; single parts may differ, as in `info,edge=debug`.
        pub level: String = "info".to_owned()
            => must("error, warn, info, debug, trace or off, also per part as in info,edge=debug", is_level),
        /// Whether addresses of clients may appear in log lines.
        pub client_address: bool = false,
    }
}

/// Whether [`client_address`] shows what it is given; set once at start, from configuration.
static CLIENT_ADDRESS_SHOWN: AtomicBool = AtomicBool::new(false);

/// Starts writing log lines as configured. Lines before the first call are lost, a second call changes nothing but
/// whether client addresses are shown.
pub fn start(config: &LogConfig) {
    CLIENT_ADDRESS_SHOWN.store(config.client_address, Ordering::Relaxed);
    let filter = EnvFilter::builder().parse_lossy(&config.level);
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    // An error here means that somebody, a test for instance, already collects log lines.
    let _already_started = match config.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
}

/// A client's address for a log line: itself where `log.client_address` permits it, else `-`.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(IpAddr);

/// Wraps a client's address for a log line. Every log line that has one uses this.
pub fn client_address(address: IpAddr) -> ClientAddress {
    ClientAddress(address)
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if CLIENT_ADDRESS_SHOWN.load(Ordering::Relaxed) { self.0.fmt(out) } else { out.write_str("-") }
    }
}

fn is_level(directives: &str) -> bool {
    let is_directive = |directive: &str| {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        matches!(level, "error" | "warn" | "info" | "debug" | "trace" | "off")
    };
    directives.split(',').all(is_directive) && EnvFilter::builder().parse(directives).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_names_also_per_part() {
        for accepted in ["info", "off", "info,edge=debug", "warn,edge::listener=trace,hyper=off"] {
            assert!(is_level(accepted), "{accepted}");
        }
        for refused in ["", "loud", "info,", "edge=", "info,edge=loud", "INFO level"] {
            assert!(!is_level(refused), "{refused}");
        }
    }

    #[test]
    fn client_addresses_are_hidden_until_permitted() {
        let address = client_address(IpAddr::from([192, 0, 2, 7]));
        assert_eq!(address.to_string(), "-");
        CLIENT_ADDRESS_SHOWN.store(true, Ordering::Relaxed);
        assert_eq!(address.to_string(), "192.0.2.7");
    }
}
