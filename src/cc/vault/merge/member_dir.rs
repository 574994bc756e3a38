//! Reads the output directory of one group member, also after a crash. Determines what each file contains by
//! the same rules as the rollback at a start. Read-only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::MergeProblem;
use crate::cc::vault::checkpoint::{self, Checkpoint, FileCheckpoint, PartitionCheckpoint, ReadRange};
use crate::cc::vault::dir::LockedDir;
use crate::cc::vault::journal::{self, JournalEntry};
use crate::cc::vault::manifest::{Manifest, ManifestState, RecordSegment, SUFFIX};
use crate::cc::wire::name::{file_name, parse_part_file_name, part_file_name};
use crate::runtime::hex;
use crate::{Error, Result};

/// The output directory of one group member.
#[derive(Debug)]
pub(super) struct MemberDir {
    /// The directory, locked against writers.
    pub dir: LockedDir,
    pub files: Vec<StoredFile>,
    /// Offset ranges read by the member.
    pub read_ranges: Vec<ReadRange>,
    /// Length of the dead letters that counts. `None`: all of it.
    pub dead_letter_bytes: Option<u64>,
}

/// A stream file of a member.
#[derive(Clone, Debug)]
pub(super) struct StoredFile {
    pub name: Vec<u8>,
    /// Manifest of the file. For an open file it has the segments of the last checkpoint.
    pub manifest: Manifest,
    /// Length of the file that counts.
    pub bytes: u64,
    /// Partial packet that follows it.
    pub pending: Vec<u8>,
    /// Whether the manifest is final.
    pub is_closed: bool,
    /// Whether this entry describes a re-send that was equal to the file so far. Its records are in no
    /// manifest yet.
    pub is_compared: bool,
}

impl StoredFile {
    /// Returns the number of bytes of the stream.
    pub(super) fn len(&self) -> u64 {
        self.bytes + self.pending.len() as u64
    }

    /// Reads up to `buffer.len()` bytes of the stream at offset `at`. `file` is the open file.
    pub(super) fn read_at(&self, file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
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

    /// Returns the segments. Bytes of omitted segments are added to the one before.
    pub(super) fn segments(&self) -> Vec<RecordSegment> {
        let mut segments = self.manifest.segments.clone();
        let mut end = self.len();
        for segment in segments.iter_mut().rev().filter(|segment| !segment.compared) {
            if !self.is_compared {
                segment.bytes = end.saturating_sub(segment.at);
            }
            end = segment.at.min(end);
        }
        segments
    }
}

impl MemberDir {
    /// Reads a directory. Files that cannot be used are added to `problems`.
    pub(super) fn open(path: &Path, problems: &mut Vec<MergeProblem>) -> Result<MemberDir> {
        let dir = LockedDir::open(path)?;
        let failed = |act| Error::path(act, path);
        let journal = dir.open_meta(journal::FILE).map_err(failed("read the journal in"))?;
        let journal = journal.map_or_else(|| Ok(BTreeMap::new()), journal::read_unclosed);
        let checkpoint = dir.open_meta(checkpoint::FILE).map_err(failed("read the checkpoints in"))?;
        let checkpoint = checkpoint.map_or_else(|| Ok(Checkpoint::default()), Checkpoint::read_from);
        let mut reader = MemberDirReader {
            dir: &dir,
            journal: journal.map_err(failed("read the journal in"))?,
            checkpoint: checkpoint.map_err(failed("read the checkpoints in"))?,
            problems,
        };
        let files = reader.read_files().map_err(failed("read the directory"))?;
        reader.report_unknown_offsets();
        let read_ranges = reader.checkpoint.read_ranges();
        let dead_letter_bytes = reader.checkpoint.dead_letter_bytes;
        Ok(MemberDir { dir, files, read_ranges, dead_letter_bytes })
    }
}

struct MemberDirReader<'a> {
    dir: &'a LockedDir,
    journal: BTreeMap<String, JournalEntry>,
    checkpoint: Checkpoint,
    problems: &'a mut Vec<MergeProblem>,
}

