//! Takes a document apart into the terms by which it is found. Runs in the caller's thread.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::catalogue::{Catalogue, Clash, Entry, Fields, IndexEntry, family_field, number};
use super::segment::Batch;
use super::{text, values};
use crate::iri::billing;
use crate::iri::mapping::{Dynamic, Field, FieldType, dynamic};
use crate::iri::store::Refused;

/// Objects within objects (Elasticsearch's own bound).
const DEPTH_MAX: usize = 20;

/// Bytes of a keyword (Lucene's bound of a term).
const KEYWORD_BYTES_MAX: usize = 32_766;

/// Attempts to take a document apart, each with the fields that the last one found to be new.
const ATTEMPTS_MAX: usize = 8;

/// Positions between two values of one field.
const POSITION_GAP: u32 = 100;

/// The one form of a number that stands for all, or none: what the field and its value are.
pub type Family = Arc<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// The terms of one document.
#[derive(Debug, Default)]
pub struct Terms {
    bytes: Vec<u8>,
    /// Where each key ends in `bytes`, and its position.
    keys: Vec<(usize, Option<u32>)>,
    /// Milliseconds since 1970.
    pub time_ms: i64,
}

impl Terms {
    fn clear(&mut self) {
        self.bytes.clear();
        self.keys.clear();
    }

    fn add(&mut self, index: u16, field: u16, value: &[u8], position: Option<u32>) {
        self.bytes.extend_from_slice(&index.to_be_bytes());
        self.bytes.extend_from_slice(&field.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.keys.push((self.bytes.len(), position));
    }

    /// The values of a field.
    pub fn values(&self, field: u16) -> impl Iterator<Item = &[u8]> {
        let ends = self.keys.iter().map(|&(end, _)| end);
        let begins = std::iter::once(0).chain(ends.clone());
        let keys = begins.zip(ends).map(|(from, end)| &self.bytes[from..end]);
        keys.filter(move |key| key[2..4] == field.to_be_bytes()).map(|key| &key[4..])
    }

    /// Puts the terms into a batch.
    pub fn put_into(&self, batch: &mut Batch, doc: u32) {
        let mut from = 0;
        for &(end, position) in &self.keys {
            batch.add(&self.bytes[from..end], doc, position);
            from = end;
        }
    }
}

/// Takes documents apart.
#[derive(Clone)]
pub struct Preparer {
    /// Where fields are looked up, and added.
    pub catalogue: Arc<Catalogue>,
    /// Number families.
    pub family: Family,
}

/// What came while a document was taken apart.
enum Stop {
    Refused(Refused),
    /// Fields must be added first.
    New(Vec<(String, Field)>),
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Stop {
        Stop::Refused(refused)
    }
}

impl Preparer {
    /// The terms of a source; fields that it is the first to have are added to the index. `now_ms`: when it came.
    pub fn prepare(
        &self,
        index: &IndexEntry,
        kind: Option<&str>,
        source: &[u8],
        now_ms: i64,
        terms: &mut Terms,
    ) -> Result<(), Refused> {
        let value: Value =
            serde_json::from_slice(source).map_err(|error| unfit(format!("failed to parse: {error}")))?;
        let Value::Object(object) = &value else {
            return Err(unfit("failed to parse: it is no JSON object".into()));
        };
        for attempt in 0.. {
            if attempt == ATTEMPTS_MAX {
                return Err(unfit("its new fields clash with those of others".to_owned()));
            }
            terms.clear();
            let fields = index.fields();
            let mut walk = Walk {
                preparer: self,
                index: index.no,
                fields: &fields,
                terms,
                path: String::new(),
                depth: 0,
                new: Vec::new(),
                ends: Vec::new(),
            };
            let walked = walk.object(object);
            let new = std::mem::take(&mut walk.new);
            match if new.is_empty() { walked } else { walked.and(Err(Stop::New(new))) } {
                Ok(()) => break,
                Err(Stop::Refused(refused)) => return Err(refused),
                Err(Stop::New(new)) => self.add(index, &new)?,
            }
        }
        terms.time_ms = event_time(object).unwrap_or(now_ms);
        finish(index.no, kind, terms);
        Ok(())
    }

