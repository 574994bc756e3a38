//! Embedded event store: one SQLite file, DIR/.lea/events.db, that contains documents and an inverted index.
//!
//! Writing: the caller's thread turns its documents into terms (`indexer`), compresses the sources (`compress`) and
//! builds a segment of the terms (`segment`). The thread `store` (`writer`) commits the waiting calls in one durable
//! transaction. The thread `store-merge` (`merger`) merges many small segments into a few large ones.
//!
//! Reading: the caller's thread takes the `snapshot` of the last commit. A snapshot never changes, so readers and the
//! writer do not wait for each other. A query becomes one `plan` per index, and `execute` runs the plan on each
//! segment.
//!
//! Invariants: a segment spans consecutive documents, and each document belongs to exactly one segment. A document
//! that was replaced or rejected stays in `deleted_docs` until no segment contains it. Counts are exact.
//! docs/store-format.md describes the file format.

mod aggregate;
mod bounds;
mod call_terms;
mod catalog;
pub(crate) mod check;
mod compress;
mod count_cache;
mod execute;
pub(in crate::search) mod field_values;
mod file;
mod gate;
mod ids;
mod indexer;
mod merger;
mod pattern;
mod phrase;
mod plan;
mod retention;
mod rows;
pub(crate) mod salvage;
mod schema;
mod search;
mod segment;
mod snapshot;
mod sort;
mod state;
mod storage;
mod term_pattern;
mod terms;
pub(crate) mod text;
pub(crate) mod values;
mod writer;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_damage;
#[cfg(test)]
mod tests_format;
#[cfg(test)]
mod tests_own;
#[cfg(test)]
mod tests_random;
#[cfg(test)]
mod tests_retention;

pub(in crate::search) use self::aggregate::source::text_field_error;
pub use self::file::ReaderAccess;
pub(crate) use self::file::path as store_path;

use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError, bounded};
use rusqlite::Connection;

use crate::limits::MemoryLimits;
use crate::phone::PhoneNumberNormalizer;
use crate::runtime::health::Problem;
use crate::runtime::metrics::Metrics;
use crate::search::budget::{self, RequestBudget};
use crate::search::document::{Document, ID_BYTES_MAX, SOURCE_BYTES_MAX, check_index_name};
use crate::search::glob::glob_matches;
use crate::search::index_templates::IndexTemplates;
use crate::search::mapping::Mapping;
use crate::search::mark::MarkFile;
use crate::search::query::{Hit, Query, Search, SearchResult};
use crate::search::sqlite::call_terms::CallTerms;
use crate::search::sqlite::catalog::IndexEntry;
use crate::search::sqlite::execute::SearchContext;
use crate::search::sqlite::gate::IndexingGate;
use crate::search::sqlite::indexer::{DocumentIndexer, DocumentTerms};
use crate::search::sqlite::plan::{Planner, QueryPlan};
use crate::search::sqlite::segment::{IndexSegment, TermBatch};
use crate::search::sqlite::snapshot::Snapshot;
use crate::search::sqlite::state::{StoreState, load_state, read_snapshot};
use crate::search::sqlite::storage::damage;
use crate::search::sqlite::writer::{IndexedDocument, StoreJob, StoreRequest};
use crate::search::store::{IndexInfo, PinnedState, Store, StoreError, WriteReceipt, WriteRejected};
use crate::{Error, Result};

pub use indexer::CanonicalNumberFn;
use indexer::IndexingMode;
pub use segment::{SegmentContent, inspect_segment};

/// Maximum number of calls that wait for the writer.
const WAITING_JOBS_MAX: usize = 1_024;

/// Limits of a store, and rules for its documents.
#[derive(Clone)]
pub struct StoreConfig {
    /// Maximum number of bytes of documents that wait for the writer. A single call may exceed this.
    pub queue_bytes_max: usize,
    /// Longest time of a search.
    pub search_timeout_ms: u64,
    /// Maximum size of the file. 0: limited by the disk only.
    pub file_bytes_max: u64,
    /// Disk space that is kept for streams. `None`: none is.
    pub disk_reserve: Option<DiskReserve>,
    /// Number of documents in memory segments at which they are written to a disk segment.
    pub young_docs_max: u32,
    /// Returns the canonical number for a field and its value, if there is one.
    pub canonical_number: CanonicalNumberFn,
    /// How long closing the store may take to give the room of deleted events back. The next start continues.
    pub cleanup_time_max: Duration,
    /// Who may read the files, besides the user of the process.
    pub readers: ReaderAccess,
    /// Where damage and a nearly full store are reported.
    pub metrics: Option<Arc<Metrics>>,
    /// Mappings of new indices, and the time of an event.
    pub templates: IndexTemplates,
}

