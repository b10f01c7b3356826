//! `/v1/batch`: several operations in one call, carried out in order.
//!
//! Emits that follow each other go to the broker without waiting for one another, which keeps their order; everything
//! else is waited for before the next operation begins, so that what is emitted after a join reaches who joined.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::answer::Answer;
use crate::api::call::{Call, Context, parse};
use crate::api::emit::{EmitAccepted, EmitRequest, Prepared, Publication, accept};
use crate::api::fields::Raw;
use crate::api::openapi::{BatchOperation, Refusals};
use crate::api::problem::{Code, Problem, ProblemDocument};
use crate::api::sockets::{DisconnectRequest, Order, RoomsRequest, SocketsDone, UpdateRequest};
use crate::link::LinkError;
use crate::selector::check_count;

/// Operations, carried out in order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest {
    /// The operations.
    #[schema(value_type = Vec<BatchOperation>)]
    operations: Vec<Raw>,
}

/// What became of each operation, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchAnswer {
    /// One result for each operation.
    results: Vec<BatchResult>,
}

/// What became of one operation. `status` is what the operation alone would have been answered with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BatchResult {
    /// An emit that the broker has.
    Accepted {
        /// 202.
        status: u16,
        /// As in the answer to an emit.
        id: String,
        /// Always true.
        accepted: bool,
    },
    /// A join, leave, disconnect or update.
    Done {
        /// 200.
        status: u16,
        /// How many sockets it concerned.
        sockets: u64,
        /// Whether every edge has said that it is done.
        complete: bool,
        /// The edges that have not.
        missing_nodes: Vec<String>,
    },
    /// An operation that was refused or failed.
    Refused(ProblemDocument),
}

/// Carries out several operations in order.
///
/// The answer is 200 with a status for each, unless no operation got through because the broker is away: then it is 503.
#[utoipa::path(
    post, path = "/v1/batch", tag = "emit",
    params(("Idempotency-Key" = Option<String>, Header, description = "Gives each emit without a key of its own the key `<this>#<index>`", min_length = 1, max_length = 255)),
    request_body(content((BatchRequest = "application/json"), (BatchRequest = "application/msgpack"))),
    responses((status = 200, description = "What became of each", content((BatchAnswer = "application/json"), (BatchAnswer = "application/msgpack"))), Refusals)
)]
pub(crate) async fn batch(State(api): State<Arc<Api>>, call: Call) -> Result<Answer, Problem> {
    let request: BatchRequest = call.parse()?;
    check_count(request.operations.len(), api.config.batch_operations_max, "/operations")?;
    api.metrics.batch_operations.add(request.operations.len() as u64);
    let mut run = Run { api: &api, context: &call.context, results: Vec::new(), broker_failed: false };
    for (index, operation) in request.operations.iter().enumerate() {
        run.step(index, operation.get()).await;
    }
    run.settle().await;
    run.answer()
}

type Confirmed = Pin<Box<dyn Future<Output = Result<(), LinkError>> + Send>>;

/// Where one operation stands.
enum Step {
    Ended(Result<BatchResult, Problem>),
    /// The broker has not said yet.
    Sent {
        confirmed: Confirmed,
        id: String,
        is_keyed: bool,
    },
}

/// A batch under way.
struct Run<'a> {
    api: &'a Api,
    context: &'a Context,
    results: Vec<Step>,
    /// The broker did not take an operation: those behind it are not tried, so that nothing overtakes.
    broker_failed: bool,
}

