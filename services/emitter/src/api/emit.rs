//! `/v1/emit`: an event to sockets, without acks or with them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use cluster_proto::broadcast::{BroadcastFlags, BroadcastOptions, Selector};
use cluster_proto::message::{ClusterMessage, JsonData, Operation};
use serde::{Deserialize, Serialize};
use socketio_proto::namespace::NamespacePath;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::answer::Answer;
use crate::api::call::{Call, Context};
use crate::api::fields::{Raw, addressed, check_op, given, raw};
use crate::api::gate::fresh_id;
use crate::api::openapi::Refusals;
use crate::api::problem::{Code, Problem};
use crate::auth::scope::Action;
use crate::document::binary::put_in;
use crate::event;
use crate::gather::acks::Acks;
use crate::idempotency::{Memory, check_key, fingerprint, message_id};
use crate::link::LinkError;

addressed! {
    plain
    /// An event, and whom it is for.
    EmitRequest {
        /// The namespace; `/` unless given.
        namespace: Option<String>,
        /// The name of the event.
        event: String,
        /// The arguments. `{"$binary":"<base64>"}` stands for a binary value.
        #[schema(value_type = Option<Vec<Value>>)]
        args: Option<Raw>,
        /// The one argument, in place of `args`.
        #[serde(default, deserialize_with = "given")]
        #[schema(value_type = Value, required = false)]
        data: Option<Raw>,
        /// Clients that are behind may miss it.
        volatile: Option<bool>,
        /// Asks every client for an ack and waits for them.
        ack: Option<AckWish>,
        /// By which a repeat of the call is known. As good as the header `Idempotency-Key`.
        idempotency_key: Option<String>,
        /// One room.
        room: Option<String>,
        /// Rooms.
        rooms: Option<Vec<String>>,
        /// One user: all sockets of that user.
        user: Option<String>,
    }
}

/// How acks are waited for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AckWish {
    /// How long, in milliseconds; `emitter.ack_timeout_ms` unless given.
    timeout_ms: Option<u64>,
}

/// The broker has the event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmitAccepted {
    /// By which the edges know the event if the call had an idempotency key; else a number for the log.
    pub(crate) id: String,
    /// Always true.
    pub(crate) accepted: bool,
}

/// The acks of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmitAnswered {
    /// A number for the log.
    id: String,
    /// Who answered, and with what.
    responses: Vec<AckResponse>,
    /// Sockets that were asked and did not answer.
    missing: Vec<String>,
    /// How many more did not answer: clients of Node servers, and Node servers that were silent altogether.
    missing_unnamed: u64,
    /// Edges that did not say whom they asked.
    missing_nodes: Vec<String>,
    /// Acks that did not fit into this answer.
    left_out: u64,
    /// Whether the time ran out.
    timed_out: bool,
}

/// The ack of one client.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AckResponse {
    /// Its socket; clients of Node servers have none here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    sid: Option<String>,
    /// The arguments.
    #[schema(value_type = Vec<Value>)]
    args: Raw,
}

/// Emits an event.
///
/// Without `ack` the answer is 202 once the broker has the event; that nobody is there to hear it is no error.
/// With `ack` the answer is 200 with what the clients answered.
#[utoipa::path(
    post, path = "/v1/emit", tag = "emit",
    params(("Idempotency-Key" = Option<String>, Header, description = "By which a repeat of the call is known", min_length = 1, max_length = 255)),
    request_body(content((EmitRequest = "application/json"), (EmitRequest = "application/msgpack"))),
    responses(
        (status = 200, description = "What the clients answered", content((EmitAnswered = "application/json"), (EmitAnswered = "application/msgpack"))),
        (status = 202, description = "The broker has the event", content((EmitAccepted = "application/json"), (EmitAccepted = "application/msgpack"))),
        Refusals,
    )
)]
pub(crate) async fn emit(State(api): State<Arc<Api>>, call: Call) -> Result<Answer, Problem> {
    let request: EmitRequest = call.parse()?;
    check_op(request.op.as_deref(), "emit")?;
    let header_key = call.context.idempotency_key.as_deref();
    let prepared = Prepared::new(&api, &call.context, &request, header_key)?;
    if let Some(wish) = &request.ack {
        return prepared.ask(&api, &call.context, wish).await;
    }
    let (accepted, is_replayed) = match prepared.into_publication(&api, &call.context)? {
        Publication::Known(accepted) => (accepted, true),
        Publication::New(sent) => {
            let within = api.config.publish_timeout();
            let confirmed = api.link.publish(sent.message, within).map_err(|error| api.failed(error))?;
            (accept(&api, confirmed.await, sent.id, sent.is_keyed)?, false)
        }
    };
    Ok(Answer::new(StatusCode::ACCEPTED, &accepted)?.replayed(is_replayed))
}

/// Notes how a publish ended.
pub(crate) fn accept(
    api: &Api,
    outcome: Result<(), LinkError>,
    id: String,
    is_keyed: bool,
) -> Result<EmitAccepted, Problem> {
    outcome.map_err(|error| api.failed(error))?;
    api.metrics.emits.add(1);
    if is_keyed {
        api.memories.accept(&id);
    }
    Ok(EmitAccepted { id, accepted: true })
}

/// A call that was checked and is allowed.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    namespace: NamespacePath,
    event: JsonData,
    options: BroadcastOptions,
    key: Option<&'a str>,
}

/// What there is to do for an event without acks.
pub(crate) enum Publication {
    /// Nothing: it was accepted before.
    Known(EmitAccepted),
    /// It is to be published.
    New(Box<Sent>),
}

