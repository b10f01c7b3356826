//! What describes the API, and what every answer has.

use serde_json::{Value, json};

use crate::Cluster;

#[test]
fn the_description_and_its_page_are_served() {
    let cluster = Cluster::new(0);
    let document = cluster.get("/openapi.json");
    assert_eq!((document.status, document.header("content-type")), (200, Some("application/json")));
    assert_eq!(document.json()["openapi"], "3.1.0");
    let redirect = cluster.get("/docs");
    assert_eq!((redirect.status, redirect.header("location")), (303, Some("/docs/")));
    let page = String::from_utf8(cluster.get("/docs/").body).unwrap();
    assert!(page.contains("swagger-ui"), "{page}");
    for file in ["/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/swagger-initializer.js"] {
        let file = cluster.get(file);
        let text = String::from_utf8_lossy(&file.body);
        assert_eq!(file.status, 200);
        assert!(text.len() > 100);
    }
    for line in page.lines().filter(|line| line.contains("src=") || line.contains("href=")) {
        assert!(!line.contains("//"), "the page wants the network: {line}");
    }
}

/// Every reference leads somewhere, and every answer that a test may see is described.
#[test]
fn the_description_is_whole() {
    let cluster = Cluster::new(0);
    let document = cluster.get("/openapi.json").json();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let found = document.pointer(reference.trim_start_matches('#'));
        assert!(found.is_some(), "{reference} leads nowhere");
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap();
            for status in ["400", "401", "403", "503"] {
                assert!(answers.contains_key(status), "{method} {path} says nothing about {status}");
            }
        }
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                match value.as_str() {
                    Some(reference) if key == "$ref" => references.push(reference.to_owned()),
                    _ => collect(value, references),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn a_request_id_comes_back() {
    let cluster = Cluster::new(0);
    let reply = cluster.request("GET", "/v1/info").header("x-request-id", "trace-7").send();
    assert_eq!(reply.header("x-request-id"), Some("trace-7"));
    let fresh = cluster.get("/v1/info");
    assert_eq!(fresh.header("x-request-id").map(str::len), Some(16));
    assert_eq!(fresh.header("cache-control"), Some("no-store"));
    let refused = cluster.request("GET", "/v1/none").header("x-request-id", "trace-8").send();
    assert_eq!(refused.json()["request_id"], "trace-8");
    let head = cluster.request("HEAD", "/v1/info").send();
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn the_emitter_says_what_it_is() {
    let cluster = Cluster::new(2);
    let info = cluster.get("/v1/info").json();
    assert_eq!((&info["broker"], &info["version"]), (&json!("ready"), &json!(env!("CARGO_PKG_VERSION"))));
    let mut nodes: Vec<&str> =
        info["nodes"].as_array().unwrap().iter().map(|node| node["node"].as_str().unwrap()).collect();
    nodes.sort_unstable();
    let mut edges: Vec<String> = cluster.edges.iter().map(|edge| edge.adapter.node().to_string()).collect();
    edges.sort();
    assert_eq!(nodes, edges);
    assert_eq!((&info["nodes"][0]["role"], &info["nodes"][0]["status"]), (&json!("edge"), &json!("serving")));
    assert_eq!(info["limits"]["batch_operations_max"], 1_000);
}

#[test]
fn calls_are_counted() {
    let cluster = Cluster::new(0);
    cluster.done("/v1/emit", &json!({"broadcast": true, "event": "e"}));
    cluster.get("/v1/none");
    let metrics = cluster.metrics();
    for expected in [
        "jackfield_emitter_requests_total{path=\"/v1/emit\",status=\"202\"} 1\n",
        "jackfield_emitter_requests_total{path=\"other\",status=\"404\"} 1\n",
        "jackfield_emitter_request_seconds_count{path=\"/v1/emit\"} 1\n",
        "jackfield_emitter_emits_total 1\n",
    ] {
        assert!(metrics.contains(expected), "{expected} is not in\n{metrics}");
    }
}

/// Several requests on one connection, as callers that keep theirs send them.
#[test]
fn a_connection_is_kept() {
    use std::io::{Read, Write};
    let cluster = Cluster::new(0);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", cluster.port())).unwrap();
    let body = r#"{"broadcast":true,"event":"e"}"#;
    let request =
        format!("POST /v1/emit HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.repeat(3).as_bytes()).unwrap();
    let mut answers = String::new();
    let mut buffer = [0; 4_096];
    while answers.matches("\"accepted\":true").count() < 3 {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "{answers}");
        answers.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert_eq!(answers.matches("HTTP/1.1 202 Accepted").count(), 3);
}
