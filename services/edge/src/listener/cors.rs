//! What browsers are told about requests from pages of other origins. Spec: Fetch, "CORS protocol".

use http::header::{self, HeaderMap};

use super::admission::Origin;
use super::router::text_header;
use crate::transport::reply::Reply;

/// The headers that let a page of this origin read the response.
pub(super) fn headers(origin: Origin<'_>) -> Vec<(&'static str, String)> {
    match origin {
        Origin::Listed(origin) => vec![
            ("access-control-allow-origin", origin.to_owned()),
            ("access-control-allow-credentials", "true".to_owned()),
            ("vary", "Origin".to_owned()),
        ],
        Origin::Any => vec![("access-control-allow-origin", "*".to_owned())],
        Origin::Own | Origin::Refused | Origin::Invalid => Vec::new(),
    }
}

/// The answer to the question that a browser asks before some requests.
pub(super) fn preflight(request: &HeaderMap, cors: Vec<(&'static str, String)>) -> Reply {
    let mut reply = Reply::empty(204)
        .with_header("access-control-allow-methods", "GET,POST,OPTIONS")
        .with_header("access-control-max-age", "600");
    if let Some(asked) = text_header(request, header::ACCESS_CONTROL_REQUEST_HEADERS) {
        reply = reply.with_header("access-control-allow-headers", asked);
    }
    reply.headers.extend(cors);
    reply
}
