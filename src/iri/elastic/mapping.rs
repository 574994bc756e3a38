//! Mappings as they are put and shown: `{"properties": {"destNum": {"type": "keyword"}}}`. Pure.
//!
//! A setting that changes which documents are found is taken only where it is what is done here anyway.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::failure::Failure;
use crate::iri::mapping::{Dynamic, FIELDS_MAX, Field, FieldType, Mapping};

/// Objects within objects.
const DEPTH_MAX: usize = 20;

/// Reads what stands under `mappings`, or the body of `_mapping`. A type's name around it is taken off, where it is
/// the only key.
pub fn read(value: &Value) -> Result<Mapping, Failure> {
    let Value::Object(object) = value else {
        return Err(Failure::mapping("a mapping is an object"));
    };
    let inner = object.values().next();
    match (object.len(), inner) {
        (1, Some(Value::Object(inner)))
            if !object.contains_key("properties") && (inner.is_empty() || is_root(inner)) =>
        {
            root(inner)
        }
        _ => root(object),
    }
}

/// Keys beside `properties` that say nothing of what is found, or only what holds anyway.
const ROOT: [&str; 6] = ["dynamic", "_source", "_all", "date_detection", "numeric_detection", "_meta"];

fn is_root(object: &Map<String, Value>) -> bool {
    object.keys().all(|key| key == "properties" || ROOT.contains(&key.as_str()))
}

fn root(object: &Map<String, Value>) -> Result<Mapping, Failure> {
    let mut mapping = Mapping::default();
    for (key, value) in object {
        match (key.as_str(), value) {
            ("properties", Value::Object(fields)) => properties(&mut mapping, "", fields, 0)?,
            ("dynamic", value) => mapping.dynamic = dynamic(value)?,
            ("_source", value) if *value == json!({}) || *value == json!({ "enabled": true }) => {}
            ("_all", value) if *value == json!({}) || *value == json!({ "enabled": true }) => {}
            ("date_detection", Value::Bool(true)) | ("numeric_detection", Value::Bool(false)) => {}
            ("_meta", Value::Object(_)) => {}
            (key, value) => {
                let reason =
                    format!("Root mapping definition has unsupported parameters:  [{key} : {value}]");
                return Err(Failure::mapping(reason));
            }
        }
    }
    Ok(mapping)
}

fn dynamic(value: &Value) -> Result<Dynamic, Failure> {
    match value {
        Value::Bool(true) => Ok(Dynamic::True),
        Value::Bool(false) => Ok(Dynamic::False),
        Value::String(text) if text == "true" => Ok(Dynamic::True),
        Value::String(text) if text == "false" => Ok(Dynamic::False),
        Value::String(text) if text == "strict" => Ok(Dynamic::Strict),
        other => Err(Failure::mapping(format!("[dynamic] cannot be [{other}]"))),
    }
}

fn properties(
    mapping: &mut Mapping,
    path: &str,
    fields: &Map<String, Value>,
    depth: usize,
) -> Result<(), Failure> {
    if depth > DEPTH_MAX {
        let reason = format!("Limit of mapping depth [{DEPTH_MAX}] has been exceeded");
        return Err(Failure::argument(reason));
    }
    for (name, value) in fields {
        if name.is_empty() {
            return Err(Failure::mapping("name cannot be empty string"));
        }
        let full = format!("{path}{name}");
        let Value::Object(options) = value else {
            return Err(Failure::mapping(format!("Expected map for property [fields] on field [{name}]")));
        };
        match (options.get("type"), options.get("properties")) {
            (None, Some(Value::Object(inner))) => {
                object_options(name, options)?;
                properties(mapping, &format!("{full}."), inner, depth + 1)?;
            }
            (Some(Value::String(kind)), inner) if kind == "object" => {
                object_options(name, options)?;
                if let Some(Value::Object(inner)) = inner {
                    properties(mapping, &format!("{full}."), inner, depth + 1)?;
                }
            }
            (Some(Value::String(kind)), _) => field(mapping, &full, None, kind, options)?,
            _ => return Err(Failure::mapping(format!("No type specified for field [{name}]"))),
        }
        if mapping.fields.len() > FIELDS_MAX {
            let reason = format!("Limit of total fields [{FIELDS_MAX}] has been exceeded");
            return Err(Failure::argument(reason));
        }
    }
    Ok(())
}

