//! Follows the packets of a pcap or pcapng stream while its bytes go by: no copy, any split.
//!
//! The thread that receives a stream runs it on each chunk before the chunk goes to the writer. Headers that a
//! chunk cuts wait in a small fixed array; all else is only counted. Where whole packets lie in a chunk, the loops
//! of `pcap` and `pcapng` go from length to length; everything else takes the steps of `Follower::advance`.
//!
//! Invariants: what a follower tells after some bytes does not depend on how they were split;
//! `boundary() <= received()`, and neither ever decreases.

mod interfaces;
mod pcap;
mod pcapng;

use serde::{Deserialize, Serialize};

use crate::limits::PACKET_BYTES_MAX;
use interfaces::{Interface, Interfaces};

/// The format of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Too few bytes to tell.
    #[default]
    Unknown,
    /// pcap (draft-ietf-opsawg-pcap), either byte order, micro- or nanoseconds.
    Pcap,
    /// pcapng (draft-ietf-opsawg-pcapng).
    Pcapng,
    /// No capture: any bytes.
    Other,
}

/// A packet's time as text: RFC 3339, UTC, nanoseconds.
mod time_text {
    use chrono::{DateTime, SecondsFormat};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(ns: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |ns| DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(SecondsFormat::Nanos, true);
        ns.map(text).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let time = DateTime::parse_from_rfc3339(&text).map_err(D::Error::custom)?;
        // Beyond the years that 64 bits of nanoseconds hold, no packet of ours was written.
        time.timestamp_nanos_opt().map(Some).ok_or_else(|| D::Error::custom("a time out of range"))
    }
}

/// What a stream turned out to contain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// pcap, pcapng, or other.
    pub format: Format,
    /// The (first) link type, as in LINKTYPE_ETHERNET = 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_type: Option<u32>,
    /// Whole packets.
    pub packets: u64,
    /// The time of the first packet that has one, in the order of the file; nanoseconds since 1970.
    #[serde(
        rename = "first_packet_at",
        with = "time_text",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub first_packet_ns: Option<i64>,
    /// The time of the last packet that has one, in the order of the file; nanoseconds since 1970.
    #[serde(rename = "last_packet_at", with = "time_text", default, skip_serializing_if = "Option::is_none")]
    pub last_packet_ns: Option<i64>,
    /// Bytes after the last whole packet: of a packet that was cut.
    pub cut_off_bytes: u64,
    /// From this byte on the records made no sense and are kept as they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unstructured_from: Option<u64>,
}

/// How a capture starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Magic {
    /// A pcap file header.
    Pcap { big_endian: bool, nanoseconds: bool },
    /// What may be a pcapng section header: its type. [`section_order`] tells with 8 bytes more.
    Pcapng,
}

const PCAPNG_MAGIC: [u8; 4] = *b"\n\r\r\n";

const MAGICS: [([u8; 4], Magic); 5] = [
    ([0xd4, 0xc3, 0xb2, 0xa1], Magic::Pcap { big_endian: false, nanoseconds: false }),
    ([0xa1, 0xb2, 0xc3, 0xd4], Magic::Pcap { big_endian: true, nanoseconds: false }),
    ([0x4d, 0x3c, 0xb2, 0xa1], Magic::Pcap { big_endian: false, nanoseconds: true }),
    ([0xa1, 0xb2, 0x3c, 0x4d], Magic::Pcap { big_endian: true, nanoseconds: true }),
    (PCAPNG_MAGIC, Magic::Pcapng),
];

/// Whether some magic starts with this byte: quick, for whoever looks at each byte.
#[inline]
pub(super) fn may_start_magic(byte: u8) -> bool {
    MAGICS.iter().any(|(magic, _)| magic[0] == byte)
}

