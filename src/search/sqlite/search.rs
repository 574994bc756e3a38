//! Sorting and reading of the documents that a search found. Runs in the caller's thread.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use serde_json::Value;

use super::catalog::{FieldEntry, IndexEntry, field_ids};
use super::execute::SearchContext;
use super::indexer::{DocumentIndexer, DocumentTerms, IndexingMode};
use super::plan::{QueryPlan, exists_plan};
use super::state::StoreState;
use super::terms::each_term;
use super::{aggregate, ids, rows, values};
use crate::search::mapping::FieldType;
use crate::search::query::{Hit, Search, SearchResult, Sort, SortKey};
use crate::search::store::StoreError;

/// Maximum number of hits that a search can skip and return together (the default of Elasticsearch).
const WINDOW_MAX: usize = 10_000;

/// Maximum number of documents that are sorted by reading them. Larger results are sorted by walking over the terms
/// of the field.
const READ_DOCS_MAX: u64 = 2_000;

/// State of one search.
pub(super) struct SearchRun<'a> {
    pub context: &'a SearchContext<'a>,
    pub state: &'a StoreState,
    pub indexer: &'a DocumentIndexer,
    /// The indices to search.
    pub indices: Vec<Arc<IndexEntry>>,
}

/// Runs a search with one plan per index.
pub(super) fn run_search(
    context: &SearchContext<'_>,
    state: &StoreState,
    indexer: &DocumentIndexer,
    plans: Vec<(Arc<IndexEntry>, QueryPlan)>,
    search: &Search,
) -> Result<SearchResult, StoreError> {
    let wanted = search.from.saturating_add(search.size);
    if wanted > WINDOW_MAX {
        return Err(StoreError::Invalid(format!(
            "Result window is too large, from + size must be less than or equal to: [{WINDOW_MAX}] but was [{wanted}]"
        )));
    }
    if search.size == 0 && search.aggregations.is_empty() {
        let counts = plans.iter().map(|(index, plan)| context.count(index.id, plan));
        return Ok(SearchResult { total: counts.sum::<Result<u64, _>>()?, ..SearchResult::default() });
    }
    let mut docs = RoaringBitmap::new();
    for (index, plan) in &plans {
        docs |= context.find(index.id, plan)?;
    }
    let indices = plans.into_iter().map(|(index, _)| index).collect();
    let run = SearchRun { context, state, indexer, indices };
    let total = docs.len();
    let aggregations = aggregate::run_aggregations(&run, &docs, &search.aggregations)?;
    let mut hits = Vec::new();
    if search.size > 0 {
        let keys = run.sort_fields(&search.sort)?;
        let ordered = run.sort_docs(docs, &keys, search.after.as_deref(), wanted)?;
        let page = &ordered[search.from.min(ordered.len())..];
        let mut ignored = ignored_members(context, &run.indices, page)?;
        for &doc in page {
            let ignored = ignored.remove(&doc).unwrap_or_default();
            hits.push(Hit { ignored, ..run.hit(doc, &keys)? });
        }
    }
    Ok(SearchResult { total, hits, aggregations, ..SearchResult::default() })
}

/// Reads a document by number. The hit has no sort values.
pub(super) fn read_hit(
    context: &SearchContext<'_>,
    state: &StoreState,
    doc: u32,
) -> Result<(Hit, i64), StoreError> {
    let row = rows::read_document(context.connection, doc)?;
    let no_row = || StoreError::Failed { act: "read the store", cause: format!("document {doc} has no row") };
    let row = row.ok_or_else(no_row)?;
    let source = state
        .source_codec
        .decompress(&row.source)
        .map_err(|error| StoreError::Failed { act: "read the store", cause: error.to_string() })?;
    let id = row.id.unwrap_or_else(|| ids::make_id(&state.secret, doc));
    let index = state.catalog.index_by_id(row.index).map(|index| index.name.clone()).unwrap_or_default();
    let sequence = u64::from(doc);
    let hit = Hit {
        index,
        doc_type: row.doc_type,
        id,
        version: row.version,
        seq_no: sequence,
        source,
        sort: Vec::new(),
        score: None,
        ignored: Vec::new(),
    };
    Ok((hit, row.time_ms))
}