impl MemberDirReader<'_> {
    fn read_files(&mut self) -> io::Result<Vec<StoredFile>> {
        let mut names: Vec<String> = self.dir.file_names()?;
        names.iter_mut().for_each(|name| {
            name.truncate(name.strip_suffix(SUFFIX).map_or(name.len(), str::len));
        });
        names.sort();
        names.dedup();
        let mut files = Vec::new();
        for file in names {
            match self.read_file(&file) {
                Ok(Some(found)) => files.push(found),
                Ok(None) => {}
                Err(error) => self.add_problem(&file, format!("it cannot be used: {error}")),
            }
        }
        let compared = self.compared_files(&files);
        files.extend(compared);
        Ok(files)
    }

    fn read_file(&mut self, file: &str) -> io::Result<Option<StoredFile>> {
        let entry = self.journal.get(file).cloned();
        let found = match self.dir.manifest(file) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData && entry.is_some() => None,
            found => found?,
        };
        let from_journal = |entry: &JournalEntry| {
            let name = hex::decode(&entry.name_hex)?;
            Some(Manifest::new(&name, entry.file.clone(), entry.part, entry.source))
        };
        let Some(manifest) = found.or_else(|| entry.as_ref().and_then(from_journal)) else {
            self.add_problem(file, "it has no manifest and is not merged".to_owned());
            return Ok(None);
        };
        let bytes = match self.dir.open_to_read(file) {
            Ok(file) => file.metadata()?.len(),
            // The crash happened before the file was created: nothing had been received.
            Err(error) if error.kind() == io::ErrorKind::NotFound && entry.is_some() => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(name) = stream_name(&manifest) else {
            self.add_problem(file, "its manifest belongs to a stream with another file name".to_owned());
            return Ok(None);
        };
        if manifest.lost_bytes > 0 {
            self.add_problem(
                file,
                format!("{} bytes of it could not be written when they were received", manifest.lost_bytes),
            );
        }
        let closed = manifest.state != ManifestState::Open && entry.is_none();
        let mut stored =
            StoredFile { name, manifest, bytes, pending: Vec::new(), is_closed: closed, is_compared: false };
        match entry.filter(|entry| entry.source.is_kafka()) {
            Some(entry) => self.roll_back(&mut stored, &entry),
            None if closed && stored.manifest.bytes != bytes => {
                let expected = stored.manifest.bytes;
                self.add_problem(file, format!("it has {bytes} bytes, but its manifest says {expected}"));
                (stored.bytes, stored.is_closed) = (bytes.min(expected), false);
            }
            None => {}
        }
        Ok(Some(stored))
    }

    fn report_unknown_offsets(&mut self) {
        let unknown = |known: &PartitionCheckpoint| {
            let (first, next) = known.unknown?;
            Some(format!(
                "{}-{}: offsets {first} to {}: it is not known which of them it has",
                known.topic,
                known.partition,
                next - 1
            ))
        };
        let found: Vec<String> = self.checkpoint.partitions.iter().filter_map(unknown).collect();
        found.into_iter().for_each(|reason| self.add_problem("", reason));
    }

    /// Limits an open Kafka stream file to what its last checkpoint includes.
    fn roll_back(&mut self, stored: &mut StoredFile, entry: &JournalEntry) {
        let found = stored.bytes;
        match self.checkpoint.files.get(&entry.file) {
            Some(FileCheckpoint { bytes, pending, segments, .. }) => {
                stored.bytes = *bytes;
                stored.pending = hex::decode(pending).unwrap_or_default();
                stored.manifest.segments.clone_from(segments);
            }
            None => stored.bytes = entry.bytes,
        }
        if found < stored.bytes {
            let reason = format!("it has {found} bytes, but its checkpoint says {}", stored.bytes);
            self.add_problem(&entry.file, reason);
            (stored.bytes, stored.pending) = (found, Vec::new());
        }
    }

    /// Returns entries for re-sends that were equal so far and have no file of their own.
    fn compared_files(&mut self, files: &[StoredFile]) -> Vec<StoredFile> {
        let compared = self.checkpoint.compared.values();
        let stored = compared.filter_map(|compared| {
            let of_name =
                |file: &&StoredFile| hex::decode(&compared.name_hex).is_some_and(|name| name == file.name);
            let fits = |file: &&StoredFile| {
                let is_it = compared.file.as_ref().is_none_or(|name| *name == file.manifest.file);
                is_it && file.manifest.source.is_kafka() && file.len() >= compared.received
            };
            let mut stored = files.iter().filter(of_name).find(fits)?.clone();
            stored.manifest.segments.clone_from(&compared.segments);
            stored.is_compared = true;
            Some(stored)
        });
        stored.collect()
    }

    fn add_problem(&mut self, file: &str, what: String) {
        self.problems.push(MergeProblem {
            dir: self.dir.path().to_owned(),
            file: file.to_owned(),
            reason: what,
        });
    }
}

/// Returns the stream's name if the file name follows from it.
fn stream_name(manifest: &Manifest) -> Option<Vec<u8>> {
    let name = match &manifest.name_hex {
        Some(name_hex) => hex::decode(name_hex)?,
        None => manifest.name.clone().into_bytes(),
    };
    let fits = parse_part_file_name(&manifest.file).is_some()
        && part_file_name(&file_name(&name), manifest.part) == manifest.file;
    fits.then_some(name)
}
