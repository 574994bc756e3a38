//! Finds whole packets in a damaged capture, and captures that were appended to each other. Pure: the bytes come from a
//! [`ReadAt`].
//!
//! Packets are found by the receiver's own parsers. Where they stop, each following byte is tried as the start of a packet
//! of the same capture, or of another capture. It is one if the packets from there on can be read and their times are
//! near the last one. The packet before the damage is doubted too: if its length is wrong, it covers the next packets.
//!
//! Invariant: the parts that are reported cover the source in order and without a gap, whatever its bytes are.

use std::io;
use std::ops::Range;

use super::formats::{self, CaptureFormat, MagicMatch};
use super::reader::{PacketReader, ReadAt};
use super::tracker::Packet;

/// Number of packets that prove that a packet starts at a position, unless the source ends before.
const PROOF_PACKETS: usize = 3;

/// Packets of a capture are not further apart than this, unless the packet after a gap agrees with it.
const NEAR_NS: u64 = 24 * 3600 * 1_000_000_000;

/// Part of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourcePart {
    /// A capture starts here.
    Capture { at: u64, format: CaptureFormat },
    /// Bytes of the capture that are not a packet: its file header, or blocks.
    Header(Range<u64>),
    /// A whole packet of the capture.
    Packet(Packet),
    /// Bytes that are not part of a whole packet.
    Damaged { range: Range<u64>, reason: DamageReason },
}

/// Reason why bytes are not part of a whole packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageReason {
    /// No capture has started.
    NotCapture,
    /// The capture ends within a packet.
    Truncated,
    /// Bytes are wrong or missing.
    Malformed,
}

impl DamageReason {
    /// Returns the token used in the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            DamageReason::NotCapture => "not_a_capture",
            DamageReason::Truncated => "truncated_packet",
            DamageReason::Malformed => "malformed",
        }
    }
}

/// Calls `visit` with the parts of a source of `bytes` bytes, in order.
pub fn find_parts(
    source: &mut impl ReadAt,
    bytes: u64,
    visit: &mut dyn FnMut(SourcePart) -> io::Result<()>,
) -> io::Result<()> {
    let mut finder = PartFinder { source, bytes, visit };
    let Some(start) = finder.find_capture(0)? else {
        return finder.report_damage(0..bytes, DamageReason::NotCapture);
    };
    finder.report_damage(0..start, DamageReason::NotCapture)?;
    let mut capture = finder.start_capture(start)?;
    loop {
        match finder.read_packets(&mut capture)? {
            Some(Resumption::Capture(at)) => capture = finder.start_capture(at)?,
            Some(Resumption::Packet(at)) => {
                capture.reader = capture.reader.moved_to(at);
                capture.reported = at;
            }
            None => return Ok(()),
        }
    }
}

/// Where reading goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resumption {
    /// Another capture starts.
    Capture(u64),
    /// The same capture goes on.
    Packet(u64),
}

/// A capture that is being read.
struct OpenCapture {
    format: CaptureFormat,
    /// Reader after the last good packet.
    reader: PacketReader,
    /// Packet that was read and not reported: the next one may prove it wrong.
    pending: Option<Packet>,
    /// Time of the last packet that has one.
    last_ns: Option<i64>,
    /// End of what was reported.
    reported: u64,
}

/// Reason why no packet follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stop {
    /// End of the last good unit.
    at: u64,
    reason: DamageReason,
}

/// A packet of at most this length has no content worth the name. Zeros read like such packets, of 1970.
const EMPTY_PACKET_BYTES: u64 = 32;

/// Reports whether a packet has content.
fn has_content(packet: Packet) -> bool {
    packet.end - packet.start > EMPTY_PACKET_BYTES
}

/// Reports whether a packet may follow one with the time `last_ns`, or may be the first one.
fn is_likely(last_ns: Option<i64>, packet: Packet) -> bool {
    let is_zero = last_ns.is_none() && packet.time_ns == Some(0) && !has_content(packet);
    !is_zero && is_near(last_ns, packet.time_ns)
}

