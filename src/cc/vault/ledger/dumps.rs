//! What the ledger knows of partitions that come from dumps: which offsets the folder has never had, and dumps that say
//! nothing of partitions.

use super::{Ledger, Partition, PartitionId};
use crate::cc::vault::checkpoint::ReadRange;

/// Dumps without partitions that are remembered, the last ones.
const DUMPS_MAX: usize = 256;

impl Ledger {
    /// Takes a partition up for records of a dump. With an `id` the partition is that of this one dump, whatever other
    /// dumps say.
    pub fn take_up(&mut self, topic: &str, partition: i32, id: Option<&str>) -> PartitionId {
        let is = |known: &Partition| {
            let state = &known.state;
            let same = id.is_none() || state.topic_id.as_deref() == id;
            same && state.partition == partition && state.topic == topic
        };
        let found = self.partitions.iter().position(is);
        let at = found.unwrap_or_else(|| {
            self.partitions.push(Partition::new(topic, id, partition));
            self.partitions.len() - 1
        });
        self.partitions[at].is_dump = true;
        self.expect_gap(PartitionId(at));
        PartitionId(at)
    }

    /// Another dump begins: the partition's next record may leave out some.
    pub fn expect_gap(&mut self, partition: PartitionId) {
        self.partitions[partition.0].jumps = true;
    }

    /// True if a record below the partition's next offset was never taken: the folder's records begin behind it, or
    /// leave it out.
    pub fn was_passed_over(&self, partition: PartitionId, offset: i64) -> bool {
        let state = &self.partitions[partition.0].state;
        let is_of = |read: &&ReadRange| {
            (&read.topic, read.partition, &read.topic_id) == (&state.topic, state.partition, &state.topic_id)
        };
        let has = |read: &ReadRange| (read.first_offset..read.next_offset).contains(&offset);
        !self.reads.iter().filter(is_of).any(has) && !state.read().is_some_and(|read| has(&read))
    }
}

/// Forgets dumps without partitions, if they are many; the first ones first.
pub(super) fn forget_old(partitions: &mut Vec<Partition>) {
    let is_dump = |known: &Partition| known.state.topic.is_empty();
    let mut surplus = partitions.iter().filter(|known| is_dump(known)).count().saturating_sub(DUMPS_MAX);
    partitions.retain(|known| {
        let forgotten = surplus > 0 && is_dump(known);
        surplus -= usize::from(forgotten);
        !forgotten
    });
}
