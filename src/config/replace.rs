//! Replacing a file as a whole: whoever reads it sees the old text or the new one, also after a power cut.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use crate::{Error, Result};

/// Writes a file of a new name beside `path`, syncs it, renames it and syncs the folder, which is made if need be.
///
/// An old file's mode and, as far as the process may, its owner are kept; a link is followed, so it is the file it
/// leads to that changes. On an error the old file is as it was.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let (path, old) = match fs::canonicalize(path) {
        Ok(path) => (path.clone(), Some(fs::metadata(&path).map_err(Error::path("read", &path))?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), None),
        Err(error) => return Err(Error::path("open", path)(error)),
    };
    if old.as_ref().is_some_and(|old| !old.is_file()) {
        return Err(Error::Usage(format!("{} is no regular file, so it cannot be replaced", path.display())));
    }
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir).map_err(Error::path("make the folder", dir))?;
    // A file that was closed to others never stands open for a moment; the umask shapes a new one.
    let mode = if old.is_some() { 0o600 } else { 0o666 };
    let mut file = tempfile::Builder::new()
        .prefix(".lea-configure-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)
        .map_err(Error::path("make a file in", dir))?;
    fill(file.as_file_mut(), text, old.as_ref()).map_err(Error::path("write", &path))?;
    file.persist(&path).map_err(|error| Error::path("replace", &path)(error.error))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::path("sync", dir))
}

fn fill(file: &mut File, text: &str, old: Option<&Metadata>) -> io::Result<()> {
    if let Some(old) = old {
        keep_owner(file, old)?;
        file.set_permissions(old.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Only root may give a file away: then the service that owns the file can still read it. For others the new file
/// is theirs, as with any editor that writes this way.
fn keep_owner(file: &File, old: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    match fchown(file, Some(old.uid()), Some(old.gid())) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            log::warn!("owner_not_kept uid={} gid={}", old.uid(), old.gid());
            Ok(())
        }
        done => done,
    }
}
