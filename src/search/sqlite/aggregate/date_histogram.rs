//! The `date_histogram` aggregation: documents per interval of time.

use roaring::RoaringBitmap;

use super::super::catalog::field_ids;
use super::super::plan::exists_plan;
use super::super::terms::each_term;
use super::super::values::{HOUR_MS, decode_long};
use super::histogram::HistogramBucket;
use super::metrics::unsupported_type;
use super::source::AggregatedField;
use super::time_grid::TimeGrid;
use super::{AggregationRun, FieldType};
use crate::search::query::OutputJson;
use crate::search::query::aggregations::{BUCKETS_MAX, DateBounds, DateHistogram, NamedAggregations};
use crate::search::store::StoreError;

/// First and last start of a bucket.
type RoundedBounds = (Option<i64>, Option<i64>);

impl AggregationRun<'_> {
    pub(super) fn date_histogram(
        &self,
        docs: &RoaringBitmap,
        histogram: &DateHistogram,
        inner: &NamedAggregations,
        depth: usize,
    ) -> Result<OutputJson, StoreError> {
        let source = &histogram.source;
        let field = self.field(source, FieldType::Date)?;
        if let Some(field) = field.as_ref().filter(|field| !field.is_numeric()) {
            return Err(unsupported_type(field, "date_histogram"));
        }
        let grid =
            TimeGrid { interval: histogram.interval, zone: source.zone, offset_ms: histogram.offset_ms };
        let of_bounds = match &field {
            Some(field) => field.clone(),
            None => AggregatedField::unmapped(&source.field, FieldType::Date),
        };
        let bounds =
            |bounds: &Option<DateBounds>| self.round_bounds(bounds.as_ref(), &of_bounds, histogram, grid);
        let (extended, hard) = (bounds(&histogram.extended_bounds)?, bounds(&histogram.hard_bounds)?);
        let mut buckets = match &field {
            Some(field) => self.collect_times(field, docs, grid, !inner.is_empty(), depth)?,
            None => Vec::new(),
        };
        let is_within =
            |start: i64| hard.0.is_none_or(|min| start >= min) && hard.1.is_none_or(|max| start < max);
        buckets.retain(|bucket| is_within(bucket.key));
        if histogram.count_min == 0 {
            buckets = fill(buckets, grid, extended)?;
        }
        buckets.retain(|bucket| bucket.count >= histogram.count_min);
        let format = of_bounds.value_format(source);
        self.render_histogram(buckets, &histogram.order, histogram.keyed, inner, depth, &|start| {
            (OutputJson::Long(*start), format.write(*start as f64), start.to_string())
        })
    }

    fn round_bounds(
        &self,
        bounds: Option<&DateBounds>,
        field: &AggregatedField,
        histogram: &DateHistogram,
        grid: TimeGrid,
    ) -> Result<RoundedBounds, StoreError> {
        let Some(bounds) = bounds else { return Ok((None, None)) };
        let read = |value: &Option<crate::search::query::QueryValue>| {
            let date =
                value.as_ref().map(|value| field.parse_date(value, &histogram.source, self.run.now_ms));
            date.transpose()
        };
        let (min, max) = (read(&bounds.min)?, read(&bounds.max)?);
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            return Err(StoreError::Invalid(format!(
                "[extended_bounds.min][{min}] cannot be greater than [extended_bounds.max][{max}] for histogram \
                 aggregation"
            )));
        }
        Ok((min.map(|min| grid.bucket_start(min)), max.map(|max| grid.bucket_start(max))))
    }

    /// Returns the buckets with documents in the order of time.
    fn collect_times(
        &self,
        field: &AggregatedField,
        docs: &RoaringBitmap,
        grid: TimeGrid,
        needs_docs: bool,
        depth: usize,
    ) -> Result<Vec<HistogramBucket<i64>>, StoreError> {
        let mut collector =
            TimeCollector { grid, buckets: Vec::new(), start: None, docs: RoaringBitmap::new() };
        if depth == 0 && field.is_plain() && field.kind == FieldType::Date {
            let hours: Vec<_> =
                field.field_ids().iter().map(|(index, field)| (*index, field | field_ids::HOURS)).collect();
            if grid.may_have_whole_hours() && self.has_whole_hours(&hours, grid)? {
                if !needs_docs && self.covers_all_docs(docs)? && self.has_one_hour_each(docs, &hours)? {
                    return self.add_hours(&hours, grid);
                }
                self.walk_groups(&hours, docs, &mut |value, found| {
                    let hour = decode_long(value).unwrap_or_default();
                    collector.add(hour.saturating_mul(HOUR_MS), found)
                })?;
                return collector.finish();
            }
        }
        self.each_group(field, docs, depth, &mut |value, found| {
            collector.add(field.number(value) as i64, found)
        })?;
        collector.finish()
    }

    /// Tells whether each hour with a value lies in one bucket.
    fn has_whole_hours(&self, hours: &[(u16, u16)], grid: TimeGrid) -> Result<bool, StoreError> {
        let mut are_whole = true;
        each_term(self.run.context, hours, false, |entry| {
            are_whole = grid.has_whole_hour(decode_long(entry.value).unwrap_or_default());
            Ok(are_whole)
        })?;
        Ok(are_whole)
    }

    /// Adds the totals of hours, which needs no set of documents.
    fn add_hours(
        &self,
        hours: &[(u16, u16)],
        grid: TimeGrid,
    ) -> Result<Vec<HistogramBucket<i64>>, StoreError> {
        let mut buckets: Vec<HistogramBucket<i64>> = Vec::new();
        each_term(self.run.context, hours, false, |entry| {
            let hour = decode_long(entry.value).unwrap_or_default();
            let start = grid.bucket_start(hour.saturating_mul(HOUR_MS));
            match buckets.last_mut().filter(|bucket| bucket.key == start) {
                Some(bucket) => bucket.count += u64::from(entry.total),
                None => {
                    buckets.push(HistogramBucket { key: start, count: u64::from(entry.total), docs: None })
                }
            }
            Ok(true)
        })?;
        if buckets.len() > BUCKETS_MAX { Err(StoreError::TooManyBuckets) } else { Ok(buckets) }
    }

    /// Tells whether no document has values in two hours. Then the totals of hours can be added.
    fn has_one_hour_each(&self, docs: &RoaringBitmap, hours: &[(u16, u16)]) -> Result<bool, StoreError> {
        let (mut values, mut having) = (0, 0);
        each_term(self.run.context, hours, false, |entry| {
            values += u64::from(entry.total);
            Ok(true)
        })?;
        for &(index, field) in hours {
            having += self.run.context.count(index, &exists_plan(index, field & !field_ids::HOURS))?;
        }
        debug_assert!(having <= docs.len());
        Ok(values == having)
    }
}