/// Disk space that the store leaves to others.
#[derive(Clone)]
pub struct DiskReserve {
    pub bytes: u64,
    /// Where a full disk is reported.
    pub metrics: Arc<Metrics>,
}

impl StoreConfig {
    /// Sets the normalizer of phone numbers.
    pub fn with_normalizer(self, normalizer: Arc<PhoneNumberNormalizer>) -> StoreConfig {
        let canonical_number = move |field: &str, value: &str| {
            let number = normalizer.is_number_field(field).then(|| normalizer.normalize(value))??;
            Some(number.as_str().to_owned())
        };
        StoreConfig { canonical_number: Arc::new(canonical_number), ..self }
    }
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            queue_bytes_max: MemoryLimits::detect().store_queue,
            search_timeout_ms: 30_000,
            file_bytes_max: 0,
            disk_reserve: None,
            young_docs_max: 32_768,
            canonical_number: Arc::new(|_, _| None),
            cleanup_time_max: Duration::from_secs(10),
            readers: ReaderAccess::default(),
            metrics: None,
            templates: IndexTemplates::default(),
        }
    }
}

/// The store. Dropping it waits until all accepted documents are written.
pub struct SqliteStore {
    state: Arc<StoreState>,
    indexer: DocumentIndexer,
    config: StoreConfig,
    gate: IndexingGate,
    /// `None` if the store was opened read-only.
    writer: Option<WriterHandle>,
}

struct WriterHandle {
    jobs: Option<Sender<StoreRequest>>,
    threads: Vec<JoinHandle<()>>,
    lock: std::fs::File,
}

impl SqliteStore {
    /// Opens the store of a directory for writing, and creates both if necessary. Only one process can do so at a time.
    pub fn open(dir: &Path, config: StoreConfig) -> Result<SqliteStore> {
        let (path, lock) = file::prepare(dir)?;
        let failed = |error: &dyn std::fmt::Display| Error::Store {
            act: "open",
            path: path.clone(),
            cause: error.to_string(),
        };
        let connection =
            schema::open_to_write(&path, config.file_bytes_max).map_err(|error| failed(&error))?;
        let state = load_state(&connection, &path, &config, false)
            .map_err(|error| failed(&damage::explain(error)))?;
        let state = Arc::new(state);
        let (jobs, jobs_in) = bounded(WAITING_JOBS_MAX);
        // A channel without a buffer: a sent message has been received, so the merger never waits for a writer that
        // has ended.
        let (merged, merged_in) = bounded(0);
        let (wake, wakes) = bounded(2);
        let reader = schema::open_beside_writer(&path).map_err(|error| failed(&error))?;
        let mark = MarkFile::open(&schema::mark_path(&path), file::MODE).map_err(|error| failed(&error))?;
        let writer = writer::StoreWriter::new(connection, Arc::clone(&state), jobs_in, merged_in, wake, mark)
            .map_err(|error| failed(&damage::explain(error)))?;
        let for_merger = Arc::clone(&state);
        let threads = vec![
            spawn("store", move || writer.run())?,
            spawn("store-merge", move || merger::run(reader, for_merger, wakes, merged))?,
        ];
        file::admit_readers(&path, config.readers)?;
        let writer = WriterHandle { jobs: Some(jobs), threads, lock };
        Ok(SqliteStore::new(state, config, Some(writer)))
    }

    /// Opens the store of a directory for reading. Another process may write to it at the same time.
    pub fn open_read_only(dir: &Path, config: StoreConfig) -> Result<SqliteStore> {
        let path = file::path(dir);
        let failed = |error: &dyn std::fmt::Display| Error::Store {
            act: "open",
            path: path.clone(),
            cause: error.to_string(),
        };
        if let Err(error) = std::fs::metadata(&path) {
            return Err(failed(&error));
        }
        let connection = schema::open_read_only(&path).map_err(|error| failed(&error))?;
        // One transaction: a writer may commit meanwhile.
        let state = connection
            .unchecked_transaction()
            .and_then(|transaction| load_state(&transaction, &path, &config, true))
            .map_err(|error| failed(&damage::explain(error)))?;
        state.idle_readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(SqliteStore::new(Arc::new(state), config, None))
    }

