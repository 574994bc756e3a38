//! Tests with literal captures in both byte orders, at all splits, and with tshark and capinfos as a second
//! opinion.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::capture::interfaces::Interface;
use crate::capture::variants::PcapVariant;
use crate::limits::{BLOCK_BYTES_MAX, PACKET_BYTES_MAX};

/// Writer of captures in one byte order.
#[derive(Clone, Copy)]
struct Order {
    big: bool,
}

const ORDERS: [Order; 2] = [Order { big: false }, Order { big: true }];

/// 2026-11-21 20:59:41 UTC.
const SECONDS: u32 = 1_795_294_781;
const NS: i64 = SECONDS as i64 * 1_000_000_000;

impl Order {
    fn words(self, words: &[u32]) -> Vec<u8> {
        let bytes = |word: &u32| if self.big { word.to_be_bytes() } else { word.to_le_bytes() };
        words.iter().flat_map(bytes).collect()
    }

    fn half_words(self, halves: &[u16]) -> Vec<u8> {
        let bytes = |half: &u16| if self.big { half.to_be_bytes() } else { half.to_le_bytes() };
        halves.iter().flat_map(bytes).collect()
    }

    fn file_header(self, nanoseconds: bool, link_type: u32) -> Vec<u8> {
        let magic = if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let version = self.half_words(&[2, 4]);
        [self.words(&[magic]), version, self.words(&[0, 0, 96, link_type])].concat()
    }

    fn packet(self, fraction: u32, captured: usize) -> Vec<u8> {
        let length = captured as u32;
        [self.words(&[SECONDS, fraction, length, length]), vec![0xee; captured]].concat()
    }

    fn block(self, block_type: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let total = padded as u32 + 12;
        let padding = vec![0; padded - body.len()];
        [&self.words(&[block_type, total])[..], body, &padding, &self.words(&[total])].concat()
    }

    fn section(self) -> Vec<u8> {
        let version = self.half_words(&[1, 0]);
        self.block(0x0a0d_0d0a, &[self.words(&[0x1a2b_3c4d]), version, vec![0xff; 8]].concat())
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let padding = vec![0; value.len().next_multiple_of(4) - value.len()];
        [&self.half_words(&[code, value.len() as u16])[..], value, &padding].concat()
    }

    fn interface(self, link_type: u16, options: &[Vec<u8>]) -> Vec<u8> {
        let body = [self.half_words(&[link_type, 0]), self.words(&[96]), options.concat()].concat();
        self.block(1, &body)
    }

    fn enhanced_packet(self, interface: u32, ticks: u64, captured: usize) -> Vec<u8> {
        let length = captured as u32;
        let fields = self.words(&[interface, (ticks >> 32) as u32, ticks as u32, length, length]);
        self.block(6, &[fields, vec![0xee; captured]].concat())
    }

    fn obsolete_packet(self, interface: u16, ticks: u64, captured: usize) -> Vec<u8> {
        let length = captured as u32;
        let fields = self.words(&[(ticks >> 32) as u32, ticks as u32, length, length]);
        self.block(2, &[self.half_words(&[interface, 7]), fields, vec![0xee; captured]].concat())
    }

    fn simple_packet(self, bytes: u32) -> Vec<u8> {
        self.block(3, &[self.words(&[bytes]), vec![0xee; bytes.min(96) as usize]].concat())
    }
}

fn track(bytes: &[u8]) -> PacketTracker {
    let mut tracker = PacketTracker::new();
    tracker.feed(bytes);
    tracker
}

/// Everything that a tracker reports.
fn state(tracker: &PacketTracker) -> (u64, u64, u64, CaptureSummary) {
    (tracker.received(), tracker.packet_boundary(), tracker.packets(), tracker.summary())
}

