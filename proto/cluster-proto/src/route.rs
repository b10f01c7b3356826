//! Which nodes need to hear a broadcast. Each wire turns the answer into its own names.

use std::collections::BTreeMap;

use crate::broadcast::{BroadcastOptions, Selector};
use crate::identity::NodeId;

/// Where a broadcast goes. Where more nodes hear it than need to, they find no member and drop it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To every node of the namespace.
    Namespace,
    /// To the nodes that have members in this one room.
    Room(String),
    /// To the owners of single sockets, to each a message of its own.
    Owners(Vec<OwnerGroup>),
}

/// The sockets of a broadcast that one node owns. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerGroup {
    /// The owner.
    pub node: NodeId,
    /// The socket that the message is addressed by.
    pub first: String,
    /// The others, which the message names only inside.
    pub others: Vec<String>,
}

impl OwnerGroup {
    /// The options of the message to this owner: those of the whole broadcast, with only its own sockets as rooms.
    #[must_use]
    pub fn options(&self, whole: &BroadcastOptions) -> BroadcastOptions {
        let rooms = std::iter::once(&self.first).chain(&self.others).cloned().collect();
        BroadcastOptions {
            selector: Selector { rooms, except: whole.selector.except.clone() },
            flags: whole.flags,
        }
    }
}

/// Chooses where a broadcast without acks goes. Everything else goes to every node of the namespace.
///
/// `is_edge` tells which node ids are living edges of ours. Two sockets of a Node server may begin with the same four
/// characters by chance and belong to two servers, so only sockets of our own edges are grouped; a single room or
/// socket of anybody is addressed by its room.
#[must_use]
pub fn route(options: &BroadcastOptions, is_edge: impl Fn(NodeId) -> bool) -> Route {
    match &*options.selector.rooms {
        [] => Route::Namespace,
        [room] => Route::Room(room.clone()),
        rooms => owners(rooms, is_edge).map_or(Route::Namespace, Route::Owners),
    }
}

/// Groups rooms by owner; `None` if one of them is no socket of an edge of ours.
fn owners(rooms: &[String], is_edge: impl Fn(NodeId) -> bool) -> Option<Vec<OwnerGroup>> {
    let mut groups = BTreeMap::<NodeId, OwnerGroup>::new();
    for room in rooms {
        let node = NodeId::of_sid(room).filter(|node| is_edge(*node))?;
        groups
            .entry(node)
            .and_modify(|group| group.others.push(room.clone()))
            .or_insert_with(|| OwnerGroup { node, first: room.clone(), others: Vec::new() });
    }
    Some(groups.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rooms: &[&str], edges: &[&str], expected: Route) {
        let rooms = rooms.iter().map(|room| (*room).to_owned()).collect();
        let options =
            BroadcastOptions { selector: Selector { rooms, except: Vec::new() }, ..Default::default() };
        let edges: Vec<NodeId> = edges.iter().filter_map(|text| NodeId::parse(text)).collect();
        assert_eq!(route(&options, |node| edges.contains(&node)), expected);
    }

    fn group(node: &str, first: &str, others: &[&str]) -> OwnerGroup {
        OwnerGroup {
            node: NodeId::parse(node).unwrap(),
            first: first.to_owned(),
            others: others.iter().map(|sid| (*sid).to_owned()).collect(),
        }
    }

    #[test]
    fn exactly_one_room_goes_to_its_channel_whatever_its_name() {
        check(&["a"], &[], Route::Room("a".to_owned()));
        check(&[""], &[], Route::Room(String::new()));
        check(&["AAAAabcdefghijklmnop"], &["AAAA"], Route::Room("AAAAabcdefghijklmnop".to_owned()));
    }

    #[test]
    fn no_room_and_several_rooms_go_to_the_namespace() {
        check(&[], &[], Route::Namespace);
        check(&["a", "b"], &["AAAA"], Route::Namespace);
        check(&["a", "AAAAabcdefghijklmnop"], &["AAAA"], Route::Namespace);
        check(&["AAAAabcdefghijklmnop", "BBBBabcdefghijklmnop"], &["AAAA"], Route::Namespace);
    }

    #[test]
    fn sockets_of_our_edges_are_grouped_by_owner() {
        check(
            &[
                "BBBBabcdefghijklmnop",
                "AAAAabcdefghijklmnop",
                "/chat#BBBBponmlkjihgfedcba",
                "BBBB________________",
            ],
            &["AAAA", "BBBB"],
            Route::Owners(vec![
                group("AAAA", "AAAAabcdefghijklmnop", &[]),
                group(
                    "BBBB",
                    "BBBBabcdefghijklmnop",
                    &["/chat#BBBBponmlkjihgfedcba", "BBBB________________"],
                ),
            ]),
        );
    }

    #[test]
    fn a_group_keeps_the_exceptions_and_flags() {
        let mut whole = BroadcastOptions::default();
        whole.selector.except.push("x".to_owned());
        whole.flags.volatile = true;
        let options = group("AAAA", "a", &["b"]).options(&whole);
        assert_eq!(options.selector.rooms, ["a", "b"]);
        assert_eq!(options.selector.except, ["x"]);
        assert!(options.flags.volatile);
    }
}
