//! Parser of pcap (draft-ietf-opsawg-pcap) in all its variants: a file header of 24 bytes, then packets, each with a
//! header of 16 bytes or more. The snaplen of the file header is not enforced: readers accept longer packets too.
//!
//! Some variants differ in their packet headers, but not in their magic number. `variants` tells them apart by the second
//! packet, as Wireshark does. Until then the usual one is assumed.

use serde::{Deserialize, Serialize};

use super::damage::Finding;
use super::formats;
use super::link_types;
use super::parser::{
    ANY_PACKET_BYTES_MAX, Header, Notes, PacketCounts, PacketData, PacketParser, Parsed, header_u16,
    header_u32, packet_bytes_max, u32_at,
};
use super::variants::{self, PcapVariant, Probe};

pub(super) const FILE_HEADER_BYTES: usize = 24;
/// The file header of an Ixia capture has the total length of the packets after it.
pub(super) const IXIA_FILE_HEADER_BYTES: usize = 28;
const PACKET_HEADER_BYTES: usize = 16;

/// Magic numbers. Each one exists in both byte orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PcapMagic {
    Microseconds,
    Nanoseconds,
    /// The patched libpcap of Alexey Kuznetsov, as written by routers and by SuSE 6.3.
    Modified,
    /// Captured by Ixia hardware, with nanoseconds.
    IxiaHardware,
    /// Captured by Ixia software, with microseconds.
    IxiaSoftware,
}

impl PcapMagic {
    fn file_header_bytes(self) -> usize {
        match self {
            PcapMagic::IxiaHardware | PcapMagic::IxiaSoftware => IXIA_FILE_HEADER_BYTES,
            _ => FILE_HEADER_BYTES,
        }
    }

    /// The variant as far as the magic number tells.
    fn variant(self) -> PcapVariant {
        match self {
            PcapMagic::Microseconds => PcapVariant::Usual,
            PcapMagic::Nanoseconds => PcapVariant::Nanosecond,
            PcapMagic::Modified => PcapVariant::Modified,
            PcapMagic::IxiaHardware => PcapVariant::IxiaHardware,
            PcapMagic::IxiaSoftware => PcapVariant::IxiaSoftware,
        }
    }
}

/// Order of the captured length and the length on the wire in a packet header. Versions before 2.3 had the other order,
/// and so had some writers of 2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum LengthOrder {
    CapturedFirst,
    CapturedSecond,
    SmallerIsCaptured,
}

impl LengthOrder {
    /// Captured and original length of a packet, from the two lengths of its header.
    fn captured_and_original(self, first: u32, second: u32) -> (u32, u32) {
        match self {
            LengthOrder::CapturedFirst => (first, second),
            LengthOrder::CapturedSecond => (second, first),
            LengthOrder::SmallerIsCaptured => (first.min(second), first.max(second)),
        }
    }
}

/// Header or end that is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    FileHeader,
    PacketHeader,
    /// The second packet's header, and as many bytes after it as the variants need to be told apart.
    ProbeHeader,
    PacketEnd,
}

/// Parser of a pcap stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PcapParser {
    big_endian: bool,
    magic: PcapMagic,
    variant: PcapVariant,
    lengths: LengthOrder,
    probe: Probe,
    step: Step,
    /// Largest captured length that readers accept.
    packet_bytes_max: u32,
    snaplen: u32,
    link_type: u32,
    /// Time of the first packet, in seconds since 1970, while the variant is not decided.
    first_seconds: u32,
    /// Time of the partial packet.
    time_ns: Option<i64>,
}

impl PcapParser {
    pub(super) fn new(magic: PcapMagic, big_endian: bool) -> PcapParser {
        PcapParser {
            big_endian,
            magic,
            variant: magic.variant(),
            lengths: LengthOrder::CapturedFirst,
            probe: Probe::Decided,
            step: Step::FileHeader,
            packet_bytes_max: 0,
            snaplen: 0,
            link_type: 0,
            first_seconds: 0,
            time_ns: None,
        }
    }

    pub(super) fn variant(&self) -> PcapVariant {
        self.variant
    }

    /// Keeps the variant that is assumed so far: what is not the second packet tells nothing about it.
    pub(super) fn keep_variant(&mut self) {
        if self.step != Step::FileHeader {
            self.probe = Probe::Decided;
        }
    }

