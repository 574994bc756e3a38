//! Tests of the ledger on a real directory. A crash is simulated by copying the directory while the ledger
//! runs.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::cc::vault::checkpoint;
use crate::cc::vault::manifest::{Manifest, ManifestState};
use crate::cc::vault::pool::BufferSize;
use crate::cc::vault::write_coalescer::COALESCING_STREAMS_MAX;
use crate::cc::vault::{Access, RotationLimits, VaultConfig, VaultThreads};
use crate::cc::wire::chunk::{self, ChunkError};
use crate::runtime::metrics::Metrics;

const PCAP: &[u8] = include_bytes!("../../../../testdata/pcap/answered-call.pcap");
const PCAPNG: &[u8] = include_bytes!("../../../../testdata/pcap/three-calls.pcapng");

struct Kit {
    ledger: Option<Ledger>,
    vault: Option<Vault>,
    threads: Option<VaultThreads>,
}

impl Kit {
    fn open(dir: &Path, streams_max: usize) -> Kit {
        let config = VaultConfig {
            dir: dir.to_owned(),
            access: Access::PRIVATE,
            hash: true,
            partial_packet_bytes_max: 1 << 20,
            descriptors: 256,
            free_bytes_min: 0,
            sync_interval: Duration::from_millis(50),
            continue_within: None,
            rotation: RotationLimits::default(),
        };
        let (vault, threads) = Vault::spawn(&config, Arc::new(Metrics::default())).unwrap();
        let ledger = Ledger::open(&vault, StreamSource::Kafka, "broker", streams_max).unwrap();
        Kit { ledger: Some(ledger), vault: Some(vault), threads: Some(threads) }
    }

    fn ledger(&mut self) -> &mut Ledger {
        self.ledger.as_mut().unwrap()
    }

    /// Coalesces two of three records and flushes every third one.
    fn take(&mut self, partition: PartitionId, offset: i64, record: &Record) -> Accepted {
        let base64 = STANDARD.encode(&record.data);
        let value = format!(r#"{{"interceptionfilename":"{}","data":"{base64}"}}"#, record.name);
        self.ledger().accept(partition, offset, &chunk::parse(value.as_bytes()).unwrap()).unwrap()
    }

    /// Waits until the writer and the syncer have processed all jobs.
    fn settle(&mut self) {
        let ledger = self.ledger();
        ledger.flush_coalesced().unwrap();
        ledger.wait_for_checkpoint().unwrap();
        let (done, done_in) = bounded(1);
        let nothing = CheckpointBatch { text: Vec::new(), replaces_all: false, done };
        ledger.shared.queue.send(WriteJob::Checkpoint(nothing)).unwrap();
        done_in.recv().unwrap().unwrap();
    }

    fn close(mut self) {
        let mut ledger = self.ledger.take().unwrap();
        let commits = ledger.flush().unwrap();
        ledger.record_commits(&commits);
        ledger.close();
        drop(self.vault.take());
        assert!(self.threads.take().unwrap().join().unwrap().is_zero());
    }
}

#[derive(Clone)]
struct Record {
    name: String,
    data: Vec<u8>,
}

/// Cuts streams, each sent once or several times, into records of `bytes` bytes, and mixes them.
fn records(streams: &[(&str, &[&[u8]])], bytes: usize) -> Vec<Record> {
    let cut = |(name, passes): &(&str, &[&[u8]])| -> Vec<Record> {
        let chunks = passes.iter().flat_map(|content| content.chunks(bytes));
        chunks.map(|data| Record { name: (*name).to_owned(), data: data.to_vec() }).collect()
    };
    let streams: Vec<Vec<Record>> = streams.iter().map(cut).collect();
    let most = streams.iter().map(Vec::len).max().unwrap();
    (0..most).flat_map(|at| streams.iter().filter_map(move |records| records.get(at).cloned())).collect()
}

/// Compares contents. A failure reports the first difference, not the contents.
fn assert_same(is: &[u8], expected: &[u8], what: &str) {
    let differs = is.iter().zip(expected).position(|(is, expected)| is != expected);
    assert_eq!((is.len(), differs), (expected.len(), None), "{what}");
}

fn stored(dir: &Path, name: &str) -> Vec<u8> {
    std::fs::read(dir.join(name)).unwrap()
}

fn manifest(dir: &Path, name: &str) -> Manifest {
    crate::cc::vault::manifest::read(&dir.join(format!("{name}.lea.json"))).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with('.') && !name.ends_with(".json")).collect();
    names.sort();
    names
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            // A manifest may be renamed meanwhile.
            false => drop(std::fs::copy(entry.path(), to)),
        }
    }
}

