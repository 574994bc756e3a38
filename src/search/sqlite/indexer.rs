//! Document indexer: turns a document into the terms by which it is found. Runs in the caller's thread.

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::catalog::{
    Catalog, FieldEntry, IndexEntry, IndexFields, MappingConflict, canonical_field, field_ids, is_hidden,
};
use super::field_values::{
    LeafValue, parse_boolean, parse_date, parse_float, parse_integer, parse_ip, parse_keyword,
};
use super::segment::TermBatch;
use super::{text, values};
use crate::runtime::json::{self, JsonObject, parse_value};
use crate::search::geo::GeoPoint;
use crate::search::index_templates::IndexTemplates;
use crate::search::mapping::{Dynamic, FIELDS_MAX, Field, FieldType, dynamic};
use crate::search::query::canonical_numbers::NUMBER_SUFFIX;
use crate::search::store::WriteRejected;

/// Deepest nesting of objects (the default of Elasticsearch).
const DEPTH_MAX: usize = 20;

/// Maximum number of attempts to index a document. Each attempt follows the addition of fields that the last one
/// found to be new.
const ATTEMPTS_MAX: usize = 8;

/// Maximum number of paths of a document in `_ignored`.
const IGNORED_MAX: usize = 64;

/// Maximum length of a path in `_ignored`. Longer ones are truncated.
const IGNORED_BYTES_MAX: usize = 256;

/// Fields of Elasticsearch that a document cannot contain.
const METADATA_FIELDS: [&str; 14] = [
    "_id",
    "_index",
    "_type",
    "_source",
    "_routing",
    "_field_names",
    "_seq_no",
    "_primary_term",
    "_version",
    "_ignored",
    "_nested_path",
    "_tier",
    "_doc_count",
    "_feature",
];

/// Distance of positions between two values of a field.
const POSITION_GAP: u32 = 100;

/// Function that returns the canonical number for the name and the value of a field, if there is one.
pub type CanonicalNumberFn = Arc<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// Terms of one document.
#[derive(Debug, Default)]
pub(super) struct DocumentTerms {
    bytes: Vec<u8>,
    /// End of each key in `bytes`, and its position.
    keys: Vec<(usize, Option<u32>)>,
    /// Paths of the members that could not be indexed.
    ignored: Vec<String>,
    /// Time of the event in milliseconds since 1970.
    pub time_ms: i64,
}

impl DocumentTerms {
    fn clear(&mut self) {
        self.bytes.clear();
        self.keys.clear();
        self.ignored.clear();
    }

    fn add(&mut self, index: u16, field: u16, value: &[u8], position: Option<u32>) {
        self.bytes.extend_from_slice(&index.to_be_bytes());
        self.bytes.extend_from_slice(&field.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.keys.push((self.bytes.len(), position));
    }

    /// Returns the values of a field.
    pub(super) fn walk_values(&self, field: u16) -> impl Iterator<Item = &[u8]> {
        let ends = self.keys.iter().map(|&(end, _)| end);
        let starts = std::iter::once(0).chain(ends.clone());
        let keys = starts.zip(ends).map(|(from, end)| &self.bytes[from..end]);
        keys.filter(move |key| key[2..4] == field.to_be_bytes()).map(|key| &key[4..])
    }

    /// Adds the terms to a batch.
    pub(super) fn add_to_batch(&self, batch: &mut TermBatch, doc: u32) {
        let mut from = 0;
        for &(end, position) in &self.keys {
            batch.add(&self.bytes[from..end], doc, position);
            from = end;
        }
    }
}

/// Indexer of documents.
#[derive(Clone)]
pub(super) struct DocumentIndexer {
    pub catalog: Arc<Catalog>,
    /// Normalizer of phone numbers.
    pub canonical_number: CanonicalNumberFn,
    pub templates: IndexTemplates,
}

/// Purpose of indexing a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IndexingMode {
    /// The document is new.
    Write,
    /// The document was stored, and its terms are needed again. Nothing is added to the index, and nothing is rejected.
    Read,
}

