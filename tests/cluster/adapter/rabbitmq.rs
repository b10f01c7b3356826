//! RabbitMQ: what is of this broker alone.

use adapter::broker::Gap;
use system_tests::brokers::{Certificate, RabbitmqServer, Relay, free_port};

use crate::adapter::cases;
use crate::adapter::node::Cluster;

/// The test runs itself once more, with the certificate among those that the system trusts.
#[test]
fn rabbitmq() {
    if let Ok(url) = std::env::var("JACKFIELD_TEST_TLS_URL") {
        return over_tls(&url);
    }
    let certificate = Certificate::make();
    let tls_port = free_port();
    let server = RabbitmqServer::start_with(&format!(
        "listeners.ssl.1 = 127.0.0.1:{tls_port}\nssl_options.cacertfile = {0}\nssl_options.certfile = {0}\n\
         ssl_options.keyfile = {1}\nssl_options.verify = verify_none\n",
        certificate.file(),
        certificate.key()
    ));
    cases::all(&Cluster::rabbitmq(&server.url()));
    several_addresses_are_tried(&server);
    exchanges_are_apart(&server);
    an_overflow_is_a_gap(&server);
    a_node_that_may_not_publish_connects_anew(&server);
    certificate.again("adapter::rabbitmq::rabbitmq", &format!("amqps://localhost:{tls_port}"));
}

fn over_tls(url: &str) {
    let nodes = Cluster::rabbitmq(url).edges(2);
    nodes[1].joined("/", None);
    assert_eq!(nodes[0].confirmed("/", &[], "secret"), Ok(()));
    nodes[1].hears("secret");
}

fn several_addresses_are_tried(server: &RabbitmqServer) {
    let mut cluster = Cluster::rabbitmq(&server.url());
    let nowhere = || format!("amqp://127.0.0.1:{}", free_port());
    cluster.broker.rabbitmq.urls = vec![nowhere(), server.url(), nowhere()];
    let nodes = cluster.edges(2);
    nodes[1].joined("/", None);
    nodes[0].publish("/", &[], "found");
    nodes[1].hears("found");
}

fn exchanges_are_apart(server: &RabbitmqServer) {
    let one = Cluster::rabbitmq(&server.url());
    let mut two = Cluster::rabbitmq(&server.url());
    two.broker.rabbitmq.exchange = "other".to_owned();
    let (a, b) = (one.edges(2), two.edges(2));
    for node in a.iter().chain(&b) {
        node.joined("/", None);
    }
    a[0].publish("/", &[], "a");
    b[0].publish("/", &[], "b");
    a[1].hears("a");
    b[1].hears("b");
    assert_eq!((a[1].events(), b[1].events()), (vec!["a".to_owned()], vec!["b".to_owned()]));
}

/// A node that cannot be reached for a while loses messages at the broker, and is told so.
fn an_overflow_is_a_gap(server: &RabbitmqServer) {
    let relay = Relay::start(server.port());
    let patient = |url: &str| {
        let mut cluster = Cluster::rabbitmq(url);
        cluster.broker.timeout_ms = 10_000;
        cluster
    };
    let a = patient(&server.url()).edge();
    let mut cluster = patient(&format!("amqp://127.0.0.1:{}", relay.port()));
    cluster.broker.rabbitmq.queue_messages_max = 1_000;
    let b = cluster.edge();
    b.joined("/", None);
    relay.hold(true);
    // What the network takes is not in the queue, so it takes many to fill it.
    let filler = "x".repeat(10_000);
    for _ in 0..3_000 {
        a.publish("/", &[], &filler);
    }
    assert_eq!(a.confirmed("/", &[], "the last"), Ok(()));
    relay.hold(false);
    b.hears("the last");
    b.ears.wait("the gap", |heard| heard.gaps.contains(&Gap::Overflowed).then_some(()));
    assert!(b.events().len() < 3_000);
}

/// RabbitMQ answers a publish that cannot be by closing the channel, and whatever is published there later is lost.
fn a_node_that_may_not_publish_connects_anew(server: &RabbitmqServer) {
    let mut cluster = Cluster::rabbitmq(&server.url());
    cluster.broker.rabbitmq.exchange = "goes".to_owned();
    let nodes = cluster.edges(2);
    let [a, b] = &*nodes else { panic!("two nodes") };
    b.joined("/", None);
    let delete = "[rabbit_exchange:delete(element(2, One), false, <<\"test\">>) || One <- rabbit_exchange:list(<<\"/\">>), \
                  binary:match(element(4, element(2, One)), <<\"goes\">>) =/= nomatch].";
    assert_eq!(server.ctl(&["eval", delete]), "[ok]");
    for node in &nodes {
        node.eventually("a new connection", || node.adapter.metrics().connects.get() >= 2 && node.is_ready());
    }
    a.publish("/", &[], "again");
    b.hears("again");
}
