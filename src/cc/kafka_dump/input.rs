//! Input of a dump: a file or standard input, decompressed if it is gzip or zstd. A sliding window holds only
//! the record being read.

use std::fs::{File, Metadata};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Cursor, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::cc::kafka_dump::format::{DETECT_BYTES_MAX, Detected, DumpFormat, INPUT_BYTES_MAX};
use crate::runtime::hex;
use crate::{Error, Result};

/// Size of one read, small enough to stay in the processor's cache.
const READ_BYTES: usize = 256 << 10;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Location of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpSource {
    File(PathBuf),
    Stdin,
}

impl DumpSource {
    /// Parses a command line argument: `-` is standard input.
    pub fn new(path: &Path) -> DumpSource {
        if path == Path::new("-") { DumpSource::Stdin } else { DumpSource::File(path.to_owned()) }
    }

    /// Name for messages.
    pub fn name(&self) -> String {
        match self {
            DumpSource::File(path) => path.display().to_string(),
            DumpSource::Stdin => "-".to_owned(),
        }
    }

    /// Identifies the dump. A file with the same inode, length and modification time has the same bytes.
    /// Nothing identifies the content of a pipe, so it gets a random identifier.
    pub fn dump_id(&self) -> String {
        let regular = match self {
            DumpSource::File(path) => path.metadata().ok().filter(Metadata::is_file),
            DumpSource::Stdin => None,
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
        let DumpSource::File(path) = self else { return None };
        let path = path.canonicalize().ok()?;
        Some(path.parent()?.file_name()?.to_str()?.to_owned())
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
    window: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    broken: Option<InputDamage>,
}

impl DumpInput {
    /// Opens a dump. `read_bytes` counts the bytes read, before decompression.
    pub(super) fn open(origin: &DumpSource, read_bytes: Arc<AtomicU64>) -> Result<DumpInput> {
        let raw: Box<dyn Read> = match origin {
            DumpSource::File(path) => Box::new(File::open(path).map_err(Error::path("open", path))?),
            DumpSource::Stdin => Box::new(io::stdin().lock()),
        };
        let mut counted = CountingReader { from: raw, bytes: read_bytes };
        let mut magic = Vec::new();
        counted.by_ref().take(4).read_to_end(&mut magic).map_err(Error::path("read", origin.name()))?;
        let is = |of: &[u8]| magic.starts_with(of);
        let (gzip, zstd) = (is(GZIP_MAGIC), is(ZSTD_MAGIC));
        let whole = Cursor::new(magic).chain(counted);
        let from: Box<dyn Read> = if gzip {
            Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(READ_BYTES, whole)))
        } else if zstd {
            Box::new(zstd::Decoder::new(whole).map_err(Error::path("decompress", origin.name()))?)
        } else {
            Box::new(whole)
        };
        Ok(DumpInput { from, window: vec![0; READ_BYTES], start: 0, end: 0, ended: false, broken: None })
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

struct CountingReader<R> {
    from: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
