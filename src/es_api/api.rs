//! The handler's state, and the parsed request that all endpoints get.

use std::path::Path;
use std::sync::Arc;

use super::body::{BODY_BYTES_MAX, DecompressionBudget};
use super::error::ApiError;
use super::metadata::MetadataStore;
use super::parameters::Parameters;
use super::rights::Rights;
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

/// The HTTP handler of the API on one address. Each file with endpoints adds methods to it. The handlers of several addresses
/// share what is behind an `Arc`.
pub struct EsApi {
    pub(super) store: Arc<dyn Store>,
    /// Rewrites phone numbers in queries to canonical numbers. `None`: numbers match only as they are written.
    pub(super) normalizer: Option<Arc<PhoneNumberNormalizer>>,
    pub(super) users: Users,
    pub(super) metrics: Arc<Metrics>,
    /// Keeps documents that the store rejects for good.
    pub(super) dead_letters: Option<Arc<EventSink>>,
    pub(super) decompression: Arc<DecompressionBudget>,
    pub(super) rights: Rights,
    /// The memory of all requests together, and the share of one.
    pub(super) memory: Arc<RequestMemory>,
    pub(super) request_bytes_max: usize,
    /// Refuses the requests of web pages.
    pub(super) guard: RequestGuard,
    pub(super) warnings: Throttle,
    /// Templates, aliases and settings.
    pub(super) metadata: Arc<MetadataStore>,
    pub(super) open_states: Arc<OpenStates>,
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
        let decompression = Arc::default();
        let (memory, request_bytes_max) = (RequestMemory::of_process(), MemoryLimits::detect().request);
        let guard = RequestGuard::default();
        EsApi {
            store,
            normalizer,
            users,
            metrics,
            dead_letters: None,
            decompression,
            rights: Rights::All,
            memory,
            request_bytes_max,
            guard,
            warnings: Throttle::default(),
            metadata: Arc::default(),
            open_states: Arc::default(),
        }
    }

    /// Returns a handler for another address, with its own users, rights, and rules for the headers `Host` and `Origin`.
    pub fn for_address(&self, users: Users, rights: Rights, guard: RequestGuard) -> EsApi {
        EsApi {
            store: Arc::clone(&self.store),
            normalizer: self.normalizer.clone(),
            users,
            metrics: Arc::clone(&self.metrics),
            dead_letters: self.dead_letters.clone(),
            decompression: Arc::clone(&self.decompression),
            rights,
            memory: Arc::clone(&self.memory),
            request_bytes_max: self.request_bytes_max,
            guard,
            warnings: Throttle::default(),
            metadata: Arc::clone(&self.metadata),
            open_states: Arc::clone(&self.open_states),
        }
    }

    /// Keeps templates, aliases and settings in a file of this directory.
    ///
    /// # Errors
    /// The file cannot be read, or it is damaged.
    pub fn with_metadata(self, dir: &Path) -> Result<EsApi> {
        Ok(EsApi { metadata: Arc::new(MetadataStore::open(dir)?), ..self })
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
