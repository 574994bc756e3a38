//! A dump as bytes: a file or standard input, decompressed where it is gzip or zstd, through a window that holds no
//! more than the record under way.

use std::fs::{File, Metadata};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Cursor, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::cc::frame::dump::{BEGIN_BYTES, INPUT_BYTES_MAX};
use crate::cc::frame::name::hex;
use crate::{Error, Result};

/// Bytes read at once: they are still in the processor's cache when they are looked at.
const READ_BYTES: usize = 256 << 10;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Where a dump is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

impl Origin {
    /// `-` is standard input.
    pub fn new(path: &Path) -> Origin {
        if path == Path::new("-") { Origin::Stdin } else { Origin::File(path.to_owned()) }
    }

    /// How messages name it.
    pub fn name(&self) -> String {
        match self {
            Origin::File(path) => path.display().to_string(),
            Origin::Stdin => "-".to_owned(),
        }
    }

    /// What tells the dump from all others: a file that is still the same one, with the same length and the same time of
    /// its last change, has the same bytes. Nothing is known of what comes through a pipe.
    pub fn id(&self) -> String {
        let regular = match self {
            Origin::File(path) => path.metadata().ok().filter(Metadata::is_file),
            Origin::Stdin => None,
        };
        let unique = match regular {
            Some(file) => {
                let (seconds, ns) = (file.mtime(), file.mtime_nsec());
                let told = format!("{} {} {} {seconds}.{ns}", file.dev(), file.ino(), file.len());
                hex(&Sha256::digest(told)[..8])
            }
            None => hex(&RandomState::new().hash_one(std::process::id()).to_be_bytes()),
        };
        format!("dump-{unique}")
    }

    /// The name of the folder that a file is in.
    pub fn folder(&self) -> Option<String> {
        let Origin::File(path) = self else { return None };
        let path = path.canonicalize().ok()?;
        Some(path.parent()?.file_name()?.to_str()?.to_owned())
    }
}

/// How a dump's bytes ended before their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A compressed file ends before its data does: it was cut.
    Cut,
    /// It cannot be read or decompressed any further, because.
    Damaged(String),
}

/// An open dump.
pub struct Input {
    from: Box<dyn Read>,
    window: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    broken: Option<Broken>,
}

impl Input {
    /// Opens a dump; `read_bytes` counts what is read of it, compressed as it is.
    pub fn open(origin: &Origin, read_bytes: Arc<AtomicU64>) -> Result<Input> {
        let raw: Box<dyn Read> = match origin {
            Origin::File(path) => Box::new(File::open(path).map_err(Error::path("open", path))?),
            Origin::Stdin => Box::new(io::stdin().lock()),
        };
        let mut counted = Counted { from: raw, bytes: read_bytes };
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
        Ok(Input { from, window: vec![0; READ_BYTES], start: 0, end: 0, ended: false, broken: None })
    }

    /// What is there and not consumed.
    pub fn bytes(&self) -> &[u8] {
        &self.window[self.start..self.end]
    }

    /// True if nothing comes after [`bytes`](Self::bytes).
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Why it ended early, if it did.
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// Reads until a file's first bytes are there.
    pub fn fill_begin(&mut self) {
        while self.bytes().len() < BEGIN_BYTES && !self.ended {
            self.fill(BEGIN_BYTES);
        }
    }

    /// Reads once; makes room for `bytes` bytes altogether.
    pub fn fill(&mut self, bytes: usize) {
        self.window.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        // Twice the size each time, so that a long record is not moved often.
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
                    io::ErrorKind::UnexpectedEof => Broken::Cut,
                    _ => Broken::Damaged(error.to_string()),
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

    /// Is done with so many bytes.
    pub fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        debug_assert!(self.start <= self.end);
        if self.start == self.end && self.window.len() > 4 * READ_BYTES {
            // What one long record needed is not kept for ever.
            self.window = vec![0; READ_BYTES];
            (self.start, self.end) = (0, 0);
        }
    }
}

struct Counted<R> {
    from: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
