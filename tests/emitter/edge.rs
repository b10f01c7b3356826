//! An edge without clients: a table of sockets that does what the cluster asks, and writes down what they are sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use adapter::adapter::{Adapter, Identity};
use adapter::broker::Gap;
use adapter::broker::memory::MemoryBus;
use adapter::config::BrokerConfig;
use adapter::local::{LocalSockets, Replier};
use cluster_proto::broadcast::Selector;
use cluster_proto::heartbeat::Role;
use cluster_proto::listing::{List, Listing};
use cluster_proto::message::{Change, ClusterMessage, JsonData, Operation, SocketUpdate};
use cluster_proto::response::{Answer, RemoteSocket};
use socketio_proto::namespace::NamespacePath;

use crate::{WITHIN, cluster_config};

#[derive(Debug, Clone, Default)]
pub(crate) struct FakeSocket {
    pub(crate) rooms: BTreeSet<String>,
    pub(crate) user: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) expires_at_ms: Option<u64>,
    /// What it answers to an event that asks for an ack; nothing keeps silent.
    pub(crate) ack: Option<JsonData>,
    /// The events that it was sent.
    pub(crate) events: Vec<JsonData>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// By namespace and id.
    pub(crate) sockets: BTreeMap<(String, String), FakeSocket>,
    /// All that was asked, in order.
    pub(crate) messages: Vec<ClusterMessage>,
    /// Knows nothing of pages of lists, and sends all its sockets.
    pub(crate) is_old: bool,
    /// Answers a list as if its sockets had gone meanwhile, up to this one.
    pub(crate) ends_at: Option<String>,
    /// Keeps silent when it is asked something.
    pub(crate) is_silent: bool,
    next: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    state: Mutex<State>,
    adapter: OnceLock<Adapter>,
}

pub(crate) struct FakeEdge {
    pub(crate) adapter: Adapter,
    table: Arc<Table>,
}

impl FakeEdge {
    pub(crate) fn start(bus: &MemoryBus) -> Self {
        let table = Arc::new(Table::default());
        let identity = Identity::new(Role::Edge);
        let broker = BrokerConfig::default();
        let starting =
            Adapter::start_on_bus(bus, &broker, &cluster_config(), &identity, table.clone(), None).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let claimed = runtime.block_on(async { tokio::time::timeout(WITHIN, starting.claimed()).await });
        let adapter = claimed.expect("a claim in time").expect("a running adapter");
        table.adapter.set(adapter.clone()).expect("it is set once");
        Self { adapter, table }
    }

    /// A socket in a namespace and in rooms, besides its own; its id.
    pub(crate) fn socket(&self, namespace: &str, rooms: &[&str]) -> String {
        let number = self.change(|state| {
            state.next += 1;
            state.next
        });
        let sid = format!("{}abcdefghijk{number:05}", self.adapter.node());
        let path = NamespacePath::parse(namespace).unwrap();
        self.wait_join(&path, None);
        self.change(|state| {
            let mut socket = FakeSocket::default();
            socket.rooms.insert(sid.clone());
            state.sockets.insert((namespace.to_owned(), sid.clone()), socket);
        });
        for room in rooms {
            self.wait_join(&path, Some(room));
            self.edit(namespace, &sid, |socket| socket.rooms.insert((*room).to_owned()));
        }
        sid
    }

    pub(crate) fn user_socket(&self, namespace: &str, rooms: &[&str], user: &str) -> String {
        let room = format!("user:{user}");
        let sid = self.socket(namespace, &[rooms, &[&room]].concat());
        self.edit(namespace, &sid, |socket| socket.user = Some(user.to_owned()));
        sid
    }

    pub(crate) fn wait_join(&self, namespace: &NamespacePath, room: Option<&str>) {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.adapter.join(namespace, room, Box::new(move |_| sender.send(()).unwrap()));
        receiver.recv_timeout(WITHIN).expect("a join in time");
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.table.change(change)
    }

    #[track_caller]
    pub(crate) fn edit<T>(&self, namespace: &str, sid: &str, edit: impl FnOnce(&mut FakeSocket) -> T) -> T {
        let key = (namespace.to_owned(), sid.to_owned());
        self.change(|state| edit(state.sockets.get_mut(&key).expect("a socket")))
    }

