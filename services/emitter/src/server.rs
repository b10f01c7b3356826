//! An emitter: its port, its threads, its end.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adapter::adapter::Starting;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use ops::resources;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

use crate::api::{self, Api};
use crate::auth::credentials::{self, Credentials, CredentialsError};
use crate::auth::keys::Keys;
use crate::config::EmitterConfig;
use crate::link::Link;
use crate::metrics::Metrics;

/// Threads that are taken where the configuration leaves it open: the broker is the narrower place.
const THREADS_MAX: usize = 4;

/// Pause after a failed accept, such as one for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a goodbye to the cluster may take.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Headers of a request.
const HEADERS_MAX: usize = 100;

/// Why an emitter cannot start. Each message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Anybody who reaches the port could push to every client.
    #[error(
        "emitter.listen {0} is open to others, and there is no key: set emitter.keys_file (`jackfield token key` makes one), or emitter.jwt.secret_file or emitter.jwt.public_key_file, or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
    /// Another process has the port.
    #[error(
        "{address} is taken by another process; stop it or choose another with --set emitter.listen={suggestion}"
    )]
    Taken {
        /// The configured address.
        address: SocketAddr,
        /// The same address with the next port.
        suggestion: SocketAddr,
    },
    /// The system refuses the address for another reason.
    #[error(
        "cannot listen on {address}: {error}; choose another address with --set emitter.listen=ADDRESS:PORT"
    )]
    Refused {
        /// The configured address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The files of keys or secrets cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The system gives no threads, or no random numbers.
    #[error("the emitter cannot start: {0}")]
    System(io::Error),
}

/// A running emitter. It answers at once, with 503 until the broker was reached; dropping it ends it without a goodbye.
#[derive(Debug)]
pub struct Emitter {
    address: SocketAddr,
    link: Arc<Link>,
    metrics: Arc<Metrics>,
    closing: watch::Sender<bool>,
    runtime: Runtime,
    serving: tokio::task::JoinHandle<()>,
}

impl Emitter {
    /// Binds the port, reads the keys and serves from threads of its own. `starting` is an adapter of the role emitter,
    /// which may claim its node id later.
    ///
    /// # Errors
    /// [`StartError`]; a broker that is away is none.
    pub fn start(config: EmitterConfig, starting: Starting) -> Result<Self, StartError> {
        check(&config)?;
        // Ids of requests must not be the first to find out that there are none.
        getrandom::fill(&mut [0]).map_err(|error| StartError::System(io::Error::other(error)))?;
        let metrics = Arc::new(Metrics::default());
        let credentials = Arc::new(Credentials::load(&config, metrics.clone())?);
        let link = Arc::new(Link::default());
        let runtime = runtime(&config).map_err(StartError::System)?;
        let listener = runtime.block_on(bind(config.listen))?;
        let address = listener.local_addr().map_err(|error| refusal(config.listen, error))?;
        let opening = link.clone();
        // Both end with the runtime: they wait for what may never come.
        runtime.spawn(async move { opening.open(starting).await });
        runtime.spawn(reload(credentials.clone(), config.keys_reload()));
        let (closing, closed) = watch::channel(false);
        let connections_max = config.connections_max;
        let idle_timeout = config.idle_timeout();
        let router = api::router(Arc::new(Api::new(config, link.clone(), credentials, metrics.clone())));
        let server = Server { router, idle_timeout, connections_max, metrics: metrics.clone() };
        let serving = runtime.spawn(server.serve(listener, closed));
        Ok(Self { address, link, metrics, closing, runtime, serving })
    }

    /// The bound address, with the real port where 0 was configured.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Takes no more connections, answers the requests under way for at most `within`, and says goodbye to the cluster.
    pub fn close(self, within: Duration) {
        self.closing.send_replace(true);
        self.runtime.block_on(async {
            // What is still under way after that is cut off.
            let _ = tokio::time::timeout(within, self.serving).await;
            let _ = tokio::time::timeout(GOODBYE_WITHIN, self.link.close()).await;
        });
        self.runtime.shutdown_background();
    }
}