fn is_near(last_ns: Option<i64>, time_ns: Option<i64>) -> bool {
    match (last_ns, time_ns) {
        (Some(last), Some(time)) => last.abs_diff(time) <= NEAR_NS,
        // After packets with times, one with a time that cannot be is not likely.
        (Some(_), None) => false,
        (None, _) => true,
    }
}

struct PartFinder<'a, S> {
    source: &'a mut S,
    bytes: u64,
    visit: &'a mut dyn FnMut(SourcePart) -> io::Result<()>,
}

impl<S: ReadAt> PartFinder<'_, S> {
    fn start_capture(&mut self, at: u64) -> io::Result<OpenCapture> {
        let reader = PacketReader::open_at(self.source, at, self.bytes)?;
        let reader = reader.ok_or_else(|| io::Error::other("the source changed while it was read"))?.strict();
        let format = reader.format();
        (self.visit)(SourcePart::Capture { at, format })?;
        Ok(OpenCapture { format, reader, pending: None, last_ns: None, reported: at })
    }

    /// Reports the packets of a capture up to its end or to damage. Returns where reading goes on. `None`: nowhere.
    fn read_packets(&mut self, capture: &mut OpenCapture) -> io::Result<Option<Resumption>> {
        loop {
            let mut next = capture.reader.clone();
            let packet = next.next(self.source)?;
            let at = packet.map_or_else(|| next.units_end(), |packet| packet.start);
            // What looks like a packet can be the file header of another capture.
            if at > capture.reported && self.is_capture_start(at, capture.format)? {
                self.report_whole(capture, at)?;
                return Ok(Some(Resumption::Capture(at)));
            }
            let Some(packet) = packet else {
                let is_cut = !next.is_malformed();
                let reason = if is_cut { DamageReason::Truncated } else { DamageReason::Malformed };
                return self.resume(capture, Stop { at, reason });
            };
            if !is_likely(capture.last_ns, packet) && !self.is_agreed(&next, capture, packet)? {
                return self.resume(capture, Stop { at, reason: DamageReason::Malformed });
            }
            self.report_whole(capture, at)?;
            capture.last_ns = packet.time_ns.or(capture.last_ns);
            capture.pending = Some(packet);
            capture.reader = next;
        }
    }

    /// Reports whether the packet after one with an unlikely time shows that it is a packet.
    fn is_agreed(&mut self, next: &PacketReader, capture: &OpenCapture, packet: Packet) -> io::Result<bool> {
        if !has_content(packet) {
            return Ok(false);
        }
        if packet.end == self.bytes {
            return Ok(true);
        }
        let after = next.clone().next(self.source)?;
        Ok(after.is_some_and(|after| {
            is_near(packet.time_ns, after.time_ns) || is_near(capture.last_ns, after.time_ns)
        }))
    }

    /// Finds where reading goes on after a stop, and reports everything before.
    fn resume(&mut self, capture: &mut OpenCapture, stop: Stop) -> io::Result<Option<Resumption>> {
        if stop.at >= self.bytes {
            self.report_whole(capture, self.bytes)?;
            return Ok(None);
        }
        // A packet with a wrong length ends anywhere, and what follows is malformed.
        let doubted = capture.pending.filter(|_| stop.reason == DamageReason::Malformed);
        let from = doubted.map_or(stop.at, |packet| packet.start) + 1;
        let found = self.search(capture, from)?;
        let resumed_at = match found {
            Some(Resumption::Capture(at) | Resumption::Packet(at)) => at,
            None => self.bytes,
        };
        if resumed_at < stop.at {
            capture.pending = None;
        } else {
            self.report_whole(capture, stop.at)?;
        }
        self.report_damage(capture.reported..resumed_at, stop.reason)?;
        Ok(found)
    }

    /// Reports the packet that was held back, and the units after it up to `end`.
    fn report_whole(&mut self, capture: &mut OpenCapture, end: u64) -> io::Result<()> {
        if let Some(packet) = capture.pending.take() {
            (self.visit)(SourcePart::Packet(packet))?;
            capture.reported = packet.end;
        }
        if capture.reported < end {
            (self.visit)(SourcePart::Header(capture.reported..end))?;
            capture.reported = end;
        }
        Ok(())
    }

    fn report_damage(&mut self, range: Range<u64>, reason: DamageReason) -> io::Result<()> {
        if range.is_empty() { Ok(()) } else { (self.visit)(SourcePart::Damaged { range, reason }) }
    }

    /// Searches for a packet of the capture, or for another capture.
    fn search(&mut self, capture: &OpenCapture, from: u64) -> io::Result<Option<Resumption>> {
        for at in from..self.bytes {
            if self.is_capture_start(at, capture.format)? {
                return Ok(Some(Resumption::Capture(at)));
            }
            if self.is_packet_start(capture, at)? {
                return Ok(Some(Resumption::Packet(at)));
            }
        }
        Ok(None)
    }

    fn find_capture(&mut self, from: u64) -> io::Result<Option<u64>> {
        for at in from..self.bytes {
            // At the start, any format is as good as another.
            if self.is_capture_start(at, CaptureFormat::Unknown)?
                || (at == 0 && PacketReader::open_at(self.source, 0, self.bytes)?.is_some())
            {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Reports whether a capture starts here: of a format with a long magic number, or of the same format.
    fn is_capture_start(&mut self, at: u64, format: CaptureFormat) -> io::Result<bool> {
        let magic = self.source.read_at(at, formats::MAGIC_BYTES_MAX)?;
        if !magic.first().is_some_and(|first| formats::can_start_magic(*first))
            || formats::match_magic(magic) != MagicMatch::Complete
        {
            return Ok(false);
        }
        let Some(reader) = PacketReader::open_at(self.source, at, self.bytes)? else { return Ok(false) };
        let mut reader = reader.strict();
        let known = [CaptureFormat::Pcap, CaptureFormat::Pcapng, CaptureFormat::Snoop, format];
        if !known.contains(&reader.format()) {
            return Ok(false);
        }
        // The file header is complete, and what follows is a packet or the end.
        Ok(reader.next(self.source)?.is_some() || (reader.units_end() > at && !reader.is_malformed()))
    }

    /// Reports whether a packet of the capture starts here: the next packets can be read, and their times are likely.
    fn is_packet_start(&mut self, capture: &OpenCapture, at: u64) -> io::Result<bool> {
        let mut reader = capture.reader.moved_to(at);
        let mut last_ns = capture.last_ns;
        for proofs in 0..PROOF_PACKETS {
            let Some(packet) = reader.next(self.source)? else {
                return Ok(proofs > 0 && !reader.is_malformed());
            };
            if !is_likely(last_ns, packet) {
                return Ok(false);
            }
            last_ns = packet.time_ns.or(last_ns);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// 2026-11-18 11:06:40 UTC.
    const TODAY: u32 = 1_795_000_000;

    /// A capture of `count` packets, each with its number in each byte.
    fn pcap(count: u32) -> Vec<u8> {
        let mut bytes = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1]);
        for number in 0..count {
            bytes.extend(words(&[TODAY + number, 0, 60, 60]));
            bytes.extend([number as u8; 60]);
        }
        bytes
    }

    fn pcapng(count: u32) -> Vec<u8> {
        let mut bytes = words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]);
        bytes.extend(words(&[1, 20, 1, 262_144, 20]));
        let micros = u64::from(TODAY) * 1_000_000;
        for number in 0..count {
            let ticks = micros + u64::from(number);
            bytes.extend(words(&[6, 92, 0, (ticks >> 32) as u32, ticks as u32, 60, 60]));
            bytes.extend([number as u8; 60]);
            bytes.extend(words(&[92]));
        }
        bytes
    }

    /// All parts. Checks that they cover the source.
    fn parts(bytes: &[u8]) -> Vec<SourcePart> {
        let (mut found, mut at) = (Vec::new(), 0);
        let mut source = bytes;
        find_parts(&mut source, bytes.len() as u64, &mut |part| {
            let range = match &part {
                SourcePart::Capture { at, .. } => *at..*at,
                SourcePart::Header(range) | SourcePart::Damaged { range, .. } => range.clone(),
                SourcePart::Packet(packet) => packet.start..packet.end,
            };
            assert_eq!(range.start, at, "{part:?} after {found:?}");
            at = range.end;
            found.push(part);
            Ok(())
        })
        .unwrap();
        assert_eq!(at, bytes.len() as u64, "{found:?}");
        found
    }

    /// A short form: captures as `C`, headers as `h`, packets as their number, damage as its range.
    fn shape(bytes: &[u8]) -> String {
        let mut text = String::new();
        for part in parts(bytes) {
            match part {
                SourcePart::Capture { .. } => text.push('C'),
                SourcePart::Header(_) => text.push('h'),
                SourcePart::Packet(packet) => text += &format!(" {}", bytes[packet.end as usize - 10]),
                SourcePart::Damaged { range, .. } => text += &format!(" ({}-{})", range.start, range.end),
            }
        }
        text
    }

    #[test]
    fn whole_captures_have_no_damage() {
        assert_eq!(shape(&pcap(3)), "Ch 0 1 2");
        assert_eq!(shape(&pcapng(3)), "Ch 0 1 2");
        assert_eq!(shape(&pcap(0)), "Ch");
        assert_eq!(shape(b""), "");
        assert_eq!(shape(b"no capture"), " (0-10)");
    }

    #[test]
    fn an_incomplete_packet_is_left_out() {
        let capture = pcap(3);
        assert_eq!(shape(&capture[..capture.len() - 1]), "Ch 0 1 (176-251)");
        assert_eq!(shape(&capture[..24 + 5]), "Ch (24-29)");
        let capture = pcapng(2);
        assert_eq!(shape(&capture[..capture.len() - 1]), "Ch 0 (140-231)");
    }

    #[test]
    fn appended_captures_are_split() {
        let (one, two) = (pcap(2), pcap(3));
        assert_eq!(shape(&[&one[..], &two].concat()), "Ch 0 1Ch 0 1 2");
        assert_eq!(shape(&[&one[..], &pcapng(2)].concat()), "Ch 0 1Ch 0 1");
        assert_eq!(shape(&[&pcapng(2)[..], &one].concat()), "Ch 0 1Ch 0 1");
        // The first one was cut within a packet; the header of the second one is within that packet's length.
        assert_eq!(shape(&[&one[..one.len() - 20], &two].concat()), "Ch 0 (100-156)Ch 0 1 2");
        // Nothing but a file header.
        assert_eq!(shape(&[&pcap(0)[..], &one].concat()), "ChCh 0 1");
        assert_eq!(shape(&[&one[..], &pcap(0)].concat()), "Ch 0 1Ch");
    }

    #[test]
    fn bytes_before_the_capture_are_left_out() {
        let capture = [b"call.pcap", &pcap(2)[..]].concat();
        assert_eq!(shape(&capture), " (0-9)Ch 0 1");
    }

    #[test]
    fn reading_goes_on_after_damage() {
        // Bytes are missing, inserted, or overwritten. Packet 2 starts at byte 176.
        for mut capture in [pcap(8), pcapng(8)] {
            let is_pcap = capture[0] == 0xd4;
            let start = |number: usize| if is_pcap { 24 + 76 * number } else { 48 + 92 * number };
            let (two, three, four) = (start(2), start(3), start(4));
            let whole = "Ch 0 1 2 3 4 5 6 7";
            assert_eq!(shape(&capture), whole);
            let without = [&capture[..two + 4], &capture[two + 10..]].concat();
            let expected = format!("Ch 0 1 ({two}-{}) 3 4 5 6 7", three - 6);
            assert_eq!(shape(&without), expected);
            let with = [&capture[..three], &[0x55; 31], &capture[three..]].concat();
            assert_eq!(shape(&with), format!("Ch 0 1 2 ({three}-{}) 3 4 5 6 7", three + 31));
            // The length of packet 3 is too small, and too large: only that packet is lost.
            let length_at = if is_pcap { three + 8 } else { three + 4 };
            for length in [24_u32, 300, 0xffff_ff00] {
                capture[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
                // In pcap a packet whose length is too small looks like one that was cut by the snaplen.
                let expected = match (is_pcap, length) {
                    (true, 24) => format!("Ch 0 1 2 3 ({}-{four}) 4 5 6 7", three + 40),
                    _ => format!("Ch 0 1 2 ({three}-{four}) 4 5 6 7"),
                };
                assert_eq!(shape(&capture), expected, "{length}");
            }
        }
    }

    #[test]
    fn a_clock_jump_is_not_damage() {
        let mut capture = pcap(6);
        for number in 3..6 {
            let at = 24 + 76 * number;
            capture[at..at + 4].copy_from_slice(&(number as u32).to_le_bytes());
        }
        assert_eq!(shape(&capture), "Ch 0 1 2 3 4 5");
        // One wrong time in the middle, and one at the end.
        let mut capture = pcap(6);
        for number in [2, 5] {
            let at = 24 + 76 * number;
            capture[at..at + 4].copy_from_slice(&7_u32.to_le_bytes());
        }
        assert_eq!(shape(&capture), "Ch 0 1 2 3 4 5");
    }

    #[test]
    fn zeros_are_not_packets() {
        let capture = [&pcap(2)[..], &[0; 200]].concat();
        assert_eq!(shape(&capture), "Ch 0 1 (176-376)");
        let capture = [&pcap(0)[..], &[0; 200]].concat();
        assert!(!shape(&capture).contains("h 0 0 0"), "{}", shape(&capture));
    }

    /// Real captures with random damage: each packet that no damage touches is found, except a few next to it.
    #[test]
    fn most_packets_of_damaged_captures_are_found() {
        let mut random = crate::replay::fault::Random::new(1, 1);
        for file in ["answered-call.pcap", "three-calls.pcapng"] {
            let path = format!("{}/testdata/pcap/{file}", env!("CARGO_MANIFEST_DIR"));
            let good = std::fs::read(path).unwrap();
            let good = &good[..good.len().min(60_000)];
            let packets = |bytes: &[u8]| -> std::collections::HashSet<Vec<u8>> {
                let packets = parts(bytes).into_iter().filter_map(|part| match part {
                    SourcePart::Packet(packet) => Some(packet.start as usize..packet.end as usize),
                    _ => None,
                });
                packets.map(|range| bytes[range].to_vec()).collect()
            };
            let expected = packets(good);
            for round in 0..40 {
                let mut bytes = good.to_vec();
                let at = random.range(300, bytes.len() as u64 - 300) as usize;
                let count = random.range(1, 40) as usize;
                match round % 3 {
                    0 => drop(bytes.drain(at..at + count)),
                    1 => drop(bytes.splice(at..at, vec![round as u8; count])),
                    _ => bytes[at..at + count].fill(round as u8),
                }
                let found = packets(&bytes);
                let missing = expected.difference(&found).count();
                assert!(missing <= 3, "{file}, round {round}: {missing} of {} are missing", expected.len());
            }
        }
    }

    #[test]
    fn any_bytes_are_covered() {
        let mut random = crate::replay::fault::Random::new(2, 1);
        for good in [pcap(6), pcapng(6)] {
            for _ in 0..500 {
                let mut bytes = good.clone();
                for _ in 0..random.range(1, 6) {
                    let at = random.range(0, bytes.len() as u64) as usize;
                    bytes[at] = random.range(0, 256) as u8;
                }
                parts(&bytes[..random.range(0, bytes.len() as u64 + 1) as usize]);
            }
        }
    }
}
