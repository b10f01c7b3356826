//! Which namespaces one session has joined, and what the answers to CONNECT carry in each protocol version.

use smallvec::SmallVec;

use crate::json;
use crate::namespace::NamespacePath;
use crate::packet::ProtocolVersion;

/// The CONNECT_ERROR data for a namespace that does not exist, the same in both versions.
pub const INVALID_NAMESPACE: &str = r#"{"message":"Invalid namespace"}"#;

/// Why a packet does not fit the state of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// CONNECT for a namespace that is joined or about to be. Node closes the session for it.
    #[error("namespace already connected")]
    AlreadyConnected,
    /// CONNECT for one namespace too many; to be answered with CONNECT_ERROR.
    #[error("too many namespaces, at most {max}")]
    TooManyNamespaces {
        /// The bound that was given.
        max: usize,
    },
    /// A packet for a namespace that is not joined. Node closes the session for it.
    #[error("namespace not connected")]
    NotConnected,
    /// A packet for a namespace whose CONNECT is not decided yet.
    #[error("namespace not connected yet")]
    Joining,
}

/// The namespaces of one session, each with a handle `T` of the caller's once it is joined.
///
/// ```text
///  (absent) --handle_connect--> Joining --accept--> Joined --remove--> (absent)
///                                  |
///                                  +--refuse, remove--> (absent)
/// ```
///
/// Sessions have one or two namespaces, so a short list is searched from its start; `namespaces_max` bounds it.
#[derive(Debug, Clone)]
pub struct Connection<T: Copy> {
    namespaces: SmallVec<[(NamespacePath, Membership<T>); 1]>,
}

#[derive(Debug, Clone, Copy)]
enum Membership<T> {
    Joining,
    Joined(T),
}

impl<T: Copy> Default for Connection<T> {
    fn default() -> Self {
        Self { namespaces: SmallVec::new() }
    }
}

impl<T: Copy> Connection<T> {
    /// Starts with no namespace joined.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Marks a namespace as joining. It counts towards `namespaces_max` from here on.
    ///
    /// # Errors
    /// [`ConnectionError::AlreadyConnected`] if it is joining or joined, [`ConnectionError::TooManyNamespaces`] if there is no room for it.
    pub fn handle_connect(
        &mut self,
        path: &NamespacePath,
        namespaces_max: usize,
    ) -> Result<(), ConnectionError> {
        if self.find(path.as_str()).is_some() {
            return Err(ConnectionError::AlreadyConnected);
        }
        if self.namespaces.len() >= namespaces_max {
            return Err(ConnectionError::TooManyNamespaces { max: namespaces_max });
        }
        self.namespaces.push((path.clone(), Membership::Joining));
        Ok(())
    }

    /// Turns a joining namespace into a joined one.
    ///
    /// # Errors
    /// [`ConnectionError::NotConnected`] if it is not joining any more, [`ConnectionError::AlreadyConnected`] if it is joined.
    pub fn accept(&mut self, path: &str, socket: T) -> Result<(), ConnectionError> {
        let entry = self.namespaces.iter_mut().find(|(joined, _)| joined.as_str() == path);
        match entry {
            None => Err(ConnectionError::NotConnected),
            Some((_, Membership::Joined(_))) => Err(ConnectionError::AlreadyConnected),
            Some((_, membership)) => {
                *membership = Membership::Joined(socket);
                Ok(())
            }
        }
    }

    /// Forgets a joining namespace.
    ///
    /// # Errors
    /// [`ConnectionError::NotConnected`] if it is not joining any more, [`ConnectionError::AlreadyConnected`] if it is joined.
    pub fn refuse(&mut self, path: &str) -> Result<(), ConnectionError> {
        match self.find(path) {
            None => Err(ConnectionError::NotConnected),
            Some(Membership::Joined(_)) => Err(ConnectionError::AlreadyConnected),
            Some(Membership::Joining) => {
                self.namespaces.retain(|(joined, _)| joined.as_str() != path);
                Ok(())
            }
        }
    }

