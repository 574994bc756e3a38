//! A search (query, indices, order, page, aggregations) and its result.

use super::{HitOptions, NamedAggregations, OutputJson, Query, Sort, SourceFilter};

#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Index names or patterns with `*`; empty: all.
    pub indices: Vec<String>,
    /// False: an index name without `*` that does not exist is an error.
    pub ignore_unavailable: bool,
    pub query: Query,
    /// Sort keys; empty: order of insertion.
    pub sort: Vec<Sort>,
    /// Number of hits to skip.
    pub from: usize,
    /// Number of hits to return. 0: only the total and the aggregations.
    pub size: usize,
    /// Only hits after this one, in the order of `sort`.
    pub after: Option<SearchAfter>,
    pub source: SourceFilter,
    pub options: HitOptions,
    /// Filter of the hits, which aggregations do not see.
    pub post_filter: Option<Query>,
    /// Aggregations by name.
    pub aggregations: NamedAggregations,
    /// Prefix aggregation names with their type.
    pub typed_keys: bool,
}

/// Sort values of the last hit of the previous page.
pub type SearchAfter = Vec<serde_json::Value>;

/// The result of a search.
#[derive(Clone, Debug, Default)]
pub struct SearchResult {
    /// Number of matching documents.
    pub total: u64,
    /// At most `size` of them.
    pub hits: Vec<Hit>,
    /// The aggregations as Elasticsearch renders them.
    pub aggregations: Option<OutputJson>,
    /// Highest score, if the store computes scores.
    pub score_max: Option<f64>,
}

/// A document that matches.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    pub index: String,
    /// Mapping type of the 2.x dialect, if the document has one.
    pub doc_type: Option<String>,
    pub id: String,
    /// Number of times that this id was written; at least 1.
    pub version: u64,
    /// Number of writes to the store before this one.
    pub seq_no: u64,
    /// The JSON object as received, before source filtering.
    pub source: Vec<u8>,
    /// Values of the sort keys, one for each entry of [`Search::sort`].
    pub sort: Vec<serde_json::Value>,
    /// Score, if the store computes scores.
    pub score: Option<f64>,
    /// Paths of the members that could not be indexed.
    pub ignored: Vec<String>,
}

/// A bucket of a terms aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// The value; the text of a date or a boolean.
    pub key: serde_json::Value,
    /// Number of documents.
    pub count: u64,
}

impl SearchResult {
    /// Returns the buckets of a terms aggregation.
    pub fn buckets(&self, name: &str) -> Vec<Bucket> {
        let json = self.aggregations.as_ref().map(serde_json::to_value);
        let json = json.and_then(Result::ok).unwrap_or_default();
        let bucket = |bucket: &serde_json::Value| Bucket {
            key: bucket.get("key_as_string").unwrap_or(&bucket["key"]).clone(),
            count: bucket["doc_count"].as_u64().unwrap_or_default(),
        };
        json[name]["buckets"].as_array().map_or_else(Vec::new, |buckets| buckets.iter().map(bucket).collect())
    }
}
