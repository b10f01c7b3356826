//! Close codes and the payload of a close frame. Spec: RFC 6455 sections 5.5.1 and 7.4.

use std::{fmt, str};

use crate::decoder::FrameError;

/// The two bytes at the start of a close frame's payload: why the connection ends.
///
/// A value of this type may stand on the wire. 1005, 1006 and 1015, which only describe what happened locally,
/// have none.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the conversation is over as planned.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the page was left, or the server goes away.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the framing rules.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: the peer sent a kind of data that is not served here.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1007: text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// 1008: refused by policy, without details.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: a message above the limit.
    pub const TOO_LARGE: Self = Self(1009);
    /// 1011: the server failed.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the server restarts; come back, but not all at once.
    pub const RESTART: Self = Self(1012);
    /// 1013: the server, or this client's queue, is overloaded; come back later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// Takes a code that may stand in a close frame: 1000 to 1014 without 1004 to 1006, and 3000 to 4999.
    ///
    /// 1012 to 1014 are younger than the RFC but registered, and the Node server takes them too.
    pub const fn from_wire(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// Returns the number as it stands on the wire.
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What a close frame said; a close frame without payload says nothing and has none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CloseFrame {
    /// Why the peer closes.
    pub code: CloseCode,
    /// The peer's words on it, at most 123 bytes; for logs, not for people.
    pub reason: String,
}

/// Parses the unmasked payload of a close frame: nothing, or two bytes of code (big endian) and UTF-8.
pub(crate) fn parse(payload: &[u8]) -> Result<Option<CloseFrame>, FrameError> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(FrameError::CloseTooShort),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    let code = CloseCode::from_wire(code).ok_or(FrameError::CloseCodeInvalid { code })?;
    let reason = str::from_utf8(reason)
        .map_err(|error| FrameError::CloseReasonNotUtf8 { valid_bytes: error.valid_up_to() })?;
    Ok(Some(CloseFrame { code, reason: reason.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_on_the_wire() {
        let allowed: Vec<u16> = (0..=u16::MAX).filter(|code| CloseCode::from_wire(*code).is_some()).collect();
        let expected: Vec<u16> = (1000..=1003).chain(1007..=1014).chain(3000..=4999).collect();
        assert_eq!(allowed, expected);
    }

    #[test]
    fn payload_rules() {
        let check = |payload: &[u8], expected: Result<Option<(u16, &str)>, FrameError>| {
            let frame = |(code, reason): (u16, &str)| CloseFrame {
                code: CloseCode::from_wire(code).unwrap(),
                reason: reason.to_owned(),
            };
            assert_eq!(parse(payload), expected.map(|close| close.map(frame)), "{payload:?}");
        };
        check(b"", Ok(None));
        check(b"\x03", Err(FrameError::CloseTooShort));
        check(b"\x03\xe8", Ok(Some((1000, ""))));
        check(b"\x0f\xa0bye \xc3\xa9", Ok(Some((4000, "bye é"))));
        check(b"\x03\xed", Err(FrameError::CloseCodeInvalid { code: 1005 }));
        check(b"\x00\x00", Err(FrameError::CloseCodeInvalid { code: 0 }));
        check(b"\x13\x88", Err(FrameError::CloseCodeInvalid { code: 5000 }));
        check(b"\x03\xe8ok\xff", Err(FrameError::CloseReasonNotUtf8 { valid_bytes: 2 }));
    }
}
