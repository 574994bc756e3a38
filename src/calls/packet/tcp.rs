//! Table of TCP connections that carry SIP or WebSocket.
//!
//! A connection is looked at from its first segment with payload. If its first segments show neither SIP nor WebSocket,
//! it is forgotten, and only a small table remembers that it is ignored.

use serde::{Deserialize, Serialize};

use super::framing::FramedMessage;
use super::lru_table::LruTable;
use super::start_line::after_line_ends;
use super::stream::{ConnectionKind, Stream};
use super::{PacketCounters, TcpFlags, TcpSegment};
use crate::calls::endpoint::{Endpoint, Flow, PacketPlace};

/// Most connections with SIP or WebSocket. Together with the undecided ones these are 4,096 directions. A proxy with more
/// SIP peers over TCP at the same time is rare.
const KNOWN_MAX: usize = 1536;
/// Most connections whose kind is not known. Three segments decide it.
const UNDECIDED_MAX: usize = 512;
/// Most bytes that all connections keep: reordered segments and incomplete messages.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Segments with payload after which a connection without SIP is ignored.
const SEGMENTS_WITHOUT_SIP_MAX: u8 = 3;
/// Most connections that are remembered to be ignored. One that is forgotten is looked at again, which is harmless.
const IGNORED_MAX: usize = 8192;
/// Most SYNs whose connection has sent no payload. They are apart from the connections, so that a SYN flood pushes out none.
const SYNS_MAX: usize = 4096;
/// Time after which a hole is skipped. Retransmissions take 0.2 to 3 s (RFC 6298).
const HOLE_NS_MAX: u64 = 5_000_000_000;

/// Transport of a SIP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum StreamTransport {
    Tcp,
    WebSocket,
}

/// Whole SIP message of a TCP or WebSocket stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamMessage<'a> {
    pub flow: Flow,
    pub transport: StreamTransport,
    pub bytes: &'a [u8],
    /// Packet with bytes of the message that is first in the capture.
    pub first_place: PacketPlace,
    /// Packet with bytes of the message that is last in the capture.
    pub place: PacketPlace,
    /// Bytes of the stream are missing between the message before and this one.
    pub gap_before: bool,
}

/// Both endpoints, the lower one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct ConnectionKey {
    low: Endpoint,
    high: Endpoint,
}

/// Sender of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Side {
    Low,
    High,
}

impl ConnectionKey {
    fn of(flow: Flow) -> (ConnectionKey, Side) {
        let Flow { source, destination } = flow;
        if source <= destination {
            (ConnectionKey { low: source, high: destination }, Side::Low)
        } else {
            (ConnectionKey { low: destination, high: source }, Side::High)
        }
    }

    fn flow(&self, side: Side) -> Flow {
        match side {
            Side::Low => Flow { source: self.low, destination: self.high },
            Side::High => Flow { source: self.high, destination: self.low },
        }
    }
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Low => Side::High,
            Side::High => Side::Low,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Connection {
    kind: Option<ConnectionKind>,
    /// Segments with payload while the kind is not known.
    segments: u8,
    low: Stream,
    high: Stream,
}

impl Connection {
    fn stream(&mut self, side: Side) -> &mut Stream {
        match side {
            Side::Low => &mut self.low,
            Side::High => &mut self.high,
        }
    }

    fn memory(&self) -> usize {
        self.low.memory() + self.high.memory()
    }

    fn is_ended(&self) -> bool {
        self.low.is_ended() && self.high.is_ended()
    }

    /// Neither SIP nor WebSocket started in the first segments, or no message of the WebSocket was SIP.
    fn is_without_sip(&self) -> bool {
        match self.kind {
            Some(ConnectionKind::Sip) => false,
            Some(ConnectionKind::WebSocket) => {
                let sides = [self.low.websocket(), self.high.websocket()];
                let mut sides = sides.into_iter().flatten();
                let has_sip = sides.clone().any(|side| side.has_sip());
                !has_sip && sides.any(|side| side.is_without_sip())
            }
            None => {
                self.is_ended()
                    || (self.segments >= SEGMENTS_WITHOUT_SIP_MAX
                        && !self.low.is_promising()
                        && !self.high.is_promising())
            }
        }
    }

    fn add(
        &mut self,
        key: &ConnectionKey,
        side: Side,
        place: PacketPlace,
        segment: &TcpSegment<'_>,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(StreamMessage<'_>),
    ) {
        let was_undecided = self.kind.is_none();
        self.stream(side).add(place, segment, counters, &mut with_flow(key.flow(side), output));
        self.settle_kind(key, counters, output);
        if segment.flags.contains(TcpFlags::RST) {
            self.reset(key, place.time_ns, counters, output);
        }
        // Keep-alives say nothing.
        if was_undecided && !after_line_ends(segment.payload).is_empty() {
            self.segments = self.segments.saturating_add(1);
        }
    }

