//! The steps of a pcapng stream (draft-ietf-opsawg-pcapng): blocks, each with its type and length at its start and
//! its length again at its end. Section, interface and packet blocks are looked into, others go by.
//!
//! A length that no block can have, a packet longer than its block or than any snaplen, a packet of an interface
//! that the section does not have: there a reader stops, and there the follower stops too.

use super::interfaces::{Interface, Interfaces};
use super::{Block, BlockKind, Follower, Format, PCAPNG_MAGIC, Step, section_order, u32_at};
use crate::limits::PACKET_BYTES_MAX;

/// Of an enhanced or an obsolete packet block, up to the packet's bytes.
pub(super) const PACKET_HEADER_BYTES: usize = 28;
/// The length that ends each block.
const TRAILER_BYTES: u32 = 4;

// Block types. That of a section header reads the same in both byte orders.
const SECTION: u32 = u32::from_le_bytes(PCAPNG_MAGIC);
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

// The least total lengths.
const BLOCK_BYTES_MIN: u32 = 12;
const SECTION_BYTES_MIN: u32 = 28;
const INTERFACE_BYTES_MIN: u32 = 20;
const SIMPLE_PACKET_BYTES_MIN: u32 = 16;
const PACKET_BYTES_MIN: u32 = 32;

// Options of an interface block.
const OPTION_END: u16 = 0;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;

/// False if the rest of the begun block is shorter than what the step will take off it.
pub(super) fn is_sound(step: Step, block: &Block) -> bool {
    match step {
        Step::InterfaceHeader => block.total_bytes >= INTERFACE_BYTES_MIN,
        Step::PacketBlock => block.total_bytes >= PACKET_BYTES_MIN,
        Step::SimplePacket => block.total_bytes >= SIMPLE_PACKET_BYTES_MIN,
        Step::Resolution => block.options_bytes >= 4,
        Step::Offset => block.options_bytes >= 8,
        _ => true,
    }
}

impl Follower {
    pub(super) fn first_section_header(&mut self) {
        if section_order(&self.header).flatten().is_none() {
            return self.no_capture();
        }
        self.format = Format::Pcapng;
        self.section_header();
    }

    pub(super) fn block_header(&mut self) {
        let block_type = self.header_u32(0);
        if block_type == SECTION {
            // Its length is in a byte order that the next 4 bytes tell.
            self.step = Step::SectionHeader;
            return;
        }
        let total = self.header_u32(4);
        let (bytes_min, step) = match block_type {
            INTERFACE => (INTERFACE_BYTES_MIN, Step::InterfaceHeader),
            SIMPLE_PACKET => (SIMPLE_PACKET_BYTES_MIN, Step::SimplePacket),
            OBSOLETE_PACKET | ENHANCED_PACKET => (PACKET_BYTES_MIN, Step::PacketBlock),
            _ => (BLOCK_BYTES_MIN, Step::Trailer),
        };
        if !self.begin_block(total, bytes_min) {
            return self.lose();
        }
        match step {
            Step::Trailer => self.next(step, total - 8 - TRAILER_BYTES),
            _ => self.step = step,
        }
    }

    pub(super) fn section_header(&mut self) {
        let Some(big_endian) = section_order(&self.header).flatten() else { return self.lose() };
        self.big_endian = big_endian;
        self.interfaces = Interfaces::default();
        let total = self.header_u32(4);
        if !self.begin_block(total, SECTION_BYTES_MIN) {
            return self.lose();
        }
        self.next(Step::Trailer, total - 12 - TRAILER_BYTES);
    }

    /// Notes the block's length; false if no block has such a length.
    fn begin_block(&mut self, total_bytes: u32, bytes_min: u32) -> bool {
        self.block.total_bytes = total_bytes;
        self.block.kind = BlockKind::Other;
        total_bytes >= bytes_min
            && total_bytes.is_multiple_of(4)
            && total_bytes <= self.interfaces.block_bytes_max()
    }

    pub(super) fn interface_header(&mut self) {
        let interface = Interface::new(self.header_u16(8));
        if self.interfaces.count() == 0 {
            self.interfaces.set_first_snaplen(self.header_u32(12));
        }
        self.block.kind = BlockKind::Interface(interface);
        self.block.options_bytes = self.block.total_bytes - INTERFACE_BYTES_MIN;
        self.next_option(0);
    }

