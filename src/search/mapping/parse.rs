//! Reader and writer of Elasticsearch's mapping JSON: 7.x (`properties`, with or without a type name above)
//! and 2.x (`string`). Pure code.
//!
//! Unknown parameters that would change results are rejected; those that only change Elasticsearch's storage
//! are ignored.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Dynamic, FIELDS_MAX, Field, FieldType, Mapping};
use crate::search::date::DateFormat;

/// Maximum nesting depth of objects (Elasticsearch's limit).
const DEPTH_MAX: usize = 20;

/// Parameters that do not change results here.
const IGNORED: [&str; 14] = [
    "store",
    "doc_values",
    "norms",
    "index_options",
    "eager_global_ordinals",
    "similarity",
    "boost",
    "fielddata",
    "meta",
    "include_in_all",
    "index_phrases",
    "precision_step",
    "locale",
    "split_queries_on_whitespace",
];

/// Keys next to `properties` that are ignored.
const ROOT_IGNORED: [&str; 6] = ["_source", "_all", "_meta", "_routing", "_field_names", "_size"];

/// A rejected mapping, in Elasticsearch's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MappingError(pub String);

type ParseResult<T> = Result<T, MappingError>;

fn error<T>(text: impl Into<String>) -> ParseResult<T> {
    Err(MappingError(text.into()))
}

impl Mapping {
    /// Parses the value of `mappings`, or the body of a `PUT _mapping`.
    pub fn parse(value: &Value) -> ParseResult<Mapping> {
        let mut mapping = Mapping::default();
        let Some(mut root) = value.as_object() else {
            return error("Failed to parse mapping: not an object");
        };
        // A type name above, as in 2.x.
        if let Some((name, inner)) = root.iter().next().filter(|_| root.len() == 1)
            && !is_root_key(name)
            && let Some(inner) = inner.as_object()
        {
            root = inner;
        }
        for (key, value) in root {
            match key.as_str() {
                "properties" => parse_properties(&mut mapping, "", value, 1)?,
                "dynamic" => mapping.dynamic = parse_dynamic(value)?,
                key if mapping.rules.read(key, value)? => {}
                key if ROOT_IGNORED.contains(&key) => {}
                key => {
                    return error(format!(
                        "Root mapping definition has unsupported parameters:  [{key} : {value}]"
                    ));
                }
            }
        }
        if mapping.fields.len() > FIELDS_MAX {
            return error(format!("Limit of total fields [{FIELDS_MAX}] has been exceeded"));
        }
        Ok(mapping)
    }

    /// The value of `mappings` in the response to `GET _mapping`.
    pub fn to_json(&self) -> Value {
        let mut root = Map::new();
        match self.dynamic {
            Dynamic::True => {}
            Dynamic::False => drop(root.insert("dynamic".to_owned(), json!("false"))),
            Dynamic::Strict => drop(root.insert("dynamic".to_owned(), json!("strict"))),
        }
        root.extend(self.rules.to_json());
        for path in self.rules.disabled() {
            let object = [("type".to_owned(), json!("object")), ("enabled".to_owned(), json!(false))];
            field_object(&mut root, path, "properties").extend(object);
        }
        // Parents come first in this order, because their names are prefixes.
        for (name, field) in &self.fields {
            let shown = field_json(field);
            match &field.parent {
                Some(parent) => {
                    let above = field_object(&mut root, parent, "properties");
                    let last = name.strip_prefix(&format!("{parent}.")).unwrap_or(name);
                    let fields = above.entry("fields").or_insert_with(|| json!({}));
                    if let Some(fields) = fields.as_object_mut() {
                        fields.insert(last.to_owned(), Value::Object(shown));
                    }
                }
                None => field_object(&mut root, name, "properties").extend(shown),
            }
        }
        Value::Object(root)
    }
}

fn is_root_key(key: &str) -> bool {
    matches!(key, "properties" | "dynamic" | "date_detection" | "numeric_detection" | "dynamic_templates")
        || ROOT_IGNORED.contains(&key)
}

/// Returns the JSON object of a field, creating the objects around it.
fn field_object<'a>(root: &'a mut Map<String, Value>, name: &str, below: &str) -> &'a mut Map<String, Value> {
    let mut at = root;
    for part in name.split('.') {
        at = child_object(child_object(at, below), part);
    }
    at
}

fn child_object<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    value.as_object_mut().expect("only objects are inserted under these names")
}

fn field_json(field: &Field) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("type".to_owned(), field.type_name().into());
    if let Some(chars) = field.ignore_above {
        shown.insert("ignore_above".to_owned(), chars.into());
    }
    if let Some(format) = &field.format {
        shown.insert("format".to_owned(), format.as_str().into());
    }
    if !field.is_searchable {
        shown.insert("index".to_owned(), false.into());
    }
    if field.ignore_malformed {
        shown.insert("ignore_malformed".to_owned(), true.into());
    }
    shown
}

