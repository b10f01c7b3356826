//! `listen`: a Socket.IO client that prints the events of a namespace live.
//!
//! A client cannot put itself into a room, so with `--room` the emitter's API does it.

use std::time::Duration;

use clap::Args;
use futures_util::{SinkExt, StreamExt};
use ops::config::load::load;
use ops::signals::StopSignals;
use serde_json::{Value, json};
use socketio_proto::limits::Limits;
use socketio_proto::packet::{Packet, PacketType, ProtocolVersion};
use socketio_proto::parser::Parser;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::client::{Client, ClientArguments};
use crate::config::GatewayConfig;
use crate::serve::url;
use crate::{Failure, SourceArguments, print};

/// How long a connection may take until it is in its namespace.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How much later than announced a ping may come.
const PING_GRACE: Duration = Duration::from_secs(5);

/// Prints the events that a client in a namespace or a room is sent.
#[derive(Debug, Args)]
pub(crate) struct ListenArguments {
    /// URL of an edge, or of what stands before it [default: edge.listen of the configuration].
    #[arg(value_name = "URL")]
    clients: Option<String>,
    /// The path of Socket.IO.
    #[arg(long, value_name = "PATH", default_value = "/socket.io/")]
    path: String,
    /// The namespace.
    #[arg(long, short, value_name = "NAMESPACE", default_value = "/")]
    namespace: String,
    /// Joins this room through the emitter's API; may be repeated.
    #[arg(long = "room", short, value_name = "ROOM")]
    rooms: Vec<String>,
    /// What the client shows when it connects, a JSON object.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    auth: String,
    /// Ends after so many events.
    #[arg(long, value_name = "EVENTS")]
    count: Option<u64>,
    #[command(flatten)]
    client: ClientArguments,
}

pub(crate) fn run(arguments: &ListenArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Running(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        let mut signals = StopSignals::install()
            .map_err(|error| Failure::Running(format!("cannot handle signals: {error}")))?;
        tokio::select! {
            outcome = listen(arguments) => outcome,
            _ = signals.next() => Ok(()),
        }
    })
}

async fn listen(arguments: &ListenArguments) -> Result<(), Failure> {
    let auth: Value =
        serde_json::from_str(&arguments.auth).ok().filter(Value::is_object).ok_or_else(|| {
            Failure::Usage("--auth must be a JSON object, such as '{\"token\":\"x\"}'".to_owned())
        })?;
    let address = address(arguments)?;
    let connecting = async {
        let mut connection = Connection::open(&address).await?;
        let sid = connection.enter(&arguments.namespace, &auth).await?;
        Ok::<_, Failure>((connection, sid))
    };
    let (mut connection, sid) = timeout(CONNECT_WITHIN, connecting)
        .await
        .map_err(|_| Failure::Running(format!("{address} did not let the client in within 10 seconds")))??;
    if !arguments.rooms.is_empty() {
        join(arguments, &sid)?;
    }
    if !arguments.client.json {
        print(&format!("connected to {} as {sid}\n", arguments.namespace))?;
    }
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        let packet = connection.packet().await?;
        if packet.namespace != arguments.namespace {
            continue;
        }
        match packet.packet_type {
            PacketType::Event | PacketType::BinaryEvent => {
                print(&line(&packet, arguments.client.json))?;
                left -= 1;
            }
            PacketType::Disconnect => {
                return Err(Failure::Running("the server has disconnected this client".to_owned()));
            }
            PacketType::Connect | PacketType::ConnectError | PacketType::Ack | PacketType::BinaryAck => {}
        }
    }
    Ok(())
}

