//! Values of documents, read by the type of their field. The error messages are those of Elasticsearch. Pure.

use std::borrow::Cow;
use std::net::IpAddr;

use serde_json::Value;

use super::catalog::FieldEntry;
use super::text;

/// Maximum size in bytes of a keyword (the limit of Lucene).
const KEYWORD_BYTES_MAX: usize = 32_766;

/// A single value of a document.
#[derive(Clone, Copy, Debug)]
pub(in crate::search) struct LeafValue<'a> {
    pub value: &'a Value,
    /// The value as it was written. The digits of a number are text for a keyword, whatever a float can hold.
    pub written: &'a str,
}

impl<'a> LeafValue<'a> {
    /// Returns the value as text.
    pub(in crate::search) fn text(self) -> Cow<'a, str> {
        match self.value {
            Value::String(text) => text.into(),
            _ => self.written.into(),
        }
    }
}

/// Returns a value as text.
fn value_text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => text.into(),
        other => other.to_string().into(),
    }
}

/// Reads a keyword. `None` if it has more than `chars_max` characters and is not indexed.
pub(in crate::search) fn parse_keyword(
    value: LeafValue<'_>,
    chars_max: Option<usize>,
) -> Result<Option<Cow<'_, str>>, String> {
    let text = value.text();
    if text.chars().count() > chars_max.unwrap_or(usize::MAX) {
        return Ok(None);
    }
    if text.len() > KEYWORD_BYTES_MAX {
        return Err(format!("immense term, the max length is {KEYWORD_BYTES_MAX} bytes"));
    }
    Ok(Some(text))
}

/// Reads an integer like Elasticsearch does: it truncates fractions and parses texts. `None` for an empty text.
pub(in crate::search) fn parse_integer(value: &Value, type_name: &str) -> Result<Option<i64>, String> {
    let range = match type_name {
        "integer" => i64::from(i32::MIN)..=i64::from(i32::MAX),
        "short" => i64::from(i16::MIN)..=i64::from(i16::MAX),
        "byte" => i64::from(i8::MIN)..=i64::from(i8::MAX),
        _ => i64::MIN..=i64::MAX,
    };
    let number = match value {
        Value::Number(number) => match number.as_i64() {
            Some(number) => Some(number),
            None => Some(number.as_f64().and_then(truncate).ok_or_else(|| {
                format!("Numeric value ({number}) out of range of long ({} - {})", i64::MIN, i64::MAX)
            })?),
        },
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::String(text) => {
            text.trim().parse().ok().or_else(|| text.trim().parse().ok().and_then(truncate))
        }
        _ => None,
    };
    let number = number.ok_or_else(|| format!("For input string: \"{}\"", value_text(value)))?;
    if !range.contains(&number) {
        return Err(format!(
            "Value [{number}] is out of range for {} {type_name}",
            if type_name == "integer" { "an" } else { "a" }
        ));
    }
    Ok(Some(number))
}

/// Truncates a float to an integer, if it fits.
fn truncate(number: f64) -> Option<i64> {
    (number.is_finite() && number.abs() < 9.2e18).then_some(number as i64)
}

/// Reads a finite float. `None` for an empty text.
pub(in crate::search) fn parse_float(value: &Value) -> Result<Option<f64>, String> {
    let number: Option<f64> = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.filter(|number| number.is_finite());
    number.map(Some).ok_or_else(|| format!("For input string: {value}"))
}

pub(in crate::search) fn parse_boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => return Ok(*value),
        Value::String(text) if text == "true" => return Ok(true),
        Value::String(text) if text == "false" || text.is_empty() => return Ok(false),
        _ => {}
    }
    let text = value_text(value);
    Err(format!("Failed to parse value [{text}] as only [true] or [false] are allowed."))
}

/// Reads a date in milliseconds since 1970, by the format of its field.
pub(super) fn parse_date(value: &Value, entry: &FieldEntry) -> Result<i64, String> {
    let format = entry.date_format.as_deref().unwrap_or(&text::DEFAULT_DATE_FORMAT);
    text::read_date(value, format).ok_or_else(|| {
        let format = entry.field.format.as_deref().unwrap_or("strict_date_optional_time||epoch_millis");
        format!("failed to parse date field [{}] with format [{format}]", value_text(value))
    })
}

pub(in crate::search) fn parse_ip(value: &Value) -> Result<IpAddr, String> {
    let text = value_text(value);
    // The zone of a link-local address (`fe80::1%eth0`) is not part of the address.
    let address = match text.split_once('%') {
        Some((address, zone)) if !zone.is_empty() && address.contains(':') => address,
        _ => &text,
    };
    address.parse().map_err(|_| format!("'{text}' is not an IP string literal."))
}
