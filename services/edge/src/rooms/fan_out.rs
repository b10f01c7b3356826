//! One broadcast, or several adjacent ones: who gets it, its packet encoded once, and delivery in slices.
//!
//! Membership is that of the moment the fan-out begins: the targets are written down then. Each target's slot is
//! checked again when it is its turn, so a socket that has gone meanwhile, or another that took its slot, gets
//! nothing.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use cluster_proto::broadcast::Selector;
use cluster_proto::message::JsonData;
use engineio_proto::WirePacket;
use smallvec::{SmallVec, smallvec};
use socketio_proto::namespace::NamespacePath;
use socketio_proto::packet::{AckId, Outgoing, PacketType};
use socketio_proto::parser::{msgpack, text};

use super::index::SocketKey;
use crate::outbox::wire::{Dialect, Wire};

/// Sockets served before reads, accepts and timers get their turn.
pub const SLICE: usize = 256;

/// A packet to send: owned, and cheap to pass between threads behind an [`Arc`].
#[derive(Clone, Debug)]
pub struct OutPacket {
    /// `Event` or `Ack`; their binary forms follow from `binary`.
    pub packet_type: PacketType,
    /// The ack id, if one is asked for or answered.
    pub ack_id: Option<AckId>,
    /// The JSON array: event name and arguments, or the arguments of an answer.
    pub data: String,
    /// The attachments that the placeholders in `data` stand for.
    pub attachments: Vec<Bytes>,
    /// Whether placeholders in `data` mean attachments.
    pub binary: bool,
}

impl OutPacket {
    /// The packet as the encoders take it.
    pub fn as_outgoing<'a>(&'a self, namespace: &'a str) -> Outgoing<'a> {
        Outgoing {
            packet_type: self.packet_type,
            namespace,
            ack_id: self.ack_id,
            data: &self.data,
            attachments: &self.attachments,
            binary: self.binary,
        }
    }

    /// The packet's data as it travels between nodes.
    pub fn as_json_data(&self) -> JsonData {
        JsonData { text: self.data.clone(), attachments: self.attachments.clone(), binary: self.binary }
    }

    /// Bytes of text and attachments.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }
}

/// Encodes a packet for one dialect; `None` if the dialect cannot say it.
pub fn encode(packet: &Outgoing<'_>, dialect: Dialect) -> Option<Wire> {
    if dialect.msgpack {
        let mut bytes = Vec::with_capacity(packet.data.len() + 64);
        msgpack::encode(packet, &mut bytes).ok()?;
        return Some(Wire::new(smallvec![WirePacket::Binary(bytes.into())], dialect));
    }
    let mut header = Vec::with_capacity(packet.data.len() + packet.namespace.len() + 32);
    header.push(b'4');
    text::encode(packet, &mut header);
    let mut packets: SmallVec<[WirePacket; 1]> = smallvec![WirePacket::Text(header.into())];
    if packet.is_binary() {
        packets.extend(packet.attachments.iter().cloned().map(WirePacket::Binary));
    }
    Some(Wire::new(packets, dialect))
}

/// A broadcast, as it travels between shards.
#[derive(Debug)]
pub struct Broadcast {
    /// The path of the namespace.
    pub namespace: NamespacePath,
    /// Whom it is for.
    pub selector: Selector,
    /// What is sent.
    pub packet: OutPacket,
    /// Whether clients that are behind may miss it.
    pub volatile: bool,
}

/// A broadcast with its packet encoded once for each dialect that turns up.
#[derive(Debug)]
pub struct EncodedOnce {
    broadcast: Arc<Broadcast>,
    asking: Option<u32>,
    wires: [OnceCell<Option<Wire>>; Dialect::COUNT],
}

impl EncodedOnce {
    /// Nothing is encoded before it is asked for.
    pub fn new(broadcast: Arc<Broadcast>) -> EncodedOnce {
        EncodedOnce { broadcast, asking: None, wires: Default::default() }
    }

    /// One that asks its targets for acks; `asking` is the caller's own name for it.
    pub fn asking(broadcast: Arc<Broadcast>, asking: u32) -> EncodedOnce {
        EncodedOnce { asking: Some(asking), ..EncodedOnce::new(broadcast) }
    }

    /// What it was called when it was made to ask for acks.
    pub fn asks(&self) -> Option<u32> {
        self.asking
    }

