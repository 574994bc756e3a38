//! The handler's state, and the parsed request that all endpoints get.

use std::path::Path;
use std::sync::Arc;

use super::body::{BODY_BYTES_MAX, DecompressionBudget};
use super::error::ApiError;
use super::metadata::MetadataStore;
use super::parameters::Parameters;
use super::route::Route;
use super::scroll::OpenStates;
use crate::Result;
use crate::http::basic_auth::Users;
use crate::http::{HttpServerConfig, Request, RequestGuard, RequestLimits};
use crate::iri::ingest::event_sink::EventSink;
use crate::limits::MemoryLimits;
use crate::phone::PhoneNumberNormalizer;
use crate::runtime::logging::Throttle;
use crate::runtime::metrics::Metrics;
use crate::search::budget::RequestMemory;
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
    /// False: requests that read events are refused.
    pub(super) answers_queries: bool,
    /// The memory of all requests together, and the share of one.
    pub(super) memory: Arc<RequestMemory>,
    pub(super) request_bytes_max: usize,
    /// Refuses the requests of web pages.
    pub(super) guard: RequestGuard,
    pub(super) warnings: Throttle,
    /// Templates, aliases and settings.
    pub(super) metadata: MetadataStore,
    pub(super) open_states: OpenStates,
}

/// A request with its route and parameters.
pub(super) struct RoutedRequest<'a> {
    pub(super) request: &'a Request,
    pub(super) route: Route<'a>,
    pub(super) parameters: &'a Parameters<'a>,
}

impl RoutedRequest<'_> {
    /// Rejects parameters that are neither in `known` nor common to all requests.
    pub(super) fn allow_parameters(&self, known: &[&str]) -> std::result::Result<(), ApiError> {
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
        let (memory, request_bytes_max) = (RequestMemory::of_process(), MemoryLimits::detect().request);
        let guard = RequestGuard::default();
        EsApi {
            store,
            normalizer,
            users,
            metrics,
            dead_letters: None,
            decompression,
            answers_queries: true,
            memory,
            request_bytes_max,
            guard,
            warnings: Throttle::default(),
            metadata: MetadataStore::default(),
            open_states: OpenStates::default(),
        }
    }

    /// Sets whether requests that read events are answered.
    pub fn with_queries(self, answers_queries: bool) -> EsApi {
        EsApi { answers_queries, ..self }
    }

    /// Keeps templates, aliases and settings in a file of this directory.
    ///
    /// # Errors
    /// The file cannot be read, or it is damaged.
    pub fn with_metadata(self, dir: &Path) -> Result<EsApi> {
        Ok(EsApi { metadata: MetadataStore::open(dir)?, ..self })
    }

    /// Sets the rules for the headers `Host` and `Origin`.
    pub fn with_guard(self, guard: RequestGuard) -> EsApi {
        EsApi { guard, ..self }
    }

    /// Sets the sink for dead letters.
    pub fn with_dead_letters(self, sink: Arc<EventSink>) -> EsApi {
        EsApi { dead_letters: Some(sink), ..self }
    }

    /// Returns the limits of a server with this handler. All bodies and responses share 64 MiB, or less on a machine with
    /// little memory; decompressed bodies and the work of requests have budgets of their own.
    pub fn server_config() -> HttpServerConfig {
        HttpServerConfig {
            name: "http",
            limits: RequestLimits { body_bytes_max: BODY_BYTES_MAX as u64, ..RequestLimits::default() },
            bodies_bytes_max: MemoryLimits::detect().bodies,
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