/// Returns the paths of the members that are not indexed, for those of the documents that have any.
pub(super) fn ignored_members(
    context: &SearchContext<'_>,
    indices: &[Arc<IndexEntry>],
    docs: &[u32],
) -> Result<HashMap<u32, Vec<String>>, StoreError> {
    let docs = RoaringBitmap::from_iter(docs);
    let mut marked = RoaringBitmap::new();
    for index in indices {
        marked |= context.find(index.id, &exists_plan(index.id, field_ids::IGNORED))? & &docs;
    }
    let mut paths: HashMap<u32, Vec<String>> = HashMap::new();
    if marked.is_empty() {
        return Ok(paths);
    }
    let fields: Vec<_> = indices.iter().map(|index| (index.id, field_ids::IGNORED)).collect();
    each_term(context, &fields, false, |entry| {
        let mut found = RoaringBitmap::new();
        entry.add_to(&mut found, &marked)?;
        for doc in found {
            paths.entry(doc).or_default().push(String::from_utf8_lossy(entry.value).into_owned());
        }
        Ok(true)
    })?;
    Ok(paths)
}

/// One sort criterion.
pub(super) struct SortField {
    sort: Sort,
    kind: FieldType,
    /// Pairs of index id and field id.
    fields: Vec<(u16, u16)>,
}

/// Type of a field, and its pairs of index id and field id.
pub(super) type TypedField = (FieldType, Vec<(u16, u16)>);

/// The value by which a document is sorted. `None`: the document has no value.
type SortValue = Option<Vec<u8>>;

