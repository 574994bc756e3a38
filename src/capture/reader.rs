//! Where a capture's packets end, and when each was captured: all that pacing needs. Pure, reads headers only, one
//! packet at a time, so a capture of any size costs no memory.
//!
//! pcap: draft-ietf-opsawg-pcap, the four magics. pcapng: draft-ietf-opsawg-pcapng, enhanced and obsolete packet
//! blocks with the interface's `if_tsresol` and `if_tsoffset`, simple packet blocks (they have no time). What makes
//! no sense ends the packets, never the replay: the rest of the file has no times.

use std::io;

use crate::limits::{BLOCK_BYTES_MAX, PACKET_BYTES_MAX};

/// Bytes that can be looked at anywhere.
pub(crate) trait ReadAt {
    /// The bytes from `offset`: `count` of them, or fewer where the end comes first.
    fn read_at(&mut self, offset: u64, count: usize) -> io::Result<&[u8]>;
}

impl ReadAt for &[u8] {
    fn read_at(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let from = self.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        Ok(&self[from..self.len().min(from.saturating_add(count))])
    }
}

/// A whole packet: its record is the bytes `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Where its record (pcapng: its block) begins.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// When it was captured, nanoseconds since 1970.
    pub time_ns: Option<i64>,
}

/// The packets of a capture, in order. [`Packets::next`] is the iterator; it takes the bytes as an argument.
#[derive(Clone, Debug)]
pub(crate) struct PacketReader {
    at: u64,
    bytes: u64,
    form: ReaderFormat,
}

#[derive(Clone, Debug)]
enum ReaderFormat {
    Pcap { big_endian: bool, nanoseconds: bool },
    Pcapng { big_endian: bool, clocks: Vec<InterfaceClock> },
}

/// How an interface counts time: ticks a second, and seconds to add.
#[derive(Clone, Copy, Debug)]
struct InterfaceClock {
    ticks_per_second: u128,
    offset_seconds: i64,
}

const MICROSECONDS: InterfaceClock = InterfaceClock { ticks_per_second: 1_000_000, offset_seconds: 0 };

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// How much of an interface description is looked at: real ones have a few hundred bytes.
const INTERFACE_BYTES_MAX: u32 = 64 << 10;

impl PacketReader {
    /// The packets of `bytes`, which are `total` long; `None` where they are no capture.
    pub(crate) fn open(bytes: &mut impl ReadAt, total: u64) -> io::Result<Option<PacketReader>> {
        let head = bytes.read_at(0, 12)?;
        let form = match head {
            [0xd4, 0xc3, 0xb2, 0xa1, ..] => ReaderFormat::Pcap { big_endian: false, nanoseconds: false },
            [0x4d, 0x3c, 0xb2, 0xa1, ..] => ReaderFormat::Pcap { big_endian: false, nanoseconds: true },
            [0xa1, 0xb2, 0xc3, 0xd4, ..] => ReaderFormat::Pcap { big_endian: true, nanoseconds: false },
            [0xa1, 0xb2, 0x3c, 0x4d, ..] => ReaderFormat::Pcap { big_endian: true, nanoseconds: true },
            _ if section_is_big_endian(head).is_some() => {
                ReaderFormat::Pcapng { big_endian: false, clocks: Vec::new() }
            }
            _ => return Ok(None),
        };
        let at = if matches!(form, ReaderFormat::Pcap { .. }) { 24 } else { 0 };
        Ok(Some(PacketReader { at, bytes: total, form }))
    }

    /// The next whole packet; `None` at the end, and where the records stop making sense.
    pub(crate) fn next(&mut self, bytes: &mut impl ReadAt) -> io::Result<Option<Packet>> {
        match self.form {
            ReaderFormat::Pcap { big_endian, nanoseconds } => {
                self.next_record(bytes, big_endian, nanoseconds)
            }
            ReaderFormat::Pcapng { .. } => self.next_block(bytes),
        }
    }

    fn next_record(
        &mut self,
        bytes: &mut impl ReadAt,
        big_endian: bool,
        nanoseconds: bool,
    ) -> io::Result<Option<Packet>> {
        let head = bytes.read_at(self.at, 16)?;
        let (Some(seconds), Some(fraction), Some(captured)) =
            (u32_at(head, 0, big_endian), u32_at(head, 4, big_endian), u32_at(head, 8, big_endian))
        else {
            return Ok(None);
        };
        let (start, end) = (self.at, self.at + 16 + u64::from(captured));
        if captured > PACKET_BYTES_MAX || end > self.bytes {
            return Ok(None);
        }
        self.at = end;
        let fraction_ns = i64::from(fraction) * if nanoseconds { 1 } else { 1_000 };
        let time_ns = i64::from(seconds) * 1_000_000_000 + fraction_ns;
        Ok(Some(Packet { start, end, time_ns: Some(time_ns) }))
    }