#[test]
fn records_become_files_and_are_listed_in_manifests() {
    let dir = tempfile::tempdir().unwrap();
    let mut kit = Kit::open(dir.path(), 100);
    let (partition, start) = kit.ledger().assign("t", Some("id"), 3, None);
    assert_eq!(start.offset, None);
    let records = records(&[("a.pcap", &[PCAP]), ("b.pcapng", &[PCAPNG])], 1000);
    for (offset, record) in records.iter().enumerate() {
        assert_eq!(kit.take(partition, offset as i64, record), Accepted::New);
    }
    assert_eq!(kit.take(partition, 5, &records[5]), Accepted::Duplicate);
    kit.close();
    assert_same(&stored(dir.path(), "a.pcap"), PCAP, "a.pcap");
    assert_same(&stored(dir.path(), "b.pcapng"), PCAPNG, "b.pcapng");
    let manifest = manifest(dir.path(), "a.pcap");
    assert_eq!((manifest.source, manifest.state), (StreamSource::Kafka, ManifestState::Closed));
    let [segment] = &manifest.segments[..] else { panic!("{:?}", manifest.segments) };
    assert_eq!((segment.partition, segment.first_offset, segment.at), (3, 0, 0));
    assert_eq!((segment.bytes, segment.topic_id.as_deref()), (PCAP.len() as u64, Some("id")));
    assert!(!manifest.order_uncertain);
}

#[test]
fn after_a_crash_at_any_point_each_record_is_stored_once() {
    let mut state = 7u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    // The second stream is sent twice, so some crashes happen during the comparison. The third one then
    // differs.
    let mut differs = PCAP.to_vec();
    differs[30_000] ^= 1;
    let streams: [(&str, &[&[u8]]); 4] = [
        ("a.pcapng", &[PCAPNG]),
        ("b.pcap", &[PCAP, PCAP]),
        ("c.pcap", &[&PCAP[..40_000], &differs]),
        ("d.txt", &[b"no capture"]),
    ];
    let records = records(&streams, 1000);
    for round in 0..12 {
        let root = tempfile::tempdir().unwrap();
        let mut dir = root.path().join("0");
        let mut crashes = 0;
        loop {
            let mut kit = Kit::open(&dir, 2 + random(3) as usize);
            // The last commits of the group may be lost.
            let (partition, start) = kit.ledger().assign("t", None, 0, Some(0));
            let mut offset = start.offset.unwrap() - random(20) as i64;
            let crash_at = offset + 1 + random(400) as i64;
            while offset < records.len() as i64 && (crashes == 4 || offset < crash_at) {
                if offset >= 0 {
                    kit.take(partition, offset, &records[offset as usize]);
                }
                if random(30) == 0 {
                    kit.ledger().start_checkpoint().unwrap();
                }
                if let Some(commits) = kit.ledger().poll_checkpoint().unwrap() {
                    kit.ledger().record_commits(&commits);
                }
                offset += 1;
            }
            if offset >= records.len() as i64 {
                kit.close();
                break;
            }
            crashes += 1;
            kit.settle();
            let next = root.path().join(crashes.to_string());
            copy(&dir, &next);
            kit.close();
            dir = next;
        }
        assert_same(&stored(&dir, "a.pcapng"), PCAPNG, &format!("a.pcapng, round {round}"));
        assert_same(&stored(&dir, "b.pcap"), PCAP, &format!("b.pcap, round {round}"));
        assert_same(&stored(&dir, "c.pcap"), &PCAP[..40_000], &format!("c.pcap, round {round}"));
        assert_same(&stored(&dir, "c.pcap.2"), &differs, &format!("c.pcap.2, round {round}"));
        assert_eq!(names(&dir), ["a.pcapng", "b.pcap", "c.pcap", "c.pcap.2", "d.txt"]);
        assert_eq!(manifest(&dir, "a.pcapng").bytes, PCAPNG.len() as u64);
    }
}

