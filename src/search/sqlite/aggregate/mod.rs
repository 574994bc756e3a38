//! Aggregations over the documents that a search found. Runs in the caller's thread.
//!
//! An aggregation gets a set of documents and returns its part of the answer in Elasticsearch's form. Aggregations inside
//! buckets get the documents of each bucket. The number of buckets of a request is limited.

mod composite;
mod date_histogram;
mod format;
mod histogram;
mod metrics;
mod order;
mod range;
pub(super) mod source;
mod terms;
mod time_grid;

use std::cell::{Cell, RefCell};

use roaring::RoaringBitmap;

use super::catalog::field_ids;
use super::plan::{QueryPlan, term_key};
use super::search::SearchRun;
use crate::search::mapping::FieldType;
use crate::search::query::aggregations::{
    Aggregation, AggregationKind, BUCKETS_MAX, FiltersAggregation, NamedAggregations, TopHits, ValueSource,
};
use crate::search::query::{BucketHits, OutputJson};
use crate::search::store::StoreError;

/// Memory of the result of an aggregation, apart from its buckets.
const AGGREGATION_BYTES: usize = 128;

/// Memory of a bucket and of its text in the response.
const BUCKET_BYTES: usize = 384;

/// Members of a rendered object.
type Members = Vec<(String, OutputJson)>;

/// Runs all aggregations of a search on the documents that it found.
pub(super) fn run_aggregations(
    run: &SearchRun<'_>,
    docs: &RoaringBitmap,
    aggregations: &NamedAggregations,
    has_typed_keys: bool,
) -> Result<Option<OutputJson>, StoreError> {
    if aggregations.is_empty() {
        return Ok(None);
    }
    let buckets = Cell::new(0);
    let level = AggregationRun { run, docs, columns: RefCell::default(), buckets: &buckets, has_typed_keys };
    Ok(Some(OutputJson::Object(level.run_level(docs, aggregations, 0)?)))
}

/// State of the aggregations of one search.
struct AggregationRun<'a> {
    run: &'a SearchRun<'a>,
    /// All documents that aggregations can get.
    docs: &'a RoaringBitmap,
    columns: RefCell<source::Columns>,
    /// Number of buckets so far.
    buckets: &'a Cell<usize>,
    /// Names of aggregations start with their type.
    has_typed_keys: bool,
}

