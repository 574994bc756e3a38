//! Rules of a mapping about fields that it does not contain: detection of dates and numbers in texts, dynamic
//! templates, and objects that are not indexed. Pure code.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Field;
use super::parse::{MappingError, parse_bool, parse_definition};
use crate::search::glob::glob_matches;

/// Maximum number of dynamic templates of an index: each new field is compared with all of them.
const TEMPLATES_MAX: usize = 128;

/// The rules of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MappingRules {
    /// `date_detection`, if the mapping has it.
    pub date_detection: Option<bool>,
    /// `numeric_detection`, if the mapping has it.
    pub numeric_detection: Option<bool>,
    /// `dynamic_templates`, if the mapping has it.
    templates: Option<Vec<DynamicTemplate>>,
    /// Paths of objects that have `"enabled": false`.
    disabled: BTreeSet<String>,
}

/// The type of a JSON value, as dynamic templates name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonType {
    Text,
    Long,
    Double,
    Boolean,
    Date,
}

impl JsonType {
    const ALL: [JsonType; 5] =
        [JsonType::Text, JsonType::Long, JsonType::Double, JsonType::Boolean, JsonType::Date];

    fn name(self) -> &'static str {
        match self {
            JsonType::Text => "string",
            JsonType::Long => "long",
            JsonType::Double => "double",
            JsonType::Boolean => "boolean",
            JsonType::Date => "date",
        }
    }

    /// The type of a field whose template names none, and the value of `{dynamic_type}`.
    fn field_type(self) -> &'static str {
        match self {
            JsonType::Text => "text",
            JsonType::Double => "float",
            other => other.name(),
        }
    }
}

/// An entry of `dynamic_templates`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DynamicTemplate {
    name: String,
    /// The type of the values. `None`: all.
    json_type: Option<JsonType>,
    /// Patterns of the last part of the path, and of the path.
    matches: Option<String>,
    unmatch: Option<String>,
    path_match: Option<String>,
    path_unmatch: Option<String>,
    /// The entry as the client sent it.
    shown: Value,
}

impl DynamicTemplate {
    fn parse(name: &str, value: &Value) -> Result<DynamicTemplate, MappingError> {
        let fail = |why: String| Err(MappingError(format!("template [{name}] {why}")));
        let Some(members) = value.as_object() else { return fail("is not an object".to_owned()) };
        let text = |key: &str| members.get(key).and_then(Value::as_str).map(str::to_owned);
        let json_type = match text("match_mapping_type").as_deref() {
            None | Some("*") => None,
            Some(wanted) => match JsonType::ALL.into_iter().find(|one| one.name() == wanted) {
                None => return fail(format!("has the unsupported match_mapping_type [{wanted}]")),
                found => found,
            },
        };
        for (key, value) in members {
            match key.as_str() {
                "match" | "unmatch" | "path_match" | "path_unmatch" | "match_mapping_type"
                    if value.is_string() => {}
                "match_pattern" if *value == "simple" => {}
                "mapping" if value.is_object() => {}
                key => return fail(format!("has the unsupported parameter [{key} : {value}]")),
            }
        }
        let template = DynamicTemplate {
            name: name.to_owned(),
            json_type,
            matches: text("match"),
            unmatch: text("unmatch"),
            path_match: text("path_match"),
            path_unmatch: text("path_unmatch"),
            shown: value.clone(),
        };
        let is_general = ["match", "path_match", "match_mapping_type"].iter().all(|key| text(key).is_none());
        if !members.contains_key("mapping") {
            return fail("must have either mapping or runtime set".to_owned());
        }
        if is_general {
            return fail("must have match, path_match or match_mapping_type".to_owned());
        }
        // Its mapping is checked now: an error in it must not refuse the first document that it fits.
        // Without a type in its mapping, a template may fit some of the types only.
        let kinds = JsonType::ALL.iter().filter(|kind| template.json_type.is_none_or(|only| only == **kind));
        let mut checked: Vec<_> = kinds.map(|kind| template.fields("name", *kind)).collect();
        match checked.iter().position(Result::is_ok) {
            Some(_) => Ok(template),
            None => checked.swap_remove(0).map(|_| template),
        }
    }

