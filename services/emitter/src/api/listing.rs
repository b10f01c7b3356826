//! `/v1/sockets`, `/v1/rooms`, `/v1/users`: what is connected, all over the cluster.

#![allow(unused_qualifications, reason = "the macros that describe the API write whole paths")]

use std::sync::Arc;

use axum::extract::State;
use cluster_proto::broadcast::Selector;
use cluster_proto::listing::{self, Filter, Listing, Names};
use cluster_proto::message::{JsonData, Operation};
use cluster_proto::response::RemoteSocket;
use serde::{Deserialize, Serialize};
use socketio_proto::namespace::NamespacePath;
use utoipa::{IntoParams, ToSchema};

use crate::api::Api;
use crate::api::answer::Answer;
use crate::api::call::{Context, Question};
use crate::api::fields::{Raw, raw};
use crate::api::openapi::Refusals;
use crate::api::problem::Problem;
use crate::api::query;
use crate::auth::scope::Action;
use crate::cursor::List;
use crate::document::binary::put_in;
use crate::event;
use crate::gather::page::{Counts, Page, Sockets};
use crate::link::Gather;
use crate::selector::{checked_room, checked_sid, user_room};

/// Most sockets that an edge puts into one message.
const SOCKETS_PER_MESSAGE: u32 = 500;

/// Which sockets are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SocketsQuery {
    /// The namespace; `/` unless given.
    namespace: Option<String>,
    /// Only sockets in this room.
    room: Option<String>,
    /// Only this socket.
    sid: Option<String>,
    /// Only sockets of this user.
    user: Option<String>,
    /// How many items a page has at most; 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which rooms are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RoomsQuery {
    /// The namespace; `/` unless given.
    namespace: Option<String>,
    /// Only the rooms of this socket.
    sid: Option<String>,
    /// Only rooms with sockets of this user, which alone are counted.
    user: Option<String>,
    /// Only the room of this name, or with `*` at its end those whose names begin so.
    name: Option<String>,
    /// How many items a page has at most; 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which users are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UsersQuery {
    /// The namespace; `/` unless given.
    namespace: Option<String>,
    /// Only users with sockets in this room, which alone are counted.
    room: Option<String>,
    /// Only this user, or with `*` at its end those whose ids begin so.
    name: Option<String>,
    /// How many items a page has at most; 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A page of sockets, sorted by id.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SocketsPage {
    /// The sockets.
    sockets: Vec<SocketItem>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    next_cursor: Option<String>,
    #[serde(flatten)]
    missing: Missing,
}

/// A page of rooms, sorted by name. The own rooms of sockets and those of users are no part of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RoomsPage {
    /// The rooms.
    rooms: Vec<RoomItem>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    next_cursor: Option<String>,
    #[serde(flatten)]
    missing: Missing,
}

/// A page of users, sorted by id.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsersPage {
    /// The users.
    users: Vec<UserItem>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    next_cursor: Option<String>,
    #[serde(flatten)]
    missing: Missing,
}

/// Whose part of an answer is missing.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Missing {
    /// Whether every node had its part in the answer.
    pub(crate) complete: bool,
    /// Edges that had none.
    pub(crate) missing_nodes: Vec<String>,
    /// How many Node servers had none.
    pub(crate) missing_unnamed: u64,
}

/// A socket.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SocketItem {
    /// Its id.
    sid: String,
    /// The rooms that it is in, its own among them, sorted.
    rooms: Vec<String>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    user: Option<String>,
    /// The application's own data.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value, required = false)]
    data: Option<Raw>,
    /// What is shown of its handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value, required = false)]
    handshake: Option<Raw>,
}

/// A room.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RoomItem {
    /// Its name.
    room: String,
    /// How many sockets are in it.
    sockets: u64,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserItem {
    /// The id.
    user: String,
    /// How many sockets the user has.
    sockets: u64,
}

