//! Aggregations by value and by time. Runs in the caller's thread.

use std::cmp::Ordering;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate};
use roaring::RoaringBitmap;
use serde_json::Value;

use super::catalog::field_ids;
use super::plan::{QueryPlan, exists_plan, term_key};
use super::search::{SearchRun, value_to_json};
use super::terms::each_term;
use super::values::{HOUR_MS, decode_long};
use crate::search::mapping::FieldType;
use crate::search::query::{Aggregation, Bucket, Interval, NamedBuckets};
use crate::search::store::StoreError;

/// Maximum number of buckets of an aggregation (the default of Elasticsearch).
const BUCKETS_MAX: usize = 65_536;

/// Runs all aggregations on a set of documents.
pub(super) fn run_aggregations(
    run: &SearchRun<'_>,
    docs: &RoaringBitmap,
    aggregations: &[(String, Aggregation)],
) -> Result<NamedBuckets, StoreError> {
    let one = |(name, aggregation): &(String, Aggregation)| {
        Ok((name.clone(), run_aggregation(run, docs, aggregation)?))
    };
    aggregations.iter().map(one).collect()
}

fn run_aggregation(
    run: &SearchRun<'_>,
    docs: &RoaringBitmap,
    aggregation: &Aggregation,
) -> Result<Vec<Bucket>, StoreError> {
    match aggregation {
        Aggregation::Terms { field, size, by_key, ascending, count_min, inner } => {
            let Some((kind, fields)) = run.typed_field(field)? else { return Ok(Vec::new()) };
            let best = TopTerms { size: *size, by_key: *by_key, ascending: *ascending, buckets: Vec::new() };
            let buckets = best.find(run, docs, &fields, *count_min)?;
            let bucket = |(value, count): (Vec<u8>, u64)| {
                let inner = if inner.is_empty() {
                    Vec::new()
                } else {
                    run_aggregations(run, &(docs & docs_with_value(run, &fields, &value)?), inner)?
                };
                Ok(Bucket { key: value_to_json(kind, Some(&value)), count, inner })
            };
            buckets.into_iter().map(bucket).collect()
        }
        Aggregation::DateHistogram { field, interval, zone_minutes, count_min, inner } => {
            let Some((kind, fields)) = run.typed_field(field)? else { return Ok(Vec::new()) };
            if kind != FieldType::Date {
                return Err(StoreError::Invalid(format!(
                    "Field [{field}] of type [{}] is not supported for aggregation [date_histogram]",
                    kind.name()
                )));
            }
            let grid = BucketGrid { interval: *interval, zone_ms: i64::from(*zone_minutes) * 60_000 };
            let buckets = date_histogram(run, docs, &fields, grid, inner)?;
            apply_count_min(buckets, grid, *count_min)
        }
    }
}

/// Returns the documents that have a value.
fn docs_with_value(
    run: &SearchRun<'_>,
    fields: &[(u16, u16)],
    value: &[u8],
) -> Result<RoaringBitmap, StoreError> {
    let mut docs = RoaringBitmap::new();
    for &(index, field) in fields {
        docs |= run.context.find(index, &QueryPlan::Term(term_key(index, field, value)))?;
    }
    Ok(docs)
}

/// Tells whether `docs` are all documents of the indices and none is deleted. Then the totals of entries are the
/// counts.
fn covers_all_docs(run: &SearchRun<'_>, docs: &RoaringBitmap) -> Result<bool, StoreError> {
    if !run.context.snapshot.deleted_docs.is_empty() {
        return Ok(false);
    }
    let counts = run.indices.iter().map(|index| run.context.count_index(index.id));
    Ok(docs.len() == counts.sum::<Result<u64, _>>()?)
}

/// Collector of the first buckets of a terms aggregation.
struct TopTerms {
    size: usize,
    by_key: bool,
    ascending: bool,
    buckets: Vec<(Vec<u8>, u64)>,
}

