//! Parser steps of pcapng (draft-ietf-opsawg-pcapng): blocks, each with its type and length at its start and
//! its length again at its end. Section, interface and packet blocks are parsed, others are skipped.
//!
//! Parsing ends at data that readers reject: an impossible block length, a packet longer than its block or
//! than any snaplen, a packet of an interface that the section does not have.

use super::interfaces::{Interface, InterfaceTable};
use super::{
    BlockKind, CaptureFormat, PCAPNG_MAGIC, PacketTracker, PartialBlock, TrackerStep, section_byte_order,
    u32_at,
};
use crate::limits::PACKET_BYTES_MAX;

/// Size of the header of an enhanced or obsolete packet block, up to the packet's bytes.
pub(super) const PACKET_HEADER_BYTES: usize = 28;
/// Size of the length at the end of each block.
const TRAILER_BYTES: u32 = 4;

// Block types. That of a section header is the same in both byte orders.
const SECTION: u32 = u32::from_le_bytes(PCAPNG_MAGIC);
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

/// Returns false if the rest of the partial block is shorter than what the step consumes.
pub(super) fn is_consistent(step: TrackerStep, block: &PartialBlock) -> bool {
    match step {
        TrackerStep::InterfaceHeader => block.total_bytes >= INTERFACE_BYTES_MIN,
        TrackerStep::PacketBlock => block.total_bytes >= PACKET_BYTES_MIN,
        TrackerStep::SimplePacket => block.total_bytes >= SIMPLE_PACKET_BYTES_MIN,
        TrackerStep::Resolution => block.options_bytes >= 4,
        TrackerStep::Offset => block.options_bytes >= 8,
        _ => true,
    }
}

impl PacketTracker {
    pub(super) fn parse_first_section_header(&mut self) {
        if section_byte_order(&self.header).flatten().is_none() {
            return self.set_other();
        }
        self.format = CaptureFormat::Pcapng;
        self.parse_section_header();
    }

    pub(super) fn parse_block_header(&mut self) {
        let block_type = self.header_u32(0);
        if block_type == SECTION {
            // The byte order of its length is given by the next 4 bytes.
            self.step = TrackerStep::SectionHeader;
            return;
        }
        let total = self.header_u32(4);
        let (bytes_min, step) = match block_type {
            INTERFACE => (INTERFACE_BYTES_MIN, TrackerStep::InterfaceHeader),
            SIMPLE_PACKET => (SIMPLE_PACKET_BYTES_MIN, TrackerStep::SimplePacket),
            OBSOLETE_PACKET | ENHANCED_PACKET => (PACKET_BYTES_MIN, TrackerStep::PacketBlock),
            _ => (BLOCK_BYTES_MIN, TrackerStep::Trailer),
        };
        if !self.start_block(total, bytes_min) {
            return self.set_malformed();
        }
        match step {
            TrackerStep::Trailer => self.expect_header(step, total - 8 - TRAILER_BYTES),
            _ => self.step = step,
        }
    }

    pub(super) fn parse_section_header(&mut self) {
        let Some(big_endian) = section_byte_order(&self.header).flatten() else {
            return self.set_malformed();
        };
        self.big_endian = big_endian;
        self.interfaces = InterfaceTable::default();
        let total = self.header_u32(4);
        if !self.start_block(total, SECTION_BYTES_MIN) {
            return self.set_malformed();
        }
        self.expect_header(TrackerStep::Trailer, total - 12 - TRAILER_BYTES);
    }

    /// Stores the block's length. Returns false if no block can have that length.
    fn start_block(&mut self, total_bytes: u32, bytes_min: u32) -> bool {
        self.block.total_bytes = total_bytes;
        self.block.kind = BlockKind::Other;
        total_bytes >= bytes_min
            && total_bytes.is_multiple_of(4)
            && total_bytes <= self.interfaces.block_bytes_max()
    }

    pub(super) fn parse_interface_header(&mut self) {
        let interface = Interface::new(self.header_u16(8));
        if self.interfaces.count() == 0 {
            self.interfaces.set_first_snaplen(self.header_u32(12));
        }
        self.block.kind = BlockKind::Interface(interface);
        self.block.options_bytes = self.block.total_bytes - INTERFACE_BYTES_MIN;
        self.skip_to_option(0);
    }

