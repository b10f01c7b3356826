//! The path of a namespace.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The path of a namespace: starts with `/`, has no comma. Cloning it only counts a reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacePath(Arc<str>);

/// Why a text is no namespace path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NamespacePathError {
    /// It does not start with `/`.
    #[error("a namespace starts with \"/\"")]
    NoSlash,
    /// It has a comma, which ends a namespace on the wire.
    #[error("a namespace has no comma")]
    Comma,
}

impl NamespacePath {
    /// Parses a path. Its length is not judged here: packets are held to `limits.name_bytes_max`.
    ///
    /// # Errors
    /// [`NamespacePathError`] if the text could not travel as a namespace.
    pub fn parse(path: &str) -> Result<Self, NamespacePathError> {
        check(path)?;
        Ok(Self(path.into()))
    }

    /// The namespace that every server has: `/`.
    #[must_use]
    pub fn root() -> Self {
        Self("/".into())
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether this is `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.as_str() == "/"
    }
}

/// Checks what [`NamespacePath::parse`] promises.
pub(crate) fn check(path: &str) -> Result<(), NamespacePathError> {
    if !path.starts_with('/') {
        return Err(NamespacePathError::NoSlash);
    }
    if path.contains(',') {
        return Err(NamespacePathError::Comma);
    }
    Ok(())
}

impl Borrow<str> for NamespacePath {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for NamespacePath {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for NamespacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_starts_with_a_slash_and_has_no_comma() {
        assert_eq!(NamespacePath::parse("/"), Ok(NamespacePath::root()));
        assert_eq!(NamespacePath::parse("/a-b").map(|path| path.to_string()), Ok("/a-b".to_owned()));
        assert_eq!(NamespacePath::parse(""), Err(NamespacePathError::NoSlash));
        assert_eq!(NamespacePath::parse("chat"), Err(NamespacePathError::NoSlash));
        assert_eq!(NamespacePath::parse("/a,b"), Err(NamespacePathError::Comma));
    }

    #[test]
    fn a_map_keyed_by_path_is_searched_by_text() {
        let map = std::collections::HashMap::from([(NamespacePath::root(), 1)]);
        assert_eq!(map.get("/"), Some(&1));
        assert_eq!(map.get("/x"), None);
    }
}
