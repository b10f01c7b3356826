//! What this node wants to hear, and what the broker has been told of it, without I/O.
//!
//! Interest is counted by topic, because two rooms may share one. A topic goes through these states:
//!
//! ```text
//!            first member           batch sent            fence passed
//!   (none) ---------------> wanted ------------> pending --------------> active
//!                             ^                     |                    |    ^
//!                             | broker away         | no member left     |    | member again
//!                             +---------------------+-----------------   v    |
//!                                                    \---------------> lingering --> (none)
//! ```
//!
//! The table is the one truth: a new connection to the broker begins with everything in it wanted.
//! Callers bring the time and take away whom to tell: nothing here waits or calls back.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::broker::Topic;

/// Topics in one subscription, so that a node with many rooms does not keep the broker from others.
pub const BATCH_MAX: usize = 1_000;

/// How a join ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinOutcome {
    /// The subscription is active: whatever is published from now on arrives.
    Active,
    /// The member is in the room, but the broker is away or slow: messages of other nodes may be missed until it is back.
    Degraded,
}

/// Called once when a join is done. It must neither block nor call the adapter's `join` again from inside.
pub type JoinDone = Box<dyn FnOnce(JoinOutcome) + Send>;

/// Joins that are done, to be called when no lock is held.
pub type Finished = Vec<(JoinDone, JoinOutcome)>;

/// The bounds of the table.
#[derive(Debug, Clone, Copy)]
pub struct InterestLimits {
    /// How long a join waits for its subscription.
    pub subscribe_timeout: Duration,
    /// How long a subscription outlives its last member.
    pub linger: Duration,
    /// Subscriptions without a member.
    pub lingering_max: usize,
}

/// The table.
pub struct Interests {
    limits: InterestLimits,
    topics: HashMap<Topic, Entry>,
    /// Topics in state `Wanted`, each once, in the order in which they are subscribed to.
    wanted: VecDeque<Topic>,
    link: Link,
    joins: HashMap<u64, Join>,
    deadlines: VecDeque<(Instant, u64)>,
    next_join: u64,
    next_batch: u64,
    lingering: VecDeque<(Instant, u64, Topic)>,
    lingering_count: usize,
    next_linger: u64,
    unwanted: Vec<Topic>,
    /// Joins whose last topic lost its members before it was subscribed to.
    finished: Finished,
    /// How many rooms have each hash, where the broker's messages carry hashes.
    marks: HashMap<u32, u32>,
}

#[derive(Debug)]
enum Link {
    Away,
    Up { batch: Option<Batch>, restoring: usize, whole: bool },
}

#[derive(Debug)]
struct Batch {
    number: u64,
    topics: Vec<Topic>,
}

#[derive(Debug)]
struct Entry {
    /// The older, the earlier it is restored.
    age: u64,
    members: u32,
    state: State,
    joins: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Wanted,
    Pending,
    Active,
    Lingering { turn: u64 },
}

struct Join {
    missing: usize,
    done: JoinDone,
}

/// What the table holds, for gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// All topics.
    pub topics: usize,
    /// Topics that the broker has not been told of yet.
    pub wanted: usize,
    /// Topics without a member.
    pub lingering: usize,
}

