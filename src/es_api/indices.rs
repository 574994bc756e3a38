//! The endpoints for the node, its health, indices and mappings. Runs on the threads of the HTTP connections.

use std::fmt::Write as _;

use chrono::Utc;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::failure::ApiError;
use super::{EsApi, NAME, Reply, RoutedRequest, ShardCounts, VERSION, stable_uuid};
use crate::http::Request;
use crate::search::document::check_index_name;
use crate::search::mapping::Mapping;
use crate::search::store::{AdminApi, IndexInfo, RawResponse, StoreError};

/// Limit on the names and patterns in one request.
const NAMES_MAX: usize = 256;

/// Parses the index part of a path. An empty list means all indices.
pub(super) fn parse_index_names(part: Option<&str>) -> Result<Vec<String>, ApiError> {
    let Some(part) = part.filter(|part| !matches!(*part, "_all" | "*" | "")) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for name in part.split(',').filter(|name| !name.is_empty()) {
        if name.starts_with('_') {
            return Err(ApiError::invalid_index_name(name, "must not start with '_'."));
        }
        if name.starts_with(['<', '-']) {
            return Err(ApiError::illegal_argument(format!(
                "[{name}]: neither date math nor exclusions are supported"
            )));
        }
        names.push(name.to_owned());
    }
    match names.len() <= NAMES_MAX {
        true => Ok(names),
        false => Err(ApiError::illegal_argument(format!("more than {NAMES_MAX} names of indices"))),
    }
}

#[derive(Serialize)]
struct InfoResponse {
    name: &'static str,
    cluster_name: &'static str,
    cluster_uuid: String,
    version: VersionInfo,
    tagline: &'static str,
}

#[derive(Serialize)]
struct VersionInfo {
    number: &'static str,
    build_flavor: &'static str,
    build_type: &'static str,
    build_hash: &'static str,
    build_date: &'static str,
    build_snapshot: bool,
    lucene_version: &'static str,
    minimum_wire_compatibility_version: &'static str,
    minimum_index_compatibility_version: &'static str,
}

/// Describes this node. Clients check the version, older ones also the build flavor.
pub(super) fn info(asked: &RoutedRequest<'_>) -> Result<Reply, ApiError> {
    asked.parameters.reject_unknown(asked.request.path(), &[])?;
    let version = VersionInfo {
        number: VERSION,
        build_flavor: "default",
        build_type: "unknown",
        build_hash: concat!("lea-", env!("CARGO_PKG_VERSION")),
        build_date: "2025-06-19T01:37:57.847711500Z",
        build_snapshot: false,
        lucene_version: "8.11.3",
        minimum_wire_compatibility_version: "6.8.0",
        minimum_index_compatibility_version: "6.0.0-beta1",
    };
    let tagline = "You Know, for Search";
    Ok(Reply::json(
        200,
        &InfoResponse { name: NAME, cluster_name: NAME, cluster_uuid: stable_uuid(NAME), version, tagline },
    ))
}

/// Parameters of admin requests that have no effect on a single node.
const TIMEOUT_PARAMETERS: [&str; 5] =
    ["timeout", "master_timeout", "wait_for_active_shards", "local", "include_type_name"];

const EXPAND_PARAMETERS: [&str; 3] = ["ignore_unavailable", "allow_no_indices", "expand_wildcards"];

#[derive(Serialize)]
struct HealthResponse {
    cluster_name: &'static str,
    status: &'static str,
    timed_out: bool,
    number_of_nodes: u8,
    number_of_data_nodes: u8,
    active_primary_shards: usize,
    active_shards: usize,
    relocating_shards: u8,
    initializing_shards: u8,
    unassigned_shards: u8,
    delayed_unassigned_shards: u8,
    number_of_pending_tasks: u8,
    number_of_in_flight_fetch: u8,
    task_max_waiting_in_queue_millis: u8,
    active_shards_percent_as_number: f64,
}

#[derive(Serialize)]
struct RefreshResponse {
    #[serde(rename = "_shards")]
    shards: ShardCounts,
}

