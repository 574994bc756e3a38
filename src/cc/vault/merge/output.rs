//! The output directory of a merge: built under a temporary name and renamed when complete.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cc::vault::Access;
use crate::cc::vault::dir::{META_DIR, VaultDir};
use crate::{Error, Result};

/// Suffix of the temporary name.
const UNFINISHED_SUFFIX: &str = ".lea-merge";

/// Marker file in `.lea` of an unfinished merge.
const MARKER_FILE: &str = "merging";

/// Fails if a directory is given twice.
pub(super) fn check_distinct(dirs: &[PathBuf]) -> Result<()> {
    let mut seen = HashSet::new();
    for dir in dirs {
        let is = fs::canonicalize(dir).map_err(Error::path("open the directory", dir))?;
        if !seen.insert(is) {
            return Err(Error::Usage(format!("{} is given twice", dir.display())));
        }
    }
    Ok(())
}

/// Creates the temporary directory.
pub(super) fn create_unfinished(output: &Path, access: Access) -> Result<PathBuf> {
    let entries = match fs::read_dir(output) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries.map_err(Error::path("list", output))?),
    };
    if entries.is_some_and(|mut entries| entries.next().is_some()) {
        let reason = format!("{} is not empty; choose another --output", output.display());
        return Err(Error::Usage(reason));
    }
    let Some(name) = output.file_name() else {
        return Err(Error::Usage(format!("{} is not a valid name for a new directory", output.display())));
    };
    let mut name = name.to_owned();
    name.push(UNFINISHED_SUFFIX);
    let unfinished = output.with_file_name(name);
    match fs::symlink_metadata(&unfinished) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::path("read", &unfinished)(error)),
        Ok(found) if found.is_dir() && is_unfinished(&unfinished) => {
            // Fails if a running merge holds the lock.
            drop(VaultDir::open(&unfinished, Access::PRIVATE)?);
            log::warn!("unfinished_merge_removed dir={unfinished:?}");
            fs::remove_dir_all(&unfinished).map_err(Error::path("remove", &unfinished))?;
        }
        Ok(_) => {
            let reason = format!(
                "{} already exists and was not created by a merge; remove it or choose another --output",
                unfinished.display()
            );
            return Err(Error::Usage(reason));
        }
    }
    let made = VaultDir::open(&unfinished, access)?;
    made.meta_append(MARKER_FILE).map_err(Error::path("write to", &unfinished))?;
    Ok(unfinished)
}

/// Returns whether a merge created the directory, even if it was killed right after creating it.
fn is_unfinished(dir: &Path) -> bool {
    let is_own = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() == META_DIR);
    let is_marked = dir.join(META_DIR).join(MARKER_FILE).symlink_metadata().is_ok_and(|mark| mark.is_file());
    is_marked || fs::read_dir(dir).is_ok_and(|mut entries| entries.all(is_own))
}

/// Renames the complete directory to its final name.
pub(super) fn publish(dir: &VaultDir, unfinished: &Path, output: &Path) -> Result<()> {
    let failed = || Error::path("rename the finished directory to", output);
    dir.meta_remove(MARKER_FILE).and_then(|()| dir.sync_all()).map_err(Error::path("sync", unfinished))?;
    fs::rename(unfinished, output).map_err(failed())?;
    let above = output.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(above).and_then(|above| above.sync_all()).map_err(failed())
}
