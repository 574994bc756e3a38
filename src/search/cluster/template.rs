//! The index template of a name, and how a sender's mapping is merged into it. Pure code.
//!
//! The fields of docs/protocol.md have their intended types. A value that does not fit its field's type is
//! stored without being indexed (`ignore_malformed`), so that a malformed value does not lose its event.
//! Strings of unknown fields are mapped as text, whatever they look like, so that the first value does not
//! decide the type for all others.

use serde_json::{Map, Value, json};

use super::event::number_field;
use super::{LEA_OBJECT, client::encode_path_segment};
use crate::search::event_fields;
use crate::search::index_templates::IndexTemplates;
use crate::search::mapping::{Dynamic, Mapping};

/// Prefix of template names.
const PREFIX: &str = "lea-";

/// Version of the template's form; templates with another version are updated.
const FORMAT_VERSION: u64 = 1;

/// Higher than the templates that clusters include. Longer names get a higher priority, because their indices
/// can match the pattern of a shorter one.
const PRIORITY: usize = 200;

/// Path of a name's template.
pub(super) fn path(name: &str) -> String {
    format!("/_index_template/{PREFIX}{}", encode_path_segment(name))
}

/// Path of all templates of lea.
pub(super) fn all_path() -> String {
    format!("/_index_template/{PREFIX}*")
}

/// Parameters of the templates, apart from a sender's mapping.
#[derive(Clone, Debug, Default)]
pub(super) struct TemplateParams {
    /// Fields that contain phone numbers.
    pub numbers: Vec<String>,
    pub templates: IndexTemplates,
}

/// Builds the template of a name.
pub(super) fn build(name: &str, params: &TemplateParams, sent: &Mapping) -> Value {
    let mut mappings = json!({
        "date_detection": false,
        "dynamic_templates": [{"texts": {"match_mapping_type": "string", "mapping": event_fields::text()}}],
        "properties": properties(&params.numbers),
    });
    if let Some(mapping) = params.templates.mapping(name) {
        merge(&mut mappings, &mapping.to_json());
    }
    add_mapping(&mut mappings, sent);
    json!({
        // Only dates: an index such as `calls-archive` belongs to somebody else.
        "index_patterns": [format!("{name}-*.*.*")],
        "priority": PRIORITY + name.chars().count(),
        "template": {
            "settings": {"index": {
                "mapping": {"ignore_malformed": true},
                "auto_expand_replicas": "0-1",
            }},
            "mappings": mappings,
            "aliases": {name: {}},
        },
        "_meta": {"lea": FORMAT_VERSION, "name": name},
    })
}

/// Extracts the template from a server's response.
pub(super) fn from_response(response: &Value) -> Option<&Value> {
    Some(&response["index_templates"].get(0)?["index_template"])
}

/// Extracts the names of lea's own templates from a server's response.
pub(super) fn own_names(response: &Value) -> Vec<String> {
    let templates = response["index_templates"].as_array().map_or(&[][..], Vec::as_slice);
    let name = |template: &Value| {
        let meta = &template["index_template"]["_meta"];
        meta["lea"].as_u64().and_then(|_| meta["name"].as_str()).map(str::to_owned)
    };
    templates.iter().filter_map(name).collect()
}

/// Adds missing parts to an existing template; existing parts stay, even if an operator changed them. `None`:
/// nothing is missing.
pub(super) fn complete(
    existing: &Value,
    name: &str,
    params: &TemplateParams,
    sent: &Mapping,
) -> Option<Value> {
    let mut template = build(name, params, sent);
    let wanted = template.clone();
    merge(&mut template, existing);
    template["_meta"]["lea"] = wanted["_meta"]["lea"].clone();
    add_mapping(&mut template["template"]["mappings"], sent);
    // Servers return numbers and booleans as strings.
    (stringify_scalars(&template) != stringify_scalars(existing)).then_some(template)
}

/// The mapping that an existing index needs for the `lea` object.
pub(super) fn lea_object_mapping(numbers: &[String]) -> Value {
    json!({"properties": {LEA_OBJECT: lea_object(numbers)}})
}

fn properties(numbers: &[String]) -> Map<String, Value> {
    let mut properties = event_fields::properties();
    properties.insert(LEA_OBJECT.to_owned(), lea_object(numbers));
    properties
}

fn lea_object(numbers: &[String]) -> Value {
    let fields: Map<_, _> =
        numbers.iter().map(|field| (number_field(field), json!({"type": "keyword"}))).collect();
    json!({"properties": {"time": {"type": "date"}, "number": {"properties": fields}}})
}