/// Lists sockets.
///
/// Each page asks all edges. What is there throughout appears on exactly one page.
#[utoipa::path(
    get, path = "/v1/sockets", tag = "sockets", params(SocketsQuery),
    responses((status = 200, description = "A page", content((SocketsPage = "application/json"), (SocketsPage = "application/msgpack"))), Refusals)
)]
pub(crate) async fn sockets(State(api): State<Arc<Api>>, question: Question) -> Result<Answer, Problem> {
    let query: SocketsQuery = query::parse(&question.query)?;
    let filters = Filters { room: query.room, sid: query.sid, user: query.user };
    let place = Place::new(&api, &question.context, query.namespace.as_deref(), &filters)?;
    let page = page(&api, List::Sockets, query.limit, query.cursor.as_deref())?;
    let listing = page.listing(listing::List::Sockets, filters.into());
    let gather = Sockets { page, listing: listing.clone() };
    let (gathered, missing) = fetch(&api, &question.context, place, listing, gather).await?;
    note_cut(&api, gathered.page.is_cut);
    let (items, last) = gathered.page.finish();
    Answer::ok(&SocketsPage {
        sockets: items.into_iter().map(|(_, socket)| item(socket)).collect(),
        next_cursor: last.map(|last| List::Sockets.cursor(&last)),
        missing,
    })
}

/// Lists rooms with the number of sockets in each.
#[utoipa::path(
    get, path = "/v1/rooms", tag = "sockets", params(RoomsQuery),
    responses((status = 200, description = "A page", content((RoomsPage = "application/json"), (RoomsPage = "application/msgpack"))), Refusals)
)]
pub(crate) async fn rooms(State(api): State<Arc<Api>>, question: Question) -> Result<Answer, Problem> {
    let query: RoomsQuery = query::parse(&question.query)?;
    let exact = query.name.as_deref().filter(|name| !name.ends_with('*'));
    let filters = Filters { room: exact.map(str::to_owned), sid: query.sid, user: query.user };
    let place = Place::new(&api, &question.context, query.namespace.as_deref(), &filters)?;
    let names = names(query.name.as_deref(), |start| checked_room(start, &api.limits).map(drop))?;
    let page = page(&api, List::Rooms, query.limit, query.cursor.as_deref())?;
    let listing = page.listing(listing::List::Rooms(names), filters.into());
    let (items, last, missing) = count(&api, &question.context, place, page, listing).await?;
    let next_cursor = last.map(|last| List::Rooms.cursor(&last));
    let rooms = items.into_iter().map(|(room, sockets)| RoomItem { room, sockets }).collect();
    Answer::ok(&RoomsPage { rooms, next_cursor, missing })
}

/// Lists users with the number of sockets of each.
#[utoipa::path(
    get, path = "/v1/users", tag = "users", params(UsersQuery),
    responses((status = 200, description = "A page", content((UsersPage = "application/json"), (UsersPage = "application/msgpack"))), Refusals)
)]
pub(crate) async fn users(State(api): State<Arc<Api>>, question: Question) -> Result<Answer, Problem> {
    let query: UsersQuery = query::parse(&question.query)?;
    let exact = query.name.as_deref().filter(|name| !name.ends_with('*'));
    let filters = Filters { room: query.room, sid: None, user: exact.map(str::to_owned) };
    let place = Place::new(&api, &question.context, query.namespace.as_deref(), &filters)?;
    let names = names(query.name.as_deref(), checked_user_start)?;
    let page = page(&api, List::Users, query.limit, query.cursor.as_deref())?;
    let listing = page.listing(listing::List::Users(names), filters.into());
    let (items, last, missing) = count(&api, &question.context, place, page, listing).await?;
    let next_cursor = last.map(|last| List::Users.cursor(&last));
    let users = items.into_iter().map(|(user, sockets)| UserItem { user, sockets }).collect();
    Answer::ok(&UsersPage { users, next_cursor, missing })
}

/// What a question is narrowed to.
#[derive(Debug, Default)]
struct Filters {
    room: Option<String>,
    sid: Option<String>,
    user: Option<String>,
}

impl Filters {
    /// Whom the edges are asked for: by the filter that fits fewest. The others are judged socket by socket.
    fn selector(&self, api: &Api) -> Result<Selector, Problem> {
        if let Some(room) = &self.room {
            checked_room(room, &api.limits).map_err(|problem| problem.about("room"))?;
        }
        let user_room = match &self.user {
            Some(user) => Some(user_room(user).map_err(|problem| problem.about("user"))?),
            None => None,
        };
        if let Some(sid) = &self.sid {
            checked_sid(sid, &api.limits).map_err(|problem| problem.about("sid"))?;
        }
        let narrowest = self.sid.clone().or(user_room).or_else(|| self.room.clone());
        Ok(narrowest.map(Selector::room).unwrap_or_default())
    }
}

