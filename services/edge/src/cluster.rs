//! All sockets of the cluster, for the application: an upstream, or a program that embeds the edge.
//!
//! Whatever is asked here is done on this node and asked of all others at the same time. Nothing waits for the broker
//! but the answer: while it is away this node's part is done all the same, and the answer says who is missing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adapter::adapter::Adapter;
use adapter::cluster::requests::{RequestEnd, RequestEvent};
use cluster_proto::broadcast::{BroadcastFlags, BroadcastOptions, Selector};
use cluster_proto::error::DecodeError;
use cluster_proto::identity::{NodeId, RequestId};
use cluster_proto::limits::Limits;
use cluster_proto::message::{
    ClusterMessage, JsonData, Operation, Reply, SocketUpdate, check_event, check_server_event,
};
use cluster_proto::response::{Answer, ClusterResponse, RemoteSocket};
use socketio_proto::namespace::NamespacePath;
use tokio::sync::oneshot;

use crate::socketio::deliver::{broadcast_of, publish};
use crate::socketio::local::LocalShards;
use crate::upstream::Args;

/// How long other nodes may take to answer what their clients have no part in.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer than the clients have their nodes may take.
const TRAVEL: Duration = Duration::from_millis(500);
/// Sockets in one message of a list.
const PAGE_SOCKETS: u32 = 500;
/// Bytes of answers that are kept for one question; what is beyond is left out, and the answer is incomplete.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The sockets of all nodes. Clones are the same; no call blocks, and all may be made from any thread.
#[derive(Clone, Debug)]
pub struct Cluster {
    adapter: Adapter,
    local: Arc<LocalShards>,
    limits: Limits,
}

/// Who has not answered, or not in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Nodes of ours: they died, left, or were too slow.
    pub nodes: Vec<NodeId>,
    /// How many Node servers, which do not say who they are.
    pub unnamed: u64,
    /// Whether the broker was away, so that no other node was asked.
    pub unasked: bool,
    /// Whether some of what was answered had to be left out.
    pub overflowed: bool,
}

impl Missing {
    /// Whether everybody has answered in full.
    pub fn is_nobody(&self) -> bool {
        *self == Missing::default()
    }
}

/// An event that was sent to nobody, since the other nodes would refuse it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this event cannot be sent: {0}")]
pub struct InvalidEvent(#[from] DecodeError);

/// What came of an operation on sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// How many sockets were concerned, on the nodes that say so.
    pub sockets: u64,
    /// Who did not answer.
    pub missing: Missing,
}

/// One client's ack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Whose it is; clients of Node servers are not named.
    pub sid: Option<String>,
    /// The array of arguments.
    pub args: JsonData,
}

/// The acks that a broadcast was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// Those that came.
    pub acks: Vec<Ack>,
    /// The clients that gave none, as far as they are named.
    pub silent: Vec<String>,
    /// How many gave none, named or not.
    pub silent_count: u64,
    /// Nodes that did not answer.
    pub missing: Missing,
}

/// The sockets that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// The sockets of all nodes that answered.
    pub sockets: Vec<RemoteSocket>,
    /// Who did not answer.
    pub missing: Missing,
}

/// What the applications of other nodes answered to a server-side event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerAnswers {
    /// One JSON value of each that gave one.
    pub answers: Vec<String>,
    /// Who did not answer.
    pub missing: Missing,
}

impl Cluster {
    /// The sockets of this node's shards and of all that the adapter reaches; events are held to `limits`.
    pub fn new(adapter: Adapter, local: Arc<LocalShards>, limits: Limits) -> Cluster {
        Cluster { adapter, local, limits }
    }