    fn fits(&self, path: &str, kind: JsonType) -> bool {
        let last = path.rsplit('.').next().unwrap_or(path);
        let fits = |pattern: &Option<String>, name: &str| {
            pattern.as_deref().map(|pattern| glob_matches(pattern, name))
        };
        self.json_type.is_none_or(|wanted| wanted == kind)
            && fits(&self.matches, last).unwrap_or(true)
            && fits(&self.path_match, path).unwrap_or(true)
            && !fits(&self.unmatch, last).unwrap_or(false)
            && !fits(&self.path_unmatch, path).unwrap_or(false)
    }

    /// Returns the field that the template makes, with its sub-fields.
    fn fields(&self, path: &str, kind: JsonType) -> Result<Vec<(String, Field)>, MappingError> {
        let last = path.rsplit('.').next().unwrap_or(path);
        let mut definition = replaced(&self.shown["mapping"], last, kind.field_type());
        let Some(members) = definition.as_object_mut() else { return Ok(Vec::new()) };
        members.entry("type").or_insert_with(|| kind.field_type().into());
        let fields: BTreeMap<String, Field> = parse_definition(path, members)?;
        Ok(fields.into_iter().collect())
    }
}

/// Returns a mapping with the names `{name}` and `{dynamic_type}` replaced.
fn replaced(value: &Value, name: &str, kind: &str) -> Value {
    let in_text = |text: &str| text.replace("{name}", name).replace("{dynamic_type}", kind);
    match value {
        Value::String(text) => in_text(text).into(),
        Value::Object(members) => {
            members.iter().map(|(key, value)| (in_text(key), replaced(value, name, kind))).collect()
        }
        Value::Array(list) => list.iter().map(|value| replaced(value, name, kind)).collect(),
        other => other.clone(),
    }
}

impl MappingRules {
    pub(super) const fn new() -> MappingRules {
        MappingRules {
            date_detection: None,
            numeric_detection: None,
            templates: None,
            disabled: BTreeSet::new(),
        }
    }