fn parse_dynamic(value: &Value) -> ParseResult<Dynamic> {
    match value {
        Value::Bool(true) => Ok(Dynamic::True),
        Value::Bool(false) => Ok(Dynamic::False),
        Value::String(text) if text == "true" => Ok(Dynamic::True),
        Value::String(text) if text == "false" => Ok(Dynamic::False),
        Value::String(text) if text == "strict" => Ok(Dynamic::Strict),
        other => error(format!("unsupported [dynamic : {other}], expected true, false or strict")),
    }
}

fn parse_properties(mapping: &mut Mapping, path: &str, value: &Value, depth: usize) -> ParseResult<()> {
    let Some(properties) = value.as_object() else { return error("Expected map for property [properties]") };
    if depth > DEPTH_MAX {
        return error(format!("Limit of mapping depth [{DEPTH_MAX}] has been exceeded"));
    }
    for (name, value) in properties {
        if name.split('.').any(|part| part.trim().is_empty()) {
            return error(format!("name cannot be empty string: [{name}]"));
        }
        let full = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let Some(definition) = value.as_object() else {
            return error(format!("Expected map for property [fields] on field [{full}] but got {value}"));
        };
        let kind = definition.get("type").and_then(Value::as_str);
        match kind {
            None | Some("object") => {
                for (key, value) in definition {
                    match key.as_str() {
                        "type" => {}
                        "properties" => self::parse_properties(mapping, &full, value, depth + 1)?,
                        "dynamic" if parse_dynamic(value)? == mapping.dynamic => {}
                        "enabled" if parse_bool(value) == Some(true) => {}
                        "enabled" if parse_bool(value) == Some(false) => mapping.rules.disable(&full),
                        key => return unknown_parameter(key, value, &full, "object"),
                    }
                }
                let is_flag = definition.len() == 1 && definition.contains_key("enabled");
                let is_object = is_flag || definition.contains_key("properties") || definition.is_empty();
                if kind.is_none() && !is_object {
                    return error(format!("No type specified for field [{full}]"));
                }
            }
            Some(kind) => parse_field(mapping, &full, kind, definition, None)?,
        }
    }
    Ok(())
}

/// Reads a flag, which may be a text, as in Elasticsearch 7.
pub(super) fn parse_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Parses the definition of one field, and returns it with its sub-fields.
pub(super) fn parse_definition(
    name: &str,
    definition: &Map<String, Value>,
) -> ParseResult<BTreeMap<String, Field>> {
    let kind = definition.get("type").and_then(Value::as_str).unwrap_or_default();
    let mut mapping = Mapping::default();
    parse_field(&mut mapping, name, kind, definition, None)?;
    Ok(mapping.fields)
}

fn unknown_parameter<T>(key: &str, value: &Value, name: &str, kind: &str) -> ParseResult<T> {
    error(format!(
        "unknown parameter [{key}] on mapper [{name}] of type [{kind}]: {value} is not supported here"
    ))
}

/// Parses a field and its sub-fields.
fn parse_field(
    mapping: &mut Mapping,
    name: &str,
    kind: &str,
    definition: &Map<String, Value>,
    parent: Option<&str>,
) -> ParseResult<()> {
    let mut found = Field { parent: parent.map(str::to_owned), ..parse_field_type(kind, name, definition)? };
    for (key, value) in definition {
        match (key.as_str(), found.field_type) {
            ("type", _) => {}
            ("index", _) if matches!(value.as_str(), Some("analyzed" | "not_analyzed")) => {}
            ("index" | "coerce", _) if *value == Value::Bool(true) => {}
            ("index", _) if *value == Value::Bool(false) => found.is_searchable = false,
            ("ignore_malformed", _) if *value == Value::Bool(false) => {}
            ("ignore_malformed", FieldType::Date | FieldType::Long | FieldType::Double | FieldType::Ip)
                if *value == Value::Bool(true) =>
            {
                found.ignore_malformed = true;
            }
            ("analyzer" | "search_analyzer", FieldType::Text) if *value == "standard" => {}
            ("position_increment_gap", FieldType::Text) if *value == 100 => {}
            ("scaling_factor", FieldType::Double) => {}
            ("ignore_above", FieldType::Keyword) => match value.as_u64() {
                Some(chars) => found.ignore_above = usize::try_from(chars).ok(),
                None => return unknown_parameter(key, value, name, kind),
            },
            ("format", FieldType::Date) => {
                let text = value.as_str().unwrap_or_default();
                if let Err(why) = DateFormat::parse(text) {
                    return error(format!("Invalid format: [{text}]: {why}"));
                }
                found.format = Some(text.to_owned());
            }
            ("fields", _) if parent.is_none() => parse_sub_fields(mapping, name, value)?,
            (key, _) if IGNORED.contains(&key) => {}
            (key, _) => return unknown_parameter(key, value, name, kind),
        }
    }
    mapping.fields.insert(name.to_owned(), found);
    Ok(())
}