    fn file_header(&mut self, header: &Header, notes: &mut Notes) -> Parsed {
        let version = (header_u16(header, 4, self.big_endian), header_u16(header, 6, self.big_endian));
        let network = header_u32(header, 20, self.big_endian);
        self.snaplen = header_u32(header, 16, self.big_endian);
        self.lengths = match version {
            (2, 0..=2) | (543, _) => LengthOrder::CapturedSecond,
            (2, 3) => LengthOrder::SmallerIsCaptured,
            _ => LengthOrder::CapturedFirst,
        };
        let mut link_type = network & 0xffff;
        let aix_link_type = variants::aix_link_type(network);
        match (self.magic, version, aix_link_type) {
            (PcapMagic::Microseconds, (2, 2), Some(aix)) => {
                (self.variant, link_type) = (PcapVariant::Aix, aix);
            }
            (PcapMagic::Microseconds | PcapMagic::Modified, _, _)
                if self.lengths == LengthOrder::CapturedFirst =>
            {
                self.probe = Probe::FirstPacket;
            }
            _ => {}
        }
        self.link_type = link_type;
        notes.link_type = Some(link_type);
        notes.finding = refusal(version, network, link_type);
        self.packet_bytes_max = packet_bytes_max(link_type);
        self.step = Step::PacketHeader;
        Parsed::UnitEnd
    }

    fn packet_header(&mut self, header: &Header) -> Parsed {
        if self.probe == Probe::SecondPacket {
            let (plausible, captured) = (self.is_plausible(header), header_u32(header, 8, self.big_endian));
            if !plausible && captured as usize >= self.variant.probe_bytes() && !self.is_appended(header) {
                self.step = Step::ProbeHeader;
                return Parsed::LongerHeader;
            }
            self.probe = Probe::Decided;
        }
        self.start_packet(header, 0)
    }

    /// Starts a packet, of which `taken` bytes after its header have been collected already.
    fn start_packet(&mut self, header: &Header, taken: u32) -> Parsed {
        let word = |at| header_u32(header, at, self.big_endian);
        let (captured, _) = self.lengths.captured_and_original(word(8), word(12));
        if (captured == 0 || captured > self.packet_bytes_max) && self.is_appended(header) {
            return Parsed::AppendedCapture;
        }
        if captured > self.packet_bytes_max {
            return Parsed::Malformed(Finding::PacketLength { captured, max: self.packet_bytes_max });
        }
        if self.probe == Probe::FirstPacket {
            self.first_seconds = word(0);
        }
        self.time_ns = self.to_ns(word(0), word(4));
        self.step = Step::PacketEnd;
        Parsed::Header { skip: captured - taken }
    }

    /// Chooses the variant by the second packet. The header starts where the first packet ends in the variant that is
    /// assumed so far.
    fn probe_header(&mut self, header: &Header) -> Parsed {
        self.probe = Probe::Decided;
        let (taken, choice) = variants::choose(header, self.variant, &self.plausibility());
        if choice == self.variant {
            return self.start_packet(header, taken);
        }
        let late_bytes = (choice.packet_header_bytes() - self.variant.packet_header_bytes()) as usize;
        let collected = self.variant.packet_header_bytes() as usize + taken as usize;
        self.variant = choice;
        let mut shifted = [0; super::parser::STEP_BYTES_MAX];
        shifted[..PACKET_HEADER_BYTES].copy_from_slice(&header[late_bytes..late_bytes + PACKET_HEADER_BYTES]);
        let missing = late_bytes + choice.packet_header_bytes() as usize - collected;
        match self.start_packet(&shifted, 0) {
            Parsed::Header { skip } => Parsed::Header { skip: skip + missing as u32 },
            other => other,
        }
    }

    fn plausibility(&self) -> variants::Plausibility {
        variants::Plausibility {
            big_endian: self.big_endian,
            packet_bytes_max: self.packet_bytes_max,
            snaplen: self.snaplen,
            first_seconds: self.first_seconds,
        }
    }

    fn is_plausible(&self, header: &Header) -> bool {
        self.plausibility().demerits(header, 0) == 0
    }

    /// Reports whether these are the first bytes of a capture and not of a packet.
    fn is_appended(&self, header: &Header) -> bool {
        formats::starts_appended(&header[..PACKET_HEADER_BYTES])
    }

    /// Number of fractions in a second.
    fn fractions(&self) -> u32 {
        if self.variant.has_nanoseconds() { 1_000_000_000 } else { 1_000_000 }
    }

    /// `None` if the fraction is a second or more: then the writer meant something else.
    fn to_ns(&self, seconds: u32, fraction: u32) -> Option<i64> {
        let fractions = self.fractions();
        let unit_ns = i64::from(1_000_000_000 / fractions);
        (fraction < fractions).then(|| i64::from(seconds) * 1_000_000_000 + i64::from(fraction) * unit_ns)
    }

