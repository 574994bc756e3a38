//! Tests of stream writers on a real vault.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::capture::formats;
use crate::cc::vault::manifest::{self, StreamSource};
use crate::cc::vault::stored_parts::{PartLookup, look_up};
use crate::cc::vault::stream_table::NoPeer;
use crate::cc::vault::{Access, LossTotals, RotationLimits, Vault, VaultConfig, VaultThreads};

mod rotated;

const CAPTURE: &[u8] = include_bytes!("../../../../testdata/pcap/rejected-call.pcap");
const STEPS: [usize; 5] = [1, 7, 100, 1000, 100_000];

struct Scene {
    dir: tempfile::TempDir,
    vault: Vault,
    threads: VaultThreads,
}

impl Scene {
    fn new() -> Scene {
        Scene::open(tempfile::tempdir().unwrap(), RotationLimits::default())
    }

    /// Opens a vault on a directory.
    fn open(dir: tempfile::TempDir, rotation: RotationLimits) -> Scene {
        let config = VaultConfig {
            dir: dir.path().to_owned(),
            access: Access::PRIVATE,
            hash: true,
            partial_packet_bytes_max: 1 << 20,
            descriptors: 100,
            free_bytes_min: 0,
            sync_interval: Duration::from_secs(1),
            continue_within: Some(Duration::from_secs(3600)),
            rotation,
        };
        let (vault, threads) = Vault::spawn(&config, Arc::default()).unwrap();
        Scene { dir, vault, threads }
    }

    fn begin(&self, content: &[u8]) -> io::Result<StreamWriter> {
        self.begin_from("192.0.2.1:1024", content)
    }

    fn begin_from(&self, peer: &str, content: &[u8]) -> io::Result<StreamWriter> {
        let origin = StreamOrigin {
            source: StreamSource::Tcp,
            peer: peer.into(),
            raw_name: None,
            connected_ms: now_ms(),
        };
        let head = match formats::starts_capture(content) {
            Some(true) => StreamStart::NewCapture,
            _ => StreamStart::Continuation,
        };
        self.vault.open_stream(b"file", origin, Arc::new(NoPeer), || false)?.start(head)
    }

    fn feed(&self, writer: &mut StreamWriter, content: &[u8]) -> io::Result<()> {
        let mut buffer = self.vault.pool().take(BufferSize::Large);
        buffer[..content.len()].copy_from_slice(content);
        writer.feed(buffer, content.len())
    }

    /// Sends a whole stream in chunks of `step` bytes.
    fn send(&self, content: &[u8], step: usize) {
        self.send_from("192.0.2.1:1024", content, step);
    }

    fn send_from(&self, peer: &str, content: &[u8], step: usize) {
        let mut writer = self.begin_from(peer, content).unwrap();
        content.chunks(step).for_each(|chunk| self.feed(&mut writer, chunk).unwrap());
        writer.finish(EndReason::Eof);
    }

    /// Shuts the vault down. Returns the losses and the directory.
    fn end(self) -> (LossTotals, tempfile::TempDir) {
        drop(self.vault);
        (self.threads.join().unwrap(), self.dir)
    }
}

fn stored(dir: &Path, file: &str) -> (Vec<u8>, Manifest) {
    let manifest = std::fs::read(dir.join(manifest::file_name(file))).unwrap();
    (std::fs::read(dir.join(file)).unwrap(), serde_json::from_slice(&manifest).unwrap())
}

/// Sends streams of one name one after another, for every chunk length, and checks the resulting parts.
#[track_caller]
fn check(streams: &[&[u8]], parts: &[&[u8]]) {
    for step in STEPS {
        let scene = Scene::new();
        streams.iter().for_each(|stream| scene.send(stream, step));
        let (losses, dir) = scene.end();
        assert!(losses.is_zero(), "step {step}");
        for (number, part) in (1..).zip(parts) {
            let (content, manifest) = stored(dir.path(), &name::part_file_name("file", number));
            assert!(content == *part, "part {number}, step {step}");
            assert_eq!((manifest.bytes, manifest.part), (part.len() as u64, number), "step {step}");
            assert_eq!((manifest.state, manifest.end_reason), (ManifestState::Closed, Some(EndReason::Eof)));
            let sha256 = hex::encode(&<sha2::Sha256 as sha2::Digest>::digest(part));
            assert_eq!(manifest.sha256, Some(sha256), "part {number}, step {step}");
        }
        let next = name::part_file_name("file", parts.len() as u32 + 1);
        assert!(!dir.path().join(next).exists(), "unexpected part, step {step}");
    }
}

