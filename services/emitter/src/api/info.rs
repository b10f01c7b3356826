//! `/v1/info`: what this emitter is, which nodes it sees, and what it allows.

use std::sync::Arc;

use adapter::Status;
use axum::extract::State;
use cluster_proto::heartbeat::{NodeStatus, Role};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::answer::Answer;
use crate::api::call::Question;
use crate::api::openapi::Refusals;
use crate::api::problem::Problem;
use crate::api::query;

/// What this emitter is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Info {
    /// The version of Jackfield.
    version: &'static str,
    /// The id of this emitter in the cluster, once it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    node: Option<String>,
    /// How the link to the broker is: `starting`, `ready`, `degraded` or `away`.
    broker: &'static str,
    /// The other nodes that are alive, Node servers not among them.
    nodes: Vec<NodeItem>,
    limits: InfoLimits,
}

/// A node of the cluster.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeItem {
    /// Its id: what the ids of its sockets begin with.
    node: String,
    /// `edge` or `emitter`.
    role: &'static str,
    /// `serving` or `draining`.
    status: &'static str,
}

/// What calls are held to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InfoLimits {
    /// Bytes of a body.
    body_bytes_max: usize,
    /// Operations of a batch.
    batch_operations_max: usize,
    /// Items of one list of rooms, sids or users.
    selector_items_max: usize,
    /// Items of a page.
    page_items_max: usize,
    /// The longest wait for acks, in milliseconds.
    ack_timeout_max_ms: u64,
    /// Acks in one answer.
    ack_responses_max: usize,
    /// Bytes of an event with its binary values.
    event_bytes_max: usize,
    /// Binary values of an event.
    attachments_max: usize,
    /// Arrays and objects inside one another.
    depth_max: usize,
    /// Bytes of the name of a room.
    room_bytes_max: usize,
    /// Bytes of the name of an event, and of a namespace.
    name_bytes_max: usize,
    /// How long an idempotency key is remembered, in milliseconds.
    idempotency_ttl_ms: u64,
}

/// Says what this emitter is, which nodes it sees, and what it allows. Any key may ask.
#[utoipa::path(
    get, path = "/v1/info", tag = "info",
    responses((status = 200, description = "What this emitter is", content((Info = "application/json"), (Info = "application/msgpack"))), Refusals)
)]
pub(crate) async fn info(State(api): State<Arc<Api>>, question: Question) -> Result<Answer, Problem> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    let Nothing {} = query::parse(&question.query)?;
    let adapter = api.link.adapter().ok();
    let broker = match adapter.map(adapter::adapter::Adapter::status) {
        None => "starting",
        Some(Status::Ready) => "ready",
        Some(Status::Degraded(_)) => "degraded",
        Some(Status::NotReady(_)) => "away",
    };
    let nodes = adapter.map(adapter::adapter::Adapter::nodes);
    let nodes = nodes.iter().flat_map(|nodes| nodes.iter()).map(|peer| NodeItem {
        node: peer.node.to_string(),
        role: match peer.role {
            Role::Edge => "edge",
            Role::Emitter => "emitter",
        },
        status: match peer.status {
            NodeStatus::Serving => "serving",
            NodeStatus::Draining => "draining",
            NodeStatus::Gone => "gone",
        },
    });
    let (config, limits) = (&api.config, &api.limits);
    Answer::ok(&Info {
        version: env!("CARGO_PKG_VERSION"),
        node: adapter.map(|adapter| adapter.node().to_string()),
        broker,
        nodes: nodes.collect(),
        limits: InfoLimits {
            body_bytes_max: config.body_bytes_max,
            batch_operations_max: config.batch_operations_max,
            selector_items_max: config.selector_items_max,
            page_items_max: config.page_items_max,
            ack_timeout_max_ms: config.ack_timeout_max_ms,
            ack_responses_max: config.ack_responses_max,
            event_bytes_max: limits.packet.packet_bytes_max,
            attachments_max: limits.packet.attachments_max,
            depth_max: limits.packet.depth_max,
            room_bytes_max: limits.room_bytes_max,
            name_bytes_max: limits.packet.name_bytes_max,
            idempotency_ttl_ms: config.idempotency_ttl_ms,
        },
    })
}
