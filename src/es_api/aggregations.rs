//! Renders aggregations in Elasticsearch's form, in which the key of a bucket depends on the type of its field. Runs on
//! the threads of the HTTP connections.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::dates::{self, DateWriter};
use super::failure::ApiError;
use crate::search::mapping::{Field, FieldType};
use crate::search::query::{Aggregation, Bucket, Search};
use crate::search::store::{EVENT_TIME, IndexInfo, Store};

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

/// Renders the aggregations of one search.
pub(super) struct AggregationRenderer<'a> {
    store: &'a dyn Store,
    search: &'a Search,
    indices: Vec<IndexInfo>,
}

type FoundBuckets = Vec<(String, Vec<Bucket>)>;

impl<'a> AggregationRenderer<'a> {
    pub(super) fn new(store: &'a dyn Store, search: &'a Search) -> Result<AggregationRenderer<'a>, ApiError> {
        let known = search.indices.is_empty() || search.indices.iter().any(|name| name.contains('*'));
        let indices = match store.indices(&search.indices) {
            Ok(indices) => indices,
            // The search itself has skipped indices that do not exist.
            Err(_) if !known => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(AggregationRenderer { store, search, indices })
    }

    /// Renders the buckets of a search. `asked` are the aggregations before `widen_inner_terms`.
    pub(super) fn render(
        &self,
        asked: &[(String, Aggregation)],
        found: FoundBuckets,
    ) -> Result<RenderedAggregations, ApiError> {
        self.render_level(asked, found, None)
    }

    fn render_level(
        &self,
        asked: &[(String, Aggregation)],
        mut found: FoundBuckets,
        within: Option<u64>,
    ) -> Result<RenderedAggregations, ApiError> {
        let mut told = Vec::with_capacity(asked.len());
        for (name, aggregation) in asked {
            let at = found.iter().position(|(found, _)| found == name);
            let buckets = at.map(|at| found.swap_remove(at).1).unwrap_or_default();
            let one = self.render_aggregation(name, aggregation, buckets, within.is_some())?;
            told.push((self.output_name(name, aggregation), one));
        }
        Ok(RenderedAggregations(told))
    }

    fn render_aggregation(
        &self,
        name: &str,
        aggregation: &Aggregation,
        mut buckets: Vec<Bucket>,
        within: bool,
    ) -> Result<RenderedAggregation, ApiError> {
        let (other, writer, inner, text_first) = match aggregation {
            Aggregation::Terms { field, size, inner, .. } => {
                let shown = buckets.len().min(*size);
                let mut other = buckets[shown..].iter().map(|bucket| bucket.count).sum();
                buckets.truncate(shown);
                if !within && shown == *size {
                    other = self.count_other_documents(name, aggregation, &buckets)?;
                }
                (Some(other), self.date_writer(field, 0), inner, false)
            }
            Aggregation::DateHistogram { field, zone_minutes, inner, .. } => {
                (None, self.date_writer(field, *zone_minutes), inner, true)
            }
        };
        let shown = |bucket: Bucket| {
            let (key, text) = render_key(bucket.key, writer.as_ref());
            let inner = self.render_level(inner, bucket.inner, Some(bucket.count))?;
            Ok(RenderedBucket { key, text, text_first, count: bucket.count, inner })
        };
        Ok(RenderedAggregation {
            other,
            buckets: buckets.into_iter().map(shown).collect::<Result<_, ApiError>>()?,
        })
    }

    /// Counts the documents whose values are not among these buckets.
    fn count_other_documents(
        &self,
        name: &str,
        aggregation: &Aggregation,
        shown: &[Bucket],
    ) -> Result<u64, ApiError> {
        let mut wide = aggregation.clone();
        if let Aggregation::Terms { size, inner, .. } = &mut wide {
            *size = OTHERS_MAX;
            inner.clear();
        }
        let aggregations = vec![(name.to_owned(), wide)];
        let search = Search { size: 0, from: 0, after: None, aggregations, ..self.search.clone() };
        let found = self.store.search(&search)?;
        let sum = |buckets: &[Bucket]| buckets.iter().map(|bucket| bucket.count).sum::<u64>();
        let all = found.aggregations.first().map_or(0, |(_, buckets)| sum(buckets));
        // Documents may have been stored between the two searches.
        Ok(all.saturating_sub(sum(shown)))
    }

    fn field(&self, name: &str) -> Option<&Field> {
        self.indices.iter().find_map(|index| index.mapping.fields.get(name))
    }

    /// Returns the writer for the keys of a date field.
    fn date_writer(&self, field: &str, zone_minutes: i32) -> Option<DateWriter> {
        // The time of an event is a date that no mapping contains.
        match self.field(field) {
            Some(Field { field_type: FieldType::Date, format, .. }) => {
                Some(dates::DateWriter::new(format.as_deref(), zone_minutes))
            }
            None if field == EVENT_TIME => Some(dates::DateWriter::new(None, zone_minutes)),
            _ => None,
        }
    }

    /// Returns the name of an aggregation in the response, with its type if the request has `typed_keys`.
    fn output_name(&self, name: &str, aggregation: &Aggregation) -> String {
        if !self.search.typed_keys {
            return name.to_owned();
        }
        let kind = match aggregation {
            Aggregation::DateHistogram { .. } => "date_histogram",
            Aggregation::Terms { field, .. } => match self.field(field).map(|field| field.field_type) {
                Some(FieldType::Long | FieldType::Date | FieldType::Boolean) => "lterms",
                Some(FieldType::Double) => "dterms",
                Some(_) => "sterms",
                None => "umterms",
            },
        };
        format!("{kind}#{name}")
    }
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
