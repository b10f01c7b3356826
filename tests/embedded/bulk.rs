//! Changes of all sockets of a namespace at once: for each of them, in order with what comes behind, and without keeping
//! others waiting for the end.

use cluster_proto::broadcast::{BroadcastFlags, Selector};
use edge::cluster::{Cluster, Done};
use edge::upstream::Args;
use serde_json::json;
use socketio_proto::namespace::NamespacePath;

use crate::harness::{Client, Polling, Server, room_for_a_crowd, until};

const CROWD: usize = 1_000;
const ROOMS: usize = 200;
/// Sessions that are opened during one long change; if it were made in one go, there would be one or two.
const OPENED_MIN: usize = 10;
const ROUNDS_MAX: usize = 5;

fn cluster(server: &Server) -> Cluster {
    server.edge().cluster().expect("a cluster of one").clone()
}

fn everybody() -> Selector {
    Selector::default()
}

fn rooms() -> Vec<String> {
    (0..ROOMS).map(|number| format!("room {number}")).collect()
}

fn emit(cluster: &Cluster, room: &str, name: &str) {
    let args = Args::text(json!([name]).to_string());
    let emitted = cluster.emit(&NamespacePath::root(), Selector::room(room), args, BroadcastFlags::default());
    emitted.expect("a valid event");
}

async fn all_hear(crowd: &mut [Client], name: &str) {
    let expected = format!("42[\"{name}\"]");
    for client in crowd {
        client.expect(&[&expected]).await;
    }
}

#[tokio::test]
async fn others_have_their_turn_during_a_long_change() {
    let _room = room_for_a_crowd().await;
    let server = Server::start(|_| {});
    let mut crowd = server.clients(CROWD).await;
    let mut late = crowd.split_off(CROWD - 100);
    let cluster = cluster(&server);

    let mut opened = Vec::new();
    let mut sockets = CROWD as u64;
    for round in 1.. {
        let joining = cluster.clone();
        let joining =
            tokio::spawn(async move { joining.join(&NamespacePath::root(), everybody(), rooms()).await });
        let before = opened.len();
        while !joining.is_finished() {
            opened.push(Polling::open(server.address, "EIO=4").await);
            late.drain(..).for_each(Client::reset);
        }
        let done = joining.await.expect("a join does not panic");
        assert_eq!(done, Done { sockets, ..Done::default() });
        let opened = opened.len() - before;
        if opened >= OPENED_MIN {
            break;
        }
        // This process itself may have been held up.
        assert!(round < ROUNDS_MAX, "only {opened} sessions were opened meanwhile");
        sockets = crowd.len() as u64;
        until("those who went are gone", || server.metric("jackfield_sockets") == sockets).await;
        let left = cluster.leave(&NamespacePath::root(), everybody(), rooms()).await;
        assert_eq!(left, Done { sockets, ..Done::default() });
    }
    let left = crowd.len() as u64;
    until("those who went are gone", || server.metric("jackfield_sockets") == left).await;

    // Who went meanwhile has left nothing behind.
    let before = server.metric("jackfield_deliveries_total");
    for room in [0, ROOMS - 1] {
        emit(&cluster, &format!("room {room}"), "joined");
        all_hear(&mut crowd, "joined").await;
    }
    assert_eq!(server.metric("jackfield_deliveries_total") - before, 2 * left);
}

#[tokio::test]
async fn what_comes_behind_a_long_change_waits_for_its_end() {
    let _room = room_for_a_crowd().await;
    let server = Server::start(|_| {});
    let mut crowd = server.clients(CROWD).await;
    let cluster = cluster(&server);
    let root = NamespacePath::root();
    let room = |name: &str| vec![name.to_owned()];

    // The emit is made before the joins have begun, and must find all of them done; so for the leave.
    let joined = cluster.join(&root, everybody(), room("all"));
    let heard = async { emit(&cluster, "all", "in") };
    let (done, ()) = tokio::join!(joined, heard);
    assert_eq!(done.sockets, CROWD as u64);
    all_hear(&mut crowd, "in").await;

    let left = cluster.leave(&root, everybody(), room("all"));
    let unheard = async { emit(&cluster, "all", "nobody is left") };
    let (done, ()) = tokio::join!(left, unheard);
    assert_eq!(done.sockets, CROWD as u64);
    let disconnected = cluster.disconnect(&root, everybody(), false);
    assert_eq!(disconnected.await.sockets, CROWD as u64);
    for client in &mut crowd {
        client.expect(&["41"]).await;
    }
    assert_eq!(server.metric("jackfield_sockets"), 0);
}
