//! The type that a field gets from its first value, as Elasticsearch 7.17 chooses it. Pure.

use serde_json::Value;

use super::{Field, FieldType};

/// `ignore_above` of the keyword beside each text.
const KEYWORD_CHARS_MAX: usize = 256;

/// The format of dates that were found out.
const DATES: &str = "yyyy/MM/dd HH:mm:ss||yyyy/MM/dd||epoch_millis";

/// The fields that a value makes under `name`; none for null, objects and arrays. `is_date` says whether a text reads as
/// a date of the two formats that are looked for (`strict_date_optional_time`, `yyyy/MM/dd`).
pub fn fields(name: &str, value: &Value, is_date: impl Fn(&str) -> bool) -> Vec<(String, Field)> {
    let one = |kind| vec![(name.to_owned(), Field::of(kind))];
    match value {
        Value::Null | Value::Object(_) | Value::Array(_) => Vec::new(),
        Value::Bool(_) => one(FieldType::Boolean),
        Value::Number(number) if number.is_f64() => {
            vec![(
                name.to_owned(),
                Field { declared: Some("float".to_owned()), ..Field::of(FieldType::Double) },
            )]
        }
        Value::Number(_) => one(FieldType::Long),
        Value::String(text) if looks_like_a_date(text) && is_date(text) => {
            let format = text.contains('/').then(|| DATES.to_owned());
            vec![(name.to_owned(), Field { format, ..Field::of(FieldType::Date) })]
        }
        Value::String(_) => {
            let keyword = Field {
                parent: Some(name.to_owned()),
                ignore_above: Some(KEYWORD_CHARS_MAX),
                ..Field::of(FieldType::Keyword)
            };
            vec![(name.to_owned(), Field::of(FieldType::Text)), (format!("{name}.keyword"), keyword)]
        }
    }
}

/// A year of four digits, and then what separates it: without this, `2016` would be a date. Strict dates with a year
/// alone are none for Elasticsearch either, which asks for more than digits.
fn looks_like_a_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 7 && bytes[..4].iter().all(u8::is_ascii_digit) && matches!(bytes[4], b'-' | b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iri::store::sqlite::text::is_date;

    #[track_caller]
    fn check(value: &str, expected: &[(&str, &str)]) {
        let value = serde_json::from_str(value).unwrap();
        let found = fields("f", &value, is_date);
        let found: Vec<_> = found.iter().map(|(name, field)| (name.as_str(), field.type_name())).collect();
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn types_follow_from_first_values() {
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