/// An event on its way to the broker.
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) is_keyed: bool,
    pub(crate) message: ClusterMessage,
}

impl<'a> Prepared<'a> {
    /// Checks a call. `other_key` is the idempotency key that it has if its body gives none.
    pub(crate) fn new(
        api: &Api,
        context: &Context,
        request: &'a EmitRequest,
        other_key: Option<&'a str>,
    ) -> Result<Self, Problem> {
        let namespace = event::namespace(request.namespace.as_deref(), &api.limits)
            .map_err(|problem| problem.at("/namespace"))?;
        context.may(Action::Emit, namespace.as_str())?;
        let event =
            event::event(&request.event, request.args.as_deref(), request.data.as_deref(), &api.limits)?;
        let selector = request.targets().selector(api.config.selector_items_max, &api.limits)?;
        if let Some(key) = &request.idempotency_key {
            check_key(key).map_err(|problem| problem.at("/idempotency_key"))?;
        }
        let key = request.idempotency_key.as_deref().or(other_key);
        if key.is_some() && request.ack.is_some() {
            let detail = "acks cannot be collected twice; leave the idempotency key out, or \"ack\"";
            return Err(Problem::new(Code::AckWithIdempotencyKey, detail).at("/ack"));
        }
        let flags =
            BroadcastFlags { volatile: request.volatile.unwrap_or(false), ..BroadcastFlags::default() };
        Ok(Self { namespace, event, options: BroadcastOptions { selector, flags }, key })
    }

    /// Looks whether the call is a repeat.
    pub(crate) fn into_publication(self, api: &Api, context: &Context) -> Result<Publication, Problem> {
        let key = self.key.map(|key| message_id(&context.caller.id, self.namespace.as_str(), key));
        if let Some(id) = &key {
            let memory = api.memories.begin(id, self.fingerprint(), Instant::now());
            let (ids, evicted) = api.memories.counts();
            api.metrics.idempotency_keys.set(ids as u64);
            api.metrics.idempotency_evicted.set(evicted);
            match memory.inspect_err(|_| api.metrics.idempotency_conflicts.add(1))? {
                Memory::New => {}
                Memory::Accepted => {
                    api.metrics.idempotency_replayed.add(1);
                    return Ok(Publication::Known(EmitAccepted { id: id.clone(), accepted: true }));
                }
            }
        }
        let operation = Operation::Broadcast { event: self.event, options: self.options };
        let message = ClusterMessage {
            sender: None,
            namespace: self.namespace,
            id: key.clone(),
            trace_parent: context.trace_parent.clone(),
            operation,
        };
        let is_keyed = key.is_some();
        let id = key.unwrap_or_else(fresh_id);
        Ok(Publication::New(Box::new(Sent { id, is_keyed, message })))
    }

    fn fingerprint(&self) -> [u8; 32] {
        let Selector { rooms, except } = &self.options.selector;
        let volatile = [u8::from(self.options.flags.volatile)];
        let count = (rooms.len() as u64).to_be_bytes();
        let mut parts: Vec<&[u8]> = vec![&volatile, &count, self.event.text.as_bytes()];
        parts.extend(rooms.iter().chain(except).map(String::as_bytes));
        parts.extend(self.event.attachments.iter().map(|attachment| &**attachment));
        fingerprint(&parts)
    }

    /// Publishes the event and collects the acks.
    async fn ask(mut self, api: &Api, context: &Context, wish: &AckWish) -> Result<Answer, Problem> {
        let within = ack_timeout(api, wish)?;
        self.options.flags.timeout_ms = u64::try_from(within.as_millis()).ok();
        let gather = Acks::new(api.config.ack_responses_max, api.config.answer_bytes_max);
        let (event, options) = (self.event, self.options);
        let operation = |request| Operation::BroadcastWithAck { request, event, options };
        let asked =
            api.link.ask(self.namespace, context.trace_parent.clone(), operation, api.within(within), gather);
        let (acks, end) = asked.await.map_err(|error| api.failed(error))?;
        api.metrics.emits.add(1);
        api.metrics.acks.add(acks.responses.len() as u64 + acks.left_out);
        api.metrics.acks_left_out.add(acks.left_out);
        let unnamed = end.missing_acks.saturating_sub(end.missing_sids.len() as u64);
        let mut missing = end.missing_sids;
        missing.sort_unstable();
        // Who still owes an ack of one client has said whom it asked.
        let silent = end.missing.iter().filter(|node| !acks.counted.contains(node));
        let response = |(sid, args): (Option<String>, JsonData)| AckResponse {
            sid,
            args: raw(put_in(&args).into_owned()),
        };
        Answer::ok(&EmitAnswered {
            id: fresh_id(),
            responses: acks.responses.into_iter().map(response).collect(),
            missing,
            missing_unnamed: unnamed.saturating_add(end.missing_unnamed),
            missing_nodes: silent.map(ToString::to_string).collect(),
            left_out: acks.left_out,
            timed_out: end.timed_out,
        })
    }
}

/// The time that a call gives for acks.
pub(crate) fn ack_timeout(api: &Api, wish: &AckWish) -> Result<Duration, Problem> {
    let max = api.config.ack_timeout_max_ms;
    let wished = wish.timeout_ms.unwrap_or(api.config.ack_timeout_ms);
    if !(1..=max).contains(&wished) {
        let detail = format!("acks are waited for 1 to {max} milliseconds");
        return Err(Problem::new(Code::InvalidValue, detail).at("/ack/timeout_ms"));
    }
    Ok(Duration::from_millis(wished))
}
