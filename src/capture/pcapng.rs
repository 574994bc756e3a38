//! Parser of pcapng (draft-ietf-opsawg-pcapng): blocks, each with its type and length at its start and its length again
//! at its end. Section, interface and packet blocks are parsed, others are skipped.
//!
//! Parsing ends at data that readers reject: an impossible block length, a packet longer than its block or than any
//! snaplen, a packet of an interface that the section does not have.

use serde::{Deserialize, Serialize};

use super::interfaces::{Interface, InterfaceTable};
use super::parser::{
    Header, PacketCounts, PacketParser, Parsed, STEP_BYTES_MAX, header_u16, header_u32, u32_at,
};
use crate::limits::PACKET_BYTES_MAX;

/// Type of a section header block, which starts each stream.
pub(super) const MAGIC: [u8; 4] = *b"\n\r\r\n";

/// Size of the header of an enhanced or obsolete packet block, up to the packet's bytes.
const PACKET_HEADER_BYTES: usize = 28;
const _: () = assert!(PACKET_HEADER_BYTES <= STEP_BYTES_MAX);
/// Size of the length at the end of each block.
const TRAILER_BYTES: u32 = 4;

// Block types. That of a section header is the same in both byte orders.
const SECTION: u32 = u32::from_le_bytes(MAGIC);
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

// Minimum total lengths.
const BLOCK_BYTES_MIN: u32 = 12;
const SECTION_BYTES_MIN: u32 = 28;
const INTERFACE_BYTES_MIN: u32 = 20;
const SIMPLE_PACKET_BYTES_MIN: u32 = 16;
const PACKET_BYTES_MIN: u32 = 32;

const OPTION_END: u16 = 0;
const OPTION_RESOLUTION: u16 = 9;
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

/// Effect of a block's end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
enum BlockKind {
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
    /// Total length of the partial block.
    block_bytes: u32,
    /// Remaining bytes of the options of a partial interface block.
    options_bytes: u32,
    kind: BlockKind,
    /// Interfaces of the section.
    interfaces: InterfaceTable,
    link_type: Option<u32>,
}

