//! Redis: what is of this broker alone.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use adapter::config::RedisSubscribe;
use adapter::interest::JoinOutcome;
use cluster_proto::message::Operation;
use system_tests::brokers::{Certificate, RedisServer, Relay};

use crate::adapter::cases;
use crate::adapter::node::{Cluster, WITHIN, block_on, event_of};

#[test]
fn redis() {
    let server = RedisServer::start();
    cases::all(&Cluster::redis(&server.url()));
}

/// As in a cluster with Node servers that emit to rooms which they have just put our sockets into.
#[test]
fn everything_is_heard_once_where_everything_is_subscribed_to() {
    let server = RedisServer::start();
    let mut cluster = Cluster::redis(&server.url());
    cluster.broker.redis.subscribe = RedisSubscribe::All;
    let nodes = cluster.edges(2);
    let [a, b] = &*nodes else { panic!("two nodes") };
    for path in ["/", "/x", "/x#y", "/#z"] {
        b.joined(path, None);
        b.joined(path, Some("r"));
        for rooms in [&[][..], &["r"], &["never joined"], &[&*b.sid(1)], &["r", "s"]] {
            a.publish(path, rooms, &format!("{path} {rooms:?}"));
        }
    }
    a.publish("/", &[], "end");
    b.hears("end");
    let mut heard = b.events();
    let count = heard.len();
    heard.sort();
    heard.dedup();
    assert_eq!((count, heard.len()), (21, 21), "{heard:?}");
}

