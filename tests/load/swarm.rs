//! Many raw WebSocket clients on one thread and one epoll: each connected to the main namespace, each
//! answering the server's pings, none owning a buffer while its frames come whole.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::event::{Timespec, epoll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::wire::{self, Frame, FrameKind};

/// Clients between `connect` and their CONNECT answer at any time: fewer than any listen backlog, so that no
/// SYN is dropped and retried a second later.
const HANDSHAKES_IN_FLIGHT_MAX: usize = 64;

/// Loopback source addresses in use. One address has about 28,000 ports to one server port, and closed
/// connections keep theirs for a minute.
const SOURCE_ADDRESSES: usize = 16;

/// How long the server may show no progress at all before we call it stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes read from one client at once.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Readiness events taken from epoll in one turn.
const EVENTS_PER_TURN: usize = 512;

/// Whom to connect to, and how many clients.
#[derive(Clone, Debug)]
pub(crate) struct SwarmPlan {
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) path: String,
    pub(crate) sockets: usize,
}

/// What a workload does with a packet that reached a client. Control packets never come here.
pub(crate) trait Receive {
    /// Takes the text of one Engine.IO packet; text left in `reply` is sent back as one packet.
    fn handle_text(&mut self, client: usize, text: &[u8], reply: &mut Vec<u8>) -> anyhow::Result<()>;
}

/// Receives and forgets.
#[derive(Debug)]
pub(crate) struct Ignore;

impl Receive for Ignore {
    fn handle_text(&mut self, _: usize, _: &[u8], _: &mut Vec<u8>) -> anyhow::Result<()> {
        Ok(())
    }
}

/// The connected clients, numbered from zero.
pub(crate) struct Swarm {
    epoll: OwnedFd,
    clients: Vec<Client>,
    connected: usize,
    read_buffer: Vec<u8>,
    scratch: Scratch,
}

impl Swarm {
    /// Connects all clients of the plan to the main namespace.
    ///
    /// # Errors
    /// When a client is refused or cut off, or when none gets further for [`PATIENCE`].
    pub(crate) fn connect(plan: &SwarmPlan) -> anyhow::Result<Self> {
        let mut swarm = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            clients: Vec::with_capacity(plan.sockets),
            connected: 0,
            read_buffer: vec![0; READ_BYTES_MAX],
            scratch: Scratch::default(),
        };
        let requests: Vec<_> = plan
            .targets
            .iter()
            .map(|target| (*target, wire::upgrade_request(&target.to_string(), &plan.path)))
            .collect();
        let mut next = requests.iter().cycle();
        let (mut progress, mut progressed_at) = (0, Instant::now());
        while swarm.connected < plan.sockets {
            let wanted = plan.sockets.min(swarm.connected + HANDSHAKES_IN_FLIGHT_MAX);
            while swarm.clients.len() < wanted {
                let (target, request) = next.next().context("no target")?;
                swarm.open_one(*target, request)?;
            }
            swarm.turn(Duration::from_millis(100), &mut Ignore)?;
            if progress != swarm.connected {
                (progress, progressed_at) = (swarm.connected, Instant::now());
            }
            ensure!(
                progressed_at.elapsed() < PATIENCE,
                "stuck with {progress} of {} clients connected",
                plan.sockets
            );
        }
        Ok(swarm)
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Sends one Engine.IO packet from one client.
    pub(crate) fn send(&mut self, client: usize, text: &[u8]) -> anyhow::Result<()> {
        let client = self.clients.get_mut(client).context("no such client")?;
        client.send(FrameKind::Text, text, &mut self.scratch.frame)
    }

    /// Waits up to `wait` for readable clients and hands over what they received.
    pub(crate) fn turn(&mut self, wait: Duration, receiver: &mut impl Receive) -> anyhow::Result<()> {
        let mut events = std::mem::take(&mut self.scratch.events);
        events.clear();
        events.reserve(EVENTS_PER_TURN);
        let timeout = Timespec::try_from(wait)?;
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let number = usize::try_from(event.data.u64())?;
            let client = self.clients.get_mut(number).context("event for an unknown client")?;
            let before = client.stage;
            client
                .handle_readable(number, &mut self.read_buffer, &mut self.scratch, receiver)
                .with_context(|| format!("client {number}"))?;
            if before != Stage::Connected && client.stage == Stage::Connected {
                self.connected += 1;
            }
        }
        self.scratch.events = events;
        Ok(())
    }

    /// Keeps the clients alive and forgets what they receive, for `duration`.
    pub(crate) fn idle_for(&mut self, duration: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + duration;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left, &mut Ignore)?;
        }
    }

    fn open_one(&mut self, target: SocketAddr, request: &[u8]) -> anyhow::Result<()> {
        let number = self.clients.len();
        let stream =
            open_stream(target, number).with_context(|| format!("cannot connect client {number}"))?;
        (&stream).write_all(request)?;
        stream.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(u64::try_from(number)?);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
        self.clients.push(Client { stream, stage: Stage::Upgrading, incomplete: Vec::new() });
        Ok(())
    }
}

