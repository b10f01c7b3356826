//! What goes wrong, as callers see it: `application/problem+json` (RFC 9457) with a stable `code`.
//!
//! This is the one place where errors are mapped outward.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use axum::http::StatusCode;
use serde::Serialize;
use socketio_proto::json::JsonError;
use utoipa::ToSchema;

use crate::document::binary::BinaryError;
use crate::link::LinkError;

/// What a caller is told to wait before another attempt, where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

macro_rules! codes {
    ($($variant:ident $status:literal $code:literal $title:literal,)+) => {
        /// Why a call was refused. A code never changes its meaning; new ones may be added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum Code {
            $(
                #[doc = $title]
                $variant,
            )+
        }

        impl Code {
            /// Every code, in the order of the documentation.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The HTTP status that it comes with.
            pub(crate) fn status(self) -> StatusCode {
                let number: u16 = match self { $(Self::$variant => $status,)+ };
                StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            /// Its name.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// What it means, whatever the call.
            pub(crate) fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }
        }
    };
}

codes! {
    InvalidJson 400 "invalid_json" "The body is not JSON",
    InvalidMsgpack 400 "invalid_msgpack" "The body is not MessagePack",
    InvalidBody 400 "invalid_body" "A field is missing, unknown or of the wrong type",
    InvalidQuery 400 "invalid_query" "A query parameter is unknown or has a wrong value",
    InvalidCursor 400 "invalid_cursor" "The cursor is none that this API gave",
    InvalidHeader 400 "invalid_header" "A header has a wrong value",
    NoTarget 400 "no_target" "The call names nobody",
    MissingCredentials 401 "missing_credentials" "The call shows no key",
    InvalidCredentials 401 "invalid_credentials" "The key or token is not valid here",
    ExpiredCredentials 401 "expired_credentials" "The key or token has expired",
    InsufficientScope 403 "insufficient_scope" "The key does not cover this call",
    ForeignOrigin 403 "foreign_origin" "Without keys, only programs on this machine may call",
    NotFound 404 "not_found" "There is nothing at this path",
    MethodNotAllowed 405 "method_not_allowed" "The path has no such method",
    BodyTimeout 408 "body_timeout" "The body took too long to arrive",
    IdempotencyConflict 409 "idempotency_conflict" "The idempotency key was used for another call",
    BodyTooLarge 413 "body_too_large" "The body is too large",
    UnsupportedMediaType 415 "unsupported_media_type" "The body is neither JSON nor MessagePack",
    InvalidNamespace 422 "invalid_namespace" "This cannot be a namespace",
    InvalidEvent 422 "invalid_event" "This cannot be the name of an event",
    ReservedEvent 422 "reserved_event" "The libraries keep this event name for themselves",
    InvalidArgs 422 "invalid_args" "The arguments cannot travel to a client",
    TooManyAttachments 422 "too_many_attachments" "The event has too many binary values",
    EventTooLarge 422 "event_too_large" "The event is too large",
    InvalidRoom 422 "invalid_room" "This cannot be a room",
    ReservedRoom 422 "reserved_room" "Sockets cannot be put into this room or taken out of it",
    InvalidUser 422 "invalid_user" "This cannot be a user",
    InvalidSid 422 "invalid_sid" "This cannot be the id of a socket",
    InvalidValue 422 "invalid_value" "A value is out of its range",
    SelectorConflict 422 "selector_conflict" "The call contradicts itself about whom it is for",
    TooManyItems 422 "too_many_items" "A list is too long",
    AckWithIdempotencyKey 422 "ack_with_idempotency_key" "A call that collects acks cannot have an idempotency key",
    AckInBatch 422 "ack_in_batch" "A batch cannot collect acks",
    RateLimited 429 "rate_limited" "The key makes too many calls",
    Internal 500 "internal" "The emitter has a fault",
    BrokerUnavailable 503 "broker_unavailable" "The broker is away; nobody got it",
    OutcomeUnknown 503 "outcome_unknown" "The broker did not confirm; it is not known who got it",
    Overloaded 503 "overloaded" "The emitter has too much to do; nobody got it",
    NotAttempted 503 "not_attempted" "An earlier operation of the batch found no broker; this one was not tried",
}

