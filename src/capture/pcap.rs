//! Parser of pcap (draft-ietf-opsawg-pcap): a file header of 24 bytes, then packets, each with a header of 16 bytes.
//! The snaplen of the file header is not enforced: readers accept longer packets too.

use serde::{Deserialize, Serialize};

use super::parser::{
    ANY_PACKET_BYTES_MAX, Header, PacketCounts, PacketParser, Parsed, header_u32, packet_bytes_max, u32_at,
};

pub(super) const FILE_HEADER_BYTES: usize = 24;
const PACKET_HEADER_BYTES: usize = 16;

/// Unit of the fraction in packet times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum TimeUnit {
    Microseconds,
    Nanoseconds,
}

/// Header or end that is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    FileHeader,
    PacketHeader,
    PacketEnd,
}

/// Parser of a pcap stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PcapParser {
    big_endian: bool,
    time_unit: TimeUnit,
    step: Step,
    /// Largest plausible captured length.
    packet_bytes_max: u32,
    link_type: Option<u32>,
    /// Time of the partial packet.
    time_ns: Option<i64>,
}

impl PcapParser {
    pub(super) fn new(big_endian: bool, time_unit: TimeUnit) -> PcapParser {
        PcapParser {
            big_endian,
            time_unit,
            step: Step::FileHeader,
            packet_bytes_max: 0,
            link_type: None,
            time_ns: None,
        }
    }

    fn file_header(&mut self, header: &Header) -> Parsed {
        // The higher bits contain the length of a frame check sequence, which some writers store here.
        let link_type = header_u32(header, 20, self.big_endian) & 0x03ff_ffff;
        self.link_type = Some(link_type);
        self.packet_bytes_max = packet_bytes_max(link_type);
        self.step = Step::PacketHeader;
        Parsed::UnitEnd
    }

    fn packet_header(&mut self, header: &Header) -> Parsed {
        let word = |at| header_u32(header, at, self.big_endian);
        let captured = word(8);
        if captured > self.packet_bytes_max {
            return Parsed::Malformed;
        }
        self.time_ns = Some(self.to_ns(word(0), word(4)));
        self.step = Step::PacketEnd;
        Parsed::Header { skip: captured }
    }

    fn to_ns(&self, seconds: u32, fraction: u32) -> i64 {
        let unit_ns = match self.time_unit {
            TimeUnit::Microseconds => 1_000,
            TimeUnit::Nanoseconds => 1,
        };
        i64::from(seconds) * 1_000_000_000 + i64::from(fraction) * unit_ns
    }

    #[inline]
    fn count_packets<const BIG_ENDIAN: bool>(&self, bytes: &[u8], counts: &mut PacketCounts) -> usize {
        let (mut at, mut last_at, mut packets) = (0, 0, 0);
        while let Some(header) = bytes[at..].first_chunk::<PACKET_HEADER_BYTES>() {
            let captured = u32_at::<BIG_ENDIAN>(header, 8);
            let end = at + PACKET_HEADER_BYTES + captured as usize;
            if captured > self.packet_bytes_max || end > bytes.len() {
                break;
            }
            (last_at, at) = (at, end);
            packets += 1;
        }
        if packets > 0 {
            let time_at =
                |at| Some(self.to_ns(u32_at::<BIG_ENDIAN>(bytes, at), u32_at::<BIG_ENDIAN>(bytes, at + 4)));
            counts.add(packets, time_at(0), time_at(last_at));
        }
        at
    }
}

impl PacketParser for PcapParser {
    #[inline]
    fn step_bytes(&self) -> usize {
        match self.step {
            Step::FileHeader => FILE_HEADER_BYTES,
            Step::PacketHeader => PACKET_HEADER_BYTES,
            Step::PacketEnd => 0,
        }
    }

    #[inline]
    fn parse(&mut self, header: &Header) -> Parsed {
        match self.step {
            Step::FileHeader => self.file_header(header),
            Step::PacketHeader => self.packet_header(header),
            Step::PacketEnd => {
                self.step = Step::PacketHeader;
                Parsed::PacketEnd { time_ns: self.time_ns.take() }
            }
        }
    }

    #[inline]
    fn count_complete_packets(&self, bytes: &[u8], counts: &mut PacketCounts) -> usize {
        match (self.step, self.big_endian) {
            (Step::PacketHeader, false) => self.count_packets::<false>(bytes, counts),
            (Step::PacketHeader, true) => self.count_packets::<true>(bytes, counts),
            _ => 0,
        }
    }

    fn link_type(&self) -> Option<u32> {
        self.link_type
    }

    fn is_consistent(&self) -> bool {
        self.packet_bytes_max <= ANY_PACKET_BYTES_MAX
    }
}