impl Run<'_> {
    async fn step(&mut self, index: usize, text: &str) {
        let prefix = format!("/operations/{index}");
        let step = match self.try_step(index, text).await {
            Ok(step) => step,
            Err(problem) => {
                let problem = problem.below(&prefix);
                let is_broker =
                    matches!(problem.code, Code::BrokerUnavailable | Code::OutcomeUnknown | Code::Overloaded);
                self.broker_failed |= is_broker;
                Step::Ended(Err(problem))
            }
        };
        self.results.push(step);
    }

    async fn try_step(&mut self, index: usize, text: &str) -> Result<Step, Problem> {
        if self.broker_failed {
            let detail = "the broker did not take an earlier operation of this batch; send this one again";
            return Err(Problem::new(Code::NotAttempted, detail));
        }
        // The first operation was counted with the call.
        if index > 0 {
            self.context.caller.charge().inspect_err(|_| self.api.metrics.rate_limited.add(1))?;
        }
        let Named { op } = parse(text).map_err(|problem| match problem.pointer.as_deref() {
            Some("") | None => Problem::new(Code::InvalidBody, "an operation is an object").at(""),
            Some(_) => problem,
        })?;
        match op.as_str() {
            "emit" => self.emit(index, &parse(text)?),
            "join" => self.order(Order::join(self.api, &parse::<RoomsRequest>(text)?)?).await,
            "leave" => self.order(Order::leave(self.api, &parse::<RoomsRequest>(text)?)?).await,
            "disconnect" => {
                self.order(Order::disconnect(self.api, &parse::<DisconnectRequest>(text)?)?).await
            }
            "update" => self.order(Order::update(self.api, &parse::<UpdateRequest>(text)?)?).await,
            _ => {
                let detail = "an operation is \"emit\", \"join\", \"leave\", \"disconnect\" or \"update\"";
                Err(Problem::new(Code::InvalidBody, detail).at("/op"))
            }
        }
    }

    fn emit(&mut self, index: usize, request: &EmitRequest) -> Result<Step, Problem> {
        if request.ack.is_some() {
            let detail = "a batch does not wait for acks; send this event with /v1/emit";
            return Err(Problem::new(Code::AckInBatch, detail).at("/ack"));
        }
        let derived = self.context.idempotency_key.as_ref().map(|key| format!("{key}#{index}"));
        let prepared = Prepared::new(self.api, self.context, request, derived.as_deref())?;
        match prepared.into_publication(self.api, self.context)? {
            Publication::Known(accepted) => Ok(Step::Ended(Ok(accepted.into()))),
            Publication::New(sent) => {
                let within = self.api.config.publish_timeout();
                let confirmed =
                    self.api.link.publish(sent.message, within).map_err(|error| self.api.failed(error))?;
                Ok(Step::Sent { confirmed: Box::pin(confirmed), id: sent.id, is_keyed: sent.is_keyed })
            }
        }
    }

    /// Carries out what is waited for. What was sent before is settled first: if the broker did not take it, this is not tried.
    async fn order(&mut self, order: Order) -> Result<Step, Problem> {
        self.settle().await;
        if self.broker_failed {
            let detail = "the broker did not take an earlier operation of this batch; send this one again";
            return Err(Problem::new(Code::NotAttempted, detail));
        }
        let done = order.carry_out(self.api, self.context).await?;
        Ok(Step::Ended(Ok(done.into())))
    }

    /// Waits for the broker to say what became of everything that was sent.
    async fn settle(&mut self) {
        for (index, step) in self.results.iter_mut().enumerate() {
            let Step::Sent { confirmed, id, is_keyed } = step else { continue };
            let outcome = accept(self.api, confirmed.await, std::mem::take(id), *is_keyed);
            self.broker_failed |= outcome.as_ref().is_err_and(|problem| problem.code.status() == 503);
            let prefix = format!("/operations/{index}");
            *step = Step::Ended(outcome.map(Into::into).map_err(|problem| problem.below(&prefix)));
        }
    }

    fn answer(self) -> Result<Answer, Problem> {
        let mut worst = None;
        let mut results = Vec::with_capacity(self.results.len());
        let mut got_through = self.results.is_empty();
        for step in self.results {
            results.push(match step {
                Step::Ended(Ok(result)) => {
                    got_through = true;
                    result
                }
                Step::Ended(Err(problem)) => {
                    got_through |= problem.code.status() != 503;
                    let document = problem.document(None);
                    worst.get_or_insert(problem);
                    BatchResult::Refused(document)
                }
                // Everything was settled before.
                Step::Sent { .. } => continue,
            });
        }
        match worst {
            Some(problem) if !got_through => Err(problem),
            _ => Answer::ok(&BatchAnswer { results }),
        }
    }
}

/// The name of an operation; its other fields are read once it is known.
#[derive(Deserialize)]
struct Named {
    op: String,
}

impl From<EmitAccepted> for BatchResult {
    fn from(EmitAccepted { id, accepted }: EmitAccepted) -> Self {
        Self::Accepted { status: 202, id, accepted }
    }
}

impl From<SocketsDone> for BatchResult {
    fn from(SocketsDone { sockets, complete, missing_nodes }: SocketsDone) -> Self {
        Self::Done { status: 200, sockets, complete, missing_nodes }
    }
}
