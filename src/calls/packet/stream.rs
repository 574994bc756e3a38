//! One direction of a TCP connection: bytes in order (RFC 9293 section 3.4), and what they carry.
//!
//! Offsets in the stream are `i64`, so that comparisons need no care for the wrap of the sequence number.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::detect::{Detection, detect};
use super::framing::{FramedMessage, Framer};
use super::websocket::WebSocket;
use super::{PacketCounters, TcpFlags, TcpSegment};
use crate::calls::endpoint::PacketPlace;

/// Bytes that are kept after a hole before it is skipped: the usual receive window of a host without window scaling.
pub(super) const HOLE_BYTES_MAX: usize = 64 * 1024;
/// Pieces that are kept after a hole before it is skipped, so that tiny segments do not cost more memory than large ones.
const HOLE_PIECES_MAX: usize = 1024;
/// Largest distance from the expected sequence number. A segment farther away belongs to another connection. SIP
/// peers have small windows. Port numbers are reused without a SYN in the capture.
pub(super) const SEQUENCE_JUMP_MAX: u32 = 1024 * 1024;
/// Memory of a piece besides its bytes, rounded up.
const PIECE_BYTES: usize = 96;

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ConnectionKind {
    Sip,
    WebSocket,
}

/// Bytes after a hole.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Piece {
    bytes: Vec<u8>,
    /// Bytes after it that were not captured.
    missing_bytes: u32,
    place: PacketPlace,
}

/// Start of a stream whose kind is not known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Head {
    bytes: Vec<u8>,
    /// Lengths of the packets' parts of `bytes`.
    parts: Vec<(u32, PacketPlace)>,
}

/// Decoder of the bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Content {
    Undecided(Head),
    Sip(Framer),
    WebSocket(WebSocket),
}

/// Direction of a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stream {
    /// Sequence number of the SYN.
    initial: Option<u32>,
    /// Sequence number of the next byte. `None` before the first segment.
    next: Option<u32>,
    /// Offset of the next byte.
    position: i64,
    /// Pieces after the hole at `position`, by offset, without overlap.
    pending: BTreeMap<i64, Piece>,
    pending_bytes: usize,
    /// Time of the first segment after the hole.
    hole_since_ns: i64,
    /// Bytes before the next ones are missing.
    has_gap: bool,
    /// Offset of the FIN.
    end: Option<i64>,
    content: Content,
}

impl Stream {
    /// Makes the state of a new direction. `initial` is the sequence number of its SYN.
    pub(super) fn new(initial: Option<u32>) -> Stream {
        Stream {
            initial,
            next: initial.map(|sequence| sequence.wrapping_add(1)),
            position: 0,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            hole_since_ns: 0,
            has_gap: false,
            end: None,
            content: Content::Undecided(Head::default()),
        }
    }

    /// Bytes that it keeps. The allocations are at most twice as large.
    pub(super) fn memory(&self) -> usize {
        let content = match &self.content {
            Content::Undecided(head) => head.bytes.len() + head.parts.len() * size_of::<(u32, PacketPlace)>(),
            Content::Sip(framer) => framer.memory(),
            Content::WebSocket(websocket) => websocket.memory(),
        };
        content + self.pending_bytes + self.pending.len() * PIECE_BYTES
    }

    pub(super) fn has_initial(&self, sequence: u32) -> bool {
        self.initial == Some(sequence)
    }

    /// The FIN was reached.
    pub(super) fn is_ended(&self) -> bool {
        self.end.is_some_and(|end| self.position >= end)
    }

    /// Time since which bytes wait for a hole to be filled.
    pub(super) fn hole_since_ns(&self) -> Option<i64> {
        (!self.pending.is_empty()).then_some(self.hole_since_ns)
    }

    pub(super) fn kind(&self) -> Option<ConnectionKind> {
        match self.content {
            Content::Undecided(_) => None,
            Content::Sip(_) => Some(ConnectionKind::Sip),
            Content::WebSocket(_) => Some(ConnectionKind::WebSocket),
        }
    }

    /// Its kind may still become known: the last line may become a start line, or a hole may be filled.
    pub(super) fn is_promising(&self) -> bool {
        let has_head = matches!(&self.content, Content::Undecided(head) if !head.bytes.is_empty());
        has_head || !self.pending.is_empty()
    }

    pub(super) fn websocket(&self) -> Option<&WebSocket> {
        match &self.content {
            Content::WebSocket(websocket) => Some(websocket),
            _ => None,
        }
    }

