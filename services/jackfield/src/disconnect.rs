//! `disconnect`: disconnects sockets through the emitter's API.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::Failure;
use crate::client::{Client, ClientArguments, TargetArguments, expect_complete, show};

/// Disconnects sockets.
#[derive(Debug, Args)]
pub(crate) struct DisconnectArguments {
    #[command(flatten)]
    targets: TargetArguments,
    /// Closes the whole connection, with all its namespaces.
    #[arg(long)]
    close: bool,
    #[command(flatten)]
    client: ClientArguments,
}

pub(crate) fn run(arguments: &DisconnectArguments) -> Result<(), Failure> {
    let mut body = arguments.targets.fields();
    body.insert("close".to_owned(), arguments.close.into());
    let client = Client::new(&arguments.client)?;
    let answer = client.post("/v1/sockets/disconnect", &Value::Object(body), Duration::ZERO)?;
    show(&answer, arguments.client.json, |answer| {
        let sockets = answer.get("sockets").and_then(Value::as_u64).unwrap_or_default();
        format!("disconnected {sockets}\n")
    })?;
    expect_complete(&answer)
}
