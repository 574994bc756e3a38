//! Tracks the packets of a pcap or pcapng stream as its bytes arrive, without copying them and for any split.
//!
//! The thread that receives a stream runs the tracker on each chunk before the chunk goes to the writer.
//! Headers that are split over chunks are collected in a small fixed array. Everything else is only counted.
//! Complete packets within a chunk are handled by the loops in `pcap` and `pcapng`, which go from length to
//! length. Everything else takes the steps of `PacketTracker::parse_header`.
//!
//! Invariants: the tracker's state does not depend on how the bytes were split. `packet_boundary() <=
//! received()`, and neither ever decreases.

mod interfaces;
mod pcap;
mod pcapng;

use serde::{Deserialize, Serialize};

use crate::limits::PACKET_BYTES_MAX;
use interfaces::{Interface, InterfaceTable};

/// Format of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureFormat {
    /// Not enough bytes to decide.
    #[default]
    Unknown,
    Pcap,
    Pcapng,
    /// Not a capture.
    Other,
}

/// Serializes packet times as RFC 3339 text in UTC, with nanoseconds.
mod packet_time {
    use chrono::{DateTime, SecondsFormat};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(ns: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |ns| DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(SecondsFormat::Nanos, true);
        ns.map(text).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let time = DateTime::parse_from_rfc3339(&text).map_err(D::Error::custom)?;
        // lea never writes times outside the range of 64-bit nanoseconds.
        time.timestamp_nanos_opt()
            .map(Some)
            .ok_or_else(|| D::Error::custom("the time is outside the range of 64-bit nanoseconds"))
    }
}

/// Content of a stream, as recorded in its manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureSummary {
    pub format: CaptureFormat,
    /// Link type of the first interface, as in LINKTYPE_ETHERNET = 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_type: Option<u32>,
    /// Number of complete packets.
    pub packets: u64,
    /// Time of the first packet that has one, in file order. Nanoseconds since 1970.
    #[serde(
        rename = "first_packet_at",
        with = "packet_time",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub first_packet_ns: Option<i64>,
    /// Time of the last packet that has one, in file order. Nanoseconds since 1970.
    #[serde(
        rename = "last_packet_at",
        with = "packet_time",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub last_packet_ns: Option<i64>,
    /// Bytes after the last complete packet.
    pub cut_off_bytes: u64,
    /// Byte from which the records are malformed. They are stored unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unstructured_from: Option<u64>,
}

/// How a capture starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CaptureMagic {
    /// A pcap file header.
    Pcap { big_endian: bool, nanoseconds: bool },
    /// What may be a pcapng section header: its type. [`section_order`] tells with 8 bytes more.
    Pcapng,
}

const PCAPNG_MAGIC: [u8; 4] = *b"\n\r\r\n";

const MAGICS: [([u8; 4], CaptureMagic); 5] = [
    ([0xd4, 0xc3, 0xb2, 0xa1], CaptureMagic::Pcap { big_endian: false, nanoseconds: false }),
    ([0xa1, 0xb2, 0xc3, 0xd4], CaptureMagic::Pcap { big_endian: true, nanoseconds: false }),
    ([0x4d, 0x3c, 0xb2, 0xa1], CaptureMagic::Pcap { big_endian: false, nanoseconds: true }),
    ([0xa1, 0xb2, 0x3c, 0x4d], CaptureMagic::Pcap { big_endian: true, nanoseconds: true }),
    (PCAPNG_MAGIC, CaptureMagic::Pcapng),
];

/// Whether some magic starts with this byte: quick, for whoever looks at each byte.
#[inline]
pub(crate) fn can_start_magic(byte: u8) -> bool {
    MAGICS.iter().any(|(magic, _)| magic[0] == byte)
}