#[test]
fn an_offset_committed_by_another_member_wins() {
    let dir = tempfile::tempdir().unwrap();
    let records = records(&[("a.pcap", &[PCAP])], 1000);
    let mut kit = Kit::open(dir.path(), 100);
    let (partition, _) = kit.ledger().assign("t", None, 0, None);
    for offset in 0..10 {
        kit.take(partition, offset, &records[offset as usize]);
    }
    kit.ledger().flush().unwrap();
    kit.ledger().unassign(partition);
    let (again, start) = kit.ledger().assign("t", None, 0, Some(20));
    assert_eq!((again, start.offset), (partition, Some(20)));
    kit.take(partition, 20, &records[20]);
    kit.close();
    let manifest = manifest(dir.path(), "a.pcap");
    let segments: Vec<_> = manifest.segments.iter().map(|s| (s.first_offset, s.next_offset, s.at)).collect();
    assert_eq!(segments, [(0, 10, 0), (20, 21, 10_000)]);
}

#[test]
fn a_recreated_topic_is_read_from_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let records = records(&[("a.pcap", &[PCAP])], 1000);
    let mut kit = Kit::open(dir.path(), 100);
    let (partition, _) = kit.ledger().assign("t", Some("one"), 0, None);
    for offset in 0..10 {
        kit.take(partition, offset, &records[offset as usize]);
    }
    let (again, start) = kit.ledger().assign("t", Some("two"), 0, Some(10));
    assert_eq!((again, start.offset), (partition, Some(0)));
    for (offset, record) in records[10..].iter().enumerate() {
        assert_eq!(kit.take(partition, offset as i64, record), Accepted::New);
    }
    kit.close();
    assert_same(&stored(dir.path(), "a.pcap"), PCAP, "a.pcap");
    assert_eq!(manifest(dir.path(), "a.pcap").segments.len(), 2);
}

#[test]
fn two_partitions_make_the_order_uncertain() {
    let dir = tempfile::tempdir().unwrap();
    let mut kit = Kit::open(dir.path(), 100);
    let (first, _) = kit.ledger().assign("t", None, 0, None);
    let (second, _) = kit.ledger().assign("t", None, 1, None);
    let record = |text: &str| Record { name: "a".into(), data: text.into() };
    kit.take(first, 0, &record("one "));
    kit.take(second, 0, &record("two "));
    kit.take(first, 1, &record("three"));
    kit.close();
    assert_eq!(stored(dir.path(), "a"), b"one two three");
    assert!(manifest(dir.path(), "a").order_uncertain);
}