    /// Adds a segment, and hands out the messages that are complete with it.
    pub(super) fn add(
        &mut self,
        place: PacketPlace,
        segment: &TcpSegment<'_>,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        let has_syn = segment.flags.contains(TcpFlags::SYN);
        let sequence = segment.sequence.wrapping_add(u32::from(has_syn));
        if !segment.payload.is_empty() || segment.is_cut() {
            self.add_bytes(place, sequence, segment, counters, output);
        }
        if segment.flags.contains(TcpFlags::FIN) {
            let bytes = (segment.payload.len() as u32).wrapping_add(segment.missing_bytes);
            let next = *self.next.get_or_insert(sequence);
            let distance = distance(next, sequence.wrapping_add(bytes));
            // Another one is that of an older connection.
            if (0..=i64::from(SEQUENCE_JUMP_MAX)).contains(&distance) {
                self.end = Some(self.position + distance);
            }
        }
        if self.is_ended() {
            self.finish(counters);
        }
    }

    fn add_bytes(
        &mut self,
        place: PacketPlace,
        sequence: u32,
        segment: &TcpSegment<'_>,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        let next = *self.next.get_or_insert(sequence);
        if distance(next, sequence).unsigned_abs() > u64::from(SEQUENCE_JUMP_MAX) {
            counters.tcp_sequence_jumps += 1;
            self.flush(place.time_ns, counters, output);
            self.next = Some(sequence);
            self.end = None;
            self.note_gap(counters);
        }
        let start = self.position + distance(self.next.unwrap_or(sequence), sequence);
        let end = start + segment.payload.len() as i64;
        if end + i64::from(segment.missing_bytes) <= self.position {
            counters.tcp_segments_repeated += 1;
        } else if start <= self.position && self.pending.is_empty() {
            // The usual case: nothing is copied.
            let known = usize::try_from(self.position - start).unwrap_or(usize::MAX);
            let bytes = segment.payload.get(known..).unwrap_or_default();
            self.deliver(bytes, place, counters, output);
            self.skip_missing(end + i64::from(segment.missing_bytes) - self.position, counters);
        } else {
            counters.tcp_segments_reordered += u64::from(start > self.position);
            self.keep(start, segment, place);
            if start <= self.position {
                self.deliver_pending(counters, output);
                // What is still kept waits for another hole.
                self.hole_since_ns = place.time_ns;
            }
            self.skip_full_holes(place.time_ns, counters, output);
        }
    }

    /// Keeps those bytes of a segment that did not arrive before.
    fn keep(&mut self, start: i64, segment: &TcpSegment<'_>, place: PacketPlace) {
        let end = start + segment.payload.len() as i64;
        let before =
            self.pending.range(..=start).next_back().map(|(at, piece)| *at + piece.bytes.len() as i64);
        let mut from = start.max(self.position).max(before.unwrap_or(start));
        if self.pending.is_empty() {
            self.hole_since_ns = place.time_ns;
        }
        while from < end {
            let next =
                self.pending.range(from..).next().map(|(at, piece)| (*at, *at + piece.bytes.len() as i64));
            let to = next.map_or(end, |(at, _)| at.min(end));
            if from < to {
                let range = (from - start) as usize..(to - start) as usize;
                let bytes = segment.payload.get(range).unwrap_or_default().to_vec();
                self.pending_bytes += bytes.len();
                let missing_bytes = if to == end { segment.missing_bytes } else { 0 };
                self.pending.insert(from, Piece { bytes, missing_bytes, place });
            }
            match next {
                Some((_, after)) => from = after,
                None => break,
            }
        }
    }

