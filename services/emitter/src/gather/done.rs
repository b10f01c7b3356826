//! How many sockets a join, leave, disconnect or update concerned.

use cluster_proto::response::{Answer, ClusterResponse};

use crate::link::Gather;

/// Adds up what the edges say; Node servers say nothing.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) sockets: u64,
}

impl Gather for Done {
    fn take(&mut self, response: ClusterResponse) {
        if let Answer::Done { sockets: Some(sockets) } = response.answer {
            self.sockets = self.sockets.saturating_add(sockets);
        }
    }
}
