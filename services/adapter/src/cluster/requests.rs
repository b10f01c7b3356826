//! Who still owes an answer.
//!
//! A request is complete when every node has answered that was alive when it was asked, and as many Node servers as
//! were listening. Who dies or leaves meanwhile is waited for no longer, and is named; who has not answered at the
//! deadline is named too. Node servers do not say who they are: they are counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

use cluster_proto::identity::{NodeId, RequestId};
use cluster_proto::message::{Operation, Reply};
use cluster_proto::response::{Answer, ClusterResponse};

/// Nodes whose answers to one request are kept apart: whoever can write to the broker can make up names.
const NODES_MAX: usize = 65_536;

/// What the asker hears, in this order: any number of answers, then one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestEvent {
    /// One answer.
    Answer(ClusterResponse),
    /// No more answers come.
    End(RequestEnd),
}

/// How a request ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestEnd {
    /// The nodes that answered in full.
    pub answered: Vec<NodeId>,
    /// The nodes that did not: they died, left, or were too slow. Where clients are asked, a node has answered by its count.
    pub missing: Vec<NodeId>,
    /// How many Node servers did not answer.
    pub missing_unnamed: u64,
    /// How many clients were asked for an ack and gave none.
    pub missing_acks: u64,
    /// Their ids, as far as their nodes named them.
    pub missing_sids: Vec<String>,
    /// Whether the deadline passed first.
    pub timed_out: bool,
    /// Whether the request could not be published; nobody was asked, or it is not known who was.
    pub unpublished: bool,
}

/// Called with each event, by the link; it must not block.
pub type RequestSink = Box<dyn FnMut(RequestEvent) + Send>;

/// How one node's answers add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One answer.
    Single,
    /// One answer of one node is enough.
    Anybody,
    /// Pages until the last.
    Pages,
    /// A count of clients, then an ack of each.
    Acks,
}

#[derive(Debug, Default)]
struct Progress {
    clients: Option<u64>,
    acks: u64,
    done: bool,
}

struct Pending {
    kind: Kind,
    deadline: Instant,
    sink: RequestSink,
    nodes: BTreeMap<NodeId, Progress>,
    /// Nodes that died or left before they answered.
    lost: BTreeSet<NodeId>,
    /// How many of our own edges listen, if the broker can tell.
    listening: Option<u64>,
    /// How many Node servers are to answer; `None` while the broker is still counting.
    unnamed: Option<u64>,
    unnamed_answers: u64,
    unnamed_clients: u64,
    unnamed_acks: u64,
    sids: HashSet<String>,
}