#[test]
fn more_streams_than_can_coalesce_with_records_of_any_size() {
    let names: Vec<String> =
        (0..COALESCING_STREAMS_MAX + 20).map(|number| format!("{number:03}.pcap")).collect();
    for bytes in
        [500, BufferSize::Small.bytes() / 2 + 1, BufferSize::Small.bytes() + 1, BufferSize::Large.bytes() + 1]
    {
        let dir = tempfile::tempdir().unwrap();
        let passes: Vec<Vec<u8>> = names.iter().map(|name| content(name, 2 * bytes + 7)).collect();
        let passes: Vec<[&[u8]; 1]> = passes.iter().map(|bytes| [&bytes[..]]).collect();
        // Large records are not coalesced.
        let count = if bytes > BufferSize::Small.bytes() / 2 { 3 } else { names.len() };
        let streams: Vec<(&str, &[&[u8]])> =
            names.iter().zip(&passes).take(count).map(|(name, pass)| (&name[..], &pass[..])).collect();
        let mut kit = Kit::open(dir.path(), 2 * COALESCING_STREAMS_MAX);
        let (partition, _) = kit.ledger().assign("t", None, 0, None);
        for (offset, record) in records(&streams, bytes).iter().enumerate() {
            assert_eq!(kit.take(partition, offset as i64, record), Accepted::New);
            assert!(kit.ledger().streams.coalescing() <= COALESCING_STREAMS_MAX);
        }
        kit.ledger().flush_coalesced().unwrap();
        assert!(!kit.ledger().is_coalescing());
        kit.close();
        for (name, pass) in &streams {
            assert_same(&stored(dir.path(), name), pass[0], &format!("{name}, records of {bytes} bytes"));
        }
    }
}

/// Returns content that is unique to the name.
fn content(name: &str, bytes: usize) -> Vec<u8> {
    name.bytes().cycle().zip(0u32..).map(|(byte, at)| byte ^ ((at * 31) >> 3) as u8).take(bytes).collect()
}

#[test]
fn a_rejected_record_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut kit = Kit::open(dir.path(), 100);
    let (partition, _) = kit.ledger().assign("t", None, 0, None);
    let wrong = |name: &str| format!(r#"{{"interceptionfilename":"{name}","data":"YWFhYWFhYWE!"}}"#);
    for (offset, text) in ["one ", "two"].into_iter().enumerate() {
        let offset = offset as i64;
        for name in ["a", "never"] {
            let taken =
                kit.ledger().accept(partition, offset, &chunk::parse(wrong(name).as_bytes()).unwrap());
            assert!(matches!(taken, Err(AcceptError::Rejected(ChunkError::BadBase64 { .. }))));
        }
        kit.take(partition, offset, &Record { name: "a".into(), data: text.into() });
    }
    kit.close();
    assert_eq!((stored(dir.path(), "a"), names(dir.path())), (b"one two".to_vec(), vec!["a".to_owned()]));
}

#[test]
fn no_checkpoint_is_written_after_a_failed_flush() {
    let dir = tempfile::tempdir().unwrap();
    let records = records(&[("a.pcap", &[PCAP])], 1000);
    let mut kit = Kit::open(dir.path(), 100);
    let (partition, _) = kit.ledger().assign("t", None, 0, None);
    for (offset, record) in records.iter().enumerate().take(3) {
        kit.take(partition, offset as i64, record);
    }
    kit.ledger().finish_checkpoint().unwrap();
    kit.take(partition, 3, &records[3]);
    kit.ledger().shared.queue.open_parts().values().for_each(|part| part.mark_broken(1));
    assert!(kit.ledger().flush_coalesced().is_err());
    assert!(!kit.ledger().is_coalescing());
    assert!(kit.ledger().finish_checkpoint().is_err(), "the failure is remembered");
    assert!(kit.ledger().flush().is_err());
    kit.ledger.take().unwrap().close();
    drop(kit.vault.take());
    assert!(!kit.threads.take().unwrap().join().unwrap().is_zero());
    let mut kit = Kit::open(dir.path(), 100);
    assert_eq!(kit.ledger().assign("t", None, 0, None).1.offset, Some(3));
    kit.close();
}

fn sha256(content: &[u8]) -> Option<String> {
    Some(hex::encode(&<sha2::Sha256 as sha2::Digest>::digest(content)))
}

/// Changes a byte of a stored file. If the hash stays the same, the file was not read.
fn flip(path: &Path) -> Vec<u8> {
    let mut content = std::fs::read(path).unwrap();
    content[500] ^= 1;
    std::fs::write(path, &content).unwrap();
    content
}

