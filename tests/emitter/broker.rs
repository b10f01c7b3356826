//! The broker is away, hung, slow, or was never there: 503 within three seconds, and never a lie.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adapter::Status;
use adapter::adapter::{Adapter, Identity};
use adapter::broker::memory::MemoryBus;
use adapter::config::{BrokerConfig, BrokerKind};
use adapter::local::NoSockets;
use cluster_proto::heartbeat::Role;
use emitter::server::Emitter;
use serde_json::json;
use system_tests::brokers::{RedisServer, free_port, wait_until};

use crate::http::{Reply, Request};
use crate::{Cluster, WITHIN, cluster_config, config, emitter_on};

pub(crate) const SOON: Duration = Duration::from_secs(3);

/// Every call that needs the broker.
fn calls(port: u16) -> Vec<(String, Request)> {
    let post = |path: &str, body: serde_json::Value| {
        (format!("{path} {body}"), Request::new(port, "POST", path).json(&body))
    };
    let get = |path: &str| (path.to_owned(), Request::new(port, "GET", path));
    vec![
        post("/v1/emit", json!({"broadcast": true, "event": "e"})),
        post("/v1/emit", json!({"broadcast": true, "event": "e", "ack": {"timeout_ms": 60_000}})),
        post("/v1/emit", json!({"room": "r", "event": "e", "idempotency_key": "k"})),
        post(
            "/v1/batch",
            json!({"operations": [
            {"op": "emit", "broadcast": true, "event": "1"}, {"op": "emit", "broadcast": true, "event": "2"}]}),
        ),
        post("/v1/sockets/join", json!({"broadcast": true, "room": "r"})),
        post("/v1/sockets/disconnect", json!({"broadcast": true})),
        post("/v1/server-emit", json!({"event": "e"})),
        post("/v1/users/query", json!({"users": ["u"]})),
        get("/v1/sockets"),
        get("/v1/rooms"),
        get("/v1/users"),
    ]
}

/// Sends every call, all at a time: each is answered with 503 and a wait.
pub(crate) fn all_refused(port: u16, code: Option<&str>, within: Duration) {
    std::thread::scope(|scope| {
        for (name, request) in calls(port) {
            scope.spawn(move || {
                let began = Instant::now();
                let reply = request.send();
                assert!(began.elapsed() < within, "{name} took {:?}", began.elapsed());
                assert_eq!(reply.status, 503, "{name}: {reply:?}");
                assert!(reply.header("retry-after").is_some(), "{name}");
                let found = reply.json()["code"].as_str().unwrap().to_owned();
                assert!(code.is_none_or(|code| code == found), "{name}: {found}");
            });
        }
    });
}

fn emit(port: u16) -> Reply {
    Request::new(port, "POST", "/v1/emit").json(&json!({"broadcast": true, "event": "e"})).send()
}

#[test]
fn without_a_broker_every_call_is_refused_and_with_it_they_go_on() {
    let cluster = Cluster::new(1);
    let sid = cluster.edges[0].socket("/", &[]);
    cluster.bus.set_up(false);
    wait_until("a broker that is away", WITHIN, || emit(cluster.port()).status == 503);
    all_refused(cluster.port(), Some("broker_unavailable"), SOON);
    assert_eq!(cluster.get("/v1/info").status, 200);
    cluster.bus.set_up(true);
    wait_until("an edge that can hear again", WITHIN, || cluster.edges[0].adapter.status() == Status::Ready);
    wait_until("a broker that is back", WITHIN, || emit(cluster.port()).status == 202);
    cluster.edges[0].events("/", &sid, 1);
    assert!(cluster.metrics().contains("publish_failed_total{reason=\"away\"}"));
}

#[test]
fn the_api_is_there_before_the_broker() {
    let bus = MemoryBus::new();
    bus.set_up(false);
    let emitter = emitter_on(&bus, config());
    let port = emitter.local_addr().port();
    all_refused(port, Some("broker_unavailable"), SOON);
    let info = Request::new(port, "GET", "/v1/info").send().json();
    assert_eq!((&info["broker"], &info["nodes"], info.get("node")), (&json!("starting"), &json!([]), None));
    bus.set_up(true);
    wait_until("a broker that came", WITHIN, || emit(port).status == 202);
    // That there is no edge is no reason to say that the broker has an event.
    bus.set_up(false);
    wait_until("a broker that is away", WITHIN, || emit(port).status == 503);
    all_refused(port, Some("broker_unavailable"), SOON);
    emitter.close(Duration::from_secs(1));
}

/// An emitter alone on Redis.
fn on_redis(port: u16) -> Emitter {
    let mut broker = BrokerConfig { kind: BrokerKind::Redis, ..BrokerConfig::default() };
    broker.redis.url = format!("redis://127.0.0.1:{port}");
    let identity = Identity::new(Role::Emitter);
    let starting = Adapter::start(&broker, &cluster_config(), &identity, Arc::new(NoSockets), None);
    Emitter::start(config(), starting.expect("an adapter")).expect("an emitter")
}

#[test]
fn a_redis_that_was_never_there_is_no_reason_to_wait() {
    let emitter = on_redis(free_port());
    all_refused(emitter.local_addr().port(), Some("broker_unavailable"), SOON);
    emitter.close(Duration::from_secs(1));
}

#[test]
fn a_redis_that_hangs_is_found_out_in_time() {
    let mut redis = RedisServer::start();
    let emitter = on_redis(redis.port());
    let port = emitter.local_addr().port();
    wait_until("an emitter on Redis", WITHIN, || emit(port).status == 202);
    redis.freeze();
    all_refused(port, None, SOON);
    let reply = emit(port);
    assert_eq!(reply.status, 503);
    redis.thaw();
    wait_until("a Redis that goes on", WITHIN, || emit(port).status == 202);
    redis.stop(true);
    all_refused(port, None, SOON);
    redis.restart();
    wait_until("a Redis that is back", WITHIN, || emit(port).status == 202);
    emitter.close(Duration::from_secs(1));
}

/// An outcome that nobody knows is said to be unknown, and what stands behind it in a batch is not tried.
#[test]
fn what_nobody_knows_is_called_unknown() {
    let redis = RedisServer::start();
    let emitter = on_redis(redis.port());
    let port = emitter.local_addr().port();
    wait_until("an emitter on Redis", WITHIN, || emit(port).status == 202);
    redis.freeze();
    emit(port).problem(503, "outcome_unknown");
    redis.thaw();
    wait_until("a Redis that goes on", WITHIN, || emit(port).status == 202);
    redis.freeze();
    let body = json!({"operations": [
        {"op": "emit", "broadcast": true, "event": "1"},
        {"op": "dance"},
        {"op": "join", "broadcast": true, "room": "r"},
        {"op": "emit", "broadcast": true, "event": "2"}]});
    let began = Instant::now();
    let reply = Request::new(port, "POST", "/v1/batch").json(&body).send();
    assert!(began.elapsed() < SOON);
    let results = reply.json();
    let codes: Vec<&str> = results["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["outcome_unknown", "invalid_body", "not_attempted", "not_attempted"]);
    redis.thaw();
    emitter.close(Duration::from_secs(1));
}