/// Parses the value of `fields`: the sub-fields of a field.
fn parse_sub_fields(mapping: &mut Mapping, name: &str, value: &Value) -> ParseResult<()> {
    let Some(fields) = value.as_object() else {
        return error(format!("Expected map for property [fields] on field [{name}]"));
    };
    for (sub, definition) in fields {
        let kind = definition.get("type").and_then(Value::as_str);
        let (Some(kind), Some(definition)) = (kind, definition.as_object()) else {
            return error(format!("no type specified for property [{sub}]"));
        };
        if sub.contains('.') {
            return error(format!(
                "Field name [{sub}] which is a multi field of [{name}] cannot contain '.'"
            ));
        }
        parse_field(mapping, &format!("{name}.{sub}"), kind, definition, Some(name))?;
    }
    Ok(())
}

fn parse_field_type(kind: &str, name: &str, definition: &Map<String, Value>) -> ParseResult<Field> {
    let known = match kind {
        "string" => match definition.get("index").map(|index| index.as_str().unwrap_or("?")) {
            None | Some("analyzed") => FieldType::Text,
            Some("not_analyzed") => FieldType::Keyword,
            Some(_) => {
                return error(format!(
                    "Can't parse [index] value [{}] for field [{name}], expected [analyzed] or [not_analyzed]",
                    definition["index"]
                ));
            }
        },
        kind => match FieldType::from_name(kind) {
            Some(known) => known,
            None => return error(format!("No handler for type [{kind}] declared on field [{name}]")),
        },
    };
    let declared = (kind != known.name() && kind != "string").then(|| kind.to_owned());
    Ok(Field { declared_type: declared, ..Field::of_type(known) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_same(value: Value) {
        assert_eq!(Mapping::parse(&value).unwrap().to_json(), value);
    }

    #[test]
    fn mappings_survive_a_round_trip() {
        check_same(json!({}));
        check_same(json!({"dynamic": "strict", "properties": {"a": {"type": "integer"}}}));
        check_same(json!({"properties": {
            "name": {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}},
            "at": {"type": "date", "format": "yyyy-MM-dd HH:mm:ss", "ignore_malformed": true},
            "sip": {"properties": {"code": {"type": "short"}, "from": {"properties": {"ip": {"type": "ip"}}}}},
        }}));
        check_same(json!({"date_detection": false, "numeric_detection": true, "dynamic_templates": [
            {"texts": {"match_mapping_type": "string", "mapping": {"type": "keyword", "ignore_above": 1024}}}
        ], "properties": {"body": {"type": "object", "enabled": false}}}));
    }

    #[test]
    fn mapping_of_2x_is_converted() {
        let old = json!({"1": {"properties": {
            "destNum": {"type": "string", "index": "not_analyzed"}, "userAgent": {"type": "string"},
        }}});
        let new = json!({"properties": {"destNum": {"type": "keyword"}, "userAgent": {"type": "text"}}});
        assert_eq!(Mapping::parse(&old).unwrap().to_json(), new);
    }

    #[test]
    fn unsupported_mappings_are_rejected() {
        for (bad, why) in [
            (json!([]), "not an object"),
            (
                json!({"properties": {"a": {"type": "nested"}}}),
                "No handler for type [nested] declared on field [a]",
            ),
            (json!({"properties": {"a": {"index": true}}}), "unknown parameter [index]"),
            (
                json!({"properties": {"a": {"type": "text", "analyzer": "english"}}}),
                "unknown parameter [analyzer]",
            ),
            (
                json!({"properties": {"a": {"type": "keyword", "ignore_malformed": true}}}),
                "unknown parameter [ignore_malformed]",
            ),
            (
                json!({"properties": {"a": {"type": "keyword", "null_value": "x"}}}),
                "unknown parameter [null_value]",
            ),
            (json!({"properties": {"a": {"type": "date", "format": "qqqq"}}}), "Invalid format"),
            (json!({"properties": {"": {"type": "long"}}}), "empty"),
            (json!({"foo": []}), "unsupported parameters"),
            (json!({"date_detection": "no"}), "expected true or false"),
        ] {
            let error = Mapping::parse(&bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let many = |count: usize| {
            let fields: Map<_, _> = (0..count).map(|n| (format!("f{n}"), json!({"type": "long"}))).collect();
            Mapping::parse(&json!({ "properties": fields }))
        };
        assert!(many(FIELDS_MAX).is_ok() && many(FIELDS_MAX + 1).is_err());
        let deep =
            |depth| (0..depth).fold(json!({"type": "long"}), |inner, _| json!({"properties": {"a": inner}}));
        assert!(Mapping::parse(&deep(DEPTH_MAX)).is_ok());
        assert!(Mapping::parse(&deep(DEPTH_MAX + 1)).is_err());
    }
}
