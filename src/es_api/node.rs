//! The endpoints about this service as a node, which clients ask before anything else. Runs on the threads of the HTTP
//! connections.
//!
//! The service is the only node, also in front of a cluster: a client that looks for further nodes has to come back to it.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::api::{EsApi, RoutedRequest};
use super::error::ApiError;
use super::indices::{EXPAND_PARAMETERS, TIMEOUT_PARAMETERS};
use super::response::{self, stable_uuid};
use crate::http::{Method, Request, Response};

/// The Elasticsearch version that clients see. They choose their requests by it.
pub(super) const VERSION: &str = "7.17.29";

const BUILD_HASH: &str = concat!("lea-", env!("CARGO_PKG_VERSION"));

const BUILD_DATE: &str = "2025-06-19T01:37:57.847711500Z";

/// The features that `_xpack` lists. None is available, so that shippers do without.
const FEATURES: [&str; 22] = [
    "aggregate_metric",
    "analytics",
    "ccr",
    "data_streams",
    "data_tiers",
    "enrich",
    "eql",
    "frozen_indices",
    "graph",
    "ilm",
    "logstash",
    "ml",
    "monitoring",
    "rollup",
    "searchable_snapshots",
    "slm",
    "spatial",
    "sql",
    "transform",
    "vectors",
    "voting_only",
    "watcher",
];

/// The name of the node and of the cluster, which is one process.
pub(super) const NODE_NAME: &str = "lea";

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

impl EsApi {
    /// Describes this node. Clients check the version, older ones also the build flavor.
    pub(super) fn info(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&[])?;
        let version = VersionInfo {
            number: VERSION,
            build_flavor: "default",
            build_type: "unknown",
            build_hash: BUILD_HASH,
            build_date: BUILD_DATE,
            build_snapshot: false,
            lucene_version: "8.11.3",
            minimum_wire_compatibility_version: "6.8.0",
            minimum_index_compatibility_version: "6.0.0-beta1",
        };
        let info = InfoResponse {
            name: NODE_NAME,
            cluster_name: NODE_NAME,
            cluster_uuid: stable_uuid(NODE_NAME),
            version,
            tagline: "You Know, for Search",
        };
        Ok(response::json(200, &info))
    }

    /// Returns the health. An embedded store that can list its indices is green.
    pub(super) fn health(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        let own = [
            "wait_for_status",
            "wait_for_no_relocating_shards",
            "wait_for_no_initializing_shards",
            "wait_for_nodes",
            "wait_for_events",
            "level",
        ];
        routed.allow_parameters(&[&own[..], &TIMEOUT_PARAMETERS, &EXPAND_PARAMETERS].concat())?;
        if let Some(level) = routed.parameters.get("level").filter(|level| *level != "cluster") {
            return Err(ApiError::illegal_argument(format!("[level] [{level}] is not supported")));
        }
        if let Some(status) = routed.parameters.get("wait_for_status")
            && !["green", "yellow", "red"].contains(&status.to_ascii_lowercase().as_str())
        {
            let status = status.to_ascii_uppercase();
            let reason =
                format!("No enum constant org.elasticsearch.cluster.health.ClusterHealthStatus.{status}");
            return Err(ApiError::illegal_argument(reason));
        }
        let shards = self.select_indices(routed)?.len();
        let health = HealthResponse {
            cluster_name: NODE_NAME,
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
        Ok(response::json(200, &health))
    }

    /// Returns the license. Shippers stop without an active one.
    pub(super) fn license(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        if routed.request.method() != Method::Get {
            return Err(ApiError::not_supported("the license cannot be changed"));
        }
        routed.allow_parameters(&["accept_enterprise", "local"])?;
        let license = json!({ "license": {
            "status": "active", "uid": stable_uuid("license"), "type": "basic",
            "issue_date": "1970-01-01T00:00:00.000Z", "issue_date_in_millis": 0, "max_nodes": 1000,
            "issued_to": NODE_NAME, "issuer": "elasticsearch", "start_date_in_millis": -1,
        } });
        Ok(response::json(200, &license))
    }

    /// Returns whether a basic or a trial license could be started. Kibana asks for it.
    pub(super) fn license_status(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&[])?;
        let kind = if routed.route.id.as_deref() == Some("basic_status") { "basic" } else { "trial" };
        let mut status = Map::new();
        status.insert(format!("eligible_to_start_{kind}"), Value::Bool(false));
        Ok(response::json(200, &status))
    }

    /// Lists the features of X-Pack. None is available, except users.
    pub(super) fn xpack_info(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&["categories", "accept_enterprise", "master_timeout"])?;
        let categories = routed.parameters.get("categories").unwrap_or("build,license,features");
        let off = json!({ "available": false, "enabled": false });
        let mut features: Map<String, Value> =
            FEATURES.iter().map(|name| ((*name).to_owned(), off.clone())).collect();
        let has_users = !self.users.is_empty();
        features.insert("security".to_owned(), json!({ "available": has_users, "enabled": has_users }));
        let mut info = Map::new();
        for category in categories.split(',').map(str::trim) {
            let (name, value) = match category {
                "build" => (category, json!({ "hash": BUILD_HASH, "date": BUILD_DATE })),
                "license" => {
                    let uid = stable_uuid("license");
                    (category, json!({ "uid": uid, "type": "basic", "mode": "basic", "status": "active" }))
                }
                "features" => (category, Value::Object(std::mem::take(&mut features))),
                "_all" | "" => continue,
                other => {
                    let name = other.to_ascii_uppercase();
                    return Err(ApiError::illegal_argument(format!(
                        "No enum constant org.elasticsearch.protocol.xpack.XPackInfoRequest.Category.{name}"
                    )));
                }
            };
            info.insert(name.to_owned(), value);
        }
        info.insert("tagline".to_owned(), "You know, for X".into());
        Ok(response::json(200, &info))
    }

    /// Describes the only node. Its address is the one that the client has used, so a client that sends its next requests
    /// there reaches the service again, also through a forwarded port.
    pub(super) fn nodes(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&["timeout", "flat_settings"])?;
        let address = published_address(routed.request);
        let (host, _) = address.rsplit_once(':').unwrap_or((&address, ""));
        let node = json!({
            "name": NODE_NAME, "transport_address": address, "host": host, "ip": host, "version": VERSION,
            "build_flavor": "default", "build_type": "unknown", "build_hash": BUILD_HASH,
            "roles": ["data", "ingest", "master"], "attributes": {},
            "http": {
                "bound_address": [address], "publish_address": address,
                "max_content_length_in_bytes": super::body::BODY_BYTES_MAX,
            },
        });
        Ok(response::json(200, &node_list(routed, node)))
    }

    /// Returns the node without statistics: those are metrics of the service. Clients look for its name.
    pub(super) fn nodes_stats(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&["timeout", "level", "fields", "types", "groups", "completion_fields"])?;
        let address = published_address(routed.request);
        let node = json!({
            "timestamp": crate::runtime::time::now().timestamp_millis(), "name": NODE_NAME, "transport_address": address,
            "host": address, "ip": address, "roles": ["data", "ingest", "master"], "attributes": {},
        });
        Ok(response::json(200, &node_list(routed, node)))
    }

    /// Returns the settings of the cluster, which has none, or accepts a change without any.
    pub(super) fn cluster_settings(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&[
            "flat_settings",
            "include_defaults",
            "timeout",
            "master_timeout",
            "local",
        ])?;
        if routed.request.method() == Method::Get {
            return Ok(response::json(200, &json!({ "persistent": {}, "transient": {} })));
        }
        let body = self.read_object(routed)?;
        let is_empty = |key| body.get(key).and_then(Value::as_object).is_none_or(Map::is_empty);
        match is_empty("persistent") && is_empty("transient") {
            true => Err(ApiError::validation("no settings to update")),
            false => Err(ApiError::not_supported("settings of a cluster have no effect here")),
        }
    }

    pub(super) fn pending_tasks(&self, routed: &RoutedRequest<'_>) -> Result<Response, ApiError> {
        routed.allow_parameters(&["local", "master_timeout"])?;
        Ok(response::json(200, &json!({ "tasks": [] })))
    }
}

