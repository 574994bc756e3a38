//! Tables of the database, file versions, and connections. docs/store-format.md describes the tables.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Result};

use super::segment::{BlockReader, SegmentError};

/// The ASCII text `LeaE`, by which file(1) and lea recognise the file.
const APPLICATION_ID: i32 = 0x4c65_6145;

/// SQL that upgrades a file from each version to the next. The first entry creates version 1.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1), next_doc INTEGER NOT NULL, secret BLOB NOT NULL);
    CREATE TABLE indices (no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, dynamic INTEGER NOT NULL);
    CREATE TABLE fields (
        index_no INTEGER NOT NULL, no INTEGER NOT NULL, name TEXT NOT NULL, field TEXT NOT NULL,
        PRIMARY KEY (index_no, no)) WITHOUT ROWID;
    CREATE TABLE documents (
        doc INTEGER PRIMARY KEY, index_no INTEGER NOT NULL, id TEXT, version INTEGER, kind TEXT,
        time_ms INTEGER NOT NULL, source BLOB NOT NULL);
    CREATE TABLE ids (
        index_no INTEGER NOT NULL, id TEXT NOT NULL, doc INTEGER NOT NULL,
        PRIMARY KEY (index_no, id)) WITHOUT ROWID;
    CREATE TABLE gone (doc INTEGER PRIMARY KEY);
    CREATE TABLE recent (base INTEGER PRIMARY KEY, span INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE TABLE segment (
        id INTEGER PRIMARY KEY, base INTEGER NOT NULL, span INTEGER NOT NULL, bytes INTEGER NOT NULL,
        fences BLOB NOT NULL);
    CREATE TABLE block (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE dictionary (no INTEGER PRIMARY KEY, data BLOB NOT NULL);
    INSERT INTO state VALUES (1, 0, randomblob(32));
"];

/// File version that this program writes.
pub(super) const VERSION: i32 = MIGRATIONS.len() as i32;

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
    #[error("the file has format version {0}, but this lea reads up to {VERSION}: use a newer lea")]
    Newer(i32),
    #[error("the file has format version {0}: start the service once, to upgrade it to {VERSION}")]
    Older(i32),
}

/// Opens the file for the writer and upgrades it to [`VERSION`]. The file grows to at most `bytes_max`; 0 means no
/// limit.
pub(super) fn open_to_write(path: &Path, bytes_max: u64) -> Result<Connection, StoreOpenError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    // The page size must be set before the first write. Later it has no effect.
    connection.pragma_update(None, "page_size", 8_192)?;
    check_version(&connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", 2_000)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    migrate(&mut connection)?;
    if bytes_max > 0 {
        connection.pragma_update_and_check(None, "max_page_count", bytes_max.div_ceil(8_192), |row| {
            row.get::<_, i64>(0)
        })?;
    }
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Opens the file for reading. `standalone`: no writer in this process has upgraded it to [`VERSION`].
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
        let version = check_version(&connection)?;
        if version < VERSION {
            return Err(StoreOpenError::Older(version));
        }
    }
    Ok(connection)
}

/// Checks that the file belongs to this program, and returns its version.
fn check_version(connection: &Connection) -> Result<i32, StoreOpenError> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, tables) {
        (APPLICATION_ID, _) | (0, 0) if version <= VERSION => Ok(version),
        (APPLICATION_ID, _) => Err(StoreOpenError::Newer(version)),
        _ => Err(StoreOpenError::Foreign),
    }
}

/// Each step is one transaction, so a crash leaves a complete version.
fn migrate(connection: &mut Connection) -> Result<(), StoreOpenError> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (at, step) in MIGRATIONS.iter().enumerate().skip(usize::try_from(version).unwrap_or(0)) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", at as i32 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Returns the row number of a block in the table `block`.
pub(super) fn block_id(segment: u64, block: u32) -> i64 {
    (segment << 24 | u64::from(block)) as i64
}

impl BlockReader for Connection {
    fn read_block(&self, segment: u64, block: u32) -> Result<Vec<u8>, SegmentError> {
        let mut statement = self.prepare_cached("SELECT data FROM block WHERE id = ?1")?;
        Ok(statement.query_row([block_id(segment, block)], |row| row.get(0))?)
    }
}
