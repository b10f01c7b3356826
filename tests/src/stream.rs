//! Streams to an edge, byte by byte: what raw clients are made of.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::waiting::soon;

/// Connects from an address, with a receive buffer of the test's choice.
///
/// # Panics
/// When the edge does not accept.
pub async fn connect(address: SocketAddr, from: IpAddr, receive_buffer: Option<u32>) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).expect("SO_RCVBUF");
    }
    if from != IpAddr::from(Ipv4Addr::LOCALHOST) {
        socket.bind((from, 0).into()).expect("a loopback address");
    }
    let stream = soon("a TCP connection", socket.connect(address)).await.expect("connect");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}

/// The head of a client frame whose mask is zero.
pub fn header(first: u8, length: usize) -> Vec<u8> {
    let mut bytes = match u16::try_from(length) {
        Ok(short @ 0..=125) => vec![first, 0x80 | short.to_be_bytes()[1]],
        Ok(medium) => [&[first, 0x80 | 126], &medium.to_be_bytes()[..]].concat(),
        Err(_) => [&[first, 0x80 | 127], &(length as u64).to_be_bytes()[..]].concat(),
    };
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

/// Reads up to the empty line; `None` when the stream ends before it.
pub async fn read_head(stream: &mut TcpStream, unread: &mut BytesMut) -> Option<String> {
    loop {
        if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            return Some(String::from_utf8_lossy(&unread.split_to(at + 4)).into_owned());
        }
        if !matches!(stream.read_buf(unread).await, Ok(1..)) {
            return None;
        }
    }
}
