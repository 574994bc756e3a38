//! Rotated streams: each file is a capture, and together they are the stream, whatever its senders and crashes do.

use std::collections::BTreeMap;

use super::*;
use crate::cc::vault::chains::{ChainLink, chains};
use crate::cc::vault::manifest::Rotation;

/// Random numbers (xorshift64*), so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn packet(&mut self) -> Vec<u8> {
        let bytes = 14 + self.below(120);
        (0..bytes).map(|_| self.below(256) as u8).collect()
    }

    fn pcap(&mut self) -> Vec<u8> {
        let mut capture = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1]);
        for second in 0..10 + self.below(40) as u32 {
            let packet = self.packet();
            let length = packet.len() as u32;
            capture.extend(words(&[1_795_000_000 + second, 1, length, length]));
            capture.extend(packet);
        }
        capture
    }

    /// A pcapng capture with interfaces in the middle, and sometimes a second section.
    fn pcapng(&mut self) -> Vec<u8> {
        let mut capture = Vec::new();
        for _ in 0..1 + self.below(2) {
            capture.extend(words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]));
            for interface in 0..1 + self.below(4) as u32 {
                capture.extend(words(&[1, 20, 1, 262_144, 20]));
                for second in 0..3 + self.below(12) as u32 {
                    let mut packet = self.packet();
                    let length = packet.len() as u32;
                    packet.resize(packet.len().next_multiple_of(4), 0);
                    let total = 32 + packet.len() as u32;
                    capture.extend(words(&[6, total, interface, 0x0006_5b00, second, length, length]));
                    capture.extend(packet);
                    capture.extend(words(&[total]));
                }
            }
        }
        capture
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn limits(bytes: usize) -> RotationLimits {
    RotationLimits { bytes: Some(bytes as u64), age: None }
}

/// All parts in a directory, by part number.
fn parts(dir: &Path) -> BTreeMap<u32, (Vec<u8>, Manifest)> {
    let part = |number| dir.join(name::part_file_name("file", number)).exists();
    (1..1000)
        .filter(|number| part(*number))
        .map(|number| (number, stored(dir, &name::part_file_name("file", number))))
        .collect()
}

/// Puts the streams together again by their manifests alone. Checks each part meanwhile.
#[track_caller]
fn joined(dir: &Path) -> Vec<Vec<u8>> {
    let parts: Vec<(Vec<u8>, Manifest)> = parts(dir).into_values().collect();
    for (content, manifest) in &parts {
        let scan = scan(&mut &content[..], &mut [0; 4096], true, |_| {}).unwrap();
        assert_eq!((manifest.bytes, manifest.sha256.clone()), (content.len() as u64, scan.sha256()));
        assert_eq!(manifest.capture, scan.tracker.summary(), "{}", manifest.file);
        let brought: u64 = manifest.connections.iter().map(|connection| connection.bytes).sum();
        let headers = manifest.header_bytes().min(manifest.bytes);
        assert_eq!(brought + headers, manifest.bytes, "{}", manifest.file);
    }
    let links: Vec<ChainLink<'_>> =
        parts.iter().map(|(content, manifest)| ChainLink { manifest, bytes: content.len() as u64 }).collect();
    let join = |chain: &Vec<usize>| {
        assert!(parts[chain[0]].1.rotation.is_none(), "the start is there");
        let own = |at: &usize| parts[*at].0[parts[*at].1.header_bytes() as usize..].to_vec();
        chain.iter().flat_map(own).collect()
    };
    chains(&links).iter().map(join).collect()
}

/// Checks that each part of a stream is a capture of whole packets, and that no packet is lost.
#[track_caller]
fn check_captures(dir: &Path, content: &[u8]) {
    let mut whole = FileScan::new(false);
    whole.feed(content);
    let parts = parts(dir);
    let packets: u64 = parts.values().map(|(_, manifest)| manifest.capture.packets).sum();
    assert_eq!(packets, whole.tracker.packets());
    for (_, manifest) in parts.values() {
        assert!(manifest.damage().is_empty(), "{}: {:?}", manifest.file, manifest.damage());
        assert_eq!(manifest.capture.format, whole.tracker.summary().format);
    }
}

#[test]
fn a_stream_is_cut_at_packets_and_each_file_is_a_capture() {
    let mut numbers = Numbers(1);
    for content in [numbers.pcap(), numbers.pcapng(), CAPTURE.to_vec()] {
        for step in STEPS {
            let scene = Scene::open(tempfile::tempdir().unwrap(), limits(500));
            scene.send(&content, step);
            let (losses, dir) = scene.end();
            assert!(losses.is_zero());
            assert_eq!(joined(dir.path()), std::slice::from_ref(&content), "step {step}");
            check_captures(dir.path(), &content);
            let parts = parts(dir.path());
            assert!(parts.len() > 1);
            for (number, (stored, manifest)) in &parts {
                let is_last = *number as usize == parts.len();
                let reason = if is_last { EndReason::Eof } else { EndReason::Rotated };
                assert_eq!(manifest.end_reason, Some(reason));
                assert!(is_last || stored.len() >= 500);
            }
        }
    }
}

