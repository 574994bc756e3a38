//! The endpoints `_template`, `_index_template` and `_component_template`, and how a new index gets its mapping, settings
//! and aliases from them. Runs on the threads of the HTTP connections.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::api::{EsApi, RoutedRequest};
use super::endpoint::Endpoint;
use super::error::ApiError;
use super::indices::{mapping_error, parse_mapping};
use super::metadata::Metadata;
use super::response;
use super::settings::{Settings, parse_settings, settings_json};
use crate::http::{Method, Response};
use crate::search::glob::glob_matches;
use crate::search::mapping::Mapping;

/// Parameters of the endpoints. They change nothing but the form of the answer.
const PARAMETERS: [&str; 8] =
    ["flat_settings", "include_type_name", "master_timeout", "timeout", "local", "create", "order", "cause"];

/// What the templates give a new index.
#[derive(Debug, Default)]
pub(super) struct NewIndex {
    /// The value of `mappings`.
    pub(super) mappings: Map<String, Value>,
    pub(super) settings: Settings,
    pub(super) aliases: BTreeMap<String, Value>,
}

impl NewIndex {
    /// Adds the parts of a template. They replace parts of the same name.
    fn add(&mut self, template: &Value) {
        if let Some(mappings) = template.get("mappings").and_then(Value::as_object) {
            merge(&mut self.mappings, mappings);
        }
        if let Some(settings) = template.get("settings") {
            // It was checked when the template was stored.
            self.settings.extend(parse_settings(settings, true).unwrap_or_default());
        }
        if let Some(aliases) = template.get("aliases").and_then(Value::as_object) {
            self.aliases.extend(aliases.iter().map(|(name, options)| (name.clone(), options.clone())));
        }
    }

    /// Adds the mapping of the request that creates the index.
    pub(super) fn add_mappings(&mut self, value: &Value) {
        if let Some(mappings) = value.as_object() {
            merge(&mut self.mappings, mappings);
        }
    }
}

/// Merges an object into another one, member by member.
fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            // Two definitions of a field do not mix.
            (Some(Value::Object(inner)), Value::Object(value)) if !value.contains_key("type") => {
                merge(inner, value);
            }
            _ => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

impl Metadata {
    /// Returns what the templates give a new index. As in Elasticsearch, the index template with the highest priority
    /// replaces all legacy templates, and those are merged in their order.
    pub(super) fn new_index(&self, index: &str) -> NewIndex {
        let mut new = NewIndex::default();
        let number = |template: &Value, key: &str| template.get(key).and_then(Value::as_i64).unwrap_or(0);
        let fits = |template: &&Value| patterns(template).any(|pattern| glob_matches(pattern, index));
        let best =
            self.index_templates.values().filter(fits).max_by_key(|template| number(template, "priority"));
        if let Some(template) = best {
            let parts = template.get("composed_of").and_then(Value::as_array).into_iter().flatten();
            let parts = parts.filter_map(|name| self.component_templates.get(name.as_str()?));
            for part in parts.chain([template]).filter_map(|template| template.get("template")) {
                new.add(part);
            }
            return new;
        }
        let mut legacy: Vec<&Value> = self.templates.values().filter(fits).collect();
        legacy.sort_by_key(|template| number(template, "order"));
        legacy.into_iter().for_each(|template| new.add(template));
        new
    }
}