/// Reason why indexing stopped.
enum WalkStop {
    Rejected(WriteRejected),
    /// Fields that must be added before another attempt.
    NewFields(Vec<(String, Field)>),
}

impl From<WriteRejected> for WalkStop {
    fn from(rejected: WriteRejected) -> WalkStop {
        WalkStop::Rejected(rejected)
    }
}

impl DocumentIndexer {
    /// Collects the terms of a source and adds new fields to the index. `now_ms` is the time of arrival.
    pub(super) fn index_document(
        &self,
        index: &IndexEntry,
        doc_type: Option<&str>,
        source: &[u8],
        now_ms: i64,
        mode: IndexingMode,
        terms: &mut DocumentTerms,
    ) -> Result<(), WriteRejected> {
        let accepts_all = mode == IndexingMode::Read || self.templates.is_own(&index.name);
        let mut adds_fields = mode == IndexingMode::Write;
        // A byte order mark at the start is not part of the document.
        let source = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
        let repaired = json::repaired(source);
        let object: JsonObject<'_> = serde_json::from_slice(repaired.as_deref().unwrap_or(source))
            .map_err(|error| invalid_document(format!("failed to parse: {error}")))?;
        let object = &object;
        for attempt in 0.. {
            if attempt == ATTEMPTS_MAX && !accepts_all {
                return Err(invalid_document(
                    "its new fields conflict with fields of other documents".to_owned(),
                ));
            }
            adds_fields &= attempt < ATTEMPTS_MAX;
            terms.clear();
            let fields = index.fields();
            let mut walk = DocumentWalk {
                indexer: self,
                index: index.id,
                fields: &fields,
                accepts_all,
                adds_fields,
                mode,
                terms,
                path: String::new(),
                depth: 0,
                new_fields: Vec::new(),
                text_ends: Vec::new(),
            };
            let walked = walk.walk_object(object);
            let new = std::mem::take(&mut walk.new_fields);
            match if new.is_empty() { walked } else { walked.and(Err(WalkStop::NewFields(new))) } {
                Ok(()) => break,
                Err(WalkStop::Rejected(rejected)) => return Err(rejected),
                Err(WalkStop::NewFields(_)) if attempt > ATTEMPTS_MAX => break,
                Err(WalkStop::NewFields(new)) => match self.add_fields(index, &new) {
                    // The next attempt adds hidden fields only, for which there is always room.
                    Err(_) if accepts_all && adds_fields => adds_fields = false,
                    Err(_) if accepts_all => break,
                    added => added?,
                },
            }
        }
        let string = |name: &str| json::string_value(object.get(name)?);
        let time_ms = self.templates.event_time_ms(string, &|name| object.scalar(name));
        terms.time_ms = time_ms.unwrap_or(now_ms);
        add_common_terms(index.id, doc_type, terms);
        Ok(())
    }

    /// Adds fields. If another thread added one with another type first, the next attempt uses that type.
    fn add_fields(&self, index: &IndexEntry, new: &[(String, Field)]) -> Result<(), WriteRejected> {
        match self.catalog.add_fields(index, new) {
            Ok(()) | Err(MappingConflict::Type { .. }) => Ok(()),
            Err(clash) => Err(invalid_document(clash.to_string())),
        }
    }
}

/// Adds the terms of every document: its index, time, type and fields.
fn add_common_terms(index: u16, doc_type: Option<&str>, terms: &mut DocumentTerms) {
    let mut present: Vec<u16> = Vec::new();
    let mut from = 0;
    for &(end, _) in &terms.keys {
        let key = &terms.bytes[from..end];
        let field = u16::from_be_bytes([key[2], key[3]]);
        if field & field_ids::HOURS == 0 && field >= field_ids::FIRST && !present.contains(&field) {
            present.push(field);
        }
        from = end;
    }
    terms.add(index, field_ids::ALL, &[], None);
    for field in present {
        terms.add(index, field_ids::EXISTS, &field.to_be_bytes(), None);
    }
    if let Some(doc_type) = doc_type {
        terms.add(index, field_ids::DOC_TYPE, doc_type.as_bytes(), None);
    }
    let ignored = std::mem::take(&mut terms.ignored);
    if !ignored.is_empty() {
        terms.add(index, field_ids::EXISTS, &field_ids::IGNORED.to_be_bytes(), None);
    }
    ignored.iter().for_each(|path| terms.add(index, field_ids::IGNORED, path.as_bytes(), None));
    add_date_terms(terms, index, field_ids::EVENT_TIME, terms.time_ms);
}

