//! A plain WebSocket echo (RFC 6455, no Engine.IO), for trying out a client library against the demo.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use websocket_proto::decoder::{Decoder, Incoming};
use websocket_proto::encoder::{self, Opcode};

use crate::session::link::Parting;
use crate::transport::websocket::see_off;

/// What one read takes at most: an echo needs no speed.
const READ_BYTES: usize = 4096;

/// Sends every message back as it came, until the client closes or breaks the rules.
pub async fn serve(mut stream: TcpStream, left_over: Bytes, message_bytes_max: usize, stalled_max: Duration) {
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut first = left_over.to_vec();
    let mut input: &mut [u8] = &mut first;
    let last = loop {
        let mut out = Vec::new();
        let last = echo(&mut decoder, input, message_bytes_max, &mut out);
        if !matches!(timeout(stalled_max, stream.write_all(&out)).await, Ok(Ok(()))) {
            return;
        }
        if let Some(last) = last {
            break last;
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => input = buffer.get_mut(..read).unwrap_or_default(),
        }
    };
    see_off(Parting { stream, frames: vec![last.into()] }).await;
}

/// Echoes what is complete; the close frame when it is over.
fn echo(decoder: &mut Decoder, mut input: &mut [u8], bytes_max: usize, out: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        match decoder.decode(&mut input, bytes_max) {
            Ok(None) => return None,
            Ok(Some(Incoming::Text(text))) => encoder::write_frame(Opcode::Text, text.as_bytes(), out),
            Ok(Some(Incoming::Binary(bytes))) => encoder::write_frame(Opcode::Binary, &bytes, out),
            Ok(Some(Incoming::Ping(payload))) => encoder::write_frame(Opcode::Pong, &payload, out),
            Ok(Some(Incoming::Pong(_))) => {}
            Ok(Some(Incoming::Close(frame))) => return Some(encoder::close_frame(frame.map(|f| f.code), "")),
            Err(error) => return Some(encoder::close_frame(Some(error.close_code()), "")),
        }
    }
}
