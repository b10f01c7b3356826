//! One question to all shards of this node, and their answers made into one.
//!
//! Who asked hears what a node answers (`cluster_proto::response::Answer`), however many shards it has: a count of
//! all, one list of names, pages of which only the last says so, and never an ack before the count that it belongs to.
//! Of a page of a list each shard says first which sockets it would send, and describes those that all of them leave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster_proto::message::{JsonData, Operation, Reply};
use cluster_proto::response::{Answer, RemoteSocket};
use socketio_proto::namespace::NamespacePath;
use tokio::sync::oneshot;

use super::selection::Smallest;

/// The most bytes of a list that must be one answer: Node servers ask so, and drop what their Redis client refuses.
const WHOLE_LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most names with counts in one answer: names are bounded, so this is far below what one message may have.
const COUNTS_MAX: usize = 2_000;

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
    /// What a page of a list holds.
    page: Page,
    /// Acks that came before every shard had counted.
    early: Vec<(String, JsonData)>,
    early_bytes: usize,
    /// A page was lost: the list must not seem complete.
    is_broken: bool,
}

/// What the shards found of a page of a list.
#[derive(Debug)]
struct Page {
    /// Shards that have not said which sockets they would send.
    choosing: usize,
    /// The ids of those that are sent.
    chosen: Smallest<()>,
    /// Shards that wait until the others have said so.
    waiting: Vec<oneshot::Sender<()>>,
    counts: Smallest<u64>,
}

impl Page {
    /// One shard less is waited for.
    fn chose(&mut self) {
        self.choosing = self.choosing.saturating_sub(1);
        if self.choosing == 0 {
            for waiting in self.waiting.drain(..) {
                // A shard that has ended describes nothing.
                let _ = waiting.send(());
            }
        }
    }

