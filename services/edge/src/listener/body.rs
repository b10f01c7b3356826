//! Reading the body of a POST, with a bound on it and on all that are being read.

use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::session::app::SessionApp;
use crate::shard::Shard;
use crate::transport::polling::PostBody;
use crate::transport::reply::Reply;

/// How long a body is still read whose request has been refused.
const REFUSED_BODY: Duration = Duration::from_secs(1);

/// Books the bytes of bodies that are being read.
pub(super) trait Holder {
    /// Books more; `false` when too much is held already.
    fn hold(&self, bytes: usize) -> bool;
    /// Books that such bytes are held no longer.
    fn let_go(&self, bytes: usize);
}

/// They count towards `edge.limits.inbound_partial_bytes_max` of the shard that reads.
impl<A: SessionApp> Holder for Rc<Shard<A>> {
    fn hold(&self, bytes: usize) -> bool {
        self.with(|core| core.sessions.hold(bytes))
    }

    fn let_go(&self, bytes: usize) {
        self.with(|core| core.sessions.let_go(bytes));
    }
}

/// Reads a body of at most `bytes_max` within `within` and hands it to whoever answers the request. A body that will
/// not come hangs up instead.
pub(super) async fn read(
    holder: &impl Holder,
    body: Incoming,
    bytes_max: usize,
    within: Duration,
    reader: oneshot::Sender<PostBody>,
) {
    if let Ok(Some(body)) = timeout(within, collect(holder, body, bytes_max)).await {
        // Whoever answers may not have waited for it.
        let _ = reader.send(body);
    }
}

/// Waits for an answer while the body is read that it may need.
pub(super) async fn answer_while(
    reading: impl Future<Output = ()>,
    answer: impl Future<Output = Reply>,
) -> Reply {
    let (mut answer, mut reading) = (std::pin::pin!(answer), std::pin::pin!(reading));
    tokio::select! {
        reply = &mut answer => {
            // A client that is cut off in the middle of its request may never see why.
            let _ = timeout(REFUSED_BODY, &mut reading).await;
            reply
        }
        () = &mut reading => answer.await,
    }
}

/// `None` if the client broke off.
async fn collect(holder: &impl Holder, mut body: Incoming, bytes_max: usize) -> Option<PostBody> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Some(PostBody::TooLarge);
    }
    let mut held = HeldBytes { holder, bytes: 0 };
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
struct HeldBytes<'a, H: Holder> {
    holder: &'a H,
    bytes: usize,
}

impl<H: Holder> HeldBytes<'_, H> {
    fn add(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.holder.hold(bytes)
    }
}

impl<H: Holder> Drop for HeldBytes<'_, H> {
    fn drop(&mut self) {
        self.holder.let_go(self.bytes);
    }
}
