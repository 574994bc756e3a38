//! Counts by value and by time. Runs in the caller's thread.

use std::cmp::Ordering;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate};
use roaring::RoaringBitmap;
use serde_json::Value;

use super::catalogue::number;
use super::plan::{Plan, has, key};
use super::search::{Searching, to_json};
use super::values::{HOUR_MS, to_long};
use super::walk::walk;
use crate::iri::mapping::FieldType;
use crate::iri::query::{Aggregation, Bucket, Interval};
use crate::iri::store::StoreError;

/// Buckets of one aggregation (Elasticsearch's own bound).
const BUCKETS_MAX: usize = 65_536;

type Named = Vec<(String, Vec<Bucket>)>;

/// Makes each aggregation over the documents.
pub fn aggregate(
    searching: &Searching<'_>,
    docs: &RoaringBitmap,
    aggregations: &[(String, Aggregation)],
) -> Result<Named, StoreError> {
    let one = |(name, aggregation): &(String, Aggregation)| {
        Ok((name.clone(), buckets(searching, docs, aggregation)?))
    };
    aggregations.iter().map(one).collect()
}

fn buckets(
    searching: &Searching<'_>,
    docs: &RoaringBitmap,
    aggregation: &Aggregation,
) -> Result<Vec<Bucket>, StoreError> {
    match aggregation {
        Aggregation::Terms { field, size, by_key, ascending, count_min, inner } => {
            let Some((kind, fields)) = searching.field(field)? else { return Ok(Vec::new()) };
            let best = Best { size: *size, by_key: *by_key, ascending: *ascending, kept: Vec::new() };
            let found = best.find(searching, docs, &fields, *count_min)?;
            let bucket = |(value, count): (Vec<u8>, u64)| {
                let inner = if inner.is_empty() {
                    Vec::new()
                } else {
                    aggregate(searching, &(docs & with_value(searching, &fields, &value)?), inner)?
                };
                Ok(Bucket { key: to_json(kind, Some(&value)), count, inner })
            };
            found.into_iter().map(bucket).collect()
        }
        Aggregation::DateHistogram { field, interval, zone_minutes, count_min, inner } => {
            let Some((kind, fields)) = searching.field(field)? else { return Ok(Vec::new()) };
            if kind != FieldType::Date {
                return Err(StoreError::Invalid(format!(
                    "Field [{field}] of type [{}] is not supported for aggregation [date_histogram]",
                    kind.name()
                )));
            }
            let grid = Grid { interval: *interval, zone_ms: i64::from(*zone_minutes) * 60_000 };
            let found = histogram(searching, docs, &fields, grid, inner)?;
            fill(found, grid, *count_min)
        }
    }
}

/// The documents that have a value.
fn with_value(
    searching: &Searching<'_>,
    fields: &[(u16, u16)],
    value: &[u8],
) -> Result<RoaringBitmap, StoreError> {
    let mut docs = RoaringBitmap::new();
    for &(index, field) in fields {
        docs |= searching.context.find(index, &Plan::Term(key(index, field, value)))?;
    }
    Ok(docs)
}

/// True if the documents are all that the indices have, and none is gone: then an entry's own number counts.
fn are_all(searching: &Searching<'_>, docs: &RoaringBitmap) -> Result<bool, StoreError> {
    if !searching.context.snapshot.gone.is_empty() {
        return Ok(false);
    }
    let counts = searching.indices.iter().map(|index| searching.context.index_docs(index.no));
    Ok(docs.len() == counts.sum::<Result<u64, _>>()?)
}

/// The values that come first.
struct Best {
    size: usize,
    by_key: bool,
    ascending: bool,
    kept: Vec<(Vec<u8>, u64)>,
}