/// Damages each resume state in a file.
fn spoil(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let spoiled = text
        .replace("\"resume_state\":\"B", "\"resume_state\":\"C")
        .replace("resume_state\": \"B", "resume_state\": \"C");
    assert_ne!(text, spoiled, "there is a state");
    std::fs::write(path, spoiled).unwrap();
}

#[test]
fn an_evicted_stream_continues_without_reading_its_file() {
    for damaged in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut kit = Kit::open(dir.path(), 1);
        let (partition, _) = kit.ledger().assign("t", None, 0, None);
        let record = |name: &str, data: &[u8]| Record { name: name.into(), data: data.into() };
        kit.take(partition, 0, &record("a.pcap", &PCAP[..10_001]));
        kit.take(partition, 1, &record("b", b"no capture"));
        kit.settle();
        assert_eq!(manifest(dir.path(), "a.pcap").end_reason, Some(EndReason::Idle));
        if damaged {
            spoil(&dir.path().join("a.pcap.lea.json"));
        } else {
            flip(&dir.path().join("a.pcap"));
        }
        kit.take(partition, 2, &record("a.pcap", &PCAP[10_001..20_000]));
        kit.close();
        let manifest = manifest(dir.path(), "a.pcap");
        assert_eq!(manifest.sha256, sha256(&PCAP[..20_000]), "damaged: {damaged}");
        if damaged {
            assert_same(&stored(dir.path(), "a.pcap"), &PCAP[..20_000], "a.pcap");
        }
        assert_eq!(names(dir.path()), ["a.pcap", "b"]);
    }
}

#[test]
fn after_a_crash_a_file_is_read_only_if_its_resume_state_is_damaged() {
    for damaged in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let (dir, crashed) = (root.path().join("0"), root.path().join("1"));
        let records = records(&[("a.pcap", &[PCAP])], 1000);
        let mut kit = Kit::open(&dir, 100);
        let (partition, _) = kit.ledger().assign("t", None, 0, None);
        for offset in 0..20 {
            kit.take(partition, offset, &records[offset as usize]);
            if offset == 10 {
                kit.ledger().finish_checkpoint().unwrap();
            }
        }
        kit.settle();
        copy(&dir, &crashed);
        kit.close();
        if damaged {
            spoil(&crashed.join(".lea/checkpoints.jsonl"));
        }
        let flipped = flip(&crashed.join("a.pcap"));
        let mut kit = Kit::open(&crashed, 100);
        let (partition, start) = kit.ledger().assign("t", None, 0, None);
        assert_eq!(start.offset, Some(11));
        let expected = if damaged { &flipped[..11_000] } else { &PCAP[..11_000] };
        let recovered = manifest(&crashed, "a.pcap");
        assert_eq!((recovered.bytes, recovered.state), (11_000, ManifestState::Recovered));
        assert_eq!(recovered.sha256, sha256(expected), "damaged: {damaged}");
        for (offset, record) in records.iter().enumerate().skip(11) {
            kit.take(partition, offset as i64, record);
        }
        kit.close();
        let expected = if damaged { &[&flipped[..11_000], &PCAP[11_000..]].concat()[..] } else { PCAP };
        assert_eq!(manifest(&crashed, "a.pcap").sha256, sha256(expected), "damaged: {damaged}");
        assert_eq!(names(&crashed), ["a.pcap"]);
    }
}