    /// The link to the other nodes.
    pub fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// Sends an event to the sockets that `selector` means: `args` is the array of its name and arguments.
    ///
    /// # Errors
    /// [`InvalidEvent`] if clients or other nodes could not take it.
    pub fn emit(
        &self,
        namespace: &NamespacePath,
        selector: Selector,
        args: Args,
        flags: BroadcastFlags,
    ) -> Result<(), InvalidEvent> {
        let event = self.checked(&selector, args)?;
        let broadcast = broadcast_of(namespace.clone(), selector, event.into(), flags.volatile);
        let broadcast = Arc::new(broadcast);
        self.local.broadcast(&broadcast);
        publish(&self.adapter, &broadcast, flags);
        Ok(())
    }

    /// As [`Cluster::emit`], and waits for the ack of each socket, at most for `timeout`.
    ///
    /// # Errors
    /// [`InvalidEvent`], as [`Cluster::emit`].
    pub async fn emit_with_ack(
        &self,
        namespace: &NamespacePath,
        selector: Selector,
        args: Args,
        timeout: Duration,
    ) -> Result<Acks, InvalidEvent> {
        let event = self.checked(&selector, args)?;
        let timeout_ms = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        let flags = BroadcastFlags { timeout_ms, ..BroadcastFlags::default() };
        let options = BroadcastOptions { selector, flags };
        let heard = self
            .ask(namespace, timeout, |request| Operation::BroadcastWithAck { request, event, options })
            .await;
        let mut acks = Acks { missing: heard.missing, ..Acks::default() };
        let mut silent: std::collections::BTreeSet<String> = heard.end.missing_sids.into_iter().collect();
        let mut local_count: u64 = 0;
        for (is_local, answer) in heard.answers {
            if let Answer::ClientCount { count, sids } = answer {
                if is_local {
                    local_count += count;
                    silent.extend(sids.into_iter().flatten());
                }
            } else if let Answer::Ack { sid, args } = answer {
                if is_local {
                    local_count = local_count.saturating_sub(1);
                    sid.as_ref().map(|sid| silent.remove(sid));
                }
                acks.acks.push(Ack { sid, args });
            }
        }
        acks.silent = silent.into_iter().collect();
        acks.silent_count = heard.end.missing_acks.saturating_add(local_count);
        Ok(acks)
    }

    /// Puts sockets into rooms. Done when whatever is sent to the rooms from then on reaches them.
    pub async fn join(&self, namespace: &NamespacePath, selector: Selector, rooms: Vec<String>) -> Done {
        self.operate(namespace, |reply| Operation::Join { selector, rooms, reply }).await
    }

    /// Takes sockets out of rooms.
    pub async fn leave(&self, namespace: &NamespacePath, selector: Selector, rooms: Vec<String>) -> Done {
        self.operate(namespace, |reply| Operation::Leave { selector, rooms, reply }).await
    }

    /// Disconnects sockets from the namespace; with `close`, ends their whole sessions.
    pub async fn disconnect(&self, namespace: &NamespacePath, selector: Selector, close: bool) -> Done {
        self.operate(namespace, |reply| Operation::Disconnect { selector, close, reply }).await
    }

    /// Changes what is known of sockets.
    pub async fn update(&self, namespace: &NamespacePath, selector: Selector, update: SocketUpdate) -> Done {
        self.operate(namespace, |reply| Operation::Update { selector, update, reply }).await
    }

    /// Lists sockets.
    pub async fn fetch(&self, namespace: &NamespacePath, selector: Selector) -> Sockets {
        let page_sockets_max = Some(PAGE_SOCKETS);
        let heard = self
            .ask(namespace, TIMEOUT, |request| Operation::Fetch {
                request,
                selector,
                page_sockets_max,
                listing: None,
            })
            .await;
        let pages = heard.answers.into_iter().filter_map(|(_, answer)| {
            let Answer::Sockets { sockets, .. } = answer else { return None };
            Some(sockets)
        });
        Sockets { sockets: pages.flatten().collect(), missing: heard.missing }
    }

