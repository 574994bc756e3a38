//! Tests of the store: what is written is found, limits are kept, and failures lose nothing.

use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::*;
use crate::search::document::WriteMode;
use crate::search::query::{FieldSelector, Operator};

/// Reproducible random numbers from a seed that is not 0: xorshift64 (Marsaglia 2003).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

pub(super) fn document(index: &str, id: Option<&str>, source: &serde_json::Value) -> Document {
    let source = source.to_string().into_bytes().into();
    Document {
        index: index.to_owned(),
        doc_type: None,
        id: id.map(str::to_owned),
        mode: WriteMode::Index,
        source,
    }
}

/// Writes numbered events, one per call, until a call fails. Returns how many were written.
fn fill(store: &SqliteStore, from: u64) -> (u64, StoreError) {
    for n in from.. {
        let noise: String = (0..40).map(|at| format!("{:x}", (n + 1) * 2_654_435_761 * (at + 1))).collect();
        if let Err(error) =
            store.write(vec![document("a", Some(&n.to_string()), &json!({"n": n, "noise": noise}))])
        {
            return (n, error);
        }
    }
    unreachable!("the disk has an end")
}

#[test]
fn a_full_disk_fails_the_call_and_keeps_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        |mib: u64| StoreConfig { file_bytes_max: mib << 20, young_docs_max: 100, ..StoreConfig::default() };
    let store = SqliteStore::open(dir.path(), config(1)).unwrap();
    let (written, error) = fill(&store, 0);
    assert!(matches!(error, StoreError::Full), "{error}");
    assert!(written > 100, "{written}");
    assert_eq!(store.count(&[], false, &Query::All).unwrap(), written);
    assert!(store.write(vec![document("a", None, &json!({"n": 1, "noise": "x".repeat(500_000)}))]).is_err());
    drop(store);
    let store = SqliteStore::open(dir.path(), config(8)).unwrap();
    assert_eq!(store.count(&[], false, &Query::All).unwrap(), written);
    // Nothing of the failed call was written: its id is free.
    let created =
        Document { mode: WriteMode::Create, ..document("a", Some(&written.to_string()), &json!({"n": 1})) };
    assert!(store.write(vec![created]).unwrap()[0].is_ok());
    assert_eq!(store.count(&[], false, &Query::All).unwrap(), written + 1);
}

#[test]
fn older_newer_and_foreign_files_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let path = file::path(dir.path());
    std::fs::create_dir(dir.path().join(".lea")).unwrap();
    // An empty file: the power failed directly after its creation.
    std::fs::write(&path, b"").unwrap();
    let refused = |store: Result<SqliteStore>| store.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(
        refused(SqliteStore::open_read_only(dir.path(), StoreConfig::default())).contains("no tables yet")
    );
    drop(open(dir.path()));
    drop(SqliteStore::open_read_only(dir.path(), StoreConfig::default()).unwrap());
    let change = |sql: &str| {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let connection = Connection::open_with_flags_and_vfs(&path, flags, storage::WRITE_VFS).unwrap();
        connection.execute_batch(sql).unwrap();
    };
    change("PRAGMA user_version = 99");
    assert!(refused(SqliteStore::open(dir.path(), StoreConfig::default())).contains("version 99"));
    // Older files and those of other programs have no checksums.
    let replace = |sql: &str| {
        std::fs::remove_file(&path).unwrap();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    };
    replace("CREATE TABLE state (a); PRAGMA application_id = 0x4c656145; PRAGMA user_version = 2");
    let older = "format version 2 of an unreleased lea";
    assert!(refused(SqliteStore::open(dir.path(), StoreConfig::default())).contains(older));
    assert!(refused(SqliteStore::open_read_only(dir.path(), StoreConfig::default())).contains(older));
    replace("CREATE TABLE state (a); PRAGMA application_id = 7");
    assert!(refused(SqliteStore::open(dir.path(), StoreConfig::default())).contains("another program"));
}