#[test]
fn a_file_closed_after_the_last_checkpoint_is_rolled_back() {
    let dir = tempfile::tempdir().unwrap();
    let records = records(&[("a.pcap", &[PCAP])], 1000);
    let mut kit = Kit::open(dir.path(), 100);
    let (partition, _) = kit.ledger().assign("t", None, 0, None);
    for offset in 0..10 {
        kit.take(partition, offset, &records[offset as usize]);
    }
    kit.ledger().finish_checkpoint().unwrap();
    let rounds = dir.path().join(".lea/checkpoints.jsonl");
    let before = std::fs::read(&rounds).unwrap();
    for offset in 10..20 {
        kit.take(partition, offset, &records[offset as usize]);
    }
    kit.close();
    // The last checkpoints could not be written.
    std::fs::write(&rounds, before).unwrap();
    let mut kit = Kit::open(dir.path(), 100);
    let (partition, start) = kit.ledger().assign("t", None, 0, None);
    assert_eq!((start.offset, stored(dir.path(), "a.pcap").len()), (Some(10), 10_000));
    for (offset, record) in records.iter().enumerate().skip(10) {
        kit.take(partition, offset as i64, record);
    }
    kit.close();
    assert_same(&stored(dir.path(), "a.pcap"), PCAP, "a.pcap");
}

#[test]
fn a_closed_file_with_a_stale_journal_line_is_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let mut kit = Kit::open(dir.path(), 100);
    let (partition, _) = kit.ledger().assign("t", None, 0, None);
    kit.take(partition, 0, &Record { name: "a.pcap".into(), data: PCAP[..9_000].into() });
    let journal = dir.path().join(".lea/open.jsonl");
    let open = std::fs::read(&journal).unwrap();
    kit.close();
    // The journal line for closing the file was not written, or was lost in a power failure.
    std::fs::write(&journal, open).unwrap();
    Kit::open(dir.path(), 100).close();
    assert_same(&stored(dir.path(), "a.pcap"), &PCAP[..9_000], "a.pcap");
    assert_eq!(manifest(dir.path(), "a.pcap").state, ManifestState::Closed);
}

/// Cuts a text into records of one stream, one per word.
fn words(text: &str) -> Vec<Record> {
    text.split_inclusive(' ').map(|word| Record { name: "a".into(), data: word.into() }).collect()
}

/// Takes records of a dump by their offsets. Returns what became of each.
fn take_dump(kit: &mut Kit, records: &[Record], offsets: &[i64], has_no_gaps: bool) -> Vec<Accepted> {
    let partition = kit.ledger().add_dump_partition("t", 0, None, has_no_gaps);
    offsets.iter().map(|offset| kit.take(partition, *offset, &records[*offset as usize])).collect()
}

fn gaps(dir: &Path) -> Vec<(i64, i64)> {
    let gaps = manifest(dir, "a").gaps;
    gaps.iter().map(|gap| (gap.first_offset, gap.next_offset)).collect()
}

#[test]
fn a_filtered_dump_leaves_gaps_that_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let records = words("0 1 2 3 4 5 6 7 8 9");
    for round in 0..2 {
        let mut kit = Kit::open(dir.path(), 100);
        let expected = if round == 0 { Accepted::New } else { Accepted::Duplicate };
        assert_eq!(take_dump(&mut kit, &records, &[0, 3, 4, 7], false), [expected; 4]);
        kit.close();
        assert_eq!(stored(dir.path(), "a"), b"0 3 4 7 ");
        assert_eq!(gaps(dir.path()), [(1, 3), (5, 7)]);
        let unread = checkpoint::read_gaps(dir.path()).unwrap();
        let unread: Vec<_> = unread.iter().map(|gap| (gap.first_offset, gap.next_offset)).collect();
        assert_eq!(unread, [(1, 3), (5, 7)]);
    }
    let before = manifest(dir.path(), "a");
    let mut kit = Kit::open(dir.path(), 100);
    let all: Vec<i64> = (0..10).collect();
    let accepted = take_dump(&mut kit, &records, &all, false);
    for (offset, accepted) in all.iter().zip(accepted) {
        let is_known = matches!(offset, 0 | 3 | 4 | 7);
        assert_eq!(accepted, if is_known { Accepted::Duplicate } else { Accepted::New }, "{offset}");
    }
    kit.close();
    assert_eq!(stored(dir.path(), "a"), b"0 1 2 3 4 5 6 7 8 9");
    let after = manifest(dir.path(), "a");
    assert_eq!((after.gaps.len(), after.sha256), (0, sha256(b"0 1 2 3 4 5 6 7 8 9")));
    let [insertion] = &after.insertions[..] else { panic!("{:?}", after.insertions) };
    assert_eq!((insertion.records, insertion.bytes), (4, 8));
    assert_eq!(insertion.previous_sha256, sha256(b"0 3 4 7 8 9"));
    assert_ne!(before.sha256, insertion.previous_sha256, "records were appended first");
    assert_eq!(checkpoint::read_gaps(dir.path()).unwrap(), []);
    let list: Vec<_> =
        after.segments.iter().map(|s| (s.first_offset, s.next_offset, s.at, s.after_gap)).collect();
    assert_eq!(list.first(), Some(&(0, 3, 0, false)));
    assert!(list.windows(2).all(|two| two[0].1 == two[1].0 && !two[1].3), "{list:?}");
}

