//! Parser of pcapng (draft-ietf-opsawg-pcapng): blocks, each with its type and length at its start and its length again
//! at its end. Section, interface, packet and statistics blocks are parsed, others are skipped.
//!
//! The lengths of blocks are the structure of the format. If they are impossible, parsing ends. Anything else that
//! readers reject is a finding, and parsing goes on with the next block.

use serde::{Deserialize, Serialize};

use super::damage::Finding;
use super::formats;
use super::interfaces::{Interface, InterfaceTable};
use super::parser::{
    ANY_PACKET_BYTES_MAX, Header, Notes, PacketCounts, PacketData, PacketParser, Parsed, STEP_BYTES_MAX,
    header_u16, header_u32, packet_bytes_max, u32_at,
};
use crate::limits::{BLOCK_BYTES_MAX, PACKET_BYTES_MAX};

/// Type of a section header block, which starts each stream.
pub(super) const MAGIC: [u8; 4] = *b"\n\r\r\n";

/// Size of the header of an enhanced or obsolete packet block, up to the packet's bytes.
const PACKET_HEADER_BYTES: usize = 28;
const _: () = assert!(PACKET_HEADER_BYTES <= STEP_BYTES_MAX);
/// Size of the length at the end of each block.
const TRAILER_BYTES: u32 = 4;

// Block types. That of a section header is the same in both byte orders.
const SECTION: u32 = u32::from_le_bytes(MAGIC);
pub(super) const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
pub(super) const SECRETS: u32 = 10;
const CUSTOM: u32 = 0xbad;
const CUSTOM_NOT_COPIED: u32 = 0x4000_0bad;

// Minimum total lengths.
const BLOCK_BYTES_MIN: u32 = 12;
const SECTION_BYTES_MIN: u32 = 28;
const INTERFACE_BYTES_MIN: u32 = 20;
const SIMPLE_PACKET_BYTES_MIN: u32 = 16;
const STATISTICS_BYTES_MIN: u32 = 24;
const PACKET_BYTES_MIN: u32 = 32;

const OPTION_END: u16 = 0;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_FILTER: u16 = 11;
const OPTION_OFFSET: u16 = 14;

/// Header that is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    BlockHeader,
    SectionHeader,
    InterfaceHeader,
    OptionHeader,
    Resolution,
    Offset,
    PacketBlock,
    SimplePacket,
    Trailer,
}

/// Kind of the partial block, with what its end has an effect on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
enum BlockKind {
    /// No effect: a section header, statistics, an unknown or a bad block.
    #[default]
    Other,
    Packet {
        time_ns: Option<i64>,
    },
    Interface(Interface),
}

/// Parser of a pcapng stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PcapngParser {
    big_endian: bool,
    step: Step,
    /// Total length of the partial block, rounded up to a multiple of 4.
    block_bytes: u32,
    /// Remaining bytes of the options of a partial block.
    options_bytes: u32,
    kind: BlockKind,
    /// Interfaces of the section.
    interfaces: InterfaceTable,
}

/// Byte order of a section header block, by its byte-order magic. `None`: not a section header block.
pub(super) fn is_big_endian(section: &[u8]) -> Option<bool> {
    match section.get(8..12)? {
        [0x4d, 0x3c, 0x2b, 0x1a] => Some(false),
        [0x1a, 0x2b, 0x3c, 0x4d] => Some(true),
        _ => None,
    }
}

/// Reports whether readers reject this option of a block of this kind, because its length is wrong.
fn is_option_rejected(kind: &BlockKind, code: u16, length: u16) -> bool {
    const CUSTOM_OPTIONS: [u16; 4] = [2988, 2989, 19372, 19373];
    match (kind, code) {
        (_, code) if CUSTOM_OPTIONS.contains(&code) => length < 4,
        (BlockKind::Interface(_), OPTION_FILTER) => length < 1,
        // Flags and queue, drop count and packet id, verdict.
        (BlockKind::Packet { .. }, 2 | 6) => length != 4,
        (BlockKind::Packet { .. }, 4 | 5) => length != 8,
        (BlockKind::Packet { .. }, 7) => length < 1,
        _ => false,
    }
}

impl PcapngParser {
    /// Creates the parser if these bytes are a section header.
    pub(super) fn new(start: &[u8]) -> Option<PcapngParser> {
        Some(PcapngParser {
            big_endian: is_big_endian(start)?,
            step: Step::SectionHeader,
            block_bytes: 0,
            options_bytes: 0,
            kind: BlockKind::Other,
            interfaces: InterfaceTable::default(),
        })
    }

    fn u16_at(&self, header: &Header, at: usize) -> u16 {
        header_u16(header, at, self.big_endian)
    }

