//! Whom a call is for. Every call that addresses sockets has the same fields.

use cluster_proto::broadcast::Selector;
use cluster_proto::identity::NodeId;
use cluster_proto::limits::Limits;
use cluster_proto::listing::USER_ROOM;

use crate::api::problem::{Code, Problem};

/// Longest user id: with its prefix it must be a room.
const USER_BYTES_MAX: usize = 251;

/// The fields of a call that say whom it is for, as they were given.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Targets<'a> {
    pub(crate) room: Option<&'a str>,
    pub(crate) rooms: Option<&'a [String]>,
    /// Rooms as well, under the name `in`: where `rooms` are those that are joined or left.
    pub(crate) within: Option<&'a [String]>,
    pub(crate) sid: Option<&'a str>,
    pub(crate) sids: Option<&'a [String]>,
    pub(crate) user: Option<&'a str>,
    pub(crate) users: Option<&'a [String]>,
    pub(crate) except: Option<&'a [String]>,
    pub(crate) broadcast: Option<bool>,
}

impl Targets<'_> {
    /// Checks the fields and joins them: everybody in any of the rooms, sids and users, or with `broadcast` everybody,
    /// but for `except`.
    pub(crate) fn selector(&self, items_max: usize, limits: &Limits) -> Result<Selector, Problem> {
        let mut rooms = Vec::new();
        for (pointer, name) in named("/room", self.room, "/rooms", self.rooms, items_max)? {
            rooms.push(checked_room(name, limits).map_err(|problem| problem.at(pointer))?.to_owned());
        }
        for (pointer, name) in named("", None, "/in", self.within, items_max)? {
            rooms.push(checked_room(name, limits).map_err(|problem| problem.at(pointer))?.to_owned());
        }
        for (pointer, sid) in named("/sid", self.sid, "/sids", self.sids, items_max)? {
            rooms.push(checked_sid(sid, limits).map_err(|problem| problem.at(pointer))?.to_owned());
        }
        for (pointer, user) in named("/user", self.user, "/users", self.users, items_max)? {
            rooms.push(user_room(user).map_err(|problem| problem.at(pointer))?);
        }
        let mut except = Vec::new();
        for (pointer, name) in named("", None, "/except", self.except, items_max)? {
            except.push(checked_room(name, limits).map_err(|problem| problem.at(pointer))?.to_owned());
        }
        match (rooms.is_empty(), self.broadcast.unwrap_or(false)) {
            (true, false) => Err(self.no_target()),
            (false, true) => {
                let detail =
                    "\"broadcast\": true means everybody; leave it out, or the rooms, sids and users";
                Err(Problem::new(Code::SelectorConflict, detail).at("/broadcast"))
            }
            _ => {
                dedup(&mut rooms);
                dedup(&mut except);
                Ok(Selector { rooms, except })
            }
        }
    }

    fn no_target(&self) -> Problem {
        let lists =
            [("/rooms", self.rooms), ("/in", self.within), ("/sids", self.sids), ("/users", self.users)];
        let empty = lists.into_iter().find(|(_, list)| list.is_some());
        let detail = match empty {
            Some(_) => "an empty list names nobody; skip the call, or say \"broadcast\": true for everybody",
            None => "say whom it is for, by room, sid or user, or \"broadcast\": true for everybody",
        };
        let problem = Problem::new(Code::NoTarget, detail);
        match empty {
            Some((pointer, _)) => problem.at(pointer),
            None => problem,
        }
    }
}

/// The rooms that sockets are to be put into, or taken out of. `is_edge` tells which nodes are living edges.
pub(crate) fn membership(
    rooms: &[String],
    items_max: usize,
    limits: &Limits,
    is_edge: impl Fn(NodeId) -> bool,
) -> Result<Vec<String>, Problem> {
    if rooms.is_empty() {
        return Err(Problem::new(Code::InvalidValue, "name at least one room").at("/rooms"));
    }
    check_count(rooms.len(), items_max, "/rooms")?;
    for (index, room) in rooms.iter().enumerate() {
        checked_room(room, limits)
            .and_then(|room| check_free(room, &is_edge))
            .map_err(|problem| problem.at(format!("/rooms/{index}")))?;
    }
    let mut rooms = rooms.to_vec();
    dedup(&mut rooms);
    Ok(rooms)
}

/// The reserved room of a user.
pub(crate) fn user_room(user: &str) -> Result<String, Problem> {
    if user.is_empty() || user.len() > USER_BYTES_MAX {
        let detail = format!("the id of a user has 1 to {USER_BYTES_MAX} bytes");
        return Err(Problem::new(Code::InvalidUser, detail));
    }
    Ok(format!("{USER_ROOM}{user}"))
}

/// A room by its name.
pub(crate) fn checked_room<'a>(room: &'a str, limits: &Limits) -> Result<&'a str, Problem> {
    let max = limits.room_bytes_max;
    if room.len() > max {
        return Err(Problem::new(Code::InvalidRoom, format!("the name of a room has at most {max} bytes")));
    }
    Ok(room)
}

/// The id of a socket, ours or that of a Node server.
pub(crate) fn checked_sid<'a>(sid: &'a str, limits: &Limits) -> Result<&'a str, Problem> {
    let max = limits.room_bytes_max;
    if sid.is_empty() || sid.len() > max {
        return Err(Problem::new(Code::InvalidSid, format!("the id of a socket has 1 to {max} bytes")));
    }
    Ok(sid)
}

