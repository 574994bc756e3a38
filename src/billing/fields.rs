//! The fields of a row as texts, from a JSON object or from the cells of a table. Pure.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::label::RowLabel;

/// The reason why a row is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("not a JSON object of fields: {0}")]
    Json(String),
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field has a malformed value.
    #[error("{field}: {why}")]
    Field { field: &'static str, why: &'static str },
    /// The method is not a SIP method.
    #[error("{0:?} is not a SIP method (write INVITE or BYE, with \"request\" or \"reply\")")]
    Kind(String),
}

/// A field in a row of a log. A variant can have several names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowColumn {
    RequestTime,
    ReplyTime,
    CallerId,
    CalleeId,
    CallId,
    /// The fraction of the row's time.
    Microseconds,
    ReplyCode,
    /// The method, with or without the word "request" or "reply".
    Method,
    /// The same in a field with a general name. It counts only if it contains a known method or word.
    Event,
}

/// The number of variants of [`RowColumn`].
const COLUMNS: usize = RowColumn::Event as usize + 1;

/// All names of fields. Of several names for one column the first has priority.
const NAMES: [(&str, RowColumn); 13] = [
    ("request_time", RowColumn::RequestTime),
    ("reply_time", RowColumn::ReplyTime),
    ("caller_id", RowColumn::CallerId),
    ("callee_id", RowColumn::CalleeId),
    ("call_id", RowColumn::CallId),
    ("microseconds", RowColumn::Microseconds),
    ("reply_code", RowColumn::ReplyCode),
    ("method", RowColumn::Method),
    ("sip_method", RowColumn::Method),
    ("sipRequest", RowColumn::Method),
    ("event", RowColumn::Event),
    ("type", RowColumn::Event),
    ("row", RowColumn::Event),
];

impl RowColumn {
    /// Returns the column with that name, or `None` for a column that rows do not use.
    pub(crate) fn from_name(name: &str) -> Option<RowColumn> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, column)| *column)
    }
}

/// The fields of a row as texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowFields<'a> {
    values: [Option<Cow<'a, str>>; COLUMNS],
}

impl<'a> RowFields<'a> {
    /// Reads the fields of a JSON object.
    pub fn from_json(text: &'a [u8]) -> Result<RowFields<'a>, RowError> {
        let RawFields(raw) = serde_json::from_slice(text)
            .map_err(|error| RowError::Json(error.to_string().replace(" at line 1 column ", " at byte ")))?;
        let mut fields = RowFields::default();
        for ((name, column), raw) in NAMES.into_iter().zip(raw) {
            let Some(raw) = raw else { continue };
            match (scalar_text(raw, name), column) {
                (Ok(Some(text)), _) => fields.set(column, text),
                (Ok(None), _) => {}
                // These names are general, so a value of another type is ignored.
                (Err(_), RowColumn::Event) => {}
                (Err(error), _) => return Err(error),
            }
        }
        Ok(fields)
    }

    /// Sets the value of a column. Of several columns with a method the first counts.
    pub(crate) fn set(&mut self, column: RowColumn, text: Cow<'a, str>) {
        let value = &mut self.values[column as usize];
        let is_ignored = match column {
            RowColumn::Method => value.is_some() || is_absent(&text),
            RowColumn::Event => value.is_some() || RowLabel::parse(&text).is_none(),
            _ => false,
        };
        if !is_ignored {
            *value = Some(text);
        }
    }

    pub(crate) fn has(&self, column: RowColumn) -> bool {
        self.values[column as usize].is_some()
    }

    /// Returns true if a column has a value, and its text does not mean "no value".
    pub(super) fn has_value(&self, column: RowColumn) -> bool {
        self.values[column as usize].as_ref().is_some_and(|text| !is_absent(text))
    }

    /// Removes the value of a column and returns it as it was written.
    pub(super) fn take_text(&mut self, column: RowColumn) -> Option<Cow<'a, str>> {
        self.values[column as usize].take()
    }

    /// Removes the value of a column and returns it, unless its text means "no value".
    pub(super) fn take_value(&mut self, column: RowColumn) -> Option<Cow<'a, str>> {
        self.take_text(column).filter(|text| !is_absent(text))
    }
}

/// The members of a JSON object in the order of [`NAMES`], not parsed.
struct RawFields<'a>([Option<&'a RawValue>; NAMES.len()]);

impl<'de: 'a, 'a> Deserialize<'de> for RawFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawFields<'a>, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = RawFields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFields<'de>, A::Error> {
                let mut raw = [None; NAMES.len()];
                while let Some(Text(key)) = map.next_key()? {
                    let Some(at) = NAMES.iter().position(|(name, _)| *name == key) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    if raw[at].replace(map.next_value()?).is_some() {
                        return Err(A::Error::duplicate_field(NAMES[at].0));
                    }
                }
                Ok(RawFields(raw))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A string that is borrowed unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Returns true for a text that means "no value".
pub(super) fn is_absent(text: &str) -> bool {
    matches!(text.trim(), "" | "-" | "0" | "null" | "<null>" | "NULL")
}

/// Returns the text of a string or a number; `None` for null.
fn scalar_text<'a>(raw: &'a RawValue, field: &'static str) -> Result<Option<Cow<'a, str>>, RowError> {
    let raw = raw.get();
    match raw.as_bytes().first() {
        Some(b'"') => match serde_json::from_str(raw) {
            Ok(Text(text)) => Ok(Some(text)),
            Err(_) => Err(RowError::Field { field, why: "malformed JSON string" }),
        },
        Some(b'{' | b'[') => Err(RowError::Field { field, why: "expected a string or a number" }),
        Some(b'n') => Ok(None),
        _ => Ok(Some(Cow::Borrowed(raw))),
    }
}
