//! Reads the packets of a capture file one by one: their boundaries and times, for pacing. Pure: the bytes come from a
//! [`ReadAt`]. Reads headers only, so a capture of any size costs no memory.
//!
//! Packets are found by the same tracker and parsers as in the receiver. A malformed or truncated packet ends the
//! packets: the rest of the file has none.

use std::io;

use serde::{Deserialize, Serialize};

use super::formats::{self, CaptureFormat, Detection};
pub(crate) use super::parser::PacketData;
use super::tracker::{Packet, PacketTracker};

/// Random access to bytes.
pub trait ReadAt {
    /// Returns `count` bytes from `offset`, or fewer at the end.
    fn read_at(&mut self, offset: u64, count: usize) -> io::Result<&[u8]>;
}

impl ReadAt for &[u8] {
    fn read_at(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let from = self.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        Ok(&self[from..self.len().min(from.saturating_add(count))])
    }
}

/// Iterator over the packets of a capture. [`PacketReader::next`] gets the bytes as an argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PacketReader {
    tracker: PacketTracker,
    format: CaptureFormat,
    /// End of the capture.
    bytes: u64,
}

impl PacketReader {
    /// Creates a reader of `source`, which has `bytes` bytes. `None`: this is not a capture.
    pub(crate) fn open(source: &mut impl ReadAt, bytes: u64) -> io::Result<Option<PacketReader>> {
        PacketReader::open_at(source, 0, bytes)
    }

    /// Creates a reader of the capture that starts at `at`. `None`: none does.
    pub(crate) fn open_at(source: &mut impl ReadAt, at: u64, bytes: u64) -> io::Result<Option<PacketReader>> {
        let start = source.read_at(at, formats::DECISION_BYTES_MAX)?;
        // The packets of a compressed capture do not end at bytes of the file.
        let Detection::Capture(parser) = formats::detect(start) else { return Ok(None) };
        let tracker = PacketTracker::new().moved_to(at);
        Ok(Some(PacketReader { tracker, format: parser.format(), bytes }))
    }

    /// Makes the reader end at the first block that Wireshark rejects, and where another capture starts.
    pub(crate) fn strict(mut self) -> PacketReader {
        self.tracker.be_strict();
        self
    }

    /// Copies the reader to another position, where a packet of the same capture starts. It must be between two packets.
    pub(crate) fn moved_to(&self, at: u64) -> PacketReader {
        PacketReader { tracker: self.tracker.moved_to(at), ..self.clone() }
    }

