//! The values that aggregations work on: fields of the mapping, and `_index`, `_type` and `_id`.
//!
//! An aggregation asks for the documents of each value, in the order of values. At the top level these come from the
//! segments. Inside buckets the same field is asked for once per bucket, so the values of all documents of the search
//! are collected once, in a [`Column`].

use std::cmp::Ordering;
use std::collections::HashMap;
use std::rc::Rc;

use roaring::RoaringBitmap;
use rusqlite::OptionalExtension;

use super::super::bounds::{to_integer, to_number, value_text};
use super::super::catalog::field_ids;
use super::super::plan::{QueryPlan, exists_plan, term_key};
use super::super::terms::each_term;
use super::super::{ids, text, values};
use super::AggregationRun;
use super::format::ValueFormat;
use crate::search::date::{DateFormat, Rounding};
use crate::search::mapping::FieldType;
use crate::search::query::QueryValue;
use crate::search::query::aggregations::ValueSource;
use crate::search::store::StoreError;

/// Maximum number of pairs of document and value in a column. Above it, values are looked up for each bucket.
const COLUMN_PAIRS_MAX: usize = 4 << 20;

/// Type of a document that was sent without one.
const DEFAULT_TYPE: &str = "_doc";

/// Fields that no mapping contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum MetadataField {
    Id,
    Index,
    Type,
}

impl MetadataField {
    pub(in super::super) fn from_name(name: &str) -> Option<MetadataField> {
        match name {
            "_id" => Some(MetadataField::Id),
            "_index" => Some(MetadataField::Index),
            "_type" => Some(MetadataField::Type),
            _ => None,
        }
    }
}

/// A field of an aggregation, found in the indices of the search.
#[derive(Clone, Debug)]
pub(in super::super) struct AggregatedField {
    pub name: String,
    /// Type of the first index that has the field.
    pub kind: FieldType,
    /// Index id, field id and type per index.
    parts: Vec<(u16, u16, FieldType)>,
    metadata: Option<MetadataField>,
    /// The type as declared in the mapping.
    pub type_name: String,
    /// `format` of a date field.
    pub date_format: Option<String>,
    /// Encoded value of the documents without one.
    missing: Option<Vec<u8>>,
}

impl AggregatedField {
    /// A field of which no index knows anything but the type.
    pub(in super::super) fn unmapped(name: &str, kind: FieldType) -> AggregatedField {
        AggregatedField {
            name: name.to_owned(),
            kind,
            parts: Vec::new(),
            metadata: None,
            type_name: kind.name().to_owned(),
            date_format: None,
            missing: None,
        }
    }

    pub(in super::super) fn is_numeric(&self) -> bool {
        let is_number = |kind: FieldType| {
            matches!(kind, FieldType::Long | FieldType::Double | FieldType::Boolean | FieldType::Date)
        };
        self.metadata.is_none() && is_number(self.kind)
    }

    /// Decodes a value as a number.
    pub(in super::super) fn number(&self, value: &[u8]) -> f64 {
        self.number_of(self.kind, value)
    }

    fn number_of(&self, kind: FieldType, value: &[u8]) -> f64 {
        let number = match kind {
            FieldType::Long | FieldType::Date => values::decode_long(value).map(|number| number as f64),
            FieldType::Double => values::decode_double(value),
            FieldType::Boolean => value.first().map(|byte| f64::from(*byte)),
            _ => None,
        };
        let number = number.unwrap_or_default();
        // Elasticsearch stores these with 32 bits.
        if matches!(self.type_name.as_str(), "float" | "half_float") {
            f64::from(number as f32)
        } else {
            number
        }
    }

    /// Pairs of index id and field id.
    pub(in super::super) fn field_ids(&self) -> Vec<(u16, u16)> {
        self.parts.iter().map(|(index, field, _)| (*index, *field)).collect()
    }

    /// True if the values come from the mapping and nothing is added to them.
    pub(in super::super) fn is_plain(&self) -> bool {
        self.metadata.is_none() && self.missing.is_none()
    }

    /// Format of the values in answers.
    pub(in super::super) fn value_format(&self, source: &ValueSource) -> ValueFormat {
        let format = source.format.as_deref();
        ValueFormat::new(self.kind, format.or(self.date_format.as_deref()), format, source.zone)
    }

