//! The `histogram` aggregation, and the rendering of all histograms.

use std::cmp::Ordering;

use roaring::RoaringBitmap;

use super::metrics::unsupported_type;
use super::order::{OrderValues, compare, needs_metrics};
use super::{AggregationRun, FieldType, buckets_json};
use crate::search::query::OutputJson;
use crate::search::query::aggregations::{BUCKETS_MAX, BucketOrder, Histogram, NamedAggregations};
use crate::search::store::StoreError;

/// A bucket of a histogram.
#[derive(Clone, Debug)]
pub(super) struct HistogramBucket<K> {
    pub key: K,
    pub count: u64,
    /// `None`: not needed, or empty.
    pub docs: Option<RoaringBitmap>,
}

/// Returns `key`, `key_as_string`, and the name of the bucket without the latter.
type KeyWriter<'w, K> = dyn Fn(&K) -> (OutputJson, Option<String>, String) + 'w;

impl AggregationRun<'_> {
    pub(super) fn histogram(
        &self,
        docs: &RoaringBitmap,
        histogram: &Histogram,
        inner: &NamedAggregations,
        depth: usize,
    ) -> Result<OutputJson, StoreError> {
        let field = self.field(&histogram.source, FieldType::Double)?;
        let mut buckets: Vec<HistogramBucket<f64>> = Vec::new();
        let grid = NumberGrid { interval: histogram.interval, offset: histogram.offset };
        if let Some(field) = &field {
            if !field.is_numeric() {
                return Err(unsupported_type(field, "histogram"));
            }
            self.each_group(field, docs, depth, &mut |value, found| {
                let nth = grid.nth(field.number(value));
                let key = grid.key(nth);
                let (min, max) = histogram.hard_bounds.unwrap_or_default();
                if min.is_some_and(|min| key < min) || max.is_some_and(|max| key > max) {
                    return Ok(true);
                }
                match buckets.last_mut().filter(|bucket| bucket.key == nth) {
                    Some(HistogramBucket { docs: Some(docs), .. }) => *docs |= found,
                    _ => buckets.push(HistogramBucket { key: nth, count: 0, docs: Some(found) }),
                }
                if buckets.len() > BUCKETS_MAX { Err(StoreError::TooManyBuckets) } else { Ok(true) }
            })?;
        }
        for bucket in &mut buckets {
            bucket.count = bucket.docs.as_ref().map_or(0, RoaringBitmap::len);
        }
        if histogram.count_min == 0 {
            let (min, max) = histogram.extended_bounds.unwrap_or_default();
            buckets = fill(buckets, min.map(|min| grid.nth(min)), max.map(|max| grid.nth(max)))?;
        }
        buckets.retain(|bucket| bucket.count >= histogram.count_min);
        let format = field.as_ref().map(|field| field.value_format(&histogram.source));
        self.render_histogram(buckets, &histogram.order, histogram.keyed, inner, depth, &|nth| {
            let key = grid.key(*nth);
            let text = format.as_ref().and_then(|format| format.write(key));
            (OutputJson::Double(key), text, format!("{key:?}"))
        })
    }

    /// Renders buckets that are sorted by key, in the order of the request.
    pub(super) fn render_histogram<K: PartialOrd + Copy>(
        &self,
        buckets: Vec<HistogramBucket<K>>,
        order: &[BucketOrder],
        keyed: bool,
        inner: &NamedAggregations,
        depth: usize,
        write_key: &KeyWriter<'_, K>,
    ) -> Result<OutputJson, StoreError> {
        self.add_buckets(buckets.len())?;
        let none = RoaringBitmap::new();
        let buckets = self.sort_buckets(buckets, order, inner, depth)?;
        let mut rendered = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            let (key, text, name) = write_key(&bucket.key);
            let name = text.clone().unwrap_or(name);
            let mut members = Vec::with_capacity(3 + inner.len());
            members.extend(text.map(|text| ("key_as_string".to_owned(), OutputJson::Text(text))));
            members.push(("key".to_owned(), key));
            members.push(("doc_count".to_owned(), OutputJson::count(bucket.count)));
            members.extend(self.run_level(bucket.docs.as_ref().unwrap_or(&none), inner, depth + 1)?);
            rendered.push((name, OutputJson::Object(members)));
        }
        Ok(buckets_json(rendered, keyed))
    }

    fn sort_buckets<K: PartialOrd + Copy>(
        &self,
        buckets: Vec<HistogramBucket<K>>,
        order: &[BucketOrder],
        inner: &NamedAggregations,
        depth: usize,
    ) -> Result<Vec<HistogramBucket<K>>, StoreError> {
        let none = RoaringBitmap::new();
        let mut sorted = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            let docs = bucket.docs.as_ref().unwrap_or(&none);
            let metrics = match needs_metrics(order) {
                true => self.order_metrics(order, docs, inner, depth + 1)?,
                false => Vec::new(),
            };
            sorted.push((OrderValues { key: bucket.key, count: bucket.count, metrics }, bucket));
        }
        let by_key = |a: &K, b: &K| a.partial_cmp(b).unwrap_or(Ordering::Equal);
        sorted.sort_by(|a, b| compare(order, &a.0, &b.0, by_key));
        Ok(sorted.into_iter().map(|(_, bucket)| bucket).collect())
    }
}

/// Division of numbers into buckets. Buckets are counted, so that keys have no error that grows.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumberGrid {
    pub interval: f64,
    pub offset: f64,
}

impl NumberGrid {
    pub(super) fn nth(self, number: f64) -> f64 {
        ((number - self.offset) / self.interval).floor()
    }

    pub(super) fn key(self, nth: f64) -> f64 {
        nth * self.interval + self.offset
    }
}

/// Inserts the empty buckets between others, and up to the bounds.
fn fill(
    buckets: Vec<HistogramBucket<f64>>,
    min: Option<f64>,
    max: Option<f64>,
) -> Result<Vec<HistogramBucket<f64>>, StoreError> {
    let first = buckets.first().map(|bucket| bucket.key).into_iter().chain(min).reduce(f64::min);
    let last = buckets.last().map(|bucket| bucket.key).into_iter().chain(max).reduce(f64::max);
    let (Some(mut nth), Some(last)) = (first, last) else { return Ok(buckets) };
    if last - nth > BUCKETS_MAX as f64 {
        return Err(StoreError::TooManyBuckets);
    }
    let mut filled = Vec::with_capacity(buckets.len());
    let mut buckets = buckets.into_iter().peekable();
    while nth <= last {
        match buckets.next_if(|bucket| bucket.key <= nth) {
            Some(bucket) => filled.push(bucket),
            None => filled.push(HistogramBucket { key: nth, count: 0, docs: None }),
        }
        // Large numbers have no successor.
        if nth + 1.0 == nth {
            break;
        }
        nth += 1.0;
    }
    filled.extend(buckets);
    Ok(filled)
}
