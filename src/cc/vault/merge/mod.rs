//! Merges the output directories of the members of a consumer group into one: each record once and one
//! complete file per stream. Runs in the caller's thread; a vault writes the output.
//!
//! Invariants: the inputs are never changed and are locked against writers. The output appears completely or
//! not at all: it is built in a temporary directory and renamed at the end. The next merge removes what a
//! killed one left.

mod member_dir;
mod merge_order;
mod output;
mod plan;
mod streams;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::{self, Checkpoint, PartitionCheckpoint, ReadRange};
use super::dir::VaultDir;
use super::{Access, RotationLimits, Vault, VaultConfig};
use crate::cc::wire::name::part_file_name;
use crate::runtime::metrics::Metrics;
use crate::runtime::time::rfc3339_now;
use crate::{Error, Result};
use member_dir::{MemberDir, StoredFile};
use plan::{DirRanges, MergePlan, PartitionKey};
use streams::Merger;

/// Options of a merge.
#[derive(Clone, Debug)]
pub(crate) struct MergeConfig {
    /// Directories to merge.
    pub dirs: Vec<PathBuf>,
    /// Directory to create.
    pub output: PathBuf,
    pub access: Access,
    /// Whether files are hashed.
    pub hash: bool,
    /// Descriptors that may be used for files.
    pub descriptors: usize,
}

/// A problem with an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MergeProblem {
    pub dir: PathBuf,
    /// File in the directory. Empty if the problem concerns the whole directory.
    pub file: String,
    pub reason: String,
}

/// Offsets that no member has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MissingRange {
    pub topic: String,
    /// Topic id, if the broker reported one.
    pub topic_id: Option<String>,
    pub partition: i32,
    /// First missing offset. `None` if only the end of the range is known.
    pub first_offset: Option<i64>,
    /// Offset after the last missing one.
    pub next_offset: i64,
}

/// A stream of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MergedStream {
    /// Names of its files, in part order.
    pub files: Vec<String>,
    /// Total size of its files.
    pub bytes: u64,
    /// Number of directories that had the stream.
    pub dirs: usize,
    /// Whether the stream was rebuilt from several files. Otherwise its files are copies.
    pub is_joined: bool,
    /// Bytes omitted because another member's records were used.
    pub omitted_bytes: u64,
}

/// Result of a merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MergeReport {
    /// Streams by name.
    pub streams: Vec<MergedStream>,
    /// Offsets that no member has read.
    pub missing: Vec<MissingRange>,
    /// Other problems.
    pub problems: Vec<MergeProblem>,
    /// Number of dead letters in the output.
    pub dead_letters: u64,
}

/// Merges directories. Calls `progress` with the bytes read so far and the total.
pub(crate) fn merge(config: &MergeConfig, progress: &mut dyn FnMut(u64, u64)) -> Result<MergeReport> {
    output::check_distinct(&config.dirs)?;
    let mut merged = MergeReport::default();
    let members = config.dirs.iter().map(|dir| MemberDir::open(dir, &mut merged.problems));
    let members: Vec<MemberDir> = members.collect::<Result<_>>()?;
    let ranges: Vec<&ReadRange> = members.iter().flat_map(|member| &member.read_ranges).collect();
    let generations = plan::generations(&ranges);
    let plans = make_plans(&members);
    add_plan_findings(&members, &plans, &mut merged);
    let unfinished = output::create_unfinished(&config.output, config.access)?;
    let vault_config = VaultConfig {
        dir: unfinished.clone(),
        access: config.access,
        hash: config.hash,
        partial_packet_bytes_max: 64 << 20,
        descriptors: config.descriptors,
        free_bytes_min: 0,
        sync_interval: Duration::from_secs(1),
        continue_within: None,
        rotation: RotationLimits::default(),
    };
    let (vault, threads) = Vault::spawn(&vault_config, Arc::new(Metrics::default()))?;
    // A merge does not wait for a full disk: it fails and can be repeated.
    vault.give_up_at(Instant::now());
    let dir = Arc::clone(&vault.shared.dir);
    let all_bytes = members.iter().flat_map(|member| &member.files).map(StoredFile::len).sum();
    let mut merging = Merger {
        dirs: &members,
        plans: &plans,
        generations: &generations,
        dir: &dir,
        vault: &vault,
        hash: config.hash,
        problems: Vec::new(),
        progress: &mut |bytes| progress(bytes, all_bytes),
        read_bytes: 0,
    };
    let streams = merging.merge_streams()?;
    merged.dead_letters = merging.merge_dead_letters()?;
    merged.problems.append(&mut merging.problems);
    let failed = || Error::path("write to", &unfinished);
    let checkpoint = output_checkpoint(&plans, &generations, &members);
    checkpoint::replace(&dir, &checkpoint).map_err(failed())?;
    drop(vault);
    let losses = threads.join()?;
    if !losses.is_zero() {
        let full = io::Error::other("data could not be written (see the log)");
        return Err(failed()(full));
    }
    merged.list_files(&dir, streams).map_err(failed())?;
    output::publish(&dir, &unfinished, &config.output)?;
    Ok(merged)
}

