//! What sessions send: packets to their outboxes, and from there to the transport.
//!
//! A packet is written at once if the transport takes it and waits otherwise; the slow-consumer policy is asked
//! before each one. Nothing here wakes a task unless bytes are left over.

use std::io;

use bytes::Bytes;
use engineio_proto::session::CloseReason;
use engineio_proto::{PacketType, TransportKind, WirePacket};
use smallvec::smallvec;
use websocket_proto::close::CloseCode;
use websocket_proto::encoder;

use super::ending::Farewell;
use super::link::LinkId;
use super::registry::{Carrier, Session, SessionKey, Sessions};
use super::trace::{self, Direction};
use crate::outbox::queue::Written;
use crate::outbox::slow_consumer::{self, Verdict};
use crate::outbox::wire::{TextScratch, Wire, write_frame};

impl<S> Sessions<S> {
    /// Sends one text packet, written by `write` after its message type digit. Nothing is allocated unless the
    /// packet has to wait.
    pub fn send_text(&mut self, key: SessionKey, volatile: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let mut scratch = std::mem::take(&mut self.scratch);
        write(scratch.start());
        self.send_scratch(key, volatile, &mut scratch);
        scratch.trim();
        self.scratch = scratch;
    }

    pub(super) fn send_scratch(&mut self, key: SessionKey, volatile: bool, scratch: &mut TextScratch) {
        let Some((before, true)) = self.may_send(key, scratch.packet().len(), volatile) else { return };
        trace::frame(Direction::Out, key, "text", scratch.packet());
        let now = self.now;
        let Some(session) = self.get_mut(key) else { return };
        match &mut session.carrier {
            Carrier::WebSocket(link) => {
                let outcome = link.queue.send(&link.stream, scratch.frame(), now);
                let after = link.queue.bytes();
                self.settle_write(key, before, after, outcome);
            }
            Carrier::Polling(polling) => {
                polling
                    .queue
                    .push(smallvec![WirePacket::Text(Bytes::copy_from_slice(scratch.packet()))], now);
                self.settle_queue(key, before);
            }
            Carrier::Gone => {}
        }
        self.metrics.packets_sent.add(1);
    }

    /// Sends one packet that others may share.
    pub fn send_wire(&mut self, key: SessionKey, volatile: bool, wire: &Wire) {
        let Some((before, true)) = self.may_send(key, wire.bytes(), volatile) else { return };
        trace_wire(key, wire);
        let now = self.now;
        let Some(session) = self.get_mut(key) else { return };
        match &mut session.carrier {
            Carrier::WebSocket(link) => {
                let outcome = link.queue.send_shared(&link.stream, wire.frames(), now);
                let after = link.queue.bytes();
                self.settle_write(key, before, after, outcome);
            }
            Carrier::Polling(polling) => {
                polling.queue.push(wire.packets().clone(), now);
                self.settle_queue(key, before);
            }
            Carrier::Gone => {}
        }
        self.metrics.packets_sent.add(1);
    }

    /// Sends several shared packets in one write.
    pub fn send_wires(&mut self, key: SessionKey, wires: &[&Wire]) {
        let now = self.now;
        let total: usize = wires.iter().map(|wire| wire.bytes()).sum();
        if total >= self.settings.slow.bytes_max {
            // An empty outbox takes any one packet, but not any number of them: each is judged by itself.
            for wire in wires {
                self.send_wire(key, false, wire);
            }
            return;
        }
        let Some((before, true)) = self.may_send(key, total, false) else { return };
        wires.iter().for_each(|wire| trace_wire(key, wire));
        let Some(session) = self.get_mut(key) else { return };
        match &mut session.carrier {
            Carrier::WebSocket(link) => {
                for wire in wires {
                    link.queue.push(wire.frames().clone(), now);
                }
                let outcome = link.queue.flush(&link.stream, now);
                let after = link.queue.bytes();
                self.settle_write(key, before, after, outcome);
            }
            Carrier::Polling(polling) => {
                for wire in wires {
                    polling.queue.push(wire.packets().clone(), now);
                }
                self.settle_queue(key, before);
            }
            Carrier::Gone => {}
        }
        self.metrics.packets_sent.add(wires.len() as u64);
    }

