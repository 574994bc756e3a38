//! Partitions of Kafka dumps in the ledger: which offsets the directory has never had, and dumps without
//! partition numbers.

use super::{Ledger, LedgerPartition, PartitionId};
use crate::cc::vault::checkpoint::ReadRange;

/// Limit on the remembered dumps without partition numbers. The oldest ones are forgotten.
const DUMPS_MAX: usize = 256;

impl Ledger {
    /// Adds a partition of a dump, or finds it if it is known. With an `id` the partition belongs to this
    /// dump only.
    pub(crate) fn add_dump_partition(
        &mut self,
        topic: &str,
        partition: i32,
        id: Option<&str>,
    ) -> PartitionId {
        let is = |known: &LedgerPartition| {
            let state = &known.state;
            let same = id.is_none() || state.topic_id.as_deref() == id;
            same && state.partition == partition && state.topic == topic
        };
        let found = self.partitions.iter().position(is);
        let at = found.unwrap_or_else(|| {
            self.partitions.push(LedgerPartition::new(topic, id, partition));
            self.partitions.len() - 1
        });
        self.partitions[at].is_dump = true;
        self.expect_gap(PartitionId(at));
        PartitionId(at)
    }

    /// Declares that another dump starts, so the next record of the partition may follow a gap.
    pub(crate) fn expect_gap(&mut self, partition: PartitionId) {
        self.partitions[partition.0].expects_gap = true;
    }

    /// Returns whether a record below the partition's next offset was never accepted, because it is before
    /// the first offset or in a gap.
    pub(crate) fn was_skipped(&self, partition: PartitionId, offset: i64) -> bool {
        let state = &self.partitions[partition.0].state;
        let is_of = |read: &&ReadRange| {
            (&read.topic, read.partition, &read.topic_id) == (&state.topic, state.partition, &state.topic_id)
        };
        let has = |read: &ReadRange| (read.first_offset..read.next_offset).contains(&offset);
        !self.read_ranges.iter().filter(is_of).any(has) && !state.read_range().is_some_and(|read| has(&read))
    }
}

/// Forgets the oldest dumps without partition numbers when there are too many.
pub(super) fn forget_oldest_dumps(partitions: &mut Vec<LedgerPartition>) {
    let is_dump = |known: &LedgerPartition| known.state.topic.is_empty();
    let mut surplus = partitions.iter().filter(|known| is_dump(known)).count().saturating_sub(DUMPS_MAX);
    partitions.retain(|known| {
        let forgotten = surplus > 0 && is_dump(known);
        surplus -= usize::from(forgotten);
        !forgotten
    });
}
