//! The ops listener: `/livez`, `/readyz`, `/metrics` and `/config`, for those who run the gateway.
//!
//! It speaks plain HTTP/1.1 and reads no request body. Connections are few, short and bounded, so that a stranger who
//! reaches the port cannot use up the process's files.

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::config_section;

/// Connections served at a time; more wait in the system's backlog. A scraper and some probes need a handful.
const CONNECTIONS_MAX: usize = 64;

/// How long a request's head may take, and how long an idle connection is kept.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest life of one connection; the next scrape opens another.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// Pause after a failed accept, such as one for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Shortest token that is worth the name.
const TOKEN_BYTES_MIN: usize = 16;

/// Longest token file that is read.
const TOKEN_BYTES_MAX: u64 = 4096;

config_section! {
    /// The listener for those who run the gateway: `/livez`, `/readyz`, `/metrics`, `/config`.
    pub struct OpsConfig {
        /// Address of the ops listener; port 0 takes a free one.
        /// The subcommand `edge` listens on `0.0.0.0:9090` unless told otherwise.
        pub listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9090)),
        /// File with the token, of at least 16 bytes, that opens `/config` to callers that are not on this machine, as `Authorization: Bearer`.
        /// Empty keeps `/config` to this machine.
        pub token_file: PathBuf = PathBuf::new(),
    }
}

/// Whether this process should get traffic, and why not. Clones share one state.
#[derive(Debug, Clone)]
pub struct Readiness {
    unready: Arc<RwLock<Option<&'static str>>>,
}

impl Readiness {
    /// Starts out not ready, for a reason such as "starting".
    pub fn unready(reason: &'static str) -> Self {
        Self { unready: Arc::new(RwLock::new(Some(reason))) }
    }

    /// From now on `/readyz` answers 200.
    pub fn set_ready(&self) {
        self.set(None);
    }

    /// From now on `/readyz` answers 503 with the reason.
    pub fn set_unready(&self, reason: &'static str) {
        self.set(Some(reason));
    }

    /// The reason for not being ready, or `None` when ready.
    pub fn reason(&self) -> Option<&'static str> {
        *self.unready.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, unready: Option<&'static str>) {
        *self.unready.write().unwrap_or_else(PoisonError::into_inner) = unready;
    }
}

/// What the ops listener shows.
pub struct Pages {
    /// Answers `/readyz`.
    pub readiness: Readiness,
    /// Renders `/metrics` in the Prometheus text format.
    pub metrics: Box<dyn Fn() -> String>,
    /// The effective configuration as TOML, for `/config`. It holds no secret: those stay in the files it names.
    pub config: String,
}

impl fmt::Debug for Pages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pages").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// Why the ops listener cannot start. Each message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another process has the port.
    #[error(
        "{address} is taken by another process; stop it or choose another with --set ops.listen={suggestion}"
    )]
    Taken {
        /// The configured address.
        address: SocketAddr,
        /// The same address with the next port.
        suggestion: SocketAddr,
    },
    /// The system refuses the address for another reason.
    #[error("cannot listen on {address}: {error}; choose another address with --set ops.listen=ADDRESS:PORT")]
    Refused {
        /// The configured address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The token file cannot be read.
    #[error("cannot read ops.token_file {path}: {error}; give a readable file or leave the key empty")]
    TokenUnreadable {
        /// The file as configured.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The token file's content is no token.
    #[error(
        "ops.token_file {path} must hold one token of 16 to 4096 bytes without spaces; write one into it"
    )]
    TokenMalformed {
        /// The file as configured.
        path: PathBuf,
    },
}

/// The ops listener, bound but not yet served.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    token: Option<Token>,
}

impl Admin {
    /// Binds the port and reads the token; needs a tokio runtime.
    ///
    /// # Errors
    /// [`AdminError`] when the port or the token file cannot be had.
    pub async fn bind(config: &OpsConfig) -> Result<Self, AdminError> {
        let token = read_token(&config.token_file)?;
        let listener =
            TcpListener::bind(config.listen).await.map_err(|error| refusal(config.listen, error))?;
        let address = listener.local_addr().map_err(|error| refusal(config.listen, error))?;
        Ok(Self { listener, address, token })
    }

    /// The bound address, with the real port where 0 was configured.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until dropped; call it on a current-thread runtime inside a `LocalSet`.
    pub async fn serve(self, pages: Pages) -> Infallible {
        let pages = std::rc::Rc::new((pages, self.token));
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            // The semaphore is never closed; were it, the connection would go on without a permit.
            let permit = Arc::clone(&connections).acquire_owned().await.ok();
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "the ops listener cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let pages = std::rc::Rc::clone(&pages);
            // A connection ends by itself within its life time, so nobody needs to await it.
            tokio::task::spawn_local(async move {
                serve_connection(stream, peer.ip(), &pages.0, pages.1.as_ref()).await;
                drop(permit);
            });
        }
    }
}

async fn serve_connection(stream: TcpStream, peer: IpAddr, pages: &Pages, token: Option<&Token>) {
    let service =
        service_fn(|request| async move { Ok::<_, Infallible>(respond(&request, peer, pages, token)) });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_LIFE, connection).await {
        tracing::debug!(%error, "an ops connection broke");
    }
}

fn respond(
    request: &Request<Incoming>,
    peer: IpAddr,
    pages: &Pages,
    token: Option<&Token>,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "alive\n"),
        "/readyz" => match pages.readiness.reason() {
            None => text(StatusCode::OK, "ready\n"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        },
        "/metrics" => {
            let mut response = text(StatusCode::OK, (pages.metrics)());
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        "/config" => respond_config(request.headers().get(AUTHORIZATION), peer, &pages.config, token),
        _ => text(StatusCode::NOT_FOUND, "here are /livez, /readyz, /metrics and /config\n"),
    }
}

