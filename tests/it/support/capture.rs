//! Packet boundaries and times of the sample captures. This parser is independent of `lea`, so that `lea` is
//! not tested against itself.

use std::time::Duration;

/// A packet of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Offset after its last byte.
    pub end: usize,
    /// Time since the first packet.
    pub at: Duration,
}

/// Returns the packets of a complete capture: little-endian pcap with microseconds, or little-endian pcapng
/// with nanoseconds, which are the formats of the samples.
pub(crate) fn packets(capture: &[u8]) -> Vec<Packet> {
    let times = match capture[..4] {
        [0xd4, 0xc3, 0xb2, 0xa1] => pcap(capture),
        [0x0a, 0x0d, 0x0d, 0x0a] => pcapng(capture),
        _ => panic!("no capture of the kinds that are known here"),
    };
    let first = times.first().map_or(Duration::ZERO, |packet| packet.at);
    times.into_iter().map(|packet| Packet { at: packet.at.saturating_sub(first), ..packet }).collect()
}

fn pcap(capture: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut start = 24;
    while start < capture.len() {
        let seconds = Duration::from_secs(le32(capture, start).into());
        let at = seconds + Duration::from_micros(le32(capture, start + 4).into());
        start += 16 + le32(capture, start + 8) as usize;
        packets.push(Packet { end: start, at });
    }
    assert_eq!(start, capture.len(), "the capture's last packet is cut");
    packets
}

fn pcapng(capture: &[u8]) -> Vec<Packet> {
    const ENHANCED_PACKET: u32 = 6;
    let mut packets = Vec::new();
    let mut start = 0;
    while start < capture.len() {
        let end = start + le32(capture, start + 4) as usize;
        if le32(capture, start) == ENHANCED_PACKET {
            let nanos = (u64::from(le32(capture, start + 12)) << 32) | u64::from(le32(capture, start + 16));
            packets.push(Packet { end, at: Duration::from_nanos(nanos) });
        }
        start = end;
    }
    assert_eq!(start, capture.len(), "the capture's last block is cut");
    packets
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn the_samples_are_read_as_capinfos_reads_them() {
    for (name, count, nanos) in
        [("pcap/answered-call.pcap", 506, 5_207_687_000), ("pcap/three-calls.pcapng", 1518, 7_209_051_206)]
    {
        let packets = packets(&super::testdata(name));
        assert_eq!(
            (packets.len(), packets.last().unwrap().at),
            (count, Duration::from_nanos(nanos)),
            "{name}"
        );
    }
}
