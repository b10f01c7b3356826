//! What must hold of a game.
//!
//! A message reaches a client's node at some moment between its sending and the arrival of the next message of the same
//! publisher at that client. If the client was surely a member for all of that time, it must have the message; if it was
//! surely none, it must not; and if it came or went meanwhile, both is right. Surely a member is whoever knows that its
//! join is done and has not asked to leave.

use std::fmt;

use super::record::{Change, ClientRecord, Publisher, Received, Record, Sent, Target};

/// Violations that are described; all are counted.
const DESCRIBED_MAX: usize = 20;

/// What the judge has found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    messages: usize,
    changes: usize,
    deliveries: usize,
    /// Pairs of message and client for which it is certain that it must arrive, that it must not, or neither.
    due: usize,
    forbidden: usize,
    open: usize,
    violations: usize,
    described: Vec<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, changes, deliveries, due, forbidden, open, violations, .. } = self;
        write!(
            f,
            "{messages} messages, {changes} joins and leaves, {deliveries} deliveries; {due} were due, {forbidden} \
             forbidden, {open} either way; {violations} violations"
        )
    }
}

impl Verdict {
    /// Fails the test if anything does not hold.
    pub(super) fn check(&self) {
        assert!(self.violations == 0, "{self}\n{}", self.described.join("\n"));
    }

    fn violation(&mut self, text: impl FnOnce() -> String) {
        self.violations += 1;
        if self.described.len() < DESCRIBED_MAX {
            self.described.push(text());
        }
    }
}

pub(super) fn judge(record: &Record) -> Verdict {
    let mut verdict = Verdict {
        messages: record.publishers.iter().map(|publisher| publisher.sent.len()).sum(),
        changes: record.clients.iter().map(|client| client.changes.len()).sum(),
        deliveries: record.clients.iter().map(|client| client.received.len()).sum(),
        ..Verdict::default()
    };
    for (number, client) in record.clients.iter().enumerate() {
        if let Some(why) = &client.broken {
            verdict.violation(|| format!("client {number}, {}: {why}", client.name));
        }
        let mut of_each: Vec<Vec<Received>> = vec![Vec::new(); record.publishers.len()];
        for received in &client.received {
            of_each[received.publisher].push(*received);
        }
        for (at, (publisher, received)) in record.publishers.iter().zip(&of_each).enumerate() {
            let pair = Pair { number, client, at, publisher };
            pair.judge(received, &mut verdict);
        }
    }
    verdict
}

/// One client and one publisher.
struct Pair<'a> {
    number: usize,
    client: &'a ClientRecord,
    at: usize,
    publisher: &'a Publisher,
}

impl Pair<'_> {
    fn judge(&self, received: &[Received], verdict: &mut Verdict) {
        for pair in received.windows(2) {
            let [first, second] = pair else { continue };
            if second.number == first.number {
                verdict.violation(|| self.describe(second.number, "arrived twice"));
            } else if second.number < first.number {
                verdict.violation(|| self.describe(second.number, &format!("came after {}", first.number)));
            }
        }
        let mut next = received.iter().peekable();
        for (number, sent) in self.publisher.sent.iter().enumerate() {
            while next.next_if(|received| received.number < number).is_some() {}
            // Without a later message its time is not bounded; that is so for the last ones of a client that broke.
            let Some(following) = next.peek() else { continue };
            let (until, has_arrived) = (following.at, following.number == number);
            match (self.belongs(sent, until), has_arrived) {
                (Certainty::Yes, false) => {
                    verdict
                        .violation(|| self.describe(number, &format!("is missing, {sent:?} until {until}")));
                }
                (Certainty::No, true) => {
                    verdict
                        .violation(|| self.describe(number, &format!("is not for it, {sent:?} at {until}")));
                }
                (Certainty::Yes, true) => verdict.due += 1,
                (Certainty::No, false) => verdict.forbidden += 1,
                (Certainty::Unknown, _) => verdict.open += 1,
            }
        }
    }

    fn describe(&self, message: usize, what: &str) -> String {
        let Self { number, client, at, .. } = self;
        format!("client {number}, {}: message {message} of publisher {at} {what}", client.name)
    }

    /// Whether a message is for this client, if it reached its node until then.
    fn belongs(&self, sent: &Sent, until: u64) -> Certainty {
        if self.publisher.namespace != self.client.namespace || sent.without == Some(self.number) {
            return Certainty::No;
        }
        match &sent.target {
            Target::Everybody => Certainty::Yes,
            Target::Sockets(clients) => Certainty::of(clients.contains(&self.number)),
            Target::Rooms { rooms, except } => {
                let any = |rooms: &[usize]| {
                    let of_each =
                        rooms.iter().map(|room| member(&self.client.changes, *room, sent.at, until));
                    of_each.fold(Certainty::No, Certainty::or)
                };
                any(rooms).and(any(except).not())
            }
        }
    }
}