/// Feeds the stream byte by byte, in all two-way splits, and serialized in between. The state must be the
/// same at each byte. Returns the summary.
fn check_splits(bytes: &[u8]) -> CaptureSummary {
    let mut single = PacketTracker::new();
    let mut at_byte = vec![state(&single)];
    for byte in bytes {
        let before = single.packet_boundary();
        single.feed(std::slice::from_ref(byte));
        assert!(before <= single.packet_boundary() && single.packet_boundary() <= single.received());
        at_byte.push(state(&single));
    }
    for split in 0..=bytes.len() {
        let mut tracker = track(&bytes[..split]);
        assert_eq!(state(&tracker), at_byte[split], "the first {split} bytes");
        tracker.feed(&bytes[split..]);
        assert_eq!(state(&tracker), at_byte[bytes.len()], "split at {split}");
    }
    single.summary()
}

/// Checks everything but the findings, which follow from the rest here.
fn check_summary(bytes: &[u8], expected: CaptureSummary) {
    let summary = check_splits(bytes);
    let kinds: Vec<DamageKind> = summary.damage.iter().map(|damage| damage.kind).collect();
    let truncated = (expected.truncated_bytes > 0).then_some(DamageKind::Truncated);
    assert_eq!(kinds, truncated.into_iter().collect::<Vec<_>>());
    assert_eq!(CaptureSummary { damage: Vec::new(), ..summary }, expected);
}

fn testdata(name: &str) -> Vec<u8> {
    std::fs::read(testdata_path(name)).unwrap()
}

fn testdata_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/pcap").join(name)
}

#[test]
fn pcap_is_tracked_with_all_four_magics() {
    for order in ORDERS {
        for (nanoseconds, factor) in [(false, 1_000), (true, 1)] {
            let packets = [order.packet(5, 0), order.packet(6, 3), order.packet(999_999, 100)];
            let bytes = [order.file_header(nanoseconds, 1), packets.concat()].concat();
            let expected = CaptureSummary {
                format: CaptureFormat::Pcap,
                variant: nanoseconds.then_some(PcapVariant::Nanosecond),
                link_types: vec![1],
                packets: 3,
                first_packet_ns: Some(NS + 5 * factor),
                last_packet_ns: Some(NS + 999_999 * factor),
                ..CaptureSummary::default()
            };
            check_summary(&bytes, expected.clone());
            // The last packet is truncated: at its last byte, and at the first byte of its header.
            let cut = CaptureSummary { packets: 2, last_packet_ns: Some(NS + 6 * factor), ..expected };
            check_summary(&bytes[..bytes.len() - 1], CaptureSummary { truncated_bytes: 115, ..cut.clone() });
            check_summary(&bytes[..bytes.len() - 115], CaptureSummary { truncated_bytes: 1, ..cut.clone() });
            check_summary(&bytes[..bytes.len() - 116], cut);
        }
    }
}

#[test]
fn short_input_has_no_format_yet() {
    let header = ORDERS[0].file_header(false, 113);
    for (bytes, format) in [
        (0, CaptureFormat::Unknown),
        (3, CaptureFormat::Unknown),
        (4, CaptureFormat::Pcap),
        (23, CaptureFormat::Pcap),
    ] {
        let expected = CaptureSummary { format, truncated_bytes: bytes as u64, ..CaptureSummary::default() };
        check_summary(&header[..bytes], expected);
    }
    check_summary(
        &header,
        CaptureSummary { format: CaptureFormat::Pcap, link_types: vec![113], ..CaptureSummary::default() },
    );
    let section = ORDERS[1].section();
    for (bytes, format) in
        [(4, CaptureFormat::Unknown), (11, CaptureFormat::Unknown), (12, CaptureFormat::Pcapng)]
    {
        let expected = CaptureSummary { format, truncated_bytes: bytes as u64, ..CaptureSummary::default() };
        check_summary(&section[..bytes], expected);
    }
}