/// The magic that stands at the start of `bytes`: `Some(None)`: none does; `None`: too few bytes to say.
pub(super) fn magic(bytes: &[u8]) -> Option<Option<Magic>> {
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
pub(super) fn section_order(bytes: &[u8]) -> Option<Option<bool>> {
    Some(match bytes.get(8..12)? {
        [0x4d, 0x3c, 0x2b, 0x1a] => Some(false),
        [0x1a, 0x2b, 0x3c, 0x4d] => Some(true),
        _ => None,
    })
}

/// What the follower needs next before it can go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
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

impl Step {
    /// How many bytes of the header must be there for this step, counted from the start of the header.
    fn header_bytes(self) -> usize {
        match self {
            Step::PacketEnd => 0,
            Step::Magic | Step::Option | Step::Resolution | Step::Trailer => 4,
            Step::BlockHeader | Step::Offset => 8,
            Step::FirstSectionHeader | Step::SectionHeader | Step::SimplePacket => 12,
            Step::PacketHeader | Step::InterfaceHeader => 16,
            Step::FileHeader => pcap::FILE_HEADER_BYTES,
            Step::PacketBlock => pcapng::PACKET_HEADER_BYTES,
            // More than ever comes: unstructured bytes are not looked at.
            Step::Unstructured => HEADER_BYTES_MAX + 1,
        }
    }
}

/// The longest header that a step looks at: of a pcapng packet block.
const HEADER_BYTES_MAX: usize = pcapng::PACKET_HEADER_BYTES;

/// The position in a stream, at any byte. Small, and can be stored (checkpoints do).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Follower {
    received: u64,
    boundary: u64,
    step: Step,
    /// Bytes that go by unseen before the next step.
    skip: u32,
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    big_endian: bool,
    nanoseconds: bool,
    format: Format,
    link_type: Option<u32>,
    unstructured_from: Option<u64>,
    packets: u64,
    first_packet_ns: Option<i64>,
    last_packet_ns: Option<i64>,
    /// The time of the begun packet.
    begun_packet_ns: Option<i64>,
    /// pcap: the longest captured length that makes sense.
    packet_bytes_max: u32,
    /// pcapng: the begun block, and the interfaces of the section.
    block: Block,
    interfaces: Interfaces,
}

/// The begun block of a pcapng stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Block {
    total_bytes: u32,
    /// Of an interface block: bytes of its options that are still to come.
    options_bytes: u32,
    kind: BlockKind,
}

/// What the end of a block means.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
enum BlockKind {
    #[default]
    Other,
    Packet,
    Interface(Interface),
}

impl Follower {
    /// At byte 0.
    pub fn new() -> Follower {
        Follower::default()
    }

