//! Tests of the deletion of old events and of indices.

use serde_json::json;

use super::tests::document;
use super::*;

const DAY_MS: i64 = 86_400_000;

/// A document of day `day`. Every second one has an id that the client chose.
fn event(index: &str, day: i64, n: usize) -> Document {
    let noise: String = (0..60).map(|at| format!("{:x}", (n + 1) * 2_654_435_761 * (at + 1))).collect();
    let time = chrono::DateTime::from_timestamp_millis(day * DAY_MS + n as i64).unwrap();
    let source = json!({"@timestamp": time.to_rfc3339(), "n": n, "noise": noise});
    document(index, n.is_multiple_of(2).then(|| format!("{day}-{n}")).as_deref(), &source)
}

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, StoreConfig { young_docs_max: 200, ..StoreConfig::default() }).unwrap()
}

fn fill(store: &SqliteStore, index: &str, days: std::ops::Range<i64>, each: usize) {
    for day in days {
        for from in (0..each).step_by(50) {
            let events = (from..from + 50).map(|n| event(index, day, n)).collect();
            assert!(store.write(events).unwrap().iter().all(Result::is_ok));
        }
    }
}

fn count(store: &SqliteStore) -> u64 {
    store.count(&[], false, &Query::All).unwrap()
}

#[test]
fn t5_purged_events_are_gone_and_their_room_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, "calls", 0..8, 400);
    fill(&store, "other", 0..2, 100);
    assert_eq!(
        store.purge(&[], 6 * DAY_MS, true).unwrap(),
        [("calls".to_owned(), 2_400), ("other".to_owned(), 200)]
    );
    assert_eq!(count(&store), 3_400, "a dry run deletes nothing");
    drop(store);
    let path = file::path(dir.path());
    let full = std::fs::metadata(&path).unwrap().len();

    let store = open(dir.path());
    let purged = store.purge(&["calls".to_owned()], 6 * DAY_MS, false).unwrap();
    assert_eq!(purged, [("calls".to_owned(), 2_400)]);
    assert_eq!(store.purge(&["calls".to_owned()], 6 * DAY_MS, false).unwrap(), []);
    let check = |store: &SqliteStore| {
        assert_eq!(count(store), 1_000);
        assert!(store.get("calls", "5-398").unwrap().is_none());
        assert!(store.get("calls", "6-0").unwrap().is_some());
    };
    check(&store);
    check(&SqliteStore::open_read_only(dir.path(), StoreConfig::default()).unwrap());
    // The id is free.
    let again = Document { mode: crate::search::document::WriteMode::Create, ..event("calls", 5, 398) };
    assert!(store.write(vec![again]).unwrap()[0].is_ok());
    assert_eq!(store.purge(&["calls".to_owned()], 6 * DAY_MS, false).unwrap(), [("calls".to_owned(), 1)]);
    drop(store);
    let left = std::fs::metadata(&path).unwrap().len();
    assert!(left < full / 2, "{left} of {full} bytes are left");
    check(&open(dir.path()));
    assert!(check::check_store(dir.path(), &mut |_| {}).unwrap().unwrap().findings.is_empty());
}

#[test]
fn t5_events_are_purged_while_others_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, "calls", 0..4, 500);
    std::thread::scope(|scope| {
        scope.spawn(|| fill(&store, "calls", 10..14, 500));
        scope.spawn(|| {
            for day in 1..=4 {
                assert_eq!(store.purge(&[], day * DAY_MS, false).unwrap(), [("calls".to_owned(), 500)]);
            }
        });
    });
    assert_eq!(count(&store), 2_000);
    drop(store);
    assert_eq!(count(&open(dir.path())), 2_000);
}

#[test]
fn t5_a_deleted_index_is_gone_and_its_name_can_be_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, "calls", 0..2, 300);
    fill(&store, "other", 0..1, 100);
    assert_eq!(store.delete_index("calls").unwrap(), 600);
    assert!(matches!(store.delete_index("calls"), Err(StoreError::IndexNotFound(_))));
    assert!(matches!(
        store.count(&["calls".to_owned()], false, &Query::All),
        Err(StoreError::IndexNotFound(_))
    ));
    assert_eq!(count(&store), 100);
    // Another type of the same field.
    let events = vec![document("calls", None, &json!({"n": "text"}))];
    assert!(store.write(events).unwrap()[0].is_ok());
    assert_eq!(count(&store), 101);
    drop(store);
    let store = open(dir.path());
    assert_eq!(count(&store), 101);
    let names: Vec<_> = store.indices(&[]).unwrap().into_iter().map(|index| index.name).collect();
    assert_eq!(names, ["calls", "other"]);
    assert!(check::check_store(dir.path(), &mut |_| {}).unwrap().unwrap().findings.is_empty());
}

#[test]
fn t5_a_store_warns_before_its_numbers_end() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let path = file::path(dir.path());
    let set = |next: u64| {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let connection = Connection::open_with_flags_and_vfs(&path, flags, storage::WRITE_VFS).unwrap();
        connection.execute("UPDATE state SET next_doc = ?1", [next]).unwrap();
    };
    let metrics = Arc::new(Metrics::default());
    let open = || {
        let config = StoreConfig { metrics: Some(Arc::clone(&metrics)), ..StoreConfig::default() };
        SqliteStore::open(dir.path(), config).unwrap()
    };
    set((3 << 30) - 1);
    let store = open();
    assert!(!metrics.health.is_raised(Problem::StoreNumbersLow));
    assert!(store.write(vec![document("a", None, &json!({"n": 1}))]).unwrap()[0].is_ok());
    assert!(metrics.health.is_raised(Problem::StoreNumbersLow));
    assert_eq!(metrics.store_documents_numbered.get(), 3 << 30);
    drop(store);
    set(u64::from(u32::MAX));
    let error = open().write(vec![document("a", None, &json!({"n": 1})); 2]).unwrap_err().to_string();
    assert!(error.contains("all 2^32 document numbers of the store are used"), "{error}");
}