impl From<Filters> for Filter {
    fn from(filters: Filters) -> Self {
        let Filters { room, sid, user } = filters;
        Self { rooms: room.into_iter().chain(sid).collect(), user }
    }
}

/// Where a question is asked, and whom it is about.
pub(crate) struct Place {
    pub(crate) namespace: NamespacePath,
    pub(crate) selector: Selector,
}

impl Place {
    fn new(
        api: &Api,
        context: &Context,
        namespace: Option<&str>,
        filters: &Filters,
    ) -> Result<Self, Problem> {
        let namespace =
            event::namespace(namespace, &api.limits).map_err(|problem| problem.about("namespace"))?;
        context.may(Action::SocketsRead, namespace.as_str())?;
        Ok(Self { selector: filters.selector(api)?, namespace })
    }
}

fn page<T>(api: &Api, list: List, limit: Option<u64>, cursor: Option<&str>) -> Result<Page<T>, Problem> {
    let items_max = query::limit(limit, api.config.page_items_max)?;
    let after = cursor.map(|cursor| list.parse(cursor)).transpose()?;
    Ok(Page::new(after, items_max, api.config.answer_bytes_max))
}

/// Parses which names are listed: one, or with `*` at the end those that begin so.
fn names(
    filter: Option<&str>,
    check_start: impl FnOnce(&str) -> Result<(), Problem>,
) -> Result<Names, Problem> {
    let Some(filter) = filter else { return Ok(Names::Any) };
    let Some(start) = filter.strip_suffix('*') else { return Ok(Names::Exactly(filter.to_owned())) };
    check_start(start).map_err(|problem| problem.about("name"))?;
    Ok(Names::StartingWith(start.to_owned()))
}

fn checked_user_start(start: &str) -> Result<(), Problem> {
    if start.is_empty() { Ok(()) } else { user_room(start).map(drop) }
}

/// Names with their counts, the last of them if the list goes on, and whose part is missing.
type Counted = (Vec<(String, u64)>, Option<String>, Missing);

async fn count(
    api: &Api,
    context: &Context,
    place: Place,
    page: Page<u64>,
    listing: Listing,
) -> Result<Counted, Problem> {
    let gather = Counts { page, listing: listing.clone() };
    let (gathered, missing) = fetch(api, context, place, listing, gather).await?;
    note_cut(api, gathered.page.is_cut);
    let (items, last) = gathered.page.finish();
    Ok((items, last, missing))
}

/// Asks all edges for the part of a list that is wanted.
pub(crate) async fn fetch<G: Gather>(
    api: &Api,
    context: &Context,
    place: Place,
    listing: Listing,
    gather: G,
) -> Result<(G, Missing), Problem> {
    let Place { namespace, selector } = place;
    let page_sockets_max = Some(SOCKETS_PER_MESSAGE);
    let operation =
        |request| Operation::Fetch { request, selector, page_sockets_max, listing: Some(listing) };
    let within = api.config.request_timeout();
    let asked = api.link.ask(namespace, context.trace_parent.clone(), operation, api.within(within), gather);
    let (gathered, end) = asked.await.map_err(|error| api.failed(error))?;
    let missing = Missing {
        complete: end.missing.is_empty() && end.missing_unnamed == 0 && !end.timed_out,
        missing_nodes: end.missing.iter().map(ToString::to_string).collect(),
        missing_unnamed: end.missing_unnamed,
    };
    if !missing.complete {
        api.metrics.queries_partial.add(1);
    }
    Ok((gathered, missing))
}

fn note_cut(api: &Api, is_cut: bool) {
    api.metrics.pages_cut.add(u64::from(is_cut));
}

fn item(mut socket: RemoteSocket) -> SocketItem {
    socket.rooms.sort_unstable();
    let user = socket.candidate().user().map(str::to_owned);
    let outside = |text: String| raw(put_in(&JsonData::text(text)).into_owned());
    SocketItem {
        sid: socket.id,
        rooms: socket.rooms,
        user,
        data: socket.data.map(outside),
        handshake: socket.handshake.map(outside),
    }
}
