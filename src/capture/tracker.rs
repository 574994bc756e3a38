//! Tracks the packets of a stream as its bytes arrive, without copying them and for any split.
//!
//! The thread that receives a stream runs the tracker on each chunk before the chunk goes to the writer. Headers that
//! are split over chunks are collected in a small fixed array. Everything else is only counted. Packets that are
//! complete within a chunk take the parser's fast path, which goes from length to length.
//!
//! Invariants: the tracker's state does not depend on how the bytes were split. `packet_boundary() <= received()`, and
//! neither ever decreases. The number of packets decreases only if the first records looked like ERF and are not.

use serde::{Deserialize, Serialize};

use super::compressed::CompressedContent;
use super::damage::{Damage, DamageKind, Finding, Findings};
use super::formats::{self, CaptureFormat, Detection, Parser, with_parser};
use super::parser::{Header, Notes, PacketCounts, PacketData, PacketParser, Parsed, STEP_BYTES_MAX};
use super::summary::CaptureSummary;

/// Maximum number of different link types listed.
const LINK_TYPES_MAX: usize = 64;

/// Packets after which the stream may be cut.
const CUT_PACKETS_MIN: u64 = 2;

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
    /// A decompressor has no state that could be stored: after a restart the file is read again.
    #[serde(skip)]
    Compressed(Box<CompressedContent>),
}

/// Reason why a parser does not parse the next unit.
enum Leave {
    Malformed,
    NotThisFormat,
    AppendedCapture,
}

/// Result of a step.
enum Stepped {
    Continue,
    Packet(Packet),
    Leave(Leave),
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
    link_types: Vec<u32>,
    findings: Findings,
    /// Whether the bytes were decompressed. Then they are not decompressed again.
    is_decompressed: bool,
    /// Whether parsing ends at the first unit that readers reject, as readers do.
    is_strict: bool,
    /// Whether only a magic number tells a format: in the middle of something, anything may look like a format without one.
    needs_magic: bool,
}

impl PacketTracker {
    pub fn new() -> PacketTracker {
        PacketTracker::default()
    }

    /// Creates the tracker of decompressed bytes.
    pub(super) fn of_decompressed() -> PacketTracker {
        let position = Position { is_decompressed: true, ..Position::default() };
        PacketTracker { position, state: State::Detecting }
    }