    fn u32_at(&self, header: &Header, at: usize) -> u32 {
        header_u32(header, at, self.big_endian)
    }

    /// Expects the next header after `skip` bytes.
    fn expect(&mut self, step: Step, skip: u32) -> Parsed {
        self.step = step;
        Parsed::Header { skip }
    }

    fn block_header(&mut self, header: &Header, notes: &mut Notes) -> Parsed {
        let block_type = self.u32_at(header, 0);
        if block_type == SECTION {
            // The byte order of its length is given by the next 4 bytes.
            self.step = Step::SectionHeader;
            return Parsed::LongerHeader;
        }
        if formats::starts_appended(&header[..8]) {
            return Parsed::AppendedCapture;
        }
        let (bytes_min, step) = match block_type {
            INTERFACE => (INTERFACE_BYTES_MIN, Step::InterfaceHeader),
            SIMPLE_PACKET => (SIMPLE_PACKET_BYTES_MIN, Step::SimplePacket),
            OBSOLETE_PACKET | ENHANCED_PACKET => (PACKET_BYTES_MIN, Step::PacketBlock),
            STATISTICS => (STATISTICS_BYTES_MIN, Step::OptionHeader),
            SECRETS => (20, Step::Trailer),
            CUSTOM | CUSTOM_NOT_COPIED => (16, Step::Trailer),
            _ => (BLOCK_BYTES_MIN, Step::Trailer),
        };
        if let Err(finding) = self.start_block(self.u32_at(header, 4), BLOCK_BYTES_MIN) {
            return Parsed::Malformed(finding);
        }
        let total = self.block_bytes;
        if total < bytes_min {
            return self.skip_bad_block(8, Finding::ShortBlock { block_type, total, min: bytes_min }, notes);
        }
        match step {
            Step::Trailer => self.expect(step, total - 8 - TRAILER_BYTES),
            Step::OptionHeader => {
                // Interface and time come before the options.
                self.options_bytes = total - 8 - TRAILER_BYTES;
                self.skip_to_option(STATISTICS_BYTES_MIN - BLOCK_BYTES_MIN)
            }
            _ => {
                self.step = step;
                Parsed::LongerHeader
            }
        }
    }

    fn section_header(&mut self, header: &Header, notes: &mut Notes) -> Parsed {
        let Some(big_endian) = is_big_endian(header) else {
            return Parsed::Malformed(Finding::ByteOrder(self.u32_at(header, 8)));
        };
        self.big_endian = big_endian;
        self.interfaces = InterfaceTable::default();
        if let Err(finding) = self.start_block(self.u32_at(header, 4), SECTION_BYTES_MIN) {
            return Parsed::Malformed(finding);
        }
        let (major, minor) = (self.u16_at(header, 12), self.u16_at(header, 14));
        if major != 1 || (minor != 0 && minor != 2) {
            notes.finding = Some(Finding::SectionVersion(major, minor));
        }
        // The section's length, which readers ignore, comes before the options.
        self.options_bytes = self.block_bytes - 16 - TRAILER_BYTES;
        self.skip_to_option(8)
    }

    /// Stores the block's length, rounded up as readers do. Fails if no block can have that length.
    fn start_block(&mut self, total_bytes: u32, bytes_min: u32) -> Result<(), Finding> {
        self.kind = BlockKind::Other;
        if total_bytes > BLOCK_BYTES_MAX || total_bytes.next_multiple_of(4) < bytes_min {
            return Err(Finding::BlockLength(total_bytes));
        }
        self.block_bytes = total_bytes.next_multiple_of(4);
        Ok(())
    }

    /// Notes a finding and skips the rest of the block, of which `taken` bytes are behind the parser.
    fn skip_bad_block(&mut self, taken: u32, finding: Finding, notes: &mut Notes) -> Parsed {
        notes.finding = Some(finding);
        self.expect(Step::Trailer, self.block_bytes - taken - TRAILER_BYTES)
    }

    fn interface_header(&mut self, header: &Header, notes: &mut Notes) -> Parsed {
        let interface = Interface::new(self.u16_at(header, 8));
        if self.interfaces.count() == 0 {
            self.interfaces.set_first_snaplen(self.u32_at(header, 12));
        }
        notes.link_type = Some(u32::from(interface.link_type));
        self.kind = BlockKind::Interface(interface);
        self.options_bytes = self.block_bytes - INTERFACE_BYTES_MIN;
        self.skip_to_option(0)
    }

    /// Skips to the option that starts after `skip` bytes.
    fn skip_to_option(&mut self, skip: u32) -> Parsed {
        match self.options_bytes.checked_sub(skip) {
            Some(left) if left >= 4 => {
                self.options_bytes = left - 4;
                self.expect(Step::OptionHeader, skip)
            }
            _ => self.expect(Step::Trailer, self.options_bytes),
        }
    }