#[test]
fn readers_see_whole_calls_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        SqliteStore::open(dir.path(), StoreConfig { young_docs_max: 50, ..StoreConfig::default() }).unwrap();
    let beside = || SqliteStore::open_read_only(dir.path(), StoreConfig::default()).unwrap();
    store.write(vec![document("a", None, &json!({"n": 0})); 10]).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in [None, None, Some(beside())] {
            let (own, done) = (&store, &done);
            scope.spawn(move || {
                let (store, mut before) = (reader.as_ref().unwrap_or(own), 0);
                while !done.load(Ordering::Relaxed) {
                    let count = store.count(&[], false, &Query::All).unwrap();
                    assert!(count.is_multiple_of(10) && count >= before, "{before} {count}");
                    before = count;
                }
            });
        }
        let writers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for n in 0..100 {
                        store.write(vec![document("a", None, &json!({"n": n})); 10]).unwrap();
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(store.count(&[], false, &Query::All).unwrap(), 2_010);
    assert_eq!(beside().count(&[], false, &Query::All).unwrap(), 2_010);
}

/// A call with more words than a batch holds still becomes one segment.
#[test]
fn a_call_with_very_many_words_is_stored_completely() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let event = |n: usize| {
        let text = format!("first{n} {}last{n}", "a b ".repeat(200_000));
        document("a", None, &json!({"text": text, "n": n}))
    };
    let written = store.write((0..4).map(event).collect()).unwrap();
    assert!(written.iter().all(Result::is_ok));
    let count = |text: &str| {
        let (fields, text) = (FieldSelector::Named(vec!["text".to_owned()]), text.to_owned());
        store.count(&[], false, &Query::Phrase { fields, text }).unwrap()
    };
    assert_eq!((count("a b a"), count("first0 a"), count("b last2"), count("b last3")), (4, 1, 1, 1));
    assert_eq!(
        (count("first3 a"), count("last3 a"), store.count(&[], false, &Query::All).unwrap()),
        (1, 0, 4)
    );
}

#[test]
fn the_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.write(vec![document("a", None, &json!({}))]).unwrap();
    for entry in std::fs::read_dir(dir.path().join(".lea")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

#[test]
fn invalid_documents_are_rejected_and_the_others_of_the_call_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.write(vec![document("a", None, &json!({"n": 1, "ip": "x"}))]).unwrap();
    let raw = |source: &[u8]| Document { source: source.into(), ..document("a", None, &json!({})) };
    let long = |bytes: usize| document("a", Some(&"x".repeat(bytes)), &json!({}));
    let large = |bytes: usize| raw(format!("{{\"s\":\"{}\"}}", " ".repeat(bytes - 8)).as_bytes());
    let deep = |depth: usize| raw(format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)).as_bytes());
    let cases = [
        (document("a", None, &json!({"n": "word"})), false),
        (document("a", None, &json!({"n": "2"})), true),
        (raw(b"[1]"), false),
        (raw(b"{\"n\":"), false),
        (document("a", None, &json!({"_number": "1"})), false),
        (document("a", None, &json!({"": 1})), false),
        (document("A", None, &json!({})), false),
        (document("a", None, &json!({"ip": {"keyword": "x"}})), false),
        (document("a", None, &json!({"ip": {"other": "x"}})), false),
        (long(ID_BYTES_MAX), true),
        (long(ID_BYTES_MAX + 1), false),
        (large(SOURCE_BYTES_MAX), true),
        (large(SOURCE_BYTES_MAX + 1), false),
        (deep(20), true),
        (deep(21), false),
    ];
    let expected: Vec<_> = cases.iter().map(|(_, is_good)| *is_good).collect();
    let written = store.write(cases.into_iter().map(|(document, _)| document).collect()).unwrap();
    assert_eq!(written.iter().map(Result::is_ok).collect::<Vec<_>>(), expected, "{written:#?}");
    assert_eq!(store.count(&[], false, &Query::All).unwrap(), 5);
}

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, StoreConfig::default()).unwrap()
}

fn matching(field: &str, text: &str) -> Query {
    Query::Match {
        fields: FieldSelector::Named(vec![field.to_owned()]),
        text: text.to_owned(),
        operator: Operator::Or,
    }
}

