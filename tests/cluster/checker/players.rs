//! What clients and applications do in a game.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster_proto::broadcast::{BroadcastFlags, Selector};
use edge::cluster::Cluster;
use edge::upstream::Args;
use futures_util::future::join_all;
use serde_json::{Value, json};
use system_tests::brokers::Relay;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::random::Random;
use super::record::{Change, ClientRecord, Clock, Publisher, Received, Record, Sent, Target};
use super::{CLIENTS, NODES};
use crate::brokers::Broker;
use crate::client::{Client, Ear, Kind, Mouth};
use crate::nodes::{Nodes, path};

/// Most clients are in the first one.
const NAMESPACES: [&str; 2] = ["/", "/a"];
/// A few rooms have members on every node, and most have none on some: subscriptions come and go with them.
const ROOMS: usize = 400;
const POPULAR: usize = 40;
/// Short, so that a room that is left and joined again is a new subscription.
const LINGER_MS: u64 = 50;
/// Rooms that a client is in, about.
const ROOMS_OF_EACH: usize = 4;
/// Every so manieth client publishes, too.
const PUBLISHES_EVERY: usize = 6;
/// How long everything is on its way between the last node and its broker.
const DELAY: Duration = Duration::from_millis(3);
/// How long after the end the last messages may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Above this the machine is too busy for what is asked of it, so that nodes may answer each other too late.
const LAG_MAX: Duration = Duration::from_secs(2);
/// How long a change may take on a machine that is busy.
const CHANGE_MAX: Duration = Duration::from_secs(30);

/// What all players know.
struct Game {
    clock: Clock,
    end: Instant,
    seed: u64,
    applications: Vec<Cluster>,
    /// The names of all clients' sockets.
    ids: Vec<String>,
    namespaces: Vec<usize>,
    /// How many publishers each namespace has.
    publishers: [usize; NAMESPACES.len()],
    /// How long the last message was on its way, and the slowest one, in microseconds.
    lag: AtomicU64,
    lag_max: AtomicU64,
    /// Changes that some node did not confirm in time, and that were asked for again.
    repeated: AtomicU64,
}

fn room(number: usize) -> String {
    format!("room {number}")
}

fn any_room(random: &mut Random) -> usize {
    let end = if random.happens(50) { POPULAR } else { ROOMS };
    random.below(end)
}

fn namespace_of(client: usize) -> usize {
    usize::from(client % 5 == 4)
}

/// The last node reaches its broker by a slow connection, so that the others are ahead of it.
async fn start(broker: &Broker, relay: Option<&Relay>) -> Nodes {
    let mut membership = broker.cluster("checker");
    membership.broker.linger_ms = LINGER_MS;
    let Some(relay) = relay else { return Nodes::start(&membership, NODES).await };
    let mut nodes = Nodes::start(&membership, NODES - 1).await;
    let mut slow = broker.cluster_by("checker", relay);
    slow.broker.linger_ms = LINGER_MS;
    nodes.add(&slow).await;
    nodes.all_see(NODES - 1).await;
    nodes
}

