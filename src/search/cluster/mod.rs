//! The cluster store: events in Elasticsearch 7.17 to 9, or OpenSearch 2 and 3.
//!
//! Searches (`search`, translated by `request`) go to the cluster directly. Writes are appended to the spool on disk, which
//! the thread `spool-ship` ships.
//!
//! ```text
//! caller:      event -> spool (log, group commit) -> result
//! spool-ship:  spool -> index_router -> bulk -> ack
//! ```
//!
//! Layout of the cluster: events of NAME are in daily indices `NAME-YYYY.MM.DD`, and the alias NAME contains all of
//! them. A source is the sender's, byte for byte, with one more member at its end:
//! `"lea":{"number":{"destNum":"+972598294121"},"time":"2026-11-22T10:11:12.345Z"}`. `lea.time` (a date) always exists:
//! it is the event's own time, or that of its arrival. `lea.number.FIELD` (a keyword) exists if the text in FIELD is a
//! phone number, and contains the canonical number; dots in FIELD are replaced by `_`.

mod backoff;
pub(crate) mod bulk;
pub(crate) mod client;
mod event;
pub mod fuzzing;
mod index_router;
pub(crate) mod request;
pub(crate) mod response;
mod search;
mod shipper;
mod spool;
mod template;

use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

pub use client::{ClientError, EsClient, EsRequestBody, EsResponse, Product, ServerInfo};
pub use shipper::ShipConfig;
pub use spool::SpoolConfig;

use crate::phone::PhoneNumberNormalizer;
use crate::runtime::metrics::Metrics;
use crate::search::cluster::event::SpooledEvent;
use crate::search::cluster::index_router::{NameKind, ShipError};
use crate::search::cluster::shipper::Shipper;
use crate::search::cluster::spool::{Payloads, Spool};
use crate::search::cluster::template::TemplateParams;
use crate::search::dead_letters::EventDeadLetters;
use crate::search::document::{Document, check_index_name};
use crate::search::index_templates::IndexTemplates;
use crate::search::mapping::Mapping;
use crate::search::query::{Hit, Query, Search, SearchResult};
use crate::search::store::{
    AdminApi, ClusterBackend, IndexInfo, RawResponse, Store, StoreError, WriteReceipt, WriteRejected,
};
use crate::{Error, Result};

/// The member that lea adds to each source.
pub const LEA_OBJECT: &str = "lea";

/// The date field that each event has.
pub const LEA_TIME_FIELD: &str = "lea.time";

/// Prefix of the fields that contain canonical numbers.
pub const LEA_NUMBER_FIELD: &str = "lea.number";

/// Maximum age of an event, in days, that still goes to the index of its own day.
const DAYS_BACK: u32 = 30;

/// Default shutdown timeout for the cluster.
const SHUTDOWN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

/// The read side of the store.
#[derive(Debug)]
pub(crate) struct ClusterSearcher {
    pub client: EsClient,
    pub search_timeout: Duration,
    /// `None`: numbers are matched as text.
    pub normalizer: Option<Arc<PhoneNumberNormalizer>>,
}

#[derive(Clone, Debug)]
pub struct ClusterStoreConfig {
    pub client: EsClient,
    pub search_timeout: Duration,
    /// `None`: numbers are matched as text.
    pub normalizer: Option<Arc<PhoneNumberNormalizer>>,
    /// Mappings of new indices, and the time of an event.
    pub templates: IndexTemplates,
    pub spool: SpoolConfig,
    pub ship: ShipConfig,
}

/// Counts the events in a directory's spool that no cluster has acknowledged. For a process that starts
/// without a cluster.
pub fn count_spooled_events(dir: &Path) -> Result<u64> {
    spool::count_unacked(&dir.join(".lea"))
}

/// A cluster as event store. On drop, waits for the cluster until the time given to
/// [`Store::set_shutdown_deadline`]; the remaining events stay in the spool.
pub struct ClusterStore {
    searcher: Arc<ClusterSearcher>,
    template_params: TemplateParams,
    spool: Spool,
    keep_days: Option<u32>,
    /// The thread, and a channel that disconnects when it ends.
    shipper: Option<(JoinHandle<()>, Receiver<()>)>,
}