#[test]
fn bytes_that_are_not_a_capture_are_visible_immediately() {
    let almost = [b"\n\r\r\n\x1c\0\0\0\x4d\x3c\x2b\x1b".to_vec(), vec![0; 40]].concat();
    for bytes in [b"no capture at all".to_vec(), vec![0; 100], almost, b"\xd4\xc3\xb2\xa0".to_vec()] {
        check_summary(&bytes, CaptureSummary { format: CaptureFormat::Other, ..CaptureSummary::default() });
        assert_eq!(track(&bytes).packet_boundary(), bytes.len() as u64);
    }
}

#[test]
fn a_packet_longer_than_any_snaplen_is_malformed() {
    for order in ORDERS {
        for (link_type, bytes_max) in [
            (1, PACKET_BYTES_MAX),
            (231, 128 << 20),
            (249, 128 << 20),
            (279, 8 << 20),
            (189, 128 << 20),
            (0xf400_0001, PACKET_BYTES_MAX),
        ] {
            let start = [order.file_header(false, link_type), order.packet(0, 5)].concat();
            let packet = |captured| [start.clone(), order.words(&[SECONDS, 0, captured, captured])].concat();
            let longest = check_splits(&packet(bytes_max));
            assert_eq!((longest.malformed_at, longest.truncated_bytes), (None, 16), "{link_type}");
            let beyond = check_splits(&[packet(bytes_max + 1), vec![1; 50]].concat());
            assert_eq!((beyond.malformed_at, beyond.truncated_bytes), (Some(45), 0), "{link_type}");
            assert_eq!(beyond.packets, 1);
        }
    }
}

#[test]
fn pcapng_is_tracked_with_all_block_types() {
    for order in ORDERS {
        let micros = SECONDS as u64 * 1_000_000;
        let other = Order { big: !order.big };
        let offset = |seconds: i64| {
            if other.big { seconds.to_be_bytes() } else { seconds.to_le_bytes() }
        };
        let nanos_offset =
            [other.option(2, b"eth0"), other.option(9, &[9, 0, 0][..1]), other.option(14, &offset(-1))];
        let binary = [other.option(9, &[0x80 | 10]), other.option(0, b""), other.option(9, &[3])];
        let bytes = [
            order.section(),
            order.interface(113, &[]),
            order.block(4, b"names"),
            order.enhanced_packet(0, micros + 5, 1),
            order.obsolete_packet(0, micros + 6, 2),
            order.block(0x8000_0bad, &[0; 300]),
            other.section(),
            other.interface(1, &nanos_offset),
            other.simple_packet(2_000),
            other.interface(1, &binary),
            other.enhanced_packet(0, NS as u64 + 1_000_000_007, 0),
            other.enhanced_packet(1, u64::from(SECONDS) * 1024 + 512, 7),
        ]
        .concat();
        let expected = CaptureSummary {
            format: CaptureFormat::Pcapng,
            link_types: vec![113, 1],
            packets: 5,
            packets_without_time: 1,
            first_packet_ns: Some(NS + 7),
            last_packet_ns: Some(NS + 500_000_000),
            ..CaptureSummary::default()
        };
        check_summary(&bytes, expected.clone());
        let cut =
            CaptureSummary { packets: 4, last_packet_ns: Some(NS + 6_000), truncated_bytes: 39, ..expected };
        check_summary(&bytes[..bytes.len() - 1], cut);
    }
}

/// The start of a capture with a packet, and blocks to append.
fn started() -> (Order, Vec<u8>) {
    let order = ORDERS[0];
    (order, [order.section(), order.interface(1, &[]), order.enhanced_packet(0, 1, 4)].concat())
}

/// Replaces a word of a block.
fn patched(order: Order, mut block: Vec<u8>, at: usize, word: u32) -> Vec<u8> {
    block[at..at + 4].copy_from_slice(&order.words(&[word]));
    block
}

/// Splits of long captures would take minutes without testing more.
fn summary_of(bytes: &[u8]) -> CaptureSummary {
    if bytes.len() > 1_000 { track(bytes).summary() } else { check_splits(bytes) }
}

