//! Parser of snoop (RFC 1761), the format of Solaris: a file header of 16 bytes, then records, each with a header of 24
//! bytes. All numbers are big-endian.

use serde::{Deserialize, Serialize};

use super::damage::Finding;
use super::parser::{Header, Notes, PacketData, PacketParser, Parsed, header_u32};
use crate::limits::PACKET_BYTES_MAX;

pub(super) const FILE_HEADER_BYTES: usize = 16;
const RECORD_HEADER_BYTES: u32 = 24;

/// Header or end that is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    FileHeader,
    RecordHeader,
    RecordEnd,
}

/// Parser of a snoop stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SnoopParser {
    step: Step,
    /// Link type of all packets. `None` before the file header, and for an unknown network type.
    link_type: Option<u32>,
    /// Time of the partial packet.
    time_ns: Option<i64>,
}

/// Link type (LINKTYPE_ value) of a snoop network type that Wireshark reads.
fn link_type(network: u32) -> Option<u32> {
    match network {
        // Ethernet in several speeds, Token Ring, FDDI.
        0 | 4 => Some(1),
        2 => Some(6),
        8 => Some(10),
        // Others and loopback: the address family stands before each packet.
        9 | 14 => Some(0),
        // Fibre Channel, ATM, InfiniBand, IP over Solaris's ipnet device.
        16 => Some(122),
        18 => Some(123),
        26 => Some(242),
        0x8000_0005 => Some(226),
        _ => None,
    }
}

impl SnoopParser {
    pub(super) fn new() -> SnoopParser {
        SnoopParser { step: Step::FileHeader, link_type: None, time_ns: None }
    }

    fn file_header(&mut self, header: &Header, notes: &mut Notes) -> Parsed {
        let network = header_u32(header, 12, true);
        self.link_type = link_type(network);
        notes.link_type = self.link_type;
        if notes.link_type.is_none() {
            notes.finding = Some(Finding::SnoopLinkType(network));
        }
        self.step = Step::RecordHeader;
        Parsed::UnitEnd
    }

    fn record_header(&mut self, header: &Header) -> Parsed {
        let word = |at| header_u32(header, at, true);
        let (original, captured, record) = (word(0), word(4), word(8));
        if let Some(bytes) = [original, captured].into_iter().find(|bytes| *bytes > PACKET_BYTES_MAX) {
            return Parsed::Malformed(Finding::PacketLength { captured: bytes, max: PACKET_BYTES_MAX });
        }
        if record < RECORD_HEADER_BYTES + captured {
            return Parsed::Malformed(Finding::RecordLength { record, captured });
        }
        let (seconds, micros) = (i64::from(word(16)), i64::from(word(20)));
        self.time_ns = (micros < 1_000_000).then(|| seconds * 1_000_000_000 + micros * 1_000);
        self.step = Step::RecordEnd;
        Parsed::Header { skip: record - RECORD_HEADER_BYTES }
    }
}

impl PacketParser for SnoopParser {
    fn step_bytes(&self) -> usize {
        match self.step {
            Step::FileHeader => FILE_HEADER_BYTES,
            Step::RecordHeader => RECORD_HEADER_BYTES as usize,
            Step::RecordEnd => 0,
        }
    }

    fn packet_data(&self, record: &[u8]) -> Option<PacketData> {
        let word = |at: usize| Some(u32::from_be_bytes(*record.get(at..)?.first_chunk::<4>()?));
        let (original, captured) = (word(0)?, word(4)? as usize);
        let link_type = self.link_type?;
        Some(PacketData { link_type, start: RECORD_HEADER_BYTES as usize, captured, original })
    }

    fn parse(&mut self, header: &Header, notes: &mut Notes) -> Parsed {
        match self.step {
            Step::FileHeader => self.file_header(header, notes),
            Step::RecordHeader => self.record_header(header),
            Step::RecordEnd => {
                self.step = Step::RecordHeader;
                Parsed::PacketEnd { time_ns: self.time_ns.take() }
            }
        }
    }
}
