//! The aggregations `range`, `date_range` and `ip_range`: documents per range of values.

use std::net::IpAddr;

use roaring::RoaringBitmap;

use super::super::values;
use super::metrics::unsupported_type;
use super::source::AggregatedField;
use super::{AggregationRun, FieldType, Members, buckets_json};
use crate::search::query::aggregations::{BucketRange, NamedAggregations, RangeAggregation, RangeType};
use crate::search::query::{OutputJson, QueryValue};
use crate::search::store::StoreError;

/// A range with its name and its documents.
struct RangeBucket {
    key: String,
    /// Bounds for the answer: the number or address, and its text.
    from: Option<RangeBound>,
    to: Option<RangeBound>,
    docs: RoaringBitmap,
}

/// A bound of a range.
#[derive(Clone, Debug)]
struct RangeBound {
    /// The value to compare with: a number, or an encoded address.
    value: BoundValue,
    json: OutputJson,
    text: Option<String>,
}

#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum BoundValue {
    Number(f64),
    /// An encoded address, or what follows the last one.
    Address(Vec<u8>),
}

impl RangeBucket {
    fn contains(&self, value: &BoundValue) -> bool {
        self.from.as_ref().is_none_or(|from| *value >= from.value)
            && self.to.as_ref().is_none_or(|to| *value < to.value)
    }
}

impl AggregationRun<'_> {
    pub(super) fn range(
        &self,
        docs: &RoaringBitmap,
        range: &RangeAggregation,
        inner: &NamedAggregations,
        depth: usize,
    ) -> Result<OutputJson, StoreError> {
        let (type_name, kind) = match range.range_type {
            RangeType::Number => ("range", FieldType::Double),
            RangeType::Date => ("date_range", FieldType::Date),
            RangeType::Ip => ("ip_range", FieldType::Ip),
        };
        let field = self.field(&range.source, kind)?;
        if let Some(field) = &field {
            let fits = match range.range_type {
                RangeType::Ip => field.kind == FieldType::Ip,
                _ => field.is_numeric(),
            };
            if !fits {
                return Err(unsupported_type(field, type_name));
            }
        }
        let of_bounds = match &field {
            Some(field) => field.clone(),
            None => AggregatedField::unmapped(&range.source.field, kind),
        };
        let buckets = range.ranges.iter().map(|one| self.range_bucket(one, range, &of_bounds));
        let mut buckets = buckets.collect::<Result<Vec<_>, _>>()?;
        sort_ranges(&mut buckets);
        if let Some(field) = &field {
            self.each_group(field, docs, depth, &mut |value, found| {
                let value = match range.range_type {
                    RangeType::Ip => BoundValue::Address(value.to_vec()),
                    _ => BoundValue::Number(field.number(value)),
                };
                for bucket in buckets.iter_mut().filter(|bucket| bucket.contains(&value)) {
                    bucket.docs |= &found;
                }
                Ok(true)
            })?;
        }
        self.add_buckets(buckets.len())?;
        let mut rendered: Members = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            let mut members: Members = Vec::new();
            if !range.keyed {
                members.push(("key".to_owned(), OutputJson::Text(bucket.key.clone())));
            }
            for (name, bound) in [("from", bucket.from), ("to", bucket.to)] {
                let Some(bound) = bound else { continue };
                members.push((name.to_owned(), bound.json));
                members.extend(bound.text.map(|text| (format!("{name}_as_string"), OutputJson::Text(text))));
            }
            members.push(("doc_count".to_owned(), OutputJson::count(bucket.docs.len())));
            members.extend(self.run_level(&bucket.docs, inner, depth + 1)?);
            rendered.push((bucket.key, OutputJson::Object(members)));
        }
        Ok(buckets_json(rendered, range.keyed))
    }

    fn range_bucket(
        &self,
        range: &BucketRange,
        aggregation: &RangeAggregation,
        field: &AggregatedField,
    ) -> Result<RangeBucket, StoreError> {
        let bound = |value: &Option<QueryValue>| {
            value.as_ref().map(|value| self.range_bound(value, aggregation, field)).transpose()
        };
        let (from, to) = match &range.mask {
            Some(mask) => network_bounds(mask)?,
            None => (bound(&range.from)?, bound(&range.to)?),
        };
        let written = |bound: &Option<RangeBound>| match bound {
            None => "*".to_owned(),
            Some(RangeBound { text: Some(text), .. }) => text.clone(),
            Some(RangeBound { value: BoundValue::Number(number), .. }) => format!("{number:?}"),
            Some(RangeBound { json: OutputJson::Text(text), .. }) => text.clone(),
            Some(_) => String::new(),
        };
        let default_key = || format!("{}-{}", written(&from), written(&to));
        let key = range.key.clone().or_else(|| range.mask.clone()).unwrap_or_else(default_key);
        Ok(RangeBucket { key, from, to, docs: RoaringBitmap::new() })
    }

    fn range_bound(
        &self,
        value: &QueryValue,
        aggregation: &RangeAggregation,
        field: &AggregatedField,
    ) -> Result<RangeBound, StoreError> {
        let number = match (aggregation.range_type, value) {
            (RangeType::Ip, value) => {
                let text = super::super::bounds::value_text(value);
                let address: IpAddr = text
                    .parse()
                    .map_err(|_| StoreError::Invalid(format!("'{text}' is not an IP string literal.")))?;
                return Ok(address_bound(address));
            }
            (RangeType::Number, QueryValue::Double(number)) => *number,
            // A number is a date in the format of the field, too.
            (_, value) => {
                let text = QueryValue::Text(super::super::bounds::value_text(value));
                field.parse_date(&text, &aggregation.source, self.run.now_ms)? as f64
            }
        };
        if field.kind == FieldType::Long && number.fract() != 0.0 {
            return Err(StoreError::Invalid(format!("Value [{number:?}] has a decimal part")));
        }
        let text = field.value_format(&aggregation.source).write(number);
        Ok(RangeBound { value: BoundValue::Number(number), json: OutputJson::Double(number), text })
    }
}

