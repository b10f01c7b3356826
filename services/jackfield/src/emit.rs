//! `emit`: sends an event through the emitter's API.

use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value};

use crate::Failure;
use crate::client::{Client, ClientArguments, TargetArguments, show};

/// Sends an event to sockets.
#[derive(Debug, Args)]
pub(crate) struct EmitArguments {
    /// The name of the event.
    event: String,
    /// The arguments: JSON, and what is no JSON is text.
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<String>,
    #[command(flatten)]
    targets: TargetArguments,
    /// Asks every client for an ack and waits for so many milliseconds.
    #[arg(long, value_name = "MS", num_args = 0..=1, default_missing_value = "10000", require_equals = true)]
    ack: Option<u64>,
    /// Clients that are behind may miss it.
    #[arg(long)]
    volatile: bool,
    /// Makes a repeat of the call harmless.
    #[arg(long, value_name = "KEY", conflicts_with = "ack")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    client: ClientArguments,
}

pub(crate) fn run(arguments: &EmitArguments) -> Result<(), Failure> {
    let answer = Client::new(&arguments.client)?.post(
        "/v1/emit",
        &Value::Object(body(arguments)),
        Duration::from_millis(arguments.ack.unwrap_or(0)),
    )?;
    show(&answer, arguments.client.json, lines)?;
    let silent = silent(&answer);
    if silent > 0 {
        return Err(Failure::Partly(format!("{silent} did not answer in time")));
    }
    Ok(())
}

fn body(arguments: &EmitArguments) -> Map<String, Value> {
    let mut body = arguments.targets.fields();
    body.insert("event".to_owned(), arguments.event.clone().into());
    let args: Vec<Value> = arguments.args.iter().map(|text| value(text)).collect();
    body.insert("args".to_owned(), args.into());
    if arguments.volatile {
        body.insert("volatile".to_owned(), true.into());
    }
    if let Some(timeout_ms) = arguments.ack {
        body.insert("ack".to_owned(), serde_json::json!({ "timeout_ms": timeout_ms }));
    }
    if let Some(key) = &arguments.idempotency_key {
        body.insert("idempotency_key".to_owned(), key.clone().into());
    }
    body
}

/// An argument of the command line as JSON.
pub(crate) fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn lines(answer: &Value) -> String {
    let Some(responses) = answer.get("responses").and_then(Value::as_array) else {
        return "accepted\n".to_owned();
    };
    let mut lines = String::new();
    for response in responses {
        let sid = response.get("sid").and_then(Value::as_str).unwrap_or("(unnamed)");
        let args = response.get("args").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        lines.push_str(&format!("{sid} {}\n", args.join(" ")));
    }
    for sid in answer.get("missing").and_then(Value::as_array).into_iter().flatten() {
        lines.push_str(&format!("{} did not answer\n", sid.as_str().unwrap_or_default()));
    }
    lines
}

/// How many were asked and did not answer; an edge that said nothing counts once.
fn silent(answer: &Value) -> u64 {
    let list = |name: &str| answer.get(name).and_then(Value::as_array).map_or(0, Vec::len) as u64;
    list("missing")
        + list("missing_nodes")
        + answer.get("missing_unnamed").and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_json_is_text() {
        assert_eq!(value("7"), json!(7));
        assert_eq!(value(r#"{"a":[]}"#), json!({"a": []}));
        assert_eq!(value("hello"), json!("hello"));
        assert_eq!(value("\"7\""), json!("7"));
    }

    #[test]
    fn acks_are_a_line_each() {
        let answer = json!({
            "responses": [{"sid": "a", "args": [true, "x"]}, {"args": []}],
            "missing": ["b"], "missing_unnamed": 2, "missing_nodes": ["n"]
        });
        assert_eq!(lines(&answer), "a true \"x\"\n(unnamed) \nb did not answer\n");
        assert_eq!(silent(&answer), 4);
        assert_eq!(lines(&json!({"accepted": true})), "accepted\n");
    }
}
