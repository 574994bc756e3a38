//! Tracks the packets of a stream as its bytes arrive, without copying them and for any split.
//!
//! The thread that receives a stream runs the tracker on each chunk before the chunk goes to the writer. Headers that
//! are split over chunks are collected in a small fixed array. Everything else is only counted. Packets that are
//! complete within a chunk take the parser's fast path, which goes from length to length.
//!
//! Invariants: the tracker's state does not depend on how the bytes were split. `packet_boundary() <= received()`, and
//! neither ever decreases.

use serde::{Deserialize, Serialize};

use super::damage::{Damage, DamageKind};
use super::formats::{self, CaptureFormat, Detection, Parser, with_parser};
use super::parser::{Header, PacketCounts, PacketParser, Parsed, STEP_BYTES_MAX};
use super::summary::CaptureSummary;

/// A complete packet: its record is the bytes `start..end` of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Start of its record (in pcapng: of its block).
    pub start: u64,
    pub end: u64,
    /// Capture time in nanoseconds since 1970, if known.
    pub time_ns: Option<i64>,
}

/// Parser position in a stream, at any byte. It is small, and checkpoints store it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PacketTracker {
    position: Position,
    state: State,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
enum State {
    /// The format is not known yet.
    #[default]
    Detecting,
    Tracking(Parser),
    NotCapture,
}

/// What the tracker knows independently of the format.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Position {
    received: u64,
    /// End of the last complete unit.
    boundary: u64,
    /// Bytes to skip before the next header.
    skip: u32,
    header: Header,
    header_bytes: u8,
    malformed_at: Option<u64>,
    counts: PacketCounts,
}

impl PacketTracker {
    pub fn new() -> PacketTracker {
        PacketTracker::default()
    }

    /// Processes the next bytes of the stream, any number of them.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        let PacketTracker { position, state } = self;
        loop {
            match state {
                State::Tracking(parser) if position.malformed_at.is_none() => {
                    with_parser!(parser, parser => position.track(parser, &mut bytes));
                    if position.malformed_at.is_none() {
                        return;
                    }
                }
                State::Detecting => {
                    if !position.fill_header(position.decision_bytes(), &mut bytes) {
                        return;
                    }
                    *state = position.detect_format();
                }
                State::Tracking(_) | State::NotCapture => {
                    position.received += bytes.len() as u64;
                    return;
                }
            }
        }
    }

    /// Skips to the next header and returns the position and number of its missing bytes, for callers that
    /// read headers only. `None`: no further packets can be found. The position may lie after the end of the
    /// stream.
    pub(super) fn next_header(&mut self) -> Option<(u64, usize)> {
        if self.is_opaque() {
            return None;
        }
        let step_bytes = self.step_bytes();
        let position = &mut self.position;
        position.received += u64::from(std::mem::take(&mut position.skip));
        Some((position.received, step_bytes - usize::from(position.header_bytes)))
    }

    /// Copies the tracker to another position of the stream, as if the bytes in between were not there. It must be
    /// between two units.
    pub(super) fn moved_to(&self, at: u64) -> PacketTracker {
        let mut moved = self.clone();
        let position = &mut moved.position;
        (position.received, position.boundary) = (at, at);
        (position.skip, position.header_bytes, position.malformed_at) = (0, 0, None);
        moved
    }

    /// End of the last complete unit, even if a malformed one follows.
    pub(super) fn units_end(&self) -> u64 {
        self.position.malformed_at.unwrap_or(self.position.boundary)
    }

    /// Processes the bytes that [`next_header`](Self::next_header) asked for. Returns the packet that ends
    /// there, if one does.
    pub(super) fn feed_header(&mut self, mut bytes: &[u8]) -> Option<Packet> {
        if !self.position.fill_header(self.step_bytes(), &mut bytes) {
            return None;
        }
        match &mut self.state {
            State::Tracking(parser) => with_parser!(parser, parser => self.position.step(parser)),
            State::Detecting | State::NotCapture => {
                self.state = self.position.detect_format();
                None
            }
        }
    }

    /// Number of bytes processed.
    pub fn received(&self) -> u64 {
        self.position.received
    }

    /// Number of bytes that readers may see: the end of the last complete packet, block or file header. If
    /// the stream is not a capture or is malformed, all bytes. Never decreases, never exceeds `received`. It
    /// is 0 until the format is known.
    pub fn packet_boundary(&self) -> u64 {
        if self.is_opaque() { self.position.received } else { self.position.boundary }
    }

    /// Returns false for a deserialized tracker that no input leads to, as far as continuing with it could do
    /// harm.
    pub fn is_consistent(&self) -> bool {
        let position = &self.position;
        let header_bytes = usize::from(position.header_bytes);
        if header_bytes > STEP_BYTES_MAX {
            return false;
        }
        let header_fits = match self.state {
            _ if self.is_opaque() => true,
            _ if position.skip > 0 => header_bytes == 0,
            _ => header_bytes < self.step_bytes(),
        };
        let parser_fits = match &self.state {
            State::Tracking(parser) => with_parser!(parser, parser => parser.is_consistent()),
            State::Detecting | State::NotCapture => position.malformed_at.is_none(),
        };
        header_fits
            && parser_fits
            && position.received <= STREAM_BYTES_MAX
            && position.boundary <= position.received
            && position.malformed_at.is_none_or(|from| from <= position.received)
            && position.counts.packets <= position.received / 16
    }

    /// Number of complete packets.
    pub fn packets(&self) -> u64 {
        self.position.counts.packets
    }

    /// Summary of the stream, as if it ended here.
    pub fn summary(&self) -> CaptureSummary {
        let (format, link_type) = match &self.state {
            State::Detecting => (CaptureFormat::Unknown, None),
            State::Tracking(parser) => (parser.format(), parser.link_type()),
            State::NotCapture => (CaptureFormat::Other, None),
        };
        CaptureSummary {
            format,
            link_type,
            packets: self.position.counts.packets,
            first_packet_ns: self.position.counts.first_ns,
            last_packet_ns: self.position.counts.last_ns,
            truncated_bytes: self.position.received - self.packet_boundary(),
            malformed_at: self.position.malformed_at,
            damage: self.damage().into_iter().collect(),
            damage_omitted: 0,
        }
    }

    /// What is wrong with the stream, if it ended here.
    fn damage(&self) -> Option<Damage> {
        let Position { received, boundary, malformed_at, counts, .. } = &self.position;
        let (kind, offset, detail) = match malformed_at {
            Some(offset) => {
                (DamageKind::Malformed, *offset, "no packet or block can start with these bytes".to_owned())
            }
            None if self.packet_boundary() < *received => {
                let bytes = received - boundary;
                (DamageKind::Truncated, *boundary, format!("the content ends after {bytes} bytes of a unit"))
            }
            None => return None,
        };
        Some(Damage { kind, offset, packets_before: counts.packets, detail })
    }

    /// Reports whether all further bytes are plain bytes.
    fn is_opaque(&self) -> bool {
        self.position.malformed_at.is_some() || matches!(self.state, State::NotCapture)
    }

    /// Number of header bytes needed for the next step.
    fn step_bytes(&self) -> usize {
        match &self.state {
            State::Tracking(parser) => with_parser!(parser, parser => parser.step_bytes()),
            State::Detecting => self.position.decision_bytes(),
            // A stream that is not a capture has no steps.
            State::NotCapture => 0,
        }
    }
}