    /// Goes to the option that starts after `skip` bytes. An option that is longer than its block ends them.
    fn next_option(&mut self, skip: u32) {
        match self.block.options_bytes.checked_sub(skip) {
            Some(left) if left >= 4 => {
                self.block.options_bytes = left - 4;
                self.next(Step::Option, skip);
            }
            _ => self.next(Step::Trailer, self.block.options_bytes),
        }
    }

    pub(super) fn option_header(&mut self) {
        let (code, length) = (self.header_u16(0), u32::from(self.header_u16(2)));
        let padded = length.next_multiple_of(4);
        let fits = padded <= self.block.options_bytes;
        match (code, length) {
            (OPTION_RESOLUTION, 1) if fits => self.next(Step::Resolution, 0),
            (OPTION_OFFSET, 8) if fits => self.next(Step::Offset, 0),
            (OPTION_END, _) => self.next(Step::Trailer, self.block.options_bytes),
            _ => self.next_option(padded),
        }
    }

    pub(super) fn resolution(&mut self) {
        if let BlockKind::Interface(interface) = &mut self.block.kind {
            interface.resolution = self.header[0];
        }
        self.block.options_bytes -= 4;
        self.next_option(0);
    }

    pub(super) fn offset(&mut self) {
        let (first, second) = (self.header_u32(0), self.header_u32(4));
        let (high, low) = if self.big_endian { (first, second) } else { (second, first) };
        if let BlockKind::Interface(interface) = &mut self.block.kind {
            interface.offset_s = (u64::from(high) << 32 | u64::from(low)).cast_signed();
        }
        self.block.options_bytes -= 8;
        self.next_option(0);
    }

    pub(super) fn packet_block(&mut self) {
        // An obsolete packet block has 2 bytes for the interface, and a drop count in the other 2.
        let obsolete = self.header_u32(0) == OBSOLETE_PACKET;
        let interface = if obsolete { u32::from(self.header_u16(8)) } else { self.header_u32(8) };
        let captured = self.header_u32(20);
        let room = self.block.total_bytes - PACKET_BYTES_MIN;
        if interface >= self.interfaces.count()
            || captured > room
            || captured > self.interfaces.packet_bytes_max(interface)
        {
            return self.lose();
        }
        let ticks = u64::from(self.header_u32(12)) << 32 | u64::from(self.header_u32(16));
        self.begun_packet_ns = self.interfaces.get(interface).map(|interface| interface.time_ns(ticks));
        self.block.kind = BlockKind::Packet;
        self.next(Step::Trailer, room);
    }

    pub(super) fn simple_packet(&mut self) {
        // Its captured length is not written down: the packet's length, or the snaplen of interface 0.
        let captured = self.interfaces.cut_to_first_snaplen(self.header_u32(8));
        let room = self.block.total_bytes - SIMPLE_PACKET_BYTES_MIN;
        if self.interfaces.count() == 0 || captured > room || captured > self.interfaces.packet_bytes_max(0) {
            return self.lose();
        }
        self.begun_packet_ns = None;
        self.block.kind = BlockKind::Packet;
        self.next(Step::Trailer, room);
    }

    pub(super) fn trailer(&mut self) {
        if self.header_u32(0) != self.block.total_bytes {
            return self.lose();
        }
        match std::mem::take(&mut self.block.kind) {
            BlockKind::Other => self.unit_end(Step::BlockHeader),
            BlockKind::Packet => self.packet_end(Step::BlockHeader),
            BlockKind::Interface(interface) => {
                self.link_type = self.link_type.or(Some(u32::from(interface.link_type)));
                self.interfaces.push(interface);
                self.unit_end(Step::BlockHeader);
            }
        }
    }

    /// Goes over the enhanced packet blocks that lie whole in these bytes; returns how many bytes they are. What
    /// is not quite usual is left to the steps above.
    pub(super) fn whole_packet_blocks<const BIG_ENDIAN: bool>(&mut self, bytes: &[u8]) -> usize {
        let (mut at, mut last_at, mut packets) = (0, 0, 0);
        let (known, block_bytes_max) = (self.interfaces.known(), self.interfaces.block_bytes_max());
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