impl ClusterStore {
    /// Opens the spool of a directory that this process has locked, and starts shipping. The cluster may be
    /// unreachable.
    pub fn open(
        dir: &Path,
        config: ClusterStoreConfig,
        dead_letters: Arc<EventDeadLetters>,
        metrics: Arc<Metrics>,
    ) -> Result<ClusterStore> {
        let ClusterStoreConfig { client, search_timeout, normalizer, templates, spool: spool_config, ship } =
            config;
        let numbers =
            normalizer.as_ref().map_or_else(Vec::new, |normalizer| normalizer.settings().fields.clone());
        let template_params = TemplateParams { numbers, templates };
        let (spool, ack_handle) = Spool::open(&dir.join(".lea"), spool_config, Arc::clone(&metrics))?;
        let cluster = Arc::new(ClusterSearcher { client: client.clone(), search_timeout, normalizer });
        let shared = (Arc::clone(spool.shared()), ack_handle);
        let shipper =
            Shipper::new(client, shared, template_params.clone(), dead_letters, Arc::clone(&metrics), ship)
                .map_err(Error::path("read the spool of", dir))?;
        let (ends, ended) = bounded::<()>(0);
        let thread = Builder::new().name("spool-ship".to_owned()).spawn(move || {
            let _ends = ShipperEndSignal(ends, metrics);
            shipper.run();
        });
        let thread = thread.map_err(Error::system("start a thread"))?;
        Ok(ClusterStore {
            searcher: cluster,
            template_params,
            spool,
            keep_days: ship.keep_days,
            shipper: Some((thread, ended)),
        })
    }
}

impl Store for ClusterStore {
    /// A sender's id may already exist, which the cluster reports only later. So every document is reported
    /// as created, and one with an existing id in
    /// [`WriteMode::Create`](crate::search::document::WriteMode::Create) is dropped.
    fn write(
        &self,
        documents: Vec<Document>,
    ) -> Result<Vec<Result<WriteReceipt, WriteRejected>>, StoreError> {
        let arrived_ms = crate::runtime::time::now_ms();
        let days_back = self.keep_days.map_or(DAYS_BACK, |days| days.min(DAYS_BACK));
        let normalizer = self.searcher.normalizer.as_deref();
        let templates = &self.template_params.templates;
        let mut payloads = Payloads::default();
        let read = |document: &Document| {
            let event = SpooledEvent::from_document(document, arrived_ms, days_back, normalizer, templates)?;
            payloads.add(|bytes| event.encode(bytes));
            Ok(event.id)
        };
        let ids: Vec<Result<Option<String>, WriteRejected>> = documents.iter().map(read).collect();
        drop(documents);
        let mut sequence = if payloads.is_empty() { 0 } else { self.spool.append(payloads)? };
        let log = self.spool.shared().log_id();
        let mut written = |id: Option<String>| {
            let id = id.unwrap_or_else(|| event::generated_id(log, sequence));
            sequence += 1;
            WriteReceipt { id, version: 1, seq_no: sequence - 1, created: true }
        };
        Ok(ids.into_iter().map(|id| id.map(&mut written)).collect())
    }

    fn get(&self, index: &str, id: &str) -> Result<Option<Hit>, StoreError> {
        self.searcher.get(index, id)
    }

    fn count(&self, indices: &[String], ignore_unavailable: bool, query: &Query) -> Result<u64, StoreError> {
        self.searcher.count(indices, ignore_unavailable, query)
    }

    fn search(&self, search: &Search) -> Result<SearchResult, StoreError> {
        self.searcher.search(search)
    }

    fn indices(&self, indices: &[String]) -> Result<Vec<IndexInfo>, StoreError> {
        self.searcher.indices(indices)
    }

