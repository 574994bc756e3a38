//! Pure: words of texts and dates of values, in one place for documents and questions alike.

use serde_json::Value;
use unicode_segmentation::UnicodeSegmentation;

use super::values;

/// Calls `word` with each word of a text, in lower case, and where it stands, from 0.
pub fn words(text: &str, mut word: impl FnMut(&str, u32)) {
    for (at, found) in text.unicode_words().enumerate() {
        let position = u32::try_from(at).unwrap_or(u32::MAX);
        if found.chars().any(char::is_uppercase) {
            word(&found.to_lowercase(), position);
        } else {
            word(found, position);
        }
    }
}

/// A date as it stands in a document.
pub fn stored_date(value: &Value, _format: Option<&str>) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => values::date(text).or_else(|| text.parse().ok()),
        _ => None,
    }
}

/// How dates of a question are read.
#[derive(Clone, Copy, Debug)]
pub struct Dates<'a> {
    /// A format that the question names.
    pub format: Option<&'a str>,
    /// Minutes east of UTC of dates that say no zone.
    pub zone_minutes: i32,
    /// What `now` is.
    pub now_ms: i64,
}

impl Dates<'_> {
    /// The first and the last millisecond that a text means.
    pub fn bounds(&self, text: &str, _field_format: Option<&str>) -> Result<(i64, i64), String> {
        let read = values::date(text).or_else(|| text.parse().ok());
        let at = read.ok_or_else(|| format!("failed to parse date field [{text}]"))?;
        let last = if text.len() == 10 && text.contains('-') { at + 86_399_999 } else { at };
        Ok((at, last))
    }
}