    /// The handle of a joined namespace, for a packet other than CONNECT.
    ///
    /// # Errors
    /// [`ConnectionError::Joining`] or [`ConnectionError::NotConnected`].
    pub fn socket(&self, path: &str) -> Result<T, ConnectionError> {
        match self.find(path) {
            Some(Membership::Joined(socket)) => Ok(socket),
            Some(Membership::Joining) => Err(ConnectionError::Joining),
            None => Err(ConnectionError::NotConnected),
        }
    }

    /// Forgets a namespace, joined or joining, and gives its handle if it was joined.
    pub fn remove(&mut self, path: &str) -> Option<T> {
        let membership = self.find(path)?;
        self.namespaces.retain(|(joined, _)| joined.as_str() != path);
        self.namespaces.shrink_to_fit();
        match membership {
            Membership::Joined(socket) => Some(socket),
            Membership::Joining => None,
        }
    }

    /// The joined namespaces in the order in which they were asked for.
    pub fn iter(&self) -> impl Iterator<Item = (&NamespacePath, T)> {
        self.namespaces.iter().filter_map(|(path, membership)| match membership {
            Membership::Joined(socket) => Some((path, *socket)),
            Membership::Joining => None,
        })
    }

    /// How many namespaces are joined or joining.
    #[must_use]
    pub fn len(&self) -> usize {
        self.namespaces.len()
    }

    /// Tells whether no namespace is joined or joining.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    fn find(&self, path: &str) -> Option<Membership<T>> {
        self.namespaces.iter().find(|(joined, _)| joined.as_str() == path).map(|(_, membership)| *membership)
    }
}

/// The data of the CONNECT that confirms a join: `{"sid":"..."}` in protocol 5, nothing in protocol 4,
/// whose clients compute the id themselves.
#[must_use]
pub fn connect_data(version: ProtocolVersion, socket_id: &str) -> String {
    let mut data = String::new();
    if version == ProtocolVersion::V5 {
        data.push_str("{\"sid\":");
        json::quote(socket_id, &mut data);
        data.push('}');
    }
    data
}

/// The data of the CONNECT_ERROR that refuses a join.
///
/// `reason` is JSON text that explains more. Protocol 5 sends both: `{"message":"nope","data":{"a":1}}`.
/// Protocol 4 sends the reason alone, or else the message as a JSON string.
#[must_use]
pub fn refusal_data(version: ProtocolVersion, message: &str, reason: Option<&str>) -> String {
    let mut data = String::new();
    match (version, reason) {
        (ProtocolVersion::V4, Some(reason)) => data.push_str(reason),
        (ProtocolVersion::V4, None) => json::quote(message, &mut data),
        (ProtocolVersion::V5, _) => {
            data.push_str("{\"message\":");
            json::quote(message, &mut data);
            if let Some(reason) = reason {
                data.push_str(",\"data\":");
                data.push_str(reason);
            }
            data.push('}');
        }
    }
    data
}

/// Turns the query of a protocol 4 CONNECT into the JSON object that stands for its auth:
/// `token=abc&x=1` becomes `{"token":"abc","x":"1"}`.
///
/// Values are strings. Percent signs and `+` are decoded as in a form; what is not UTF-8 appears as U+FFFD.
/// A key that comes twice is written twice, so that a JSON reader keeps the last, as for the query of the URL.
#[must_use]
pub fn auth_from_query(query: &str) -> String {
    let mut auth = String::from("{");
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if auth.len() > 1 {
            auth.push(',');
        }
        json::quote(&form_decode(key), &mut auth);
        auth.push(':');
        json::quote(&form_decode(value), &mut auth);
    }
    auth.push('}');
    auth
}