    /// Processes the next bytes of the stream, any number of them.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        loop {
            let PacketTracker { position, state } = self;
            match state {
                State::Tracking(parser) if position.malformed_at.is_none() => {
                    match with_parser!(parser, parser => position.track(parser, &mut bytes)) {
                        None => return,
                        Some(leave) => self.leave(leave),
                    }
                }
                State::Detecting => {
                    if !position.fill_header(position.decision_bytes(), &mut bytes) {
                        return;
                    }
                    *state = position.detect_format();
                }
                State::Compressed(content) => {
                    position.received += bytes.len() as u64;
                    content.feed(bytes);
                    return;
                }
                State::Tracking(_) | State::NotCapture => {
                    position.received += bytes.len() as u64;
                    return;
                }
            }
        }
    }

    /// Continues without the parser, which cannot parse the next unit.
    fn leave(&mut self, leave: Leave) {
        match leave {
            // The parser stays, because its format is still that of the stream.
            Leave::Malformed => {}
            Leave::NotThisFormat => {
                let Position { received, boundary, is_decompressed, is_strict, .. } = self.position;
                let kept = Position { received, boundary, is_decompressed, is_strict, ..Position::default() };
                self.position = kept;
                self.state = State::NotCapture;
            }
            // Its first bytes are in the header.
            Leave::AppendedCapture => self.state = State::Detecting,
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
        Some((position.received, step_bytes.saturating_sub(usize::from(position.header_bytes))))
    }

    /// Copies the tracker to another position of the stream, as if the bytes in between were not there. It must be
    /// between two units.
    pub(super) fn moved_to(&self, at: u64) -> PacketTracker {
        let mut moved = self.clone();
        let position = &mut moved.position;
        (position.received, position.boundary) = (at, at);
        (position.skip, position.header_bytes, position.malformed_at) = (0, 0, None);
        position.needs_magic = at > 0;
        if let State::Tracking(Parser::Pcap(parser)) = &mut moved.state {
            parser.keep_variant();
        }
        moved
    }

    /// Locates the bytes of a packet that the tracker has found last, in its record.
    #[inline]
    pub(super) fn packet_data(&self, record: &[u8]) -> Option<PacketData> {
        let State::Tracking(parser) = &self.state else { return None };
        with_parser!(parser, parser => parser.packet_data(record))
    }

    /// Ends parsing at the first unit that readers reject.
    pub(super) fn be_strict(&mut self) {
        self.position.is_strict = true;
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
        let stepped = match &mut self.state {
            State::Tracking(parser) => with_parser!(parser, parser => self.position.step(parser)),
            _ => {
                self.state = self.position.detect_format();
                return None;
            }
        };
        match stepped {
            Stepped::Continue => None,
            Stepped::Packet(packet) => Some(packet),
            Stepped::Leave(leave) => {
                self.leave(leave);
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
    /// is 0 while the bytes may be a capture.
    pub fn packet_boundary(&self) -> u64 {
        let Position { received, boundary, .. } = self.position;
        match &self.state {
            _ if self.is_opaque() => received,
            // Only a format without a magic number is still possible. Content of a few bytes need not wait for it.
            State::Detecting if self.is_nothing_yet() => received,
            State::Tracking(parser) if boundary == 0 && !parser.format().has_magic() => {
                received.min(formats::DECISION_BYTES_MAX as u64 - 1)
            }
            _ => boundary,
        }
    }

    /// Returns why the stream cannot be cut into captures that each start with its headers. `None`: it can be cut
    /// wherever [`is_at_cut`](Self::is_at_cut), or its format is not known yet.
    pub(crate) fn cut_obstacle(&self) -> Option<&'static str> {
        match &self.state {
            State::Detecting if self.position.counts.packets > 0 => Some("appended_capture"),
            State::Detecting => None,
            State::NotCapture => Some("not_a_capture"),
            State::Compressed(_) => Some("compressed"),
            State::Tracking(_) if self.position.malformed_at.is_some() => Some("malformed"),
            // Its header would be that of another capture.
            State::Tracking(_) if self.position.findings.may_have_appended() => Some("appended_capture"),
            State::Tracking(parser) => (!parser.can_be_cut()).then_some("format"),
        }
    }

    /// Reports whether a packet ends here. The first two tell apart the variants of pcap.
    pub(crate) fn is_at_cut(&self) -> bool {
        let position = &self.position;
        matches!(self.state, State::Tracking(_))
            && position.malformed_at.is_none()
            && position.boundary == position.received
            && position.counts.packets >= CUT_PACKETS_MIN
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
            State::Tracking(parser) => parser.is_consistent(),
            State::Detecting | State::NotCapture => position.malformed_at.is_none(),
            State::Compressed(_) => false,
        };
        header_fits
            && parser_fits
            && position.received <= STREAM_BYTES_MAX
            && position.boundary <= position.received
            && position.malformed_at.is_none_or(|from| from <= position.received)
            && position.counts.packets <= position.received / 16
            && position.counts.without_time <= position.counts.packets
            && position.link_types.len() <= LINK_TYPES_MAX
            && position.findings.is_consistent(position.received)
    }

    /// Number of complete packets.
    pub fn packets(&self) -> u64 {
        match &self.state {
            State::Compressed(content) => content.packets(),
            _ => self.position.counts.packets,
        }
    }

    /// Summary of the stream, as if it ended here.
    pub fn summary(&self) -> CaptureSummary {
        let (format, variant) = match &self.state {
            State::Compressed(content) => return content.summary(),
            State::Detecting if self.is_nothing_yet() => (CaptureFormat::Other, None),
            State::Detecting => (CaptureFormat::Unknown, None),
            State::Tracking(parser) => (parser.format(), parser.variant()),
            State::NotCapture => (CaptureFormat::Other, None),
        };
        let position = &self.position;
        let mut damage = position.findings.to_damage();
        damage.extend(self.truncation());
        CaptureSummary {
            format,
            variant,
            compression: None,
            link_types: position.link_types.clone(),
            packets: position.counts.packets,
            packets_without_time: position.counts.without_time,
            first_packet_ns: position.counts.earliest_ns,
            last_packet_ns: position.counts.latest_ns,
            truncated_bytes: self.truncated_bytes(),
            malformed_at: position.malformed_at,
            damage,
            damage_omitted: position.findings.omitted(),
            inspection_stopped: None,
        }
    }

    /// Reports whether bytes have arrived that are not the beginning of any magic number, although they are too few to
    /// rule out a format without one.
    fn is_nothing_yet(&self) -> bool {
        let header = &self.position.header[..usize::from(self.position.header_bytes)];
        !header.is_empty() && !formats::is_cut_magic(header)
    }

    /// Number of bytes of an incomplete unit, if the stream ended here.
    fn truncated_bytes(&self) -> u64 {
        match self.state {
            _ if self.is_opaque() => 0,
            State::Detecting if self.is_nothing_yet() => 0,
            _ => self.position.received - self.position.boundary,
        }
    }

    fn truncation(&self) -> Option<Damage> {
        let bytes = self.truncated_bytes();
        (bytes > 0).then(|| Damage {
            kind: DamageKind::Truncated,
            offset: self.position.boundary,
            decompressed: false,
            packets_before: self.position.counts.packets,
            detail: format!("the content ends {bytes} bytes after the start of a packet, block or header"),
        })
    }

    /// Reports whether all further bytes are plain bytes.
    fn is_opaque(&self) -> bool {
        self.position.malformed_at.is_some() || matches!(self.state, State::NotCapture | State::Compressed(_))
    }

    /// Number of header bytes needed for the next step.
    fn step_bytes(&self) -> usize {
        match &self.state {
            State::Tracking(parser) => with_parser!(parser, parser => parser.step_bytes()),
            State::Detecting => self.position.decision_bytes(),
            // A stream that is not a capture, or compressed, has no steps.
            State::NotCapture | State::Compressed(_) => 0,
        }
    }
}

impl Position {
    /// Tracks packets until the bytes are used up, or until the parser cannot parse the next unit. There is one copy of
    /// this loop per format.
    #[inline]
    fn track(&mut self, parser: &mut impl PacketParser, bytes: &mut &[u8]) -> Option<Leave> {
        loop {
            self.skip_payload(bytes);
            if self.header_bytes == 0 && self.skip == 0 {
                self.track_complete_packets(parser, bytes);
            }
            if !self.fill_header(parser.step_bytes(), bytes) {
                return None;
            }
            if let Stepped::Leave(leave) = self.step(parser) {
                return Some(leave);
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
        // An appended capture has more bytes in the header than its format needs.
        let wanted = step_bytes.saturating_sub(have);
        let added = wanted.min(bytes.len());
        self.header[have..have + added].copy_from_slice(&bytes[..added]);
        self.header_bytes += added as u8;
        self.received += added as u64;
        *bytes = &bytes[added..];
        added == wanted
    }

    /// Executes the step whose header is complete.
    #[inline]
    fn step(&mut self, parser: &mut impl PacketParser) -> Stepped {
        let mut notes = Notes::default();
        let parsed = parser.parse(&self.header, &mut notes);
        if self.is_strict && (notes.is_rejected() || parsed == Parsed::AppendedCapture) {
            self.malformed_at = Some(self.boundary);
            return Stepped::Leave(Leave::Malformed);
        }
        self.take_notes(notes);
        match parsed {
            Parsed::LongerHeader => {}
            Parsed::Header { skip } => (self.skip, self.header_bytes) = (skip, 0),
            Parsed::UnitEnd => self.end_unit(),
            Parsed::PacketEnd { time_ns } => return Stepped::Packet(self.end_packet(time_ns)),
            Parsed::Malformed(finding) => {
                self.malformed_at = Some(self.boundary);
                self.findings.add(self.boundary, self.counts.packets, finding);
                return Stepped::Leave(Leave::Malformed);
            }
            Parsed::AppendedCapture => {
                self.findings.add(self.boundary, self.counts.packets, Finding::Appended);
                return Stepped::Leave(Leave::AppendedCapture);
            }
            Parsed::NotThisFormat => return Stepped::Leave(Leave::NotThisFormat),
        }
        Stepped::Continue
    }

    #[inline]
    fn take_notes(&mut self, notes: Notes) {
        if let Some(finding) = notes.finding {
            self.findings.add(self.boundary, self.counts.packets, finding);
        }
        if let Some(link_type) = notes.link_type
            && !self.link_types.contains(&link_type)
            && self.link_types.len() < LINK_TYPES_MAX
        {
            self.link_types.push(link_type);
        }
    }

    /// Number of bytes that decide the format, from the start of the stream.
    fn decision_bytes(&self) -> usize {
        formats::decision_bytes(&self.header[..usize::from(self.header_bytes)])
    }

    /// Detects the format. The bytes stay in the header: the parser's first step needs them.
    fn detect_format(&self) -> State {
        match formats::detect(&self.header[..usize::from(self.header_bytes)]) {
            Detection::Capture(parser) if self.needs_magic && !parser.format().has_magic() => {
                State::NotCapture
            }
            Detection::Undecided => State::Detecting,
            Detection::Capture(parser) => State::Tracking(parser),
            Detection::Compressed(_) if self.is_decompressed => State::NotCapture,
            Detection::Compressed(compression) => {
                let mut content = CompressedContent::new(compression);
                content.feed(&self.header[..usize::from(self.header_bytes)]);
                State::Compressed(Box::new(content))
            }
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
        self.counts.add(time_ns);
        self.end_unit();
        Packet { start, end: self.boundary, time_ns }
    }
}

/// Larger than any stream. Counters have room above it.
const STREAM_BYTES_MAX: u64 = 1 << 62;

#[cfg(test)]
mod tests;
