//! Lists an output directory for commands that inspect it: `ls` and `verify`. Reads only; a receiver may be writing to the
//! directory.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::cc::vault::dir::META_DIR;
use crate::cc::vault::manifest::{self, Manifest, SUFFIX};
use crate::cc::wire::name::parse_part_file_name;
use crate::runtime::terminal::escape;
use crate::{Error, Result, error};

/// A stream file and its manifest, at least one of which exists.
#[derive(Debug)]
pub(crate) struct StreamEntry {
    /// Path of the stream file, whether it exists or not.
    pub path: PathBuf,
    /// Length of the file; none if it does not exist or is not a regular file.
    pub bytes: Option<u64>,
    /// Its manifest.
    pub manifest: ManifestStatus,
}

/// Whether a stream file has a valid manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ManifestStatus {
    /// The manifest.
    Valid(Box<Manifest>),
    /// Why the manifest cannot be used.
    Invalid(String),
    /// The file has no manifest.
    Missing,
}

impl StreamEntry {
    /// Reads the state of one stream file.
    pub(crate) fn read(path: &Path) -> StreamEntry {
        // Links are not followed: a receiver creates none, so a link leads to a foreign file.
        let bytes = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file).map(|file| file.len());
        StreamEntry { path: path.to_owned(), bytes, manifest: read_manifest(path) }
    }

    /// Returns the file name, escaped for printing.
    pub(crate) fn escaped_name(&self) -> String {
        escape(&self.path.file_name().unwrap_or_default().to_string_lossy())
    }
}

/// What is wrong with an open stream whose receiver does not run.
pub(crate) const ABANDONED: &str =
    "the stream is open, but no receiver is running: it was killed, and its next start recovers the stream";

/// Whether a receiver writes to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReceiverState {
    Running,
    Stopped,
    /// The directory has no lock, or it cannot be read: it may be a copy.
    Unknown,
}

/// Looks whether a process holds the lock of an output directory.
pub(crate) fn receiver_state(dir: &Path) -> ReceiverState {
    // NONBLOCK: a pipe in its place must not block.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let path = dir.join(META_DIR).join("lock");
    let Ok(lock) = fs::OpenOptions::new().read(true).custom_flags(flags).open(path) else {
        return ReceiverState::Unknown;
    };
    // Looking at the kernel's list of locks does not take the lock, which could keep a receiver from starting just then.
    if is_locked(&lock) {
        return ReceiverState::Running;
    }
    // A container does not list the locks of processes outside.
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => ReceiverState::Stopped,
        Err(Errno::WOULDBLOCK) => ReceiverState::Running,
        Err(_) => ReceiverState::Unknown,
    }
}

/// Opens a file for reading. Fails if it is not a regular file: a pipe in its place must not block.
pub(crate) fn open_regular(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = (flags | OFlags::NONBLOCK).bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Looks for a file in the list of locks: `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`, where 5678 is the inode.
fn is_locked(file: &File) -> bool {
    let Ok(inode) = file.metadata().map(|file| file.ino()) else { return false };
    let inode = format!(":{inode} ");
    let is_listed = |list: String| list.lines().any(|line| line.contains("FLOCK") && line.contains(&inode));
    fs::read_to_string("/proc/locks").is_ok_and(is_listed)
}

/// Reads the manifest of a stream file.
pub(crate) fn read_manifest(stream_file: &Path) -> ManifestStatus {
    let path = manifest_path(stream_file);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return ManifestStatus::Missing,
        Err(error) => return ManifestStatus::Invalid(error.to_string()),
        Ok(found) if !found.is_file() => {
            return ManifestStatus::Invalid("the manifest is not a regular file".to_owned());
        }
        Ok(_) => {}
    }
    match manifest::read(&path) {
        Ok(manifest) if stream_file.file_name().is_some_and(|name| name == manifest.file.as_str()) => {
            ManifestStatus::Valid(Box::new(manifest))
        }
        Ok(manifest) => {
            ManifestStatus::Invalid(format!("the manifest names another file, {}", escape(&manifest.file)))
        }
        Err(error) => ManifestStatus::Invalid(escape(&error::chain(&error))),
    }
}

/// Lists the streams of a directory, sorted by name and part. Hidden files and directories are skipped: no stream has such a
/// name.
pub(crate) fn list(dir: &Path) -> Result<Vec<StreamEntry>> {
    let unreadable = || Error::path("read the directory", dir);
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable())? {
        let entry = entry.map_err(unreadable())?;
        let name = entry.file_name();
        if !name.as_bytes().starts_with(b".") && entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            paths.push(stream_path(&entry.path()));
        }
    }
    paths.sort_by_cached_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        parse_part_file_name(&name).map_or((name.clone(), 0), |(file, part)| (file.to_owned(), part))
    });
    paths.dedup();
    Ok(paths.iter().map(|path| StreamEntry::read(path)).collect())
}

/// Returns the stream file for a path that names a stream file or its manifest.
pub(crate) fn stream_path(path: &Path) -> PathBuf {
    let stem = path.to_str().and_then(|path| path.strip_suffix(SUFFIX));
    stem.map_or_else(|| path.to_owned(), PathBuf::from)
}

fn manifest_path(stream_file: &Path) -> PathBuf {
    let mut path = stream_file.as_os_str().to_owned();
    path.push(SUFFIX);
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_listed_by_name_and_part() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.pcap", "a.pcap.10", "a.pcap.2", "a.pcap", "a.pcap.lea.json", "gone.lea.json", ".x"] {
            fs::write(dir.path().join(name), "1234").unwrap();
        }
        fs::create_dir(dir.path().join(".lea")).unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let found: Vec<_> =
            list(dir.path()).unwrap().iter().map(|stored| (stored.escaped_name(), stored.bytes)).collect();
        let expected = ["a.pcap", "a.pcap.2", "a.pcap.10", "b.pcap", "gone", "link"];
        assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(
            found.iter().map(|(_, bytes)| bytes.is_some()).collect::<Vec<_>>(),
            [true, true, true, true, false, false]
        );
    }
}