/// The requests of this node.
#[derive(Default)]
pub struct Requests {
    pending: HashMap<RequestId, Pending>,
    deadlines: BTreeSet<(Instant, RequestId)>,
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

/// The request id of an operation that is answered, and whether Node servers answer it too.
#[must_use]
pub fn answered(operation: &Operation) -> Option<(&RequestId, bool)> {
    match operation {
        Operation::BroadcastWithAck { request, .. }
        | Operation::Fetch { request, .. }
        | Operation::Rooms { request }
        | Operation::SocketIds { request, .. } => Some((request, true)),
        Operation::ServerSideEmit { request, .. } => request.as_ref().map(|request| (request, true)),
        Operation::Join { reply, .. }
        | Operation::Leave { reply, .. }
        | Operation::Disconnect { reply, .. }
        | Operation::Update { reply, .. } => match reply {
            Reply::None => None,
            Reply::All(request) | Reply::Holder(request) => Some((request, false)),
        },
        Operation::Broadcast { .. } => None,
    }
}

fn kind(operation: &Operation) -> Kind {
    match operation {
        Operation::BroadcastWithAck { .. } => Kind::Acks,
        Operation::Fetch { .. } => Kind::Pages,
        Operation::Join { reply, .. }
        | Operation::Leave { reply, .. }
        | Operation::Disconnect { reply, .. }
        | Operation::Update { reply, .. } => match reply {
            Reply::Holder(_) => Kind::Anybody,
            Reply::None | Reply::All(_) => Kind::Single,
        },
        Operation::Broadcast { .. }
        | Operation::Rooms { .. }
        | Operation::SocketIds { .. }
        | Operation::ServerSideEmit { .. } => Kind::Single,
    }
}

impl Requests {
    /// How many wait for answers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Begins to wait for answers from `nodes`; with `counts_unnamed` not before [`Requests::handle_counted`] has said
    /// how many Node servers there are. An operation that nobody answers is ended at once.
    pub fn begin(
        &mut self,
        operation: &Operation,
        nodes: impl Iterator<Item = NodeId>,
        counts_unnamed: bool,
        deadline: Instant,
        mut sink: RequestSink,
    ) {
        let Some((request, by_node_servers)) = answered(operation) else {
            sink(RequestEvent::End(RequestEnd::default()));
            return;
        };
        let pending = Pending {
            kind: kind(operation),
            deadline,
            sink,
            nodes: nodes.map(|node| (node, Progress::default())).collect(),
            lost: BTreeSet::new(),
            listening: None,
            unnamed: (!(counts_unnamed && by_node_servers)).then_some(0),
            unnamed_answers: 0,
            unnamed_clients: 0,
            unnamed_acks: 0,
            sids: HashSet::new(),
        };
        let request = request.clone();
        if let Some(old) = self.pending.insert(request.clone(), pending) {
            self.deadlines.remove(&(old.deadline, request.clone()));
        }
        self.deadlines.insert((deadline, request.clone()));
        self.end_if_complete(&request);
    }

    /// The broker has counted who listens: our own other edges, and Node servers.
    pub fn handle_counted(&mut self, request: &RequestId, edges: u64, node_servers: u64) {
        if let Some(pending) = self.pending.get_mut(request) {
            pending.listening = Some(edges);
            pending.unnamed = pending.unnamed.map_or(Some(node_servers), Some);
        }
        self.end_if_complete(request);
    }

    /// An answer has arrived; whether anybody waits for it.
    pub fn handle_response(&mut self, response: ClusterResponse) -> bool {
        let Some(pending) = self.pending.get_mut(&response.request) else { return false };
        let request = response.request.clone();
        if !pending.note(&response) {
            return false;
        }
        (pending.sink)(RequestEvent::Answer(response));
        self.end_if_complete(&request);
        true
    }

    /// A node has died, left, or lives another life: it answers no more.
    pub fn handle_lost(&mut self, node: NodeId) {
        let mut changed = Vec::new();
        for (request, pending) in &mut self.pending {
            if pending.nodes.get(&node).is_some_and(|progress| !progress.done) {
                pending.lost.insert(node);
                changed.push(request.clone());
            }
        }
        changed.iter().for_each(|request| self.end_if_complete(request));
    }

    /// The request was not published, or nobody knows.
    pub fn handle_unpublished(&mut self, request: &RequestId) {
        self.end(request, false, true);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((deadline, request)) = self.deadlines.first().cloned()
            && deadline <= now
        {
            self.deadlines.remove(&(deadline, request.clone()));
            self.end(&request, true, false);
        }
    }

    /// When [`Requests::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    fn end_if_complete(&mut self, request: &RequestId) {
        if self.pending.get(request).is_some_and(Pending::is_complete) {
            self.end(request, false, false);
        }
    }

    fn end(&mut self, request: &RequestId, timed_out: bool, unpublished: bool) {
        let Some(mut pending) = self.pending.remove(request) else { return };
        self.deadlines.remove(&(pending.deadline, request.clone()));
        let end = RequestEnd { timed_out, unpublished, ..pending.end(timed_out || unpublished) };
        (pending.sink)(RequestEvent::End(end));
    }
}