fn address_bound(address: IpAddr) -> RangeBound {
    RangeBound {
        value: BoundValue::Address(values::encode_ip(address).to_vec()),
        json: OutputJson::Text(address.to_string()),
        text: None,
    }
}

/// Returns the first address of a network and the one after its last.
fn network_bounds(mask: &str) -> Result<(Option<RangeBound>, Option<RangeBound>), StoreError> {
    let network: ipnet::IpNet =
        mask.parse().map_err(|_| StoreError::Invalid(format!("'{mask}' is not an IP network.")))?;
    let after = match network.broadcast() {
        IpAddr::V4(last) => u32::from(last).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(last) => u128::from(last).checked_add(1).map(|next| IpAddr::V6(next.into())),
    };
    let mut end = after.map(address_bound);
    // After 255.255.255.255 follow the addresses of version 6 above the mapped ones.
    if let (None, IpAddr::V4(last)) = (&end, network.broadcast()) {
        let mut value = values::encode_ip(IpAddr::V4(last)).to_vec();
        value.push(0);
        end = Some(RangeBound { value: BoundValue::Address(value), ..address_bound(IpAddr::V4(last)) });
    }
    Ok((Some(address_bound(network.network())), end))
}

/// Sorts by start and then by end, as Elasticsearch does; an open start is first, an open end is last.
fn sort_ranges(buckets: &mut [RangeBucket]) {
    buckets.sort_by(|a, b| {
        let start = |bucket: &RangeBucket| bucket.from.as_ref().map(|from| from.value.clone());
        let end = |bucket: &RangeBucket| bucket.to.as_ref().map(|to| to.value.clone());
        let starts = start(a).partial_cmp(&start(b)).unwrap_or(std::cmp::Ordering::Equal);
        starts.then_with(|| match (end(a), end(b)) {
            (None, None) => std::cmp::Ordering::Equal,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(_), None) => std::cmp::Ordering::Less,
            (Some(a), Some(b)) => a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal),
        })
    });
}
