//! The endpoints for the node and its health, and the forwarding of admin requests to a cluster. Runs on the threads of the
//! HTTP connections.

use serde::Serialize;

use super::api::{EsApi, RoutedRequest};
use super::error::ApiError;
use super::indices::{EXPAND_PARAMETERS, TIMEOUT_PARAMETERS};
use super::response::{self, JSON, TEXT, stable_uuid};
use crate::http::Response;
use crate::search::store::{AdminApi, RawResponse};

/// The Elasticsearch version that clients see. They choose their requests by it.
const VERSION: &str = "7.17.29";

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
            build_hash: concat!("lea-", env!("CARGO_PKG_VERSION")),
            build_date: "2025-06-19T01:37:57.847711500Z",
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
        let own = ["wait_for_status", "wait_for_no_relocating_shards", "wait_for_nodes", "level"];
        routed.allow_parameters(&[&own[..], &TIMEOUT_PARAMETERS, &EXPAND_PARAMETERS].concat())?;
        if let Some(level) = routed.parameters.get("level").filter(|level| *level != "cluster") {
            return Err(ApiError::illegal_argument(format!("[level] [{level}] is not supported")));
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

    /// Forwards an admin request to the cluster. Returns `None` if the store is not a cluster.
    pub(super) fn forward_to_cluster(
        &self,
        admin_api: AdminApi,
        routed: &RoutedRequest<'_>,
    ) -> Result<Option<Response>, ApiError> {
        let Some(cluster) = self.store.cluster_backend() else { return Ok(None) };
        // These two are applied to the response here.
        let is_other = |(key, _): &(&str, &str)| !matches!(*key, "pretty" | "filter_path");
        let mut parameters: Vec<_> = routed.parameters.pairs().filter(is_other).collect();
        if routed.request.header("accept") == Some(b"application/json") {
            parameters.push(("format", "json"));
        }
        let RawResponse { status, is_json, body } =
            cluster.forward_get(admin_api, &routed.indices()?, &parameters)?;
        Ok(Some(Response::new(status, if is_json { JSON } else { TEXT }, body)))
    }
}
