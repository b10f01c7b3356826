//! The link to the cluster as the API uses it: there or not yet, and never longer than a call may take.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use adapter::adapter::{Adapter, Starting};
use adapter::broker::PublishError;
use adapter::cluster::requests::{RequestEnd, RequestEvent};
use cluster_proto::heartbeat::Role;
use cluster_proto::identity::RequestId;
use cluster_proto::message::{ClusterMessage, Operation};
use cluster_proto::response::ClusterResponse;
use socketio_proto::namespace::NamespacePath;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// How much later than the adapter's own deadline the end of a request may come before nobody believes in it.
const END_GRACE: Duration = Duration::from_millis(400);

/// Why the cluster did not get a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// The adapter has no node id yet.
    #[error("the broker was not reached yet; try again")]
    Starting,
    /// The broker is away; nobody got it.
    #[error("the broker is away; try again")]
    Away,
    /// Too much waits; nobody got it.
    #[error("too much waits for the broker; try again")]
    Full,
    /// It is not known who got it.
    #[error("the broker did not confirm in time; try again with the same idempotency key")]
    Unknown,
    /// The broker refused it.
    #[error("the broker refused it: {0}")]
    Refused(String),
    /// The wire has no form for it.
    #[error("this broker cannot carry it: {0}")]
    Encode(String),
}

impl LinkError {
    /// A short fixed name, fit for the label of a counter.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Starting | Self::Away => "away",
            Self::Full => "full",
            Self::Unknown => "unknown",
            Self::Refused(_) => "refused",
            Self::Encode(_) => "encode",
        }
    }
}

impl From<PublishError> for LinkError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Away => Self::Away,
            PublishError::Full | PublishError::TooManyRequests => Self::Full,
            PublishError::Unknown => Self::Unknown,
            PublishError::Refused(reason) => Self::Refused(reason),
            PublishError::Encode(error) => Self::Encode(error.to_string()),
            PublishError::NoRequest => Self::Encode(error.to_string()),
        }
    }
}

/// How long a question may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Within {
    /// Until the broker has it.
    pub(crate) broker: Duration,
    /// Until all have answered.
    pub(crate) answers: Duration,
}

/// Adds the answers to a request up. It is called by the link, so it is quick and bounded.
pub(crate) trait Gather: Send + 'static {
    /// Takes one answer.
    fn take(&mut self, response: ClusterResponse);
}

/// Once an edge is known, how long nobody new must have shown up until all are taken to be known. Nodes show themselves
/// at once when one comes that asks, so this is for the slowest of them.
const QUIET_FOR: Duration = Duration::from_millis(500);

/// After this time a cluster in which no edge was heard of has none: they all send heartbeats more often.
const ACQUAINTED_AFTER: Duration = Duration::from_millis(2_200);

/// The adapter, once it can hear what is for it.
#[derive(Debug)]
pub(crate) struct Link {
    adapter: OnceLock<Adapter>,
    /// Whether the other nodes are known.
    is_acquainted: watch::Sender<bool>,
}

impl Default for Link {
    fn default() -> Self {
        Self { adapter: OnceLock::new(), is_acquainted: watch::Sender::new(false) }
    }
}

impl Link {
    /// Waits for the broker, however long it is away.
    pub(crate) async fn open(&self, starting: Starting) {
        if let Some(adapter) = starting.claimed().await {
            tracing::info!(node = %adapter.node(), "the emitter can publish");
            // It is set once: nobody else opens this link.
            let _ = self.adapter.set(adapter.clone());
            get_acquainted(&adapter).await;
            self.is_acquainted.send_replace(true);
        }
    }

    /// The adapter.
    pub(crate) fn adapter(&self) -> Result<&Adapter, LinkError> {
        self.adapter.get().ok_or(LinkError::Starting)
    }

    /// Hands a message to the broker, after those of earlier calls; the future tells whether the broker has it.
    pub(crate) fn publish(
        &self,
        message: ClusterMessage,
        within: Duration,
    ) -> Result<impl Future<Output = Result<(), LinkError>> + Send + use<>, LinkError> {
        let confirmed = self.adapter()?.publish_confirmed(message);
        let deadline = Instant::now() + within;
        Ok(async move {
            match timeout_at(deadline, confirmed).await {
                Ok(outcome) => outcome.map_err(LinkError::from),
                Err(_) => Err(LinkError::Unknown),
            }
        })
    }

    /// Asks the edges and collects what they answer.
    pub(crate) async fn ask<G: Gather>(
        &self,
        namespace: NamespacePath,
        trace_parent: Option<String>,
        operation: impl FnOnce(RequestId) -> Operation,
        within: Within,
        gather: G,
    ) -> Result<(G, RequestEnd), LinkError> {
        let adapter = self.adapter()?;
        let deadline = Instant::now() + within.broker;
        let mut is_acquainted = self.is_acquainted.subscribe();
        if !matches!(timeout_at(deadline, is_acquainted.wait_for(|known| *known)).await, Ok(Ok(_))) {
            return Err(LinkError::Starting);
        }
        let operation = operation(adapter.request_id());
        let message = ClusterMessage { sender: None, namespace, id: None, trace_parent, operation };
        let gathered = Arc::new(Mutex::new(Some(gather)));
        let (sender, end) = oneshot::channel();
        let (inside, mut sender) = (gathered.clone(), Some(sender));
        let sink = Box::new(move |event| match event {
            RequestEvent::Answer(response) => {
                if let Some(gather) = inside.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                    gather.take(response);
                }
            }
            RequestEvent::End(end) => {
                if let Some(sender) = sender.take() {
                    // A caller that hung up meanwhile wants no answer.
                    let _ = sender.send(end);
                }
            }
        });
        let asked = adapter.request_confirmed(message, within.answers, sink)?;
        match timeout_at(deadline, asked).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(LinkError::Unknown),
        }
        let end = match timeout(within.answers + END_GRACE, end).await {
            Ok(Ok(end)) => end,
            Ok(Err(_)) | Err(_) => return Err(LinkError::Unknown),
        };
        if end.unpublished {
            return Err(LinkError::Unknown);
        }
        let gather = gathered.lock().unwrap_or_else(PoisonError::into_inner).take();
        gather.map(|gather| (gather, end)).ok_or(LinkError::Unknown)
    }

    /// Says goodbye to the cluster.
    pub(crate) async fn close(&self) {
        if let Some(adapter) = self.adapter.get() {
            adapter.shut_down().await;
        }
    }
}

/// Waits until the other nodes are known. Whom a node has not heard of is not asked for an answer, and one without them
/// would call itself complete.
async fn get_acquainted(adapter: &Adapter) {
    let mut nodes = adapter.watch_nodes();
    let latest = Instant::now() + ACQUAINTED_AFTER;
    loop {
        let knows_edges = nodes.borrow_and_update().iter().any(|peer| peer.role == Role::Edge);
        tokio::select! {
            changed = nodes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = sleep(QUIET_FOR), if knows_edges => return,
            () = sleep_until(latest) => return,
        }
    }
}
