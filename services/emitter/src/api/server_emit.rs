//! `/v1/server-emit`: an event for the application code of the Node servers in a mixed cluster.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use cluster_proto::message::{ClusterMessage, Operation};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::answer::Answer;
use crate::api::call::Call;
use crate::api::emit::{AckWish, EmitAccepted, accept, ack_timeout};
use crate::api::fields::{Raw, given, raw};
use crate::api::gate::fresh_id;
use crate::api::openapi::Refusals;
use crate::api::problem::{Code, Problem};
use crate::auth::scope::Action;
use crate::event;
use crate::gather::values::Values;

/// An event for application code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerEmitRequest {
    /// The namespace; `/` unless given.
    namespace: Option<String>,
    /// The name of the event.
    event: String,
    /// The arguments. Binary values cannot travel between servers.
    #[schema(value_type = Option<Vec<Value>>)]
    args: Option<Raw>,
    /// The one argument, in place of `args`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Value, required = false)]
    data: Option<Raw>,
    /// Asks every server for an answer and waits for them.
    ack: Option<AckWish>,
}

/// What the servers answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServerEmitAnswered {
    /// One value for each server that answered with one.
    #[schema(value_type = Vec<Value>)]
    responses: Vec<Raw>,
    /// Edges that did not answer.
    missing_nodes: Vec<String>,
    /// How many Node servers did not answer.
    missing_unnamed: u64,
    /// Answers that did not fit.
    left_out: u64,
    /// Whether the time ran out.
    timed_out: bool,
}

/// Hands an event to the application code of every Node server in the cluster (`serverSideEmit`).
#[utoipa::path(
    post, path = "/v1/server-emit", tag = "emit",
    request_body(content((ServerEmitRequest = "application/json"), (ServerEmitRequest = "application/msgpack"))),
    responses(
        (status = 200, description = "What the servers answered", content((ServerEmitAnswered = "application/json"), (ServerEmitAnswered = "application/msgpack"))),
        (status = 202, description = "The broker has the event", content((EmitAccepted = "application/json"), (EmitAccepted = "application/msgpack"))),
        Refusals,
    )
)]
pub(crate) async fn server_emit(State(api): State<Arc<Api>>, call: Call) -> Result<Answer, Problem> {
    let request: ServerEmitRequest = call.parse()?;
    let namespace = event::namespace(request.namespace.as_deref(), &api.limits)
        .map_err(|problem| problem.at("/namespace"))?;
    call.context.may(Action::ServerEmit, namespace.as_str())?;
    let event = event::event(&request.event, request.args.as_deref(), request.data.as_deref(), &api.limits)?;
    if event.binary {
        let detail = "binary values cannot travel between servers; send them as text";
        let field = if request.args.is_some() { "/args" } else { "/data" };
        return Err(Problem::new(Code::InvalidArgs, detail).at(field));
    }
    let trace_parent = call.context.trace_parent.clone();
    let Some(wish) = &request.ack else {
        let operation = Operation::ServerSideEmit { request: None, event };
        let message = ClusterMessage { sender: None, namespace, id: None, trace_parent, operation };
        let within = api.config.publish_timeout();
        let confirmed = api.link.publish(message, within).map_err(|error| api.failed(error))?;
        let accepted = accept(&api, confirmed.await, fresh_id(), false)?;
        return Answer::new(StatusCode::ACCEPTED, &accepted);
    };
    let within = ack_timeout(&api, wish)?;
    let gather = Values::new(api.config.ack_responses_max, api.config.answer_bytes_max);
    let operation = |request| Operation::ServerSideEmit { request: Some(request), event };
    let asked = api.link.ask(namespace, trace_parent, operation, api.within(within), gather);
    let (values, end) = asked.await.map_err(|error| api.failed(error))?;
    api.metrics.emits.add(1);
    Answer::ok(&ServerEmitAnswered {
        responses: values.values.into_iter().map(raw).collect(),
        missing_nodes: end.missing.iter().map(ToString::to_string).collect(),
        missing_unnamed: end.missing_unnamed,
        left_out: values.left_out,
        timed_out: end.timed_out,
    })
}