fn patterns(template: &Value) -> impl Iterator<Item = &str> {
    template.get("index_patterns").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The templates of an endpoint.
fn kind(metadata: &mut Metadata, endpoint: Endpoint) -> &mut BTreeMap<String, Value> {
    match endpoint {
        Endpoint::Template | Endpoint::TemplateList => &mut metadata.templates,
        Endpoint::IndexTemplate | Endpoint::IndexTemplateList => &mut metadata.index_templates,
        _ => &mut metadata.component_templates,
    }
}

impl EsApi {
    /// Creates the index of a document if it does not exist and a template fits its name. Otherwise the store creates it.
    pub(super) fn create_from_template(&self, index: &str) -> Result<(), ApiError> {
        let metadata = self.metadata.read();
        let has_templates = !metadata.templates.is_empty() || !metadata.index_templates.is_empty();
        if !has_templates || self.store.cluster_backend().is_some() || self.store.has_index(index)? {
            return Ok(());
        }
        self.create_with(index, metadata.new_index(index)).map(drop)
    }

    /// Creates an index. Returns false if it exists.
    pub(super) fn create_with(&self, index: &str, new: NewIndex) -> Result<bool, ApiError> {
        let mapping = match new.mappings.is_empty() {
            true => Mapping::default(),
            false => parse_mapping(&Value::Object(new.mappings))?,
        };
        let is_cluster = self.store.cluster_backend().is_some();
        if is_cluster && !new.aliases.is_empty() {
            return Err(ApiError::not_supported("aliases of a new index through a cluster; use _aliases"));
        }
        if !self.store.create_index(index, &mapping).map_err(mapping_error)? {
            return Ok(false);
        }
        // A cluster gives the index the settings of its template.
        if is_cluster {
            return Ok(true);
        }
        if !new.settings.is_empty() || !new.aliases.is_empty() {
            self.metadata.update(|metadata| {
                metadata.settings.insert(index.to_owned(), new.settings);
                let aliases =
                    new.aliases.into_iter().map(|(name, options)| (name.replace("{index}", index), options));
                metadata.aliases.insert(index.to_owned(), aliases.collect());
                Ok(())
            })?;
        }
        Ok(true)
    }

    pub(super) fn templates(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&PARAMETERS)?;
        match routed.request.method() {
            Method::Get | Method::Head => self.get_templates(routed),
            Method::Delete => self.delete_templates(routed),
            _ => self.put_template(routed),
        }
    }

    fn get_templates(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let endpoint = routed.route.endpoint;
        let mut metadata = Metadata::clone(&self.metadata.read());
        let named = routed.route.id.as_deref();
        let wanted =
            |name: &str| named.is_none_or(|names| names.split(',').any(|one| glob_matches(one, name)));
        let found: Vec<(String, Value)> = std::mem::take(kind(&mut metadata, endpoint))
            .into_iter()
            .filter(|(name, _)| wanted(name))
            .collect();
        let status = if found.is_empty() && named.is_some() { 404 } else { 200 };
        let is_pattern = named.is_none_or(|name| name.contains('*'));
        let is_flat = routed.parameters.is_on("flat_settings")?;
        let shown = |template: Value| show(template, is_flat);
        match endpoint {
            Endpoint::Template | Endpoint::TemplateList => {
                let is_typed = routed.parameters.is_on("include_type_name")?;
                let shown = |(name, template)| (name, show_legacy(template, is_flat, is_typed));
                Ok(response::json(status, &found.into_iter().map(shown).collect::<Map<_, _>>()))
            }
            _ if status == 404 && !is_pattern => {
                let what = match endpoint {
                    Endpoint::IndexTemplate => "index template",
                    _ => "component template",
                };
                let name = named.unwrap_or_default();
                let reason = format!("{what} matching [{name}] not found");
                Err(ApiError::new(404, "resource_not_found_exception", reason))
            }
            Endpoint::IndexTemplate | Endpoint::IndexTemplateList => {
                let list = found
                    .into_iter()
                    .map(|(name, template)| json!({ "name": name, "index_template": shown(template) }));
                Ok(response::json(status, &json!({ "index_templates": list.collect::<Vec<_>>() })))
            }
            _ => {
                let list = found
                    .into_iter()
                    .map(|(name, template)| json!({ "name": name, "component_template": shown(template) }));
                Ok(response::json(status, &json!({ "component_templates": list.collect::<Vec<_>>() })))
            }
        }
    }

    fn delete_templates(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let endpoint = routed.route.endpoint;
        let named = routed.route.id.as_deref().unwrap_or_default();
        self.metadata.update(|metadata| {
            let is_named = |name: &String| named.split(',').any(|one| glob_matches(one, name));
            if endpoint == Endpoint::ComponentTemplate {
                let users = |name: &String| uses(metadata, name);
                let used = metadata.component_templates.keys().filter(|name| is_named(name));
                if let Some((name, users)) = used.map(|name| (name, users(name))).find(|(_, users)| !users.is_empty()) {
                    return Err(ApiError::illegal_argument(format!(
                        "component templates [{name}] cannot be removed as they are still in use by index templates [{}]",
                        users.join(", ")
                    )));
                }
            }
            let templates = kind(metadata, endpoint);
            let before = templates.len();
            templates.retain(|name, _| !is_named(name));
            match (before > templates.len(), endpoint) {
                (true, _) => Ok(()),
                (false, Endpoint::ComponentTemplate) => Err(ApiError::new(404, "resource_not_found_exception", named)),
                (false, _) if named == "*" => Ok(()),
                (false, _) => {
                    let reason = format!("index_template [{named}] missing");
                    Err(ApiError::new(404, "index_template_missing_exception", reason))
                }
            }
        })?;
        Ok(response::json(200, &json!({ "acknowledged": true })))
    }

    fn put_template(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let endpoint = routed.route.endpoint;
        let name = routed.route.id.as_deref().unwrap_or_default();
        let Value::Object(body) = self.read_object(routed)? else { return Err(ApiError::missing_body()) };
        let is_typed = routed.parameters.is_on("include_type_name")?;
        let template = match endpoint {
            Endpoint::Template => parse_legacy(body, is_typed)?,
            Endpoint::IndexTemplate => parse_composable(body, "index_template", &INDEX_TEMPLATE_KEYS)?,
            _ => parse_composable(body, "component_template", &["template", "version", "_meta"])?,
        };
        let is_new_only = routed.parameters.is_on("create")?;
        self.metadata.update(|metadata| {
            if endpoint == Endpoint::IndexTemplate {
                check_index_template(metadata, name, &template)?;
            }
            let templates = kind(metadata, endpoint);
            if is_new_only && templates.contains_key(name) {
                let what = match endpoint {
                    Endpoint::Template => "index_template",
                    Endpoint::IndexTemplate => "index template",
                    _ => "component template",
                };
                return Err(ApiError::illegal_argument(format!("{what} [{name}] already exists")));
            }
            templates.insert(name.to_owned(), template);
            Ok(())
        })?;
        Ok(response::json(200, &json!({ "acknowledged": true })))
    }
}

