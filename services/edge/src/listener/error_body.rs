//! What a refused client reads: JSON for a polling request, plain text for a WebSocket, as the reference does.

use engineio_proto::handshake::ErrorCode;

use crate::transport::reply::Reply;

/// The refusal of a polling request.
pub fn polling(code: ErrorCode) -> Reply {
    Reply::error(code)
}

/// The refusal of a WebSocket.
pub fn websocket(code: ErrorCode) -> Reply {
    websocket_text(code.http_status(), code.message())
}

/// The refusal of a WebSocket that breaks the rules of RFC 6455, section 4.2.
pub fn websocket_text(status: u16, message: &'static str) -> Reply {
    Reply::new(status, "text/html", message).with_header("connection", "close")
}

/// The answer when `edge.sessions_max` is reached.
pub fn too_many_sessions() -> Reply {
    Reply::new(503, "text/plain; charset=UTF-8", "This server is full; try again later")
        .with_header("retry-after", "5")
        .with_header("connection", "close")
}
