//! The files below the tables: pages with checksums, the write-ahead log, and the mark of what was acknowledged.
//!
//! SQLite reads and writes through two virtual file systems of this module. [`write_vfs`] is that of the writer and of
//! the readers in its process: it puts a checksum on each page of events.db and checks it on each read. [`read_vfs`] is
//! that of other processes: it opens all files read-only and never changes one, so it works on read-only media and for
//! users who may only read. Damage fails the read, and [`damage`] keeps what was damaged for the error message.

pub(super) mod damage;
pub(super) mod log;
pub(super) mod page;
mod read_vfs;
pub(super) mod scan;
pub(super) mod view;
mod write_vfs;

pub(super) use read_vfs::{SALVAGE_VFS_NAME as SALVAGE_VFS, VFS_NAME as READ_VFS};
pub(super) use write_vfs::{VFS_NAME as WRITE_VFS, forget_log, reserve_page_bytes};

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Registers both virtual file systems. Later calls do nothing.
pub(super) fn register() -> Result<(), &'static str> {
    static REGISTERED: OnceLock<Result<(), &'static str>> = OnceLock::new();
    *REGISTERED.get_or_init(|| {
        write_vfs::register()?;
        read_vfs::register()
    })
}

/// Returns the path of a companion file of the database: its name plus `suffix`.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