/// What is inserted before the header of a capture, or is a header itself, belongs to another re-send.
#[test]
fn records_around_the_start_of_a_capture_are_not_inserted() {
    let dir = tempfile::tempdir().unwrap();
    let mut kit = Kit::open(dir.path(), 100);
    let record = |data: &[u8]| Record { name: "a".into(), data: data.into() };
    let records = [record(b"rest"), record(&PCAP[..1000]), record(&PCAP[..500]), record(&PCAP[1000..2000])];
    assert_eq!(take_dump(&mut kit, &records, &[1, 3], false), [Accepted::New; 2]);
    assert_eq!(take_dump(&mut kit, &records, &[0, 2], false), [Accepted::Late; 2]);
    kit.close();
    assert_same(&stored(dir.path(), "a"), &PCAP[..2000], "a");
    assert_eq!(gaps(dir.path()), [(2, 3)]);
}

#[test]
fn a_dump_in_reverse_order_is_stored_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let records: Vec<Record> =
        PCAP.chunks(2000).map(|data| Record { name: "a".into(), data: data.into() }).collect();
    let mut kit = Kit::open(dir.path(), 100);
    let offsets: Vec<i64> = (0..records.len() as i64).rev().collect();
    let accepted = take_dump(&mut kit, &records, &offsets, false);
    assert!(accepted.iter().all(|accepted| *accepted == Accepted::New));
    kit.close();
    assert_same(&stored(dir.path(), "a"), PCAP, "a");
    assert_eq!(manifest(dir.path(), "a").sha256, sha256(PCAP));
    assert_eq!(names(dir.path()), ["a"]);
}

/// A crash at any point of an insertion leaves the file before or after it, and the offsets that belong to it.
#[test]
fn an_insertion_is_complete_or_did_not_happen() {
    let records = words("0 1 2 3 4 5 6 7 8 9");
    let root = tempfile::tempdir().unwrap();
    let first = root.path().join("first");
    let mut kit = Kit::open(&first, 100);
    take_dump(&mut kit, &records, &[0, 3, 4, 7], false);
    kit.close();
    let mut kit = Kit::open(&first, 100);
    take_dump(&mut kit, &records, &[1, 2, 9], false);
    let crashed = |step: &str| root.path().join(step);
    let ledger = kit.ledger();
    let built = ledger.build_insertions().unwrap();
    copy(&first, &crashed("written"));
    built.0.commit(&ledger.shared).unwrap();
    copy(&first, &crashed("committed"));
    ledger.shared.dir.publish_meta("insertion.0", "a").unwrap();
    copy(&first, &crashed("renamed"));
    ledger.apply_insertions(built).unwrap();
    copy(&first, &crashed("applied"));
    kit.close();
    assert_eq!(stored(&first, "a"), b"0 1 2 3 4 7 9");
    for step in ["written", "committed", "renamed", "applied"] {
        let dir = crashed(step);
        let mut kit = Kit::open(&dir, 100);
        let expected: &[u8] = if step == "written" { b"0 3 4 7 9" } else { b"0 1 2 3 4 7 9" };
        assert_eq!(stored(&dir, "a"), expected, "{step}");
        assert_eq!(manifest(&dir, "a").sha256, sha256(expected), "{step}");
        let all: Vec<i64> = (0..10).collect();
        take_dump(&mut kit, &records, &all, false);
        kit.close();
        let content = stored(&dir, "a");
        // The last word has no space after it.
        assert_eq!(content, b"0 1 2 3 4 5 6 7 8 9", "{step}");
        assert_eq!((gaps(&dir), manifest(&dir, "a").sha256), (vec![], sha256(&content)), "{step}");
        assert!(!dir.join(".lea/insertions.json").exists() && !dir.join(".lea/insertion.0").exists());
    }
}