impl Position {
    /// Tracks packets until the bytes are used up or malformed. There is one copy of this loop per format.
    #[inline]
    fn track(&mut self, parser: &mut impl PacketParser, bytes: &mut &[u8]) {
        loop {
            self.skip_payload(bytes);
            if self.header_bytes == 0 && self.skip == 0 {
                self.track_complete_packets(parser, bytes);
            }
            if !self.fill_header(parser.step_bytes(), bytes) {
                return;
            }
            self.step(parser);
            if self.malformed_at.is_some() {
                return;
            }
        }
    }

    /// Skips bytes that need not be parsed.
    #[inline]
    fn skip_payload(&mut self, bytes: &mut &[u8]) {
        let skipped = bytes.len().min(self.skip as usize);
        self.skip -= skipped as u32;
        self.received += skipped as u64;
        *bytes = &bytes[skipped..];
    }

    /// Takes the parser's fast path.
    #[inline]
    fn track_complete_packets(&mut self, parser: &mut impl PacketParser, bytes: &mut &[u8]) {
        let skipped = parser.count_complete_packets(bytes, &mut self.counts);
        if skipped > 0 {
            self.received += skipped as u64;
            self.boundary = self.received;
            *bytes = &bytes[skipped..];
        }
    }

    /// Collects header bytes up to `step_bytes`. Returns false if more are needed.
    #[inline]
    fn fill_header(&mut self, step_bytes: usize, bytes: &mut &[u8]) -> bool {
        if self.skip > 0 {
            return false;
        }
        let have = usize::from(self.header_bytes);
        let wanted = step_bytes - have;
        let added = wanted.min(bytes.len());
        self.header[have..have + added].copy_from_slice(&bytes[..added]);
        self.header_bytes += added as u8;
        self.received += added as u64;
        *bytes = &bytes[added..];
        added == wanted
    }

    /// Executes the step whose header is complete. Returns the packet that ends there, if one does.
    #[inline]
    fn step(&mut self, parser: &mut impl PacketParser) -> Option<Packet> {
        match parser.parse(&self.header) {
            Parsed::LongerHeader => {}
            Parsed::Header { skip } => (self.skip, self.header_bytes) = (skip, 0),
            Parsed::UnitEnd => self.end_unit(),
            Parsed::PacketEnd { time_ns } => return Some(self.end_packet(time_ns)),
            Parsed::Malformed => self.malformed_at = Some(self.boundary),
        }
        None
    }

    /// Number of bytes that decide the format, from the start of the stream.
    fn decision_bytes(&self) -> usize {
        formats::decision_bytes(&self.header[..usize::from(self.header_bytes)])
    }

    /// Detects the format. The bytes stay in the header: the parser's first step needs them.
    fn detect_format(&self) -> State {
        match formats::detect(&self.header[..usize::from(self.header_bytes)]) {
            Detection::Undecided => State::Detecting,
            Detection::Capture(parser) => State::Tracking(parser),
            Detection::NotCapture => State::NotCapture,
        }
    }

    /// Ends a unit: a packet, a block or a file header.
    #[inline]
    fn end_unit(&mut self) {
        self.boundary = self.received;
        self.header_bytes = 0;
    }

    #[inline]
    fn end_packet(&mut self, time_ns: Option<i64>) -> Packet {
        let start = self.boundary;
        self.counts.add(1, time_ns, time_ns);
        self.end_unit();
        Packet { start, end: self.boundary, time_ns }
    }
}

/// Larger than any stream. Counters have room above it.
const STREAM_BYTES_MAX: u64 = 1 << 62;

#[cfg(test)]
mod tests;
