//! Checkpoints of Kafka streams, stored in `.lea/checkpoints.jsonl`. A checkpoint is a batch of lines: the
//! state of each changed file, and for each partition the offset up to which its records are in the files. A
//! batch counts only if its last line is complete.
//!
//! The syncer thread appends a batch after it has called fsync on the files. At the next start each file is
//! rolled back to its last checkpoint and the partitions are read from there, so no record is lost and none
//! is stored twice.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crossbeam_channel::Sender;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::dir::{META_DIR, VaultDir};
use super::manifest::{OffsetGap, RecordSegment};
use super::offset_set::{Gap, OffsetRange, OffsetSet};

/// Name of the checkpoint log in `.lea`.
pub(crate) const FILE: &str = "checkpoints.jsonl";

/// A line holds at most a partial packet (a pcapng block has at most 16 MiB) in hexadecimal and a thousand
/// segments.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// State of a stream file at a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileCheckpoint {
    pub file: String,
    /// Length of the file.
    pub bytes: u64,
    /// Partial packet that was not yet written to the file, in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pending: String,
    /// Packet position and hash after all received bytes (see `resume_state`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_state: Option<String>,
    /// Records that the file consists of.
    pub segments: Vec<RecordSegment>,
}

impl FileCheckpoint {
    /// Returns the number of bytes received of the stream, including the partial packet.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.pending.len() as u64 / 2)
    }
}

/// A re-send that was equal to the stored stream so far, at a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ComparisonCheckpoint {
    /// Name of the stream in hexadecimal.
    pub name_hex: String,
    /// Number of bytes that were equal.
    pub received: u64,
    /// Records that these bytes came in.
    pub segments: Vec<RecordSegment>,
    /// A stored file that contains these bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Offset up to which a partition's records are in the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionCheckpoint {
    pub topic: String,
    /// Topic id, if the broker reports one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    pub partition: i32,
    /// Offset after the record that was stored last.
    pub next_offset: i64,
    /// Offset from which on this directory has all records below `next_offset`. `None` before the first
    /// record. The other ranges are in [`Checkpoint::reads`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_offset: Option<i64>,
    /// Whether reading started there because the consumer group had committed that offset.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken_over: bool,
    /// Time when `first_offset` was read: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// Highest offset that the consumer group is known to have committed.
    #[serde(default)]
    pub acknowledged: i64,
    /// Whether a consumer has read the partition. Otherwise all records are from dumps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_live: bool,
    /// First and next offset of an interval of which it is not known what the directory has (see `offset_set`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<(i64, i64)>,
}

/// A range of offsets of one partition that a directory has read without a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReadRange {
    pub topic: String,
    /// Topic id, if the broker reports one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    pub partition: i32,
    pub first_offset: i64,
    /// Offset after the last one of the range.
    pub next_offset: i64,
    /// Whether reading started there because the consumer group had committed that offset, so another member
    /// has read the offsets below it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken_over: bool,
    /// Time when `first_offset` was read: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// Whether the partition's offsets were used again for other records since, so that the range no longer shows
    /// which records the directory has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_replaced: bool,
}

impl ReadRange {
    pub(crate) fn offsets(&self) -> OffsetRange {
        OffsetRange {
            first: self.first_offset,
            next: self.next_offset,
            taken_over: self.taken_over,
            since: self.since.clone(),
        }
    }
}

impl PartitionCheckpoint {
    /// Returns the range that was read last, or `None` if nothing was.
    pub(crate) fn read_range(&self) -> Option<ReadRange> {
        let first = self.first_offset.filter(|first| *first < self.next_offset)?;
        let (taken_over, since) = (self.taken_over, self.since.clone());
        Some(self.range_of(OffsetRange { first, next: self.next_offset, taken_over, since }))
    }

    /// Returns a range of this partition.
    pub(crate) fn range_of(&self, range: OffsetRange) -> ReadRange {
        ReadRange {
            topic: self.topic.clone(),
            topic_id: self.topic_id.clone(),
            partition: self.partition,
            first_offset: range.first,
            next_offset: range.next,
            taken_over: range.taken_over,
            since: range.since,
            is_replaced: false,
        }
    }

    /// Returns a record of this partition as a segment, without its place in a file.
    pub(crate) fn segment_of(&self, offset: i64, bytes: u64) -> RecordSegment {
        RecordSegment {
            topic: self.topic.clone(),
            topic_id: self.topic_id.clone(),
            partition: self.partition,
            first_offset: offset,
            next_offset: offset + 1,
            at: 0,
            bytes,
            compared: false,
            begins_capture: false,
            after_gap: false,
        }
    }

