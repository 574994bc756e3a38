//! Replaces a file atomically: readers see the old or the new content, even after a power failure.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use crate::runtime::create::{self, create_dirs, create_in_error};
use crate::{Error, Result};

/// Writes a temporary file next to `path`, syncs it, renames it and syncs the directory, which is created if needed.
///
/// Keeps the old file's mode and, if permitted, its owner. Follows a symbolic link and replaces its target. On error the
/// old file is unchanged. With `is_backed_up`, the old file remains as `FILE.bak`.
pub fn replace_file(path: &Path, text: &str, is_backed_up: bool) -> Result<()> {
    let (path, old) = match fs::canonicalize(path) {
        Ok(path) => (path.clone(), Some(fs::metadata(&path).map_err(Error::path("read", &path))?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), None),
        Err(error) => return Err(Error::path("open", path)(error)),
    };
    if old.as_ref().is_some_and(|old| !old.is_file()) {
        return Err(Error::Usage(format!("cannot replace {}: it is not a regular file", path.display())));
    }
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    create_dirs(dir, create::BY_UMASK, |_| Ok(()))?;
    // A file with restricted access is never readable by others. The umask applies to a new file.
    let mode = if old.is_some() { 0o600 } else { 0o666 };
    let mut file = tempfile::Builder::new()
        .prefix(".lea-configure-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)
        .map_err(create_in_error(dir))?;
    fill(file.as_file_mut(), text, old.as_ref()).map_err(Error::path("write", &path))?;
    if is_backed_up && old.is_some() {
        keep_old(&path).map_err(Error::path("back up", &path))?;
    }
    file.persist(&path).map_err(|error| Error::path("replace", &path)(error.error))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::path("sync", dir))
}

/// Gives a file the second name `FILE.bak`, which it keeps when it is replaced.
fn keep_old(path: &Path) -> io::Result<()> {
    let mut backup = path.as_os_str().to_owned();
    backup.push(".bak");
    let backup = Path::new(&backup);
    match fs::remove_file(backup) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Not every file system has hard links.
    fs::hard_link(path, backup).or_else(|_| fs::copy(path, backup).map(drop))
}

fn fill(file: &mut File, text: &str, old: Option<&Metadata>) -> io::Result<()> {
    if let Some(old) = old {
        keep_owner(file, old)?;
        file.set_permissions(old.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Keeps the owner if this process is root, so that the service that owns the file can still read it. Otherwise the new
/// file belongs to the current user.
fn keep_owner(file: &File, old: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    match fchown(file, Some(old.uid()), Some(old.gid())) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            log::warn!("owner_not_preserved uid={} gid={}", old.uid(), old.gid());
            Ok(())
        }
        done => done,
    }
}
