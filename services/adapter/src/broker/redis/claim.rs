//! The claim of a node id: a key that carries the incarnation of the process, and ends by itself.

use cluster_proto::identity::NodeId;
use cluster_proto::redis::channel::Names;
use cluster_proto::redis::heartbeat;

use crate::broker::Claimant;

/// Sets the claim if it is free or carries our incarnation; 1 if it is ours now. The claim of another life is left alone.
const CLAIM: &str = "local held = redis.call('GET', KEYS[1]) \
    if held and not string.find(held, ARGV[1], 1, true) then return 0 end \
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1";

/// Gives up the claim if it carries our incarnation.
const RELEASE: &str = "local held = redis.call('GET', KEYS[1]) \
    if held and string.find(held, ARGV[1], 1, true) then redis.call('DEL', KEYS[1]) end return 1";

/// How long a claim outlives its last renewal at least, in milliseconds.
const LASTS_MS_MIN: u64 = 30_000;

/// What is said about one node id.
#[derive(Debug)]
pub struct Claim {
    key: String,
    incarnation: String,
    heartbeat: Vec<u8>,
    lasts_ms: String,
}

impl Claim {
    /// The claim of this process.
    #[must_use]
    pub fn new(names: &Names, claimant: &Claimant, node: NodeId) -> Self {
        Self {
            key: names.node_claim(node),
            incarnation: format!("{:016x}", claimant.incarnation),
            heartbeat: heartbeat::encode(&claimant.heartbeat(node)),
            lasts_ms: claimant.heartbeat_ms.saturating_mul(15).max(LASTS_MS_MIN).to_string(),
        }
    }

    /// The command that claims or renews; it is answered with 1 if the id is ours.
    #[must_use]
    pub fn claim(&self) -> [&[u8]; 7] {
        let [key, incarnation, lasts] = [&self.key, &self.incarnation, &self.lasts_ms].map(String::as_bytes);
        [b"EVAL", CLAIM.as_bytes(), b"1", key, incarnation, &self.heartbeat, lasts]
    }

    /// The command that gives it up.
    #[must_use]
    pub fn release(&self) -> [&[u8]; 5] {
        [b"EVAL", RELEASE.as_bytes(), b"1", self.key.as_bytes(), self.incarnation.as_bytes()]
    }
}
