//! Input of a dump: a file or standard input, decompressed and converted to UTF-8 if necessary. A sliding window
//! holds only the record being read.
//!
//! A pipe is polled together with the shutdown signal, so that a silent writer delays neither the end of the
//! process nor the records that have arrived.

pub(super) mod decode;

use std::fs::{File, Metadata};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::event::PollFlags;

use sha2::{Digest, Sha256};

use super::sources::ArchiveMember;
use crate::cc::kafka_dump::format::{DETECT_BYTES_MAX, Detected, DumpFormat, INPUT_BYTES_MAX};
use crate::runtime::hex;
use crate::runtime::net::{PollOutcome, wait};
use crate::runtime::shutdown::Shutdown;
use crate::{Error, Result};

/// Size of one read, small enough to stay in the processor's cache.
const READ_BYTES: usize = 256 << 10;

/// Location of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpSource {
    File(PathBuf),
    Stdin,
    Member(ArchiveMember),
}

impl DumpSource {
    /// Name for messages.
    pub fn name(&self) -> String {
        match self {
            DumpSource::File(path) => path.display().to_string(),
            DumpSource::Stdin => "-".to_owned(),
            DumpSource::Member(member) => member.name.clone(),
        }
    }

    /// Identifies the dump. A file with the same inode, length and modification time has the same bytes.
    /// Nothing identifies the content of a pipe, so it gets a random identifier.
    pub fn dump_id(&self) -> String {
        let regular = match self {
            DumpSource::File(path) => path.metadata().ok().filter(Metadata::is_file),
            DumpSource::Stdin => None,
            DumpSource::Member(member) => return member.id.clone(),
        };
        let unique = match regular {
            Some(file) => {
                let (seconds, ns) = (file.mtime(), file.mtime_nsec());
                let identity = format!("{} {} {} {seconds}.{ns}", file.dev(), file.ino(), file.len());
                hex::encode(&Sha256::digest(identity)[..8])
            }
            None => hex::encode(&RandomState::new().hash_one(std::process::id()).to_be_bytes()),
        };
        format!("dump-{unique}")
    }

    /// Name of the directory that contains the file.
    pub fn parent_dir_name(&self) -> Option<String> {
        let path = match self {
            DumpSource::File(path) => path.canonicalize().ok()?,
            DumpSource::Member(member) => member.path.clone(),
            DumpSource::Stdin => return None,
        };
        Some(path.parent()?.file_name()?.to_str()?.to_owned())
    }

    /// Returns topic, partition and first offset if the name of the file contains them, as Connect's sinks name objects:
    /// `interception+0+0000000042.json`.
    pub(super) fn object_name(&self) -> Option<(String, i32, i64)> {
        let path = match self {
            DumpSource::File(path) => path,
            DumpSource::Member(member) => &member.path,
            DumpSource::Stdin => return None,
        };
        let name = path.file_name()?.to_str()?;
        let (rest, offset) = name.rsplit_once('+')?;
        let (topic, partition) = rest.rsplit_once('+')?;
        let digits = offset.find(|c: char| !c.is_ascii_digit()).unwrap_or(offset.len());
        Some((topic.to_owned(), partition.parse().ok()?, offset[..digits].parse().ok()?))
    }

    /// Size of the dump, if it is known.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            DumpSource::File(path) => path.metadata().ok().filter(Metadata::is_file).map(|file| file.len()),
            DumpSource::Stdin => None,
            DumpSource::Member(member) => Some(member.bytes),
        }
    }
}

/// Reason why the input ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InputDamage {
    /// The compressed file is truncated.
    Truncated,
    /// It cannot be read or decompressed further, for this reason.
    Unreadable(String),
}

/// Open dump.
pub(super) struct DumpInput {
    from: Box<dyn Read>,
    /// The pipe that is read, if the dump is not a regular file.
    pipe: Option<Arc<File>>,
    is_decoded: bool,
    window: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    broken: Option<InputDamage>,
}

impl DumpInput {
    /// Opens a dump. `read_bytes` counts the bytes read, before decompression. A pipe ends when `shutdown` is
    /// triggered.
    pub(super) fn open(
        origin: &DumpSource,
        shutdown: Option<&Shutdown>,
        read_bytes: Arc<AtomicU64>,
    ) -> Result<DumpInput> {
        let (file, range) = match origin {
            DumpSource::Member(member) => {
                (Arc::clone(&member.copy), Some(member.start..member.start + member.bytes))
            }
            _ => (Arc::new(open_file(origin)?), None),
        };
        let is_regular = file.metadata().is_ok_and(|file| file.is_file());
        let pipe = (!is_regular).then(|| Arc::clone(&file));
        let shutdown = shutdown.filter(|_| !is_regular).cloned();
        let counted = CountingReader { from: file, range, shutdown, is_regular, bytes: read_bytes };
        let (from, is_decoded) =
            decode::open(Box::new(counted)).map_err(Error::path("read", origin.name()))?;
        let window = vec![0; READ_BYTES];
        Ok(DumpInput { from, pipe, is_decoded, window, start: 0, end: 0, ended: false, broken: None })
    }