/// Collector of times that come in order.
struct TimeCollector {
    grid: TimeGrid,
    buckets: Vec<HistogramBucket<i64>>,
    start: Option<i64>,
    docs: RoaringBitmap,
}

impl TimeCollector {
    fn add(&mut self, at_ms: i64, found: RoaringBitmap) -> Result<bool, StoreError> {
        let start = self.grid.bucket_start(at_ms);
        if self.start != Some(start) {
            self.close()?;
            self.start = Some(start);
        }
        self.docs |= found;
        Ok(true)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let docs = std::mem::take(&mut self.docs);
        if let Some(key) = self.start.filter(|_| !docs.is_empty()) {
            self.buckets.push(HistogramBucket { key, count: docs.len(), docs: Some(docs) });
        }
        if self.buckets.len() > BUCKETS_MAX { Err(StoreError::TooManyBuckets) } else { Ok(()) }
    }

    fn finish(mut self) -> Result<Vec<HistogramBucket<i64>>, StoreError> {
        self.close()?;
        Ok(self.buckets)
    }
}

/// Inserts the empty buckets between others, and up to the bounds.
fn fill(
    buckets: Vec<HistogramBucket<i64>>,
    grid: TimeGrid,
    bounds: RoundedBounds,
) -> Result<Vec<HistogramBucket<i64>>, StoreError> {
    let first = buckets.first().map(|bucket| bucket.key);
    let Some(mut start) = first.into_iter().chain(bounds.0).min().or(bounds.1) else { return Ok(buckets) };
    let last = buckets.last().map(|bucket| bucket.key).into_iter().chain(bounds.1).max().unwrap_or(start);
    let mut filled = Vec::with_capacity(buckets.len());
    let mut buckets = buckets.into_iter().peekable();
    while start <= last {
        match buckets.next_if(|bucket| bucket.key <= start) {
            Some(bucket) => filled.push(bucket),
            None => filled.push(HistogramBucket { key: start, count: 0, docs: None }),
        }
        if filled.len() > BUCKETS_MAX {
            return Err(StoreError::TooManyBuckets);
        }
        match grid.next_bucket_start(start) {
            Some(next) => start = next,
            None => break,
        }
    }
    filled.extend(buckets);
    Ok(filled)
}
