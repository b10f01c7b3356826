//! `/openapi.json`, generated from the types of the calls, and `/docs`, a page that shows it without any network.

#![allow(unused_qualifications, reason = "the macros that describe the API write whole paths")]

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, schema::Type};
use utoipa::{IntoResponses, Modify, OpenApi, PartialSchema, ToSchema};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::api::problem::ProblemDocument;
use crate::api::{Api, batch, emit, info, listing, server_emit, sockets, users};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Jackfield emitter",
        description = "Reaches any socket, room, user or namespace of a Jackfield cluster. Documents are JSON, or the same as MessagePack; a binary value is {\"$binary\":\"<base64>\"} in JSON and native in MessagePack. Errors are application/problem+json with a stable code.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(
        emit::emit,
        batch::batch,
        sockets::join,
        sockets::leave,
        sockets::disconnect,
        sockets::update,
        listing::sockets,
        listing::rooms,
        listing::users,
        users::query,
        server_emit::server_emit,
        info::info
    ),
    components(schemas(
        BatchOperation,
        emit::EmitRequest,
        sockets::RoomsRequest,
        sockets::DisconnectRequest,
        sockets::UpdateRequest
    )),
    modifiers(&Security),
    tags(
        (name = "emit", description = "Events"),
        (name = "sockets", description = "Sockets and rooms"),
        (name = "users", description = "Who is online"),
        (name = "info", description = "The emitter itself")
    )
)]
struct Document;

/// API keys and tokens, both behind `Authorization: Bearer`.
struct Security;

impl Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        // Without configured keys nothing is shown.
        openapi.security = Some(vec![
            SecurityRequirement::default(),
            SecurityRequirement::new("bearer", Vec::<String>::new()),
        ]);
    }
}

/// What every call may be refused with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is read by the macro alone")]
pub(crate) enum Refusals {
    /// The body, a parameter or a header is malformed
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(#[to_schema] ProblemDocument),
    /// No key, a wrong or an expired one
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(#[to_schema] ProblemDocument),
    /// The key does not cover the call
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(#[to_schema] ProblemDocument),
    /// The body took too long to arrive
    #[response(status = 408, content_type = "application/problem+json")]
    Timeout(#[to_schema] ProblemDocument),
    /// The idempotency key was used for another call
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(#[to_schema] ProblemDocument),
    /// The body is too large
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(#[to_schema] ProblemDocument),
    /// The body is neither JSON nor MessagePack
    #[response(status = 415, content_type = "application/problem+json")]
    MediaType(#[to_schema] ProblemDocument),
    /// A value cannot be accepted
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(#[to_schema] ProblemDocument),
    /// The key makes too many calls; see `Retry-After`
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(#[to_schema] ProblemDocument),
    /// The broker is away or too slow, or the emitter is busy; see `Retry-After`
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(#[to_schema] ProblemDocument),
}

/// One operation of a batch: the body of its call, with `op` beside it. For the document alone.
pub(crate) struct BatchOperation;

impl PartialSchema for BatchOperation {
    fn schema() -> RefOr<Schema> {
        let operations = [
            ("emit", emit::EmitRequest::schema()),
            ("join", sockets::RoomsRequest::schema()),
            ("leave", sockets::RoomsRequest::schema()),
            ("disconnect", sockets::DisconnectRequest::schema()),
            ("update", sockets::UpdateRequest::schema()),
        ];
        let mut one_of = OneOfBuilder::new();
        for (name, schema) in operations {
            let RefOr::T(Schema::Object(mut object)) = schema else { continue };
            let op = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([name])).build();
            object.properties.insert("op".to_owned(), op.into());
            object.required.push("op".to_owned());
            one_of = one_of.item(object);
        }
        one_of.into()
    }
}

impl ToSchema for BatchOperation {}

/// The document as it is served.
fn json() -> &'static str {
    static JSON: OnceLock<String> = OnceLock::new();
    JSON.get_or_init(|| Document::openapi().to_json().unwrap_or_default())
}

/// The document and the page.
pub(crate) fn pages() -> Router<Arc<Api>> {
    let config = Config::from("/openapi.json").use_base_layout().validator_url("none");
    Router::new()
        .route(
            "/openapi.json",
            get(|| async { ([(CONTENT_TYPE, "application/json")], json()).into_response() }),
        )
        .merge(SwaggerUi::new("/docs").config(config))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_call_is_described() {
        let document: Value = serde_json::from_str(json()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        let described: Vec<&str> = paths.keys().map(String::as_str).collect();
        let mut counted: Vec<&str> =
            crate::metrics::ROUTES.into_iter().filter(|route| route.starts_with("/v1/")).collect();
        counted.sort_unstable();
        let mut sorted = described.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, counted);
    }

    #[test]
    fn an_operation_of_a_batch_has_the_fields_of_its_call() {
        let document: Value = serde_json::from_str(json()).unwrap();
        let operations = &document["components"]["schemas"]["BatchOperation"]["oneOf"];
        assert_eq!(operations.as_array().unwrap().len(), 5);
        for operation in operations.as_array().unwrap() {
            assert_eq!(operation["additionalProperties"], false);
            assert!(operation["properties"]["op"]["enum"][0].is_string());
            assert!(operation["properties"]["sids"].is_object());
        }
    }
}
