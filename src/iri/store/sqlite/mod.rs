//! The embedded store: one SQLite file, DIR/.lea/events.db, with an inverted index of our own in it.
//!
//! A caller's thread takes its documents apart (`prepare`), compresses them and makes a segment of their terms
//! (`segment`); the thread `store` (`writer`) puts what has gathered into one durable transaction. Many small segments
//! become few large ones (`merger`). A reader takes the `snapshot` of the last commit, which never changes, so it waits
//! for nobody and nobody for it; a question becomes a `plan` an index, and that is `evaluate`d segment by segment.
//!
//! Invariants: segments span neighbouring documents, each document is in one; a document that was replaced or refused is
//! in `gone` until no segment has it; counts are exact.

mod aggregate;
mod bounds;
mod catalogue;
mod compress;
mod counts;
mod evaluate;
mod file;
mod ids;
mod merger;
mod pattern;
mod plan;
mod prepare;
mod rows;
mod schema;
mod search;
mod segment;
mod shared;
mod snapshot;
pub(crate) mod text;
pub(crate) mod values;
mod walk;
mod writer;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_random;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use chrono::Utc;
use crossbeam_channel::{Sender, TrySendError, bounded};
use rusqlite::Connection;

use self::catalogue::IndexEntry;
use self::evaluate::Context;
use self::plan::{Plan, Planner};
use self::prepare::{Preparer, Terms};
use self::segment::{Batch, ReadError, Segment};
use self::shared::{Shared, load, read_snapshot};
use self::snapshot::Snapshot;
use self::writer::{Job, Prepared};
use super::{Index, Refused, Store, StoreError, Written};
use crate::iri::billing;
use crate::iri::document::{Document, ID_BYTES_MAX, SOURCE_BYTES_MAX, index_name};
use crate::iri::mapping::Mapping;
use crate::iri::number::Families;
use crate::iri::query::{Found, Hit, Query, Search};
use crate::{Error, Result};

pub use prepare::Family;

/// Calls that wait for the writer.
const JOBS_MAX: usize = 1_024;

/// What a store may take, and how it reads numbers.
#[derive(Clone)]
pub struct StoreConfig {
    /// Bytes of documents that may wait for the writer; one call may bring more.
    pub queue_bytes_max: usize,
    /// What a question may take.
    pub search_timeout_ms: u64,
    /// What the file may grow to; 0: no bound but the disk.
    pub file_bytes_max: u64,
    /// Documents that are indexed in memory before they go into a segment on the disk.
    pub young_docs_max: u32,
    /// The one form of a number, by field and value.
    pub family: Family,
    /// The index whose fields have the types of billing rows from the first one on.
    pub billing_index: String,
}

impl StoreConfig {
    /// The same with number families.
    pub fn with_families(self, families: Arc<Families>) -> StoreConfig {
        let family = move |field: &str, value: &str| {
            let canonical = families.is_number_field(field).then(|| families.canonical(value))??;
            Some(canonical.number().to_owned())
        };
        StoreConfig { family: Arc::new(family), ..self }
    }
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            queue_bytes_max: 32 << 20,
            search_timeout_ms: 30_000,
            file_bytes_max: 0,
            young_docs_max: 32_768,
            family: Arc::new(|_, _| None),
            billing_index: billing::INDEX.to_owned(),
        }
    }
}

/// The store. Dropped last, it waits until what was taken is written.
pub struct SqliteStore {
    shared: Arc<Shared>,
    preparer: Preparer,
    config: StoreConfig,
    /// `None`: only to read.
    writing: Option<Writing>,
}

struct Writing {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    _lock: std::fs::File,
}

impl SqliteStore {
    /// Opens the store of a folder, which is made if it is not there, for the one process that writes.
    pub fn open(dir: &Path, config: StoreConfig) -> Result<SqliteStore> {
        let (path, lock) = file::prepare(dir)?;
        let failed = |error: &dyn std::fmt::Display| Error::Store {
            act: "open",
            path: path.clone(),
            cause: error.to_string(),
        };
        let connection =
            schema::open_to_write(&path, config.file_bytes_max).map_err(|error| failed(&error))?;
        let shared = Arc::new(load(&connection, &path, &config).map_err(|error| failed(&error))?);
        let (jobs, jobs_in) = bounded(JOBS_MAX);
        // Without room: what is sent has been taken, so a merger never waits for a writer that is gone.
        let (merged, merged_in) = bounded(0);
        let (wake, wakes) = bounded(2);
        let reader = schema::open_to_read(&path, false).map_err(|error| failed(&error))?;
        let writer = writer::Writer::new(connection, Arc::clone(&shared), jobs_in, merged_in, wake)
            .map_err(|error| failed(&error))?;
        let for_merger = Arc::clone(&shared);
        let threads = vec![
            spawn("store", move || writer.run())?,
            spawn("store-merge", move || merger::run(reader, for_merger, wakes, merged))?,
        ];
        let writing = Writing { jobs: Some(jobs), threads, _lock: lock };
        Ok(SqliteStore::new(shared, config, Some(writing)))
    }

