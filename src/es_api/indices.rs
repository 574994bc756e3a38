//! The endpoints for indices and mappings. Runs on the threads of the HTTP connections.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::api::{EsApi, RoutedRequest};
use super::error::ApiError;
use super::response::{self, ShardCounts, stable_uuid};
use crate::http::{Request, Response};
use crate::search::document::check_index_name;
use crate::search::mapping::Mapping;
use crate::search::store::{IndexInfo, StoreError};

/// Parameters of admin requests that have no effect on a single node.
pub(super) const TIMEOUT_PARAMETERS: [&str; 5] =
    ["timeout", "master_timeout", "wait_for_active_shards", "local", "include_type_name"];

/// Parameters that say what to do about missing indices.
pub(super) const EXPAND_PARAMETERS: [&str; 3] =
    ["ignore_unavailable", "allow_no_indices", "expand_wildcards"];

#[derive(Serialize)]
struct RefreshResponse {
    #[serde(rename = "_shards")]
    shards: ShardCounts,
}

impl EsApi {
    /// Returns the indices of the path. A missing index is an error, unless the request has `ignore_unavailable`.
    pub(super) fn select_indices(&self, routed: &RoutedRequest<'_>) -> Result<Vec<IndexInfo>, ApiError> {
        let names = routed.indices()?;
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
                cluster.refresh(&routed.indices()?, routed.parameters.is_on("ignore_unavailable")?)?;
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
        let mapping = parse_mapping(&self.read_object(routed.request)?)?;
        for index in self.select_indices(routed)? {
            self.store.put_mapping(&index.name, &mapping).map_err(mapping_error)?;
        }
        Ok(response::json(200, &json!({ "acknowledged": true })))
    }

    pub(super) fn create_index(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&TIMEOUT_PARAMETERS)?;
        let index = routed.route.index.as_deref().unwrap_or_default();
        check_index_name(index).map_err(|why| ApiError::invalid_index_name(index, why))?;
        let mapping = self.new_mapping(routed)?;
        if !self.store.create_index(index, &mapping).map_err(mapping_error)? {
            let uuid = stable_uuid(index);
            let reason = format!("index [{index}/{uuid}] already exists");
            let error = ApiError::new(400, "resource_already_exists_exception", reason);
            return Err(error.with_detail("index_uuid", uuid).with_detail("index", index));
        }
        let created = IndexCreated { acknowledged: true, shards_acknowledged: true, index };
        Ok(response::json(200, &created))
    }

    /// Reads the mapping from the body of a request that creates an index. Settings are checked and otherwise ignored.
    fn new_mapping(&self, routed: &RoutedRequest<'_>) -> Result<Mapping, ApiError> {
        let body = self.decompression.read_body(routed.request)?;
        if body.bytes().is_empty() {
            return Ok(Mapping::default());
        }
        let mut mapping = Mapping::default();
        for (key, value) in json_object(body.bytes())? {
            match (key.as_str(), value) {
                ("mappings", value) => mapping = parse_mapping(&value)?,
                ("settings", Value::Object(settings)) => check_settings(&settings)?,
                ("aliases", Value::Object(aliases)) if aliases.is_empty() => {}
                (key, _) => {
                    let reason = format!("unknown key [{key}] for create index");
                    return Err(ApiError::new(400, "parse_exception", reason));
                }
            }
        }
        Ok(mapping)
    }

    fn read_object(&self, request: &Request) -> Result<Value, ApiError> {
        let body = self.decompression.read_body(request)?;
        match body.bytes() {
            [] => Err(ApiError::missing_body()),
            bytes => Ok(Value::Object(json_object(bytes)?)),
        }
    }

    /// Returns the settings and mappings of indices.
    pub(super) fn index(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let own = ["flat_settings", "include_defaults"];
        routed.allow_parameters(&[&own[..], &TIMEOUT_PARAMETERS, &EXPAND_PARAMETERS].concat())?;
        let indices = self.select_indices(routed)?.into_iter().map(|index| {
            let settings = json!({ "index": {
                "number_of_replicas": "0", "number_of_shards": "1", "provided_name": index.name,
                "uuid": stable_uuid(&index.name), "version": { "created": "7172999" },
            } });
            let description =
                json!({ "aliases": {}, "mappings": index.mapping.to_json(), "settings": settings });
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
fn parse_mapping(value: &Value) -> Result<Mapping, ApiError> {
    Mapping::parse(value).map_err(|error| match error.0.starts_with("Limit of") {
        true => ApiError::illegal_argument(error.0),
        false => ApiError::invalid_mapping(error.0),
    })
}

/// Converts a store's error about a mapping, which is not an error of a search.
fn mapping_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Invalid(reason) => ApiError::illegal_argument(reason),
        other => other.into(),
    }
}

/// Rejects settings that would change the result of a search. Settings about shards and refreshes have no effect.
fn check_settings(settings: &Map<String, Value>) -> Result<(), ApiError> {
    let inner = settings.get("index").and_then(Value::as_object);
    let keys = settings.keys().chain(inner.into_iter().flat_map(Map::keys));
    let analysis = keys.map(|key| key.strip_prefix("index.").unwrap_or(key)).find(|key| {
        ["analysis", "query", "sort", "mapping"].iter().any(|known| key.split('.').next() == Some(known))
    });
    match analysis {
        None => Ok(()),
        Some(key) => Err(ApiError::illegal_argument(format!("setting [index.{key}] is not supported"))),
    }
}

fn json_object(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::new(400, "json_parse_exception", format!("not a JSON object: {error}")))
}