/// Returns a list with the only node, or without it if the path names another one.
fn node_list(routed: &RoutedRequest<'_>, node: Value) -> Value {
    // A part of the path names nodes or, if it is a known word, sections of the answer.
    const SECTIONS: [&str; 12] = [
        "settings",
        "os",
        "process",
        "jvm",
        "thread_pool",
        "transport",
        "http",
        "plugins",
        "ingest",
        "aggregations",
        "indices",
        "_all",
    ];
    let id = stable_uuid(NODE_NAME);
    let is_named = |name: &str| {
        SECTIONS.contains(&name) || ["_local", "_master", "*", NODE_NAME].contains(&name) || name == id
    };
    let named = routed.route.id.as_deref();
    let is_found = named.is_none_or(|names| names.split(',').any(is_named));
    let count = u8::from(is_found);
    let mut nodes = Map::new();
    if is_found {
        nodes.insert(id, node);
    }
    json!({
        "_nodes": { "total": count, "successful": count, "failed": 0 },
        "cluster_name": NODE_NAME, "nodes": nodes,
    })
}

/// Returns the host and port that the client has used.
pub(super) fn published_address(request: &Request) -> String {
    let host = request.header("host").and_then(|host| str::from_utf8(host).ok()).unwrap_or_default().trim();
    let has_port = |host: &str| {
        host.rsplit_once(':')
            .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
    };
    match host {
        "" => "127.0.0.1:9200".to_owned(),
        host if has_port(host) => host.to_owned(),
        host => format!("{host}:80"),
    }
}