/// Plays for so long, and gives what everybody has written down.
pub(super) async fn play(broker: &Broker, seed: u64, length: Duration) -> Record {
    let relay = broker.port().map(|port| Relay::start_slow(port, DELAY));
    let nodes = start(broker, relay.as_ref()).await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let kind = Kind::ALL[number / NODES % Kind::ALL.len()];
        clients.push(nodes.client(number % NODES, kind, NAMESPACES[namespace_of(number)]).await);
    }
    let applications = nodes.0.iter().map(|node| node.cluster.clone()).collect();
    let namespaces: Vec<usize> = (0..CLIENTS).map(namespace_of).collect();
    let publishing: Vec<usize> = (0..CLIENTS).step_by(PUBLISHES_EVERY).collect();
    let in_namespace = |namespace| {
        let clients = publishing.iter().filter(|client| namespaces[**client] == namespace).count();
        clients + (0..NODES).filter(|node| namespace_of(*node) == namespace).count()
    };
    let game = Arc::new(Game {
        clock: Clock::start(),
        end: Instant::now() + length,
        seed,
        applications,
        ids: clients.iter().map(|client| client.id.clone()).collect(),
        publishers: [in_namespace(0), in_namespace(1)],
        namespaces: namespaces.clone(),
        lag: AtomicU64::new(0),
        lag_max: AtomicU64::new(0),
        repeated: AtomicU64::new(0),
    });

    let of_applications =
        (0..NODES).map(|node| tokio::spawn(application(game.clone(), node))).collect::<Vec<_>>();
    let of_clients = clients.into_iter().enumerate().map(|(number, client)| {
        let publisher = (number % PUBLISHES_EVERY == 0).then(|| NODES + number / PUBLISHES_EVERY);
        tokio::spawn(player(game.clone(), number, client, publisher))
    });
    let of_clients: Vec<_> = of_clients.collect();
    let mut record = Record::default();
    for publisher in join_all(of_applications).await {
        record.publishers.push(publisher.expect("an application that plays to the end"));
    }
    for played in join_all(of_clients).await {
        let (client, publisher) = played.expect("a client that plays to the end");
        record.clients.push(client);
        record.publishers.extend(publisher);
    }
    check_links(&nodes);
    nodes.empty().await;
    let lag = Duration::from_micros(game.lag_max.load(Ordering::Relaxed));
    let repeated = game.repeated.load(Ordering::Relaxed);
    eprintln!("{}: the slowest message took {lag:?}; {repeated} operations were repeated", broker.name());
    assert!(repeated == 0 || lag > LAG_MAX, "nodes did not answer, on a machine that is fast enough");
    record
}

/// No link has lost anything by itself.
fn check_links(nodes: &Nodes) {
    for node in &nodes.0 {
        let metrics = node.metrics();
        let lost = [metrics.gaps.get(), metrics.dropped.get(), metrics.publish_failed.get()];
        assert_eq!((lost, metrics.joins_degraded.get()), ([0; 3], 0));
        assert_eq!(node.metric("jackfield_slow_consumers_closed_total"), 0);
    }
}

impl Game {
    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    fn note_lag(&self, lag: u64) {
        self.lag.store(lag, Ordering::Relaxed);
        self.lag_max.fetch_max(lag, Ordering::Relaxed);
    }

    /// A pause of so many milliseconds, and longer where messages come late: a slow machine plays a slower game.
    async fn pause(&self, millis: usize) {
        let lag = Duration::from_micros(self.lag.load(Ordering::Relaxed));
        sleep(Duration::from_millis(millis as u64) + 4 * lag).await;
    }

    /// Somebody to send to.
    fn target(&self, random: &mut Random, namespace: usize) -> Target {
        match random.below(100) {
            0..60 => Target::Rooms { rooms: vec![any_room(random)], except: Vec::new() },
            60..70 => Target::Rooms { rooms: vec![any_room(random)], except: random.some(2, POPULAR) },
            70..80 => {
                let mut rooms = random.some(2, ROOMS);
                rooms.push(any_room(random));
                Target::Rooms { rooms, except: Vec::new() }
            }
            80..95 => {
                let some = random.some(4, CLIENTS).into_iter();
                let some: Vec<usize> = some.filter(|client| self.namespaces[*client] == namespace).collect();
                // A selector without anybody would mean everybody.
                if some.is_empty() { Target::Everybody } else { Target::Sockets(some) }
            }
            _ => Target::Everybody,
        }
    }

    /// A target, and who is left out, in the names that edges know.
    fn names(&self, sent: &Sent) -> (Vec<String>, Vec<String>) {
        let names = |rooms: &[usize]| rooms.iter().map(|number| room(*number)).collect::<Vec<_>>();
        let (rooms, mut except) = match &sent.target {
            Target::Everybody => (Vec::new(), Vec::new()),
            Target::Rooms { rooms, except } => (names(rooms), names(except)),
            Target::Sockets(clients) => {
                (clients.iter().map(|client| self.ids[*client].clone()).collect(), Vec::new())
            }
        };
        except.extend(sent.without.map(|client| self.ids[client].clone()));
        (rooms, except)
    }
}

