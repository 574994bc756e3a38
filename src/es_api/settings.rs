//! Settings of indices: their names, their two forms, and the endpoint `_settings`. Runs on the threads of the HTTP
//! connections.
//!
//! Settings are kept and returned. None changes what the service does, so those that would change an answer are rejected.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::api::{EsApi, RoutedRequest};
use super::error::ApiError;
use super::indices::{EXPAND_PARAMETERS, TIMEOUT_PARAMETERS};
use super::response::{self, stable_uuid};
use crate::http::{Method, Response};
use crate::search::glob::glob_matches;

/// Settings by their full names, such as `index.refresh_interval`.
pub(super) type Settings = BTreeMap<String, String>;

/// The first parts of the names of settings that exist, after `index.`.
const KNOWN: [&str; 30] = [
    "number_of_shards",
    "number_of_replicas",
    "number_of_routing_shards",
    "auto_expand_replicas",
    "refresh_interval",
    "max_result_window",
    "max_inner_result_window",
    "max_rescore_window",
    "max_docvalue_fields_search",
    "max_ngram_diff",
    "max_shingle_diff",
    "max_regex_length",
    "max_terms_count",
    "max_refresh_listeners",
    "analyze",
    "blocks",
    "codec",
    "translog",
    "merge",
    "routing",
    "unassigned",
    "lifecycle",
    "hidden",
    "priority",
    "store",
    "gc_deletes",
    "search",
    "indexing",
    "mapping",
    "write",
];

/// Settings that are accepted in a template, although the service does otherwise: a query string without a field searches
/// all fields, and a mapping cannot use an analyzer that is defined there.
const IN_TEMPLATES: [&str; 7] =
    ["query", "analysis", "sort", "default_pipeline", "final_pipeline", "format", "version"];

/// Settings that only a new index has.
const FIXED: [&str; 3] = ["index.number_of_shards", "index.number_of_routing_shards", "index.codec"];

/// Limit on the settings of an index.
const SETTINGS_MAX: usize = 256;

/// Parses the value of `settings`, in any of its forms.
pub(super) fn parse_settings(value: &Value, is_template: bool) -> Result<Settings, ApiError> {
    let mut settings = Settings::new();
    flatten(value, "", &mut settings);
    if settings.len() > SETTINGS_MAX {
        return Err(ApiError::illegal_argument(format!("more than {SETTINGS_MAX} settings")));
    }
    let full_name = |name: String| match name.starts_with("index.") {
        true => name,
        false => format!("index.{name}"),
    };
    let settings: Settings = settings.into_iter().map(|(name, value)| (full_name(name), value)).collect();
    for name in settings.keys() {
        let first = name.split('.').nth(1).unwrap_or_default();
        let is_known = KNOWN.contains(&first) || is_template && IN_TEMPLATES.contains(&first);
        if !is_known {
            return Err(match IN_TEMPLATES.contains(&first) {
                true => ApiError::illegal_argument(format!("setting [{name}] is not supported")),
                false => ApiError::illegal_argument(format!("unknown setting [{name}]")),
            });
        }
    }
    Ok(settings)
}

fn flatten(value: &Value, name: &str, settings: &mut Settings) {
    let insert = |settings: &mut Settings, text: String| drop(settings.insert(name.to_owned(), text));
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(value, &name, settings);
            }
        }
        Value::String(text) => insert(settings, text.clone()),
        Value::Null => {}
        other => insert(settings, other.to_string()),
    }
}

/// Returns settings in the form of a response: as nested objects, or flat.
pub(super) fn settings_json(settings: &Settings, is_flat: bool) -> Value {
    let mut root = Map::new();
    for (name, text) in settings {
        // A list is kept as its text.
        let value = match text.starts_with('[') {
            true => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
            false => text.as_str().into(),
        };
        if is_flat {
            root.insert(name.clone(), value);
        } else {
            insert_nested(&mut root, name, value);
        }
    }
    Value::Object(root)
}

fn insert_nested(root: &mut Map<String, Value>, name: &str, value: Value) {
    match name.split_once('.') {
        None => drop(root.insert(name.to_owned(), value)),
        Some((first, rest)) => {
            let inner = root.entry(first).or_insert_with(|| Value::Object(Map::new()));
            match inner.as_object_mut() {
                Some(inner) => insert_nested(inner, rest, value),
                // A setting that is also a group has its dotted name.
                None => drop(root.insert(name.to_owned(), value)),
            }
        }
    }
}

