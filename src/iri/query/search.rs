//! A search around a query: where, how many, in which order; and what was found.

use super::Query;

/// A search.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Names of indices, or patterns with `*`; empty: all.
    pub indices: Vec<String>,
    /// Names that must exist: a name without `*` that does not is refused, unless `ignore_unavailable` was given.
    pub ignore_unavailable: bool,
    /// The question.
    pub query: Query,
    /// The order; empty: as they were stored.
    pub sort: Vec<Sort>,
    /// Hits to pass over.
    pub from: usize,
    /// Hits to give. 0: only the total and the aggregations.
    pub size: usize,
    /// Only hits that come after this one, in the order of `sort`.
    pub after: Option<SearchAfter>,
    /// Which part of each source to give.
    pub source: SourceFilter,
    /// Aggregations by name.
    pub aggregations: Vec<(String, Aggregation)>,
    /// Their names have their types before them where the store tells them itself ([`Found::told`]).
    pub typed_keys: bool,
}

/// The sort values of the last hit of the page before.
pub type SearchAfter = Vec<serde_json::Value>;

/// One key of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub key: SortKey,
    /// The largest first.
    pub descending: bool,
    /// Documents without the field first, rather than last.
    pub missing_first: bool,
    /// The field's type where no index has it; without one that is an error.
    pub unmapped_type: Option<String>,
}

/// What hits are ordered by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// As they were stored (`_doc`, `_score`: nothing is scored).
    Stored,
    /// A field's value.
    Field(String),
}

/// Which part of a source to give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFilter {
    /// None of it.
    pub none: bool,
    /// These fields alone, where any are named; patterns with `*`.
    pub includes: Vec<String>,
    /// These not.
    pub excludes: Vec<String>,
}

/// What is counted over all hits.
#[derive(Clone, Debug, PartialEq)]
pub enum Aggregation {
    /// The values that most documents have.
    Terms {
        /// Of this field.
        field: String,
        /// So many.
        size: usize,
        /// By value rather than by how many.
        by_key: bool,
        /// The smallest first.
        ascending: bool,
        /// Only values that so many documents have.
        count_min: u64,
        /// Aggregations in each bucket.
        inner: Vec<(String, Aggregation)>,
    },
    /// Documents by time.
    DateHistogram {
        /// Of this field.
        field: String,
        /// How long each bucket is.
        interval: Interval,
        /// Minutes east of UTC at which days begin.
        zone_minutes: i32,
        /// Only buckets that so many documents are in; 0: empty ones between others too.
        count_min: u64,
        /// Aggregations in each bucket.
        inner: Vec<(String, Aggregation)>,
    },
}

/// How long a bucket of a date histogram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// So many milliseconds.
    Fixed(i64),
    /// Monday to Sunday.
    Week,
    /// A month of the calendar.
    Month,
    /// A quarter of the calendar.
    Quarter,
    /// A year of the calendar.
    Year,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Documents that fit.
    pub total: u64,
    /// `size` of them.
    pub hits: Vec<Hit>,
    /// A row of buckets an aggregation, by its name.
    pub aggregations: Vec<(String, Vec<Bucket>)>,
    /// Instead of that: the aggregations as a cluster tells them. How a key looks depends on the types of its fields,
    /// which it knows, and it has counted what is not among the buckets.
    pub told: Option<serde_json::Value>,
    /// How well the best document fits, where the store weighs that.
    pub score_max: Option<f64>,
}

/// A document that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Its index.
    pub index: String,
    /// Its type, where it has one.
    pub kind: Option<String>,
    /// Its id.
    pub id: String,
    /// How often the id was written; from 1.
    pub version: u64,
    /// Its place among all writes of the store, from 0.
    pub sequence: u64,
    /// The JSON object as it came, not yet filtered.
    pub source: Vec<u8>,
    /// The values that it was sorted by: one each for [`Search::sort`].
    pub sort: Vec<serde_json::Value>,
    /// How well it fits, where the store weighs that.
    pub score: Option<f64>,
}

/// A bucket of an aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// The value; for a date histogram the begin in milliseconds since 1970.
    pub key: serde_json::Value,
    /// How many documents.
    pub count: u64,
    /// The aggregations in it.
    pub inner: Vec<(String, Vec<Bucket>)>,
}