    /// Adds fields; where another thread was first with another type, the document is taken apart once more.
    fn add(&self, index: &IndexEntry, new: &[(String, Field)]) -> Result<(), Refused> {
        match self.catalogue.add_fields(index, new) {
            Ok(()) | Err(Clash::Type { .. }) => Ok(()),
            Err(clash) => Err(unfit(clash.to_string())),
        }
    }
}

/// The terms that every document has: its index, its time, its type, which fields it has.
fn finish(index: u16, kind: Option<&str>, terms: &mut Terms) {
    let mut present: Vec<u16> = Vec::new();
    let mut from = 0;
    for &(end, _) in &terms.keys {
        let key = &terms.bytes[from..end];
        let field = u16::from_be_bytes([key[2], key[3]]);
        if field & number::HOURS == 0 && field >= number::FIRST && !present.contains(&field) {
            present.push(field);
        }
        from = end;
    }
    terms.add(index, number::ALL, &[], None);
    for field in present {
        terms.add(index, number::EXISTS, &field.to_be_bytes(), None);
    }
    if let Some(kind) = kind {
        terms.add(index, number::KIND, kind.as_bytes(), None);
    }
    add_date(terms, index, number::EVENT_TIME, terms.time_ms);
}

fn add_date(terms: &mut Terms, index: u16, field: u16, at_ms: i64) {
    terms.add(index, field, &values::long(at_ms), None);
    terms.add(index, field | number::HOURS, &values::long(at_ms.div_euclid(values::HOUR_MS)), None);
}

/// The time that a document says it is of.
fn event_time(object: &serde_json::Map<String, Value>) -> Option<i64> {
    ["@timestamp", "time", "timestamp"]
        .iter()
        .find_map(|name| object.get(*name)?.as_str().and_then(values::date))
        .or_else(|| {
            billing::time_ms(|name| match object.get(name)? {
                Value::String(text) => Some(Cow::Borrowed(text.as_str())),
                Value::Number(number) => Some(number.to_string().into()),
                _ => None,
            })
        })
}

fn unfit(reason: String) -> Refused {
    Refused::Unfit(reason)
}

/// One walk over a document's values.
struct Walk<'a> {
    preparer: &'a Preparer,
    index: u16,
    fields: &'a Fields,
    terms: &'a mut Terms,
    path: String,
    depth: usize,
    new: Vec<(String, Field)>,
    /// Behind which position each text's last word stands.
    ends: Vec<(u16, u32)>,
}