/// A record that is missing is stored if its stream has no later one, and it closes the gap of the directory.
#[test]
fn records_of_other_streams_are_stored_in_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let mut kit = Kit::open(dir.path(), 1);
    let record = |name: &str, data: &str| Record { name: name.into(), data: data.into() };
    let records = [record("a", "0"), record("b", "1"), record("a", "2"), record("b", "3")];
    assert_eq!(take_dump(&mut kit, &records, &[0, 2], false), [Accepted::New; 2]);
    let accepted = take_dump(&mut kit, &records, &[0, 1, 2, 3], false);
    assert_eq!(accepted, [Accepted::Duplicate, Accepted::New, Accepted::Duplicate, Accepted::New]);
    kit.close();
    assert_eq!((stored(dir.path(), "a"), stored(dir.path(), "b")), (b"02".to_vec(), b"13".to_vec()));
    assert_eq!(checkpoint::read_gaps(dir.path()).unwrap(), []);
    assert_eq!(gaps(dir.path()), []);
}

#[test]
fn offsets_that_a_log_segment_or_a_broker_lacks_are_no_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let records = words("0 1 2 3 4 5 6 7 8 9");
    let mut kit = Kit::open(dir.path(), 100);
    take_dump(&mut kit, &records, &[0, 3], true);
    let (partition, start) = kit.ledger().assign("t", None, 0, None);
    assert_eq!(start.offset, Some(4));
    kit.take(partition, 6, &records[6]);
    kit.close();
    assert_eq!((stored(dir.path(), "a"), gaps(dir.path())), (b"0 3 6 ".to_vec(), vec![]));
    assert_eq!(checkpoint::read_gaps(dir.path()).unwrap(), []);
}

#[test]
fn a_consumer_reads_the_gaps_of_a_dump() {
    let dir = tempfile::tempdir().unwrap();
    let mut kit = Kit::open(dir.path(), 100);
    let record = |name: &str, data: &str| Record { name: name.into(), data: data.into() };
    let names = ["a", "b", "b", "a", "b"];
    let records: Vec<Record> = names.iter().map(|name| record(name, "x")).collect();
    take_dump(&mut kit, &records, &[1, 3], false);
    let (partition, start) = kit.ledger().assign("t", Some("id"), 0, None);
    assert_eq!((start.offset, start.end), (Some(0), 4));
    let accepted: Vec<_> =
        (0..5).map(|offset| kit.take(partition, offset, &records[offset as usize])).collect();
    let (new, known) = (Accepted::New, Accepted::Duplicate);
    assert_eq!(accepted, [new, known, new, known, new]);
    kit.close();
    assert_eq!(checkpoint::read_gaps(dir.path()).unwrap(), []);
    assert_eq!(kit_start(dir.path()), (Some(5), 5));
}

/// Returns where a consumer would start.
fn kit_start(dir: &Path) -> (Option<i64>, i64) {
    let mut kit = Kit::open(dir, 100);
    let (_, start) = kit.ledger().assign("t", Some("id"), 0, None);
    kit.close();
    (start.offset, start.end)
}
