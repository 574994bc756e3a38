//! Words of texts and dates of values, read in the same way for documents and queries. Pure.

use std::sync::LazyLock;

use serde_json::Value;

use crate::search::analysis;
use crate::search::date::{DateFormat, Rounding, TimeZone};
use crate::search::query;

/// Format of a date field without a `format`.
pub(crate) static DEFAULT_DATE_FORMAT: LazyLock<DateFormat> =
    LazyLock::new(|| parse_format("strict_date_optional_time||epoch_millis"));

/// Formats of texts that give a new field the type date.
static DETECTED_DATE_FORMAT: LazyLock<DateFormat> = LazyLock::new(|| {
    parse_format(
        "strict_date_optional_time||yyyy/MM/dd HH:mm:ss Z||yyyy/MM/dd Z||yyyy/MM/dd HH:mm:ss||yyyy/MM/dd",
    )
});

fn parse_format(text: &str) -> DateFormat {
    DateFormat::parse(text).expect("formats of our own are known")
}

/// Tells whether a text gives a new field the type date.
pub(crate) fn is_date(text: &str) -> bool {
    DETECTED_DATE_FORMAT.parse_date(text, 0, Rounding::Down).is_ok()
}

/// Calls `word` with each lower-case word of a text and its position, counted from 0.
pub(crate) fn each_word(text: &str, mut word: impl FnMut(&str, u32)) {
    for (at, token) in analysis::tokens(text).enumerate() {
        word(&token, u32::try_from(at).unwrap_or(u32::MAX));
    }
}

/// Reads the value of a date field in milliseconds since 1970.
pub(crate) fn read_date(value: &Value, format: &DateFormat) -> Option<i64> {
    match value {
        Value::Number(number) => format.parse_date(&number.to_string(), 0, Rounding::Down).ok(),
        Value::String(text) => format.parse_date(text, 0, Rounding::Down).ok(),
        _ => None,
    }
}

/// Rules for reading the dates of a query.
#[derive(Clone, Debug)]
pub(crate) struct QueryDates {
    /// Format that the query names.
    pub format: Option<DateFormat>,
    /// Time zone of dates without one.
    pub zone: TimeZone,
    /// Value of `now`.
    pub now_ms: i64,
}

impl QueryDates {
    /// Returns the first and the last millisecond of a range, read by the format of the query or else of the field.
    pub(crate) fn read_range(
        &self,
        from: &query::Bound,
        to: &query::Bound,
        format: &DateFormat,
    ) -> Result<(i64, i64), String> {
        let format = self.format.as_ref().unwrap_or(format);
        let read = crate::search::date::parse_range(from, to, format, self.now_ms, self.zone);
        read.map_err(|error| error.to_string())
    }
}
