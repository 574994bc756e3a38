//! The store against an evaluation that reads every document, and through what can go wrong.

use serde_json::json;

use super::*;
use crate::iri::document::Mode;
use crate::iri::query::{Fields, Operator};

fn document(index: &str, id: Option<&str>, source: &serde_json::Value) -> Document {
    let source = source.to_string().into_bytes().into();
    Document { index: index.to_owned(), kind: None, id: id.map(str::to_owned), mode: Mode::Index, source }
}

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, StoreConfig::default()).unwrap()
}

fn matching(field: &str, text: &str) -> Query {
    Query::Match {
        fields: Fields::Named(vec![field.to_owned()]),
        text: text.to_owned(),
        operator: Operator::Or,
    }
}

#[test]
fn what_is_written_is_found_and_there_after_reopening() {
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
        assert!(matches!(store.get("other", "b"), Err(StoreError::NoIndex(_))));
    };
    check(&store);
    drop(store);
    check(&open(dir.path()));
    check(&SqliteStore::open_read_only(dir.path(), StoreConfig::default()).unwrap());
}

#[test]
fn a_document_takes_the_place_of_another_of_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let put = |id: Option<&str>, mode, n: i64| {
        let document = Document { mode, ..document("a", id, &json!({"n": n})) };
        store.write(vec![document]).unwrap().remove(0)
    };
    let first = put(Some("x"), Mode::Index, 1).unwrap();
    assert_eq!((first.version, first.created), (1, true));
    let second = put(Some("x"), Mode::Index, 2).unwrap();
    assert_eq!((second.version, second.created), (2, false));
    let refused = put(Some("x"), Mode::Create, 3);
    assert_eq!(refused, Err(Refused::Exists { id: "x".into(), version: 2 }));
    assert_eq!(put(Some("y"), Mode::Create, 4).unwrap().version, 1);
    let made = put(None, Mode::Index, 5).unwrap();
    let again = put(Some(&made.id), Mode::Index, 6).unwrap();
    assert_eq!((again.version, again.created), (2, false));
    let count = |query: &Query| store.count(&[], false, query).unwrap();
    let n = |n: i64| Query::Term { field: "n".into(), value: crate::iri::query::Value::Long(n) };
    assert_eq!([1, 2, 3, 4, 5, 6].map(|at| count(&n(at))), [0, 1, 0, 1, 0, 1]);
    assert_eq!(count(&Query::All), 3);
    assert_eq!(store.get("a", &made.id).unwrap().unwrap().source, b"{\"n\":6}");
    assert_eq!(store.indices(&[]).unwrap()[0].documents, 3);
}

#[test]
fn a_second_writer_is_told_who_holds_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    assert!(matches!(SqliteStore::open(dir.path(), StoreConfig::default()), Err(Error::Locked { .. })));
    drop(first);
    drop(open(dir.path()));
}
