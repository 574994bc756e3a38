//! Sorts more records than fit into memory: writes sorted runs to temporary files and merges them. Runs on the main thread.
//!
//! A record is a byte string, and records are compared as byte strings. The temporary files have no name, so none
//! remains after a crash.
//!
//! Invariants: the memory stays within `memory_bytes` for any number of records. Each level of merging keeps fewer than
//! `FAN_IN_MAX` files open.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::runtime::create::create_in_error;
use crate::{Error, Result};

/// The smallest amount of memory with which merging makes progress.
pub(crate) const MEMORY_BYTES_MIN: u64 = 64 << 10;

/// The largest amount of memory that 32-bit offsets can address.
pub(crate) const MEMORY_BYTES_MAX: u64 = 4 << 30;

const RECORD_BYTES_MAX: usize = 64 << 10;

/// The divisor of the memory: one part of this many is for merging.
const MERGE_SHARE: usize = 4;

/// The divisor of the rest: one part of this many is for the entries, since a record has about six times as many bytes as
/// its entry.
const ENTRIES_SHARE: usize = 7;

/// Limits on the number of runs that are merged at once.
const FAN_IN_MAX: usize = 64;
const FAN_IN_MIN: usize = 4;

/// Limits on the size of the buffer for reading a run.
const BUFFER_BYTES_MAX: usize = 1 << 20;
const BUFFER_BYTES_MIN: usize = 4 << 10;

/// The position of a record in `arena`, with the first bytes of the record, which nearly always decide a comparison.
#[derive(Clone, Copy)]
struct RecordEntry {
    prefix: u64,
    at: u32,
    len: u32,
}

/// Memory and directory for sorting.
#[derive(Clone, Debug)]
pub(crate) struct SortSettings {
    /// The directory of temporary files.
    pub(crate) dir: PathBuf,
    pub(crate) memory_bytes: u64,
}

impl SortSettings {
    pub(crate) fn with_memory(&self, memory_bytes: u64) -> SortSettings {
        SortSettings { memory_bytes, ..self.clone() }
    }
}

/// Collects records to sort.
pub(crate) struct ExternalSorter {
    dir: PathBuf,
    arena: Vec<u8>,
    entries: Vec<RecordEntry>,
    fan_in: usize,
    buffer_bytes: usize,
    /// The runs, indexed by how often they were merged.
    levels: Vec<Vec<File>>,
    runs: u64,
}

/// Iterates over the sorted records.
pub(crate) struct SortedRecords {
    source: SortedSource,
    /// The number of runs that were written to files.
    pub runs: u64,
}

enum SortedSource {
    Memory { arena: Vec<u8>, entries: std::vec::IntoIter<RecordEntry> },
    Merge(RunMerge),
}

struct RunMerge {
    dir: PathBuf,
    heads: BinaryHeap<Reverse<RunHead>>,
    /// True if the record of the first head was already returned.
    is_first_returned: bool,
}

/// The next record of a run.
struct RunHead {
    record: Vec<u8>,
    run: BufReader<File>,
}

impl PartialEq for RunHead {
    fn eq(&self, other: &RunHead) -> bool {
        self.record == other.record
    }
}

impl Eq for RunHead {}

impl PartialOrd for RunHead {
    fn partial_cmp(&self, other: &RunHead) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RunHead {
    fn cmp(&self, other: &RunHead) -> std::cmp::Ordering {
        self.record.cmp(&other.record)
    }
}

impl ExternalSorter {
    pub(crate) fn new(settings: &SortSettings) -> ExternalSorter {
        let memory_bytes = settings.memory_bytes.clamp(MEMORY_BYTES_MIN, MEMORY_BYTES_MAX);
        let memory_bytes = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
        let merge_bytes = memory_bytes / MERGE_SHARE;
        let records_bytes = memory_bytes - merge_bytes;
        let entries_bytes = records_bytes / ENTRIES_SHARE;
        let fan_in = (merge_bytes / BUFFER_BYTES_MAX).clamp(FAN_IN_MIN, FAN_IN_MAX);
        ExternalSorter {
            dir: settings.dir.clone(),
            // The system allocates a page only when it is first used.
            arena: Vec::with_capacity(records_bytes - entries_bytes),
            entries: Vec::with_capacity(entries_bytes / size_of::<RecordEntry>()),
            fan_in,
            buffer_bytes: (merge_bytes / (fan_in + 1)).clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX),
            levels: Vec::new(),
            runs: 0,
        }
    }