    #[inline]
    fn count_packets<const BIG_ENDIAN: bool>(&self, bytes: &[u8], counts: &mut PacketCounts) -> usize {
        let (mut at, mut packets) = (0, 0);
        // Seconds and fraction as one number: times are converted once per call.
        let (mut earliest, mut latest) = (u64::MAX, 0);
        let fractions = self.fractions();
        while let Some(header) = bytes[at..].first_chunk::<PACKET_HEADER_BYTES>() {
            let word = |at| u32_at::<BIG_ENDIAN>(header, at);
            let (fraction, captured) = (word(4), word(8));
            let end = at + PACKET_HEADER_BYTES + captured as usize;
            // One comparison excludes 0 as well: an appended capture may start there.
            if captured.wrapping_sub(1) >= self.packet_bytes_max || end > bytes.len() || fraction >= fractions
            {
                break;
            }
            let time = u64::from(word(0)) << 32 | u64::from(fraction);
            (earliest, latest) = (earliest.min(time), latest.max(time));
            at = end;
            packets += 1;
        }
        if packets > 0 {
            let to_ns = |time: u64| self.to_ns((time >> 32) as u32, time as u32).unwrap_or_default();
            counts.add_range(packets, to_ns(earliest), to_ns(latest));
        }
        at
    }
}

/// What readers refuse about a file header.
fn refusal(version: (u16, u16), network: u32, link_type: u32) -> Option<Finding> {
    /// Bits between the link type and the length of the frame check sequence.
    const RESERVED: u32 = 0x03ff_0000;
    match version {
        (2, 0..=4) | (543, 0) if network & RESERVED != 0 => Some(Finding::LinkTypeBits(network & RESERVED)),
        (2, 0..=4) | (543, 0) if !link_types::is_readable(link_type) => Some(Finding::LinkType(link_type)),
        (2, 0..=4) | (543, 0) => None,
        (major, minor) => Some(Finding::PcapVersion(major, minor)),
    }
}

impl PacketParser for PcapParser {
    #[inline]
    fn step_bytes(&self) -> usize {
        match self.step {
            Step::FileHeader => self.magic.file_header_bytes(),
            Step::PacketHeader => self.variant.packet_header_bytes() as usize,
            Step::ProbeHeader => self.variant.packet_header_bytes() as usize + self.variant.probe_bytes(),
            Step::PacketEnd => 0,
        }
    }

    #[inline]
    fn parse(&mut self, header: &Header, notes: &mut Notes) -> Parsed {
        match self.step {
            Step::FileHeader => self.file_header(header, notes),
            Step::PacketHeader => self.packet_header(header),
            Step::ProbeHeader => self.probe_header(header),
            Step::PacketEnd => {
                self.step = Step::PacketHeader;
                if self.probe == Probe::FirstPacket {
                    self.probe = Probe::SecondPacket;
                }
                Parsed::PacketEnd { time_ns: self.time_ns.take() }
            }
        }
    }

    #[inline]
    fn packet_data(&self, record: &[u8]) -> Option<PacketData> {
        let header = record.first_chunk::<PACKET_HEADER_BYTES>()?;
        let word =
            |at| if self.big_endian { u32_at::<true>(header, at) } else { u32_at::<false>(header, at) };
        let (captured, original) = self.lengths.captured_and_original(word(8), word(12));
        let start = self.variant.packet_header_bytes() as usize;
        Some(PacketData { link_type: self.link_type, start, captured: captured as usize, original })
    }

    #[inline]
    fn count_complete_packets(&self, bytes: &[u8], counts: &mut PacketCounts) -> usize {
        let is_usual = self.step == Step::PacketHeader
            && self.probe == Probe::Decided
            && self.lengths == LengthOrder::CapturedFirst
            && self.variant.packet_header_bytes() == PACKET_HEADER_BYTES as u32;
        match (is_usual, self.big_endian) {
            (true, false) => self.count_packets::<false>(bytes, counts),
            (true, true) => self.count_packets::<true>(bytes, counts),
            (false, _) => 0,
        }
    }

    fn is_consistent(&self) -> bool {
        // The steps must not need more bytes than a header has.
        let is_probing = self.step != Step::ProbeHeader || self.probe == Probe::SecondPacket;
        self.packet_bytes_max <= ANY_PACKET_BYTES_MAX
            && is_probing
            && (self.probe == Probe::Decided || self.variant.probe_bytes() > 0)
    }
}