    pub(crate) fn remove(&self, namespace: &str, sid: &str) {
        self.change(|state| state.sockets.remove(&(namespace.to_owned(), sid.to_owned())));
    }

    /// Waits until a socket has been sent so many events; their texts.
    pub(crate) fn events(&self, namespace: &str, sid: &str, count: usize) -> Vec<String> {
        system_tests::brokers::wait_until("events", WITHIN, || {
            self.edit(namespace, sid, |socket| socket.events.len() >= count)
        });
        self.edit(namespace, sid, |socket| socket.events.iter().map(|event| event.text.clone()).collect())
    }

    pub(crate) fn ids(&self, namespace: &str) -> Vec<String> {
        self.change(|state| {
            let ids = state.sockets.keys().filter(|(path, _)| path == namespace);
            ids.map(|(_, sid)| sid.clone()).collect()
        })
    }
}

impl Table {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn operate(&self, message: &ClusterMessage, reply: Option<Replier>) {
        let path = message.namespace.as_str();
        match &message.operation {
            Operation::Broadcast { event, options } => {
                self.change(|state| {
                    state.meant(path, &options.selector, |_, socket| socket.events.push(event.clone()))
                });
            }
            Operation::BroadcastWithAck { event, options, .. } => {
                let (mut sids, mut acks) = (Vec::new(), Vec::new());
                self.change(|state| {
                    state.meant(path, &options.selector, |sid, socket| {
                        socket.events.push(event.clone());
                        sids.push(sid.to_owned());
                        acks.extend(socket.ack.clone().map(|args| (sid.to_owned(), args)));
                    });
                });
                let Some(reply) = reply else { return };
                reply.answer(Answer::ClientCount { count: sids.len() as u64, sids: Some(sids) });
                for (sid, args) in acks {
                    reply.answer(Answer::Ack { sid: Some(sid), args });
                }
            }
            Operation::Join { selector, rooms, .. } => {
                let count = self.change(|state| {
                    state.meant(path, selector, |_, socket| socket.rooms.extend(rooms.iter().cloned()))
                });
                self.done_after_joins(&message.namespace, rooms, count, reply);
            }
            Operation::Leave { selector, rooms, .. } => {
                let count = self.change(|state| {
                    state.meant(path, selector, |_, socket| {
                        socket.rooms.retain(|room| !rooms.contains(room));
                    })
                });
                done(reply, count);
            }
            Operation::Disconnect { selector, .. } => {
                let mut gone = Vec::new();
                self.change(|state| {
                    state.meant(path, selector, |sid, _| gone.push(sid.to_owned()));
                    for sid in &gone {
                        state.sockets.remove(&(path.to_owned(), sid.clone()));
                    }
                });
                done(reply, gone.len());
            }
            Operation::Update { selector, update, .. } => {
                let count =
                    self.change(|state| state.meant(path, selector, |_, socket| socket.apply(update)));
                match &update.user {
                    Change::Set(user) => {
                        let room = [format!("user:{user}")];
                        self.done_after_joins(&message.namespace, &room, count, reply);
                    }
                    Change::Keep | Change::Clear => done(reply, count),
                }
            }
            Operation::Fetch { selector, page_sockets_max, listing, .. } => {
                let mut found = Vec::new();
                let (is_old, ends_at) = self.change(|state| {
                    state.meant(path, selector, |sid, socket| found.push(socket.remote(sid)));
                    (state.is_old, state.ends_at.clone())
                });
                let size = page_sockets_max.map_or(usize::MAX, |max| max as usize);
                match listing.as_ref().filter(|_| !is_old) {
                    Some(_) if ends_at.is_some() => send_pages(&[], size, ends_at, reply),
                    Some(listing) => send_part(&found, listing, size, reply),
                    None => send_pages(&found, size, None, reply),
                }
            }
            Operation::ServerSideEmit { .. } => {
                if let Some(reply) = reply {
                    reply.answer(Answer::ServerSideEmit(Some("{\"here\":true}".to_owned())));
                }
            }
            Operation::Rooms { .. } | Operation::SocketIds { .. } => {}
        }
    }

