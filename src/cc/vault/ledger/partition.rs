//! The partitions that this process reads: which offsets of them the directory has, and which ones are committed.

use super::{Ledger, OffsetCommit};
use crate::cc::vault::checkpoint::{Checkpoint, PartitionCheckpoint, ReadRange};
use crate::cc::vault::offset_set::{Membership, OffsetRange, OffsetSet};
use crate::runtime::time::rfc3339_now;

/// A partition that this process reads.
#[derive(Clone, Debug)]
pub(super) struct LedgerPartition {
    /// State for checkpoints, with the range that is being read.
    pub state: PartitionCheckpoint,
    /// All other ranges. None of them touches the one that is being read.
    others: OffsetSet,
    /// First offset of the lowest range after the one that is being read.
    next_start: i64,
    /// Offset after the last record of this run, read or not. `None` before the first one, and where records may be
    /// missing before the next one.
    position: Option<i64>,
    /// Whether offsets without a record do not exist. Kafka uses offsets for transactions, and compaction removes
    /// records. A filtered dump lacks records in the same way, so this is known only of brokers and log segments.
    pub has_no_gaps: bool,
    pub is_assigned: bool,
    /// Whether the records come from a dump. There is no consumer group, so offsets count as committed when
    /// they are durable.
    pub is_dump: bool,
}

/// Index of a partition. It is valid for the lifetime of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PartitionId(pub(super) usize);

/// What a consumer needs to know to start a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartPosition {
    /// Lowest offset that the directory lacks and may still get. `None` if neither the directory nor the group has an
    /// offset.
    pub offset: Option<i64>,
    /// Offset after the highest one that the directory has.
    pub end: i64,
}

impl LedgerPartition {
    pub(super) fn new(topic: &str, topic_id: Option<&str>, partition: i32) -> LedgerPartition {
        let state = PartitionCheckpoint {
            topic: topic.to_owned(),
            topic_id: topic_id.map(str::to_owned),
            partition,
            ..PartitionCheckpoint::default()
        };
        LedgerPartition::with_offsets(state, OffsetSet::default())
    }

    /// Restores a partition from a checkpoint.
    pub(super) fn restore(state: &PartitionCheckpoint, checkpoint: &Checkpoint) -> LedgerPartition {
        let mut offsets = checkpoint.offsets_of(state);
        let mut state = state.clone();
        if let Some(first) = state.first_offset
            && let Some(current) = offsets.take_touching(first, first)
        {
            (state.first_offset, state.next_offset) = (Some(current.first), current.next);
            (state.taken_over, state.since) = (current.taken_over, current.since);
        }
        LedgerPartition::with_offsets(state, offsets)
    }

    fn with_offsets(state: PartitionCheckpoint, others: OffsetSet) -> LedgerPartition {
        let next_start = others.next_start(state.next_offset).unwrap_or(i64::MAX);
        LedgerPartition {
            state,
            others,
            next_start,
            position: None,
            has_no_gaps: false,
            is_assigned: false,
            is_dump: false,
        }
    }

    /// Returns the state for a checkpoint.
    pub(super) fn checkpoint(&self) -> PartitionCheckpoint {
        PartitionCheckpoint { unknown: self.others.unknown(), ..self.state.clone() }
    }

    /// Returns the ranges that are not in the state.
    pub(super) fn other_ranges(&self) -> impl Iterator<Item = ReadRange> {
        self.others.ranges().map(|range| self.state.range_of(range.clone()))
    }

    /// Returns all offsets.
    pub(super) fn offsets(&self) -> OffsetSet {
        let mut offsets = self.others.clone();
        self.state.read_range().into_iter().for_each(|read| offsets.add(read.offsets()));
        offsets
    }

    pub(super) fn lookup(&self, offset: i64) -> Membership {
        let state = &self.state;
        match state.first_offset {
            Some(first) if (first..state.next_offset).contains(&offset) => Membership::Stored,
            // The usual case: the next record, and no range above.
            Some(_) if offset >= state.next_offset && self.next_start == i64::MAX => Membership::Missing,
            _ => self.others.lookup(offset),
        }
    }

    /// Returns the lowest offset from `offset` on that is missing.
    pub(super) fn first_missing(&self, mut offset: i64) -> i64 {
        let current = self.state.first_offset.map_or(0..0, |first| first..self.state.next_offset);
        loop {
            let missing = self.others.first_missing(offset);
            if !current.contains(&missing) {
                return missing;
            }
            offset = current.end;
        }
    }

    /// Returns the offset after the highest one.
    fn end(&self) -> Option<i64> {
        self.others.end().max(self.state.first_offset.map(|_| self.state.next_offset))
    }

    /// Returns whether the directory has a higher offset.
    pub(super) fn has_higher(&self, offset: i64) -> bool {
        self.next_start != i64::MAX || self.state.first_offset.is_some() && offset < self.state.next_offset
    }

