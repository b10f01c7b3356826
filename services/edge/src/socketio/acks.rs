//! Acknowledgements that one client still owes: ack id to the upstream's token.
//!
//! The upstream fills it by asking for an acknowledgement, the client's answer empties it, and it goes with the
//! socket. When it is full, an event that asks for one more is not sent.

use hashbrown::HashMap;
use socketio_proto::packet::AckId;

/// What one socket owes.
#[derive(Debug, Default)]
pub struct Acks {
    // Boxed: most sockets never owe anything.
    pending: Option<Box<HashMap<u64, u64>>>,
}

impl Acks {
    /// Expects an answer; `false` when `max` are expected already.
    pub fn ask(&mut self, id: AckId, token: u64, max: usize) -> bool {
        let pending = self.pending.get_or_insert_default();
        if pending.len() >= max {
            return false;
        }
        pending.insert(id.0, token);
        true
    }

    /// Takes the token of an answer; nobody waits for an unknown one.
    pub fn take(&mut self, id: AckId) -> Option<u64> {
        let pending = self.pending.as_mut()?;
        let token = pending.remove(&id.0);
        if pending.is_empty() {
            self.pending = None;
        }
        token
    }

    /// How many answers are expected.
    pub fn len(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.len())
    }

    /// Whether none is expected.
    pub fn is_empty(&self) -> bool {
        self.pending.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_and_no_more_are_expected_than_allowed() {
        let mut acks = Acks::default();
        assert!(acks.ask(AckId(1), 10, 2));
        assert!(acks.ask(AckId(2), 20, 2));
        assert!(!acks.ask(AckId(3), 30, 2));
        assert_eq!(acks.take(AckId(3)), None);
        assert_eq!(acks.take(AckId(1)), Some(10));
        assert_eq!(acks.take(AckId(1)), None);
        assert_eq!(acks.len(), 1);
        assert_eq!(acks.take(AckId(2)), Some(20));
        assert!(acks.is_empty());
    }
}
