//! Pure: words of texts and dates of values, in one place for documents and questions alike.

use std::sync::LazyLock;

use serde_json::Value;

use crate::iri::date::{Format, Rounding};
use crate::iri::query::{self, token};

/// The format of a date field that names none.
pub static DATES: LazyLock<Format> = LazyLock::new(|| format("strict_date_optional_time||epoch_millis"));

/// The formats that make a date of a text in a field that is new.
static FOUND_OUT: LazyLock<Format> = LazyLock::new(|| {
    format("strict_date_optional_time||yyyy/MM/dd HH:mm:ss Z||yyyy/MM/dd Z||yyyy/MM/dd HH:mm:ss||yyyy/MM/dd")
});

fn format(text: &str) -> Format {
    Format::parse(text).expect("formats of our own are known")
}

/// True if a text makes its field a date.
pub fn is_date(text: &str) -> bool {
    FOUND_OUT.read(text, 0, Rounding::Down).is_ok()
}

/// Calls `word` with each word of a text, in lower case, and where it stands, from 0.
pub fn words(text: &str, mut word: impl FnMut(&str, u32)) {
    for (at, found) in token::tokens(text).enumerate() {
        word(&found, u32::try_from(at).unwrap_or(u32::MAX));
    }
}

/// A date as it stands in a document.
pub fn stored_date(value: &Value, format: &Format) -> Option<i64> {
    match value {
        Value::Number(number) => format.read(&number.to_string(), 0, Rounding::Down).ok(),
        Value::String(text) => format.read(text, 0, Rounding::Down).ok(),
        _ => None,
    }
}

/// How dates of a question are read.
#[derive(Clone, Debug)]
pub struct Dates {
    /// A format that the question names.
    pub format: Option<Format>,
    /// Minutes east of UTC of dates that say no zone.
    pub zone_minutes: i32,
    /// What `now` is.
    pub now_ms: i64,
}

impl Dates {
    /// The first and the last millisecond of a range, by the question's format or else the field's.
    pub fn range(
        &self,
        from: &query::Bound,
        to: &query::Bound,
        format: &Format,
    ) -> Result<(i64, i64), String> {
        let format = self.format.as_ref().unwrap_or(format);
        let read = crate::iri::date::range(from, to, format, self.now_ms, self.zone_minutes);
        read.map_err(|error| error.to_string())
    }
}