/// The index templates that use a component template.
fn uses(metadata: &Metadata, component: &str) -> Vec<String> {
    let is_user = |template: &Value| {
        template
            .get("composed_of")
            .and_then(Value::as_array)
            .is_some_and(|parts| parts.iter().any(|part| part == component))
    };
    let users = metadata.index_templates.iter().filter(|(_, template)| is_user(template));
    users.map(|(name, _)| name.clone()).collect()
}

fn check_index_template(metadata: &Metadata, name: &str, template: &Value) -> Result<(), ApiError> {
    let parts =
        template.get("composed_of").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let missing: Vec<&str> = parts.filter(|part| !metadata.component_templates.contains_key(*part)).collect();
    if !missing.is_empty() {
        let reason = format!(
            "index_template [{name}] invalid, cause [index template [{name}] specifies component templates {} that do \
             not exist]",
            list_text(&missing)
        );
        return Err(ApiError::new(400, "invalid_index_template_exception", reason));
    }
    let priority = |template: &Value| template.get("priority").and_then(Value::as_i64).unwrap_or(0);
    let own: Vec<&str> = patterns(template).collect();
    for (other_name, other) in metadata.index_templates.iter().filter(|(other, _)| *other != name) {
        let theirs: Vec<&str> = patterns(other).collect();
        let is_equal = |pattern: &&str| theirs.iter().any(|their| overlaps(pattern, their));
        if priority(other) == priority(template) && own.iter().any(is_equal) {
            let theirs = list_text(&theirs);
            return Err(ApiError::illegal_argument(format!(
                "index template [{name}] has index patterns {} matching patterns from existing templates [{other_name}] \
                 with patterns ({other_name} => {theirs}) that have the same priority [{}], multiple index templates may \
                 not match during index creation, please use a different priority",
                list_text(&own),
                priority(template)
            )));
        }
    }
    Ok(())
}

/// Returns true if one of two patterns covers the other one.
fn overlaps(one: &str, other: &str) -> bool {
    glob_matches(one, other) || glob_matches(other, one)
}

fn list_text(list: &[&str]) -> String {
    format!("[{}]", list.join(", "))
}

