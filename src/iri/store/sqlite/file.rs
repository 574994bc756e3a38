//! The store's file in a folder, and the lock that says who writes to it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, mkdirat, openat};
use rustix::io::Errno;

use crate::{Error, Result};

/// The folder of our own files within the output folder, the one that the vault has.
const OWN_DIR: &str = ".lea";
const FILE: &str = "events.db";
const LOCK: &str = "events.lock";

/// Where the store of a folder is.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(OWN_DIR).join(FILE)
}

/// Makes folder and file if need be, readable for the service's user alone, and takes the lock, which is let go of when
/// the file that comes back is closed.
pub fn prepare(dir: &Path) -> Result<(PathBuf, File)> {
    std::fs::create_dir_all(dir).map_err(Error::path("make the folder", dir))?;
    let own = dir.join(OWN_DIR);
    match mkdirat(CWD, &own, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(Error::path("make the folder", &own)(error.into())),
    }
    let lock = lock(dir, &own.join(LOCK))?;
    let path = own.join(FILE);
    // SQLite gives its other files the access rights of this one.
    open(&path)?;
    Ok((path, lock))
}

fn open(path: &Path) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, path, flags, Mode::RUSR | Mode::WUSR);
    opened.map(File::from).map_err(|error| Error::path("open", path)(error.into()))
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
        // It is taken all the same; only its holder's name is missing where a second process asks for it.
        log::warn!("lock_not_written error=\"{error}\"");
    }
    Ok(file)
}
