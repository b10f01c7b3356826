//! The HTTP API: what may be called, and what all calls have in common.
//!
//! A request goes through [`gate`], which knows who calls and writes the answer, to the file of its path. What goes
//! wrong on the way is a [`problem::Problem`].
//!
//! - [`gate`]: request ids, bounds, keys, and how answers are written
//! - [`call`]: a request behind the gate, and its body
//! - [`answer`], [`problem`]: what comes back
//! - [`query`]: query parameters
//! - [`fields`]: the fields that several calls have
//! - [`emit`], [`batch`], [`sockets`], [`listing`], [`users`], [`server_emit`], [`info`]: the calls
//! - [`openapi`]: the document that describes all of this, and the page that shows it

pub(crate) mod answer;
pub(crate) mod batch;
pub(crate) mod call;
pub(crate) mod emit;
pub(crate) mod fields;
pub(crate) mod gate;
pub(crate) mod info;
pub(crate) mod listing;
pub(crate) mod openapi;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod server_emit;
pub(crate) mod sockets;
pub(crate) mod users;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use cluster_proto::heartbeat::Role;
use cluster_proto::identity::NodeId;
use cluster_proto::limits::Limits;
use tokio::sync::Semaphore;

use crate::api::problem::{Code, Problem};
use crate::auth::credentials::Credentials;
use crate::config::EmitterConfig;
use crate::idempotency::Memories;
use crate::link::{Link, LinkError, Within};
use crate::metrics::Metrics;

/// What all calls share.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) config: EmitterConfig,
    /// What an event is held to, the same as at the edges.
    pub(crate) limits: Limits,
    pub(crate) link: Arc<Link>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) memories: Memories,
    pub(crate) metrics: Arc<Metrics>,
    /// A permit for each request under way.
    pub(crate) requests: Semaphore,
    /// A permit for each byte of a body.
    pub(crate) bodies: Arc<Semaphore>,
}

impl Api {
    pub(crate) fn new(
        config: EmitterConfig,
        link: Arc<Link>,
        credentials: Arc<Credentials>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let permits = |count: usize| Semaphore::new(count.min(Semaphore::MAX_PERMITS));
        Self {
            limits: Limits::default(),
            memories: Memories::new(config.idempotency_keys_max, config.idempotency_ttl()),
            requests: permits(config.requests_max),
            bodies: Arc::new(permits(config.bodies_bytes_max)),
            config,
            link,
            credentials,
            metrics,
        }
    }

    /// Whether a node is a living edge.
    pub(crate) fn is_edge(&self, node: NodeId) -> bool {
        let is_it = |adapter: &adapter::adapter::Adapter| {
            adapter.nodes().iter().any(|peer| peer.node == node && peer.role == Role::Edge)
        };
        self.link.adapter().is_ok_and(is_it)
    }

    /// How long a question may take of which answers are waited for so long.
    pub(crate) fn within(&self, answers: Duration) -> Within {
        Within { broker: self.config.publish_timeout(), answers }
    }

    /// Counts a message that did not reach the broker, and says so.
    pub(crate) fn failed(&self, error: LinkError) -> Problem {
        self.metrics.fail(error.reason());
        error.into()
    }
}

/// The paths of the API behind the gate.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let calls = Router::new()
        .route("/v1/emit", post(emit::emit))
        .route("/v1/batch", post(batch::batch))
        .route("/v1/sockets", get(listing::sockets))
        .route("/v1/sockets/join", post(sockets::join))
        .route("/v1/sockets/leave", post(sockets::leave))
        .route("/v1/sockets/disconnect", post(sockets::disconnect))
        .route("/v1/sockets/update", post(sockets::update))
        .route("/v1/rooms", get(listing::rooms))
        .route("/v1/users", get(listing::users))
        .route("/v1/users/query", post(users::query))
        .route("/v1/server-emit", post(server_emit::server_emit))
        .route("/v1/info", get(info::info));
    calls
        .merge(openapi::pages())
        .fallback(|| async { Problem::new(Code::NotFound, "/openapi.json and /docs say what there is") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "the header \"allow\" says which methods this path has")
        })
        .layer(from_fn_with_state(api.clone(), gate::gate))
        .with_state(api)
}