    /// Sets the end of a capture that has grown.
    pub(crate) fn set_end(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// Returns false for a deserialized reader that no input leads to, as far as continuing with it could do harm.
    pub(crate) fn is_consistent(&self) -> bool {
        self.tracker.is_consistent()
    }

    /// Locates the bytes of the packet that was returned last, in its record.
    #[inline]
    pub(crate) fn packet_data(&self, record: &[u8]) -> Option<PacketData> {
        self.tracker.packet_data(record)
    }

    /// End of the last complete packet, block or file header.
    pub(crate) fn units_end(&self) -> u64 {
        self.tracker.units_end()
    }

    /// Reports whether a malformed packet or block has ended the packets.
    pub(crate) fn is_malformed(&self) -> bool {
        self.tracker.summary().malformed_at.is_some()
    }

    pub(crate) fn format(&self) -> CaptureFormat {
        self.format
    }

    /// Returns the next complete packet. `None`: there are no more.
    pub(crate) fn next(&mut self, source: &mut impl ReadAt) -> io::Result<Option<Packet>> {
        while let Some((offset, count)) = self.tracker.next_header() {
            if offset.saturating_add(count as u64) > self.bytes {
                return Ok(None);
            }
            let header = if count == 0 { &[] } else { source.read_at(offset, count)? };
            if header.len() < count {
                return Ok(None);
            }
            if let Some(packet) = self.tracker.feed_header(header) {
                return Ok(Some(packet));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: u32 = 0x0a0d_0d0a;
    const INTERFACE: u32 = 1;
    const SIMPLE_PACKET: u32 = 3;
    const ENHANCED_PACKET: u32 = 6;

    fn packets(bytes: &[u8]) -> Vec<(u64, Option<i64>)> {
        let mut bytes = bytes;
        let total = bytes.len() as u64;
        let mut packets = PacketReader::open(&mut bytes, total).unwrap().unwrap();
        let mut found = Vec::new();
        while let Some(packet) = packets.next(&mut bytes).unwrap() {
            found.push((packet.end, packet.time_ns));
        }
        found
    }

    fn words(big_endian: bool, words: &[u32]) -> Vec<u8> {
        let bytes = |word: &u32| if big_endian { word.to_be_bytes() } else { word.to_le_bytes() };
        words.iter().flat_map(bytes).collect()
    }

    #[track_caller]
    fn check_pcap(magic: u32, big_endian: bool, fraction_ns: i64) {
        let head = [magic, 0x0002_0004, 0, 0, 65_535, 1];
        let records = [100, 7, 4, 4, 0xffff_ffff, 101, 8, 0, 60];
        let bytes = words(big_endian, &[&head[..], &records[..]].concat());
        let expected =
            [(44, Some(100_000_000_000 + 7 * fraction_ns)), (60, Some(101_000_000_000 + 8 * fraction_ns))];
        assert_eq!(packets(&bytes), expected);
        // A truncated packet does not count.
        assert_eq!(packets(&bytes[..43]), []);
        assert_eq!(packets(&bytes[..59]), expected[..1]);
    }

    #[test]
    fn pcap_in_four_magics() {
        check_pcap(0xa1b2_c3d4, false, 1_000);
        check_pcap(0xa1b2_c3d4, true, 1_000);
        check_pcap(0xa1b2_3c4d, false, 1);
        check_pcap(0xa1b2_3c4d, true, 1);
    }

    #[track_caller]
    fn check_pcapng(big_endian: bool, options: &[u32], ticks: u32, time_ns: impl Into<Option<i64>>) {
        let idb_bytes = 20 + 4 * options.len() as u32;
        let section = [SECTION, 28, 0x1a2b_3c4d, 0x0000_0001, u32::MAX, u32::MAX, 28];
        let interface = [&[INTERFACE, idb_bytes, 1, 65_535], options, &[idb_bytes]].concat();
        let packet = [ENHANCED_PACKET, 36, 0, 0, ticks, 4, 4, 0xffff_ffff, 36];
        let simple = [SIMPLE_PACKET, 16, 0, 16];
        let bytes = words(big_endian, &[&section[..], &interface, &packet, &simple].concat());
        let end = 28 + u64::from(idb_bytes) + 36;
        assert_eq!(packets(&bytes), [(end, time_ns.into()), (end + 16, None)]);
    }

    #[test]
    fn pcapng_clocks() {
        check_pcapng(false, &[], 1_500_000, 1_500_000_000);
        check_pcapng(true, &[], 1_500_000, 1_500_000_000);
        check_pcapng(false, &[0x0001_0009, 9, 0], 1_500_000, 1_500_000);
        check_pcapng(true, &[0x0009_0001, 9 << 24, 0], 1_500_000, 1_500_000);
        check_pcapng(false, &[0x0001_0009, 0x8a, 0], 512, 500_000_000);
        check_pcapng(false, &[0x0008_000e, 10, 0, 0], 1_000_000, 11_000_000_000);
        check_pcapng(true, &[0x000e_0008, 0, 10, 0], 1_000_000, 11_000_000_000);
        // Absurd resolutions: no time.
        check_pcapng(false, &[0x0001_0009, 0xff, 0], 1_500_000, None);
        check_pcapng(false, &[0x0001_0009, 0x7f, 0], 1_500_000, None);
    }

    #[test]
    fn long_packets_of_usb_are_read_as_the_receiver_reads_them() {
        for link_type in [186, 189, 220, 249, 266, 231] {
            let head = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 0, link_type, 100, 7, 300_000, 300_000];
            let mut bytes = words(false, &head);
            bytes.resize(bytes.len() + 300_000, 0);
            bytes.extend(words(false, &[101, 8, 0, 0]));
            assert_eq!(packets(&bytes), [(300_040, Some(100_000_007_000)), (300_056, Some(101_000_008_000))]);
            let mut tracker = PacketTracker::new();
            tracker.feed(&bytes);
            let summary = tracker.summary();
            assert_eq!((summary.packets, summary.last_packet_ns), (2, Some(101_000_008_000)));
            assert_eq!((summary.link_types, summary.damage), (vec![link_type], vec![]));
        }
    }

    #[test]
    fn nonsense_ends_the_packets() {
        let mut bytes = words(false, &[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1, 0, 0, 0x7fff_ffff, 4]);
        bytes.resize(4096, 0);
        assert_eq!(packets(&bytes), []);
        assert!(PacketReader::open(&mut &b"no capture at all"[..], 17).unwrap().is_none());
        assert!(PacketReader::open(&mut &b"\n\r\r\n"[..], 4).unwrap().is_none());
    }

    #[test]
    fn every_prefix_of_real_captures() {
        for file in ["answered-call.pcap", "three-calls.pcapng"] {
            let path = format!("{}/testdata/pcap/{file}", env!("CARGO_MANIFEST_DIR"));
            let bytes = std::fs::read(path).unwrap();
            let whole = packets(&bytes);
            assert!(whole.iter().all(|(_, time_ns)| time_ns.is_some()));
            for cut in (12..bytes.len()).step_by(997) {
                let found = packets(&bytes[..cut]);
                assert_eq!(found, whole[..found.len()]);
                assert!(whole.get(found.len()).is_none_or(|(end, _)| *end > cut as u64));
            }
        }
    }

    #[test]
    fn spoilt_captures_end_without_harm() {
        let mut random = crate::replay::fault::Random::new(1, 1);
        for file in ["rejected-call.pcap", "three-calls.pcapng"] {
            let path = format!("{}/testdata/pcap/{file}", env!("CARGO_MANIFEST_DIR"));
            let mut good = std::fs::read(path).unwrap();
            good.truncate(1500);
            for _ in 0..5_000 {
                let mut bytes = good.clone();
                for _ in 0..random.range(1, 8) {
                    bytes[random.range(12, 1500) as usize] = random.range(0, 256) as u8;
                }
                let ends: Vec<u64> = packets(&bytes).iter().map(|(end, _)| *end).collect();
                assert!(ends.is_sorted() && ends.last().is_none_or(|end| *end <= 1500));
            }
        }
    }

    #[test]
    fn the_answered_call_is_as_long_as_it_was() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/pcap/answered-call.pcap");
        let found = packets(&std::fs::read(path).unwrap());
        assert_eq!(found.len(), 506);
        assert_eq!(found[505].0, 117_919);
        assert_eq!(found[505].1.unwrap() - found[0].1.unwrap(), 5_207_687_000);
    }
}
