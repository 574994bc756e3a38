//! Interface between the packet tracker and the parsers of the formats, and what the parsers share.

use serde::{Deserialize, Serialize};

use super::damage::{DamageKind, Finding};
use crate::limits::PACKET_BYTES_MAX;

/// Longest header that a step may need: that of a pcapng packet block, and of an Ixia capture.
pub(super) const STEP_BYTES_MAX: usize = 28;

/// Header bytes collected so far, from the start of the header.
pub(super) type Header = [u8; STEP_BYTES_MAX];

/// Parser of one format: a state machine with one step per header. The tracker collects the header of each step,
/// whatever the chunks are, and skips what needs no parsing.
pub(super) trait PacketParser {
    /// Number of header bytes that the next step needs, from the start of the header. At most [`STEP_BYTES_MAX`].
    fn step_bytes(&self) -> usize;

    /// Executes the next step. Its header is complete.
    fn parse(&mut self, header: &Header, notes: &mut Notes) -> Parsed;

    /// Counts packets that are complete in `bytes`, which start where the next header starts. Returns their total length.
    /// This is an optional fast path: whatever it does not handle goes through [`parse`](Self::parse), with the same
    /// result.
    fn count_complete_packets(&self, _bytes: &[u8], _counts: &mut PacketCounts) -> usize {
        0
    }

    /// Locates the packet's bytes in the record of a packet that this parser has found in this section of the stream.
    /// `None`: it has none that are on a network.
    fn packet_data(&self, record: &[u8]) -> Option<PacketData>;

    /// Returns false for a deserialized parser that no input leads to, as far as continuing could do harm.
    fn is_consistent(&self) -> bool {
        true
    }
}

/// Bytes of a packet within its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PacketData {
    /// Link type (LINKTYPE_ value) of the interface.
    pub(crate) link_type: u32,
    /// Offset in the record.
    pub(crate) start: usize,
    /// Number of bytes captured.
    pub(crate) captured: usize,
    /// Number of bytes that the packet had on the wire.
    pub(crate) original: u32,
}

impl PacketData {
    /// Bytes of the packet. Empty if the record is shorter than it says.
    pub(crate) fn bytes<'r>(&self, record: &'r [u8]) -> &'r [u8] {
        record.get(self.start..self.start.saturating_add(self.captured)).unwrap_or_default()
    }
}

/// What a step found besides its result.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notes {
    /// Something that readers reject, although parsing goes on.
    pub(super) finding: Option<Finding>,
    /// Link type of an interface that was described here.
    pub(super) link_type: Option<u32>,
}

impl Notes {
    /// Reports whether readers stop here.
    pub(super) fn is_rejected(&self) -> bool {
        self.finding.is_some_and(|finding| finding.kind() == DamageKind::BadBlock)
    }
}

/// Result of a parser's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The same header is longer than known before: `step_bytes` has grown.
    LongerHeader,
    /// The next header starts after `skip` bytes.
    Header { skip: u32 },
    /// A unit that is not a packet ends here: a file header, a block.
    UnitEnd,
    /// A packet ends here. The time is in nanoseconds since 1970.
    PacketEnd { time_ns: Option<i64> },
    /// The unit is malformed, and where the next one starts is unknown.
    Malformed(Finding),
    /// Another capture starts where this unit should start.
    AppendedCapture,
    /// The stream only looked like this format.
    NotThisFormat,
}

/// Number of packets in a stream, and the earliest and latest of their times. Nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PacketCounts {
    pub(super) packets: u64,
    /// Number of packets without a time: the format has none for them, or it cannot be a time.
    pub(super) without_time: u64,
    pub(super) earliest_ns: Option<i64>,
    pub(super) latest_ns: Option<i64>,
}

impl PacketCounts {
    /// Adds a packet.
    #[inline]
    pub(super) fn add(&mut self, time_ns: Option<i64>) {
        match time_ns {
            Some(time_ns) => self.add_range(1, time_ns, time_ns),
            None => {
                self.packets += 1;
                self.without_time += 1;
            }
        }
    }

    /// Adds packets with their earliest and latest time.
    #[inline]
    pub(super) fn add_range(&mut self, packets: u64, earliest_ns: i64, latest_ns: i64) {
        self.packets += packets;
        self.earliest_ns = Some(self.earliest_ns.map_or(earliest_ns, |known| known.min(earliest_ns)));
        self.latest_ns = Some(self.latest_ns.map_or(latest_ns, |known| known.max(latest_ns)));
    }
}

/// The 4-byte number at `at`, which must be within `bytes`.
#[inline(always)]
pub(super) fn u32_at<const BIG_ENDIAN: bool>(bytes: &[u8], at: usize) -> u32 {
    let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    if BIG_ENDIAN { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}

/// The 4-byte number at `at` in a header.
pub(super) fn header_u32(header: &Header, at: usize, big_endian: bool) -> u32 {
    if big_endian { u32_at::<true>(header, at) } else { u32_at::<false>(header, at) }
}

/// The 2-byte number at `at` in a header.
pub(super) fn header_u16(header: &Header, at: usize, big_endian: bool) -> u16 {
    let bytes = [header[at], header[at + 1]];
    if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
}

/// Maximum of [`packet_bytes_max`] over all link types.
pub(super) const ANY_PACKET_BYTES_MAX: u32 = 128 << 20;

/// Largest packet of a link type that Wireshark 4.0 reads.
pub(super) fn packet_bytes_max(link_type: u32) -> u32 {
    const USB_FREEBSD: u32 = 186;
    const USB_LINUX: u32 = 189;
    const USB_LINUX_MMAPPED: u32 = 220;
    const DBUS: u32 = 231;
    const USBPCAP: u32 = 249;
    const USB_DARWIN: u32 = 266;
    const EBHSCR: u32 = 279;
    match link_type {
        USB_FREEBSD | USB_LINUX | USB_LINUX_MMAPPED | DBUS | USBPCAP | USB_DARWIN => ANY_PACKET_BYTES_MAX,
        EBHSCR => 8 << 20,
        _ => PACKET_BYTES_MAX,
    }
}
