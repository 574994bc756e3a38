//! One folder as its last process left it, also by a crash: what each file holds by the same rules by which the next
//! start would cut it back. Reads only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::checkpoint::{self, Checkpoint, FileState, ReadRange};
use super::super::dir::QuietDir;
use super::super::journal::{self, Opened};
use super::super::manifest::{Manifest, SUFFIX, Segment, Source, State};
use super::super::unhex;
use super::Problem;
use crate::cc::frame::name::{file_name, part_file_name, part_of};
use crate::{Error, Result};

/// A folder.
#[derive(Debug)]
pub struct Folder {
    /// It, held against writers.
    pub dir: QuietDir,
    /// Its stream files.
    pub files: Vec<StoredFile>,
    /// What it has read of partitions.
    pub reads: Vec<ReadRange>,
    /// So much of the dead letters counts; none: all of it.
    pub dead_letter_bytes: Option<u64>,
}

/// A stream file.
#[derive(Clone, Debug)]
pub struct StoredFile {
    /// The stream's name.
    pub name: Vec<u8>,
    /// Its manifest; where it was open, with the records that count.
    pub manifest: Manifest,
    /// So much of the file counts.
    pub bytes: u64,
    /// What follows it: a packet that had begun.
    pub pending: Vec<u8>,
    /// True if the manifest vouches for it.
    pub closed: bool,
    /// True if these are records that came again and were equal to the file's: they are in no manifest yet.
    pub compared: bool,
}

impl StoredFile {
    /// Bytes of the stream.
    pub fn len(&self) -> u64 {
        self.bytes + self.pending.len() as u64
    }

    /// Reads up to `buffer.len()` bytes of the stream at `at`, `file` being the file.
    pub fn read_at(&self, file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        if at >= self.bytes {
            let from = usize::try_from(at - self.bytes).unwrap_or(usize::MAX).min(self.pending.len());
            let some = buffer.len().min(self.pending.len() - from);
            buffer[..some].copy_from_slice(&self.pending[from..from + some]);
            return Ok(some);
        }
        let some = buffer.len().min(usize::try_from(self.bytes - at).unwrap_or(usize::MAX));
        file.read_exact_at(&mut buffer[..some], at)?;
        Ok(some)
    }

    /// The segments; what was left out of them goes with the one before it.
    pub fn segments(&self) -> Vec<Segment> {
        let mut segments = self.manifest.segments.clone();
        let mut end = self.len();
        for segment in segments.iter_mut().rev().filter(|segment| !segment.compared) {
            if !self.compared {
                segment.bytes = end.saturating_sub(segment.at);
            }
            end = segment.at.min(end);
        }
        segments
    }
}

impl Folder {
    /// Looks at a folder; what cannot be used is a problem.
    pub fn open(path: &Path, problems: &mut Vec<Problem>) -> Result<Folder> {
        let dir = QuietDir::open(path)?;
        let failed = |act| Error::path(act, path);
        let journal = dir.own(journal::FILE).map_err(failed("read the journal in"))?;
        let journal = journal.map_or_else(|| Ok(BTreeMap::new()), journal::left);
        let rounds = dir.own(checkpoint::FILE).map_err(failed("read the checkpoints in"))?;
        let rounds = rounds.map_or_else(|| Ok(Checkpoint::default()), Checkpoint::read_from);
        let mut looking = Looking {
            dir: &dir,
            journal: journal.map_err(failed("read the journal in"))?,
            rounds: rounds.map_err(failed("read the checkpoints in"))?,
            problems,
        };
        let files = looking.files().map_err(failed("read the folder"))?;
        let Looking { rounds: Checkpoint { partitions, mut reads, dead_letter_bytes, .. }, .. } = looking;
        reads.extend(partitions.iter().filter_map(|partition| partition.read()));
        Ok(Folder { dir, files, reads, dead_letter_bytes })
    }
}

struct Looking<'a> {
    dir: &'a QuietDir,
    journal: BTreeMap<String, Opened>,
    rounds: Checkpoint,
    problems: &'a mut Vec<Problem>,
}

