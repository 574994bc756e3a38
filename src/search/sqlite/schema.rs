//! Tables of the database, file versions, and connections. docs/store-format.md describes the tables.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Result};

use super::segment::{BlockReader, SegmentError};
use super::storage::damage::{self, Damage};
use super::storage::page::{PAGE_BYTES, number_at};
use super::storage::view::FileView;
use super::storage::{self, READ_VFS, SALVAGE_VFS, WRITE_VFS, beside};
use crate::search::mark::{self, Mark};

/// The ASCII text `LeaE`, by which file(1) and lea recognise the file.
const APPLICATION_ID: i32 = 0x4c65_6145;

/// Creates the tables of a new file.
const TABLES: &str = "
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1), next_doc INTEGER NOT NULL, secret BLOB NOT NULL,
        commits INTEGER NOT NULL);
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
    INSERT INTO state VALUES (1, 0, randomblob(32), 0);
";

/// Format version of the file. Version 1 had other names, and version 2 no checksums. Neither was released.
pub(super) const VERSION: i32 = 3;

/// Cache of a read-only connection. The page cache of the system holds the rest.
const READER_CACHE_KIB: i64 = 2_048;

/// Cache of the writer's connection.
const WRITER_CACHE_KIB: i64 = 16_384;

/// How long the writer waits for readers in other processes, and a reader for the writer.
const WRITER_WAIT: Duration = Duration::from_secs(10);
const READER_WAIT: Duration = Duration::from_secs(5);

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
    #[error("{0}; {ADVICE}")]
    Damaged(Damage),
    #[error(
        "{missing} of {all} commits are missing at the end of it, which are lost: documents {first} to {last}; the {first} \
         documents before are there; {ADVICE}",
        missing = should.commits - has.commits, all = should.commits, first = has.next_doc,
        last = should.next_doc.saturating_sub(1)
    )]
    Lost { has: Mark, should: Mark },
    #[error("the file is empty or missing, but {0} documents were acknowledged; {ADVICE}")]
    Emptied(u64),
    #[error("cannot read {0}: {1}")]
    Read(&'static str, std::io::Error),
    #[error("{0}")]
    System(&'static str),
}

/// What to do about damage.
pub(super) const ADVICE: &str = "`lea verify` tells which events are affected, and `lea events export --damaged` writes \
                                 all others";

/// Opens the file for the writer and creates the tables of a new file. The file grows to at most `bytes_max`; 0 means
/// no limit.
pub(super) fn open_to_write(path: &Path, bytes_max: u64) -> Result<Connection, StoreOpenError> {
    storage::register().map_err(StoreOpenError::System)?;
    check_before_writing(path)?;
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    storage::forget_log(beside(&real, "-wal").as_os_str().as_bytes());
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, WRITE_VFS)?;
    let is_empty = std::fs::metadata(path).map_or(0, |found| found.len()) == 0;
    prepare_to_write(connection, is_empty, bytes_max).map_err(|error| match (error, damage::take()) {
        (StoreOpenError::Sqlite(_), Some(damage)) => StoreOpenError::Damaged(damage),
        (error, _) => error,
    })
}

fn prepare_to_write(
    mut connection: Connection,
    is_empty: bool,
    bytes_max: u64,
) -> Result<Connection, StoreOpenError> {
    connection.busy_timeout(WRITER_WAIT)?;
    if is_empty {
        // These must be set before the first write.
        connection.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
        storage::reserve_page_bytes(&connection)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let is_new = check_version(&connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", 2_000)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    if is_new {
        create_tables(&mut connection)?;
    }
    // The pages that an earlier process left in the log have no checksums of this process yet.
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    if bytes_max > 0 {
        let pages = bytes_max.div_ceil(PAGE_BYTES as u64);
        connection.pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0))?;
    }
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Checks that nothing is lost, before anything is changed.
fn check_before_writing(path: &Path) -> Result<(), StoreOpenError> {
    let size = |suffix| std::fs::metadata(beside(path, suffix)).map_or(0, |found| found.len());
    let mark = mark::read(&mark_path(path)).map_err(|error| StoreOpenError::Read("events.mark", error))?.mark;
    if mark.is_none() && (size("-journal") > 0 || (size("") == 0 && size("-wal") == 0)) {
        // New, or the process ended while it created the tables.
        return Ok(());
    }
    match open_read_only(path) {
        // The process ended before it created the tables.
        Err(StoreOpenError::Empty) if mark.is_none() => Ok(()),
        opened => opened.map(drop),
    }
}