/// The event of a message: who sends it, when, and whether it is the last one.
fn event(publisher: usize, number: usize, sent: &Sent, is_last: bool) -> Value {
    json!(["m", publisher, number, sent.at, is_last])
}

/// An application that publishes on its node, and its last message for everybody.
async fn application(game: Arc<Game>, node: usize) -> Publisher {
    let mut random = Random::new(game.seed, CLIENTS + node);
    let namespace = namespace_of(node);
    let mut sent = Vec::new();
    loop {
        let is_last = game.is_over();
        let target = if is_last { Target::Everybody } else { game.target(&mut random, namespace) };
        let message = Sent { at: game.clock.now(), target, without: None };
        let (rooms, except) = game.names(&message);
        let args = Args::text(event(node, sent.len(), &message, is_last).to_string());
        let selector = Selector { rooms, except };
        let flags = BroadcastFlags::default();
        let emitted = game.applications[node].emit(&path(NAMESPACES[namespace]), selector, args, flags);
        emitted.expect("a valid event");
        sent.push(message);
        if is_last {
            return Publisher { namespace, sent };
        }
        game.pause(10 + random.below(80)).await;
    }
}

/// A client: one task that acts and one that listens.
async fn player(
    game: Arc<Game>,
    number: usize,
    client: Client,
    publisher: Option<usize>,
) -> (ClientRecord, Option<Publisher>) {
    let name = format!("{:?} on node {}", client.kind, client.node);
    let namespace = game.namespaces[number];
    let (mouth, ear) = client.split();
    let (acked, acks) = mpsc::channel(16);
    let listening = tokio::spawn(listen(game.clone(), namespace, ear, acked));
    let actor = Actor {
        random: Random::new(game.seed, number),
        game,
        number,
        namespace,
        mouth,
        acks,
        asked: 0,
        joined: BTreeSet::new(),
        changes: Vec::new(),
        sent: Vec::new(),
    };
    // Its end is not closed before the other has heard everything.
    let (changes, sent, _mouth) = actor.act(publisher).await;
    let (received, broken) = listening.await.expect("a client that listens to the end");
    let record = ClientRecord { name, namespace, changes, received, broken };
    (record, publisher.map(|_| Publisher { namespace, sent }))
}

/// Writes down what arrives until the last message of every publisher has come.
async fn listen(
    game: Arc<Game>,
    namespace: usize,
    mut ear: Ear,
    acked: mpsc::Sender<(u64, u64)>,
) -> (Vec<Received>, Option<String>) {
    let mut received = Vec::new();
    let mut last_ones = 0;
    while last_ones < game.publishers[namespace] {
        let heard = match timeout_at(game.end + PATIENCE, ear.next()).await {
            Ok(Some(heard)) => heard,
            Ok(None) => return (received, Some("its session has ended".to_owned())),
            Err(_) => return (received, Some(format!("only {last_ones} publishers have come to their end"))),
        };
        let at = game.clock.now();
        // A session of protocol 4 is in the namespace of everybody, too.
        if heard.namespace != NAMESPACES[namespace] {
            continue;
        }
        if heard.is_ack() {
            // Who has given up waiting has failed the test.
            let _ = acked.send((heard.ack_id.expect("an ack has an id"), at)).await;
            continue;
        }
        let number =
            |index: usize| usize::try_from(heard.data[index].as_u64().expect("a number")).expect("small");
        received.push(Received { publisher: number(1), number: number(2), at });
        game.note_lag(at.saturating_sub(number(3) as u64));
        last_ones += usize::from(heard.data[4] == true);
    }
    (received, None)
}