impl Walk<'_> {
    fn object(&mut self, object: &serde_json::Map<String, Value>) -> Result<(), Stop> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(unfit(format!("Limit of mapping depth [{DEPTH_MAX}] has been exceeded")).into());
        }
        for (name, value) in object {
            if name.is_empty() || name.split('.').any(|part| part.trim().is_empty()) {
                return Err(
                    unfit(format!("field name [{name}] cannot be empty, or have an empty part")).into()
                );
            }
            let before = self.path.len();
            if before > 0 {
                self.path.push('.');
            }
            self.path.push_str(name);
            self.values(value)?;
            self.path.truncate(before);
        }
        self.depth -= 1;
        Ok(())
    }

    /// A value, or the values of an array.
    fn values(&mut self, value: &Value) -> Result<(), Stop> {
        let is_geo_point = |fields: &Fields, path: &str| {
            fields.get(path).is_some_and(|entry| entry.field.kind == FieldType::GeoPoint)
        };
        match value {
            Value::Null => Ok(()),
            _ if is_geo_point(self.fields, &self.path) => self.leaf(value),
            Value::Object(object) => self.object(object),
            Value::Array(array) => self.array(array, 0),
            leaf => self.leaf(leaf),
        }
    }

    fn array(&mut self, array: &[Value], depth: usize) -> Result<(), Stop> {
        if depth > DEPTH_MAX {
            return Err(unfit(format!("Limit of mapping depth [{DEPTH_MAX}] has been exceeded")).into());
        }
        for value in array {
            match value {
                Value::Array(inner) => self.array(inner, depth + 1)?,
                Value::Object(object) => self.object(object)?,
                Value::Null => {}
                leaf => self.leaf(leaf)?,
            }
        }
        Ok(())
    }

    /// One value.
    fn leaf(&mut self, value: &Value) -> Result<(), Stop> {
        let fields = self.fields;
        let Some(entry) = fields.get(&self.path) else {
            return self.unknown(value);
        };
        if super::catalogue::is_hidden(&self.path) {
            return Err(unfit(Clash::Reserved(self.path.clone()).to_string()).into());
        }
        if let Some(parent) = &entry.field.parent {
            return Err(unfit(Clash::Object(parent.clone()).to_string()).into());
        }
        self.put_or_leave_out(entry, value)?;
        for sub in entry.subs.iter().filter_map(|sub| fields.get(sub)) {
            self.put_or_leave_out(sub, value)?;
        }
        self.number(entry, value);
        Ok(())
    }

    fn unknown(&mut self, value: &Value) -> Result<(), Stop> {
        if self.new.iter().any(|(name, _)| *name == self.path) {
            return Ok(());
        }
        match self.fields.dynamic {
            Dynamic::False => Ok(()),
            Dynamic::Strict => {
                let (above, name) = self.path.rsplit_once('.').unwrap_or(("_doc", &self.path));
                let text = format!(
                    "mapping set to strict, dynamic introduction of [{name}] within [{above}] is not allowed"
                );
                Err(unfit(text).into())
            }
            Dynamic::True => {
                self.new.extend(dynamic::fields(&self.path, value, text::is_date));
                Ok(())
            }
        }
    }

    /// The number in a field, in the one form that stands for all.
    fn number(&mut self, entry: &Entry, value: &Value) {
        let text = match value {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            Value::Number(number) => number.to_string().into(),
            _ => return,
        };
        let Some(one) = (self.preparer.family)(&self.path, &text) else { return };
        match entry.family {
            Some(family) => {
                self.terms.add(self.index, family, one.as_bytes(), None);
                self.terms.add(self.index, number::NUMBER, one.as_bytes(), None);
            }
            None => {
                let name = format!("{}{}", self.path, super::catalogue::NUMBER_SUFFIX);
                if !self.new.iter().any(|(new, _)| *new == name) {
                    self.new.push((name, family_field()));
                }
            }
        }
    }

    /// The same, where a value that does not fit may be left out.
    fn put_or_leave_out(&mut self, entry: &Entry, value: &Value) -> Result<(), Stop> {
        match self.put(entry, value) {
            Err(Stop::Refused(_)) if entry.field.ignore_malformed && !value.is_object() => Ok(()),
            put => put,
        }
    }

    /// The terms of one value in one field.
    fn put(&mut self, entry: &Entry, value: &Value) -> Result<(), Stop> {
        let (index, no) = (self.index, entry.no);
        let unfit_here = |walk: &Self, why: &str| {
            let kind = entry.field.type_name();
            Stop::Refused(unfit(format!("failed to parse field [{}] of type [{kind}]: {why}", walk.path)))
        };
        if matches!(value, Value::Object(_)) && entry.field.kind != FieldType::GeoPoint {
            return Err(unfit_here(self, "it is an object"));
        }
        match entry.field.kind {
            FieldType::Text => self.text(no, &plain(value)),
            FieldType::Keyword => {
                let text = plain(value);
                let longest = entry.field.ignore_above.unwrap_or(usize::MAX);
                if text.chars().count() > longest {
                    return Ok(());
                }
                if text.len() > KEYWORD_BYTES_MAX {
                    return Err(unfit_here(self, "immense term, the max length is 32766 bytes"));
                }
                self.terms.add(index, no, text.as_bytes(), None);
            }
            FieldType::Long => {
                let read = long(value, entry.field.type_name()).map_err(|why| unfit_here(self, &why))?;
                if let Some(number) = read {
                    self.terms.add(index, no, &values::long(number), None);
                }
            }
            FieldType::Double => {
                let number = match value {
                    Value::Number(number) => number.as_f64(),
                    Value::String(text) if text.is_empty() => return Ok(()),
                    Value::String(text) => text.trim().parse().ok(),
                    _ => None,
                };
                let number = number.filter(|number| number.is_finite());
                let number = number.ok_or_else(|| unfit_here(self, &format!("For input string: {value}")))?;
                self.terms.add(index, no, &values::double(number), None);
            }
            FieldType::Boolean => {
                let read = boolean(value).ok_or_else(|| {
                    unfit_here(
                        self,
                        &format!(
                            "Failed to parse value [{}] as only [true] or [false] are allowed.",
                            plain(value)
                        ),
                    )
                })?;
                self.terms.add(index, no, &values::boolean(read), None);
            }
            FieldType::Date => {
                let format = entry.field.format.as_deref();
                let at = text::stored_date(value, entry.dates.as_deref().unwrap_or(&text::DATES))
                    .ok_or_else(|| {
                        let format = format.unwrap_or("strict_date_optional_time||epoch_millis");
                        unfit_here(
                            self,
                            &format!("failed to parse date field [{}] with format [{format}]", plain(value)),
                        )
                    })?;
                add_date(self.terms, index, no, at);
            }
            FieldType::Ip => {
                let text = plain(value);
                let address: IpAddr = text
                    .parse()
                    .map_err(|_| unfit_here(self, &format!("'{text}' is not an IP string literal.")))?;
                self.terms.add(index, no, &values::ip(address), None);
            }
            FieldType::GeoPoint => self.terms.add(index, no, &[], None),
        }
        Ok(())
    }

    /// Words stand behind those of the field's values before, far enough that no phrase spans two values.
    fn text(&mut self, no: u16, text: &str) {
        let at = self.ends.iter().position(|(of, _)| *of == no);
        let begin = at.map_or(0, |at| self.ends[at].1.saturating_add(POSITION_GAP));
        let (index, terms, mut end) = (self.index, &mut *self.terms, begin);
        text::words(text, |word, at| {
            let position = begin.saturating_add(at);
            terms.add(index, no, word.as_bytes(), Some(position));
            end = position.saturating_add(1);
        });
        match at {
            Some(at) => self.ends[at].1 = end,
            None => self.ends.push((no, end)),
        }
        if end == begin {
            // A text without words is there all the same.
            terms.add(index, number::EXISTS, &no.to_be_bytes(), None);
        }
    }
}