fn make_plans(members: &[MemberDir]) -> BTreeMap<PartitionKey, MergePlan> {
    let mut ranges_of_members: BTreeMap<PartitionKey, BTreeMap<usize, DirRanges>> = BTreeMap::new();
    for (number, member) in members.iter().enumerate() {
        for range in &member.read_ranges {
            let ranges = ranges_of_members
                .entry(PartitionKey::of_range(range))
                .or_default()
                .entry(number)
                .or_default();
            ranges.reads.push((range.first_offset, range.next_offset, range.taken_over));
        }
        for segment in member.files.iter().flat_map(|file| &file.manifest.segments) {
            let ranges = ranges_of_members
                .entry(PartitionKey::of_segment(segment))
                .or_default()
                .entry(number)
                .or_default();
            ranges.segments.push((segment.first_offset, segment.next_offset));
        }
    }
    ranges_of_members
        .into_iter()
        .map(|(key, ranges_of_members)| (key, plan::plan(&ranges_of_members)))
        .collect()
}

fn add_plan_findings(
    members: &[MemberDir],
    plans: &BTreeMap<PartitionKey, MergePlan>,
    merged: &mut MergeReport,
) {
    for (key, plan) in plans {
        merged.missing.extend(plan.missing.iter().map(|missing| MissingRange {
            topic: key.topic.clone(),
            topic_id: key.topic_id.clone(),
            partition: key.partition,
            first_offset: missing.first,
            next_offset: missing.next,
        }));
        merged.problems.extend(plan.impossible_splits.iter().map(|split| MergeProblem {
            dir: members[split.dir].dir.path().to_owned(),
            file: String::new(),
            reason: format!(
                "{}-{}: no checkpoint at offset {}, where another member took over: records after it may be duplicated",
                key.topic, key.partition, split.offset
            ),
        }));
    }
}

/// Builds the checkpoint of the output, so that it can be merged again and a consumer can continue it.
fn output_checkpoint(
    plans: &BTreeMap<PartitionKey, MergePlan>,
    generations: &BTreeMap<(String, Option<String>), usize>,
    members: &[MemberDir],
) -> Checkpoint {
    let generation = |key: &PartitionKey| generations.get(&(key.topic.clone(), key.topic_id.clone()));
    let mut last: BTreeMap<(&str, i32), (Option<&usize>, ReadRange)> = BTreeMap::new();
    let mut checkpoint = Checkpoint::default();
    for (key, plan) in plans {
        let mut ranges: Vec<ReadRange> = Vec::new();
        for owned in &plan.owned {
            if let Some(before) = ranges.last_mut().filter(|before| before.next_offset == owned.first) {
                before.next_offset = owned.next;
                continue;
            }
            let known = members.iter().flat_map(|member| &member.read_ranges);
            let mut known = known.filter(|range| PartitionKey::of_range(range) == *key);
            let start = known.find(|range| range.first_offset == owned.first);
            ranges.push(ReadRange {
                topic: key.topic.clone(),
                topic_id: key.topic_id.clone(),
                partition: key.partition,
                first_offset: owned.first,
                next_offset: owned.next,
                taken_over: start.is_some_and(|start| start.taken_over),
                since: start.map(|start| start.since.clone()).unwrap_or_default(),
                is_replaced: false,
            });
        }
        let newest = ranges.pop();
        checkpoint.reads.append(&mut ranges);
        let Some(newest) = newest else { continue };
        let dated = (generation(key), newest);
        match last.remove(&(key.topic.as_str(), key.partition)) {
            Some(other) if other.0 > dated.0 => {
                checkpoint.reads.push(dated.1);
                last.insert((&key.topic, key.partition), other);
            }
            other => {
                checkpoint.reads.extend(other.map(|other| other.1));
                last.insert((&key.topic, key.partition), dated);
            }
        }
    }
    checkpoint.partitions = last.into_values().map(|(_, range)| PartitionCheckpoint::from(range)).collect();
    checkpoint
}

impl MergeReport {
    /// Adds the files and sizes of all streams to the report.
    fn list_files(&mut self, dir: &VaultDir, streams: Vec<(String, MergedStream)>) -> io::Result<()> {
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

impl From<ReadRange> for PartitionCheckpoint {
    fn from(range: ReadRange) -> PartitionCheckpoint {
        PartitionCheckpoint {
            topic: range.topic,
            topic_id: range.topic_id,
            partition: range.partition,
            next_offset: range.next_offset,
            first_offset: Some(range.first_offset),
            taken_over: range.taken_over,
            since: if range.since.is_empty() { rfc3339_now() } else { range.since },
            acknowledged: 0,
            is_live: false,
            unknown: None,
        }
    }
}
