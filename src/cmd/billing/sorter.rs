//! Sorts records that do not fit into memory: sorted runs in temporary files, merged. Main thread.
//!
//! Records are bytes, and compare as bytes do. The files have no name, so a crash leaves none behind.
//!
//! Invariant: `memory_bytes` bounds what is held, however many records come; the files open at once are bounded by a few
//! dozen a level of merging.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Memory below which sorting does not get on.
pub const MEMORY_BYTES_MIN: u64 = 64 << 10;

/// Memory above which places in it do not fit their numbers.
pub const MEMORY_BYTES_MAX: u64 = 4 << 30;

/// A record.
const RECORD_BYTES_MAX: usize = 64 << 10;

/// The part of the memory that merging takes.
const MERGE_SHARE: usize = 4;

/// The part of the rest that the places of records take; they have about six times as many bytes.
const ENTRIES_SHARE: usize = 7;

/// Runs that are merged at once, at most and at least.
const FAN_IN_MAX: usize = 64;
const FAN_IN_MIN: usize = 4;

/// What a run is read with, at most and at least.
const BUFFER_BYTES_MAX: usize = 1 << 20;
const BUFFER_BYTES_MIN: usize = 4 << 10;

/// A record in `arena`, with its begin, which nearly always tells the order.
#[derive(Clone, Copy)]
struct Entry {
    begin: u64,
    at: u32,
    len: u32,
}

/// Takes records.
pub struct Sorter {
    dir: PathBuf,
    arena: Vec<u8>,
    entries: Vec<Entry>,
    fan_in: usize,
    buffer_bytes: usize,
    /// Runs by how often they were merged.
    levels: Vec<Vec<File>>,
    runs: u64,
}

/// Gives the records in their order.
pub struct Sorted {
    source: Source,
    /// Runs that were written.
    pub runs: u64,
}

enum Source {
    Memory { arena: Vec<u8>, entries: std::vec::IntoIter<Entry> },
    Merge(Merge),
}

struct Merge {
    dir: PathBuf,
    heads: BinaryHeap<Reverse<Head>>,
    /// The first head's record was given.
    is_given: bool,
}

/// The next record of a run.
struct Head {
    record: Vec<u8>,
    run: BufReader<File>,
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.record == other.record
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> std::cmp::Ordering {
        self.record.cmp(&other.record)
    }
}

impl Sorter {
    /// Temporary files go into `dir`.
    pub fn new(dir: &Path, memory_bytes: u64) -> Sorter {
        let memory_bytes = memory_bytes.clamp(MEMORY_BYTES_MIN, MEMORY_BYTES_MAX);
        let memory_bytes = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
        let merge_bytes = memory_bytes / MERGE_SHARE;
        let records_bytes = memory_bytes - merge_bytes;
        let entries_bytes = records_bytes / ENTRIES_SHARE;
        let fan_in = (merge_bytes / BUFFER_BYTES_MAX).clamp(FAN_IN_MIN, FAN_IN_MAX);
        Sorter {
            dir: dir.to_owned(),
            // Pages that are not used yet take no memory.
            arena: Vec::with_capacity(records_bytes - entries_bytes),
            entries: Vec::with_capacity(entries_bytes / size_of::<Entry>()),
            fan_in,
            buffer_bytes: (merge_bytes / (fan_in + 1)).clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX),
            levels: Vec::new(),
            runs: 0,
        }
    }

    /// Takes a record.
    pub fn push(&mut self, record: &[u8]) -> Result<()> {
        let is_full = self.arena.len() + record.len() > self.arena.capacity()
            || self.entries.len() == self.entries.capacity();
        if is_full && !self.entries.is_empty() {
            self.spill()?;
        }
        let (Ok(at), Ok(len)) = (u32::try_from(self.arena.len()), u32::try_from(record.len())) else {
            return Err(Error::path("sort in", &self.dir)(io::Error::other("a record is too long")));
        };
        let mut begin = [0; 8];
        let known = record.len().min(begin.len());
        begin[..known].copy_from_slice(&record[..known]);
        self.arena.extend_from_slice(record);
        self.entries.push(Entry { begin: u64::from_be_bytes(begin), at, len });
        Ok(())
    }

    /// All records were pushed.
    pub fn finish(mut self) -> Result<Sorted> {
        if self.levels.is_empty() {
            sort(&self.arena, &mut self.entries);
            let source = Source::Memory { arena: self.arena, entries: self.entries.into_iter() };
            return Ok(Sorted { source, runs: 0 });
        }
        self.spill()?;
        // Merging needs none of it.
        (self.arena, self.entries) = (Vec::new(), Vec::new());
        let runs = self.runs;
        let Sorter { dir, levels, fan_in, buffer_bytes, .. } = self;
        // Small ones first: what was merged often is not read and written once more for them.
        let mut files: Vec<File> = levels.into_iter().flatten().collect();
        while files.len() > fan_in {
            let first: Vec<File> = files.drain(..fan_in).collect();
            files.push(merge(&dir, first, buffer_bytes)?);
        }
        Ok(Sorted { source: Source::Merge(Merge::new(&dir, files, buffer_bytes)?), runs })
    }

    /// Writes what is in memory as a run.
    fn spill(&mut self) -> Result<()> {
        sort(&self.arena, &mut self.entries);
        let file =
            tempfile::tempfile_in(&self.dir).map_err(Error::path("make a temporary file in", &self.dir))?;
        let mut out = BufWriter::with_capacity(self.buffer_bytes, file);
        for entry in &self.entries {
            write(&mut out, of(&self.arena, *entry)).map_err(Error::path(WRITE, &self.dir))?;
        }
        let file = ended(out).map_err(Error::path(WRITE, &self.dir))?;
        self.arena.clear();
        self.entries.clear();
        self.runs += 1;
        self.keep(file)
    }

    /// Keeps a run; as many as are merged at once become one of the next level.
    fn keep(&mut self, mut file: File) -> Result<()> {
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(file);
            if self.levels[level].len() < self.fan_in {
                break;
            }
            file = merge(&self.dir, std::mem::take(&mut self.levels[level]), self.buffer_bytes)?;
        }
        Ok(())
    }
}