/// Parses a template of `_template` to the form in which it is returned.
fn parse_legacy(body: Map<String, Value>, is_typed: bool) -> Result<Value, ApiError> {
    let mut template = Map::new();
    template.insert("order".to_owned(), 0.into());
    let mut parts = json!({ "settings": {}, "mappings": {}, "aliases": {} });
    for (key, value) in body {
        match key.as_str() {
            "index_patterns" | "template" => {
                let list = if value.is_array() { value } else { json!([value]) };
                template.insert("index_patterns".to_owned(), list);
            }
            "order" | "version" => drop(template.insert(key, value)),
            "mappings" => parts["mappings"] = untyped(value, is_typed)?,
            "settings" | "aliases" => parts[key] = value,
            key => {
                let reason = format!("unknown key [{key}] in the template ");
                return Err(ApiError::new(400, "parse_exception", reason));
            }
        }
    }
    if patterns(&Value::Object(template.clone())).next().is_none() {
        return Err(ApiError::validation("index patterns are missing"));
    }
    check_parts(&parts)?;
    if let Value::Object(parts) = parts {
        template.extend(parts);
    }
    Ok(Value::Object(template))
}

/// Removes the type of a mapping, which older shippers send.
fn untyped(mappings: Value, is_typed: bool) -> Result<Value, ApiError> {
    let typed =
        mappings.as_object().filter(|members| members.len() == 1).and_then(|members| members.get("_doc"));
    match (typed, is_typed) {
        (Some(inner), true) => Ok(inner.clone()),
        (Some(_), false) => Err(ApiError::illegal_argument(
            "The mapping definition cannot be nested under a type [_doc] unless include_type_name is set to true.",
        )),
        (None, true) => match mappings.as_object().and_then(|members| members.values().next()) {
            Some(inner) if inner.get("properties").is_some() => Ok(inner.clone()),
            _ => Ok(mappings),
        },
        (None, false) => Ok(mappings),
    }
}

const INDEX_TEMPLATE_KEYS: [&str; 8] = [
    "index_patterns",
    "template",
    "composed_of",
    "priority",
    "version",
    "_meta",
    "allow_auto_create",
    "data_stream",
];

/// Checks a template of `_index_template` or `_component_template`.
fn parse_composable(mut body: Map<String, Value>, what: &str, known: &[&str]) -> Result<Value, ApiError> {
    if let Some(key) = body.keys().find(|key| !known.contains(&key.as_str())) {
        let reason = format!("[{what}] unknown field [{key}]");
        return Err(ApiError::new(400, "x_content_parse_exception", reason));
    }
    if body.contains_key("data_stream") {
        return Err(ApiError::not_supported("data streams"));
    }
    let required = known[0];
    if !body.contains_key(required) {
        return Err(ApiError::illegal_argument(format!("Required [{required}]")));
    }
    if let Some(Value::String(pattern)) = body.get("index_patterns") {
        let list = json!([pattern]);
        body.insert("index_patterns".to_owned(), list);
    }
    if known.contains(&"composed_of") {
        body.entry("composed_of").or_insert_with(|| json!([]));
    }
    if let Some(parts) = body.get("template") {
        check_parts(parts)?;
    }
    Ok(Value::Object(body))
}

/// Checks settings, mappings and aliases of a template, so that it cannot fail when an index is created.
fn check_parts(parts: &Value) -> Result<(), ApiError> {
    let Some(members) = parts.as_object() else {
        return Err(ApiError::illegal_argument("a template is not an object"));
    };
    for (key, value) in members {
        match key.as_str() {
            "settings" => drop(parse_settings(value, true)?),
            "mappings" => drop(parse_mapping(value)?),
            "aliases" => {
                for (name, options) in value.as_object().into_iter().flatten() {
                    super::aliases::check_alias(name, options)?;
                }
            }
            key => {
                let reason = format!("[template] unknown field [{key}]");
                return Err(ApiError::new(400, "x_content_parse_exception", reason));
            }
        }
    }
    Ok(())
}

fn show_settings(parts: &mut Map<String, Value>, is_flat: bool) {
    if let Some(settings) =
        parts.get("settings").map(|settings| parse_settings(settings, true).unwrap_or_default())
    {
        parts.insert("settings".to_owned(), settings_json(&settings, is_flat));
    }
}

fn show(mut template: Value, is_flat: bool) -> Value {
    if let Some(parts) = template.get_mut("template").and_then(Value::as_object_mut) {
        show_settings(parts, is_flat);
    }
    template
}

fn show_legacy(mut template: Value, is_flat: bool, is_typed: bool) -> Value {
    if let Some(parts) = template.as_object_mut() {
        show_settings(parts, is_flat);
        if is_typed && let Some(mappings) = parts.get("mappings").cloned() {
            parts.insert("mappings".to_owned(), json!({ "_doc": mappings }));
        }
    }
    template
}