/// Opens a connection for reading in the process of the writer.
pub(super) fn open_beside_writer(path: &Path) -> Result<Connection, StoreOpenError> {
    storage::register().map_err(StoreOpenError::System)?;
    // A reader writes to the shared memory of the write-ahead log, so the file cannot be opened read-only. `query_only`
    // prevents all other writes.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, WRITE_VFS)?;
    connection.busy_timeout(READER_WAIT)?;
    connection.pragma_update(None, "query_only", true)?;
    prepare_to_read(&connection)?;
    Ok(connection)
}

/// Opens a connection for reading in any other process. It changes nothing, and the writer may run.
pub(super) fn open_read_only(path: &Path) -> Result<Connection, StoreOpenError> {
    // The mark is read first: whatever is written after it has more commits.
    let mark = mark::read(&mark_path(path)).map_err(|error| StoreOpenError::Read("events.mark", error))?.mark;
    let should = mark.unwrap_or_default();
    if should.commits > 0 && std::fs::metadata(path).map_or(0, |found| found.len()) == 0 {
        // SQLite would take it for a new database, and remove the log.
        return Err(StoreOpenError::Emptied(should.next_doc));
    }
    let connection = open_with(path, READ_VFS).map_err(|error| match error {
        StoreOpenError::Empty if should.commits > 0 => StoreOpenError::Emptied(should.next_doc),
        error => error,
    })?;
    let has = read_mark(&connection).map_err(with_damage)?;
    if has < should {
        return Err(StoreOpenError::Lost { has, should });
    }
    Ok(connection)
}

/// Opens a connection that reads as much of a damaged store as possible.
pub(super) fn open_to_salvage(path: &Path) -> Result<Connection, StoreOpenError> {
    open_with(path, SALVAGE_VFS)
}

fn open_with(path: &Path, vfs: &std::ffi::CStr) -> Result<Connection, StoreOpenError> {
    storage::register().map_err(StoreOpenError::System)?;
    check_first_page(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    damage::take();
    let connection = Connection::open_with_flags_and_vfs(path, flags, vfs).map_err(with_damage)?;
    prepare_to_read(&connection).map_err(with_damage)?;
    match check_version(&connection) {
        Ok(false) => Ok(connection),
        Ok(true) => Err(StoreOpenError::Empty),
        Err(StoreOpenError::Sqlite(error)) => Err(with_damage(error)),
        Err(error) => Err(error),
    }
}

fn prepare_to_read(connection: &Connection) -> Result<()> {
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

fn with_damage(error: rusqlite::Error) -> StoreOpenError {
    damage::take().map_or(StoreOpenError::Sqlite(error), StoreOpenError::Damaged)
}

/// Recognises files that have no checksums because they are of another program, or of a lea before the first release.
fn check_first_page(path: &Path) -> Result<(), StoreOpenError> {
    let mut view = FileView::open(path, false).map_err(|error| StoreOpenError::Read("events.db", error))?;
    let mut page = [0; PAGE_BYTES];
    view.begin().map_err(|error| StoreOpenError::Read("events.db", error))?;
    let pages = view.page_count();
    let read = if pages == 0 { Ok(None) } else { view.read_page(1, &mut page) };
    view.end();
    damage::take_mixed_state();
    let Some(found) = read.map_err(|error| StoreOpenError::Read("events.db", error))? else {
        return if pages == 0 { Err(StoreOpenError::Empty) } else { Ok(()) };
    };
    // A small file of another program does not have a whole page.
    let mut header = Vec::new();
    let opened = std::fs::File::open(path).and_then(|file| file.take(100).read_to_end(&mut header));
    opened.map_err(|error| StoreOpenError::Read("events.db", error))?;
    header.resize(100, 0);
    let is_unchecked = header.starts_with(b"SQLite format 3\0") && header[20] == 0;
    let application = number_at(&header, 68) as i32;
    match number_at(&header, 60) as i32 {
        version if is_unchecked && application == APPLICATION_ID && version < VERSION => {
            Err(StoreOpenError::Older(version))
        }
        _ if is_unchecked && application != APPLICATION_ID => Err(StoreOpenError::Foreign),
        _ => Err(StoreOpenError::Damaged(found)),
    }
}

/// Returns the path of the mark of a database.
pub(super) fn mark_path(database: &Path) -> PathBuf {
    database.with_extension("mark")
}

/// Reads what the store has.
pub(super) fn read_mark(connection: &Connection) -> Result<Mark> {
    connection.query_row("SELECT commits, next_doc FROM state", [], |row| {
        Ok(Mark { commits: row.get(0)?, next_doc: row.get(1)? })
    })
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