/// Puts the client's socket into the rooms.
fn join(arguments: &ListenArguments, sid: &str) -> Result<(), Failure> {
    let body = json!({ "namespace": arguments.namespace, "sid": sid, "rooms": arguments.rooms });
    let answer = Client::new(&arguments.client)?.post("/v1/sockets/join", &body, Duration::ZERO)?;
    match answer.get("sockets").and_then(Value::as_u64) {
        Some(0) => Err(Failure::Running(
            "the emitter does not find this client; is it of the same cluster?".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// The address of the WebSocket.
fn address(arguments: &ListenArguments) -> Result<String, Failure> {
    let base = match &arguments.clients {
        Some(url) => url.clone(),
        None => {
            let sources = SourceArguments::clone(arguments.client.sources()).alone();
            url(load::<GatewayConfig>(&sources)?.config.edge.listen)
        }
    };
    let base = base.trim_end_matches('/');
    let (scheme, rest) = base
        .split_once("://")
        .ok_or_else(|| Failure::Usage(format!("{base:?} is no URL; begin it with http:// or https://")))?;
    let scheme = match scheme {
        "http" | "ws" => "ws",
        "https" | "wss" => "wss",
        _ => {
            return Err(Failure::Usage(format!(
                "{base:?} is no URL of an edge; begin it with http:// or https://"
            )));
        }
    };
    Ok(format!("{scheme}://{rest}{}?EIO=4&transport=websocket", arguments.path))
}

/// One client's connection.
struct Connection {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    parser: Parser,
    limits: Limits,
    /// The longest silence of a server that is alive.
    silence_max: Duration,
}

impl Connection {
    async fn open(address: &str) -> Result<Self, Failure> {
        // It fails only if there is a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (stream, _) = Box::pin(connect_async(address)).await.map_err(|error| {
            Failure::Running(format!("cannot connect to {address}: {error}; is an edge there?"))
        })?;
        let limits =
            Limits { packet_bytes_max: 64 * 1024 * 1024, attachments_max: 1_000, ..Limits::default() };
        let parser = Parser::new(ProtocolVersion::V5);
        let mut connection = Self { stream, parser, limits, silence_max: CONNECT_WITHIN };
        let open = connection.message().await?;
        let handshake = match &open {
            Message::Text(text) => {
                text.strip_prefix('0').and_then(|text| serde_json::from_str::<Value>(text).ok())
            }
            Message::Binary(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Close(_)
            | Message::Frame(_) => None,
        };
        let handshake =
            handshake.ok_or_else(|| Failure::Running(format!("{address} does not speak Engine.IO 4")))?;
        let ms = |name: &str| handshake.get(name).and_then(Value::as_u64).unwrap_or(25_000);
        connection.silence_max = Duration::from_millis(ms("pingInterval") + ms("pingTimeout")) + PING_GRACE;
        Ok(connection)
    }

    /// Joins a namespace; the id of the socket.
    async fn enter(&mut self, namespace: &str, auth: &Value) -> Result<String, Failure> {
        let place = if namespace == "/" { String::new() } else { format!("{namespace},") };
        self.send(format!("40{place}{auth}")).await?;
        loop {
            let packet = self.packet().await?;
            let data: Value = serde_json::from_str(&packet.data).unwrap_or_default();
            match packet.packet_type {
                PacketType::Connect if packet.namespace == namespace => {
                    return Ok(data.get("sid").and_then(Value::as_str).unwrap_or_default().to_owned());
                }
                PacketType::ConnectError => {
                    let message = data.get("message").and_then(Value::as_str).unwrap_or("no reason given");
                    return Err(Failure::Running(format!("{namespace} refuses the client: {message}")));
                }
                PacketType::Connect
                | PacketType::Disconnect
                | PacketType::Event
                | PacketType::Ack
                | PacketType::BinaryEvent
                | PacketType::BinaryAck => {}
            }
        }
    }

    /// The next packet; pings are answered on the way.
    async fn packet(&mut self) -> Result<Packet<'static>, Failure> {
        loop {
            let packet = match self.message().await? {
                Message::Text(text) if text.as_str() == "2" => {
                    self.send("3".to_owned()).await?;
                    continue;
                }
                Message::Text(text) => match text.strip_prefix('4') {
                    Some(text) => {
                        let packet = self.parser.handle_text(text, &self.limits);
                        packet.map(|packet| packet.map(Packet::into_owned))
                    }
                    None => continue,
                },
                Message::Binary(bytes) => {
                    let packet = self.parser.handle_binary(&bytes, &self.limits);
                    packet.map(|packet| packet.map(Packet::into_owned))
                }
                Message::Close(_) => {
                    return Err(Failure::Running("the server has closed the connection".to_owned()));
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            match packet {
                Ok(Some(packet)) => return Ok(packet),
                Ok(None) => {}
                Err(error) => return Err(Failure::Running(format!("the server sent no Socket.IO: {error}"))),
            }
        }
    }

    async fn message(&mut self) -> Result<Message, Failure> {
        match timeout(self.silence_max, self.stream.next()).await {
            Err(_) => Err(Failure::Running("the server has gone silent".to_owned())),
            Ok(None) => Err(Failure::Running("the connection has ended".to_owned())),
            Ok(Some(Err(error))) => Err(Failure::Running(format!("the connection broke: {error}"))),
            Ok(Some(Ok(message))) => Ok(message),
        }
    }

    async fn send(&mut self, text: String) -> Result<(), Failure> {
        self.stream
            .send(Message::text(text))
            .await
            .map_err(|error| Failure::Running(format!("the connection broke: {error}")))
    }
}

/// An event as a line: its name and arguments, or a JSON object.
fn line(packet: &Packet<'_>, is_json: bool) -> String {
    let mut args: Vec<Value> = serde_json::from_str(&packet.data).unwrap_or_default();
    if packet.is_binary() {
        let attachments: Vec<String> = packet.attachments.iter().map(|bytes| base64(bytes)).collect();
        args.iter_mut().for_each(|arg| fill(arg, &attachments));
    }
    let args = args.get(1..).unwrap_or_default();
    let event = packet.event.as_deref().unwrap_or_default();
    if is_json {
        return format!("{}\n", json!({ "namespace": packet.namespace, "event": event, "args": args }));
    }
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    format!("{event} {}\n", args.join(" "))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Puts binary values in the place of their placeholders. The text was checked to be shallow enough for this.
fn fill(value: &mut Value, attachments: &[String]) {
    match value {
        Value::Object(members) => {
            let num = members.get("num").and_then(Value::as_u64).and_then(|num| usize::try_from(num).ok());
            let is_placeholder = members.get("_placeholder") == Some(&Value::Bool(true));
            if let Some(base64) = num.filter(|_| is_placeholder).and_then(|num| attachments.get(num)) {
                *value = json!({ "$binary": base64 });
                return;
            }
            members.values_mut().for_each(|value| fill(value, attachments));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| fill(value, attachments)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let mut parser = Parser::new(ProtocolVersion::V5);
        let limits = Limits::default();
        let packet = parser.handle_text(r#"2/chat,["msg","hi",{"a":1}]"#, &limits).unwrap().unwrap();
        assert_eq!(line(&packet, false), "msg \"hi\" {\"a\":1}\n");
        assert_eq!(
            line(&packet, true),
            "{\"args\":[\"hi\",{\"a\":1}],\"event\":\"msg\",\"namespace\":\"/chat\"}\n"
        );
        let head = r#"51-["bin",{"_placeholder":true,"num":0}]"#;
        assert!(parser.handle_text(head, &limits).unwrap().is_none());
        let packet = parser.handle_binary(b"A", &limits).unwrap().unwrap();
        assert_eq!(line(&packet, false), "bin {\"$binary\":\"QQ==\"}\n");
    }
}
