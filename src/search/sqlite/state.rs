//! State shared by the threads of the store and its callers, and the code that reads it from the file.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rusqlite::Connection;

use super::catalog::Catalog;
use super::compress::SourceCodec;
use super::count_cache::CountCache;
use super::segment::{IndexSegment, SegmentBlocks};
use super::snapshot::{Snapshot, compact_young};
use super::storage::damage::Damage;
use super::{StoreConfig, rows, schema};
use crate::runtime::health::Problem;
use crate::runtime::metrics::Metrics;
use crate::search::store::StoreError;

/// Used document numbers from which on the store warns: three quarters. The rest is enough for months at 100 events per second.
const NUMBERS_USED_WARN: u32 = 3 << 30;

/// Maximum number of idle connections for reading.
const IDLE_READERS_MAX: usize = 8;

/// State shared by the threads of the store and its callers.
pub(super) struct StoreState {
    pub path: PathBuf,
    /// True if the writer is another process, or there is none.
    pub is_read_only: bool,
    pub catalog: Arc<Catalog>,
    pub source_codec: SourceCodec,
    /// The state after the last commit.
    pub snapshot: RwLock<Arc<Snapshot>>,
    /// Random key of the ids that the store makes.
    pub secret: Vec<u8>,
    pub count_cache: CountCache,
    /// Number of the next segment.
    pub next_segment: AtomicU64,
    /// Bytes of documents that wait for the writer.
    pub queued_bytes: AtomicUsize,
    pub young_docs_max: u32,
    /// How long the writer cleans up after the last request.
    pub cleanup_time_max: Duration,
    /// Where damage is reported.
    pub metrics: Option<Arc<Metrics>>,
    pub is_stopping: AtomicBool,
    /// Open connections that no reader uses now.
    pub idle_readers: Mutex<Vec<Connection>>,
    /// For a read-only store: the change mark at which `snapshot` was read.
    pub snapshot_mark: Mutex<rows::ChangeMark>,
}

impl StoreState {
    /// Returns the state after the last commit.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reports how many document numbers are used. They are not used again, so a store ends when all are.
    pub(super) fn report_numbers(&self, used: u32) {
        let Some(metrics) = &self.metrics else { return };
        metrics.store_documents_numbered.set(u64::from(used));
        if used >= NUMBERS_USED_WARN && !metrics.health.is_raised(Problem::StoreNumbersLow) {
            metrics.health.raise(Problem::StoreNumbersLow);
            log::warn!(
                "store_numbers_low used={used} of={} note=\"begin a new directory before all numbers are used\"",
                u64::from(u32::MAX) + 1
            );
        }
    }

    /// Reports damage that a read met.
    pub(super) fn report_damage(&self, found: &Damage) {
        let is_known = self.metrics.as_ref().is_some_and(|metrics| {
            metrics.store_damaged_reads_total.inc();
            let is_known = metrics.health.is_raised(Problem::StoreDamaged);
            metrics.health.raise(Problem::StoreDamaged);
            is_known
        });
        if !is_known {
            log::error!(
                "store_damaged found=\"{found}\" note=\"lea verify tells which events are affected\""
            );
        }
    }

    /// Runs `work` with a read-only connection.
    pub(super) fn with_reader<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let open =
                    if self.is_read_only { schema::open_read_only } else { schema::open_beside_writer };
                open(&self.path)
                    .map_err(|error| StoreError::Failed { act: "open the store", cause: error.to_string() })?
            }
        };
        let done = work(&connection)?;
        let mut readers = self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < IDLE_READERS_MAX {
            readers.push(connection);
        }
        Ok(done)
    }
}

/// Reads everything that is kept in memory.
pub(super) fn load_state(
    connection: &Connection,
    path: &Path,
    config: &StoreConfig,
    is_read_only: bool,
) -> rusqlite::Result<StoreState> {
    let catalog = Arc::new(Catalog::default());
    rows::read_catalog(connection, &catalog)?;
    let sources = SourceCodec::default();
    rows::read_dictionaries(connection, &sources)?;
    let (_, secret) = rows::read_state(connection)?;
    Ok(StoreState {
        path: path.to_owned(),
        is_read_only,
        catalog,
        source_codec: sources,
        snapshot: RwLock::new(Arc::new(read_snapshot(connection, &[])?)),
        secret,
        count_cache: CountCache::default(),
        next_segment: AtomicU64::new(1),
        queued_bytes: AtomicUsize::new(0),
        cleanup_time_max: config.cleanup_time_max,
        metrics: config.metrics.clone(),
        young_docs_max: config.young_docs_max.max(1),
        is_stopping: AtomicBool::new(false),
        idle_readers: Mutex::default(),
        snapshot_mark: Mutex::default(),
    })
}

/// Reads the state that the connection sees. Segments in `known` are reused.
pub(super) fn read_snapshot(
    connection: &Connection,
    known: &[Arc<IndexSegment>],
) -> rusqlite::Result<Snapshot> {
    let mut segments = rows::read_segments(connection, known)?;
    let deleted_docs = Arc::new(rows::read_deleted_docs(connection)?);
    let young_from = segments.partition_point(|segment| matches!(segment.blocks, SegmentBlocks::Disk(_)));
    let mut young = segments.split_off(young_from);
    if let Err(error) = compact_young(&mut young, &deleted_docs) {
        log::error!("store_compaction_failed error=\"{error}\"");
    }
    segments.append(&mut young);
    Ok(Snapshot { segments, deleted_docs, generation: Arc::default() })
}
