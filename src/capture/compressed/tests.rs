//! Tests with compressors of other projects, in pieces of all sizes.

use std::io::Write;

use super::*;

const CAPTURE: &[u8] = include_bytes!("../../../testdata/pcap/three-calls.pcapng");
const PACKETS: u64 = 1518;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn lz4(content: &[u8], are_independent: bool) -> Vec<u8> {
    let mode = if are_independent {
        lz4_flex::frame::BlockMode::Independent
    } else {
        lz4_flex::frame::BlockMode::Linked
    };
    let mut info = lz4_flex::frame::FrameInfo::new()
        .block_mode(mode)
        .block_size(lz4_flex::frame::BlockSize::Max64KB)
        .block_checksums(are_independent)
        .content_checksum(are_independent);
    info.content_size = are_independent.then_some(content.len() as u64);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn track(bytes: &[u8], piece_bytes: usize) -> PacketTracker {
    let mut tracker = PacketTracker::new();
    bytes.chunks(piece_bytes).for_each(|piece| tracker.feed(piece));
    tracker
}

/// The summary of the bytes, which must be the same in pieces of all sizes.
fn summary(bytes: &[u8]) -> CaptureSummary {
    let whole = track(bytes, bytes.len().max(1));
    assert_eq!((whole.received(), whole.packet_boundary()), (bytes.len() as u64, bytes.len() as u64));
    for piece_bytes in [1, 7, 100, 4096] {
        assert_eq!(track(bytes, piece_bytes).summary(), whole.summary(), "pieces of {piece_bytes}");
    }
    whole.summary()
}

fn containers() -> Vec<(Compression, Vec<u8>)> {
    vec![
        (Compression::Gzip, gzip(CAPTURE)),
        (Compression::Zstd, zstd(CAPTURE)),
        (Compression::Lz4, lz4(CAPTURE, true)),
        (Compression::Lz4, lz4(CAPTURE, false)),
    ]
}

#[test]
fn packets_inside_are_counted() {
    let mut plain = PacketTracker::new();
    plain.feed(CAPTURE);
    let plain = plain.summary();
    for (compression, bytes) in containers() {
        let expected = CaptureSummary { compression: Some(compression), ..plain.clone() };
        assert_eq!(summary(&bytes), expected);
        assert_eq!(expected.packets, PACKETS);
    }
}

#[test]
fn frames_follow_each_other() {
    let (first, second) = CAPTURE.split_at(100_000);
    for bytes in [
        [gzip(first), gzip(second)].concat(),
        [gzip(CAPTURE), vec![0; 600]].concat(),
        [zstd(first), zstd(second)].concat(),
        [zstd(first), b"\x50\x2a\x4d\x18\x04\0\0\0skip".to_vec(), zstd(second)].concat(),
        [lz4(first, true), lz4(second, false)].concat(),
        [lz4(first, true), b"\x5f\x2a\x4d\x18\x04\0\0\0skip".to_vec(), lz4(second, false)].concat(),
    ] {
        let found = summary(&bytes);
        assert_eq!((found.packets, found.damage, found.inspection_stopped), (PACKETS, Vec::new(), None));
    }
}

#[test]
fn a_cut_container_is_truncated_and_what_came_before_counts() {
    for (compression, bytes) in containers() {
        let found = summary(&bytes[..bytes.len() / 2]);
        let [Damage { kind, offset: 0, decompressed: false, .. }] = found.damage[..] else {
            panic!("{compression:?} {:?}", found.damage)
        };
        assert_eq!(kind, DamageKind::Truncated);
        assert!((PACKETS / 8..PACKETS).contains(&found.packets), "{compression:?} {}", found.packets);
        assert_eq!((found.truncated_bytes, found.malformed_at), (0, None));
    }
}

#[test]
fn damage_in_a_container_ends_the_inspection_there() {
    for (compression, mut bytes) in containers() {
        let middle = bytes.len() / 2;
        bytes[middle..middle + 40].fill(0xff);
        let found = summary(&bytes);
        let kinds: Vec<DamageKind> = found.damage.iter().map(|damage| damage.kind).collect();
        assert!(kinds.contains(&DamageKind::Malformed), "{compression:?} {kinds:?}");
    }
    let garbage = summary(&[gzip(CAPTURE), b"something else".to_vec()].concat());
    assert_eq!((garbage.packets, garbage.damage[0].kind), (PACKETS, DamageKind::Malformed));
    assert_eq!(garbage.damage[0].offset, gzip(CAPTURE).len() as u64);
}

#[test]
fn damage_inside_a_sound_container_counts_decompressed_bytes() {
    let found = summary(&gzip(&CAPTURE[..CAPTURE.len() - 10]));
    let [Damage { kind: DamageKind::Truncated, decompressed: true, offset, .. }] = found.damage[..] else {
        panic!("{:?}", found.damage)
    };
    assert!(offset > CAPTURE.len() as u64 - 1_000);
}

#[test]
fn other_content_in_a_container_is_not_a_capture() {
    for content in [&b"some text, and no capture at all"[..], b"short", b"", &gzip(CAPTURE)] {
        let found = summary(&gzip(content));
        assert_eq!((found.format, found.packets), (CaptureFormat::Other, 0));
        assert_eq!((found.compression, found.damage), (Some(Compression::Gzip), Vec::new()));
    }
}

#[test]
fn what_needs_too_much_is_not_looked_into_and_says_so() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(CAPTURE).unwrap();
    let found = summary(&encoder.finish().unwrap());
    let stop = found.inspection_stopped.unwrap();
    assert!(stop.reason.contains("more memory"), "{}", stop.reason);
    assert_eq!((found.packets, found.damage), (0, Vec::new()));
    // 300 MiB of zeros in 30 kB: zstd compresses runs more than any capture can be.
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(CAPTURE).unwrap();
    for _ in 0..300 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let found = track(&encoder.finish().unwrap(), 1 << 20).summary();
    assert_eq!(found.inspection_stopped.unwrap().reason, "it expands too much");
}

#[test]
fn hostile_containers_cause_no_panic() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for (_, good) in containers() {
        for _ in 0..100 {
            let mut bytes = good[..4_000].to_vec();
            for _ in 0..3 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let at = (seed >> 32) as usize % if seed & 1 == 0 { 40 } else { 4_000 };
                bytes[at] = (seed >> 8) as u8;
            }
            assert_eq!(track(&bytes, 1000).received(), 4_000);
        }
    }
}