impl Pending {
    /// Counts an answer; whether it is one that was still owed.
    fn note(&mut self, response: &ClusterResponse) -> bool {
        let kind = self.kind;
        let Some(node) = response.node else { return self.note_unnamed(&response.answer) };
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&node) {
            return false;
        }
        // A node that came after the question may have heard it too.
        let progress = self.nodes.entry(node).or_default();
        if progress.done {
            return false;
        }
        match (&response.answer, kind) {
            (Answer::ClientCount { .. }, Kind::Acks) if progress.clients.is_some() => return false,
            (Answer::ClientCount { count, sids }, Kind::Acks) => {
                progress.clients = Some(*count);
                self.sids.extend(sids.iter().flatten().cloned());
            }
            (Answer::Ack { sid, .. }, Kind::Acks) => {
                progress.acks += 1;
                if let Some(sid) = sid {
                    self.sids.remove(sid);
                }
            }
            (Answer::Sockets { more: true, .. } | Answer::Counts { more: true, .. }, Kind::Pages) => {
                return true;
            }
            (_, Kind::Acks) => return false,
            (_, Kind::Single | Kind::Pages | Kind::Anybody) => progress.done = true,
        }
        if progress.clients.is_some_and(|clients| progress.acks >= clients) {
            progress.done = true;
        }
        true
    }

    fn note_unnamed(&mut self, answer: &Answer) -> bool {
        match (answer, self.kind) {
            (Answer::ClientCount { count, .. }, Kind::Acks) => {
                self.unnamed_answers += 1;
                self.unnamed_clients = self.unnamed_clients.saturating_add(*count);
            }
            (Answer::Ack { .. }, Kind::Acks) => self.unnamed_acks += 1,
            (_, Kind::Acks) => return false,
            (_, Kind::Single | Kind::Pages | Kind::Anybody) => self.unnamed_answers += 1,
        }
        true
    }

    fn is_complete(&self) -> bool {
        let done = self.nodes.values().filter(|progress| progress.done).count();
        if self.kind == Kind::Anybody && (done > 0 || self.unnamed_answers > 0) {
            return true;
        }
        let is_open = |(node, progress): (&NodeId, &Progress)| !progress.done && !self.lost.contains(node);
        let open = self.nodes.iter().filter(|entry| is_open(*entry)).count();
        // Edges that do not have the namespace open never hear the question.
        let enough = self.listening.is_some_and(|listening| done as u64 >= listening) && !self.has_begun();
        let named = open == 0 || enough;
        let unnamed = self.unnamed.is_some_and(|unnamed| self.unnamed_answers >= unnamed);
        named && unnamed && self.unnamed_acks >= self.unnamed_clients
    }

    /// Whether some node has answered in part.
    fn has_begun(&self) -> bool {
        self.nodes
            .iter()
            .any(|(node, progress)| progress.clients.is_some() && !progress.done && !self.lost.contains(node))
    }

    fn end(&mut self, cut_short: bool) -> RequestEnd {
        let (answered, open): (Vec<_>, Vec<_>) = self.nodes.iter().partition(|(_, progress)| progress.done);
        // Unless the time ran out, those that are open and alive were not listening. A node that has counted its clients
        // has answered: it is they who keep silent.
        let is_missing = |node: &NodeId, progress: &Progress| {
            self.lost.contains(node) || cut_short && progress.clients.is_none()
        };
        let missing = open.iter().filter(|(node, progress)| is_missing(node, progress));
        let owed = |progress: &Progress| progress.clients.unwrap_or(0).saturating_sub(progress.acks);
        let acks = self.nodes.values().map(owed).fold(0, u64::saturating_add);
        RequestEnd {
            answered: answered.iter().map(|(node, _)| **node).collect(),
            missing: missing.map(|(node, _)| **node).collect(),
            missing_unnamed: self.unnamed.unwrap_or(0).saturating_sub(self.unnamed_answers),
            missing_acks: acks.saturating_add(self.unnamed_clients.saturating_sub(self.unnamed_acks)),
            missing_sids: self.sids.drain().collect(),
            timed_out: false,
            unpublished: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use cluster_proto::broadcast::{BroadcastOptions, Selector};
    use cluster_proto::message::JsonData;

    use super::*;

    struct Table {
        requests: Requests,
        request: RequestId,
        deadline: Instant,
        events: Arc<Mutex<Vec<RequestEvent>>>,
    }

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([0, 0, number])
    }

    fn fetch(request: &RequestId) -> Operation {
        Operation::Fetch {
            request: request.clone(),
            selector: Selector::default(),
            page_sockets_max: Some(2),
            listing: None,
        }
    }

    fn with_ack(request: &RequestId) -> Operation {
        Operation::BroadcastWithAck {
            request: request.clone(),
            event: JsonData::text(r#"["x"]"#),
            options: BroadcastOptions::default(),
        }
    }

    impl Table {
        fn new(operation: fn(&RequestId) -> Operation, nodes: &[u8], counts_unnamed: bool) -> Self {
            let request = RequestId::from_bytes([7; 12]);
            let deadline = Instant::now() + Duration::from_secs(5);
            let events = Arc::new(Mutex::new(Vec::new()));
            let mut requests = Requests::default();
            let sink = events.clone();
            requests.begin(
                &operation(&request),
                nodes.iter().map(|number| node(*number)),
                counts_unnamed,
                deadline,
                Box::new(move |event| sink.lock().unwrap().push(event)),
            );
            Self { requests, request, deadline, events }
        }

        fn answer(&mut self, from: Option<u8>, answer: Answer) -> bool {
            let response = ClusterResponse { request: self.request.clone(), node: from.map(node), answer };
            self.requests.handle_response(response)
        }

        /// The end, if there is one, and how many answers came before it.
        fn end(&self) -> Option<(RequestEnd, usize)> {
            let events = self.events.lock().unwrap();
            let end = events.iter().find_map(|event| match event {
                RequestEvent::End(end) => Some(end.clone()),
                RequestEvent::Answer(_) => None,
            })?;
            assert!(matches!(events.last(), Some(RequestEvent::End(_))), "nothing comes after the end");
            Some((end, events.len() - 1))
        }
    }

    fn page(more: bool) -> Answer {
        Answer::Sockets { sockets: Vec::new(), more, through: None }
    }

    fn count(count: u64, sids: &[&str]) -> Answer {
        Answer::ClientCount { count, sids: Some(sids.iter().map(|sid| (*sid).to_owned()).collect()) }
    }

    fn ack(sid: &str) -> Answer {
        Answer::Ack { sid: Some(sid.to_owned()), args: JsonData::text("[]") }
    }

    #[test]
    fn a_fetch_ends_with_the_last_page_of_the_last_node() {
        let mut table = Table::new(fetch, &[1, 2], false);
        table.answer(Some(1), page(true));
        table.answer(Some(2), page(false));
        assert_eq!(table.end(), None);
        assert!(!table.answer(Some(2), page(false)), "an answer that is not owed is dropped");
        table.answer(Some(1), page(false));
        let expected = RequestEnd { answered: vec![node(1), node(2)], ..RequestEnd::default() };
        assert_eq!(table.end(), Some((expected, 3)));
        assert!(table.requests.is_empty() && table.requests.poll_timeout().is_none());
    }

    #[test]
    fn counts_come_in_pieces_too() {
        let counts = |more| Answer::Counts { counts: Vec::new(), more };
        let mut table = Table::new(fetch, &[1, 2], false);
        table.answer(Some(1), counts(true));
        table.answer(Some(2), page(false));
        assert_eq!(table.end(), None);
        table.answer(Some(1), counts(false));
        let expected = RequestEnd { answered: vec![node(1), node(2)], ..RequestEnd::default() };
        assert_eq!(table.end(), Some((expected, 3)));
    }

    #[test]
    fn nobody_to_ask_is_complete_at_once() {
        assert_eq!(Table::new(fetch, &[], false).end(), Some((RequestEnd::default(), 0)));
    }

    #[test]
    fn the_deadline_names_the_missing() {
        let mut table = Table::new(fetch, &[1, 2], false);
        table.answer(Some(1), page(false));
        table.requests.handle_timeout(table.deadline - Duration::from_millis(1));
        assert_eq!(table.end(), None);
        table.requests.handle_timeout(table.deadline);
        let (end, _) = table.end().unwrap();
        assert_eq!((end.answered, end.missing, end.timed_out), (vec![node(1)], vec![node(2)], true));
    }

    #[test]
    fn the_dead_are_not_waited_for_and_are_named() {
        let mut table = Table::new(fetch, &[1, 2], false);
        table.requests.handle_lost(node(2));
        assert_eq!(table.end(), None);
        table.answer(Some(1), page(false));
        let (end, _) = table.end().unwrap();
        assert_eq!((end.missing, end.timed_out), (vec![node(2)], false));
    }

    #[test]
    fn node_servers_are_counted() {
        let mut table = Table::new(fetch, &[1], true);
        table.answer(Some(1), page(false));
        table.answer(None, page(false));
        assert_eq!(table.end(), None, "it is not known yet how many there are");
        let request = table.request.clone();
        table.requests.handle_counted(&request, 1, 2);
        assert_eq!(table.end(), None);
        table.requests.handle_timeout(table.deadline);
        assert_eq!(table.end().unwrap().0.missing_unnamed, 1);
    }

    #[test]
    fn edges_that_do_not_listen_are_not_waited_for() {
        let mut table = Table::new(fetch, &[1, 2, 3], true);
        let request = table.request.clone();
        table.requests.handle_counted(&request, 1, 0);
        assert_eq!(table.end(), None);
        table.answer(Some(2), page(false));
        let (end, _) = table.end().unwrap();
        assert_eq!((end.answered, end.missing), (vec![node(2)], vec![]));
    }

    #[test]
    fn acks_are_complete_when_every_client_has_answered() {
        let mut table = Table::new(with_ack, &[1, 2], false);
        table.answer(Some(1), count(2, &["a", "b"]));
        table.answer(Some(2), count(0, &[]));
        table.answer(Some(1), ack("a"));
        assert_eq!(table.end(), None);
        table.answer(Some(1), ack("b"));
        assert_eq!(table.end().unwrap().0.missing_acks, 0);
    }

    #[test]
    fn clients_that_gave_no_ack_are_named() {
        let mut table = Table::new(with_ack, &[1, 2], false);
        table.answer(Some(1), count(3, &["a", "b", "c"]));
        table.answer(Some(1), ack("b"));
        table.answer(None, Answer::ClientCount { count: 1, sids: None });
        table.requests.handle_timeout(table.deadline);
        let (mut end, _) = table.end().unwrap();
        end.missing_sids.sort();
        assert_eq!((end.missing_acks, end.missing_sids), (3, vec!["a".to_owned(), "c".to_owned()]));
        assert_eq!(end.missing, [node(2)], "only who has not even counted");
    }

    #[test]
    fn a_node_that_came_later_is_heard_too() {
        let mut table = Table::new(with_ack, &[1], false);
        table.answer(Some(9), count(1, &["z"]));
        table.answer(Some(1), count(0, &[]));
        assert_eq!(table.end(), None);
        table.answer(Some(9), ack("z"));
        assert_eq!(table.end().unwrap().0.answered, [node(1), node(9)]);
    }

    #[test]
    fn a_request_that_was_not_published_says_so() {
        let mut table = Table::new(fetch, &[1], false);
        let request = table.request.clone();
        table.requests.handle_unpublished(&request);
        let (end, _) = table.end().unwrap();
        assert!(end.unpublished && end.missing == [node(1)]);
        assert!(!table.answer(Some(1), page(false)));
    }
}