    fn create_index(&self, index: &str, mapping: &Mapping) -> Result<bool, StoreError> {
        check_index_name(index)
            .map_err(|why| StoreError::Invalid(format!("Invalid index name [{index}], {why}")))?;
        let client = &self.searcher.client;
        let (name, day) = event::split_daily_index(index);
        index_router::check_server(client).map_err(to_store_error)?;
        if index_router::fetch_name_kind(client, name).map_err(to_store_error)? != NameKind::Free {
            return Ok(false);
        }
        let made = index_router::put_template(client, name, &self.template_params, mapping)
            .map_err(to_store_error)?;
        let day = day.unwrap_or_else(|| event::day_of(crate::runtime::time::now_ms()));
        match index_router::create_index(client, &event::daily_index(name, day)).map_err(to_store_error)? {
            None => Ok(made),
            Some(reason) => Err(StoreError::Invalid(reason)),
        }
    }

    fn put_mapping(&self, index: &str, mapping: &Mapping) -> Result<(), StoreError> {
        let client = &self.searcher.client;
        let (name, _) = event::split_daily_index(index);
        index_router::add_mapping(client, index, mapping).map_err(|error| match error {
            ShipError::Status { status: 404, .. } => StoreError::IndexNotFound(index.to_owned()),
            error => to_store_error(error),
        })?;
        if index_router::fetch_name_kind(client, name).map_err(to_store_error)? == NameKind::Free {
            index_router::put_template(client, name, &self.template_params, mapping)
                .map_err(to_store_error)?;
        }
        Ok(())
    }

    fn set_shutdown_deadline(&self, at: Instant) {
        self.spool.shared().set_deadline(at);
    }

    fn cluster_backend(&self) -> Option<&dyn ClusterBackend> {
        Some(self)
    }
}

impl ClusterBackend for ClusterStore {
    fn refresh(&self, indices: &[String], ignore_unavailable: bool) -> Result<(), StoreError> {
        let until = Instant::now() + self.searcher.search_timeout;
        if !self.spool.shared().wait_acked(until) {
            return Err(StoreError::TimedOut(self.searcher.search_timeout.as_millis() as u64));
        }
        self.searcher.refresh(indices, ignore_unavailable)
    }

    fn forward_get(
        &self,
        about: AdminApi,
        indices: &[String],
        parameters: &[(&str, &str)],
    ) -> Result<RawResponse, StoreError> {
        self.searcher.forward_get(about, indices, parameters)
    }

    fn forward(&self, method: &str, target: &str, body: &[u8]) -> Result<RawResponse, StoreError> {
        self.searcher.forward(method, target, body)
    }
}

/// Disconnects its channel when the shipper thread ends. If that thread panics, events still go to the spool,
/// and /health reports that they stay there.
struct ShipperEndSignal(
    #[allow(dead_code, reason = "dropping it disconnects the channel")] Sender<()>,
    Arc<Metrics>,
);

impl Drop for ShipperEndSignal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.cluster_up.set(false);
            log::error!("spool_thread_failed note=\"events stay in the spool until the next start\"");
        }
    }
}

fn to_store_error(error: ShipError) -> StoreError {
    match error {
        ShipError::Status { status: 400, cause } => StoreError::Invalid(cause),
        ShipError::Unreachable(error) => StoreError::Unreachable(error.to_string()),
        error => StoreError::Failed { act: "change the cluster", cause: error.to_string() },
    }
}

impl Drop for ClusterStore {
    fn drop(&mut self) {
        self.spool.close();
        let shared = self.spool.shared();
        if shared.deadline().is_none() {
            shared.set_deadline(Instant::now() + SHUTDOWN_TIMEOUT_DEFAULT);
        }
        let Some((thread, ended)) = self.shipper.take() else { return };
        let at = shared.deadline().unwrap_or_else(Instant::now);
        // A running request cannot be cancelled. Its thread is abandoned, which is safe: the spool survives
        // even a crash.
        let grace = Duration::from_millis(200);
        if let Err(crossbeam_channel::RecvTimeoutError::Timeout) = ended.recv_deadline(at + grace) {
            log::warn!(
                "cluster_shutdown_timeout note=\"unacknowledged events are sent again at the next start\""
            );
        } else {
            // The thread has logged its errors.
            let _ = thread.join();
        }
    }
}