impl AggregationRun<'_> {
    /// Runs the aggregations of one level on the documents of one bucket.
    fn run_level(
        &self,
        docs: &RoaringBitmap,
        aggregations: &NamedAggregations,
        depth: usize,
    ) -> Result<Members, StoreError> {
        let mut rendered = Vec::with_capacity(aggregations.len());
        for (name, aggregation) in aggregations {
            self.run.context.check_deadline()?;
            self.run.context.charge(AGGREGATION_BYTES + 2 * name.len())?;
            let (type_name, mut result) = self.run_one(docs, aggregation, depth)?;
            if let (Some(meta), OutputJson::Object(members)) = (&aggregation.meta, &mut result) {
                members.insert(0, ("meta".to_owned(), meta.into()));
            }
            let name = if self.has_typed_keys { format!("{type_name}#{name}") } else { name.clone() };
            rendered.push((name, result));
        }
        Ok(rendered)
    }

    /// Returns the type of the result and the result.
    fn run_one(
        &self,
        docs: &RoaringBitmap,
        aggregation: &Aggregation,
        depth: usize,
    ) -> Result<(&'static str, OutputJson), StoreError> {
        let inner = &aggregation.inner;
        let result = match &aggregation.kind {
            AggregationKind::Metric { source, metric } => {
                OutputJson::Object(self.metric(docs, source, metric, depth)?)
            }
            AggregationKind::Terms(terms) => return self.terms(docs, terms, inner, depth),
            AggregationKind::DateHistogram(histogram) => {
                self.date_histogram(docs, histogram, inner, depth)?
            }
            AggregationKind::Histogram(histogram) => self.histogram(docs, histogram, inner, depth)?,
            AggregationKind::Range(range) => self.range(docs, range, inner, depth)?,
            AggregationKind::Filter(query) => {
                self.single_bucket(&self.run.matching(query, docs)?, inner, depth)?
            }
            AggregationKind::Filters(filters) => self.filters(docs, filters, inner, depth)?,
            AggregationKind::Missing(source) => {
                self.single_bucket(&self.missing(source, docs)?, inner, depth)?
            }
            AggregationKind::Global => {
                let all = self.all_docs()?;
                let level = AggregationRun {
                    run: self.run,
                    docs: &all,
                    columns: RefCell::default(),
                    buckets: self.buckets,
                    has_typed_keys: self.has_typed_keys,
                };
                level.single_bucket(&all, inner, depth)?
            }
            AggregationKind::TopHits(top) => self.top_hits(docs, top)?,
            AggregationKind::Composite(composite) => self.composite(docs, composite, inner, depth)?,
        };
        Ok((typed_name(aggregation.type_name), result))
    }

    fn single_bucket(
        &self,
        docs: &RoaringBitmap,
        inner: &NamedAggregations,
        depth: usize,
    ) -> Result<OutputJson, StoreError> {
        let mut members = vec![("doc_count".to_owned(), OutputJson::count(docs.len()))];
        members.extend(self.run_level(docs, inner, depth + 1)?);
        Ok(OutputJson::Object(members))
    }

    fn filters(
        &self,
        docs: &RoaringBitmap,
        filters: &FiltersAggregation,
        inner: &NamedAggregations,
        depth: usize,
    ) -> Result<OutputJson, StoreError> {
        let mut rest = docs.clone();
        let mut buckets = Vec::new();
        for (name, query) in &filters.filters {
            let found = self.run.matching(query, docs)?;
            rest -= &found;
            buckets.push((name.clone(), self.single_bucket(&found, inner, depth)?));
        }
        if let Some(name) = &filters.other {
            buckets.push((name.clone(), self.single_bucket(&rest, inner, depth)?));
        }
        self.add_buckets(buckets.len())?;
        Ok(buckets_json(buckets, filters.keyed))
    }

    fn top_hits(&self, docs: &RoaringBitmap, top: &TopHits) -> Result<OutputJson, StoreError> {
        let hits = self.run.read_hits(docs.clone(), &top.sort, None, top.from, top.size)?;
        let hits = BucketHits {
            total: docs.len(),
            hits,
            sort: top.sort.clone(),
            source: top.source.clone(),
            options: top.options.clone(),
        };
        Ok(OutputJson::Object(vec![("hits".to_owned(), OutputJson::Hits(Box::new(hits)))]))
    }

    /// Returns the documents among `docs` without a value.
    fn missing(&self, source: &ValueSource, docs: &RoaringBitmap) -> Result<RoaringBitmap, StoreError> {
        match self.field(source, FieldType::Keyword)? {
            None => Ok(docs.clone()),
            Some(_) if source.missing.is_some() => Ok(RoaringBitmap::new()),
            Some(field) => self.docs_without(&field, docs),
        }
    }

    /// Returns all documents of the searched indices.
    fn all_docs(&self) -> Result<RoaringBitmap, StoreError> {
        let mut docs = RoaringBitmap::new();
        for index in &self.run.indices {
            docs |=
                self.run.context.find(index.id, &QueryPlan::Term(term_key(index.id, field_ids::ALL, &[])))?;
        }
        Ok(docs)
    }

    /// Tells whether `docs` are all documents of the indices and none is deleted. Then the totals of entries are the
    /// counts.
    fn covers_all_docs(&self, docs: &RoaringBitmap) -> Result<bool, StoreError> {
        if !self.run.context.snapshot.deleted_docs.is_empty() {
            return Ok(false);
        }
        let counts = self.run.indices.iter().map(|index| self.run.context.count_index(index.id));
        Ok(docs.len() == counts.sum::<Result<u64, _>>()?)
    }

    /// Counts buckets of the answer.
    fn add_buckets(&self, count: usize) -> Result<(), StoreError> {
        self.run.context.check_deadline()?;
        self.run.context.charge(count.saturating_mul(BUCKET_BYTES))?;
        self.buckets.set(self.buckets.get().saturating_add(count));
        if self.buckets.get() > BUCKETS_MAX { Err(StoreError::TooManyBuckets) } else { Ok(()) }
    }
}

/// Returns the member `buckets`: an object if the buckets have names, otherwise a list.
fn buckets_json(buckets: Members, keyed: bool) -> OutputJson {
    let buckets = match keyed {
        true => OutputJson::Object(buckets),
        false => OutputJson::List(buckets.into_iter().map(|(_, bucket)| bucket).collect()),
    };
    OutputJson::Object(vec![("buckets".to_owned(), buckets)])
}

/// Elasticsearch's name of the type of a result.
fn typed_name(type_name: &'static str) -> &'static str {
    match type_name {
        "percentiles" => "tdigest_percentiles",
        "percentile_ranks" => "tdigest_percentile_ranks",
        other => other,
    }
}