    /// Sends a control packet of the session's machine.
    pub(crate) fn send_control(&mut self, key: SessionKey, via: TransportKind, packet: WirePacket) {
        let now = self.now;
        let Some((before, true)) = self.may_send(key, packet.len(), false) else { return };
        trace::packet_out(key, &packet);
        let Some(session) = self.get_mut(key) else { return };
        let (version, base64) = (session.machine.version(), session.base64);
        match (&mut session.carrier, via) {
            (Carrier::Polling(polling), TransportKind::Polling) => {
                if packet == WirePacket::control(PacketType::Noop) {
                    // A noop only frees a waiting poll; a client without one does not miss it.
                    if let Some(parked) = polling.parked.take() {
                        let _ = parked.reply.send(vec![packet]);
                    }
                    return;
                }
                polling.queue.push(smallvec![packet], now);
                self.settle_queue(key, before);
            }
            (Carrier::WebSocket(link), TransportKind::WebSocket) => {
                let mut frame = Vec::with_capacity(16);
                write_frame(&packet, version, base64, &mut frame);
                let outcome = link.queue.send(&link.stream, &frame, now);
                let after = link.queue.bytes();
                self.settle_write(key, before, after, outcome);
            }
            (Carrier::Polling(_), TransportKind::WebSocket) => {
                let mut frame = Vec::with_capacity(16);
                write_frame(&packet, version, base64, &mut frame);
                if let Some(link) = session.candidate.as_deref_mut() {
                    match link.queue.send(&link.stream, &frame, now) {
                        Ok(Written::All) => {}
                        Ok(Written::Rest) => link.wake(),
                        Err(_) => self.candidate_lost(key),
                    }
                }
            }
            (Carrier::WebSocket(_) | Carrier::Gone, _) => {}
        }
    }

    /// Reads what sending to a session will need, and returns some of it, so that its memory is at hand.
    pub(crate) fn touch(&self, key: SessionKey) -> usize {
        self.get(key).map_or(0, |session| session.backlog(self.now).bytes + usize::from(session.has_ended()))
    }

    /// Asks the slow-consumer policy; `None` if the session is gone, `false` if the packet is not to be sent.
    pub(super) fn may_send(
        &mut self,
        key: SessionKey,
        packet_bytes: usize,
        volatile: bool,
    ) -> Option<(usize, bool)> {
        let (now, slow) = (self.now, self.settings.slow);
        let session = self.get(key)?;
        if session.ended {
            return None;
        }
        let backlog = session.backlog(now);
        match slow_consumer::decide(backlog, packet_bytes, volatile, &slow) {
            Verdict::Keep => Some((backlog.bytes, true)),
            Verdict::DropVolatile => {
                self.metrics.volatile_dropped.add(1);
                Some((backlog.bytes, false))
            }
            Verdict::Close => {
                self.close_slow(key);
                None
            }
        }
    }

    pub(super) fn close_slow(&mut self, key: SessionKey) {
        self.metrics.slow_consumers_closed.add(1);
        self.close(key, CloseReason::TransportError, Farewell::Discard(Some(CloseCode::TRY_AGAIN_LATER)));
    }

    /// Books a write and asks the link's task for help when the stream did not take everything.
    pub(super) fn settle_write(
        &mut self,
        key: SessionKey,
        before: usize,
        after: usize,
        outcome: io::Result<Written>,
    ) {
        match outcome {
            Ok(Written::All) if before == 0 => {}
            Ok(Written::All) => self.count_outbox(before, after),
            Ok(Written::Rest) => {
                self.count_outbox(before, after);
                if let Some(Session { carrier: Carrier::WebSocket(link), .. }) = self.get(key) {
                    link.wake();
                }
                self.backlog_grew(key, after);
            }
            Err(error) => {
                self.count_outbox(before, after);
                self.stream_failed(key, &error);
            }
        }
    }

