//! The event part of the daemon: opens the event store, starts the event sources, and joins them after shutdown.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::retention;
use super::settings::EventSettings;
use super::sources::{self, SourceContext};
use crate::cc::vault::Vault;
use crate::cc::vault::dir::Access;
use crate::iri::ingest::event_sink::EventSink;
use crate::iri::ingest::grok::GrokPatterns;
use crate::iri::ingest::listener::ListenerDeps;
use crate::iri::ingest::syslog::SyslogConfig;
use crate::phone::PhoneNumberNormalizer;
use crate::runtime::metrics::Metrics;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::threads;
use crate::search::cluster::{self, ClusterStore, ClusterStoreConfig, EsClient, ShipConfig, SpoolConfig};
use crate::search::dead_letters::EventDeadLetters;
use crate::search::sqlite::{DiskReserve, ReaderAccess, SqliteStore, StoreConfig};
use crate::search::store::Store;
use crate::{Error, Result};

/// Timeout of a query to a cluster.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);

/// The checked settings of the event part.
pub(crate) struct EventServiceConfig {
    pub settings: EventSettings,
    pub normalizer: Arc<PhoneNumberNormalizer>,
    /// A number in an HTTP query matches in every dialled form, not only as it is written.
    pub matches_dialled_forms: bool,
    /// Days after which events are deleted.
    pub keep_days: Option<u32>,
    /// The cluster that stores events; `None` for the embedded store.
    pub cluster: Option<ClusterConfig>,
}

/// A cluster as the event store.
pub(crate) struct ClusterConfig {
    pub client: EsClient,
    pub spool_bytes_max: u64,
    pub keep_days: Option<u32>,
}

/// The event store and its dead letters.
#[derive(Clone)]
pub(crate) struct EventStore {
    store: Arc<dyn Store>,
    dead_letters: Arc<EventDeadLetters>,
}

/// Dependencies of the event part.
pub(crate) struct EventServiceDeps<'a> {
    pub event_store: EventStore,
    pub vault: &'a Vault,
    pub metrics: &'a Arc<Metrics>,
    /// Time after shutdown during which peers' input is still received.
    pub shutdown_timeout: Duration,
    pub shutdown: &'a Shutdown,
}

impl EventServiceConfig {
    /// Returns true if events are stored in a cluster.
    pub(crate) fn uses_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// Opens the embedded store, or the spool for a cluster. `free_bytes_min` stay free on the disk.
    pub(crate) fn open(
        &self,
        dir: &Path,
        access: Access,
        free_bytes_min: u64,
        metrics: &Arc<Metrics>,
    ) -> Result<EventStore> {
        let dead_letters = Arc::new(EventDeadLetters::open(dir)?);
        let store: Arc<dyn Store> = match &self.cluster {
            Some(cluster) => {
                let config = ClusterStoreConfig {
                    client: cluster.client.clone(),
                    search_timeout: SEARCH_TIMEOUT,
                    normalizer: Some(Arc::clone(&self.normalizer)),
                    templates: self.settings.indices.templates(),
                    spool: SpoolConfig::of(cluster.spool_bytes_max, free_bytes_min),
                    ship: ShipConfig { keep_days: cluster.keep_days, ..ShipConfig::default() },
                };
                log::info!("store cluster={}", cluster.client.address());
                Arc::new(ClusterStore::open(dir, config, Arc::clone(&dead_letters), Arc::clone(metrics))?)
            }
            None => {
                let left = cluster::count_spooled_events(dir)?;
                if left > 0 {
                    log::warn!(
                        "spool_not_empty events={left} note=\"these events are for a cluster: start with --cluster to send them\""
                    );
                }
                Arc::new(self.open_embedded(dir, access, free_bytes_min, metrics)?)
            }
        };
        Ok(EventStore { store, dead_letters })
    }

    fn open_embedded(
        &self,
        dir: &Path,
        access: Access,
        free_bytes_min: u64,
        metrics: &Arc<Metrics>,
    ) -> Result<SqliteStore> {
        let templates = self.settings.indices.templates();
        // Streams stop at the reserve. Events stop at twice of it, so they cannot use the room of streams up.
        let disk_reserve = (free_bytes_min > 0)
            .then(|| DiskReserve { bytes: free_bytes_min.saturating_mul(2), metrics: Arc::clone(metrics) });
        let metrics = Some(Arc::clone(metrics));
        let readers = ReaderAccess { file_mode: access.file_mode, group: access.group };
        let config = StoreConfig { templates, disk_reserve, metrics, readers, ..StoreConfig::default() };
        SqliteStore::open(dir, config.with_normalizer(Arc::clone(&self.normalizer)))
    }

    /// Starts all event sources. They run until shutdown.
    pub(crate) fn start(&self, deps: EventServiceDeps<'_>) -> Result<EventService> {
        let EventStore { store, dead_letters } = deps.event_store;
        let sink = Arc::new(EventSink::new(Arc::clone(&store), dead_letters, Arc::clone(deps.metrics)));
        let EventSettings { patterns, definitions, indices, .. } = &self.settings;
        let patterns =
            GrokPatterns::compile(patterns, definitions).map_err(|error| Error::Usage(error.to_string()))?;
        let context = SourceContext {
            settings: &self.settings,
            sink: Arc::clone(&sink),
            store: Arc::clone(&store),
            vault: deps.vault,
            syslog: Arc::new(SyslogConfig { index: indices.syslog.clone(), patterns }),
            query_normalizer: self.matches_dialled_forms.then(|| Arc::clone(&self.normalizer)),
            listeners: ListenerDeps::new(Arc::clone(&sink), deps.shutdown.clone(), deps.shutdown_timeout),
            api: OnceCell::new(),
        };
        let mut threads = sources::start_all(&context)?;
        if let Some(days) = self.keep_days.filter(|_| self.cluster.is_none()) {
            threads.push(retention::start(days, &store, deps.metrics, deps.shutdown)?);
        }
        Ok(EventService { threads, sink, store })
    }
}

/// The running event part.
pub(crate) struct EventService {
    threads: Vec<JoinHandle<Result<()>>>,
    sink: Arc<EventSink>,
    store: Arc<dyn Store>,
}

impl EventService {
    /// Sets the time after which sources no longer wait for a store that accepts no events.
    pub(crate) fn give_up_at(&self, at: Instant) {
        self.sink.give_up_at(at);
        self.store.set_shutdown_deadline(at);
    }

    /// Joins all threads. Returns after shutdown, when all received events are stored.
    pub(crate) fn join(self) -> Result<()> {
        threads::join_all(self.threads)
    }
}