    fn new(state: Arc<StoreState>, config: StoreConfig, writer: Option<WriterHandle>) -> SqliteStore {
        let indexer = DocumentIndexer {
            catalog: Arc::clone(&state.catalog),
            canonical_number: Arc::clone(&config.canonical_number),
            templates: config.templates.clone(),
        };
        let gate = IndexingGate::new(MemoryLimits::detect().indexing);
        SqliteStore { state, indexer, config, gate, writer }
    }

    /// Returns the channel to the writer.
    fn jobs(&self) -> Result<&Sender<StoreRequest>, StoreError> {
        self.writer.as_ref().and_then(|writer| writer.jobs.as_ref()).ok_or_else(|| StoreError::Failed {
            act: "write to the store",
            cause: "it was opened read-only".to_owned(),
        })
    }

    /// Sends documents to the writer and waits for its result.
    fn submit_job(
        &self,
        documents: Vec<IndexedDocument>,
        segment: IndexSegment,
        bytes: usize,
    ) -> Result<Vec<Result<WriteReceipt, WriteRejected>>, StoreError> {
        let jobs = self.jobs()?;
        let queued = self.state.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let give_back = |error| {
            self.state.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            Err(error)
        };
        // A call that is larger than the queue is accepted if the queue is empty.
        if queued > 0 && queued + bytes > self.config.queue_bytes_max {
            return give_back(StoreError::Full);
        }
        if bytes > 0 && !self.has_disk_room(bytes) {
            return give_back(StoreError::Full);
        }
        let (reply, answer) = bounded(1);
        match jobs.try_send(StoreRequest::Write(StoreJob { documents, segment, bytes, reply })) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return give_back(StoreError::Full),
            Err(TrySendError::Disconnected(_)) => return give_back(StoreError::ShuttingDown),
        }
        match answer.recv() {
            // SQLITE_FULL: the transaction was rolled back, and a retry can succeed.
            Ok(Err(cause)) if cause.contains("disk is full") => Err(StoreError::Full),
            Ok(written) => written.map_err(|cause| StoreError::Failed { act: "write to the store", cause }),
            Err(_) => Err(StoreError::ShuttingDown),
        }
    }

    /// Returns false if documents of this size would use the room that is kept for streams, and reports it.
    fn has_disk_room(&self, bytes: usize) -> bool {
        let (Some(reserve), Some(writer)) = (&self.config.disk_reserve, &self.writer) else { return true };
        // The log of a transaction and its pages are on the disk at the same time.
        let wanted = reserve.bytes.saturating_add(4 * bytes as u64);
        // If the free space is unknown, the write itself tells.
        let free = rustix::fs::fstatvfs(&writer.lock).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let has_room = free.map_or(true, |free| free >= wanted);
        let health = &reserve.metrics.health;
        match (has_room, health.is_raised(Problem::StoreDiskFull)) {
            (false, false) => {
                log::warn!(
                    "store_disk_full reserved_bytes={} note=\"events wait or get 429\"",
                    reserve.bytes
                );
                health.raise(Problem::StoreDiskFull);
            }
            (true, true) => health.clear(Problem::StoreDiskFull),
            _ => {}
        }
        has_room
    }

    /// Writes new indices and fields.
    fn write_catalog(&self) -> Result<(), StoreError> {
        self.submit_job(Vec::new(), TermBatch::default().finish(0), 0).map(drop)
    }

    fn prepare_document(
        &self,
        document: Document,
        now_ms: i64,
        terms: &mut DocumentTerms,
    ) -> Result<IndexedDocument, WriteRejected> {
        let index = self.get_or_create_index(&document)?;
        let doc_type = document.doc_type.as_deref();
        self.indexer.index_document(
            &index,
            doc_type,
            &document.source,
            now_ms,
            IndexingMode::Write,
            terms,
        )?;
        Ok(IndexedDocument {
            index: index.id,
            doc_type: document.doc_type,
            id: document.id,
            mode: document.mode,
            time_ms: terms.time_ms,
            source: self.state.source_codec.compress(without_byte_order_mark(&document.source)),
        })
    }

    /// Checks the size and the id of a document and returns its index, which is created if necessary.
    fn get_or_create_index(&self, document: &Document) -> Result<Arc<IndexEntry>, WriteRejected> {
        if document.source.len() > SOURCE_BYTES_MAX {
            return Err(WriteRejected::Invalid(format!(
                "the document has more than {SOURCE_BYTES_MAX} bytes"
            )));
        }
        if let Some(id) = &document.id
            && (id.is_empty() || id.len() > ID_BYTES_MAX)
        {
            return Err(WriteRejected::Invalid(format!(
                "id [{id}] is too long, must be no longer than {ID_BYTES_MAX} bytes and at least 1, but was: {}",
                id.len()
            )));
        }
        if let Some(index) = self.state.catalog.get(&document.index) {
            return Ok(index);
        }
        check_index_name(&document.index).map_err(|why| {
            WriteRejected::Invalid(format!("Invalid index name [{}], {why}", document.index))
        })?;
        let mapping = self.config.templates.mapping(&document.index);
        let is_own = mapping.is_some();
        let mapping = mapping.unwrap_or(const { &Mapping::new() });
        let created = self.state.catalog.create(&document.index, mapping, is_own);
        created.map(|(index, _)| index).ok_or_else(|| WriteRejected::Invalid(TOO_MANY_INDICES.to_owned()))
    }

    /// Returns the indices with these names or patterns.
    fn select_indices(
        &self,
        names: &[String],
        ignore_unavailable: bool,
    ) -> Result<Vec<Arc<IndexEntry>>, StoreError> {
        let all = self.state.catalog.all();
        if names.is_empty() || names.iter().any(|name| name == "_all") {
            return Ok(all);
        }
        for name in names.iter().filter(|name| !name.contains('*')) {
            if !ignore_unavailable && self.state.catalog.get(name).is_none() {
                return Err(StoreError::IndexNotFound(name.clone()));
            }
        }
        let fits = |index: &Arc<IndexEntry>| names.iter().any(|name| glob_matches(name, &index.name));
        Ok(all.into_iter().filter(fits).collect())
    }

    /// Runs `work` with a snapshot and a connection.
    fn with_context<T>(
        &self,
        work: impl Fn(&SearchContext<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        damage::take();
        damage::take_mixed_state();
        let done = self.state.with_reader(|connection| {
            if self.writer.is_some() {
                return self.with_snapshot(connection, self.state.snapshot(), &work);
            }
            let mut done = self.in_transaction(connection, &work);
            // A writer that started meanwhile may have changed what was read. It cannot start again and again.
            if damage::take_mixed_state() {
                damage::take();
                done = self.in_transaction(connection, &work);
            }
            done
        });
        self.check_damage(done)
    }

    /// Damage fails a call even if its code did not notice it.
    fn check_damage<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        let Some(found) = damage::take() else { return done };
        self.state.report_damage(&found);
        Err(StoreError::Failed { act: "read the store", cause: format!("{found}; {}", schema::ADVICE) })
    }

    /// Runs `work` in one read transaction: the writer deletes only rows that no such transaction can see.
    fn in_transaction<T>(
        &self,
        connection: &Connection,
        work: impl Fn(&SearchContext<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = connection.unchecked_transaction()?;
        let snapshot = self.refresh_snapshot(&transaction)?;
        self.with_snapshot(&transaction, snapshot, work)
    }

    fn with_snapshot<T>(
        &self,
        connection: &Connection,
        snapshot: Arc<Snapshot>,
        work: impl Fn(&SearchContext<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let timeout = Duration::from_millis(self.config.search_timeout_ms);
        let budget = budget::current().unwrap_or_else(|| Rc::new(RequestBudget::unlimited(timeout)));
        budget.limit_time(timeout);
        let (secret, counts) = (&self.state.secret, &self.state.count_cache);
        work(&SearchContext { snapshot: &snapshot, connection, count_cache: counts, secret, budget })
    }

    /// Reads the changes that a writer in another process has committed.
    fn refresh_snapshot(&self, connection: &Connection) -> Result<Arc<Snapshot>, StoreError> {
        let mut known_mark = self.state.snapshot_mark.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = rows::read_change_mark(connection)?;
        if *known_mark != mark {
            rows::read_catalog(connection, &self.state.catalog)?;
            rows::read_dictionaries(connection, &self.state.source_codec)?;
            let snapshot = read_snapshot(connection, &self.state.snapshot().segments)?;
            *self.state.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
            *known_mark = mark;
        }
        Ok(self.state.snapshot())
    }

    /// Plans a query for each index.
    fn plan_query(
        &self,
        indices: Vec<Arc<IndexEntry>>,
        query: &Query,
    ) -> Result<Vec<(Arc<IndexEntry>, QueryPlan)>, StoreError> {
        let now_ms = crate::runtime::time::now_ms();
        let plan = |index: Arc<IndexEntry>| {
            let plan = Planner::new(&index, &index.fields(), now_ms).plan(query)?;
            Ok((index, plan))
        };
        indices.into_iter().map(plan).collect()
    }
}

/// Returns a source without the byte order mark that some senders put in front of it.
fn without_byte_order_mark(source: &[u8]) -> &[u8] {
    source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source)
}