/// What a client does.
struct Actor {
    game: Arc<Game>,
    random: Random,
    number: usize,
    namespace: usize,
    mouth: Mouth,
    /// Ack ids, and when they came.
    acks: mpsc::Receiver<(u64, u64)>,
    asked: u64,
    joined: BTreeSet<usize>,
    changes: Vec<Change>,
    sent: Vec<Sent>,
}

impl Actor {
    async fn act(mut self, publisher: Option<usize>) -> (Vec<Change>, Vec<Sent>, Mouth) {
        while !self.game.is_over() {
            match publisher {
                Some(publisher) if self.random.happens(70) => self.publish(publisher, false).await,
                _ => self.change().await,
            }
            let pause = if publisher.is_some() { 800 } else { 1_500 };
            self.game.pause(self.random.below(pause)).await;
        }
        if let Some(publisher) = publisher {
            self.publish(publisher, true).await;
        }
        (self.changes, self.sent, self.mouth)
    }

    async fn publish(&mut self, publisher: usize, is_last: bool) {
        let target =
            if is_last { Target::Everybody } else { self.game.target(&mut self.random, self.namespace) };
        // As `socket.to` does; the last one is for itself, too.
        let without = (!is_last && self.random.happens(30)).then_some(self.number);
        let message = Sent { at: self.game.clock.now(), target, without };
        let (rooms, except) = self.game.names(&message);
        let event = event(publisher, self.sent.len(), &message, is_last);
        self.sent.push(message);
        let action = json!(["do", {"to": rooms, "except": except, "emit": event}]);
        self.mouth.event(NAMESPACES[self.namespace], None, &action, &[]).await;
    }

    /// Joins or leaves a room, mostly by itself.
    async fn change(&mut self) {
        let number = any_room(&mut self.random);
        let joins = if self.random.happens(20) {
            // Once more what it is already, or what it is not.
            !self.joined.contains(&number)
        } else {
            self.joined.len() < ROOMS_OF_EACH
        };
        let number = if joins {
            number
        } else {
            let joined: Vec<usize> = self.joined.iter().copied().collect();
            if joined.is_empty() { number } else { joined[self.random.below(joined.len())] }
        };
        let begun = self.game.clock.now();
        let done = if self.random.happens(10) {
            self.change_from_outside(number, joins).await
        } else {
            self.change_by_itself(number, joins).await
        };
        if joins {
            self.joined.insert(number)
        } else {
            self.joined.remove(&number)
        };
        self.changes.push(Change { room: number, joins, begun, done });
    }

    async fn change_by_itself(&mut self, number: usize, joins: bool) -> u64 {
        let id = self.asked;
        self.asked += 1;
        let action = json!(["do", {(if joins { "join" } else { "leave" }): room(number)}]);
        self.mouth.event(NAMESPACES[self.namespace], Some(id), &action, &[]).await;
        let acked = tokio::time::timeout(CHANGE_MAX, self.acks.recv()).await;
        let (acked, at) = acked
            .ok()
            .flatten()
            .unwrap_or_else(|| panic!("client {}: {action} is not acked within {CHANGE_MAX:?}", self.number));
        assert_eq!(acked, id);
        at
    }

    /// The application of some node does it.
    async fn change_from_outside(&mut self, number: usize, joins: bool) -> u64 {
        let application = self.game.applications[self.random.below(NODES)].clone();
        let selector = Selector::room(self.game.ids[self.number].clone());
        let (namespace, rooms) = (path(NAMESPACES[self.namespace]), vec![room(number)]);
        loop {
            let done = if joins {
                application.join(&namespace, selector.clone(), rooms.clone()).await
            } else {
                application.leave(&namespace, selector.clone(), rooms.clone()).await
            };
            if done.missing.is_nobody() {
                assert_eq!(done.sockets, 1, "{done:?}");
                return self.game.clock.now();
            }
            self.game.repeated.fetch_add(1, Ordering::Relaxed);
        }
    }
}
