//! `sockets`: lists what is connected, all over the cluster.

use clap::Args;
use serde_json::Value;

use crate::client::{Client, ClientArguments, expect_complete, show};
use crate::{Failure, print};

/// Lists the sockets of a namespace.
#[derive(Debug, Args)]
pub(crate) struct SocketsArguments {
    /// The namespace.
    #[arg(long, short, value_name = "NAMESPACE", default_value = "/")]
    namespace: String,
    /// Only sockets in this room.
    #[arg(long, short, value_name = "ROOM")]
    room: Option<String>,
    /// Only this socket.
    #[arg(long, short, value_name = "SID")]
    sid: Option<String>,
    /// Only sockets of this user.
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    client: ClientArguments,
}

pub(crate) fn run(arguments: &SocketsArguments) -> Result<(), Failure> {
    let query = [
        ("namespace", Some(arguments.namespace.as_str())),
        ("room", arguments.room.as_deref()),
        ("sid", arguments.sid.as_deref()),
        ("user", arguments.user.as_deref()),
    ];
    pages(&arguments.client, "/v1/sockets", &query, |answer| {
        let sockets = answer.get("sockets").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        sockets.iter().map(line).collect()
    })
}

/// Reads a list to its end, page by page. As JSON each page is a line.
pub(crate) fn pages(
    arguments: &ClientArguments,
    path: &str,
    query: &[(&str, Option<&str>)],
    lines: impl Fn(&Value) -> String,
) -> Result<(), Failure> {
    let client = Client::new(arguments)?;
    let mut cursor: Option<String> = None;
    let mut outcome = Ok(());
    loop {
        let mut query = query.to_vec();
        query.extend([("limit", Some("1000")), ("cursor", cursor.as_deref())]);
        let answer = client.get(path, &query)?;
        show(&answer, arguments.json, &lines)?;
        if outcome.is_ok() {
            outcome = expect_complete(&answer);
        }
        match answer.get("next_cursor").and_then(Value::as_str) {
            Some(next) => cursor = Some(next.to_owned()),
            None => return outcome,
        }
        // A reader that has gone shows only when something is written to it.
        print("")?;
    }
}

/// The id, the user and the rooms of a socket.
fn line(socket: &Value) -> String {
    let text = |name: &str| socket.get(name).and_then(Value::as_str).unwrap_or_default();
    let sid = text("sid");
    let user = if text("user").is_empty() { "-" } else { text("user") };
    let rooms = socket.get("rooms").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rooms: Vec<&str> = rooms
        .iter()
        .filter_map(Value::as_str)
        .filter(|room| *room != sid && !room.starts_with("user:"))
        .collect();
    format!("{sid}  {user}  {}\n", rooms.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_socket_is_a_line() {
        let socket = json!({"sid": "s", "rooms": ["s", "user:u", "a", "b"], "user": "u"});
        assert_eq!(line(&socket), "s  u  a b\n");
        assert_eq!(line(&json!({"sid": "s", "rooms": ["s"]})), "s  -  \n");
    }
}