fn with_a_change_at(at: usize) -> Vec<u8> {
    let mut other = CAPTURE.to_vec();
    other[at] ^= 1;
    other
}

#[test]
fn a_truncated_stream_and_its_re_send_become_one_file() {
    check(&[CAPTURE], &[CAPTURE]);
    check(&[&CAPTURE[..700], &CAPTURE[700..]], &[CAPTURE]);
    check(&[&CAPTURE[..700], CAPTURE], &[CAPTURE]);
    check(&[&CAPTURE[..30], &CAPTURE[..700], CAPTURE, CAPTURE, &CAPTURE[..30]], &[CAPTURE]);
}

#[test]
fn a_different_re_send_gets_a_new_part() {
    let (early, late) = (with_a_change_at(50), with_a_change_at(1_200));
    check(&[CAPTURE, &late], &[CAPTURE, &late]);
    check(&[CAPTURE, &late, &early, CAPTURE, &late, &early], &[CAPTURE, &late, &early]);
    // The second part is truncated where it still equals the first one. It continues from any offset.
    check(&[CAPTURE, &early[..60], &early], &[CAPTURE, &early]);
}

#[test]
fn a_dropped_stream_writer_ends_with_io_error() {
    let scene = Scene::new();
    let mut writer = scene.begin(CAPTURE).unwrap();
    scene.feed(&mut writer, &CAPTURE[..700]).unwrap();
    drop(writer);
    let (losses, dir) = scene.end();
    let (content, manifest) = stored(dir.path(), "file");
    assert!(content == CAPTURE[..700] && losses.is_zero());
    assert_eq!((manifest.state, manifest.end_reason), (ManifestState::Closed, Some(EndReason::IoError)));
}

#[test]
fn a_stream_that_cannot_start_unlocks_its_name() {
    let scene = Scene::new();
    std::fs::remove_dir(scene.dir.path().join(".lea/tmp")).unwrap();
    assert!(scene.begin(CAPTURE).is_err());
    assert!(!scene.vault.is_open(b"file"));
}

#[test]
fn bytes_without_a_file_are_counted_as_lost() {
    let other = with_a_change_at(1_200);
    for (content, lost) in [(&other[..], other.len() - 1_000), (&[CAPTURE, b"more"].concat(), 4)] {
        let scene = Scene::new();
        scene.send(CAPTURE, 1_000);
        let mut writer = scene.begin(content).unwrap();
        scene.feed(&mut writer, &content[..1_000]).unwrap();
        // From here on no manifest can be written.
        std::fs::remove_dir_all(scene.dir.path().join(".lea/tmp")).unwrap();
        assert!(scene.feed(&mut writer, &content[1_000..]).is_err());
        writer.record_loss(11);
        writer.finish(EndReason::IoError);
        let (losses, dir) = scene.end();
        assert_eq!((losses.streams, losses.bytes), (1, lost as u64 + 11));
        assert!(stored(dir.path(), "file").0 == CAPTURE, "the stored file is unchanged");
    }
}

#[test]
fn a_part_that_is_open_in_another_stream_is_not_changed() {
    let scene = Scene::new();
    let mut writer = scene.begin(b"no capture").unwrap();
    scene.feed(&mut writer, b"no capture").unwrap();
    let origin = StreamOrigin {
        source: StreamSource::Tcp,
        peer: "192.0.2.1:1".into(),
        raw_name: None,
        connected_ms: now_ms(),
    };
    let found = || look_up(&scene.vault.shared, "file", &origin).unwrap();
    assert!(matches!(found(), PartLookup::Foreign));
    assert_eq!(scene.vault.shared.dir.manifest("file").unwrap().unwrap().state, ManifestState::Open);
    writer.finish(EndReason::Eof);
    while scene.vault.is_open(b"file") {
        std::thread::yield_now();
    }
    assert!(matches!(found(), PartLookup::Stored(stored) if stored.bytes == 10));
    assert!(scene.end().0.is_zero());
}