impl TopTerms {
    fn find(
        mut self,
        run: &SearchRun<'_>,
        docs: &RoaringBitmap,
        fields: &[(u16, u16)],
        count_min: u64,
    ) -> Result<Vec<(Vec<u8>, u64)>, StoreError> {
        let are_all = covers_all_docs(run, docs)?;
        let (mut value, mut count): (Option<Vec<u8>>, u64) = (None, 0);
        // The walk visits values in order, so it can stop early.
        let is_backwards = self.by_key && !self.ascending;
        each_term(run.context, fields, is_backwards, |entry| {
            if value.as_deref() != Some(entry.value) {
                if let Some(value) = value.replace(entry.value.to_vec()) {
                    self.keep(value, count, count_min);
                }
                count = 0;
                if self.by_key && self.buckets.len() >= self.size {
                    value = None;
                    return Ok(false);
                }
            }
            count += if are_all { u64::from(entry.total) } else { entry.count_in(docs)? };
            Ok(true)
        })?;
        if let Some(value) = value {
            self.keep(value, count, count_min);
        }
        self.cut();
        Ok(self.buckets)
    }

    fn keep(&mut self, value: Vec<u8>, count: u64, count_min: u64) {
        if count >= count_min {
            self.buckets.push((value, count));
        }
        // The list is cut rarely, so that sorting costs little, but its size stays bounded.
        if self.buckets.len() >= self.size.saturating_mul(2).saturating_add(1_000) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if !self.by_key {
            let first = |a: &(Vec<u8>, u64), b: &(Vec<u8>, u64)| -> Ordering {
                let by_count = if self.ascending { a.1.cmp(&b.1) } else { b.1.cmp(&a.1) };
                by_count.then_with(|| a.0.cmp(&b.0))
            };
            self.buckets.sort_by(first);
        }
        self.buckets.truncate(self.size);
    }
}

/// Division of time into buckets.
#[derive(Clone, Copy)]
struct BucketGrid {
    interval: Interval,
    zone_ms: i64,
}

impl BucketGrid {
    /// Tells whether each hour lies in one bucket.
    fn has_whole_hours(self) -> bool {
        let whole = match self.interval {
            Interval::Fixed(ms) => ms % HOUR_MS == 0,
            _ => true,
        };
        whole && self.zone_ms % HOUR_MS == 0
    }

    /// Returns the start of the bucket that contains a time.
    fn bucket_start(self, at_ms: i64) -> i64 {
        let local = at_ms.saturating_add(self.zone_ms);
        let start = match self.interval {
            Interval::Fixed(ms) => local - local.rem_euclid(ms.max(1)),
            calendar => day_of(local).and_then(|day| first_day_of(calendar, day)).map_or(local, ms_of),
        };
        start - self.zone_ms
    }

    /// Returns the start of the next bucket.
    fn next_bucket_start(self, start_ms: i64) -> Option<i64> {
        let months = match self.interval {
            Interval::Fixed(ms) => return start_ms.checked_add(ms.max(1)),
            Interval::Week => return start_ms.checked_add(7 * 24 * HOUR_MS),
            Interval::Month => 1,
            Interval::Quarter => 3,
            Interval::Year => 12,
        };
        let day = day_of(start_ms.saturating_add(self.zone_ms))?;
        Some(ms_of(day.checked_add_months(Months::new(months))?) - self.zone_ms)
    }
}

fn day_of(local_ms: i64) -> Option<NaiveDate> {
    Some(DateTime::from_timestamp_millis(local_ms)?.date_naive())
}

fn ms_of(day: NaiveDate) -> i64 {
    day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis()
}

fn first_day_of(interval: Interval, day: NaiveDate) -> Option<NaiveDate> {
    match interval {
        Interval::Fixed(_) => Some(day),
        Interval::Week => day.checked_sub_days(Days::new(u64::from(day.weekday().num_days_from_monday()))),
        Interval::Month => day.with_day(1),
        Interval::Quarter => day.with_day(1)?.with_month((day.month0() / 3) * 3 + 1),
        Interval::Year => day.with_day(1)?.with_month(1),
    }
}

