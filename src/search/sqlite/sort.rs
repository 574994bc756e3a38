//! Sorting of the documents that a search found. Runs in the caller's thread.

use std::cmp::Ordering;
use std::sync::Arc;

use roaring::RoaringBitmap;
use serde_json::Value;

use super::aggregate::source::{MetadataField, text_field_error};
use super::catalog::{FieldEntry, field_ids};
use super::indexer::{DocumentTerms, IndexingMode};
use super::plan::{QueryPlan, exists_plan, term_key};
use super::search::{SearchRun, read_hit};
use super::terms::each_term;
use super::{text, values};
use crate::search::date::write::DateWriter;
use crate::search::date::{DateFormat, Rounding, TimeZone};
use crate::search::mapping::FieldType;
use crate::search::query::{Hit, Sort, SortKey};
use crate::search::store::StoreError;

/// Maximum number of documents that are sorted by reading them. Larger results are sorted by walking over the terms
/// of the field.
const READ_DOCS_MAX: u64 = 2_000;

/// Score of every document.
const SCORE: f64 = 1.0;

/// One sort criterion.
pub(super) struct SortField {
    sort: Sort,
    kind: FieldType,
    /// Pairs of index id and field id.
    fields: Vec<(u16, u16)>,
    metadata: Option<MetadataField>,
    /// `format` of a date field in the mapping.
    date_format: Option<Arc<DateFormat>>,
}

impl SortField {
    /// True if documents without a value have the largest value, and false if they have the smallest.
    fn is_missing_largest(&self) -> bool {
        self.sort.missing_first == self.sort.descending
    }

    /// Returns a sort value as JSON. Elasticsearch writes extreme numbers for documents without one.
    fn value_to_json(&self, value: Option<&[u8]>) -> Value {
        let Some(value) = value else {
            return match (self.kind, self.is_missing_largest()) {
                (FieldType::Long | FieldType::Date | FieldType::Boolean, true) => i64::MAX.into(),
                (FieldType::Long | FieldType::Date | FieldType::Boolean, false) => i64::MIN.into(),
                (FieldType::Double, true) => "Infinity".into(),
                (FieldType::Double, false) => "-Infinity".into(),
                _ => Value::Null,
            };
        };
        let json = match self.kind {
            FieldType::Date if self.sort.format.is_some() => {
                let writer = DateWriter::new(self.sort.format.as_deref(), TimeZone::UTC);
                values::decode_long(value).map(|ms| Value::from(writer.write(ms)))
            }
            FieldType::Long | FieldType::Date => values::decode_long(value).map(Value::from),
            FieldType::Double => values::decode_double(value).map(Value::from),
            FieldType::Boolean => value.first().map(|&byte| Value::from(byte)),
            FieldType::Ip => values::decode_ip(value).map(|address| Value::from(address.to_string())),
            FieldType::Text | FieldType::Keyword | FieldType::GeoPoint => {
                Some(Value::from(String::from_utf8_lossy(value).into_owned()))
            }
        };
        json.unwrap_or(Value::Null)
    }

