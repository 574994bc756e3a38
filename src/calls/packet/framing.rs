//! Cuts SIP messages out of a byte stream (RFC 3261 section 18.3), whatever the packets were that brought the bytes.

use memchr::memchr;
use serde::{Deserialize, Serialize};

use super::header_lines::headers;
use super::start_line::{StartLine, after_line_ends, has_registered_start, start_line};
use super::{PacketCounters, StreamTransport};
use crate::calls::endpoint::PacketPlace;

/// Longest SIP message of a stream. A UDP datagram has at most 64 KiB; bodies with pictures or many headers of recording
/// (SIPREC) stay below this.
pub(super) const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Longest start line of a stream. Lines without end are binary data, and are given up early.
const START_LINE_BYTES_MAX: usize = 8 * 1024;

/// First and last packet of some bytes, by their offsets in the capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Places {
    pub first: PacketPlace,
    pub last: PacketPlace,
}

impl Places {
    pub(super) fn of(place: PacketPlace) -> Places {
        Places { first: place, last: place }
    }

    /// Includes another packet. Streams are not in the order of the capture if segments were reordered.
    pub(super) fn with(self, place: PacketPlace) -> Places {
        Places {
            first: if place.offset < self.first.offset { place } else { self.first },
            last: if place.offset > self.last.offset { place } else { self.last },
        }
    }
}

/// SIP message of a stream.
pub(super) struct FramedMessage<'a> {
    pub transport: StreamTransport,
    pub bytes: &'a [u8],
    pub places: Places,
    /// Bytes before it are missing.
    pub gap_before: bool,
}

/// Position in the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    /// Before a start line, with keep-alives.
    StartLine,
    /// Inside a line that belongs to no message.
    JunkLine,
    /// In the headers. Lines before `line` are complete and not blank; there is no LF in `line..searched`.
    Headers { line: usize, searched: usize },
    /// In the body of a message of `total` bytes.
    Body { total: usize },
}

/// Progress on the bytes at the start of a slice.
enum Progress {
    Skip(usize),
    Message(usize),
    NeedMore,
}

/// Framer of one direction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Framer {
    /// Bytes from the start of an incomplete message.
    buffer: Vec<u8>,
    /// Packets of `buffer`.
    places: Option<Places>,
    step: Step,
    /// The last thing was not a message, so that more junk is not counted as another loss of synchronisation.
    is_in_junk: bool,
    /// The stream goes on in the middle of a line, maybe: it was picked up, or bytes are missing.
    may_be_in_line: bool,
    gap_before: bool,
}

impl Default for Framer {
    fn default() -> Framer {
        Framer {
            buffer: Vec::new(),
            places: None,
            step: Step::StartLine,
            // A stream may be picked up in the middle of a message.
            is_in_junk: true,
            may_be_in_line: true,
            gap_before: false,
        }
    }
}

impl Framer {
    /// Bytes that it keeps.
    pub(super) fn memory(&self) -> usize {
        self.buffer.len()
    }