    /// Opens the store of a folder to read it; another process may write to it meanwhile.
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
        let connection = schema::open_to_read(&path, true).map_err(|error| failed(&error))?;
        let shared = load(&connection, &path, &config).map_err(|error| failed(&error))?;
        Ok(SqliteStore::new(Arc::new(shared), config, None))
    }

    fn new(shared: Arc<Shared>, config: StoreConfig, writing: Option<Writing>) -> SqliteStore {
        let preparer =
            Preparer { catalogue: Arc::clone(&shared.catalogue), family: Arc::clone(&config.family) };
        SqliteStore { shared, preparer, config, writing }
    }

    /// Hands documents to the writer and waits for its answer.
    fn hand_over(
        &self,
        documents: Vec<Prepared>,
        segment: Segment,
        bytes: usize,
    ) -> Result<Vec<Result<Written, Refused>>, StoreError> {
        let jobs = self.writing.as_ref().and_then(|writing| writing.jobs.as_ref()).ok_or_else(|| {
            StoreError::Failed { act: "write to the store", cause: "it was opened to be read".to_owned() }
        })?;
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let give_back = |error| {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            Err(error)
        };
        // A call that is too large for the queue is taken where nothing else waits.
        if queued > 0 && queued + bytes > self.config.queue_bytes_max {
            return give_back(StoreError::Full);
        }
        let (reply, answer) = bounded(1);
        match jobs.try_send(Job { documents, segment, bytes, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return give_back(StoreError::Full),
            Err(TrySendError::Disconnected(_)) => return give_back(StoreError::Stopping),
        }
        match answer.recv() {
            Ok(written) => written.map_err(|cause| StoreError::Failed { act: "write to the store", cause }),
            Err(_) => Err(StoreError::Stopping),
        }
    }

    /// Writes what is new in the catalogue.
    fn write_catalogue(&self) -> Result<(), StoreError> {
        self.hand_over(Vec::new(), Batch::default().finish(0), 0).map(drop)
    }

    fn prepare(&self, document: Document, now_ms: i64, terms: &mut Terms) -> Result<Prepared, Refused> {
        let index = self.index_for(&document)?;
        self.preparer.prepare(&index, document.kind.as_deref(), &document.source, now_ms, terms)?;
        Ok(Prepared {
            index: index.no,
            kind: document.kind,
            id: document.id,
            mode: document.mode,
            time_ms: terms.time_ms,
            source: self.shared.sources.compress(&document.source),
        })
    }

    /// The document's index, made if it is not there; checks what the document itself does not need to be read for.
    fn index_for(&self, document: &Document) -> Result<Arc<IndexEntry>, Refused> {
        if document.source.len() > SOURCE_BYTES_MAX {
            return Err(Refused::Unfit(format!("the document has more than {SOURCE_BYTES_MAX} bytes")));
        }
        if let Some(id) = &document.id
            && (id.is_empty() || id.len() > ID_BYTES_MAX)
        {
            return Err(Refused::Unfit(format!(
                "id [{id}] is too long, must be no longer than {ID_BYTES_MAX} bytes and at least 1, but was: {}",
                id.len()
            )));
        }
        if let Some(index) = self.shared.catalogue.get(&document.index) {
            return Ok(index);
        }
        index_name(&document.index)
            .map_err(|why| Refused::Unfit(format!("Invalid index name [{}], {why}", document.index)))?;
        let of_billing = (document.index == self.config.billing_index).then(billing::fields);
        let mapping = of_billing.unwrap_or(const { &Mapping::new() });
        let made = self.shared.catalogue.create(&document.index, mapping);
        made.map(|(index, _)| index).ok_or_else(|| Refused::Unfit(TOO_MANY_INDICES.to_owned()))
    }

    /// The indices that a question is about.
    fn chosen(&self, names: &[String], ignore_unavailable: bool) -> Result<Vec<Arc<IndexEntry>>, StoreError> {
        let all = self.shared.catalogue.all();
        if names.is_empty() || names.iter().any(|name| name == "_all") {
            return Ok(all);
        }
        for name in names.iter().filter(|name| !name.contains('*')) {
            if !ignore_unavailable && self.shared.catalogue.get(name).is_none() {
                return Err(StoreError::NoIndex(name.clone()));
            }
        }
        let fits = |index: &Arc<IndexEntry>| names.iter().any(|name| pattern::fits(name, &index.name));
        Ok(all.into_iter().filter(fits).collect())
    }

    /// Does something with what a search needs.
    fn with_context<T>(
        &self,
        work: impl FnOnce(&Context<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.shared.read(|connection| {
            if self.writing.is_some() {
                return self.with_snapshot(connection, self.shared.snapshot(), work);
            }
            // One state of the file for the whole search: the writer deletes only what no such state has.
            let transaction = connection.unchecked_transaction()?;
            let snapshot = self.refresh(&transaction)?;
            self.with_snapshot(&transaction, snapshot, work)
        })
    }

    fn with_snapshot<T>(
        &self,
        connection: &Connection,
        snapshot: Arc<Snapshot>,
        work: impl FnOnce(&Context<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let timeout_ms = self.config.search_timeout_ms;
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        let (secret, counts) = (&self.shared.secret, &self.shared.counts);
        work(&Context { snapshot: &snapshot, connection, counts, secret, deadline, timeout_ms })
    }

    /// Beside a writer in another process: what that one has committed since.
    fn refresh(&self, connection: &Connection) -> Result<Arc<Snapshot>, StoreError> {
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = rows::read_mark(connection)?;
        if *seen != mark {
            rows::read_catalogue(connection, &self.shared.catalogue)?;
            rows::read_dictionaries(connection, &self.shared.sources)?;
            let snapshot = read_snapshot(connection, &self.shared.snapshot().segments)?;
            *self.shared.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
            *seen = mark;
        }
        Ok(self.shared.snapshot())
    }

    /// A question's plan for each index.
    fn plans(
        &self,
        indices: Vec<Arc<IndexEntry>>,
        query: &Query,
    ) -> Result<Vec<(Arc<IndexEntry>, Plan)>, StoreError> {
        let now_ms = Utc::now().timestamp_millis();
        let plan = |index: Arc<IndexEntry>| {
            let plan = Planner::new(&index, &index.fields(), now_ms).plan(query)?;
            Ok((index, plan))
        };
        indices.into_iter().map(plan).collect()
    }
}

/// The terms of one call's documents, however many they are, in bounded batches.
#[derive(Default)]
struct Gathered {
    /// Batches that were full.
    parts: Vec<Segment>,
    batch: Batch,
    /// The first document of the batch, and the one behind its last.
    from: u32,
    end: u32,
}

impl Gathered {
    fn add(&mut self, terms: &Terms) {
        terms.put_into(&mut self.batch, self.end - self.from);
        self.end += 1;
        if self.batch.is_full() {
            self.close();
        }
    }

    fn close(&mut self) {
        let mut part = std::mem::take(&mut self.batch).finish(self.end - self.from);
        part.base = self.from;
        self.from = self.end;
        self.parts.push(part);
    }

    /// The segment of all.
    fn finish(mut self) -> Result<Segment, ReadError> {
        if self.parts.is_empty() || self.from < self.end {
            self.close();
        }
        match self.parts.len() {
            1 => Ok(self.parts.remove(0)),
            _ => snapshot::joined(self.parts),
        }
    }
}

const TOO_MANY_INDICES: &str = "there are as many indices as a store can have [10000]";

impl Store for SqliteStore {
    fn write(&self, documents: Vec<Document>) -> Result<Vec<Result<Written, Refused>>, StoreError> {
        let now_ms = Utc::now().timestamp_millis();
        let (mut gathered, mut terms) = (Gathered::default(), Terms::default());
        let (mut prepared, mut answers) =
            (Vec::with_capacity(documents.len()), Vec::with_capacity(documents.len()));
        let mut bytes = 0;
        for document in documents {
            bytes += document.source.len();
            match self.prepare(document, now_ms, &mut terms) {
                Ok(ready) => {
                    gathered.add(&terms);
                    prepared.push(ready);
                    answers.push(None);
                }
                Err(refused) => answers.push(Some(refused)),
            }
        }
        let mut written = if prepared.is_empty() {
            Vec::new()
        } else {
            let segment = gathered.finish().map_err(|error| StoreError::Failed {
                act: "put the terms together",
                cause: error.to_string(),
            })?;
            self.hand_over(prepared, segment, bytes)?
        }
        .into_iter();
        let answer = |refused: Option<Refused>| match refused {
            Some(refused) => Err(refused),
            None => written.next().unwrap_or_else(|| Err(Refused::Unfit("it was lost".to_owned()))),
        };
        Ok(answers.into_iter().map(answer).collect())
    }

    fn get(&self, index: &str, id: &str) -> Result<Option<Hit>, StoreError> {
        self.with_context(|context| {
            let index =
                self.shared.catalogue.get(index).ok_or_else(|| StoreError::NoIndex(index.to_owned()))?;
            let docs = context.find(index.no, &Plan::Ids(vec![id.to_owned()]))?;
            docs.min().map(|doc| search::hit(context, &self.shared, doc).map(|(hit, _)| hit)).transpose()
        })
    }

    fn count(&self, indices: &[String], ignore_unavailable: bool, query: &Query) -> Result<u64, StoreError> {
        self.with_context(|context| {
            let plans = self.plans(self.chosen(indices, ignore_unavailable)?, query)?;
            plans.iter().map(|(index, plan)| context.count(index.no, plan)).sum()
        })
    }

    fn search(&self, search: &Search) -> Result<Found, StoreError> {
        self.with_context(|context| {
            let plans =
                self.plans(self.chosen(&search.indices, search.ignore_unavailable)?, &search.query)?;
            search::search(context, &self.shared, &self.preparer, plans, search)
        })
    }

    fn indices(&self, indices: &[String]) -> Result<Vec<Index>, StoreError> {
        self.with_context(|context| {
            let size: u64 = context.connection.query_row(
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
                [],
                |row| row.get(0),
            )?;
            let mut found = Vec::new();
            let mut all = 0;
            for index in self.shared.catalogue.all() {
                let documents = context.index_docs(index.no)?;
                all += documents;
                found.push(Index {
                    name: index.name.clone(),
                    documents,
                    bytes: 0,
                    mapping: index.fields().mapping(),
                });
            }
            // One file has them all: each gets the part that its documents are of all.
            for index in &mut found {
                index.bytes =
                    (u128::from(size) * u128::from(index.documents) / u128::from(all.max(1))) as u64;
            }
            let chosen = self.chosen(indices, false)?;
            found.retain(|index| chosen.iter().any(|chosen| chosen.name == index.name));
            Ok(found)
        })
    }

    fn create_index(&self, index: &str, mapping: &Mapping) -> Result<bool, StoreError> {
        index_name(index)
            .map_err(|why| StoreError::Invalid(format!("Invalid index name [{index}], {why}")))?;
        let made =
            self.shared.catalogue.create(index, &Mapping { dynamic: mapping.dynamic, ..Mapping::new() });
        let (entry, is_new) = made.ok_or_else(|| StoreError::Invalid(TOO_MANY_INDICES.to_owned()))?;
        if is_new {
            self.add_fields(&entry, mapping)?;
            self.write_catalogue()?;
        }
        Ok(is_new)
    }

    fn put_mapping(&self, index: &str, mapping: &Mapping) -> Result<(), StoreError> {
        let entry = self.shared.catalogue.get(index).ok_or_else(|| StoreError::NoIndex(index.to_owned()))?;
        self.add_fields(&entry, mapping)?;
        self.shared.catalogue.set_dynamic(&entry, mapping.dynamic);
        self.write_catalogue()
    }
}

impl SqliteStore {
    fn add_fields(&self, index: &IndexEntry, mapping: &Mapping) -> Result<(), StoreError> {
        let fields: Vec<_> =
            mapping.fields.iter().map(|(name, field)| (name.clone(), field.clone())).collect();
        let added = self.shared.catalogue.add_fields(index, &fields);
        added.map_err(|clash| StoreError::Invalid(clash.to_string()))
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let Some(writing) = &mut self.writing else { return };
        writing.jobs = None;
        for thread in writing.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("store_thread_failed");
            }
        }
    }
}

fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(Error::system("start a thread"))
}