impl EsApi {
    /// Returns the indices of the path. A missing index is an error, unless the request has `ignore_unavailable`.
    fn select_indices(&self, asked: &RoutedRequest<'_>) -> Result<Vec<IndexInfo>, ApiError> {
        let names = asked.indices()?;
        match self.store.indices(&names) {
            Err(StoreError::IndexNotFound(_)) if asked.parameters.is_on("ignore_unavailable")? => {
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

    /// Forwards an admin request to the cluster. Returns `None` if the store is not a cluster.
    pub(super) fn forward_to_cluster(
        &self,
        about: AdminApi,
        asked: &RoutedRequest<'_>,
    ) -> Result<Option<Reply>, ApiError> {
        let Some(remote) = self.store.cluster_backend() else { return Ok(None) };
        // These two are applied to the response here.
        let is_other = |(key, _): &(&str, &str)| !matches!(*key, "pretty" | "filter_path");
        let mut parameters: Vec<_> = asked.parameters.pairs().filter(is_other).collect();
        if asked.request.header("accept") == Some(b"application/json") {
            parameters.push(("format", "json"));
        }
        let RawResponse { status, is_json, body } =
            remote.forward_get(about, &asked.indices()?, &parameters)?;
        let content_type = if is_json { super::JSON } else { super::TEXT };
        Ok(Some(Reply { status, content_type, body, location: None }))
    }

    /// Refreshes the indices of a cluster. In an embedded store, an acknowledged document is already searchable.
    pub(super) fn refresh(&self, asked: &RoutedRequest<'_>) -> Result<Reply, ApiError> {
        asked.parameters.reject_unknown(asked.request.path(), &EXPAND_PARAMETERS)?;
        match self.store.cluster_backend() {
            Some(remote) => {
                remote.refresh(&asked.indices()?, asked.parameters.is_on("ignore_unavailable")?)?;
            }
            None => drop(self.select_indices(asked)?),
        }
        Ok(Reply::json(200, &RefreshResponse { shards: ShardCounts::OF_WRITE }))
    }

    /// Returns the health. An embedded store that can list its indices is green.
    pub(super) fn health(&self, asked: &RoutedRequest<'_>) -> Result<Reply, ApiError> {
        let own = ["wait_for_status", "wait_for_no_relocating_shards", "wait_for_nodes", "level"];
        asked.parameters.reject_unknown(
            asked.request.path(),
            &[&own[..], &TIMEOUT_PARAMETERS, &EXPAND_PARAMETERS].concat(),
        )?;
        if let Some(level) = asked.parameters.get("level").filter(|level| *level != "cluster") {
            return Err(ApiError::illegal_argument(format!("[level] [{level}] is not supported")));
        }
        let shards = self.select_indices(asked)?.len();
        let health = HealthResponse {
            cluster_name: NAME,
            status: "green",
            timed_out: false,
            number_of_nodes: 1,
            number_of_data_nodes: 1,
            active_primary_shards: shards,
            active_shards: shards,
            relocating_shards: 0,
            initializing_shards: 0,
            unassigned_shards: 0,
            delayed_unassigned_shards: 0,
            number_of_pending_tasks: 0,
            number_of_in_flight_fetch: 0,
            task_max_waiting_in_queue_millis: 0,
            active_shards_percent_as_number: 100.0,
        };
        Ok(Reply::json(200, &health))
    }

    pub(super) fn mapping(&self, asked: &RoutedRequest<'_>) -> Result<Reply, ApiError> {
        asked
            .parameters
            .reject_unknown(asked.request.path(), &[&TIMEOUT_PARAMETERS[..], &EXPAND_PARAMETERS].concat())?;
        let typed = asked.parameters.is_on("include_type_name")?;
        let shown = self.select_indices(asked)?.into_iter().map(|index| {
            let shown = index.mapping.to_json();
            let shown = if typed { json!({ "_doc": shown }) } else { shown };
            (index.name, json!({ "mappings": shown }))
        });
        Ok(Reply::json(200, &Value::Object(shown.collect())))
    }

    /// Adds fields to the mappings of indices.
    pub(super) fn put_mapping(&self, asked: &RoutedRequest<'_>) -> Result<Reply, ApiError> {
        asked
            .parameters
            .reject_unknown(asked.request.path(), &[&TIMEOUT_PARAMETERS[..], &EXPAND_PARAMETERS].concat())?;
        let mapping = parse_mapping(&self.read_object(asked.request)?)?;
        for index in self.select_indices(asked)? {
            self.store.put_mapping(&index.name, &mapping).map_err(mapping_error)?;
        }
        Ok(Reply::json(200, &json!({ "acknowledged": true })))
    }

    pub(super) fn create_index(&self, asked: &RoutedRequest<'_>) -> Result<Reply, ApiError> {
        asked.parameters.reject_unknown(asked.request.path(), &TIMEOUT_PARAMETERS)?;
        let index = asked.route.index.as_deref().unwrap_or_default();
        check_index_name(index).map_err(|why| ApiError::invalid_index_name(index, why))?;
        let mapping = self.new_mapping(asked)?;
        if !self.store.create_index(index, &mapping).map_err(mapping_error)? {
            let uuid = stable_uuid(index);
            let reason = format!("index [{index}/{uuid}] already exists");
            let failure = ApiError::new(400, "resource_already_exists_exception", reason);
            return Err(failure.with_detail("index_uuid", uuid).with_detail("index", index));
        }
        let made = IndexCreated { acknowledged: true, shards_acknowledged: true, index };
        Ok(Reply::json(200, &made))
    }

    /// Reads the mapping from the body of a request that creates an index. Settings are checked and otherwise ignored.
    fn new_mapping(&self, asked: &RoutedRequest<'_>) -> Result<Mapping, ApiError> {
        let body = self.decompression.read_body(asked.request)?;
        if body.bytes().is_empty() {
            return Ok(Mapping::default());
        }
        let mut found = Mapping::default();
        for (key, value) in json_object(body.bytes())? {
            match (key.as_str(), value) {
                ("mappings", value) => found = parse_mapping(&value)?,
                ("settings", Value::Object(settings)) => check_settings(&settings)?,
                ("aliases", Value::Object(aliases)) if aliases.is_empty() => {}
                (key, _) => {
                    let reason = format!("unknown key [{key}] for create index");
                    return Err(ApiError::new(400, "parse_exception", reason));
                }
            }
        }
        Ok(found)
    }

    fn read_object(&self, request: &Request) -> Result<Value, ApiError> {
        let body = self.decompression.read_body(request)?;
        match body.bytes() {
            [] => Err(ApiError::missing_body()),
            bytes => Ok(Value::Object(json_object(bytes)?)),
        }
    }

    /// Returns the settings and mappings of indices.
    pub(super) fn index(&self, asked: &RoutedRequest<'_>) -> Result<Reply, ApiError> {
        let own = ["flat_settings", "include_defaults"];
        asked.parameters.reject_unknown(
            asked.request.path(),
            &[&own[..], &TIMEOUT_PARAMETERS, &EXPAND_PARAMETERS].concat(),
        )?;
        let shown = self.select_indices(asked)?.into_iter().map(|index| {
            let settings = json!({ "index": {
                "number_of_replicas": "0", "number_of_shards": "1", "provided_name": index.name,
                "uuid": stable_uuid(&index.name), "version": { "created": "7172999" },
            } });
            let shown = json!({ "aliases": {}, "mappings": index.mapping.to_json(), "settings": settings });
            (index.name, shown)
        });
        Ok(Reply::json(200, &Value::Object(shown.collect())))
    }

    pub(super) fn cat_indices(&self, asked: &RoutedRequest<'_>) -> Result<Reply, ApiError> {
        let cells = |index: IndexInfo| {
            let bytes = human_size(index.bytes);
            let uuid = stable_uuid(&index.name);
            let documents = index.documents.to_string();
            let cells = ["green", "open", &index.name, &uuid, "1", "0", &documents, "0", &bytes, &bytes];
            cells.map(str::to_owned).to_vec()
        };
        render_cat(asked, &INDICES_COLUMNS, self.select_indices(asked)?.into_iter().map(cells).collect())
    }

    /// Returns the health as a table. Some shippers use it to check that the server answers.
    pub(super) fn cat_health(&self, asked: &RoutedRequest<'_>) -> Result<Reply, ApiError> {
        let now = Utc::now();
        let shards = self.store.indices(&[])?.len().to_string();
        let (epoch, time) = (now.timestamp().to_string(), now.format("%H:%M:%S").to_string());
        let row =
            [&epoch, &time, NAME, "green", "1", "1", &shards, &shards, "0", "0", "0", "0", "-", "100.0%"];
        render_cat(asked, &HEALTH_COLUMNS, vec![row.map(str::to_owned).to_vec()])
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

/// A column of a list for people: its name, its short name, and whether it holds numbers.
type CatColumn = (&'static str, &'static str, bool);

const INDICES_COLUMNS: [CatColumn; 10] = [
    ("health", "h", false),
    ("status", "s", false),
    ("index", "i", false),
    ("uuid", "id", false),
    ("pri", "p", true),
    ("rep", "r", true),
    ("docs.count", "dc", true),
    ("docs.deleted", "dd", true),
    ("store.size", "ss", true),
    ("pri.store.size", "", true),
];

const HEALTH_COLUMNS: [CatColumn; 14] = [
    ("epoch", "t", false),
    ("timestamp", "ts", false),
    ("cluster", "cl", false),
    ("status", "st", false),
    ("node.total", "nt", true),
    ("node.data", "nd", true),
    ("shards", "sh", true),
    ("pri", "p", true),
    ("relo", "r", true),
    ("init", "i", true),
    ("unassign", "u", true),
    ("pending_tasks", "pt", true),
    ("max_task_wait_time", "mtwt", true),
    ("active_shards_percent", "asp", true),
];

/// Renders a list as text or as JSON.
fn render_cat(
    asked: &RoutedRequest<'_>,
    columns: &[CatColumn],
    rows: Vec<Vec<String>>,
) -> Result<Reply, ApiError> {
    let parameters = &asked.parameters;
    let json = match parameters.get("format") {
        None | Some("text") => asked.request.header("accept") == Some(b"application/json"),
        Some("json") => true,
        Some(other) => {
            return Err(ApiError::illegal_argument(format!("[format] [{other}] is not supported")));
        }
    };
    if let Some((key, _)) = parameters
        .pairs()
        .find(|(key, _)| matches!(*key, "s" | "bytes" | "help" | "health" | "ts" | "time" | "pri"))
    {
        return Err(ApiError::illegal_argument(format!("[{key}] is not supported")));
    }
    let known =
        ["v", "h", "format", "local", "master_timeout", "expand_wildcards", "include_unloaded_segments"];
    parameters.reject_unknown(asked.request.path(), &known)?;
    let chosen = select_columns(parameters.get("h"), columns);
    if json {
        let row = |row: &Vec<String>| {
            CatRow(chosen.iter().map(|(at, name)| (name.clone(), row[*at].clone())).collect())
        };
        return Ok(Reply::json(200, &rows.iter().map(row).collect::<Vec<_>>()));
    }
    Ok(Reply::text(render_table(columns, &chosen, &rows, parameters.is_on("v")?)))
}

/// Returns the columns that `h` selects by their long or short names, each with the name used in the request. As in
/// Elasticsearch, unknown names are ignored.
fn select_columns(named: Option<&str>, columns: &[CatColumn]) -> Vec<(usize, String)> {
    let Some(named) = named.filter(|named| !named.is_empty()) else {
        return columns.iter().map(|(name, ..)| (*name).to_owned()).enumerate().collect();
    };
    let place = |name: &str| {
        let is_it = |(long, short, _): &CatColumn| *long == name || (!short.is_empty() && *short == name);
        columns.iter().position(is_it).map(|at| (at, name.to_owned()))
    };
    named.split(',').filter_map(|name| place(name.trim())).collect()
}

fn render_table(
    columns: &[CatColumn],
    chosen: &[(usize, String)],
    rows: &[Vec<String>],
    head: bool,
) -> String {
    let names = || chosen.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>();
    let cells = rows.iter().map(|row| chosen.iter().map(|(at, _)| row[*at].as_str()).collect::<Vec<_>>());
    let lines: Vec<Vec<&str>> = head.then(names).into_iter().chain(cells).collect();
    let width = |nth: usize| lines.iter().map(|line| line[nth].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..chosen.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        for (nth, cell) in line.iter().enumerate() {
            let (gap, width) = (if nth == 0 { "" } else { " " }, widths[nth]);
            // Writing to a String cannot fail.
            let _ = match columns[chosen[nth].0].2 {
                true => write!(out, "{gap}{cell:>width$}"),
                false => write!(out, "{gap}{cell:<width$}"),
            };
        }
        out.push('\n');
    }
    out
}

/// A row as a JSON object that keeps the order of its members.
struct CatRow(Vec<(String, String)>);

impl Serialize for CatRow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// Formats a size for people: `227b`, `15.6kb`.
fn human_size(bytes: u64) -> String {
    let units = ["kb", "mb", "gb", "tb"];
    if bytes < 1024 {
        return format!("{bytes}b");
    }
    let (mut value, mut at) = (bytes as f64 / 1024.0, 0);
    while value >= 1024.0 && at + 1 < units.len() {
        (value, at) = (value / 1024.0, at + 1);
    }
    // Elasticsearch truncates and does not round.
    let value = (value * 10.0).floor() / 10.0;
    format!("{value}{}", units[at])
}