    /// Reads a sort value from JSON, the inverse of [`value_to_json`](Self::value_to_json).
    fn value_from_json(&self, value: &Value) -> Result<SortValue, StoreError> {
        let name = match &self.sort.key {
            SortKey::Field(name) => name.as_str(),
            SortKey::Score => "_score",
            SortKey::SeqNo => "_doc",
        };
        let invalid =
            || StoreError::Invalid(format!("Failed to parse search_after value for field [{name}]."));
        if value.is_null() || *value == self.value_to_json(None) {
            return Ok(None);
        }
        let written = || match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        let long = || match value {
            Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let bytes = match self.kind {
            FieldType::Date => Some(values::encode_long(self.parse_date(value)?).to_vec()),
            FieldType::Boolean => match value {
                Value::Bool(value) => Some(values::encode_boolean(*value).to_vec()),
                _ => long().map(|number| values::encode_boolean(number != 0).to_vec()),
            },
            FieldType::Long => long().map(|number| values::encode_long(number).to_vec()),
            FieldType::Double => {
                let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
                number.map(|number| values::encode_double(number).to_vec())
            }
            FieldType::Ip => written().parse().ok().map(|address| values::encode_ip(address).to_vec()),
            FieldType::Text | FieldType::Keyword | FieldType::GeoPoint => Some(written().into_bytes()),
        };
        bytes.map(Some).ok_or_else(invalid)
    }

    fn parse_date(&self, value: &Value) -> Result<i64, StoreError> {
        let text = match value {
            Value::Number(number) if self.sort.format.is_none() => {
                return number
                    .as_i64()
                    .or_else(|| number.as_f64().map(|number| number as i64))
                    .ok_or_else(|| StoreError::Invalid(format!("[{number}] is not a date")));
            }
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        let requested = self.sort.format.as_deref().map(DateFormat::parse).transpose();
        let requested = requested.map_err(|error| StoreError::Invalid(error.to_string()))?;
        let format = requested.as_ref().or(self.date_format.as_deref());
        let format = format.unwrap_or(&text::DEFAULT_DATE_FORMAT);
        let date = format.parse_date(&text, TimeZone::UTC, Rounding::Down);
        date.map_err(|error| StoreError::Invalid(format!("{error}: [{error}]")))
    }

    /// True if sorting needs the values of the document's fields.
    fn reads_fields(&self) -> bool {
        self.metadata.is_none() && matches!(self.sort.key, SortKey::Field(_))
    }
}

/// The value by which a document is sorted. `None`: the document has no value.
type SortValue = Option<Vec<u8>>;

impl SearchRun<'_> {
    /// Finds the fields of sort keys in all indices of the search.
    pub(super) fn sort_fields(&self, sorts: &[Sort]) -> Result<Vec<SortField>, StoreError> {
        sorts.iter().map(|sort| self.sort_field(sort)).collect()
    }

    fn sort_field(&self, sort: &Sort) -> Result<SortField, StoreError> {
        let field = |kind| SortField {
            sort: sort.clone(),
            kind,
            fields: Vec::new(),
            metadata: None,
            date_format: None,
        };
        let name = match &sort.key {
            SortKey::SeqNo => return Ok(field(FieldType::Long)),
            SortKey::Score => return Ok(field(FieldType::Double)),
            SortKey::Field(name) => name,
        };
        if let Some(metadata) = MetadataField::from_name(name) {
            return Ok(SortField { metadata: Some(metadata), ..field(FieldType::Keyword) });
        }
        if let Some(found) = self.mapped_sort_field(sort, name)? {
            return Ok(found);
        }
        match &sort.unmapped_type {
            Some(kind) => Ok(field(FieldType::from_name(kind).unwrap_or(FieldType::Long))),
            None if self.indices.is_empty() => Ok(field(FieldType::Long)),
            None => Err(StoreError::Invalid(format!("No mapping found for [{name}] in order to sort on"))),
        }
    }

    fn mapped_sort_field(&self, sort: &Sort, name: &str) -> Result<Option<SortField>, StoreError> {
        let mut found: Option<SortField> = None;
        for index in &self.indices {
            let fields = index.fields();
            let Some(FieldEntry { id, field, date_format, .. }) = fields.get(name) else { continue };
            let kind = field.field_type;
            match kind {
                FieldType::Text => return Err(StoreError::Invalid(text_field_error(name))),
                FieldType::GeoPoint => {
                    let reason = "can't sort on geo_point field without using specific sorting feature, like geo_distance";
                    return Err(StoreError::Invalid(reason.to_owned()));
                }
                _ => {}
            }
            match &mut found {
                None => {
                    found = Some(SortField {
                        sort: sort.clone(),
                        kind,
                        fields: vec![(index.id, *id)],
                        metadata: None,
                        date_format: date_format.clone(),
                    });
                }
                Some(known) if known.kind != kind => {
                    let (one, other) = (known.kind.name(), kind.name());
                    return Err(StoreError::Invalid(format!(
                        "[{name}] is of type {one} in one index and of type {other} in another"
                    )));
                }
                Some(known) => known.fields.push((index.id, *id)),
            }
        }
        Ok(found)
    }

    /// Returns the first `wanted` documents after `after`, in the order of the criteria.
    pub(super) fn sort_docs(
        &self,
        docs: RoaringBitmap,
        keys: &[SortField],
        after: Option<&[Value]>,
        wanted: usize,
    ) -> Result<Vec<u32>, StoreError> {
        let Some((first, rest)) = keys.split_first() else { return Ok(docs.iter().take(wanted).collect()) };
        let (after_first, after_rest) = match after.and_then(|after| after.split_first()) {
            Some((first, rest)) => (Some(first), Some(rest)),
            None => (None, None),
        };
        match (&first.sort.key, first.metadata) {
            (SortKey::SeqNo, _) => {
                return Ok(sort_by_seq_no(&docs, first.sort.descending, after_first, wanted));
            }
            (SortKey::Score, _) => {
                // All documents have the same score, so it decides only whether they come after `after`.
                let score = Some(values::encode_double(SCORE).to_vec());
                let after_first = after_first.map(|value| first.value_from_json(value)).transpose()?;
                let order = after_first.map(|after| compare_values(&first.sort, &score, &after));
                return match order {
                    Some(Ordering::Less) => Ok(Vec::new()),
                    Some(Ordering::Equal) if rest.is_empty() => Ok(Vec::new()),
                    Some(Ordering::Equal) => self.sort_docs(docs, rest, after_rest, wanted),
                    _ => self.sort_docs(docs, rest, None, wanted),
                };
            }
            (SortKey::Field(_), None) if docs.len() > READ_DOCS_MAX => {
                return self.sort_by_terms(docs, first, rest, after, wanted);
            }
            (SortKey::Field(_), Some(MetadataField::Index)) if docs.len() > READ_DOCS_MAX => {
                return self.sort_by_index(&docs, first, rest, after, wanted);
            }
            _ => {}
        }
        self.sort_by_reading(&docs, keys, after, wanted)
    }

    /// Sorts documents by walking over the terms of the first field in order. Documents that share a value are sorted
    /// by the other fields.
    fn sort_by_terms(
        &self,
        docs: RoaringBitmap,
        first: &SortField,
        rest: &[SortField],
        after: Option<&[Value]>,
        wanted: usize,
    ) -> Result<Vec<u32>, StoreError> {
        let mut groups = SortedGroups::new(self, first, rest, after, wanted)?;
        let mut left = docs;
        if first.sort.missing_first {
            let missing = self.docs_without_value(&left, first)?;
            left -= &missing;
            groups.take(&None, missing)?;
        }
        let mut group = RoaringBitmap::new();
        let mut value: SortValue = None;
        each_term(self.context, &first.fields, first.sort.descending, |entry| {
            if value.as_deref() != Some(entry.value) {
                left -= &group;
                if let Some(value) = value.replace(entry.value.to_vec()) {
                    groups.take(&Some(value), std::mem::take(&mut group))?;
                }
                if groups.is_full() || left.is_empty() {
                    return Ok(false);
                }
            }
            entry.add_to(&mut group, &left)?;
            Ok(true)
        })?;
        left -= &group;
        if !group.is_empty() && !groups.is_full() {
            groups.take(&value, group)?;
        }
        if !left.is_empty() && !groups.is_full() {
            groups.take(&None, left)?;
        }
        Ok(groups.ordered)
    }

    /// Sorts documents by the name of their index.
    fn sort_by_index(
        &self,
        docs: &RoaringBitmap,
        first: &SortField,
        rest: &[SortField],
        after: Option<&[Value]>,
        wanted: usize,
    ) -> Result<Vec<u32>, StoreError> {
        let mut groups = SortedGroups::new(self, first, rest, after, wanted)?;
        let mut indices: Vec<_> = self.indices.iter().collect();
        if first.sort.descending {
            indices.reverse();
        }
        for index in indices {
            let all = QueryPlan::Term(term_key(index.id, field_ids::ALL, &[]));
            let found = self.context.find(index.id, &all)? & docs;
            if groups.is_full() {
                break;
            }
            groups.take(&Some(index.name.clone().into_bytes()), found)?;
        }
        Ok(groups.ordered)
    }

    /// Returns the documents without a value in the field.
    fn docs_without_value(&self, docs: &RoaringBitmap, key: &SortField) -> Result<RoaringBitmap, StoreError> {
        let mut left = docs.clone();
        for &(index, field) in &key.fields {
            left -= self.context.find(index, &exists_plan(index, field))?;
        }
        Ok(left)
    }

    /// Sorts documents by reading their values.
    fn sort_by_reading(
        &self,
        docs: &RoaringBitmap,
        keys: &[SortField],
        after: Option<&[Value]>,
        wanted: usize,
    ) -> Result<Vec<u32>, StoreError> {
        let after = after
            .map(|after| keys.iter().zip(after).map(|(key, value)| key.value_from_json(value)).collect())
            .transpose()?;
        let after: Option<Vec<SortValue>> = after;
        let order = |a: &(Vec<SortValue>, u32), b: &[SortValue]| {
            let pairs = keys.iter().zip(a.0.iter().zip(b));
            pairs.map(|(key, (a, b))| compare_values(&key.sort, a, b)).find(|order| order.is_ne())
        };
        let compare = |a: &(Vec<SortValue>, u32), b: &(Vec<SortValue>, u32)| {
            order(a, &b.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
        };
        let mut rows = Vec::new();
        for (nth, doc) in docs.iter().enumerate() {
            if nth % 64 == 0 {
                self.context.check_deadline()?;
            }
            let row = (self.sort_values(doc, keys)?, doc);
            // Documents with the same sort values as `after` are skipped, because nothing distinguishes them.
            if after.as_ref().is_none_or(|after| order(&row, after) == Some(Ordering::Greater)) {
                rows.push(row);
            }
            // The list is cut rarely, so that sorting costs little, but its size stays bounded.
            if rows.len() >= wanted.saturating_mul(2).saturating_add(READ_DOCS_MAX as usize) {
                rows.sort_by(compare);
                rows.truncate(wanted);
            }
        }
        rows.sort_by(compare);
        Ok(rows.into_iter().take(wanted).map(|(_, doc)| doc).collect())
    }

    /// Reads the sort values of a document.
    fn sort_values(&self, doc: u32, keys: &[SortField]) -> Result<Vec<SortValue>, StoreError> {
        if keys.iter().any(SortField::reads_fields)
            || keys.iter().any(|key| matches!(key.metadata, Some(MetadataField::Index | MetadataField::Type)))
        {
            return Ok(self.read_sort_values(doc, keys)?.1);
        }
        let value = |key: &SortField| match key.sort.key {
            SortKey::Field(_) => self.read_id(doc).map(|id| Some(id.into_bytes())),
            _ => Ok(position_value(key, doc)),
        };
        keys.iter().map(value).collect()
    }

    /// Reads a document and its sort values.
    fn read_sort_values(&self, doc: u32, keys: &[SortField]) -> Result<(Hit, Vec<SortValue>), StoreError> {
        let (hit, time_ms) = read_hit(self.context, self.state, doc)?;
        let mut terms = DocumentTerms::default();
        let index = self.indices.iter().find(|index| index.name == hit.index);
        if let Some(index) = index.filter(|_| keys.iter().any(SortField::reads_fields)) {
            // Only a source that is not JSON is an error, and such a document cannot be stored.
            let mode = IndexingMode::Read;
            let _ = self.indexer.index_document(index, None, &hit.source, time_ms, mode, &mut terms);
        }
        let value = |key: &SortField| match key.metadata {
            Some(MetadataField::Id) => Some(hit.id.clone().into_bytes()),
            Some(MetadataField::Index) => Some(hit.index.clone().into_bytes()),
            Some(MetadataField::Type) => {
                Some(hit.doc_type.as_deref().unwrap_or("_doc").to_owned().into_bytes())
            }
            None if key.reads_fields() => {
                let &(_, field) =
                    key.fields.iter().find(|(of, _)| Some(*of) == index.map(|index| index.id))?;
                let values = terms.walk_values(field);
                if key.sort.descending { values.max() } else { values.min() }.map(<[u8]>::to_vec)
            }
            None => position_value(key, doc),
        };
        let values = keys.iter().map(value).collect();
        Ok((hit, values))
    }

    pub(super) fn hit(&self, doc: u32, keys: &[SortField]) -> Result<Hit, StoreError> {
        let (mut hit, values) = self.read_sort_values(doc, keys)?;
        hit.sort = keys.iter().zip(values).map(|(key, value)| key.value_to_json(value.as_deref())).collect();
        Ok(hit)
    }
}

/// Returns the sort value of a document for `_doc` or `_score`.
fn position_value(key: &SortField, doc: u32) -> SortValue {
    Some(match key.sort.key {
        SortKey::Score => values::encode_double(SCORE).to_vec(),
        _ => values::encode_long(i64::from(doc)).to_vec(),
    })
}

/// Collector of groups of documents that share a value of the first criterion, in its order.
struct SortedGroups<'a> {
    run: &'a SearchRun<'a>,
    first: &'a SortField,
    rest: &'a [SortField],
    after_first: Option<SortValue>,
    after_rest: Option<&'a [Value]>,
    wanted: usize,
    ordered: Vec<u32>,
}

impl<'a> SortedGroups<'a> {
    fn new(
        run: &'a SearchRun<'a>,
        first: &'a SortField,
        rest: &'a [SortField],
        after: Option<&'a [Value]>,
        wanted: usize,
    ) -> Result<SortedGroups<'a>, StoreError> {
        let parts = after.and_then(|after| after.split_first());
        let after_first = parts.map(|(value, _)| first.value_from_json(value)).transpose()?;
        let after_rest = parts.map(|(_, rest)| rest).filter(|rest| !rest.is_empty());
        Ok(SortedGroups { run, first, rest, after_first, after_rest, wanted, ordered: Vec::new() })
    }

