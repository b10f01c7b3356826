//! What application code of other nodes answered to a server-side emit.

use cluster_proto::response::{Answer, ClusterResponse};

use crate::link::Gather;

/// Collects JSON values until there are too many or they are too large; further ones are counted.
#[derive(Debug)]
pub(crate) struct Values {
    values_max: usize,
    bytes_max: usize,
    bytes: usize,
    /// One JSON text for each node that answered with something.
    pub(crate) values: Vec<String>,
    /// Values that did not fit.
    pub(crate) left_out: u64,
}

impl Values {
    pub(crate) fn new(values_max: usize, bytes_max: usize) -> Self {
        Self { values_max, bytes_max, bytes: 0, values: Vec::new(), left_out: 0 }
    }
}

impl Gather for Values {
    fn take(&mut self, response: ClusterResponse) {
        let Answer::ServerSideEmit(Some(value)) = response.answer else { return };
        if self.values.len() >= self.values_max || self.bytes + value.len() > self.bytes_max {
            self.left_out += 1;
            return;
        }
        self.bytes += value.len();
        self.values.push(value);
    }
}