    fn next_block(&mut self, bytes: &mut impl ReadAt) -> io::Result<Option<Packet>> {
        let ReaderFormat::Pcapng { big_endian, clocks } = &mut self.form else { return Ok(None) };
        loop {
            let head = bytes.read_at(self.at, 20)?;
            if let Some(order) = section_is_big_endian(head) {
                *big_endian = order;
                clocks.clear();
            }
            let (Some(kind), Some(length)) = (u32_at(head, 0, *big_endian), u32_at(head, 4, *big_endian))
            else {
                return Ok(None);
            };
            let (start, end) = (self.at, self.at + u64::from(length));
            if length < 12 || length % 4 != 0 || length > BLOCK_BYTES_MAX || end > self.bytes {
                return Ok(None);
            }
            self.at = end;
            match kind {
                INTERFACE => {
                    let block = bytes.read_at(start, length.min(INTERFACE_BYTES_MAX) as usize)?;
                    clocks.push(clock_of(block, *big_endian));
                }
                ENHANCED_PACKET | OBSOLETE_PACKET => {
                    let time_ns = block_time_ns(head, kind, *big_endian, clocks);
                    return Ok(Some(Packet { start, end, time_ns }));
                }
                SIMPLE_PACKET => return Ok(Some(Packet { start, end, time_ns: None })),
                _ => {}
            }
        }
    }
}

/// The byte order of a section header block; `None` for any other bytes.
fn section_is_big_endian(block: &[u8]) -> Option<bool> {
    let is_section = u32_at(block, 0, true)? == SECTION;
    match (is_section, u32_at(block, 8, true)?) {
        (true, 0x1a2b_3c4d) => Some(true),
        (true, 0x4d3c_2b1a) => Some(false),
        _ => None,
    }
}

/// Both kinds of packet block have the time at the same place; the obsolete one numbers interfaces in 16 bits.
fn block_time_ns(head: &[u8], kind: u32, big_endian: bool, clocks: &[InterfaceClock]) -> Option<i64> {
    let interface = match kind {
        OBSOLETE_PACKET => u32::from(u16_at(head, 8, big_endian)?),
        _ => u32_at(head, 8, big_endian)?,
    };
    let (high, low) = (u32_at(head, 12, big_endian)?, u32_at(head, 16, big_endian)?);
    let clock = clocks.get(interface as usize)?;
    let ticks = u128::from(high) << 32 | u128::from(low);
    let ns = ticks * 1_000_000_000 / clock.ticks_per_second;
    i64::try_from(ns).ok()?.checked_add(clock.offset_seconds.checked_mul(1_000_000_000)?)
}

/// The clock of an interface description block: options 9 (`if_tsresol`) and 14 (`if_tsoffset`).
fn clock_of(block: &[u8], big_endian: bool) -> InterfaceClock {
    let mut clock = MICROSECONDS;
    let mut at = 16;
    while let (Some(code), Some(length)) = (u16_at(block, at, big_endian), u16_at(block, at + 2, big_endian))
    {
        let value = &block[at + 4..block.len().min(at + 4 + usize::from(length))];
        match (code, value) {
            (0, _) => break,
            (9, [resolution]) => clock.ticks_per_second = ticks_per_second(*resolution),
            (14, value) => {
                let halves = (u32_at(value, 0, big_endian), u32_at(value, 4, big_endian));
                if let (Some(first), Some(second)) = halves {
                    let (high, low) = if big_endian { (first, second) } else { (second, first) };
                    clock.offset_seconds = (u64::from(high) << 32 | u64::from(low)) as i64;
                }
            }
            _ => {}
        }
        at += 4 + usize::from(length).next_multiple_of(4);
    }
    clock
}

/// The top bit chooses powers of two instead of ten. What does not fit counts as the finest that does.
fn ticks_per_second(resolution: u8) -> u128 {
    match resolution {
        0x80.. => 1 << u32::from(resolution & 0x7f).min(126),
        _ => 10_u128.pow(u32::from(resolution).min(38)),
    }
}

fn u16_at(bytes: &[u8], at: usize, big_endian: bool) -> Option<u16> {
    let word = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(if big_endian { u16::from_be_bytes(word) } else { u16::from_le_bytes(word) })
}

fn u32_at(bytes: &[u8], at: usize, big_endian: bool) -> Option<u32> {
    let word = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // A cut packet is no packet.
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
    fn check_pcapng(big_endian: bool, options: &[u32], ticks: u32, time_ns: i64) {
        let idb_bytes = 20 + 4 * options.len() as u32;
        let section = [SECTION, 28, 0x1a2b_3c4d, 0x0000_0001, u32::MAX, u32::MAX, 28];
        let interface = [&[INTERFACE, idb_bytes, 1, 65_535], options, &[idb_bytes]].concat();
        let packet = [ENHANCED_PACKET, 36, 0, 0, ticks, 4, 4, 0xffff_ffff, 36];
        let simple = [SIMPLE_PACKET, 16, 0, 16];
        let bytes = words(big_endian, &[&section[..], &interface, &packet, &simple].concat());
        let end = 28 + u64::from(idb_bytes) + 36;
        assert_eq!(packets(&bytes), [(end, Some(time_ns)), (end + 16, None)]);
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
        // Absurd resolutions: no overflow.
        check_pcapng(false, &[0x0001_0009, 0xff, 0], 1_500_000, 0);
        check_pcapng(false, &[0x0001_0009, 0x7f, 0], 1_500_000, 0);
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