    /// Adds offsets to the range that is being read. If they do not touch it, they start another one, and the range
    /// before is returned. An empty interval moves to the range that it touches.
    fn cover(&mut self, from: i64, to: i64) -> Option<ReadRange> {
        let state = &mut self.state;
        if state.first_offset.is_some() && from == state.next_offset && to < self.next_start {
            state.next_offset = to;
            return None;
        }
        self.cover_across_ranges(from, to)
    }

    fn cover_across_ranges(&mut self, from: i64, to: i64) -> Option<ReadRange> {
        let mut range = OffsetRange { first: from, next: to, taken_over: false, since: String::new() };
        let mut left = None;
        let touches = |first: i64| first <= to && from <= self.state.next_offset;
        match self.state.first_offset {
            Some(first) if touches(first) => range.join(self.current()),
            Some(_) => {
                left = self.state.read_range();
                self.others.add(self.current());
            }
            None => {}
        }
        if let Some(touching) = self.others.take_touching(range.first, range.next) {
            range.join(touching);
        }
        if range.since.is_empty() {
            range.since = rfc3339_now();
        }
        self.set_current(range);
        left
    }

    /// Adds an offset that was not read in order. Returns its range.
    pub(super) fn add(&mut self, offset: i64) -> ReadRange {
        let range = OffsetRange { first: offset, next: offset + 1, taken_over: false, since: rfc3339_now() };
        let read = self.state.range_of(range.clone());
        self.others.add(range);
        if let Some(first) = self.state.first_offset
            && let Some(touching) = self.others.take_touching(first, self.state.next_offset)
        {
            let mut current = self.current();
            current.join(touching);
            self.set_current(current);
        }
        self.next_start = self.others.next_start(self.state.next_offset).unwrap_or(i64::MAX);
        read
    }

    fn current(&self) -> OffsetRange {
        let state = &self.state;
        let first = state.first_offset.unwrap_or(state.next_offset);
        OffsetRange {
            first,
            next: state.next_offset,
            taken_over: state.taken_over,
            since: state.since.clone(),
        }
    }

    fn set_current(&mut self, range: OffsetRange) {
        let state = &mut self.state;
        (state.first_offset, state.next_offset) = (Some(range.first), range.next);
        (state.taken_over, state.since) = (range.taken_over, range.since);
        self.next_start = self.others.next_start(range.next).unwrap_or(i64::MAX);
    }

    /// Returns the offset from which on the directory has everything up to a record, once it has the record.
    fn connected_from(&self, offset: i64) -> i64 {
        self.position.filter(|position| self.has_no_gaps && *position < offset).unwrap_or(offset)
    }
}

impl Ledger {
    /// Assigns a partition to this consumer. `committed` is the offset committed by the consumer group. It wins if
    /// another member has read further.
    pub(crate) fn assign(
        &mut self,
        topic: &str,
        topic_id: Option<&str>,
        partition: i32,
        committed: Option<i64>,
    ) -> (PartitionId, StartPosition) {
        let is = |known: &LedgerPartition| known.state.topic == topic && known.state.partition == partition;
        let at = self.partitions.iter().position(is).unwrap_or_else(|| {
            self.partitions.push(LedgerPartition::new(topic, topic_id, partition));
            self.partitions.len() - 1
        });
        let id = PartitionId(at);
        // A committed offset of the topic before it was recreated means nothing.
        let is_recreated = self.adopt_topic_id(id, topic_id);
        let committed = committed.filter(|_| !is_recreated);
        let known = &mut self.partitions[at];
        (known.is_assigned, known.is_dump, known.has_no_gaps) = (true, false, true);
        known.position = None;
        known.state.acknowledged = committed.unwrap_or(0);
        let offsets = known.offsets();
        let Some(end) = known.end() else {
            committed.into_iter().for_each(|committed| self.start_at(id, committed, true));
            return (id, StartPosition { offset: committed, end: 0 });
        };
        // What a consumer did not read below its first offset is not wanted. A dump says nothing about that.
        let is_wanted_from_start = !known.state.is_live && committed.is_none();
        let lowest = if is_wanted_from_start { 0 } else { offsets.start().unwrap_or(end) };
        let offset = offsets.first_missing(lowest.max(committed.unwrap_or(0)));
        self.start_at(id, offset, committed == Some(offset));
        (id, StartPosition { offset: Some(offset), end })
    }

    /// Returns the lowest offset from `offset` on that the directory lacks.
    pub(crate) fn first_missing(&self, partition: PartitionId, offset: i64) -> i64 {
        self.partitions[partition.0].first_missing(offset)
    }

    /// Notes the id of a topic. Returns whether the topic was recreated, so that the directory has none of its records.
    fn adopt_topic_id(&mut self, id: PartitionId, topic_id: Option<&str>) -> bool {
        let state = &mut self.partitions[id.0].state;
        match (&state.topic_id, topic_id) {
            (Some(was), Some(is)) if was != is => {
                let (topic, partition) = (&state.topic, state.partition);
                log::warn!(
                    "topic_recreated topic={topic} partition={partition} note=\"reading its records from the start\""
                );
                self.discard_from(id, 0);
                let state = &mut self.partitions[id.0].state;
                (state.topic_id, state.first_offset) = (Some(is.to_owned()), Some(0));
                state.is_live = true;
                return true;
            }
            (None, Some(is)) => {
                state.topic_id = Some(is.to_owned());
                // Ranges without the id are in the log.
                self.rewrites_log = true;
            }
            _ => {}
        }
        false
    }

