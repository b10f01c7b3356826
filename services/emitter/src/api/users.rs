//! `/v1/users/query`: which of these users are online.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use cluster_proto::broadcast::Selector;
use cluster_proto::listing::{Filter, List, Listing, Names};
use cluster_proto::response::ClusterResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::answer::Answer;
use crate::api::call::Call;
use crate::api::listing::{Missing, Place, fetch};
use crate::api::openapi::Refusals;
use crate::api::problem::{Code, Problem};
use crate::auth::scope::Action;
use crate::event;
use crate::gather::page::for_each_name;
use crate::link::Gather;
use crate::selector::{check_count, user_room};

/// Most users of one question.
const USERS_MAX: usize = 1_000;

/// Users, by their ids.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsersQueryRequest {
    /// The namespace; `/` unless given.
    #[schema(max_length = 256, pattern = "^/[^,]*$")]
    namespace: Option<String>,
    /// Up to 1,000 ids.
    #[schema(min_items = 1, max_items = 1000)]
    users: Vec<String>,
}

/// Which users are online.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsersQueryAnswer {
    /// One entry for each user that was asked for, in that order.
    users: Vec<UserState>,
    #[serde(flatten)]
    missing: Missing,
}

/// Whether a user is online.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserState {
    /// The id.
    user: String,
    /// Whether the user has a socket in the namespace.
    online: bool,
    /// How many.
    sockets: u64,
}

/// Says which of up to 1,000 users are online.
#[utoipa::path(
    post, path = "/v1/users/query", tag = "users",
    request_body(content((UsersQueryRequest = "application/json"), (UsersQueryRequest = "application/msgpack"))),
    responses((status = 200, description = "Who is online", content((UsersQueryAnswer = "application/json"), (UsersQueryAnswer = "application/msgpack"))), Refusals)
)]
pub(crate) async fn query(State(api): State<Arc<Api>>, call: Call) -> Result<Answer, Problem> {
    let request: UsersQueryRequest = call.parse()?;
    let namespace = event::namespace(request.namespace.as_deref(), &api.limits)
        .map_err(|problem| problem.at("/namespace"))?;
    call.context.may(Action::SocketsRead, namespace.as_str())?;
    if request.users.is_empty() {
        return Err(Problem::new(Code::InvalidValue, "name at least one user").at("/users"));
    }
    check_count(request.users.len(), USERS_MAX, "/users")?;
    let mut rooms = Vec::with_capacity(request.users.len());
    for (index, user) in request.users.iter().enumerate() {
        rooms.push(user_room(user).map_err(|problem| problem.at(format!("/users/{index}")))?);
    }
    rooms.sort_unstable();
    rooms.dedup();
    // Of nobody else sockets are asked for, so no more names can be found than these.
    let limit = u32::try_from(rooms.len()).unwrap_or(u32::MAX);
    let listing = Listing { list: List::Users(Names::Any), filter: Filter::default(), after: None, limit };
    let place = Place { namespace, selector: Selector { rooms, except: Vec::new() } };
    let asked = request.users.iter().map(|user| (user.clone(), 0)).collect();
    let online = Online { sockets: asked, listing: listing.clone() };
    let (online, missing) = fetch(&api, &call.context, place, listing, online).await?;
    let state = |user: String| {
        let sockets = online.sockets.get(&user).copied().unwrap_or_default();
        UserState { user, online: sockets > 0, sockets }
    };
    Answer::ok(&UsersQueryAnswer { users: request.users.into_iter().map(state).collect(), missing })
}

/// Counts the sockets of those users that were asked for.
#[derive(Debug)]
struct Online {
    sockets: BTreeMap<String, u64>,
    /// What was asked for. Not every node can answer only that.
    listing: Listing,
}

impl Gather for Online {
    fn take(&mut self, response: ClusterResponse) {
        let Self { sockets: asked, listing } = self;
        for_each_name(&response.answer, listing, |user, sockets| {
            if let Some(count) = asked.get_mut(user) {
                *count = count.saturating_add(sockets);
            }
        });
    }
}