    /// Books packets queued for polling and answers the parked poll with them.
    pub(super) fn settle_queue(&mut self, key: SessionKey, before: usize) {
        self.answer_parked(key);
        let now = self.now;
        let after = self.get(key).map(|session| session.backlog(now).bytes).unwrap_or_default();
        self.count_outbox(before, after);
        if after > 0 {
            self.backlog_grew(key, after);
        }
    }

    pub(super) fn answer_parked(&mut self, key: SessionKey) {
        let (now, packets_max) = (self.now, self.settings.poll_packets_max);
        let Some(session) = self.get_mut(key) else { return };
        let Carrier::Polling(polling) = &mut session.carrier else { return };
        if polling.queue.is_empty() {
            return;
        }
        if let Some(parked) = polling.parked.take() {
            // A reply that nobody waits for belongs to a client that has gone: its poll says so.
            let _ = parked.reply.send(polling.queue.take(packets_max, now));
        }
    }

    pub(super) fn backlog_grew(&mut self, key: SessionKey, bytes: usize) {
        if bytes > self.settings.slow.stalled_bytes_max {
            self.arm(key);
        }
        if self.outbox_bytes > self.settings.outbox_bytes_max {
            self.close_largest_outbox();
        }
    }

    /// The shard holds too much for slow clients: the one that holds most goes, be it a session that has ended and
    /// only waits for a poll.
    pub(super) fn close_largest_outbox(&mut self) {
        let now = self.now;
        let largest = self.slots.iter().max_by_key(|(_, session)| session.backlog(now).bytes);
        let Some((index, session)) = largest else { return };
        let (ended, bytes) = (session.ended, session.backlog(now).bytes);
        let Ok(index) = u32::try_from(index) else { return };
        let key = SessionKey { index, generation: session.generation };
        if ended {
            self.forget_farewell(key);
        } else if bytes > 0 {
            self.close_slow(key);
        }
    }

    pub(super) fn count_outbox(&mut self, before: usize, after: usize) {
        self.outbox_bytes = (self.outbox_bytes + after).saturating_sub(before);
        self.metrics.outbox_bytes.set(self.outbox_bytes as u64);
    }

    /// Writes what waits on a link. `None` when the link is gone; otherwise whether something still waits.
    pub(crate) fn flush_link(&mut self, key: SessionKey, id: LinkId) -> Option<Written> {
        let now = self.now;
        let link = self.link_mut(key, id)?;
        let before = link.queue.bytes();
        let outcome = link.queue.flush(&link.stream, now);
        let after = link.queue.bytes();
        let is_carrier = self.link_id(key) == Some(id);
        if is_carrier {
            self.count_outbox(before, after);
        }
        match outcome {
            Ok(written) => Some(written),
            Err(error) => {
                if is_carrier {
                    self.stream_failed(key, &error);
                } else {
                    self.candidate_lost(key);
                }
                None
            }
        }
    }

    pub(super) fn stream_failed(&mut self, key: SessionKey, _error: &io::Error) {
        self.close(key, CloseReason::TransportError, Farewell::None);
    }

    /// Queues the open packet, before anything else.
    pub(crate) fn send_open(&mut self, key: SessionKey, packet: &str) {
        let now = self.now;
        trace::frame(Direction::Out, key, "text", packet.as_bytes());
        let Some(session) = self.get_mut(key) else { return };
        match &mut session.carrier {
            Carrier::Polling(polling) => {
                polling
                    .queue
                    .push(smallvec![WirePacket::Text(Bytes::copy_from_slice(packet.as_bytes()))], now);
                let after = polling.queue.bytes();
                self.count_outbox(0, after);
            }
            Carrier::WebSocket(link) => {
                let mut frame = Vec::with_capacity(packet.len() + 4);
                encoder::write_frame(encoder::Opcode::Text, packet.as_bytes(), &mut frame);
                let outcome = link.queue.send(&link.stream, &frame, now);
                let after = link.queue.bytes();
                self.settle_write(key, 0, after, outcome);
            }
            Carrier::Gone => {}
        }
    }
}

fn trace_wire(key: SessionKey, wire: &Wire) {
    for packet in wire.packets() {
        trace::packet_out(key, packet);
    }
}