const WRITE: &str = "write a temporary file in";
const READ: &str = "read a temporary file in";

impl Sorted {
    /// The next record; none at the end.
    pub fn next(&mut self) -> Result<Option<&[u8]>> {
        match &mut self.source {
            Source::Memory { arena, entries } => Ok(entries.next().map(|entry| of(arena, entry))),
            Source::Merge(merge) => merge.next(),
        }
    }
}

impl Merge {
    fn new(dir: &Path, files: Vec<File>, buffer_bytes: usize) -> Result<Merge> {
        let mut heads = BinaryHeap::with_capacity(files.len());
        for file in files {
            let mut head = Head { record: Vec::new(), run: BufReader::with_capacity(buffer_bytes, file) };
            if head.advance().map_err(Error::path(READ, dir))? {
                heads.push(Reverse(head));
            }
        }
        Ok(Merge { dir: dir.to_owned(), heads, is_given: false })
    }

    fn next(&mut self) -> Result<Option<&[u8]>> {
        if std::mem::replace(&mut self.is_given, true)
            && let Some(mut first) = self.heads.peek_mut()
            && !first.0.advance().map_err(Error::path(READ, &self.dir))?
        {
            PeekMut::pop(first);
        }
        Ok(self.heads.peek().map(|first| first.0.record.as_slice()))
    }
}

impl Head {
    /// Reads the next record; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let mut len = [0; 4];
        match self.run.read_exact(&mut len) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        let len = u32::from_le_bytes(len) as usize;
        if len > RECORD_BYTES_MAX {
            return Err(io::Error::other("it was changed"));
        }
        self.record.resize(len, 0);
        self.run.read_exact(&mut self.record)?;
        Ok(true)
    }
}

/// Merges runs into one.
fn merge(dir: &Path, files: Vec<File>, buffer_bytes: usize) -> Result<File> {
    let file = tempfile::tempfile_in(dir).map_err(Error::path("make a temporary file in", dir))?;
    let mut out = BufWriter::with_capacity(buffer_bytes, file);
    let mut merge = Merge::new(dir, files, buffer_bytes)?;
    while let Some(record) = merge.next()? {
        write(&mut out, record).map_err(Error::path(WRITE, dir))?;
    }
    ended(out).map_err(Error::path(WRITE, dir))
}

fn write(out: &mut impl Write, record: &[u8]) -> io::Result<()> {
    out.write_all(&(record.len() as u32).to_le_bytes())?;
    out.write_all(record)
}

/// The file, at its begin.
fn ended(out: BufWriter<File>) -> io::Result<File> {
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

fn sort(arena: &[u8], entries: &mut [Entry]) {
    entries.sort_unstable_by(|one, other| {
        one.begin.cmp(&other.begin).then_with(|| of(arena, *one).cmp(of(arena, *other)))
    });
}

fn of(arena: &[u8], entry: Entry) -> &[u8] {
    &arena[entry.at as usize..][..entry.len as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sorts so many records and gives how many runs that took.
    fn check(records: &[Vec<u8>], memory_bytes: u64) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(dir.path(), memory_bytes);
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

    /// Different numbers in no order, with some that are equal, of many lengths.
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
    fn what_fits_into_memory_needs_no_file() {
        assert_eq!(check(&[], 1), 0);
        assert_eq!(check(&records(100, 30), MEMORY_BYTES_MIN), 0);
        // The last record that fits, and the first that does not.
        let records_bytes = MEMORY_BYTES_MIN as usize - MEMORY_BYTES_MIN as usize / MERGE_SHARE;
        let fit = records_bytes / ENTRIES_SHARE / size_of::<Entry>();
        assert_eq!(check(&vec![b"a".to_vec(); fit], MEMORY_BYTES_MIN), 0);
        assert_eq!(check(&vec![b"a".to_vec(); fit + 1], MEMORY_BYTES_MIN), 2);
    }

    #[test]
    fn many_runs_on_many_levels() {
        let runs = check(&records(60_000, 100), MEMORY_BYTES_MIN);
        assert!(runs > FAN_IN_MIN.pow(3) as u64, "{runs}");
        assert!(check(&records(30_000, 100), 1 << 20) > 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let mut sorter = Sorter::new(Path::new("/nonexistent"), 0);
        let error = (0..10_000).find_map(|_| sorter.push(b"a").err()).unwrap();
        assert!(error.to_string().starts_with("cannot make a temporary file in /nonexistent"), "{error}");
    }
}
