//! Tests of the service's own indices: no document keeps another one out.

use serde_json::{Value, json};

use super::tests::document;
use super::*;
use crate::search::event_fields;
use crate::search::query::query_string::{self, QueryStringOptions};
use crate::search::query::{HitOptions, Sort, SourceFilter};

fn open_with_own(dir: &Path) -> SqliteStore {
    let templates = IndexTemplates::default().with_mapping("calls", event_fields::mapping());
    let canonical_number: CanonicalNumberFn =
        Arc::new(|field, value| (field == "destNum").then(|| value.trim_start_matches('0').to_owned()));
    let config = StoreConfig { templates, canonical_number, ..StoreConfig::default() };
    SqliteStore::open(dir, config).unwrap()
}

/// Writes events, one per call; all must be accepted.
#[track_caller]
fn write_all(store: &SqliteStore, events: &[Value]) {
    for event in events {
        let written = store.write(vec![document("calls", None, event)]).unwrap();
        assert!(written[0].is_ok(), "{event}: {:?}", written[0]);
    }
}

fn parse(query: &str) -> Query {
    query_string::parse(query, &QueryStringOptions::default()).unwrap()
}

#[track_caller]
fn count(store: &SqliteStore, query: &str) -> u64 {
    store.count(&[], false, &parse(query)).unwrap()
}

fn search(query: Query, sort: Vec<Sort>, size: usize) -> Search {
    Search {
        indices: vec![],
        ignore_unavailable: false,
        query,
        sort,
        from: 0,
        size,
        after: None,
        source: SourceFilter::default(),
        aggregations: vec![],
        typed_keys: false,
        options: HitOptions::default(),
        post_filter: None,
    }
}

fn ordinary() -> Value {
    json!({"event": "start_call", "key": "+447700900456", "userid": "+447700900123", "ip_address": "192.0.2.7",
           "@timestamp": "2026-11-30T10:00:00Z", "level": "INFO", "destNum": "00447700900456"})
}

#[test]
fn the_first_document_does_not_decide_the_types() {
    for first in [
        json!({"event": "start_call", "key": "2020-01-01"}),
        json!({"userid": 447_700_900_123_u64, "level": 30}),
        json!({"event": "start_call", "to_user": {"x": 1}, "userid": {"a": {"b": 1}}}),
        json!({"@timestamp": "n/a", "time": 7.5, "timestamp": {"seconds": 1}}),
        json!({"event": ["a", {"b": 1}], "key": null, "destNum": [[{"x": 1}]]}),
        json!({"event.x": 1, "event.keyword": "a", "_number": "1", "userid._number": "1"}),
        json!({"ip_address": "not an address", "location": "nowhere", "reply_code": "busy"}),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = open_with_own(dir.path());
        write_all(&store, &[first.clone(), ordinary()]);
        for query in [
            "event:start_call AND key:447700900456",
            "userid:447700900123 AND level:info",
            "ip_address:192.0.2.7",
            "@timestamp:[2026-11-30 TO 2026-11-30]",
            "event.keyword:start_call AND destNum:00447700900456",
        ] {
            assert!(count(&store, query) >= 1, "{first}: {query}");
        }
    }
}

#[test]
fn what_cannot_be_indexed_is_listed_and_the_rest_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_own(dir.path());
    let deep = (0..60).fold(json!(1), |inner, _| json!({"d": inner}));
    write_all(
        &store,
        &[
            json!({"event": "a", "to_user": {"x": 1}, "reply_code": "busy", "": 1, "n": 1}),
            json!({"event": "b", "n": "one", "deep": deep}),
            ordinary(),
        ],
    );
    let check = |query: &str, expected: &[&[&str]]| {
        let hits = store.search(&search(parse(query), vec![], 10)).unwrap().hits;
        let ignored: Vec<Vec<&str>> =
            hits.iter().map(|hit| hit.ignored.iter().map(String::as_str).collect()).collect();
        assert_eq!(ignored, expected);
    };
    let deepest = format!("deep{}", ".d".repeat(19));
    check("event:a", &[&["", "reply_code", "to_user"]]);
    check("event:b", &[&[&deepest, "n"]]);
    check("event:start_call", &[&[]]);
    check("_ignored:to_user", &[&["", "reply_code", "to_user"]]);
    check("_exists_:_ignored", &[&["", "reply_code", "to_user"], &[&deepest, "n"]]);
    let hit = store.search(&search(Query::All, vec![], 10)).unwrap().hits.remove(1);
    assert_eq!(store.get("calls", &hit.id).unwrap().unwrap().ignored, hit.ignored);
    // Another program reads the same.
    drop(store);
    let store = SqliteStore::open_read_only(dir.path(), StoreConfig::default()).unwrap();
    assert_eq!(count(&store, "_ignored:n"), 1);
}