    /// Reads a member of a mapping. Returns false if it is not a rule.
    pub(super) fn read(&mut self, key: &str, value: &Value) -> Result<bool, MappingError> {
        let flag = || match parse_bool(value) {
            Some(flag) => Ok(Some(flag)),
            None => Err(MappingError(format!("[{key}] is [{value}], expected true or false"))),
        };
        match key {
            "date_detection" => self.date_detection = flag()?,
            "numeric_detection" => self.numeric_detection = flag()?,
            "dynamic_templates" => self.templates = Some(parse_templates(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Notes that an object is not indexed.
    pub(super) fn disable(&mut self, path: &str) {
        self.disabled.insert(path.to_owned());
    }

    /// Tells whether the object of a path is not indexed.
    pub(crate) fn is_disabled(&self, path: &str) -> bool {
        !self.disabled.is_empty() && self.disabled.contains(path)
    }

    /// Paths of the objects that are not indexed.
    pub(super) fn disabled(&self) -> impl Iterator<Item = &str> {
        self.disabled.iter().map(String::as_str)
    }

    /// Adds the rules of a later request. Its list of templates replaces the whole list.
    pub(crate) fn merge(&mut self, later: &MappingRules) {
        self.date_detection = later.date_detection.or(self.date_detection);
        self.numeric_detection = later.numeric_detection.or(self.numeric_detection);
        if later.templates.is_some() {
            self.templates.clone_from(&later.templates);
        }
        self.disabled.extend(later.disabled.iter().cloned());
    }

    /// Returns the fields that the first fitting template makes of a new member.
    pub(crate) fn template_fields(&self, path: &str, kind: JsonType) -> Option<Vec<(String, Field)>> {
        let template = self.templates.iter().flatten().find(|template| template.fits(path, kind))?;
        // A definition that fits no such value is not used.
        template.fields(path, kind).ok().filter(|fields| !fields.is_empty())
    }

    /// Returns the rules as members of a mapping, without the disabled objects.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let mut shown = Map::new();
        for (key, flag) in
            [("date_detection", self.date_detection), ("numeric_detection", self.numeric_detection)]
        {
            if let Some(flag) = flag {
                shown.insert(key.to_owned(), flag.into());
            }
        }
        let templates: Vec<_> = self
            .templates
            .iter()
            .flatten()
            .map(|template| json!({ template.name.as_str(): template.shown }))
            .collect();
        if !templates.is_empty() {
            shown.insert("dynamic_templates".to_owned(), templates.into());
        }
        shown
    }

    /// Returns the rules as text for the store.
    pub(crate) fn to_text(&self) -> String {
        let mut all = self.to_json();
        all.insert("disabled".to_owned(), json!(self.disabled));
        Value::Object(all).to_string()
    }

    /// Reads the text of [`MappingRules::to_text`]. Rules that are unknown are left out.
    pub(crate) fn from_text(text: &str) -> MappingRules {
        let mut rules = MappingRules::default();
        let all: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        for (key, value) in &all {
            let paths = value.as_array().into_iter().flatten().filter_map(Value::as_str);
            match key.as_str() {
                "disabled" => rules.disabled = paths.map(str::to_owned).collect(),
                key => drop(rules.read(key, value)),
            }
        }
        rules
    }
}

fn parse_templates(value: &Value) -> Result<Vec<DynamicTemplate>, MappingError> {
    let fail = |why: &str| Err(MappingError(why.to_owned()));
    let Some(list) = value.as_array() else {
        return fail("Dynamic template syntax error. An array of named objects is expected.");
    };
    if list.len() > TEMPLATES_MAX {
        return Err(MappingError(format!("Limit of dynamic templates [{TEMPLATES_MAX}] has been exceeded")));
    }
    let mut templates = Vec::new();
    for entry in list {
        let Some((name, value)) =
            entry.as_object().filter(|one| one.len() == 1).and_then(|one| one.iter().next())
        else {
            return fail("A dynamic template must be defined with a name");
        };
        templates.push(DynamicTemplate::parse(name, value)?);
    }
    Ok(templates)
}

/// Returns the type of a number in a text, for `numeric_detection`.
pub(crate) fn number_type(text: &str) -> Option<JsonType> {
    if text.parse::<i64>().is_ok() {
        return Some(JsonType::Long);
    }
    let is_number = text.bytes().any(|byte| byte.is_ascii_digit()) && text.parse::<f64>().is_ok();
    is_number.then_some(JsonType::Double)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::mapping::{FieldType, Mapping};

    fn rules(value: Value) -> MappingRules {
        Mapping::parse(&value).unwrap().rules
    }

    #[track_caller]
    fn check(template: Value, path: &str, kind: JsonType, expected: &[(&str, &str)]) {
        let rules = rules(json!({"dynamic_templates": [{ "t": template }]}));
        let found = rules.template_fields(path, kind).unwrap_or_default();
        let found: Vec<_> = found.iter().map(|(name, field)| (name.as_str(), field.type_name())).collect();
        assert_eq!(found, expected, "{template} {path}");
    }

    #[test]
    fn the_first_template_that_fits_makes_the_field() {
        let keyword = json!({"match_mapping_type": "string", "mapping": {"type": "keyword"}});
        check(keyword.clone(), "a.b", JsonType::Text, &[("a.b", "keyword")]);
        check(keyword, "a.b", JsonType::Long, &[]);
        let path = json!({"path_match": "tag.*", "path_unmatch": "tag.x*", "mapping": {"type": "keyword"}});
        check(path.clone(), "tag.a", JsonType::Text, &[("tag.a", "keyword")]);
        check(path.clone(), "tag.x1", JsonType::Text, &[]);
        check(path, "tags", JsonType::Text, &[]);
        let last = json!({"match": "*_ms", "unmatch": "no_*", "mapping": {"type": "long"}});
        check(last.clone(), "a.wait_ms", JsonType::Double, &[("a.wait_ms", "long")]);
        check(last.clone(), "a.no_ms", JsonType::Double, &[]);
        check(last, "a_ms.b", JsonType::Double, &[]);
        let any = json!({"match": "*", "mapping": {"norms": false}});
        check(any.clone(), "a", JsonType::Text, &[("a", "text")]);
        check(any, "a", JsonType::Double, &[("a", "float")]);
        let named = json!({"match_mapping_type": "*", "mapping":
            {"type": "{dynamic_type}", "fields": {"{name}_raw": {"type": "keyword"}}}});
        check(named, "a.b", JsonType::Long, &[("a.b", "long"), ("a.b.b_raw", "keyword")]);
    }

    #[test]
    fn rules_survive_the_store_and_a_second_request() {
        let mut first = rules(json!({
            "date_detection": false, "numeric_detection": "true",
            "dynamic_templates": [{"a": {"match": "a*", "mapping": {"type": "ip"}}}],
            "properties": {"body": {"type": "object", "enabled": "false"}},
        }));
        assert_eq!((first.date_detection, first.numeric_detection), (Some(false), Some(true)));
        assert!(first.is_disabled("body") && !first.is_disabled("bod"));
        assert_eq!(MappingRules::from_text(&first.to_text()), first);
        let of_b = json!([{"b": {"match": "b*", "mapping": {"type": "date"}}}]);
        first.merge(&rules(json!({"date_detection": true})));
        assert!(first.template_fields("a1", JsonType::Text).is_some());
        first.merge(&rules(json!({ "dynamic_templates": of_b })));
        assert_eq!((first.date_detection, first.numeric_detection), (Some(true), Some(true)));
        let kind_of = |path: &str| Some(first.template_fields(path, JsonType::Text)?[0].1.field_type);
        assert_eq!((kind_of("a1"), kind_of("b1")), (None, Some(FieldType::Date)));
        assert_eq!(rules(json!({})), MappingRules::default());
    }

    #[test]
    fn bad_templates_are_refused() {
        let refused = |templates: Value| {
            Mapping::parse(&json!({ "dynamic_templates": templates })).unwrap_err().to_string()
        };
        let of = |template: Value| refused(json!([{ "t": template }]));
        assert!(refused(json!({})).contains("array"));
        assert!(refused(json!([{}])).contains("name"));
        assert!(of(json!({"match": "a"})).contains("must have either mapping"));
        assert!(of(json!({"mapping": {"type": "long"}})).contains("must have match"));
        assert!(of(json!({"match": "a", "mapping": {"type": "nested"}})).contains("No handler"));
        assert!(of(json!({"match": "a", "match_pattern": "regex", "mapping": {}})).contains("match_pattern"));
        assert!(of(json!({"match_mapping_type": "object", "mapping": {}})).contains("[object]"));
        let many = |count: usize| {
            let one = json!({"t": {"match": "a", "mapping": {"type": "long"}}});
            Mapping::parse(&json!({"dynamic_templates": vec![one; count]}))
        };
        assert!(many(TEMPLATES_MAX).is_ok() && many(TEMPLATES_MAX + 1).is_err());
    }

    #[test]
    fn numbers_in_texts_are_detected() {
        let table =
            [("12", Some(JsonType::Long)), ("-1.5", Some(JsonType::Double)), ("1e3", Some(JsonType::Double))];
        for (text, expected) in table {
            assert_eq!(number_type(text), expected, "{text}");
        }
        for text in ["", "nan", "inf", "12a", "+", "."] {
            assert_eq!(number_type(text), None, "{text}");
        }
    }
}
