//! The folder that a merge makes: it grows beside its place, and is put there when all is in it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::Access;
use super::super::dir::{OWN_DIR, VaultDir};
use crate::{Error, Result};

/// Stands behind the output's name while it is made.
const UNFINISHED: &str = ".lea-merge";

/// Marks a folder as one that a merge makes.
const MARK: &str = "merging";

/// Each folder once.
pub fn check_dirs(dirs: &[PathBuf]) -> Result<()> {
    let mut seen = HashSet::new();
    for dir in dirs {
        let is = fs::canonicalize(dir).map_err(Error::path("open the folder", dir))?;
        if !seen.insert(is) {
            return Err(Error::Usage(format!("{} is named twice", dir.display())));
        }
    }
    Ok(())
}

/// Makes the folder that becomes the output.
pub fn begin(output: &Path, access: Access) -> Result<PathBuf> {
    let entries = match fs::read_dir(output) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries.map_err(Error::path("look into", output))?),
    };
    if entries.is_some_and(|mut entries| entries.next().is_some()) {
        let reason = format!("{} is not empty; choose another --output", output.display());
        return Err(Error::Usage(reason));
    }
    let Some(name) = output.file_name() else {
        return Err(Error::Usage(format!("{} is no name for a new folder", output.display())));
    };
    let mut name = name.to_owned();
    name.push(UNFINISHED);
    let unfinished = output.with_file_name(name);
    match fs::symlink_metadata(&unfinished) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::path("look at", &unfinished)(error)),
        Ok(found) if found.is_dir() && is_unfinished(&unfinished) => {
            // Held by a merge that runs: this fails.
            drop(VaultDir::open(&unfinished, Access::PRIVATE)?);
            log::warn!("unfinished_merge_removed dir={unfinished:?}");
            fs::remove_dir_all(&unfinished).map_err(Error::path("remove", &unfinished))?;
        }
        Ok(_) => {
            let reason = format!("{} is in the way, and no merge made it", unfinished.display());
            return Err(Error::Usage(reason));
        }
    }
    let made = VaultDir::open(&unfinished, access)?;
    made.own_append(MARK).map_err(Error::path("write to", &unfinished))?;
    Ok(unfinished)
}

/// True for what a merge made, and also for what it had only begun to make.
fn is_unfinished(dir: &Path) -> bool {
    let is_own = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() == OWN_DIR);
    let is_marked = dir.join(OWN_DIR).join(MARK).symlink_metadata().is_ok_and(|mark| mark.is_file());
    is_marked || fs::read_dir(dir).is_ok_and(|mut entries| entries.all(is_own))
}

/// All is written: puts the output into its place.
pub fn finish(dir: &VaultDir, unfinished: &Path, output: &Path) -> Result<()> {
    let failed = || Error::path("put in its place", output);
    dir.own_remove(MARK).and_then(|()| dir.sync_all()).map_err(Error::path("sync", unfinished))?;
    fs::rename(unfinished, output).map_err(failed())?;
    let above = output.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(above).and_then(|above| above.sync_all()).map_err(failed())
}