    /// Returns a gap of this partition.
    pub(crate) fn gap_of(&self, gap: &Gap) -> OffsetGap {
        OffsetGap {
            topic: self.topic.clone(),
            topic_id: self.topic_id.clone(),
            partition: self.partition,
            first_offset: gap.first,
            next_offset: gap.next,
            taken_over: gap.taken_over,
        }
    }

    /// Returns whether a segment consists of records of this partition.
    pub(crate) fn is_segment(&self, segment: &RecordSegment) -> bool {
        segment.partition == self.partition
            && segment.topic == self.topic
            && (segment.topic_id == self.topic_id || segment.topic_id.is_none())
    }

    /// Returns whether a range is one of this partition.
    pub(crate) fn is_range(&self, range: &ReadRange) -> bool {
        !range.is_replaced
            && range.partition == self.partition
            && range.topic == self.topic
            && (range.topic_id == self.topic_id || range.topic_id.is_none())
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CheckpointLine {
    File(FileCheckpoint),
    Compared(ComparisonCheckpoint),
    /// A range that is no longer the one read last. It is in the next batch only, and in each batch that replaces the log.
    Read(ReadRange),
    /// Last line of a batch. It names all partitions. Each batch also repeats all comparisons under way.
    Round {
        partitions: Vec<PartitionCheckpoint>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dead_letter_bytes: Option<u64>,
    },
}

/// Contents of the checkpoint log after replaying all batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Last state of each file, by file name.
    pub files: BTreeMap<String, FileCheckpoint>,
    /// Comparisons under way, by stream name in hexadecimal.
    pub compared: BTreeMap<String, ComparisonCheckpoint>,
    pub partitions: Vec<PartitionCheckpoint>,
    /// Other ranges of offsets that were read. They may overlap: the offsets of a partition are their union.
    pub reads: Vec<ReadRange>,
    /// Length of the dead-letter file. `None` if the last process shut down cleanly; other processes may have
    /// appended to the file since.
    pub dead_letter_bytes: Option<u64>,
}

impl Checkpoint {
    /// Reads the checkpoint log of the last process.
    pub(crate) fn read(dir: &VaultDir) -> io::Result<Checkpoint> {
        Checkpoint::read_from(dir.meta_append(FILE)?)
    }

    /// Reads the batches in an open checkpoint log.
    pub(crate) fn read_from(log_file: File) -> io::Result<Checkpoint> {
        replay(BufReader::new(log_file))
    }

    /// Returns the offsets of a partition.
    pub(crate) fn offsets_of(&self, partition: &PartitionCheckpoint) -> OffsetSet {
        let mut offsets = OffsetSet::with_unknown(partition.unknown);
        let others = self.reads.iter().filter(|read| partition.is_range(read)).map(ReadRange::offsets);
        others.chain(partition.read_range().map(|read| read.offsets())).for_each(|range| offsets.add(range));
        offsets
    }

    /// Returns all ranges that were read, joined where they overlap.
    pub(crate) fn read_ranges(&self) -> Vec<ReadRange> {
        let is_known = |read: &ReadRange| self.partitions.iter().any(|known| known.is_range(read));
        let mut ranges: Vec<ReadRange> = self.reads.iter().filter(|read| !is_known(read)).cloned().collect();
        for partition in &self.partitions {
            let offsets = self.offsets_of(partition);
            ranges.extend(offsets.ranges().map(|range| partition.range_of(range.clone())));
        }
        ranges
    }

    /// Returns the offsets that are missing between those that the directory has.
    pub(crate) fn gaps(&self) -> Vec<OffsetGap> {
        let of = |partition: &PartitionCheckpoint| {
            let offsets = self.offsets_of(partition);
            let gaps = offsets.gaps(i64::MIN, i64::MAX);
            gaps.into_iter().map(|gap| partition.gap_of(&gap)).collect::<Vec<_>>()
        };
        self.partitions.iter().flat_map(of).collect()
    }

