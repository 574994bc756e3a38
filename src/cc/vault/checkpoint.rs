//! Checkpoints of streams that come as records: `.lea/checkpoints.jsonl`. What a file held, and up to which offset
//! of each partition records are in the files, in one round; a round counts only when its last line is there.
//!
//! The keeper writes a round after it has made the files durable. At the next start each file is cut back to its
//! last round, and the partitions go on from there: no record is lost, none is in twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};

use super::dir::VaultDir;
use super::manifest::Segment;

/// The rounds, in the folder of our own files.
pub const FILE: &str = "checkpoints.jsonl";

/// A line holds a begun packet (a pcapng block of 16 MiB at most) in hexadecimal and a thousand segments.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// What a stream file held at a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// The stream file.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// The packet that had begun and was kept back, in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pending: String,
    /// Packets and hash after its bytes and those kept back, as the program stores them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub midstate: Option<String>,
    /// The records that it was made of.
    pub segments: Vec<Segment>,
}

impl FileState {
    /// Bytes of the stream, those included that were kept back.
    pub fn received(&self) -> u64 {
        self.bytes.saturating_add(self.pending.len() as u64 / 2)
    }
}

/// A stream that was being sent again, and equal so far, at a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// The stream's name in hexadecimal.
    pub name_hex: String,
    /// So many bytes were equal.
    pub received: u64,
    /// The records that they came in.
    pub segments: Vec<Segment>,
    /// A stored file that has these bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Up to where a partition's records are in the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// The topic.
    pub topic: String,
    /// The topic's id, where the broker tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: i32,
    /// The offset of the first record that is not.
    pub next_offset: i64,
    /// From which offset on this folder has all records below `next_offset`; none before the first record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_offset: Option<i64>,
    /// True if it starts there because the group had committed that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken_over: bool,
    /// When it was first read from there: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// The group is known to have committed this.
    #[serde(default)]
    pub acknowledged: i64,
}

/// Offsets of a partition that a folder has read without a gap, and where another one went on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRange {
    /// The topic.
    pub topic: String,
    /// The topic's id, where the broker tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub first_offset: i64,
    /// The offset after the last one.
    pub next_offset: i64,
    /// True if it starts there because the group had committed that: offsets below were read before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken_over: bool,
    /// When it was first read from there: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub since: String,
}

impl PartitionState {
    /// What was read since the last gap, if anything was.
    pub fn read(&self) -> Option<ReadRange> {
        let first_offset = self.first_offset.filter(|first| *first < self.next_offset)?;
        Some(ReadRange {
            topic: self.topic.clone(),
            topic_id: self.topic_id.clone(),
            partition: self.partition,
            first_offset,
            next_offset: self.next_offset,
            taken_over: self.taken_over,
            since: self.since.clone(),
        })
    }

    /// Starts at `offset`, behind a gap.
    pub fn start(&mut self, offset: Option<i64>, taken_over: bool, now: String) {
        self.next_offset = offset.unwrap_or(0);
        self.first_offset = offset;
        self.taken_over = taken_over;
        self.since = now;
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    File(FileState),
    Compared(Compared),
    /// What was read before a gap. It stands in the round after it alone, and in one that replaces all others.
    Read(ReadRange),
    /// Ends a round. All partitions, and all comparisons under way stand in each.
    Round {
        partitions: Vec<PartitionState>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dead_letter_bytes: Option<u64>,
    },
}

/// What all rounds together say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last state of each file.
    pub files: BTreeMap<String, FileState>,
    /// The comparisons under way, by name in hexadecimal.
    pub compared: BTreeMap<String, Compared>,
    /// The partitions.
    pub partitions: Vec<PartitionState>,
    /// What was read of partitions before a gap.
    pub reads: Vec<ReadRange>,
    /// The length of the dead letters; none where the last process ended in good order, and others may have added to
    /// them.
    pub dead_letter_bytes: Option<u64>,
}

impl Checkpoint {
    /// Reads what the last process left.
    pub fn read(dir: &VaultDir) -> io::Result<Checkpoint> {
        Checkpoint::read_from(dir.own_append(FILE)?)
    }

    /// Reads what stands in this file of rounds.
    pub fn read_from(rounds: File) -> io::Result<Checkpoint> {
        replay(BufReader::new(rounds))
    }

