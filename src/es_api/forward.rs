//! Forwards admin requests to the cluster behind the service. Runs on the threads of the HTTP connections.

use super::api::{EsApi, RoutedRequest};
use super::error::ApiError;
use super::response::{JSON, TEXT};
use crate::http::{Method, Response};
use crate::search::store::{AdminApi, RawResponse};

impl EsApi {
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
            cluster.forward_get(admin_api, &self.indices(routed)?, &parameters)?;
        Ok(Some(Response::new(status, if is_json { JSON } else { TEXT }, body)))
    }

    /// Forwards a request about what the cluster keeps itself: templates, aliases, settings. Returns `None` if the store is
    /// not a cluster.
    pub(super) fn forward_as_is(&self, routed: &RoutedRequest<'_>) -> Result<Option<Response>, ApiError> {
        let Some(cluster) = self.store.cluster_backend() else { return Ok(None) };
        let RoutedRequest { request, parameters, .. } = routed;
        // These two are applied to the response here.
        let pairs = parameters.pairs().filter(|(key, _)| !matches!(*key, "pretty" | "filter_path"));
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let target = format!("{}?{query}", request.path());
        // A HEAD has no body to tell JSON from text by.
        let method = if request.method() == Method::Head { Method::Get } else { request.method() };
        let body = self.read_body(routed)?;
        let RawResponse { status, is_json, body } =
            cluster.forward(method.as_str(), &target, body.bytes())?;
        Ok(Some(Response::new(status, if is_json { JSON } else { TEXT }, body)))
    }
}
