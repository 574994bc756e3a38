//! Parser steps of pcap (draft-ietf-opsawg-pcap): a file header of 24 bytes, then packets, each with a header
//! of 16 bytes. The snaplen of the file header is not enforced: readers accept longer packets too.

use super::{PacketTracker, TrackerStep, packet_bytes_max, u32_at};

pub(super) const FILE_HEADER_BYTES: usize = 24;
const PACKET_HEADER_BYTES: usize = 16;

impl PacketTracker {
    pub(super) fn parse_pcap_file_header(&mut self) {
        // The higher bits contain the length of a frame check sequence, which some writers store here.
        let link_type = self.header_u32(20) & 0x03ff_ffff;
        self.link_type = Some(link_type);
        self.packet_bytes_max = packet_bytes_max(link_type);
        self.end_unit(TrackerStep::PacketHeader);
    }

    pub(super) fn parse_pcap_packet_header(&mut self) {
        let captured = self.header_u32(8);
        if captured > self.packet_bytes_max {
            return self.set_malformed();
        }
        self.partial_packet_ns = Some(time_ns(self.header_u32(0), self.header_u32(4), self.nanoseconds));
        self.expect_header(TrackerStep::PacketEnd, captured);
    }

    /// Skips over the packets that are complete in `bytes`, and returns their total length.
    pub(super) fn track_pcap_packets<const BIG_ENDIAN: bool>(&mut self, bytes: &[u8]) -> usize {
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
            let time_at = |at| {
                let (seconds, fraction) =
                    (u32_at::<BIG_ENDIAN>(bytes, at), u32_at::<BIG_ENDIAN>(bytes, at + 4));
                Some(time_ns(seconds, fraction, self.nanoseconds))
            };
            self.first_packet_ns = self.first_packet_ns.or_else(|| time_at(0));
            self.last_packet_ns = time_at(last_at);
            self.packets += packets;
        }
        at
    }
}

fn time_ns(seconds: u32, fraction: u32, nanoseconds: bool) -> i64 {
    let fraction = i64::from(fraction) * if nanoseconds { 1 } else { 1_000 };
    i64::from(seconds) * 1_000_000_000 + fraction
}