    /// Hands an event to the applications of all other nodes: `args` is the array of its name and arguments.
    ///
    /// # Errors
    /// [`InvalidEvent`] if other nodes could not take it.
    pub fn server_emit(&self, namespace: &NamespacePath, args: Args) -> Result<(), InvalidEvent> {
        let event = args.into();
        check_server_event(&event, &self.limits)?;
        let operation = Operation::ServerSideEmit { request: None, event };
        // As with broadcasts: what the broker does not take is counted.
        let _ = self.adapter.publish(message(namespace.clone(), operation));
        Ok(())
    }

    /// As [`Cluster::server_emit`], and waits for their answers.
    ///
    /// # Errors
    /// [`InvalidEvent`], as [`Cluster::server_emit`].
    pub async fn server_emit_with_ack(
        &self,
        namespace: &NamespacePath,
        args: Args,
    ) -> Result<ServerAnswers, InvalidEvent> {
        let event = args.into();
        check_server_event(&event, &self.limits)?;
        let make = |request| Operation::ServerSideEmit { request: Some(request), event };
        let question = Question::new(0);
        let heard = self.ask_others(namespace, TIMEOUT, make(self.adapter.request_id()), question).await;
        let answers = heard.answers.into_iter().filter_map(|(_, answer)| {
            let Answer::ServerSideEmit(answer) = answer else { return None };
            answer
        });
        Ok(ServerAnswers { answers: answers.collect(), missing: heard.missing })
    }

    fn checked(&self, selector: &Selector, args: Args) -> Result<JsonData, InvalidEvent> {
        let event = args.into();
        selector.check(&self.limits)?;
        check_event(&event, &self.limits)?;
        Ok(event)
    }

    async fn operate(&self, namespace: &NamespacePath, make: impl FnOnce(Reply) -> Operation) -> Done {
        let heard = self.ask(namespace, TIMEOUT, |request| make(Reply::All(request))).await;
        let counts = heard.answers.iter().filter_map(|(_, answer)| {
            let Answer::Done { sockets } = answer else { return None };
            *sockets
        });
        Done { sockets: counts.sum(), missing: heard.missing }
    }

    /// Asks this node's shards and all other nodes.
    async fn ask(
        &self,
        namespace: &NamespacePath,
        timeout: Duration,
        make: impl FnOnce(RequestId) -> Operation,
    ) -> Heard {
        let operation = make(self.adapter.request_id());
        let question = Question::new(1);
        let sink = question.clone();
        let local = Box::new(move |answer| {
            sink.hear_local(answer);
            true
        });
        self.local.ask(namespace.clone(), operation.clone(), Some(local));
        self.ask_others(namespace, timeout, operation, question).await
    }

    async fn ask_others(
        &self,
        namespace: &NamespacePath,
        timeout: Duration,
        operation: Operation,
        question: Arc<Question>,
    ) -> Heard {
        let sink = question.clone();
        let events = Box::new(move |event| match event {
            RequestEvent::Answer(ClusterResponse { answer, .. }) => sink.hear(answer),
            RequestEvent::End(end) => sink.end(end),
        });
        let asked = self.adapter.request(message(namespace.clone(), operation), timeout + TRAVEL, events);
        if asked.is_err() {
            question.end(RequestEnd { unpublished: true, ..RequestEnd::default() });
        }
        question.answered(self.adapter.node(), timeout).await
    }
}

fn message(namespace: NamespacePath, operation: Operation) -> ClusterMessage {
    ClusterMessage { sender: None, namespace, id: None, trace_parent: None, operation }
}

/// What was heard of a question.
#[derive(Debug, Default)]
struct Heard {
    /// Each answer, and whether it is this node's own.
    answers: Vec<(bool, Answer)>,
    bytes: usize,
    end: RequestEnd,
    missing: Missing,
}

