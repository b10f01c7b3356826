//! What holds for applications and clients, whatever the broker and however many the nodes: one table of cases.
//!
//! A case has clients of its own, on edges that it shares with the cases before it; after each, nothing may be left there. What must not arrive is shown by what
//! comes behind it: each publisher ends with an event for everybody.

mod acks;
mod binary;
mod membership;
mod names;
mod namespaces;
mod operations;
mod rooms;
mod server_side;
mod users;

use std::pin::Pin;
use std::time::Instant;

use crate::brokers::Broker;
use crate::nodes::Nodes;

/// How many nodes a cluster has.
const SIZES: [usize; 3] = [1, 2, 5];

/// Runs only the cases whose names contain this.
const WANTED: &str = "SCENARIO";

type Case = fn(&Nodes) -> Pin<Box<dyn Future<Output = ()> + '_>>;

macro_rules! cases {
    ($($module:ident: $($case:ident)+;)+) => {
        const CASES: &[(&str, Case)] = &[
            $($((concat!(stringify!($module), "::", stringify!($case)), |nodes| Box::pin($module::$case(nodes)))),+),+
        ];
    };
}

cases! {
    rooms: everybody one_room several_rooms without_the_sender except_rooms_and_sockets only_local
        volatile order_of_one_publisher nobody what_cannot_be_sent;
    membership: joins_and_leaves joins_at_connect the_last_one_leaves a_join_is_heard_at_once
        members_that_disconnect;
    names: strange_rooms sid_shaped_rooms sockets_by_name sockets_of_several_nodes old_names;
    namespaces: prefixes_of_each_other several_in_one_session;
    binary: attachments literal_placeholders from_the_application large;
    acks: of_one_socket of_everybody silent_clients_are_named several_questions_at_once nobody_is_asked binary_answers
        asked_within_rooms;
    operations: join_and_leave join_into_several disconnect_sockets disconnect_sessions fetch_sockets;
    users: update_makes_a_room update_data expiry;
    server_side: events_reach_each_other_node_once answers;
}

fn all(broker: &Broker) {
    let wanted = std::env::var(WANTED).ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for size in SIZES {
        let began = Instant::now();
        runtime.block_on(async {
            let nodes = Nodes::start(&broker.cluster(&format!("suite.{size}")), size).await;
            for (name, case) in
                CASES.iter().filter(|(name, _)| wanted.as_ref().is_none_or(|wanted| name.contains(wanted)))
            {
                let began = Instant::now();
                eprint!("{}, {size} nodes, {name}: ", broker.name());
                case(&nodes).await;
                nodes.empty().await;
                eprintln!("{} ms", began.elapsed().as_millis());
            }
            check_counters(&nodes);
        });
        eprintln!("{}, {size} nodes: {} ms", broker.name(), began.elapsed().as_millis());
    }
}

/// Nothing was lost, refused or late on the way of all these cases.
fn check_counters(nodes: &Nodes) {
    for node in &nodes.0 {
        let metrics = node.metrics();
        let counts = [
            ("gaps", metrics.gaps.get()),
            ("dropped", metrics.dropped.get()),
            ("joins degraded", metrics.joins_degraded.get()),
            ("publishes failed", metrics.publish_failed.get()),
            ("nodes died", metrics.nodes_died.get()),
        ];
        assert!(counts.iter().all(|(_, count)| *count == 0), "{counts:?}");
    }
}

#[test]
fn memory() {
    all(&Broker::Memory);
}

#[test]
fn redis() {
    all(&Broker::redis());
}

#[test]
fn rabbitmq() {
    all(&Broker::rabbitmq());
}
