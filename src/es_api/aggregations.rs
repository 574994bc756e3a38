//! Renders aggregations in Elasticsearch's form, in which the key of a bucket depends on the type of its field. Pure.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::dates::DateWriter;
use crate::search::mapping::{Field, FieldType};
use crate::search::query::NamedBuckets;
use crate::search::query::{Aggregation, Bucket};
use crate::search::store::{EVENT_TIME, IndexInfo};

/// Buckets that are read to count the documents outside the returned buckets.
const OTHERS_MAX: usize = 65_536;

/// The same limit for buckets within a bucket.
const INNER_OTHERS_MAX: usize = 10_000;

/// The aggregations of a response.
pub(super) struct RenderedAggregations(Vec<(String, RenderedAggregation)>);

struct RenderedAggregation {
    /// The number of documents outside the returned buckets. Only terms aggregations have it.
    other: Option<u64>,
    buckets: Vec<RenderedBucket>,
}

struct RenderedBucket {
    key: Value,
    text: Option<String>,
    /// True if the text precedes the key, as in histograms.
    text_first: bool,
    count: u64,
    inner: RenderedAggregations,
}

impl Serialize for RenderedAggregations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, one)| (name, one)))
    }
}

impl Serialize for RenderedAggregation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(other) = self.other {
            map.serialize_entry("doc_count_error_upper_bound", &0)?;
            map.serialize_entry("sum_other_doc_count", &other)?;
        }
        map.serialize_entry("buckets", &self.buckets)?;
        map.end()
    }
}

impl Serialize for RenderedBucket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(text) = self.text.as_deref().filter(|_| self.text_first) {
            map.serialize_entry("key_as_string", text)?;
        }
        map.serialize_entry("key", &self.key)?;
        if let Some(text) = self.text.as_deref().filter(|_| !self.text_first) {
            map.serialize_entry("key_as_string", text)?;
        }
        map.serialize_entry("doc_count", &self.count)?;
        for (name, one) in &self.inner.0 {
            map.serialize_entry(name, one)?;
        }
        map.end()
    }
}

/// Raises the size of inner terms aggregations, to count the documents outside the returned buckets.
pub(super) fn widen_inner_terms(aggregations: &mut [(String, Aggregation)]) {
    for (_, aggregation) in aggregations {
        let (Aggregation::Terms { inner, .. } | Aggregation::DateHistogram { inner, .. }) = aggregation;
        for (_, aggregation) in inner.iter_mut() {
            if let Aggregation::Terms { size, .. } = aggregation {
                *size = (*size).max(INNER_OTHERS_MAX);
            }
        }
        widen_inner_terms(inner);
    }
}

/// Returns the terms aggregations whose buckets are full, changed so that they count all documents with a value.
pub(super) fn count_all_of_full_terms(
    requested: &[(String, Aggregation)],
    found: &[(String, Vec<Bucket>)],
) -> Vec<(String, Aggregation)> {
    let is_full =
        |name: &str, size: usize| found.iter().any(|(found, buckets)| found == name && buckets.len() >= size);
    let widened = |(name, aggregation): &(String, Aggregation)| match aggregation {
        Aggregation::Terms { size, .. } if is_full(name, *size) => {
            let mut aggregation = aggregation.clone();
            if let Aggregation::Terms { size, inner, .. } = &mut aggregation {
                *size = OTHERS_MAX;
                inner.clear();
            }
            Some((name.clone(), aggregation))
        }
        _ => None,
    };
    requested.iter().filter_map(widened).collect()
}

/// Renders the aggregations of one search from the results of the store.
pub(super) struct AggregationRenderer<'a> {
    /// The searched indices, whose mappings have the types of the fields.
    pub(super) indices: &'a [IndexInfo],
    /// `typed_keys`: the name of an aggregation starts with its type.
    pub(super) has_typed_keys: bool,
    /// The results of [`count_all_of_full_terms`].
    pub(super) all_buckets: &'a [(String, Vec<Bucket>)],
}

