//! No application: clients connect and receive; what they send is dropped.

use socketio_proto::packet::Packet;

use super::{Actions, Answer, Connect, Decision, Reply, Socket, Upstream};

/// Accepts everybody and answers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct None;

impl Upstream for None {
    fn connect(&mut self, _request: &Connect<'_>) -> Answer<Decision> {
        Answer::Now(Decision::Accept(Actions::new()))
    }

    fn event(&mut self, _socket: &dyn Socket, _event: &Packet<'_>) -> Answer<Reply> {
        Answer::Now(Reply::default())
    }

    fn acked(&mut self, _socket: &dyn Socket, _token: u64, _answer: &Packet<'_>) -> Answer<Reply> {
        Answer::Now(Reply::default())
    }

    fn disconnected(&mut self, _socket: &dyn Socket, _reason: &'static str) {}
}