    pub(crate) fn push(&mut self, record: &[u8]) -> Result<()> {
        let is_full = self.arena.len() + record.len() > self.arena.capacity()
            || self.entries.len() == self.entries.capacity();
        if is_full && !self.entries.is_empty() {
            self.spill()?;
        }
        let (Ok(at), Ok(len)) = (u32::try_from(self.arena.len()), u32::try_from(record.len())) else {
            return Err(Error::path("sort in", &self.dir)(io::Error::other("a record is too long")));
        };
        let mut prefix = [0; 8];
        let prefix_len = record.len().min(prefix.len());
        prefix[..prefix_len].copy_from_slice(&record[..prefix_len]);
        self.arena.extend_from_slice(record);
        self.entries.push(RecordEntry { prefix: u64::from_be_bytes(prefix), at, len });
        Ok(())
    }

    /// Sorts the records.
    pub(crate) fn finish(mut self) -> Result<SortedRecords> {
        if self.levels.is_empty() {
            sort(&self.arena, &mut self.entries);
            let source = SortedSource::Memory { arena: self.arena, entries: self.entries.into_iter() };
            return Ok(SortedRecords { source, runs: 0 });
        }
        self.spill()?;
        // Merging does not need this memory.
        (self.arena, self.entries) = (Vec::new(), Vec::new());
        let runs = self.runs;
        let ExternalSorter { dir, levels, fan_in, buffer_bytes, .. } = self;
        // Small runs are merged first, so that a run that was merged often is not rewritten because of them.
        let mut files: Vec<File> = levels.into_iter().flatten().collect();
        while files.len() > fan_in {
            let first: Vec<File> = files.drain(..fan_in).collect();
            files.push(merge_runs(&dir, first, buffer_bytes)?);
        }
        Ok(SortedRecords { source: SortedSource::Merge(RunMerge::new(&dir, files, buffer_bytes)?), runs })
    }

    /// Writes the records in memory to a run.
    fn spill(&mut self) -> Result<()> {
        sort(&self.arena, &mut self.entries);
        let file = tempfile::tempfile_in(&self.dir).map_err(create_in_error(&self.dir))?;
        let mut out = BufWriter::with_capacity(self.buffer_bytes, file);
        for entry in &self.entries {
            write(&mut out, record_bytes(&self.arena, *entry)).map_err(Error::path(WRITE, &self.dir))?;
        }
        let file = finish_run(out).map_err(Error::path(WRITE, &self.dir))?;
        self.arena.clear();
        self.entries.clear();
        self.runs += 1;
        self.add_run(file)
    }

    /// Adds a run. `fan_in` runs of one level are merged into one run of the next level.
    fn add_run(&mut self, mut file: File) -> Result<()> {
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(file);
            if self.levels[level].len() < self.fan_in {
                break;
            }
            file = merge_runs(&self.dir, std::mem::take(&mut self.levels[level]), self.buffer_bytes)?;
        }
        Ok(())
    }
}

const WRITE: &str = "write a temporary file in";
const READ: &str = "read a temporary file in";

impl SortedRecords {
    /// Returns the next record, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>> {
        match &mut self.source {
            SortedSource::Memory { arena, entries } => {
                Ok(entries.next().map(|entry| record_bytes(arena, entry)))
            }
            SortedSource::Merge(merge) => merge.next(),
        }
    }
}

impl RunMerge {
    fn new(dir: &Path, files: Vec<File>, buffer_bytes: usize) -> Result<RunMerge> {
        let mut heads = BinaryHeap::with_capacity(files.len());
        for file in files {
            let mut head = RunHead { record: Vec::new(), run: BufReader::with_capacity(buffer_bytes, file) };
            if head.advance().map_err(Error::path(READ, dir))? {
                heads.push(Reverse(head));
            }
        }
        Ok(RunMerge { dir: dir.to_owned(), heads, is_first_returned: false })
    }

    fn next(&mut self) -> Result<Option<&[u8]>> {
        if std::mem::replace(&mut self.is_first_returned, true)
            && let Some(mut first) = self.heads.peek_mut()
            && !first.0.advance().map_err(Error::path(READ, &self.dir))?
        {
            PeekMut::pop(first);
        }
        Ok(self.heads.peek().map(|first| first.0.record.as_slice()))
    }
}