/// Opens one connection, from a loopback address of its own when the server is on loopback.
fn open_stream(target: SocketAddr, number: usize) -> anyhow::Result<TcpStream> {
    let stream = match target {
        SocketAddr::V4(v4) if v4.ip().is_loopback() => {
            let last = u8::try_from(number % SOURCE_ADDRESSES + 1)?;
            let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0);
            let socket = rustix::net::socket_with(
                AddressFamily::INET,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            rustix::net::bind(&socket, &source)?;
            rustix::net::connect(&socket, &v4)?;
            TcpStream::from(socket)
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => TcpStream::connect(target)?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Memory all clients share, because only one works at a time.
#[derive(Default)]
struct Scratch {
    events: Vec<epoll::Event>,
    reply: Vec<u8>,
    frame: Vec<u8>,
}

/// How far a client has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Waits for the response head.
    Upgrading,
    /// Waits for the Engine.IO open packet.
    Opening,
    /// Waits for the answer to its CONNECT.
    Joining,
    Connected,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    stage: Stage,
    /// The front of a frame whose rest has not arrived.
    incomplete: Vec<u8>,
}

impl Client {
    fn handle_readable(
        &mut self,
        number: usize,
        buffer: &mut [u8],
        scratch: &mut Scratch,
        receiver: &mut impl Receive,
    ) -> anyhow::Result<()> {
        let count = match self.stream.read(buffer) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let received = buffer.get(..count).unwrap_or_default();
        if self.incomplete.is_empty() {
            let rest = self.handle_bytes(number, received, scratch, receiver)?;
            self.incomplete.extend_from_slice(rest);
        } else {
            let mut joined = std::mem::take(&mut self.incomplete);
            joined.extend_from_slice(received);
            self.incomplete = self.handle_bytes(number, &joined, scratch, receiver)?.to_vec();
        }
        Ok(())
    }

    /// Handles every whole frame in `bytes` and returns what is left.
    fn handle_bytes<'b>(
        &mut self,
        number: usize,
        mut bytes: &'b [u8],
        scratch: &mut Scratch,
        receiver: &mut impl Receive,
    ) -> anyhow::Result<&'b [u8]> {
        if self.stage == Stage::Upgrading {
            let Some(rest) = wire::split_response_head(bytes)? else { return Ok(bytes) };
            self.stage = Stage::Opening;
            bytes = rest;
        }
        while let Some((Frame { kind, payload }, rest)) = wire::split_frame(bytes)? {
            bytes = rest;
            match kind {
                FrameKind::Text => self.handle_text(number, payload, scratch, receiver)?,
                FrameKind::Ping => self.send(FrameKind::Pong, payload, &mut scratch.frame)?,
                FrameKind::Close => bail!("the server sent a close frame: {payload:?}"),
                FrameKind::Binary | FrameKind::Pong => {}
            }
        }
        Ok(bytes)
    }

    fn handle_text(
        &mut self,
        number: usize,
        text: &[u8],
        scratch: &mut Scratch,
        receiver: &mut impl Receive,
    ) -> anyhow::Result<()> {
        if text == b"2" {
            return self.send(FrameKind::Text, b"3", &mut scratch.frame);
        }
        match (self.stage, text) {
            (Stage::Connected, _) => {
                scratch.reply.clear();
                receiver.handle_text(number, text, &mut scratch.reply)?;
                if !scratch.reply.is_empty() {
                    self.send(FrameKind::Text, &scratch.reply, &mut scratch.frame)?;
                }
            }
            (Stage::Opening, [b'0', ..]) => {
                self.send(FrameKind::Text, b"40", &mut scratch.frame)?;
                self.stage = Stage::Joining;
            }
            (Stage::Joining, [b'4', b'0', ..]) => self.stage = Stage::Connected,
            (stage, _) => bail!("while {stage:?} the server sent {:?}", String::from_utf8_lossy(text)),
        }
        Ok(())
    }

    /// Writes one frame. Workloads keep little in flight, so a full socket means a server that stopped reading.
    fn send(&mut self, kind: FrameKind, payload: &[u8], frame: &mut Vec<u8>) -> anyhow::Result<()> {
        frame.clear();
        wire::write_client_frame(kind, payload, frame)?;
        self.stream.write_all(frame).context("cannot send")
    }
}