/// Checks a configuration and the files that it names, without opening a port.
///
/// # Errors
/// [`StartError`], as [`Emitter::start`] for these.
pub fn check(config: &EmitterConfig) -> Result<(), StartError> {
    if !config.listen.ip().to_canonical().is_loopback() && !config.wants_credentials() {
        return Err(StartError::Open(config.listen));
    }
    Ok(credentials::check(config)?)
}

/// Checks the text of a keys file in JSON.
///
/// # Errors
/// What is wrong with it, as one line.
pub fn check_keys(json: &str) -> Result<(), String> {
    Keys::parse(json, true).map(drop)
}

fn runtime(config: &EmitterConfig) -> io::Result<Runtime> {
    let threads = match config.threads {
        0 => resources::processors().get().min(THREADS_MAX),
        threads => threads,
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("emitter")
        .enable_all()
        .build()
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| refusal(address, error))
}

fn refusal(address: SocketAddr, error: io::Error) -> StartError {
    if error.kind() == io::ErrorKind::AddrInUse {
        let suggestion = SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(4000));
        return StartError::Taken { address, suggestion };
    }
    StartError::Refused { address, error }
}

/// Looks at the files of keys and secrets for ever.
async fn reload(credentials: Arc<Credentials>, every: Duration) {
    let mut refused = None;
    loop {
        tokio::time::sleep(every).await;
        let credentials = credentials.clone();
        // A file may lie on a network.
        let looked = tokio::task::spawn_blocking(move || credentials.reload(refused)).await;
        refused = looked.ok().flatten();
    }
}

/// Accepts and serves connections.
struct Server {
    router: Router,
    idle_timeout: Duration,
    connections_max: usize,
    metrics: Arc<Metrics>,
}

impl Server {
    async fn serve(self, listener: TcpListener, mut closed: watch::Receiver<bool>) {
        let connections = Arc::new(Semaphore::new(self.connections_max.min(Semaphore::MAX_PERMITS)));
        let graceful = GracefulShutdown::new();
        loop {
            let permit = match connections.clone().try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => {
                    self.metrics.connections_waited.add(1);
                    tokio::select! {
                        permit = connections.clone().acquire_owned() => permit.ok(),
                        () = told_to_close(&mut closed) => break,
                    }
                }
            };
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "the emitter cannot accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
                () = told_to_close(&mut closed) => break,
            };
            self.metrics.connections_opened.add(1);
            let open = self.connections_max.saturating_sub(connections.available_permits());
            self.metrics.connections.set(open as u64);
            let connection = self.connection(stream, &graceful);
            let (metrics, all, max) = (self.metrics.clone(), connections.clone(), self.connections_max);
            tokio::spawn(async move {
                connection.await;
                drop(permit);
                metrics.connections.set(max.saturating_sub(all.available_permits()) as u64);
            });
        }
        drop(listener);
        graceful.shutdown().await;
    }

    /// Serves one connection until it ends, is idle for too long, or the emitter closes.
    fn connection(
        &self,
        stream: TcpStream,
        graceful: &GracefulShutdown,
    ) -> impl Future<Output = ()> + Send + use<> {
        // An answer is one small write; nobody should wait for more of it.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection cannot be told not to wait");
        }
        let service = TowerToHyperService::new(self.router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.idle_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let watched = graceful.watch(connection);
        async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, "a connection of a caller broke");
            }
        }
    }
}

async fn told_to_close(closed: &mut watch::Receiver<bool>) {
    if closed.wait_for(|closed| *closed).await.is_err() {
        // The emitter was dropped, and the runtime with it.
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_for_others_wants_a_key() {
        let check = |listen: &str| {
            check(&EmitterConfig { listen: listen.parse().unwrap(), ..EmitterConfig::default() })
        };
        assert!(check("127.0.0.1:4000").is_ok() && check("[::1]:0").is_ok());
        assert!(check("[::ffff:127.0.0.1]:4000").is_ok());
        for open in ["0.0.0.0:4000", "[::]:4000", "192.0.2.1:4000"] {
            let message = check(open).unwrap_err().to_string();
            for way in ["emitter.keys_file", "emitter.jwt.", "listen on 127.0.0.1"] {
                assert!(message.contains(way), "{message}");
            }
        }
    }
}