impl RunHead {
    /// Reads the next record. Returns false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let mut len = [0; 4];
        match self.run.read_exact(&mut len) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        let len = u32::from_le_bytes(len) as usize;
        if len > RECORD_BYTES_MAX {
            return Err(io::Error::other("another process has changed it"));
        }
        self.record.resize(len, 0);
        self.run.read_exact(&mut self.record)?;
        Ok(true)
    }
}

/// Merges runs into one run.
fn merge_runs(dir: &Path, files: Vec<File>, buffer_bytes: usize) -> Result<File> {
    let file = tempfile::tempfile_in(dir).map_err(create_in_error(dir))?;
    let mut out = BufWriter::with_capacity(buffer_bytes, file);
    let mut merge = RunMerge::new(dir, files, buffer_bytes)?;
    while let Some(record) = merge.next()? {
        write(&mut out, record).map_err(Error::path(WRITE, dir))?;
    }
    finish_run(out).map_err(Error::path(WRITE, dir))
}

fn write(out: &mut impl Write, record: &[u8]) -> io::Result<()> {
    out.write_all(&(record.len() as u32).to_le_bytes())?;
    out.write_all(record)
}

/// Flushes a run and rewinds its file.
fn finish_run(out: BufWriter<File>) -> io::Result<File> {
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

fn sort(arena: &[u8], entries: &mut [RecordEntry]) {
    entries.sort_unstable_by(|one, other| {
        one.prefix.cmp(&other.prefix).then_with(|| record_bytes(arena, *one).cmp(record_bytes(arena, *other)))
    });
}

fn record_bytes(arena: &[u8], entry: RecordEntry) -> &[u8] {
    &arena[entry.at as usize..][..entry.len as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sorts the records, checks the result and returns the number of runs.
    fn check(records: &[Vec<u8>], memory_bytes: u64) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut sorter = ExternalSorter::new(&SortSettings { dir: dir.path().to_owned(), memory_bytes });
        for record in records {
            sorter.push(record).unwrap();
        }
        let mut sorted = sorter.finish().unwrap();
        let mut expected = records.to_vec();
        expected.sort();
        for record in &expected {
            assert_eq!(sorted.next().unwrap(), Some(record.as_slice()));
        }
        assert_eq!(sorted.next().unwrap(), None);
        assert_eq!(sorted.next().unwrap(), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "files have no names");
        sorted.runs
    }

    /// Returns unordered records of many lengths, some of them equal.
    fn records(count: u64, longest: usize) -> Vec<Vec<u8>> {
        let one = |nth: u64| {
            let mixed = (nth % (count - count / 10)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut record = mixed.to_be_bytes()[..(mixed % 9) as usize].to_vec();
            record.resize(record.len() + (mixed >> 32) as usize % longest, 7);
            record
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn records_that_fit_into_memory_need_no_file() {
        assert_eq!(check(&[], 1), 0);
        assert_eq!(check(&records(100, 30), MEMORY_BYTES_MIN), 0);
        // Both sides of the limit: the last record that fits, and one more.
        let records_bytes = MEMORY_BYTES_MIN as usize - MEMORY_BYTES_MIN as usize / MERGE_SHARE;
        let fit = records_bytes / ENTRIES_SHARE / size_of::<RecordEntry>();
        assert_eq!(check(&vec![b"a".to_vec(); fit], MEMORY_BYTES_MIN), 0);
        assert_eq!(check(&vec![b"a".to_vec(); fit + 1], MEMORY_BYTES_MIN), 2);
    }

    #[test]
    fn runs_are_merged_on_several_levels() {
        let runs = check(&records(60_000, 100), MEMORY_BYTES_MIN);
        assert!(runs > FAN_IN_MIN.pow(3) as u64, "{runs}");
        assert!(check(&records(30_000, 100), 1 << 20) > 1);
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let mut sorter =
            ExternalSorter::new(&SortSettings { dir: PathBuf::from("/nonexistent"), memory_bytes: 0 });
        let error = (0..10_000).find_map(|_| sorter.push(b"a").err()).unwrap();
        assert!(error.to_string().starts_with("cannot create a temporary file in /nonexistent"), "{error}");
    }
}
