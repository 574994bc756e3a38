//! The database's tables, how an older file becomes a newer one, and how connections are opened.
//!
//! | table | holds |
//! |---|---|
//! | `state` | one row: the next document's number, the secret that ids are made with |
//! | `indices`, `fields` | names, numbers and types |
//! | `documents` | sources by the document's number; `id` only where it was given, `version` only where it is not 1 |
//! | `ids` | ids that were given |
//! | `gone` | documents that were replaced or refused, until no segment and no row has them |
//! | `recent` | young segments, one a call; they are in memory too |
//! | `segment`, `block` | segments and their blocks, `block.id` being the segment's number times 2^24 and the block's |
//! | `dictionary` | dictionaries of compressed sources |

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Result};

use super::segment::{ReadBlock, ReadError};

/// `LeaE`, so that file(1) and we know the file.
const APPLICATION_ID: i32 = 0x4c65_6145;

/// What brings a file from each version to the next: the first from none to 1.
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

/// The version that this program writes.
pub const VERSION: i32 = MIGRATIONS.len() as i32;

/// Pages of a connection that only reads; the system's cache has the rest.
const READER_CACHE_KIB: i64 = 2_048;

/// Pages of the connection that writes.
const WRITER_CACHE_KIB: i64 = 16_384;

/// Why a file is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite says so.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// Another program's.
    #[error("it is a database of another program")]
    Foreign,
    /// A later program's.
    #[error("it has version {0}, and this program knows {VERSION}: use a newer one")]
    Newer(i32),
    /// An earlier program's, and nobody may write to it here.
    #[error("it has version {0}: the service must open it once, to bring it to {VERSION}")]
    Older(i32),
}

/// Opens the file for the one that writes, and brings it to [`VERSION`]. It grows to `bytes_max`; 0: as far as it can.
pub fn open_to_write(path: &Path, bytes_max: u64) -> Result<Connection, OpenError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    // Before anything is written: later it has no effect.
    connection.pragma_update(None, "page_size", 8_192)?;
    check(&connection)?;
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

/// Opens the file beside the one that writes. `standalone`: no writer of this process has brought it to [`VERSION`].
pub fn open_to_read(path: &Path, standalone: bool) -> Result<Connection, OpenError> {
    // A reader needs to write into the shared memory of the log, so the file is not opened read-only; `query_only` sees
    // to it that nothing else is written.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(32);
    if standalone {
        let version = check(&connection)?;
        if version < VERSION {
            return Err(OpenError::Older(version));
        }
    }
    Ok(connection)
}

/// The version of the file, which must be ours.
fn check(connection: &Connection) -> Result<i32, OpenError> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, tables) {
        (APPLICATION_ID, _) | (0, 0) if version <= VERSION => Ok(version),
        (APPLICATION_ID, _) => Err(OpenError::Newer(version)),
        _ => Err(OpenError::Foreign),
    }
}

/// Each step is one transaction: a crash leaves a whole version.
fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
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

/// The number of a block in the table `block`.
pub fn block_id(segment: u64, block: u32) -> i64 {
    (segment << 24 | u64::from(block)) as i64
}

impl ReadBlock for Connection {
    fn block(&self, segment: u64, block: u32) -> Result<Vec<u8>, ReadError> {
        let mut statement = self.prepare_cached("SELECT data FROM block WHERE id = ?1")?;
        Ok(statement.query_row([block_id(segment, block)], |row| row.get(0))?)
    }
}