impl Looking<'_> {
    fn files(&mut self) -> io::Result<Vec<StoredFile>> {
        let mut names: Vec<String> = self.dir.names()?;
        names.iter_mut().for_each(|name| {
            name.truncate(name.strip_suffix(SUFFIX).map_or(name.len(), str::len));
        });
        names.sort();
        names.dedup();
        let mut files = Vec::new();
        for file in names {
            match self.file(&file) {
                Ok(Some(found)) => files.push(found),
                Ok(None) => {}
                Err(error) => self.problem(&file, format!("it cannot be used: {error}")),
            }
        }
        let compared = self.compared(&files);
        files.extend(compared);
        Ok(files)
    }

    fn file(&mut self, file: &str) -> io::Result<Option<StoredFile>> {
        let opened = self.journal.get(file).cloned();
        let found = match self.dir.manifest(file) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData && opened.is_some() => None,
            found => found?,
        };
        let from_journal = |opened: &Opened| {
            let name = unhex(&opened.name_hex)?;
            Some(Manifest::new(&name, opened.file.clone(), opened.part, opened.source))
        };
        let Some(manifest) = found.or_else(|| opened.as_ref().and_then(from_journal)) else {
            self.problem(file, "it has no manifest, and is left out".to_owned());
            return Ok(None);
        };
        let bytes = match self.dir.open_to_read(file) {
            Ok(file) => file.metadata()?.len(),
            // The crash came between the journal and the file: nothing had been received.
            Err(error) if error.kind() == io::ErrorKind::NotFound && opened.is_some() => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(name) = name_of(&manifest) else {
            self.problem(file, "its manifest names a stream that has another file".to_owned());
            return Ok(None);
        };
        if manifest.lost_bytes > 0 {
            self.problem(file, format!("it lacks {} bytes that could not be written", manifest.lost_bytes));
        }
        let closed = manifest.state != State::Open && opened.is_none();
        let mut stored = StoredFile { name, manifest, bytes, pending: Vec::new(), closed, compared: false };
        match opened.filter(|opened| opened.source == Source::Kafka) {
            Some(opened) => self.cut_back(&mut stored, &opened),
            None if closed && stored.manifest.bytes != bytes => {
                let said = stored.manifest.bytes;
                self.problem(file, format!("it has {bytes} bytes, and its manifest says {said}"));
                (stored.bytes, stored.closed) = (bytes.min(said), false);
            }
            None => {}
        }
        Ok(Some(stored))
    }

    /// What counts of a file of records that was open: what its last checkpoint vouches for.
    fn cut_back(&mut self, stored: &mut StoredFile, opened: &Opened) {
        let found = stored.bytes;
        match self.rounds.files.get(&opened.file) {
            Some(FileState { bytes, pending, segments, .. }) => {
                stored.bytes = *bytes;
                stored.pending = unhex(pending).unwrap_or_default();
                stored.manifest.segments.clone_from(segments);
            }
            None => stored.bytes = opened.bytes,
        }
        if found < stored.bytes {
            let reason = format!("it has {found} bytes, and its checkpoint says {}", stored.bytes);
            self.problem(&opened.file, reason);
            (stored.bytes, stored.pending) = (found, Vec::new());
        }
    }

    /// Re-sends that were under way and equal so far: their records are in no file of their own.
    fn compared(&mut self, files: &[StoredFile]) -> Vec<StoredFile> {
        let compared = self.rounds.compared.values();
        let stored = compared.filter_map(|compared| {
            let of_name =
                |file: &&StoredFile| unhex(&compared.name_hex).is_some_and(|name| name == file.name);
            let fits = |file: &&StoredFile| {
                let is_it = compared.file.as_ref().is_none_or(|name| *name == file.manifest.file);
                is_it && file.manifest.source == Source::Kafka && file.len() >= compared.received
            };
            let mut stored = files.iter().filter(of_name).find(fits)?.clone();
            stored.manifest.segments.clone_from(&compared.segments);
            stored.compared = true;
            Some(stored)
        });
        stored.collect()
    }

    fn problem(&mut self, file: &str, what: String) {
        self.problems.push(Problem { folder: self.dir.path().to_owned(), file: file.to_owned(), what });
    }
}

/// The stream's name, if the file is one of that name.
fn name_of(manifest: &Manifest) -> Option<Vec<u8>> {
    let name = match &manifest.name_hex {
        Some(hex) => unhex(hex)?,
        None => manifest.name.clone().into_bytes(),
    };
    let fits = part_of(&manifest.file).is_some()
        && part_file_name(&file_name(&name), manifest.part) == manifest.file;
    fits.then_some(name)
}