#[test]
fn blocks_without_structure_are_malformed() {
    let (order, start) = started();
    let raw = |block_type, total| [order.words(&[block_type, total]), vec![0; 100]].concat();
    for (what, block) in [
        ("too short", raw(5, 8)),
        ("too long", raw(5, BLOCK_BYTES_MAX + 1)),
        ("of any length", raw(5, u32::MAX)),
        ("short section", [order.words(&[0x0a0d_0d0a, 24, 0x1a2b_3c4d]), vec![0; 100]].concat()),
        ("no byte order", [order.words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4e]), vec![0; 100]].concat()),
        ("another length at the end", patched(order, order.block(5, &[0; 12]), 20, 28)),
        ("another length at a packet's end", patched(order, order.enhanced_packet(0, 1, 4), 32, 40)),
    ] {
        let bytes = [&start[..], &block, &order.enhanced_packet(0, 1, 4)].concat();
        let summary = summary_of(&bytes);
        let offset = start.len() as u64;
        assert_eq!(summary.malformed_at, Some(offset), "{what}");
        let [Damage { kind, offset: at, packets_before, .. }] = summary.damage[..] else { panic!("{what}") };
        assert_eq!((kind, at, packets_before), (DamageKind::Malformed, offset, 1), "{what}");
        assert_eq!((summary.packets, summary.truncated_bytes), (1, 0), "{what}");
    }
    let longest = track(&[&start[..], &raw(5, BLOCK_BYTES_MAX)].concat()).summary();
    assert_eq!((longest.malformed_at, longest.truncated_bytes), (None, 108));
}

#[test]
fn bad_blocks_are_findings_and_the_next_ones_count() {
    let (order, start) = started();
    let options = |options: &[u8]| {
        let body = [order.words(&[0, 0, 1, 4, 4]), vec![0xee; 4], options.to_vec()].concat();
        order.block(6, &body)
    };
    let long = order.enhanced_packet(0, 1, PACKET_BYTES_MAX as usize + 1);
    for (what, block, packets) in [
        ("short interface", order.block(1, &[0; 4]), 2),
        ("short packet", order.block(6, &[0; 16]), 2),
        ("short simple packet", order.block(3, b""), 2),
        ("short statistics", order.block(5, &[0; 8]), 2),
        ("short custom block", order.block(0xbad, b""), 2),
        ("a packet longer than its block", patched(order, order.enhanced_packet(0, 1, 4), 20, 5), 2),
        ("a packet beyond any snaplen", long, 3),
        ("an interface that is not there", order.enhanced_packet(1, 1, 4), 3),
        ("a simple packet longer than its block", patched(order, order.simple_packet(50), 8, 60), 2),
        ("a packet option longer than its block", options(&order.half_words(&[1, 9])), 3),
        ("packet flags of another length", options(&order.option(2, b"x")), 3),
        ("a custom option without its number", options(&order.option(2988, b"x")), 3),
        ("an interface option longer than its block", order.interface(1, &[order.half_words(&[2, 9])]), 2),
        ("a filter without a byte", order.interface(1, &[order.option(11, b"")]), 2),
        (
            "statistics with an overlong option",
            order.block(5, &[vec![0; 12], order.half_words(&[4, 9])].concat()),
            2,
        ),
    ] {
        let bytes = [&start[..], &block, &order.enhanced_packet(0, 1, 4)].concat();
        let summary = summary_of(&bytes);
        let [Damage { kind, offset, packets_before, .. }] = summary.damage[..] else { panic!("{what}") };
        assert_eq!((kind, offset, packets_before), (DamageKind::BadBlock, start.len() as u64, 1), "{what}");
        assert_eq!((summary.packets, summary.malformed_at), (packets, None), "{what}");
        assert_eq!(track(&bytes).packet_boundary(), bytes.len() as u64, "{what}");
    }
    let orphan = [order.section(), order.simple_packet(4)].concat();
    assert_eq!(check_splits(&orphan).damage[0].kind, DamageKind::BadBlock);
}