    /// Skips to the option that starts after `skip` bytes. An option longer than its block ends the options.
    fn skip_to_option(&mut self, skip: u32) {
        match self.block.options_bytes.checked_sub(skip) {
            Some(left) if left >= 4 => {
                self.block.options_bytes = left - 4;
                self.expect_header(TrackerStep::Option, skip);
            }
            _ => self.expect_header(TrackerStep::Trailer, self.block.options_bytes),
        }
    }

    pub(super) fn parse_option_header(&mut self) {
        let (code, length) = (self.header_u16(0), u32::from(self.header_u16(2)));
        let padded = length.next_multiple_of(4);
        let fits = padded <= self.block.options_bytes;
        match (code, length) {
            (OPTION_RESOLUTION, 1) if fits => self.expect_header(TrackerStep::Resolution, 0),
            (OPTION_OFFSET, 8) if fits => self.expect_header(TrackerStep::Offset, 0),
            (OPTION_END, _) => self.expect_header(TrackerStep::Trailer, self.block.options_bytes),
            _ => self.skip_to_option(padded),
        }
    }

    pub(super) fn parse_resolution(&mut self) {
        if let BlockKind::Interface(interface) = &mut self.block.kind {
            interface.resolution = self.header[0];
        }
        self.block.options_bytes -= 4;
        self.skip_to_option(0);
    }

    pub(super) fn parse_offset(&mut self) {
        let (first, second) = (self.header_u32(0), self.header_u32(4));
        let (high, low) = if self.big_endian { (first, second) } else { (second, first) };
        if let BlockKind::Interface(interface) = &mut self.block.kind {
            interface.offset_s = (u64::from(high) << 32 | u64::from(low)).cast_signed();
        }
        self.block.options_bytes -= 8;
        self.skip_to_option(0);
    }

    pub(super) fn parse_packet_block(&mut self) {
        // An obsolete packet block stores the interface in 2 bytes and a drop count in the next 2.
        let obsolete = self.header_u32(0) == OBSOLETE_PACKET;
        let interface = if obsolete { u32::from(self.header_u16(8)) } else { self.header_u32(8) };
        let captured = self.header_u32(20);
        let room = self.block.total_bytes - PACKET_BYTES_MIN;
        if interface >= self.interfaces.count()
            || captured > room
            || captured > self.interfaces.packet_bytes_max(interface)
        {
            return self.set_malformed();
        }
        let ticks = u64::from(self.header_u32(12)) << 32 | u64::from(self.header_u32(16));
        self.partial_packet_ns = self.interfaces.get(interface).map(|interface| interface.time_ns(ticks));
        self.block.kind = BlockKind::Packet;
        self.expect_header(TrackerStep::Trailer, room);
    }

    pub(super) fn parse_simple_packet(&mut self) {
        // The captured length is not stored: it is the packet's length, limited by the snaplen of interface
        // 0.
        let captured = self.interfaces.truncate_to_first_snaplen(self.header_u32(8));
        let room = self.block.total_bytes - SIMPLE_PACKET_BYTES_MIN;
        if self.interfaces.count() == 0 || captured > room || captured > self.interfaces.packet_bytes_max(0) {
            return self.set_malformed();
        }
        self.partial_packet_ns = None;
        self.block.kind = BlockKind::Packet;
        self.expect_header(TrackerStep::Trailer, room);
    }

    pub(super) fn parse_trailer(&mut self) {
        if self.header_u32(0) != self.block.total_bytes {
            return self.set_malformed();
        }
        match std::mem::take(&mut self.block.kind) {
            BlockKind::Other => self.end_unit(TrackerStep::BlockHeader),
            BlockKind::Packet => self.end_packet(TrackerStep::BlockHeader),
            BlockKind::Interface(interface) => {
                self.link_type = self.link_type.or(Some(u32::from(interface.link_type)));
                self.interfaces.push(interface);
                self.end_unit(TrackerStep::BlockHeader);
            }
        }
    }

    /// Skips over the enhanced packet blocks that are complete in `bytes`, and returns their total length.
    /// Unusual blocks are left to the steps above.
    pub(super) fn track_packet_blocks<const BIG_ENDIAN: bool>(&mut self, bytes: &[u8]) -> usize {
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
            self.first_packet_ns = self.first_packet_ns.or_else(|| time_at(0));
            self.last_packet_ns = time_at(last_at);
            self.packets += packets;
        }
        at
    }
}
