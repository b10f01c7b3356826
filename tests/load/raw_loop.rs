//! The floor of this machine: the least code that puts the demo server's bytes on the wire.
//!
//! One thread, one epoll, `recv(2)` and `send(2)`, no runtime and no protocol beyond recognising three packets.
//! It answers the `load` generator with the frames a Socket.IO server would send, byte for byte where the
//! generator looks, so what a real server needs above this loop is the price of being one.
//! It trusts its clients and is for measuring only.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, bail, ensure};
use rustix::event::epoll;
use websocket_proto::handshake;

/// Where to listen unless the first argument says otherwise.
const LISTEN_DEFAULT: &str = "127.0.0.1:3199";

/// The token of the listener; connections are numbered from zero.
const LISTENER: u64 = u64::MAX;

/// Longest request head, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

const OPEN: &[u8] =
    br#"0{"sid":"AAAAAAAAAAAAAAAAAAAA","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
const CONNECTED: &[u8] = br#"40{"sid":"BBBBBBBBBBBBBBBBBBBB"}"#;
const AUTH: &[u8] = br#"42["auth",{}]"#;
const BROADCAST_HEAD: &[u8] = br#"42["broadcast",null,"#;
const DELIVERED_HEAD: &[u8] = br#"42["msg","#;
const ECHO_NAME: &[u8] = br#"["echo","#;

fn main() -> anyhow::Result<()> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| LISTEN_DEFAULT.to_owned());
    let listener = TcpListener::bind(&listen).with_context(|| format!("cannot listen on {listen}"))?;
    writeln!(std::io::stdout(), "listening on {}", listener.local_addr()?)?;
    RawLoop::new(listener)?.run()
}

struct RawLoop {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    frame: Vec<u8>,
}

impl RawLoop {
    fn new(listener: TcpListener) -> anyhow::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        Ok(Self {
            epoll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; 64 * 1024],
            frame: Vec::new(),
        })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(512);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    token => self.serve(usize::try_from(token)?, event.flags),
                }
            }
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let place = self.free.pop().unwrap_or(self.connections.len());
            let data = epoll::EventData::new_u64(u64::try_from(place)?);
            epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
            let connection =
                Some(Connection { stream, stage: Stage::Http, incomplete: Vec::new(), unsent: Vec::new() });
            match self.connections.get_mut(place) {
                Some(slot) => *slot = connection,
                None => self.connections.push(connection),
            }
        }
    }

    /// Serves one connection and forgets it when it ends or misbehaves.
    fn serve(&mut self, place: usize, flags: epoll::EventFlags) {
        let Some(Some(connection)) = self.connections.get_mut(place) else { return };
        let mut outcome = if flags.contains(epoll::EventFlags::OUT) {
            connection.flush(&self.epoll, place).map(|()| None)
        } else {
            connection.handle_readable(&self.epoll, place, &mut self.buffer, &mut self.frame)
        };
        while let Ok(Some(Broadcast)) = outcome {
            self.fan_out();
            let Some(Some(connection)) = self.connections.get_mut(place) else { return };
            outcome = connection.handle_incomplete(&self.epoll, place, &mut self.frame);
        }
        if outcome.is_err()
            && let Some(slot) = self.connections.get_mut(place)
        {
            *slot = None;
            self.free.push(place);
        }
    }

    /// Sends the finished frame to every connection, one `send(2)` each.
    fn fan_out(&mut self) {
        for (place, slot) in self.connections.iter_mut().enumerate() {
            if let Some(connection) = slot
                && connection.stage == Stage::Joined
                && connection.send(&self.epoll, place, &self.frame).is_err()
            {
                *slot = None;
                self.free.push(place);
            }
        }
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Stage {
    /// Its request head has not arrived.
    Http,
    /// It has a WebSocket.
    Upgraded,
    /// It has joined the namespace, and receives broadcasts.
    Joined,
}

/// A connection asked for a broadcast, and left its finished frame in the loop's `frame`.
struct Broadcast;

struct Connection {
    stream: TcpStream,
    stage: Stage,
    /// What has arrived and is not handled: the front of a request or frame, or what followed a broadcast.
    incomplete: Vec<u8>,
    /// What the socket did not take; sent when it is writable.
    unsent: Vec<u8>,
}

impl Connection {
    fn handle_readable(
        &mut self,
        epoll: &OwnedFd,
        place: usize,
        buffer: &mut [u8],
        frame: &mut Vec<u8>,
    ) -> anyhow::Result<Option<Broadcast>> {
        let count = match self.stream.read(buffer) {
            Ok(0) => bail!("closed by the client"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let received = buffer.get_mut(..count).unwrap_or_default();
        if self.incomplete.is_empty() {
            let (broadcast, rest) = self.handle_bytes(epoll, place, received, frame)?;
            self.incomplete.extend_from_slice(rest);
            Ok(broadcast)
        } else {
            self.incomplete.extend_from_slice(received);
            self.handle_incomplete(epoll, place, frame)
        }
    }

    fn handle_incomplete(
        &mut self,
        epoll: &OwnedFd,
        place: usize,
        frame: &mut Vec<u8>,
    ) -> anyhow::Result<Option<Broadcast>> {
        let mut waiting = std::mem::take(&mut self.incomplete);
        let (broadcast, rest) = self.handle_bytes(epoll, place, &mut waiting, frame)?;
        self.incomplete = rest.to_vec();
        Ok(broadcast)
    }

    /// Handles whole frames up to and including a broadcast; returns what is left.
    fn handle_bytes<'b>(
        &mut self,
        epoll: &OwnedFd,
        place: usize,
        mut bytes: &'b mut [u8],
        frame: &mut Vec<u8>,
    ) -> anyhow::Result<(Option<Broadcast>, &'b [u8])> {
        if self.stage == Stage::Http {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                ensure!(bytes.len() < HEAD_BYTES_MAX, "request head too long");
                return Ok((None, bytes));
            };
            let (head, rest) = bytes.split_at_mut_checked(end + 4).context("head cut short")?;
            frame.clear();
            write_upgrade_response(head, frame)?;
            write_text_frame(&[OPEN], frame)?;
            self.send(epoll, place, frame)?;
            self.stage = Stage::Upgraded;
            bytes = rest;
        }
        while let Some((kind, payload_bytes)) = split_header(bytes)? {
            let (header_and_payload, rest) =
                bytes.split_at_mut_checked(payload_bytes.end).context("no frame")?;
            bytes = rest;
            ensure!(kind != 0x88, "closed by the client");
            let payload = unmask(header_and_payload, payload_bytes.start)?;
            frame.clear();
            if let Some(text) = payload.strip_prefix(BROADCAST_HEAD) {
                write_text_frame(&[DELIVERED_HEAD, text], frame)?;
                return Ok((Some(Broadcast), bytes));
            }
            if payload == b"40" {
                write_text_frame(&[CONNECTED], frame)?;
                write_text_frame(&[AUTH], frame)?;
                self.stage = Stage::Joined;
            } else if let Some((ack_id, args)) = split_echo(payload) {
                write_text_frame(&[b"43", ack_id, b"[", args], frame)?;
            }
            if !frame.is_empty() {
                self.send(epoll, place, frame)?;
            }
        }
        Ok((None, bytes))
    }

    fn send(&mut self, epoll: &OwnedFd, place: usize, frame: &[u8]) -> anyhow::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(frame);
            return Ok(());
        }
        let taken = match self.stream.write(frame) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        if taken < frame.len() {
            self.unsent.extend(frame.iter().skip(taken));
            let data = epoll::EventData::new_u64(u64::try_from(place)?);
            epoll::modify(epoll, &self.stream, data, epoll::EventFlags::IN | epoll::EventFlags::OUT)?;
        }
        Ok(())
    }

    fn flush(&mut self, epoll: &OwnedFd, place: usize) -> anyhow::Result<()> {
        let waiting = std::mem::take(&mut self.unsent);
        let data = epoll::EventData::new_u64(u64::try_from(place)?);
        epoll::modify(epoll, &self.stream, data, epoll::EventFlags::IN)?;
        self.send(epoll, place, &waiting)
    }
}