    /// The broadcast.
    pub fn broadcast(&self) -> &Broadcast {
        &self.broadcast
    }

    /// The packet in one dialect.
    pub fn wire(&self, dialect: Dialect) -> Option<&Wire> {
        self.wires
            .get(dialect.index())?
            .get_or_init(|| {
                encode(&self.broadcast.packet.as_outgoing(self.broadcast.namespace.as_str()), dialect)
            })
            .as_ref()
    }
}

/// A delivery under way.
#[derive(Debug)]
pub struct FanOut {
    batch: Vec<EncodedOnce>,
    /// Each target with the number of its broadcast, sorted so that what is for one socket stands together.
    targets: Vec<(SocketKey, u32)>,
    next: usize,
}

impl FanOut {
    /// Begins to deliver adjacent broadcasts; `targets` are those of each, in the same order.
    pub fn new(batch: Vec<EncodedOnce>, targets: Vec<Vec<SocketKey>>) -> FanOut {
        let several = targets.len() > 1;
        let mut all = Vec::with_capacity(targets.iter().map(Vec::len).sum());
        for (number, targets) in (0..).zip(targets) {
            all.extend(targets.into_iter().map(|socket| (socket, number)));
        }
        if several {
            all.sort_unstable();
        }
        FanOut { batch, targets: all, next: 0 }
    }

    /// The next socket, with the broadcasts that it gets.
    pub fn pop(&mut self) -> Option<(SocketKey, SmallVec<[&EncodedOnce; 4]>)> {
        let rest = self.targets.get(self.next..)?;
        let (socket, _) = *rest.first()?;
        let mine = rest.iter().take_while(|(other, _)| *other == socket);
        let packets: SmallVec<[&EncodedOnce; 4]> =
            mine.filter_map(|(_, number)| self.batch.get(*number as usize)).collect();
        self.next += packets.len().max(1);
        Some((socket, packets))
    }

    /// The sockets whose turn comes next, up to `count`.
    pub fn upcoming(&self, count: usize) -> impl Iterator<Item = SocketKey> {
        self.targets.iter().skip(self.next).take(count).map(|(socket, _)| *socket)
    }

    /// Whether every target has had its turn.
    pub fn is_done(&self) -> bool {
        self.next >= self.targets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broadcast(data: &str) -> EncodedOnce {
        EncodedOnce::new(Arc::new(Broadcast {
            namespace: NamespacePath::root(),
            selector: Selector::default(),
            packet: OutPacket {
                packet_type: PacketType::Event,
                ack_id: None,
                data: data.to_owned(),
                attachments: Vec::new(),
                binary: false,
            },
            volatile: false,
        }))
    }

    fn key(index: u32) -> SocketKey {
        SocketKey { index, generation: 0 }
    }

    #[test]
    fn a_batch_visits_each_socket_once_with_its_packets_in_order() {
        let batch = vec![broadcast("[\"a\"]"), broadcast("[\"b\"]"), broadcast("[\"c\"]")];
        let targets = vec![vec![key(3), key(1)], vec![key(2), key(1)], vec![key(1), key(3)]];
        let mut fan_out = FanOut::new(batch, targets);
        let mut seen = Vec::new();
        while let Some((socket, packets)) = fan_out.pop() {
            let data: Vec<&str> = packets.iter().map(|packet| &*packet.broadcast().packet.data).collect();
            seen.push((socket.index, data.concat()));
        }
        assert_eq!(
            seen,
            [
                (1, "[\"a\"][\"b\"][\"c\"]".to_owned()),
                (2, "[\"b\"]".to_owned()),
                (3, "[\"a\"][\"c\"]".to_owned())
            ]
        );
        assert!(fan_out.is_done());
    }

    #[test]
    fn a_packet_is_encoded_once_for_each_dialect() {
        let packet = broadcast("[\"a\",1]");
        let dialect = |version| Dialect { version, msgpack: false, base64: false };
        let v4 = packet.wire(dialect(engineio_proto::ProtocolVersion::V4)).unwrap();
        assert_eq!(v4.frames().as_ref(), b"\x81\x0942[\"a\",1]");
        assert!(std::ptr::eq(v4, packet.wire(dialect(engineio_proto::ProtocolVersion::V4)).unwrap()));
    }
}
