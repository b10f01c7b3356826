//! The acks of a broadcast that asked for them.

use std::collections::BTreeSet;

use cluster_proto::identity::NodeId;
use cluster_proto::message::JsonData;
use cluster_proto::response::{Answer, ClusterResponse};

use crate::link::Gather;

/// Bytes counted for an ack beside its arguments.
const OVERHEAD: usize = 64;

/// Collects acks until there are too many or they are too large; further ones are counted.
#[derive(Debug)]
pub(crate) struct Acks {
    responses_max: usize,
    bytes_max: usize,
    bytes: usize,
    /// Who answered, as far as that is known, and with what.
    pub(crate) responses: Vec<(Option<String>, JsonData)>,
    /// Acks that did not fit.
    pub(crate) left_out: u64,
    /// The edges that have said whom they asked.
    pub(crate) counted: BTreeSet<NodeId>,
}

impl Acks {
    pub(crate) fn new(responses_max: usize, bytes_max: usize) -> Self {
        Self {
            responses_max,
            bytes_max,
            bytes: 0,
            responses: Vec::new(),
            left_out: 0,
            counted: BTreeSet::new(),
        }
    }
}

impl Gather for Acks {
    fn take(&mut self, response: ClusterResponse) {
        if matches!(response.answer, Answer::ClientCount { .. }) {
            self.counted.extend(response.node);
        }
        let Answer::Ack { sid, args } = response.answer else { return };
        let bytes = args.bytes_len() + OVERHEAD;
        if self.responses.len() >= self.responses_max || self.bytes + bytes > self.bytes_max {
            self.left_out += 1;
            return;
        }
        self.bytes += bytes;
        self.responses.push((sid, args));
    }
}

#[cfg(test)]
mod tests {
    use cluster_proto::identity::RequestId;

    use super::*;

    fn ack(sid: &str, args: &str) -> ClusterResponse {
        let answer = Answer::Ack { sid: Some(sid.to_owned()), args: JsonData::text(args) };
        ClusterResponse { request: RequestId::from_bytes([0; 12]), node: None, answer }
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let mut acks = Acks::new(2, 1_000);
        acks.take(ack("a", "[1]"));
        acks.take(ack("b", &format!("[\"{}\"]", "x".repeat(1_000))));
        acks.take(ack("c", "[]"));
        acks.take(ack("d", "[]"));
        let sids: Vec<_> = acks.responses.iter().filter_map(|(sid, _)| sid.as_deref()).collect();
        assert_eq!((sids, acks.left_out), (vec!["a", "c"], 2));
    }
}