/// Appends the response that switches to WebSocket, for the key found in the request head.
fn write_upgrade_response(head: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
    let head = std::str::from_utf8(head)?;
    let key = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-key").then_some(value.trim()))
        .context("no Sec-WebSocket-Key")?;
    write!(
        out,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        handshake::accept_key(key)
    )?;
    Ok(())
}

/// Appends one unmasked text frame whose payload is `parts` in a row; at most 64 KiB.
fn write_text_frame(parts: &[&[u8]], out: &mut Vec<u8>) -> anyhow::Result<()> {
    let length = u16::try_from(parts.iter().map(|part| part.len()).sum::<usize>())?;
    out.push(0x81);
    match u8::try_from(length) {
        Ok(short) if short <= 125 => out.push(short),
        _ => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    Ok(())
}

/// Reads a masked header: the first byte, and where in `bytes` the payload lies; `None` while incomplete.
fn split_header(bytes: &[u8]) -> anyhow::Result<Option<(u8, std::ops::Range<usize>)>> {
    let (kind, start, length) = match bytes {
        [kind, length @ 0x80..=0xfd, ..] => (*kind, 6, usize::from(length & 0x7f)),
        [kind, 0xfe, a, b, ..] => (*kind, 8, usize::from(u16::from_be_bytes([*a, *b]))),
        [_, 0xfe, ..] | [_] | [] => return Ok(None),
        [_, _, ..] => bail!("frame unmasked or over 64 KiB"),
    };
    Ok((bytes.len() >= start + length).then_some((kind, start..start + length)))
}

/// Unmasks the payload behind a header of `header_bytes`, whose last four are the masking key.
fn unmask(frame: &mut [u8], header_bytes: usize) -> anyhow::Result<&[u8]> {
    let (header, payload) = frame.split_at_mut_checked(header_bytes).context("frame cut short")?;
    let mask = *header.last_chunk::<4>().context("header cut short")?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok(payload)
}

/// Recognises `42<ack id>["echo",<args>]`: the id's digits, and the arguments with the closing bracket.
fn split_echo(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = payload.strip_prefix(b"42")?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let (ack_id, rest) = rest.split_at_checked(digits)?;
    Some((ack_id, rest.strip_prefix(ECHO_NAME)?))
}
