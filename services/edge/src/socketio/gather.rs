//! One question to all shards of this node, and their answers made into one.
//!
//! Who asked hears what a node answers (`cluster_proto::response::Answer`), however many shards it has: a count of
//! all, one list of names, pages of which only the last says so, and never an ack before the count that it belongs to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster_proto::message::{JsonData, Operation, Reply};
use cluster_proto::response::{Answer, RemoteSocket};
use socketio_proto::namespace::NamespacePath;

/// The most bytes of a list that must be one answer: Node servers ask so, and drop what their Redis client refuses.
const WHOLE_LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most bytes of acks that wait for the slowest shard to count.
const EARLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where answers go, and whether they are on their way. Called from the threads of the shards; it must not block.
pub type Sink = Box<dyn Fn(Answer) -> bool + Send + Sync>;

/// What is asked of every shard.
#[derive(Debug)]
pub struct Ask {
    /// The namespace that it is about.
    pub namespace: NamespacePath,
    /// What is asked.
    pub operation: Operation,
    /// Where the answers of the shards meet.
    pub gather: Arc<Gather>,
}

/// Where the answers of the shards meet.
pub struct Gather {
    sink: Option<Sink>,
    /// Only a node that has the socket answers.
    only_holder: bool,
    paged: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Shards that have not answered in full.
    left: usize,
    count: u64,
    names: BTreeSet<String>,
    sids: Vec<String>,
    list: Vec<RemoteSocket>,
    list_bytes: usize,
    /// Acks that came before every shard had counted.
    early: Vec<(String, JsonData)>,
    early_bytes: usize,
    /// A page was lost: the list must not seem complete.
    is_broken: bool,
}

