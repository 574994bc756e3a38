//! Tests of the loop with an in-memory consumer and a real directory: what is stored when the group assigns,
//! revokes, acknowledges or does not answer.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::*;
use crate::capture::tracker::PacketTracker;
use crate::cc::ingest::kafka::fake::FakeConsumer;
use crate::cc::kafka_dump::files::DumpImporter;
use crate::cc::kafka_dump::{DumpCounts, DumpDecoder, DumpOptions, DumpSource};
use crate::cc::vault::checkpoint::{self, Checkpoint};
use crate::cc::vault::manifest::{self, EndReason, ManifestState, StreamSource};
use crate::cc::vault::{Access, RotationLimits, Vault, VaultConfig};

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
    idle_timeout: Option<Duration>,
    wait_timeout: Duration,
}

impl Kit {
    fn new() -> Kit {
        // Longer than any pause of a busy machine.
        Kit::with_wait_timeout(Duration::from_secs(60))
    }

    fn with_wait_timeout(wait_timeout: Duration) -> Kit {
        Kit {
            dir: TempDir::new().unwrap(),
            shutdown: Shutdown::new().unwrap(),
            idle_timeout: None,
            wait_timeout,
        }
    }

    /// Runs a consumer to the end of the records. If a hook runs before each poll, runs it until that
    /// triggers the shutdown.
    fn run(&self, fake: &mut FakeConsumer, from: StartFrom) -> Consumed {
        let metrics = Arc::<Metrics>::default();
        let (vault, threads) = Vault::spawn(&self.vault_config(), Arc::clone(&metrics)).unwrap();
        let until_end = fake.on_poll.is_none();
        let consumer = ConsumeLoop {
            ledger: Ledger::open(&vault, StreamSource::Kafka, "fake", 100).unwrap(),
            client: fake,
            config: ConsumeConfig {
                from,
                exit_at_end: until_end,
                checkpoint_interval: Duration::from_millis(5),
                idle_timeout: self.idle_timeout,
                wait_timeout: self.wait_timeout,
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

    fn vault_config(&self) -> VaultConfig {
        VaultConfig {
            dir: self.dir.path().to_owned(),
            access: Access::PRIVATE,
            hash: true,
            partial_packet_bytes_max: 1 << 20,
            descriptors: 256,
            free_bytes_min: 0,
            sync_interval: Duration::from_millis(50),
            continue_within: None,
            rotation: RotationLimits::default(),
        }
    }

    /// Decodes a dump into the directory.
    fn decode(&self, dump: &str) -> DumpCounts {
        let (vault, threads) = Vault::spawn(&self.vault_config(), Arc::default()).unwrap();
        let mut importer = DumpImporter::open(&vault, self.dir.path(), &[]).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(dump.as_bytes()).unwrap();
        let mut decoder =
            DumpDecoder::new(&mut importer, DumpOptions::default(), &self.shutdown, Arc::default());
        decoder.read(&DumpSource::File(file.path().to_owned())).unwrap();
        let counts = decoder.counts.clone();
        importer.finish().unwrap();
        drop(vault);
        assert!(threads.join().unwrap().is_zero());
        counts
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

/// First offsets and next offsets.
type Offsets = Vec<(i64, i64)>;

/// Returns the segments of a stream, and its gaps.
fn described(dir: &Path, name: &str) -> (Offsets, Offsets) {
    let manifest = manifest::read(&dir.join(format!("{name}{}", manifest::SUFFIX))).unwrap();
    let segments = manifest.segments.iter().map(|segment| (segment.first_offset, segment.next_offset));
    let gaps = manifest.gaps.iter().map(|gap| (gap.first_offset, gap.next_offset));
    (segments.collect(), gaps.collect())
}

#[test]
fn a_partition_that_is_added_later_is_read_from_its_first_record() {
    for restarts in [false, true] {
        let kit = Kit::new();
        let mut fake = FakeConsumer { partition_count: Some(1), ..FakeConsumer::default() };
        produce(&mut fake, 0, "old.pcap", &PCAP[..5000]);
        fake.queue_assignment(&[partition(0)]);
        if restarts {
            assert_eq!(kit.run(&mut fake, StartFrom::Latest).records, 0);
            fake.partition_count = Some(2);
            produce(&mut fake, 1, "new.pcap", PCAP);
            fake.queue_assignment(&[partition(0), partition(1)]);
            kit.run(&mut fake, StartFrom::Latest);
        } else {
            let shutdown = kit.shutdown.clone();
            fake.on_poll = Some(Box::new(move |fake, polls| match polls {
                2 => {
                    fake.partition_count = Some(2);
                    produce(fake, 1, "new.pcap", PCAP);
                    fake.queue_assignment(&[partition(1)]);
                }
                4 => shutdown.trigger(),
                _ => {}
            }));
            kit.run(&mut fake, StartFrom::Latest);
        }
        assert!(stored(kit.dir.path(), "new.pcap") == PCAP, "restarts: {restarts}");
        assert!(!kit.path().join("old.pcap").exists());
    }
}

#[test]
fn an_open_transaction_is_waited_for_and_not_called_the_end() {
    let kit = Kit::with_wait_timeout(Duration::from_secs(3));
    let mut fake = FakeConsumer::default();
    produce(&mut fake, 0, "a.pcap", &PCAP[..9000]);
    fake.stable.insert(partition(0), 4);
    fake.queue_assignment(&[partition(0)]);
    let consumed = kit.run(&mut fake, StartFrom::Stored);
    assert_eq!(consumed, Consumed { records: 4, ..Consumed::default() }, "the end was not reached");
    fake.stable.clear();
    fake.queue_assignment(&[partition(0)]);
    let consumed = kit.run(&mut fake, StartFrom::Stored);
    assert_eq!(consumed, Consumed { records: 5, at_end: true, ..Consumed::default() });
    assert!(stored(kit.dir.path(), "a.pcap") == PCAP[..9000]);
}

#[test]
fn a_run_without_a_partition_ends_after_the_limit() {
    let kit = Kit::with_wait_timeout(Duration::from_millis(500));
    assert_eq!(kit.run(&mut FakeConsumer::default(), StartFrom::Stored), Consumed::default());
}

#[test]
fn an_unreadable_batch_is_passed_over_and_named() {
    let kit = Kit::new();
    let mut fake = FakeConsumer::default();
    produce(&mut fake, 0, "a", &PCAP[..9000]);
    fake.unreadable.insert(partition(0), 3..5);
    fake.queue_assignment(&[partition(0)]);
    let consumed = kit.run(&mut fake, StartFrom::Stored);
    assert_eq!(consumed, Consumed { records: 7, damaged: 1, at_end: true, ..Consumed::default() });
    assert!(stored(kit.dir.path(), "a") == [&PCAP[..3000], &PCAP[5000..9000]].concat());
    let (segments, gaps) = described(kit.dir.path(), "a");
    assert_eq!((segments, gaps), (vec![(0, 3), (5, 9)], vec![(3, 5)]));
    // The batch can be read later. The consumer reads the gap, and inserts its records.
    fake.unreadable.clear();
    fake.committed.clear();
    fake.queue_assignment(&[partition(0)]);
    let consumed = kit.run(&mut fake, StartFrom::Stored);
    assert_eq!(consumed, Consumed { records: 2, duplicates: 4, at_end: true, ..Consumed::default() });
    assert!(stored(kit.dir.path(), "a") == PCAP[..9000]);
    assert_eq!((described(kit.dir.path(), "a").1, fake.committed[&partition(0)]), (vec![], 9));
}

#[test]
fn records_that_the_broker_deleted_while_nobody_read_are_a_gap() {
    let kit = Kit::with_wait_timeout(Duration::from_secs(3));
    let mut fake = FakeConsumer::default();
    produce(&mut fake, 0, "a", &PCAP[..9000]);
    fake.stable.insert(partition(0), 4);
    fake.queue_assignment(&[partition(0)]);
    kit.run(&mut fake, StartFrom::Stored);
    fake.stable.clear();
    fake.firsts.insert(partition(0), 6);
    for records in [3, 0] {
        fake.queue_assignment(&[partition(0)]);
        let consumed = kit.run(&mut fake, StartFrom::Stored);
        assert_eq!(consumed, Consumed { records, at_end: true, ..Consumed::default() });
        assert_eq!(described(kit.dir.path(), "a"), (vec![(0, 4), (6, 9)], vec![(4, 6)]));
    }
}

#[test]
fn an_idle_stream_is_closed_and_continues_as_the_same_stream() {
    let kit = Kit { idle_timeout: Some(Duration::from_millis(20)), ..Kit::new() };
    let mut fake = FakeConsumer::default();
    produce(&mut fake, 0, "a.pcap", &PCAP[..5000]);
    fake.queue_assignment(&[partition(0)]);
    let (dir, shutdown) = (kit.path(), kit.shutdown.clone());
    let mut is_continued = false;
    fake.on_poll = Some(Box::new(move |fake, _| {
        let found = manifest::read(&dir.join("a.pcap.lea.json")).ok();
        let closed = |bytes: u64| {
            found.as_ref().is_some_and(|found| {
                found.bytes == bytes
                    && found.state == ManifestState::Closed
                    && found.end_reason == Some(EndReason::Idle)
                    && found.sha256.is_some()
            })
        };
        if !is_continued && closed(5000) {
            produce(fake, 0, "a.pcap", &PCAP[5000..9000]);
            is_continued = true;
        } else if closed(9000) {
            shutdown.trigger();
        }
        std::thread::sleep(Duration::from_millis(1));
    }));
    assert_eq!(kit.run(&mut fake, StartFrom::Stored).records, 9);
    assert!(stored(kit.dir.path(), "a.pcap") == PCAP[..9000] && !kit.path().join("a.pcap.2").exists());
    let found = manifest::read(&kit.path().join("a.pcap.lea.json")).unwrap();
    let parts: Vec<_> = found.connections.iter().map(|part| (part.offset, part.bytes)).collect();
    assert_eq!(parts, [(0, 5000), (5000, 4000)]);
}

/// Number of records of the random tests, and names of their streams.
const RECORDS: i64 = 40;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Linear congruential generator (Knuth).
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// A record whose content is its offset.
fn numbered(offset: i64, names: &[usize]) -> String {
    let data = STANDARD.encode(format!("{offset},"));
    format!(r#"{{"interceptionfilename":"{}","data":"{data}"}}"#, NAMES[names[offset as usize]])
}

/// Writes a dump of random records: a part of the topic, filtered, reordered, with a record twice, or damaged. Returns the
/// offsets that can be read.
fn random_dump(random: &mut Random, names: &[usize]) -> (String, Vec<i64>) {
    let first = random.below(RECORDS as u64) as i64;
    let next = first + 1 + random.below((RECORDS - first) as u64) as i64;
    let kept = 1 + random.below(3);
    let mut offsets: Vec<i64> = (first..next).filter(|_| random.below(kept) == 0).collect();
    match random.below(4) {
        0 => offsets.reverse(),
        1 if !offsets.is_empty() => {
            let (one, other) = (random.below(offsets.len() as u64), random.below(offsets.len() as u64));
            offsets.swap(one as usize, other as usize);
            offsets.push(offsets[0]);
        }
        _ => {}
    }
    let damaged = (random.below(3) == 0).then(|| random.below(offsets.len().max(1) as u64) as usize);
    let mut dump = String::new();
    for (at, offset) in offsets.iter().enumerate() {
        let payload = serde_json::Value::from(numbered(*offset, names));
        let mut line =
            format!(r#"{{"topic":"t","partition":0,"offset":{offset},"key":null,"payload":{payload}}}"#);
        if damaged == Some(at) {
            line.truncate(line.len() / 2);
        }
        let _ = writeln!(dump, "{line}");
    }
    if let Some(at) = damaged.filter(|at| *at < offsets.len()) {
        offsets.remove(at);
    }
    (dump, offsets)
}

/// Reads the topic from the consumer's start to its end. Returns the offsets that were read.
fn random_live_read(kit: &Kit, random: &mut Random, fake: &mut FakeConsumer) -> (Consumed, Vec<i64>) {
    if random.below(2) == 0 {
        fake.committed.clear();
    }
    fake.assigned.clear();
    fake.queue_assignment(&[partition(0)]);
    let consumed = kit.run(fake, StartFrom::Stored);
    let read = (consumed.records + consumed.duplicates + consumed.late) as i64;
    (consumed, (RECORDS - read..RECORDS).collect())
}

/// Whatever the dumps lack and in whatever order they come: the files have every record that any of them had, in order and
/// once, or the record is named, the run is incomplete, and a gap between stored records is in the manifest.
#[test]
fn random_dumps_and_live_reads_lose_nothing_silently() {
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64);
    let mut random = Random(seed);
    for round in 0..40 {
        let kit = Kit::new();
        let names: Vec<usize> = (0..RECORDS).map(|_| random.below(NAMES.len() as u64) as usize).collect();
        let mut fake = FakeConsumer { batch: 7, ..FakeConsumer::default() };
        (0..RECORDS).for_each(|offset| fake.produce(&partition(0), numbered(offset, &names)));
        let (mut had, mut is_incomplete) = (BTreeSet::new(), false);
        for _ in 0..1 + random.below(4) {
            let offsets = if random.below(4) == 0 {
                let (consumed, offsets) = random_live_read(&kit, &mut random, &mut fake);
                assert!(consumed.at_end);
                is_incomplete |= consumed.late > 0;
                offsets
            } else {
                let (dump, offsets) = random_dump(&mut random, &names);
                is_incomplete |= kit.decode(&dump).late > 0;
                offsets
            };
            had.extend(offsets);
        }
        check_numbered(&kit, &names, &had, is_incomplete, &format!("seed {seed}, round {round}"));
    }
}

#[track_caller]
fn check_numbered(kit: &Kit, names: &[usize], had: &BTreeSet<i64>, is_incomplete: bool, what: &str) {
    for (nth, name) in NAMES.iter().enumerate() {
        let expected: Vec<i64> =
            had.iter().copied().filter(|offset| names[*offset as usize] == nth).collect();
        let content = std::fs::read_to_string(kit.path().join(name)).unwrap_or_default();
        let found: Vec<i64> = content.split_terminator(',').map(|offset| offset.parse().unwrap()).collect();
        assert!(found.is_sorted_by(|one, other| one < other), "{what}: {name} has {found:?}");
        assert!(!kit.path().join(format!("{name}.2")).exists(), "{what}");
        let missing: Vec<i64> = expected.iter().copied().filter(|offset| !found.contains(offset)).collect();
        assert_eq!(
            found.len() + missing.len(),
            expected.len(),
            "{what}: {name} has {found:?} of {expected:?}"
        );
        assert!(missing.is_empty() || is_incomplete, "{what}: {name} lacks {missing:?}");
        // No record is the header of a capture, so each can be inserted.
        assert!(!is_incomplete, "{what}");
        let gaps = if found.is_empty() { Vec::new() } else { described(kit.dir.path(), name).1 };
        for offset in
            missing.into_iter().filter(|offset| found[0] < *offset && offset < &found[found.len() - 1])
        {
            let is_named = gaps.iter().any(|(first, next)| (*first..*next).contains(&offset));
            assert!(is_named, "{what}: {name} lacks {offset}, gaps {gaps:?}");
        }
    }
}

#[test]
fn partitions_of_other_members_are_waited_for() {
    let kit = Kit::with_wait_timeout(Duration::from_secs(3));
    let two_partitions = || {
        let mut fake = FakeConsumer { partition_count: Some(2), ..FakeConsumer::default() };
        produce(&mut fake, 0, "ours.pcap", PCAP);
        produce(&mut fake, 1, "theirs.pcap", PCAP);
        fake.queue_assignment(&[partition(0)]);
        fake
    };
    // Nobody reads the other partition: a killed member has it, and the time is over before its session.
    let mut fake = two_partitions();
    let consumed = kit.run(&mut fake, StartFrom::Stored);
    assert!(!consumed.at_end && consumed.records > 0, "{consumed:?}");
    // The other member has committed its end.
    let end = fake.logs[&partition(1)].len() as i64;
    fake.committed.insert(partition(1), end);
    fake.queue_assignment(&[partition(0)]);
    assert!(kit.run(&mut fake, StartFrom::Stored).at_end);
    // It has committed all but the marker of a transaction, which no consumer returns.
    fake.committed.insert(partition(1), end - 1);
    fake.control_tail.push(partition(1));
    fake.queue_assignment(&[partition(0)]);
    assert!(kit.run(&mut fake, StartFrom::Stored).at_end);
    // An empty partition has no committed offset.
    let mut fake = FakeConsumer { partition_count: Some(3), ..two_partitions() };
    fake.committed.insert(partition(1), end);
    assert!(Kit::new().run(&mut fake, StartFrom::Stored).at_end);
}