    /// Adds the next bytes of the stream, and hands out the messages that are complete.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        place: PacketPlace,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        let Some(places) = self.places.filter(|_| !self.buffer.is_empty()) else {
            // Nothing is copied of messages that are whole in their packet.
            let consumed = self.cut(bytes, 0, Places::of(place), place, counters, output);
            self.buffer = bytes.get(consumed..).unwrap_or_default().to_vec();
            self.places = Some(Places::of(place));
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let buffered = buffer.len();
        buffer.extend_from_slice(bytes);
        let places = places.with(place);
        let consumed = self.cut(&buffer, buffered, places, place, counters, output);
        self.places = Some(if consumed >= buffered { Places::of(place) } else { places });
        buffer.drain(..consumed);
        if buffer.is_empty() {
            buffer = Vec::new();
        }
        self.buffer = buffer;
    }

    /// Takes note that the stream begins with a line, because its SYN was captured.
    pub(super) fn start_with_line(&mut self) {
        self.may_be_in_line = false;
    }

    /// Takes note of missing bytes.
    pub(super) fn gap(&mut self, counters: &mut PacketCounters) {
        self.finish(counters);
        self.gap_before = true;
        self.is_in_junk = true;
        self.may_be_in_line = true;
    }

    /// Drops an incomplete message.
    pub(super) fn finish(&mut self, counters: &mut PacketCounters) {
        match self.step {
            Step::Headers { .. } | Step::Body { .. } => counters.sip_messages_incomplete += 1,
            Step::StartLine | Step::JunkLine => counters.stream_junk_bytes += self.buffer.len() as u64,
        }
        self.buffer = Vec::new();
        self.step = Step::StartLine;
    }

    /// Cuts all complete messages from `data`, and returns the number of bytes that are done with. `places` are the packets
    /// of a message that starts in the first `buffered` bytes, `place` is the packet of what follows.
    fn cut(
        &mut self,
        data: &[u8],
        buffered: usize,
        places: Places,
        place: PacketPlace,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) -> usize {
        let mut at = 0;
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            match self.step(rest, counters) {
                Progress::Skip(bytes) => at += bytes,
                Progress::Message(bytes) => {
                    counters.sip_stream_messages += 1;
                    output(FramedMessage {
                        transport: StreamTransport::Tcp,
                        bytes: rest.get(..bytes).unwrap_or_default(),
                        places: if at < buffered { places } else { Places::of(place) },
                        gap_before: std::mem::take(&mut self.gap_before),
                    });
                    at += bytes;
                }
                Progress::NeedMore => break,
            }
        }
        at.min(data.len())
    }

    /// Goes on with `data`, which starts where the message or the junk does, and is not empty.
    fn step(&mut self, data: &[u8], counters: &mut PacketCounters) -> Progress {
        match self.step {
            Step::StartLine => self.find_start_line(data, counters),
            Step::JunkLine => {
                let junk = match memchr(b'\n', data) {
                    Some(lf) => {
                        self.may_be_in_line = false;
                        self.step = Step::StartLine;
                        lf + 1
                    }
                    None => data.len(),
                };
                counters.stream_junk_bytes += junk as u64;
                Progress::Skip(junk)
            }
            Step::Headers { line, searched } => self.find_end_of_headers(data, line, searched, counters),
            Step::Body { total } if data.len() >= total => {
                self.step = Step::StartLine;
                Progress::Message(total)
            }
            Step::Body { .. } => Progress::NeedMore,
        }
    }

    fn find_start_line(&mut self, data: &[u8], counters: &mut PacketCounters) -> Progress {
        let line_ends = data.len() - after_line_ends(data).len();
        if line_ends > 0 {
            counters.stream_keep_alive_bytes += line_ends as u64;
            self.may_be_in_line &= memchr(b'\n', data.get(..line_ends).unwrap_or_default()).is_none();
            return Progress::Skip(line_ends);
        }
        match start_line(data) {
            // The rest of a method would look like a method.
            StartLine::Yes if !self.may_be_in_line || has_registered_start(data) => {
                self.may_be_in_line = false;
                let line = memchr(b'\n', data).map_or(data.len(), |lf| lf + 1);
                self.step = Step::Headers { line, searched: line };
                self.is_in_junk = false;
                self.step(data, counters)
            }
            StartLine::Incomplete if data.len() <= START_LINE_BYTES_MAX => Progress::NeedMore,
            StartLine::Yes | StartLine::Incomplete | StartLine::No => {
                counters.stream_resynchronisations += u64::from(!self.is_in_junk);
                self.is_in_junk = true;
                self.step = Step::JunkLine;
                self.step(data, counters)
            }
        }
    }

    fn find_end_of_headers(
        &mut self,
        data: &[u8],
        mut line: usize,
        mut searched: usize,
        counters: &mut PacketCounters,
    ) -> Progress {
        while let Some(lf) = memchr(b'\n', data.get(searched..).unwrap_or_default()) {
            let end = searched + lf + 1;
            if matches!(data.get(line..end), Some(b"\r\n" | b"\n")) {
                return self.start_body(data, end, counters);
            }
            (line, searched) = (end, end);
        }
        if data.len() > MESSAGE_BYTES_MAX {
            return self.give_up(data.len(), counters);
        }
        self.step = Step::Headers { line, searched: data.len() };
        Progress::NeedMore
    }

    /// Reads Content-Length. A stream without it has no other end of the message, so that it means 0.
    fn start_body(&mut self, data: &[u8], head_bytes: usize, counters: &mut PacketCounters) -> Progress {
        let body_bytes = match content_length(data.get(..head_bytes).unwrap_or_default()) {
            ContentLength::Bytes(bytes) => bytes,
            ContentLength::Missing => {
                counters.content_length_missing += 1;
                0
            }
            ContentLength::Malformed => {
                counters.content_length_malformed += 1;
                0
            }
        };
        let total = head_bytes.saturating_add(body_bytes);
        if total > MESSAGE_BYTES_MAX {
            return self.give_up(head_bytes, counters);
        }
        self.step = Step::Body { total };
        self.step(data, counters)
    }

    /// Skips a message that is too long, and looks for the next start line. Its length is not believed: an attacker could
    /// hide everything that follows.
    fn give_up(&mut self, bytes: usize, counters: &mut PacketCounters) -> Progress {
        counters.sip_messages_over_limit += 1;
        counters.stream_junk_bytes += bytes as u64;
        self.is_in_junk = true;
        self.may_be_in_line = true;
        self.step = Step::StartLine;
        Progress::Skip(bytes)
    }
}

/// Value of Content-Length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentLength {
    Bytes(usize),
    Missing,
    Malformed,
}

/// Finds the first Content-Length (`l` in compact form, RFC 3261 section 20.14).
fn content_length(head: &[u8]) -> ContentLength {
    let value = headers(head)
        .find(|(name, _)| name.eq_ignore_ascii_case(b"l") || name.eq_ignore_ascii_case(b"content-length"));
    match value {
        None => ContentLength::Missing,
        Some((_, digits)) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            ContentLength::Bytes(digits.iter().fold(0, |bytes: usize, digit| {
                bytes.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
            }))
        }
        Some(_) => ContentLength::Malformed,
    }
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
