//! The loop over a client in memory, on a real folder: what is stored when the group gives, takes, answers, or does
//! not.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::*;
use crate::cc::frame::capture::Follower;
use crate::cc::source::kafka::fake::Fake;
use crate::cc::vault::checkpoint::{self, Checkpoint};
use crate::cc::vault::{Access, Vault, VaultConfig};

const PCAP: &[u8] = include_bytes!("../../../../../testdata/pcap/answered-call.pcap");

/// Bytes of a record.
const CHUNK: usize = 1000;

fn partition(number: i32) -> Partition {
    Partition::new("t", number)
}

fn produce(fake: &mut Fake, number: i32, name: &str, content: &[u8]) {
    for data in content.chunks(CHUNK) {
        let data = STANDARD.encode(data);
        fake.produce(&partition(number), format!(r#"{{"interceptionfilename":"{name}","data":"{data}"}}"#));
    }
}

/// A folder, and the end of who writes to it.
struct Kit {
    dir: TempDir,
    stop: Stop,
}

impl Kit {
    fn new() -> Kit {
        Kit { dir: TempDir::new().unwrap(), stop: Stop::new().unwrap() }
    }

    /// Runs a consumer to the end of the records, or, where something happens before a poll, until that asks for the
    /// stop.
    fn run(&self, fake: &mut Fake, from: From) -> Consumed {
        let vault_config = VaultConfig {
            dir: self.dir.path().to_owned(),
            access: Access::PRIVATE,
            hash: true,
            pending_bytes_max: 1 << 20,
            descriptors: 256,
            free_bytes_min: 0,
            sync_interval: Duration::from_millis(50),
        };
        let counters = Arc::<Counters>::default();
        let (vault, threads) = Vault::spawn(&vault_config, Arc::clone(&counters)).unwrap();
        let until_end = fake.on_poll.is_none();
        let consumer = Consumer {
            ledger: Ledger::open(&vault, "fake", 100).unwrap(),
            client: fake,
            config: ConsumeConfig { from, until_end, checkpoint_interval: Duration::from_millis(5) },
            counters,
            live: Arc::default(),
            stop: &self.stop,
            progress: &mut |_, _| {},
        };
        let consumed = consumer.run().unwrap();
        drop(vault);
        assert!(threads.join().unwrap().is_none());
        consumed
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

fn stored(dir: &Path, name: &str) -> Vec<u8> {
    std::fs::read(dir.join(name)).unwrap()
}

/// The next offset of each partition that the folder's last checkpoint has.
fn kept(dir: &Path) -> BTreeMap<Partition, i64> {
    let rounds = std::fs::File::open(dir.join(".lea").join(checkpoint::FILE)).unwrap();
    let states = Checkpoint::read_from(rounds).unwrap().partitions.into_iter();
    states.map(|state| (Partition::new(&state.topic, state.partition), state.next_offset)).collect()
}

fn records(bytes: usize) -> u64 {
    bytes.div_ceil(CHUNK) as u64
}

#[test]
fn nothing_is_committed_before_it_is_durable() {
    let kit = Kit::new();
    let mut fake = Fake { batch: 7, ..Fake::default() };
    produce(&mut fake, 0, "a.pcap", PCAP);
    produce(&mut fake, 1, "b.pcap", PCAP);
    fake.give(&[partition(0), partition(1)]);
    let (dir, stop) = (kit.path(), kit.stop.clone());
    let all = 2 * records(PCAP.len());
    fake.on_poll = Some(Box::new(move |fake, _| {
        let kept = kept(&dir);
        for (partition, committed) in &fake.committed {
            assert!(kept[partition] >= *committed, "{partition}: {committed} is not stored");
        }
        if fake.committed.values().sum::<i64>() == all as i64 {
            stop.ask();
        }
        std::thread::sleep(Duration::from_millis(1));
    }));
    let consumed = kit.run(&mut fake, From::Stored);
    assert_eq!(consumed, Consumed { records: all, ..Consumed::default() });
    for name in ["a.pcap", "b.pcap"] {
        assert!(stored(kit.dir.path(), name) == PCAP, "{name}");
    }
}

/// And the packet that has begun in the other partition's stream waits on.
#[test]
fn what_is_taken_away_is_stored_and_committed_first() {
    for lost in [false, true] {
        let kit = Kit::new();
        let mut fake = Fake::default();
        produce(&mut fake, 0, "stays.pcap", &PCAP[..5000]);
        produce(&mut fake, 1, "goes.pcap", &PCAP[..7000]);
        let boundary = |bytes| {
            let mut follower = Follower::new();
            follower.feed(&PCAP[..bytes]);
            follower.boundary() as usize
        };
        assert!(boundary(5000) < 5000 && boundary(7000) < 7000, "packets have begun");
        fake.give(&[partition(0), partition(1)]);
        let (dir, stop, whole) = (kit.path(), kit.stop.clone(), boundary(5000));
        fake.on_poll = Some(Box::new(move |fake, polls| match polls {
            // The first poll brings the partitions, the second their records.
            2 => fake.take(&[partition(1)], lost),
            3 => {
                assert_eq!(fake.given_up, [(partition(1), Some(7))]);
                assert!(stored(&dir, "goes.pcap") == PCAP[..7000]);
                assert_eq!(stored(&dir, "stays.pcap").len(), whole);
                stop.ask();
            }
            _ => {}
        }));
        assert_eq!(kit.run(&mut fake, From::Stored).records, 12, "lost: {lost}");
        assert!(stored(kit.dir.path(), "stays.pcap") == PCAP[..5000]);
        assert_eq!(fake.committed, BTreeMap::from([(partition(0), 5), (partition(1), 7)]));
    }
}

#[test]
fn a_group_that_does_not_answer_holds_nothing_up() {
    let kit = Kit::new();
    let mut fake = Fake { deaf: true, ..Fake::default() };
    produce(&mut fake, 0, "a.pcap", PCAP);
    fake.give(&[partition(0)]);
    assert_eq!(kit.run(&mut fake, From::Stored).records, records(PCAP.len()));
    assert!(fake.committed.is_empty() && stored(kit.dir.path(), "a.pcap") == PCAP);
    // The folder knows what it has, and tells the group when that listens.
    fake.deaf = false;
    fake.give(&[partition(0)]);
    assert_eq!(kit.run(&mut fake, From::Earliest), Consumed { at_end: true, ..Consumed::default() });
    assert_eq!(fake.committed, BTreeMap::from([(partition(0), records(PCAP.len()) as i64)]));
}

#[test]
fn a_topic_made_again_under_way_is_taken_from_its_start() {
    let kit = Kit::new();
    let mut fake = Fake::default();
    fake.ids.insert("t".to_owned(), "one".to_owned());
    produce(&mut fake, 0, "a.pcap", &PCAP[..5000]);
    fake.give(&[partition(0)]);
    let stop = kit.stop.clone();
    fake.on_poll = Some(Box::new(move |fake, polls| match polls {
        2 => {
            fake.make_again("t", "two");
            produce(fake, 0, "a.pcap", &PCAP[5000..13_000]);
        }
        4 => stop.ask(),
        _ => {}
    }));
    assert_eq!(kit.run(&mut fake, From::Stored).records, 13);
    assert!(stored(kit.dir.path(), "a.pcap") == PCAP[..13_000]);
    assert_eq!(fake.committed, BTreeMap::from([(partition(0), 8)]));
}

/// A folder that has the first `taken` records, a group that has committed so many, and a partition that holds the
/// offsets of `there`: where it goes on, and what the group has at the end.
#[track_caller]
fn check_start(
    from: From,
    taken: Option<usize>,
    committed: Option<i64>,
    there: std::ops::Range<i64>,
    expected: (i64, Option<i64>),
) {
    let kit = Kit::new();
    let mut fake = Fake::default();
    if let Some(taken) = taken {
        produce(&mut fake, 0, "a.pcap", &PCAP[..taken * CHUNK]);
        fake.give(&[partition(0)]);
        assert_eq!(kit.run(&mut fake, From::Stored).records, taken as u64);
    }
    fake.logs.clear();
    produce(&mut fake, 0, "b.pcap", &PCAP[..there.end as usize * CHUNK]);
    fake.firsts.insert(partition(0), there.start);
    fake.committed.clear();
    fake.committed.extend(committed.map(|committed| (partition(0), committed)));
    fake.give(&[partition(0)]);
    let consumed = kit.run(&mut fake, from);
    let is = (there.end - consumed.records as i64, fake.committed.get(&partition(0)).copied());
    assert_eq!((is, consumed.repeated), (expected, 0));
}

#[test]
fn where_a_partition_starts() {
    use super::From::{Earliest, Latest, Stored};
    // Nobody knows of an offset.
    check_start(Stored, None, None, 5..9, (5, Some(9)));
    check_start(Earliest, None, None, 0..9, (0, Some(9)));
    check_start(Latest, None, None, 0..9, (9, None));
    // The group does; or the folder; or both, and whoever is further wins.
    check_start(Earliest, None, Some(3), 0..9, (3, Some(9)));
    check_start(Latest, Some(4), None, 0..9, (4, Some(9)));
    check_start(Stored, Some(4), Some(7), 0..9, (7, Some(9)));
    check_start(Stored, Some(4), Some(2), 0..9, (4, Some(9)));
    // Records in between were deleted.
    check_start(Stored, Some(4), Some(4), 6..9, (6, Some(9)));
    check_start(Stored, None, Some(4), 6..9, (6, Some(9)));
    // The broker has lost the last ones: what comes next at their offsets is new.
    check_start(Stored, Some(4), Some(4), 0..2, (2, Some(2)));
    check_start(Stored, Some(4), Some(99), 0..9, (4, Some(9)));
}
