//! A relay in front of a broker, to cut or hold its connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::POLL;

/// A relay in front of a broker, whose connections can be cut.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    is_open: Arc<AtomicBool>,
    is_held: Arc<AtomicBool>,
}

impl Relay {
    /// Relays to a port of this machine.
    ///
    /// # Panics
    /// When there is no port to listen on.
    pub fn start(target: u16) -> Self {
        Self::start_slow(target, Duration::ZERO)
    }

    /// As [`Relay::start`]; whatever comes is on its way for so long, in both directions.
    ///
    /// # Panics
    /// As [`Relay::start`].
    pub fn start_slow(target: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let port = listener.local_addr().expect("its address").port();
        let streams = Arc::new(Mutex::new(Vec::new()));
        let is_open = Arc::new(AtomicBool::new(true));
        let is_held = Arc::new(AtomicBool::new(false));
        let relay =
            Self { port, streams: streams.clone(), is_open: is_open.clone(), is_held: is_held.clone() };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let to = TcpStream::connect((Ipv4Addr::LOCALHOST, target));
                let (true, Ok(to)) = (is_open.load(Ordering::Relaxed), to) else { continue };
                let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
                let mut kept = streams.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend([clone(&stream), clone(&to)]);
                drop(kept);
                for (mut from, mut to) in [(clone(&stream), clone(&to)), (to, stream)] {
                    let is_held = is_held.clone();
                    thread::spawn(move || {
                        let mut buffer = vec![0; 64 * 1024];
                        while let Ok(read @ 1..) = from.read(&mut buffer) {
                            thread::sleep(delay);
                            while is_held.load(Ordering::Relaxed) {
                                thread::sleep(POLL);
                            }
                            if to.write_all(&buffer[..read]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        relay
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every connection; new ones are relayed.
    pub fn cut(&self) {
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets nothing through, or everything again; connections stay.
    pub fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    /// Refuses new connections, or relays them again.
    pub fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Relaxed);
    }
}