#[test]
fn there_is_always_room_for_own_fields_and_indices() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_own(dir.path());
    let names: serde_json::Map<String, Value> = (0..999).map(|n| (format!("f{n}"), json!(n))).collect();
    let mut many = names.clone();
    many.insert("destNum".to_owned(), json!("00447700900456"));
    many.insert("event".to_owned(), json!("many"));
    let few = json!({"event": "few", "another": "x"});
    write_all(&store, &[Value::Object(many), few, ordinary()]);
    assert_eq!(count(&store, "event:many AND destNum._number:447700900456"), 1);
    assert_eq!(count(&store, "event:many AND _exists_:_ignored"), 1);
    // A document with a few new fields still has room, because none of the many was added.
    assert_eq!(count(&store, "another:x"), 1);

    let mapping = Mapping::new();
    for n in store.state.catalog.all().len()..10_000 {
        store.state.catalog.create(&format!("x{n}"), &mapping, false).unwrap();
    }
    assert!(store.write(vec![document("y", None, &json!({}))]).unwrap()[0].is_err());
    let templates = IndexTemplates::default().with_mapping("late", event_fields::mapping());
    drop(store);
    let store = SqliteStore::open(dir.path(), StoreConfig { templates, ..StoreConfig::default() }).unwrap();
    assert!(store.write(vec![document("late", None, &ordinary())]).unwrap()[0].is_ok());
}

#[test]
fn a_client_cannot_change_the_types_of_own_fields() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_own(dir.path());
    let sent = |value: Value| Mapping::parse(&value).unwrap();
    let dates = sent(json!({"properties": {"key": {"type": "date"}}}));
    assert!(store.create_index("calls", &dates).is_err());
    assert!(store.put_mapping("calls", &dates).is_err());
    store.put_mapping("calls", &sent(json!({"dynamic": "strict"}))).unwrap();
    write_all(&store, &[ordinary(), json!({"event": "x", "unknown": 1})]);
    assert_eq!(count(&store, "key:447700900456"), 1);
    assert_eq!(count(&store, "_ignored:unknown"), 1);
}

#[test]
fn events_of_any_time_are_sorted_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_own(dir.path());
    let times =
        ["1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2026-11-30T10:00:00Z", "9999-12-31T00:00:00Z"];
    write_all(&store, &times.map(|time| json!({"@timestamp": time})));
    for descending in [false, true] {
        let sort = vec![Sort::by_field("_event_time", descending), Sort::by_seq_no(descending)];
        let mut page = search(Query::All, sort, 1);
        let mut found = 0;
        while let Some(hit) = store.search(&page).unwrap().hits.pop() {
            page.after = Some(hit.sort);
            found += 1;
        }
        assert_eq!(found, times.len());
    }
}

#[test]
fn rules_of_a_mapping_are_applied_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with_own(dir.path());
    let mapping = json!({
        "date_detection": false, "numeric_detection": true,
        "dynamic_templates": [{"tags": {"path_match": "tag.*", "mapping": {"type": "keyword"}}}],
        "properties": {"body": {"type": "object", "enabled": false}},
    });
    store.create_index("other", &Mapping::parse(&mapping).unwrap()).unwrap();
    let event = json!({"day": "2026-11-30", "n": "12", "tag": {"a": "A b"}, "body": {"x": [1, {"y": "z"}]}});
    assert!(store.write(vec![document("other", None, &event)]).unwrap()[0].is_ok());
    // A value of any type fits into an object that is not indexed.
    assert!(store.write(vec![document("other", None, &json!({"body": 5}))]).unwrap()[0].is_ok());
    drop(store);
    let store = open_with_own(dir.path());
    let found = store.indices(&["other".to_owned()]).unwrap().remove(0).mapping;
    let types: Vec<_> = found.fields.iter().map(|(name, field)| (name.as_str(), field.type_name())).collect();
    assert_eq!(types, [("day", "text"), ("day.keyword", "keyword"), ("n", "long"), ("tag.a", "keyword")]);
    assert_eq!(found.to_json()["dynamic_templates"], mapping["dynamic_templates"]);
    assert_eq!(count(&store, "tag.a:\"A b\""), 1);
    store.put_mapping("other", &Mapping::parse(&json!({"numeric_detection": false})).unwrap()).unwrap();
    let event = json!({"m": "12", "tag": {"b": "2026-11-30"}});
    assert!(store.write(vec![document("other", None, &event)]).unwrap()[0].is_ok());
    let found = store.indices(&["other".to_owned()]).unwrap().remove(0).mapping;
    assert_eq!((found.fields["m"].type_name(), found.fields["tag.b"].type_name()), ("text", "keyword"));
}