#[test]
fn lengths_that_are_no_multiples_of_4_are_rounded_up() {
    let (order, start) = started();
    let mut odd = order.block(0x55, b"odd");
    for at in [4, odd.len() - 4] {
        odd = patched(order, odd, at, 15);
    }
    let bytes = [&start[..], &odd, &order.enhanced_packet(0, 1, 4)].concat();
    let summary = check_splits(&bytes);
    assert_eq!((summary.packets, summary.damage), (2, Vec::new()));
}

#[test]
fn sections_that_no_reader_supports_are_findings() {
    let (order, start) = started();
    for (version, is_supported) in [([1, 0], true), ([1, 2], true), ([1, 1], false), ([2, 0], false)] {
        let body = [order.words(&[0x1a2b_3c4d]), order.half_words(&version), vec![0xff; 8]].concat();
        let section = order.block(0x0a0d_0d0a, &body);
        let bytes =
            [&start[..], &section, &order.interface(1, &[]), &order.enhanced_packet(0, 1, 4)].concat();
        let summary = check_splits(&bytes);
        let kinds: Vec<DamageKind> = summary.damage.iter().map(|damage| damage.kind).collect();
        let expected = (!is_supported).then_some(DamageKind::Unsupported);
        assert_eq!((summary.packets, kinds), (2, expected.into_iter().collect()), "{version:?}");
    }
    let overlong = [order.words(&[0x1a2b_3c4d]), order.half_words(&[1, 0]), vec![0xff; 8], vec![0xcd; 12]];
    let bytes = [
        order.block(0x0a0d_0d0a, &overlong.concat()),
        order.interface(1, &[]),
        order.enhanced_packet(0, 1, 4),
    ];
    let summary = check_splits(&bytes.concat());
    assert_eq!((summary.packets, summary.damage[0].kind), (1, DamageKind::BadBlock));
    assert!(summary.damage[0].detail.contains("52685"), "{}", summary.damage[0].detail);
}

#[test]
fn findings_are_counted_but_only_the_first_are_listed() {
    let (order, start) = started();
    let bytes = [start, order.enhanced_packet(7, 1, 4).repeat(100)].concat();
    let summary = track(&bytes).summary();
    assert_eq!((summary.damage.len(), summary.damage_omitted, summary.damage_count()), (16, 84, 100));
    assert_eq!((summary.packets, summary.packets_without_time), (101, 100));
}

#[test]
fn appended_captures_are_found_and_counted() {
    let pcap =
        |order: Order| [order.file_header(false, 113), order.packet(5, 4), order.packet(6, 4)].concat();
    let (_, pcapng) = started();
    for (first, second, packets) in [
        (pcap(ORDERS[0]), pcap(ORDERS[0]), 4),
        (pcap(ORDERS[0]), pcap(ORDERS[1]), 4),
        (pcap(ORDERS[1]), pcapng.clone(), 3),
        (pcapng.clone(), pcap(ORDERS[0]), 3),
        (pcapng.clone(), pcap(ORDERS[1]), 3),
    ] {
        let bytes = [first.clone(), second].concat();
        let summary = check_splits(&bytes);
        let [Damage { kind, offset, .. }] = summary.damage[..] else { panic!("{:?}", summary.damage) };
        assert_eq!((kind, offset), (DamageKind::AppendedCapture, first.len() as u64));
        assert_eq!((summary.packets, summary.packets_without_time), (packets, 0));
    }
    // Sections follow each other in pcapng: that is one capture.
    let summary = check_splits(&[pcapng.clone(), pcapng].concat());
    assert_eq!((summary.packets, summary.damage), (2, Vec::new()));
    // A packet of no bytes is a packet.
    let empty = [ORDERS[0].file_header(false, 1), ORDERS[0].packet(5, 0), ORDERS[0].packet(5, 0)].concat();
    assert_eq!((check_splits(&empty).packets, check_splits(&empty).damage), (2, Vec::new()));
}

