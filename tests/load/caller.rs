//! Calls to the emitter's HTTP API from one thread over few connections, each with one call on its way; or to a Node
//! program that emits as many events for each line that it is sent.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::event::{Timespec, epoll};

/// Digits of the number at the front of each event's payload.
pub(crate) const NUMBER_DIGITS: usize = 8;

/// What the calls are made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// The emitter's `/v1/emit`, or `/v1/batch` for several events.
    Http,
    /// A line with the first number and the count of the events, answered with an empty line.
    Lines,
}

/// What is emitted.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    pub(crate) api: Api,
    /// Events of one call.
    pub(crate) batch: u32,
    /// Rooms, to which events go in turn.
    pub(crate) rooms: u32,
    /// Fills each payload up.
    pub(crate) padding: String,
}

/// The connections; one thread's own.
pub(crate) struct Caller {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    events: Events,
    ready: Vec<epoll::Event>,
    request: Vec<u8>,
    body: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Caller {
    pub(crate) fn connect(address: SocketAddr, connections: usize, events: Events) -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut all = Vec::with_capacity(connections);
        for number in 0..connections {
            let stream = TcpStream::connect(address).context("the API does not accept")?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(u64::try_from(number)?);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
            all.push(Connection { stream, answer: Vec::new() });
        }
        let idle = (0..connections).collect();
        let (ready, request, body) = (Vec::with_capacity(connections), Vec::new(), Vec::new());
        Ok(Self { epoll, connections: all, idle, events, ready, request, body })
    }

    /// Whether another call can be made now.
    pub(crate) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Whether a call is on its way.
    pub(crate) fn is_calling(&self) -> bool {
        self.idle.len() < self.connections.len()
    }

    /// Events of one call.
    pub(crate) fn batch(&self) -> u32 {
        self.events.batch
    }

    /// Emits the events from this number on.
    pub(crate) fn call(&mut self, first: u32) -> anyhow::Result<()> {
        let number = self.idle.pop().context("no idle connection")?;
        self.events.write(first, &mut self.request, &mut self.body)?;
        let connection = self.connections.get_mut(number).context("no such connection")?;
        // A call is far smaller than the buffer of an idle connection.
        connection.stream.write_all(&self.request).context("the API does not read")
    }

    /// Waits for answers, and checks them.
    pub(crate) fn turn(&mut self, wait: Duration) -> anyhow::Result<()> {
        self.ready.clear();
        let timeout = Timespec::try_from(wait)?;
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &self.ready {
            let number = usize::try_from(event.data.u64())?;
            let connection = self.connections.get_mut(number).context("no such connection")?;
            if connection.is_answered(&self.events)? {
                self.idle.push(number);
            }
        }
        Ok(())
    }
}

impl Events {
    fn write(&self, first: u32, out: &mut Vec<u8>, body: &mut Vec<u8>) -> anyhow::Result<()> {
        out.clear();
        body.clear();
        if self.api == Api::Lines {
            return Ok(writeln!(out, "{first} {}", self.batch)?);
        }
        if self.batch > 1 {
            body.extend_from_slice(b"{\"operations\":[");
        }
        for number in first..first + self.batch {
            if number > first {
                body.push(b',');
            }
            let op = if self.batch > 1 { "\"op\":\"emit\"," } else { "" };
            let room = number.checked_rem(self.rooms).context("no rooms")?;
            write!(
                body,
                "{{{op}\"room\":\"r{room}\",\"event\":\"msg\",\"args\":[\"{number:08}{}\"]}}",
                self.padding
            )?;
        }
        if self.batch > 1 {
            body.extend_from_slice(b"]}");
        }
        let path = if self.batch > 1 { "/v1/batch" } else { "/v1/emit" };
        let length = body.len();
        write!(
            out,
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )?;
        out.extend_from_slice(body);
        Ok(())
    }
}

impl Connection {
    /// Reads; whether the answer is complete and good.
    fn is_answered(&mut self, events: &Events) -> anyhow::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the API closed a connection"),
                Ok(count) => self.answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let is_good = match events.api {
            Api::Lines => self.answer.ends_with(b"\n").then_some(true),
            Api::Http => answer(&self.answer, events.batch)?,
        };
        let Some(is_good) = is_good else { return Ok(false) };
        ensure!(is_good, "the API answered {}", String::from_utf8_lossy(&self.answer));
        self.answer.clear();
        Ok(true)
    }
}

/// Whether an answer says that all events were accepted; `None` while it is incomplete.
fn answer(bytes: &[u8], batch: u32) -> anyhow::Result<Option<bool>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = bytes.split_at_checked(end + 4).context("a head")?;
    let head = std::str::from_utf8(head)?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if body.len() < length.context("an answer without a length")? {
        return Ok(None);
    }
    let accepted = b"\"accepted\":true";
    let count = body.windows(accepted.len()).filter(|window| window == accepted).count();
    Ok(Some(count == usize::try_from(batch)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_it_is_whole() {
        let whole = b"HTTP/1.1 202 Accepted\r\nContent-Length: 26\r\n\r\n{\"id\":\"x\",\"accepted\":true}";
        assert_eq!(answer(whole, 1).unwrap(), Some(true));
        assert_eq!(answer(whole, 2).unwrap(), Some(false));
        for cut in [0, 30, whole.len() - 1] {
            assert_eq!(answer(&whole[..cut], 1).unwrap(), None);
        }
    }
}
