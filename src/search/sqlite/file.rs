//! The database file in an output directory, and the lock that permits only one writer.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Gid, Mode, OFlags, chmodat, chownat, flock, mkdirat, openat};
use rustix::io::Errno;

use super::schema::mark_path;
use super::storage::beside;
use crate::runtime::create::{self, create_dirs, create_error};
use crate::{Error, Result};

/// Directory of lea's own files inside the output directory. The vault uses it too.
const OWN_DIR: &str = ".lea";
const FILE: &str = "events.db";
const LOCK: &str = "events.lock";

/// Permissions of the files.
pub(super) const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Returns the path of the database in an output directory.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(OWN_DIR).join(FILE)
}

/// Creates the directory and the file if necessary, accessible by the user of the service only, and takes the lock.
/// Closing the returned file releases the lock.
pub(super) fn prepare(dir: &Path) -> Result<(PathBuf, File)> {
    create_dirs(dir, create::BY_UMASK, |_| Ok(()))?;
    let own = dir.join(OWN_DIR);
    match mkdirat(CWD, &own, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(create_error("create the directory", &own)(error.into())),
    }
    let lock = lock(dir, &own.join(LOCK))?;
    let path = own.join(FILE);
    // SQLite creates its other files with the permissions of this one.
    open(&path)?;
    Ok((path, lock))
}

/// Who may read the files of a store.
#[derive(Clone, Copy, Debug)]
pub struct ReaderAccess {
    /// Permission bits: those for reading count.
    pub file_mode: u32,
    /// Group of the files. `None`: the group of the process.
    pub group: Option<u32>,
}

impl Default for ReaderAccess {
    /// The user of the process only.
    fn default() -> ReaderAccess {
        ReaderAccess { file_mode: 0o600, group: None }
    }
}

/// Gives readers access to the files of an open database. SQLite would use the group of the process for some of them.
pub(super) fn admit_readers(database: &Path, access: ReaderAccess) -> Result<()> {
    let readable = access.file_mode & 0o044;
    if readable == 0 {
        return Ok(());
    }
    let dir = database.parent().unwrap_or(database);
    let mut paths = vec![(dir.to_owned(), 0o700 | readable >> 2)];
    for suffix in ["", "-wal", "-shm"] {
        paths.push((beside(database, suffix), 0o600 | readable));
    }
    paths.push((mark_path(database), 0o600 | readable));
    for (path, mode) in paths {
        let group = access.group.map(Gid::from_raw);
        // By path: closing a file would release the locks of SQLite on it.
        chownat(CWD, &path, None, group, AtFlags::SYMLINK_NOFOLLOW)
            .and_then(|()| chmodat(CWD, &path, Mode::from_raw_mode(mode), AtFlags::empty()))
            .map_err(|error| Error::path("set the permissions of", &path)(error.into()))?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, path, flags, MODE);
    opened.map(File::from).map_err(|error| create_error("open", path)(error.into()))
}

fn lock(dir: &Path, path: &Path) -> Result<File> {
    let mut file = open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let read = (&mut file).take(512).read_to_string(&mut holder);
            let known = read.is_ok() && !holder.trim().is_empty();
            let holder =
                if known { holder.trim().escape_debug().to_string() } else { "another process".to_owned() };
            return Err(Error::Locked { dir: dir.to_owned(), holder });
        }
        Err(error) => return Err(Error::path("take the lock", path)(error.into())),
    }
    let holder = format!("process {}\n", std::process::id());
    if let Err(error) = file.set_len(0).and_then(|()| file.write_all(holder.as_bytes())) {
        // The lock is held. Only the name of its holder is missing, which a second process would show.
        log::warn!("lock_not_written error=\"{error}\"");
    }
    Ok(file)
}
