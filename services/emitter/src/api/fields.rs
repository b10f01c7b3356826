//! The fields that several calls have: whom a call is for, and values that may be left out, null or something.

use serde::Deserializer;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::api::problem::{Code, Problem};

/// Declares the body of a call that addresses sockets: its own fields, and those of the selector.
///
/// `plain` has all fields of the selector. `joining` uses `rooms` for the rooms that are joined or left, so it selects
/// by room with `in`. `updating` uses `user` for the user that is set, so it selects by user with `users` only.
macro_rules! addressed {
    (@targets plain $self:ident) => {
        $crate::selector::Targets {
            room: $self.room.as_deref(),
            rooms: $self.rooms.as_deref(),
            user: $self.user.as_deref(),
            ..addressed!(@shared $self)
        }
    };
    (@targets joining $self:ident) => {
        $crate::selector::Targets {
            within: $self.within.as_deref(),
            user: $self.user.as_deref(),
            ..addressed!(@shared $self)
        }
    };
    (@targets updating $self:ident) => {
        $crate::selector::Targets {
            room: $self.room.as_deref(),
            rooms: $self.rooms.as_deref(),
            ..addressed!(@shared $self)
        }
    };
    (@shared $self:ident) => {
        $crate::selector::Targets {
            sid: $self.sid.as_deref(),
            sids: $self.sids.as_deref(),
            users: $self.users.as_deref(),
            except: $self.except.as_deref(),
            broadcast: $self.broadcast,
            ..$crate::selector::Targets::default()
        }
    };
    (
        $kind:ident
        $(#[doc = $doc:literal])+
        $name:ident {
            $($(#[$meta:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $($(#[$meta])* pub(crate) $field: $type,)*
            /// One socket, by its id.
            sid: Option<String>,
            /// Sockets, by their ids.
            sids: Option<Vec<String>>,
            /// Users: all sockets of each.
            users: Option<Vec<String>>,
            /// Rooms and ids of sockets that are left out.
            except: Option<Vec<String>>,
            /// Everybody in the namespace. It cannot be said by leaving the others out.
            broadcast: Option<bool>,
            /// What the operation is called in a batch; elsewhere the path says it.
            #[schema(ignore)]
            pub(crate) op: Option<String>,
        }

        impl $name {
            /// Whom the call is for, unchecked.
            pub(crate) fn targets(&self) -> $crate::selector::Targets<'_> {
                addressed!(@targets $kind self)
            }
        }
    };
}
pub(crate) use addressed;

/// Refuses a body that says it is another operation than the one that is called.
pub(crate) fn check_op(op: Option<&str>, expected: &str) -> Result<(), Problem> {
    match op {
        Some(op) if op != expected => {
            let detail = format!("this path is {expected:?}; leave \"op\" out, or call the path of {op:?}");
            Err(Problem::new(Code::InvalidBody, detail).at("/op"))
        }
        _ => Ok(()),
    }
}

/// Reads a value that was given, `null` included.
pub(crate) fn given<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Text as it stands in a body. `null` is a value, not an absence.
pub(crate) type Raw = Box<RawValue>;

/// Makes JSON text part of an answer; what is no JSON becomes `null`.
pub(crate) fn raw(text: String) -> Raw {
    RawValue::from_string(text).unwrap_or_else(|error| {
        tracing::debug!(%error, "a node answered with what is no JSON");
        RawValue::NULL.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Given {
        #[serde(default, deserialize_with = "given")]
        value: Option<Raw>,
    }

    #[test]
    fn null_is_a_value() {
        let read = |text: &str| {
            let given: Given = serde_json::from_str(text).unwrap();
            given.value.map(|raw| raw.get().to_owned())
        };
        assert_eq!(read("{}"), None);
        assert_eq!(read(r#"{"value":null}"#).as_deref(), Some("null"));
        assert_eq!(read(r#"{"value":[1, 2]}"#).as_deref(), Some("[1, 2]"));
    }

    #[test]
    fn a_path_does_one_thing() {
        assert!(check_op(None, "emit").is_ok() && check_op(Some("emit"), "emit").is_ok());
        assert_eq!(check_op(Some("join"), "emit").unwrap_err().code, Code::InvalidBody);
    }

    #[test]
    fn what_is_no_json_becomes_null() {
        assert_eq!(raw("[1]".to_owned()).get(), "[1]");
        assert_eq!(raw("[".to_owned()).get(), "null");
    }
}
