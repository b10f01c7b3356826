//! `rooms`: lists rooms with the number of sockets in each.

use clap::Args;
use serde_json::Value;

use crate::Failure;
use crate::client::ClientArguments;
use crate::sockets::pages;

/// Lists the rooms of a namespace.
#[derive(Debug, Args)]
pub(crate) struct RoomsArguments {
    /// Only the room of this name, or with `*` at its end those whose names begin so.
    name: Option<String>,
    /// The namespace.
    #[arg(long, short, value_name = "NAMESPACE", default_value = "/")]
    namespace: String,
    /// Only the rooms of this socket.
    #[arg(long, short, value_name = "SID")]
    sid: Option<String>,
    /// Only rooms with sockets of this user.
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    client: ClientArguments,
}

pub(crate) fn run(arguments: &RoomsArguments) -> Result<(), Failure> {
    let query = [
        ("namespace", Some(arguments.namespace.as_str())),
        ("name", arguments.name.as_deref()),
        ("sid", arguments.sid.as_deref()),
        ("user", arguments.user.as_deref()),
    ];
    pages(&arguments.client, "/v1/rooms", &query, |answer| {
        let rooms = answer.get("rooms").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        rooms.iter().map(line).collect()
    })
}

fn line(room: &Value) -> String {
    let name = room.get("room").and_then(Value::as_str).unwrap_or_default();
    let sockets = room.get("sockets").and_then(Value::as_u64).unwrap_or_default();
    format!("{sockets:>8}  {name}\n")
}
