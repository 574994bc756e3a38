//! The handler's state, and the parsed request that all endpoints get.

use std::sync::Arc;

use super::body::{BODY_BYTES_MAX, DecompressionBudget};
use super::error::ApiError;
use super::parameters::Parameters;
use super::route::{Route, parse_index_names};
use crate::http::basic_auth::Users;
use crate::http::{HttpServerConfig, Request, RequestLimits};
use crate::iri::ingest::event_sink::EventSink;
use crate::phone::PhoneNumberNormalizer;
use crate::runtime::metrics::Metrics;
use crate::search::store::Store;

/// The HTTP handler of the API. Each file with endpoints adds methods to it.
pub struct EsApi {
    pub(super) store: Arc<dyn Store>,
    /// Rewrites phone numbers in queries to canonical numbers. `None`: numbers match only as they are written.
    pub(super) normalizer: Option<Arc<PhoneNumberNormalizer>>,
    pub(super) users: Users,
    pub(super) metrics: Arc<Metrics>,
    /// Keeps documents that the store rejects for good.
    pub(super) dead_letters: Option<Arc<EventSink>>,
    pub(super) decompression: DecompressionBudget,
}

/// A request with its route and parameters.
pub(super) struct RoutedRequest<'a> {
    pub(super) request: &'a Request,
    pub(super) route: Route<'a>,
    pub(super) parameters: &'a Parameters<'a>,
}

impl RoutedRequest<'_> {
    /// The names and patterns of the path's indices. An empty list means all indices.
    pub(super) fn indices(&self) -> Result<Vec<String>, ApiError> {
        parse_index_names(self.route.index.as_deref())
    }

    /// Rejects parameters that are neither in `known` nor common to all requests.
    pub(super) fn allow_parameters(&self, known: &[&str]) -> Result<(), ApiError> {
        self.parameters.reject_unknown(self.request.path(), known)
    }
}

impl EsApi {
    /// Creates a handler for a store. `normalizer` is `None` with `--number-match exact`.
    pub fn new(
        store: Arc<dyn Store>,
        normalizer: Option<Arc<PhoneNumberNormalizer>>,
        users: Users,
        metrics: Arc<Metrics>,
    ) -> EsApi {
        let decompression = DecompressionBudget::default();
        EsApi { store, normalizer, users, metrics, dead_letters: None, decompression }
    }

    /// Sets the sink for dead letters.
    pub fn with_dead_letters(self, sink: Arc<EventSink>) -> EsApi {
        EsApi { dead_letters: Some(sink), ..self }
    }

    /// Returns the limits of a server with this handler. All bodies and responses share 64 MiB; decompressed bodies have
    /// a budget of their own.
    pub fn server_config() -> HttpServerConfig {
        HttpServerConfig {
            name: "http",
            limits: RequestLimits { body_bytes_max: BODY_BYTES_MAX as u64, ..RequestLimits::default() },
            bodies_bytes_max: 64 << 20,
            // Enough for the largest bulk over a slow connection.
            request_timeout_ms: 60_000,
            // Shippers keep idle connections open, and the HTTP clients of proxies do not notice a close.
            idle_timeout_ms: 300_000,
            // The groups of a query and the levels of a body are parsed recursively.
            stack_bytes: 1 << 20,
            ..HttpServerConfig::default()
        }
    }
}
