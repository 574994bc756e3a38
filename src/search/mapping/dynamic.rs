//! Type detection: the type that a field gets from its first value, by the rules of Elasticsearch 7.17. Pure
//! code.

use serde_json::Value;

use super::{Field, FieldType, JsonType, MappingRules, number_type};

/// `ignore_above` of the keyword sub-field of a text field.
const KEYWORD_CHARS_MAX: usize = 256;

/// Format of a date field that was detected from a date with slashes.
const DETECTED_DATE_FORMAT: &str = "yyyy/MM/dd HH:mm:ss||yyyy/MM/dd||epoch_millis";

/// Returns the fields that a value creates under `name`; none for null, objects and arrays. `is_date` tells
/// whether a text is a date in one of the detected formats (`strict_date_optional_time`, `yyyy/MM/dd`).
pub(crate) fn detect_fields(
    name: &str,
    value: &Value,
    rules: &MappingRules,
    is_date: impl Fn(&str) -> bool,
) -> Vec<(String, Field)> {
    let Some(kind) = json_type(value, rules, is_date) else { return Vec::new() };
    if let Some(fields) = rules.template_fields(name, kind) {
        return fields;
    }
    let one = |kind| vec![(name.to_owned(), Field::of_type(kind))];
    match kind {
        JsonType::Boolean => one(FieldType::Boolean),
        JsonType::Double => {
            let declared_type = Some("float".to_owned());
            vec![(name.to_owned(), Field { declared_type, ..Field::of_type(FieldType::Double) })]
        }
        JsonType::Long => one(FieldType::Long),
        JsonType::Date => {
            let has_slash = value.as_str().is_some_and(|text| text.contains('/'));
            let format = has_slash.then(|| DETECTED_DATE_FORMAT.to_owned());
            vec![(name.to_owned(), Field { format, ..Field::of_type(FieldType::Date) })]
        }
        JsonType::Text => {
            let keyword = Field {
                parent: Some(name.to_owned()),
                ignore_above: Some(KEYWORD_CHARS_MAX),
                ..Field::of_type(FieldType::Keyword)
            };
            vec![(name.to_owned(), Field::of_type(FieldType::Text)), (format!("{name}.keyword"), keyword)]
        }
    }
}

/// Returns the type of a value by the rules of the index.
fn json_type(value: &Value, rules: &MappingRules, is_date: impl Fn(&str) -> bool) -> Option<JsonType> {
    match value {
        Value::Null | Value::Object(_) | Value::Array(_) => None,
        Value::Bool(_) => Some(JsonType::Boolean),
        Value::Number(number) if number.is_f64() => Some(JsonType::Double),
        Value::Number(_) => Some(JsonType::Long),
        Value::String(text) => {
            let number = number_type(text).filter(|_| rules.numeric_detection == Some(true));
            let finds_dates = rules.date_detection != Some(false);
            let date = (finds_dates && looks_like_date(text) && is_date(text)).then_some(JsonType::Date);
            number.or(date).or(Some(JsonType::Text))
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
        let found = detect_fields("f", &value, &MappingRules::default(), is_date);
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

    #[test]
    fn rules_of_the_index_change_the_type() {
        let mut rules = MappingRules::default();
        (rules.date_detection, rules.numeric_detection) = (Some(false), Some(true));
        let type_of = |text: &str| detect_fields("f", &text.into(), &rules, is_date)[0].1.field_type;
        assert_eq!(type_of("2016-04-11"), FieldType::Text);
        assert_eq!((type_of("12"), type_of("1.5")), (FieldType::Long, FieldType::Double));
    }
}
