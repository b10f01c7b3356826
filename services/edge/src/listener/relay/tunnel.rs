//! Asking the owner of a session whether a WebSocket may join it, on the connection that will then carry it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use engineio_proto::handshake::ErrorCode;
use http::{Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::exchange::{Failure, check};
use super::upload::RelayBody;
use crate::listener::accept::HTTP_BUFFER_BYTES;
use crate::listener::peer::head::refusal_code;

/// What came of it.
#[derive(Debug)]
pub(super) enum Opened {
    /// The owner takes what comes on this stream; the bytes were read behind its answer.
    Tunnel(TcpStream, Bytes),
    /// The session does not want it.
    Refused(ErrorCode),
}

/// Sends the request on a fresh stream and waits for the answer.
pub(super) async fn open(
    stream: TcpStream,
    request: Request<RelayBody>,
    within: Duration,
) -> Result<Opened, Failure> {
    timeout(within, upgrade(stream, request)).await.unwrap_or(Err(Failure::Late))
}

async fn upgrade(stream: TcpStream, request: Request<RelayBody>) -> Result<Opened, Failure> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HTTP_BUFFER_BYTES);
    let handshake = builder.handshake(TokioIo::new(stream)).await;
    let (mut sender, mut connection) = handshake.map_err(|_| Failure::Broken)?;
    let mut answering = pin!(sender.send_request(request));
    let mut is_over = false;
    let response = poll_fn(|context| {
        is_over = is_over || connection.poll_without_shutdown(context).is_ready();
        match answering.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(answer.map_err(|_| Failure::Broken)),
            Poll::Pending if is_over => Poll::Ready(Err(Failure::Broken)),
            Poll::Pending => Poll::Pending,
        }
    });
    let response = response.await?;
    check(response.status(), response.headers())?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refusal_code(response.headers()).map(Opened::Refused).ok_or(Failure::Broken);
    }
    if !is_over {
        poll_fn(|context| connection.poll_without_shutdown(context)).await.map_err(|_| Failure::Broken)?;
    }
    let parts = connection.into_parts();
    // Copied: a slice would keep the whole buffer alive for as long as the tunnel.
    Ok(Opened::Tunnel(parts.io.into_inner(), Bytes::copy_from_slice(&parts.read_buf)))
}
