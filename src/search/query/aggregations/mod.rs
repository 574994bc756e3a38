//! Aggregations of a search request. Pure code.

mod buckets;
mod members;
mod metrics;
mod parse;

pub(crate) use parse::AGGREGATIONS_MAX;
pub(super) use parse::parse_aggregations;

use super::json::OrderedJson;
use super::{Query, QueryValue, Sort, SourceFilter};
use crate::search::date::TimeZone;

/// Maximum number of buckets in the answer to a request (Elasticsearch's `search.max_buckets`).
pub(crate) const BUCKETS_MAX: usize = 65_536;

/// Aggregations by name.
pub type NamedAggregations = Vec<(String, Aggregation)>;

/// An aggregation over all hits, or over the documents of a bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregation {
    /// Elasticsearch's name of the type: `terms`.
    pub type_name: &'static str,
    pub kind: AggregationKind,
    /// Aggregations inside each bucket.
    pub inner: NamedAggregations,
    /// `meta`, which the answer repeats.
    pub(crate) meta: Option<OrderedJson>,
    /// The body as it was written, for clusters.
    pub(crate) body: OrderedJson,
}

impl Aggregation {
    /// The most frequent values of a field.
    pub fn terms(field: &str, size: usize) -> Aggregation {
        let body = vec![
            ("field".to_owned(), OrderedJson::Text(field.to_owned())),
            ("size".to_owned(), OrderedJson::Long(i64::try_from(size).unwrap_or(i64::MAX))),
        ];
        let kind = AggregationKind::Terms(TermsAggregation::new(ValueSource::of_field(field), size));
        Aggregation {
            type_name: "terms",
            kind,
            inner: Vec::new(),
            meta: None,
            body: OrderedJson::Object(body),
        }
    }
}

/// What an aggregation computes.
#[derive(Clone, Debug, PartialEq)]
pub enum AggregationKind {
    /// Numbers about the values of a field.
    Metric { source: ValueSource, metric: Metric },
    /// The most frequent values of a field.
    Terms(TermsAggregation),
    /// Documents per interval of time.
    DateHistogram(DateHistogram),
    /// Documents per interval of numbers.
    Histogram(Histogram),
    /// Documents per range of numbers, dates or addresses.
    Range(RangeAggregation),
    /// The documents that match a query.
    Filter(Query),
    /// Documents per query.
    Filters(FiltersAggregation),
    /// The documents without a value.
    Missing(ValueSource),
    /// All documents of the indices.
    Global,
    /// The first hits of a bucket.
    TopHits(Box<TopHits>),
    /// Documents per combination of values, in pages.
    Composite(Composite),
}

/// The values that an aggregation works on.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueSource {
    pub field: String,
    /// Value of documents without one.
    pub missing: Option<QueryValue>,
    /// Format of dates and numbers in the answer.
    pub format: Option<String>,
    pub zone: TimeZone,
}

impl ValueSource {
    pub fn of_field(field: &str) -> ValueSource {
        ValueSource { field: field.to_owned(), missing: None, format: None, zone: TimeZone::UTC }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    Avg,
    Sum,
    Min,
    Max,
    Stats,
    /// `sigma`: width of the bounds in standard deviations.
    ExtendedStats {
        sigma: f64,
    },
    ValueCount,
    Cardinality,
    Percentiles {
        percents: Vec<f64>,
        keyed: bool,
    },
    PercentileRanks {
        values: Vec<f64>,
        keyed: bool,
    },
}

/// One criterion of the order of buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketOrder {
    pub key: BucketOrderKey,
    pub ascending: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BucketOrderKey {
    Key,
    Count,
    /// A metric inside the bucket: names of aggregations, and the value of the last one (`s.max`).
    Metric {
        path: Vec<String>,
        value: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct TermsAggregation {
    pub source: ValueSource,
    /// Maximum number of buckets.
    pub size: usize,
    /// The last criterion is the key.
    pub order: Vec<BucketOrder>,
    /// Minimum number of documents per bucket.
    pub count_min: u64,
    pub include: Option<ValueFilter>,
    pub exclude: Option<ValueFilter>,
    /// Report `doc_count_error_upper_bound` in each bucket.
    pub shows_error: bool,
}

impl TermsAggregation {
    pub fn new(source: ValueSource, size: usize) -> TermsAggregation {
        let order = vec![
            BucketOrder { key: BucketOrderKey::Count, ascending: false },
            BucketOrder { key: BucketOrderKey::Key, ascending: true },
        ];
        TermsAggregation {
            source,
            size,
            order,
            count_min: 1,
            include: None,
            exclude: None,
            shows_error: false,
        }
    }
}

/// `include` or `exclude` of a terms aggregation.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueFilter {
    /// A regular expression of Lucene.
    Pattern(String),
    Values(Vec<QueryValue>),
}

/// Length of a bucket of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// Milliseconds.
    Fixed(i64),
    Second,
    Minute,
    Hour,
    Day,
    /// A week from Monday to Sunday.
    Week,
    Month,
    Quarter,
    Year,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DateHistogram {
    pub source: ValueSource,
    pub interval: Interval,
    /// Shift of the start of each bucket.
    pub offset_ms: i64,
    /// Minimum number of documents per bucket; 0 also returns empty buckets between others.
    pub count_min: u64,
    pub order: Vec<BucketOrder>,
    pub keyed: bool,
    /// Empty buckets are added up to these.
    pub extended_bounds: Option<DateBounds>,
    /// Only values within these count.
    pub hard_bounds: Option<DateBounds>,
}

/// Bounds of a date histogram as they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DateBounds {
    pub min: Option<QueryValue>,
    pub max: Option<QueryValue>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    pub source: ValueSource,
    pub interval: f64,
    pub offset: f64,
    pub count_min: u64,
    pub order: Vec<BucketOrder>,
    pub keyed: bool,
    pub extended_bounds: Option<(Option<f64>, Option<f64>)>,
    pub hard_bounds: Option<(Option<f64>, Option<f64>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeType {
    Number,
    Date,
    Ip,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RangeAggregation {
    pub source: ValueSource,
    pub range_type: RangeType,
    pub ranges: Vec<BucketRange>,
    pub keyed: bool,
}

/// A range with an included start and an excluded end.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketRange {
    pub key: Option<String>,
    pub from: Option<QueryValue>,
    pub to: Option<QueryValue>,
    /// A network, instead of `from` and `to`.
    pub mask: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FiltersAggregation {
    /// Names are empty if the filters are a list.
    pub filters: Vec<(String, Query)>,
    pub keyed: bool,
    /// Name of a bucket for the documents that match no filter.
    pub other: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TopHits {
    pub from: usize,
    pub size: usize,
    pub sort: Vec<Sort>,
    pub source: SourceFilter,
    pub options: super::HitOptions,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Composite {
    pub size: usize,
    pub sources: Vec<CompositeSource>,
    /// Key of the last bucket of the previous page, one value for each source.
    pub after: Option<Vec<Option<QueryValue>>>,
}

/// One part of the key of a composite bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct CompositeSource {
    pub name: String,
    pub source: ValueSource,
    pub grid: CompositeGrid,
    pub ascending: bool,
    /// Documents without a value have the key null.
    pub missing_bucket: bool,
    /// The place of the key null, if it is not the default.
    pub missing_first: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CompositeGrid {
    Terms,
    Histogram { interval: f64 },
    DateHistogram { interval: Interval, offset_ms: i64 },
}
