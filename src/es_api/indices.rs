//! The endpoints for indices and mappings. Runs on the threads of the HTTP connections.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::aliases::check_alias;
use super::api::{EsApi, RoutedRequest};
use super::error::ApiError;
use super::response::{self, ShardCounts, stable_uuid};
use super::settings::{parse_settings, settings_json};
use super::templates::NewIndex;
use crate::http::Response;
use crate::search::budget;
use crate::search::document::check_index_name;
use crate::search::mapping::Mapping;
use crate::search::store::{IndexInfo, StoreError};

/// Parameters of admin requests that have no effect on a single node.
pub(super) const TIMEOUT_PARAMETERS: [&str; 5] =
    ["timeout", "master_timeout", "wait_for_active_shards", "local", "include_type_name"];

/// Parameters that say what to do about missing indices.
pub(super) const EXPAND_PARAMETERS: [&str; 3] =
    ["ignore_unavailable", "allow_no_indices", "expand_wildcards"];

/// Bytes of parsed JSON for each byte of its text, at most about.
const JSON_FACTOR: usize = 16;

#[derive(Serialize)]
struct RefreshResponse {
    #[serde(rename = "_shards")]
    shards: ShardCounts,
}

impl EsApi {
    /// Returns the indices of the path. A missing index is an error, unless the request has `ignore_unavailable`.
    pub(super) fn select_indices(&self, routed: &RoutedRequest<'_>) -> Result<Vec<IndexInfo>, ApiError> {
        let names = self.indices(routed)?;
        match self.store.indices(&names) {
            Err(StoreError::IndexNotFound(_)) if routed.parameters.is_on("ignore_unavailable")? => {
                let mut found = Vec::new();
                for name in names {
                    match self.store.indices(&[name]) {
                        Ok(indices) => found.extend(indices),
                        Err(StoreError::IndexNotFound(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(found)
            }
            chosen => Ok(chosen?),
        }
    }

    /// Refreshes the indices of a cluster. In an embedded store, an acknowledged document is already searchable.
    pub(super) fn refresh(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&EXPAND_PARAMETERS)?;
        match self.store.cluster_backend() {
            Some(cluster) => {
                cluster.refresh(&self.indices(routed)?, routed.parameters.is_on("ignore_unavailable")?)?;
            }
            None => drop(self.select_indices(routed)?),
        }
        Ok(response::json(200, &RefreshResponse { shards: ShardCounts::OF_WRITE }))
    }

    pub(super) fn mapping(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&[&TIMEOUT_PARAMETERS[..], &EXPAND_PARAMETERS].concat())?;
        let is_typed = routed.parameters.is_on("include_type_name")?;
        let mappings = self.select_indices(routed)?.into_iter().map(|index| {
            let mapping = index.mapping.to_json();
            let mapping = if is_typed { json!({ "_doc": mapping }) } else { mapping };
            (index.name, json!({ "mappings": mapping }))
        });
        Ok(response::json(200, &Value::Object(mappings.collect())))
    }

    /// Adds fields to the mappings of indices.
    pub(super) fn put_mapping(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&[&TIMEOUT_PARAMETERS[..], &EXPAND_PARAMETERS].concat())?;
        let mapping = parse_mapping(&self.read_object(routed)?)?;
        for index in self.select_indices(routed)? {
            self.store.put_mapping(&index.name, &mapping).map_err(mapping_error)?;
        }
        Ok(response::json(200, &json!({ "acknowledged": true })))
    }

    pub(super) fn create_index(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&TIMEOUT_PARAMETERS)?;
        let index = routed.route.index.as_deref().unwrap_or_default();
        let index = &self.write_index(index)?;
        check_index_name(index).map_err(|why| ApiError::invalid_index_name(index, why))?;
        if self.is_alias(index) {
            return Err(ApiError::invalid_index_name(index, "already exists as alias"));
        }
        let new = self.new_index(index, routed)?;
        if !self.create_with(index, new)? {
            let uuid = stable_uuid(index);
            let reason = format!("index [{index}/{uuid}] already exists");
            let error = ApiError::new(400, "resource_already_exists_exception", reason);
            return Err(error.with_detail("index_uuid", uuid).with_detail("index", index.as_str()));
        }
        let created = IndexCreated { acknowledged: true, shards_acknowledged: true, index };
        Ok(response::json(200, &created))
    }

    /// Reads the body of a request that creates an index. It overrides what the templates say.
    fn new_index(&self, index: &str, routed: &RoutedRequest<'_>) -> Result<NewIndex, ApiError> {
        let mut new = match self.store.cluster_backend() {
            Some(_) => NewIndex::default(),
            None => self.metadata.read().new_index(index),
        };
        let body = self.read_body(routed)?;
        if body.bytes().is_empty() {
            return Ok(new);
        }
        for (key, value) in json_object(body.bytes())? {
            match (key.as_str(), value) {
                ("mappings", value) => {
                    parse_mapping(&value)?;
                    new.add_mappings(&value);
                }
                ("settings", value @ Value::Object(_)) => new.settings.extend(parse_settings(&value, false)?),
                ("aliases", Value::Object(aliases)) => {
                    for (name, options) in aliases {
                        check_alias(&name, &options)?;
                        new.aliases.insert(name, options);
                    }
                }
                (key, _) => {
                    let reason = format!("unknown key [{key}] for create index");
                    return Err(ApiError::new(400, "parse_exception", reason));
                }
            }
        }
        Ok(new)
    }

    /// Reads a body that has to be a JSON object.
    pub(super) fn read_object(&self, routed: &RoutedRequest<'_>) -> Result<Value, ApiError> {
        let body = self.read_body(routed)?;
        match body.bytes() {
            [] => Err(ApiError::missing_body()),
            bytes => Ok(Value::Object(json_object(bytes)?)),
        }
    }

    /// Returns the settings and mappings of indices.
    pub(super) fn index(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let own = ["flat_settings", "include_defaults"];
        routed.allow_parameters(&[&own[..], &TIMEOUT_PARAMETERS, &EXPAND_PARAMETERS].concat())?;
        let metadata = self.metadata.read();
        let is_flat = routed.parameters.is_on("flat_settings")?;
        let indices = self.select_indices(routed)?.into_iter().map(|index| {
            let settings = settings_json(&self.settings_of(&index.name), is_flat);
            let aliases = metadata.aliases.get(&index.name).cloned().unwrap_or_default();
            let description =
                json!({ "aliases": aliases, "mappings": index.mapping.to_json(), "settings": settings });
            (index.name, description)
        });
        Ok(response::json(200, &Value::Object(indices.collect())))
    }
}

#[derive(Serialize)]
struct IndexCreated<'a> {
    acknowledged: bool,
    shards_acknowledged: bool,
    index: &'a str,
}

/// Parses a mapping from a request.
pub(super) fn parse_mapping(value: &Value) -> Result<Mapping, ApiError> {
    Mapping::parse(value).map_err(|error| match error.0.starts_with("Limit of") {
        true => ApiError::illegal_argument(error.0),
        false => ApiError::invalid_mapping(error.0),
    })
}

/// Converts a store's error about a mapping, which is not an error of a search.
pub(super) fn mapping_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Invalid(reason) => ApiError::illegal_argument(reason),
        other => other.into(),
    }
}

/// Reads a body that is an object.
pub(super) fn json_object(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    budget::charge(JSON_FACTOR * bytes.len())?;
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::new(400, "json_parse_exception", format!("not a JSON object: {error}")))
}
