//! The endpoints `_alias` and `_aliases`. Runs on the threads of the HTTP connections.
//!
//! An alias is another name of one or more indices. It has no filter: a filter would have to apply to every request.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::api::{EsApi, RoutedRequest};
use super::endpoint::Endpoint;
use super::error::ApiError;
use super::indices::{EXPAND_PARAMETERS, TIMEOUT_PARAMETERS};
use super::metadata::Metadata;
use super::response;
use crate::http::{Method, Response};
use crate::search::document::check_index_name;
use crate::search::glob::glob_matches;

/// Limit on the actions of one request.
const ACTIONS_MAX: usize = 1_000;

/// A change of an alias.
struct AliasChange {
    index: String,
    alias: String,
    /// The options of an alias to add. `None`: the alias is removed.
    options: Option<Value>,
    must_exist: bool,
}

/// Checks the name and the options of an alias.
pub(super) fn check_alias(name: &str, options: &Value) -> Result<(), ApiError> {
    // Templates use this placeholder.
    check_index_name(&name.replace("{index}", "index")).map_err(|why| {
        ApiError::new(400, "invalid_alias_name_exception", format!("Invalid alias name [{name}]: {why}"))
    })?;
    for (key, value) in options.as_object().into_iter().flatten() {
        match key.as_str() {
            "is_write_index" if value.is_boolean() => {}
            // They have no effect on a single node.
            "routing" | "index_routing" | "search_routing" | "is_hidden" => {}
            "filter" if value.is_null() => {}
            "filter" => return Err(ApiError::not_supported("an alias with a filter")),
            key => {
                let reason = format!("Unknown field [{key}] in alias [{name}]");
                return Err(ApiError::new(400, "parsing_exception", reason));
            }
        }
    }
    Ok(())
}