    /// Answers a join once its subscriptions are active, as an edge does.
    fn done_after_joins(
        &self,
        namespace: &NamespacePath,
        rooms: &[String],
        count: usize,
        reply: Option<Replier>,
    ) {
        let left = Arc::new(Mutex::new(rooms.len()));
        for room in rooms {
            let (left, reply) = (left.clone(), reply.clone());
            let is_done = move |_| {
                let mut left = left.lock().unwrap();
                *left -= 1;
                if *left == 0 {
                    done(reply, count);
                }
            };
            if let Some(adapter) = self.adapter.get() {
                adapter.join(namespace, Some(room), Box::new(is_done));
            }
        }
    }
}

impl State {
    /// Calls something for each socket that is meant; how many there were.
    fn meant(
        &mut self,
        path: &str,
        selector: &Selector,
        mut act: impl FnMut(&str, &mut FakeSocket),
    ) -> usize {
        let mut count = 0;
        for ((_, sid), socket) in self.sockets.iter_mut().filter(|((namespace, _), _)| namespace == path) {
            let is_in = |rooms: &[String]| rooms.iter().any(|room| socket.rooms.contains(room));
            if (selector.rooms.is_empty() || is_in(&selector.rooms)) && !is_in(&selector.except) {
                act(sid, socket);
                count += 1;
            }
        }
        count
    }
}

impl FakeSocket {
    fn apply(&mut self, update: &SocketUpdate) {
        fn set<T: Clone>(place: &mut Option<T>, change: &Change<T>) {
            match change {
                Change::Keep => {}
                Change::Clear => *place = None,
                Change::Set(value) => *place = Some(value.clone()),
            }
        }
        set(&mut self.user, &update.user);
        set(&mut self.data, &update.data);
        set(&mut self.expires_at_ms, &update.expires_at_ms);
        if update.user != Change::Keep {
            self.rooms.retain(|room| !room.starts_with("user:"));
            self.rooms.extend(self.user.iter().map(|user| format!("user:{user}")));
        }
    }

    fn remote(&self, sid: &str) -> RemoteSocket {
        RemoteSocket {
            id: sid.to_owned(),
            rooms: self.rooms.iter().cloned().collect(),
            handshake: Some("{\"secure\":false}".to_owned()),
            data: self.data.clone(),
            user: self.user.clone(),
        }
    }
}

fn done(reply: Option<Replier>, count: usize) {
    if let Some(reply) = reply {
        reply.answer(Answer::Done { sockets: Some(count as u64) });
    }
}

fn send_pages(found: &[RemoteSocket], size: usize, through: Option<String>, reply: Option<Replier>) {
    let Some(reply) = reply else { return };
    let mut pages = found.chunks(size).peekable();
    if pages.peek().is_none() {
        reply.answer(Answer::Sockets { sockets: Vec::new(), more: false, through: through.clone() });
    }
    while let Some(page) = pages.next() {
        let more = pages.peek().is_some();
        let through = through.clone().filter(|_| !more);
        reply.answer(Answer::Sockets { sockets: page.to_vec(), more, through });
    }
}

/// Sends what is wanted of a list: the smallest names behind the last page.
fn send_part(found: &[RemoteSocket], listing: &Listing, size: usize, reply: Option<Replier>) {
    let limit = listing.limit as usize;
    let mut named: BTreeMap<String, Vec<&RemoteSocket>> = BTreeMap::new();
    for socket in found {
        listing.names(&socket.candidate(), |name| named.entry(name.to_owned()).or_default().push(socket));
    }
    let part = named.iter().take(limit);
    if listing.list == List::Sockets {
        let sockets: Vec<RemoteSocket> =
            part.flat_map(|(_, sockets)| sockets.iter().copied().cloned()).collect();
        let through = sockets.last().filter(|_| sockets.len() == limit).map(|socket| socket.id.clone());
        send_pages(&sockets, size, through, reply);
    } else if let Some(reply) = reply {
        let counts = part.map(|(name, sockets)| (name.clone(), sockets.len() as u64)).collect();
        reply.answer(Answer::Counts { counts, more: false });
    }
}

impl LocalSockets for Table {
    fn handle_message(&self, message: ClusterMessage, reply: Option<Replier>) {
        let is_silent = self.change(|state| {
            state.messages.push(message.clone());
            state.is_silent
        });
        if !is_silent || reply.is_none() {
            self.operate(&message, reply);
        }
    }

    fn handle_gap(&self, _gap: Gap) {}

    fn handle_identity_lost(&self) {}
}