/// Byte order of a section header block, by its byte-order magic. `None`: not a section header block.
fn is_big_endian(section: &[u8]) -> Option<bool> {
    match section.get(8..12)? {
        [0x4d, 0x3c, 0x2b, 0x1a] => Some(false),
        [0x1a, 0x2b, 0x3c, 0x4d] => Some(true),
        _ => None,
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
            link_type: None,
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

    fn block_header(&mut self, header: &Header) -> Parsed {
        let block_type = self.u32_at(header, 0);
        if block_type == SECTION {
            // The byte order of its length is given by the next 4 bytes.
            self.step = Step::SectionHeader;
            return Parsed::LongerHeader;
        }
        let total = self.u32_at(header, 4);
        let (bytes_min, step) = match block_type {
            INTERFACE => (INTERFACE_BYTES_MIN, Step::InterfaceHeader),
            SIMPLE_PACKET => (SIMPLE_PACKET_BYTES_MIN, Step::SimplePacket),
            OBSOLETE_PACKET | ENHANCED_PACKET => (PACKET_BYTES_MIN, Step::PacketBlock),
            _ => (BLOCK_BYTES_MIN, Step::Trailer),
        };
        if !self.start_block(total, bytes_min) {
            return Parsed::Malformed;
        }
        match step {
            Step::Trailer => self.expect(step, total - 8 - TRAILER_BYTES),
            _ => {
                self.step = step;
                Parsed::LongerHeader
            }
        }
    }

    fn section_header(&mut self, header: &Header) -> Parsed {
        let Some(big_endian) = is_big_endian(header) else { return Parsed::Malformed };
        self.big_endian = big_endian;
        self.interfaces = InterfaceTable::default();
        let total = self.u32_at(header, 4);
        if !self.start_block(total, SECTION_BYTES_MIN) {
            return Parsed::Malformed;
        }
        self.expect(Step::Trailer, total - 12 - TRAILER_BYTES)
    }

    /// Stores the block's length. Returns false if no block can have that length.
    fn start_block(&mut self, total_bytes: u32, bytes_min: u32) -> bool {
        self.block_bytes = total_bytes;
        self.kind = BlockKind::Other;
        total_bytes >= bytes_min
            && total_bytes.is_multiple_of(4)
            && total_bytes <= self.interfaces.block_bytes_max()
    }

    fn interface_header(&mut self, header: &Header) -> Parsed {
        let interface = Interface::new(self.u16_at(header, 8));
        if self.interfaces.count() == 0 {
            self.interfaces.set_first_snaplen(self.u32_at(header, 12));
        }
        self.kind = BlockKind::Interface(interface);
        self.options_bytes = self.block_bytes - INTERFACE_BYTES_MIN;
        self.skip_to_option(0)
    }

    /// Skips to the option that starts after `skip` bytes. An option longer than its block ends the options.
    fn skip_to_option(&mut self, skip: u32) -> Parsed {
        match self.options_bytes.checked_sub(skip) {
            Some(left) if left >= 4 => {
                self.options_bytes = left - 4;
                self.expect(Step::OptionHeader, skip)
            }
            _ => self.expect(Step::Trailer, self.options_bytes),
        }
    }

    fn option_header(&mut self, header: &Header) -> Parsed {
        let (code, length) = (self.u16_at(header, 0), u32::from(self.u16_at(header, 2)));
        let padded = length.next_multiple_of(4);
        let fits = padded <= self.options_bytes;
        match (code, length) {
            (OPTION_RESOLUTION, 1) if fits => self.expect(Step::Resolution, 0),
            (OPTION_OFFSET, 8) if fits => self.expect(Step::Offset, 0),
            (OPTION_END, _) => self.expect(Step::Trailer, self.options_bytes),
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

    fn packet_block(&mut self, header: &Header) -> Parsed {
        // An obsolete packet block stores the interface in 2 bytes and a drop count in the next 2.
        let obsolete = self.u32_at(header, 0) == OBSOLETE_PACKET;
        let interface = if obsolete { u32::from(self.u16_at(header, 8)) } else { self.u32_at(header, 8) };
        let captured = self.u32_at(header, 20);
        let room = self.block_bytes - PACKET_BYTES_MIN;
        if interface >= self.interfaces.count()
            || captured > room
            || captured > self.interfaces.packet_bytes_max(interface)
        {
            return Parsed::Malformed;
        }
        let ticks = u64::from(self.u32_at(header, 12)) << 32 | u64::from(self.u32_at(header, 16));
        let time_ns = self.interfaces.get(interface).map(|interface| interface.time_ns(ticks));
        self.kind = BlockKind::Packet { time_ns };
        self.expect(Step::Trailer, room)
    }

    fn simple_packet(&mut self, header: &Header) -> Parsed {
        // The captured length is not stored: it is the packet's length, limited by the snaplen of interface 0.
        let captured = self.interfaces.truncate_to_first_snaplen(self.u32_at(header, 8));
        let room = self.block_bytes - SIMPLE_PACKET_BYTES_MIN;
        if self.interfaces.count() == 0 || captured > room || captured > self.interfaces.packet_bytes_max(0) {
            return Parsed::Malformed;
        }
        self.kind = BlockKind::Packet { time_ns: None };
        self.expect(Step::Trailer, room)
    }

    fn trailer(&mut self, header: &Header) -> Parsed {
        if self.u32_at(header, 0) != self.block_bytes {
            return Parsed::Malformed;
        }
        self.step = Step::BlockHeader;
        match std::mem::take(&mut self.kind) {
            BlockKind::Other => Parsed::UnitEnd,
            BlockKind::Packet { time_ns } => Parsed::PacketEnd { time_ns },
            BlockKind::Interface(interface) => {
                self.link_type = self.link_type.or(Some(u32::from(interface.link_type)));
                self.interfaces.push(interface);
                Parsed::UnitEnd
            }
        }
    }

    /// Counts enhanced packet blocks. Unusual blocks are left to the steps.
    #[inline]
    fn count_packets<const BIG_ENDIAN: bool>(&self, bytes: &[u8], counts: &mut PacketCounts) -> usize {
        let (mut at, mut last_at, mut packets) = (0, 0, 0);
        let (known, block_bytes_max) = (self.interfaces.known_count(), self.interfaces.block_bytes_max());
        while let Some(header) = bytes[at..].first_chunk::<PACKET_HEADER_BYTES>() {
            let word = |at| u32_at::<BIG_ENDIAN>(header, at);
            let (total, interface, captured) = (word(4), word(8), word(20));
            let usual = word(0) == ENHANCED_PACKET
                && total >= PACKET_BYTES_MIN
                && total.is_multiple_of(4)
                && total <= block_bytes_max
                && interface < known
                && captured <= PACKET_BYTES_MAX.min(total - PACKET_BYTES_MIN);
            let end = at + total as usize;
            let trailer_at = end.wrapping_sub(TRAILER_BYTES as usize);
            if !usual || end > bytes.len() || u32_at::<BIG_ENDIAN>(bytes, trailer_at) != total {
                break;
            }
            (last_at, at) = (at, end);
            packets += 1;
        }
        if packets > 0 {
            let word = |at| u32_at::<BIG_ENDIAN>(bytes, at);
            let time_at = |at| {
                let ticks = u64::from(word(at + 12)) << 32 | u64::from(word(at + 16));
                self.interfaces.get(word(at + 8)).map(|interface| interface.time_ns(ticks))
            };
            let first_ns = counts.first_ns.or_else(|| time_at(0));
            counts.add(packets, first_ns, time_at(last_at));
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
            Step::SectionHeader | Step::SimplePacket => 12,
            Step::InterfaceHeader => 16,
            Step::PacketBlock => PACKET_HEADER_BYTES,
        }
    }

    #[inline]
    fn parse(&mut self, header: &Header) -> Parsed {
        match self.step {
            Step::BlockHeader => self.block_header(header),
            Step::SectionHeader => self.section_header(header),
            Step::InterfaceHeader => self.interface_header(header),
            Step::OptionHeader => self.option_header(header),
            Step::Resolution => self.resolution(header),
            Step::Offset => self.offset(header),
            Step::PacketBlock => self.packet_block(header),
            Step::SimplePacket => self.simple_packet(header),
            Step::Trailer => self.trailer(header),
        }
    }

    #[inline]
    fn count_complete_packets(&self, bytes: &[u8], counts: &mut PacketCounts) -> usize {
        match (self.step, self.big_endian) {
            (Step::BlockHeader, false) => self.count_packets::<false>(bytes, counts),
            (Step::BlockHeader, true) => self.count_packets::<true>(bytes, counts),
            _ => 0,
        }
    }

    fn link_type(&self) -> Option<u32> {
        self.link_type
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
        block_fits && self.interfaces.is_consistent()
    }
}
