//! Folders of the members of a group into one: each record once, in one exact file a stream. Runs in the thread of
//! whoever asks; the files are written by a vault of its own.
//!
//! Invariants: what is read is never changed, and no process writes to it meanwhile. The output appears whole or not at
//! all: it is made beside its place, under a name of its own, and put there at the end. What was killed in the middle
//! is thrown away by the next one.

mod folder;
mod output;
mod plan;
mod streams;
mod weave;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::{self, Checkpoint, PartitionState, ReadRange};
use super::dir::VaultDir;
use super::time::now_rfc3339;
use super::{Access, Vault, VaultConfig};
use crate::cc::frame::name::part_file_name;
use crate::counters::Counters;
use crate::{Error, Result};
use folder::{Folder, StoredFile};
use plan::{Key, Plan, Share};
use streams::Merging;

/// What to put together.
#[derive(Clone, Debug)]
pub struct MergeConfig {
    /// The folders.
    pub dirs: Vec<PathBuf>,
    /// The folder to make.
    pub output: PathBuf,
    /// Who may read what is stored.
    pub access: Access,
    /// Whether files are hashed.
    pub hash: bool,
    /// Descriptors that may be used for files.
    pub descriptors: usize,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The folder that was read.
    pub folder: PathBuf,
    /// The file in it; empty where it is none.
    pub file: String,
    /// What is wrong.
    pub what: String,
}

/// Offsets that no folder has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingRange {
    /// The topic.
    pub topic: String,
    /// Its id, where the broker told it.
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: i32,
    /// The first; none where it is only known that some were read before.
    pub first_offset: Option<i64>,
    /// The offset after the last one.
    pub next_offset: i64,
}

/// A stream of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its files, the parts in order.
    pub files: Vec<String>,
    /// Bytes of them.
    pub bytes: u64,
    /// In how many folders it was.
    pub folders: usize,
    /// True if it was put together anew; else its files are copies.
    pub joined: bool,
    /// Bytes that were left out because another folder's count.
    pub cut_bytes: u64,
}

/// What became of it all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// By name.
    pub streams: Vec<Stream>,
    /// What nobody has.
    pub missing: Vec<MissingRange>,
    /// What else is wrong.
    pub problems: Vec<Problem>,
    /// Dead letters put together.
    pub dead_letters: u64,
}

/// Puts folders together. `progress` is told bytes read and bytes in all.
pub fn merge(config: &MergeConfig, progress: &mut dyn FnMut(u64, u64)) -> Result<Merged> {
    output::check_dirs(&config.dirs)?;
    let mut merged = Merged::default();
    let folders = config.dirs.iter().map(|dir| Folder::open(dir, &mut merged.problems));
    let folders: Vec<Folder> = folders.collect::<Result<_>>()?;
    let ranges: Vec<&ReadRange> = folders.iter().flat_map(|folder| &folder.reads).collect();
    let generations = plan::generations(&ranges);
    let plans = plans(&folders);
    report(&folders, &plans, &mut merged);
    let unfinished = output::begin(&config.output, config.access)?;
    let vault_config = VaultConfig {
        dir: unfinished.clone(),
        access: config.access,
        hash: config.hash,
        pending_bytes_max: 64 << 20,
        descriptors: config.descriptors,
        free_bytes_min: 0,
        sync_interval: Duration::from_secs(1),
    };
    let (vault, threads) = Vault::spawn(&vault_config, Arc::new(Counters::default()))?;
    // A batch does not wait for a full disk: it ends, and can be done again.
    vault.give_up_at(Instant::now());
    let dir = Arc::clone(&vault.shared.dir);
    let all_bytes = folders.iter().flat_map(|folder| &folder.files).map(StoredFile::len).sum();
    let mut merging = Merging {
        folders: &folders,
        plans: &plans,
        generations: &generations,
        dir: &dir,
        vault: &vault,
        hash: config.hash,
        problems: Vec::new(),
        progress: &mut |bytes| progress(bytes, all_bytes),
        read_bytes: 0,
    };
    let streams = merging.streams()?;
    merged.dead_letters = merging.dead_letters()?;
    merged.problems.append(&mut merging.problems);
    let failed = || Error::path("write to", &unfinished);
    let checkpoint = checkpoint_of(&plans, &generations, &folders);
    checkpoint::replace(&dir, &checkpoint).map_err(failed())?;
    drop(vault);
    let losses = threads.join()?;
    if !losses.is_none() {
        let full = io::Error::other("some of it could not be written; the log says why");
        return Err(failed()(full));
    }
    merged.list(&dir, streams).map_err(failed())?;
    output::finish(&dir, &unfinished, &config.output)?;
    Ok(merged)
}

