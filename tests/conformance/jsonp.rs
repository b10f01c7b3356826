//! JSONP: script bodies out, form bodies in, for both protocol versions.

use serde_json::Value;

use crate::wire::server::json_after;
use crate::wire::{Reply, Request, Server};

/// Takes `___eio[<index>]("...");` apart.
fn unwrap(reply: &Reply, index: &str) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=UTF-8"));
    let literal =
        reply.text().strip_prefix(&format!("___eio[{index}](")).and_then(|rest| rest.strip_suffix(");"));
    let literal = literal.unwrap_or_else(|| panic!("{reply:?}"));
    serde_json::from_str(literal).expect("a JSON string")
}

/// The form body in which a JSONP client carries `payload`.
fn form(payload: &str) -> String {
    let mut body = "d=".to_owned();
    for byte in payload.replace("\\n", "\\\\n").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => body.push(byte.into()),
            _ => body.push_str(&format!("%{byte:02X}")),
        }
    }
    body
}

/// Opens a session; its JSONP query and the handshake's payload.
async fn open(server: &Server, version: u8, index: &str) -> (String, String) {
    let query = format!("EIO={version}&transport=polling&j={index}");
    let payload = unwrap(&server.get(&query).await, "7");
    let start = payload.find("0{").expect("an open packet");
    let end = payload.find('}').expect("its end");
    let open: Value = json_after(&payload[start..=end], 1);
    (format!("{query}&sid={}", open["sid"].as_str().expect("a sid")), payload)
}

async fn post(server: &Server, query: &str, body: &str) -> Reply {
    let request = Request::post(&server.target(query), body)
        .header("Content-Type", "application/x-www-form-urlencoded");
    server.send(request).await
}

#[tokio::test]
async fn version_3_session_speaks_jsonp() {
    let server = Server::socketio(&[]);
    let (query, payload) = open(&server, 3, "7").await;
    assert!(payload.starts_with("118:0{") && payload.ends_with("}2:40"), "{payload}");
    assert_eq!(unwrap(&server.get(&query).await, "7"), r#"13:42["auth",{}]"#);
    let reply = post(&server, &query, &form("21:42[\"message\",\"a\\nb€\"]")).await;
    reply.expect(200, "ok");
    assert_eq!(reply.header("content-type"), Some("text/html"));
    assert_eq!(unwrap(&server.get(&query).await, "7"), "26:42[\"message-back\",\"a\\nb€\"]");
}

#[tokio::test]
async fn version_4_session_speaks_jsonp() {
    let server = Server::engineio(&[]);
    let (query, _) = open(&server, 4, "7").await;
    post(&server, &query, &form("4hello\x1ebAQIDBA==")).await.expect(200, "ok");
    assert_eq!(unwrap(&server.get(&query).await, "7"), "4hello\x1ebAQIDBA==");
}

#[tokio::test]
async fn line_separators_are_escaped_for_old_script_engines() {
    let server = Server::engineio(&[]);
    let (query, _) = open(&server, 4, "7").await;
    post(&server, &query, &form("4\u{2028}\u{2029}\"<")).await.expect(200, "ok");
    assert_eq!(server.get(&query).await.text(), "___eio[7](\"4\\u2028\\u2029\\\"<\");");
}

#[tokio::test]
async fn index_keeps_its_digits_only() {
    let server = Server::socketio(&[]);
    for (index, kept) in [("a1b2", "12"), ("0", "0"), ("%20", ""), ("alert(1)", "1"), ("", "")] {
        let reply = server.get(&format!("EIO=4&transport=polling&j={index}")).await;
        if index.is_empty() && reply.text().starts_with('0') {
            continue; // an empty value counts as none
        }
        assert!(reply.text().starts_with(&format!("___eio[{kept}](\"0{{")), "{index}: {}", reply.text());
    }
}

#[tokio::test]
async fn line_feeds_travel_in_two_escapes() {
    let server = Server::engineio(&[]);
    let (query, _) = open(&server, 4, "7").await;
    // Two characters `\n` are a line feed; three characters `\\n` are the two characters.
    post(&server, &query, "d=4a%5Cnb%5C%5Cnc+d").await.expect(200, "ok");
    assert_eq!(unwrap(&server.get(&query).await, "7"), "4a\nb\\nc d");
}

#[tokio::test]
async fn form_without_its_field_is_ignored() {
    let server = Server::engineio(&[]);
    let (query, _) = open(&server, 4, "7").await;
    for body in ["", "x=4hello", "D=4hello"] {
        post(&server, &query, body).await.expect(200, "ok");
    }
    post(&server, &query, "x=1&d=4still+here").await.expect(200, "ok");
    assert_eq!(unwrap(&server.get(&query).await, "7"), "4still here");
}