    /// Starts to read a partition at an offset. All records from there on arrive, in order. `taken_over`: another member
    /// has read the offsets below.
    pub(crate) fn start_at(&mut self, partition: PartitionId, offset: i64, taken_over: bool) {
        self.cover(partition, offset, offset);
        let known = &mut self.partitions[partition.0];
        if known.state.first_offset == Some(offset) {
            known.state.taken_over = taken_over;
        }
        (known.position, known.state.is_live) = (Some(offset), true);
    }

    /// Forgets the offsets from `offset` on, because they belong to new records now: the topic was recreated, or the
    /// broker lost its last records.
    pub(crate) fn discard_from(&mut self, partition: PartitionId, offset: i64) {
        let known = &mut self.partitions[partition.0];
        let mut offsets = known.offsets();
        let removed = offsets.truncate(offset);
        let stale = |range| ReadRange { is_replaced: true, ..known.state.range_of(range) };
        self.replaced_ranges.extend(removed.into_iter().map(stale));
        let state = PartitionCheckpoint {
            first_offset: None,
            next_offset: 0,
            taken_over: false,
            since: String::new(),
            // The committed offset of the group may be lower as well.
            acknowledged: 0,
            ..known.state.clone()
        };
        let (is_assigned, is_dump, has_no_gaps) = (known.is_assigned, known.is_dump, known.has_no_gaps);
        *known = LedgerPartition {
            is_assigned,
            is_dump,
            has_no_gaps,
            ..LedgerPartition::with_offsets(state, offsets)
        };
        self.rewrites_log = true;
    }

    /// Records that the records up to `offset` could not be read.
    pub(crate) fn skip_to(&mut self, partition: PartitionId, offset: i64) {
        self.partitions[partition.0].position = Some(offset);
        self.cover(partition, offset, offset);
    }

    /// Returns whether the directory has read any partition of a topic from a broker.
    pub(crate) fn has_consumed(&self, topic: &str) -> bool {
        self.partitions.iter().any(|known| known.state.is_live && known.state.topic == topic)
    }

    /// Returns the topic, partition and offsets.
    pub(crate) fn partition(&self, partition: PartitionId) -> &PartitionCheckpoint {
        &self.partitions[partition.0].state
    }

    /// Returns the offset after the last record of this run, stored or not.
    pub(crate) fn position(&self, partition: PartitionId) -> Option<i64> {
        self.partitions[partition.0].position
    }

    /// Returns whether the directory has a record.
    pub(crate) fn lookup(&self, partition: PartitionId, offset: i64) -> Membership {
        self.partitions[partition.0].lookup(offset)
    }

    /// Advances the partition past a record that is stored now. Returns false if it was stored before.
    pub(crate) fn advance_past(&mut self, partition: PartitionId, offset: i64) -> bool {
        let is_new = self.lookup(partition, offset) != Membership::Stored;
        self.connect(partition, offset);
        self.cover(partition, offset, offset.saturating_add(1));
        self.partitions[partition.0].position = Some(offset.saturating_add(1));
        is_new
    }

    /// Advances the partition past a record that was stored before.
    pub(super) fn pass_duplicate(&mut self, partition: PartitionId, offset: i64) {
        let known = &self.partitions[partition.0];
        if known.has_no_gaps && known.position.is_some_and(|position| position < offset) {
            self.connect(partition, offset);
        }
        self.partitions[partition.0].position = Some(offset.saturating_add(1));
    }

    /// Advances the partition past a record that was not stored.
    pub(super) fn pass_over(&mut self, partition: PartitionId, offset: i64) {
        self.connect(partition, offset);
        self.partitions[partition.0].position = Some(offset.saturating_add(1));
    }

    /// Makes the range before a record the one that is being read: the one that ends there, or an empty one after a gap.
    pub(super) fn connect(&mut self, partition: PartitionId, offset: i64) {
        let from = self.partitions[partition.0].connected_from(offset);
        self.cover(partition, from, offset);
    }

    fn cover(&mut self, partition: PartitionId, from: i64, to: i64) {
        let left = self.partitions[partition.0].cover(from, to);
        self.unwritten_ranges.extend(left);
    }

    /// Declares that records may be missing before the next one.
    pub(crate) fn expect_gap(&mut self, partition: PartitionId) {
        self.partitions[partition.0].position = None;
    }

    /// Records that the consumer group has committed offsets.
    pub(crate) fn record_commits(&mut self, commits: &[OffsetCommit]) {
        for commit in commits {
            let state = &mut self.partitions[commit.partition.0].state;
            state.acknowledged = state.acknowledged.max(commit.next_offset);
        }
    }

    /// Records that a partition was revoked.
    pub(crate) fn unassign(&mut self, partition: PartitionId) {
        self.partitions[partition.0].is_assigned = false;
    }
}