    fn option_header(&mut self, header: &Header, notes: &mut Notes) -> Parsed {
        let (code, length) = (self.u16_at(header, 0), self.u16_at(header, 2));
        let padded = u32::from(length).next_multiple_of(4);
        if padded > self.options_bytes && code != OPTION_END {
            notes.finding = Some(Finding::OptionRoom { code, length });
            return self.expect(Step::Trailer, self.options_bytes);
        }
        if is_option_rejected(&self.kind, code, length) {
            notes.finding = Some(Finding::OptionLength { code, length });
        }
        match (code, length, &self.kind) {
            (OPTION_END, ..) => self.expect(Step::Trailer, self.options_bytes),
            (OPTION_RESOLUTION, 1, BlockKind::Interface(_)) => self.expect(Step::Resolution, 0),
            (OPTION_OFFSET, 8, BlockKind::Interface(_)) => self.expect(Step::Offset, 0),
            _ => self.skip_to_option(padded),
        }
    }

    fn resolution(&mut self, header: &Header) -> Parsed {
        if let BlockKind::Interface(interface) = &mut self.kind {
            interface.resolution = header[0];
        }
        self.options_bytes -= 4;
        self.skip_to_option(0)
    }

    fn offset(&mut self, header: &Header) -> Parsed {
        let (first, second) = (self.u32_at(header, 0), self.u32_at(header, 4));
        let (high, low) = if self.big_endian { (first, second) } else { (second, first) };
        if let BlockKind::Interface(interface) = &mut self.kind {
            interface.offset_s = (u64::from(high) << 32 | u64::from(low)).cast_signed();
        }
        self.options_bytes -= 8;
        self.skip_to_option(0)
    }

    /// Largest packet of an interface. That of an unknown one is unknown.
    fn packet_bytes_max(&self, interface: u32) -> u32 {
        let known = self.interfaces.get(interface);
        known.map_or(ANY_PACKET_BYTES_MAX, |interface| packet_bytes_max(interface.link_type.into()))
    }

    fn packet_block(&mut self, header: &Header, notes: &mut Notes) -> Parsed {
        // An obsolete packet block stores the interface in 2 bytes and a drop count in the next 2.
        let obsolete = self.u32_at(header, 0) == OBSOLETE_PACKET;
        let interface = if obsolete { u32::from(self.u16_at(header, 8)) } else { self.u32_at(header, 8) };
        let captured = self.u32_at(header, 20);
        let room = self.block_bytes - PACKET_BYTES_MIN;
        if captured > room {
            return self.skip_bad_block(28, Finding::PacketRoom { captured, room }, notes);
        }
        let (count, max) = (self.interfaces.count(), self.packet_bytes_max(interface));
        if interface >= count {
            notes.finding = Some(Finding::Interface { number: interface, count });
        } else if captured > max {
            notes.finding = Some(Finding::LongPacket { captured, max });
        }
        let ticks = u64::from(self.u32_at(header, 12)) << 32 | u64::from(self.u32_at(header, 16));
        let time_ns = self.interfaces.get(interface).and_then(|interface| interface.time_ns(ticks));
        self.kind = BlockKind::Packet { time_ns };
        self.options_bytes = room;
        self.skip_to_option(captured.next_multiple_of(4))
    }

    fn simple_packet(&mut self, header: &Header, notes: &mut Notes) -> Parsed {
        // The captured length is not stored: it is the packet's length, limited by the snaplen of interface 0.
        let captured = self.interfaces.truncate_to_first_snaplen(self.u32_at(header, 8));
        let room = self.block_bytes - SIMPLE_PACKET_BYTES_MIN;
        if captured > room {
            return self.skip_bad_block(12, Finding::PacketRoom { captured, room }, notes);
        }
        let max = self.packet_bytes_max(0);
        if self.interfaces.count() == 0 {
            notes.finding = Some(Finding::Interface { number: 0, count: 0 });
        } else if captured > max {
            notes.finding = Some(Finding::LongPacket { captured, max });
        }
        self.kind = BlockKind::Packet { time_ns: None };
        self.expect(Step::Trailer, room)
    }

    fn trailer(&mut self, header: &Header) -> Parsed {
        let (first, second) = (self.block_bytes, self.u32_at(header, 0));
        if second.checked_next_multiple_of(4) != Some(first) {
            return Parsed::Malformed(Finding::Trailer { first, second });
        }
        self.step = Step::BlockHeader;
        match std::mem::take(&mut self.kind) {
            BlockKind::Other => Parsed::UnitEnd,
            BlockKind::Packet { time_ns } => Parsed::PacketEnd { time_ns },
            BlockKind::Interface(interface) => {
                self.interfaces.push(interface);
                Parsed::UnitEnd
            }
        }
    }