const TOO_MANY_INDICES: &str = "the store already has the maximum number of indices [10000]";

impl Store for SqliteStore {
    fn write(
        &self,
        documents: Vec<Document>,
    ) -> Result<Vec<Result<WriteReceipt, WriteRejected>>, StoreError> {
        let _permit = self.gate.enter(documents.iter().map(|one| gate::indexing_bytes(&one.source)).sum())?;
        let now_ms = crate::runtime::time::now_ms();
        let (mut call_terms, mut terms) = (CallTerms::default(), DocumentTerms::default());
        let (mut accepted, mut answers) =
            (Vec::with_capacity(documents.len()), Vec::with_capacity(documents.len()));
        let mut bytes = 0;
        for document in documents {
            bytes += document.source.len();
            match self.prepare_document(document, now_ms, &mut terms) {
                Ok(ready) => {
                    call_terms.add(&terms);
                    accepted.push(ready);
                    answers.push(None);
                }
                Err(rejected) => answers.push(Some(rejected)),
            }
        }
        let mut written = if accepted.is_empty() {
            Vec::new()
        } else {
            let segment = call_terms.finish().map_err(|error| StoreError::Failed {
                act: "merge the terms of the call",
                cause: error.to_string(),
            })?;
            self.submit_job(accepted, segment, bytes)?
        }
        .into_iter();
        let answer = |rejected: Option<WriteRejected>| match rejected {
            Some(rejected) => Err(rejected),
            None => written.next().unwrap_or_else(|| {
                Err(WriteRejected::Invalid("the writer gave no result for this document".to_owned()))
            }),
        };
        Ok(answers.into_iter().map(answer).collect())
    }