fn add_date_terms(terms: &mut DocumentTerms, index: u16, field: u16, at_ms: i64) {
    terms.add(index, field, &values::encode_long(at_ms), None);
    terms.add(index, field | field_ids::HOURS, &values::encode_long(at_ms.div_euclid(values::HOUR_MS)), None);
}

fn invalid_document(reason: String) -> WriteRejected {
    WriteRejected::Invalid(reason)
}

/// One pass over the values of a document.
struct DocumentWalk<'a> {
    indexer: &'a DocumentIndexer,
    index: u16,
    fields: &'a IndexFields,
    /// True if a member that cannot be indexed is ignored. False if it rejects the document.
    accepts_all: bool,
    /// True if unknown members become fields.
    adds_fields: bool,
    mode: IndexingMode,
    terms: &'a mut DocumentTerms,
    path: String,
    depth: usize,
    new_fields: Vec<(String, Field)>,
    /// Position after the last word, per text field.
    text_ends: Vec<(u16, u32)>,
}

impl DocumentWalk<'_> {
    fn walk_object(&mut self, object: &JsonObject<'_>) -> Result<(), WalkStop> {
        if self.depth == DEPTH_MAX {
            return self.refuse(format!("Limit of mapping depth [{DEPTH_MAX}] has been exceeded"));
        }
        self.check_names(object)?;
        self.depth += 1;
        for (name, value) in &object.0 {
            let before = self.path.len();
            if before > 0 {
                self.path.push('.');
            }
            self.path.push_str(name);
            if before == 0 && METADATA_FIELDS.contains(&name.as_ref()) {
                self.refuse(format!(
                    "Field [{name}] is a metadata field and cannot be added inside a document. Use the index API \
                     request parameters."
                ))?;
            } else if name.is_empty() || name.split('.').any(|part| part.trim().is_empty()) {
                self.refuse(format!("field name [{name}] cannot be empty or have an empty part"))?;
            } else {
                self.values(value)?;
            }
            self.path.truncate(before);
        }
        self.depth -= 1;
        Ok(())
    }

    /// Rejects an object with a repeated name: it cannot be told which value is meant.
    fn check_names(&mut self, object: &JsonObject<'_>) -> Result<(), WalkStop> {
        if self.accepts_all {
            return Ok(());
        }
        let mut names: Vec<&str> = object.0.iter().map(|(name, _)| name.as_ref()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => self.refuse(format!("failed to parse: Duplicate field '{}'", pair[0])),
            None => Ok(()),
        }
    }

    /// Indexes a value, or all values of an array.
    fn values(&mut self, value: &RawValue) -> Result<(), WalkStop> {
        let is_geo_point = |fields: &IndexFields, path: &str| {
            fields.get(path).is_some_and(|entry| entry.field.field_type == FieldType::GeoPoint)
        };
        match value.get().as_bytes().first() {
            Some(b'n') => Ok(()),
            _ if self.fields.rules.is_disabled(&self.path) => Ok(()),
            _ if is_geo_point(self.fields, &self.path) => self.walk_leaf(value),
            Some(b'{') => self.walk_inner_object(value),
            Some(b'[') => self.walk_array(value, 0),
            _ => self.walk_leaf(value),
        }
    }

    /// Indexes an object that is the value of a member.
    fn walk_inner_object(&mut self, value: &RawValue) -> Result<(), WalkStop> {
        if self.accepts_all && self.fields.get(&self.path).is_some() {
            // The field has values, and a field with values cannot have members.
            self.ignore();
            return Ok(());
        }
        match serde_json::from_str::<JsonObject<'_>>(value.get()) {
            Ok(object) => self.walk_object(&object),
            Err(error) => self.refuse(format!("failed to parse: {error}")),
        }
    }

    fn walk_array(&mut self, value: &RawValue, depth: usize) -> Result<(), WalkStop> {
        if depth > DEPTH_MAX {
            return self.refuse(format!("Limit of mapping depth [{DEPTH_MAX}] has been exceeded"));
        }
        let array: Vec<&RawValue> = match serde_json::from_str(value.get()) {
            Ok(array) => array,
            Err(error) => return self.refuse(format!("failed to parse: {error}")),
        };
        for value in array {
            match value.get().as_bytes().first() {
                Some(b'[') => self.walk_array(value, depth + 1)?,
                Some(b'{') => self.walk_inner_object(value)?,
                Some(b'n') => {}
                _ => self.walk_leaf(value)?,
            }
        }
        Ok(())
    }

    /// Indexes a single value.
    fn walk_leaf(&mut self, raw: &RawValue) -> Result<(), WalkStop> {
        let value = match parse_value(raw.get().as_bytes()) {
            Ok(value) => value,
            Err(error) => return self.refuse(format!("failed to parse: {error}")),
        };
        let value = LeafValue { value: &value, written: raw.get() };
        let fields = self.fields;
        let Some(entry) = fields.get(&self.path) else {
            return self.add_unknown_field(value.value);
        };
        if is_hidden(&self.path) {
            return self.refuse(MappingConflict::ReservedName(self.path.clone()).to_string());
        }
        if let Some(parent) = &entry.field.parent {
            return self.refuse(MappingConflict::ObjectOverValue(parent.clone()).to_string());
        }
        self.add_or_ignore(entry, value)?;
        for sub in entry.sub_fields.iter().filter_map(|sub| fields.get(sub)) {
            self.add_or_ignore(sub, value)?;
        }
        self.add_canonical_number(entry, value);
        Ok(())
    }

    fn add_unknown_field(&mut self, value: &Value) -> Result<(), WalkStop> {
        // Looking through more of them for each member would take time in proportion to the square of the document.
        if self.new_fields.len() > FIELDS_MAX {
            return self.refuse(MappingConflict::Fields.to_string());
        }
        if self.new_fields.iter().any(|(name, _)| *name == self.path) {
            return Ok(());
        }
        if self.accepts_all
            && (!self.adds_fields || is_hidden(&self.path) || self.fields.has_below(&self.path))
        {
            self.ignore();
            return Ok(());
        }
        if self.fields.has_below(&self.path) {
            let path = &self.path;
            return self.refuse(format!(
                "object mapping for [{path}] tried to parse field [{path}] as object, but found a concrete value"
            ));
        }
        match self.fields.dynamic {
            Dynamic::False => Ok(()),
            Dynamic::Strict => {
                let (above, name) = self.path.rsplit_once('.').unwrap_or(("_doc", &self.path));
                let text = format!(
                    "mapping set to strict, dynamic introduction of [{name}] within [{above}] is not allowed"
                );
                self.refuse(text)
            }
            Dynamic::True => {
                // The first text must not decide that all others have to be dates.
                let is_date = |text: &str| !self.accepts_all && text::is_date(text);
                self.new_fields.extend(dynamic::detect_fields(
                    &self.path,
                    value,
                    &self.fields.rules,
                    is_date,
                ));
                Ok(())
            }
        }
    }

    /// Adds the canonical number of a value.
    fn add_canonical_number(&mut self, entry: &FieldEntry, value: LeafValue<'_>) {
        if !(value.value.is_string() || value.value.is_number()) {
            return;
        }
        let text = value.text();
        let Some(number) = (self.indexer.canonical_number)(&self.path, &text) else { return };
        match entry.canonical_id {
            Some(canonical_id) => {
                self.terms.add(self.index, canonical_id, number.as_bytes(), None);
                self.terms.add(self.index, field_ids::ALL_NUMBERS, number.as_bytes(), None);
            }
            None if self.mode == IndexingMode::Read => {}
            None => {
                let name = format!("{}{}", self.path, NUMBER_SUFFIX);
                if !self.new_fields.iter().any(|(new, _)| *new == name) {
                    self.new_fields.push((name, canonical_field()));
                }
            }
        }
    }

    /// Adds the terms of a value, or ignores it if the index accepts everything or the mapping says `ignore_malformed`.
    fn add_or_ignore(&mut self, entry: &FieldEntry, value: LeafValue<'_>) -> Result<(), WalkStop> {
        match self.add_value(entry, value) {
            Err(WalkStop::Rejected(_))
                if self.accepts_all || entry.field.ignore_malformed && !value.value.is_object() =>
            {
                self.ignore();
                Ok(())
            }
            added => added,
        }
    }

    /// Rejects the document because of a member, or ignores the member if the index accepts everything.
    fn refuse(&mut self, reason: String) -> Result<(), WalkStop> {
        if !self.accepts_all {
            return Err(invalid_document(reason).into());
        }
        self.ignore();
        Ok(())
    }

    /// Notes that the member at the current path is not indexed.
    fn ignore(&mut self) {
        let path = &self.path[..self.path.floor_char_boundary(IGNORED_BYTES_MAX)];
        let ignored = &mut self.terms.ignored;
        if ignored.len() < IGNORED_MAX && !ignored.iter().any(|known| known == path) {
            ignored.push(path.to_owned());
        }
    }

    /// Adds the terms of one value of one field.
    fn add_value(&mut self, entry: &FieldEntry, value: LeafValue<'_>) -> Result<(), WalkStop> {
        self.add_value_terms(entry, value).map_err(|reason| {
            let (path, type_name) = (&self.path, entry.field.type_name());
            let reason = format!("failed to parse field [{path}] of type [{type_name}]: {reason}");
            WalkStop::Rejected(invalid_document(reason))
        })
    }

    fn add_value_terms(&mut self, entry: &FieldEntry, leaf: LeafValue<'_>) -> Result<(), String> {
        let (index, id, field) = (self.index, entry.id, &entry.field);
        let value = leaf.value;
        if value.is_object() && field.field_type != FieldType::GeoPoint {
            return Err("it is an object".to_owned());
        }
        match field.field_type {
            FieldType::Text => self.add_text(id, &leaf.text()),
            FieldType::Keyword => {
                if let Some(text) = parse_keyword(leaf, field.ignore_above)? {
                    self.terms.add(index, id, text.as_bytes(), None);
                }
            }
            FieldType::Long => {
                if let Some(number) = parse_integer(value, field.type_name())? {
                    self.terms.add(index, id, &values::encode_long(number), None);
                }
            }
            FieldType::Double => {
                if let Some(number) = parse_float(value)? {
                    self.terms.add(index, id, &values::encode_double(number), None);
                }
            }
            FieldType::Boolean => {
                self.terms.add(index, id, &values::encode_boolean(parse_boolean(value)?), None);
            }
            FieldType::Date => add_date_terms(self.terms, index, id, parse_date(value, entry)?),
            FieldType::Ip => self.terms.add(index, id, &values::encode_ip(parse_ip(value)?), None),
            FieldType::GeoPoint => {
                for point in GeoPoint::parse_all(value)? {
                    self.terms.add(index, id, &point.encode(), None);
                }
            }
        }
        Ok(())
    }

    /// Adds the words of a text. Their positions follow those of earlier values at a distance that no phrase can span.
    fn add_text(&mut self, field: u16, text: &str) {
        let at = self.text_ends.iter().position(|(of, _)| *of == field);
        let start = at.map_or(0, |at| self.text_ends[at].1.saturating_add(POSITION_GAP));
        let (index, terms, mut end) = (self.index, &mut *self.terms, start);
        text::each_word(text, |word, at| {
            let position = start.saturating_add(at);
            terms.add(index, field, word.as_bytes(), Some(position));
            end = position.saturating_add(1);
        });
        match at {
            Some(at) => self.text_ends[at].1 = end,
            None => self.text_ends.push((field, end)),
        }
        if end == start {
            // A text without words exists nevertheless.
            terms.add(index, field_ids::EXISTS, &field.to_be_bytes(), None);
        }
    }
}
