//! What a key may do, and in which namespaces.
//!
//! A scope is an action, or an action and a namespace: `emit`, `emit:/chat`, `emit:/org-*`, `sockets:read`,
//! `sockets:read:/chat`. `*` is everything. A pattern may end in `*`, and only there.

use serde::Deserialize;

/// Something that a scope allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Emitting, with and without acks.
    Emit,
    /// Emitting to the application code of Node servers.
    ServerEmit,
    /// Listing sockets, rooms and users.
    SocketsRead,
    /// Joining, leaving, disconnecting, updating.
    SocketsWrite,
}

impl Action {
    const ALL: [Self; 4] = [Self::Emit, Self::ServerEmit, Self::SocketsRead, Self::SocketsWrite];

    /// Its name in a scope.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Emit => "emit",
            Self::ServerEmit => "server-emit",
            Self::SocketsRead => "sockets:read",
            Self::SocketsWrite => "sockets:write",
        }
    }
}

/// One scope of a key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Scope {
    /// What is allowed; `None` is everything.
    action: Option<Action>,
    namespaces: Pattern,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exactly(String),
    StartingWith(String),
}

/// Why a text is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no scope; write emit, server-emit, sockets:read or sockets:write, alone or with a namespace as in emit:/chat or emit:/org-*, or * for everything"
)]
pub(crate) struct ScopeError(String);

impl Scope {
    /// Allows everything.
    pub(crate) fn everything() -> Self {
        Self { action: None, namespaces: Pattern::StartingWith(String::new()) }
    }

    /// Parses a scope.
    pub(crate) fn parse(text: &str) -> Result<Self, ScopeError> {
        let refused = || ScopeError(text.to_owned());
        if text == "*" {
            return Ok(Self::everything());
        }
        for action in Action::ALL {
            let Some(rest) = text.strip_prefix(action.as_str()) else { continue };
            let pattern = match rest.strip_prefix(':') {
                Some(pattern) => pattern,
                None if rest.is_empty() => "*",
                None => continue,
            };
            let namespaces = Pattern::parse(pattern).ok_or_else(refused)?;
            return Ok(Self { action: Some(action), namespaces });
        }
        Err(refused())
    }

    /// Whether it allows an action in a namespace.
    pub(crate) fn covers(&self, action: Action, namespace: &str) -> bool {
        self.action.is_none_or(|allowed| allowed == action) && self.namespaces.matches(namespace)
    }
}

impl TryFrom<String> for Scope {
    type Error = ScopeError;

    fn try_from(text: String) -> Result<Self, ScopeError> {
        Self::parse(&text)
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let (start, is_open) = match text.strip_suffix('*') {
            Some(start) => (start, true),
            None => (text, false),
        };
        let is_namespace = start.starts_with('/') || start.is_empty() && is_open;
        if !is_namespace || start.contains(['*', ',']) {
            return None;
        }
        Some(if is_open { Self::StartingWith(start.to_owned()) } else { Self::Exactly(start.to_owned()) })
    }

    fn matches(&self, namespace: &str) -> bool {
        match self {
            Self::Exactly(path) => path == namespace,
            Self::StartingWith(start) => namespace.starts_with(start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scope: &str, action: Action, namespace: &str, covers: bool) {
        assert_eq!(Scope::parse(scope).unwrap().covers(action, namespace), covers, "{scope} {namespace}");
    }

    #[test]
    fn a_scope_covers_its_action_in_its_namespaces() {
        check("emit:/chat", Action::Emit, "/chat", true);
        check("emit:/chat", Action::Emit, "/chat/x", false);
        check("emit:/chat", Action::Emit, "/", false);
        check("emit:/chat", Action::ServerEmit, "/chat", false);
        check("emit:/org-*", Action::Emit, "/org-7", true);
        check("emit:/org-*", Action::Emit, "/org", false);
        check("emit", Action::Emit, "/any", true);
        check("emit:*", Action::Emit, "/any", true);
        check("sockets:read", Action::SocketsRead, "/any", true);
        check("sockets:read", Action::SocketsWrite, "/any", false);
        check("sockets:write:/chat", Action::SocketsWrite, "/chat", true);
        check("sockets:write:/chat", Action::SocketsWrite, "/", false);
        check("*", Action::ServerEmit, "/any", true);
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for text in [
            "",
            "emi",
            "emitter",
            "emit:",
            "emit:chat",
            "emit:/a*b",
            "sockets",
            "sockets:",
            "emit:**",
            "emit:/a,b",
        ] {
            assert_eq!(Scope::parse(text), Err(ScopeError(text.to_owned())), "{text}");
        }
    }
}