#[test]
fn senders_that_break_off_and_come_back_leave_one_exact_stream() {
    for seed in 1..=150 {
        let mut numbers = Numbers(seed);
        let content = if seed % 2 == 0 { numbers.pcap() } else { numbers.pcapng() };
        let mut dir = tempfile::tempdir().unwrap();
        let mut stored_bytes = 0;
        for _ in 0..1 + numbers.below(5) {
            // Sometimes with another size, or without rotation.
            let size = [300, 700, 1500, 1 << 30][numbers.below(4)];
            let scene = Scene::open(dir, limits(size));
            for _ in 0..1 + numbers.below(3) {
                let to = numbers.below(content.len() + 1);
                let step = STEPS[1 + numbers.below(4)];
                // From the start, or from where the last connection ended.
                let from = if stored_bytes > 0 && numbers.below(2) == 0 { stored_bytes } else { 0 };
                let is_told_apart = formats::starts_capture(&content[from..to.max(from)]) == Some(from == 0);
                if from < to && is_told_apart {
                    scene.send(&content[from..to], step);
                    stored_bytes = stored_bytes.max(to);
                }
            }
            let (losses, next) = scene.end();
            assert!(losses.is_zero());
            dir = next;
            if numbers.below(3) == 0 {
                stored_bytes = crash(dir.path(), &mut numbers).min(stored_bytes);
            }
        }
        let scene = Scene::open(dir, limits(400));
        scene.send(&content, STEPS[1 + numbers.below(4)]);
        let (_, dir) = scene.end();
        let streams: Vec<Vec<u8>> =
            joined(dir.path()).into_iter().filter(|stream| !stream.is_empty()).collect();
        assert_eq!(streams.len(), 1, "seed {seed}");
        assert!(streams[0] == content, "seed {seed}: {} of {} bytes", streams[0].len(), content.len());
    }
}

/// Leaves the last part as a kill does: it has the first bytes only, and its manifest is open. Returns how many bytes of
/// the stream are stored then.
fn crash(dir: &Path, numbers: &mut Numbers) -> usize {
    let stream_end = |(content, manifest): &(Vec<u8>, Manifest)| {
        let rotation = manifest.rotation.unwrap_or(Rotation { header_bytes: 0, stream_offset: 0 });
        rotation.stream_offset + (content.len() as u64).saturating_sub(rotation.header_bytes)
    };
    let Some((mut content, mut manifest)) = parts(dir).into_values().max_by_key(stream_end) else { return 0 };
    content.truncate(numbers.below(content.len() + 1));
    std::fs::write(dir.join(&manifest.file), &content).unwrap();
    let end = content.len() as u64;
    let rotation = manifest.rotation;
    (manifest.state, manifest.bytes, manifest.sha256) = (ManifestState::Open, 0, None);
    for connection in &mut manifest.connections {
        connection.offset = connection.offset.min(end.max(rotation.map_or(0, |of| of.header_bytes)));
        connection.bytes = connection.bytes.min(end.saturating_sub(connection.offset));
    }
    if let Some(last) = manifest.connections.last_mut() {
        (last.ended_at, last.end_reason) = (None, None);
    }
    let path = dir.join(manifest::file_name(&manifest.file));
    std::fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    rotation.map_or(end, |of| of.stream_offset + end.saturating_sub(of.header_bytes)) as usize
}

#[test]
fn a_re_send_that_differs_is_a_stream_of_its_own() {
    let content = Numbers(7).pcap();
    let mut other = content.clone();
    let at = content.len() - 3;
    other[at] ^= 1;
    for step in STEPS {
        let scene = Scene::open(tempfile::tempdir().unwrap(), limits(400));
        for stream in [&content, &other, &content, &other] {
            scene.send(stream, step);
        }
        let (losses, dir) = scene.end();
        assert!(losses.is_zero());
        assert_eq!(joined(dir.path()), [content.clone(), other.clone()], "step {step}");
    }
}

#[test]
fn a_stream_that_another_address_sends_again_is_only_compared() {
    let content = Numbers(9).pcapng();
    let scene = Scene::open(tempfile::tempdir().unwrap(), limits(400));
    scene.send(&content, 100);
    scene.send_from("198.51.100.9:1", &content, 333);
    scene.send_from("198.51.100.9:1", b"forged", 333);
    scene.send(&content[..content.len() / 2], 100);
    let (_, dir) = scene.end();
    let mut streams = joined(dir.path());
    assert_eq!(streams.pop().unwrap(), b"forged");
    assert_eq!(streams, [content]);
}

#[test]
fn a_missing_file_is_not_taken_for_the_rest_of_the_stream() {
    let content = Numbers(11).pcap();
    let scene = Scene::open(tempfile::tempdir().unwrap(), limits(300));
    scene.send(&content, 100);
    let (_, dir) = scene.end();
    let count = parts(dir.path()).len();
    assert!(count > 3);
    // Its manifest stays, so that its number is not used again.
    std::fs::remove_file(dir.path().join("file.2")).unwrap();
    // The sender goes on: what is stored last is its stream.
    let scene = Scene::open(dir, RotationLimits::default());
    scene.send(b"more", 4);
    // A re-send continues the part that is whole up to its end.
    scene.send(&content, 100);
    let (_, dir) = scene.end();
    let parts = parts(dir.path());
    assert_eq!(parts.len(), count - 1);
    assert!(parts[&(count as u32)].0.ends_with(b"more"));
    assert!(parts[&1].0 == content);
}

#[test]
fn what_cannot_be_cut_stays_one_file() {
    let mut compressed = b"\x1f\x8b\x08".to_vec();
    compressed.resize(2000, 7);
    for content in [b"no capture. ".repeat(200), [CAPTURE, CAPTURE].concat(), compressed] {
        let scene = Scene::open(tempfile::tempdir().unwrap(), limits(1600));
        scene.send(&content, 1000);
        let (_, dir) = scene.end();
        let streams = joined(dir.path());
        assert_eq!(streams, [content]);
    }
}
