//! Tables of the database, file versions, and connections. docs/store-format.md describes the tables.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Result};

use super::segment::{BlockReader, SegmentError};

/// The ASCII text `LeaE`, by which file(1) and lea recognise the file.
const APPLICATION_ID: i32 = 0x4c65_6145;

/// Creates the tables of a new file.
const TABLES: &str = "
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1), next_doc INTEGER NOT NULL, secret BLOB NOT NULL);
    CREATE TABLE indices (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, dynamic INTEGER NOT NULL);
    CREATE TABLE fields (
        index_id INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL, definition TEXT NOT NULL,
        PRIMARY KEY (index_id, id)) WITHOUT ROWID;
    CREATE TABLE documents (
        doc INTEGER PRIMARY KEY, index_id INTEGER NOT NULL, id TEXT, version INTEGER, type TEXT,
        time_ms INTEGER NOT NULL, source BLOB NOT NULL);
    CREATE TABLE ids (
        index_id INTEGER NOT NULL, id TEXT NOT NULL, doc INTEGER NOT NULL,
        PRIMARY KEY (index_id, id)) WITHOUT ROWID;
    CREATE TABLE deleted_docs (doc INTEGER PRIMARY KEY);
    CREATE TABLE young_segments (base INTEGER PRIMARY KEY, span INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE TABLE segments (
        id INTEGER PRIMARY KEY, base INTEGER NOT NULL, span INTEGER NOT NULL, bytes INTEGER NOT NULL,
        fences BLOB NOT NULL);
    CREATE TABLE blocks (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE dictionaries (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
    INSERT INTO state VALUES (1, 0, randomblob(32));
";

/// Format version of the file. Version 1 had other names and was never released.
pub(super) const VERSION: i32 = 2;

/// Cache of a read-only connection. The page cache of the system holds the rest.
const READER_CACHE_KIB: i64 = 2_048;

/// Cache of the writer's connection.
const WRITER_CACHE_KIB: i64 = 16_384;

/// Reason why a file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreOpenError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("the file is a database of another program")]
    Foreign,
    #[error("the file has format version {0}, but this lea reads version {VERSION}: use a newer lea")]
    Newer(i32),
    #[error(
        "the file has format version {0} of an unreleased lea, but this lea reads version {VERSION}: move it away and \
         load its events again"
    )]
    Older(i32),
    #[error("the file has no tables yet: start the service once")]
    Empty,
}

/// Opens the file for the writer and creates the tables of a new file. The file grows to at most `bytes_max`; 0 means
/// no limit.
pub(super) fn open_to_write(path: &Path, bytes_max: u64) -> Result<Connection, StoreOpenError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    // The page size must be set before the first write. Later it has no effect.
    connection.pragma_update(None, "page_size", 8_192)?;
    let is_new = check_version(&connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", 2_000)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    if is_new {
        create_tables(&mut connection)?;
    }
    if bytes_max > 0 {
        connection.pragma_update_and_check(None, "max_page_count", bytes_max.div_ceil(8_192), |row| {
            row.get::<_, i64>(0)
        })?;
    }
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Opens the file for reading. `standalone`: no writer in this process has opened it before.
pub(super) fn open_to_read(path: &Path, standalone: bool) -> Result<Connection, StoreOpenError> {
    // A reader writes to the shared memory of the write-ahead log, so the file cannot be opened read-only. `query_only`
    // prevents all other writes.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(32);
    if standalone {
        let is_new = check_version(&connection)?;
        if is_new {
            return Err(StoreOpenError::Empty);
        }
    }
    Ok(connection)
}

/// Checks that the file belongs to this program and has [`VERSION`]. Returns true for a new file without tables.
fn check_version(connection: &Connection) -> Result<bool, StoreOpenError> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, tables) {
        (0, 0) => Ok(true),
        (APPLICATION_ID, _) if version > VERSION => Err(StoreOpenError::Newer(version)),
        (APPLICATION_ID, _) if version < VERSION => Err(StoreOpenError::Older(version)),
        (APPLICATION_ID, _) => Ok(false),
        _ => Err(StoreOpenError::Foreign),
    }
}

/// Creates the tables in one transaction, so a crash leaves either a new file or a complete one.
fn create_tables(connection: &mut Connection) -> Result<(), StoreOpenError> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// Returns the row number of a block in the table `blocks`.
pub(super) fn block_id(segment: u64, block: u32) -> i64 {
    (segment << 24 | u64::from(block)) as i64
}

impl BlockReader for Connection {
    fn read_block(&self, segment: u64, block: u32) -> Result<Vec<u8>, SegmentError> {
        let mut statement = self.prepare_cached("SELECT data FROM blocks WHERE id = ?1")?;
        Ok(statement.query_row([block_id(segment, block)], |row| row.get(0))?)
    }
}