    /// Reports whether the next [`fill`](Self::fill) may have to wait for the writer of a pipe.
    pub(super) fn may_wait(&self) -> bool {
        let is_silent = |pipe: &Arc<File>| {
            self.is_decoded || wait(pipe, PollFlags::IN, None, Some(Instant::now())) == PollOutcome::TimedOut
        };
        self.pipe.as_ref().is_some_and(is_silent)
    }

    /// Detects the format, and reads until that is possible.
    pub(super) fn detect(&mut self) -> Detected {
        loop {
            let start = &self.bytes()[..self.bytes().len().min(DETECT_BYTES_MAX)];
            let is_all = self.ended || start.len() == DETECT_BYTES_MAX;
            if let Some(found) = DumpFormat::detect(start, is_all) {
                return found;
            }
            self.fill(self.bytes().len() + 1);
        }
    }

    /// Reads what is available, as far as it may tell something about the order of the records.
    pub(super) fn fill_without_waiting(&mut self) {
        while self.bytes().len() < DETECT_BYTES_MAX && !self.ended && !self.may_wait() {
            self.fill(DETECT_BYTES_MAX);
        }
    }

    /// Bytes that were read and not consumed.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.window[self.start..self.end]
    }

    /// Reports whether nothing follows [`bytes`](Self::bytes).
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Returns the reason if the input ended early.
    pub(super) fn damage(&self) -> Option<&InputDamage> {
        self.broken.as_ref()
    }

    /// Reads once, with room for `bytes` bytes in total.
    pub(super) fn fill(&mut self, bytes: usize) {
        self.window.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        // The size doubles each time, so a long record is not moved often.
        let wanted = bytes.max(self.end + 1).min(INPUT_BYTES_MAX);
        if wanted > self.window.len() || self.window.len() - self.end < READ_BYTES / 2 {
            let size = wanted.max(self.end * 2).max(READ_BYTES);
            self.window.resize(size, 0);
        }
        match self.read() {
            Ok(0) => self.ended = true,
            Ok(read) => self.end += read,
            Err(error) => {
                self.ended = true;
                self.broken = Some(match error.kind() {
                    io::ErrorKind::UnexpectedEof => InputDamage::Truncated,
                    _ => InputDamage::Unreadable(error.to_string()),
                });
            }
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let room = &mut self.window[self.end..];
        loop {
            match self.from.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// Discards bytes from the start of the window.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        debug_assert!(self.start <= self.end);
        if self.start == self.end && self.window.len() > 4 * READ_BYTES {
            // The memory that one long record needed is released.
            self.window = vec![0; READ_BYTES];
            (self.start, self.end) = (0, 0);
        }
    }
}

/// Opens the file. A named pipe is opened without waiting for its writer.
fn open_file(origin: &DumpSource) -> Result<File> {
    let path = match origin {
        DumpSource::File(path) => path,
        DumpSource::Stdin | DumpSource::Member(_) => {
            let stdin = io::stdin().as_fd().try_clone_to_owned();
            return Ok(stdin.map_err(Error::path("open", "/dev/stdin"))?.into());
        }
    };
    let mut options = File::options();
    options.read(true);
    if path.metadata().is_ok_and(|file| file.file_type().is_fifo()) {
        options.custom_flags(libc::O_NONBLOCK);
    }
    options.open(path).map_err(Error::path("open", path))
}

/// Reader of the file or pipe.
struct CountingReader {
    from: Arc<File>,
    /// The part of the file that is read, if it is not the whole file.
    range: Option<Range<u64>>,
    shutdown: Option<Shutdown>,
    is_regular: bool,
    bytes: Arc<AtomicU64>,
}

impl Read for CountingReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Some(range) = &mut self.range {
            let bytes = into.len().min(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
            let read = self.from.read_at(&mut into[..bytes], range.start)?;
            range.start += read as u64;
            self.bytes.fetch_add(read as u64, Ordering::Relaxed);
            return Ok(read);
        }
        loop {
            let is_shut_down = !self.is_regular
                && wait(&self.from, PollFlags::IN, self.shutdown.as_ref(), None) == PollOutcome::ShutDown;
            if is_shut_down {
                return Ok(0);
            }
            match (&*self.from).read(into) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                read => {
                    self.bytes.fetch_add(*read.as_ref().unwrap_or(&0) as u64, Ordering::Relaxed);
                    return read;
                }
            }
        }
    }
}
