//! An HTTP response as plain data: made where the session lives, written where the connection is.

use std::borrow::Cow;

use bytes::Bytes;
use engineio_proto::handshake::ErrorCode;

/// One response.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The `Content-Type`; empty sends none.
    pub content_type: Cow<'static, str>,
    /// The body.
    pub body: Bytes,
    /// Whether the body may be compressed.
    pub compressible: bool,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Reply {
    /// A response with a body.
    pub fn new(status: u16, content_type: impl Into<Cow<'static, str>>, body: impl Into<Bytes>) -> Reply {
        let (content_type, body) = (content_type.into(), body.into());
        Reply { status, content_type, body, compressible: false, headers: Vec::new() }
    }

    /// A response without a body.
    pub fn empty(status: u16) -> Reply {
        Reply::new(status, "", Bytes::new())
    }

    /// The answer to a request that a session or handshake does not accept.
    pub fn error(code: ErrorCode) -> Reply {
        Reply::new(code.http_status(), "application/json", code.json_body())
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }
}
