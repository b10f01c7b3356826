//! `/v1/sockets/join`, `leave`, `disconnect` and `update`: what can be done to sockets, wherever they are.

use std::sync::Arc;

use axum::extract::State;
use cluster_proto::identity::RequestId;
use cluster_proto::message::{Change, Operation, Reply, SocketUpdate};
use serde::Serialize;
use socketio_proto::namespace::NamespacePath;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::answer::Answer;
use crate::api::call::{Call, Context};
use crate::api::fields::{Raw, addressed, check_op, given};
use crate::api::openapi::Refusals;
use crate::api::problem::{Code, Problem};
use crate::auth::scope::Action;
use crate::document::binary::take_out;
use crate::event;
use crate::gather::done::Done;
use crate::selector::{Targets, membership, user_room};

addressed! {
    joining
    /// Rooms, and which sockets come into them or leave them.
    RoomsRequest {
        /// The namespace; `/` unless given.
        #[schema(max_length = 256, pattern = "^/[^,]*$")]
        namespace: Option<String>,
        /// One room that is joined or left.
        room: Option<String>,
        /// The rooms that are joined or left.
        rooms: Option<Vec<String>>,
        /// Everybody who is in any of these rooms.
        #[serde(rename = "in")]
        within: Option<Vec<String>>,
        /// One user: all sockets of that user.
        user: Option<String>,
    }
}

addressed! {
    plain
    /// Which sockets are disconnected.
    DisconnectRequest {
        /// The namespace; `/` unless given.
        #[schema(max_length = 256, pattern = "^/[^,]*$")]
        namespace: Option<String>,
        /// Whether the whole connection is closed, with all its namespaces.
        close: Option<bool>,
        /// One room.
        room: Option<String>,
        /// Rooms.
        rooms: Option<Vec<String>>,
        /// One user: all sockets of that user.
        user: Option<String>,
    }
}

addressed! {
    updating
    /// What changes, and of which sockets. What is left out stays; `null` removes.
    UpdateRequest {
        /// The namespace; `/` unless given.
        #[schema(max_length = 256, pattern = "^/[^,]*$")]
        namespace: Option<String>,
        /// Whose sockets they are from now on.
        #[serde(default, deserialize_with = "given")]
        user: Option<Option<String>>,
        /// The application's own data, any JSON value.
        #[serde(default, deserialize_with = "given")]
        #[schema(value_type = Value, required = false)]
        data: Option<Raw>,
        /// When the sockets are disconnected, in milliseconds since 1970.
        #[serde(default, deserialize_with = "given")]
        #[schema(value_type = Option<u64>, maximum = 9_007_199_254_740_991_u64)]
        expires_at: Option<Option<u64>>,
        /// One room.
        room: Option<String>,
        /// Rooms.
        rooms: Option<Vec<String>>,
    }
}

/// The edges have done it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SocketsDone {
    /// How many sockets it concerned; those of Node servers, which do it without a word, are not counted.
    pub(crate) sockets: u64,
    /// Whether every edge has said that it is done.
    pub(crate) complete: bool,
    /// The edges that have not.
    pub(crate) missing_nodes: Vec<String>,
}

/// Puts sockets into rooms.
///
/// When the answer comes, what is emitted to the rooms reaches the sockets.
#[utoipa::path(
    post, path = "/v1/sockets/join", tag = "sockets",
    request_body(content((RoomsRequest = "application/json"), (RoomsRequest = "application/msgpack"))),
    responses((status = 200, description = "It is done", content((SocketsDone = "application/json"), (SocketsDone = "application/msgpack"))), Refusals)
)]
pub(crate) async fn join(State(api): State<Arc<Api>>, call: Call) -> Result<Answer, Problem> {
    let request: RoomsRequest = call.parse()?;
    check_op(request.op.as_deref(), "join")?;
    Answer::ok(&Order::join(&api, &request)?.carry_out(&api, &call.context).await?)
}