#[test]
fn times_that_cannot_be_are_unknown() {
    for (resolution, offset_s, ticks, expected) in [
        (6, 0, 1, Some(1_000)),
        (6, 0, u64::MAX / 1_000, None),
        (6, 0, i64::MAX as u64 / 1_000, Some(i64::MAX / 1_000 * 1_000)),
        (9, 0, 1, Some(1)),
        (9, 0, u64::MAX, None),
        (12, 0, 1_999, Some(1)),
        (0, 1, 1, Some(2_000_000_000)),
        (0x80, 0, 3, Some(3_000_000_000)),
        (0x80 | 63, 0, u64::MAX, Some(1_999_999_999)),
        (0xff, 0, u64::MAX, None),
        (19, 0, u64::MAX, Some(1_844_674_407)),
        (20, 0, u64::MAX, None),
        (0x7f, 0, u64::MAX, None),
        (0, 0, u64::MAX, None),
        (6, i64::MIN, 0, None),
        (6, -1, 0, Some(-1_000_000_000)),
    ] {
        let interface = Interface { link_type: 1, resolution, offset_s };
        assert_eq!(interface.time_ns(ticks), expected, "{resolution} {offset_s} {ticks}");
    }
}

#[test]
fn fractions_of_a_second_or_more_are_unknown_times() {
    for order in ORDERS {
        for (nanoseconds, limit) in [(false, 1_000_000), (true, 1_000_000_000)] {
            let fractions = [7, limit, limit - 1, u32::MAX, limit + 5, 3];
            let packets: Vec<u8> = fractions.iter().flat_map(|fraction| order.packet(*fraction, 4)).collect();
            let summary = check_splits(&[order.file_header(nanoseconds, 1), packets].concat());
            let unit = i64::from(1_000_000_000 / limit);
            assert_eq!((summary.packets, summary.packets_without_time), (6, 3));
            assert_eq!(summary.first_packet_ns, Some(NS + 3 * unit));
            assert_eq!(summary.last_packet_ns, Some(NS + 1_000_000_000 - unit));
        }
    }
}

#[test]
fn the_number_of_remembered_interfaces_is_bounded() {
    let order = ORDERS[0];
    let of_resolution = |n: u8| order.interface(1, &[order.option(9, &[n])]);
    let many = |numbers: &mut dyn Iterator<Item = u8>| numbers.flat_map(of_resolution).collect::<Vec<u8>>();
    // 10,000 equal interfaces form one run, so the last one is known.
    let equal =
        [order.section(), many(&mut std::iter::repeat_n(9, 10_000)), order.enhanced_packet(9_999, 7, 4)];
    let tracker = track(&equal.concat());
    assert_eq!(tracker.summary().last_packet_ns, Some(7));
    assert!(serde_json::to_string(&tracker).unwrap().len() < 1_000);
    // Alternating ones have a byte each.
    let alternating = |count: usize| many(&mut (0..count).map(|n| [9, 8][n % 2]));
    let last_of = |count: usize| {
        let packets = [order.enhanced_packet(0, 7, 4), order.enhanced_packet(count as u32 - 1, 8, 4)];
        track(&[order.section(), alternating(count), packets.concat()].concat()).summary()
    };
    for (count, without_time) in [(300, 0), (256 + 8192, 0), (256 + 8192 + 1, 1)] {
        let summary = last_of(count);
        assert_eq!((summary.packets, summary.packets_without_time), (2, without_time), "{count}");
        let latest = if without_time == 0 { 80 } else { 7 };
        assert_eq!((summary.first_packet_ns, summary.last_packet_ns), (Some(7), Some(latest)), "{count}");
        assert_eq!(summary.damage, Vec::new());
    }
    let kinds = many(&mut (0..=255).map(|n: u8| n & 0x7f | (n & 1) << 7));
    assert!(track(&[order.section(), kinds].concat()).is_consistent());
    assert!(size_of::<PacketTracker>() <= 400, "{}", size_of::<PacketTracker>());
}

