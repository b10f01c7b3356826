//! Refused requests: the error codes with their statuses and bodies, on both transports.

use crate::wire::http::Connection;
use crate::wire::{Request, Server};

const UNKNOWN_TRANSPORT: &str = r#"{"code":0,"message":"Transport unknown"}"#;
const UNKNOWN_SID: &str = r#"{"code":1,"message":"Session ID unknown"}"#;
const BAD_METHOD: &str = r#"{"code":2,"message":"Bad handshake method"}"#;
const BAD_REQUEST: &str = r#"{"code":3,"message":"Bad request"}"#;
const UNSUPPORTED: &str = r#"{"code":5,"message":"Unsupported protocol version"}"#;

/// A polling request is refused with this JSON body, and nothing tells a cache to keep it.
async fn check(server: &Server, request: Request, body: &str) {
    let reply = server.send(request.clone()).await;
    assert_eq!((reply.status, reply.text()), (400, body), "{request:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{request:?}");
}

/// A WebSocket opening is refused with this text before any 101.
async fn check_websocket(server: &Server, query: &str, text: &str) {
    let mut connection = Connection::open(server.port()).await;
    connection.send(&Request::websocket(&server.target(query))).await;
    let reply = connection.reply().await;
    assert_eq!((reply.status, reply.text()), (400, text), "{query}");
    assert_eq!(connection.end().await, b"", "the connection is closed");
}

#[tokio::test]
async fn transport_must_be_known() {
    let server = Server::socketio(&[]);
    for query in ["EIO=4", "EIO=4&transport=abc", "EIO=4&transport=__proto__", "EIO=4&transport=webtransport"]
    {
        check(&server, Request::get(&server.target(query)), UNKNOWN_TRANSPORT).await;
        check_websocket(&server, query, "Transport unknown").await;
    }
}

#[tokio::test]
async fn transport_that_is_switched_off_is_unknown() {
    let server = Server::socketio(&["edge.transports=websocket"]);
    let target = server.target("EIO=4&transport=polling");
    check(&server, Request::get(&target), UNKNOWN_TRANSPORT).await;
    server.websocket("EIO=4").await.open_packet().await;
}

#[tokio::test]
async fn session_must_be_known() {
    let server = Server::socketio(&[]);
    for sid in ["nobody", "__proto__", "AAAAAAAAAAAAAAAAAAAA"] {
        let query = format!("EIO=4&transport=polling&sid={sid}");
        check(&server, Request::get(&server.target(&query)), UNKNOWN_SID).await;
        check(&server, Request::post(&server.target(&query), "40"), UNKNOWN_SID).await;
        check_websocket(&server, &format!("EIO=4&transport=websocket&sid={sid}"), "Session ID unknown").await;
    }
}

#[tokio::test]
async fn handshake_must_be_a_get() {
    let server = Server::socketio(&[]);
    let target = server.target("EIO=4&transport=polling");
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        check(&server, Request::new(method, &target), BAD_METHOD).await;
    }
}

#[tokio::test]
async fn websocket_transport_needs_an_upgrade_request() {
    let server = Server::socketio(&[]);
    check(&server, Request::get(&server.target("EIO=4&transport=websocket")), BAD_REQUEST).await;
}

#[tokio::test]
async fn later_requests_must_match_the_session() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    let transport = server.target(&format!("EIO=4&transport=websocket&sid={}", session.sid));
    check(&server, Request::get(&transport), BAD_REQUEST).await;
    let version = server.target(&format!("EIO=3&transport=polling&sid={}", session.sid));
    check(&server, Request::get(&version), BAD_REQUEST).await;
    check_websocket(&server, &format!("EIO=3&transport=websocket&sid={}", session.sid), "Bad request").await;
    session.join().await;
}

#[tokio::test]
async fn origin_header_must_hold_valid_characters() {
    let server = Server::socketio(&[]);
    let target = server.target("EIO=4&transport=polling");
    let mut connection = server.connect().await;
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost:{}\r\nOrigin: http://a\x01b\r\n\r\n",
        server.port()
    );
    connection.write(head.as_bytes()).await;
    assert!(connection.reply_or_end().await.is_none_or(|reply| reply.status == 400));
}

#[tokio::test]
async fn version_3_is_refused_when_switched_off_and_before_the_101() {
    let server = Server::socketio(&["edge.eio3=false"]);
    for query in ["EIO=3&transport=polling", "transport=polling", "EIO=abc&transport=polling"] {
        check(&server, Request::get(&server.target(query)), UNSUPPORTED).await;
    }
    for query in ["EIO=3&transport=websocket", "transport=websocket"] {
        check_websocket(&server, query, "Unsupported protocol version").await;
    }
    server.websocket("EIO=4").await.open_packet().await;
}

#[tokio::test]
async fn other_methods_on_a_session_fail_and_leave_it_alone() {
    let server = Server::socketio(&[]);
    let session = server.polling("EIO=4").await;
    for method in ["PUT", "DELETE"] {
        server.send(Request::new(method, &server.target(&session.query()))).await.expect(500, "");
    }
    session.join().await;
}

#[tokio::test]
async fn refused_websocket_is_answered_with_headers_of_a_plain_text() {
    let server = Server::socketio(&[]);
    let target = server.target("EIO=4&transport=websocket&sid=nobody");
    let reply = server.send(Request::websocket(&target)).await;
    assert_eq!(reply.header("content-type"), Some("text/html"));
    assert_eq!(reply.header("content-length"), Some("18"));
    assert!(reply.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")));
}

#[tokio::test]
async fn wrong_websocket_version_is_told_the_right_one() {
    let server = Server::socketio(&[]);
    let target = server.target("EIO=4&transport=websocket");
    for version in ["8", "0", "14", "x"] {
        let reply = server.send(Request::websocket(&target).header("Sec-WebSocket-Version", version)).await;
        assert_eq!(reply.status, 426, "{version}");
        assert_eq!(reply.header("sec-websocket-version"), Some("13"), "{version}");
    }
}

#[tokio::test]
async fn malformed_websocket_key_is_refused() {
    let server = Server::socketio(&[]);
    let target = server.target("EIO=4&transport=websocket");
    for key in ["", "abc", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ==AAAA"] {
        let reply = server.send(Request::websocket(&target).header("Sec-WebSocket-Key", key)).await;
        assert_eq!(reply.status, 400, "{key:?}");
    }
}
