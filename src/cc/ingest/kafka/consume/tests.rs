//! Tests of the loop with an in-memory consumer and a real directory: what is stored when the group assigns,
//! revokes, acknowledges or does not answer.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::*;
use crate::capture::tracker::PacketTracker;
use crate::cc::ingest::kafka::fake::FakeConsumer;
use crate::cc::vault::checkpoint::{self, Checkpoint};
use crate::cc::vault::manifest::StreamSource;
use crate::cc::vault::{Access, Vault, VaultConfig};

const PCAP: &[u8] = include_bytes!("../../../../../testdata/pcap/answered-call.pcap");

/// Number of content bytes in a record.
const CHUNK: usize = 1000;

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("t", number)
}

fn produce(fake: &mut FakeConsumer, number: i32, name: &str, content: &[u8]) {
    for data in content.chunks(CHUNK) {
        let data = STANDARD.encode(data);
        fake.produce(&partition(number), format!(r#"{{"interceptionfilename":"{name}","data":"{data}"}}"#));
    }
}

/// Output directory, and the shutdown of its writers.
struct Kit {
    dir: TempDir,
    shutdown: Shutdown,
}

impl Kit {
    fn new() -> Kit {
        Kit { dir: TempDir::new().unwrap(), shutdown: Shutdown::new().unwrap() }
    }

    /// Runs a consumer to the end of the records. If a hook runs before each poll, runs it until that
    /// triggers the shutdown.
    fn run(&self, fake: &mut FakeConsumer, from: StartFrom) -> Consumed {
        let vault_config = VaultConfig {
            dir: self.dir.path().to_owned(),
            access: Access::PRIVATE,
            hash: true,
            partial_packet_bytes_max: 1 << 20,
            descriptors: 256,
            free_bytes_min: 0,
            sync_interval: Duration::from_millis(50),
            continue_within: None,
        };
        let metrics = Arc::<Metrics>::default();
        let (vault, threads) = Vault::spawn(&vault_config, Arc::clone(&metrics)).unwrap();
        let until_end = fake.on_poll.is_none();
        let consumer = ConsumeLoop {
            ledger: Ledger::open(&vault, StreamSource::Kafka, "fake", 100).unwrap(),
            client: fake,
            config: ConsumeConfig {
                from,
                exit_at_end: until_end,
                checkpoint_interval: Duration::from_millis(5),
            },
            metrics,
            live: Arc::default(),
            shutdown: &self.shutdown,
            progress: &mut |_, _| {},
        };
        let consumed = consumer.run().unwrap();
        drop(vault);
        assert!(threads.join().unwrap().is_zero());
        consumed
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

fn stored(dir: &Path, name: &str) -> Vec<u8> {
    std::fs::read(dir.join(name)).unwrap()
}

/// Next offset of each partition in the directory's last checkpoint.
fn kept(dir: &Path) -> BTreeMap<TopicPartition, i64> {
    let rounds = std::fs::File::open(dir.join(".lea").join(checkpoint::FILE)).unwrap();
    let states = Checkpoint::read_from(rounds).unwrap().partitions.into_iter();
    states.map(|state| (TopicPartition::new(&state.topic, state.partition), state.next_offset)).collect()
}

fn records(bytes: usize) -> u64 {
    bytes.div_ceil(CHUNK) as u64
}

#[test]
fn nothing_is_committed_before_it_is_durable() {
    let kit = Kit::new();
    let mut fake = FakeConsumer { batch: 7, ..FakeConsumer::default() };
    produce(&mut fake, 0, "a.pcap", PCAP);
    produce(&mut fake, 1, "b.pcap", PCAP);
    fake.queue_assignment(&[partition(0), partition(1)]);
    let (dir, shutdown) = (kit.path(), kit.shutdown.clone());
    let all = 2 * records(PCAP.len());
    fake.on_poll = Some(Box::new(move |fake, _| {
        let kept = kept(&dir);
        for (partition, committed) in &fake.committed {
            assert!(kept[partition] >= *committed, "{partition}: {committed} is not stored");
        }
        if fake.committed.values().sum::<i64>() == all as i64 {
            shutdown.trigger();
        }
        std::thread::sleep(Duration::from_millis(1));
    }));
    let consumed = kit.run(&mut fake, StartFrom::Stored);
    assert_eq!(consumed, Consumed { records: all, ..Consumed::default() });
    for name in ["a.pcap", "b.pcap"] {
        assert!(stored(kit.dir.path(), name) == PCAP, "{name}");
    }
}

/// The partial packet of the other partition's stream stays in memory.
#[test]
fn revoked_partitions_are_stored_and_committed_first() {
    for lost in [false, true] {
        let kit = Kit::new();
        let mut fake = FakeConsumer::default();
        produce(&mut fake, 0, "stays.pcap", &PCAP[..5000]);
        produce(&mut fake, 1, "goes.pcap", &PCAP[..7000]);
        let boundary = |bytes| {
            let mut tracker = PacketTracker::new();
            tracker.feed(&PCAP[..bytes]);
            tracker.packet_boundary() as usize
        };
        assert!(boundary(5000) < 5000 && boundary(7000) < 7000, "partial packets");
        fake.queue_assignment(&[partition(0), partition(1)]);
        let (dir, shutdown, whole) = (kit.path(), kit.shutdown.clone(), boundary(5000));
        fake.on_poll = Some(Box::new(move |fake, polls| match polls {
            // The first poll returns the partitions, the second their records.
            2 => fake.queue_revocation(&[partition(1)], lost),
            3 => {
                assert_eq!(fake.unassigned, [(partition(1), Some(7))]);
                assert!(stored(&dir, "goes.pcap") == PCAP[..7000]);
                assert_eq!(stored(&dir, "stays.pcap").len(), whole);
                shutdown.trigger();
            }
            _ => {}
        }));
        assert_eq!(kit.run(&mut fake, StartFrom::Stored).records, 12, "lost: {lost}");
        assert!(stored(kit.dir.path(), "stays.pcap") == PCAP[..5000]);
        assert_eq!(fake.committed, BTreeMap::from([(partition(0), 5), (partition(1), 7)]));
    }
}

#[test]
fn a_group_that_does_not_answer_does_not_delay_storing() {
    let kit = Kit::new();
    let mut fake = FakeConsumer { ignores_commits: true, ..FakeConsumer::default() };
    produce(&mut fake, 0, "a.pcap", PCAP);
    fake.queue_assignment(&[partition(0)]);
    assert_eq!(kit.run(&mut fake, StartFrom::Stored).records, records(PCAP.len()));
    assert!(fake.committed.is_empty() && stored(kit.dir.path(), "a.pcap") == PCAP);
    // The directory has its checkpoint, and commits to the group once that answers.
    fake.ignores_commits = false;
    fake.queue_assignment(&[partition(0)]);
    assert_eq!(kit.run(&mut fake, StartFrom::Earliest), Consumed { at_end: true, ..Consumed::default() });
    assert_eq!(fake.committed, BTreeMap::from([(partition(0), records(PCAP.len()) as i64)]));
}

#[test]
fn a_topic_recreated_while_running_is_read_from_its_start() {
    let kit = Kit::new();
    let mut fake = FakeConsumer::default();
    fake.ids.insert("t".to_owned(), "one".to_owned());
    produce(&mut fake, 0, "a.pcap", &PCAP[..5000]);
    fake.queue_assignment(&[partition(0)]);
    let shutdown = kit.shutdown.clone();
    fake.on_poll = Some(Box::new(move |fake, polls| match polls {
        2 => {
            fake.recreate_topic("t", "two");
            produce(fake, 0, "a.pcap", &PCAP[5000..13_000]);
        }
        4 => shutdown.trigger(),
        _ => {}
    }));
    let consumed = kit.run(&mut fake, StartFrom::Stored);
    assert_eq!(consumed, Consumed { records: 13, ..Consumed::default() });
    assert!(stored(kit.dir.path(), "a.pcap") == PCAP[..13_000]);
    assert_eq!(fake.committed, BTreeMap::from([(partition(0), 8)]));
}

/// Sets up a directory that has the first `stored` records, a group with a committed offset, and a partition
/// with the offsets `there`. Returns the start offset, and what the group has committed at the end.
#[track_caller]
fn check_start(
    from: StartFrom,
    stored: Option<usize>,
    committed: Option<i64>,
    there: std::ops::Range<i64>,
    expected: (i64, Option<i64>),
) {
    let kit = Kit::new();
    let mut fake = FakeConsumer::default();
    if let Some(stored) = stored {
        produce(&mut fake, 0, "a.pcap", &PCAP[..stored * CHUNK]);
        fake.queue_assignment(&[partition(0)]);
        assert_eq!(kit.run(&mut fake, StartFrom::Stored).records, stored as u64);
    }
    fake.logs.clear();
    produce(&mut fake, 0, "b.pcap", &PCAP[..there.end as usize * CHUNK]);
    fake.firsts.insert(partition(0), there.start);
    fake.committed.clear();
    fake.committed.extend(committed.map(|committed| (partition(0), committed)));
    fake.queue_assignment(&[partition(0)]);
    let consumed = kit.run(&mut fake, from);
    let is = (there.end - consumed.records as i64, fake.committed.get(&partition(0)).copied());
    assert_eq!((is, consumed.duplicates), (expected, 0));
}

#[test]
fn a_partition_starts_at_the_larger_known_offset() {
    use super::StartFrom::{Earliest, Latest, Stored};
    // Neither has an offset.
    check_start(Stored, None, None, 5..9, (5, Some(9)));
    check_start(Earliest, None, None, 0..9, (0, Some(9)));
    check_start(Latest, None, None, 0..9, (9, Some(9)));
    // The group has an offset, or the directory, or both: the larger one wins.
    check_start(Earliest, None, Some(3), 0..9, (3, Some(9)));
    check_start(Latest, Some(4), None, 0..9, (4, Some(9)));
    check_start(Stored, Some(4), Some(7), 0..9, (7, Some(9)));
    check_start(Stored, Some(4), Some(2), 0..9, (4, Some(9)));
    // The next records were deleted by the broker.
    check_start(Stored, Some(4), Some(4), 6..9, (6, Some(9)));
    check_start(Stored, None, Some(4), 6..9, (6, Some(9)));
    // The broker has lost the last records: the next ones at their offsets are new.
    check_start(Stored, Some(4), Some(4), 0..2, (2, Some(2)));
    check_start(Stored, Some(4), Some(99), 0..9, (4, Some(9)));
}
