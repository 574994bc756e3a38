//! Queries whose answers must agree, and a check of the store's file.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::support::Events;

/// Events per query. Some events have several kilobytes, and the size of an answer is limited.
const PAGE: u64 = 2_000;

/// Number of days over which events are spread.
const DAYS: u64 = 20;

/// Returns the day of an event.
pub(super) fn day(n: u64) -> String {
    format!("2026-11-{:02}T{:02}:00:00Z", n % DAYS + 1, n % 24)
}

/// Returns the stored events `from..to` of a sender.
pub(super) fn sources(server: &Events, sender: u64, from: u64, to: u64) -> Vec<Value> {
    let mut hits = Vec::new();
    for from in (from..to).step_by(PAGE as usize) {
        let question = format!("sender:{sender}%20AND%20n:%5B{from}%20TO%20{}%5D", to.min(from + PAGE) - 1);
        let found = server.get(&format!("/_search?size=10000&_source=n,try&q={question}"));
        let page = found["hits"]["hits"].as_array().unwrap_or_else(|| panic!("no hits: {found}"));
        assert_eq!(found["hits"]["total"]["value"], page.len(), "{question}");
        hits.extend_from_slice(page);
    }
    hits
}

/// Checks that each kind of query finds this many events of each sender, and no others.
pub(super) fn totals(server: &Events, expected: &[(u64, u64)]) {
    let total: u64 = expected.iter().map(|(_, count)| count).sum();
    for (sender, count) in expected {
        assert_eq!(server.count(&format!("/_count?q=sender:{sender}")), *count, "sender {sender}");
    }
    for question in ["", "?q=_exists_:n", "?q=n:%5B0%20TO%20*%5D", "?q=@timestamp:%5B2020-01-01%20TO%20*%5D"]
    {
        assert_eq!(server.count(&format!("/_count{question}")), total, "{question}");
    }
    let indices = server.get("/_cat/indices?format=json");
    let of_index = |index: &Value| index["docs.count"].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(indices.as_array().unwrap().iter().map(of_index).sum::<u64>(), total, "{indices}");
    let aggregations = "{\"by\":{\"terms\":{\"field\":\"sender\",\"size\":100}},\
        \"days\":{\"date_histogram\":{\"field\":\"@timestamp\",\"fixed_interval\":\"1d\"}}}";
    let found = server.post("/_search", &format!("{{\"size\":0,\"aggs\":{aggregations}}}"));
    let buckets = |name: &str| -> Vec<(u64, u64)> {
        let buckets = found["aggregations"][name]["buckets"].as_array();
        let buckets = buckets.unwrap_or_else(|| panic!("no buckets: {found}"));
        buckets.iter().map(|one| (one["key"].as_u64().unwrap(), one["doc_count"].as_u64().unwrap())).collect()
    };
    let some: BTreeMap<u64, u64> = expected.iter().filter(|(_, count)| *count > 0).copied().collect();
    assert_eq!(buckets("by").into_iter().collect::<BTreeMap<_, _>>(), some);
    assert_eq!(buckets("days").iter().map(|(_, count)| count).sum::<u64>(), total);
}

/// Checks that the store's file is intact and has the rows of this many events, `own_ids` of them with ids
/// set by the sender.
pub(super) fn file(output: &Path, total: u64, own_ids: u64) {
    let connection = open(output);
    // One read transaction for all queries, because the server may be merging segments.
    connection.execute_batch("BEGIN").unwrap();
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
    let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    let counts = "FROM documents WHERE doc NOT IN (SELECT doc FROM deleted_docs)";
    assert_eq!(number(&format!("SELECT count(*) {counts}")), total, "rows");
    assert_eq!(number(&format!("SELECT count(*) {counts} AND id IS NOT NULL")), own_ids, "rows with ids");
    assert_eq!(number("SELECT count(*) FROM ids"), own_ids, "ids");
    let lost = "SELECT count(*) FROM ids JOIN documents USING (doc) WHERE ids.id = documents.id AND doc NOT IN deleted_docs";
    assert_eq!(number(lost), own_ids, "ids of documents that count");
    // Segments, merged and unmerged, are contiguous.
    let mut statement = connection
        .prepare(
            "SELECT base, span FROM segments UNION ALL SELECT base, span FROM young_segments ORDER BY base",
        )
        .unwrap();
    let spans = statement.query_map([], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?))).unwrap();
    let end = spans.map(Result::unwrap).fold(0, |end, (base, span)| {
        assert_eq!(base, end, "a gap between segments, or two for the same documents");
        base + span
    });
    assert_eq!(end, number("SELECT next_doc FROM state"));
    let empty = "SELECT count(*) FROM segments WHERE NOT EXISTS (SELECT 1 FROM blocks WHERE blocks.id >> 24 = segments.id)";
    assert_eq!(number(empty), 0, "segments without blocks");
}

/// Returns how many segments the store has written to the disk.
pub(super) fn segments(output: &Path) -> u64 {
    open(output).query_row("SELECT coalesce(max(id), 0) FROM segments", [], |row| row.get(0)).unwrap()
}

fn open(output: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(output.join(".lea/events.db"), flags).unwrap();
    connection.pragma_update(None, "query_only", true).unwrap();
    connection
}
