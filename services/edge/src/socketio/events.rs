//! Events and acknowledgements of clients, on their way to the application and back.
//!
//! Events of one socket are put to the application one after the other: while an answer is awaited, the next
//! events wait with their socket, within bounds.

use adapter::interest::JoinOutcome;
use engineio_proto::session::CloseReason;
use socketio_proto::packet::{AckId, Packet};
use websocket_proto::close::CloseCode;

use super::acks::Owner;
use super::app::{ClientState, Completion, SocketIo};
use super::deliver::{Job, Wishes};
use super::interest::{Ticket, Waiter};
use super::socket::Waiting;
use crate::rooms::index::SocketKey;
use crate::session::ending::Farewell;
use crate::session::registry::Sessions;
use crate::upstream::{Answer, Args, Reply};

impl SocketIo {
    pub(super) fn event(&mut self, sessions: &mut Sessions<ClientState>, key: SocketKey, packet: Packet<'_>) {
        self.metrics.events.add(1);
        let bounds = self.bounds.clone();
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(waiting) = &mut socket.waiting else {
            self.ask(sessions, key, &packet);
            return;
        };
        waiting.bytes += packet.bytes_len();
        if waiting.events.len() >= bounds.events_waiting_max
            || waiting.bytes > bounds.events_waiting_bytes_max
        {
            let session = socket.session;
            self.metrics.upstream_overloaded.add(1);
            tracing::debug!("closing a client whose events wait for the application: upstream overloaded");
            let farewell = Farewell::Discard(Some(CloseCode::TRY_AGAIN_LATER));
            sessions.close(session, CloseReason::ForcedServerClose, farewell);
            return;
        }
        waiting.events.push_back(packet.into_owned());
    }

    /// Puts an event to the upstream.
    fn ask(&mut self, sessions: &mut Sessions<ClientState>, key: SocketKey, packet: &Packet<'_>) {
        let Some(answer) = self.with_view(key, |upstream, view| upstream.event(view, packet)) else { return };
        self.take_answer(sessions, key, packet.ack_id, answer);
    }

    fn take_answer(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        key: SocketKey,
        ack_id: Option<AckId>,
        answer: Answer<Reply>,
    ) {
        match answer {
            Answer::Now(reply) => self.do_job(sessions, Job::reply(key, ack_id, reply)),
            Answer::Later(later) => {
                if let Some(socket) = self.sockets.get_mut(key) {
                    socket.waiting.get_or_insert_default().asked = true;
                }
                self.completions.spawn(async move { Completion::Reply(key, ack_id, later.await) });
            }
        }
    }

    /// An answer has come: it is carried out, and the event behind it is next.
    pub(super) fn answered(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        key: SocketKey,
        ack_id: Option<AckId>,
        reply: Reply,
    ) {
        if let Some(waiting) = self.sockets.get_mut(key).and_then(|socket| socket.waiting.as_mut()) {
            waiting.asked = false;
        }
        self.do_job(sessions, Job::reply(key, ack_id, reply));
        self.go_on(sessions, key);
    }

    /// The next event of a socket is put to the upstream, unless something is still to be waited for: at once, or behind
    /// jobs under way, which may be what came of the event before.
    pub(super) fn go_on(&mut self, sessions: &mut Sessions<ClientState>, key: SocketKey) {
        let waiting = self.sockets.get_mut(key).and_then(|socket| socket.waiting.as_mut());
        if self.jobs.is_empty() {
            self.next(sessions, key);
        } else if let Some(waiting) = waiting.filter(|waiting| !waiting.has_turn) {
            waiting.has_turn = true;
            self.jobs.push_back(Job::Next(key));
        }
    }

    /// Its turn has come.
    pub(super) fn next(&mut self, sessions: &mut Sessions<ClientState>, key: SocketKey) {
        let is_parked = self.joining.has_parked(key);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(waiting) = &mut socket.waiting else { return };
        waiting.has_turn = false;
        if waiting.asked || is_parked {
            return;
        }
        match waiting.events.pop_front() {
            Some(event) => {
                waiting.bytes = waiting.bytes.saturating_sub(event.bytes_len());
                let later = std::mem::take(&mut socket.waiting);
                self.ask(sessions, key, &event);
                self.resume(sessions, key, later);
            }
            None => socket.waiting = None,
        }
    }

    /// Events that waited behind one that was answered at once are put to the upstream in turn.
    fn resume(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        key: SocketKey,
        mut later: Option<Box<Waiting>>,
    ) {
        loop {
            let Some(socket) = self.sockets.get_mut(key) else { return };
            if let Some(fresh) = &socket.waiting {
                // Something is to be waited for again: what waited before waits on.
                if let Some(later) = &mut later {
                    later.asked = fresh.asked;
                }
                socket.waiting = later;
                return;
            }
            if !self.jobs.is_empty() {
                // What came of the last one is not done yet.
                socket.waiting = later;
                return self.go_on(sessions, key);
            }
            let Some(event) = later.as_mut().and_then(|waiting| {
                let event = waiting.events.pop_front()?;
                waiting.bytes = waiting.bytes.saturating_sub(event.bytes_len());
                Some(event)
            }) else {
                return;
            };
            self.ask(sessions, key, &event);
        }
    }

    pub(super) fn ack(&mut self, sessions: &mut Sessions<ClientState>, key: SocketKey, packet: &Packet<'_>) {
        let Some(id) = packet.ack_id else { return };
        let owner = self.sockets.get_mut(key).and_then(|socket| socket.acks.take(id));
        // An answer that nobody asked for is ignored, as the reference does.
        let Some(owner) = owner else { return };
        self.metrics.acks_pending.sub(1);
        let token = match owner {
            Owner::Upstream(token) => token,
            Owner::Broadcast(broadcast) => return self.broadcast_acked(key, broadcast, packet),
        };
        let Some(answer) = self.with_view(key, |upstream, view| upstream.acked(view, token, packet)) else {
            return;
        };
        match answer {
            Answer::Now(reply) => self.do_job(sessions, Job::reply(key, None, reply)),
            Answer::Later(later) => {
                self.completions.spawn(async move { Completion::Acked(key, later.await) });
            }
        }
    }

    /// What an application wants behind joins that are not done yet waits with its socket, and so do further events.
    pub(super) fn park(&mut self, key: SocketKey, actions: Wishes, ack: Option<(AckId, Args)>) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.waiting.get_or_insert_default();
        self.joining.park(key, actions, ack);
    }

    /// A subscription is active: who has waited for it goes on.
    pub(super) fn subscribed(
        &mut self,
        sessions: &mut Sessions<ClientState>,
        ticket: Ticket,
        outcome: JoinOutcome,
    ) {
        for waiter in self.interest.subscribed(ticket, outcome) {
            match waiter {
                Waiter::Share(share) => drop(share),
                Waiter::Accept(session, path, actions) => {
                    self.do_job(sessions, Job::Enter(session, path, actions));
                }
                Waiter::Socket(key) => {
                    let Some(parked) = self.joining.done(key) else { continue };
                    for (actions, ack) in parked {
                        self.do_job(sessions, Job::Reply(key, actions, ack));
                    }
                    self.go_on(sessions, key);
                }
            }
        }
    }
}
