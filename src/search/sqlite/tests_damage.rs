//! Tests of damage (T5 of the cases): each flipped bit and each cut is seen, what is left can be read, and reading changes
//! nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::salvage::salvage;
use super::tests::{Random, document};
use super::*;
use crate::search::query::{HitOptions, SourceFilter};

/// Files of a store that a crash leaves.
const FILES: [&str; 4] = ["events.db", "events.db-wal", "events.db-shm", "events.mark"];

/// Sources by index and id.
type Events = BTreeMap<(String, String), Vec<u8>>;

fn is_long() -> bool {
    std::env::var_os("LEA_TEST_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}

/// The files of a store as they are now, as if the process was killed.
struct Crashed {
    files: Vec<(&'static str, Vec<u8>)>,
    events: Events,
}

impl Crashed {
    fn new(dir: &Path, events: Events) -> Crashed {
        let read = |name| fs::read(dir.join(".lea").join(name)).ok().map(|bytes| (name, bytes));
        Crashed { files: FILES.into_iter().filter_map(read).collect(), events }
    }

    /// Writes the files, with `change` done to one of them.
    fn write(&self, dir: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        fs::create_dir_all(dir.join(".lea")).unwrap();
        let mut change = Some(change);
        for (file, bytes) in &self.files {
            let mut bytes = bytes.clone();
            if *file == name {
                change.take().unwrap()(&mut bytes);
            }
            fs::write(dir.join(".lea").join(file), bytes).unwrap();
        }
        assert!(change.is_none(), "there is no {name}");
    }

    fn len(&self, name: &str) -> u64 {
        self.files.iter().find(|(file, _)| *file == name).map_or(0, |(_, bytes)| bytes.len() as u64)
    }
}

/// Writes events with and without ids, some of them twice, with segments of both kinds. `commit_all`: no log is left.
fn crashed_store(commit_all: bool) -> Crashed {
    let dir = tempfile::tempdir().unwrap();
    let open = |young_docs_max| {
        SqliteStore::open(dir.path(), StoreConfig { young_docs_max, ..StoreConfig::default() }).unwrap()
    };
    let store = open(100);
    let mut events = Events::new();
    let mut write = |store: &SqliteStore, from: u32, to: u32| {
        for n in (from..to).step_by(7) {
            let documents = (n..to.min(n + 7)).map(|n| {
                let id = (n % 3 == 0).then(|| format!("id-{}", n % 120));
                let noise = (0..n % 5).map(|at| format!("{:x}", u64::from((n + 1) * (at + 1)) * 2_654_435));
                let source = json!({"n": n, "agent": "friendly scanner", "noise": noise.collect::<Vec<_>>()});
                document(["calls", "syslog"][n as usize % 2], id.as_deref(), &source)
            });
            let documents: Vec<_> = documents.collect();
            let written = store.write(documents.clone()).unwrap();
            for (document, receipt) in documents.into_iter().zip(written) {
                events.insert((document.index, receipt.unwrap().id), document.source.to_vec());
            }
        }
    };
    write(&store, 0, 350);
    if !commit_all {
        // What follows stays in the log, after a start without one.
        drop(store);
        let store = open(100);
        write(&store, 350, 430);
        return Crashed::new(dir.path(), events);
    }
    drop(store);
    Crashed::new(dir.path(), events)
}

fn search_all() -> Search {
    Search {
        indices: vec![],
        ignore_unavailable: false,
        query: Query::All,
        sort: vec![],
        from: 0,
        size: 10_000,
        after: None,
        source: SourceFilter::default(),
        options: HitOptions::default(),
        post_filter: None,
        aggregations: vec![],
        typed_keys: false,
    }
}

/// Reads all events through searches, and counts them.
fn export(dir: &Path) -> Result<Events, String> {
    let store =
        SqliteStore::open_read_only(dir, StoreConfig::default()).map_err(|error| error.to_string())?;
    let found = store.search(&search_all()).map_err(|error| error.to_string())?;
    let events: Events = found.hits.into_iter().map(|hit| ((hit.index, hit.id), hit.source)).collect();
    let count = store.count(&[], false, &Query::All).map_err(|error| error.to_string())?;
    assert_eq!((found.total, count), (events.len() as u64, count), "a count differs from the events");
    Ok(events)
}

/// Checks that damage is named or harmless. Returns whether it was named.
#[track_caller]
fn check_damage(crashed: &Crashed, dir: &Path, what: &str) -> bool {
    let exported = export(dir);
    match &exported {
        Ok(events) => assert!(*events == crashed.events, "{what}: the export differs silently"),
        Err(error) => {
            let words = ["damaged", "truncated", "missing", "acknowledged"];
            assert!(words.iter().any(|word| error.contains(word)), "{what}: {error}");
        }
    }
    let mut rest = Events::new();
    let salvaged = salvage(dir, &mut |event| {
        rest.insert((event.hit.index, event.hit.id), event.hit.source);
        Ok(true)
    });
    let report = salvaged.unwrap_or_else(|error| panic!("{what}: {error}"));
    let is_original = |(key, source): (&(String, String), &Vec<u8>)| crashed.events.get(key) == Some(source);
    let is_told = |finding: &String| finding.contains("cannot be read");
    if !report.findings.iter().any(is_told) {
        assert!(rest.iter().all(is_original), "{what}: {:?}", report.findings);
    }
    let sources: Vec<&Vec<u8>> = crashed.events.values().collect();
    let replaced = |source: &Vec<u8>| source.starts_with(b"{") && source.ends_with(b"}");
    assert!(rest.values().all(|source| sources.contains(&source) || replaced(source)), "{what}");
    assert!(
        rest.len() as u64 + report.lost >= crashed.events.len() as u64,
        "{what}: {} read, {} lost: {:?}",
        rest.len(),
        report.lost,
        report.findings
    );
    exported.is_err()
}

#[test]
fn t5_each_flipped_bit_is_harmless_or_named() {
    let stores = [crashed_store(false), crashed_store(true)];
    let (rounds, mut random, mut named) = (if is_long() { 1_000 } else { 120 }, Random(0x5eed_1e55), 0);
    for round in 0..rounds {
        let crashed = &stores[round % 2];
        let name = if round % 4 == 0 { "events.db-wal" } else { "events.db" };
        let bit = random.below(8 * crashed.len(name));
        let dir = tempfile::tempdir().unwrap();
        crashed.write(dir.path(), name, |bytes| bytes[bit as usize / 8] ^= 1 << (bit % 8));
        named += u32::from(check_damage(crashed, dir.path(), &format!("bit {bit} of {name}")));
    }
    println!("flipped bits: {rounds}, named: {named}, none differs silently");
    assert!(named > rounds as u32 / 4, "{named} of {rounds}");
}

#[test]
fn t5_each_cut_is_harmless_or_named() {
    let stores = [crashed_store(false), crashed_store(true)];
    let (rounds, mut random, mut named) = (if is_long() { 200 } else { 40 }, Random(0x7a11_0fff), 0);
    for round in 0..rounds {
        let crashed = &stores[round % 2];
        let name = if round % 4 == 0 { "events.db-wal" } else { "events.db" };
        // The first cuts leave nothing.
        let left = if round < 4 { 0 } else { random.below(crashed.len(name)) };
        let dir = tempfile::tempdir().unwrap();
        crashed.write(dir.path(), name, |bytes| bytes.truncate(left as usize));
        named += u32::from(check_damage(crashed, dir.path(), &format!("{name} cut to {left}")));
    }
    println!("cuts: {rounds}, named: {named}, none differs silently");
    assert!(named > rounds as u32 / 4, "{named} of {rounds}");
}

#[test]
fn t5_a_store_that_lost_acknowledged_events_does_not_begin_anew() {
    let crashed = crashed_store(false);
    let dir = tempfile::tempdir().unwrap();
    let open = || SqliteStore::open(dir.path(), StoreConfig::default()).map(drop).map_err(|e| e.to_string());
    crashed.write(dir.path(), "events.db", |_| {});
    open().unwrap();
    let refused = |name: &str, change: fn(&mut Vec<u8>), expected: &str| {
        crashed.write(dir.path(), name, change);
        let before = fs::read(dir.path().join(".lea").join(name)).unwrap();
        let error = open().unwrap_err();
        assert!(error.contains(expected) && error.contains("lea events export --damaged"), "{name}: {error}");
        assert_eq!(fs::read(dir.path().join(".lea").join(name)).unwrap(), before, "the file is left alone");
    };
    refused("events.db", |bytes| bytes.clear(), "is empty or missing, but 430 documents were acknowledged");
    // A checkpoint may have moved the first of the commits into the file already.
    refused("events.db-wal", |bytes| bytes.clear(), " to 429; the 35");
    refused("events.db-wal", |bytes| bytes[40_000] ^= 1, "commits are missing at the end");
    refused("events.db-wal", |bytes| bytes[17] ^= 1, " to 429; the 35");
    let crashed = crashed_store(true);
    fs::remove_dir_all(dir.path().join(".lea")).unwrap();
    crashed.write(dir.path(), "events.db", |bytes| bytes[5] ^= 1);
    let error = open().unwrap_err();
    assert!(error.contains("page 1 of events.db is damaged"), "{error}");
}

/// Returns the pages that contain only events.
fn event_pages(dir: &Path) -> Vec<usize> {
    let connection = schema::open_read_only(&file::path(dir)).unwrap();
    let sql = "SELECT pageno FROM dbstat WHERE name = 'documents' AND pagetype = 'leaf' ORDER BY pageno";
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn t5_damage_names_the_index_and_the_events() {
    let crashed = crashed_store(true);
    let dir = tempfile::tempdir().unwrap();
    crashed.write(dir.path(), "events.db", |_| {});
    let page = event_pages(dir.path())[0];
    crashed.write(dir.path(), "events.db", |bytes| bytes[(page - 1) * 8_192 + 4_000] ^= 8);
    let check = check::check_store(dir.path(), &mut |_| {}).unwrap().unwrap();
    let text = check.findings.join("\n");
    assert!(text.contains(&format!("page {page} of events.db is damaged")), "{text}");
    assert!(text.contains("events of index calls cannot be read: numbers "), "{text}");
    assert!(text.contains("events of index syslog cannot be read: numbers "), "{text}");
    assert!(text.contains(&format!("{} events can be read", check.events)), "{text}");
    assert!(check.events > 100 && check.events < crashed.events.len() as u64, "{text}");
    // What is not damaged is found.
    let store = SqliteStore::open_read_only(dir.path(), StoreConfig::default()).unwrap();
    assert_eq!(store.count(&[], false, &Query::All).unwrap(), crashed.events.len() as u64);
}

#[test]
fn t5_a_running_store_reports_damage_to_health() {
    let dir = tempfile::tempdir().unwrap();
    let crashed = crashed_store(true);
    crashed.write(dir.path(), "events.db", |_| {});
    let pages = event_pages(dir.path());
    let damage = |bytes: &mut Vec<u8>| pages.iter().for_each(|page| bytes[(page - 1) * 8_192 + 4_000] ^= 1);
    crashed.write(dir.path(), "events.db", damage);
    let metrics = Arc::new(Metrics::default());
    let config = StoreConfig { metrics: Some(Arc::clone(&metrics)), ..StoreConfig::default() };
    let store = SqliteStore::open(dir.path(), config).unwrap();
    let error = store.search(&search_all()).unwrap_err().to_string();
    assert!(error.contains("of events.db is damaged"), "{error}");
    assert!(metrics.health.is_raised(Problem::StoreDamaged));
    assert!(metrics.store_damaged_reads_total.get() > 0);
}

#[test]
fn t5_reading_changes_no_file() {
    let crashed = crashed_store(false);
    let dir = tempfile::tempdir().unwrap();
    crashed.write(dir.path(), "events.db", |_| {});
    let own = dir.path().join(".lea");
    let state = || -> BTreeMap<_, _> {
        let entries = fs::read_dir(&own).unwrap().map(|entry| entry.unwrap());
        let of = |entry: fs::DirEntry| {
            let found = entry.metadata().unwrap();
            (entry.file_name(), (fs::read(entry.path()).unwrap(), found.mtime_nsec(), found.mode()))
        };
        entries.map(of).collect()
    };
    let before = state();
    assert_eq!(export(dir.path()).unwrap(), crashed.events);
    assert!(check::check_store(dir.path(), &mut |_| {}).unwrap().unwrap().findings.is_empty());
    salvage(dir.path(), &mut |_| Ok(true)).unwrap();
    assert!(state() == before, "a file has changed");
    // Without the index of the log, as in a copy.
    fs::remove_file(own.join("events.db-shm")).unwrap();
    let before = state();
    assert_eq!(export(dir.path()).unwrap(), crashed.events);
    assert!(state() == before, "a file has changed");
}

#[test]
fn t5_a_reader_sees_whole_calls_while_a_writer_commits() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { young_docs_max: 64, ..StoreConfig::default() };
    let store = SqliteStore::open(dir.path(), config).unwrap();
    let ten =
        |n: u32| (0..10).map(move |at| document("a", None, &json!({"n": n, "at": at}))).collect::<Vec<_>>();
    store.write(ten(0)).unwrap();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Opened once: closing files here would release the locks of the writer, which is in the same process.
        let reader_store = SqliteStore::open_read_only(dir.path(), StoreConfig::default()).unwrap();
        let reader = scope.spawn(|| {
            let (reader_store, mut last, mut reads) = (reader_store, 0, 0);
            while !is_done.load(Ordering::Relaxed) {
                let events = reader_store.search(&search_all()).unwrap().hits.len();
                assert!(events >= last && events % 10 == 0, "{last}, then {events}");
                (last, reads) = (events, reads + 1);
            }
            (reader_store, reads)
        });
        for n in 1..400 {
            store.write(ten(n)).unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
        let (reader_store, reads) = reader.join().unwrap();
        assert!(reads > 0);
        assert_eq!(reader_store.count(&[], false, &Query::All).unwrap(), 4_000);
        // The writer ends first.
        drop(store);
    });
    assert_eq!(export(dir.path()).unwrap().len(), 4_000);
}

/// Writes the seeds of the fuzz target `store_segment`: `LEA_UPDATE=1 cargo test --lib seeds_of_segments`.
#[test]
fn seeds_of_segments_are_segments() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz/store_segment");
    if std::env::var_os("LEA_UPDATE").is_some() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), StoreConfig::default()).unwrap();
        let words = |n: usize| (0..n).map(|at| format!("word{}", at * 7 % 50)).collect::<Vec<_>>().join(" ");
        for (events, length) in [(1, 1), (2, 3), (20, 5), (100, 2), (3, 400)] {
            let event = |n: usize| document("a", None, &json!({"n": n, "text": words(length + n % 3)}));
            store.write((0..events).map(event).collect()).unwrap();
        }
        drop(store);
        let connection = schema::open_read_only(&file::path(dir.path())).unwrap();
        let mut statement = connection.prepare("SELECT span, data FROM young_segments").unwrap();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let (span, data): (u8, Vec<u8>) = (row.get(0).unwrap(), row.get(1).unwrap());
            fs::write(seeds.join(format!("span-{span}")), [&[span][..], &data].concat()).unwrap();
        }
    }
    for entry in fs::read_dir(seeds).unwrap() {
        let seed = fs::read(entry.unwrap().path()).unwrap();
        assert!(inspect_segment(u32::from(seed[0]), &seed[1..]).unwrap().entries > 3);
    }
}
