//! Orders what was found and reads it. Runs in the caller's thread.

use std::cmp::Ordering;
use std::sync::Arc;

use roaring::RoaringBitmap;
use serde_json::Value;

use super::catalogue::{Entry, IndexEntry};
use super::evaluate::Context;
use super::plan::{Plan, has};
use super::prepare::{Preparer, Terms};
use super::walk::walk;
use super::{Shared, aggregate, ids, rows, values};
use crate::iri::mapping::FieldType;
use crate::iri::query::{Found, Hit, Search, Sort, SortKey};
use crate::iri::store::StoreError;

/// Hits that a search can pass over and give together (Elasticsearch's own bound).
const WINDOW_MAX: usize = 10_000;

/// So many documents are ordered by what they themselves say; more by walking over the field's values.
const READ_MAX: u64 = 2_000;

/// A search's parts that do not change while it goes on.
pub struct Searching<'a> {
    /// The snapshot.
    pub context: &'a Context<'a>,
    /// The store.
    pub shared: &'a Shared,
    /// What takes documents apart.
    pub preparer: &'a Preparer,
    /// The indices that are asked.
    pub indices: Vec<Arc<IndexEntry>>,
}

/// Searches the indices with their plans.
pub fn search(
    context: &Context<'_>,
    shared: &Shared,
    preparer: &Preparer,
    plans: Vec<(Arc<IndexEntry>, Plan)>,
    search: &Search,
) -> Result<Found, StoreError> {
    let wanted = search.from.saturating_add(search.size);
    if wanted > WINDOW_MAX {
        return Err(StoreError::Invalid(format!(
            "Result window is too large, from + size must be less than or equal to: [{WINDOW_MAX}] but was [{wanted}]"
        )));
    }
    if search.size == 0 && search.aggregations.is_empty() {
        let counts = plans.iter().map(|(index, plan)| context.count(index.no, plan));
        return Ok(Found { total: counts.sum::<Result<u64, _>>()?, ..Found::default() });
    }
    let mut docs = RoaringBitmap::new();
    for (index, plan) in &plans {
        docs |= context.find(index.no, plan)?;
    }
    let indices = plans.into_iter().map(|(index, _)| index).collect();
    let searching = Searching { context, shared, preparer, indices };
    let total = docs.len();
    let aggregations = aggregate::aggregate(&searching, &docs, &search.aggregations)?;
    let mut hits = Vec::new();
    if search.size > 0 {
        let keys = searching.keys(&search.sort)?;
        let ordered = searching.order(docs, &keys, search.after.as_deref(), wanted)?;
        for doc in ordered.into_iter().skip(search.from) {
            hits.push(searching.hit(doc, &keys)?);
        }
    }
    Ok(Found { total, hits, aggregations, ..Found::default() })
}

/// A document's hit without sort values, for whoever asks for it by its id.
pub fn hit(context: &Context<'_>, shared: &Shared, doc: u32) -> Result<(Hit, i64), StoreError> {
    let row = rows::read_document(context.connection, doc)?;
    let gone = || StoreError::Failed { act: "read the store", cause: format!("document {doc} has no row") };
    let row = row.ok_or_else(gone)?;
    let source = shared
        .sources
        .decompress(&row.source)
        .map_err(|error| StoreError::Failed { act: "read the store", cause: error.to_string() })?;
    let id = row.id.unwrap_or_else(|| ids::make(&shared.secret, doc));
    let index = shared.catalogue.by_no(row.index).map(|index| index.name.clone()).unwrap_or_default();
    let sequence = u64::from(doc);
    let hit = Hit {
        index,
        kind: row.kind,
        id,
        version: row.version,
        sequence,
        source,
        sort: Vec::new(),
        score: None,
    };
    Ok((hit, row.time_ms))
}

/// One key of the order, with the field's type and its number in each index.
pub struct Key {
    sort: Sort,
    kind: FieldType,
    /// Index and field number.
    fields: Vec<(u16, u16)>,
}

/// A field's type, and its number in each index that has it, behind the index's.
pub type Typed = (FieldType, Vec<(u16, u16)>);

/// The value by which a document is ordered; `None` where it has none.
type Place = Option<Vec<u8>>;

