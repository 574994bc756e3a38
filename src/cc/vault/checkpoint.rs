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

const FILE: &str = "checkpoints.jsonl";

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
    /// The records that it was made of.
    pub segments: Vec<Segment>,
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
}

/// Up to where a partition's records are in the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Offsets below it that were never read, each from and to: a dump that has them brings something new.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<(i64, i64)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    File(FileState),
    Compared(Compared),
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
    /// The length of the dead letters; none where the last process ended in good order, and others may have added to
    /// them.
    pub dead_letter_bytes: Option<u64>,
}

impl Checkpoint {
    /// Reads what the last process left.
    pub fn read(dir: &VaultDir) -> io::Result<Checkpoint> {
        replay(BufReader::new(dir.own_append(FILE)?))
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
    let (mut files, mut compared) = (Vec::new(), BTreeMap::new());
    let mut line = Vec::new();
    loop {
        line.clear();
        if rounds.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(checkpoint);
        }
        match serde_json::from_slice(&line) {
            Ok(Line::File(file)) => files.push(file),
            Ok(Line::Compared(one)) => drop(compared.insert(one.name_hex.clone(), one)),
            Ok(Line::Round { partitions, dead_letter_bytes }) => {
                checkpoint.files.extend(files.drain(..).map(|file| (file.file.clone(), file)));
                checkpoint.compared = std::mem::take(&mut compared);
                checkpoint.partitions = partitions;
                checkpoint.dead_letter_bytes = dead_letter_bytes;
            }
            // A round that a crash cut: all of it is void, and the next one starts anew.
            Err(_) => {
                files.clear();
                compared.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: u64) -> FileState {
        FileState { file: name.into(), bytes, pending: String::new(), segments: Vec::new() }
    }

    fn checkpoint(files: &[FileState], next_offset: i64) -> Checkpoint {
        let partition =
            PartitionState { topic: "t".into(), topic_id: None, partition: 0, next_offset, gaps: Vec::new() };
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