#[test]
fn a_deserialized_tracker_continues() {
    let bytes = testdata("three-calls.pcapng");
    let whole = track(&bytes);
    for split in (0..bytes.len()).step_by(997) {
        let stored = serde_json::to_string(&track(&bytes[..split])).unwrap();
        let mut tracker: PacketTracker = serde_json::from_str(&stored).unwrap();
        tracker.feed(&bytes[split..]);
        assert_eq!(state(&tracker), state(&whole));
    }
}

#[test]
fn recordings_are_tracked_at_all_splits() {
    for name in ["answered-call.pcap", "rejected-call.pcap", "three-calls.pcapng"] {
        let bytes = testdata(name);
        check_splits(&bytes[..bytes.len().min(2_500)]);
        let whole = state(&track(&bytes));
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..50 {
            let mut tracker = PacketTracker::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                // xorshift64: sizes from 1 byte to 16 KiB, with an even distribution of magnitudes.
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let size = (1 + seed as usize % (1 << (seed >> 60))).min(rest.len());
                tracker.feed(&rest[..size]);
                rest = &rest[size..];
            }
            assert_eq!(state(&tracker), whole, "{name}");
        }
    }
}

/// Packet times as printed by tshark.
fn tshark_times(path: &Path) -> Vec<String> {
    let output = Command::new("tshark")
        .args(["-n", "-T", "fields", "-e", "frame.time_epoch", "-r"])
        .arg(path)
        .output()
        .expect("this test needs tshark");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn epoch(ns: i64) -> String {
    format!("{}.{:09}", ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000))
}

#[test]
fn tshark_reports_the_same_packets() {
    for name in ["answered-call.pcap", "rejected-call.pcap", "three-calls.pcapng"] {
        let summary = track(&testdata(name)).summary();
        let times = tshark_times(&testdata_path(name));
        assert_eq!(summary.packets, times.len() as u64);
        assert_eq!(epoch(summary.first_packet_ns.unwrap()), times[0]);
        assert_eq!(epoch(summary.last_packet_ns.unwrap()), times[times.len() - 1]);
        assert_eq!((summary.truncated_bytes, summary.malformed_at), (0, None));
    }
}

/// Versions of pcap: the order of the lengths, and the time unit and link types of AIX.
#[test]
fn tshark_reads_the_same_in_all_versions_of_pcap() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("version.pcap");
    for order in ORDERS {
        for (version, network, is_captured_second, variant) in [
            ([2, 4], 1, false, None),
            ([2, 3], 1, false, None),
            ([2, 3], 1, true, None),
            ([2, 2], 1, true, None),
            ([2, 0], 113, true, None),
            ([543, 0], 1, true, None),
            ([2, 2], 6, true, Some(PcapVariant::Aix)),
            ([2, 2], 24, true, Some(PcapVariant::Aix)),
        ] {
            let packet = |seconds: u32| {
                let lengths = if is_captured_second { [90, 40] } else { [40, 90] };
                [order.words(&[SECONDS + seconds, 7_000]), order.words(&lengths), vec![0; 40]].concat()
            };
            let header =
                [order.words(&[0xa1b2_c3d4]), order.half_words(&version), order.words(&[0, 0, 96, network])];
            let bytes = [header.concat(), packet(0), packet(3), packet(1)].concat();
            let summary = check_splits(&bytes);
            fs::write(&path, &bytes).unwrap();
            let mut times = tshark_times(&path);
            times.sort();
            assert_eq!(summary.packets, times.len() as u64, "{version:?}");
            // Of nanoseconds tshark prints nine digits, of microseconds six and three zeros.
            assert_eq!(epoch(summary.first_packet_ns.unwrap()), times[0], "{version:?}");
            assert_eq!(epoch(summary.last_packet_ns.unwrap()), times[2], "{version:?}");
            assert_eq!((summary.variant, summary.damage), (variant, Vec::new()), "{version:?}");
        }
    }
}

