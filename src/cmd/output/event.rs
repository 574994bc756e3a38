//! Events for output: their fields as text, table columns and JSON lines. Pure.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::Value;

use super::json_lines::single_line_json;
use crate::cmd::args::time_zone::TimeZoneArg;
use crate::runtime::json::parse_value;
use crate::search::query::Hit;

/// Fields that known senders use, in the order of table columns.
const KNOWN_FIELDS: [&str; 25] = [
    "event",
    "userid",
    "from_user",
    "to_user",
    "ip_address",
    "sipRequest",
    "sip_method",
    "ipIntruder",
    "intruder_ip",
    "source_ip",
    "ani",
    "dnis",
    "destNum",
    "called_number",
    "userAgent",
    "user_agent",
    "sip_user_agent",
    "country",
    "caller_id",
    "callee_id",
    "call_id",
    "reply_code",
    "program",
    "message",
    "tags",
];

/// Most table columns if the caller names none.
const COLUMNS_MAX: usize = 8;

/// An event and its time, for output.
pub(crate) struct EventView {
    /// The search hit with index, ID and source.
    pub hit: Hit,
    /// Time of the event.
    pub time_ms: Option<i64>,
    source: Value,
}

impl EventView {
    /// Reads a hit. The time is its sort value number `time_at`.
    pub(crate) fn new(hit: Hit, time_at: usize) -> EventView {
        let time_ms = hit.sort.get(time_at).and_then(Value::as_i64);
        let source = parse_value(&hit.source).unwrap_or(Value::Null);
        EventView { hit, time_ms, source }
    }

    /// Formats the time, or `-`.
    pub(crate) fn time(&self, zone: TimeZoneArg) -> String {
        self.time_ms.map_or_else(|| "-".to_owned(), |ms| zone.format_ms(ms))
    }

    /// Returns the value of a field as text; `a.b` is `b` within `a`.
    pub(crate) fn value(&self, field: &str) -> Option<Cow<'_, str>> {
        let of_event = match field {
            "_index" => Some(&self.hit.index),
            "_id" => Some(&self.hit.id),
            "_type" => self.hit.doc_type.as_ref(),
            _ => None,
        };
        of_event
            .map(|text| Cow::Borrowed(text.as_str()))
            .or_else(|| value_text(find_field(&self.source, field)?))
    }

    /// Returns the names of all fields that have a value.
    pub(crate) fn fields(&self) -> Vec<String> {
        let mut names = Vec::new();
        collect_leaf_names(&self.source, "", &mut names);
        names
    }

    /// Formats the event as a JSON line with `_index`, `_id`, `_time` and `_source`, which has only `fields` if any are given.
    pub(crate) fn json(&self, zone: TimeZoneArg, fields: &[String]) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        let time = self.time_ms.map_or_else(|| "null".to_owned(), |ms| quoted(&zone.format_ms(ms)));
        let (index, id) = (quoted(&self.hit.index), quoted(&self.hit.id));
        let source = if fields.is_empty() {
            String::from_utf8_lossy(&self.hit.source).into_owned()
        } else {
            let value =
                |field: &String| find_field(&self.source, field).map(|value| (field.clone(), value.clone()));
            Value::Object(fields.iter().filter_map(value).collect()).to_string()
        };
        single_line_json(&format!(
            "{{\"_index\":{index},\"_id\":{id},\"_time\":{time},\"_source\":{source}}}"
        ))
    }
}

fn find_field<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    let object = value.as_object()?;
    if let Some(found) = object.get(field) {
        return Some(found);
    }
    field.match_indices('.').find_map(|(at, _)| find_field(object.get(&field[..at])?, &field[at + 1..]))
}

fn value_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        value => Some(Cow::Owned(value.to_string())),
    }
}

fn collect_leaf_names(value: &Value, name: &str, names: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                collect_leaf_names(value, &name, names);
            }
        }
        Value::Null => {}
        _ => names.push(name.to_owned()),
    }
}

/// Selects the columns of a table: the known fields that have values, else all fields.
pub(crate) fn table_columns(events: &[EventView]) -> Vec<String> {
    let is_there = |field: &&&str| {
        events.iter().any(|event| event.value(field).is_some_and(|value| !matches!(&*value, "" | "[]")))
    };
    let known: Vec<String> = KNOWN_FIELDS.iter().filter(is_there).map(|&field| field.to_owned()).collect();
    let mut columns = if known.is_empty() { all_fields(events) } else { known };
    columns.truncate(COLUMNS_MAX);
    columns
}

/// Returns all fields of the events in order of first occurrence.
pub(crate) fn all_fields(events: &[EventView]) -> Vec<String> {
    let mut seen = HashSet::new();
    let fields = events.iter().flat_map(EventView::fields);
    fields.filter(|field| seen.insert(field.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(source: &str) -> EventView {
        let hit = Hit {
            score: None,
            index: "calls".to_owned(),
            doc_type: None,
            id: "1\n".to_owned(),
            version: 1,
            seq_no: 0,
            source: source.as_bytes().to_vec(),
            sort: vec![Value::from(0)],
            ignored: Vec::new(),
        };
        EventView::new(hit, 0)
    }

    #[test]
    fn dotted_field_names_reach_into_objects() {
        let event = event(r#"{"a":{"b":1,"c.d":"x"},"a.e":[1],"n":null,"f":1.50}"#);
        for (field, expected) in [
            ("a.b", Some("1")),
            ("a.c.d", Some("x")),
            ("a.e", Some("[1]")),
            ("f", Some("1.5")),
            ("n", None),
            ("a.x", None),
            ("", None),
            ("_index", Some("calls")),
        ] {
            assert_eq!(event.value(field).as_deref(), expected, "{field}");
        }
        assert_eq!(event.fields(), ["a.b", "a.c.d", "a.e", "f"]);
    }

    #[test]
    fn json_output_is_one_escaped_line() {
        let utc = TimeZoneArg::parse("utc").unwrap();
        let event = event("{\r\n\t\"a\": 12345678901234567890123,\"b\":\"\u{9b}\u{202e}é\"}");
        let expected = r#"{"_index":"calls","_id":"1\n","_time":"1970-01-01T00:00:00.000Z","_source":{   "a": 12345678901234567890123,"b":"\u009b\u202eé"}}"#;
        assert_eq!(event.json(utc, &[]), expected);
        assert_eq!(event.json(utc, &["b".to_owned()]).matches("\\u").count(), 2);
    }
}
