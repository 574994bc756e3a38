//! Type detection: the type that a field gets from its first value, by the rules of Elasticsearch 7.17. Pure
//! code.

use serde_json::Value;

use super::{Field, FieldType};

/// `ignore_above` of the keyword sub-field of a text field.
const KEYWORD_CHARS_MAX: usize = 256;

/// Format of a date field that was detected from a date with slashes.
const DETECTED_DATE_FORMAT: &str = "yyyy/MM/dd HH:mm:ss||yyyy/MM/dd||epoch_millis";

/// Returns the fields that a value creates under `name`; none for null, objects and arrays. `is_date` tells
/// whether a text is a date in one of the detected formats (`strict_date_optional_time`, `yyyy/MM/dd`).
pub(crate) fn detect_fields(
    name: &str,
    value: &Value,
    is_date: impl Fn(&str) -> bool,
) -> Vec<(String, Field)> {
    let one = |kind| vec![(name.to_owned(), Field::of_type(kind))];
    match value {
        Value::Null | Value::Object(_) | Value::Array(_) => Vec::new(),
        Value::Bool(_) => one(FieldType::Boolean),
        Value::Number(number) if number.is_f64() => {
            vec![(
                name.to_owned(),
                Field { declared_type: Some("float".to_owned()), ..Field::of_type(FieldType::Double) },
            )]
        }
        Value::Number(_) => one(FieldType::Long),
        Value::String(text) if looks_like_date(text) && is_date(text) => {
            let format = text.contains('/').then(|| DETECTED_DATE_FORMAT.to_owned());
            vec![(name.to_owned(), Field { format, ..Field::of_type(FieldType::Date) })]
        }
        Value::String(_) => {
            let keyword = Field {
                parent: Some(name.to_owned()),
                ignore_above: Some(KEYWORD_CHARS_MAX),
                ..Field::of_type(FieldType::Keyword)
            };
            vec![(name.to_owned(), Field::of_type(FieldType::Text)), (format!("{name}.keyword"), keyword)]
        }
    }
}

/// True if a text starts with a four-digit year and a separator. Elasticsearch does not take a year alone
/// (`2016`) for a date either.
fn looks_like_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 7 && bytes[..4].iter().all(u8::is_ascii_digit) && matches!(bytes[4], b'-' | b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::sqlite::text::is_date;

    #[track_caller]
    fn check(value: &str, expected: &[(&str, &str)]) {
        let value = serde_json::from_str(value).unwrap();
        let found = detect_fields("f", &value, is_date);
        let found: Vec<_> = found.iter().map(|(name, field)| (name.as_str(), field.type_name())).collect();
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn first_value_decides_the_type() {
        check("\"INVITE\"", &[("f", "text"), ("f.keyword", "keyword")]);
        check("\"-46.63,-23.54\"", &[("f", "text"), ("f.keyword", "keyword")]);
        check("\"2016\"", &[("f", "text"), ("f.keyword", "keyword")]);
        check("\"2016-04-11T14:02:07.123Z\"", &[("f", "date")]);
        check("\"2016-04-11\"", &[("f", "date")]);
        check("\"2016/04/11\"", &[("f", "date")]);
        check("\"2016-99-11\"", &[("f", "text"), ("f.keyword", "keyword")]);
        check("9011972598294121", &[("f", "long")]);
        check("1.5", &[("f", "float")]);
        check("true", &[("f", "boolean")]);
        check("null", &[]);
        check("[]", &[]);
    }
}