/// Headers that readers refuse.
#[test]
fn file_headers_that_readers_refuse_are_findings() {
    let order = ORDERS[0];
    let header = |version: [u16; 2], network: u32| {
        let words = order.words(&[0, 0, 96, network]);
        [order.words(&[0xa1b2_c3d4]), order.half_words(&version), words].concat()
    };
    for (version, network, detail) in [
        ([1, 0], 1, Some("no reader supports pcap version 1.0")),
        ([2, 5], 1, Some("tcpdump does not read pcap version 2.5")),
        ([543, 1], 1, Some("tcpdump does not read pcap version 543.1")),
        ([2, 4], 0x0001_0001, Some("reserved bits of the link type are set")),
        ([2, 4], 500, Some("Wireshark 4.0 does not read link type 500")),
        ([2, 4], 0xf400_0001, None),
        ([2, 4], 295, None),
    ] {
        let bytes = [header(version, network), order.packet(5, 4)].concat();
        let summary = check_splits(&bytes);
        let details: Vec<&str> = summary.damage.iter().map(|damage| &*damage.detail).collect();
        assert_eq!(details.len(), detail.iter().len(), "{details:?}");
        assert!(detail.is_none_or(|detail| details[0].starts_with(detail)), "{details:?}");
        assert!(summary.damage.iter().all(|damage| damage.kind == DamageKind::Unsupported));
        assert!(version != [2, 4] || summary.packets == 1);
    }
}

#[test]
fn tshark_reads_the_file_at_every_boundary() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["rejected-call.pcap", "three-calls.pcapng"] {
        let bytes = testdata(name);
        for received in [1_000, bytes.len() / 2, bytes.len() - 1] {
            let tracker = track(&bytes[..received]);
            let path = dir.path().join(name);
            std::fs::write(&path, &bytes[..tracker.packet_boundary() as usize]).unwrap();
            assert_eq!(tshark_times(&path).len() as u64, tracker.packets(), "{name} {received}");
        }
    }
}

/// In a malformed capture, packets count up to where Wireshark's reader stops.
#[test]
fn capinfos_counts_as_many_packets_in_broken_captures() {
    let dir = tempfile::tempdir().unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for (round, name) in ["answered-call.pcap", "three-calls.pcapng"].iter().cycle().take(40).enumerate() {
        let mut bytes = testdata(name);
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        // Corrupts one byte of a packet's header: in pcap a length, in pcapng the block's length or the interface.
        let middle = track(&bytes[..bytes.len() / 2 + seed as usize % 20_000]).packet_boundary() as usize;
        bytes[middle + 4 + (seed >> 32) as usize % 12] ^= (seed >> 56) as u8 & !3 | 4;
        let path = dir.path().join(format!("{round}-{name}"));
        std::fs::write(&path, &bytes).unwrap();
        let output =
            Command::new("capinfos").args(["-Mrc"]).arg(&path).output().expect("this test needs capinfos");
        // A malformed capture is reported on stderr, with the count. Otherwise the count is the last word on
        // stdout.
        let state = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        let broken = state[1].split_once("after reading ").and_then(|(_, rest)| rest.split(' ').next());
        let count = broken.or(state[0].split_whitespace().next_back()).and_then(|count| count.parse().ok());
        // The tracker goes on after a bad block, readers do not.
        let summary = track(&bytes).summary();
        let before = summary.damage.first().map_or(summary.packets, |damage| damage.packets_before);
        assert_eq!(count, Some(before), "{round} {name} {middle} {state:?} {:?}", summary.damage);
    }
}
