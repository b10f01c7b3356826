//! Every name that we use at Redis: channels, patterns, keys.
//!
//! With the prefix `socket.io`, in the namespace `/chat`:
//!
//! | Name | What travels there |
//! |---|---|
//! | `socket.io#/chat#` | broadcasts to no room, or to two and more |
//! | `socket.io#/chat#<room>#` | broadcasts to exactly one room; a socket id is a room |
//! | `socket.io-request#/chat#` | requests; its subscribers are the servers that answer |
//! | `socket.io-response#/chat#` | answers for whoever asked |
//! | `socket.io-response#/chat#<uid>#` | answers for one node |
//! | `socket.io-jackfield#edges#/chat#` | nothing: its subscribers are those edges of ours that subscribe to the request channel |
//! | `socket.io-jackfield#whole` | nothing: its subscribers are those edges of ours that miss no subscription |
//! | `socket.io-jackfield#heartbeat` | heartbeats |
//! | `socket.io-jackfield#node#<node id>` | a key: the claim of a node id, with its heartbeat as the value |
//!
//! The first five are those of `@socket.io/redis-adapter`. Names of namespaces and rooms are not escaped there and may
//! contain `#`, so a channel that arrives is only a hint: what counts is said in the message.

use socketio_proto::namespace::NamespacePath;

use crate::identity::{NODE_ID_CHARS, NodeId, NodeUid, SID_CHARS};

const REQUEST: &str = "-request";
const RESPONSE: &str = "-response";
const OURS: &str = "-jackfield";
/// Every name carries the prefix, so it is kept short.
const PREFIX_BYTES_MAX: usize = 128;

/// Builds and reads the names of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

/// Why a prefix cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Nothing, or over 128 bytes.
    #[error("a prefix has 1 to {PREFIX_BYTES_MAX} bytes")]
    Length,
    /// White space, control characters, or the `#` that ends a prefix in every name.
    #[error("a prefix has no white space, no control characters and no #")]
    Character,
    /// It ends as the names of another cluster could.
    #[error("a prefix does not end in \"-request\", \"-response\" or \"-jackfield\"")]
    Suffix,
}

impl Names {
    /// The names of the cluster with this prefix; Node calls it `key`.
    ///
    /// # Errors
    /// [`PrefixError`] if the names could be those of another cluster, or unfit.
    pub fn new(prefix: &str) -> Result<Self, PrefixError> {
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX {
            return Err(PrefixError::Length);
        }
        // With `#`, one prefix could be the beginning of another, whose channels our patterns would match.
        if prefix.chars().any(|c| c.is_whitespace() || c.is_control() || c == '#') {
            return Err(PrefixError::Character);
        }
        if [REQUEST, RESPONSE, OURS].iter().any(|suffix| prefix.ends_with(suffix)) {
            return Err(PrefixError::Suffix);
        }
        Ok(Self { prefix: prefix.to_owned() })
    }

    /// The channel of broadcasts to a whole namespace.
    #[must_use]
    pub fn namespace(&self, namespace: &NamespacePath) -> String {
        self.channel("", namespace, None)
    }

    /// The channel of broadcasts to exactly one room.
    #[must_use]
    pub fn room(&self, namespace: &NamespacePath, room: &str) -> String {
        self.channel("", namespace, Some(room))
    }

    /// The channel of requests.
    #[must_use]
    pub fn request(&self, namespace: &NamespacePath) -> String {
        self.channel(REQUEST, namespace, None)
    }

    /// The channel of answers for whoever asked.
    #[must_use]
    pub fn response(&self, namespace: &NamespacePath) -> String {
        self.channel(RESPONSE, namespace, None)
    }

    /// The channel of answers for one node.
    #[must_use]
    pub fn response_to(&self, namespace: &NamespacePath, asker: &NodeUid) -> String {
        self.channel(RESPONSE, namespace, Some(asker.as_str()))
    }

    /// The channel on which nobody publishes. An edge subscribes to it together with [`Names::request`], so that
    /// the subscribers of that channel less the subscribers of this one are the Node servers.
    #[must_use]
    pub fn edges(&self, namespace: &NamespacePath) -> String {
        format!("{}{OURS}#edges#{namespace}#", self.prefix)
    }

    /// The channel on which nobody publishes either. An edge subscribes to it last: while one is missing, its absence from
    /// [`Names::edges`] says nothing.
    #[must_use]
    pub fn whole(&self) -> String {
        format!("{}{OURS}#whole", self.prefix)
    }

    /// The channel of our heartbeats.
    #[must_use]
    pub fn heartbeat(&self) -> String {
        format!("{}{OURS}#heartbeat", self.prefix)
    }

