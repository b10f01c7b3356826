//! Which origins may speak to us, and the CORS headers that tell a browser so.

use crate::wire::{Request, Server};

const FORBIDDEN: &str = r#"{"code":4,"message":"Forbidden"}"#;

/// Asks with an origin on both transports and expects both to be allowed, or both to be refused with 403.
async fn check(server: &Server, headers: &[(&str, &str)], allowed: bool) {
    let with_headers =
        |request: Request| headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    let polling = with_headers(Request::get(&server.target("EIO=4&transport=polling")));
    let reply = server.send(polling).await;
    assert_eq!(reply.status, if allowed { 200 } else { 403 }, "{headers:?}");
    if !allowed {
        assert_eq!(reply.text(), FORBIDDEN);
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
    let websocket = with_headers(Request::websocket(&server.target("EIO=4&transport=websocket")));
    let mut connection = server.connect().await;
    connection.send(&websocket).await;
    assert_eq!(connection.reply().await.status, if allowed { 101 } else { 403 }, "{headers:?}");
}

#[tokio::test]
async fn absent_origin_is_allowed() {
    check(&Server::socketio(&[]), &[], true).await;
}

#[tokio::test]
async fn same_host_and_port_is_allowed() {
    let server = Server::socketio(&[]);
    check(&server, &[("Host", "chat.example:8080"), ("Origin", "http://chat.example:8080")], true).await;
    check(&server, &[("Host", "chat.example"), ("Origin", "https://chat.example")], true).await;
    check(&server, &[("Host", "chat.example:8080"), ("Origin", "http://chat.example:9090")], false).await;
    check(&server, &[("Host", "chat.example"), ("Origin", "http://evil.chat.example")], false).await;
}

#[tokio::test]
async fn localhost_is_allowed_in_the_demo() {
    let server = Server::socketio(&[]);
    for origin in ["http://localhost:8080", "http://127.0.0.1:5173", "https://localhost", "http://[::1]:80"] {
        check(&server, &[("Origin", origin)], true).await;
    }
    for origin in
        ["http://localhost.evil.example", "http://127.0.0.1.evil.example", "http://evil.example", "null"]
    {
        check(&server, &[("Origin", origin)], false).await;
    }
}

#[tokio::test]
async fn listed_origins_are_allowed() {
    let server = Server::socketio(&["edge.cors.origins=https://app.example,http://other.example:81"]);
    check(&server, &[("Origin", "https://app.example")], true).await;
    check(&server, &[("Origin", "http://other.example:81")], true).await;
    for origin in ["http://app.example", "https://app.example:8443", "https://app.example.evil.example"] {
        check(&server, &[("Origin", origin)], false).await;
    }
}

#[tokio::test]
async fn star_allows_everyone() {
    let server = Server::socketio(&["edge.cors.origins=*"]);
    check(&server, &[("Origin", "http://anything.example")], true).await;
}

#[tokio::test]
async fn forwarded_host_counts_from_trusted_proxies_only() {
    let headers =
        [("Host", "internal:3000"), ("X-Forwarded-Host", "chat.example"), ("Origin", "https://chat.example")];
    check(&Server::socketio(&["edge.trusted_proxies=127.0.0.1"]), &headers, true).await;
    check(&Server::socketio(&["edge.trusted_proxies=10.0.0.0/8"]), &headers, false).await;
    check(&Server::socketio(&[]), &headers, false).await;
}

#[tokio::test]
async fn allowed_origin_is_echoed_with_credentials() {
    let server = Server::socketio(&["edge.cors.origins=https://app.example"]);
    let target = server.target("EIO=4&transport=polling");
    let reply = server.send(Request::get(&target).header("Origin", "https://app.example")).await;
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(reply.header("access-control-allow-credentials"), Some("true"));
    assert!(reply.header("vary").is_some_and(|vary| vary.contains("Origin")), "{reply:?}");
}

#[tokio::test]
async fn pages_of_this_machine_may_read_the_answer_in_the_demo() {
    let server = Server::socketio(&[]);
    let target = server.target("EIO=4&transport=polling");
    let reply = server.send(Request::get(&target).header("Origin", "http://localhost:5173")).await;
    assert_eq!(reply.header("access-control-allow-origin"), Some("http://localhost:5173"));
}

#[tokio::test]
async fn preflight_is_answered() {
    let server = Server::socketio(&["edge.cors.origins=https://app.example"]);
    for query in ["EIO=4&transport=polling", "EIO=4&transport=polling&sid=x"] {
        let request = Request::new("OPTIONS", &server.target(query))
            .header("Origin", "https://app.example")
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "content-type,x-own");
        let reply = server.send(request).await;
        assert_eq!((reply.status, reply.body.as_slice()), (204, &b""[..]), "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(reply.header("access-control-allow-credentials"), Some("true"));
        assert!(reply.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
        assert_eq!(reply.header("access-control-allow-headers"), Some("content-type,x-own"));
    }
}

#[tokio::test]
async fn preflight_of_a_stranger_allows_nothing() {
    let server = Server::socketio(&[]);
    let request = Request::new("OPTIONS", &server.target("EIO=4&transport=polling"))
        .header("Origin", "http://evil.example")
        .header("Access-Control-Request-Method", "POST");
    let reply = server.send(request).await;
    assert_eq!(reply.header("access-control-allow-origin"), None, "{reply:?}");
}

#[tokio::test]
async fn refusals_can_be_read_by_allowed_origins() {
    let server = Server::socketio(&["edge.cors.origins=https://app.example"]);
    let target = server.target("EIO=4&transport=polling&sid=nobody");
    let reply = server.send(Request::get(&target).header("Origin", "https://app.example")).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example"));
}