    /// Encodes a value that a request contains.
    pub(in super::super) fn encode(
        &self,
        value: &QueryValue,
        source: &ValueSource,
    ) -> Result<Vec<u8>, StoreError> {
        let text = value_text(value);
        let invalid = || StoreError::Invalid(format!("For input string: \"{text}\""));
        let bytes = match self.kind {
            FieldType::Text | FieldType::Keyword | FieldType::GeoPoint => text.clone().into_bytes(),
            FieldType::Long => {
                let number = to_integer(value).or_else(|| to_number(value).map(|number| number as i64));
                values::encode_long(number.ok_or_else(invalid)?).to_vec()
            }
            FieldType::Date => values::encode_long(self.parse_date(value, source, 0)?).to_vec(),
            FieldType::Double => values::encode_double(to_number(value).ok_or_else(invalid)?).to_vec(),
            FieldType::Boolean => {
                let is_true = match value {
                    QueryValue::Bool(value) => *value,
                    QueryValue::Text(text) => text == "true" || text == "1",
                    value => to_number(value) == Some(1.0),
                };
                values::encode_boolean(is_true).to_vec()
            }
            FieldType::Ip => {
                let address = text
                    .parse()
                    .map_err(|_| StoreError::Invalid(format!("'{text}' is not an IP string literal.")))?;
                values::encode_ip(address).to_vec()
            }
        };
        Ok(bytes)
    }

    /// Reads a date of a request, by the format of the aggregation or else of the field.
    pub(in super::super) fn parse_date(
        &self,
        value: &QueryValue,
        source: &ValueSource,
        now_ms: i64,
    ) -> Result<i64, StoreError> {
        if let (QueryValue::Long(ms), None) = (value, &source.format) {
            return Ok(*ms);
        }
        let format = source.format.as_deref().or(self.date_format.as_deref());
        let format = format.map(DateFormat::parse).transpose();
        let format = format.map_err(|error| StoreError::Invalid(error.to_string()))?;
        let format = format.as_ref().unwrap_or(&text::DEFAULT_DATE_FORMAT);
        let date = crate::search::date::parse_instant(
            &value_text(value),
            format,
            now_ms,
            source.zone,
            Rounding::Down,
        );
        date.map_err(|error| StoreError::Invalid(format!("{error}: [{error}]")))
    }
}

/// The values of one field of all documents of a search.
#[derive(Debug, Default)]
pub(in super::super) struct Column {
    values: Vec<Box<[u8]>>,
    /// Document and number of the value, sorted.
    pairs: Vec<(u32, u32)>,
}

impl Column {
    /// Returns pairs of the number of a value and a document, sorted.
    fn select(&self, docs: &RoaringBitmap) -> Vec<(u32, u32)> {
        let mut selected = Vec::new();
        let is_sparse = docs.len() < (self.pairs.len() / 16) as u64;
        if is_sparse {
            for doc in docs {
                let from = self.pairs.partition_point(|(other, _)| *other < doc);
                let of_doc = self.pairs[from..].iter().take_while(|(other, _)| *other == doc);
                selected.extend(of_doc.map(|(doc, value)| (*value, *doc)));
            }
        } else {
            let mut docs = docs.iter().peekable();
            for (doc, value) in &self.pairs {
                while docs.next_if(|other| other < doc).is_some() {}
                if docs.peek() == Some(doc) {
                    selected.push((*value, *doc));
                }
            }
        }
        selected.sort_unstable();
        selected
    }

    /// Calls `visit` with each value and its pairs of value and document among `docs`, in the order of values.
    fn each_group(
        &self,
        docs: &RoaringBitmap,
        mut visit: impl FnMut(&[u8], &[(u32, u32)]) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for group in self.select(docs).chunk_by(|a, b| a.0 == b.0) {
            if !visit(&self.values[group[0].0 as usize], group)? {
                break;
            }
        }
        Ok(())
    }
}

/// Called with a value and its documents. Returns false to stop.
pub(in super::super) type GroupVisitor<'v> = dyn FnMut(&[u8], RoaringBitmap) -> Result<bool, StoreError> + 'v;

/// Called with a value and the number of its documents. Returns false to stop.
pub(in super::super) type CountVisitor<'v> = dyn FnMut(&[u8], u64) -> Result<bool, StoreError> + 'v;