    /// The key by which a node claims its id.
    #[must_use]
    pub fn node_claim(&self, node: NodeId) -> String {
        format!("{}{OURS}#node#{node}", self.prefix)
    }

    /// The pattern that matches every claim, for SCAN.
    #[must_use]
    pub fn node_claims_pattern(&self) -> String {
        format!("{}{OURS}#node#{}", glob_escaped(&self.prefix), "?".repeat(NODE_ID_CHARS))
    }

    /// The pattern for the channels of all sockets of a node, in all namespaces.
    #[must_use]
    pub fn sockets_pattern(&self, node: NodeId) -> String {
        let rest = "?".repeat(SID_CHARS - NODE_ID_CHARS);
        format!("{}#*#{node}{rest}#", glob_escaped(&self.prefix))
    }

    /// Tells whether a channel is matched by [`Names::sockets_pattern`], so that subscribing to it too would deliver twice.
    #[must_use]
    pub fn is_in_sockets_pattern(&self, node: NodeId, channel: &str) -> bool {
        let rest = channel.strip_prefix(&*self.prefix).and_then(|rest| rest.strip_prefix('#'));
        let Some(rest) = rest.and_then(|rest| rest.strip_suffix('#')) else { return false };
        // A `?` stands for one byte, whatever it is.
        let Some(before) = rest.len().checked_sub(SID_CHARS) else { return false };
        let Some((before, sid)) = rest.as_bytes().split_at_checked(before) else { return false };
        before.last() == Some(&b'#') && sid.starts_with(node.to_string().as_bytes())
    }

    /// The pattern by which a Node server hears all broadcasts of a namespace.
    #[must_use]
    pub fn namespace_pattern(&self, namespace: &NamespacePath) -> String {
        format!("{}*", glob_escaped(&self.namespace(namespace)))
    }

    /// Tells what kind of channel a message arrived on; `None` if it is none of this cluster's.
    #[must_use]
    pub fn parse<'a>(&self, channel: &'a str) -> Option<Channel<'a>> {
        let rest = channel.strip_prefix(&*self.prefix)?;
        let (kind, name) = rest.split_once('#')?;
        match kind {
            "" => split(name).map(|(namespace, room)| Channel::Broadcast { namespace, room }),
            REQUEST => name.strip_suffix('#').map(|namespace| Channel::Request { namespace }),
            RESPONSE => split(name).map(|(namespace, asker)| Channel::Response { namespace, asker }),
            OURS if name == "heartbeat" => Some(Channel::Heartbeat),
            _ => None,
        }
    }

    fn channel(&self, kind: &str, namespace: &NamespacePath, last: Option<&str>) -> String {
        let last_len = last.map_or(0, |last| last.len() + 1);
        let mut name =
            String::with_capacity(self.prefix.len() + kind.len() + namespace.as_str().len() + last_len + 2);
        for part in [&*self.prefix, kind, "#", namespace.as_str(), "#"] {
            name.push_str(part);
        }
        if let Some(last) = last {
            name.push_str(last);
            name.push('#');
        }
        name
    }
}

/// A channel of the cluster, as far as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel<'a> {
    /// A broadcast. Where namespace or room contain `#`, the border between them is a guess.
    Broadcast {
        /// The namespace.
        namespace: &'a str,
        /// The room, if the channel is one's.
        room: Option<&'a str>,
    },
    /// A request. The namespace is certain: requests say it nowhere else.
    Request {
        /// The namespace.
        namespace: &'a str,
    },
    /// An answer, which is known by its request id and not by this.
    Response {
        /// The namespace.
        namespace: &'a str,
        /// Whom the answer is for, if not for everybody.
        asker: Option<&'a str>,
    },
    /// A heartbeat of ours.
    Heartbeat,
}

/// Splits `<namespace>#` or `<namespace>#<last>#` at the first `#`.
fn split(name: &str) -> Option<(&str, Option<&str>)> {
    let (namespace, last) = name.split_once('#')?;
    match last {
        "" => Some((namespace, None)),
        _ => last.strip_suffix('#').map(|last| (namespace, Some(last))),
    }
}