impl SearchRun<'_> {
    /// Looks up a field by name in all indices of the search. Text fields cannot be sorted.
    pub(super) fn typed_field(&self, name: &str) -> Result<Option<TypedField>, StoreError> {
        let mut typed: Option<TypedField> = None;
        for index in &self.indices {
            let fields = index.fields();
            let Some(FieldEntry { id, field, .. }) = fields.get(name) else { continue };
            let kind = field.field_type;
            if matches!(kind, FieldType::Text | FieldType::GeoPoint) {
                return Err(StoreError::Invalid(format!(
                    "Fields of type {} are not optimised for sorting and aggregations: [{name}]; use a keyword field instead",
                    kind.name()
                )));
            }
            match &mut typed {
                None => typed = Some((kind, vec![(index.id, *id)])),
                Some((known, _)) if *known != kind => {
                    let (one, other) = (known.name(), kind.name());
                    return Err(StoreError::Invalid(format!(
                        "[{name}] is of type {one} in one index and of type {other} in another"
                    )));
                }
                Some((_, numbers)) => numbers.push((index.id, *id)),
            }
        }
        Ok(typed)
    }

    fn sort_fields(&self, sorts: &[Sort]) -> Result<Vec<SortField>, StoreError> {
        let mut keys = Vec::new();
        for sort in sorts {
            let (kind, fields) = match &sort.key {
                SortKey::SeqNo => (FieldType::Long, Vec::new()),
                SortKey::Field(name) => match self.typed_field(name)? {
                    Some(typed) => typed,
                    None if self.indices.is_empty() || sort.unmapped_type.is_some() => {
                        (FieldType::Long, Vec::new())
                    }
                    None => {
                        return Err(StoreError::Invalid(format!(
                            "No mapping found for [{name}] in order to sort on"
                        )));
                    }
                },
            };
            keys.push(SortField { sort: sort.clone(), kind, fields });
        }
        Ok(keys)
    }

    /// Returns the first `wanted` documents after `after`, in the order of the criteria.
    fn sort_docs(
        &self,
        docs: RoaringBitmap,
        keys: &[SortField],
        after: Option<&[Value]>,
        wanted: usize,
    ) -> Result<Vec<u32>, StoreError> {
        let Some((first, rest)) = keys.split_first() else { return Ok(docs.iter().take(wanted).collect()) };
        if first.sort.key == SortKey::SeqNo {
            return Ok(sort_by_seq_no(
                &docs,
                first.sort.descending,
                after.and_then(|after| after.first()),
                wanted,
            ));
        }
        if docs.len() <= READ_DOCS_MAX {
            return self.sort_by_reading(&docs, keys, after, wanted);
        }
        self.sort_by_terms(docs, first, rest, after, wanted)
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
        let after_parts = after.and_then(|after| after.split_first());
        let after_first = after_parts.map(|(value, _)| value_from_json(first.kind, value)).transpose()?;
        let after_rest = after_parts.map(|(_, rest)| rest).filter(|rest| !rest.is_empty());
        let mut left = docs;
        let mut ordered = Vec::new();
        // A group consists of the documents that share a value and belong to no earlier group.
        let take =
            |value: &SortValue, group: RoaringBitmap, ordered: &mut Vec<u32>| -> Result<(), StoreError> {
                let order = after_first.as_ref().map(|after| compare_values(&first.sort, value, after));
                let after = match order {
                    Some(Ordering::Less) => return Ok(()),
                    Some(Ordering::Equal) if after_rest.is_none() => return Ok(()),
                    Some(Ordering::Equal) => after_rest,
                    _ => None,
                };
                let more = self.sort_docs(group, rest, after, wanted - ordered.len())?;
                ordered.extend(more);
                Ok(())
            };
        if first.sort.missing_first {
            let missing = self.docs_without_value(&left, first)?;
            left -= &missing;
            take(&None, missing, &mut ordered)?;
        }
        let mut group = RoaringBitmap::new();
        let mut value: SortValue = None;
        each_term(self.context, &first.fields, first.sort.descending, |entry| {
            if value.as_deref() != Some(entry.value) {
                left -= &group;
                if let Some(value) = value.replace(entry.value.to_vec()) {
                    take(&Some(value), std::mem::take(&mut group), &mut ordered)?;
                }
                if ordered.len() >= wanted || left.is_empty() {
                    return Ok(false);
                }
            }
            entry.add_to(&mut group, &left)?;
            Ok(true)
        })?;
        left -= &group;
        if !group.is_empty() && ordered.len() < wanted {
            take(&value, group, &mut ordered)?;
        }
        if !left.is_empty() && ordered.len() < wanted {
            take(&None, left, &mut ordered)?;
        }
        Ok(ordered)
    }

    /// Returns the documents without a value in the field.
    fn docs_without_value(&self, docs: &RoaringBitmap, key: &SortField) -> Result<RoaringBitmap, StoreError> {
        let mut left = docs.clone();
        for &(index, field) in &key.fields {
            left -= self.context.find(index, &exists_plan(index, field))?;
        }
        Ok(left)
    }

    /// Sorts a few documents by reading their sources.
    fn sort_by_reading(
        &self,
        docs: &RoaringBitmap,
        keys: &[SortField],
        after: Option<&[Value]>,
        wanted: usize,
    ) -> Result<Vec<u32>, StoreError> {
        let after = after
            .map(|after| {
                keys.iter().zip(after).map(|(key, value)| value_from_json(key.kind, value)).collect()
            })
            .transpose()?;
        let after: Option<Vec<SortValue>> = after;
        let order = |a: &(Vec<SortValue>, u32), b: &[SortValue]| {
            let pairs = keys.iter().zip(a.0.iter().zip(b));
            pairs.map(|(key, (a, b))| compare_values(&key.sort, a, b)).find(|order| order.is_ne())
        };
        let mut rows = Vec::new();
        for (nth, doc) in docs.iter().enumerate() {
            if nth % 64 == 0 {
                self.context.check_deadline()?;
            }
            let row = (self.read_sort_values(doc, keys)?.1, doc);
            // Documents with the same sort values as `after` are skipped, because nothing distinguishes them.
            if after.as_ref().is_none_or(|after| order(&row, after) == Some(Ordering::Greater)) {
                rows.push(row);
            }
        }
        rows.sort_by(|a, b| order(a, &b.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1)));
        Ok(rows.into_iter().take(wanted).map(|(_, doc)| doc).collect())
    }

    /// Reads a document and its sort values.
    fn read_sort_values(&self, doc: u32, keys: &[SortField]) -> Result<(Hit, Vec<SortValue>), StoreError> {
        let (hit, time_ms) = read_hit(self.context, self.state, doc)?;
        let mut terms = DocumentTerms::default();
        if keys.iter().any(|key| key.sort.key != SortKey::SeqNo)
            && let Some(index) = self.indices.iter().find(|index| index.name == hit.index)
        {
            // Only a source that is not JSON is an error, and such a document cannot be stored.
            let mode = IndexingMode::Read;
            let _ = self.indexer.index_document(index, None, &hit.source, time_ms, mode, &mut terms);
            let values = keys.iter().map(|key| {
                if key.sort.key == SortKey::SeqNo {
                    return Some(values::encode_long(i64::from(doc)).to_vec());
                }
                let &(_, field) = key.fields.iter().find(|(of, _)| *of == index.id)?;
                let values = terms.walk_values(field);
                if key.sort.descending { values.max() } else { values.min() }.map(<[u8]>::to_vec)
            });
            let values = values.collect();
            return Ok((hit, values));
        }
        Ok((hit, keys.iter().map(|_| Some(values::encode_long(i64::from(doc)).to_vec())).collect()))
    }

    fn hit(&self, doc: u32, keys: &[SortField]) -> Result<Hit, StoreError> {
        let (mut hit, values) = self.read_sort_values(doc, keys)?;
        hit.sort =
            keys.iter().zip(values).map(|(key, value)| value_to_json(key.kind, value.as_deref())).collect();
        Ok(hit)
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

/// Returns a value as JSON.
pub(super) fn value_to_json(kind: FieldType, value: Option<&[u8]>) -> Value {
    let Some(value) = value else { return Value::Null };
    let json = match kind {
        FieldType::Long | FieldType::Date => values::decode_long(value).map(Value::from),
        FieldType::Double => values::decode_double(value).map(Value::from),
        FieldType::Boolean => value.first().map(|&byte| Value::Bool(byte == 1)),
        FieldType::Ip => values::decode_ip(value).map(|address| Value::from(address.to_string())),
        FieldType::Text | FieldType::Keyword | FieldType::GeoPoint => {
            Some(Value::from(String::from_utf8_lossy(value).into_owned()))
        }
    };
    json.unwrap_or(Value::Null)
}

/// Reads a value from JSON, the inverse of [`value_to_json`].
fn value_from_json(kind: FieldType, value: &Value) -> Result<SortValue, StoreError> {
    let invalid = || {
        StoreError::Invalid(format!(
            "Failed to parse search_after value [{value}] for a field of type {}",
            kind.name()
        ))
    };
    if value.is_null() {
        return Ok(None);
    }
    let bytes = match kind {
        FieldType::Long | FieldType::Date => {
            value.as_i64().map(|number| values::encode_long(number).to_vec())
        }
        FieldType::Double => value.as_f64().map(|number| values::encode_double(number).to_vec()),
        FieldType::Boolean => value.as_bool().map(|value| values::encode_boolean(value).to_vec()),
        FieldType::Ip => value
            .as_str()
            .and_then(|text| text.parse().ok())
            .map(|address| values::encode_ip(address).to_vec()),
        FieldType::Text | FieldType::Keyword | FieldType::GeoPoint => {
            value.as_str().map(|text| text.as_bytes().to_vec())
        }
    };
    bytes.map(Some).ok_or_else(invalid)
}