/// Fields of a sender replace those of the template.
fn add_mapping(mappings: &mut Value, sent: &Mapping) {
    let sent_json = sent.to_json();
    if let Some(sent) = sent_json["properties"].as_object() {
        for (name, field) in sent {
            let is_object = field.get("properties").is_some();
            match &mut mappings["properties"][name] {
                existing if is_object && existing.get("properties").is_some() => merge(existing, field),
                existing => *existing = field.clone(),
            }
        }
    }
    for key in ["date_detection", "numeric_detection", "dynamic_templates"] {
        if let Some(rule) = sent_json.get(key) {
            mappings[key] = rule.clone();
        }
    }
    if sent.dynamic != Dynamic::True {
        mappings["dynamic"] = sent_json["dynamic"].clone();
    }
}

/// Merges `over` into `base` recursively.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(key) {
                    // A field's definition is replaced as a whole.
                    Some(existing) if !value["type"].is_string() => merge(existing, value),
                    _ => drop(base.insert(key.clone(), value.clone())),
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// Converts all numbers and booleans to strings.
fn stringify_scalars(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            object.iter().map(|(key, value)| (key.clone(), stringify_scalars(value))).collect()
        }
        Value::Array(array) => array.iter().map(stringify_scalars).collect(),
        Value::Bool(_) | Value::Number(_) => value.to_string().into(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> TemplateParams {
        let numbers = vec!["destNum".to_owned(), "a.b".to_owned()];
        TemplateParams { numbers, templates: crate::billing::index_templates("billing") }
    }

    #[test]
    fn template_defines_field_types() {
        let built = build("calls", &params(), &Mapping::default());
        assert_eq!(built["index_patterns"], json!(["calls-*.*.*"]));
        assert_eq!(built["priority"], 205);
        let properties = &built["template"]["mappings"]["properties"];
        assert_eq!(properties["lea"]["properties"]["number"]["properties"]["a_b"]["type"], "keyword");
        assert_eq!(properties["ipIntruder"]["type"], "ip");
        assert_eq!(properties["location"]["type"], "geo_point");
        let built = build("billing", &params(), &Mapping::default());
        let properties = &built["template"]["mappings"]["properties"];
        assert!(properties["request_time"]["format"].as_str().unwrap().starts_with("epoch_second||"));
        assert_eq!(properties["call_id"], json!({"type": "keyword"}));
        assert_eq!(complete(&built, "billing", &params(), &Mapping::default()), None);
    }

    #[test]
    fn existing_template_keeps_its_parts_and_gets_missing_ones() {
        let built = build("calls", &params(), &Mapping::default());
        assert_eq!(complete(&built, "calls", &params(), &Mapping::default()), None);
        let mut existing = built.clone();
        existing["template"]["settings"]["index"] =
            json!({"mapping": {"ignore_malformed": "true"}, "number_of_shards": "3"});
        existing["template"]["mappings"]["properties"]["key"] = json!({"type": "keyword"});
        let object = existing["template"]["mappings"]["properties"].as_object_mut().unwrap();
        object.remove("location");
        let full = complete(&existing, "calls", &params(), &Mapping::default()).unwrap();
        assert_eq!(full["template"]["settings"]["index"]["number_of_shards"], "3");
        assert_eq!(full["template"]["mappings"]["properties"]["key"], json!({"type": "keyword"}));
        assert_eq!(full["template"]["mappings"]["properties"]["location"]["type"], "geo_point");
        assert_eq!(complete(&full, "calls", &params(), &Mapping::default()), None);
    }

    #[test]
    fn mapping_of_a_sender_replaces_template_fields() {
        let sent = json!({"dynamic": "strict", "properties": {
            "destNum": {"type": "keyword"}, "x": {"properties": {"y": {"type": "long"}}}
        }});
        let sent = Mapping::parse(&sent).unwrap();
        let existing = build("calls", &params(), &Mapping::default());
        for template in
            [build("calls", &params(), &sent), complete(&existing, "calls", &params(), &sent).unwrap()]
        {
            let mappings = &template["template"]["mappings"];
            assert_eq!(mappings["dynamic"], "strict");
            assert_eq!(mappings["properties"]["destNum"], json!({"type": "keyword"}));
            assert_eq!(mappings["properties"]["x"]["properties"]["y"]["type"], "long");
            assert_eq!(complete(&template, "calls", &params(), &sent), None);
        }
    }

    #[test]
    fn only_own_templates_are_listed() {
        let ours = json!({"name": "lea-a", "index_template": {"_meta": {"lea": 1, "name": "a"}}});
        let other = json!({"name": "lea-b", "index_template": {"index_patterns": ["*"]}});
        assert_eq!(own_names(&json!({"index_templates": [other, ours]})), ["a"]);
        assert_eq!(own_names(&json!({})), Vec::<String>::new());
    }
}