impl std::fmt::Debug for Gather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gather").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Gather {
    /// A place for the answers of `shards` shards to an operation; without a sink nobody wants them.
    pub fn new(shards: usize, operation: &Operation, sink: Option<Sink>) -> Arc<Gather> {
        let only_holder = match operation {
            Operation::Join { reply, .. }
            | Operation::Leave { reply, .. }
            | Operation::Disconnect { reply, .. }
            | Operation::Update { reply, .. } => matches!(reply, Reply::Holder(_)),
            Operation::Broadcast { .. }
            | Operation::BroadcastWithAck { .. }
            | Operation::Fetch { .. }
            | Operation::Rooms { .. }
            | Operation::SocketIds { .. }
            | Operation::ServerSideEmit { .. } => false,
        };
        let paged = matches!(operation, Operation::Fetch { page_sockets_max: Some(_), .. });
        Arc::new(Gather {
            sink,
            only_holder,
            paged,
            state: Mutex::new(State {
                left: shards,
                count: 0,
                names: BTreeSet::new(),
                sids: Vec::new(),
                list: Vec::new(),
                list_bytes: 0,
                early: Vec::new(),
                early_bytes: 0,
                is_broken: false,
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before the lock is given back.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, answer: Answer) -> bool {
        self.sink.as_ref().is_none_or(|sink| sink(answer))
    }

    /// A shard has done what was asked, for so many sockets.
    fn done(&self, sockets: u64) {
        let mut state = self.state();
        state.left = state.left.saturating_sub(1);
        state.count += sockets;
        let (left, count) = (state.left, state.count);
        drop(state);
        if left == 0 && (count > 0 || !self.only_holder) {
            self.answer(Answer::Done { sockets: Some(count) });
        }
    }

    /// A shard's part of a list of names: rooms, or with `are_sids` socket ids.
    pub fn names(&self, names: impl Iterator<Item = String>, are_sids: bool) {
        let names: Vec<String> = names.collect();
        let mut state = self.state();
        state.names.extend(names);
        state.left = state.left.saturating_sub(1);
        if state.left > 0 {
            return;
        }
        let names = std::mem::take(&mut state.names).into_iter().collect();
        drop(state);
        self.answer(if are_sids { Answer::SocketIds(names) } else { Answer::Rooms(names) });
    }

    /// Some sockets of a shard; `is_last` are the last ones of it. Whether there was room for all of them.
    pub fn sockets(&self, mut sockets: Vec<RemoteSocket>, is_last: bool) -> bool {
        let mut state = self.state();
        state.left = state.left.saturating_sub(usize::from(is_last));
        let is_end = state.left == 0 && is_last;
        if self.paged {
            // Under the lock: no other page may come behind the last one.
            if !state.is_broken && (is_end || !sockets.is_empty()) {
                state.is_broken = !self.answer(Answer::Sockets { sockets, more: !is_end, through: None });
            }
            return !state.is_broken;
        }
        let asked = sockets.len();
        let bytes_max = WHOLE_LIST_BYTES_MAX;
        sockets.retain(|socket| {
            state.list_bytes += weight(socket);
            state.list_bytes <= bytes_max
        });
        let fits = sockets.len() == asked;
        state.list.append(&mut sockets);
        if is_end {
            let sockets = std::mem::take(&mut state.list);
            drop(state);
            self.answer(Answer::Sockets { sockets, more: false, through: None });
        }
        fits
    }

    /// The sockets of a shard that were asked for an ack.
    pub fn counted(&self, sids: Vec<String>) {
        let mut state = self.state();
        state.count += sids.len() as u64;
        state.sids.extend(sids);
        state.left = state.left.saturating_sub(1);
        if state.left > 0 {
            return;
        }
        // Under the lock: no ack may overtake the count.
        self.answer(Answer::ClientCount { count: state.count, sids: Some(std::mem::take(&mut state.sids)) });
        for (sid, args) in std::mem::take(&mut state.early) {
            self.answer(Answer::Ack { sid: Some(sid), args });
        }
    }

    /// A client's ack.
    pub fn ack(&self, sid: String, args: JsonData) {
        let mut state = self.state();
        if state.left > 0 {
            // Of what is beyond, the asker hears that it is missing.
            state.early_bytes = state.early_bytes.saturating_add(sid.len() + args.bytes_len());
            if state.early_bytes <= EARLY_BYTES_MAX {
                state.early.push((sid, args));
            }
            return;
        }
        drop(state);
        self.answer(Answer::Ack { sid: Some(sid), args });
    }

    /// What the application answered to a server-side emit.
    pub fn event(&self, answer: Option<String>) {
        self.answer(Answer::ServerSideEmit(answer));
    }
}

/// The share of one shard in an operation that is done once the last clone of it goes: what must come first holds one.
#[derive(Debug)]
pub struct Share {
    gather: Arc<Gather>,
    sockets: u64,
}

impl Share {
    /// The share of a shard in which so many sockets were concerned.
    pub fn new(gather: Arc<Gather>, sockets: u64) -> Share {
        Share { gather, sockets }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gather.done(self.sockets);
    }
}

/// Bytes of a socket in a list, about.
pub fn weight(socket: &RemoteSocket) -> usize {
    let texts = [&socket.handshake, &socket.data, &socket.user].into_iter().flatten();
    let rooms = socket.rooms.iter().map(|room| room.len() + 8);
    texts.map(String::len).chain(rooms).sum::<usize>() + socket.id.len() + 64
}

#[cfg(test)]
mod tests {
    use cluster_proto::broadcast::Selector;
    use cluster_proto::identity::RequestId;

    use super::*;

    fn gather(shards: usize, operation: &Operation) -> (Arc<Gather>, Arc<Mutex<Vec<Answer>>>) {
        let answers: Arc<Mutex<Vec<Answer>>> = Arc::default();
        let heard = answers.clone();
        let sink: Sink = Box::new(move |answer| {
            heard.lock().unwrap().push(answer);
            true
        });
        (Gather::new(shards, operation, Some(sink)), answers)
    }

    fn request() -> RequestId {
        RequestId::from_bytes([1; 12])
    }

    fn socket(id: &str) -> RemoteSocket {
        RemoteSocket { id: id.to_owned(), ..RemoteSocket::default() }
    }

    #[test]
    fn an_operation_is_done_when_the_last_share_is() {
        let operation =
            Operation::Join { selector: Selector::default(), rooms: Vec::new(), reply: Reply::None };
        let (gather, answers) = gather(2, &operation);
        let first = Arc::new(Share::new(gather.clone(), 2));
        let fence = first.clone();
        drop(Share::new(gather, 3));
        drop(first);
        assert!(answers.lock().unwrap().is_empty());
        drop(fence);
        assert_eq!(*answers.lock().unwrap(), [Answer::Done { sockets: Some(5) }]);
    }

    #[test]
    fn only_the_holder_answers_where_only_the_holder_is_asked() {
        for (sockets, expected) in [(0, 0), (1, 1)] {
            let reply = Reply::Holder(request());
            let (gather, answers) =
                gather(1, &Operation::Leave { selector: Selector::default(), rooms: Vec::new(), reply });
            drop(Share::new(gather, sockets));
            assert_eq!(answers.lock().unwrap().len(), expected);
        }
    }

    #[test]
    fn acks_come_behind_the_count() {
        let operation = Operation::BroadcastWithAck {
            request: request(),
            event: JsonData::text("[\"e\"]"),
            options: cluster_proto::broadcast::BroadcastOptions::default(),
        };
        let (gather, answers) = gather(2, &operation);
        gather.counted(vec!["a".to_owned()]);
        gather.ack("a".to_owned(), JsonData::text("[1]"));
        assert!(answers.lock().unwrap().is_empty());
        gather.counted(Vec::new());
        let expected = [
            Answer::ClientCount { count: 1, sids: Some(vec!["a".to_owned()]) },
            Answer::Ack { sid: Some("a".to_owned()), args: JsonData::text("[1]") },
        ];
        assert_eq!(*answers.lock().unwrap(), expected);
    }

    #[test]
    fn only_the_last_page_says_so() {
        let operation = |page_sockets_max| Operation::Fetch {
            request: request(),
            selector: Selector::default(),
            page_sockets_max,
            listing: None,
        };
        let (paged, answers) = gather(2, &operation(Some(1)));
        assert!(paged.sockets(vec![socket("a")], false));
        paged.sockets(Vec::new(), true);
        paged.sockets(vec![socket("b")], true);
        let more: Vec<bool> = answers
            .lock()
            .unwrap()
            .iter()
            .map(|answer| matches!(answer, Answer::Sockets { more: true, .. }))
            .collect();
        assert_eq!(more, [true, false]);

        let (whole, answers) = gather(2, &operation(None));
        whole.sockets(vec![socket("a")], true);
        whole.sockets(vec![socket("b")], true);
        let expected =
            Answer::Sockets { sockets: vec![socket("a"), socket("b")], more: false, through: None };
        assert_eq!(*answers.lock().unwrap(), [expected]);
        let (bounded, _) = gather(1, &operation(None));
        let large = RemoteSocket { data: Some("x".repeat(WHOLE_LIST_BYTES_MAX)), ..socket("c") };
        assert!(!bounded.sockets(vec![large], true), "what is too much is left out, and said to be");
    }

    #[test]
    fn names_are_one_list_without_doubles() {
        let (gather, answers) = gather(2, &Operation::Rooms { request: request() });
        gather.names(["b", "a"].map(str::to_owned).into_iter(), false);
        gather.names(["a"].map(str::to_owned).into_iter(), false);
        assert_eq!(*answers.lock().unwrap(), [Answer::Rooms(vec!["a".to_owned(), "b".to_owned()])]);
    }
}