fn plans(folders: &[Folder]) -> BTreeMap<Key, Plan> {
    let mut shares: BTreeMap<Key, BTreeMap<usize, Share>> = BTreeMap::new();
    for (number, folder) in folders.iter().enumerate() {
        for range in &folder.reads {
            let share = shares.entry(Key::of_range(range)).or_default().entry(number).or_default();
            share.reads.push((range.first_offset, range.next_offset, range.taken_over));
        }
        for segment in folder.files.iter().flat_map(|file| &file.manifest.segments) {
            let share = shares.entry(Key::of(segment)).or_default().entry(number).or_default();
            share.segments.push((segment.first_offset, segment.next_offset));
        }
    }
    shares.into_iter().map(|(key, shares)| (key, plan::plan(&shares))).collect()
}

fn report(folders: &[Folder], plans: &BTreeMap<Key, Plan>, merged: &mut Merged) {
    for (key, plan) in plans {
        merged.missing.extend(plan.missing.iter().map(|missing| MissingRange {
            topic: key.topic.clone(),
            topic_id: key.topic_id.clone(),
            partition: key.partition,
            first_offset: missing.first,
            next_offset: missing.next,
        }));
        merged.problems.extend(plan.uncut.iter().map(|uncut| Problem {
            folder: folders[uncut.folder].dir.path().to_owned(),
            file: String::new(),
            what: format!(
                "{}-{}: it had no checkpoint at offset {}, where another one went on: records may be in twice",
                key.topic, key.partition, uncut.offset
            ),
        }));
    }
}

/// What the output has read, so that it can be merged with others, and a consumer can go on with it.
fn checkpoint_of(
    plans: &BTreeMap<Key, Plan>,
    generations: &BTreeMap<(String, Option<String>), usize>,
    folders: &[Folder],
) -> Checkpoint {
    let generation = |key: &Key| generations.get(&(key.topic.clone(), key.topic_id.clone()));
    let mut last: BTreeMap<(&str, i32), (Option<&usize>, ReadRange)> = BTreeMap::new();
    let mut checkpoint = Checkpoint::default();
    for (key, plan) in plans {
        let mut ranges: Vec<ReadRange> = Vec::new();
        for owned in &plan.owned {
            if let Some(before) = ranges.last_mut().filter(|before| before.next_offset == owned.first) {
                before.next_offset = owned.next;
                continue;
            }
            let told = folders.iter().flat_map(|folder| &folder.reads);
            let mut told = told.filter(|range| Key::of_range(range) == *key);
            let begin = told.find(|range| range.first_offset == owned.first);
            ranges.push(ReadRange {
                topic: key.topic.clone(),
                topic_id: key.topic_id.clone(),
                partition: key.partition,
                first_offset: owned.first,
                next_offset: owned.next,
                taken_over: begin.is_some_and(|begin| begin.taken_over),
                since: begin.map(|begin| begin.since.clone()).unwrap_or_default(),
            });
        }
        let newest = ranges.pop();
        checkpoint.reads.append(&mut ranges);
        let Some(newest) = newest else { continue };
        let of = (generation(key), newest);
        match last.remove(&(key.topic.as_str(), key.partition)) {
            Some(other) if other.0 > of.0 => {
                checkpoint.reads.push(of.1);
                last.insert((&key.topic, key.partition), other);
            }
            other => {
                checkpoint.reads.extend(other.map(|other| other.1));
                last.insert((&key.topic, key.partition), of);
            }
        }
    }
    checkpoint.partitions = last.into_values().map(|(_, range)| PartitionState::from(range)).collect();
    checkpoint
}

impl Merged {
    /// Looks at what was made of each name.
    fn list(&mut self, dir: &VaultDir, streams: Vec<(String, Stream)>) -> io::Result<()> {
        for (base, mut stream) in streams {
            for part in 1.. {
                let file = part_file_name(&base, part);
                let Some(manifest) = dir.manifest(&file)? else { break };
                stream.bytes += manifest.bytes;
                stream.files.push(file);
            }
            self.streams.push(stream);
        }
        Ok(())
    }
}

impl From<ReadRange> for PartitionState {
    fn from(range: ReadRange) -> PartitionState {
        PartitionState {
            topic: range.topic,
            topic_id: range.topic_id,
            partition: range.partition,
            next_offset: range.next_offset,
            first_offset: Some(range.first_offset),
            taken_over: range.taken_over,
            since: if range.since.is_empty() { now_rfc3339() } else { range.since },
            acknowledged: 0,
        }
    }
}