/// The bytes that the emitters of the Node world publish.
#[test]
fn an_emitter_of_the_node_world_is_heard() {
    let server = RedisServer::start();
    let edge = Cluster::redis(&server.url()).edge();
    edge.joined("/", None);
    let body = b"\x93\xa7emitter\x83\xa4type\x02\xa4data\x93\xa5hello\x01\xa1x\xa3nsp\xa1/\x83\xa5rooms\x90\xa6except\x90\xa5flags\x80";
    let mut command = Command::new("redis-cli");
    command.args(["-p", &server.port().to_string(), "-x", "publish", "socket.io#/#"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // Without a line feed at its end the input is the message byte for byte.
    child.stdin.take().unwrap().write_all(body).unwrap();
    assert!(child.wait().unwrap().success());
    let text = edge.ears.wait("the event", |heard| heard.messages.first().and_then(event_of));
    assert_eq!(text, r#"hello",1,"x"#);
    assert_eq!(edge.ears.change(|heard| heard.messages[0].sender.clone().unwrap().to_string()), "emitter");
}

/// Whoever else subscribes to the request channel is taken for a Node server, which has no name.
#[test]
fn a_silent_node_server_is_counted() {
    let server = RedisServer::start();
    let nodes = Cluster::redis(&server.url()).edges(2);
    let [a, b] = &*nodes else { panic!("two nodes") };
    a.joined("/", None);
    b.joined("/", None);
    b.ears.change(|heard| heard.sockets = Some(0));
    let rooms = |request| Operation::Rooms { request };
    let (_, end) = a.ask(Duration::from_secs(5), rooms);
    assert_eq!((end.missing_unnamed, end.timed_out), (0, false));

    let mut command = Command::new("redis-cli");
    command.args(["-p", &server.port().to_string(), "subscribe", "socket.io-request#/#"]);
    let mut stranger = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    system_tests::brokers::wait_until("the stranger subscribes", WITHIN, || {
        server.cli(&["pubsub", "numsub", "socket.io-request#/#"]).ends_with('3')
    });
    let (answers, end) = a.ask(Duration::from_millis(1_500), rooms);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!((answers.len(), end.missing.len(), end.missing_unnamed, end.timed_out), (1, 0, 1, true));
}

/// An edge that is being connected anew has not given up its namespaces: whoever asks meanwhile hears that it is missing.
#[test]
fn an_edge_between_two_connections_is_missing() {
    let server = RedisServer::start();
    let relay = Relay::start(server.port());
    let a = Cluster::redis(&server.url()).edge();
    let b = Cluster::redis(&format!("redis://127.0.0.1:{}", relay.port())).edge();
    a.sees(1);
    b.sees(1);
    b.joined("/", None);
    b.ears.change(|heard| heard.sockets = Some(1));
    let rooms = |request| Operation::Rooms { request };
    let (_, end) = a.ask(Duration::from_secs(5), rooms);
    assert_eq!((&*end.answered, &*end.missing), (&[b.adapter.node()][..], &[][..]));

    relay.set_open(false);
    relay.cut();
    system_tests::brokers::wait_until("Redis has noticed", WITHIN, || {
        server.cli(&["pubsub", "numsub", "socket.io-request#/#"]).ends_with('0')
    });
    let (_, end) = a.ask(Duration::from_secs(1), rooms);
    assert_eq!((&*end.answered, &*end.missing), (&[][..], &[b.adapter.node()][..]));
    relay.set_open(true);
    b.eventually("it is whole", || b.is_ready());
    let (_, end) = a.ask(Duration::from_secs(5), rooms);
    assert_eq!((&*end.answered, &*end.missing), (&[b.adapter.node()][..], &[][..]));
    assert_eq!(a.adapter.metrics().nodes_died.get(), 0);
}

/// Claims cannot be renewed there, but messages pass as ever: nobody loses the link for that, and whoever loses it for
/// another reason is back under the same id.
#[test]
fn a_redis_that_takes_no_writes_carries_messages() {
    let server = RedisServer::start();
    let relay = Relay::start(server.port());
    let a = Cluster::redis(&server.url()).edge();
    let b = Cluster::redis(&format!("redis://127.0.0.1:{}", relay.port())).edge();
    b.joined("/", None);
    let node = b.adapter.node();
    server.cli(&["config", "set", "min-replicas-to-write", "1"]);
    assert!(server.cli(&["set", "a", "b"]).contains("NOREPLICAS"));
    relay.cut();
    b.eventually("it is back", || b.adapter.metrics().connects.get() == 2 && b.is_ready());
    assert_eq!(b.adapter.node(), node);
    // Longer than the pause between two renewals of a claim.
    std::thread::sleep(Duration::from_secs(6));
    a.publish("/", &[], "hello");
    b.hears("hello");
    assert_eq!([&a, &b].map(|node| node.adapter.metrics().disconnects.get()), [0, 1]);
}

/// The rights that a cluster needs, and no more: its own keys and a few commands. Channels cannot be narrowed, because
/// Redis lets a user subscribe to a pattern only if exactly that pattern is granted, and each node has its own.
#[test]
fn a_user_with_few_rights_is_enough() {
    let server = RedisServer::start_with(&[
        "--user",
        "gateway",
        "on",
        ">secret",
        "allchannels",
        "resetkeys",
        "~socket.io-jackfield#node#*",
        "-@all",
        "+@pubsub",
        "+eval",
        "+get",
        "+set",
        "+del",
        "+hello",
        "+ping",
    ]);
    let cluster = Cluster::redis(&format!("redis://gateway:secret@127.0.0.1:{}", server.port()));
    let nodes = cluster.edges(2);
    let [a, b] = &*nodes else { panic!("two nodes") };
    assert_eq!(b.join("/", None), JoinOutcome::Active);
    assert_eq!(b.join("/", Some("r")), JoinOutcome::Active);
    assert_eq!(a.confirmed("/", &["r"], "to the room"), Ok(()));
    b.hears("to the room");
}

/// The test runs itself once more, with the certificate among those that the system trusts.
#[test]
fn redis_over_tls() {
    if let Ok(url) = std::env::var("JACKFIELD_TEST_TLS_URL") {
        let nodes = Cluster::redis(&url).edges(2);
        nodes[1].joined("/", None);
        assert_eq!(nodes[0].confirmed("/", &[], "secret"), Ok(()));
        nodes[1].hears("secret");
        return;
    }
    let (certificate, port) = (Certificate::make(), system_tests::brokers::free_port());
    let (file, key) = (certificate.file(), certificate.key());
    let _server = RedisServer::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://localhost:{port}");
    certificate.again("adapter::redis::redis_over_tls", &url);
    // Who does not trust the certificate gets nowhere.
    let (starting, _ears) =
        Cluster::redis(&url).begin(&adapter::adapter::Identity::new(cluster_proto::heartbeat::Role::Edge));
    let claimed = block_on(async { tokio::time::timeout(Duration::from_secs(1), starting.claimed()).await });
    assert!(claimed.is_err());
}