/// The parts that streams from several addresses end in: content, what they continue and what they repeat.
#[track_caller]
fn check_senders(streams: &[(&str, &[u8])], parts: &[(&[u8], Option<u64>, Option<u64>)]) {
    for step in STEPS {
        let scene = Scene::new();
        streams.iter().for_each(|(peer, content)| scene.send_from(peer, content, step));
        let (losses, dir) = scene.end();
        assert!(losses.is_zero(), "step {step}");
        for (number, (expected, continues, repeats)) in (1..).zip(parts) {
            let (content, manifest) = stored(dir.path(), &name::part_file_name("file", number));
            assert!(content == *expected, "part {number}, step {step}");
            let at = |position: &Option<PartPosition>| {
                position.as_ref().map(|position| {
                    assert_eq!(position.file, "file");
                    position.at
                })
            };
            assert_eq!((at(&manifest.continues), at(&manifest.repeats)), (*continues, *repeats), "{number}");
            let brought: u64 = manifest.connections.iter().map(|connection| connection.bytes).sum();
            assert_eq!(brought, manifest.bytes, "every byte is from a listed connection");
        }
        let next = name::part_file_name("file", parts.len() as u32 + 1);
        assert!(!dir.path().join(next).exists(), "unexpected part, step {step}");
    }
}

#[test]
fn another_address_never_changes_a_closed_stream() {
    const SENDER: &str = "192.0.2.1:1024";
    const FORGER: &str = "198.51.100.9:1024";
    let (start, rest) = CAPTURE.split_at(700);
    let all = Some(CAPTURE.len() as u64);
    // A packet is appended, and the sender goes on afterwards.
    check_senders(
        &[(SENDER, start), (FORGER, b"forged"), (SENDER, rest)],
        &[(CAPTURE, None, None), (b"forged", Some(700), None)],
    );
    // The whole stream and one packet more.
    let longer = [CAPTURE, b"forged"].concat();
    check_senders(&[(SENDER, CAPTURE), (FORGER, &longer)], &[(CAPTURE, None, None), (&longer, None, all)]);
    // An equal re-send from elsewhere is compared only.
    check_senders(
        &[(SENDER, CAPTURE), (FORGER, CAPTURE), (FORGER, start), (SENDER, CAPTURE)],
        &[(CAPTURE, None, None)],
    );
    // The forger came first: its part does not attract the sender.
    check_senders(
        &[(FORGER, b"forged"), (SENDER, CAPTURE)],
        &[(b"forged", None, None), (CAPTURE, None, None)],
    );
}

#[test]
fn a_cut_re_send_from_elsewhere_does_not_change_how_the_stream_ended() {
    let scene = Scene::new();
    scene.send(CAPTURE, 1000);
    let mut writer = scene.begin_from("198.51.100.9:1", CAPTURE).unwrap();
    scene.feed(&mut writer, &CAPTURE[..100]).unwrap();
    writer.finish(EndReason::Reset);
    let (_, dir) = scene.end();
    assert_eq!(stored(dir.path(), "file").1.end_reason, Some(EndReason::Eof));
}

#[test]
fn a_second_connection_says_where_the_first_one_is() {
    let scene = Scene::new();
    let mut first = scene.begin(CAPTURE).unwrap();
    scene.feed(&mut first, &CAPTURE[..300]).unwrap();
    let origin = StreamOrigin {
        source: StreamSource::Tcp,
        peer: "192.0.2.1:9".into(),
        raw_name: None,
        connected_ms: now_ms(),
    };
    // A shutdown ends the wait for the first stream at once.
    let pending = scene.vault.open_stream(b"file", origin, Arc::new(NoPeer), || true).unwrap();
    assert!(pending.needs_start() && !pending.has_stored_parts());
    let mut second = pending.start(StreamStart::Continuation).unwrap();
    scene.feed(&mut second, &CAPTURE[300..]).unwrap();
    second.finish(EndReason::Eof);
    first.finish(EndReason::Reset);
    let (_, dir) = scene.end();
    let (rest, manifest) = stored(dir.path(), "file.2");
    assert_eq!(manifest.continues, Some(PartPosition { file: "file".into(), at: 300 }));
    assert!([&stored(dir.path(), "file").0, &rest[..]].concat() == CAPTURE, "joined, they are the stream");
}
