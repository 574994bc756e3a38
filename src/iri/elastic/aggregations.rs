//! Aggregations as Elasticsearch tells them: how a bucket's key looks depends on the field's type. Runs on the
//! connections' threads.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::dates::{self, Writer};
use super::failure::Failure;
use crate::iri::mapping::{Field, FieldType};
use crate::iri::query::{Aggregation, Bucket, Search};
use crate::iri::store::{EVENT_TIME, Index, Store};

/// Values that are looked at to tell how many documents have another one than those that are shown.
const OTHERS_MAX: usize = 65_536;

/// The same within a bucket.
const INNER_OTHERS_MAX: usize = 10_000;

/// The aggregations of an answer.
pub struct Told(Vec<(String, One)>);

struct One {
    /// Documents whose values are not shown: of terms.
    other: Option<u64>,
    buckets: Vec<Shown>,
}

struct Shown {
    key: Value,
    text: Option<String>,
    /// The text stands before the key, as in histograms.
    text_first: bool,
    count: u64,
    inner: Told,
}

impl Serialize for Told {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, one)| (name, one)))
    }
}

impl Serialize for One {
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

impl Serialize for Shown {
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

/// Makes room in terms within others for the values that are counted and not shown.
pub fn widen(aggregations: &mut [(String, Aggregation)]) {
    for (_, aggregation) in aggregations {
        let (Aggregation::Terms { inner, .. } | Aggregation::DateHistogram { inner, .. }) = aggregation;
        for (_, aggregation) in inner.iter_mut() {
            if let Aggregation::Terms { size, .. } = aggregation {
                *size = (*size).max(INNER_OTHERS_MAX);
            }
        }
        widen(inner);
    }
}

/// What is needed to tell aggregations.
pub struct Teller<'a> {
    store: &'a dyn Store,
    search: &'a Search,
    indices: Vec<Index>,
}

type Found = Vec<(String, Vec<Bucket>)>;

impl<'a> Teller<'a> {
    /// For the answers to a search.
    pub fn new(store: &'a dyn Store, search: &'a Search) -> Result<Teller<'a>, Failure> {
        let known = search.indices.is_empty() || search.indices.iter().any(|name| name.contains('*'));
        let indices = match store.indices(&search.indices) {
            Ok(indices) => indices,
            // The search itself has passed over those that are not there.
            Err(_) if !known => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Teller { store, search, indices })
    }

    /// Tells what was found; `asked` is what was asked for before it was widened.
    pub fn tell(&self, asked: &[(String, Aggregation)], found: Found) -> Result<Told, Failure> {
        self.level(asked, found, None)
    }

    fn level(
        &self,
        asked: &[(String, Aggregation)],
        mut found: Found,
        within: Option<u64>,
    ) -> Result<Told, Failure> {
        let mut told = Vec::with_capacity(asked.len());
        for (name, aggregation) in asked {
            let at = found.iter().position(|(found, _)| found == name);
            let buckets = at.map(|at| found.swap_remove(at).1).unwrap_or_default();
            let one = self.one(name, aggregation, buckets, within.is_some())?;
            told.push((self.key(name, aggregation), one));
        }
        Ok(Told(told))
    }

    fn one(
        &self,
        name: &str,
        aggregation: &Aggregation,
        mut buckets: Vec<Bucket>,
        within: bool,
    ) -> Result<One, Failure> {
        let (other, writer, inner, text_first) = match aggregation {
            Aggregation::Terms { field, size, inner, .. } => {
                let shown = buckets.len().min(*size);
                let mut other = buckets[shown..].iter().map(|bucket| bucket.count).sum();
                buckets.truncate(shown);
                if !within && shown == *size {
                    other = self.others(name, aggregation, &buckets)?;
                }
                (Some(other), self.writer(field, 0), inner, false)
            }
            Aggregation::DateHistogram { field, zone_minutes, inner, .. } => {
                (None, self.writer(field, *zone_minutes), inner, true)
            }
        };
        let shown = |bucket: Bucket| {
            let (key, text) = key(bucket.key, writer.as_ref());
            let inner = self.level(inner, bucket.inner, Some(bucket.count))?;
            Ok(Shown { key, text, text_first, count: bucket.count, inner })
        };
        Ok(One { other, buckets: buckets.into_iter().map(shown).collect::<Result<_, Failure>>()? })
    }

    /// How many documents have values that are not among these.
    fn others(&self, name: &str, aggregation: &Aggregation, shown: &[Bucket]) -> Result<u64, Failure> {
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
        // Documents may have come in between.
        Ok(all.saturating_sub(sum(shown)))
    }

    fn field(&self, name: &str) -> Option<&Field> {
        self.indices.iter().find_map(|index| index.mapping.fields.get(name))
    }

    /// How the keys of a date field are written.
    fn writer(&self, field: &str, zone_minutes: i32) -> Option<Writer> {
        // The time of an event is a date, and in no mapping.
        match self.field(field) {
            Some(Field { kind: FieldType::Date, format, .. }) => {
                Some(dates::Writer::new(format.as_deref(), zone_minutes))
            }
            None if field == EVENT_TIME => Some(dates::Writer::new(None, zone_minutes)),
            _ => None,
        }
    }

    /// The name in the answer: with the type before it, where that was asked for.
    fn key(&self, name: &str, aggregation: &Aggregation) -> String {
        if !self.search.typed_keys {
            return name.to_owned();
        }
        let kind = match aggregation {
            Aggregation::DateHistogram { .. } => "date_histogram",
            Aggregation::Terms { field, .. } => match self.field(field).map(|field| field.kind) {
                Some(FieldType::Long | FieldType::Date | FieldType::Boolean) => "lterms",
                Some(FieldType::Double) => "dterms",
                Some(_) => "sterms",
                None => "umterms",
            },
        };
        format!("{kind}#{name}")
    }
}

/// A key, and the text beside it where the key alone does not say it.
fn key(key: Value, writer: Option<&Writer>) -> (Value, Option<String>) {
    match (&key, writer) {
        (Value::Bool(value), _) => (Value::from(u8::from(*value)), Some(value.to_string())),
        (Value::Number(number), Some(writer)) => {
            let text = number.as_i64().map(|ms| writer.write(ms));
            (key, text)
        }
        _ => (key, None),
    }
}