    /// Takes the next bytes of the stream, any number of them.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        loop {
            self.pass(&mut bytes);
            if self.header_bytes == 0 && self.skip == 0 {
                self.whole_packets(&mut bytes);
            }
            if !self.collect(&mut bytes) {
                return;
            }
            self.advance();
        }
    }

    /// Bytes fed so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How many of them a reader may see: the end of the last whole packet (or block, or file header); all of
    /// them, where the stream is no capture or stopped making sense. Never decreases, never beyond `received`.
    /// While it cannot be told yet whether this is a capture (fewer than 4 bytes; 12, if they start as pcapng), 0.
    pub fn boundary(&self) -> u64 {
        if self.step == Step::Unstructured { self.received } else { self.boundary }
    }

    /// False for a stored follower that no bytes lead to, as far as going on with it could do harm.
    pub fn is_sound(&self) -> bool {
        let header_bytes = usize::from(self.header_bytes);
        let header_fits = match self.step {
            Step::Unstructured => header_bytes <= HEADER_BYTES_MAX,
            _ if self.skip > 0 => header_bytes == 0,
            step => header_bytes < step.header_bytes(),
        };
        let format_fits = match self.step {
            Step::Magic | Step::FirstSectionHeader => self.format == Format::Unknown,
            Step::FileHeader | Step::PacketHeader | Step::PacketEnd => self.format == Format::Pcap,
            Step::Unstructured => self.format != Format::Unknown,
            _ => self.format == Format::Pcapng,
        };
        header_fits
            && format_fits
            && self.received <= RECEIVED_MAX
            && self.boundary <= self.received
            && self.unstructured_from.is_none_or(|from| from <= self.received)
            // No packet is shorter than its header.
            && self.packets <= self.received / 16
            && self.packet_bytes_max <= PACKET_BYTES_MAX_OF_ANY
            && pcapng::is_sound(self.step, &self.block)
            && self.interfaces.is_sound()
    }

    /// Whole packets so far.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// What the stream contains, as if it ended here.
    pub fn summary(&self) -> Summary {
        Summary {
            format: self.format,
            link_type: self.link_type,
            packets: self.packets,
            first_packet_ns: self.first_packet_ns,
            last_packet_ns: self.last_packet_ns,
            cut_off_bytes: self.received - self.boundary(),
            unstructured_from: self.unstructured_from,
        }
    }

    /// Lets bytes go by that need not be seen.
    fn pass(&mut self, bytes: &mut &[u8]) {
        if self.step == Step::Unstructured {
            self.received += bytes.len() as u64;
            *bytes = &[];
            return;
        }
        let passed = bytes.len().min(self.skip as usize);
        self.skip -= passed as u32;
        self.received += passed as u64;
        *bytes = &bytes[passed..];
    }

    /// Takes the packets and blocks that lie whole in these bytes and need no step of their own.
    #[inline]
    fn whole_packets(&mut self, bytes: &mut &[u8]) {
        let taken = match (self.step, self.big_endian) {
            (Step::PacketHeader, false) => self.whole_pcap_packets::<false>(bytes),
            (Step::PacketHeader, true) => self.whole_pcap_packets::<true>(bytes),
            (Step::BlockHeader, false) => self.whole_packet_blocks::<false>(bytes),
            (Step::BlockHeader, true) => self.whole_packet_blocks::<true>(bytes),
            _ => return,
        };
        self.received += taken as u64;
        if taken > 0 {
            self.boundary = self.received;
        }
        *bytes = &bytes[taken..];
    }

    /// Takes bytes into the header until the step has what it needs; false: they did not suffice.
    fn collect(&mut self, bytes: &mut &[u8]) -> bool {
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

    /// Makes the step whose header is complete, and sets the next one.
    fn advance(&mut self) {
        match self.step {
            Step::Magic => self.start(),
            Step::FileHeader => self.pcap_file_header(),
            Step::PacketHeader => self.pcap_packet_header(),
            Step::PacketEnd => self.packet_end(Step::PacketHeader),
            Step::FirstSectionHeader => self.first_section_header(),
            Step::BlockHeader => self.block_header(),
            Step::SectionHeader => self.section_header(),
            Step::InterfaceHeader => self.interface_header(),
            Step::Option => self.option_header(),
            Step::Resolution => self.resolution(),
            Step::Offset => self.offset(),
            Step::PacketBlock => self.packet_block(),
            Step::SimplePacket => self.simple_packet(),
            Step::Trailer => self.trailer(),
            Step::Unstructured => {}
        }
    }

    fn start(&mut self) {
        match magic(&self.header[..4]).flatten() {
            Some(Magic::Pcap { big_endian, nanoseconds }) => {
                (self.format, self.big_endian, self.nanoseconds) = (Format::Pcap, big_endian, nanoseconds);
                self.step = Step::FileHeader;
            }
            Some(Magic::Pcapng) => self.step = Step::FirstSectionHeader,
            None => self.no_capture(),
        }
    }

    fn no_capture(&mut self) {
        self.format = Format::Other;
        self.step = Step::Unstructured;
    }

    /// The begun packet or block makes no sense: from its first byte on, bytes are just bytes.
    fn lose(&mut self) {
        self.unstructured_from = Some(self.boundary);
        self.step = Step::Unstructured;
    }

    /// The next header starts after `skip` bytes.
    fn next(&mut self, step: Step, skip: u32) {
        self.step = step;
        self.skip = skip;
        self.header_bytes = 0;
    }

    /// A unit (packet, block, file header) is whole.
    fn unit_end(&mut self, next: Step) {
        self.boundary = self.received;
        self.next(next, 0);
    }

    fn packet_end(&mut self, next: Step) {
        self.packets += 1;
        // Taken out, so that the state is the same however the bytes were split.
        let at_ns = self.begun_packet_ns.take();
        self.first_packet_ns = self.first_packet_ns.or(at_ns);
        self.last_packet_ns = at_ns.or(self.last_packet_ns);
        self.unit_end(next);
    }

    /// The number of 2 or 4 bytes at `at` in the header, in the byte order of the stream.
    fn header_u16(&self, at: usize) -> u16 {
        let bytes = [self.header[at], self.header[at + 1]];
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn header_u32(&self, at: usize) -> u32 {
        if self.big_endian { u32_at::<true>(&self.header, at) } else { u32_at::<false>(&self.header, at) }
    }
}

/// The 4-byte number at `at`, which the caller knows to be there.
#[inline(always)]
fn u32_at<const BIG_ENDIAN: bool>(bytes: &[u8], at: usize) -> u32 {
    let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    if BIG_ENDIAN { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}

/// No stream is longer: counters have room above it.
const RECEIVED_MAX: u64 = 1 << 62;

/// The largest of [`packet_bytes_max`].
const PACKET_BYTES_MAX_OF_ANY: u32 = 128 << 20;

/// The longest packet of a link type that makes sense: Wireshark's bounds.
fn packet_bytes_max(link_type: u32) -> u32 {
    const USBPCAP: u32 = 249;
    const DBUS: u32 = 231;
    const EBHSCR: u32 = 279;
    match link_type {
        USBPCAP | DBUS => PACKET_BYTES_MAX_OF_ANY,
        EBHSCR => 8 << 20,
        _ => PACKET_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests;