    /// Lets both directions be what one of them turned out to be.
    fn settle_kind(
        &mut self,
        key: &ConnectionKey,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(StreamMessage<'_>),
    ) {
        if self.kind.is_some() {
            return;
        }
        self.kind = self.low.kind().or(self.high.kind());
        if let Some(kind) = self.kind {
            counters.tcp_connections += 1;
            for side in [Side::Low, Side::High] {
                self.stream(side).become_kind(kind, counters, &mut with_flow(key.flow(side), output));
            }
        }
    }

    /// Ends both directions. What is kept after holes is handed out.
    fn reset(
        &mut self,
        key: &ConnectionKey,
        now_ns: i64,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(StreamMessage<'_>),
    ) {
        for side in [Side::Low, Side::High] {
            self.stream(side).reset(now_ns, counters, &mut with_flow(key.flow(side), output));
        }
        self.settle_kind(key, counters, output);
    }

    /// Starts one direction anew.
    fn restart(
        &mut self,
        key: &ConnectionKey,
        side: Side,
        sequence: u32,
        now_ns: i64,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(StreamMessage<'_>),
    ) {
        let emit = &mut with_flow(key.flow(side), output);
        let kind = self.kind;
        let stream = self.stream(side);
        stream.reset(now_ns, counters, emit);
        *stream = Stream::new(Some(sequence));
        if let Some(kind) = kind {
            stream.become_kind(kind, counters, emit);
        }
    }
}

/// Adds the flow to each message.
fn with_flow(flow: Flow, output: &mut impl FnMut(StreamMessage<'_>)) -> impl FnMut(FramedMessage<'_>) {
    move |message| {
        output(StreamMessage {
            flow,
            transport: message.transport,
            bytes: message.bytes,
            first_place: message.places.first,
            place: message.places.last,
            gap_before: message.gap_before,
        });
    }
}

/// Table of connections.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Connections {
    /// Connections with SIP or WebSocket, in the order of their last segment.
    known: LruTable<ConnectionKey, Connection>,
    /// Connections whose kind is not known yet. They are apart, so that they push out none of the others.
    undecided: LruTable<ConnectionKey, Connection>,
    ignored: LruTable<ConnectionKey, ()>,
    /// Sequence numbers of SYNs.
    syns: LruTable<Flow, u32>,
    /// Streams with a hole, in the order in which the holes began.
    holes: LruTable<(ConnectionKey, Side), i64>,
    /// Memory of all streams.
    bytes: usize,
}

impl Connections {
    /// Adds a segment, and hands out the SIP messages that are complete with it. A message is also handed out if an older
    /// hole, maybe of another connection, is given up now.
    pub(crate) fn add(
        &mut self,
        place: PacketPlace,
        segment: &TcpSegment<'_>,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(StreamMessage<'_>),
    ) {
        self.skip_old_holes(place.time_ns, counters, output);
        let is_plain = segment.flags.0 & (TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0) == 0;
        if is_plain && segment.payload.is_empty() && !segment.is_cut() {
            return;
        }
        let (key, side) = ConnectionKey::of(segment.flow);
        if segment.flags.contains(TcpFlags::SYN) {
            self.start(&key, side, place, segment, counters, output);
        }
        if !self.find_or_open(&key, segment, counters) {
            return;
        }
        self.update(&key, |connection| connection.add(&key, side, place, segment, counters, output));
        self.note_holes(&key);
        self.sort_in(&key, place.time_ns, counters, output);
        self.drop_over_limit(place.time_ns, counters, output);
    }

    /// Hands out what is kept after holes. To be called at the end of a capture that will not grow.
    pub(crate) fn finish(
        &mut self,
        now_ns: i64,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(StreamMessage<'_>),
    ) {
        while let Some((key, _)) = self.known.oldest().or(self.undecided.oldest()) {
            let key = *key;
            self.close(&key, now_ns, counters, output);
        }
    }

    /// Makes the connection the newest of its table. Returns false if it is ignored, or does not exist and the segment has
    /// no payload.
    fn find_or_open(
        &mut self,
        key: &ConnectionKey,
        segment: &TcpSegment<'_>,
        counters: &mut PacketCounters,
    ) -> bool {
        if self.known.touch(key).is_some() || self.undecided.touch(key).is_some() {
            return true;
        }
        if segment.payload.is_empty() {
            return false;
        }
        if self.ignored.touch(key).is_some() {
            counters.tcp_segments_ignored += 1;
            return false;
        }
        let low = Stream::new(self.syns.remove(&key.flow(Side::Low)));
        let high = Stream::new(self.syns.remove(&key.flow(Side::High)));
        self.undecided.insert(*key, Connection { kind: None, segments: 0, low, high });
        true
    }

    /// Takes note of a SYN. It ends an older connection between the same ports, but not if it is a copy.
    fn start(
        &mut self,
        key: &ConnectionKey,
        side: Side,
        place: PacketPlace,
        segment: &TcpSegment<'_>,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(StreamMessage<'_>),
    ) {
        let sequence = segment.sequence;
        let is_copy = self.connection(key).map(|connection| connection.stream(side).has_initial(sequence));
        match is_copy {
            Some(true) => return,
            Some(false) if segment.flags.contains(TcpFlags::ACK) => {
                let now_ns = place.time_ns;
                self.update(key, |connection| {
                    connection.restart(key, side, sequence, now_ns, counters, output);
                });
                self.note_holes(key);
                return;
            }
            Some(false) => self.close(key, place.time_ns, counters, output),
            None => {}
        }
        self.ignored.remove(key);
        if !segment.flags.contains(TcpFlags::ACK) {
            self.syns.remove(&key.flow(side.other()));
        }
        self.syns.insert(key.flow(side), sequence);
        if self.syns.len() > SYNS_MAX {
            self.syns.remove_oldest();
        }
    }

    /// Moves the connection to the table where it belongs now.
    fn sort_in(
        &mut self,
        key: &ConnectionKey,
        now_ns: i64,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(StreamMessage<'_>),
    ) {
        let Some(connection) = self.connection(key) else { return };
        if connection.is_without_sip() {
            // After its end, another connection may have the same ports.
            let is_ended = connection.is_ended();
            self.close(key, now_ns, counters, output);
            if !is_ended {
                counters.tcp_connections_ignored += 1;
                self.ignored.insert(*key, ());
            }
            if self.ignored.len() > IGNORED_MAX {
                self.ignored.remove_oldest();
            }
        } else if connection.kind.is_some()
            && let Some(connection) = self.undecided.remove(key)
        {
            self.known.insert(*key, connection);
        }
    }

    fn skip_old_holes(
        &mut self,
        now_ns: i64,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(StreamMessage<'_>),
    ) {
        while let Some((&(key, side), since_ns)) = self.holes.oldest() {
            // Times of a capture step back too.
            if since_ns.abs_diff(now_ns) <= HOLE_NS_MAX {
                return;
            }
            self.holes.remove(&(key, side));
            self.update(&key, |connection| {
                let mut emit = with_flow(key.flow(side), output);
                connection.stream(side).skip_hole(now_ns, counters, &mut emit);
                drop(emit);
                connection.settle_kind(&key, counters, output);
            });
            self.note_holes(&key);
            self.sort_in(&key, now_ns, counters, output);
        }
    }

    /// Keeps the list of holes up to date.
    fn note_holes(&mut self, key: &ConnectionKey) {
        for side in [Side::Low, Side::High] {
            let since_ns =
                self.connection(key).and_then(|connection| connection.stream(side).hole_since_ns());
            let hole = (*key, side);
            match since_ns {
                Some(since_ns) if self.holes.get_mut(&hole).copied() != Some(since_ns) => {
                    self.holes.insert(hole, since_ns);
                }
                Some(_) => {}
                None => {
                    self.holes.remove(&hole);
                }
            }
        }
    }

    fn drop_over_limit(
        &mut self,
        now_ns: i64,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(StreamMessage<'_>),
    ) {
        while self.undecided.len() > UNDECIDED_MAX {
            let Some((key, _)) = self.undecided.oldest() else { return };
            let key = *key;
            counters.tcp_connections_forgotten += 1;
            self.close(&key, now_ns, counters, output);
        }
        loop {
            // Undecided connections must not push out the others by their size either.
            let oldest = match (self.known.len() > KNOWN_MAX, self.bytes > BYTES_MAX) {
                (true, _) => self.known.oldest(),
                (false, true) => self.undecided.oldest().or(self.known.oldest()),
                (false, false) => None,
            };
            let Some((key, connection)) = oldest else { return };
            let key = *key;
            counters.tcp_connections_over_limit += u64::from(!connection.is_ended());
            self.close(&key, now_ns, counters, output);
        }
    }

    /// Hands out what the connection keeps, and removes it.
    fn close(
        &mut self,
        key: &ConnectionKey,
        now_ns: i64,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(StreamMessage<'_>),
    ) {
        self.update(key, |connection| connection.reset(key, now_ns, counters, output));
        for side in [Side::Low, Side::High] {
            self.holes.remove(&(*key, side));
        }
        if let Some(connection) = self.known.remove(key).or_else(|| self.undecided.remove(key)) {
            self.bytes = self.bytes.saturating_sub(connection.memory());
        }
    }

    fn connection(&mut self, key: &ConnectionKey) -> Option<&mut Connection> {
        match self.known.get_mut(key) {
            Some(connection) => Some(connection),
            None => self.undecided.get_mut(key),
        }
    }

    /// Changes a connection, and the sum of memory with it.
    fn update(&mut self, key: &ConnectionKey, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.connection(key) {
            let before = connection.memory();
            change(connection);
            let after = connection.memory();
            self.bytes = (self.bytes + after).saturating_sub(before);
        }
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