    fn get(&self, index: &str, id: &str) -> Result<Option<Hit>, StoreError> {
        self.with_context(|context| {
            let index =
                self.state.catalog.get(index).ok_or_else(|| StoreError::IndexNotFound(index.to_owned()))?;
            let docs = context.find(index.id, &QueryPlan::Ids(vec![id.to_owned()]))?;
            let Some(doc) = docs.min() else { return Ok(None) };
            let (hit, _) = search::read_hit(context, &self.state, doc)?;
            let ignored = search::ignored_members(context, &[index], &[doc])?.remove(&doc);
            Ok(Some(Hit { ignored: ignored.unwrap_or_default(), ..hit }))
        })
    }

    fn count(&self, indices: &[String], ignore_unavailable: bool, query: &Query) -> Result<u64, StoreError> {
        self.with_context(|context| {
            let plans = self.plan_query(self.select_indices(indices, ignore_unavailable)?, query)?;
            plans.iter().map(|(index, plan)| context.count(index.id, plan)).sum()
        })
    }

    fn search(&self, search: &Search) -> Result<SearchResult, StoreError> {
        self.with_context(|context| {
            let plans = self.plan_query(
                self.select_indices(&search.indices, search.ignore_unavailable)?,
                &search.query,
            )?;
            search::run_search(context, &self.state, &self.indexer, plans, search)
        })
    }