    /// One round that says all of this.
    pub fn text(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        for file in self.files.values() {
            append(&mut text, &Line::File(file.clone()))?;
        }
        for compared in self.compared.values() {
            append(&mut text, &Line::Compared(compared.clone()))?;
        }
        for read in &self.reads {
            append(&mut text, &Line::Read(read.clone()))?;
        }
        let partitions = self.partitions.clone();
        append(&mut text, &Line::Round { partitions, dead_letter_bytes: self.dead_letter_bytes })?;
        Ok(text)
    }
}

/// A round on its way to the disk.
pub struct Round {
    /// Its lines.
    pub text: Vec<u8>,
    /// True if it stands for all rounds before it.
    pub replaces: bool,
    /// Told when it is durable, or why not.
    pub done: Sender<io::Result<()>>,
}

impl Round {
    /// Writes the round durably.
    pub fn keep(&self, dir: &VaultDir) -> io::Result<()> {
        if self.replaces {
            return dir.own_replace(FILE, &self.text).map(drop);
        }
        let mut file = dir.own_append(FILE)?;
        let before = file.metadata()?.len();
        let kept = file.write_all(&self.text).and_then(|()| file.sync_data());
        if kept.is_err() {
            // Half a round would swallow the next one's first line.
            file.set_len(before)?;
        }
        kept
    }

    /// Tells whoever waits for it. Nobody may.
    pub fn answer(self, kept: io::Result<()>) {
        let _ = self.done.send(kept);
    }
}

/// Replaces all rounds by this one, at once.
pub fn replace(dir: &VaultDir, checkpoint: &Checkpoint) -> io::Result<File> {
    dir.own_replace(FILE, &checkpoint.text()?)
}

fn append(text: &mut Vec<u8>, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *text, line)?;
    text.push(b'\n');
    Ok(())
}

/// What stands after the last whole round; what comes behind it was cut by a crash, and counts for nothing.
fn replay(mut rounds: impl BufRead) -> io::Result<Checkpoint> {
    let mut checkpoint = Checkpoint::default();
    let (mut files, mut compared, mut reads) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut line = Vec::new();
    loop {
        line.clear();
        if rounds.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(checkpoint);
        }
        match serde_json::from_slice(&line) {
            Ok(Line::File(file)) => files.push(file),
            Ok(Line::Compared(one)) => drop(compared.insert(one.name_hex.clone(), one)),
            Ok(Line::Read(read)) => reads.push(read),
            Ok(Line::Round { partitions, dead_letter_bytes }) => {
                checkpoint.files.extend(files.drain(..).map(|file| (file.file.clone(), file)));
                checkpoint.compared = std::mem::take(&mut compared);
                checkpoint.reads.append(&mut reads);
                checkpoint.partitions = partitions;
                checkpoint.dead_letter_bytes = dead_letter_bytes;
            }
            // A round that a crash cut: all of it is void, and the next one starts anew.
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

    fn file(name: &str, bytes: u64) -> FileState {
        FileState { file: name.into(), bytes, pending: String::new(), midstate: None, segments: Vec::new() }
    }

    fn checkpoint(files: &[FileState], next_offset: i64) -> Checkpoint {
        let partition = PartitionState { topic: "t".into(), next_offset, ..PartitionState::default() };
        Checkpoint {
            files: files.iter().map(|file| (file.file.clone(), file.clone())).collect(),
            partitions: vec![partition],
            ..Checkpoint::default()
        }
    }

    #[test]
    fn a_round_counts_whole_or_not_at_all() {
        let first = checkpoint(&[file("a", 10), file("b", 5)], 7).text().unwrap();
        let second = checkpoint(&[file("a", 20)], 9).text().unwrap();
        let all = [first.clone(), second.clone()].concat();
        let after_first = checkpoint(&[file("a", 10), file("b", 5)], 7);
        let after_both = checkpoint(&[file("a", 20), file("b", 5)], 9);
        for cut in 0..=all.len() {
            let expected = match cut {
                _ if cut + 1 < first.len() => Checkpoint::default(),
                // The line's end may be missing: the line is whole.
                _ if cut + 1 < all.len() => after_first.clone(),
                _ => after_both.clone(),
            };
            assert_eq!(replay(&all[..cut]).unwrap(), expected, "cut at {cut}");
        }
    }
}