/// Whether a client was a member of a room all the time.
fn member(changes: &[Change], room: usize, from: u64, until: u64) -> Certainty {
    let of_room = changes.iter().rev().find(|change| change.room == room && change.begun <= until);
    match of_room {
        None => Certainty::No,
        Some(change) if change.done <= from => Certainty::of(change.joins),
        Some(_) => Certainty::Unknown,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    Yes,
    No,
    Unknown,
}

impl Certainty {
    fn of(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::No, Self::No) => Self::No,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
        }
    }

    fn and(self, other: Self) -> Self {
        self.not().or(other.not()).not()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that joins room 1 between 10 and 20 and leaves it between 50 and 60, and a publisher that sends to it at
    /// these times, then to everybody; of the messages those arrive, at the time of their sending plus one.
    fn violations(sent_at: &[u64], arrived: &[usize]) -> usize {
        let target = Target::Rooms { rooms: vec![1], except: vec![2] };
        let mut sent: Vec<Sent> =
            sent_at.iter().map(|at| Sent { at: *at, target: target.clone(), without: None }).collect();
        sent.push(Sent { at: 100, target: Target::Everybody, without: None });
        let received = arrived.iter().copied().chain([sent_at.len()]).map(|number| Received {
            publisher: 0,
            number,
            at: sent[number].at + 1,
        });
        let change = |joins, begun, done| Change { room: 1, joins, begun, done };
        let client = ClientRecord {
            changes: vec![change(true, 10, 20), change(false, 50, 60)],
            received: received.collect(),
            ..ClientRecord::default()
        };
        let publishers = vec![Publisher { namespace: 0, sent }];
        judge(&Record { publishers, clients: vec![client] }).violations
    }

    #[test]
    fn what_is_due_must_arrive_once_and_in_order() {
        assert_eq!(violations(&[30, 31], &[0, 1]), 0);
        assert_eq!(violations(&[30, 31], &[1]), 1, "the first is missing, and the second bounds its time");
        assert_eq!(violations(&[30, 31], &[0, 0, 1]), 1, "twice");
        assert_eq!(violations(&[30, 31], &[1, 0]), 2, "out of order, and then not in its place");
    }

    #[test]
    fn what_is_not_for_a_client_must_not_arrive() {
        assert_eq!(violations(&[5, 70], &[]), 0);
        assert_eq!(violations(&[5], &[0]), 1);
        assert_eq!(violations(&[70], &[0]), 1);
    }

    #[test]
    fn who_comes_or_goes_meanwhile_may_get_it_or_not() {
        for sent_at in [15, 49, 55] {
            assert_eq!(violations(&[sent_at], &[0]), 0, "at {sent_at}");
            assert_eq!(violations(&[sent_at], &[]), 0, "at {sent_at}");
        }
        // Nothing came afterwards before it left, so it may have been on its way that long.
        assert_eq!(violations(&[30], &[]), 0);
    }
}
