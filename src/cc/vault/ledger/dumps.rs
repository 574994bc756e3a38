//! Partitions of Kafka dumps in the ledger, and dumps without partition numbers.

use super::{Ledger, LedgerPartition, PartitionId};

/// Limit on the remembered dumps without partition numbers. The oldest ones are forgotten.
const DUMPS_MAX: usize = 256;

impl Ledger {
    /// Adds a partition of a dump, or finds it if it is known. With an `id` the partition belongs to this
    /// dump only. `has_no_gaps`: offsets that the dump lacks do not exist.
    pub(crate) fn add_dump_partition(
        &mut self,
        topic: &str,
        partition: i32,
        id: Option<&str>,
        has_no_gaps: bool,
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
        (self.partitions[at].is_dump, self.partitions[at].has_no_gaps) = (true, has_no_gaps);
        self.expect_gap(PartitionId(at));
        PartitionId(at)
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
