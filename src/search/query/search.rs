//! A search (query, indices, order, page, aggregations) and its result.

use super::Query;

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
    /// Aggregations by name.
    pub aggregations: Vec<(String, Aggregation)>,
    /// Prefix aggregation names with their type, in results that a cluster renders
    /// ([`SearchResult::rendered_aggregations`]).
    pub typed_keys: bool,
}

/// Sort values of the last hit of the previous page.
pub type SearchAfter = Vec<serde_json::Value>;

/// One sort key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    pub key: SortKey,
    pub descending: bool,
    /// True: documents without the field come first.
    pub missing_first: bool,
    /// Field type to assume if no index has the field; `None`: an unknown field is an error.
    pub unmapped_type: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// Order of insertion (`_doc`, and `_score`, because nothing is scored).
    SeqNo,
    /// A field's value.
    Field(String),
}

impl Sort {
    /// Sorts by a field.
    pub fn by_field(field: &str, descending: bool) -> Sort {
        let key = SortKey::Field(field.to_owned());
        Sort { key, descending, missing_first: false, unmapped_type: None }
    }

    /// Sorts by the order of insertion.
    pub fn by_seq_no(descending: bool) -> Sort {
        Sort { key: SortKey::SeqNo, descending, missing_first: false, unmapped_type: None }
    }
}

/// The part of a source to return.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFilter {
    /// Return no source.
    pub excludes_all: bool,
    /// Return only these fields, if any are given; patterns with `*`.
    pub includes: Vec<String>,
    /// Do not return these fields.
    pub excludes: Vec<String>,
}

/// An aggregation over all hits.
#[derive(Clone, Debug, PartialEq)]
pub enum Aggregation {
    /// The most frequent values of a field.
    Terms {
        field: String,
        /// Maximum number of buckets.
        size: usize,
        /// Order by key instead of by count.
        by_key: bool,
        ascending: bool,
        /// Minimum number of documents per bucket.
        count_min: u64,
        /// Aggregations inside each bucket.
        inner: Vec<(String, Aggregation)>,
    },
    /// Number of documents per time interval.
    DateHistogram {
        field: String,
        /// Length of a bucket.
        interval: Interval,
        /// Minutes east of UTC; determines where days start.
        zone_minutes: i32,
        /// Minimum number of documents per bucket; 0 also returns empty buckets between others.
        count_min: u64,
        /// Aggregations inside each bucket.
        inner: Vec<(String, Aggregation)>,
    },
}

impl Aggregation {
    /// The most frequent values of a field.
    pub fn terms(field: &str, size: usize) -> Aggregation {
        let field = field.to_owned();
        Aggregation::Terms { field, size, by_key: false, ascending: false, count_min: 1, inner: Vec::new() }
    }
}

/// Length of a date histogram's bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// Milliseconds.
    Fixed(i64),
    /// A week from Monday to Sunday.
    Week,
    /// A calendar month.
    Month,
    /// A calendar quarter.
    Quarter,
    /// A calendar year.
    Year,
}

/// The result of a search.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SearchResult {
    /// Number of matching documents.
    pub total: u64,
    /// At most `size` of them.
    pub hits: Vec<Hit>,
    /// The buckets of each aggregation, by name.
    pub aggregations: NamedBuckets,
    /// The aggregations as a cluster rendered them, instead of `aggregations`. The cluster knows the field
    /// types that decide how a key looks, and the counts outside the buckets.
    pub rendered_aggregations: Option<serde_json::Value>,
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

/// Buckets by the name of their aggregation.
pub type NamedBuckets = Vec<(String, Vec<Bucket>)>;

/// A bucket of an aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// The value; for a date histogram the start in milliseconds since 1970.
    pub key: serde_json::Value,
    /// Number of documents.
    pub count: u64,
    /// Aggregations inside the bucket.
    pub inner: NamedBuckets,
}