    /// Delivers the kept pieces up to the next hole.
    fn deliver_pending(&mut self, counters: &mut PacketCounters, output: &mut impl FnMut(FramedMessage<'_>)) {
        while let Some(entry) = self.pending.first_entry().filter(|entry| *entry.key() <= self.position) {
            let piece = entry.remove();
            self.pending_bytes -= piece.bytes.len();
            self.deliver(&piece.bytes, piece.place, counters, output);
            let next = self.pending.keys().next().map_or(i64::MAX, |at| at - self.position);
            self.skip_missing(next.min(i64::from(piece.missing_bytes)), counters);
        }
    }

    /// Skips holes as long as more is kept than the limits allow.
    fn skip_full_holes(
        &mut self,
        now_ns: i64,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        while self.pending_bytes >= HOLE_BYTES_MAX || self.pending.len() >= HOLE_PIECES_MAX {
            self.skip_hole(now_ns, counters, output);
        }
    }

    /// Gives up the bytes before the first kept piece.
    pub(super) fn skip_hole(
        &mut self,
        now_ns: i64,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        if let Some(at) = self.pending.keys().next() {
            self.skip_missing(at - self.position, counters);
            self.deliver_pending(counters, output);
            self.hole_since_ns = now_ns;
        }
    }

    /// Delivers everything that is kept.
    fn flush(
        &mut self,
        now_ns: i64,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        while !self.pending.is_empty() {
            self.skip_hole(now_ns, counters, output);
        }
    }

    /// Ends the stream where it is.
    pub(super) fn reset(
        &mut self,
        now_ns: i64,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        self.flush(now_ns, counters, output);
        self.finish(counters);
        self.end = Some(self.position);
    }

    /// Drops an incomplete message: nothing follows.
    fn finish(&mut self, counters: &mut PacketCounters) {
        match &mut self.content {
            Content::Undecided(head) => *head = Head::default(),
            Content::Sip(framer) => framer.finish(counters),
            Content::WebSocket(websocket) => websocket.finish(counters),
        }
    }

    fn advance(&mut self, bytes: i64) {
        self.position = self.position.saturating_add(bytes);
        // The sequence number is the offset modulo 2^32.
        self.next = self.next.map(|next| next.wrapping_add(bytes as u32));
    }

    fn skip_missing(&mut self, bytes: i64, counters: &mut PacketCounters) {
        if bytes > 0 {
            counters.tcp_holes += 1;
            self.advance(bytes);
            self.note_gap(counters);
        }
    }

    fn note_gap(&mut self, counters: &mut PacketCounters) {
        self.has_gap = true;
        match &mut self.content {
            Content::Undecided(head) => *head = Head::default(),
            Content::Sip(framer) => framer.gap(counters),
            Content::WebSocket(websocket) => websocket.gap(counters),
        }
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        place: PacketPlace,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        if self.is_ended() && !bytes.is_empty() {
            self.end = None;
        }
        self.advance(bytes.len() as i64);
        match &mut self.content {
            Content::Undecided(_) => self.decide(bytes, place, counters, output),
            content => content.push(bytes, place, counters, output),
        }
    }

    /// Looks for SIP or WebSocket in the head of the stream.
    fn decide(
        &mut self,
        bytes: &[u8],
        place: PacketPlace,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        let Content::Undecided(head) = &mut self.content else { return };
        head.bytes.extend_from_slice(bytes);
        head.parts.push((bytes.len() as u32, place));
        match detect(&head.bytes) {
            Detection::Sip => self.become_kind(ConnectionKind::Sip, counters, output),
            Detection::WebSocket => self.become_kind(ConnectionKind::WebSocket, counters, output),
            Detection::Incomplete(from) => head.keep_from(from),
            Detection::Neither => *head = Head::default(),
        }
    }

    /// Decodes the stream as this kind from now on, if its kind is not known.
    pub(super) fn become_kind(
        &mut self,
        kind: ConnectionKind,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        let Content::Undecided(head) = &mut self.content else { return };
        let head = std::mem::take(head);
        self.content = match kind {
            ConnectionKind::Sip => Content::Sip(Framer::default()),
            ConnectionKind::WebSocket => Content::WebSocket(WebSocket::default()),
        };
        if let Content::Sip(framer) = &mut self.content {
            match self.initial {
                _ if self.has_gap => framer.gap(counters),
                Some(_) => framer.start_with_line(),
                None => {}
            }
        }
        let mut rest = head.bytes.as_slice();
        for (bytes, place) in head.parts {
            let (part, after) = rest.split_at_checked(bytes as usize).unwrap_or((rest, &[]));
            self.content.push(part, place, counters, output);
            rest = after;
        }
    }
}

impl Content {
    fn push(
        &mut self,
        bytes: &[u8],
        place: PacketPlace,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        match self {
            Content::Undecided(_) => {}
            Content::Sip(framer) => framer.push(bytes, place, counters, output),
            Content::WebSocket(websocket) => websocket.push(bytes, place, counters, output),
        }
    }
}

impl Head {
    /// Drops the bytes before `from`.
    fn keep_from(&mut self, from: usize) {
        self.bytes.drain(..from.min(self.bytes.len()));
        let mut before = from;
        self.parts.retain_mut(|(bytes, _)| {
            let dropped = before.min(*bytes as usize);
            before -= dropped;
            *bytes -= dropped as u32;
            *bytes > 0
        });
    }
}

/// Signed distance between two sequence numbers (RFC 9293 section 3.4).
fn distance(from: u32, to: u32) -> i64 {
    i64::from(to.wrapping_sub(from) as i32)
}
