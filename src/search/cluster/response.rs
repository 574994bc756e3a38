//! Parser of the responses of Elasticsearch, OpenSearch and other instances of lea. Pure code.
//!
//! Invariant: an incomplete response is an error, because it would look like a result with fewer events.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::request::strip_lea_object;
use crate::search::query::{Hit, OutputJson, SearchResult};

/// Error text of a response without one.
pub(crate) const NO_REASON: &str = "no reason given";

/// Response of `_search`.
#[derive(Deserialize)]
pub(crate) struct ParsedSearch<'a> {
    #[serde(borrow)]
    hits: HitList<'a>,
    aggregations: Option<Value>,
    #[serde(default)]
    timed_out: bool,
    #[serde(rename = "_shards", default)]
    shards: ShardSummary,
}

/// The number of failed shards, and the reasons.
#[derive(Default, Deserialize)]
pub(crate) struct ShardSummary {
    #[serde(default)]
    failed: u64,
    #[serde(default)]
    failures: Vec<Value>,
}

#[derive(Deserialize)]
struct HitList<'a> {
    total: TotalHits,
    max_score: Option<f64>,
    #[serde(borrow)]
    hits: Vec<RawHit<'a>>,
}

/// The total as an object, or as a number before Elasticsearch 7.
#[derive(Deserialize)]
#[serde(untagged)]
enum TotalHits {
    Object { value: u64 },
    Number(u64),
}

#[derive(Deserialize)]
struct RawHit<'a> {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_type")]
    doc_type: Option<String>,
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_version")]
    version: Option<u64>,
    #[serde(rename = "_seq_no")]
    seq_no: Option<u64>,
    #[serde(rename = "_score")]
    score: Option<f64>,
    #[serde(rename = "_source", borrow)]
    source: Option<&'a RawValue>,
    #[serde(default)]
    sort: Vec<Value>,
    #[serde(rename = "_ignored", default)]
    ignored: Vec<String>,
}

/// Why a well-formed response is not a complete result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IncompleteResult {
    /// The search reached its timeout.
    #[error("the search timed out, so the result is incomplete (narrow the time range or the query)")]
    TimedOut,
    #[error("{failed} shards failed: {reason}")]
    ShardsFailed { failed: u64, reason: String },
}

impl ParsedSearch<'_> {
    /// Returns an error if the result is incomplete.
    pub(crate) fn check_complete(&self) -> Result<(), IncompleteResult> {
        if self.timed_out {
            return Err(IncompleteResult::TimedOut);
        }
        self.shards.check_complete()
    }

    /// Converts to a result whose aggregations stay as the server rendered them.
    pub(crate) fn into_result(self) -> SearchResult {
        SearchResult { aggregations: self.aggregations.map(OutputJson::Value), ..result(self.hits) }
    }
}

impl ShardSummary {
    /// Parses the `_shards` member of a response; without one, nothing failed.
    pub(crate) fn of(response: &Value) -> ShardSummary {
        ShardSummary::deserialize(&response["_shards"]).unwrap_or_default()
    }

    pub(crate) fn check_complete(&self) -> Result<(), IncompleteResult> {
        if self.failed == 0 {
            return Ok(());
        }
        let reason = self.failures.first().and_then(|failure| failure["reason"]["reason"].as_str());
        let reason = reason.unwrap_or(NO_REASON).to_owned();
        Err(IncompleteResult::ShardsFailed { failed: self.failed, reason })
    }
}

fn result(list: HitList<'_>) -> SearchResult {
    let total = match list.total {
        TotalHits::Object { value } | TotalHits::Number(value) => value,
    };
    let hits = list.hits.into_iter().map(to_hit).collect();
    SearchResult { total, hits, score_max: list.max_score, ..SearchResult::default() }
}

fn to_hit(raw: RawHit<'_>) -> Hit {
    Hit {
        index: raw.index,
        doc_type: raw.doc_type,
        id: raw.id,
        version: raw.version.unwrap_or(1),
        seq_no: raw.seq_no.unwrap_or(0),
        source: strip_lea_object(raw.source.map_or("{}", RawValue::get).as_bytes()),
        sort: raw.sort,
        score: raw.score,
        ignored: raw.ignored,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(response: &Value) -> (Result<(), IncompleteResult>, SearchResult) {
        let text = response.to_string();
        let parsed: ParsedSearch<'_> = serde_json::from_str(&text).unwrap();
        (parsed.check_complete(), parsed.into_result())
    }

    #[test]
    fn responses_of_all_versions_are_parsed() {
        let hit = json!({"_index": "a", "_type": "_doc", "_id": "1", "sort": [5], "_version": 3, "_seq_no": 7,
            "_source": {"a": 1, "lea": {"time": "2026-11-22T00:00:00.000Z"}}});
        for total in [json!(2), json!({"value": 2, "relation": "eq"})] {
            let (complete, result) = parse(&json!({"hits": {"total": total, "hits": [hit]}}));
            assert_eq!((complete, result.total, result.hits.len()), (Ok(()), 2, 1));
            let hit = &result.hits[0];
            assert_eq!((hit.version, hit.seq_no, hit.source.as_slice()), (3, 7, &br#"{"a":1}"#[..]));
        }
        let terms = json!({"buckets": [{"key": 1, "key_as_string": "true", "doc_count": 4}, {"key": "x", "doc_count": 2}]});
        let (_, result) = parse(&json!({"hits": {"total": 0, "hits": []}, "aggregations": {"top": terms}}));
        let keys: Vec<_> =
            result.buckets("top").iter().map(|bucket| (bucket.key.clone(), bucket.count)).collect();
        assert_eq!(keys, [(json!("true"), 4), (json!("x"), 2)]);
    }

    #[test]
    fn incomplete_results_are_errors() {
        let hits = json!({"total": 0, "hits": []});
        let complete = |response: Value| parse(&response).0;
        assert_eq!(complete(json!({"hits": hits, "timed_out": true})), Err(IncompleteResult::TimedOut));
        let failed = |failures: Value| json!({"hits": hits, "_shards": {"failed": 2, "failures": failures}});
        let error = |failures| complete(failed(failures)).unwrap_err().to_string();
        assert_eq!(error(json!([{"reason": {"reason": "no memory"}}])), "2 shards failed: no memory");
        assert_eq!(error(json!([])), "2 shards failed: no reason given");
        assert!(ShardSummary::of(&json!({"count": 1})).check_complete().is_ok());
        assert!(ShardSummary::of(&json!({"_shards": {"failed": 1}})).check_complete().is_err());
    }
}
