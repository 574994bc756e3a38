//! Finds the dumps in what the command line names: files, directories, and tar and zip archives. Members of archives
//! are copied to one unnamed temporary file.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::input::{DumpSource, decode};
use crate::capture::formats::starts_plain_capture;
use crate::runtime::hex;
use crate::runtime::terminal::escape;
use crate::{Error, Result};

/// Number of files in all directories and archives.
const FILES_MAX: usize = 100_000;

/// Deepest nesting of directories.
const DEPTH_MAX: usize = 32;

/// An archive may expand to this size, plus [`RATIO_MAX`] times its own. What is larger is made to fill a disk.
const EXPANDED_BYTES_MIN: u64 = 1 << 30;
const RATIO_MAX: u64 = 1_000;

/// Size of a block of a tar archive.
const TAR_BLOCK_BYTES: u64 = 512;

/// Location of the magic of a tar archive.
const TAR_MAGIC_AT: usize = 257;

/// Files of a broker and of tools that are not dumps.
const OTHER_ENDINGS: [&str; 10] = [
    ".index",
    ".timeindex",
    ".txnindex",
    ".snapshot",
    ".swap",
    ".cleaned",
    "-checkpoint",
    ".checkpoint",
    ".keys.json",
    ".lea.json",
];
const OTHER_NAMES: [&str; 2] = ["partition.metadata", "meta.properties"];

/// The dumps that were found.
#[derive(Debug, Default)]
pub struct DumpSources {
    pub dumps: Vec<DumpSource>,
    /// Files in directories and archives that are not dumps.
    pub skipped: u64,
    /// Directories and archives without a dump, and damaged archives.
    pub unread: u64,
}

/// Dump in an archive.
#[derive(Clone, Debug)]
pub struct ArchiveMember {
    /// Name for messages: `archive.tar!directory/file`.
    pub(super) name: String,
    /// Path in the archive.
    pub(super) path: PathBuf,
    pub(super) id: String,
    pub(super) copy: Arc<File>,
    pub(super) start: u64,
    pub(super) bytes: u64,
}

impl PartialEq for ArchiveMember {
    fn eq(&self, other: &ArchiveMember) -> bool {
        self.id == other.id
    }
}

impl Eq for ArchiveMember {}

/// Finds the dumps in `paths`. `-` is standard input.
pub fn find_dumps(paths: &[PathBuf]) -> Result<DumpSources> {
    let mut found = DumpSources::default();
    for path in paths {
        let before = found.dumps.len();
        if path == Path::new("-") {
            found.dumps.push(DumpSource::Stdin);
        } else if path.is_dir() {
            found.add_dir(path, 0)?;
        } else {
            found.add_file(path)?;
        }
        if found.dumps.len() == before {
            found.unread += 1;
            log::warn!("dumps_missing path={path:?} note=\"it contains no dump\"");
        }
    }
    Ok(found)
}

/// Reports whether a file in a directory or archive is not a dump, by its name.
fn is_other(path: &Path) -> bool {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy()) else { return true };
    let dir = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy());
    // Directories of the broker's own topics: `__consumer_offsets-7`.
    let is_internal = dir.is_some_and(|dir| dir.starts_with("__"));
    name.starts_with('.')
        || is_internal
        || OTHER_NAMES.contains(&&*name)
        || OTHER_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

impl DumpSources {
    fn push(&mut self, dump: DumpSource) -> Result<()> {
        if self.dumps.len() >= FILES_MAX {
            return Err(Error::Usage(format!("there are more than {FILES_MAX} dumps (name some of them)")));
        }
        self.dumps.push(dump);
        Ok(())
    }

    fn skip(&mut self, path: &Path, reason: &str) {
        self.skipped += 1;
        log::info!("file_skipped path=\"{}\" reason=\"{reason}\"", escape(&path.to_string_lossy()));
    }

    /// Adds the dumps in a directory, in the order of their names. Symbolic links are not followed.
    fn add_dir(&mut self, dir: &Path, depth: usize) -> Result<()> {
        let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = entries.map_err(Error::path("read", dir))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let kind = entry.file_type().map_err(Error::path("look at", &path))?;
            let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
            if kind.is_dir() && !is_hidden && depth < DEPTH_MAX {
                self.add_dir(&path, depth + 1)?;
            } else if !kind.is_file() || is_other(&path) {
                self.skip(&path, "not a dump by its name or type");
            } else if is_capture(&path)? {
                self.skip(&path, "a packet capture");
            } else {
                self.add_file(&path)?;
            }
        }
        Ok(())
    }

    /// Adds a file, or the dumps in it if it is an archive.
    fn add_file(&mut self, path: &Path) -> Result<()> {
        if path.is_file() && is_other(path) {
            self.skip(path, "not a dump by its name");
            return Ok(());
        }
        match archive_kind(path)? {
            None => self.push(DumpSource::File(path.to_owned())),
            Some(kind) => self.add_archive(path, kind),
        }
    }

    fn add_archive(&mut self, path: &Path, kind: ArchiveKind) -> Result<()> {
        let file = File::open(path).map_err(Error::path("open", path))?;
        let about = file.metadata().map_err(Error::path("look at", path))?;
        let copy = tempfile::tempfile().map_err(Error::system("make a temporary file"))?;
        let mut archive = ArchiveCopy {
            path,
            identity: format!(
                "{} {} {} {}.{}",
                about.dev(),
                about.ino(),
                about.len(),
                about.mtime(),
                about.mtime_nsec()
            ),
            copy: Arc::new(copy),
            end: 0,
            left: EXPANDED_BYTES_MIN + about.len().saturating_mul(RATIO_MAX),
            found: self,
        };
        let copied = match kind {
            ArchiveKind::Zip => archive.copy_zip(file),
            ArchiveKind::Tar => archive.copy_tar(file),
        };
        if let Err(error) = copied {
            self.unread += 1;
            log::warn!(
                "archive_damaged path={path:?} reason=\"{}\" note=\"what comes after the damage is not decoded\"",
                escape(&error.to_string())
            );
        }
        Ok(())
    }
}