/// A value as text.
fn plain(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => text.into(),
        other => other.to_string().into(),
    }
}

/// An integer as Elasticsearch takes one: a fraction is cut off, a text is read. `None`: an empty text.
fn long(value: &Value, type_name: &str) -> Result<Option<i64>, String> {
    let range = match type_name {
        "integer" => i64::from(i32::MIN)..=i64::from(i32::MAX),
        "short" => i64::from(i16::MIN)..=i64::from(i16::MAX),
        "byte" => i64::from(i8::MIN)..=i64::from(i8::MAX),
        _ => i64::MIN..=i64::MAX,
    };
    let number = match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::String(text) => text.trim().parse().ok().or_else(|| text.trim().parse().ok().and_then(whole)),
        _ => None,
    };
    let number = number.ok_or_else(|| format!("For input string: \"{}\"", plain(value)))?;
    if !range.contains(&number) {
        return Err(format!(
            "Value [{number}] is out of range for {} {type_name}",
            if type_name == "integer" { "an" } else { "a" }
        ));
    }
    Ok(Some(number))
}

/// A float without its fraction, where it fits.
fn whole(number: f64) -> Option<i64> {
    (number.is_finite() && number.abs() < 9.2e18).then_some(number as i64)
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) => match text.as_str() {
            "true" => Some(true),
            "false" | "" => Some(false),
            _ => None,
        },
        _ => None,
    }
}