fn form_decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, percent_digits(after)) {
            (b'+', _) => decoded.push(b' '),
            (b'%', Some((value, after))) => {
                decoded.push(value);
                rest = after;
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn percent_digits(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], after) = bytes.split_first_chunk::<2>()?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(high)? << 4 | digit(low)?, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> NamespacePath {
        NamespacePath::parse(text).unwrap()
    }

    #[test]
    fn a_namespace_is_joined_once() {
        let mut connection = Connection::<u32>::new();
        assert_eq!(connection.socket("/"), Err(ConnectionError::NotConnected));
        connection.handle_connect(&path("/"), 2).unwrap();
        assert_eq!(connection.socket("/"), Err(ConnectionError::Joining));
        assert_eq!(connection.handle_connect(&path("/"), 2), Err(ConnectionError::AlreadyConnected));
        connection.accept("/", 7).unwrap();
        assert_eq!(connection.socket("/"), Ok(7));
        assert_eq!(connection.handle_connect(&path("/"), 2), Err(ConnectionError::AlreadyConnected));
        assert_eq!(connection.accept("/", 8), Err(ConnectionError::AlreadyConnected));
        assert_eq!(connection.refuse("/"), Err(ConnectionError::AlreadyConnected));
    }

    #[test]
    fn joining_namespaces_count_towards_the_bound() {
        let mut connection = Connection::<u32>::new();
        connection.handle_connect(&path("/"), 2).unwrap();
        connection.handle_connect(&path("/a"), 2).unwrap();
        assert_eq!(
            connection.handle_connect(&path("/b"), 2),
            Err(ConnectionError::TooManyNamespaces { max: 2 })
        );
        connection.refuse("/a").unwrap();
        assert_eq!(connection.handle_connect(&path("/b"), 2), Ok(()));
    }

    #[test]
    fn an_answer_after_the_client_left_is_told_so() {
        let mut connection = Connection::<u32>::new();
        connection.handle_connect(&path("/a"), 2).unwrap();
        assert_eq!(connection.remove("/a"), None);
        assert_eq!(connection.accept("/a", 1), Err(ConnectionError::NotConnected));
        assert_eq!(connection.refuse("/a"), Err(ConnectionError::NotConnected));
        assert!(connection.is_empty());
    }

    #[test]
    fn remove_gives_the_handle_and_iter_only_the_joined() {
        let mut connection = Connection::<u32>::new();
        for (index, name) in ["/", "/a", "/b"].into_iter().enumerate() {
            connection.handle_connect(&path(name), 8).unwrap();
            if name != "/b" {
                connection.accept(name, u32::try_from(index).unwrap()).unwrap();
            }
        }
        let joined: Vec<_> = connection.iter().map(|(path, socket)| (path.as_str(), socket)).collect();
        assert_eq!(joined, [("/", 0), ("/a", 1)]);
        assert_eq!(connection.len(), 3);
        assert_eq!(connection.remove("/a"), Some(1));
        assert_eq!(connection.remove("/a"), None);
        assert_eq!(connection.len(), 2);
    }

    #[test]
    fn connect_data_carries_the_id_in_v5_only() {
        assert_eq!(connect_data(ProtocolVersion::V5, "abc"), r#"{"sid":"abc"}"#);
        assert_eq!(connect_data(ProtocolVersion::V4, "abc"), "");
    }

    #[test]
    fn refusal_data_follows_the_version() {
        let check = |version, reason, expected: &str| {
            assert_eq!(refusal_data(version, "nope", reason), expected);
        };
        check(ProtocolVersion::V5, None, r#"{"message":"nope"}"#);
        check(ProtocolVersion::V5, Some(r#"{"a":1}"#), r#"{"message":"nope","data":{"a":1}}"#);
        check(ProtocolVersion::V4, None, r#""nope""#);
        check(ProtocolVersion::V4, Some(r#"{"a":1}"#), r#"{"a":1}"#);
    }

    #[test]
    fn query_becomes_an_object_of_strings() {
        let check = |query: &str, expected: &str| assert_eq!(auth_from_query(query), expected);
        check("", "{}");
        check("token=abc&x=1", r#"{"token":"abc","x":"1"}"#);
        check("a=%C3%A9+%22&b&=c", r#"{"a":"é \"","b":"","":"c"}"#);
        check("&&a=%zz%4&", r#"{"a":"%zz%4"}"#);
        check("a=%ff", "{\"a\":\"\u{fffd}\"}");
    }
}
