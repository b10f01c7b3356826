//! Reading the body of a POST, with a bound on it and on all that are being read.

use std::rc::Rc;

use bytes::BytesMut;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::session::app::SessionApp;
use crate::shard::Shard;
use crate::transport::polling::PostBody;

/// Reads a body of at most `bytes_max`; `None` if the client broke off. What it holds counts towards
/// `edge.limits.inbound_partial_bytes_max` of the shard that reads.
pub(super) async fn read<A: SessionApp>(
    shard: &Rc<Shard<A>>,
    request: Request<Incoming>,
    bytes_max: usize,
) -> Option<PostBody> {
    let mut body = request.into_body();
    if body.size_hint().lower() > bytes_max as u64 {
        return Some(PostBody::TooLarge);
    }
    let mut held = HeldBytes { shard, bytes: 0 };
    let mut parts = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        if parts.len() + data.len() > bytes_max || !held.add(data.len()) {
            return Some(PostBody::TooLarge);
        }
        parts.extend_from_slice(&data);
    }
    Some(PostBody::Complete(parts.freeze()))
}

/// Bytes of a body that is being read.
struct HeldBytes<'a, A: SessionApp> {
    shard: &'a Rc<Shard<A>>,
    bytes: usize,
}

impl<A: SessionApp> HeldBytes<'_, A> {
    /// Books more; `false` when the shard holds too much.
    fn add(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.shard.with(|core| core.sessions.hold(bytes))
    }
}

impl<A: SessionApp> Drop for HeldBytes<'_, A> {
    fn drop(&mut self) {
        self.shard.with(|core| core.sessions.let_go(self.bytes));
    }
}