/// Takes sockets out of rooms.
#[utoipa::path(
    post, path = "/v1/sockets/leave", tag = "sockets",
    request_body(content((RoomsRequest = "application/json"), (RoomsRequest = "application/msgpack"))),
    responses((status = 200, description = "It is done", content((SocketsDone = "application/json"), (SocketsDone = "application/msgpack"))), Refusals)
)]
pub(crate) async fn leave(State(api): State<Arc<Api>>, call: Call) -> Result<Answer, Problem> {
    let request: RoomsRequest = call.parse()?;
    check_op(request.op.as_deref(), "leave")?;
    Answer::ok(&Order::leave(&api, &request)?.carry_out(&api, &call.context).await?)
}

/// Disconnects sockets.
#[utoipa::path(
    post, path = "/v1/sockets/disconnect", tag = "sockets",
    request_body(content((DisconnectRequest = "application/json"), (DisconnectRequest = "application/msgpack"))),
    responses((status = 200, description = "It is done", content((SocketsDone = "application/json"), (SocketsDone = "application/msgpack"))), Refusals)
)]
pub(crate) async fn disconnect(State(api): State<Arc<Api>>, call: Call) -> Result<Answer, Problem> {
    let request: DisconnectRequest = call.parse()?;
    check_op(request.op.as_deref(), "disconnect")?;
    Answer::ok(&Order::disconnect(&api, &request)?.carry_out(&api, &call.context).await?)
}

/// Changes what is known of sockets: user, data, when they are disconnected.
///
/// Node servers in the cluster do not know this operation.
#[utoipa::path(
    post, path = "/v1/sockets/update", tag = "sockets",
    request_body(content((UpdateRequest = "application/json"), (UpdateRequest = "application/msgpack"))),
    responses((status = 200, description = "It is done", content((SocketsDone = "application/json"), (SocketsDone = "application/msgpack"))), Refusals)
)]
pub(crate) async fn update(State(api): State<Arc<Api>>, call: Call) -> Result<Answer, Problem> {
    let request: UpdateRequest = call.parse()?;
    check_op(request.op.as_deref(), "update")?;
    Answer::ok(&Order::update(&api, &request)?.carry_out(&api, &call.context).await?)
}

type Build = Box<dyn FnOnce(RequestId) -> Operation + Send>;

/// A call that was checked: what the edges are told.
pub(crate) struct Order {
    namespace: NamespacePath,
    build: Build,
}

impl Order {
    pub(crate) fn join(api: &Api, request: &RoomsRequest) -> Result<Self, Problem> {
        let rooms = rooms(api, request)?;
        Self::new(api, request.namespace.as_deref(), request.targets(), |selector| {
            Box::new(move |request| Operation::Join { selector, rooms, reply: Reply::All(request) })
        })
    }

    pub(crate) fn leave(api: &Api, request: &RoomsRequest) -> Result<Self, Problem> {
        let rooms = rooms(api, request)?;
        Self::new(api, request.namespace.as_deref(), request.targets(), |selector| {
            Box::new(move |request| Operation::Leave { selector, rooms, reply: Reply::All(request) })
        })
    }

    pub(crate) fn disconnect(api: &Api, request: &DisconnectRequest) -> Result<Self, Problem> {
        let close = request.close.unwrap_or(false);
        Self::new(api, request.namespace.as_deref(), request.targets(), |selector| {
            Box::new(move |request| Operation::Disconnect { selector, close, reply: Reply::All(request) })
        })
    }

    pub(crate) fn update(api: &Api, request: &UpdateRequest) -> Result<Self, Problem> {
        let update = changes(api, request)?;
        Self::new(api, request.namespace.as_deref(), request.targets(), |selector| {
            Box::new(move |request| Operation::Update { selector, update, reply: Reply::All(request) })
        })
    }

