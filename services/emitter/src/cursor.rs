//! Where a list goes on: the last item of a page, in a form that callers hand back and do not read.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::api::problem::{Code, Problem};

/// Longest cursor that is read: room names and ids are shorter.
const CURSOR_BYTES_MAX: usize = 1_024;

/// What a cursor goes through; one of another list is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// Sockets, by id.
    Sockets,
    /// Rooms, by name.
    Rooms,
    /// Users, by id.
    Users,
}

impl List {
    fn letter(self) -> &'static str {
        match self {
            Self::Sockets => "s",
            Self::Rooms => "r",
            Self::Users => "u",
        }
    }

    /// The cursor behind an item.
    pub(crate) fn cursor(self, last: &str) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}{last}", self.letter()))
    }

    /// The item that a cursor stands behind.
    pub(crate) fn parse(self, cursor: &str) -> Result<String, Problem> {
        let decoded = Some(cursor)
            .filter(|cursor| cursor.len() <= CURSOR_BYTES_MAX)
            .and_then(|cursor| URL_SAFE_NO_PAD.decode(cursor).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let last = decoded.as_deref().and_then(|text| text.strip_prefix(self.letter()));
        last.map(str::to_owned).ok_or_else(|| {
            let detail = "give the next_cursor of the page before, for the same list, or none to begin anew";
            Problem::new(Code::InvalidCursor, detail).about("cursor")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_to_its_list_only() {
        for last in ["", "a", "ü#😀"] {
            let cursor = List::Rooms.cursor(last);
            assert_eq!(List::Rooms.parse(&cursor).as_deref(), Ok(last));
            assert_eq!(List::Users.parse(&cursor).unwrap_err().code, Code::InvalidCursor);
        }
        for cursor in ["", "!", "cg==", "cv8", &"c".repeat(2_000)] {
            assert_eq!(List::Rooms.parse(cursor).unwrap_err().code, Code::InvalidCursor, "{cursor}");
        }
    }
}
