//! The partitions that this process reads: their next offsets and committed offsets.

use super::{Ledger, OffsetCommit};
use crate::cc::vault::checkpoint::PartitionCheckpoint;
use crate::runtime::time::rfc3339_now;

/// A partition that this process reads.
#[derive(Clone, Debug)]
pub(super) struct LedgerPartition {
    pub state: PartitionCheckpoint,
    pub is_assigned: bool,
    /// Whether the records come from a dump. There is no consumer group, so offsets count as committed when
    /// they are durable.
    pub is_dump: bool,
    /// Whether the next record may follow a gap in the offsets.
    pub expects_gap: bool,
}

/// Index of a partition. It is valid for the lifetime of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PartitionId(pub(super) usize);

impl LedgerPartition {
    pub(super) fn new(topic: &str, topic_id: Option<&str>, partition: i32) -> LedgerPartition {
        LedgerPartition::from(PartitionCheckpoint {
            topic: topic.to_owned(),
            topic_id: topic_id.map(str::to_owned),
            partition,
            ..PartitionCheckpoint::default()
        })
    }
}

impl From<PartitionCheckpoint> for LedgerPartition {
    fn from(state: PartitionCheckpoint) -> LedgerPartition {
        LedgerPartition { state, is_assigned: false, is_dump: false, expects_gap: false }
    }
}

impl Ledger {
    /// Assigns a partition. Returns its id and the offset to read from. `committed` is the offset committed
    /// by the consumer group. It wins if another member has read further.
    pub(crate) fn assign(
        &mut self,
        topic: &str,
        topic_id: Option<&str>,
        partition: i32,
        committed: Option<i64>,
    ) -> (PartitionId, Option<i64>) {
        let known = self
            .partitions
            .iter()
            .position(|known| known.state.topic == topic && known.state.partition == partition);
        let at = known.unwrap_or_else(|| {
            self.partitions.push(LedgerPartition::new(topic, topic_id, partition));
            self.partitions.len() - 1
        });
        let LedgerPartition { state, is_assigned: assigned, is_dump, .. } = &mut self.partitions[at];
        (*assigned, *is_dump) = (true, false);
        if let (Some(was), Some(is)) = (&state.topic_id, topic_id)
            && was != is
        {
            log::warn!(
                "topic_recreated topic={topic} partition={partition} note=\"reading its records from the start\""
            );
            self.restart_at(PartitionId(at), 0);
            self.partitions[at].state.topic_id = Some(is.to_owned());
            return (PartitionId(at), Some(0));
        }
        if state.topic_id.is_none() {
            state.topic_id = topic_id.map(str::to_owned);
        }
        let stored = known.map(|_| state.next_offset);
        let start = stored.max(committed);
        if start > stored {
            self.read_ranges.extend(state.read_range());
            state.start_at(start, true, rfc3339_now());
        }
        if start.is_some() {
            state.acknowledged = committed.unwrap_or(0);
        }
        (PartitionId(at), start)
    }

    /// Continues a partition at another offset: a lower one if the topic was recreated and its offsets now
    /// belong to new records, or a higher one after records that the broker no longer has.
    pub(crate) fn restart_at(&mut self, partition: PartitionId, offset: i64) {
        let state = &mut self.partitions[partition.0].state;
        self.read_ranges.extend(state.read_range());
        state.start_at(Some(offset), false, rfc3339_now());
        // The committed offset of the group may be lower as well.
        state.acknowledged = 0;
    }

    /// Returns the topic, partition and offsets.
    pub(crate) fn partition(&self, partition: PartitionId) -> &PartitionCheckpoint {
        &self.partitions[partition.0].state
    }

    /// Advances the partition past a record. Returns false if it was already past it.
    pub(crate) fn advance_past(&mut self, partition: PartitionId, offset: i64) -> bool {
        self.start_read_range(partition, offset);
        let next = &mut self.partitions[partition.0].state.next_offset;
        let new = offset >= *next;
        if new {
            *next = offset + 1;
        }
        new
    }

    /// Starts a new range of offsets at the first record of a partition, or after a gap.
    pub(super) fn start_read_range(&mut self, partition: PartitionId, offset: i64) {
        let LedgerPartition { state, expects_gap: jumps, .. } = &mut self.partitions[partition.0];
        let is_behind_gap = std::mem::take(jumps) && offset > state.next_offset;
        if state.first_offset.is_none() || is_behind_gap {
            self.read_ranges.extend(state.read_range());
            state.start_at(Some(offset), false, rfc3339_now());
        }
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
