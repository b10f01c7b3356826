//! The namespaces that have sockets on this shard, and the patterns that say which may exist.

use hashbrown::HashMap;
use slab::Slab;
use socketio_proto::namespace::NamespacePath;
use socketio_proto::packet::AckId;

/// The namespaces in use. One without sockets is forgotten.
#[derive(Debug)]
pub struct Namespaces {
    patterns: Vec<String>,
    ids: HashMap<NamespacePath, u32>,
    entries: Slab<Entry>,
}

#[derive(Debug)]
struct Entry {
    path: NamespacePath,
    sockets: usize,
    next_ack: u64,
}

impl Namespaces {
    /// Namespaces that match `edge.namespaces`.
    pub fn new(patterns: Vec<String>) -> Namespaces {
        Namespaces { patterns, ids: HashMap::new(), entries: Slab::new() }
    }

    /// Whether a namespace may be joined: it is listed, or matches an entry that ends with `*`.
    pub fn allows(&self, path: &str) -> bool {
        self.patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(stem) => path.starts_with(stem),
            None => path == pattern,
        })
    }

    /// The number of a namespace that has sockets here.
    pub fn find(&self, path: &str) -> Option<u32> {
        self.ids.get(path).copied()
    }

    /// The path of a namespace.
    pub fn path(&self, namespace: u32) -> Option<&NamespacePath> {
        self.entries.get(namespace as usize).map(|entry| &entry.path)
    }

    /// How many have sockets here.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A socket enters a namespace.
    pub fn enter(&mut self, path: &NamespacePath) -> u32 {
        if let Some(namespace) = self.find(path.as_str()) {
            if let Some(entry) = self.entries.get_mut(namespace as usize) {
                entry.sockets += 1;
            }
            return namespace;
        }
        let key = self.entries.insert(Entry { path: path.clone(), sockets: 1, next_ack: 0 });
        // Sessions are counted in 32 bits, and each joins few namespaces.
        let namespace = u32::try_from(key).unwrap_or(u32::MAX);
        self.ids.insert(path.clone(), namespace);
        namespace
    }

    /// A socket leaves a namespace.
    pub fn exit(&mut self, namespace: u32) {
        let Some(entry) = self.entries.get_mut(namespace as usize) else { return };
        entry.sockets = entry.sockets.saturating_sub(1);
        if entry.sockets == 0 {
            let entry = self.entries.remove(namespace as usize);
            self.ids.remove(&entry.path);
        }
    }

    /// The next ack id of a namespace. All its sockets share the counter, so that one frame can ask them all.
    pub fn next_ack(&mut self, namespace: u32) -> AckId {
        let Some(entry) = self.entries.get_mut(namespace as usize) else { return AckId(0) };
        let id = entry.next_ack;
        entry.next_ack = id.wrapping_add(1);
        AckId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_end_with_a_star() {
        let namespaces = Namespaces::new(vec!["/".to_owned(), "/org-*".to_owned()]);
        for (path, expected) in
            [("/", true), ("/org-1", true), ("/org-", true), ("/org", false), ("/x", false)]
        {
            assert_eq!(namespaces.allows(path), expected, "{path}");
        }
    }

    #[test]
    fn a_namespace_lives_as_long_as_its_sockets() {
        let mut namespaces = Namespaces::new(vec!["/*".to_owned()]);
        let path = NamespacePath::parse("/a").unwrap();
        let id = namespaces.enter(&path);
        assert_eq!(namespaces.enter(&path), id);
        assert_eq!((namespaces.next_ack(id), namespaces.next_ack(id)), (AckId(0), AckId(1)));
        namespaces.exit(id);
        assert_eq!(namespaces.find("/a"), Some(id));
        namespaces.exit(id);
        assert_eq!(namespaces.find("/a"), None);
        assert!(namespaces.is_empty());
    }
}