impl EsApi {
    /// Returns all settings of an index.
    pub(super) fn settings_of(&self, index: &str) -> Settings {
        let fixed = [
            ("index.number_of_shards", "1".to_owned()),
            ("index.number_of_replicas", "0".to_owned()),
            ("index.provided_name", index.to_owned()),
            ("index.uuid", stable_uuid(index)),
            ("index.version.created", "7172999".to_owned()),
        ];
        let mut settings: Settings = fixed.map(|(name, value)| (name.to_owned(), value)).into();
        if let Some(kept) = self.metadata.read().settings.get(index) {
            settings.extend(kept.clone());
        }
        settings
    }

    pub(super) fn settings(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let own = ["flat_settings", "include_defaults", "preserve_existing"];
        routed.allow_parameters(&[&own[..], &TIMEOUT_PARAMETERS, &EXPAND_PARAMETERS].concat())?;
        if routed.request.method() != Method::Get {
            return self.put_settings(routed);
        }
        let is_flat = routed.parameters.is_on("flat_settings")?;
        let wanted = routed.route.id.as_deref().filter(|names| *names != "_all").unwrap_or("*");
        let is_wanted = |name: &str| wanted.split(',').any(|pattern| glob_matches(pattern, name));
        let mut indices = Map::new();
        for index in self.select_indices(routed)? {
            let settings: Settings =
                self.settings_of(&index.name).into_iter().filter(|(name, _)| is_wanted(name)).collect();
            indices.insert(index.name, json!({ "settings": settings_json(&settings, is_flat) }));
        }
        Ok(response::json(200, &indices))
    }

    fn put_settings(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let body = self.read_object(routed)?;
        let body = body
            .get("settings")
            .filter(|_| body.as_object().is_some_and(|body| body.len() == 1))
            .unwrap_or(&body);
        let indices = self.select_indices(routed)?;
        let settings = parse_settings(body, false)?;
        if let Some(fixed) = settings.keys().find(|name| FIXED.contains(&name.as_str())) {
            let names: Vec<String> = indices
                .iter()
                .map(|index| format!("[{}/{}]", index.name, stable_uuid(&index.name)))
                .collect();
            let reason = format!(
                "Can't update non dynamic settings [[{fixed}]] for open indices [{}]",
                names.join(", ")
            );
            return Err(ApiError::illegal_argument(reason));
        }
        self.metadata.update(|metadata| {
            for index in &indices {
                metadata.settings.entry(index.name.clone()).or_default().extend(settings.clone());
            }
            Ok(())
        })?;
        Ok(response::json(200, &json!({ "acknowledged": true })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_one_form_inside_and_two_outside() {
        let nested = json!({ "index": { "refresh_interval": "5s", "number_of_replicas": 0 } });
        let mixed = json!({ "refresh_interval": "5s", "index.number_of_replicas": "0" });
        let settings = parse_settings(&nested, false).unwrap();
        assert_eq!(settings, parse_settings(&mixed, false).unwrap());
        let expected = json!({ "index": { "refresh_interval": "5s", "number_of_replicas": "0" } });
        assert_eq!(settings_json(&settings, false), expected);
        let flat = json!({ "index.refresh_interval": "5s", "index.number_of_replicas": "0" });
        assert_eq!(settings_json(&settings, true), flat);
        let refused = |value: Value| parse_settings(&value, false).unwrap_err().reason().to_owned();
        assert_eq!(refused(json!({ "index": { "nope": 1 } })), "unknown setting [index.nope]");
        assert_eq!(refused(json!({ "analysis": { "a": 1 } })), "setting [index.analysis.a] is not supported");
        assert!(parse_settings(&json!({ "analysis": { "a": 1 } }), true).is_ok());
        let many = |count: usize| {
            let all: Map<String, Value> =
                (0..count).map(|nth| (format!("blocks.x{nth}"), 1.into())).collect();
            parse_settings(&Value::Object(all), false)
        };
        assert!(many(SETTINGS_MAX).is_ok() && many(SETTINGS_MAX + 1).is_err());
    }
}