impl EsApi {
    pub(super) fn alias(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&[&TIMEOUT_PARAMETERS[..], &EXPAND_PARAMETERS].concat())?;
        match routed.request.method() {
            Method::Get | Method::Head => self.get_aliases(routed),
            method => self.change_alias(routed, method == Method::Delete),
        }
    }

    fn get_aliases(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let metadata = self.metadata.read();
        let named = routed.route.id.as_deref().filter(|names| *names != "_all");
        let wanted: Vec<&str> = named.into_iter().flat_map(|names| names.split(',')).collect();
        let mut indices = Map::new();
        for index in self.select_indices(routed)? {
            let aliases = metadata.aliases.get(&index.name).cloned().unwrap_or_default();
            let is_wanted =
                |alias: &str| named.is_none() || wanted.iter().any(|one| glob_matches(one, alias));
            let aliases: Map<String, Value> =
                aliases.into_iter().filter(|(alias, _)| is_wanted(alias)).collect();
            if named.is_none() || !aliases.is_empty() {
                indices.insert(index.name, json!({ "aliases": aliases }));
            }
        }
        let is_found = |alias: &str| {
            alias.contains('*') || indices.values().any(|index| index["aliases"].get(alias).is_some())
        };
        let missing: Vec<&str> = wanted.iter().filter(|alias| !is_found(alias)).copied().collect();
        if missing.is_empty() {
            return Ok(response::json(200, &indices));
        }
        let what = if missing.len() > 1 { "aliases" } else { "alias" };
        let mut body = indices;
        body.insert("error".to_owned(), format!("{what} [{}] missing", missing.join(",")).into());
        body.insert("status".to_owned(), 404.into());
        Err(ApiError::with_body(404, &Value::Object(body)))
    }

    fn change_alias(&self, routed: &RoutedRequest<'_>, is_removed: bool) -> Result<Response, ApiError> {
        let Some(aliases) = routed.route.id.as_deref() else {
            return Err(ApiError::not_supported("PUT of an alias without its name in the path"));
        };
        if routed.route.endpoint == Endpoint::AliasOfAll {
            return Err(ApiError::validation("index is missing"));
        }
        let body = self.read_body(routed)?;
        let options: Value = match body.bytes() {
            [] => json!({}),
            _ => self.read_object(routed)?,
        };
        let mut changes = Vec::new();
        for index in self.select_indices(routed)? {
            for alias in aliases.split(',').filter(|alias| !alias.is_empty()) {
                changes.push(AliasChange {
                    index: index.name.clone(),
                    alias: alias.to_owned(),
                    options: (!is_removed).then(|| options.clone()),
                    must_exist: true,
                });
            }
        }
        self.apply_alias_changes(changes)
    }

    /// Applies several changes at once, or lists all aliases.
    pub(super) fn alias_actions(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&[&TIMEOUT_PARAMETERS[..], &EXPAND_PARAMETERS].concat())?;
        if routed.request.method() == Method::Get {
            return self.get_aliases(routed);
        }
        let body = self.read_object(routed)?;
        let actions = body.get("actions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if actions.is_empty() {
            return Err(ApiError::illegal_argument("No action specified"));
        }
        if actions.len() > ACTIONS_MAX {
            return Err(ApiError::illegal_argument(format!("more than {ACTIONS_MAX} actions")));
        }
        let mut changes = Vec::new();
        for action in actions {
            self.parse_action(action, &mut changes)?;
        }
        self.apply_alias_changes(changes)
    }

    fn parse_action(&self, action: &Value, changes: &mut Vec<AliasChange>) -> Result<(), ApiError> {
        let Some((verb, Value::Object(members))) = action.as_object().and_then(|action| action.iter().next())
        else {
            return Err(ApiError::illegal_argument("an action is not an object"));
        };
        if !matches!(verb.as_str(), "add" | "remove") {
            if verb == "remove_index" {
                return Err(ApiError::not_supported("[remove_index]"));
            }
            let reason = format!("[alias_action] unknown field [{verb}]");
            return Err(ApiError::new(400, "x_content_parse_exception", reason));
        }
        let (mut names, mut aliases, mut options, mut must_exist) =
            (Vec::new(), Vec::new(), Map::new(), true);
        for (key, value) in members {
            match key.as_str() {
                "index" | "indices" => names = texts(value),
                "alias" | "aliases" => aliases = texts(value),
                "must_exist" => must_exist = value != &Value::Bool(false),
                key => drop(options.insert(key.to_owned(), value.clone())),
            }
        }
        if names.is_empty() || aliases.is_empty() {
            return Err(ApiError::illegal_argument(
                "One of [index] or [indices] and [alias] or [aliases] is required",
            ));
        }
        let names = self.resolve_names(names, None)?;
        for index in self.store.indices(&names)? {
            for alias in &aliases {
                changes.push(AliasChange {
                    index: index.name.clone(),
                    alias: alias.clone(),
                    options: (verb == "add").then(|| Value::Object(options.clone())),
                    must_exist,
                });
            }
        }
        Ok(())
    }

    fn apply_alias_changes(&self, changes: Vec<AliasChange>) -> Result<Response, ApiError> {
        for change in &changes {
            if let Some(options) = &change.options {
                check_alias(&change.alias, options)?;
                if self.store.has_index(&change.alias)? {
                    let name = &change.alias;
                    let reason = format!(
                        "Invalid alias name [{name}]: an index or data stream exists with the same name as the alias"
                    );
                    let error = ApiError::new(400, "invalid_alias_name_exception", reason);
                    return Err(error.with_detail("index_uuid", "_na_").with_detail("index", name.as_str()));
                }
            }
        }
        self.metadata.update(|metadata| apply(metadata, changes))?;
        Ok(response::json(200, &json!({ "acknowledged": true })))
    }
}

/// Applies changes. Removing aliases that none of the indices has is an error.
fn apply(metadata: &mut Metadata, changes: Vec<AliasChange>) -> Result<(), ApiError> {
    let mut removed: BTreeMap<String, bool> = BTreeMap::new();
    for AliasChange { index, alias, options, must_exist } in changes {
        let aliases = metadata.aliases.entry(index).or_default();
        match options {
            Some(options) => drop(aliases.insert(alias, options)),
            None => {
                let before = aliases.len();
                aliases.retain(|name, _| !glob_matches(&alias, name));
                *removed.entry(alias).or_default() |= aliases.len() < before || !must_exist;
            }
        }
    }
    metadata.aliases.retain(|_, aliases| !aliases.is_empty());
    let missing: Vec<String> =
        removed.into_iter().filter(|(_, is_removed)| !is_removed).map(|(alias, _)| alias).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => {
            let reason = format!("aliases [{}] missing", missing.join(","));
            let error = ApiError::new(404, "aliases_not_found_exception", reason);
            Err(error.with_detail("resource.type", "aliases").with_detail("resource.id", missing.join(",")))
        }
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split(',').map(str::to_owned).collect(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}