impl Searching<'_> {
    /// The type of a field, and its number in each index that has it. A text has no values in an order.
    pub fn field(&self, name: &str) -> Result<Option<Typed>, StoreError> {
        let mut found: Option<Typed> = None;
        for index in &self.indices {
            let fields = index.fields();
            let Some(Entry { no, field, .. }) = fields.get(name) else { continue };
            let kind = field.kind;
            if matches!(kind, FieldType::Text | FieldType::GeoPoint) {
                return Err(StoreError::Invalid(format!(
                    "Fields of type {} are not optimised for sorting and aggregations: [{name}]; use a keyword field instead",
                    kind.name()
                )));
            }
            match &mut found {
                None => found = Some((kind, vec![(index.no, *no)])),
                Some((known, _)) if *known != kind => {
                    let (one, other) = (known.name(), kind.name());
                    return Err(StoreError::Invalid(format!(
                        "[{name}] is of type {one} in one index and of type {other} in another"
                    )));
                }
                Some((_, numbers)) => numbers.push((index.no, *no)),
            }
        }
        Ok(found)
    }

    fn keys(&self, sorts: &[Sort]) -> Result<Vec<Key>, StoreError> {
        let mut keys = Vec::new();
        for sort in sorts {
            let (kind, fields) = match &sort.key {
                SortKey::Stored => (FieldType::Long, Vec::new()),
                SortKey::Field(name) => match self.field(name)? {
                    Some(found) => found,
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
            keys.push(Key { sort: sort.clone(), kind, fields });
        }
        Ok(keys)
    }

    /// The first `wanted` of the documents, in the order of the keys, and behind `after`.
    fn order(
        &self,
        docs: RoaringBitmap,
        keys: &[Key],
        after: Option<&[Value]>,
        wanted: usize,
    ) -> Result<Vec<u32>, StoreError> {
        let Some((first, rest)) = keys.split_first() else { return Ok(docs.iter().take(wanted).collect()) };
        if first.sort.key == SortKey::Stored {
            return Ok(stored(&docs, first.sort.descending, after.and_then(|after| after.first()), wanted));
        }
        if docs.len() <= READ_MAX {
            return self.order_read(&docs, keys, after, wanted);
        }
        let behind = after.and_then(|after| after.split_first());
        let after_first = behind.map(|(value, _)| from_json(first.kind, value)).transpose()?;
        let after_rest = behind.map(|(_, rest)| rest).filter(|rest| !rest.is_empty());
        let mut left = docs;
        let mut ordered = Vec::new();
        // A group is what shares one value; the next group takes only what no earlier one had.
        let take = |value: &Place, group: RoaringBitmap, ordered: &mut Vec<u32>| -> Result<(), StoreError> {
            let place = after_first.as_ref().map(|after| compare(&first.sort, value, after));
            let after = match place {
                Some(Ordering::Less) => return Ok(()),
                Some(Ordering::Equal) if after_rest.is_none() => return Ok(()),
                Some(Ordering::Equal) => after_rest,
                _ => None,
            };
            let more = self.order(group, rest, after, wanted - ordered.len())?;
            ordered.extend(more);
            Ok(())
        };
        if first.sort.missing_first {
            let missing = self.without(&left, first)?;
            left -= &missing;
            take(&None, missing, &mut ordered)?;
        }
        let mut group = RoaringBitmap::new();
        let mut value: Place = None;
        walk(self.context, &first.fields, first.sort.descending, |entry| {
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

    /// Those of the documents that have no value of the key's field.
    fn without(&self, docs: &RoaringBitmap, key: &Key) -> Result<RoaringBitmap, StoreError> {
        let mut left = docs.clone();
        for &(index, field) in &key.fields {
            left -= self.context.find(index, &has(index, field))?;
        }
        Ok(left)
    }

    /// Orders few documents by what they themselves say.
    fn order_read(
        &self,
        docs: &RoaringBitmap,
        keys: &[Key],
        after: Option<&[Value]>,
        wanted: usize,
    ) -> Result<Vec<u32>, StoreError> {
        let after = after
            .map(|after| keys.iter().zip(after).map(|(key, value)| from_json(key.kind, value)).collect())
            .transpose()?;
        let after: Option<Vec<Place>> = after;
        let place = |a: &(Vec<Place>, u32), b: &[Place]| {
            let pairs = keys.iter().zip(a.0.iter().zip(b));
            pairs.map(|(key, (a, b))| compare(&key.sort, a, b)).find(|order| order.is_ne())
        };
        let mut rows = Vec::new();
        for (nth, doc) in docs.iter().enumerate() {
            if nth % 64 == 0 {
                self.context.look()?;
            }
            let row = (self.read_values(doc, keys)?.1, doc);
            // Without a key that tells them apart, documents alike come before it or with it.
            if after.as_ref().is_none_or(|after| place(&row, after) == Some(Ordering::Greater)) {
                rows.push(row);
            }
        }
        rows.sort_by(|a, b| place(a, &b.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1)));
        Ok(rows.into_iter().take(wanted).map(|(_, doc)| doc).collect())
    }

    /// A document with the values that it is ordered by.
    fn read_values(&self, doc: u32, keys: &[Key]) -> Result<(Hit, Vec<Place>), StoreError> {
        let (hit, time_ms) = hit(self.context, self.shared, doc)?;
        let mut terms = Terms::default();
        if keys.iter().any(|key| key.sort.key != SortKey::Stored)
            && let Some(index) = self.indices.iter().find(|index| index.name == hit.index)
        {
            // It was prepared like this when it was stored, so it is not refused now.
            let _ = self.preparer.prepare(index, None, &hit.source, time_ms, &mut terms);
            let values = keys.iter().map(|key| {
                if key.sort.key == SortKey::Stored {
                    return Some(values::long(i64::from(doc)).to_vec());
                }
                let &(_, field) = key.fields.iter().find(|(of, _)| *of == index.no)?;
                let values = terms.values(field);
                if key.sort.descending { values.max() } else { values.min() }.map(<[u8]>::to_vec)
            });
            let values = values.collect();
            return Ok((hit, values));
        }
        Ok((hit, keys.iter().map(|_| Some(values::long(i64::from(doc)).to_vec())).collect()))
    }

    fn hit(&self, doc: u32, keys: &[Key]) -> Result<Hit, StoreError> {
        let (mut hit, values) = self.read_values(doc, keys)?;
        hit.sort = keys.iter().zip(values).map(|(key, value)| to_json(key.kind, value.as_deref())).collect();
        Ok(hit)
    }
}

/// As they were stored, or the other way round.
fn stored(docs: &RoaringBitmap, descending: bool, after: Option<&Value>, wanted: usize) -> Vec<u32> {
    let after = after.and_then(Value::as_u64).and_then(|after| u32::try_from(after).ok());
    let behind = |doc: &u32| after.is_none_or(|after| if descending { *doc < after } else { *doc > after });
    if descending {
        docs.iter().rev().filter(behind).take(wanted).collect()
    } else {
        docs.iter().filter(behind).take(wanted).collect()
    }
}

/// Which of two values comes first.
fn compare(sort: &Sort, a: &Place, b: &Place) -> Ordering {
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

/// A value as it is shown.
pub fn to_json(kind: FieldType, value: Option<&[u8]>) -> Value {
    let Some(value) = value else { return Value::Null };
    let shown = match kind {
        FieldType::Long | FieldType::Date => values::to_long(value).map(Value::from),
        FieldType::Double => values::to_double(value).map(Value::from),
        FieldType::Boolean => value.first().map(|&byte| Value::Bool(byte == 1)),
        FieldType::Ip => values::to_ip(value).map(|address| Value::from(address.to_string())),
        FieldType::Text | FieldType::Keyword | FieldType::GeoPoint => {
            Some(Value::from(String::from_utf8_lossy(value).into_owned()))
        }
    };
    shown.unwrap_or(Value::Null)
}

/// The opposite of [`to_json`].
fn from_json(kind: FieldType, value: &Value) -> Result<Place, StoreError> {
    let unfit = || {
        StoreError::Invalid(format!(
            "Failed to parse search_after value [{value}] for a field of type {}",
            kind.name()
        ))
    };
    if value.is_null() {
        return Ok(None);
    }
    let bytes = match kind {
        FieldType::Long | FieldType::Date => value.as_i64().map(|number| values::long(number).to_vec()),
        FieldType::Double => value.as_f64().map(|number| values::double(number).to_vec()),
        FieldType::Boolean => value.as_bool().map(|value| values::boolean(value).to_vec()),
        FieldType::Ip => {
            value.as_str().and_then(|text| text.parse().ok()).map(|address| values::ip(address).to_vec())
        }
        FieldType::Text | FieldType::Keyword | FieldType::GeoPoint => {
            value.as_str().map(|text| text.as_bytes().to_vec())
        }
    };
    bytes.map(Some).ok_or_else(unfit)
}