/// Escapes what has a meaning in a Redis pattern, so that the text matches only itself.
#[must_use]
pub fn glob_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new("socket.io").unwrap()
    }

    fn namespace(path: &str) -> NamespacePath {
        NamespacePath::parse(path).unwrap()
    }

    #[test]
    fn names_are_those_of_the_node_adapter() {
        let (names, root, chat) = (names(), NamespacePath::root(), namespace("/chat"));
        let node = NodeId::parse("AQID").unwrap();
        assert_eq!(names.namespace(&root), "socket.io#/#");
        assert_eq!(names.namespace(&chat), "socket.io#/chat#");
        assert_eq!(names.room(&root, "r"), "socket.io#/#r#");
        assert_eq!(names.room(&chat, "a#b"), "socket.io#/chat#a#b#");
        assert_eq!(names.request(&root), "socket.io-request#/#");
        assert_eq!(names.response(&root), "socket.io-response#/#");
        assert_eq!(names.response_to(&root, &NodeUid::of_node(node)), "socket.io-response#/#jfAQID#");
        assert_eq!(names.namespace_pattern(&root), "socket.io#/#*");
        assert_eq!(names.sockets_pattern(node), "socket.io#*#AQID????????????????#");
        assert_eq!(names.edges(&chat), "socket.io-jackfield#edges#/chat#");
        assert_eq!(names.node_claim(node), "socket.io-jackfield#node#AQID");
        assert_eq!(names.node_claims_pattern(), "socket.io-jackfield#node#????");
    }

    #[test]
    fn channels_are_read_back() {
        let check =
            |channel: &str, expected: Option<Channel<'_>>| assert_eq!(names().parse(channel), expected);
        check("socket.io#/#", Some(Channel::Broadcast { namespace: "/", room: None }));
        check("socket.io#/#r#", Some(Channel::Broadcast { namespace: "/", room: Some("r") }));
        check("socket.io#/#a#b#", Some(Channel::Broadcast { namespace: "/", room: Some("a#b") }));
        check("socket.io#/#é😀*?[#", Some(Channel::Broadcast { namespace: "/", room: Some("é😀*?[") }));
        check(
            "socket.io#/chat#/chat#AQIDabcdefghijklmnop#",
            Some(Channel::Broadcast { namespace: "/chat", room: Some("/chat#AQIDabcdefghijklmnop") }),
        );
        // The room whose name is empty has a channel with an empty last part.
        check("socket.io#/##", Some(Channel::Broadcast { namespace: "/", room: Some("") }));
        check("socket.io-request#/a#b#", Some(Channel::Request { namespace: "/a#b" }));
        check("socket.io-response#/#", Some(Channel::Response { namespace: "/", asker: None }));
        check("socket.io-response#/#abc#", Some(Channel::Response { namespace: "/", asker: Some("abc") }));
        check("socket.io-jackfield#heartbeat", Some(Channel::Heartbeat));
        for stranger in [
            "",
            "socket.io",
            "socket.io#",
            "socket.io#/",
            "socket.io#/#r",
            "socket.ios#/#",
            "other#/#",
            "socket.io-request#/",
            "socket.io-jackfield#edges#/#",
        ] {
            check(stranger, None);
        }
    }

    #[test]
    fn patterns_match_their_prefix_literally() {
        let names = Names::new(r"a*[b]?\c").unwrap();
        let node = NodeId::parse("AQID").unwrap();
        assert_eq!(names.sockets_pattern(node), r"a\*\[b\]\?\\c#*#AQID????????????????#");
        assert_eq!(names.namespace_pattern(&namespace("/x*")), r"a\*\[b\]\?\\c#/x\*#*");
    }

    #[test]
    fn a_channel_that_the_pattern_matches_is_known() {
        let node = NodeId::parse("AQID").unwrap();
        let check = |channel: &str, expected| {
            assert_eq!(names().is_in_sockets_pattern(node, channel), expected, "{channel}");
        };
        check("socket.io#/#AQIDabcdefghijklmnop#", true);
        check("socket.io#/chat#/chat#AQIDabcdefghijklmnop#", true);
        check("socket.io#/#x#AQIDabcdefghijklmnop#", true);
        check("socket.io#/#AQID#b#d#f#h#j#l#n#p#", true);
        check("socket.io#/#AQIDabcdefghijklmno#", false);
        check("socket.io#/#AQIDabcdefghijklmnopq#", false);
        check("socket.io#/#AQIEabcdefghijklmnop#", false);
        check("socket.io#/#", false);
        check("other#/#AQIDabcdefghijklmnop#", false);
        check("socket.io#/#AQIDäöüäöüäö#", true);
    }

    #[test]
    fn a_prefix_that_another_cluster_could_speak_is_refused() {
        assert_eq!(Names::new(""), Err(PrefixError::Length));
        assert_eq!(Names::new(&"x".repeat(129)), Err(PrefixError::Length));
        assert_eq!(Names::new("a b"), Err(PrefixError::Character));
        assert_eq!(Names::new("socket.io#"), Err(PrefixError::Character));
        assert_eq!(Names::new("socket.io-request"), Err(PrefixError::Suffix));
        assert_eq!(Names::new("x-jackfield"), Err(PrefixError::Suffix));
    }
}