    /// Counts enhanced packet blocks without options. Unusual blocks are left to the steps.
    #[inline]
    fn count_packets<const BIG_ENDIAN: bool>(&self, bytes: &[u8], counts: &mut PacketCounts) -> usize {
        let mut at = 0;
        let known = self.interfaces.known_count();
        let mut last = None;
        while let Some(header) = bytes[at..].first_chunk::<PACKET_HEADER_BYTES>() {
            let word = |at| u32_at::<BIG_ENDIAN>(header, at);
            let (total, number, captured) = (word(4), word(8), word(20));
            let is_usual = word(0) == ENHANCED_PACKET
                && number < known
                && captured <= PACKET_BYTES_MAX
                && total == PACKET_BYTES_MIN + captured.next_multiple_of(4);
            let end = at + total as usize;
            let trailer_at = end.wrapping_sub(TRAILER_BYTES as usize);
            if !is_usual || end > bytes.len() || u32_at::<BIG_ENDIAN>(bytes, trailer_at) != total {
                break;
            }
            let interface = match last {
                Some((last_number, interface)) if last_number == number => interface,
                _ => self.interfaces.get(number),
            };
            last = Some((number, interface));
            let ticks = u64::from(word(12)) << 32 | u64::from(word(16));
            counts.add(interface.and_then(|interface| interface.time_ns(ticks)));
            at = end;
        }
        at
    }
}

impl PacketParser for PcapngParser {
    #[inline]
    fn step_bytes(&self) -> usize {
        match self.step {
            Step::OptionHeader | Step::Resolution | Step::Trailer => 4,
            Step::BlockHeader | Step::Offset => 8,
            Step::SimplePacket => 12,
            Step::SectionHeader | Step::InterfaceHeader => 16,
            Step::PacketBlock => PACKET_HEADER_BYTES,
        }
    }

    #[inline]
    fn parse(&mut self, header: &Header, notes: &mut Notes) -> Parsed {
        match self.step {
            Step::BlockHeader => self.block_header(header, notes),
            Step::SectionHeader => self.section_header(header, notes),
            Step::InterfaceHeader => self.interface_header(header, notes),
            Step::OptionHeader => self.option_header(header, notes),
            Step::Resolution => self.resolution(header),
            Step::Offset => self.offset(header),
            Step::PacketBlock => self.packet_block(header, notes),
            Step::SimplePacket => self.simple_packet(header, notes),
            Step::Trailer => self.trailer(header),
        }
    }

    #[inline]
    fn packet_data(&self, record: &[u8]) -> Option<PacketData> {
        let word = |at: usize| {
            let bytes = record.get(at..)?.first_chunk::<4>()?;
            Some(if self.big_endian { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) })
        };
        let (number, start, captured, original) = match word(0)? {
            ENHANCED_PACKET => (word(8)?, PACKET_HEADER_BYTES, word(20)?, word(24)?),
            OBSOLETE_PACKET => {
                // The interface in 2 bytes, and a drop count in the next 2.
                let number = if self.big_endian { word(8)? >> 16 } else { word(8)? & 0xffff };
                (number, PACKET_HEADER_BYTES, word(20)?, word(24)?)
            }
            SIMPLE_PACKET => (0, 12, self.interfaces.truncate_to_first_snaplen(word(8)?), word(8)?),
            _ => return None,
        };
        let link_type = u32::from(self.interfaces.get(number)?.link_type);
        Some(PacketData { link_type, start, captured: captured as usize, original })
    }

    #[inline]
    fn count_complete_packets(&self, bytes: &[u8], counts: &mut PacketCounts) -> usize {
        match (self.step, self.big_endian) {
            (Step::BlockHeader, false) => self.count_packets::<false>(bytes, counts),
            (Step::BlockHeader, true) => self.count_packets::<true>(bytes, counts),
            _ => 0,
        }
    }

    fn is_consistent(&self) -> bool {
        // A step must not consume more than the rest of the block.
        let block_fits = match self.step {
            Step::InterfaceHeader => self.block_bytes >= INTERFACE_BYTES_MIN,
            Step::PacketBlock => self.block_bytes >= PACKET_BYTES_MIN,
            Step::SimplePacket => self.block_bytes >= SIMPLE_PACKET_BYTES_MIN,
            Step::Resolution => self.options_bytes >= 4,
            Step::Offset => self.options_bytes >= 8,
            _ => true,
        };
        block_fits && self.block_bytes <= BLOCK_BYTES_MAX && self.interfaces.is_consistent()
    }
}