impl std::fmt::Debug for Interests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interests")
            .field("held", &self.held())
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl Interests {
    /// An empty table; the broker is away.
    #[must_use]
    pub fn new(limits: InterestLimits) -> Self {
        Self {
            limits,
            topics: HashMap::new(),
            wanted: VecDeque::new(),
            link: Link::Away,
            joins: HashMap::new(),
            deadlines: VecDeque::new(),
            next_join: 0,
            next_batch: 0,
            lingering: VecDeque::new(),
            lingering_count: 0,
            next_linger: 0,
            unwanted: Vec::new(),
            finished: Vec::new(),
            marks: HashMap::new(),
        }
    }

    /// Counts one more member for each of `topics`. Gives `done` back if the join is done at once.
    pub fn join(&mut self, now: Instant, topics: &[Topic], mark: Option<u32>, done: JoinDone) -> Finished {
        if let Some(mark) = mark {
            let count = self.marks.entry(mark).or_default();
            *count = count.saturating_add(1);
        }
        let number = self.next_join;
        self.next_join += 1;
        let mut missing = 0;
        for topic in topics {
            missing += usize::from(!self.add_member(topic, number));
        }
        if missing == 0 {
            return vec![(done, JoinOutcome::Active)];
        }
        if matches!(self.link, Link::Away) {
            topics.iter().for_each(|topic| self.forget_join(topic, number));
            return vec![(done, JoinOutcome::Degraded)];
        }
        self.joins.insert(number, Join { missing, done });
        self.deadlines.push_back((now + self.limits.subscribe_timeout, number));
        Vec::new()
    }

    /// As [`Interests::join`], for topics that are subscribed to behind all others whenever the broker comes.
    pub fn join_last(&mut self, now: Instant, topics: &[Topic]) -> Finished {
        let finished = self.join(now, topics, None, Box::new(|_| {}));
        for topic in topics {
            if let Some(entry) = self.topics.get_mut(topic) {
                entry.age = u64::MAX;
            }
        }
        finished
    }

    /// Takes one member from each of `topics`.
    pub fn leave(&mut self, now: Instant, topics: &[Topic], mark: Option<u32>) {
        if let Some(mark) = mark
            && let Some(count) = self.marks.get_mut(&mark)
        {
            *count -= 1;
            if *count == 0 {
                self.marks.remove(&mark);
            }
        }
        for topic in topics {
            let Some(entry) = self.topics.get_mut(topic) else { continue };
            entry.members = entry.members.saturating_sub(1);
            if entry.members == 0 && entry.state == State::Active {
                self.begin_lingering(now, topic);
            }
        }
    }

    /// Whether a room with this hash has a member.
    #[must_use]
    pub fn holds_mark(&self, mark: u32) -> bool {
        self.marks.contains_key(&mark)
    }

    /// Whether the broker delivers this topic.
    #[must_use]
    pub fn is_active(&self, topic: &Topic) -> bool {
        self.topics
            .get(topic)
            .is_some_and(|entry| matches!(entry.state, State::Active | State::Lingering { .. }))
    }

    /// The broker is connected and knows of no subscription.
    pub fn handle_up(&mut self) {
        let restoring = self.wanted.len();
        self.link = Link::Up { batch: None, restoring, whole: restoring == 0 };
    }

    /// The broker is away: everything is wanted anew, and whoever waits is told.
    pub fn handle_down(&mut self) -> Finished {
        self.link = Link::Away;
        self.unwanted.clear();
        self.lingering.clear();
        self.lingering_count = 0;
        self.topics.retain(|_, entry| entry.members > 0);
        for entry in self.topics.values_mut() {
            entry.joins.clear();
            entry.state = State::Wanted;
        }
        let mut wanted: Vec<_> =
            self.topics.iter().map(|(topic, entry)| (entry.age, topic.clone())).collect();
        wanted.sort_unstable_by_key(|(age, _)| *age);
        self.wanted = wanted.into_iter().map(|(_, topic)| topic).collect();
        self.deadlines.clear();
        let all = std::mem::take(&mut self.joins);
        all.into_values().map(|join| (join.done, JoinOutcome::Degraded)).collect()
    }

    /// The fence behind a batch has passed.
    pub fn handle_subscribed(&mut self, now: Instant, number: u64) -> Finished {
        let Link::Up { batch, .. } = &mut self.link else { return Vec::new() };
        let Some(sent) = batch.take_if(|batch| batch.number == number) else { return Vec::new() };
        let mut finished = Vec::new();
        for topic in &sent.topics {
            let Some(entry) = self.topics.get_mut(topic) else { continue };
            entry.state = State::Active;
            for join in std::mem::take(&mut entry.joins) {
                finished.extend(self.count_down(join));
            }
            if self.topics.get(topic).is_some_and(|entry| entry.members == 0) {
                self.begin_lingering(now, topic);
            }
        }
        if let Link::Up { restoring: 0, whole, .. } = &mut self.link {
            *whole = true;
        }
        finished
    }

    /// Time has passed: joins that waited long enough, and subscriptions that nobody has needed for long.
    pub fn handle_timeout(&mut self, now: Instant) -> Finished {
        let mut finished = Vec::new();
        while let Some((_, number)) = self.deadlines.pop_front_if(|(deadline, _)| *deadline <= now) {
            finished.extend(self.joins.remove(&number).map(|join| (join.done, JoinOutcome::Degraded)));
        }
        while let Some((_, turn, topic)) = self.lingering.pop_front_if(|(deadline, ..)| *deadline <= now) {
            self.end_lingering(turn, topic);
        }
        finished
    }

    /// When [`Interests::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let joins = self.deadlines.front().map(|(deadline, _)| *deadline);
        let lingering = self.lingering.front().map(|(deadline, ..)| *deadline);
        joins.into_iter().chain(lingering).min()
    }

    /// The next subscription to send, with the number of its fence. There is at most one under way.
    pub fn poll_batch(&mut self) -> Option<(u64, Vec<Topic>)> {
        let Link::Up { batch: batch @ None, restoring, whole } = &mut self.link else { return None };
        let (mut topics, mut needless) = (Vec::new(), Vec::new());
        while topics.len() < BATCH_MAX
            && let Some(topic) = self.wanted.pop_front()
        {
            *restoring = restoring.saturating_sub(1);
            match self.topics.get_mut(&topic) {
                Some(entry) if entry.members > 0 => {
                    entry.state = State::Pending;
                    topics.push(topic);
                }
                Some(_) | None => {
                    needless.extend(self.topics.remove(&topic).map(|entry| entry.joins).unwrap_or_default());
                }
            }
        }
        let number = self.next_batch;
        if topics.is_empty() {
            *whole = true;
        } else {
            self.next_batch += 1;
            *batch = Some(Batch { number, topics: topics.clone() });
        }
        for join in needless {
            let finished = self.count_down(join);
            self.finished.extend(finished);
        }
        (!topics.is_empty()).then_some((number, topics))
    }

    /// Joins that are done since nobody needs their topics any more.
    pub fn poll_finished(&mut self) -> Finished {
        std::mem::take(&mut self.finished)
    }

    /// A batch could not be handed over: it is wanted again.
    pub fn give_back(&mut self, number: u64) {
        let Link::Up { batch, restoring, whole } = &mut self.link else { return };
        let Some(back) = batch.take_if(|batch| batch.number == number) else { return };
        for topic in back.topics.into_iter().rev() {
            if let Some(entry) = self.topics.get_mut(&topic) {
                entry.state = State::Wanted;
                *restoring += usize::from(!*whole);
                self.wanted.push_front(topic);
            }
        }
    }

    /// Whether there are subscriptions to end.
    #[must_use]
    pub fn has_unwanted(&self) -> bool {
        !self.unwanted.is_empty()
    }

    /// Subscriptions to end.
    pub fn poll_unwanted(&mut self) -> Vec<Topic> {
        std::mem::take(&mut self.unwanted)
    }

    /// Whether everything that was wanted when the broker came is active.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.link, Link::Up { whole: true, .. })
    }

    /// What there is.
    #[must_use]
    pub fn held(&self) -> Held {
        Held { topics: self.topics.len(), wanted: self.wanted.len(), lingering: self.lingering_count }
    }

    /// Counts a member; whether the topic is active already. Otherwise the join is written down with it.
    fn add_member(&mut self, topic: &Topic, join: u64) -> bool {
        let Some(entry) = self.topics.get_mut(topic) else {
            let entry = Entry { age: join, members: 1, state: State::Wanted, joins: vec![join] };
            self.topics.insert(topic.clone(), entry);
            self.wanted.push_back(topic.clone());
            return false;
        };
        entry.members = entry.members.saturating_add(1);
        match entry.state {
            State::Active => true,
            State::Lingering { .. } => {
                entry.state = State::Active;
                self.lingering_count -= 1;
                true
            }
            State::Wanted | State::Pending => {
                entry.joins.push(join);
                false
            }
        }
    }

    fn forget_join(&mut self, topic: &Topic, number: u64) {
        if let Some(entry) = self.topics.get_mut(topic) {
            entry.joins.retain(|join| *join != number);
        }
    }

    fn count_down(&mut self, number: u64) -> Option<(JoinDone, JoinOutcome)> {
        let join = self.joins.get_mut(&number)?;
        join.missing = join.missing.saturating_sub(1);
        if join.missing > 0 {
            return None;
        }
        self.joins.remove(&number).map(|join| (join.done, JoinOutcome::Active))
    }

    fn begin_lingering(&mut self, now: Instant, topic: &Topic) {
        let turn = self.next_linger;
        self.next_linger += 1;
        let Some(entry) = self.topics.get_mut(topic) else { return };
        entry.state = State::Lingering { turn };
        self.lingering_count += 1;
        self.lingering.push_back((now + self.limits.linger, turn, topic.clone()));
        while self.lingering_count > self.limits.lingering_max
            && let Some((_, turn, topic)) = self.lingering.pop_front()
        {
            self.end_lingering(turn, topic);
        }
        // Topics that found a member again left their line behind.
        if self.lingering.len() > 2 * self.lingering_count + 64 {
            let topics = &self.topics;
            self.lingering.retain(|(_, turn, topic)| {
                topics.get(topic).is_some_and(|entry| entry.state == State::Lingering { turn: *turn })
            });
        }
    }

    fn end_lingering(&mut self, turn: u64, topic: Topic) {
        if self.topics.get(&topic).is_some_and(|entry| entry.state == State::Lingering { turn }) {
            self.topics.remove(&topic);
            self.lingering_count -= 1;
            self.unwanted.push(topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const LIMITS: InterestLimits = InterestLimits {
        subscribe_timeout: Duration::from_millis(500),
        linger: Duration::from_secs(30),
        lingering_max: 2,
    };

    fn topic(name: &str) -> Topic {
        Topic::Channel(name.into())
    }

    /// A table with a clock, and the outcomes of joins by name.
    struct Table {
        interests: Interests,
        now: Instant,
        outcomes: Arc<Mutex<Vec<(String, JoinOutcome)>>>,
    }

    impl Table {
        fn new() -> Self {
            Self { interests: Interests::new(LIMITS), now: Instant::now(), outcomes: Arc::default() }
        }

        fn up() -> Self {
            let mut table = Self::new();
            table.interests.handle_up();
            table
        }

        fn join(&mut self, names: &[&str]) {
            let topics: Vec<Topic> = names.iter().map(|name| topic(name)).collect();
            let (outcomes, name) = (self.outcomes.clone(), names.join("+"));
            let done = Box::new(move |outcome| outcomes.lock().unwrap().push((name, outcome)));
            let finished = self.interests.join(self.now, &topics, None, done);
            call(finished);
        }

        fn leave(&mut self, name: &str) {
            self.interests.leave(self.now, &[topic(name)], None);
        }

        fn batch(&mut self, expected: &[&str]) -> u64 {
            let (number, topics) = self.interests.poll_batch().unwrap();
            assert_eq!(topics, expected.iter().map(|name| topic(name)).collect::<Vec<_>>());
            number
        }

        fn subscribed(&mut self, number: u64) {
            let finished = self.interests.handle_subscribed(self.now, number);
            call(finished);
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            let finished = self.interests.handle_timeout(self.now);
            call(finished);
        }

        fn outcomes(&self) -> Vec<(String, JoinOutcome)> {
            std::mem::take(&mut self.outcomes.lock().unwrap())
        }
    }

    fn call(finished: Finished) {
        for (done, outcome) in finished {
            done(outcome);
        }
    }

    fn active(name: &str) -> (String, JoinOutcome) {
        (name.to_owned(), JoinOutcome::Active)
    }

    fn degraded(name: &str) -> (String, JoinOutcome) {
        (name.to_owned(), JoinOutcome::Degraded)
    }

    #[test]
    fn a_join_whose_topic_nobody_needs_any_more_is_done() {
        let mut table = Table::up();
        table.join(&["a"]);
        table.interests.leave(table.now, &[topic("a")], None);
        assert_eq!(table.interests.poll_batch(), None);
        call(table.interests.poll_finished());
        assert_eq!(*table.outcomes.lock().unwrap(), [("a".to_owned(), JoinOutcome::Active)]);
    }

    #[test]
    fn what_shows_that_nothing_is_missing_is_restored_last() {
        let mut table = Table::new();
        call(table.interests.join_last(table.now, &[topic("last")]));
        table.join(&["a"]);
        call(table.interests.handle_down());
        table.interests.handle_up();
        assert_eq!(table.interests.poll_batch(), Some((0, vec![topic("a"), topic("last")])));
    }

    #[test]
    fn a_join_is_done_when_the_fence_has_passed() {
        let mut table = Table::up();
        table.join(&["a"]);
        table.join(&["a"]);
        assert_eq!(table.outcomes(), []);
        let number = table.batch(&["a"]);
        table.join(&["a"]);
        assert_eq!(table.outcomes(), []);
        table.subscribed(number);
        assert_eq!(table.outcomes(), [active("a"), active("a"), active("a")]);
        table.join(&["a"]);
        assert_eq!(table.outcomes(), [active("a")]);
        assert_eq!(table.interests.poll_batch(), None);
    }

    #[test]
    fn one_batch_is_under_way_at_a_time() {
        let mut table = Table::up();
        table.join(&["a"]);
        let first = table.batch(&["a"]);
        table.join(&["b"]);
        table.join(&["c"]);
        assert_eq!(table.interests.poll_batch(), None);
        table.subscribed(first + 7);
        assert_eq!(table.interests.poll_batch(), None, "a fence of another batch changes nothing");
        table.subscribed(first);
        let second = table.batch(&["b", "c"]);
        table.subscribed(second);
        assert_eq!(table.outcomes(), [active("a"), active("b"), active("c")]);
    }

    #[test]
    fn a_join_of_several_topics_waits_for_all_of_them() {
        let mut table = Table::up();
        table.join(&["a"]);
        let number = table.batch(&["a"]);
        table.join(&["a", "b"]);
        table.subscribed(number);
        assert_eq!(table.outcomes(), [active("a")]);
        let number = table.batch(&["b"]);
        table.subscribed(number);
        assert_eq!(table.outcomes(), [active("a+b")]);
    }

    #[test]
    fn a_join_waits_no_longer_than_configured() {
        let mut table = Table::up();
        table.join(&["a"]);
        let number = table.batch(&["a"]);
        table.pass(Duration::from_millis(499));
        assert_eq!(table.outcomes(), []);
        table.pass(Duration::from_millis(1));
        assert_eq!(table.outcomes(), [degraded("a")]);
        table.subscribed(number);
        assert_eq!(table.outcomes(), [], "a join is done once");
        assert!(table.interests.is_active(&topic("a")));
    }

    #[test]
    fn a_subscription_lingers_and_serves_the_next_member_at_once() {
        let mut table = Table::up();
        table.join(&["a"]);
        let number = table.batch(&["a"]);
        table.subscribed(number);
        table.leave("a");
        table.pass(Duration::from_secs(29));
        assert_eq!(table.interests.poll_unwanted(), []);
        table.outcomes();
        table.join(&["a"]);
        assert_eq!(table.outcomes(), [active("a")]);
        table.pass(Duration::from_secs(60));
        assert_eq!(table.interests.poll_unwanted(), []);
        table.leave("a");
        table.pass(Duration::from_secs(30));
        assert_eq!(table.interests.poll_unwanted(), [topic("a")]);
        assert_eq!(table.interests.held(), Held::default());
    }

    #[test]
    fn only_so_many_subscriptions_linger() {
        let mut table = Table::up();
        for name in ["a", "b", "c"] {
            table.join(&[name]);
        }
        let number = table.batch(&["a", "b", "c"]);
        table.subscribed(number);
        for name in ["a", "b", "c"] {
            table.leave(name);
        }
        assert_eq!(table.interests.poll_unwanted(), [topic("a")]);
        for _ in 0..10_000 {
            table.join(&["b"]);
            table.leave("b");
        }
        assert!(table.interests.lingering.len() < 100);
    }

    #[test]
    fn who_leaves_before_the_subscription_needs_none() {
        let mut table = Table::up();
        table.join(&["a"]);
        table.leave("a");
        assert_eq!(table.interests.poll_batch(), None);
        assert_eq!(table.interests.held(), Held::default());

        table.join(&["b"]);
        let number = table.batch(&["b"]);
        table.leave("b");
        table.subscribed(number);
        assert_eq!(table.interests.held().lingering, 1);
    }

    #[test]
    fn while_the_broker_is_away_joins_are_degraded_and_restored_later() {
        let mut table = Table::new();
        table.join(&["a"]);
        assert_eq!(table.outcomes(), [degraded("a")]);
        table.interests.handle_up();
        assert!(!table.interests.is_whole());
        let number = table.batch(&["a"]);
        table.join(&["b"]);
        let finished = table.interests.handle_down();
        call(finished);
        assert_eq!(table.outcomes(), [degraded("b")]);
        table.subscribed(number);
        assert!(!table.interests.is_active(&topic("a")));
        table.interests.handle_up();
        let number = table.batch(&["a", "b"]);
        assert!(!table.interests.is_whole());
        table.subscribed(number);
        assert!(table.interests.is_whole());
    }

    #[test]
    fn restoring_goes_in_chunks_and_is_whole_only_at_the_end() {
        let mut table = Table::new();
        for number in 0..2_500 {
            table.join(&[&format!("room {number}")]);
        }
        table.interests.handle_up();
        for expected in [1_000, 1_000, 500] {
            let (number, topics) = table.interests.poll_batch().unwrap();
            assert_eq!(topics.len(), expected);
            assert!(!table.interests.is_whole());
            table.subscribed(number);
        }
        assert!(table.interests.is_whole());
        table.interests.handle_up();
        table.interests.handle_down();
        assert!(!table.interests.is_whole());
    }

    #[test]
    fn a_batch_that_was_not_handed_over_is_wanted_again() {
        let mut table = Table::new();
        table.join(&["a"]);
        table.interests.handle_up();
        let number = table.batch(&["a"]);
        table.interests.give_back(number);
        assert!(!table.interests.is_whole());
        let number = table.batch(&["a"]);
        table.subscribed(number);
        assert!(table.interests.is_whole());
    }

    #[test]
    fn hashes_are_counted() {
        let mut table = Table::up();
        let quiet = || Box::new(|_| {});
        table.interests.join(table.now, &[topic("a")], Some(7), quiet());
        table.interests.join(table.now, &[topic("a")], Some(7), quiet());
        table.interests.leave(table.now, &[topic("a")], Some(7));
        assert!(table.interests.holds_mark(7));
        table.interests.leave(table.now, &[topic("a")], Some(7));
        assert!(!table.interests.holds_mark(7));
        table.interests.leave(table.now, &[topic("a")], Some(7));
    }
}