impl AggregationRenderer<'_> {
    /// Renders the buckets of a search. `requested` are the aggregations before `widen_inner_terms`.
    pub(super) fn render(
        &self,
        requested: &[(String, Aggregation)],
        found: NamedBuckets,
    ) -> RenderedAggregations {
        self.render_level(requested, found, true)
    }

    fn render_level(
        &self,
        requested: &[(String, Aggregation)],
        mut found: NamedBuckets,
        is_top_level: bool,
    ) -> RenderedAggregations {
        let mut rendered = Vec::with_capacity(requested.len());
        for (name, aggregation) in requested {
            let at = found.iter().position(|(found, _)| found == name);
            let buckets = at.map(|at| found.swap_remove(at).1).unwrap_or_default();
            let all = self.all_buckets.iter().find(|(found, _)| is_top_level && found == name);
            let all_documents = all.map(|(_, buckets)| document_count(buckets));
            let one = self.render_aggregation(aggregation, buckets, all_documents);
            rendered.push((self.output_name(name, aggregation), one));
        }
        RenderedAggregations(rendered)
    }

    /// Renders one aggregation. `all_documents` is the number of documents in all its buckets, if it was counted.
    fn render_aggregation(
        &self,
        aggregation: &Aggregation,
        mut buckets: Vec<Bucket>,
        all_documents: Option<u64>,
    ) -> RenderedAggregation {
        let (other, writer, inner, text_first) = match aggregation {
            Aggregation::Terms { field, size, inner, .. } => {
                // Documents may have been stored between the two searches.
                let all = all_documents.unwrap_or(0).max(document_count(&buckets));
                buckets.truncate(*size);
                (Some(all - document_count(&buckets)), self.date_writer(field, 0), inner, false)
            }
            Aggregation::DateHistogram { field, zone_minutes, inner, .. } => {
                (None, self.date_writer(field, *zone_minutes), inner, true)
            }
        };
        let render_bucket = |bucket: Bucket| {
            let (key, text) = render_key(bucket.key, writer.as_ref());
            let inner = self.render_level(inner, bucket.inner, false);
            RenderedBucket { key, text, text_first, count: bucket.count, inner }
        };
        RenderedAggregation { other, buckets: buckets.into_iter().map(render_bucket).collect() }
    }

    fn field(&self, name: &str) -> Option<&Field> {
        self.indices.iter().find_map(|index| index.mapping.fields.get(name))
    }

    /// Returns the writer for the keys of a date field.
    fn date_writer(&self, field: &str, zone_minutes: i32) -> Option<DateWriter> {
        // The time of an event is a date that no mapping contains.
        match self.field(field) {
            Some(Field { field_type: FieldType::Date, format, .. }) => {
                Some(DateWriter::new(format.as_deref(), zone_minutes))
            }
            None if field == EVENT_TIME => Some(DateWriter::new(None, zone_minutes)),
            _ => None,
        }
    }

    /// Returns the name of an aggregation in the response.
    fn output_name(&self, name: &str, aggregation: &Aggregation) -> String {
        if !self.has_typed_keys {
            return name.to_owned();
        }
        let aggregation_type = match aggregation {
            Aggregation::DateHistogram { .. } => "date_histogram",
            Aggregation::Terms { field, .. } => match self.field(field).map(|field| field.field_type) {
                Some(FieldType::Long | FieldType::Date | FieldType::Boolean) => "lterms",
                Some(FieldType::Double) => "dterms",
                Some(_) => "sterms",
                None => "umterms",
            },
        };
        format!("{aggregation_type}#{name}")
    }
}

fn document_count(buckets: &[Bucket]) -> u64 {
    buckets.iter().map(|bucket| bucket.count).sum()
}

/// Returns the key of a bucket, and its text if the key is a boolean or a date.
fn render_key(key: Value, writer: Option<&DateWriter>) -> (Value, Option<String>) {
    match (&key, writer) {
        (Value::Bool(value), _) => (Value::from(u8::from(*value)), Some(value.to_string())),
        (Value::Number(number), Some(writer)) => {
            let text = number.as_i64().map(|ms| writer.write(ms));
            (key, text)
        }
        _ => (key, None),
    }
}
