//! Parser of ERF, the format of Endace DAG cards: records with a header of 16 bytes each, and nothing before them.
//!
//! The format has no magic number. Content counts as ERF if its first records look like it, as in Wireshark.

use serde::{Deserialize, Serialize};

use super::damage::Finding;
use super::parser::{Header, Notes, PacketData, PacketParser, Parsed};

pub(super) const RECORD_HEADER_BYTES: usize = 16;

/// Number of header bytes that rule out nearly everything else: the time and the type.
pub(super) const EARLY_BYTES: usize = 9;

/// Number of records that must look like ERF. Until then the content may turn out to be something else.
const RECORDS_CHECKED: u8 = 3;

const LINK_TYPE: u32 = 197;
const LINKTYPE_ETHERNET: u32 = 1;
const LINKTYPE_IPV4: u32 = 228;
const LINKTYPE_IPV6: u32 = 229;
const TYPE_IPV4: u8 = 22;
const TYPE_IPV6: u8 = 23;
const PADDING: u8 = 48;
const PROVENANCE: u8 = 27;

/// Header or end that is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    RecordHeader,
    RecordEnd,
}

/// Parser of an ERF stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ErfParser {
    step: Step,
    /// Number of records so far, up to [`RECORDS_CHECKED`].
    records: u8,
    is_padding: bool,
    /// Time of the partial packet.
    time_ns: Option<i64>,
}

fn record_type(header: &[u8]) -> u8 {
    header[8] & 0x7f
}

/// Seconds since 1970. The time is always little-endian, with a binary fraction.
fn seconds(header: &[u8]) -> u32 {
    u32::from_le_bytes([header[4], header[5], header[6], header[7]])
}

fn record_bytes(header: &[u8]) -> u32 {
    u32::from(u16::from_be_bytes([header[10], header[11]]))
}

/// Reports whether content may be ERF, as far as its first bytes tell.
pub(super) fn may_start(content: &[u8]) -> bool {
    /// From 1990 to 2040. A first record of metadata may have no time.
    const SECONDS: std::ops::Range<u32> = 631_152_000..2_208_988_800;
    if content.len() < EARLY_BYTES {
        return true;
    }
    let is_time = SECONDS.contains(&seconds(content));
    let has_no_time = record_type(content) == PROVENANCE && content[..8] == [0; 8];
    let is_type = (1..=PROVENANCE).contains(&record_type(content));
    if !is_type || !(is_time || has_no_time) {
        return false;
    }
    let Some(header) = content.first_chunk::<RECORD_HEADER_BYTES>() else { return true };
    // Records are padded to 8 bytes, and little is added to what was on the wire.
    let (record, wire) = (record_bytes(header), u32::from(u16::from_be_bytes([header[14], header[15]])));
    record > RECORD_HEADER_BYTES as u32 && record.is_multiple_of(8) && wire > 0 && record <= wire + 256
}

impl ErfParser {
    pub(super) fn new() -> ErfParser {
        ErfParser { step: Step::RecordHeader, records: 0, is_padding: false, time_ns: None }
    }

    fn record_header(&mut self, header: &Header, notes: &mut Notes) -> Parsed {
        let is_checked = self.records < RECORDS_CHECKED;
        self.is_padding = record_type(header) == PADDING;
        let record = record_bytes(header);
        let packet_min = u32::from(!self.is_padding);
        let is_sound = record >= RECORD_HEADER_BYTES as u32 + packet_min && record_type(header) != 0;
        if is_checked && !(is_sound && (self.is_padding || may_start(header))) {
            return Parsed::NotThisFormat;
        }
        if !is_sound {
            return Parsed::Malformed(Finding::RecordLength { record, captured: packet_min });
        }
        notes.link_type = Some(LINK_TYPE);
        self.records = (self.records + 1).min(RECORDS_CHECKED);
        self.time_ns = Some(time_ns(header));
        self.step = Step::RecordEnd;
        Parsed::Header { skip: record - RECORD_HEADER_BYTES as u32 }
    }
}

/// Time in nanoseconds since 1970, rounded as Wireshark does.
fn time_ns(header: &[u8]) -> i64 {
    let fraction = u64::from(u32::from_le_bytes([header[0], header[1], header[2], header[3]]));
    let scaled = fraction * 1_000_000_000;
    let ns = (scaled + ((scaled & 0x8000_0000) << 1)) >> 32;
    i64::from(seconds(header)) * 1_000_000_000 + ns as i64
}

impl PacketParser for ErfParser {
    fn step_bytes(&self) -> usize {
        match self.step {
            Step::RecordHeader => RECORD_HEADER_BYTES,
            Step::RecordEnd => 0,
        }
    }

    /// The packet follows the header, its extension headers (8 bytes each) and what the card puts before an Ethernet frame.
    fn packet_data(&self, record: &[u8]) -> Option<PacketData> {
        const ETHERNET_PADDING_BYTES: usize = 2;
        const TYPES_OF_ETHERNET: [u8; 4] = [2, 11, 16, 20];
        let header = record.first_chunk::<RECORD_HEADER_BYTES>()?;
        let mut start = RECORD_HEADER_BYTES;
        let mut has_extension = header[8] & 0x80 != 0;
        while has_extension {
            has_extension = record.get(start)? & 0x80 != 0;
            start += 8;
        }
        let (link_type, padding) = match record_type(header) {
            kind if TYPES_OF_ETHERNET.contains(&kind) => (LINKTYPE_ETHERNET, ETHERNET_PADDING_BYTES),
            TYPE_IPV4 => (LINKTYPE_IPV4, 0),
            TYPE_IPV6 => (LINKTYPE_IPV6, 0),
            _ => return None,
        };
        start += padding;
        let original = u32::from(u16::from_be_bytes([header[14], header[15]]));
        let captured = record.len().checked_sub(start)?.min(original as usize);
        Some(PacketData { link_type, start, captured, original })
    }

    fn parse(&mut self, header: &Header, notes: &mut Notes) -> Parsed {
        match self.step {
            Step::RecordHeader => self.record_header(header, notes),
            Step::RecordEnd => {
                self.step = Step::RecordHeader;
                match self.is_padding {
                    true => Parsed::UnitEnd,
                    false => Parsed::PacketEnd { time_ns: self.time_ns.take() },
                }
            }
        }
    }
}