fn object_options(name: &str, options: &Map<String, Value>) -> Result<(), Failure> {
    match options.keys().find(|key| !matches!(key.as_str(), "type" | "properties")) {
        None => Ok(()),
        Some(key) => Err(Failure::mapping(format!("unknown parameter [{key}] on object [{name}]"))),
    }
}

/// A field, and its sub-fields.
fn field(
    mapping: &mut Mapping,
    full: &str,
    parent: Option<&str>,
    kind: &str,
    options: &Map<String, Value>,
) -> Result<(), Failure> {
    let name = full.rsplit('.').next().unwrap_or(full);
    let Some(known) = type_of(kind, options) else {
        return Err(Failure::mapping(format!("No handler for type [{kind}] declared on field [{name}]")));
    };
    let mut made = Field { parent: parent.map(str::to_owned), ..Field::of(known) };
    made.declared = (known.name() != kind).then(|| kind.to_owned());
    for (key, value) in options {
        match (key.as_str(), value) {
            ("type", _) => {}
            ("ignore_above", Value::Number(chars)) if known == FieldType::Keyword => {
                made.ignore_above = chars.as_u64().and_then(|chars| usize::try_from(chars).ok());
            }
            ("format", Value::String(format)) if known == FieldType::Date => {
                made.format = Some(format.clone())
            }
            ("fields", Value::Object(inner)) if parent.is_none() => {
                for (name, value) in inner {
                    let sub = format!("{full}.{name}");
                    match (value, value.get("type")) {
                        (Value::Object(options), Some(Value::String(kind))) => {
                            field(mapping, &sub, Some(full), kind, options)?;
                        }
                        _ => return Err(Failure::mapping(format!("No type specified for field [{name}]"))),
                    }
                }
            }
            (key, value) if is_as_it_is(key, value) => {}
            (key, _) => {
                let reason = format!("unknown parameter [{key}] on mapper [{name}] of type [{kind}]");
                return Err(Failure::mapping(reason));
            }
        }
    }
    mapping.fields.insert(full.to_owned(), made);
    Ok(())
}

/// The type of that name. `string` is of 2.x: words, or with `not_analyzed` one word.
fn type_of(name: &str, options: &Map<String, Value>) -> Option<FieldType> {
    Some(match name {
        "string" if options.get("index").and_then(Value::as_str) == Some("not_analyzed") => {
            FieldType::Keyword
        }
        "text" | "string" => FieldType::Text,
        "keyword" => FieldType::Keyword,
        "long" | "integer" | "short" | "byte" => FieldType::Long,
        "double" | "float" | "half_float" => FieldType::Double,
        "boolean" => FieldType::Boolean,
        "date" => FieldType::Date,
        "ip" => FieldType::Ip,
        "geo_point" => FieldType::GeoPoint,
        _ => return None,
    })
}

/// Settings that change nothing here: how things are kept, or what is done without being told.
fn is_as_it_is(key: &str, value: &Value) -> bool {
    match key {
        "index" => *value == json!(true) || *value == json!("analyzed") || *value == json!("not_analyzed"),
        "doc_values" => *value == json!(true),
        "store"
        | "norms"
        | "fielddata"
        | "eager_global_ordinals"
        | "index_options"
        | "similarity"
        | "meta" => true,
        "analyzer" | "search_analyzer" => *value == json!("standard"),
        _ => false,
    }
}

/// A mapping as it is shown.
pub fn shown(mapping: &Mapping) -> Value {
    let mut shown = Map::new();
    match mapping.dynamic {
        Dynamic::True => {}
        Dynamic::False => drop(shown.insert("dynamic".to_owned(), json!("false"))),
        Dynamic::Strict => drop(shown.insert("dynamic".to_owned(), json!("strict"))),
    }
    let mut level = Level::default();
    for (name, field) in mapping.fields.iter().filter(|(_, field)| field.parent.is_none()) {
        level.put(name, options(mapping, name, field));
    }
    if !level.0.is_empty() {
        shown.insert("properties".to_owned(), level.shown());
    }
    Value::Object(shown)
}