#[test]
fn written_documents_are_found_before_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let event = json!({"time": "2016-04-11 14:02:07-0300", "destNum": "9011972598294121", "userAgent": "friendly-scanner"});
    let written = store
        .write(vec![document("opensips", None, &event), document("opensips", Some("a"), &event)])
        .unwrap();
    let ids: Vec<_> = written.into_iter().map(|written| written.unwrap().id).collect();
    let check = |store: &SqliteStore| {
        for (query, count) in [
            (Query::All, 2),
            (matching("destNum", "9011972598294121"), 2),
            (matching("userAgent", "SCANNER"), 2),
            (matching("userAgent", "none"), 0),
            (matching("userAgent.keyword", "friendly-scanner"), 2),
            (Query::Ids(vec!["a".into(), "b".into()]), 1),
            (Query::Exists { field: "time".into() }, 2),
        ] {
            assert_eq!(store.count(&[], false, &query).unwrap(), count, "{query:?}");
        }
        for id in &ids {
            let hit = store.get("opensips", id).unwrap().unwrap();
            assert_eq!(hit.source, event.to_string().into_bytes());
            assert_eq!(&hit.id, id);
        }
        assert_eq!(store.get("opensips", "b").unwrap(), None);
        assert!(matches!(store.get("other", "b"), Err(StoreError::IndexNotFound(_))));
    };
    check(&store);
    drop(store);
    check(&open(dir.path()));
    check(&SqliteStore::open_read_only(dir.path(), StoreConfig::default()).unwrap());
}

#[test]
fn a_document_replaces_another_with_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let put = |id: Option<&str>, mode, n: i64| {
        let document = Document { mode, ..document("a", id, &json!({"n": n})) };
        store.write(vec![document]).unwrap().remove(0)
    };
    let first = put(Some("x"), WriteMode::Index, 1).unwrap();
    assert_eq!((first.version, first.created), (1, true));
    let second = put(Some("x"), WriteMode::Index, 2).unwrap();
    assert_eq!((second.version, second.created), (2, false));
    let refused = put(Some("x"), WriteMode::Create, 3);
    assert_eq!(refused, Err(WriteRejected::AlreadyExists { id: "x".into(), version: 2 }));
    assert_eq!(put(Some("y"), WriteMode::Create, 4).unwrap().version, 1);
    let made = put(None, WriteMode::Index, 5).unwrap();
    let again = put(Some(&made.id), WriteMode::Index, 6).unwrap();
    assert_eq!((again.version, again.created), (2, false));
    let count = |query: &Query| store.count(&[], false, query).unwrap();
    let n = |n: i64| Query::Term { field: "n".into(), value: crate::search::query::QueryValue::Long(n) };
    assert_eq!([1, 2, 3, 4, 5, 6].map(|at| count(&n(at))), [0, 1, 0, 1, 0, 1]);
    assert_eq!(count(&Query::All), 3);
    assert_eq!(store.get("a", &made.id).unwrap().unwrap().source, b"{\"n\":6}");
    assert_eq!(store.indices(&[]).unwrap()[0].documents, 3);
}

#[test]
fn a_second_writer_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    assert!(matches!(SqliteStore::open(dir.path(), StoreConfig::default()), Err(Error::Locked { .. })));
    drop(first);
    drop(open(dir.path()));
}

#[test]
fn a_phrase_may_contain_a_word_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let texts = ["scanner", "friendly scanner", "scanner scanner", "scanner a scanner", "a scanner scanner"];
    let mut documents: Vec<_> = texts.iter().map(|text| document("a", None, &json!({"t": text}))).collect();
    documents.push(document("a", None, &json!({"t": ["scanner", "scanner"]})));
    documents.push(document("a", None, &json!({"o": [{"t": "a scanner"}, {"t": "scanner"}, {"t": "a"}]})));
    store.write(documents).unwrap();
    let inner =
        Query::Phrase { fields: FieldSelector::Named(vec!["o.t".into()]), text: "scanner scanner".into() };
    assert_eq!(store.count(&[], false, &inner).unwrap(), 0);
    assert_eq!(store.count(&[], false, &matching("o.t", "scanner")).unwrap(), 1);
    let phrase =
        |text: &str| Query::Phrase { fields: FieldSelector::Named(vec!["t".into()]), text: text.into() };
    let count = |text: &str| store.count(&[], false, &phrase(text)).unwrap();
    assert_eq!(
        ["scanner scanner", "a scanner", "scanner a scanner", "scanner friendly"].map(count),
        [2, 2, 1, 0]
    );
}