    /// The last id up to which all is told, if the list may go on behind it.
    fn through(&self) -> Option<String> {
        self.chosen.last().filter(|_| self.chosen.is_full()).map(str::to_owned)
    }
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
        let limit =
            if let Operation::Fetch { listing: Some(listing), .. } = operation { listing.limit } else { 0 };
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
                page: Page {
                    choosing: shards,
                    chosen: Smallest::new(limit),
                    waiting: Vec::new(),
                    counts: Smallest::new(limit),
                },
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
                let through = if is_end { state.page.through() } else { None };
                state.is_broken = !self.answer(Answer::Sockets { sockets, more: !is_end, through });
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
            let through = state.page.through();
            drop(state);
            self.answer(Answer::Sockets { sockets, more: false, through });
        }
        fits
    }

    /// The sockets that a shard would send of a page of a list; what to wait for if others have not said so yet.
    pub fn choose<T>(&self, ids: &BTreeMap<String, T>) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state();
        let page = &mut state.page;
        ids.keys().for_each(|id| page.chosen.insert(id, ()));
        page.chose();
        (page.choosing > 0).then(|| {
            let (sender, others) = oneshot::channel();
            page.waiting.push(sender);
            others
        })
    }

    /// A shard could not be asked: the others do not wait for it. The list has no end then.
    pub fn pass_over(&self) {
        self.state().page.chose();
    }

    /// Leaves those sockets of a shard that are on the page of all shards.
    pub fn retain_chosen<T>(&self, found: &mut BTreeMap<String, T>) {
        let state = self.state();
        found.retain(|id, _| state.page.chosen.contains(id));
    }

    /// The names that a shard has of a page of a list.
    pub fn counts(&self, counts: Smallest<u64>) {
        let mut state = self.state();
        for (name, count) in counts.into_items() {
            state.page.counts.add(&name, count);
        }
        state.left = state.left.saturating_sub(1);
        if state.left > 0 {
            return;
        }
        let counts = std::mem::replace(&mut state.page.counts, Smallest::new(0));
        drop(state);
        let mut counts = counts.into_items().into_iter().peekable();
        loop {
            let some = counts.by_ref().take(COUNTS_MAX).collect();
            let more = counts.peek().is_some();
            // Behind one that was lost the list must not seem complete.
            if !self.answer(Answer::Counts { counts: some, more }) || !more {
                return;
            }
        }
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
    use cluster_proto::listing::{Filter, List, Listing, Names};

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

    fn page_of(list: List, limit: u32) -> Operation {
        let listing = Listing { list, filter: Filter::default(), after: None, limit };
        Operation::Fetch {
            request: request(),
            selector: Selector::default(),
            page_sockets_max: Some(500),
            listing: Some(listing),
        }
    }

    fn found(ids: &[&str]) -> BTreeMap<String, ()> {
        ids.iter().map(|id| ((*id).to_owned(), ())).collect()
    }

    #[test]
    fn shards_send_one_page_together() {
        let (gather, answers) = gather(3, &page_of(List::Sockets, 3));
        let shards = [found(&["a", "d", "e"]), found(&["b", "c", "f"]), found(&[])];
        let [mut one, mut two, mut three] = shards;
        let mut first = gather.choose(&one).expect("others have to choose");
        assert!(gather.choose(&two).is_some() && first.try_recv().is_err());
        assert!(gather.choose(&three).is_none());
        assert_eq!(first.try_recv(), Ok(()));
        for found in [&mut one, &mut two, &mut three] {
            gather.retain_chosen(found);
        }
        assert_eq!((one.len(), two.len(), three.len()), (1, 2, 0));
        gather.sockets(Vec::new(), true);
        // One of them has gone meanwhile; where the page ends is said all the same.
        gather.sockets(vec![socket("b")], true);
        gather.sockets(vec![socket("a")], true);
        let expected = [
            Answer::Sockets { sockets: vec![socket("b")], more: true, through: None },
            Answer::Sockets { sockets: vec![socket("a")], more: false, through: Some("c".to_owned()) },
        ];
        assert_eq!(*answers.lock().unwrap(), expected);
    }

    #[test]
    fn the_last_page_of_a_list_says_nothing_of_more() {
        let (gather, answers) = gather(1, &page_of(List::Sockets, 3));
        assert!(gather.choose(&found(&["a", "b"])).is_none());
        gather.sockets(vec![socket("a"), socket("b")], true);
        let expected =
            Answer::Sockets { sockets: vec![socket("a"), socket("b")], more: false, through: None };
        assert_eq!(*answers.lock().unwrap(), [expected]);
    }

    #[test]
    fn shards_do_not_wait_for_one_that_was_not_asked() {
        let (gather, answers) = gather(2, &page_of(List::Sockets, 3));
        let mut others = gather.choose(&found(&["a"])).expect("another has to choose");
        gather.pass_over();
        assert_eq!(others.try_recv(), Ok(()));
        gather.sockets(vec![socket("a")], true);
        let more = Answer::Sockets { sockets: vec![socket("a")], more: true, through: None };
        assert_eq!(*answers.lock().unwrap(), [more], "the node has not answered in full");
    }

    #[test]
    fn counts_are_added_up_and_come_in_pieces() {
        let counts = |limit, names: &[(&str, u64)]| {
            let mut counts = Smallest::new(limit);
            names.iter().for_each(|(name, count)| counts.add(name, *count));
            counts
        };
        let (small, answers) = gather(2, &page_of(List::Users(Names::Any), 2));
        small.counts(counts(2, &[("b", 2), ("c", 1)]));
        assert!(answers.lock().unwrap().is_empty());
        small.counts(counts(2, &[("a", 1), ("b", 3)]));
        let expected = Answer::Counts { counts: vec![("a".to_owned(), 1), ("b".to_owned(), 5)], more: false };
        assert_eq!(*answers.lock().unwrap(), [expected]);

        let (large, answers) = gather(1, &page_of(List::Rooms(Names::Any), 5_000));
        let names: Vec<String> = (0..4_500).map(|number| format!("{number:04}")).collect();
        let all: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        large.counts(counts(5_000, &all));
        let answers = answers.lock().unwrap();
        let pieces: Vec<(usize, bool)> = answers
            .iter()
            .map(|answer| {
                let Answer::Counts { counts, more } = answer else { panic!("{answer:?}") };
                (counts.len(), *more)
            })
            .collect();
        assert_eq!(pieces, [(2_000, true), (2_000, true), (500, false)]);
        let (none, answers) = gather(1, &page_of(List::Rooms(Names::Any), 5));
        none.counts(Smallest::new(5));
        assert_eq!(*answers.lock().unwrap(), [Answer::Counts { counts: Vec::new(), more: false }]);
    }

    #[test]
    fn names_are_one_list_without_doubles() {
        let (gather, answers) = gather(2, &Operation::Rooms { request: request() });
        gather.names(["b", "a"].map(str::to_owned).into_iter(), false);
        gather.names(["a"].map(str::to_owned).into_iter(), false);
        assert_eq!(*answers.lock().unwrap(), [Answer::Rooms(vec!["a".to_owned(), "b".to_owned()])]);
    }
}