/// Refuses an overlong list.
pub(crate) fn check_count(count: usize, max: usize, pointer: &str) -> Result<(), Problem> {
    if count > max {
        let detail = format!("at most {max} items here, not {count}; split the call");
        return Err(Problem::new(Code::TooManyItems, detail).at(pointer));
    }
    Ok(())
}

/// Refuses rooms that mean something else than a room that sockets come into and leave.
///
/// An application may have names with the shape of a socket id, so only those are refused that point to an edge.
fn check_free(room: &str, is_edge: impl Fn(NodeId) -> bool) -> Result<(), Problem> {
    if room.starts_with(USER_ROOM) {
        let detail = "rooms that start with \"user:\" follow from the user of a socket; set that with /v1/sockets/update";
        return Err(Problem::new(Code::ReservedRoom, detail));
    }
    if NodeId::of_sid(room).is_some_and(is_edge) {
        let detail = "this is the id of a socket, whose room is its own; choose another name";
        return Err(Problem::new(Code::ReservedRoom, detail));
    }
    Ok(())
}

/// One name and a list of names, each with the pointer to it.
fn named<'a>(
    one_pointer: &str,
    one: Option<&'a str>,
    many_pointer: &str,
    many: Option<&'a [String]>,
    max: usize,
) -> Result<Vec<(String, &'a str)>, Problem> {
    let many = many.unwrap_or_default();
    check_count(many.len(), max, many_pointer)?;
    let one = one.map(|name| (one_pointer.to_owned(), name));
    let many =
        many.iter().enumerate().map(|(index, name)| (format!("{many_pointer}/{index}"), name.as_str()));
    Ok(one.into_iter().chain(many).collect())
}

/// Leaves one of each, in the order of first mention.
fn dedup(names: &mut Vec<String>) {
    if names.len() > 1 {
        let mut seen = std::collections::HashSet::with_capacity(names.len());
        names.retain(|name| seen.insert(name.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    type Names<'a> = &'a [&'a str];

    fn check(targets: Targets<'_>, expected: Result<(Names<'_>, Names<'_>), (Code, Option<&str>)>) {
        let selector = targets.selector(3, &Limits::default());
        let expected = expected.map(|(rooms, except)| Selector { rooms: list(rooms), except: list(except) });
        match (selector, expected) {
            (Ok(selector), Ok(expected)) => assert_eq!(selector, expected),
            (Err(problem), Err((code, pointer))) => {
                assert_eq!((problem.code, problem.pointer.as_deref()), (code, pointer));
            }
            (selector, expected) => panic!("{targets:?}: {selector:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn rooms_sids_and_users_add_up() {
        let (rooms, users) = (list(&["a", "b", "a"]), list(&["u"]));
        let except = list(&["x"]);
        check(
            Targets {
                room: Some("r"),
                rooms: Some(&rooms),
                sid: Some("s"),
                users: Some(&users),
                except: Some(&except),
                ..Targets::default()
            },
            Ok((&["r", "a", "b", "s", "user:u"], &["x"])),
        );
        check(Targets { broadcast: Some(true), ..Targets::default() }, Ok((&[], &[])));
        check(Targets { room: Some(""), broadcast: Some(false), ..Targets::default() }, Ok((&[""], &[])));
    }

    #[test]
    fn nobody_is_never_everybody() {
        let none = list(&[]);
        check(Targets::default(), Err((Code::NoTarget, None)));
        check(Targets { rooms: Some(&none), ..Targets::default() }, Err((Code::NoTarget, Some("/rooms"))));
        let both = Targets { room: Some("r"), broadcast: Some(true), ..Targets::default() };
        check(both, Err((Code::SelectorConflict, Some("/broadcast"))));
    }

    #[test]
    fn lists_and_names_are_bounded() {
        let many = list(&["1", "2", "3", "4"]);
        check(Targets { sids: Some(&many), ..Targets::default() }, Err((Code::TooManyItems, Some("/sids"))));
        let long = list(&["a", &"x".repeat(257)]);
        check(
            Targets { rooms: Some(&long), ..Targets::default() },
            Err((Code::InvalidRoom, Some("/rooms/1"))),
        );
        check(Targets { user: Some(""), ..Targets::default() }, Err((Code::InvalidUser, Some("/user"))));
        check(Targets { sid: Some(""), ..Targets::default() }, Err((Code::InvalidSid, Some("/sid"))));
    }

    #[test]
    fn rooms_of_users_and_sockets_cannot_be_joined() {
        let check = |room: &str, code: Option<Code>| {
            let is_edge = |node| Some(node) == NodeId::parse("AQID");
            let outcome = membership(&list(&["ok", room]), 10, &Limits::default(), is_edge);
            assert_eq!(outcome.as_ref().err().map(|problem| problem.code), code, "{room}");
            if let Err(problem) = outcome {
                assert_eq!(problem.pointer.as_deref(), Some("/rooms/1"));
            }
        };
        check("order:42", None);
        check("", None);
        check("user:7", Some(Code::ReservedRoom));
        check("AQIDabcdefghijklmnop", Some(Code::ReservedRoom));
        check("/chat#AQIDabcdefghijklmnop", Some(Code::ReservedRoom));
        check("AQIDabcdefghijklmno", None);
        check("BBBBabcdefghijklmnop", None);
        check("x#AQIDabcdefghijklmnop", None);
        check(&"x".repeat(257), Some(Code::InvalidRoom));
        assert_eq!(membership(&[], 10, &Limits::default(), |_| false).unwrap_err().code, Code::InvalidValue);
    }
}
