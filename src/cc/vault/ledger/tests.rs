//! The ledger on a real folder. A crash is a copy of the folder made while it works: what a kill leaves, and less.

use std::path::Path;
use std::time::Duration;

use base64::Engine;

use super::super::{Access, VaultConfig, VaultThreads};
use super::*;
use crate::counters::Counters;

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
            pending_bytes_max: 1 << 20,
            descriptors: 256,
            free_bytes_min: 0,
            sync_interval: Duration::from_millis(50),
        };
        let (vault, threads) = Vault::spawn(&config, Arc::new(Counters::default())).unwrap();
        let ledger = Ledger::open(&vault, "broker", streams_max).unwrap();
        Kit { ledger: Some(ledger), vault: Some(vault), threads: Some(threads) }
    }

    fn ledger(&mut self) -> &mut Ledger {
        self.ledger.as_mut().unwrap()
    }

    /// Two records of three are gathered, the third is handed on at once.
    fn take(&mut self, partition: PartitionId, offset: i64, record: &Record) -> Taken {
        if offset % 3 != 0 {
            let data = base64::engine::general_purpose::STANDARD.encode(&record.data);
            let value = format!(r#"{{"interceptionfilename":"{}","data":"{data}"}}"#, record.name);
            let chunk = crate::cc::frame::chunk::parse(value.as_bytes()).unwrap();
            return self.ledger().gather(partition, offset, &chunk).unwrap().0;
        }
        let mut buffer = self.vault.as_ref().unwrap().pool().take(Size::Small);
        buffer[..record.data.len()].copy_from_slice(&record.data);
        self.ledger().take(partition, offset, record.name.as_bytes(), buffer, record.data.len()).unwrap()
    }

    /// Waits until the writer and the keeper have done all that they were told.
    fn settle(&mut self) {
        let ledger = self.ledger();
        ledger.wait_for_round().unwrap();
        let (done, done_in) = bounded(1);
        let nothing = Round { text: Vec::new(), replaces: false, done };
        ledger.shared.send(Job::Checkpoint(nothing)).unwrap();
        done_in.recv().unwrap().unwrap();
    }

    fn close(mut self) {
        let mut ledger = self.ledger.take().unwrap();
        let commits = ledger.flush().unwrap();
        ledger.committed(&commits);
        ledger.close();
        drop(self.vault.take());
        assert!(self.threads.take().unwrap().join().unwrap().is_none());
    }
}

#[derive(Clone)]
struct Record {
    name: String,
    data: Vec<u8>,
}

/// Streams, each sent once or more often, cut into records of `bytes` bytes, and mixed.
fn records(streams: &[(&str, &[&[u8]])], bytes: usize) -> Vec<Record> {
    let cut = |(name, passes): &(&str, &[&[u8]])| -> Vec<Record> {
        let chunks = passes.iter().flat_map(|content| content.chunks(bytes));
        chunks.map(|data| Record { name: (*name).to_owned(), data: data.to_vec() }).collect()
    };
    let streams: Vec<Vec<Record>> = streams.iter().map(cut).collect();
    let most = streams.iter().map(Vec::len).max().unwrap();
    (0..most).flat_map(|at| streams.iter().filter_map(move |records| records.get(at).cloned())).collect()
}

/// Equal, or where not: never the content itself.
fn assert_same(is: &[u8], expected: &[u8], what: &str) {
    let differs = is.iter().zip(expected).position(|(is, expected)| is != expected);
    assert_eq!((is.len(), differs), (expected.len(), None), "{what}");
}

fn stored(dir: &Path, name: &str) -> Vec<u8> {
    std::fs::read(dir.join(name)).unwrap()
}

fn manifest(dir: &Path, name: &str) -> Manifest {
    super::super::manifest::read(&dir.join(format!("{name}.lea.json"))).unwrap()
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
            // A manifest may take its place meanwhile.
            false => drop(std::fs::copy(entry.path(), to)),
        }
    }
}

#[test]
fn records_become_files_and_manifests_name_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut kit = Kit::open(dir.path(), 100);
    let (partition, start) = kit.ledger().assign("t", Some("id"), 3, None);
    assert_eq!(start, None);
    let records = records(&[("a.pcap", &[PCAP]), ("b.pcapng", &[PCAPNG])], 1000);
    for (offset, record) in records.iter().enumerate() {
        assert_eq!(kit.take(partition, offset as i64, record), Taken::New);
    }
    assert_eq!(kit.take(partition, 5, &records[5]), Taken::Repeated);
    kit.close();
    assert_same(&stored(dir.path(), "a.pcap"), PCAP, "a.pcap");
    assert_same(&stored(dir.path(), "b.pcapng"), PCAPNG, "b.pcapng");
    let manifest = manifest(dir.path(), "a.pcap");
    assert_eq!((manifest.source, manifest.state), (Source::Kafka, State::Closed));
    let [segment] = &manifest.segments[..] else { panic!("{:?}", manifest.segments) };
    assert_eq!((segment.partition, segment.first_offset, segment.at), (3, 0, 0));
    assert_eq!((segment.bytes, segment.topic_id.as_deref()), (PCAP.len() as u64, Some("id")));
    assert!(!manifest.order_uncertain);
}

#[test]
fn after_a_crash_at_any_point_each_record_is_in_once() {
    let mut state = 7u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    // The second stream is sent twice, so crashes come while it is compared; the third differs then.
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
            // The group may have lost the last commits.
            let (partition, start) = kit.ledger().assign("t", None, 0, Some(0));
            let mut offset = start.unwrap() - random(20) as i64;
            let crash_at = offset + 1 + random(400) as i64;
            while offset < records.len() as i64 && (crashes == 4 || offset < crash_at) {
                if offset >= 0 {
                    kit.take(partition, offset, &records[offset as usize]);
                }
                if random(30) == 0 {
                    kit.ledger().checkpoint().unwrap();
                }
                if let Some(commits) = kit.ledger().finished().unwrap() {
                    kit.ledger().committed(&commits);
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
fn what_another_member_committed_wins() {
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
    assert_eq!((again, start), (partition, Some(20)));
    kit.take(partition, 20, &records[20]);
    kit.close();
    let manifest = manifest(dir.path(), "a.pcap");
    let segments: Vec<_> = manifest.segments.iter().map(|s| (s.first_offset, s.next_offset, s.at)).collect();
    assert_eq!(segments, [(0, 10, 0), (20, 21, 10_000)]);
}

#[test]
fn a_topic_made_again_is_taken_from_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let records = records(&[("a.pcap", &[PCAP])], 1000);
    let mut kit = Kit::open(dir.path(), 100);
    let (partition, _) = kit.ledger().assign("t", Some("one"), 0, None);
    for offset in 0..10 {
        kit.take(partition, offset, &records[offset as usize]);
    }
    let (again, start) = kit.ledger().assign("t", Some("two"), 0, Some(10));
    assert_eq!((again, start), (partition, Some(0)));
    for (offset, record) in records[10..].iter().enumerate() {
        assert_eq!(kit.take(partition, offset as i64, record), Taken::New);
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
