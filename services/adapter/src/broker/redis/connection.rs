//! A connection to Redis from its first byte to the node's claim: the stream, who we are, and single questions that are
//! waited for. What runs on it afterwards is [`super::pubsub`].

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::resp::{self, Input, Reply};
use super::target::{Address, Login, Target};

/// Room for what one read brings.
pub const READ_BYTES: usize = 64 * 1024;

/// What a client of Redis and what a client of Sentinel answers at most, while single questions are asked.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A byte stream, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection whose every question is answered.
pub struct Connection {
    /// The stream.
    pub stream: Box<dyn Stream>,
    /// What has arrived.
    pub input: Input,
    /// Where it leads.
    pub address: Address,
    timeout: Duration,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("input", &self.input).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to Redis, through Sentinel if the target says so; a message of more than `frame_bytes_max` ends it.
    ///
    /// # Errors
    /// A text for the log.
    pub async fn open(target: &Target, frame_bytes_max: usize) -> Result<Self, String> {
        let address = match (&target.service, target.hosts.first()) {
            (Some(service), _) => &primary(target, service).await?,
            (None, Some(address)) => address,
            (None, None) => return Err("no address".to_owned()),
        };
        let opened = async {
            let mut connection = Self::greet(target, address, target.login.as_ref()).await?;
            connection.choose(target).await?;
            Ok(connection)
        };
        let mut connection = opened.await.map_err(|reason: String| format!("{address}: {reason}"))?;
        connection.input.frame_bytes_max(frame_bytes_max);
        Ok(connection)
    }

    /// Chooses the database, and makes sure that this is what Sentinel says.
    async fn choose(&mut self, target: &Target) -> Result<(), String> {
        if target.database != 0 {
            let selected = self.ask(&[b"SELECT", target.database.to_string().as_bytes()]).await?;
            selected.text("the database")?;
        }
        if target.service.is_some() {
            // What was the primary a moment ago may not be it any more. Not every user may ask.
            let role = self.ask(&[b"ROLE"]).await?;
            if let Some(role) = role.texts.first().filter(|role| *role != "master") {
                return Err(format!("Sentinel names it as the primary, but it is a {role}"));
            }
        }
        Ok(())
    }

    /// Connects to one address and says who we are.
    async fn greet(target: &Target, address: &Address, login: Option<&Login>) -> Result<Self, String> {
        let opened = timeout(target.timeout * 2, open(target, address));
        let stream = opened.await.map_err(|_| "no answer while connecting".to_owned())??;
        let (input, address) = (Input::new(ANSWER_BYTES_MAX), address.clone());
        let mut connection = Self { stream, input, address, timeout: target.timeout };
        let mut hello = vec![&b"HELLO"[..], b"3"];
        if let Some(Login { user, password }) = login {
            hello.extend([&b"AUTH"[..], user.as_bytes(), password.as_bytes()]);
        }
        let answer = connection.ask(&hello).await?;
        answer.text("the connection")?;
        Ok(connection)
    }

    /// Asks one question and waits for the answer.
    ///
    /// # Errors
    /// A text for the log.
    pub async fn ask(&mut self, parts: &[&[u8]]) -> Result<Answer, String> {
        let mut out = BytesMut::new();
        resp::command(&mut out, parts.iter().copied());
        let asked = async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await?;
            loop {
                match self.input.frame(0).map_err(std::io::Error::other)? {
                    // Nothing is subscribed to yet; whatever else is announced is not for us.
                    Some((Reply::Push(_), end)) => bytes::Buf::advance(&mut self.input.buffer, end),
                    Some((reply, end)) => {
                        let answer = Answer::of(&reply);
                        bytes::Buf::advance(&mut self.input.buffer, end);
                        return Ok(answer);
                    }
                    None => {
                        self.input.buffer.reserve(READ_BYTES);
                        if self.stream.read_buf(&mut self.input.buffer).await? == 0 {
                            return Err(std::io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                }
            }
        };
        match timeout(self.timeout, asked).await {
            Ok(answer) => answer.map_err(|error: std::io::Error| error.to_string()),
            Err(_) => Err("no answer while connecting".to_owned()),
        }
    }
}

/// An answer to a single question: its texts and numbers, or an error.
#[derive(Debug)]
pub struct Answer {
    texts: Vec<String>,
    /// Why Redis would not.
    pub refusal: Option<String>,
}

impl Answer {
    fn of(reply: &Reply<'_>) -> Self {
        let text = |reply: &Reply<'_>| {
            let number = reply.integer().map(|number| number.to_string());
            number.or_else(|| reply.text().map(|text| String::from_utf8_lossy(text).into_owned()))
        };
        let items = if let Reply::List(items) = reply { items } else { std::slice::from_ref(reply) };
        Self { texts: items.iter().filter_map(text).collect(), refusal: reply.error() }
    }

    /// The first text of it.
    ///
    /// # Errors
    /// The broker's refusal, and what it refused.
    pub fn text(&self, what: &str) -> Result<&str, String> {
        match &self.refusal {
            Some(error) => Err(format!("the broker refuses {what}: {error}")),
            None => Ok(self.texts.first().map_or("", String::as_str)),
        }
    }
}

/// Asks the Sentinels one after the other where the primary is.
async fn primary(target: &Target, service: &str) -> Result<Address, String> {
    let mut reasons = Vec::new();
    for sentinel in &target.hosts {
        match timeout(target.timeout, ask_sentinel(target, sentinel, service)).await {
            Ok(Ok(address)) => return Ok(address),
            Ok(Err(reason)) => reasons.push(format!("{sentinel}: {reason}")),
            Err(_) => reasons.push(format!("{sentinel}: no answer")),
        }
    }
    Err(format!("no Sentinel names a primary ({})", reasons.join("; ")))
}

async fn ask_sentinel(target: &Target, sentinel: &Address, service: &str) -> Result<Address, String> {
    let mut connection = Connection::greet(target, sentinel, target.sentinel_login.as_ref()).await?;
    let answer = connection.ask(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.as_bytes()]).await?;
    answer.text("the question for the primary")?;
    let [host, port] = &*answer.texts else { return Err(format!("it does not know {service}")) };
    let port = port.parse().map_err(|_| format!("its answer has no port: {port}"))?;
    Ok(Address { host: host.clone(), port })
}

async fn open(target: &Target, address: &Address) -> Result<Box<dyn Stream>, String> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    if !target.is_encrypted {
        return Ok(Box::new(stream));
    }
    // Files are read, and many certificates.
    let trust = tokio::task::spawn_blocking(trust).await.map_err(text)??;
    let name = ServerName::try_from(address.host.clone()).map_err(text)?;
    Ok(Box::new(TlsConnector::from(trust).connect(name, stream).await.map_err(text)?))
}

/// TLS with the certificates that the system trusts, which are read for each connection: they may have changed.
fn trust() -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this system has no certificates to trust; install ca-certificates or set SSL_CERT_FILE"
            .to_owned());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let versions = builder.with_safe_default_protocol_versions().map_err(text)?;
    Ok(Arc::new(versions.with_root_certificates(roots).with_no_client_auth()))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
