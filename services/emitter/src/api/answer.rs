//! What a call that went well comes back with. The gate writes it as JSON or MessagePack, as the caller wishes.

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::problem::{Code, Problem};

/// Says that the answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A document on its way out.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    document: Document,
    is_replayed: bool,
}

/// JSON text, kept beside the response until the gate writes it.
#[derive(Debug, Clone)]
pub(crate) struct Document(pub(crate) String);

impl Answer {
    /// A document with a status.
    pub(crate) fn new(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        let json = serde_json::to_string(body).map_err(|error| {
            tracing::error!(%error, "an answer cannot be written");
            Problem::new(Code::Internal, "the answer cannot be written")
        })?;
        Ok(Self { status, document: Document(json), is_replayed: false })
    }

    /// A document with status 200.
    pub(crate) fn ok(body: &impl Serialize) -> Result<Self, Problem> {
        Self::new(StatusCode::OK, body)
    }

    /// The same, marked as given before.
    pub(crate) fn replayed(mut self, is_replayed: bool) -> Self {
        self.is_replayed = is_replayed;
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self.document);
        if self.is_replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