    fn pin(&self) -> Result<PinnedState, StoreError> {
        Ok(PinnedState(Box::new(self.state.snapshot())))
    }

    fn search_pinned(&self, state: &PinnedState, search: &Search) -> Result<SearchResult, StoreError> {
        let Some(snapshot) = state.0.downcast_ref::<Arc<Snapshot>>() else {
            return Err(StoreError::Invalid("the state is of another store".to_owned()));
        };
        damage::take();
        let done = self.state.with_reader(|connection| {
            self.with_snapshot(connection, Arc::clone(snapshot), |context| {
                let indices = self.select_indices(&search.indices, search.ignore_unavailable)?;
                let plans = self.plan_query(indices, &search.query)?;
                search::run_search(context, &self.state, &self.indexer, plans, search)
            })
        });
        self.check_damage(done)
    }

    fn indices(&self, indices: &[String]) -> Result<Vec<IndexInfo>, StoreError> {
        self.with_context(|context| {
            let size: u64 = context.connection.query_row(
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
                [],
                |row| row.get(0),
            )?;
            let mut found = Vec::new();
            let mut all = 0;
            for index in self.state.catalog.all() {
                let documents = context.count_index(index.id)?;
                all += documents;
                found.push(IndexInfo {
                    name: index.name.clone(),
                    documents,
                    bytes: 0,
                    mapping: index.fields().mapping(),
                });
            }
            // All indices share one file. The size of an index is estimated from its share of the documents.
            for index in &mut found {
                index.bytes =
                    (u128::from(size) * u128::from(index.documents) / u128::from(all.max(1))) as u64;
            }
            let selected = self.select_indices(indices, false)?;
            found.retain(|index| selected.iter().any(|selected| selected.name == index.name));
            Ok(found)
        })
    }

    fn is_own_index(&self, index: &str) -> bool {
        self.config.templates.is_own(index)
    }

    fn has_index(&self, index: &str) -> Result<bool, StoreError> {
        Ok(self.state.catalog.get(index).is_some())
    }

    fn create_index(&self, index: &str, mapping: &Mapping) -> Result<bool, StoreError> {
        check_index_name(index)
            .map_err(|why| StoreError::Invalid(format!("Invalid index name [{index}], {why}")))?;
        let own = self.config.templates.mapping(index);
        let start = own.cloned().unwrap_or_else(|| Mapping { dynamic: mapping.dynamic, ..Mapping::new() });
        let created = self.state.catalog.create(index, &start, own.is_some());
        let (entry, is_new) = created.ok_or_else(|| StoreError::Invalid(TOO_MANY_INDICES.to_owned()))?;
        if is_new {
            self.add_fields(&entry, mapping)?;
            self.state.catalog.add_rules(&entry, &mapping.rules);
            self.write_catalog()?;
        }
        Ok(is_new)
    }

    fn purge(
        &self,
        indices: &[String],
        before_ms: i64,
        dry_run: bool,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        self.purge_events(indices, before_ms, dry_run)
    }

    fn delete_index(&self, index: &str) -> Result<u64, StoreError> {
        self.delete_whole_index(index)
    }

    fn put_mapping(&self, index: &str, mapping: &Mapping) -> Result<(), StoreError> {
        let entry =
            self.state.catalog.get(index).ok_or_else(|| StoreError::IndexNotFound(index.to_owned()))?;
        self.add_fields(&entry, mapping)?;
        self.state.catalog.set_dynamic(&entry, mapping.dynamic);
        self.state.catalog.add_rules(&entry, &mapping.rules);
        self.write_catalog()
    }
}

impl SqliteStore {
    fn add_fields(&self, index: &IndexEntry, mapping: &Mapping) -> Result<(), StoreError> {
        let fields: Vec<_> =
            mapping.fields.iter().map(|(name, field)| (name.clone(), field.clone())).collect();
        let added = self.state.catalog.add_fields(index, &fields);
        added.map_err(|clash| StoreError::Invalid(clash.to_string()))
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.state.is_stopping.store(true, Ordering::Relaxed);
        let Some(writer) = &mut self.writer else { return };
        writer.jobs = None;
        for thread in writer.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("store_thread_panicked");
            }
        }
    }
}

fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(Error::system("start a thread"))
}