    fn new(
        api: &Api,
        namespace: Option<&str>,
        targets: Targets<'_>,
        build: impl FnOnce(cluster_proto::broadcast::Selector) -> Build,
    ) -> Result<Self, Problem> {
        let namespace =
            event::namespace(namespace, &api.limits).map_err(|problem| problem.at("/namespace"))?;
        let selector = targets.selector(api.config.selector_items_max, &api.limits)?;
        Ok(Self { namespace, build: build(selector) })
    }

    /// Tells the edges, and waits until they have done it.
    pub(crate) async fn carry_out(self, api: &Api, context: &Context) -> Result<SocketsDone, Problem> {
        context.may(Action::SocketsWrite, self.namespace.as_str())?;
        let within = api.config.request_timeout();
        let trace_parent = context.trace_parent.clone();
        let asked =
            api.link.ask(self.namespace, trace_parent, self.build, api.within(within), Done::default());
        let (done, end) = asked.await.map_err(|error| api.failed(error))?;
        let complete = end.missing.is_empty() && !end.timed_out;
        if !complete {
            api.metrics.queries_partial.add(1);
        }
        let missing_nodes = end.missing.iter().map(ToString::to_string).collect();
        Ok(SocketsDone { sockets: done.sockets, complete, missing_nodes })
    }
}

/// The rooms that are joined or left.
fn rooms(api: &Api, request: &RoomsRequest) -> Result<Vec<String>, Problem> {
    let check = |rooms: &[String]| {
        membership(rooms, api.config.selector_items_max, &api.limits, |node| api.is_edge(node))
    };
    match (&request.room, &request.rooms) {
        (Some(_), Some(_)) => {
            Err(Problem::new(Code::InvalidBody, "give either \"room\" or \"rooms\"").at("/room"))
        }
        (Some(room), None) => check(std::slice::from_ref(room)).map_err(|problem| problem.at("/room")),
        (None, rooms) => check(rooms.as_deref().unwrap_or_default()),
    }
}

/// The largest time that every reader of JSON keeps exactly.
const TIME_MAX_MS: u64 = 9_007_199_254_740_991;

fn changes(api: &Api, request: &UpdateRequest) -> Result<SocketUpdate, Problem> {
    let user = change(request.user.as_ref());
    if let Change::Set(user) = &user {
        user_room(user).map_err(|problem| problem.at("/user"))?;
    }
    let data = match &request.data {
        None => Change::Keep,
        Some(data) if data.get() == "null" => Change::Clear,
        Some(data) => Change::Set(checked_data(api, data.get()).map_err(|problem| problem.at("/data"))?),
    };
    let expires_at_ms = change(request.expires_at.as_ref());
    if matches!(expires_at_ms, Change::Set(at) if at > TIME_MAX_MS) {
        let detail = format!("a time is at most {TIME_MAX_MS} milliseconds since 1970");
        return Err(Problem::new(Code::InvalidValue, detail).at("/expires_at"));
    }
    let update = SocketUpdate { user, data, expires_at_ms };
    if update == SocketUpdate::default() {
        let detail = "say what changes: \"user\", \"data\" or \"expires_at\"";
        return Err(Problem::new(Code::InvalidBody, detail));
    }
    Ok(update)
}

fn checked_data(api: &Api, data: &str) -> Result<String, Problem> {
    let max = api.config.data_bytes_max;
    if data.len() > max {
        return Err(Problem::new(
            Code::EventTooLarge,
            format!("the data of a socket has at most {max} bytes"),
        ));
    }
    let (data, attachments) = take_out(data, api.limits.packet.depth_max)?;
    if !attachments.is_empty() {
        let detail = "the data of a socket has no binary values; keep them elsewhere, or as text";
        return Err(Problem::new(Code::InvalidArgs, detail));
    }
    Ok(data.into_owned())
}

fn change<T: Clone>(given: Option<&Option<T>>) -> Change<T> {
    match given {
        None => Change::Keep,
        Some(None) => Change::Clear,
        Some(Some(value)) => Change::Set(value.clone()),
    }
}
