//! The endpoints `_field_caps` and `_mapping/field`, which describe fields. Runs on the threads of the HTTP connections.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::api::{EsApi, RoutedRequest};
use super::error::ApiError;
use super::indices::{EXPAND_PARAMETERS, TIMEOUT_PARAMETERS};
use super::response;
use crate::http::Response;
use crate::search::glob::glob_matches;
use crate::search::mapping::FieldType;
use crate::search::store::IndexInfo;

/// Limit on the patterns of fields in one request.
const PATTERNS_MAX: usize = 64;

/// Fields of every document, with type, and whether it can be searched and aggregated. Dashboards expect them in the list.
const METADATA_FIELDS: [(&str, &str, bool, bool); 5] = [
    ("_id", "_id", true, true),
    ("_index", "_index", true, true),
    ("_type", "_type", true, true),
    ("_source", "_source", false, false),
    ("_ignored", "_ignored", true, false),
];

/// What indices say about a field of one type.
struct TypedField {
    indices: BTreeSet<String>,
    is_metadata: bool,
    is_searchable: bool,
    is_aggregatable: bool,
}

/// The types of each field.
type FieldCaps = BTreeMap<String, BTreeMap<String, TypedField>>;

impl EsApi {
    pub(super) fn field_caps(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&[&["fields", "include_unmapped"][..], &EXPAND_PARAMETERS].concat())?;
        let mut patterns = parse_patterns(routed.parameters.get("fields"))?;
        let body = self.read_body(routed)?;
        if !body.bytes().is_empty() {
            let body = self.read_object(routed)?;
            if let Some(key) =
                body.as_object().into_iter().flatten().map(|(key, _)| key).find(|key| *key != "fields")
            {
                return Err(ApiError::not_supported(format_args!("[{key}] of _field_caps")));
            }
            if let Some(fields) = body.get("fields").and_then(Value::as_array) {
                patterns.extend(fields.iter().filter_map(Value::as_str).map(str::to_owned));
            }
        }
        if patterns.is_empty() {
            return Err(ApiError::illegal_argument("specified fields can't be null or empty"));
        }
        let indices = self.select_indices(routed)?;
        let caps = collect_caps(&indices, &patterns);
        let includes_unmapped = routed.parameters.is_on("include_unmapped")?;
        let names: BTreeSet<&str> = indices.iter().map(|index| index.name.as_str()).collect();
        let fields: Map<String, Value> = caps
            .iter()
            .map(|(field, types)| (field.clone(), render_field(types, &names, includes_unmapped)))
            .collect();
        Ok(response::json(200, &json!({ "indices": names, "fields": fields })))
    }

    pub(super) fn field_mapping(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let own = ["include_defaults"];
        routed.allow_parameters(&[&own[..], &TIMEOUT_PARAMETERS, &EXPAND_PARAMETERS].concat())?;
        let patterns = parse_patterns(routed.route.id.as_deref())?;
        let mut indices = Map::new();
        for index in self.select_indices(routed)? {
            let mapping = index.mapping.to_json();
            let is_wanted = |name: &&String| patterns.iter().any(|pattern| glob_matches(pattern, name));
            let fields: Map<String, Value> = index
                .mapping
                .fields
                .iter()
                .filter(|(name, _)| is_wanted(name))
                .map(|(name, field)| {
                    let last = match &field.parent {
                        Some(parent) => name.strip_prefix(&format!("{parent}.")).unwrap_or(name),
                        None => name.rsplit('.').next().unwrap_or(name),
                    };
                    let definition = find_definition(&mapping, name, field.parent.as_deref());
                    (name.clone(), json!({ "full_name": name, "mapping": { last: definition } }))
                })
                .collect();
            indices.insert(index.name, json!({ "mappings": fields }));
        }
        Ok(response::json(200, &indices))
    }
}

fn parse_patterns(text: Option<&str>) -> Result<Vec<String>, ApiError> {
    let patterns: Vec<String> =
        text.unwrap_or_default().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    match patterns.len() <= PATTERNS_MAX {
        true => Ok(patterns),
        false => Err(ApiError::illegal_argument(format!("more than {PATTERNS_MAX} patterns of fields"))),
    }
}

fn collect_caps(indices: &[IndexInfo], patterns: &[String]) -> FieldCaps {
    let mut caps = FieldCaps::new();
    let is_wanted = |name: &str| patterns.iter().any(|pattern| glob_matches(pattern, name));
    let mut add = |name: &str, kind: &str, index: &IndexInfo, flags: (bool, bool, bool)| {
        let (is_metadata, is_searchable, is_aggregatable) = flags;
        let field = caps.entry(name.to_owned()).or_default().entry(kind.to_owned()).or_insert(TypedField {
            indices: BTreeSet::new(),
            is_metadata,
            is_searchable,
            is_aggregatable,
        });
        field.indices.insert(index.name.clone());
    };
    for index in indices {
        for (name, kind, is_searchable, is_aggregatable) in METADATA_FIELDS {
            if is_wanted(name) {
                add(name, kind, index, (true, is_searchable, is_aggregatable));
            }
        }
        for (name, field) in &index.mapping.fields {
            let (searchable, aggregatable) = match field.field_type {
                FieldType::Text => (true, false),
                FieldType::GeoPoint => (false, false),
                _ => (true, true),
            };
            if is_wanted(name) {
                add(name, field.type_name(), index, (false, searchable, aggregatable));
            }
            // The objects around a field. A field with sub-fields is not an object.
            let own = field.parent.as_deref().unwrap_or(name);
            for (at, _) in own.match_indices('.').filter(|(at, _)| is_wanted(&own[..*at])) {
                add(&own[..at], "object", index, (false, false, false));
            }
        }
    }
    caps
}

/// Renders the types of a field. The indices are listed if the field has several types.
fn render_field(
    types: &BTreeMap<String, TypedField>,
    all: &BTreeSet<&str>,
    includes_unmapped: bool,
) -> Value {
    let mapped: BTreeSet<&str> =
        types.values().flat_map(|field| field.indices.iter().map(String::as_str)).collect();
    let unmapped: Vec<&&str> = all.difference(&mapped).collect();
    let has_unmapped = includes_unmapped && !unmapped.is_empty();
    let is_listed = types.len() > 1 || has_unmapped;
    let mut rendered = Map::new();
    for (kind, field) in types {
        let mut one = json!({
            "type": kind, "metadata_field": field.is_metadata, "searchable": field.is_searchable,
            "aggregatable": field.is_aggregatable,
        });
        if is_listed {
            one["indices"] = json!(field.indices);
        }
        rendered.insert(kind.clone(), one);
    }
    if has_unmapped {
        let one = json!({
            "type": "unmapped", "metadata_field": false, "searchable": false, "aggregatable": false,
            "indices": unmapped,
        });
        rendered.insert("unmapped".to_owned(), one);
    }
    Value::Object(rendered)
}

/// Returns the definition of a field in the JSON of a mapping.
fn find_definition(mapping: &Value, name: &str, parent: Option<&str>) -> Value {
    let own = parent.unwrap_or(name);
    let mut at = mapping;
    for part in own.split('.') {
        at = &at["properties"][part];
    }
    match parent.and_then(|parent| name.strip_prefix(&format!("{parent}."))) {
        Some(last) => at["fields"][last].clone(),
        None => at.clone(),
    }
}
