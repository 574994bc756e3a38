//! The order of buckets: by key, by count, or by a metric inside them.

use std::cmp::Ordering;

use roaring::RoaringBitmap;

use super::AggregationRun;
use crate::search::query::OutputJson;
use crate::search::query::aggregations::{
    AggregationKind, BucketOrder, BucketOrderKey, Metric, NamedAggregations,
};
use crate::search::store::StoreError;

/// What buckets are compared by.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OrderValues<K> {
    pub key: K,
    pub count: u64,
    /// One for each criterion that is a metric.
    pub metrics: Vec<f64>,
}

/// Compares two buckets.
pub(super) fn compare<K>(
    order: &[BucketOrder],
    a: &OrderValues<K>,
    b: &OrderValues<K>,
    compare_keys: impl Fn(&K, &K) -> Ordering,
) -> Ordering {
    let mut nth_metric = 0;
    for BucketOrder { key, ascending } in order {
        let (a, b) = if *ascending { (a, b) } else { (b, a) };
        let found = match key {
            BucketOrderKey::Key => compare_keys(&a.key, &b.key),
            BucketOrderKey::Count => a.count.cmp(&b.count),
            BucketOrderKey::Metric { .. } => {
                let (one, other) = (a.metrics[nth_metric], b.metrics[nth_metric]);
                nth_metric += 1;
                match (one.is_nan(), other.is_nan()) {
                    (false, false) => one.partial_cmp(&other).unwrap_or(Ordering::Equal),
                    // Buckets without a value are last in both directions.
                    (one, other) if *ascending => one.cmp(&other),
                    (one, other) => other.cmp(&one),
                }
            }
        };
        if found.is_ne() {
            return found;
        }
    }
    Ordering::Equal
}

/// True if the order depends on metrics inside the buckets.
pub(super) fn needs_metrics(order: &[BucketOrder]) -> bool {
    order.iter().any(|one| matches!(one.key, BucketOrderKey::Metric { .. }))
}

impl AggregationRun<'_> {
    /// Computes the metrics by which a bucket with these documents is ordered.
    pub(super) fn order_metrics(
        &self,
        order: &[BucketOrder],
        docs: &RoaringBitmap,
        inner: &NamedAggregations,
        depth: usize,
    ) -> Result<Vec<f64>, StoreError> {
        let metric = |one: &BucketOrder| match &one.key {
            BucketOrderKey::Metric { path, value } => {
                Some(self.path_value(path, value.as_deref(), docs, inner, depth))
            }
            _ => None,
        };
        order.iter().filter_map(metric).collect()
    }

    fn path_value(
        &self,
        path: &[String],
        value: Option<&str>,
        docs: &RoaringBitmap,
        inner: &NamedAggregations,
        depth: usize,
    ) -> Result<f64, StoreError> {
        // The parser has checked the path.
        let Some((name, rest)) = path.split_first() else { return Ok(f64::NAN) };
        let Some((_, aggregation)) = inner.iter().find(|(found, _)| found == name) else {
            return Ok(f64::NAN);
        };
        if let AggregationKind::Metric { source, metric } = &aggregation.kind {
            let members = self.metric(docs, source, metric, depth)?;
            return Ok(metric_value(metric, &OutputJson::Object(members), value.unwrap_or("value")));
        }
        let docs = match &aggregation.kind {
            AggregationKind::Filter(query) => self.run.matching(query, docs)?,
            AggregationKind::Missing(source) => self.missing(source, docs)?,
            _ => return Ok(f64::NAN),
        };
        match rest {
            [] => Ok(docs.len() as f64),
            rest => self.path_value(rest, value, &docs, &aggregation.inner, depth),
        }
    }
}

fn metric_value(metric: &Metric, members: &OutputJson, value: &str) -> f64 {
    let found = match metric {
        Metric::Percentiles { .. } | Metric::PercentileRanks { .. } => {
            let key = value.parse::<f64>().map(|number| format!("{number:?}"));
            members.get("values").and_then(|values| values.get(key.as_deref().unwrap_or(value)))
        }
        Metric::ExtendedStats { .. } if value.starts_with("std_") => match value {
            "std_upper" => members.get("std_deviation_bounds").and_then(|bounds| bounds.get("upper")),
            "std_lower" => members.get("std_deviation_bounds").and_then(|bounds| bounds.get("lower")),
            value => members.get(value),
        },
        _ => members.get(value),
    };
    match found {
        Some(OutputJson::Double(number)) => *number,
        Some(OutputJson::Long(number)) => *number as f64,
        _ => match (metric, value) {
            (Metric::Max, _) | (_, "max") => f64::NEG_INFINITY,
            (Metric::Min, _) | (_, "min") => f64::INFINITY,
            _ => f64::NAN,
        },
    }
}
