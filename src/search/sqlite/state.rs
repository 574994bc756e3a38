//! State shared by the threads of the store and its callers, and the code that reads it from the file.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rusqlite::Connection;

use super::catalog::Catalog;
use super::compress::SourceCodec;
use super::count_cache::CountCache;
use super::segment::{IndexSegment, SegmentBlocks};
use super::snapshot::{Snapshot, compact_young};
use super::{StoreConfig, rows, schema};
use crate::search::store::StoreError;

/// Maximum number of idle connections for reading.
const IDLE_READERS_MAX: usize = 8;

/// State shared by the threads of the store and its callers.
pub(super) struct StoreState {
    pub path: PathBuf,
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

    /// Runs `work` with a read-only connection.
    pub(super) fn with_reader<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_to_read(&self.path, false)
                .map_err(|error| StoreError::Failed { act: "open the store", cause: error.to_string() })?,
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
) -> rusqlite::Result<StoreState> {
    let catalog = Arc::new(Catalog::default());
    rows::read_catalog(connection, &catalog)?;
    let sources = SourceCodec::default();
    rows::read_dictionaries(connection, &sources)?;
    let (_, secret) = rows::read_state(connection)?;
    Ok(StoreState {
        path: path.to_owned(),
        catalog,
        source_codec: sources,
        snapshot: RwLock::new(Arc::new(read_snapshot(connection, &[])?)),
        secret,
        count_cache: CountCache::default(),
        next_segment: AtomicU64::new(1),
        queued_bytes: AtomicUsize::new(0),
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