/// Returns buckets in the order of time. Uses the keys of hours if possible: they are few and have totals.
fn date_histogram(
    run: &SearchRun<'_>,
    docs: &RoaringBitmap,
    fields: &[(u16, u16)],
    grid: BucketGrid,
    inner: &[(String, Aggregation)],
) -> Result<Vec<Bucket>, StoreError> {
    let by_hours = grid.has_whole_hours();
    let fields: Vec<_> = fields
        .iter()
        .map(|&(index, field)| (index, if by_hours { field | field_ids::HOURS } else { field }))
        .collect();
    let by_totals = by_hours
        && inner.is_empty()
        && covers_all_docs(run, docs)?
        && has_one_value_each(run, docs, &fields)?;
    let mut buckets: Vec<Bucket> = Vec::new();
    let (mut start, mut count, mut docs_here) = (None, 0, RoaringBitmap::new());
    let mut close = |start: i64, count: u64, docs_here: RoaringBitmap| -> Result<(), StoreError> {
        let count = if by_totals { count } else { docs_here.len() };
        if count > 0 {
            buckets.push(Bucket {
                key: Value::from(start),
                count,
                inner: run_aggregations(run, &docs_here, inner)?,
            });
        }
        if buckets.len() > BUCKETS_MAX { Err(too_many_buckets()) } else { Ok(()) }
    };
    each_term(run.context, &fields, false, |entry| {
        let at = decode_long(entry.value).map(|at| if by_hours { at.saturating_mul(HOUR_MS) } else { at });
        let start_here = grid.bucket_start(at.unwrap_or_default());
        if start != Some(start_here)
            && let Some(before) = start.replace(start_here)
        {
            close(before, std::mem::take(&mut count), std::mem::take(&mut docs_here))?;
        }
        if by_totals {
            count += u64::from(entry.total);
        } else {
            entry.add_to(&mut docs_here, docs)?;
        }
        Ok(true)
    })?;
    if let Some(start) = start {
        close(start, count, docs_here)?;
    }
    Ok(buckets)
}

/// Tells whether no document has values in two hours. Then the totals of hours can be added.
fn has_one_value_each(
    run: &SearchRun<'_>,
    docs: &RoaringBitmap,
    hours: &[(u16, u16)],
) -> Result<bool, StoreError> {
    let (mut values, mut having) = (0, 0);
    each_term(run.context, hours, false, |entry| {
        values += u64::from(entry.total);
        Ok(true)
    })?;
    for &(index, field) in hours {
        having += run.context.count(index, &exists_plan(index, field & !field_ids::HOURS))?;
    }
    debug_assert!(having <= docs.len());
    Ok(values == having)
}

/// Removes buckets with fewer than `count_min` documents. If it is 0, inserts the empty buckets between others.
fn apply_count_min(
    buckets: Vec<Bucket>,
    grid: BucketGrid,
    count_min: u64,
) -> Result<Vec<Bucket>, StoreError> {
    if count_min > 0 {
        return Ok(buckets.into_iter().filter(|bucket| bucket.count >= count_min).collect());
    }
    let mut filled: Vec<Bucket> = Vec::new();
    for bucket in buckets {
        let next =
            |filled: &[Bucket]| filled.last()?.key.as_i64().and_then(|start| grid.next_bucket_start(start));
        while let Some(start) =
            next(&filled).filter(|start| bucket.key.as_i64().is_some_and(|key| *start < key))
        {
            filled.push(Bucket { key: Value::from(start), count: 0, inner: Vec::new() });
            if filled.len() > BUCKETS_MAX {
                return Err(too_many_buckets());
            }
        }
        filled.push(bucket);
    }
    Ok(filled)
}

fn too_many_buckets() -> StoreError {
    StoreError::Invalid(format!(
        "Trying to create too many buckets. Must be less than or equal to: [{BUCKETS_MAX}]"
    ))
}