impl Best {
    fn find(
        mut self,
        searching: &Searching<'_>,
        docs: &RoaringBitmap,
        fields: &[(u16, u16)],
        count_min: u64,
    ) -> Result<Vec<(Vec<u8>, u64)>, StoreError> {
        let are_all = are_all(searching, docs)?;
        let (mut value, mut count): (Option<Vec<u8>>, u64) = (None, 0);
        // By value, the walk itself has the order.
        let is_backwards = self.by_key && !self.ascending;
        walk(searching.context, fields, is_backwards, |entry| {
            if value.as_deref() != Some(entry.value) {
                if let Some(value) = value.replace(entry.value.to_vec()) {
                    self.keep(value, count, count_min);
                }
                count = 0;
                if self.by_key && self.kept.len() >= self.size {
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
        Ok(self.kept)
    }

    fn keep(&mut self, value: Vec<u8>, count: u64, count_min: u64) {
        if count >= count_min {
            self.kept.push((value, count));
        }
        // Rarely, so that it costs little: all the same no more than so many are kept.
        if self.kept.len() >= self.size.saturating_mul(2).saturating_add(1_000) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if !self.by_key {
            let first = |a: &(Vec<u8>, u64), b: &(Vec<u8>, u64)| -> Ordering {
                let by_count = if self.ascending { a.1.cmp(&b.1) } else { b.1.cmp(&a.1) };
                by_count.then_with(|| a.0.cmp(&b.0))
            };
            self.kept.sort_by(first);
        }
        self.kept.truncate(self.size);
    }
}

/// How time is cut.
#[derive(Clone, Copy)]
struct Grid {
    interval: Interval,
    zone_ms: i64,
}

impl Grid {
    /// True if each hour is in one bucket.
    fn has_whole_hours(self) -> bool {
        let whole = match self.interval {
            Interval::Fixed(ms) => ms % HOUR_MS == 0,
            _ => true,
        };
        whole && self.zone_ms % HOUR_MS == 0
    }

    /// The begin of the bucket that a time is in.
    fn begin(self, at_ms: i64) -> i64 {
        let local = at_ms.saturating_add(self.zone_ms);
        let begin = match self.interval {
            Interval::Fixed(ms) => local - local.rem_euclid(ms.max(1)),
            calendar => day_of(local).and_then(|day| begin_of(calendar, day)).map_or(local, ms_of),
        };
        begin - self.zone_ms
    }

    /// The begin of the bucket behind the one that begins so.
    fn next(self, begin_ms: i64) -> Option<i64> {
        let months = match self.interval {
            Interval::Fixed(ms) => return begin_ms.checked_add(ms.max(1)),
            Interval::Week => return begin_ms.checked_add(7 * 24 * HOUR_MS),
            Interval::Month => 1,
            Interval::Quarter => 3,
            Interval::Year => 12,
        };
        let day = day_of(begin_ms.saturating_add(self.zone_ms))?;
        Some(ms_of(day.checked_add_months(Months::new(months))?) - self.zone_ms)
    }
}

fn day_of(local_ms: i64) -> Option<NaiveDate> {
    Some(DateTime::from_timestamp_millis(local_ms)?.date_naive())
}

fn ms_of(day: NaiveDate) -> i64 {
    day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis()
}

fn begin_of(interval: Interval, day: NaiveDate) -> Option<NaiveDate> {
    match interval {
        Interval::Fixed(_) => Some(day),
        Interval::Week => day.checked_sub_days(Days::new(u64::from(day.weekday().num_days_from_monday()))),
        Interval::Month => day.with_day(1),
        Interval::Quarter => day.with_day(1)?.with_month((day.month0() / 3) * 3 + 1),
        Interval::Year => day.with_day(1)?.with_month(1),
    }
}

/// Buckets in the order of time. Hours do where they suffice: there are few of them, and they are counted already.
fn histogram(
    searching: &Searching<'_>,
    docs: &RoaringBitmap,
    fields: &[(u16, u16)],
    grid: Grid,
    inner: &[(String, Aggregation)],
) -> Result<Vec<Bucket>, StoreError> {
    let by_hours = grid.has_whole_hours();
    let fields: Vec<_> = fields
        .iter()
        .map(|&(index, field)| (index, if by_hours { field | number::HOURS } else { field }))
        .collect();
    let by_totals = by_hours
        && inner.is_empty()
        && are_all(searching, docs)?
        && has_one_value_each(searching, docs, &fields)?;
    let mut buckets: Vec<Bucket> = Vec::new();
    let (mut begin, mut count, mut members) = (None, 0, RoaringBitmap::new());
    let mut close = |begin: i64, count: u64, members: RoaringBitmap| -> Result<(), StoreError> {
        let count = if by_totals { count } else { members.len() };
        if count > 0 {
            buckets.push(Bucket {
                key: Value::from(begin),
                count,
                inner: aggregate(searching, &members, inner)?,
            });
        }
        if buckets.len() > BUCKETS_MAX { Err(too_many()) } else { Ok(()) }
    };
    walk(searching.context, &fields, false, |entry| {
        let at = to_long(entry.value).map(|at| if by_hours { at.saturating_mul(HOUR_MS) } else { at });
        let here = grid.begin(at.unwrap_or_default());
        if begin != Some(here)
            && let Some(before) = begin.replace(here)
        {
            close(before, std::mem::take(&mut count), std::mem::take(&mut members))?;
        }
        if by_totals {
            count += u64::from(entry.total);
        } else {
            entry.add_to(&mut members, docs)?;
        }
        Ok(true)
    })?;
    if let Some(begin) = begin {
        close(begin, count, members)?;
    }
    Ok(buckets)
}

/// True if no document is in two hours: then hours can be added up.
fn has_one_value_each(
    searching: &Searching<'_>,
    docs: &RoaringBitmap,
    hours: &[(u16, u16)],
) -> Result<bool, StoreError> {
    let (mut values, mut having) = (0, 0);
    walk(searching.context, hours, false, |entry| {
        values += u64::from(entry.total);
        Ok(true)
    })?;
    for &(index, field) in hours {
        having += searching.context.count(index, &has(index, field & !number::HOURS))?;
    }
    debug_assert!(having <= docs.len());
    Ok(values == having)
}

/// Leaves out buckets with too few documents; with 0, puts empty ones between others.
fn fill(buckets: Vec<Bucket>, grid: Grid, count_min: u64) -> Result<Vec<Bucket>, StoreError> {
    if count_min > 0 {
        return Ok(buckets.into_iter().filter(|bucket| bucket.count >= count_min).collect());
    }
    let mut filled: Vec<Bucket> = Vec::new();
    for bucket in buckets {
        let next = |filled: &[Bucket]| filled.last()?.key.as_i64().and_then(|begin| grid.next(begin));
        while let Some(begin) =
            next(&filled).filter(|begin| bucket.key.as_i64().is_some_and(|key| *begin < key))
        {
            filled.push(Bucket { key: Value::from(begin), count: 0, inner: Vec::new() });
            if filled.len() > BUCKETS_MAX {
                return Err(too_many());
            }
        }
        filled.push(bucket);
    }
    Ok(filled)
}

fn too_many() -> StoreError {
    StoreError::Invalid(format!(
        "Trying to create too many buckets. Must be less than or equal to: [{BUCKETS_MAX}]"
    ))
}