/// A refusal on its way to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    /// One line: what is wrong here, and what to do.
    pub(crate) detail: String,
    /// JSON pointer to the field of the body.
    pub(crate) pointer: Option<String>,
    /// The query parameter or header.
    pub(crate) parameter: Option<Cow<'static, str>>,
    /// What the caller is asked to wait.
    pub(crate) retry_after: Option<Duration>,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        let retries = matches!(code.status(), StatusCode::SERVICE_UNAVAILABLE);
        Self {
            code,
            detail: detail.into(),
            pointer: None,
            parameter: None,
            retry_after: retries.then_some(RETRY_AFTER),
        }
    }

    /// Points at a field of the body.
    pub(crate) fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// Names a query parameter or a header.
    pub(crate) fn about(mut self, parameter: impl Into<Cow<'static, str>>) -> Self {
        self.parameter = Some(parameter.into());
        self
    }

    /// Asks for some patience.
    pub(crate) fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Makes the pointer one into a value that is itself inside the body.
    pub(crate) fn below(mut self, prefix: &str) -> Self {
        self.pointer = self.pointer.map(|pointer| format!("{prefix}{pointer}"));
        self
    }

    /// The document that is sent.
    pub(crate) fn document(&self, request_id: Option<&str>) -> ProblemDocument {
        ProblemDocument {
            kind: format!("urn:jackfield:problem:{}", self.code.as_str()),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            code: self.code,
            detail: self.detail.clone(),
            pointer: self.pointer.clone(),
            parameter: self.parameter.as_deref().map(str::to_owned),
            request_id: request_id.map(str::to_owned),
        }
    }

    /// Seconds for `Retry-After`, at least one.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after
            .map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
            .map(|secs| secs.max(1))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

/// A refusal (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDocument {
    /// A URN made of the code.
    #[serde(rename = "type")]
    kind: String,
    /// What the code means, whatever the call.
    title: String,
    /// The HTTP status.
    status: u16,
    /// The reason, stable and made for programs.
    code: Code,
    /// What is wrong with this call, and what to do.
    detail: String,
    /// JSON pointer to the offending field of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pointer: Option<String>,
    /// The offending query parameter or header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    parameter: Option<String>,
    /// As in the header `x-request-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<String>,
}

impl From<LinkError> for Problem {
    fn from(error: LinkError) -> Self {
        let code = match error {
            LinkError::Starting | LinkError::Away | LinkError::Refused(_) => Code::BrokerUnavailable,
            LinkError::Full => Code::Overloaded,
            LinkError::Unknown => Code::OutcomeUnknown,
            LinkError::Encode(_) => Code::InvalidArgs,
        };
        Self::new(code, error.to_string())
    }
}

impl From<BinaryError> for Problem {
    fn from(error: BinaryError) -> Self {
        let detail = match error {
            BinaryError::Json(JsonError::TooDeep { max }) => {
                format!("nested deeper than {max} levels; flatten the data")
            }
            BinaryError::Json(_) | BinaryError::NotBase64 | BinaryError::LiteralPlaceholder => {
                error.to_string()
            }
        };
        Self::new(Code::InvalidArgs, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_different_and_readable() {
        let mut names: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        let written = |code: &Code| serde_json::to_string(code).unwrap();
        assert!(Code::ALL.iter().all(|code| written(code) == format!("\"{}\"", code.as_str())));
        assert!(Code::ALL.iter().all(|code| code.status().as_u16() >= 400 && !code.title().ends_with('.')));
    }

    #[test]
    fn a_wait_is_rounded_up() {
        let check = |wait, seconds| {
            let problem = Problem::new(Code::RateLimited, "").after(wait);
            assert_eq!(problem.retry_after_seconds(), Some(seconds));
        };
        check(Duration::ZERO, 1);
        check(Duration::from_millis(1), 1);
        check(Duration::from_millis(1_001), 2);
        assert_eq!(Problem::new(Code::NoTarget, "").retry_after_seconds(), None);
        assert_eq!(Problem::new(Code::Overloaded, "").retry_after_seconds(), Some(1));
    }

    #[test]
    fn pointers_grow_to_the_left() {
        let problem = Problem::new(Code::InvalidRoom, "").at("/rooms/0").below("/operations/3");
        assert_eq!(problem.pointer.as_deref(), Some("/operations/3/rooms/0"));
    }
}