/// The properties of an object, by name.
#[derive(Default)]
struct Level(BTreeMap<String, Property>);

enum Property {
    Field(Map<String, Value>),
    Object(Level),
}

impl Level {
    fn put(&mut self, name: &str, options: Map<String, Value>) {
        match name.split_once('.') {
            None => drop(self.0.insert(name.to_owned(), Property::Field(options))),
            Some((object, rest)) => {
                let place = self.0.entry(object.to_owned());
                // A name is a field or an object, never both.
                if let Property::Object(inner) = place.or_insert_with(|| Property::Object(Level::default())) {
                    inner.put(rest, options);
                }
            }
        }
    }

    fn shown(self) -> Value {
        let shown = self.0.into_iter().map(|(name, property)| match property {
            Property::Field(options) => (name, Value::Object(options)),
            Property::Object(level) => (name, json!({ "properties": level.shown() })),
        });
        Value::Object(shown.collect())
    }
}

fn options(mapping: &Mapping, name: &str, field: &Field) -> Map<String, Value> {
    let mut options = Map::new();
    options.insert("type".to_owned(), json!(field.type_name()));
    if let Some(chars) = field.ignore_above {
        options.insert("ignore_above".to_owned(), json!(chars));
    }
    if let Some(format) = &field.format {
        options.insert("format".to_owned(), json!(format));
    }
    let inner = mapping.fields.iter().filter(|(_, inner)| inner.parent.as_deref() == Some(name));
    let inner: Map<_, _> = inner
        .map(|(full, inner)| {
            let last = full.strip_prefix(name).map_or(full.as_str(), |rest| rest.trim_start_matches('.'));
            (last.to_owned(), Value::Object(self::options(mapping, full, inner)))
        })
        .collect();
    if !inner.is_empty() {
        options.insert("fields".to_owned(), Value::Object(inner));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_same(mapping: Value) {
        let read = read(&mapping).unwrap();
        assert_eq!(shown(&read), mapping);
    }

    #[test]
    fn what_was_put_is_shown() {
        check_same(json!({}));
        check_same(
            json!({ "dynamic": "strict", "properties": { "k": { "type": "keyword", "ignore_above": 9 } } }),
        );
        check_same(json!({ "properties": {
            "d": { "type": "date", "format": "yyyy-MM-dd HH:mm:ssZ" },
            "o": { "properties": { "a": { "type": "ip" }, "b": { "properties": { "c": { "type": "float" } } } } },
            "t": { "type": "text", "fields": { "keyword": { "type": "keyword", "ignore_above": 256 } } },
        } }));
    }

    #[test]
    fn a_types_name_is_taken_off() {
        let inner = json!({ "properties": { "k": { "type": "keyword" } } });
        assert_eq!(read(&json!({ "opensips": inner })).unwrap(), read(&inner).unwrap());
    }

    #[track_caller]
    fn check_refused(mapping: Value, reason: &str) {
        let failure = read(&mapping).unwrap_err();
        assert!(failure.reason().ends_with(reason), "{}", failure.reason());
    }

    #[test]
    fn what_would_be_found_otherwise_is_refused() {
        let field = |options: Value| json!({ "properties": { "k": options } });
        check_refused(field(json!({ "type": "nope" })), "No handler for type [nope] declared on field [k]");
        check_refused(
            field(json!({ "type": "text", "analyzer": "english" })),
            "unknown parameter [analyzer] on mapper [k] of type [text]",
        );
        check_refused(
            field(json!({ "type": "keyword", "index": false })),
            "unknown parameter [index] on mapper [k] of type [keyword]",
        );
        check_refused(field(json!({})), "No type specified for field [k]");
        check_refused(json!({ "foo": { "k": 1 } }), "[foo : {\"k\":1}]");
        check_refused(json!([]), "a mapping is an object");
    }

    #[test]
    fn depth_is_limited_on_both_sides() {
        let nested = |depth: usize| {
            let leaf = json!({ "type": "long" });
            let inner = (0..depth).fold(leaf, |inner, _| json!({ "properties": { "a": inner } }));
            json!({ "properties": { "a": inner } })
        };
        assert!(read(&nested(DEPTH_MAX)).is_ok());
        check_refused(nested(DEPTH_MAX + 1), "has been exceeded");
    }
}