/// A question under way: answers come from the shards and from the link to the other nodes.
#[derive(Debug)]
struct Question(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    heard: Heard,
    /// Answers of this node that are still to come.
    local_left: u64,
    /// Whether those are acks: who is asked may keep silent.
    local_acks: bool,
    /// Whether the time for acks is over.
    is_late: bool,
    others_done: bool,
    done: Option<oneshot::Sender<()>>,
}

impl Question {
    /// `local` is how many answers this node gives.
    fn new(local: u64) -> Arc<Question> {
        Arc::new(Question(Mutex::new(Waiting { local_left: local, ..Waiting::default() })))
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut waiting);
        if waiting.local_left == 0
            && waiting.others_done
            && let Some(done) = waiting.done.take()
        {
            // Whoever has asked may have given up.
            let _ = done.send(());
        }
    }

    fn hear_local(&self, answer: Answer) {
        self.change(|waiting| {
            if let Answer::ClientCount { count, .. } = &answer {
                // Its acks come behind it.
                waiting.local_left = if waiting.is_late { 0 } else { *count };
                waiting.local_acks = true;
            } else if !matches!(answer, Answer::Sockets { more: true, .. }) {
                waiting.local_left = waiting.local_left.saturating_sub(1);
            }
            waiting.heard.keep(true, answer);
        });
    }

    fn hear(&self, answer: Answer) {
        self.change(|waiting| waiting.heard.keep(false, answer));
    }

    fn end(&self, end: RequestEnd) {
        self.change(|waiting| {
            waiting.heard.end = end;
            waiting.others_done = true;
        });
    }

    /// Waits for every answer: for clients no longer than `timeout`, and for nodes not much longer.
    async fn answered(&self, own: NodeId, timeout: Duration) -> Heard {
        let (sender, mut done) = oneshot::channel();
        self.change(|waiting| waiting.done = Some(sender));
        if tokio::time::timeout(timeout, &mut done).await.is_err() {
            // Clients that are silent until now count as silent; nodes may still be on their way.
            self.change(|waiting| {
                waiting.is_late = true;
                if waiting.local_acks {
                    waiting.local_left = 0;
                }
            });
            let _ = tokio::time::timeout(2 * TRAVEL, done).await;
        }
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A shard was too busy, or had no room for the question.
        let own = (waiting.local_left > 0).then_some(own);
        let mut heard = std::mem::take(&mut waiting.heard);
        let end = &mut heard.end;
        heard.missing.nodes.append(&mut end.missing);
        heard.missing.nodes.extend(own);
        heard.missing.unnamed = end.missing_unnamed;
        heard.missing.unasked = end.unpublished;
        heard
    }
}

impl Heard {
    fn keep(&mut self, is_local: bool, answer: Answer) {
        self.bytes = self.bytes.saturating_add(weight(&answer));
        if self.bytes <= ANSWER_BYTES_MAX {
            self.answers.push((is_local, answer));
        } else {
            self.missing.overflowed = true;
        }
    }
}

fn weight(answer: &Answer) -> usize {
    let names = |names: &[String]| names.iter().map(|name| name.len() + size_of::<String>()).sum::<usize>();
    size_of::<Answer>()
        + match answer {
            Answer::ClientCount { sids, .. } => sids.as_deref().map_or(0, names),
            Answer::Ack { args, .. } => args.bytes_len(),
            Answer::Sockets { sockets, .. } => sockets
                .iter()
                .map(|socket| {
                    let texts = [&socket.handshake, &socket.data, &socket.user];
                    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
                    size_of::<RemoteSocket>() + names(&socket.rooms) + texts + socket.id.len()
                })
                .sum(),
            Answer::Counts { counts, .. } => {
                counts.iter().map(|(name, _)| name.len() + size_of::<(String, u64)>()).sum()
            }
            Answer::SocketIds(list) | Answer::Rooms(list) => names(list),
            Answer::ServerSideEmit(data) => data.as_ref().map_or(0, String::len),
            Answer::Done { .. } => 0,
        }
}