/// The magic that stands at the start of `bytes`: `Some(None)`: none does; `None`: too few bytes to say.
pub(crate) fn match_magic(bytes: &[u8]) -> Option<Option<CaptureMagic>> {
    let given = &bytes[..bytes.len().min(4)];
    let found = MAGICS.iter().find(|(magic, _)| magic.starts_with(given));
    match found {
        None => Some(None),
        Some((_, magic)) if given.len() == 4 => Some(Some(*magic)),
        Some(_) => None,
    }
}

/// Whether the pcapng section that starts here is big-endian, by its byte-order magic. `Some(None)`: it is no
/// section; `None`: too few bytes to say.
pub(crate) fn section_byte_order(bytes: &[u8]) -> Option<Option<bool>> {
    Some(match bytes.get(8..12)? {
        [0x4d, 0x3c, 0x2b, 0x1a] => Some(false),
        [0x1a, 0x2b, 0x3c, 0x4d] => Some(true),
        _ => None,
    })
}

/// Parser state: the header that is needed next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TrackerStep {
    #[default]
    Magic,
    FileHeader,
    PacketHeader,
    PacketEnd,
    FirstSectionHeader,
    BlockHeader,
    SectionHeader,
    InterfaceHeader,
    Option,
    Resolution,
    Offset,
    PacketBlock,
    SimplePacket,
    Trailer,
    Unstructured,
}

impl TrackerStep {
    /// Number of header bytes needed for this step, counted from the start of the header.
    fn header_bytes(self) -> usize {
        match self {
            TrackerStep::PacketEnd => 0,
            TrackerStep::Magic | TrackerStep::Option | TrackerStep::Resolution | TrackerStep::Trailer => 4,
            TrackerStep::BlockHeader | TrackerStep::Offset => 8,
            TrackerStep::FirstSectionHeader | TrackerStep::SectionHeader | TrackerStep::SimplePacket => 12,
            TrackerStep::PacketHeader | TrackerStep::InterfaceHeader => 16,
            TrackerStep::FileHeader => pcap::FILE_HEADER_BYTES,
            TrackerStep::PacketBlock => pcapng::PACKET_HEADER_BYTES,
            // Never reached: malformed bytes are not collected.
            TrackerStep::Unstructured => HEADER_BYTES_MAX + 1,
        }
    }
}

/// Longest header that a step needs: that of a pcapng packet block.
const HEADER_BYTES_MAX: usize = pcapng::PACKET_HEADER_BYTES;

/// Parser position in a stream, at any byte. It is small, and checkpoints store it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PacketTracker {
    received: u64,
    boundary: u64,
    step: TrackerStep,
    /// Bytes to skip before the next step.
    skip: u32,
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    big_endian: bool,
    nanoseconds: bool,
    format: CaptureFormat,
    link_type: Option<u32>,
    unstructured_from: Option<u64>,
    packets: u64,
    first_packet_ns: Option<i64>,
    last_packet_ns: Option<i64>,
    /// Time of the partial packet.
    partial_packet_ns: Option<i64>,
    /// pcap: largest plausible captured length.
    packet_bytes_max: u32,
    /// pcapng: the partial block and the interfaces of the section.
    block: PartialBlock,
    interfaces: InterfaceTable,
}

/// Partial block of a pcapng stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct PartialBlock {
    total_bytes: u32,
    /// In an interface block: remaining bytes of its options.
    options_bytes: u32,
    kind: BlockKind,
}

/// Effect of a block's end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
enum BlockKind {
    #[default]
    Other,
    Packet,
    Interface(Interface),
}

impl PacketTracker {
    pub fn new() -> PacketTracker {
        PacketTracker::default()
    }