fn is_capture(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(Error::path("open", path))?;
    file.take(64).read_to_end(&mut start).map_err(Error::path("read", path))?;
    // A compressed file may be a compressed dump.
    Ok(starts_plain_capture(&start))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArchiveKind {
    Tar,
    Zip,
}

/// Returns the kind of an archive, or `None` for any other file. A tar archive may be compressed.
fn archive_kind(path: &Path) -> Result<Option<ArchiveKind>> {
    if !path.is_file() {
        return Ok(None);
    }
    let file = File::open(path).map_err(Error::path("open", path))?;
    let mut start = Vec::new();
    // A file that cannot be decompressed is not an archive. Reading it as a dump says what is wrong.
    if let Ok((from, _)) = decode::open(Box::new(file)) {
        let _ = from.take(512).read_to_end(&mut start);
    }
    Ok(if start.starts_with(b"PK\x03\x04") {
        Some(ArchiveKind::Zip)
    } else if start.get(TAR_MAGIC_AT..).is_some_and(|magic| magic.starts_with(b"ustar")) {
        Some(ArchiveKind::Tar)
    } else {
        None
    })
}

/// An archive whose members are being copied.
struct ArchiveCopy<'a> {
    path: &'a Path,
    identity: String,
    copy: Arc<File>,
    /// Size of the copy so far.
    end: u64,
    /// Number of bytes that may still be copied.
    left: u64,
    found: &'a mut DumpSources,
}

impl ArchiveCopy<'_> {
    fn copy_tar(&mut self, file: File) -> io::Result<()> {
        let (from, _) = decode::open(Box::new(file))?;
        let zeros = Rc::new(Cell::new(0));
        let mut archive = tar::Archive::new(ZeroCounter { from, zeros: Rc::clone(&zeros) });
        for entry in archive.entries()? {
            let entry = entry?;
            if entry.header().entry_type().is_file() {
                let path = entry.path()?.into_owned();
                self.copy_member(path, entry)?;
            }
        }
        // The archive ends with empty blocks, unless it is truncated between two members.
        let is_whole = zeros.get() >= TAR_BLOCK_BYTES;
        if is_whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn copy_zip(&mut self, file: File) -> io::Result<()> {
        let mut archive = zip::ZipArchive::new(io::BufReader::new(file)).map_err(io::Error::other)?;
        for nth in 0..archive.len() {
            let member = archive.by_index(nth).map_err(io::Error::other)?;
            if member.is_file() {
                let path = PathBuf::from(&*member.name().map_err(io::Error::other)?);
                self.copy_member(path, member)?;
            }
        }
        Ok(())
    }

    fn copy_member(&mut self, path: PathBuf, member: impl Read) -> io::Result<()> {
        if is_other(&path) {
            self.found.skip(&path, "not a dump by its name");
            return Ok(());
        }
        let start = self.end;
        let bytes = io::copy(&mut member.take(self.left + 1), &mut CopyWriter(&self.copy))?;
        self.end += bytes;
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or_else(|| io::Error::other(format!("it expands more than {RATIO_MAX} times")))?;
        let id = hex::encode(&Sha256::digest(format!("{} {}", self.identity, path.display()))[..8]);
        let name = format!("{}!{}", self.path.display(), path.display());
        let member = ArchiveMember {
            name,
            path,
            id: format!("dump-{id}"),
            copy: Arc::clone(&self.copy),
            start,
            bytes,
        };
        self.found.push(DumpSource::Member(member)).map_err(io::Error::other)
    }
}

/// Counts the zeros at the end of what was read.
struct ZeroCounter<R> {
    from: R,
    zeros: Rc<Cell<u64>>,
}

impl<R: Read> Read for ZeroCounter<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        let zeros = into[..read].iter().rev().take_while(|byte| **byte == 0).count();
        let before = if zeros == read { self.zeros.get() } else { 0 };
        self.zeros.set(before + zeros as u64);
        Ok(read)
    }
}

struct CopyWriter<'a>(&'a File);

impl Write for CopyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&mut &*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_broker_that_are_not_dumps_are_known_by_their_names() {
        for other in [
            "interception-0/00000000000000000000.index",
            "interception-0/00000000000000000000.timeindex",
            "interception-0/00000000000000000007.snapshot",
            "interception-0/leader-epoch-checkpoint",
            "interception-0/partition.metadata",
            "replication-offset-checkpoint",
            "meta.properties",
            ".kafka_cleanshutdown",
            "__consumer_offsets-7/00000000000000000000.log",
            "topics/t/partition=0/t+0+0000000000.keys.json",
        ] {
            assert!(is_other(Path::new(other)), "{other}");
        }
        for dump in [
            "interception-0/00000000000000000000.log",
            "interception-0.0a1b-delete/00000000000000000000.log.deleted",
            "topics/t/partition=0/t+0+0000000000.json.gz",
            "dump.txt",
        ] {
            assert!(!is_other(Path::new(dump)), "{dump}");
        }
    }
}