fn respond_config(
    authorization: Option<&HeaderValue>,
    peer: IpAddr,
    config: &str,
    token: Option<&Token>,
) -> Response<Full<Bytes>> {
    let given = authorization.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let is_known = given.is_some_and(|given| token.is_some_and(|token| token.equals(given)));
    if peer.to_canonical().is_loopback() || is_known {
        return text(StatusCode::OK, config.to_owned());
    }
    let mut response =
        text(StatusCode::UNAUTHORIZED, "needs the token of ops.token_file as Authorization: Bearer\n");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The ops token. It never appears in debug output.
struct Token(Vec<u8>);

impl Token {
    /// Compares in a time that depends on the given length only.
    fn equals(&self, given: &[u8]) -> bool {
        let expected = self.0.iter().copied().cycle();
        let differing =
            given.iter().zip(expected).fold(0, |differing, (left, right)| differing | (left ^ right));
        differing == 0 && given.len() == self.0.len()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(..)")
    }
}

/// Reads the files that a configuration names, without opening a port.
///
/// # Errors
/// As [`Admin::bind`] for these files.
pub fn check(config: &OpsConfig) -> Result<(), AdminError> {
    read_token(&config.token_file).map(drop)
}

fn read_token(path: &Path) -> Result<Option<Token>, AdminError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let unreadable = |error| AdminError::TokenUnreadable { path: path.to_owned(), error };
    let malformed = || AdminError::TokenMalformed { path: path.to_owned() };
    let file = File::open(path).map_err(unreadable)?;
    let mut content = Vec::new();
    file.take(TOKEN_BYTES_MAX + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > TOKEN_BYTES_MAX {
        return Err(malformed());
    }
    let token = content.trim_ascii();
    let is_token = token.len() >= TOKEN_BYTES_MIN && token.iter().all(u8::is_ascii_graphic);
    if is_token { Ok(Some(Token(token.to_vec()))) } else { Err(malformed()) }
}

fn refusal(address: SocketAddr, error: io::Error) -> AdminError {
    if error.kind() == io::ErrorKind::AddrInUse {
        let suggestion = SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(9090));
        return AdminError::Taken { address, suggestion };
    }
    AdminError::Refused { address, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const REMOTE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn config_status(authorization: Option<&'static str>, peer: IpAddr) -> StatusCode {
        let token = Token(b"0123456789abcdef".to_vec());
        let authorization = authorization.map(HeaderValue::from_static);
        respond_config(authorization.as_ref(), peer, "config", Some(&token)).status()
    }

    #[test]
    fn config_is_for_this_machine_or_the_token() {
        assert_eq!(config_status(None, LOCAL), StatusCode::OK);
        assert_eq!(config_status(None, "::ffff:127.0.0.1".parse().unwrap()), StatusCode::OK);
        assert_eq!(config_status(None, REMOTE), StatusCode::UNAUTHORIZED);
        assert_eq!(config_status(Some("Bearer 0123456789abcdef"), REMOTE), StatusCode::OK);
        for wrong in [
            "Bearer 0123456789abcdeX",
            "Bearer ",
            "Bearer 0123456789abcdef0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert_eq!(config_status(Some(wrong), REMOTE), StatusCode::UNAUTHORIZED, "{wrong}");
        }
        assert_eq!(respond_config(None, REMOTE, "config", None).status(), StatusCode::UNAUTHORIZED);
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: ops\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn pages_answer_and_readiness_turns() {
        let config = OpsConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..OpsConfig::default() };
        let admin = Admin::bind(&config).await.unwrap();
        let address = admin.local_addr();
        let taken = Admin::bind(&OpsConfig { listen: address, ..OpsConfig::default() }).await.unwrap_err();
        assert!(
            taken.to_string().starts_with(&format!("{address} is taken by another process; ")),
            "{taken}"
        );
        let readiness = Readiness::unready("starting");
        let pages = Pages {
            readiness: readiness.clone(),
            metrics: Box::new(|| "jackfield_up 1\n".to_owned()),
            config: "[edge]\n".to_owned(),
        };
        let local = tokio::task::LocalSet::new();
        local.spawn_local(admin.serve(pages));
        local
            .run_until(async {
                assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 OK"));
                let unready = get(address, "/readyz").await;
                assert!(
                    unready.starts_with("HTTP/1.1 503") && unready.ends_with("not ready: starting\n"),
                    "{unready}"
                );
                readiness.set_ready();
                assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200 OK"));
                assert!(get(address, "/metrics").await.ends_with("jackfield_up 1\n"));
                assert!(get(address, "/config").await.ends_with("[edge]\n"));
                assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
            })
            .await;
    }

    #[test]
    fn a_token_file_holds_one_long_word() {
        let path = std::env::temp_dir().join(format!("jackfield-token-{}", std::process::id()));
        let read = |content: &str| {
            fs::write(&path, content).unwrap();
            read_token(&path)
        };
        assert!(read("0123456789abcdef\n").unwrap().unwrap().equals(b"0123456789abcdef"));
        for malformed in ["", "short\n", "0123456789 abcdef", &"x".repeat(5000)] {
            assert!(matches!(read(malformed), Err(AdminError::TokenMalformed { .. })), "{malformed}");
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(read_token(&path), Err(AdminError::TokenUnreadable { .. })));
        assert!(read_token(Path::new("")).unwrap().is_none());
    }
}
