//! What the store's threads and callers share, and how it is read from the file.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rusqlite::Connection;

use super::catalogue::Catalogue;
use super::compress::Sources;
use super::counts::Counts;
use super::segment::{Blocks, Segment};
use super::snapshot::{Snapshot, compact};
use super::{StoreConfig, rows, schema};
use crate::iri::store::StoreError;

/// Connections kept for the next reader.
const READERS_KEPT: usize = 8;

/// What the store's threads and callers share.
pub struct Shared {
    /// The file.
    pub path: PathBuf,
    /// Indices and fields.
    pub catalogue: Arc<Catalogue>,
    /// Compresses sources.
    pub sources: Sources,
    /// The state after the last commit.
    pub snapshot: RwLock<Arc<Snapshot>>,
    /// What ids are made with.
    pub secret: Vec<u8>,
    /// Counts that were made before.
    pub counts: Counts,
    /// The next segment's number.
    pub next_segment: AtomicU64,
    /// Bytes of documents that wait for the writer.
    pub queued_bytes: AtomicUsize,
    /// As configured.
    pub young_docs_max: u32,
    /// True once the store is being closed.
    pub stopping: AtomicBool,
    /// Connections that wait for a reader.
    pub readers: Mutex<Vec<Connection>>,
    /// For a store that only reads: what of the file `snapshot` shows.
    pub seen: Mutex<rows::Mark>,
}

impl Shared {
    /// The state after the last commit.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does something with a connection that only reads.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => schema::open_to_read(&self.path, false)
                .map_err(|error| StoreError::Failed { act: "open the store", cause: error.to_string() })?,
        };
        let done = work(&connection)?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_KEPT {
            readers.push(connection);
        }
        Ok(done)
    }
}

/// Reads all that is kept in memory.
pub fn load(connection: &Connection, path: &Path, config: &StoreConfig) -> rusqlite::Result<Shared> {
    let catalogue = Arc::new(Catalogue::default());
    rows::read_catalogue(connection, &catalogue)?;
    let sources = Sources::default();
    rows::read_dictionaries(connection, &sources)?;
    let (_, secret) = rows::read_state(connection)?;
    Ok(Shared {
        path: path.to_owned(),
        catalogue,
        sources,
        snapshot: RwLock::new(Arc::new(read_snapshot(connection, &[])?)),
        secret,
        counts: Counts::default(),
        next_segment: AtomicU64::new(1),
        queued_bytes: AtomicUsize::new(0),
        young_docs_max: config.young_docs_max.max(1),
        stopping: AtomicBool::new(false),
        readers: Mutex::default(),
        seen: Mutex::default(),
    })
}

/// Reads the state that the connection sees; segments of `known` are not read again.
pub fn read_snapshot(connection: &Connection, known: &[Arc<Segment>]) -> rusqlite::Result<Snapshot> {
    let mut segments = rows::read_segments(connection, known)?;
    let gone = Arc::new(rows::read_gone(connection)?);
    let young_from = segments.partition_point(|segment| matches!(segment.blocks, Blocks::Disk(_)));
    let mut young = segments.split_off(young_from);
    if let Err(error) = compact(&mut young, &gone) {
        log::error!("store_not_compacted error=\"{error}\"");
    }
    segments.append(&mut young);
    Ok(Snapshot { segments, gone, era: Arc::default() })
}