impl AggregationRun<'_> {
    /// Finds a field. `None`: no index has it, and documents without a value have none.
    pub(super) fn field(
        &self,
        source: &ValueSource,
        default_kind: FieldType,
    ) -> Result<Option<AggregatedField>, StoreError> {
        let Some(mut field) = self.lookup(&source.field)? else {
            let Some(missing) = &source.missing else { return Ok(None) };
            let kind = match missing {
                _ if default_kind == FieldType::Date => FieldType::Date,
                QueryValue::Text(_) => FieldType::Keyword,
                QueryValue::Long(_) => FieldType::Long,
                QueryValue::Double(_) => FieldType::Double,
                QueryValue::Bool(_) => FieldType::Boolean,
            };
            let mut field = AggregatedField::unmapped(&source.field, kind);
            field.missing = Some(field.encode(missing, source)?);
            return Ok(Some(field));
        };
        if let Some(missing) = &source.missing {
            field.missing = Some(field.encode(missing, source)?);
        }
        Ok(Some(field))
    }

    fn lookup(&self, name: &str) -> Result<Option<AggregatedField>, StoreError> {
        if let Some(metadata) = MetadataField::from_name(name) {
            let field = AggregatedField::unmapped(name, FieldType::Keyword);
            let type_name = name.to_owned();
            return Ok(Some(AggregatedField { metadata: Some(metadata), type_name, ..field }));
        }
        let mut found: Option<AggregatedField> = None;
        for index in &self.run.indices {
            let fields = index.fields();
            let Some(entry) = fields.get(name) else { continue };
            let kind = entry.field.field_type;
            if kind == FieldType::Text {
                return Err(StoreError::Invalid(text_field_error(name)));
            }
            match &mut found {
                None => {
                    found = Some(AggregatedField {
                        parts: vec![(index.id, entry.id, kind)],
                        type_name: entry.field.type_name().to_owned(),
                        date_format: entry.field.format.clone(),
                        ..AggregatedField::unmapped(name, kind)
                    });
                }
                Some(known) => known.parts.push((index.id, entry.id, kind)),
            }
        }
        Ok(found)
    }

    /// Rejects a field whose values have different types in the indices, because these cannot be compared.
    fn expect_one_type(field: &AggregatedField) -> Result<(), StoreError> {
        match field.parts.iter().find(|(_, _, kind)| *kind != field.kind) {
            Some((_, _, other)) => {
                let (name, one, other) = (&field.name, field.kind.name(), other.name());
                Err(StoreError::Invalid(format!(
                    "[{name}] is of type {one} in one index and of type {other} in another"
                )))
            }
            None => Ok(()),
        }
    }

    /// Calls `visit` with each value and its documents among `docs`, in the order of values.
    pub(super) fn each_group(
        &self,
        field: &AggregatedField,
        docs: &RoaringBitmap,
        depth: usize,
        visit: &mut GroupVisitor<'_>,
    ) -> Result<(), StoreError> {
        Self::expect_one_type(field)?;
        if docs.is_empty() {
            return Ok(());
        }
        let Some(missing) = &field.missing else { return self.each_stored_group(field, docs, depth, visit) };
        let mut rest = Some(self.docs_without(field, docs)?);
        let mut goes_on = true;
        self.each_stored_group(field, docs, depth, &mut |value, mut found| {
            match value.cmp(missing) {
                Ordering::Less => {}
                Ordering::Equal => found |= rest.take().unwrap_or_default(),
                Ordering::Greater => {
                    if let Some(rest) = rest.take().filter(|rest| !rest.is_empty())
                        && !visit(missing, rest)?
                    {
                        goes_on = false;
                        return Ok(false);
                    }
                }
            }
            goes_on = visit(value, found)?;
            Ok(goes_on)
        })?;
        match rest.filter(|rest| goes_on && !rest.is_empty()) {
            Some(rest) => visit(missing, rest).map(drop),
            None => Ok(()),
        }
    }

    /// Calls `visit` with each value and the number of its documents among `docs`, in the order of values.
    pub(super) fn each_count(
        &self,
        field: &AggregatedField,
        docs: &RoaringBitmap,
        depth: usize,
        visit: &mut CountVisitor<'_>,
    ) -> Result<(), StoreError> {
        Self::expect_one_type(field)?;
        if docs.is_empty() {
            return Ok(());
        }
        if !field.is_plain() {
            return self.each_group(field, docs, depth, &mut |value, docs| visit(value, docs.len()));
        }
        match self.column(field, depth)? {
            Some(column) => column.each_group(docs, |value, group| visit(value, group.len() as u64)),
            None => self.walk_counts(&field.field_ids(), docs, visit),
        }
    }

    /// Calls `visit` with the number for each value and the number of its documents, in no defined order.
    pub(super) fn each_number(
        &self,
        field: &AggregatedField,
        docs: &RoaringBitmap,
        depth: usize,
        visit: &mut dyn FnMut(f64, u64),
    ) -> Result<(), StoreError> {
        let is_uniform = field.parts.iter().all(|(_, _, kind)| *kind == field.kind);
        if is_uniform {
            return self.each_count(field, docs, depth, &mut |value, count| {
                visit(field.number(value), count);
                Ok(true)
            });
        }
        for (index, id, kind) in &field.parts {
            self.walk_counts(&[(*index, *id)], docs, &mut |value, count| {
                visit(field.number_of(*kind, value), count);
                Ok(true)
            })?;
        }
        if let Some(missing) = &field.missing {
            visit(field.number(missing), self.docs_without(field, docs)?.len());
        }
        Ok(())
    }

    fn each_stored_group(
        &self,
        field: &AggregatedField,
        docs: &RoaringBitmap,
        depth: usize,
        visit: &mut GroupVisitor<'_>,
    ) -> Result<(), StoreError> {
        match field.metadata {
            Some(MetadataField::Index) => return self.each_index(docs, visit),
            Some(MetadataField::Type) => return self.each_type(docs, visit),
            Some(MetadataField::Id) => return self.each_id(docs, visit),
            None => {}
        }
        match self.column(field, depth)? {
            Some(column) => column
                .each_group(docs, |value, group| visit(value, group.iter().map(|(_, doc)| *doc).collect())),
            None => self.walk_groups(&field.field_ids(), docs, visit),
        }
    }

    /// Walks over the terms in the segments.
    pub(super) fn walk_groups(
        &self,
        fields: &[(u16, u16)],
        docs: &RoaringBitmap,
        visit: &mut GroupVisitor<'_>,
    ) -> Result<(), StoreError> {
        let (mut current, mut found): (Option<Vec<u8>>, _) = (None, RoaringBitmap::new());
        let mut goes_on = true;
        each_term(self.run.context, fields, false, |entry| {
            if current.as_deref() != Some(entry.value) {
                let found = std::mem::take(&mut found);
                if let Some(value) = current.replace(entry.value.to_vec()).filter(|_| !found.is_empty())
                    && !visit(&value, found)?
                {
                    goes_on = false;
                    return Ok(false);
                }
            }
            entry.add_to(&mut found, docs)?;
            Ok(true)
        })?;
        match current {
            Some(value) if goes_on && !found.is_empty() => visit(&value, found).map(drop),
            _ => Ok(()),
        }
    }

    fn walk_counts(
        &self,
        fields: &[(u16, u16)],
        docs: &RoaringBitmap,
        visit: &mut CountVisitor<'_>,
    ) -> Result<(), StoreError> {
        let are_all = self.covers_all_docs(docs)?;
        let (mut current, mut count): (Option<Vec<u8>>, u64) = (None, 0);
        let mut goes_on = true;
        each_term(self.run.context, fields, false, |entry| {
            if current.as_deref() != Some(entry.value) {
                let count = std::mem::take(&mut count);
                if let Some(value) = current.replace(entry.value.to_vec()).filter(|_| count > 0)
                    && !visit(&value, count)?
                {
                    goes_on = false;
                    return Ok(false);
                }
            }
            count += if are_all { u64::from(entry.total) } else { entry.count_in(docs)? };
            Ok(true)
        })?;
        match current {
            Some(value) if goes_on && count > 0 => visit(&value, count).map(drop),
            _ => Ok(()),
        }
    }

    /// Returns the column of a field, if the values are wanted inside buckets and not too many.
    fn column(&self, field: &AggregatedField, depth: usize) -> Result<Option<Rc<Column>>, StoreError> {
        if depth == 0 || field.metadata.is_some() {
            return Ok(None);
        }
        if let Some(known) = self.columns.borrow().get(&field.name) {
            return Ok(known.clone());
        }
        let built = self.build_column(&field.field_ids())?.map(Rc::new);
        self.columns.borrow_mut().insert(field.name.clone(), built.clone());
        Ok(built)
    }

    fn build_column(&self, fields: &[(u16, u16)]) -> Result<Option<Column>, StoreError> {
        let (mut column, mut fits) = (Column::default(), true);
        each_term(self.run.context, fields, false, |entry| {
            let mut number = column.values.len();
            let is_known = column.values.last().is_some_and(|last| **last == *entry.value);
            number -= usize::from(is_known);
            let before = column.pairs.len();
            let pairs = &mut column.pairs;
            entry.each_run(|from, run| {
                let value = number as u32;
                if run == 1 {
                    pairs.extend(self.docs.contains(from).then_some((from, value)));
                } else {
                    pairs.extend(self.docs.range(from..from + run).map(|doc| (doc, value)));
                }
            })?;
            if pairs.len() > before && !is_known {
                column.values.push(entry.value.into());
            }
            self.run
                .context
                .charge((column.pairs.len() - before) * size_of::<(u32, u32)>() + entry.value.len())?;
            fits = column.pairs.len() <= COLUMN_PAIRS_MAX;
            Ok(fits)
        })?;
        column.pairs.sort_unstable();
        Ok(fits.then_some(column))
    }

    /// Returns the documents without a value.
    pub(super) fn docs_without(
        &self,
        field: &AggregatedField,
        docs: &RoaringBitmap,
    ) -> Result<RoaringBitmap, StoreError> {
        if field.metadata.is_some() {
            return Ok(RoaringBitmap::new());
        }
        let mut left = docs.clone();
        for (index, id, _) in &field.parts {
            left -= self.run.context.find(*index, &exists_plan(*index, *id))?;
        }
        Ok(left)
    }

    fn each_index(&self, docs: &RoaringBitmap, visit: &mut GroupVisitor<'_>) -> Result<(), StoreError> {
        // The indices are sorted by name.
        for index in &self.run.indices {
            let all = QueryPlan::Term(term_key(index.id, field_ids::ALL, &[]));
            let found = self.run.context.find(index.id, &all)? & docs;
            if !found.is_empty() && !visit(index.name.as_bytes(), found)? {
                break;
            }
        }
        Ok(())
    }

    fn each_type(&self, docs: &RoaringBitmap, visit: &mut GroupVisitor<'_>) -> Result<(), StoreError> {
        let fields: Vec<_> = self.run.indices.iter().map(|index| (index.id, field_ids::DOC_TYPE)).collect();
        let mut types: Vec<(Vec<u8>, RoaringBitmap)> = Vec::new();
        let mut rest = docs.clone();
        self.walk_groups(&fields, docs, &mut |value, found| {
            rest -= &found;
            types.push((value.to_vec(), found));
            Ok(true)
        })?;
        match types.iter_mut().find(|(value, _)| value == DEFAULT_TYPE.as_bytes()) {
            Some((_, found)) => *found |= rest,
            None if !rest.is_empty() => types.push((DEFAULT_TYPE.into(), rest)),
            None => {}
        }
        types.sort_by(|a, b| a.0.cmp(&b.0));
        for (value, found) in types {
            if !visit(&value, found)? {
                break;
            }
        }
        Ok(())
    }

    fn each_id(&self, docs: &RoaringBitmap, visit: &mut GroupVisitor<'_>) -> Result<(), StoreError> {
        let mut found: Vec<(String, u32)> = Vec::new();
        for (nth, doc) in docs.iter().enumerate() {
            if nth % 256 == 0 {
                self.run.context.check_deadline()?;
            }
            if found.len() >= COLUMN_PAIRS_MAX {
                return Err(StoreError::Invalid(format!(
                    "[_id] can be used for at most {COLUMN_PAIRS_MAX} documents"
                )));
            }
            self.run.context.charge(64)?;
            found.push((self.run.read_id(doc)?, doc));
        }
        found.sort_unstable();
        for group in found.chunk_by(|a, b| a.0 == b.0) {
            if !visit(group[0].0.as_bytes(), group.iter().map(|(_, doc)| *doc).collect())? {
                break;
            }
        }
        Ok(())
    }
}

impl super::super::search::SearchRun<'_> {
    /// Reads the id of a document.
    pub(in super::super) fn read_id(&self, doc: u32) -> Result<String, StoreError> {
        let mut statement =
            self.context.connection.prepare_cached("SELECT id FROM documents WHERE doc = ?1")?;
        let id: Option<Option<String>> = statement.query_row([doc], |row| row.get(0)).optional()?;
        Ok(id.flatten().unwrap_or_else(|| ids::make_id(&self.state.secret, doc)))
    }
}

/// Elasticsearch's message about a text field that is sorted or aggregated.
pub(in crate::search) fn text_field_error(name: &str) -> String {
    format!(
        "Text fields are not optimised for operations that require per-document field data like aggregations and \
         sorting, so these operations are disabled by default. Please use a keyword field instead. Alternatively, set \
         fielddata=true on [{name}] in order to load field data by uninverting the inverted index. Note that this can \
         use significant memory."
    )
}

/// Columns by the name of their field. `None`: too many values.
pub(in super::super) type Columns = HashMap<String, Option<Rc<Column>>>;
