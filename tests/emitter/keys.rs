//! Who may call what: API keys, tokens, scopes, rates, and files that change.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http::Reply;
use crate::{Cluster, Folder, WITHIN, config};

fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entry(id: &str, secret: &str, scopes: &[&str], rest: &str) -> String {
    format!("[[keys]]\nid = \"{id}\"\nsha256 = \"{}\"\nscopes = {scopes:?}\n{rest}\n", hash(secret))
}

fn cluster(folder: &Folder, keys: &str) -> Cluster {
    let mut config = config();
    config.keys_file = folder.write("keys.toml", keys);
    let bus = adapter::broker::memory::MemoryBus::new();
    let cluster = Cluster { emitter: Some(crate::emitter_on(&bus, config)), bus, edges: Vec::new() };
    system_tests::brokers::wait_until("a broker", WITHIN, || {
        let reply = cluster.request("GET", "/v1/info").key("admin.secret of the admin").send();
        reply.status != 200 || reply.json()["broker"] == "ready"
    });
    cluster
}

fn emit(cluster: &Cluster, key: &str, namespace: &str) -> Reply {
    let body = json!({"namespace": namespace, "broadcast": true, "event": "e"});
    cluster.request("POST", "/v1/emit").key(key).json(&body).send()
}

const ADMIN: &str = "admin.secret of the admin";

fn admin() -> String {
    entry("admin", "secret of the admin", &["*"], "")
}

#[test]
fn wrong_withdrawn_and_expired_keys_never_get_through() {
    let folder = Folder::new("wrong-keys");
    let keys = [admin(), entry("old", "past", &["*"], "expires_at_ms = 1000")].concat();
    let cluster = cluster(&folder, &keys);
    assert_eq!(emit(&cluster, ADMIN, "/").status, 202);
    let body = json!({"broadcast": true, "event": "e"});
    let refused = cluster.post("/v1/emit", &body);
    refused.problem(401, "missing_credentials");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    for key in ["admin.wrong", "admin.", "nobody.secret of the admin", "admin", "x", "a.b.c"] {
        emit(&cluster, key, "/").problem(401, "invalid_credentials");
    }
    emit(&cluster, "old.past", "/").problem(401, "expired_credentials");
    for path in ["/v1/emit", "/v1/batch", "/v1/sockets/join", "/v1/users/query", "/v1/server-emit"] {
        cluster.post(path, &json!({})).problem(401, "missing_credentials");
    }
    for path in ["/v1/sockets", "/v1/rooms", "/v1/users", "/v1/info", "/v1/none"] {
        cluster.get(path).problem(401, "missing_credentials");
    }
    for path in ["/openapi.json", "/docs/"] {
        assert_eq!(cluster.get(path).status, 200, "{path} is for everybody");
    }
    let metrics = cluster.metrics();
    assert!(metrics.contains("callers_refused_total{reason=\"expired\"} 1\n"), "{metrics}");
    assert!(metrics.contains("callers_refused_total{reason=\"invalid\"} 6\n"), "{metrics}");
}

#[test]
fn a_key_does_what_its_scopes_say_and_no_more() {
    let folder = Folder::new("scopes");
    let keys = [
        admin(),
        entry("chat", "s", &["emit:/chat", "emit:/org-*"], ""),
        entry("reader", "s", &["sockets:read"], ""),
        entry("writer", "s", &["sockets:write:/chat"], ""),
        entry("none", "s", &[], ""),
    ];
    let cluster = cluster(&folder, &keys.concat());
    for (namespace, allowed) in [("/chat", true), ("/org-7", true), ("/", false), ("/chat/x", false)] {
        let reply = emit(&cluster, "chat.s", namespace);
        if allowed {
            assert_eq!(reply.status, 202, "{namespace}");
        } else {
            let problem = reply.problem(403, "insufficient_scope");
            assert!(problem["detail"].as_str().unwrap().contains(&format!("emit:{namespace}")));
        }
    }
    let call = |key: &str, method: &str, path: &str, body: Option<Value>| {
        let request = cluster.request(method, path).key(key);
        body.map_or_else(|| cluster.request(method, path).key(key), |body| request.json(&body)).send().status
    };
    let join = |namespace: &str| Some(json!({"namespace": namespace, "broadcast": true, "room": "r"}));
    assert_eq!(call("reader.s", "GET", "/v1/sockets", None), 200);
    assert_eq!(call("reader.s", "POST", "/v1/users/query", Some(json!({"users": ["u"]}))), 200);
    assert_eq!(call("reader.s", "POST", "/v1/sockets/join", join("/")), 403);
    assert_eq!(call("writer.s", "POST", "/v1/sockets/join", join("/chat")), 200);
    assert_eq!(call("writer.s", "POST", "/v1/sockets/join", join("/")), 403);
    assert_eq!(call("writer.s", "GET", "/v1/rooms?namespace=/chat", None), 403);
    assert_eq!(
        call("chat.s", "POST", "/v1/server-emit", Some(json!({"namespace": "/chat", "event": "e"}))),
        403
    );
    assert_eq!(call("none.s", "GET", "/v1/info", None), 200);
    let batch = json!({"operations": [
        {"op": "emit", "namespace": "/chat", "broadcast": true, "event": "e"},
        {"op": "emit", "broadcast": true, "event": "e"},
        {"op": "join", "namespace": "/chat", "broadcast": true, "room": "r"},
    ]});
    let results = cluster.request("POST", "/v1/batch").key("chat.s").json(&batch).send().json();
    let statuses: Vec<&Value> =
        results["results"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, [202, 403, 403]);
}