    /// Serialises everything as one batch.
    pub(crate) fn to_lines(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        for file in self.files.values() {
            append_line(&mut text, &CheckpointLine::File(file.clone()))?;
        }
        for compared in self.compared.values() {
            append_line(&mut text, &CheckpointLine::Compared(compared.clone()))?;
        }
        for read in &self.reads {
            append_line(&mut text, &CheckpointLine::Read(read.clone()))?;
        }
        let partitions = self.partitions.clone();
        append_line(
            &mut text,
            &CheckpointLine::Round { partitions, dead_letter_bytes: self.dead_letter_bytes },
        )?;
        Ok(text)
    }
}

/// A batch of checkpoint lines on its way to the disk.
pub(crate) struct CheckpointBatch {
    /// The lines.
    pub text: Vec<u8>,
    /// Whether this batch replaces all earlier ones.
    pub replaces_all: bool,
    /// Receives the result once the batch is durable or has failed.
    pub done: Sender<io::Result<()>>,
}

impl CheckpointBatch {
    /// Writes the batch durably.
    pub(crate) fn write(&self, dir: &VaultDir) -> io::Result<()> {
        if self.replaces_all {
            return dir.meta_replace(FILE, &self.text).map(drop);
        }
        let mut file = dir.meta_append(FILE)?;
        let before = file.metadata()?.len();
        let written = file.write_all(&self.text).and_then(|()| file.sync_data());
        if written.is_err() {
            // An incomplete batch would corrupt the first line of the next one.
            file.set_len(before)?;
        }
        written
    }

    /// Reports the result to the waiting thread, if it still waits.
    pub(crate) fn report(self, written: io::Result<()>) {
        let _ = self.done.send(written);
    }
}

/// Reads the gaps in the offsets of a directory, which may be in use. A directory without checkpoints has none.
pub(crate) fn read_gaps(dir: &Path) -> io::Result<Vec<OffsetGap>> {
    // NONBLOCK: a pipe that replaced the file must not block the caller.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(dir.join(META_DIR).join(FILE));
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        opened => Ok(Checkpoint::read_from(opened?)?.gaps()),
    }
}

/// Atomically replaces the log by one batch.
pub(crate) fn replace(dir: &VaultDir, checkpoint: &Checkpoint) -> io::Result<File> {
    dir.meta_replace(FILE, &checkpoint.to_lines()?)
}

fn append_line(text: &mut Vec<u8>, line: &CheckpointLine) -> io::Result<()> {
    serde_json::to_writer(&mut *text, line)?;
    text.push(b'\n');
    Ok(())
}

/// Replays all complete batches. Lines after the last complete batch were cut short by a crash and are
/// ignored.
pub(super) fn replay(mut log_lines: impl BufRead) -> io::Result<Checkpoint> {
    let mut checkpoint = Checkpoint::default();
    let (mut files, mut compared, mut reads) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut line = Vec::new();
    loop {
        line.clear();
        if log_lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(checkpoint);
        }
        match serde_json::from_slice(&line) {
            Ok(CheckpointLine::File(file)) => files.push(file),
            Ok(CheckpointLine::Compared(one)) => drop(compared.insert(one.name_hex.clone(), one)),
            Ok(CheckpointLine::Read(read)) => reads.push(read),
            Ok(CheckpointLine::Round { partitions, dead_letter_bytes }) => {
                checkpoint.files.extend(files.drain(..).map(|file| (file.file.clone(), file)));
                checkpoint.compared = std::mem::take(&mut compared);
                checkpoint.reads.append(&mut reads);
                checkpoint.partitions = partitions;
                checkpoint.dead_letter_bytes = dead_letter_bytes;
            }
            // A crash cut this batch short, so all its lines are dropped. The next line starts a new batch.
            Err(_) => {
                files.clear();
                compared.clear();
                reads.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: u64) -> FileCheckpoint {
        FileCheckpoint {
            file: name.into(),
            bytes,
            pending: String::new(),
            resume_state: None,
            segments: Vec::new(),
        }
    }

    fn checkpoint(files: &[FileCheckpoint], next_offset: i64) -> Checkpoint {
        let partition =
            PartitionCheckpoint { topic: "t".into(), next_offset, ..PartitionCheckpoint::default() };
        Checkpoint {
            files: files.iter().map(|file| (file.file.clone(), file.clone())).collect(),
            partitions: vec![partition],
            ..Checkpoint::default()
        }
    }

    #[test]
    fn an_incomplete_batch_is_ignored() {
        let first = checkpoint(&[file("a", 10), file("b", 5)], 7).to_lines().unwrap();
        let second = checkpoint(&[file("a", 20)], 9).to_lines().unwrap();
        let all = [first.clone(), second.clone()].concat();
        let after_first = checkpoint(&[file("a", 10), file("b", 5)], 7);
        let after_both = checkpoint(&[file("a", 20), file("b", 5)], 9);
        for cut in 0..=all.len() {
            let expected = match cut {
                _ if cut + 1 < first.len() => Checkpoint::default(),
                // The newline may be missing: the line itself is complete.
                _ if cut + 1 < all.len() => after_first.clone(),
                _ => after_both.clone(),
            };
            assert_eq!(replay(&all[..cut]).unwrap(), expected, "cut at {cut}");
        }
    }
}