    /// Processes the next bytes of the stream, any number of them.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        loop {
            self.skip_payload(&mut bytes);
            if self.header_bytes == 0 && self.skip == 0 {
                self.track_whole_packets(&mut bytes);
            }
            if !self.fill_header(&mut bytes) {
                return;
            }
            self.parse_header();
        }
    }

    /// Number of bytes processed.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Number of bytes that readers may see: the end of the last complete packet, block or file header. If
    /// the stream is not a capture or is malformed, all bytes. Never decreases, never exceeds `received`. It
    /// is 0 until the format is known.
    pub fn packet_boundary(&self) -> u64 {
        if self.step == TrackerStep::Unstructured { self.received } else { self.boundary }
    }

    /// Returns false for a deserialized tracker that no input leads to, as far as continuing with it could do
    /// harm.
    pub fn is_consistent(&self) -> bool {
        let header_bytes = usize::from(self.header_bytes);
        let header_fits = match self.step {
            TrackerStep::Unstructured => header_bytes <= HEADER_BYTES_MAX,
            _ if self.skip > 0 => header_bytes == 0,
            step => header_bytes < step.header_bytes(),
        };
        let format_fits = match self.step {
            TrackerStep::Magic | TrackerStep::FirstSectionHeader => self.format == CaptureFormat::Unknown,
            TrackerStep::FileHeader | TrackerStep::PacketHeader | TrackerStep::PacketEnd => {
                self.format == CaptureFormat::Pcap
            }
            TrackerStep::Unstructured => self.format != CaptureFormat::Unknown,
            _ => self.format == CaptureFormat::Pcapng,
        };
        header_fits
            && format_fits
            && self.received <= STREAM_BYTES_MAX
            && self.boundary <= self.received
            && self.unstructured_from.is_none_or(|from| from <= self.received)
            && self.packets <= self.received / 16
            && self.packet_bytes_max <= ANY_PACKET_BYTES_MAX
            && pcapng::is_consistent(self.step, &self.block)
            && self.interfaces.is_consistent()
    }

    /// Number of complete packets.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Summary of the stream, as if it ended here.
    pub fn summary(&self) -> CaptureSummary {
        CaptureSummary {
            format: self.format,
            link_type: self.link_type,
            packets: self.packets,
            first_packet_ns: self.first_packet_ns,
            last_packet_ns: self.last_packet_ns,
            cut_off_bytes: self.received - self.packet_boundary(),
            unstructured_from: self.unstructured_from,
        }
    }

    /// Skips bytes that need not be parsed.
    fn skip_payload(&mut self, bytes: &mut &[u8]) {
        if self.step == TrackerStep::Unstructured {
            self.received += bytes.len() as u64;
            *bytes = &[];
            return;
        }
        let passed = bytes.len().min(self.skip as usize);
        self.skip -= passed as u32;
        self.received += passed as u64;
        *bytes = &bytes[passed..];
    }

    /// Processes the packets and blocks that are complete in these bytes and need no individual step.
    #[inline]
    fn track_whole_packets(&mut self, bytes: &mut &[u8]) {
        let taken = match (self.step, self.big_endian) {
            (TrackerStep::PacketHeader, false) => self.track_pcap_packets::<false>(bytes),
            (TrackerStep::PacketHeader, true) => self.track_pcap_packets::<true>(bytes),
            (TrackerStep::BlockHeader, false) => self.track_packet_blocks::<false>(bytes),
            (TrackerStep::BlockHeader, true) => self.track_packet_blocks::<true>(bytes),
            _ => return,
        };
        self.received += taken as u64;
        if taken > 0 {
            self.boundary = self.received;
        }
        *bytes = &bytes[taken..];
    }

    /// Collects header bytes. Returns false if more are needed.
    fn fill_header(&mut self, bytes: &mut &[u8]) -> bool {
        if self.skip > 0 {
            return false;
        }
        let have = usize::from(self.header_bytes);
        let wanted = self.step.header_bytes() - have;
        let taken = wanted.min(bytes.len());
        self.header[have..have + taken].copy_from_slice(&bytes[..taken]);
        self.header_bytes += taken as u8;
        self.received += taken as u64;
        *bytes = &bytes[taken..];
        taken == wanted
    }

    /// Executes the step whose header is complete, and sets the next one.
    fn parse_header(&mut self) {
        match self.step {
            TrackerStep::Magic => self.parse_magic(),
            TrackerStep::FileHeader => self.parse_pcap_file_header(),
            TrackerStep::PacketHeader => self.parse_pcap_packet_header(),
            TrackerStep::PacketEnd => self.end_packet(TrackerStep::PacketHeader),
            TrackerStep::FirstSectionHeader => self.parse_first_section_header(),
            TrackerStep::BlockHeader => self.parse_block_header(),
            TrackerStep::SectionHeader => self.parse_section_header(),
            TrackerStep::InterfaceHeader => self.parse_interface_header(),
            TrackerStep::Option => self.parse_option_header(),
            TrackerStep::Resolution => self.parse_resolution(),
            TrackerStep::Offset => self.parse_offset(),
            TrackerStep::PacketBlock => self.parse_packet_block(),
            TrackerStep::SimplePacket => self.parse_simple_packet(),
            TrackerStep::Trailer => self.parse_trailer(),
            TrackerStep::Unstructured => {}
        }
    }

    fn parse_magic(&mut self) {
        match match_magic(&self.header[..4]).flatten() {
            Some(CaptureMagic::Pcap { big_endian, nanoseconds }) => {
                (self.format, self.big_endian, self.nanoseconds) =
                    (CaptureFormat::Pcap, big_endian, nanoseconds);
                self.step = TrackerStep::FileHeader;
            }
            Some(CaptureMagic::Pcapng) => self.step = TrackerStep::FirstSectionHeader,
            None => self.set_other(),
        }
    }

    fn set_other(&mut self) {
        self.format = CaptureFormat::Other;
        self.step = TrackerStep::Unstructured;
    }

    /// The partial packet or block is malformed: from its first byte on, the stream is plain bytes.
    fn set_malformed(&mut self) {
        self.unstructured_from = Some(self.boundary);
        self.step = TrackerStep::Unstructured;
    }

    /// Expects the next header after `skip` bytes.
    fn expect_header(&mut self, step: TrackerStep, skip: u32) {
        self.step = step;
        self.skip = skip;
        self.header_bytes = 0;
    }

    /// Ends a unit: a packet, a block or a file header.
    fn end_unit(&mut self, next: TrackerStep) {
        self.boundary = self.received;
        self.expect_header(next, 0);
    }

    fn end_packet(&mut self, next: TrackerStep) {
        self.packets += 1;
        // `take` makes the state independent of how the bytes were split.
        let at_ns = self.partial_packet_ns.take();
        self.first_packet_ns = self.first_packet_ns.or(at_ns);
        self.last_packet_ns = at_ns.or(self.last_packet_ns);
        self.end_unit(next);
    }

    /// Number of 2 or 4 bytes at `at` in the header, in the byte order of the stream.
    fn header_u16(&self, at: usize) -> u16 {
        let bytes = [self.header[at], self.header[at + 1]];
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn header_u32(&self, at: usize) -> u32 {
        if self.big_endian { u32_at::<true>(&self.header, at) } else { u32_at::<false>(&self.header, at) }
    }
}

/// The 4-byte number at `at`, which must be within `bytes`.
#[inline(always)]
fn u32_at<const BIG_ENDIAN: bool>(bytes: &[u8], at: usize) -> u32 {
    let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    if BIG_ENDIAN { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}

/// Larger than any stream. Counters have room above it.
const STREAM_BYTES_MAX: u64 = 1 << 62;

/// Maximum of [`packet_bytes_max`] over all link types.
const ANY_PACKET_BYTES_MAX: u32 = 128 << 20;

/// Largest plausible packet of a link type: Wireshark's limits.
fn packet_bytes_max(link_type: u32) -> u32 {
    const USBPCAP: u32 = 249;
    const DBUS: u32 = 231;
    const EBHSCR: u32 = 279;
    match link_type {
        USBPCAP | DBUS => ANY_PACKET_BYTES_MAX,
        EBHSCR => 8 << 20,
        _ => PACKET_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests;