#[test]
fn keys_come_and_go_while_the_emitter_runs() {
    let folder = Folder::new("reload");
    let cluster = cluster(&folder, &admin());
    emit(&cluster, "new.s", "/").problem(401, "invalid_credentials");
    let eventually = |what: &str, key: &str, status: u16| {
        system_tests::brokers::wait_until(what, WITHIN, || emit(&cluster, key, "/").status == status);
    };
    folder.write("keys.toml", &[admin(), entry("new", "s", &["emit"], "")].concat());
    eventually("a key that was added", "new.s", 202);
    folder.write("keys.toml", "[[keys]\nnonsense");
    system_tests::brokers::wait_until("a file that is refused", WITHIN, || {
        cluster.metrics().contains("jackfield_emitter_keys_refused_total 1\n")
    });
    assert_eq!(emit(&cluster, "new.s", "/").status, 202, "the old keys stay");
    folder.write("keys.toml", &admin());
    eventually("a key that was withdrawn", "new.s", 401);
    assert_eq!(emit(&cluster, ADMIN, "/").status, 202);
}

#[test]
fn a_key_that_calls_too_often_is_told_to_wait() {
    let folder = Folder::new("rate");
    let keys = [admin(), entry("slow", "s", &["*"], "rate_per_second = 1")].concat();
    let cluster = cluster(&folder, &keys);
    assert_eq!(emit(&cluster, "slow.s", "/").status, 202);
    let refused = emit(&cluster, "slow.s", "/");
    refused.problem(429, "rate_limited");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(emit(&cluster, ADMIN, "/").status, 202, "others are not held up");
    // Each operation of a batch counts.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let emit = json!({"op": "emit", "broadcast": true, "event": "e"});
    let batch = json!({"operations": [emit, emit, emit, emit]});
    let results = cluster.request("POST", "/v1/batch").key("slow.s").json(&batch).send().json();
    let statuses: Vec<&Value> =
        results["results"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, [202, 429, 429, 429]);
}

#[test]
fn tokens_are_as_good_as_keys() {
    let folder = Folder::new("tokens");
    let secret = "a secret of more than thirty-two bytes";
    let mut config = config();
    config.jwt.secret_file = folder.write("secrets", &format!("{secret}\n"));
    config.jwt.issuer = "backend".to_owned();
    let bus = adapter::broker::memory::MemoryBus::new();
    let cluster = Cluster { emitter: Some(crate::emitter_on(&bus, config)), bus, edges: Vec::new() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let token = |claims: Value| {
        let mut all =
            json!({"iss": "backend", "aud": "jackfield-emitter", "exp": now + 60, "scope": "emit:/chat"});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        jsonwebtoken::encode(&Header::default(), &all, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    };
    system_tests::brokers::wait_until("a token that is good", WITHIN, || {
        emit(&cluster, &token(json!({"sub": "a"})), "/chat").status == 202
    });
    emit(&cluster, &token(json!({})), "/").problem(403, "insufficient_scope");
    emit(&cluster, &token(json!({"exp": now - 60})), "/chat").problem(401, "expired_credentials");
    emit(&cluster, &token(json!({"aud": "clients"})), "/chat").problem(401, "invalid_credentials");
    emit(&cluster, &token(json!({"iss": "somebody"})), "/chat").problem(401, "invalid_credentials");
    emit(&cluster, "a.key", "/chat").problem(401, "invalid_credentials");
}

#[test]
fn without_keys_a_web_page_cannot_call() {
    let cluster = Cluster::new(0);
    let body = json!({"broadcast": true, "event": "e"});
    let call =
        |name: &str, value: &str| cluster.request("POST", "/v1/emit").json(&body).header(name, value).send();
    call("origin", "https://evil.example").problem(403, "foreign_origin");
    call("origin", "null").problem(403, "foreign_origin");
    call("host", "rebound.example:4000").problem(403, "foreign_origin");
    assert_eq!(call("host", "127.0.0.1").status, 202);
    assert_eq!(call("origin", &format!("http://localhost:{}", cluster.port())).status, 202);
}