    fn is_full(&self) -> bool {
        self.ordered.len() >= self.wanted
    }

    /// Adds the documents of a group that come after `after`.
    fn take(&mut self, value: &SortValue, group: RoaringBitmap) -> Result<(), StoreError> {
        let order = self.after_first.as_ref().map(|after| compare_values(&self.first.sort, value, after));
        let after = match order {
            Some(Ordering::Less) => return Ok(()),
            Some(Ordering::Equal) if self.after_rest.is_none() => return Ok(()),
            Some(Ordering::Equal) => self.after_rest,
            _ => None,
        };
        let more = self.run.sort_docs(group, self.rest, after, self.wanted - self.ordered.len())?;
        self.ordered.extend(more);
        Ok(())
    }
}

/// Sorts by document number, which is the order of storing.
fn sort_by_seq_no(docs: &RoaringBitmap, descending: bool, after: Option<&Value>, wanted: usize) -> Vec<u32> {
    let after = after.and_then(Value::as_u64).and_then(|after| u32::try_from(after).ok());
    let is_after = |doc: &u32| after.is_none_or(|after| if descending { *doc < after } else { *doc > after });
    if descending {
        docs.iter().rev().filter(is_after).take(wanted).collect()
    } else {
        docs.iter().filter(is_after).take(wanted).collect()
    }
}

/// Compares two sort values.
fn compare_values(sort: &Sort, a: &SortValue, b: &SortValue) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => {
            if sort.descending {
                b.cmp(a)
            } else {
                a.cmp(b)
            }
        }
        (None, None) => Ordering::Equal,
        (None, Some(_)) => {
            if sort.missing_first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (Some(_), None) => {
            if sort.missing_first {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
    }
}
